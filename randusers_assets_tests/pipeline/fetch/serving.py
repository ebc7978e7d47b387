"""The API with altered answers, and what a client downloads from it."""

import json
import math
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import Api, ApiClient
from randusers_assets.pipeline.fetch.workers import Workers
from randusers_assets_tests.patience import patience
from randusers_sandbox.api import Answer, ApiSimulator, UserSpool

Alter = Callable[[int, Answer], Answer]
Edit = Callable[[dict[str, Any]], object]


class AlteredApi(ApiSimulator):
    """The API, each of its answers passed through `alter(page, right answer)`.

    `asked` counts the requests for each page, the current one included; `most` is how many it had
    at once; `answers` are as sent. It answers nothing before it has `hold_until` requests at once.
    """

    def __init__(
        self,
        users: UserSpool,
        alter: Alter = lambda _page, answer: answer,
        hold_until: int = 0,
        **options: Any,  # noqa: ANN401  # the simulator's own
    ) -> None:
        super().__init__(users, **options)
        self.alter = alter
        self.asked: Counter[int] = Counter()
        self.answers: list[Answer] = []
        self.hold_until, self.enough = hold_until, threading.Event()
        self.held = self.most = 0
        self.changing = threading.Lock()

    def answer(self, page: str | None, limit: str | None) -> Answer:
        """Alter the right answer."""
        self.asked[int(page or "1")] += 1
        return self.alter(int(page or "1"), super().answer(page, limit))

    def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Keep the answer, also that of a rate limit."""
        with self.changing:
            self.held += 1
            self.most = max(self.most, self.held)
        if self.most >= self.hold_until:
            self.enough.set()
        self.enough.wait(patience(30))
        answer = super().respond(target, headers)
        with self.changing:
            self.held -= 1
            self.answers.append(answer)
        return answer


def fault(status: int, body: bytes = b"", **headers: str) -> Alter:
    """Give this answer instead of any other; `_` in a header's name is `-`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _page, _answer: Answer(status, body, names)


def on(page: int, alter: Alter, times: float = math.inf) -> Alter:
    """Alter the answers of this page only, and not more often than that."""
    requests = count(1)

    def altered(asked: int, answer: Answer) -> Answer:
        return alter(asked, answer) if asked == page and next(requests) <= times else answer

    return altered


def edited(answer: Answer, edit: Edit) -> Answer:
    """The answer with the `data` of its body edited in place."""
    body = json.loads(answer.body)
    edit(body["data"])
    return Answer(answer.status, json.dumps(body).encode(), answer.headers)


def editing(edit: Edit) -> Alter:
    """Edit the `data` of every answer."""
    return lambda _page, answer: edited(answer, edit)


def client_at(url: str, **options: Any) -> ApiClient:  # noqa: ANN401  # the fields of Api
    """A client that downloads three pages at once."""
    return ApiClient(replace(Api(url, concurrency=3), **options), CONTRACT)


def keys_of(source: ApiClient | Workers, pages: int = 5, limit: int = 2) -> list[list[int]]:
    """The keys of each page that is downloaded, in the order in which they come."""
    numbers = range(1, pages + 1)
    return [page.lines.keys(CONTRACT).tolist() for page in source.pages(numbers, limit)]


DOWN = "http://127.0.0.1:9/users"  # the discard port: nothing answers there
BROKEN = ": the connection was refused or broken"
FIVE_TIMES = ", 5 times: check RANDUSERS_API_URL and that the API is up."
PAGES_OF_TWO = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


def page_error(url: str, page: int = 1, **options: Any) -> SnapshotError:  # noqa: ANN401  # the fields of Api
    """The error that a page of two ends in."""
    with client_at(url, **options) as client, pytest.raises(SnapshotError) as failed:
        next(client.pages([page], 2))
    return failed.value


Serve = Callable[[socket.socket, threading.Event], object]


@contextmanager
def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that gives its connections, one after the other, to a function.

    The event is set when the server stops.
    """
    stopped = threading.Event()

    def accept() -> None:
        while not stopped.is_set():
            with suppress(OSError):  # no connection yet, or the client ended it
                connection, _ = listener.accept()
                with tls.wrap_socket(connection, server_side=True) if tls else connection as one:
                    one.recv(65536)
                    serve(one, stopped)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http{'s' * (tls is not None)}://127.0.0.1:{listener.getsockname()[1]}/users"
        finally:
            stopped.set()
            thread.join(patience())


def dripping(start: bytes, drop: bytes, drops: float = math.inf) -> Serve:
    """Answer with the start, and then, a hundred times a second, with a drop."""

    def serve(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(start)
        numbers = count()
        while next(numbers) < drops and not stopped.wait(0.01):
            connection.sendall(drop)

    return serve
