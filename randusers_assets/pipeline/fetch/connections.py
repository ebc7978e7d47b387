"""HTTP connections that no answer can hold past a time, and that stay with one host."""

import http.client
import io
import math
import threading
import time
from typing import Any

import requests
import urllib3

_page = threading.local()


def end_reads_at(ends: float) -> None:
    """Let this thread's next answer take until then (`time.monotonic`), head and body together.

    The timeouts of requests are for each read alone: a byte a minute would satisfy them for ever.
    """
    _page.ends = ends


class _TimedReads(io.RawIOBase):
    """What a socket receives, until the time of `end_reads_at`."""

    def __init__(self, sock: Any, received: io.RawIOBase) -> None:  # noqa: ANN401  # or one with TLS
        self.sock, self.received = sock, received
        self.longest = sock.gettimeout() or math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  # as RawIOBase
        left = _page.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(min(self.longest, left))
        return self.received.readinto(buffer)

    def close(self) -> None:
        self.received.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401  # http.client's own
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_TimedReads(sock, self.fp.detach()))


class _TimedConnection(urllib3.connection.HTTPConnection):
    response_class = _TimedResponse  # of a proxy's answer to CONNECT, too


class _TimedTlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _TimedResponse


class _TimedAdapter(requests.adapters.HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # requests' own
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _TimedTlsConnection if pool.scheme == "https" else _TimedConnection
        return pool


class ApiSession(requests.Session):
    """A session for one API, by a token or the URL's user and password; follows no redirect."""

    def __init__(self, connections: int, token: str) -> None:
        super().__init__()
        self.stream = True
        self.token = token
        # A netrc file on the machine is not meant for this API, nor to be read for every page.
        self.auth = self.sign_in
        for scheme in ("http://", "https://"):
            self.mount(scheme, _TimedAdapter(pool_maxsize=connections))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, so that requests neither follows a redirect nor reads its whole body."""

    def sign_in(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Send the token, or the URL's user and password, if any."""
        user, password = requests.utils.get_auth_from_url(request.url or "")
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        elif user or password:
            requests.auth.HTTPBasicAuth(user.encode(), password.encode())(request)
        return request
