"""What a connection may cost: a total time, a size; and whom it trusts: one host, by TLS."""

import gzip
import logging
import re
import shutil
import socket
import ssl
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch import client as fetch_client
from randusers_assets.pipeline.fetch.client import PAGE_TRIES, Api, ApiClient
from randusers_assets_tests.pipeline.fetch.serving import (
    BROKEN,
    FIVE_TIMES,
    PAGES_OF_TWO,
    AlteredApi,
    Serve,
    client_at,
    dripping,
    fault,
    keys_of,
    page_error,
    serving,
)
from randusers_sandbox.api import Answer, UserSpool

OK = b"HTTP/1.1 200 OK\r\n"


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


@pytest.mark.parametrize(("waiting", "missing"), [(4, "connection"), (0, "answer")])
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


# Answers that never end, though bytes keep coming: start and drop.
DRIPS: dict[str, Serve] = {
    "head": dripping(OK + b"X: ", b"x"),
    "100 Continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    # Empty blocks: there is always more to decode, and never anything decoded.
    "gzip": dripping(
        OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\3", b"\0\0\0\xff\xff"
    ),
}


@pytest.mark.parametrize("what", DRIPS)
def test_client_ends_an_answer_that_drips(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Bytes that keep coming satisfy the read timeout, but not the time of the whole page."""
    monkeypatch.setattr(fetch_client, "PAGE_SECONDS", 0.3)
    with serving(DRIPS[what]) as url:
        error = page_error(url)
    assert str(error) == f"{url}?page=1&limit=2: no whole answer within 0.3 s{FIVE_TIMES}"
    assert error.retryable
    assert len(waits) == PAGE_TRIES - 1


@pytest.mark.parametrize("what", ["no connection", "no answer", *DRIPS])
def test_client_ends_what_it_waits_for_with_its_deadline(
    caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Neither connection, head nor body is waited for past the deadline, nor is another tried."""
    server = serving(DRIPS[what]) if what in DRIPS else silent(4 * (what == "no connection"))
    with server as url, caplog.at_level(logging.INFO, "randusers_assets"):
        message = str(page_error(url, deadline_seconds=0.5))
    end = r" s, past the deadline of 0\.5 s: run again later\."
    assert re.fullmatch(rf"{re.escape(url)}: the next try would be in [0-2]{end}", message)
    (log,) = caplog.messages
    missing = what if what == "no connection" else "no (?:whole )?answer"
    tried = re.fullmatch(rf"{re.escape(url)}: {missing} within (\S+) s; trying again", log)
    assert tried is not None
    assert float(tried[1]) <= 0.5


def test_client_takes_an_answer_that_comes_slowly_but_in_time(ten_users: UserSpool) -> None:
    """A head and a body in many pieces are a page like any other."""
    with AlteredApi(ten_users) as api, client_at(api.url) as client:
        expected = client.page(1, 2).compressed
        body = api.answers[0].body
    head = OK + b"Content-Length: %d\r\n\r\n" % len(body)
    answer = head + body

    def serve(connection: socket.socket, _stopped: object) -> None:
        for start in range(0, len(answer), 40):
            connection.sendall(answer[start : start + 40])

    with serving(serve) as url, client_at(url) as client:
        assert client.page(1, 2).compressed == expected


def test_client_gives_each_page_its_own_time(
    ten_users: UserSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages on one connection may together take longer than one of them may."""
    monkeypatch.setattr(fetch_client, "PAGE_SECONDS", 2)
    slow = AlteredApi(ten_users, latency_seconds=0.6)
    with slow as api, client_at(api.url, concurrency=1) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert client.tally.retries == 0


MOST = fetch_client.PAGE_BYTES + 2 * fetch_client.ROW_BYTES


@pytest.mark.parametrize("packed", [0, 1, 2])
def test_client_bounds_what_a_page_may_decode_to(
    ten_users: UserSpool, waits: list[float], packed: int
) -> None:
    """A page of 64 MiB, plain or packed to some KB, ends after one request and about its bound."""
    body = b" " * (64 << 20)
    for _ in range(packed):
        body = gzip.compress(body, compresslevel=1)
    encoding = {"Content_Encoding": ", ".join(["gzip"] * packed)} if packed else {}
    with AlteredApi(ten_users, fault(200, body, **encoding)) as api:
        tracemalloc.start()
        error = page_error(api.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert str(error) == (
            f"{api.url}?page=1&limit=2 answered with more than {MOST:,} bytes:"
            " check RANDUSERS_API_URL, or tell the API's owner."
        )
    assert not error.retryable
    assert (api.requests, waits) == (1, [])
    assert peak < 3 * MOST


def test_client_takes_a_page_of_exactly_the_bound(ten_users: UserSpool) -> None:
    """The bound is of the bytes of the decoded body, white space included."""

    def alter(page: int, answer: Answer) -> Answer:
        return Answer(200, answer.body.ljust(MOST + (page == 2)))

    with AlteredApi(ten_users, alter, gzip=True) as api:
        with client_at(api.url) as client:
            assert keys_of(client, pages=1) == PAGES_OF_TWO[:1]
        assert f" {MOST:,} bytes" in str(page_error(api.url, page=2))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("http://me:s3cr3t@LOCALHOST:{port}/s3cr3t?key=s3cr3t#s3cr3t", "localhost"),
        ("//localhost:{port}/s3cr3t", "localhost"),
        ("/s3cr3t", "127.0.0.1"),
        ("http://[s3cr3t", "an unreadable URL"),
        ("mailto:s3cr3t", "no host"),
    ],
)
def test_client_follows_no_redirect(
    ten_users: UserSpool, waits: list[float], status: int, location: str, host: str
) -> None:
    """The other server is never asked; of its URL the host alone is named, after one request."""
    with AlteredApi(ten_users) as other:
        location = location.format(port=other.url.split("/")[2].partition(":")[2])
        with AlteredApi(ten_users, fault(status, Location=location)) as api:
            error = page_error(api.url, token="s3cr3t")  # noqa: S106  # no real one
            assert str(error) == (
                f"{api.url}?page=1&limit=2 answered HTTP {status}, a redirect to {host}:"
                " set RANDUSERS_API_URL to the final URL."
            )
    assert not error.retryable
    assert (api.requests, other.requests, waits) == (1, 0, [])


@pytest.mark.parametrize(
    ("user", "token", "sent"),
    [
        ("me:s3cr3t@", "", "Basic bWU6czNjcjN0"),
        ("%C5%9B:%E7%94%B0@", "", "Basic xZs655Sw"),  # in UTF-8
        ("", "s3cr3t", "Bearer s3cr3t"),
        ("", "", None),
    ],
)
def test_client_signs_in_with_its_settings_and_not_with_a_netrc_file(
    ten_users: UserSpool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    token: str,
    sent: str | None,
) -> None:
    """The URL's user and password or the token are sent, those of a netrc file never."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other")
    monkeypatch.setenv("NETRC", str(netrc))
    with AlteredApi(ten_users) as api:
        url = api.url.replace("://", f"://{user}")
        with client_at(url, token=token) as client:
            client.page(1, 2)
    assert api.request_headers.get("authorization") == sent


@pytest.mark.parametrize("user", ["me:", "me:s3cr3t", ":s3cr3t"])
def test_client_refuses_two_ways_to_sign_in(user: str) -> None:
    """With a token and a user, one sentence says so, without either."""
    api = Api(f"http://{user}@127.0.0.1:9/users", token="s3cr3t")  # noqa: S106  # no real one
    with pytest.raises(SnapshotError) as failed:
        ApiClient(api, CONTRACT)
    assert str(failed.value) == (
        "RANDUSERS_API_TOKEN is set and RANDUSERS_API_URL has a user: remove one of them."
    )
    assert not failed.value.retryable
    assert "s3cr3t" not in repr(api)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1, and its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subprocess.run(  # noqa: S603  # fixed arguments
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", path.with_suffix(".key"), "-out", path, "-days", "2"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client trusts that certificate."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_client_downloads_over_tls(ten_users: UserSpool, tls: ssl.SSLContext) -> None:
    """With REQUESTS_CA_BUNDLE a certificate of one's own is as good as any."""
    with AlteredApi(ten_users) as api, client_at(api.url) as client:
        expected = client.page(1, 2).compressed
        body = api.answers[0].body
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serving(lambda one, _: one.sendall(answer), tls) as url, client_at(url) as client:
        assert client.page(1, 2).compressed == expected


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("what", ["head", "body"])
def test_client_ends_an_answer_that_drips_over_tls(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, what: str
) -> None:
    """The time of a page is that of the bytes that TLS decrypts."""
    monkeypatch.setattr(fetch_client, "PAGE_SECONDS", 1.0)
    monkeypatch.setattr(fetch_client, "PAGE_TRIES", 2)
    with serving(DRIPS[what], tls) as url:
        error = page_error(url)
    assert str(error).startswith(f"{url}?page=1&limit=2: no whole answer within 1 s, 2 times:")
    assert len(waits) == 1


def _never(_connection: socket.socket, _stopped: object) -> None:
    pytest.fail("the client sent a request to a server that it does not trust")


@pytest.mark.parametrize(
    ("host", "bundle", "reason"),
    [
        ("127.0.0.1", False, "self-signed certificate"),
        ("localhost", True, "Hostname mismatch, certificate is not valid for 'localhost'"),
    ],
)
def test_client_names_a_certificate_that_is_not_valid(
    request: pytest.FixtureRequest,
    waits: list[float],
    tls: ssl.SSLContext,
    host: str,
    bundle: bool,  # noqa: FBT001  # of a parameter set
    reason: str,
) -> None:
    """At once and for good, with the reason and what to do."""
    if bundle:
        request.getfixturevalue("trusted")
    with serving(_never, tls) as url:
        url = url.replace("127.0.0.1", host)
        error = page_error(url.replace("://", "://me:s3cr3t@"))
    assert str(error) == (
        f"{url}?page=1&limit=2: the API's TLS certificate is not valid here ({reason}): point"
        " REQUESTS_CA_BUNDLE to the file of its CA, or correct the host of RANDUSERS_API_URL."
    )
    assert (error.retryable, waits) == (False, [])


def test_client_names_a_server_without_tls(ten_users: UserSpool, waits: list[float]) -> None:
    """Plain HTTP on the port of an https URL is told as such; it may be a proxy that starts."""
    with AlteredApi(ten_users) as api:
        url = api.url.replace("http://", "https://")
        error = page_error(url)
    assert re.fullmatch(
        rf"{re.escape(url)}\?page=1&limit=2: no TLS connection \([A-Z_]+\), 5 times:"
        r" check the scheme of RANDUSERS_API_URL, and REQUESTS_CA_BUNDLE\.",
        str(error),
    )
    assert error.retryable
    assert len(waits) == PAGE_TRIES - 1


def test_client_tells_a_tls_server_that_hangs_up_as_broken(waits: list[float]) -> None:
    """A connection that ends in the handshake may come again, and is no fault of TLS."""
    with serving(lambda _one, _: None) as url:
        url = url.replace("http://", "https://")
        error = page_error(url)
    assert str(error) == f"{url}?page=1&limit=2{BROKEN}{FIVE_TIMES}"
    assert len(waits) == PAGE_TRIES - 1


def test_client_names_a_bundle_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of CA certificates that cannot be read is not the API's fault."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    error = page_error("https://127.0.0.1:9/users")
    assert str(error) == (
        "https://127.0.0.1:9/users: the file of CA certificates cannot be read:"
        " correct REQUESTS_CA_BUNDLE."
    )
    assert not error.retryable
