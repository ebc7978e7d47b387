"""The randomusers API, simulated: its envelope, paging quirks, headers and error bodies."""

import argparse
import contextlib
import gzip as gzip_format
import json
import math
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from randusers_sandbox import paging
from randusers_sandbox.user_file import (
    SandboxError,
    UserSpool,
    generated_users,
    users_from_file,
    users_from_json,
)

__all__ = [
    "Answer",
    "ApiSimulator",
    "SandboxError",
    "UserSpool",
    "generated_users",
    "users_from_file",
    "users_from_json",
]

PATH: Final = "/api/v1/public/randomusers"
REQUESTS_PER_WINDOW: Final = 5000
WINDOW_SECONDS: Final = 900
# The real API allows 5000 requests for its 500 users; keep that ratio for any number of users.
_REQUESTS_PER_USER: Final = 10


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; its `headers` override the usual ones.

    A wrong `Content-Length` is sent as given and the connection then closed, which truncates the
    answer. Status 0 closes the connection without an answer.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiSimulator:
    """Serve the API on a loopback port, in threads of this process, while the context is open.

    To simulate a faulty API, override `answer`. `requests` counts all requests, `request_headers`
    has the latest one's headers, with names in lower case.
    """

    def __init__(
        self,
        users: UserSpool,
        *,
        port: int = 0,
        latency_seconds: float = 0.0,
        gzip: bool = False,
        rate_limit: int = REQUESTS_PER_WINDOW,
        window_seconds: int = WINDOW_SECONDS,
    ) -> None:
        self.users = users
        self.latency_seconds = latency_seconds
        self.gzip = gzip
        self.rate_limit = rate_limit
        self.window_seconds = window_seconds
        self.requests = 0
        self.request_headers: Mapping[str, str] = {}
        self._port = port
        self._lock = threading.Lock()
        self._window_ends = 0.0
        self._used = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The endpoint's URL, without a query."""
        if self._server is None:
            raise SandboxError("The API simulator is not serving: enter it as a context manager.")
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def __enter__(self) -> Self:
        try:
            self._server = _Server(self, self._port)
        except OSError as error:
            raise SandboxError(
                f"The API simulator cannot listen on 127.0.0.1:{self._port} ({error.strerror}):"
                " choose a free port."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def answer(self, page: str | None, limit: str | None) -> Answer:
        """Return the answer to a request within the rate limit, from its raw query values."""
        number, size = paging.js_number(page or "1"), paging.js_number(limit or "10")
        envelope = paging.envelope(number, size, len(self.users))
        users = self.users.slice(*paging.bounds(number, size, len(self.users)))
        head, mark, tail = json.dumps(envelope, separators=(",", ":")).partition('"data":[')
        return Answer(200, b"".join((head.encode(), mark.encode(), users, tail.encode())))

    def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Count a GET of `target` and return its answer: rate limit, path, latency and gzip."""
        url = urlsplit(target)
        with self._lock:
            self.requests += 1
            self.request_headers = headers
            now = time.monotonic()
            if now >= self._window_ends:
                self._window_ends = now + self.window_seconds
                self._used = 0
            self._used += 1
            left = self.rate_limit - self._used
            reset = min(math.ceil(self._window_ends - now), self.window_seconds)
        limits = {
            "RateLimit-Limit": str(self.rate_limit),
            "RateLimit-Remaining": str(max(left, 0)),
            "RateLimit-Reset": str(reset),
        }
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        if left < 0:
            limits["Retry-After"] = str(self.window_seconds)
            answer = _error(
                429,
                f"There are too many requests. You are only allowed {self.rate_limit} requests per"
                f" {self.window_seconds / 60:g} minutes",
            )
        elif url.path.rstrip("/") != PATH:
            answer = _error(404, "The requested endpoint does not exist")
        else:
            query = parse_qs(url.query, keep_blank_values=True)
            # Express turns a repeated parameter into an array, which reads as "1,2" as a string.
            page, limit = (
                ",".join(query[name]) if name in query else None for name in ("page", "limit")
            )
            answer = self.answer(page, limit)
        usual = {"Content-Type": "application/json; charset=utf-8", **limits}
        body = answer.body
        if self.gzip and "gzip" in headers.get("accept-encoding", ""):
            body = gzip_format.compress(body, compresslevel=1, mtime=0)
            usual |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        usual["Content-Length"] = str(len(body))
        return Answer(answer.status, body, usual | dict(answer.headers))


def _error(status: int, message: str) -> Answer:
    body: dict[str, Any] = {"statusCode": status, "data": None, "success": False}
    body |= {"errors": [], "message": message}
    return Answer(status, json.dumps(body, separators=(",", ":")).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, simulator: ApiSimulator, port: int) -> None:
        self.simulator = simulator
        self.connections: set[socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def stop(self) -> None:
        """Close the listener and all kept-alive connections."""
        self.shutdown()
        self.server_close()
        for connection in self.connections.copy():
            with contextlib.suppress(OSError):  # the client has closed it
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        # A client that hangs up is not an error of the server.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.simulator.respond(self.path, headers)
        if not answer.status:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        if answer.headers["Content-Length"] != str(len(answer.body)):
            self.close_connection = True

    def version_string(self) -> str:
        return "randusers-sandbox"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a log line would cost more than the request itself."""


def main() -> int:
    """Print the URL once it answers, then serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m randusers_sandbox.api")
    parser.add_argument("--port", type=int, default=0, help="port (default: any free port)")
    parser.add_argument("--users", type=int, default=500, help="generated users (default: 500)")
    parser.add_argument("--users-file", type=Path, help="serve this JSON array of users instead")
    parser.add_argument("--latency-ms", type=float, default=0, help="wait before each answer")
    parser.add_argument("--directory", type=Path, required=True, help="keep the users' files here")
    parser.add_argument("--end-with-stdin", action="store_true", help="stop when stdin closes")
    given = parser.parse_args()
    try:
        if given.users_file:
            users = users_from_file(given.users_file, given.directory)
        else:
            users = generated_users(given.users, given.directory)
        simulator = ApiSimulator(
            users,
            port=given.port,
            latency_seconds=given.latency_ms / 1000,
            rate_limit=max(REQUESTS_PER_WINDOW, _REQUESTS_PER_USER * len(users)),
        )
        with simulator, contextlib.suppress(KeyboardInterrupt):
            sys.stdout.write(f"{simulator.url}\n")
            sys.stdout.flush()
            if given.end_with_stdin:
                sys.stdin.buffer.read()
            else:
                threading.Event().wait()
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
