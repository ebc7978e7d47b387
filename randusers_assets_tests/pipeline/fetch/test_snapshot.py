"""A snapshot is every declared row once, in order, or one message that says why not."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch import snapshot
from randusers_assets.pipeline.fetch.client import Api, ApiClient
from randusers_assets.pipeline.fetch.pages import read_page
from randusers_assets.pipeline.fetch.workers import Workers
from randusers_assets.pipeline.flatten.frames import DecodedRaw, FetchFacts, RawUsers
from randusers_assets_tests.pipeline.fetch.serving import (
    AlteredApi,
    Edit,
    edited,
    editing,
    fault,
    on,
)
from randusers_sandbox.api import Answer, ApiSimulator, UserSpool, generated_users


def fetched(
    url: str, page_size: int = 2, progress: snapshot.Progress = lambda _page, _pages: None
) -> tuple[RawUsers, DecodedRaw]:
    """A snapshot, by default in pages of two."""
    return snapshot.fetch_snapshot(Api(url, page_size, concurrency=3), CONTRACT, progress)


def ids_of(raw: RawUsers) -> list[int]:
    """The users of a snapshot, in its order."""
    return [json.loads(line)["id"] for block in raw.blocks() for line in block.splitlines()]


def error_of(url: str, page_size: int = 2) -> SnapshotError:
    """The error that a snapshot ends in."""
    with pytest.raises(SnapshotError) as failed:
        fetched(url, page_size)
    return failed.value


@pytest.mark.parametrize(("page_size", "pages"), [(1, 10), (2, 5), (3, 4), (10, 1), (11, 1)])
def test_snapshot_is_every_row_once_in_order(
    ten_users: UserSpool, page_size: int, pages: int
) -> None:
    """Each page of the plan is requested and reported once; the last may be short."""
    reported: list[tuple[int, int]] = []
    with AlteredApi(ten_users) as api:
        raw, decoded = fetched(api.url, page_size, lambda *page: reported.append(page))
    assert ids_of(raw) == list(range(1, 11))
    assert decoded.frames.to_pandas()["id"].tolist() == list(range(1, 11))
    assert api.asked == dict.fromkeys(range(1, pages + 1), 1)
    assert reported == [(page, pages) for page in range(1, pages + 1)]


def test_snapshot_states_the_facts_of_its_fetch(ten_users: UserSpool) -> None:
    """Declared, pages, page size, tries, retries, waits and bytes are what the server saw."""
    with AlteredApi(ten_users) as api:
        raw, decoded = fetched(api.url.replace("://", "://me:s3cr3t@"), page_size=4)
        url = api.url
    assert raw.facts == FetchFacts(
        url=url,  # without the user and password
        declared=10,
        pages=3,
        page_size=4,
        tries=1,
        retries=0,
        waited_seconds=0.0,
        bytes=sum(len(answer.body) for answer in api.answers),
        fetched_at=raw.facts.fetched_at,
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", raw.facts.fetched_at)
    assert decoded.frames.facts.fetch == raw.facts
    assert decoded.frames.facts.raw_sha256 == raw.file.sha256


def test_snapshot_follows_a_server_that_caps_the_limit(ten_users: UserSpool) -> None:
    """Asked for 500 a page, a server that gives 3 is read in pages of 3."""

    class Capping(ApiSimulator):
        limits: list[str | None] = []  # noqa: RUF012  # of this one test

        def answer(self, page: str | None, limit: str | None) -> Answer:
            self.limits.append(limit)
            return super().answer(page, str(min(int(limit or "10"), 3)))

    with Capping(ten_users) as api:
        raw, _ = fetched(api.url, page_size=500)
    assert ids_of(raw) == list(range(1, 11))
    assert api.limits == ["500", "3", "3", "3"]
    assert (raw.facts.pages, raw.facts.page_size) == (4, 3)


def test_snapshot_of_many_pages_is_fetched_by_workers(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They give what this process gives of fewer pages, and retry what is not a page."""
    many, started = generated_users(snapshot.WORKERS_FROM_PAGES, tmp_path), []

    class Noted(Workers):
        def __init__(self, client: ApiClient) -> None:
            started.append(client)
            super().__init__(client)

    monkeypatch.setattr(snapshot, "Workers", Noted)

    with AlteredApi(many, on(47, fault(200, b"<html>"), times=1)) as api:
        apart, decoded_apart = fetched(api.url, page_size=1)
    assert len(started) == 1
    assert api.asked == {**dict.fromkeys(range(1, snapshot.WORKERS_FROM_PAGES + 1), 1), 47: 2}
    assert apart.facts.retries == 1
    assert apart.facts.waited_seconds > 0
    assert waits == []  # this process waited for nothing
    with AlteredApi(many) as api:
        here, decoded_here = fetched(api.url)
    assert len(started) == 1
    assert b"".join(apart.blocks()) == b"".join(here.blocks())
    assert decoded_apart.frames.to_pandas().equals(decoded_here.frames.to_pandas())


@pytest.mark.parametrize(("pages", "lines"), [(1, 1), (5, 5), (10, 10), (997, 10)])
def test_log_every_tenth_logs_ten_lines_at_most(pages: int, lines: int) -> None:
    """However many pages there are, and always the last one."""
    logged: list[str] = []
    progress = snapshot.log_every_tenth(lambda line, *numbers: logged.append(line % numbers))
    for page in range(1, pages + 1):
        progress(page, pages)
    assert len(logged) == lines
    assert logged[-1] == f"Fetched page {pages} of {pages}."


def test_snapshot_that_the_disk_cannot_hold_is_not_begun(ten_users: UserSpool) -> None:
    """Page 1 shows how much room raw, flat and CSV will take, and the directory is named."""
    vast = _set(totalItems=2 * 10**12, totalPages=10**12)
    with AlteredApi(ten_users, editing(vast)) as api:
        error = error_of(api.url)
    raw_bytes = len(read_page(api.answers[0].body, CONTRACT).compressed) * 10**12
    needed = f"{snapshot.SPACE_FACTOR * raw_bytes:,}"
    needs = f"{tempfile.gettempdir()}: the snapshot needs {needed} bytes and "
    advice = r"\S+ are free: make room, or point TMPDIR to a larger disk\."
    assert re.fullmatch(re.escape(needs) + advice, str(error))
    assert error.retryable
    assert api.asked == {1: 1}


def test_snapshot_of_zero_rows_fails(ten_users: UserSpool) -> None:
    """An empty API is not published, is asked once, and a retry is no help."""
    with ApiSimulator(generated_users(0, ten_users.path.parent)) as api:
        error = error_of(api.url)
        assert str(error) == (
            f"{api.url} declares zero rows, and an empty snapshot is never published:"
            " check RANDUSERS_API_URL."
        )
    assert not error.retryable
    assert api.requests == 1


def test_count_rows_is_the_declared_total(ten_users: UserSpool) -> None:
    """One small request, signed in like any other, gives the number of rows."""
    with ApiSimulator(ten_users) as api:
        assert snapshot.count_rows(Api(api.url, 2, 3, 4, "s3cr3t"), CONTRACT) == 10
    assert api.request_headers["authorization"] == "Bearer s3cr3t"
    assert api.requests == 1


def test_count_rows_of_an_api_that_contradicts_itself_fails(ten_users: UserSpool) -> None:
    """A total that does not fit its own pages is named, in a message."""
    with AlteredApi(ten_users, editing(_set(totalPages=3))) as api:
        with pytest.raises(SnapshotError) as failed:
            snapshot.count_rows(Api(api.url), CONTRACT)
        assert str(failed.value) == (
            f"{api.url} contradicts itself on page 1: totalPages: expected 10, got 3:"
            " check RANDUSERS_API_URL."
        )


def _set(**fields: object) -> Edit:
    return lambda data: data.update(fields)


def _first_rows(count: int, **fields: object) -> Edit:
    return lambda data: data.update(data=(data["data"] * 2)[:count], **fields)


def _ids(*ids: int) -> Edit:
    return lambda data: [one.update(id=to) for one, to in zip(data["data"], ids, strict=True)]


# The page that drifts, what is done to it, and the mismatch that is named; test_pages has them all.
DRIFT: list[tuple[int, Edit, str]] = [
    (3, _first_rows(0, currentPageItems=0), "currentPageItems: expected 2, got 0"),
    (5, _first_rows(1, currentPageItems=1), "currentPageItems: expected 2, got 1"),
    (1, _first_rows(1), "rows in data: expected 2, got 1"),  # a cap that is not declared
    (2, _first_rows(4), "rows in data: expected 2, got 4"),
    (3, _ids(1, 2), "id: expected rows not sent before, got 1 again"),
    (4, _ids(7, 7), "id: expected rows not sent before, got 7 again"),
    (4, _set(totalItems=11, totalPages=6), "totalItems: expected 10, got 11"),
    (1, _set(totalPages=4), "totalPages: expected 5, got 4"),
]


@pytest.mark.parametrize(("drifting", "edit", "mismatch"), DRIFT)
def test_snapshot_that_keeps_drifting_fails_after_three_tries(
    ten_users: UserSpool, waits: list[float], drifting: int, edit: Edit, mismatch: str
) -> None:
    """Page, field, expected and got are named, and there are no waits but those between tries."""
    with AlteredApi(ten_users, on(drifting, editing(edit))) as api:
        error = error_of(api.url)
        assert str(error) == (
            f"{api.url}: the data changed during all 3 attempts (last mismatch: page {drifting}:"
            f" {mismatch}). Retry when the source is stable."
        )
    assert error.retryable
    assert api.asked[1] == snapshot.SNAPSHOT_TRIES
    assert len(waits) == snapshot.SNAPSHOT_TRIES - 1


@pytest.mark.parametrize(("drifting", "edit"), [(page, edit) for page, edit, _ in DRIFT])
def test_snapshot_that_drifted_once_is_the_second_try_alone(
    ten_users: UserSpool, waits: list[float], drifting: int, edit: Edit
) -> None:
    """Nothing of the first try is kept, and the facts say that there were two."""

    def alter(page: int, answer: Answer) -> Answer:
        if api.asked[1] > 1:
            return answer
        marked = edited(answer, lambda data: [one.update(nat="old") for one in data["data"]])
        return edited(marked, edit) if page == drifting else marked

    with AlteredApi(ten_users, alter) as api:
        raw, decoded = fetched(api.url)
    assert ids_of(raw) == list(range(1, 11))
    assert b'"old"' not in b"".join(raw.blocks())
    assert "old" not in set(decoded.frames.to_pandas()["nat"])
    assert (raw.facts.tries, raw.facts.retries, len(waits)) == (2, 0, 1)
    assert raw.facts.declared == 10


FIELDS = ("page", "limit", "totalItems", "totalPages", "currentPageItems")
FLAGS = ("previousPage", "nextPage")
DRIFTS = st.one_of(
    st.tuples(st.sampled_from(FIELDS), st.none() | st.integers(-2, 45)),
    st.tuples(st.sampled_from(FLAGS), st.none() | st.booleans()),
    st.tuples(st.sampled_from(["cut", "repeat", "again"]), st.integers(0, 15)),
)


def _edit_of(field: str, value: Any, served: bytes) -> Edit:  # noqa: ANN401  # any JSON scalar
    """One drift: a field set, rows cut off, one of them sent again, or another page's sent."""

    def edit(data: dict[str, Any]) -> None:
        sent = data["data"]
        match field:
            case "cut":
                data.update(data=sent[:value], currentPageItems=len(sent[:value]))
            case "again":
                data["data"] = [*sent[:-1], *sent[value % max(len(sent), 1) :][:1]]
            case "repeat":
                data["data"] = json.loads(b"[" + served + b"]")[value : value + len(sent)]
            case _:
                data[field] = value

    return edit


@example(total=0, size=3, drifting=1, tries=3, drift=("page", 1))
@example(total=40, size=1, drifting=40, tries=3, drift=("nextPage", True))
@example(total=30, size=15, drifting=2, tries=2, drift=("repeat", 0))
@example(total=14, size=15, drifting=1, tries=3, drift=("limit", 14))
@given(
    total=st.integers(0, 40),
    size=st.integers(1, 15),
    drifting=st.integers(1, 12),
    tries=st.integers(1, 3),
    drift=DRIFTS,
)
# Each example is a whole snapshot over HTTP.
@settings(max_examples=settings().max_examples // 4)  # each fetches a whole snapshot over HTTP
def test_snapshot_is_whole_or_fails_whatever_drifts(
    ten_users: UserSpool, total: int, size: int, drifting: int, tries: int, drift: tuple[str, Any]
) -> None:
    """No drift of a page in the first tries gives a snapshot that is short, long or repeated."""
    users = generated_users(total, ten_users.path.parent)
    edit = _edit_of(*drift, users.slice(0, total))

    def alter(page: int, answer: Answer) -> Answer:
        return edited(answer, edit) if page == drifting and api.asked[1] <= tries else answer

    with AlteredApi(users, alter) as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiClient, "sleep", lambda _client, _seconds: None)
        try:
            raw, _ = fetched(api.url, size)
        except SnapshotError as error:
            drifted = "the data changed during all 3 attempts" in str(error)
            empty = "declares zero rows" in str(error)
            assert (drifted and tries == snapshot.SNAPSHOT_TRIES) or (empty and total == 0)
        else:
            assert total > 0
            assert ids_of(raw) == list(range(1, total + 1))
            assert (raw.facts.declared, raw.facts.tries) == (total, api.asked[1])
