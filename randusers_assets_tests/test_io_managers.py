"""The three formats at their keys, and what a person gets who loads an asset by hand."""

import gc
import hashlib
from collections.abc import Iterator

import dagster as dg
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from randusers_assets import definitions
from randusers_assets.contract import COLUMNS
from randusers_assets.errors import Interrupted
from randusers_assets.io_managers import (
    UsersIOManager,
    load_csv,
    load_frames,
    load_raw,
    object_metadata,
    save_frames,
    save_raw,
)
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.flatten.frames import FetchFacts, RawUsers, UserFrames
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.storage.s3 import SnapshotStore, Stored
from randusers_assets.pipeline.storage.tempfiles import Spool
from randusers_assets_tests.builders import csv_of, facts_of, frames_of, raw_users_of, user, users

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings(
    "ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"
)

DAY = "2026-11-22"
RAW_KEY = f"raw_users/dt={DAY}/users.jsonl.zst"
FRAMES_KEY = f"users_df/dt={DAY}/users.parquet"
CSV_KEY = f"users_csv/dt={DAY}/users.csv"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect Dagster's contexts, which hold in-memory databases, here and not at some odd time."""
    yield
    gc.collect()


class Interrupting(SnapshotStore):
    """A store whose user presses Ctrl-C as it is asked for anything."""

    def download(self, path: str, advice: str) -> tuple[Spool, Stored]:  # noqa: ARG002  # the base's
        """Be interrupted."""
        raise dg.DagsterExecutionInterruptedError

    def put(self, *_args: object, **_settings: object) -> Stored:
        """Be interrupted."""
        raise dg.DagsterExecutionInterruptedError


def test_interrupted_transfers_end_the_run(store: SnapshotStore) -> None:
    """Neither a download nor an upload that somebody ends is begun again by a retry policy."""
    manager = UsersIOManager(snapshot_store=Interrupting(**dict(store)))
    output = dg.build_output_context(asset_key="users_df", partition_key=DAY)
    with pytest.raises(Interrupted):
        manager.handle_output(output, frames_of(users(1)))
    source = dg.build_input_context(
        asset_key="users_df", partition_key=DAY, dagster_type=dg.PythonObjectDagsterType(UserFrames)
    )
    with pytest.raises(Interrupted):
        manager.load_input(source)


def handed_over(
    store: SnapshotStore, asset: str, value: RawUsers | UserFrames | AuditedCsv
) -> dict[str, object]:
    """The metadata that the IO manager adds as it stores an asset's value, less its seconds."""
    context = dg.build_output_context(asset_key=asset, partition_key=DAY, run_id="run-1")
    UsersIOManager(snapshot_store=store).handle_output(context, value)
    metadata: dict[str, object] = {
        name: value.value for name, value in context.get_logged_metadata().items()
    }
    assert isinstance(metadata.pop("store_seconds"), float)
    return metadata


def by_hand(store: SnapshotStore, asset: str, wanted: type) -> object:
    """The asset as the project's definitions load it, on the store of the test."""
    with_store = dg.Definitions(
        assets=definitions.defs.assets,
        resources={
            **(definitions.defs.resources or {}),
            "snapshot_store": store,
            "users_io_manager": UsersIOManager(snapshot_store=store),
        },
    )
    with dg.DagsterInstance.ephemeral() as instance:
        return with_store.load_asset_value(
            asset, python_type=wanted, partition_key=DAY, instance=instance
        )


def stored_at(store: SnapshotStore, key: str) -> tuple[bytes, str, dict[str, str]]:
    """An object's bytes, content type and metadata."""
    answer = store.client.get_object(Bucket=store.bucket, Key=key)
    return answer["Body"].read(), answer["ContentType"], answer["Metadata"]


def keys_of(store: SnapshotStore) -> list[str]:
    """The keys of all objects."""
    listed = store.client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    return [found["Key"] for found in listed]


def test_raw_users_are_stored_as_zstd_json_lines(store: SnapshotStore) -> None:
    """One JSON line a user, the facts of the fetch beside it, the digest of the object."""
    raw = raw_users_of(users(3))
    metadata = handed_over(store, "raw_users", raw)
    assert keys_of(store) == [RAW_KEY]
    body, content_type, beside = stored_at(store, RAW_KEY)
    lines = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
    assert [msgspec.json.decode(line) for line in lines.splitlines()] == users(3)
    assert content_type == "application/zstd"
    digest = hashlib.sha256(body).hexdigest()
    assert beside.keys() == {"fetch", "sha256"}
    assert beside["sha256"] == digest
    assert msgspec.json.decode(beside["fetch"], type=FetchFacts) == facts_of(3)
    assert metadata == {
        "dagster/uri": f"s3://{store.bucket}/{RAW_KEY}",
        "dagster/row_count": 3,
        "bytes": len(body),
        "sha256": digest,
        "etag": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }
    loaded = load_raw(store, DAY)
    assert (b"".join(loaded.blocks()), loaded.facts) == (lines, facts_of(3))


def test_users_df_is_stored_as_parquet(store: SnapshotStore) -> None:
    """The columns of the contract in their order, readable by any Parquet reader."""
    frames = frames_of(users(3))
    metadata = handed_over(store, "users_df", frames)
    assert keys_of(store) == [FRAMES_KEY]
    body, content_type, beside = stored_at(store, FRAMES_KEY)
    table = pq.read_table(pa.BufferReader(body))
    assert table.column_names == [column.name for column in COLUMNS]
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert content_type == "application/vnd.apache.parquet"
    assert beside == {"sha256": hashlib.sha256(body).hexdigest()}
    assert metadata["dagster/uri"] == f"s3://{store.bucket}/{FRAMES_KEY}"
    assert metadata["dagster/row_count"] == 3
    loaded = load_frames(store, DAY)
    assert list(loaded.batches()) == list(frames.batches())
    assert loaded.facts == frames.facts


def test_users_csv_is_published_with_its_receipt(store: SnapshotStore) -> None:
    """The IO manager publishes the audited CSV and shows what the receipt proves."""
    csv = csv_of(users(3))
    metadata = handed_over(store, "users_csv", csv)
    body, content_type, beside = stored_at(store, CSV_KEY)
    assert body.startswith(csv_format.header())
    assert content_type == "text/csv; charset=utf-8"
    assert beside == {"sha256": csv.sha256}
    receipt = receipts.read_receipt(store, DAY)
    assert receipt
    assert receipt[0].run_id == "run-1"
    assert metadata.pop("receipt") == msgspec.to_builtins(receipt[0])
    assert metadata == {
        "dagster/uri": f"s3://{store.bucket}/{CSV_KEY}",
        "dagster/row_count": 3,
        "bytes": len(body),
        "sha256": csv.sha256,
        "etag": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        "outcome": "published",
        "rejected": 0,
    }
    assert handed_over(store, "users_csv", csv)["outcome"] == "unchanged"


def test_metadata_of_an_object_is_plain(store: SnapshotStore) -> None:
    """The URI is a plain text and the counts are plain numbers, which Dagster plots."""
    stored = save_raw(store, DAY, raw_users_of(users(1)))
    metadata = object_metadata("s3://b/k", 1, stored)
    assert [type(value) for value in metadata.values()] == [str, int, int, str, str]


@pytest.mark.parametrize("asset", ["users_df", "users_csv"])
def test_loading_by_hand_gives_one_dataframe(store: SnapshotStore, asset: str) -> None:
    """`load_asset_value` gives an ordinary DataFrame, typed by the contract, NULL apart from ''."""
    snapshot = [
        user(1, location_postcode="0270", name_title=None, dob_age=None),
        user(2, location_postcode=92298, name_title=""),
    ]
    save_frames(store, DAY, frames_of(snapshot))
    publish(store, DAY, csv_of(snapshot), "run")
    frame = by_hand(store, asset, pd.DataFrame)
    assert type(frame) is pd.DataFrame
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert frame["id"].tolist() == [1, 2]
    assert frame["location_postcode"].tolist() == ["0270", "92298"]
    assert frame["name_title"].isna().tolist() == [True, False]
    assert frame["name_title"][1] == ""
    assert str(frame["id"].dtype) == "int64"
    assert str(frame["dob_age"].dtype) == "Int64"
    assert str(frame["dob_date"].dtype) == "datetime64[ms, UTC]"
    assert frame["dob_date"][0] == pd.Timestamp(snapshot[0]["dob"]["date"])


def test_users_df_and_users_csv_hold_the_same_rows(store: SnapshotStore) -> None:
    """What is read back from the CSV is the frame that it was made from."""
    save_frames(store, DAY, frames_of(users(20)))
    publish(store, DAY, csv_of(users(20)), "run")
    from_csv = load_csv(store, DAY)
    pd.testing.assert_frame_equal(from_csv, load_frames(store, DAY).to_pandas())


def test_the_next_asset_gets_batches(store: SnapshotStore) -> None:
    """An input annotated as the assets annotate theirs is a spool in batches, not a frame."""
    save_raw(store, DAY, raw_users_of(users(3)))
    save_frames(store, DAY, frames_of(users(3)))
    raw = by_hand(store, "raw_users", RawUsers)
    frames = by_hand(store, "users_df", UserFrames)
    assert isinstance(raw, RawUsers)
    assert isinstance(frames, UserFrames)
    assert [batch.num_rows for batch in frames.batches()] == [3]


@pytest.mark.parametrize(
    ("asset", "key"), [("raw_users", RAW_KEY), ("users_df", FRAMES_KEY), ("users_csv", CSV_KEY)]
)
def test_missing_asset_is_named_with_what_to_materialize(
    store: SnapshotStore, asset: str, key: str
) -> None:
    """Loading a day that is not there names the object and the asset."""
    with pytest.raises(dg.Failure) as caught:
        by_hand(store, asset, object)
    assert caught.value.description == (
        f"s3://{store.bucket}/{key} does not exist: materialize {asset} for {DAY} first."
    )


def test_a_snapshot_that_this_process_stored_is_not_fetched_again(store: SnapshotStore) -> None:
    """While S3 holds the very object that was stored, the next step gets what stored it."""
    manager, raw = UsersIOManager(snapshot_store=store), raw_users_of(users(3))
    manager.handle_output(
        dg.build_output_context(asset_key="raw_users", partition_key=DAY, run_id="run-1"), raw
    )

    def loaded() -> object:
        return manager.load_input(
            dg.build_input_context(
                asset_key=dg.AssetKey("raw_users"),
                partition_key=DAY,
                dagster_type=dg.PythonObjectDagsterType(RawUsers),
            )
        )

    assert loaded() is raw
    save_raw(store, DAY, raw_users_of(users(2)))
    other = loaded()
    assert isinstance(other, RawUsers)
    assert other.reading.rows == 2


def test_raw_users_without_their_facts_are_refused(store: SnapshotStore) -> None:
    """A raw object that another hand wrote has no declared count to be held against."""
    spool = raw_users_of(users(1)).spool
    store.put(RAW_KEY, spool, spool.sha256, content_type="application/zstd")
    with pytest.raises(dg.Failure) as caught:
        load_raw(store, DAY)
    assert caught.value.description == (
        f"s3://{store.bucket}/{RAW_KEY} does not carry the facts of its fetch: materialize"
        f" raw_users for {DAY} first."
    )
