"""Fetching pages: connections, retries, pace and deadline.

Nothing here needs Dagster, so that a process that fetches starts fast; see fetchers.py.
"""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import tenacity

from randusers_assets.pipeline.fetch.pages import Page, Refused, Unreadable, read_page

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
CHUNK_BYTES = 1 << 18
PAGE_TRIES = 5


class Fault(Exception):
    """A passing fault; `wait_seconds` is what the server asked for, if it did."""

    def __init__(self, phrase: str, wait_seconds: float | None = None) -> None:
        super().__init__(phrase)
        self.wait_seconds = wait_seconds


class Unfetched(Exception):
    """A page that is not to be had, in one sentence; `final` where a later try cannot help."""

    def __init__(self, sentence: str, *, final: bool = False) -> None:
        super().__init__(sentence)
        self.final = final


class Tally(NamedTuple):
    """What fetching took: tries that failed, seconds waited before the next, bytes."""

    retries: int = 0
    waited: float = 0.0
    bytes: int = 0


def shown(url: str) -> str:
    """A URL without a user, a password or a query, for logs and errors."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a password with a slash or a bracket makes it hard to say which part is it
        return "The API's URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Fetch:
    """One process's connections, tally, pace and deadline, shared by its threads.

    `left` is what is left of the deadline, `processes` how many share the API's rate limit.
    """

    def __init__(
        self,
        url: str,
        concurrency: int,
        deadline_seconds: float,
        *,
        left: float | None = None,
        processes: int = 1,
    ) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self.url, self.concurrency, self.processes = url, concurrency, processes
        self.session = requests.Session()
        self.session.headers["User-Agent"] = f"randusers-assets/{version('randusers-assets')}"
        # A netrc file on the machine is not meant for this API, nor to be read for every page.
        if "@" not in url:
            self.session.auth = lambda request: request
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=concurrency))
        self.deadline_seconds = deadline_seconds
        self.deadline = time.monotonic() + (deadline_seconds if left is None else left)
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.tally = Tally()
        self.remaining: float | None = None
        self.window_ends = self.next_slot = 0.0

    def __enter__(self) -> "Fetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def count(self, more: Tally) -> None:
        """Add to the tally."""
        with self.lock:
            retries, waited, size = self.tally
            self.tally = Tally(retries + more.retries, waited + more.waited, size + more.bytes)

    def counted(self) -> Tally:
        """The tally since this was asked last."""
        with self.lock:
            tally, self.tally = self.tally, Tally()
            return tally

    def pages(self, numbers: Iterable[int], limit: int) -> Generator[Page, None, None]:
        """Yield pages in order, up to twice the `concurrency` of them asked for and not taken."""
        ahead: deque[Future[Page]] = deque()
        with self.asking() as ask:
            for number in numbers:
                ahead.append(ask(number, limit))
                if len(ahead) >= 2 * self.concurrency:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    @contextlib.contextmanager
    def asking(self) -> Iterator[Callable[[int, int], "Future[Page]"]]:
        """What asks for a page by number and limit: they fly `concurrency` at once, in order.

        Reading is apart, so that no flight waits for it, and one page after the other: threads
        that read at once would only take each other's turns.
        """
        flights = ThreadPoolExecutor(self.concurrency, thread_name_prefix="flight")
        readings = ThreadPoolExecutor(1, thread_name_prefix="reading")

        def ask(number: int, limit: int) -> "Future[Page]":
            flight = partial(flights.submit, self.body, number, limit)
            bodies = (landed.result() for landed in chain([flight()], iter(flight, None)))
            return readings.submit(self.page, number, limit, bodies)

        try:
            yield ask
        finally:
            self.stopped.set()  # ends the waits of pages that nobody will read
            readings.shutdown(wait=False, cancel_futures=True)
            flights.shutdown(cancel_futures=True)
            readings.shutdown()
            self.stopped.clear()

    def page(self, number: int, limit: int, bodies: Iterator[bytes] | None = None) -> Page:
        """Read one page from its body, or from the next of its bodies if that is not a page.

        Raises:
            Unfetched: as `body`; or the API refused, or sent something else every time.
        """
        bodies = bodies or starmap(self.body, repeat((number, limit)))
        where = f"{shown(self.url)}?page={number}&limit={limit}"
        try:
            return self.retrying(Unreadable)(lambda: read_page(next(bodies)))
        except Refused as refusal:
            raise Unfetched(
                f"{where} answered success: false ({str(refusal)[:200]!r}):"
                " check RANDUSERS_API_URL and the API's status.",
                final=True,
            ) from refusal
        except Unreadable as unreadable:
            raise Unfetched(
                f"{where} answered with something else than users, {PAGE_TRIES} times:"
                f" {unreadable}; check RANDUSERS_API_URL."
            ) from unreadable

    def body(self, number: int, limit: int) -> bytes:
        """The body of one page, asked for again after passing faults.

        Raises:
            Unfetched: a fault that did not pass, a client error, or the deadline.
        """
        try:
            return self.retrying(Fault)(self.get, number, limit)
        except Fault as fault:
            raise Unfetched(
                f"{shown(self.url)}?page={number}&limit={limit}: {fault}, {PAGE_TRIES} times:"
                " check RANDUSERS_API_URL and that the API is up."
            ) from fault

    def retrying(self, passing: type[Exception]) -> tenacity.Retrying:
        """What tries again on an error that may pass, a bounded number of times."""
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(PAGE_TRIES),
            wait=self.wait,
            retry=tenacity.retry_if_exception_type(passing),
            sleep=self.sleep,
            before_sleep=self.count_retry,
            reraise=True,
        )

    def wait(self, state: tenacity.RetryCallState) -> float:
        """What the server asked for, or else exponential backoff; with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Fault) and error.wait_seconds is not None:
            return error.wait_seconds + random.uniform(0, 1)  # noqa: S311  # jitter is no secret
        backoff = tenacity.wait_exponential(multiplier=0.5, max=30) + tenacity.wait_random(0, 1)
        return backoff(state)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the deadline would pass or the fetch is given up.

        Raises:
            Unfetched: either of the two.
        """
        if time.monotonic() + seconds > self.deadline:
            raise Unfetched(
                f"{shown(self.url)}: the next try would be in {seconds:.0f} s, past the snapshot's"
                f" deadline of {self.deadline_seconds:g} s: run again later."
            )
        self.count(Tally(waited=seconds))
        if self.stopped.wait(seconds):
            raise Unfetched(f"{shown(self.url)}: the snapshot was given up.")

    def count_retry(self, state: tenacity.RetryCallState) -> None:
        """Count a try that failed, and say why it did."""
        self.count(Tally(retries=1))
        error = state.outcome.exception() if state.outcome else None
        logger.info("%s: %s; trying again", shown(self.url), error)

    def pace(self) -> None:
        """Spread the last requests of a rate-limit window over what is left of it."""
        with self.lock:
            now = time.monotonic()
            if self.remaining is None or self.remaining > 2 * self.concurrency * self.processes:
                return
            gap = max(0.0, self.window_ends - now) / (self.remaining + 1) * self.processes
            self.next_slot = max(now, self.next_slot) + gap
            pause = self.next_slot - now
        if pause > 0:
            self.sleep(pause)

    def get(self, number: int, limit: int) -> bytes:
        """One GET, its body whole.

        Raises:
            Fault: a fault that may pass.
            Unfetched: a client error other than 429, or the deadline.
        """
        import requests
        import urllib3

        self.pace()
        query = {"page": number, "limit": limit}
        left = max(self.deadline - time.monotonic(), 0.001)
        timeout = (min(CONNECT_SECONDS, left), min(READ_SECONDS, left))
        try:
            with self.session.get(self.url, params=query, timeout=timeout, stream=True) as response:
                self.note_limits(response)
                self.refuse(response, f"{shown(self.url)}?page={number}&limit={limit}")
                return self.whole_body(response)
        # None is raised from the error: its own text may hold the URL's password or query.
        except requests.ConnectTimeout:
            raise Fault(f"no connection within {timeout[0]:.3g} s") from None
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise Fault(f"no answer within {timeout[1]:.3g} s") from None
        except (requests.ConnectionError, urllib3.exceptions.HTTPError):
            raise Fault("the connection was refused or broke off") from None
        except requests.RequestException as error:
            raise Unfetched(
                f"{shown(self.url)} is not a URL that can be asked"
                f" ({type(error).__name__}): check RANDUSERS_API_URL.",
                final=True,
            ) from None

    def whole_body(self, response: "requests.Response") -> bytes:
        """The whole body, decoded; the deadline is looked at between its chunks."""
        chunks = []
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            if self.stopped.is_set() or time.monotonic() > self.deadline:
                raise Unfetched(
                    f"{shown(self.url)}: the snapshot's deadline of {self.deadline_seconds:g} s"
                    " is over: run again later."
                )
        body = b"".join(chunks)
        self.count(Tally(bytes=len(body)))
        return body

    def note_limits(self, response: "requests.Response") -> None:
        """Remember the `RateLimit-*` headers; Reset is in seconds from now, not an epoch."""
        remaining = _number(response, "RateLimit-Remaining")
        reset = _number(response, "RateLimit-Reset")
        if remaining is not None and reset is not None:
            with self.lock:
                self.remaining, self.window_ends = remaining, time.monotonic() + reset

    def refuse(self, response: "requests.Response", where: str) -> None:
        """Let 200 pass, make 429 and 5xx a fault, and anything else the end."""
        status = response.status_code
        if status == 200:
            return
        if status == 429:
            waits = [_number(response, name) for name in ("Retry-After", "RateLimit-Reset")]
            raise Fault("HTTP 429", min((w for w in waits if w is not None), default=None))
        if status >= 500:
            raise Fault(f"HTTP {status}", _number(response, "Retry-After"))
        raise Unfetched(f"{where} answered HTTP {status}: check RANDUSERS_API_URL.", final=True)


def _number(response: "requests.Response", header: str) -> float | None:
    try:
        return max(0.0, float(response.headers.get(header, "")))
    except ValueError:
        return None
