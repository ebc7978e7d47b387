"""A day's objects are saved and loaded whole, or one sentence names what is wrong."""

from collections.abc import Callable

import pytest

from randusers_assets import definitions, load_users
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import load_csv, load_frames, load_raw, save
from randusers_assets.pipeline.storage.paths import raw_path
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import User, bytes_of, csv_of, frames_of, raw_users_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, DAY_AFTER


@pytest.mark.parametrize(
    ("snapshot_of", "path", "content_type"),
    [
        (raw_users_of, f"raw_users/dt={DAY}/users.jsonl.zst", "application/zstd"),
        (frames_of, f"users_df/dt={DAY}/users.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_saved_snapshot_is_loaded_with_its_facts(
    store: Store,
    snapshot_of: Callable[[list[User]], RawUsers | UserFrames],
    path: str,
    content_type: str,
) -> None:
    """Raw lines and flat rows come back byte for byte, the facts of the fetch with them."""
    snapshot = snapshot_of(users(3))
    assert save(store, DAY, snapshot) == (path, store.head(path))
    answer = store.client.head_object(Bucket=store.bucket, Key=path)
    assert answer["ContentType"] == content_type
    load = load_raw if isinstance(snapshot, RawUsers) else load_frames
    loaded: RawUsers | UserFrames = load(store, CONTRACT, DAY)
    assert bytes_of(loaded.file) == bytes_of(snapshot.file)
    assert loaded.facts == snapshot.facts


def test_load_raw_names_a_snapshot_that_something_else_wrote(store: Store) -> None:
    """Raw lines without the facts of their fetch are not loaded."""
    path = raw_path(CONTRACT, DAY)
    store.put(path, bytes_of(raw_users_of(users(3)).file), content_type="application/zstd")
    assert bucket.message_of(lambda: load_raw(store, CONTRACT, DAY)) == (
        f"s3://{store.bucket}/{path} has no facts of its fetch in its metadata: materialize"
        f" raw_users for {DAY} first."
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
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    problem = f"{DAY_AFTER} is not published; materialize users_csv for {DAY_AFTER} first."
    assert bucket.message_of(lambda: load_users(DAY_AFTER)).endswith(problem)
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(11)))
    assert (len(load_users()), len(load_users(DAY))) == (11, 10)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("missing", "does not exist"),
        ("other", "is not the object of its receipt"),
        ("overwritten", "is not as it was written (its SHA-256 differs)"),
    ],
)
def test_load_csv_refuses_another_object_than_the_receipts(
    store: Store, damage: str, problem: str
) -> None:
    """An object with a digest of its own, with only the claim of one, or none is not loaded."""
    bucket.publish_csv(store, DAY, csv_of(users(3)))
    assert len(load_csv(store, CONTRACT, DAY)) == 3
    if damage == "missing":
        bucket.delete(store, CSV)
    elif damage == "other":
        store.put(CSV, b"id\n", content_type="text/csv")
    else:
        bucket.overwrite(store, CSV)
    assert bucket.message_of(lambda: load_csv(store, CONTRACT, DAY)) == (
        f"s3://{store.bucket}/{CSV} {problem}: materialize users_csv for {DAY} again."
    )
