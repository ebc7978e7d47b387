"""Over real HTTP the client downloads every page once, in order, or says why it could not."""

import logging
import math
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch import client as fetch_client
from randusers_assets.pipeline.fetch.client import PAGE_TRIES, Api, ApiClient, redact_url
from randusers_assets_tests.pipeline.fetch.serving import (
    PAGES_OF_TWO,
    Alter,
    AlteredApi,
    client_at,
    fault,
    keys_of,
    on,
    page_error,
)
from randusers_sandbox.api import Answer, UserSpool

DOWN = "http://127.0.0.1:9/users"


def test_client_downloads_every_page_once_in_order(
    ten_users: UserSpool, waits: list[float]
) -> None:
    """Even if page 2 answers late; nothing is waited for, and the user agent names the project."""
    third = threading.Event()

    def alter(page: int, answer: Answer) -> Answer:
        if page == 2:
            third.wait(timeout=10)
        elif page == 3:
            third.set()
        return answer

    with AlteredApi(ten_users, alter) as api, client_at(api.url) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert api.asked == dict.fromkeys(range(1, 6), 1)
    assert api.request_headers["user-agent"] == f"randusers-assets/{version('randusers-assets')}"
    assert waits == []


def test_client_reads_gzip(ten_users: UserSpool) -> None:
    """A compressed body gives the same page, and its bytes are counted decompressed."""
    with (
        AlteredApi(ten_users) as plain,
        AlteredApi(ten_users, gzip=True) as zipped,
        client_at(plain.url) as expected,
        client_at(zipped.url) as client,
    ):
        assert client.page(1, 10).compressed == expected.page(1, 10).compressed
        assert "gzip" in zipped.request_headers["accept-encoding"]
    assert client.tally.bytes == len(plain.answers[0].body) > len(zipped.answers[0].body)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_client_downloads_that_many_pages_at_once(ten_users: UserSpool, concurrency: int) -> None:
    """The server never holds more of them, so with a concurrency of one they come one by one."""
    slow = AlteredApi(ten_users, latency_seconds=0.05)
    with slow as api, client_at(api.url, concurrency=concurrency) as client:
        assert keys_of(client, 10, limit=1) == [[number] for number in range(1, 11)]
    assert api.most == concurrency


def test_client_prefetches_at_most_twice_its_concurrency(ten_users: UserSpool) -> None:
    """Pages that nobody takes are not requested."""
    with AlteredApi(ten_users) as api, client_at(api.url) as client:
        pages = client.pages(range(1, 11), 1)
        next(pages)
        pages.close()
    assert api.asked.keys() <= set(range(1, 7))


REFUSAL = b'{"statusCode":200,"data":null,"success":false,"errors":[],"message":"Out of order"}'


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 410])
def test_client_fails_at_once_on_a_refusal(
    ten_users: UserSpool, waits: list[float], status: int, page: int
) -> None:
    """`success: false` and a 4xx other than 429 name the page after one request, for good."""
    with AlteredApi(ten_users, fault(status, REFUSAL)) as api:
        error = page_error(api.url, page)
        assert str(error) == f"{api.url}?page={page}&limit=2 answered " + (
            "success: false ('Out of order'): check RANDUSERS_API_URL and the API's status."
            if status == 200
            else f"HTTP {status}: check RANDUSERS_API_URL."
        )
    assert not error.retryable
    assert (api.requests, waits) == (1, [])


def _cut(at: int) -> Alter:
    return lambda _page, answer: Answer(
        200, answer.body[:at], {"Content-Length": str(len(answer.body))}
    )


BROKEN = ": the connection was refused or broken"
FIVE_TIMES = ", 5 times: check RANDUSERS_API_URL and that the API is up."
NO_PAGE = " did not answer with a page, 5 times: {}; check RANDUSERS_API_URL."
# What may pass, and the message of what stays.
TRANSIENT: dict[str, tuple[Alter, str]] = {
    "500": (fault(500, b"{}"), ": HTTP 500" + FIVE_TIMES),
    "503": (fault(503), ": HTTP 503" + FIVE_TIMES),
    "429": (fault(429, b"{}"), ": HTTP 429" + FIVE_TIMES),
    "HTML": (
        fault(200, b"<html><title>Sign in</title></html>", Content_Type="text/html"),
        NO_PAGE.format("not JSON"),
    ),
    "empty": (fault(200), NO_PAGE.format("not JSON")),
    "no page": (
        fault(200, b'{"users":[]}'),
        NO_PAGE.format("not one of the API's pages (Object missing required field success)"),
    ),
    "half": (fault(200, b'{"statusCode":200,"da'), NO_PAGE.format("truncated or broken JSON")),
    "closed": (fault(0), BROKEN + FIVE_TIMES),
    "truncated at 0": (_cut(0), BROKEN + FIVE_TIMES),
    "truncated early": (_cut(100), BROKEN + FIVE_TIMES),
    "truncated late": (_cut(-1), BROKEN + FIVE_TIMES),
    "broken gzip": (
        fault(200, b"\x1f\x8b" + b"x" * 30, Content_Encoding="gzip"),
        BROKEN + FIVE_TIMES,
    ),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_client_retries_a_transient_fault(
    ten_users: UserSpool, waits: list[float], name: str
) -> None:
    """Two faults and a good answer are one good page, with two retries in the tally."""
    alter = on(3, TRANSIENT[name][0], times=2)
    with AlteredApi(ten_users, alter) as api, client_at(api.url) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert (client.tally.retries, len(waits)) == (2, 2)
    assert api.asked == {1: 1, 2: 1, 3: 3, 4: 1, 5: 1}


@pytest.mark.parametrize("name", TRANSIENT)
def test_client_gives_up_after_some_tries(
    ten_users: UserSpool, waits: list[float], name: str
) -> None:
    """A fault that stays ends after five requests; the wait doubles each time, and has jitter."""
    alter, message = TRANSIENT[name]
    with AlteredApi(ten_users, alter) as api:
        error = page_error(api.url)
        assert str(error) == f"{api.url}?page=1&limit=2{message}"
    assert error.retryable
    assert (api.requests, len(waits)) == (PAGE_TRIES, PAGE_TRIES - 1)
    if name != "429":  # the simulator's rate limit asks for a wait of its own
        jitter = [wait - 2**number / 2 for number, wait in enumerate(waits)]
        assert all(0 <= one <= 1 for one in jitter)
        assert len(set(jitter)) == len(jitter)


@pytest.mark.parametrize(
    ("status", "headers", "least"),
    [
        (429, {"Retry_After": "900", "RateLimit_Reset": "7"}, 7),
        (429, {"Retry_After": "7", "RateLimit_Reset": "900"}, 7),
        (429, {"Retry_After": "900", "RateLimit_Reset": "900"}, 900),
        (429, {"Retry_After": "soon", "RateLimit_Reset": "7"}, 7),
        (503, {"Retry_After": "7"}, 7),
    ],
)
def test_client_waits_as_long_as_the_server_asks(
    ten_users: UserSpool, waits: list[float], status: int, headers: dict[str, str], least: int
) -> None:
    """The smaller of the two headers, and up to a second of jitter."""
    alter = on(1, fault(status, b"{}", **headers), times=1)
    with AlteredApi(ten_users, alter) as api, client_at(api.url) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert len(waits) == 1
    assert least <= waits[0] <= least + 1


def test_client_tallies_what_it_waited(ten_users: UserSpool) -> None:
    """A server that resets at once costs its jitter only; what is taken is not counted twice."""
    alter = on(1, fault(429, Retry_After="900", RateLimit_Reset="0"), times=1)
    with AlteredApi(ten_users, alter) as api, client_at(api.url) as client:
        assert keys_of(client) == PAGES_OF_TWO
    retries, waited, size = client.take_tally()
    assert retries == 1
    assert 0 < waited <= 1
    assert size > 0
    assert client.take_tally() == (0, 0.0, 0)


def test_client_slows_down_before_it_is_rate_limited(ten_users: UserSpool) -> None:
    """Five pages under a limit of four requests a second come without one 429."""
    limited = AlteredApi(ten_users, rate_limit=4, window_seconds=1)
    with limited as api, client_at(api.url, concurrency=2) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert [answer.status for answer in api.answers] == [200] * 5
    assert client.tally.waited > 0
    assert client.tally.retries == 0


@pytest.mark.parametrize(
    ("remaining", "window_seconds", "expected"),
    [(4, 50, [10, 20, 30]), (0, 50, [50, 100, 150]), (5, 50, []), (math.inf, 50, []), (0, -1, [])],
)
def test_client_spreads_the_last_requests_over_the_window(
    waits: list[float], remaining: float, window_seconds: int, expected: list[int]
) -> None:
    """With at most twice the concurrency left in a window that is not over, they take turns."""
    with client_at(DOWN, concurrency=2) as client:
        client.remaining, client.window_ends = remaining, time.monotonic() + window_seconds
        for _ in range(3):
            client.pace()
    assert waits == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("headers", [("nan", "inf"), ("inf", "1"), ("a", "b"), ("-5", "0")])
def test_client_ignores_nonsense_limits(
    ten_users: UserSpool, waits: list[float], headers: tuple[str, str]
) -> None:
    """Header values that are not counts do not end a download."""
    limits = dict(zip(("RateLimit-Remaining", "RateLimit-Reset"), headers, strict=True))
    with (
        AlteredApi(ten_users, lambda _page, answer: Answer(200, answer.body, limits)) as api,
        client_at(api.url) as client,
    ):
        assert keys_of(client) == PAGES_OF_TWO
    assert all(0 <= wait < math.inf for wait in waits)


@contextmanager
def silent(waiting: int = 0) -> Iterator[str]:
    """The URL of a server that never answers; with four waiting it does not even accept."""
    with socket.socket() as server, ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0 if waiting else 16)
        for _ in range(waiting):
            one = clients.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/users"


def test_client_names_an_api_that_is_down(waits: list[float]) -> None:
    """A refused connection is tried five times, then named with the URL."""
    assert str(page_error(DOWN)) == f"{DOWN}?page=1&limit=2{BROKEN}{FIVE_TIMES}"
    assert len(waits) == PAGE_TRIES - 1


SILENT = pytest.mark.parametrize(("waiting", "missing"), [(4, "connection"), (0, "answer")])


@SILENT
def test_client_names_the_timeout(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, waiting: int, missing: str
) -> None:
    """A server that does not accept, or not answer, is named with the time that it had."""
    monkeypatch.setattr(fetch_client, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(fetch_client, "READ_SECONDS", 0.05)
    with silent(waiting) as url:
        error = page_error(url)
    assert str(error) == f"{url}?page=1&limit=2: no {missing} within 0.05 s{FIVE_TIMES}"
    assert len(waits) == PAGE_TRIES - 1


@SILENT
def test_client_ends_a_timeout_with_its_deadline(
    caplog: pytest.LogCaptureFixture, waiting: int, missing: str
) -> None:
    """Neither a connection nor an answer is waited for past the deadline, nor is another tried."""
    with silent(waiting) as url, caplog.at_level(logging.INFO, "randusers_assets"):
        message = str(page_error(url, deadline_seconds=0.5))
    end = r" s, past the deadline of 0\.5 s: run again later\."
    assert re.fullmatch(rf"{re.escape(url)}: the next try would be in [0-2]{end}", message)
    (log,) = caplog.messages
    tried = re.fullmatch(rf"{re.escape(url)}: no {missing} within (\S+) s; trying again", log)
    assert tried is not None
    assert float(tried[1]) <= 0.5


def test_client_does_not_begin_a_wait_past_its_deadline(ten_users: UserSpool) -> None:
    """A wait that the server asks for and that would end after the deadline is not begun."""
    with AlteredApi(ten_users, fault(429, Retry_After="900", RateLimit_Reset="900")) as api:
        error = page_error(api.url, deadline_seconds=60)
        start = re.escape(f"{api.url}: the next try would be in ")
    end = r"90[01] s, past the deadline of 60 s: run again later\."
    assert re.fullmatch(start + end, str(error))
    assert (api.requests, error.retryable) == (1, True)


@contextmanager
def dripping() -> Iterator[str]:
    """The URL of a server whose body never ends, a byte at a time."""
    stopped = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not stopped.wait(0.01):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/users"
        stopped.set()
        thread.join()


def test_client_does_not_read_a_dripping_body_past_its_deadline() -> None:
    """Bytes that keep coming satisfy the read timeout, but not the deadline."""
    with dripping() as url:
        message = str(page_error(url, deadline_seconds=0.5))
    assert message == f"{url}: the deadline of 0.5 s is over: run again later."


def test_client_that_fails_ends_the_waits_of_its_other_pages(ten_users: UserSpool) -> None:
    """A page that waits for the server's window does not hold up the failure of another."""
    waiting, ended = threading.Event(), list[str]()

    class Watched(ApiClient):
        def sleep(self, seconds: float) -> None:
            waiting.set()
            try:
                super().sleep(seconds)
            except SnapshotError as error:
                ended.append(str(error))
                raise

    def alter(page: int, answer: Answer) -> Answer:
        if page == 2:
            waiting.wait(timeout=10)
            return Answer(404, b"")
        return Answer(429, b"", {"RateLimit-Reset": "5"}) if page == 3 else answer

    with AlteredApi(ten_users, alter) as api, Watched(Api(api.url), CONTRACT) as client:
        with pytest.raises(SnapshotError) as failed:
            keys_of(client)
        assert str(failed.value).startswith(f"{api.url}?page=2&limit=2 answered HTTP 404:")
        assert ended == [f"{api.url}: the fetch was stopped."]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/users", "https://api.example/users"),
        ("https://me:s3cr3t@api.example:8443/users", "https://api.example:8443/users"),
        ("https://me:s3@cr3t@api.example/users", "https://api.example/users"),
        ("https://api.example/users?key=s3cr3t#s3cr3t", "https://api.example/users"),
        ("https://me:s3cr3t/s3cr3t@api.example/users", "The API's URL"),
        ("https://me:3/s3cr3t@api.example/users", "The API's URL"),
        ("https://me:s3cr3t@[api.example/users", "The API's URL"),
        ("me:s3cr3t@api.example/users", "The API's URL"),
    ],
)
def test_redact_url_drops_what_is_secret(url: str, expected: str) -> None:
    """Neither user, password, query nor what cannot be told from them is shown."""
    assert redact_url(url) == expected


@pytest.mark.parametrize(
    "template",
    [
        "http://me:s3cr3t@{host}/users",
        "http://me:s3cr3t@{host}/users?key=s3cr3t",
        "http://me:s3cr3t@[{host}/users",
        "http://me:s3cr3t/s3cr3t@{host}/users",
        "ftp://me:s3cr3t@{host}/users",
        "me:s3cr3t@{host}/users",
    ],
)
def test_client_never_shows_the_password_of_a_url(
    waits: list[float], template: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the message, nor an error behind it, nor a log line holds it."""
    with caplog.at_level(logging.DEBUG):
        error = page_error(template.format(host="127.0.0.1:9"))
    lines = list(traceback.TracebackException.from_exception(error).format())
    assert any("check RANDUSERS_API_URL" in line for line in lines)
    assert "s3cr3t" not in "".join(lines)
    assert "s3cr3t" not in caplog.text
    assert len(waits) in (0, PAGE_TRIES - 1)


@pytest.mark.parametrize(("user", "sent"), [("me:s3cr3t@", "Basic bWU6czNjcjN0"), ("", None)])
def test_client_signs_in_with_its_url_and_not_with_a_netrc_file(
    ten_users: UserSpool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    sent: str | None,
) -> None:
    """The user and password of the URL are sent, those of the machine's netrc file never."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other")
    monkeypatch.setenv("NETRC", str(netrc))
    with AlteredApi(ten_users) as api, client_at(api.url.replace("://", f"://{user}")) as client:
        client.page(1, 2)
    assert api.request_headers.get("authorization") == sent
