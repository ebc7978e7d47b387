"""The three formats at their keys, and what a person gets who loads an asset by hand."""

import gc
import hashlib
from collections.abc import Iterator
from typing import Any

import boto3
import dagster as dg
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config

from randusers_assets.contract import CONTRACT
from randusers_assets.errors import Interrupted
from randusers_assets.io_managers import UsersIOManager
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import Current, save
from randusers_assets.pipeline.publish.publish import PassedCsv, describe_interruption
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests import builders
from randusers_assets_tests.builders import csv_of, frames_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import DAY
from randusers_assets_tests.project import definitions_on

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect Dagster's contexts, which hold in-memory databases, here and not at some odd time."""
    yield
    gc.collect()


@pytest.fixture
def manager(store: Store) -> UsersIOManager:
    """The IO manager of one run."""
    return UsersIOManager(SnapshotRun(store, CONTRACT))


class Interrupting(Store):
    """A store whose user presses Ctrl-C at one of the writes: before it, or after it."""

    at: str
    written: bool

    def put(self, path: str, body: TempFile | bytes, **options: Any) -> Stored:  # noqa: ANN401  # the store's own
        """Write, and be interrupted."""
        if not path.startswith(self.at):
            return super().put(path, body, **options)
        if self.written:
            super().put(path, body, **options)
        raise dg.DagsterExecutionInterruptedError


def store_output(
    manager: UsersIOManager, asset: str, value: RawUsers | UserFrames | PassedCsv
) -> dict[str, object]:
    """Store an asset's value; the metadata that this adds, less its seconds."""
    context = dg.build_output_context(asset_key=asset, partition_key=DAY, run_id="run-1")
    manager.handle_output(context, value)
    logged = context.get_logged_metadata()
    metadata: dict[str, object] = {name: shown.value for name, shown in logged.items()}
    assert isinstance(metadata.pop("store_seconds"), float)
    return metadata


def load_as(manager: UsersIOManager, asset: str, kind: type) -> object:
    """What a step gets whose input is annotated so."""
    wanted = dg.PythonObjectDagsterType(kind)
    context = dg.build_input_context(asset_key=asset, partition_key=DAY, dagster_type=wanted)
    return manager.load_input(context)


def load_by_hand(store: SnapshotStore, asset: str) -> object:
    """The asset as a person loads it through the project's definitions."""
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions_on(store).load_asset_value(asset, partition_key=DAY, instance=instance)


def assert_shown(
    store: Store, metadata: dict[str, object], key: str, content_type: str, **more: object
) -> bytes:
    """The object of three rows is what the UI shows of it; its bytes."""
    answer = store.client.get_object(Bucket=store.bucket, Key=key)
    body = answer["Body"].read()
    digest = hashlib.sha256(body).hexdigest()
    assert metadata == {
        "dagster/uri": f"s3://{store.bucket}/{key}",
        "dagster/row_count": 3,
        "bytes": len(body),
        "sha256": digest,
        "etag": hashlib.md5(body, usedforsecurity=False).hexdigest(),
        **more,
    }
    assert answer["ContentType"] == content_type
    assert answer["Metadata"] == {"sha256": digest}
    return body


STAYS = "the CSV that is published and its receipt stay as they were."
BEFORE = f"The run was interrupted before it published {DAY}: {STAYS}"
AFTER = (
    f"The run was interrupted after {DAY} was published with its receipt: run again to write"
    " what follows it, up to datapackage.json."
)


@pytest.mark.parametrize(
    ("at", "written", "sentence"),
    [
        ("users_df/", False, f"The run was interrupted before it published anything: {STAYS}"),
        ("_rejects/", True, BEFORE),
        ("_receipts/", True, BEFORE),
        ("users_csv/", False, BEFORE),
        ("users_csv/", True, AFTER),
        ("users_parquet/", False, AFTER),
        ("_receipts/users_csv/latest.json", False, AFTER),
        ("datapackage.json", False, AFTER),
    ],
)
def test_interrupted_write_ends_the_run_and_says_what_is_published(
    store: Store, at: str, sentence: str, *, written: bool
) -> None:
    """No write that somebody interrupts is retried; its message is true of the bucket."""
    interrupting = Interrupting(lambda: store.client, store.bucket)
    interrupting.__dict__.update(at=at, written=written)  # the class is frozen
    manager = UsersIOManager(SnapshotRun(interrupting, CONTRACT))
    csv = builders.passed(csv_of(users(3)))
    with pytest.raises(Interrupted) as interrupted:
        store_output(manager, "users_csv", frames_of(users(3)) if at == "users_df/" else csv)
    assert str(interrupted.value) == sentence
    assert (store.head(bucket.CSV) is not None) is (sentence == AFTER)


def test_interruption_while_s3_is_down_says_that_nothing_is_known(store: Store) -> None:
    """Where the bucket cannot be asked any more, the message says how to ask it later."""
    once = Config(retries={"max_attempts": 0})
    down = boto3.client("s3", endpoint_url="http://127.0.0.1:9", config=once)
    message = describe_interruption(Store(lambda: down, store.bucket), DAY, csv_of(users(3)))
    assert message.startswith(
        f"The run was interrupted, and whether {DAY} is published cannot be seen: s3://"
    )
    assert message.endswith(f" Then see `randusers verify --date {DAY}`.")


def current(store: Store, asset: str) -> Current:
    """The day's pointer."""
    body = bucket.body_of(store, f"_current/{asset}/dt={DAY}.json")
    return msgspec.json.decode(body, type=Current)


def test_raw_users_are_stored_as_zstd_json_lines(store: Store, manager: UsersIOManager) -> None:
    """One JSON line a row; the pointer has the facts; the next step gets the very same object."""
    raw = builders.raw_users_of(users(3))
    metadata = store_output(manager, "raw_users", raw)
    assert load_as(manager, "raw_users", RawUsers) is raw
    key = f"raw_users/dt={DAY}/{raw.file.sha256}.jsonl.zst"
    body = assert_shown(store, metadata, key, "application/zstd")
    lines = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
    assert [msgspec.json.decode(line) for line in lines.splitlines()] == users(3)
    assert current(store, "raw_users") == Current(
        uri=store.uri(key), sha256=raw.file.sha256, fetch=builders.facts_of(3)
    )


def test_users_df_is_stored_as_parquet(store: Store, manager: UsersIOManager) -> None:
    """The contract's columns in order, for any reader; the next step gets the very same object."""
    frames = frames_of(users(3))
    metadata = store_output(manager, "users_df", frames)
    assert load_as(manager, "users_df", UserFrames) is frames
    key = f"users_df/dt={DAY}/{frames.file.sha256}.parquet"
    body = assert_shown(store, metadata, key, "application/vnd.apache.parquet")
    table = pq.read_table(pa.BufferReader(body))
    assert table.column_names == list(CONTRACT.by_name)
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert current(store, "users_df").uri == store.uri(key)


def test_users_csv_is_published_with_its_receipt(store: Store, manager: UsersIOManager) -> None:
    """The IO manager publishes the audited CSV and shows what the receipt proves."""
    csv = builders.passed(csv_of(users(3)))
    for outcome in ("published", "unchanged"):
        metadata = store_output(manager, "users_csv", csv)
        receipt = bucket.receipt_of(store)
        assert receipt.run_id == "run-1"
        shown = {
            "receipt": msgspec.to_builtins(receipt),
            "receipt_link": store.link(bucket.receipt_key(store)),
            "parquet_copy": store.uri(bucket.COPY),
            "outcome": outcome,
            "rejected": 0,
        }
        content_type = "text/csv; charset=utf-8"
        body = assert_shown(store, metadata, bucket.CSV, content_type, **shown)
        assert body == builders.bytes_of(csv.csv.file)


def test_loading_by_hand_gives_one_dataframe(snapshot_store: SnapshotStore) -> None:
    """`load_asset_value` gives an ordinary DataFrame, typed by the contract, NULL apart from ''."""
    first = user(1, location_postcode="0270", name_title=None, dob_age=None)
    snapshot = [first, user(2, location_postcode=92298, name_title="")]
    save(snapshot_store.store, DAY, frames_of(snapshot))
    bucket.publish_csv(snapshot_store.store, DAY, csv_of(snapshot))
    frame = load_by_hand(snapshot_store, "users_df")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(CONTRACT.by_name)
    assert frame["location_postcode"].tolist() == ["0270", "92298"]
    assert frame["name_title"].isna().tolist() == [True, False]
    assert frame["name_title"][1] == ""
    types = [str(frame[name].dtype) for name in ("id", "dob_age", "dob_date")]
    assert types == ["int64", "Int64", "datetime64[ms, UTC]"]
    assert frame["dob_date"][0] == pd.Timestamp(first["dob"]["date"])
    from_csv = load_by_hand(snapshot_store, "users_csv")
    assert isinstance(from_csv, pd.DataFrame)
    pd.testing.assert_frame_equal(from_csv, frame)


def test_missing_asset_is_named_with_what_to_materialize(snapshot_store: SnapshotStore) -> None:
    """Loading a day that is not there names the object and the asset."""
    for asset, missing in {
        "raw_users": f"_current/raw_users/dt={DAY}.json",
        "users_df": f"_current/users_df/dt={DAY}.json",
        "users_csv": bucket.CSV,
    }.items():
        with pytest.raises(dg.Failure) as raised:
            load_by_hand(snapshot_store, asset)
        uri = snapshot_store.store.uri(missing)
        restore = (
            ", or restore its raw snapshot if that day is past" if asset == "raw_users" else ""
        )
        message = f"{uri} does not exist: materialize {asset} for {DAY}{restore}."
        assert raised.value.description == message
