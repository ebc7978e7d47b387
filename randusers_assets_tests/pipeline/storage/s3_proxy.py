"""A proxy before a real S3 that refuses, loses, delays or changes the requests that a rule names.

For example, `rule` of `with s3_proxy(s3_server.endpoint_url, rule) as url` can be
`lambda request: Fault(lose="answer") if request.method == "PUT" else None`.
"""

import contextlib
import http.client
import http.server
import os
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

DRIP_SECONDS = 0.05  # between two bytes
_BREAKS_A_CONNECTION = ("Connection", "Expect", "Keep-Alive", "Transfer-Encoding")


@dataclass(frozen=True)
class Request:
    """A request as the proxy got it."""

    method: str
    path: str  # decoded, without the query: "/bucket/key"
    query: str
    headers: Mapping[str, str]
    body: bytes
    number: int  # of this method and path and query, from 1
    client: str  # the address that it came from


@dataclass(frozen=True)
class Answer:
    """An answer as S3 gave it, or a made one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """What happens to a request, in this order; by default it is forwarded and answered."""

    before: Callable[[], object] = lambda: None
    hang: threading.Event | None = None  # wait for it; at the end of the proxy, reset
    # Reset before it is forwarded, before the answer or after half of its body; or end it there.
    lose: Literal["request", "answer", "body", "rest"] | None = None
    answer: Answer | None = None  # instead of forwarding the request
    after: Callable[[], object] = lambda: None
    hang_after: threading.Event | None = None
    change: Callable[[Answer], Answer] = lambda answer: answer
    drip: Literal["head", "body"] | None = None  # send it a byte at a time


Rule = Callable[[Request], Fault | None]


def error(status: int, code: str = "", message: str = "", **headers: str) -> Answer:
    """An error as S3 answers it; `x_amz_id="1"` is the header `x-amz-id`."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body.encode(), {"Content-Type": "application/xml", **named})


def corrupt(answer: Answer) -> Answer:
    """The answer with another byte in the middle of its body."""
    body, middle = bytearray(answer.body), len(answer.body) // 2
    body[middle] ^= 1
    return replace(answer, body=bytes(body))


def deny_reads(*ends: str) -> Rule:
    """A rule that answers 403 to GET and HEAD of the keys with these ends."""

    def rule(request: Request) -> Fault | None:
        denied = request.method in ("GET", "HEAD") and request.path.endswith(ends)
        return Fault(answer=error(403, "AccessDenied")) if denied else None

    return rule


class _Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = False  # wait for them as the proxy ends

    def __init__(self, endpoint_url: str, rule: Rule, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.netloc, self.rule = urlsplit(endpoint_url).netloc, rule
        self.closing, self.lock = threading.Event(), threading.Lock()
        self.counts, self.open = Counter[tuple[str, str]](), set[socket.socket]()
        self.errors: list[BaseException] = []

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002  # socketserver's signature
        """Keep an error for the test, unless a connection was only closed."""
        error = sys.exception()
        if error and not isinstance(error, (ConnectionError, http.client.HTTPException)):
            self.errors.append(error)

    def wait(self, event: threading.Event | None) -> None:
        """Wait for an event, or for the end of the proxy."""
        while event and not event.wait(0.01) and not self.closing.is_set():
            pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections, answers `Expect: 100-continue`
    server: _Proxy

    def handle(self) -> None:
        """Serve a connection, which the end of the proxy shuts."""
        self.server.open.add(self.connection)
        try:
            super().handle()
        finally:
            self.server.open.discard(self.connection)

    def pass_on(self) -> None:
        """Do what the rule says with one request."""
        proxy, (path, _, query) = self.server, self.path.partition("?")
        with proxy.lock:
            proxy.counts[self.command, self.path] += 1
            number, client = proxy.counts[self.command, self.path], self.client_address[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k not in _BREAKS_A_CONNECTION}
        request = Request(self.command, unquote(path), query, headers, body, number, client)
        fault = proxy.rule(request) or Fault()
        fault.before()
        proxy.wait(fault.hang)
        if fault.lose == "request" or proxy.closing.is_set():
            return self.reset()
        answer = fault.answer or self.forward(request)
        fault.after()
        proxy.wait(fault.hang_after)
        return self.reset() if fault.lose == "answer" else self.send(fault.change(answer), fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815  # http.server's names

    def forward(self, request: Request) -> Answer:
        """S3's own answer."""
        with contextlib.closing(http.client.HTTPConnection(self.server.netloc)) as upstream:
            upstream.request(self.command, self.path, request.body, dict(request.headers))
            got = upstream.getresponse()
            return Answer(got.status, got.read(), dict(got.getheaders()))

    def send(self, answer: Answer, fault: Fault) -> None:
        """Send an answer whole, dripping, or half."""
        kept = {k: v for k, v in answer.headers.items() if k.title() not in _BREAKS_A_CONNECTION}
        if self.command != "HEAD":
            kept = {k: v for k, v in kept.items() if k.lower() != "content-length"}
            kept["Content-Length"] = str(len(answer.body))
        lines = [f"HTTP/1.1 {answer.status} -", *(f"{k}: {v}" for k, v in kept.items()), "", ""]
        half = len(answer.body) // 2 if fault.lose in ("body", "rest") else None
        for part, data in (("head", "\r\n".join(lines).encode()), ("body", answer.body[:half])):
            for at in range(len(data)) if fault.drip == part else ():
                self.wfile.write(data[at : at + 1])
                self.server.closing.wait(DRIP_SECONDS)
            self.wfile.write(data if fault.drip != part else b"")
        if fault.lose == "body":
            self.reset()
        self.close_connection |= fault.lose == "rest"

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        """Keep the tests quiet."""


@contextlib.contextmanager
def s3_proxy(endpoint_url: str, rule: Rule, host: str = "127.0.0.1") -> Iterator[str]:
    """Run the proxy; its URL. An error of the rule is raised at the end."""
    with _Proxy(endpoint_url, rule, host) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
        try:
            yield f"http://{host}:{proxy.server_port}"
        finally:
            proxy.closing.set()
            proxy.shutdown()
            for connection in tuple(proxy.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
    if proxy.errors:
        raise proxy.errors[0]
