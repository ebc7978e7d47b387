"""One run without Dagster: each pass once, and what is published comes from the raw snapshot."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline import steps
from randusers_assets.pipeline.audit.gates import Policy, judge_raw
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish import objects
from randusers_assets.pipeline.publish.diff import compare_with_day_before
from randusers_assets.pipeline.publish.objects import load_csv
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.publish.verify import read_back, verify
from randusers_assets.pipeline.steps import SnapshotRun, run_snapshot
from randusers_assets.pipeline.storage.paths import csv_path
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import (
    User,
    bytes_of,
    csv_of,
    frames_of,
    frames_with,
    raw_users_of,
    users,
)
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import BAD_EMAIL, DAY, DAY_AFTER, LENIENT
from randusers_sandbox.api import ApiSimulator, generated_users


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The simulated API with 60 users: three pages."""
    with ApiSimulator(generated_users(60, tmp_path)) as simulator:
        yield Api(simulator.url, page_size=20)


@pytest.fixture
def run(store: Store) -> SnapshotRun:
    """A run that has computed nothing yet."""
    return SnapshotRun(store, CONTRACT)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each pass over the rows ran since."""
    counts: Counter[str] = Counter()

    def count(
        name: str, function: Callable[..., object], *arguments: object, **options: object
    ) -> object:
        counts[name] += 1
        return function(*arguments, **options)

    for name in ("fetch_snapshot", "decode_raw", "audit_csv", "find_history"):
        monkeypatch.setattr(steps, name, partial(count, name, getattr(steps, name)))
    return counts


def test_run_snapshot_publishes_what_the_api_serves(store: Store, api: Api) -> None:
    """From the API to a CSV with its receipt, which the bucket alone proves again."""
    publication = run_snapshot(api, store, CONTRACT, DAY)
    assert (publication.outcome, publication.receipt) == ("published", bucket.receipt_of(store))
    assert publication.receipt.source.url == api.url
    assert bucket.body_of(store, csv_path(CONTRACT, DAY)) == bytes_of(csv_of(users(60)).file)
    assert len(list(verify(store, CONTRACT, DAY))) == 6
    assert load_csv(store, CONTRACT)["id"].tolist() == list(range(1, 61))
    assert objects.load_raw(store, CONTRACT, DAY).facts.declared == 60
    assert objects.load_frames(store, CONTRACT, DAY).facts.flat_rows == 60
    assert run_snapshot(api, store, CONTRACT, DAY).outcome == "unchanged"


def test_run_makes_each_pass_once(run: SnapshotRun, api: Api, passes: Counter[str]) -> None:
    """All steps and gates of a day in one process: one fetch that also decodes, one audit."""
    run.save(DAY, run.fetch(api))
    raw = run.load_raw(DAY)
    assert all(finding.passed for finding in judge_raw(run.decode(raw), Policy()))
    run.save(DAY, run.flatten(raw))
    frames = run.load_frames(DAY)
    assert compare_with_day_before(run.store, DAY, frames) is None
    judgement = run.judge(DAY, frames, Policy())
    passed = run.pass_gates(DAY, frames, Policy())
    assert (passed.csv, passed.judgement) == (run.audit(frames), judgement)
    publish(run.store, DAY, passed, "run")
    assert read_back(run.store, CONTRACT, DAY).passed
    assert passes == {"fetch_snapshot": 1, "audit_csv": 1, "find_history": 1}


def test_later_run_computes_the_same_bytes_from_s3(
    store: Store, run: SnapshotRun, api: Api, passes: Counter[str]
) -> None:
    """A step in another process decodes and audits what is stored, once, to the same digests."""
    raw = run.fetch(api)
    run.save(DAY, raw)
    frames = run.flatten(raw)
    run.save(DAY, frames)
    digest = run.audit(frames).file.sha256
    later = SnapshotRun(store, CONTRACT)
    for _ in range(2):
        assert later.flatten(later.load_raw(DAY)).file.sha256 == frames.file.sha256
        assert later.audit(later.load_frames(DAY)).file.sha256 == digest
    assert passes == {"fetch_snapshot": 1, "decode_raw": 1, "audit_csv": 2}


@pytest.mark.parametrize(
    ("load", "snapshot_of"),
    [(SnapshotRun.load_raw, raw_users_of), (SnapshotRun.load_frames, frames_of)],
)
def test_run_goes_on_with_the_snapshot_that_it_saved(
    run: SnapshotRun,
    load: Callable[[SnapshotRun, str], RawUsers | UserFrames],
    snapshot_of: Callable[[list[User]], RawUsers | UserFrames],
) -> None:
    """The very value that was saved, also after another run stored its own; none of another day."""
    kept = snapshot_of(users(3))
    run.save(DAY, kept)
    assert load(run, DAY) is kept
    objects.save(run.store, DAY, snapshot_of(users(4)))
    assert load(run, DAY) is kept
    assert bucket.message_of(lambda: load(run, DAY_AFTER)) == (
        f"s3://{run.store.bucket}/_current/raw_users/dt={DAY_AFTER}.json does not exist:"
        f" materialize raw_users for {DAY_AFTER}, or restore its raw snapshot if that day is past."
    )


@pytest.mark.parametrize("snapshot_of", [raw_users_of, frames_of])
def test_run_saves_a_snapshot_once(
    run: SnapshotRun, snapshot_of: Callable[[list[User]], RawUsers | UserFrames]
) -> None:
    """Saving it again gives the stored object, and leaves the pointer to what others stored."""
    kept = snapshot_of(users(3))
    path, _ = run.save(DAY, kept)
    objects.save(run.store, DAY, snapshot_of(users(4)))
    before = bucket.state_of(run.store)
    assert run.save(DAY, kept) == (path, run.store.head(path))
    assert bucket.state_of(run.store) == before


def test_run_keeps_the_raw_snapshot_of_a_past_day(store: Store, run: SnapshotRun) -> None:
    """It is the day's current one, and what the next steps get; saving it writes nothing."""
    path, _ = objects.save(store, DAY, raw_users_of(users(3)))
    before = bucket.state_of(store)
    raw = run.keep_raw(DAY)
    assert run.load_raw(DAY) is raw
    assert run.save(DAY, raw) == (path, store.head(path))
    assert bucket.state_of(store) == before
    assert run.load_frames(DAY).facts.flat_rows == 3


def test_later_run_derives_what_it_publishes_from_the_raw_snapshot(store: Store) -> None:
    """A Parquet with a changed cell under digests that fit is neither audited nor published."""
    run, raw = SnapshotRun(store, CONTRACT), raw_users_of(users(3))
    run.save(DAY, raw)
    run.save(DAY, run.flatten(raw))
    changed = frames_with(frames_of(users(3, name_first="Eve")), raw_sha256=raw.file.sha256)
    objects.save(store, DAY, changed)
    later = SnapshotRun(store, CONTRACT)
    passed = later.pass_gates(DAY, later.load_frames(DAY), Policy())
    publish(store, DAY, passed, "run")
    assert bucket.body_of(store, csv_path(CONTRACT, DAY)) == bytes_of(csv_of(users(3)).file)
    assert len(list(verify(store, CONTRACT, DAY))) == 6


def test_kept_judgement_is_that_of_the_rows_the_day_and_the_policy(
    run: SnapshotRun, passes: Counter[str]
) -> None:
    """Other rows, another day or another policy are judged anew; the rows audited once each."""
    good, bad = frames_of(users(10)), frames_of(users(10, email=BAD_EMAIL))
    closed = bucket.message_of(lambda: run.pass_gates(DAY, bad, Policy()))
    assert closed.startswith("Closed by emails_are_valid, rejects_are_within_ratio: 1 of 10 rows")
    publish(run.store, DAY, run.pass_gates(DAY, bad, LENIENT), "run")
    assert run.judge(DAY, bad, LENIENT).compared_with is None
    assert run.judge(DAY_AFTER, bad, LENIENT).compared_with == DAY
    assert passes == {"audit_csv": 1, "find_history": 3}
    assert run.pass_gates(DAY_AFTER, good, Policy()).judgement.counts.published == 10
    assert passes == {"audit_csv": 2, "find_history": 4}
