"""The simulator answers like the API, over real sockets."""

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import python
from randusers_sandbox.api import ApiSimulator, SandboxError, UserSpool, generated_users
from randusers_sandbox.users import user


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UserSpool:
    """Return as many users as the API has."""
    return generated_users(500, tmp_path_factory.mktemp("users"))


@pytest.fixture
def api(users: UserSpool) -> Iterator[ApiSimulator]:
    """Serve these users as the API does."""
    with ApiSimulator(users) as simulator:
        yield simulator


def _get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=patience())


def _page(api: ApiSimulator, query: str) -> tuple[dict[str, Any], list[int]]:
    """Return a page's envelope without its users, and their ids."""
    data = _get(f"{api.url}?{query}").json()["data"]
    ids = [one["id"] for one in data.pop("data")]
    return data, ids


def _error(status: int, message: str) -> dict[str, Any]:
    return {"statusCode": status, "data": None, "success": False, "errors": [], "message": message}


def test_api_answers_a_page_byte_for_byte(api: ApiSimulator) -> None:
    """The body is the API's, key for key, with the users inside."""
    response = _get(f"{api.url}?page=1&limit=500")
    users = b",".join(user(number) for number in range(1, 501))
    assert response.status_code == 200
    assert response.content == (
        b'{"statusCode":200,"data":{"page":1,"limit":500,"totalPages":1,"previousPage":false,'
        b'"nextPage":false,"totalItems":500,"currentPageItems":500,"data":['
        + users
        + b']},"message":"Random users fetched successfully","success":true}'
    )


def test_api_sends_the_headers_of_the_api(api: ApiSimulator) -> None:
    """A page is uncompressed JSON in UTF-8, with what remains of 5000 requests in 900 seconds."""
    headers = _get(f"{api.url}?page=1&limit=1").headers
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Content-Encoding" not in headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("5000", "4999")
    assert 0 < int(headers["RateLimit-Reset"]) <= 900
    assert _get(api.url).headers["RateLimit-Remaining"] == "4998"


@pytest.mark.parametrize(
    ("query", "data", "ids"),
    [
        ("", (1, 10, 50, False, True), range(1, 11)),
        ("page=&limit=", (1, 10, 50, False, True), range(1, 11)),
        ("page=2&limit=200", (2, 200, 3, True, True), range(201, 401)),
        ("page=3&limit=200", (3, 200, 3, True, False), range(401, 501)),
        ("page=51", (51, 10, 50, True, False), ()),
        ("limit=0", (1, 0, None, False, True), ()),
        ("limit=-1", (1, -1, -500, False, False), range(1, 500)),
        ("page=0", (0, 10, 50, False, True), ()),
        ("page=-1", (-1, 10, 50, False, True), range(481, 491)),
        ("page=two", (None, 10, 50, False, False), ()),
        ("limit=all", (1, None, None, False, False), ()),
        ("limit=Infinity", (1, None, 0, False, False), ()),
        ("page=1&page=2", (None, 10, 50, False, False), ()),
        ("page=0x2&limit=1e1", (2, 10, 50, True, True), range(11, 21)),
        ("page=2&limit=1.5", (2, 1.5, 334, True, True), (2, 3)),
    ],
)
def test_api_pages_as_javascript_does(
    api: ApiSimulator, query: str, data: tuple[object, ...], ids: range | tuple[int, ...]
) -> None:
    """Any page and limit get 200, with the result of JavaScript's arithmetic and Array.slice."""
    keys = ("page", "limit", "totalPages", "previousPage", "nextPage")
    expected = dict(zip(keys, data, strict=True))
    expected |= {"totalItems": 500, "currentPageItems": len(ids)}
    assert _page(api, query) == (expected, list(ids))


def test_api_answers_another_path_with_404(api: ApiSimulator) -> None:
    """A wrong path gets 404 with the API's error body."""
    response = _get(f"{api.url}s?page=1")
    assert response.status_code == 404
    assert response.json() == _error(404, "The requested endpoint does not exist")


def test_api_refuses_requests_above_the_limit(users: UserSpool) -> None:
    """Over the limit comes 429, whose Retry-After is the full window, unlike RateLimit-Reset."""
    with ApiSimulator(users, rate_limit=1) as api:
        assert _get(api.url).status_code == 200
        response = _get(api.url)
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "900"
        assert response.headers["RateLimit-Remaining"] == "0"
        assert 0 < int(response.headers["RateLimit-Reset"]) <= 900
        assert response.json() == _error(
            429, "There are too many requests. You are only allowed 1 requests per 15 minutes"
        )
        assert api.requests == 2


def test_api_answers_again_in_the_next_window(users: UserSpool) -> None:
    """A new window allows as many requests as the first."""
    with ApiSimulator(users, rate_limit=1, window_seconds=0) as api:
        assert [_get(api.url).status_code for _ in range(3)] == [200, 200, 200]


def test_api_compresses_only_when_enabled_and_accepted(users: UserSpool) -> None:
    """Gzip is used only if both sides want it, and unpacks to the same body."""
    with ApiSimulator(users, gzip=True) as api:
        packed = _get(api.url, **{"Accept-Encoding": "gzip"})
        plain = _get(api.url, **{"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(packed.content)
    assert "Content-Encoding" not in plain.headers
    assert packed.content == plain.content


def test_api_keeps_connections_alive_and_counts(api: ApiSimulator) -> None:
    """Requests on one connection, and on many in parallel, are each answered and counted once."""
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=patience())
    for page in range(1, 4):
        connection.request("GET", f"{urlsplit(api.url).path}?page={page}&limit=1")
        assert json.loads(connection.getresponse().read())["data"]["data"][0]["id"] == page
    connection.close()
    with ThreadPoolExecutor(8) as pool:
        pages = pool.map(lambda page: _page(api, f"page={page}&limit=5")[1], range(1, 41))
        assert [number for ids in pages for number in ids] == list(range(1, 201))
    assert api.requests == 43
    _get(api.url, **{"User-Agent": "probe/1"})
    assert api.request_headers["user-agent"] == "probe/1"


def test_api_listens_on_loopback_and_stops(users: UserSpool) -> None:
    """The end of the context closes the listener and the kept-alive connections."""
    with ApiSimulator(users) as api:
        address = urlsplit(api.url)
        assert address.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection(address.netloc, timeout=patience())
        connection.request("GET", address.path)
        connection.getresponse().read()
        kept = connection.sock
    assert kept is not None
    assert kept.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", address.port or 0), timeout=patience())
    with pytest.raises(SandboxError, match="is not serving"):
        _ = api.url


def test_api_names_a_port_that_is_in_use(api: ApiSimulator) -> None:
    """A port that is in use gives an error with that port."""
    port = urlsplit(api.url).port or 0
    with pytest.raises(SandboxError) as refusal, ApiSimulator(api.users, port=port):
        pass
    busy = f"cannot listen on 127.0.0.1:{port} (Address already in use): choose a free port."
    assert str(refusal.value) == f"The API simulator {busy}"


def test_api_process_reports_why_it_cannot_start(tmp_path: Path) -> None:
    """A count of users below 0 ends the process with status 1 and one sentence."""
    ended = python("-m", "randusers_sandbox.api", "--users", "-1", "--directory", str(tmp_path))
    message = "--users is -1: give 0 or more.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", message)
