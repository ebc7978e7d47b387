"""Over real HTTP the client brings in every declared user once, in order, or says why not."""

import json
import logging
import re
import socket
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from randusers_assets import resources
from randusers_assets.pipeline.fetch import client as fetching
from randusers_assets.pipeline.fetch.client import PAGE_TRIES, Fetch, Unfetched, shown
from randusers_assets.pipeline.fetch.pages import read_page
from randusers_assets.pipeline.fetch.workers import Fetchers
from randusers_assets.pipeline.flatten.frames import RawUsers
from randusers_assets.resources import (
    FETCHERS_FROM_PAGES,
    SNAPSHOT_TRIES,
    SPOOLS_TO_RAW,
    RandomUsersApi,
    fetch_metadata,
    tenths,
)
from randusers_sandbox import paging
from randusers_sandbox.api import Answer, ApiSimulator, UserSpool, generated_users

Bend = Callable[[int, Answer], Answer]


class Bent(ApiSimulator):
    """The API, each of its answers passed through `bend(page, honest answer)`.

    `asked` counts the requests for each page, this one included; `statuses` are the answers'.
    """

    def __init__(self, users: UserSpool, bend: Bend, **options: Any) -> None:  # noqa: ANN401  # the simulator's own
        super().__init__(users, **options)
        self.bend = bend
        self.asked: Counter[int] = Counter()
        self.statuses: list[int] = []

    def answer(self, page: str | None, limit: str | None) -> Answer:
        """Bend the honest answer."""
        self.asked[int(page or "1")] += 1
        return self.bend(int(page or "1"), super().answer(page, limit))

    def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Note the status, that of a refusal included."""
        answer = super().respond(target, headers)
        self.statuses.append(answer.status)
        return answer


def honest(_page: int, answer: Answer) -> Answer:
    """Bend nothing."""
    return answer


def edited(answer: Answer, edit: Callable[[dict[str, Any]], object]) -> Answer:
    """The answer with the `data` of its body edited in place."""
    body = json.loads(answer.body)
    edit(body["data"])
    return Answer(answer.status, json.dumps(body).encode(), answer.headers)


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UserSpool:
    """Ten users: five pages of two."""
    return generated_users(10, tmp_path_factory.mktemp("users"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for, each over at once."""
    asked: list[float] = []
    monkeypatch.setattr(Fetch, "sleep", lambda _fetch, seconds: asked.append(seconds))
    return asked


def client(api: ApiSimulator, **settings: Any) -> RandomUsersApi:  # noqa: ANN401  # the resource's own
    """A client of the simulator, two users a page."""
    asked: dict[str, Any] = {"url": api.url, "page_size": 2, "concurrency": 3}
    return RandomUsersApi(**(asked | settings))


def ids_of(raw: RawUsers) -> list[int]:
    """The users of a snapshot, in its order."""
    return [json.loads(line)["id"] for block in raw.blocks() for line in block.splitlines()]


def sentence_of(api: RandomUsersApi) -> str:
    """The sentence that a snapshot fails with."""
    with pytest.raises(dg.Failure) as failure:
        api.snapshot()
    assert failure.value.description is not None
    return failure.value.description


def test_snapshot_is_every_user_once_in_order(users: UserSpool) -> None:
    """Five pages of two give users 1 to 10, and a user agent names the project and version."""
    with Bent(users, honest) as api:
        raw = client(api).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert api.asked == dict.fromkeys(range(1, 6), 1)
    assert api.request_headers["user-agent"] == f"randusers-assets/{version('randusers-assets')}"


def test_snapshot_states_the_facts_of_its_fetch(users: UserSpool) -> None:
    """Declared, pages, page size, tries, retries, waits and bytes are what the server saw."""
    sizes: list[int] = []

    def measure(_page: int, answer: Answer) -> Answer:
        sizes.append(len(answer.body))
        return answer

    with Bent(users, measure) as api:
        url = api.url
        facts = client(api, page_size=4).snapshot().facts
    assert fetch_metadata(facts) == {
        "source": dg.MetadataValue.url(url),
        "declared": 10,
        "pages": 3,
        "page_size": 4,
        "tries": 1,
        "retries": 0,
        "waited_seconds": 0.0,
        "bytes_fetched": sum(sizes),
        "fetched_at": facts.fetched_at,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts.fetched_at)


def test_snapshot_reads_gzip(users: UserSpool) -> None:
    """A compressed body gives the same users; its bytes are counted as JSON."""
    with Bent(users, honest) as plain, Bent(users, honest, gzip=True) as zipped:
        expected, raw = client(plain).snapshot(), client(zipped).snapshot()
        assert "gzip" in zipped.request_headers["accept-encoding"]
    assert b"".join(raw.blocks()) == b"".join(expected.blocks())
    assert raw.facts.bytes == expected.facts.bytes


@pytest.mark.parametrize(("page_size", "pages"), [(1, 10), (3, 4), (10, 1), (11, 1)])
def test_snapshot_asks_for_the_pages_of_its_plan_only(
    users: UserSpool, page_size: int, pages: int
) -> None:
    """The last page may be short, and none is asked for after it."""
    with Bent(users, honest) as api:
        raw = client(api, page_size=page_size).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert api.asked == dict.fromkeys(range(1, pages + 1), 1)
    assert raw.facts.pages == pages


def test_snapshot_follows_a_server_that_caps_the_limit(users: UserSpool) -> None:
    """Asked for 500 a page, a server that gives 3 is read in pages of 3."""

    class Capping(ApiSimulator):
        limits: list[str | None] = []  # noqa: RUF012  # of this one test

        def answer(self, page: str | None, limit: str | None) -> Answer:
            self.limits.append(limit)
            return super().answer(page, str(min(int(limit or "10"), 3)))

    with Capping(users) as api:
        raw = client(api, page_size=500).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert api.limits == ["500", "3", "3", "3"]
    assert (raw.facts.pages, raw.facts.page_size) == (4, 3)


def test_snapshot_refuses_a_cap_that_is_not_declared(users: UserSpool, waits: list[float]) -> None:
    """A server that gives 3 and echoes 500 is not believed."""

    class Hiding(ApiSimulator):
        def users_of(self, page: int, limit: int) -> bytes:
            return super().users_of(page, min(limit, 3))

    with Hiding(users) as api:
        sentence = sentence_of(client(api, page_size=500))
    assert "at last on page 1: users in data: expected 10, got 3." in sentence
    assert len(waits) == SNAPSHOT_TRIES - 1


def test_snapshot_has_that_many_pages_in_flight_and_no_more(users: UserSpool) -> None:
    """With three in flight the server holds three at once, never a fourth, and order stays."""
    three, changing = threading.Barrier(3), threading.Lock()
    held = most = 0
    third_answered = threading.Event()

    def hold(page: int, answer: Answer) -> Answer:
        nonlocal held, most
        if page == 1:
            return answer
        with changing:
            held += 1
            most = max(most, held)
        three.wait(timeout=10)
        if page == 2:
            third_answered.wait(timeout=10)
        with changing:
            held -= 1
        if page == 3:
            third_answered.set()
        return answer

    with Bent(users, hold) as api:
        raw = client(api, page_size=1, concurrency=3).snapshot()
    assert most == 3
    assert ids_of(raw) == list(range(1, 11))


def test_snapshot_of_many_pages_is_fetched_by_processes(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They give what this process gives of fewer pages; what is no page is asked for again."""
    many, started = generated_users(FETCHERS_FROM_PAGES, tmp_path), []

    class Noted(Fetchers):
        def __init__(self, fetch: Fetch) -> None:
            started.append(fetch)
            super().__init__(fetch)

    monkeypatch.setattr(resources, "Fetchers", Noted)

    def garbled_once(page: int, answer: Answer) -> Answer:
        return Answer(200, b"<html>", {}) if page == 47 and api.asked[47] == 1 else answer

    with Bent(many, garbled_once) as api:
        apart = client(api, page_size=1).snapshot()
    assert len(started) == 1
    assert api.asked == {**dict.fromkeys(range(1, FETCHERS_FROM_PAGES + 1), 1), 47: 2}
    assert apart.facts.retries == 1
    assert apart.facts.waited_seconds > 0
    assert waits == []  # this process waited for nothing
    with Bent(many, honest) as api:
        here = client(api, page_size=2).snapshot()
    assert len(started) == 1
    assert b"".join(apart.blocks()) == b"".join(here.blocks())
    assert apart.reading.frames.to_pandas().equals(here.reading.frames.to_pandas())


def test_snapshot_one_page_at_a_time_is_sequential(users: UserSpool) -> None:
    """A concurrency of one asks for a page after the page before."""
    order: list[int] = []

    def note(page: int, answer: Answer) -> Answer:
        order.append(page)
        return answer

    with Bent(users, note) as api:
        client(api, concurrency=1).snapshot()
    assert order == [1, 2, 3, 4, 5]


def test_snapshot_tells_its_progress_page_by_page(users: UserSpool) -> None:
    """Each page is reported once, in order, with the number of pages."""
    seen: list[tuple[int, int]] = []
    with ApiSimulator(users) as api:
        client(api).snapshot(lambda page, pages: seen.append((page, pages)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("pages", "lines"), [(1, 1), (5, 5), (10, 10), (997, 10)])
def test_tenths_logs_ten_lines_at_most(
    caplog: pytest.LogCaptureFixture, pages: int, lines: int
) -> None:
    """However many pages there are; the last one is always told."""
    with caplog.at_level(logging.INFO):
        progress = tenths(logging.getLogger("a-run"))
        for page in range(1, pages + 1):
            progress(page, pages)
    assert len(caplog.messages) == lines
    assert caplog.messages[-1] == f"Fetched page {pages} of {pages}."


def test_snapshot_that_the_disk_cannot_hold_is_not_begun(users: UserSpool) -> None:
    """From page 1 on it is known what raw, flat and CSV will take, and the directory is named."""
    pressed: list[int] = []

    def vast(_page: int, answer: Answer) -> Answer:
        declared = {"totalItems": 2 * 10**12, "totalPages": 10**12}
        answer = edited(answer, lambda data: data.update(declared))
        pressed.append(len(read_page(answer.body).pressed))
        return answer

    with Bent(users, vast) as api:
        sentence = sentence_of(client(api))
    said = re.fullmatch(
        re.escape(tempfile.gettempdir()) + r": the spool needs (\S+) bytes and \S+ are free:"
        r" make room, or point TMPDIR to a larger disk\.",
        sentence,
    )
    assert said
    assert said[1] == f"{SPOOLS_TO_RAW * pressed[0] * 10**12:,}"
    assert api.asked == {1: 1}


def test_snapshot_of_zero_users_fails(users: UserSpool) -> None:
    """An API that is empty is not published, and is asked once."""
    with Bent(UserSpool(_empty(users)), honest) as api:
        sentence = sentence_of(client(api))
        assert sentence == (
            f"{api.url} declares zero users: an empty snapshot is never published;"
            " check RANDUSERS_API_URL."
        )
    assert api.requests == 1


def _empty(users: UserSpool) -> Path:
    return generated_users(0, users.path.parent).path


def test_probe_is_the_declared_total(users: UserSpool) -> None:
    """One small request tells how many users there are."""
    with Bent(users, honest) as api:
        assert client(api).probe() == 10
    assert api.requests == 1


def test_probe_of_an_api_that_contradicts_itself_fails(users: UserSpool) -> None:
    """A total that its own pages do not bear out is named, in a sentence."""
    with Bent(users, lambda _page, answer: edited(answer, lambda d: d.update(totalPages=3))) as api:
        with pytest.raises(dg.Failure) as failure:
            client(api).probe()
        assert failure.value.description == (
            f"{api.url} contradicts itself on page 1: totalPages: expected 10, got 3:"
            " check RANDUSERS_API_URL."
        )


def test_snapshot_gives_up_at_once_on_the_apis_own_refusal(
    users: UserSpool, waits: list[float]
) -> None:
    """`success: false` is shown with the API's message after one request."""
    refusal = b'{"statusCode":200,"data":null,"success":false,"errors":[],"message":"Out of order"}'
    with Bent(users, lambda _page, _answer: Answer(200, refusal)) as api:
        assert sentence_of(client(api)) == (
            f"{api.url}?page=1&limit=2 answered success: false ('Out of order'):"
            " check RANDUSERS_API_URL and the API's status."
        )
    assert (api.requests, waits) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_snapshot_gives_up_at_once_on_a_client_error(
    users: UserSpool, waits: list[float], status: int
) -> None:
    """A 4xx other than 429 is asked for once, and a retry of the run is not asked for either."""
    with Bent(users, lambda _page, _answer: Answer(status, b"{}")) as api:
        with pytest.raises(dg.Failure) as failure:
            client(api).snapshot()
        assert failure.value.description == (
            f"{api.url}?page=1&limit=2 answered HTTP {status}: check RANDUSERS_API_URL."
        )
    assert not failure.value.allow_retries
    assert (api.requests, waits) == (1, [])


def test_snapshot_names_the_page_that_fails(users: UserSpool) -> None:
    """A page of many is named in the sentence."""
    with Bent(users, lambda page, answer: Answer(404, b"") if page == 4 else answer) as api:
        assert sentence_of(client(api)) == (
            f"{api.url}?page=4&limit=2 answered HTTP 404: check RANDUSERS_API_URL."
        )


HTML = Answer(200, b"<html><title>Sign in</title></html>", {"Content-Type": "text/html"})
PASSING = {
    "500": Answer(500, b"{}"),
    "503": Answer(503, b""),
    "429": Answer(429, b"{}"),
    "HTML": HTML,
    "empty": Answer(200, b""),
    "closed": Answer(0, b""),
    "truncated": Answer(200, b'{"statusCode":200,"data":{"page":1', {"Content-Length": "9000"}),
    "broken gzip": Answer(200, b"\x1f\x8b" + b"x" * 30, {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", PASSING)
def test_snapshot_tries_again_what_may_pass(
    users: UserSpool, waits: list[float], fault: str
) -> None:
    """Two faults and a good answer are one good page, with two retries in the facts."""

    def bend(page: int, answer: Answer) -> Answer:
        return PASSING[fault] if page == 3 and api.asked[3] <= 2 else answer

    with Bent(users, bend) as api:
        raw = client(api).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert (raw.facts.tries, raw.facts.retries, len(waits)) == (1, 2, 2)
    assert api.asked == {1: 1, 2: 1, 3: 3, 4: 1, 5: 1}


def test_snapshot_tries_a_truncated_page_again(users: UserSpool, waits: list[float]) -> None:
    """A body that ends before its Content-Length is not taken for a page, wherever it ends."""

    def bend(page: int, answer: Answer) -> Answer:
        if page != 2 or api.asked[2] > 3:
            return answer
        cut = answer.body[: (100, len(answer.body) // 2, len(answer.body) - 1)[api.asked[2] - 1]]
        return Answer(200, cut, {"Content-Length": str(len(answer.body))})

    with Bent(users, bend) as api:
        raw = client(api).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert (raw.facts.retries, len(waits)) == (3, 3)


LASTING = {
    "500": "HTTP 500, 5 times: check RANDUSERS_API_URL and that the API is up.",
    "429": "HTTP 429, 5 times: check RANDUSERS_API_URL and that the API is up.",
    "closed": "the connection was refused or broke off, 5 times:"
    " check RANDUSERS_API_URL and that the API is up.",
    "broken gzip": "the connection was refused or broke off, 5 times:"
    " check RANDUSERS_API_URL and that the API is up.",
}


@pytest.mark.parametrize("fault", LASTING)
def test_snapshot_gives_up_after_some_tries(
    users: UserSpool, waits: list[float], fault: str
) -> None:
    """A fault that stays ends after five requests, in a sentence."""
    with Bent(users, lambda _page, _answer: PASSING[fault]) as api:
        assert sentence_of(client(api)) == f"{api.url}?page=1&limit=2: {LASTING[fault]}"
    assert api.requests == PAGE_TRIES
    assert len(waits) == PAGE_TRIES - 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (HTML.body, "not JSON"),
        (b'{"statusCode":200,"da', "broken off or broken JSON"),
        (
            b'{"users":[]}',
            "not one of the API's pages (Object missing required field success)",
        ),
    ],
)
def test_snapshot_says_what_it_got_instead_of_users(
    users: UserSpool, waits: list[float], body: bytes, problem: str
) -> None:
    """Something else than a page ends after five requests, in a sentence without its text."""
    with Bent(users, lambda _page, _answer: Answer(200, body)) as api:
        assert sentence_of(client(api)) == (
            f"{api.url}?page=1&limit=2 answered with something else than users, 5 times:"
            f" {problem}; check RANDUSERS_API_URL."
        )
    assert (api.requests, len(waits)) == (PAGE_TRIES, PAGE_TRIES - 1)


@pytest.mark.parametrize("bad", ["2", 2.5, None, 2**63])
def test_snapshot_says_which_user_has_no_integer_id(
    users: UserSpool, waits: list[float], bad: object
) -> None:
    """Ids prove completeness, so that a page without them is none."""

    def bend(page: int, answer: Answer) -> Answer:
        return edited(answer, lambda data: data["data"][1].update(id=bad)) if page == 2 else answer

    with Bent(users, bend) as api:
        assert sentence_of(client(api)) == (
            f"{api.url}?page=2&limit=2 answered with something else than users, 5 times:"
            " user 2 of the page has no integer id; check RANDUSERS_API_URL."
        )
    assert len(waits) == PAGE_TRIES - 1


@pytest.mark.parametrize(
    ("status", "headers", "least"),
    [
        (429, {"Retry-After": "900", "RateLimit-Reset": "7"}, 7),
        (429, {"Retry-After": "7", "RateLimit-Reset": "900"}, 7),
        (429, {"Retry-After": "900", "RateLimit-Reset": "900"}, 900),
        (429, {"Retry-After": "soon", "RateLimit-Reset": "7"}, 7),
        (503, {"Retry-After": "7"}, 7),
    ],
)
def test_snapshot_waits_what_the_server_asks_for(
    users: UserSpool, waits: list[float], status: int, headers: dict[str, str], least: int
) -> None:
    """The smaller of the two headers, and up to a second of jitter."""

    def bend(_page: int, answer: Answer) -> Answer:
        return Answer(status, b"{}", headers) if api.asked[1] == 1 else answer

    with Bent(users, bend) as api:
        raw = client(api).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert len(waits) == 1
    assert least <= waits[0] <= least + 1


def test_snapshot_backs_off_longer_each_time(users: UserSpool, waits: list[float]) -> None:
    """Where the server asks for nothing the wait doubles, and has jitter."""
    with Bent(users, lambda _page, _answer: Answer(500, b"")) as api:
        sentence_of(client(api))
    assert len(waits) == PAGE_TRIES - 1
    jitter = [wait - 2**number / 2 for number, wait in enumerate(waits)]
    assert all(0 <= one <= 1 for one in jitter)
    assert len(set(jitter)) == len(jitter)


def test_snapshot_adds_up_what_it_waited(users: UserSpool) -> None:
    """The seconds waited are in the facts; a server that resets at once costs its jitter only."""

    def bend(page: int, answer: Answer) -> Answer:
        now = {"Retry-After": "900", "RateLimit-Reset": "0"}
        return Answer(429, b"{}", now) if page == 1 and api.asked[1] == 1 else answer

    with Bent(users, bend) as api:
        facts = client(api).snapshot().facts
    assert facts.retries == 1
    assert 0 < facts.waited_seconds <= 1


def test_snapshot_of_an_api_that_is_down_says_so(users: UserSpool, waits: list[float]) -> None:
    """A refused connection is tried five times, then named with the URL."""
    with ApiSimulator(users) as api:
        url = api.url
    assert sentence_of(RandomUsersApi(url=url)) == (
        f"{url}?page=1&limit=500: the connection was refused or broke off, 5 times:"
        " check RANDUSERS_API_URL and that the API is up."
    )
    assert len(waits) == PAGE_TRIES - 1


def test_snapshot_waits_for_an_answer_no_longer_than_the_read_timeout(
    users: UserSpool, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and is silent is named with the time that it had."""
    monkeypatch.setattr(fetching, "READ_SECONDS", 0.05)
    over = threading.Event()

    def stall(_page: int, answer: Answer) -> Answer:
        over.wait(timeout=20)
        return answer

    with Bent(users, stall) as api:
        sentence = sentence_of(client(api))
        over.set()
        assert sentence == (
            f"{api.url}?page=1&limit=2: no answer within 0.05 s, 5 times:"
            " check RANDUSERS_API_URL and that the API is up."
        )
    assert len(waits) == PAGE_TRIES - 1


@contextmanager
def unaccepting() -> Iterator[str]:
    """The URL of a server that does not accept, its backlog full."""
    with socket.socket() as server, ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            one = clients.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/users"


def test_snapshot_waits_for_a_connection_no_longer_than_the_connect_timeout(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not accept is named with the time that it had."""
    monkeypatch.setattr(fetching, "CONNECT_SECONDS", 0.05)
    with unaccepting() as url:
        assert sentence_of(RandomUsersApi(url=url)) == (
            f"{url}?page=1&limit=500: no connection within 0.05 s, 5 times:"
            " check RANDUSERS_API_URL and that the API is up."
        )
    assert len(waits) == PAGE_TRIES - 1


def test_snapshot_does_not_wait_for_a_connection_past_its_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connect timeout ends with the deadline, where that is earlier."""
    with unaccepting() as url, caplog.at_level(logging.INFO, "randusers_assets"):
        sentence = sentence_of(RandomUsersApi(url=url, deadline_seconds=0.1))
    assert sentence.endswith("past the snapshot's deadline of 0.1 s: run again later.")
    tried = re.fullmatch(
        re.escape(url) + r": no connection within (\S+) s; trying again", caplog.messages[0]
    )
    assert tried is not None
    assert float(tried[1]) <= 0.1


def test_snapshot_does_not_wait_past_its_deadline(users: UserSpool) -> None:
    """A wait that ends after the deadline is not begun."""
    asked = {"Retry-After": "900", "RateLimit-Reset": "900"}
    with Bent(users, lambda _page, _answer: Answer(429, b"{}", asked)) as api:
        sentence = sentence_of(client(api, deadline_seconds=60))
        assert re.fullmatch(
            re.escape(api.url) + r": the next try would be in 90[01] s, past the snapshot's"
            r" deadline of 60 s: run again later\.",
            sentence,
        )
    assert api.requests == 1


def test_snapshot_does_not_wait_for_an_answer_past_its_deadline(users: UserSpool) -> None:
    """The read timeout ends with the deadline, where that is earlier."""
    over = threading.Event()

    def stall(_page: int, answer: Answer) -> Answer:
        over.wait(timeout=20)
        return answer

    with Bent(users, stall) as api:
        sentence = sentence_of(client(api, deadline_seconds=0.2))
        assert not over.is_set()
        over.set()
        assert re.fullmatch(
            re.escape(api.url) + r": the next try would be in [0-2] s, past the snapshot's"
            r" deadline of 0\.2 s: run again later\.",
            sentence,
        )
    assert api.requests == 1


@contextmanager
def dripping() -> Iterator[str]:
    """The URL of a server whose body never ends, a byte at a time."""
    stopped = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            try:
                while not stopped.wait(0.01):
                    connection.sendall(b" ")
            except ConnectionError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/users"
        stopped.set()
        thread.join()


def test_snapshot_does_not_read_a_dripping_body_past_its_deadline() -> None:
    """Bytes that keep coming satisfy the read timeout, but not the deadline."""
    with dripping() as url:
        assert sentence_of(RandomUsersApi(url=url, deadline_seconds=0.2)) == (
            f"{url}: the snapshot's deadline of 0.2 s is over: run again later."
        )


def test_snapshot_that_fails_ends_the_waits_of_its_other_pages(
    users: UserSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that waits for the server's window does not hold up another one's failure."""
    waiting = threading.Event()
    given_up: list[str] = []
    sleep = Fetch.sleep

    def watched(fetch: Fetch, seconds: float) -> None:
        waiting.set()
        try:
            sleep(fetch, seconds)
        except Unfetched as unfetched:
            given_up.append(str(unfetched))
            raise

    monkeypatch.setattr(Fetch, "sleep", watched)

    def bend(page: int, answer: Answer) -> Answer:
        if page == 2:
            waiting.wait(timeout=10)
            return Answer(404, b"")
        return Answer(429, b"", {"RateLimit-Reset": "5"}) if page == 3 else answer

    with Bent(users, bend) as api:
        sentence = sentence_of(client(api))
        assert sentence.startswith(f"{api.url}?page=2&limit=2 answered HTTP 404:")
        assert given_up == [f"{api.url}: the snapshot was given up."]


def _set(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update(fields)


def _repeated(data: dict[str, Any]) -> None:
    for place, one in enumerate(data["data"], 1):
        one["id"] = place


DRIFT: dict[str, tuple[int, Callable[[dict[str, Any]], object], str]] = {
    "empty middle page": (
        3,
        _set(data=[], currentPageItems=0),
        "page 3: users in data: expected 2, got 0",
    ),
    "short middle page": (
        2,
        lambda data: data.update(data=data["data"][:1], currentPageItems=1),
        "page 2: users in data: expected 2, got 1",
    ),
    "short last page": (
        5,
        lambda data: data.update(data=data["data"][:1], currentPageItems=1),
        "page 5: users in data: expected 2, got 1",
    ),
    "long page": (
        2,
        lambda data: data.update(data=data["data"] * 2, currentPageItems=4),
        "page 2: users in data: expected 2, got 4",
    ),
    "repeated page": (3, _repeated, "page 3: id: expected users not sent before, got user 1 again"),
    "repeated user in a page": (
        4,
        lambda data: data["data"][1].update(id=data["data"][0]["id"]),
        "page 4: id: expected users not sent before, got user 7 again",
    ),
    "total that grows": (
        4,
        _set(totalItems=11, totalPages=6),
        "page 4: totalItems: expected 10, got 11",
    ),
    "total that shrinks": (2, _set(totalItems=9), "page 2: totalItems: expected 10, got 9"),
    "total of null": (2, _set(totalItems=None), "page 2: totalItems: expected 10, got None"),
    "nextPage that never ends": (5, _set(nextPage=True), "page 5: nextPage: expected False, got"),
    "nextPage that ends early": (3, _set(nextPage=False), "page 3: nextPage: expected True, got"),
    "wrong page": (4, _set(page=3), "page 4: page: expected 4, got 3"),
    "wrong limit": (4, _set(limit=10), "page 4: limit: expected 2, got 10"),
    "wrong pages": (1, _set(totalPages=4), "page 1: totalPages: expected 5, got 4"),
    "wrong currentPageItems": (
        2,
        _set(currentPageItems=500),
        "page 2: currentPageItems: expected 2, got 500",
    ),
    "wrong previousPage": (2, _set(previousPage=False), "page 2: previousPage: expected True, got"),
    "previousPage of page 1": (
        1,
        _set(previousPage=True),
        "page 1: previousPage: expected False, got",
    ),
}


@pytest.mark.parametrize("drift", DRIFT)
def test_snapshot_that_keeps_drifting_fails_after_three_tries(
    users: UserSpool, waits: list[float], drift: str
) -> None:
    """Page, field, expected and got are named, and there are no waits but those between tries."""
    bent, edit, named = DRIFT[drift]

    def bend(page: int, answer: Answer) -> Answer:
        return edited(answer, edit) if page == bent else answer

    with Bent(users, bend) as api:
        sentence = sentence_of(client(api))
        before = f"{api.url}: the data kept changing while it was read, 3 times; at last on {named}"
        after = ". Nothing is kept: run again when the API is at rest."
    assert sentence.startswith(before)
    assert sentence.endswith(after)
    assert sentence[len(before) : -len(after)] in ("", " True", " False")
    assert api.asked[1] == SNAPSHOT_TRIES
    assert len(waits) == SNAPSHOT_TRIES - 1


@pytest.mark.parametrize("drift", DRIFT)
def test_snapshot_that_drifted_once_is_the_second_try_alone(
    users: UserSpool, waits: list[float], drift: str
) -> None:
    """Nothing of the first try is kept, and the facts say that there were two."""
    bent, edit, _ = DRIFT[drift]

    def bend(page: int, answer: Answer) -> Answer:
        if api.asked[1] > 1:
            return answer
        marked = edited(answer, lambda data: [one.update(nat="old") for one in data["data"]])
        return edited(marked, edit) if page == bent else marked

    with Bent(users, bend) as api:
        raw = client(api).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert b'"old"' not in b"".join(raw.blocks())
    assert (raw.facts.tries, raw.facts.retries, len(waits)) == (2, 0, 1)
    assert raw.facts.declared == 10


class Switched(ApiSimulator):
    """One server for many examples: `total` users, page `bent` edited in the first tries."""

    total = 0
    bent = 0
    tries = 0
    begun = 0

    def edit(self, data: dict[str, Any]) -> None:
        """Edit the `data` of the bent page."""

    def envelope(self, page: int, limit: int) -> dict[str, Any]:
        """Page as if there were `total` users."""
        return paging.envelope(page, limit, self.total)

    def users_of(self, page: int, limit: int) -> bytes:
        """Serve the first `total` users."""
        return self.users.slice(*paging.bounds(page, limit, self.total))

    def answer(self, page: str | None, limit: str | None) -> Answer:
        """Count the tries by their page 1, and edit the bent page."""
        self.begun += page == "1"
        answer = super().answer(page, limit)
        drifts = page == str(self.bent) and self.begun <= self.tries
        return edited(answer, self.edit) if drifts else answer


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switched]:
    """A server of up to 40 users."""
    with Switched(generated_users(40, tmp_path_factory.mktemp("users"))) as api:
        yield api


FIELDS = ("page", "limit", "totalItems", "totalPages", "currentPageItems")
FLAGS = ("previousPage", "nextPage")
DRIFTS = st.one_of(
    st.tuples(st.sampled_from(FIELDS), st.none() | st.integers(-2, 45)),
    st.tuples(st.sampled_from(FLAGS), st.none() | st.booleans()),
    st.tuples(st.sampled_from(["cut", "repeat", "again"]), st.integers(0, 15)),
)


def _edit_of(field: str, value: Any, served: bytes) -> Callable[[dict[str, Any]], None]:  # noqa: ANN401  # any JSON scalar
    """One drift: a field set, users cut off, one of them sent again, or another page's sent."""

    def edit(data: dict[str, Any]) -> None:
        sent = data["data"]
        match field:
            case "cut":
                data.update(data=sent[:value], currentPageItems=len(sent[:value]))
            case "again" if sent:
                data["data"] = [*sent[:-1], sent[value % len(sent)]]
            case "repeat":
                others = json.loads(b"[" + served + b"]")
                data["data"] = others[value : value + len(sent)]
            case "again":
                pass
            case _:
                data[field] = value

    return edit


@example(total=0, size=3, bent=1, tries=3, drift=("page", 1))
@example(total=40, size=1, bent=40, tries=3, drift=("nextPage", True))
@example(total=30, size=15, bent=2, tries=2, drift=("repeat", 0))
@example(total=14, size=15, bent=1, tries=3, drift=("limit", 14))
@given(
    total=st.integers(0, 40),
    size=st.integers(1, 15),
    bent=st.integers(1, 12),
    tries=st.integers(1, 3),
    drift=DRIFTS,
)
# A busy machine draws slowly; that is no fault of the strategy's.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_snapshot_is_whole_or_fails_whatever_drifts(
    switched: Switched, total: int, size: int, bent: int, tries: int, drift: tuple[str, Any]
) -> None:
    """No drift of any page gives a snapshot that is short, long, repeated or out of order."""
    switched.total, switched.bent, switched.tries, switched.begun = total, bent, tries, 0
    served = switched.users.slice(0, total)
    raw, sentence = None, ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(switched, "edit", _edit_of(*drift, served))
        patch.setattr(Fetch, "sleep", lambda _fetch, _seconds: None)
        try:
            raw = client(switched, page_size=size).snapshot()
        except dg.Failure as failure:
            sentence = str(failure.description)
    if raw is None:
        drifted = "the data kept changing while it was read, 3 times" in sentence
        assert (drifted and tries == SNAPSHOT_TRIES) or (
            "declares zero users" in sentence and total == 0
        )
    else:
        assert total > 0
        assert ids_of(raw) == list(range(1, total + 1))
        assert raw.facts.declared == total
        assert raw.facts.tries == switched.begun


def test_snapshot_slows_down_before_it_is_told_to(users: UserSpool) -> None:
    """Five pages under a limit of four requests a second come in without one 429."""
    with Bent(users, honest, rate_limit=4, window_seconds=1) as api:
        raw = client(api, concurrency=2).snapshot()
    assert ids_of(raw) == list(range(1, 11))
    assert api.statuses == [200] * 5
    assert raw.facts.waited_seconds > 0
    assert raw.facts.retries == 0


def test_snapshot_goes_at_full_speed_while_the_limit_is_far(
    users: UserSpool, waits: list[float]
) -> None:
    """Nothing is waited for under the API's own limit."""
    with ApiSimulator(users) as api:
        client(api, page_size=1).snapshot()
    assert waits == []


@pytest.mark.parametrize(
    ("remaining", "expected"), [(4, [10, 20, 30]), (0, [50, 100, 150]), (5, []), (None, [])]
)
def test_pace_spreads_what_is_left_over_the_window(
    waits: list[float], remaining: int | None, expected: list[int]
) -> None:
    """With twice the concurrency left or less, each request gets a slot of its own."""
    with Fetch("http://127.0.0.1:9", 2, 3600) as fetch:
        fetch.remaining, fetch.window_ends = remaining, time.monotonic() + 50
        for _ in range(3):
            fetch.pace()
    assert waits == pytest.approx(expected, rel=0.2)


def test_pace_waits_for_nothing_once_the_window_is_over(waits: list[float]) -> None:
    """What a past window had left says nothing about this one."""
    with Fetch("http://127.0.0.1:9", 2, 3600) as fetch:
        fetch.remaining, fetch.window_ends = 0, time.monotonic() - 1
        fetch.pace()
    assert waits == []


@pytest.mark.parametrize("headers", [("nan", "inf"), ("inf", "1"), ("a", "b"), ("-5", "0")])
def test_snapshot_passes_over_limits_that_are_nonsense(
    users: UserSpool, waits: list[float], headers: tuple[str, str]
) -> None:
    """Header values that are not counts do not end the snapshot."""
    remaining, reset = headers

    def bend(_page: int, answer: Answer) -> Answer:
        limits = {"RateLimit-Remaining": remaining, "RateLimit-Reset": reset}
        return Answer(200, answer.body, limits)

    with Bent(users, bend) as api:
        assert ids_of(client(api).snapshot()) == list(range(1, 11))
    assert all(wait >= 0 for wait in waits)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/users", "https://api.example/users"),
        ("https://me:s3cr3t@api.example:8443/users", "https://api.example:8443/users"),
        ("https://me:s3@cr3t@api.example/users", "https://api.example/users"),
        ("https://api.example/users?key=s3cr3t#s3cr3t", "https://api.example/users"),
        ("https://me:s3cr3t/s3cr3t@api.example/users", "The API's URL"),
        ("https://me:s3cr3t@[api.example/users", "The API's URL"),
    ],
)
def test_shown_is_the_url_without_what_is_secret(url: str, expected: str) -> None:
    """Neither user, password, query nor what cannot be told from them is shown."""
    assert shown(url) == expected


@pytest.mark.parametrize(
    "template",
    [
        "http://me:s3cr3t@{host}/users",
        "http://me:s3cr3t@{host}/users?key=s3cr3t",
        "http://me:s3cr3t@[{host}/users",
        "http://me:s3cr3t/s3cr3t@{host}/users",
        "ftp://me:s3cr3t@{host}/users",
    ],
)
def test_snapshot_never_shows_the_password_of_a_url(
    waits: list[float], template: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the sentence, nor an error behind it, nor a log line holds it."""
    api = RandomUsersApi(url=template.format(host="127.0.0.1:9"))
    with caplog.at_level(logging.DEBUG), pytest.raises(dg.Failure) as failure:
        api.snapshot()
    lines = list(traceback.TracebackException.from_exception(failure.value).format())
    assert any("check RANDUSERS_API_URL" in line for line in lines)
    assert "s3cr3t" not in "".join(lines)
    assert "s3cr3t" not in caplog.text
    assert len(waits) in (0, PAGE_TRIES - 1)


def test_snapshot_signs_in_with_the_url_and_keeps_it_out_of_the_facts(users: UserSpool) -> None:
    """User and password are sent, and not kept."""
    with Bent(users, honest) as api:
        url = api.url
        raw = client(api, url=url.replace("://", "://me:s3cr3t@")).snapshot()
    assert api.request_headers["authorization"] == "Basic bWU6czNjcjN0"
    assert raw.facts.url == url


@pytest.mark.parametrize("setting", ["page_size", "concurrency", "deadline_seconds"])
def test_api_refuses_settings_that_ask_for_nothing(setting: str) -> None:
    """A page, a thread or a deadline of none is a mistake."""
    with pytest.raises(ValidationError, match=f"^1 validation error for .*\n{setting}\n"):
        RandomUsersApi.model_validate({"url": "http://127.0.0.1:9", setting: 0})
