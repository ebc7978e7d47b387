"""Over real HTTP the client downloads every page once, in order, or says why it could not."""

import logging
import re
import threading
import traceback
from importlib.metadata import version

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import PAGE_TRIES, Api, ApiClient, redact_url
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.fetch.serving import (
    BROKEN,
    DOWN,
    FIVE_TIMES,
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
from randusers_sandbox.users import user


def test_client_downloads_every_page_once_in_order(
    ten_users: UserSpool, waits: list[float]
) -> None:
    """Even if page 2 answers late; nothing is waited for, and the user agent names the project."""
    third = threading.Event()

    def alter(page: int, answer: Answer) -> Answer:
        if page == 2:
            third.wait(patience(10))
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
    slow = AlteredApi(ten_users, hold_until=concurrency, latency_seconds=0.05)
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
            "success: false: check RANDUSERS_API_URL and the API's status."
            if status == 200
            else f"HTTP {status}: check RANDUSERS_API_URL."
        )
    assert not error.retryable
    assert (api.requests, waits) == (1, [])


def _cut(at: int) -> Alter:
    return lambda _page, answer: Answer(
        200, answer.body[:at], {"Content-Length": str(len(answer.body))}
    )


NO_PAGE = (
    " did not answer with a page, 5 times: {}; check RANDUSERS_API_URL, or tell the API's owner."
)
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


# Data that no retry makes better, and its sentence.
BAD_DATA = {
    "null": (b"null", "row 2 of the page has no integer id"),
    "no id": (b'{"login":{}}', "row 2 of the page has no integer id"),
    "NaN": (
        b'{"id":2,"dob":{"age":NaN}}',
        "data.data[1].dob.age is NaN or an infinity, which JSON has not",
    ),
    "1e400": (b'{"id":2,"dob":{"age":1e400}}', "row 2 of the page: Number out of range"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_client_tells_bad_data_from_a_bad_url(
    ten_users: UserSpool, waits: list[float], name: str
) -> None:
    """A row that is no user is named with page and row or path after one request, for good."""
    row, problem = BAD_DATA[name]

    def alter(page: int, answer: Answer) -> Answer:
        return Answer(200, answer.body.replace(user(2 * page), row))

    with AlteredApi(ten_users, alter) as api:
        error = page_error(api.url, page=4)
        assert str(error) == (
            f"{api.url}?page=4&limit=2: {problem}: tell the API's owner, or adapt contract.py."
        )
    assert not error.retryable
    assert (api.requests, waits) == (1, [])


def test_client_names_an_api_that_is_down(waits: list[float]) -> None:
    """A refused connection is tried five times, then named with the URL."""
    assert str(page_error(DOWN)) == f"{DOWN}?page=1&limit=2{BROKEN}{FIVE_TIMES}"
    assert len(waits) == PAGE_TRIES - 1


def test_client_does_not_begin_a_wait_past_its_deadline(ten_users: UserSpool) -> None:
    """A wait that the server asks for and that would end after the deadline is not begun."""
    with AlteredApi(ten_users, fault(429, Retry_After="900", RateLimit_Reset="900")) as api:
        error = page_error(api.url, deadline_seconds=60)
        start = re.escape(f"{api.url}: the next try would be in ")
    end = r"90[01] s, past the deadline of 60 s: run again later\."
    assert re.fullmatch(start + end, str(error))
    assert (api.requests, error.retryable) == (1, True)


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
            waiting.wait(patience(10))
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
