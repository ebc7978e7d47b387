"""Time limits on whole transfers: a socket's timeout is for each byte, so a slow one has none."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

import urllib3
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError, ResponseStreamingError
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

CONNECT_SECONDS = 10.0  # also for each 16 KiB that is sent
READ_SECONDS = 30.0  # for the first byte of an answer, and from one to the next
TRANSFER_SECONDS = 30.0  # for a request with its answer, or for a body, and
BYTES_PER_SECOND = 128 * 1024  # this much time for its size
ASSEMBLY_SECONDS = 600.0  # for S3 to assemble parts, while its answer is spaces

_sending = threading.local()  # `connections` that this thread's request uses


class _NotedConnection(HTTPConnection):
    """A connection whose socket the time limit can find; no public way leads to it."""

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        _sending.connections.append(self)
        super().request(*args, **kwargs)


def seconds_for(size: int) -> float:
    """How long it may take to send or receive so many bytes."""
    return TRANSFER_SECONDS + size / BYTES_PER_SECOND


def limit_requests(client: "S3Client") -> None:
    """End each try of a request whose answer, less a streamed body, is not in within its limit."""
    session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    # Without it, headers would have no more than the socket's timeout.
    pools = getattr(session, "_pool_classes_by_scheme", {})
    for scheme, pool in pools.items():
        noted = type("Noted", (_NotedConnection, pool.ConnectionCls), {})
        pools[scheme] = type("NotedPool", (pool,), {"ConnectionCls": noted})

    def send(request: Any, event_name: str, **_: object) -> Any:  # noqa: ANN401  # botocore has no types
        connections: list[HTTPConnection] = []
        _sending.connections = connections
        limit = seconds_for(int(request.headers.get("Content-Length", 0)))
        limit += ASSEMBLY_SECONDS if event_name.endswith(".CompleteMultipartUpload") else 0
        with _after(limit, lambda: [one.sock.shutdown(SHUT_RDWR) for one in connections]) as over:
            try:
                answer = session.send(request)
                if answer.status_code >= 300:
                    _ = answer.content  # botocore would read an error's body later
            except urllib3.exceptions.HTTPError as error:
                raise ConnectionClosedError(endpoint_url=request.url) from error
            finally:
                if over.is_set():  # headers that end early are no error to http.client
                    raise ReadTimeoutError(endpoint_url=request.url)
            return answer

    client.meta.events.register("before-send.s3", send)


def read_within(seconds: float, body: "StreamingBody", chunk_bytes: int) -> Iterator[bytes]:
    """Read a body in chunks; ReadTimeoutError once its reads have taken so many seconds."""
    with contextlib.closing(body):
        while True:
            started = time.monotonic()
            # Ends with the byte that is waited for.
            with _after(seconds, lambda: body.set_socket_timeout(0.001)):
                try:
                    chunk: bytes = body.read(chunk_bytes)
                except urllib3.exceptions.HTTPError as error:  # for example TLS's
                    raise ResponseStreamingError(error=error) from error
            if not chunk:
                return
            seconds -= time.monotonic() - started
            yield chunk


@contextlib.contextmanager
def _after(seconds: float, end: Callable[[], object]) -> Iterator[threading.Event]:
    """Call `end` on another thread, and set the event, if the context lasts so many seconds."""
    over = threading.Event()

    def run() -> None:
        over.set()
        with contextlib.suppress(OSError, AttributeError):  # it ended in this moment
            end()

    timer = threading.Timer(max(seconds, 0), run)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()
