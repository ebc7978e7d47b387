"""A day's objects are saved and loaded whole, or one sentence names what is wrong."""

from collections.abc import Callable

import pytest

from randusers_assets import definitions, load_users
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import load_csv, load_frames, load_raw, save
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.paths import version_1_paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import User, bytes_of, csv_of, frames_of, raw_users_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, DAY_AFTER


@pytest.mark.parametrize(
    ("snapshot_of", "path", "content_type"),
    [
        (raw_users_of, f"raw_users/dt={DAY}/SHA256.jsonl.zst", "application/zstd"),
        (frames_of, f"users_df/dt={DAY}/SHA256.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_saved_snapshot_is_loaded_with_its_facts(
    store: Store,
    snapshot_of: Callable[[list[User]], RawUsers | UserFrames],
    path: str,
    content_type: str,
) -> None:
    """The last one saved comes back byte for byte; those before stay under their own keys."""
    load = load_raw if snapshot_of is raw_users_of else load_frames
    for snapshot in (snapshot_of(users(3)), snapshot_of(users(4))):
        key = path.replace("SHA256", snapshot.file.sha256)
        assert save(store, DAY, snapshot) == (key, store.head(key))
        assert store.client.head_object(Bucket=store.bucket, Key=key)["ContentType"] == content_type
        loaded: RawUsers | UserFrames = load(store, CONTRACT, DAY)
        assert bytes_of(loaded.file) == bytes_of(snapshot.file)
        assert loaded.facts == snapshot.facts
    first = path.replace("SHA256", snapshot_of(users(3)).file.sha256)
    assert bucket.body_of(store, first) == bytes_of(snapshot_of(users(3)).file)


@pytest.mark.parametrize("asset", ["raw_users", "users_df"])
def test_load_of_a_day_that_is_not_stored_is_refused(store: Store, asset: str) -> None:
    """No pointer, one that is broken, and one to another object are told apart."""
    snapshot = raw_users_of(users(3)) if asset == "raw_users" else frames_of(users(3))
    load = load_raw if asset == "raw_users" else load_frames
    restore = ", or restore its raw snapshot if that day is past" if asset == "raw_users" else ""
    pointer, advice = f"_current/{asset}/dt={DAY}.json", f"materialize {asset} for {DAY}{restore}."

    def problem() -> str:
        return bucket.message_of(lambda: load(store, CONTRACT, DAY))

    assert problem() == f"{store.uri(pointer)} does not exist: {advice}"
    store.put(pointer, b"{}", content_type="application/json")
    assert problem() == (
        f"{store.uri(pointer)} cannot be read (Object missing required field uri): {advice}"
    )
    key, _ = save(store, DAY, snapshot)
    store.put(key, b"other", content_type="application/octet-stream")
    assert problem() == (
        f"{store.uri(key)} is not as it was written (its SHA-256 differs): {advice}"
    )


@pytest.mark.parametrize("load", [load_raw, load_frames])
def test_load_of_a_day_of_release_0_1_0_finds_its_one_object(
    store: Store, load: Callable[..., RawUsers | UserFrames]
) -> None:
    """Days of before the pointers are loaded; a raw snapshot is stored again under its digest."""
    bucket.publish_users(store, DAY, users(3))
    facts = load(store, CONTRACT, DAY).facts
    bucket.become_version_1(store, DAY)
    assert load(store, CONTRACT, DAY).facts == facts
    assert len(list(verify(store, CONTRACT, DAY))) == 3
    bucket.publish_users(store, DAY, users(3))
    assert len(list(verify(store, CONTRACT, DAY))) == 6


def test_load_raw_names_a_snapshot_that_something_else_wrote(store: Store) -> None:
    """Raw lines without the facts of their fetch are not loaded."""
    path = version_1_paths(CONTRACT, DAY).raw
    store.put(path, bytes_of(raw_users_of(users(3)).file), content_type="application/zstd")
    assert bucket.message_of(lambda: load_raw(store, CONTRACT, DAY)) == (
        f"s3://{store.bucket}/{path} cannot be read (Input data was truncated): materialize"
        f" raw_users for {DAY}, or restore its raw snapshot if that day is past."
    )


def test_load_users_gives_a_day_of_the_configured_bucket_or_the_last(
    snapshot_store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last day is loaded unless one is given; a day that is not published is named."""
    monkeypatch.setattr(definitions, "snapshot_store", snapshot_store)
    store = snapshot_store.store
    assert bucket.message_of(load_users) == (
        f"s3://{store.bucket}/_receipts/users_csv/latest.json does not exist: no day is published;"
        " materialize users_csv first."
    )
    assert bucket.message_of(lambda: load_users("yesterday")) == (
        "'yesterday' is not a day such as 2026-11-23"
    )
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    problem = f"users.csv does not exist: materialize users_csv for {DAY_AFTER}."
    assert bucket.message_of(lambda: load_users(DAY_AFTER)).endswith(problem)
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(11)))
    assert (len(load_users()), len(load_users(DAY))) == (11, 10)


def test_load_csv_refuses_another_object_than_the_receipts(store: Store) -> None:
    """An object with a digest of its own, with only the claim of one, or none is not loaded."""
    bucket.publish_csv(store, DAY, csv_of(users(3)))
    assert len(load_csv(store, CONTRACT, DAY)) == 3
    uri, advice = store.uri(CSV), f"materialize users_csv for {DAY}."

    def problem() -> str:
        return bucket.message_of(lambda: load_csv(store, CONTRACT, DAY))

    bucket.overwrite(store, CSV)
    assert problem() == f"{uri} is not as it was written (its SHA-256 differs): {advice}"
    store.put(CSV, b"id\n", content_type="text/csv")
    receipt = store.uri(bucket.receipt_key(store))
    assert problem() == f"{uri} has no receipt: {receipt} does not exist; {advice}"
    bucket.delete(store, CSV)
    assert problem() == f"{uri} does not exist: {advice}"
