"""Fetching: pages a few at a time, in order, until the declared total is in."""

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import dagster as dg
import tenacity

from randusers_assets.flattening import Flat
from randusers_assets.pages import (
    Drift,
    Page,
    Plan,
    Refused,
    Unreadable,
    check_page,
    plan_of,
    read_page,
)
from randusers_assets.readers import PageReaders
from randusers_assets.snapshots import FetchFacts, RawUsers, read_once
from randusers_assets.spool import Spool, disk_full_named

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
CHUNK_BYTES = 1 << 18
PAGE_TRIES, SNAPSHOT_TRIES = 5, 3
# What raw, flat and CSV take on the disk together, to raw alone: 4.9, rounded up.
SPOOLS_TO_RAW = 5
# Fewer pages are read before processes that read have started.
READERS_FROM_PAGES = 50


class Fault(Exception):
    """A passing fault; `wait_seconds` is what the server asked for, if it did."""

    def __init__(self, phrase: str, wait_seconds: float | None = None) -> None:
        super().__init__(phrase)
        self.wait_seconds = wait_seconds


def shown(url: str) -> str:
    """A URL without a user, a password or a query, for logs and errors."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a password with a slash or a bracket makes it hard to say which part is it
        return "The API's URL"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Fetch:
    """One snapshot's connections, counters, pace and deadline, shared by its threads."""

    def __init__(self, url: str, concurrency: int, deadline_seconds: float) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self.url, self.concurrency = url, concurrency
        self.session = requests.Session()
        self.session.headers["User-Agent"] = f"randusers-assets/{version('randusers-assets')}"
        # A netrc file on the machine is not meant for this API, nor to be read for every page.
        if "@" not in url:
            self.session.auth = lambda request: request
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=concurrency))
        self.deadline_seconds = deadline_seconds
        self.deadline = time.monotonic() + deadline_seconds
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.tries, self.retries, self.waited, self.bytes = 0, 0, 0.0, 0
        self.read: Callable[[bytes], Page] = read_page
        self.readers = 0
        self.remaining: float | None = None
        self.window_ends = self.next_slot = 0.0

    def __enter__(self) -> "Fetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def snapshot(self, page_size: int, progress: Callable[[int, int], None]) -> RawUsers:
        """Read the whole API, from the start again on drift; see `RandomUsersApi.snapshot`."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(SNAPSHOT_TRIES),
            wait=tenacity.wait_exponential_jitter(max=30),
            retry=tenacity.retry_if_exception_type(Drift),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(self.whole, page_size, progress)
        except Drift as drift:
            raise dg.Failure(
                f"{shown(self.url)}: the data kept changing while it was read, {SNAPSHOT_TRIES}"
                f" times; at last on {drift}. Nothing is kept: run again when the API is at rest.",
            ) from drift

    def whole(self, page_size: int, progress: Callable[[int, int], None]) -> RawUsers:
        """Read all pages once, into a spool.

        Raises:
            Drift: a page does not fit the plan, or a user came twice.
        """
        self.tries += 1
        first = self.page(1, page_size)
        plan = plan_of(first)
        if plan.total == 0:
            raise dg.Failure(
                f"{shown(self.url)} declares zero users: an empty snapshot is never published;"
                " check RANDUSERS_API_URL.",
                allow_retries=False,
            )
        spool = Spool(expected_bytes=SPOOLS_TO_RAW * len(first.pressed) * plan.pages)
        with (
            disk_full_named(),
            spool.writer() as file,
            self.with_readers(plan),
            contextlib.closing(self.pages(first, plan)) as pages,
        ):

            def flats() -> Iterator[Flat]:
                for number, page in enumerate(pages, 1):
                    check_page(page, number, plan)
                    file.write(page.pressed)
                    logger.debug("page %d of %d", number, plan.pages)
                    progress(number, plan.pages)
                    yield page.flat

            reading = read_once(flats(), lambda: (self.facts(plan), spool.sha256))
        if reading.repeated is not None:
            place, user = reading.repeated
            page = place // plan.page_size + 1
            raise Drift(page, "id", "users not sent before", f"user {user} again")
        return RawUsers(spool, self.facts(plan), reading)

    @contextlib.contextmanager
    def with_readers(self, plan: Plan) -> Iterator[None]:
        """Read pages in processes of their own where there are many."""
        if plan.pages < READERS_FROM_PAGES:
            yield
            return
        with PageReaders(at_most=self.concurrency) as readers:
            self.read, self.readers = readers.read, len(readers.processes)
            try:
                yield
            finally:
                self.read, self.readers = read_page, 0

    def facts(self, plan: Plan) -> FetchFacts:
        """How the fetch went so far."""
        return FetchFacts(
            url=shown(self.url),
            declared=plan.total,
            pages=plan.pages,
            page_size=plan.page_size,
            tries=self.tries,
            retries=self.retries,
            waited_seconds=round(self.waited, 3),
            bytes=self.bytes,
            fetched_at=self.started,
        )

    def pages(self, first: Page, plan: Plan) -> Generator[Page, None, None]:
        """Yield the plan's pages in order, `concurrency` of them in flight, as many landed."""
        yield first
        ahead: deque[Future[Page]] = deque()
        flights = ThreadPoolExecutor(self.concurrency, thread_name_prefix="flight")
        # One more than there are processes to read, so that none waits for its next page.
        readings = ThreadPoolExecutor(self.readers + 1, thread_name_prefix="reading")
        try:
            for number in range(2, plan.pages + 1):
                flight = partial(flights.submit, self.body, number, plan.page_size)
                bodies = (landed.result() for landed in chain([flight()], iter(flight, None)))
                ahead.append(readings.submit(self.page, number, plan.page_size, bodies))
                if len(ahead) >= 2 * self.concurrency:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            self.stopped.set()  # ends the waits of pages that nobody will read
            readings.shutdown(wait=False, cancel_futures=True)
            flights.shutdown(cancel_futures=True)
            readings.shutdown()
            self.stopped.clear()

    def page(self, number: int, limit: int, bodies: Iterator[bytes] | None = None) -> Page:
        """Read one page from its body, or from the next of its bodies if that is not a page.

        Raises:
            dagster.Failure: as `body`; or the API refused, or sent something else every time.
        """
        bodies = bodies or starmap(self.body, repeat((number, limit)))
        where = f"{shown(self.url)}?page={number}&limit={limit}"
        try:
            return self.retrying(Unreadable)(lambda: self.read(next(bodies)))
        except Refused as refusal:
            raise dg.Failure(
                f"{where} answered success: false ({str(refusal)[:200]!r}):"
                " check RANDUSERS_API_URL and the API's status.",
                allow_retries=False,
            ) from refusal
        except Unreadable as unreadable:
            raise dg.Failure(
                f"{where} answered with something else than users, {PAGE_TRIES} times:"
                f" {unreadable}; check RANDUSERS_API_URL."
            ) from unreadable

    def body(self, number: int, limit: int) -> bytes:
        """The body of one page, tried again on passing faults.

        Raises:
            dagster.Failure: a fault that did not pass, a client error, or the deadline.
        """
        try:
            return self.retrying(Fault)(self.get, number, limit)
        except Fault as fault:
            raise dg.Failure(
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
            dagster.Failure: either of the two.
        """
        if time.monotonic() + seconds > self.deadline:
            raise dg.Failure(
                f"{shown(self.url)}: the next try would be in {seconds:.0f} s, past the snapshot's"
                f" deadline of {self.deadline_seconds:g} s: run again later."
            )
        with self.lock:
            self.waited += seconds
        if self.stopped.wait(seconds):
            raise dg.Failure(f"{shown(self.url)}: the snapshot was given up.")

    def count_retry(self, state: tenacity.RetryCallState) -> None:
        """Count a try that failed, and say why it did."""
        with self.lock:
            self.retries += 1
        error = state.outcome.exception() if state.outcome else None
        logger.info("%s: %s; trying again", shown(self.url), error)

    def pace(self) -> None:
        """Spread the last requests of a rate-limit window over what is left of it."""
        with self.lock:
            now = time.monotonic()
            if self.remaining is None or self.remaining > 2 * self.concurrency:
                return
            gap = max(0.0, self.window_ends - now) / (self.remaining + 1)
            self.next_slot = max(now, self.next_slot) + gap
            pause = self.next_slot - now
        if pause > 0:
            self.sleep(pause)

    def get(self, number: int, limit: int) -> bytes:
        """One GET, its body whole.

        Raises:
            Fault: a fault that may pass.
            dagster.Failure: a client error other than 429, or the deadline.
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
            raise dg.Failure(
                f"{shown(self.url)} is not a URL that can be asked"
                f" ({type(error).__name__}): check RANDUSERS_API_URL.",
                allow_retries=False,
            ) from None

    def whole_body(self, response: "requests.Response") -> bytes:
        """The whole body, decoded; the deadline is looked at between its chunks."""
        chunks = []
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            if self.stopped.is_set() or time.monotonic() > self.deadline:
                raise dg.Failure(
                    f"{shown(self.url)}: the snapshot's deadline of {self.deadline_seconds:g} s"
                    " is over: run again later."
                )
        body = b"".join(chunks)
        with self.lock:
            self.bytes += len(body)
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
        raise dg.Failure(
            f"{where} answered HTTP {status}: check RANDUSERS_API_URL.", allow_retries=False
        )


def _number(response: "requests.Response", header: str) -> float | None:
    try:
        return max(0.0, float(response.headers.get(header, "")))
    except ValueError:
        return None
