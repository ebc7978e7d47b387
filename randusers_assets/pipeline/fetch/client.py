"""Downloading pages: connections, retries, pace and deadline."""

import contextlib
import logging
import math
import operator
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import tenacity
import urllib3

from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.connections import ApiSession, end_reads_at
from randusers_assets.pipeline.fetch.pages import BadData, Page, Refused, Unreadable, read_page
from randusers_assets.pipeline.fetch.rate_limit import read_rate_limit, read_retry_after

logger = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
PAGE_SECONDS = 120.0  # for one try: connection, head and body
CHUNK_BYTES = 1 << 18
# The most that a page may take in memory, beside so much for each of its rows.
PAGE_BYTES, ROW_BYTES = 1 << 20, 1 << 16
PAGE_TRIES = 5


class TransientError(Exception):
    """A failed download that may succeed; the server asked to wait `wait_seconds`, if finite."""

    def __init__(
        self,
        phrase: str,
        wait_seconds: float = math.inf,
        advice: str = "check RANDUSERS_API_URL and that the API is up",
    ) -> None:
        super().__init__(phrase)
        self.wait_seconds, self.advice = wait_seconds, advice


class Tally(NamedTuple):
    """What downloading took: failed tries, seconds waited before the next, bytes."""

    retries: int = 0
    waited: float = 0.0
    bytes: int = 0


def redact_url(url: str) -> str:
    """A URL without a user, a password or a query, for logs and errors."""
    with contextlib.suppress(ValueError):  # of `port`, too
        parts = urlsplit(url)
        if parts.port != 0 and "@" not in parts.path:
            return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return "The API's URL"  # with a slash in the password, say: no telling where that ends


@dataclass(frozen=True)
class Api:
    """Where the API is and how to download from it."""

    url: str = field(repr=False)  # it may hold a password
    page_size: int = 500
    concurrency: int = 8
    deadline_seconds: float = 3600
    token: str = field(default="", repr=False)


class ApiClient(contextlib.AbstractContextManager["ApiClient"]):
    """One process's connections, tally, pace and deadline, shared by its threads."""

    def __init__(self, api: Api, contract: Contract) -> None:
        self.api, self.contract, self.url = api, contract, redact_url(api.url)
        if api.token and any(requests.utils.get_auth_from_url(api.url)):
            raise SnapshotError(
                "RANDUSERS_API_TOKEN is set and RANDUSERS_API_URL has a user: remove one of them."
            )
        self.session = ApiSession(api.concurrency, api.token)
        self.session.headers["User-Agent"] = f"randusers-assets/{version('randusers-assets')}"
        self.deadline = time.monotonic() + api.deadline_seconds
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.tally = Tally()
        self.processes = 1  # how many share the API's rate limit
        self.remaining, self.window_ends, self.next_slot = math.inf, 0.0, 0.0

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def count(self, more: Tally) -> None:
        """Add to the tally."""
        with self.lock:
            self.tally = Tally(*map(operator.add, self.tally, more))

    def take_tally(self) -> Tally:
        """The tally since the last call."""
        with self.lock:
            tally, self.tally = self.tally, Tally()
            return tally

    def pages(self, numbers: Iterable[int], limit: int) -> Generator[Page, None, None]:
        """Yield pages in order, prefetching at most `2 * concurrency`."""
        with self.page_requests() as request:
            results = (request(number, limit).result for number in numbers)
            yield from prefetch(results, 2 * self.api.concurrency)

    @contextlib.contextmanager
    def page_requests(self) -> Iterator[Callable[[int, int], "Future[Page]"]]:
        """Give a function that requests a page by number and limit; `concurrency` load at once."""
        downloads = ThreadPoolExecutor(self.api.concurrency)
        decoding = ThreadPoolExecutor(1)  # the GIL would serialize it anyway

        def request(number: int, limit: int) -> "Future[Page]":
            download = partial(downloads.submit, self._body, number, limit)
            bodies = map(Future.result, chain([download()], iter(download, None)))
            return decoding.submit(self.page, number, limit, bodies)

        try:
            yield request
        finally:
            self.stopped.set()  # ends the waits of pages that nobody will use
            decoding.shutdown(wait=False, cancel_futures=True)
            downloads.shutdown(cancel_futures=True)
            decoding.shutdown()
            self.stopped.clear()

    def page(self, number: int, limit: int, bodies: Iterator[bytes] | None = None) -> Page:
        """Decode one page from its body, or from the next of its bodies if that is not a page."""
        bodies = bodies or iter(partial(self._body, number, limit), None)
        where = self._where(number, limit)
        try:
            return self._retrying(Unreadable)(lambda: read_page(next(bodies), self.contract))
        except Refused as refusal:
            raise SnapshotError(
                f"{where} answered success: false: check RANDUSERS_API_URL and the API's status."
            ) from refusal
        except BadData as bad:
            raise SnapshotError(
                f"{where}: {bad}: tell the API's owner, or adapt contract.py."
            ) from bad
        except Unreadable as unreadable:
            raise SnapshotError(
                f"{where} did not answer with a page, {PAGE_TRIES} times: {unreadable};"
                " check RANDUSERS_API_URL, or tell the API's owner.",
                retryable=True,
            ) from unreadable
        except TransientError as error:
            raise SnapshotError(
                f"{where}: {error}, {PAGE_TRIES} times: {error.advice}.", retryable=True
            ) from error

    def _body(self, number: int, limit: int) -> bytes:
        return self._retrying(TransientError)(self._get, number, limit)

    def _where(self, number: int, limit: int) -> str:
        paging = self.contract.paging
        return f"{self.url}?{paging.page}={number}&{paging.limit}={limit}"

    def _retrying(self, transient: type[Exception]) -> tenacity.Retrying:
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(PAGE_TRIES),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(transient),
            sleep=self.sleep,
            before_sleep=self._count_retry,
            reraise=True,
        )

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        self.count(Tally(retries=1))
        logger.info("%s: %s; trying again", self.url, state.outcome and state.outcome.exception())

    def sleep(self, seconds: float) -> None:
        """Wait; SnapshotError if that would pass the deadline, or when the fetch ends."""
        if time.monotonic() + seconds > self.deadline:
            raise SnapshotError(
                f"{self.url}: the next try would be in {seconds:.0f} s, past the"
                f" deadline of {self.api.deadline_seconds:g} s: run again later.",
                retryable=True,
            )
        self.count(Tally(waited=seconds))
        if self.stopped.wait(seconds):
            raise SnapshotError(f"{self.url}: the fetch was stopped.", retryable=True)

    def pace(self) -> None:
        """Spread the last requests of a rate-limit window over the rest of it."""
        with self.lock:
            now = time.monotonic()
            if self.remaining > 2 * self.api.concurrency * self.processes:
                return
            gap = max(0.0, self.window_ends - now) / (self.remaining + 1) * self.processes
            self.next_slot = max(now, self.next_slot) + gap
            pause = self.next_slot - now
        if pause > 0:
            self.sleep(pause)

    def _get(self, number: int, limit: int) -> bytes:
        self.pace()
        where = self._where(number, limit)
        query = {self.contract.paging.page: number, self.contract.paging.limit: limit}
        started = time.monotonic()
        total = max(min(PAGE_SECONDS, self.deadline - started), 0.001)
        timeout = (min(CONNECT_SECONDS, total), min(READ_SECONDS, total))
        end_reads_at(started + total)
        try:
            with self.session.get(self.api.url, params=query, timeout=timeout) as response:
                self._accept(response, where)
                return self._whole_body(response, where, limit)
        # None is raised from the error: its own text may hold the URL's password or query.
        except requests.ConnectTimeout:
            raise TransientError(f"no connection within {timeout[0]:.3g} s") from None
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError):
            if time.monotonic() < started + total:
                raise TransientError(f"no answer within {timeout[1]:.3g} s") from None
            raise TransientError(f"no whole answer within {total:.3g} s") from None
        except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
            raise _connection_error(error, where) from None
        except requests.RequestException as error:
            raise SnapshotError(
                f"{self.url} is not a valid URL ({type(error).__name__}): check RANDUSERS_API_URL."
            ) from None
        except OSError:
            raise SnapshotError(
                f"{self.url}: the file of CA certificates cannot be read: correct"
                " REQUESTS_CA_BUNDLE."
            ) from None

    def _accept(self, response: requests.Response, where: str) -> None:
        """Accept 200 only, and remember the rate limit that any status comes with."""
        rate, retry_after = read_rate_limit(response.headers), read_retry_after(response.headers)
        if max(rate) < math.inf:
            with self.lock:
                self.remaining, self.window_ends = rate.remaining, time.monotonic() + rate.reset
        status = response.status_code
        if status == 429:
            raise TransientError("HTTP 429", min(retry_after, rate.reset))
        if status >= 500:
            raise TransientError(f"HTTP {status}", retry_after)
        if 300 <= status < 400:
            raise SnapshotError(
                f"{where} answered HTTP {status}, a redirect to {_redirect_host(response)}:"
                " set RANDUSERS_API_URL to the final URL."
            )
        if status != 200:
            raise SnapshotError(f"{where} answered HTTP {status}: check RANDUSERS_API_URL.")

    def _whole_body(self, response: requests.Response, where: str, limit: int) -> bytes:
        chunks, size, most = [], 0, PAGE_BYTES + limit * ROW_BYTES
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise SnapshotError(
                    f"{where} answered with more than {most:,} bytes: check RANDUSERS_API_URL,"
                    " or tell the API's owner."
                )
            if self.stopped.is_set():
                raise SnapshotError(f"{self.url}: the fetch was stopped.", retryable=True)
        self.count(Tally(bytes=size))
        return b"".join(chunks)


def _connection_error(error: BaseException, where: str) -> Exception:
    """What a failed connection is told as: TLS by its reason, all else alike."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SnapshotError(
            f"{where}: the API's TLS certificate is not valid here"
            f" ({cause.verify_message.rstrip('.')}): point REQUESTS_CA_BUNDLE to the file of its"
            " CA, or correct the host of RANDUSERS_API_URL."
        )
    if cause is None or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransientError("the connection was refused or broken")
    return TransientError(
        f"no TLS connection ({cause.reason or 'unknown reason'})",
        advice="check the scheme of RANDUSERS_API_URL, and REQUESTS_CA_BUNDLE",
    )


def _redirect_host(response: requests.Response) -> str:
    """The host that a redirect leads to, without path, query or user."""
    with contextlib.suppress(ValueError):
        host = urlsplit(urljoin(response.url, response.headers.get("Location", ""))).hostname
        return host or "no host"
    return "an unreadable URL"


def prefetch(results: Iterator[Callable[[], Page]], depth: int) -> Generator[Page, None, None]:
    """Yield what each call returns, in order; taking a call starts its work, `depth` at once."""
    ahead = deque(islice(results, depth))
    while ahead:
        yield ahead.popleft()()
        ahead.extend(islice(results, 1))


def _wait(state: tenacity.RetryCallState) -> float:
    """The wait that the server asked for, else exponential backoff; with jitter."""
    asked: float = getattr(state.outcome and state.outcome.exception(), "wait_seconds", math.inf)
    backoff = tenacity.wait_exponential(multiplier=0.5, max=30)(state)
    return (asked if asked < math.inf else backoff) + random.uniform(0, 1)  # noqa: S311  # jitter is no secret
