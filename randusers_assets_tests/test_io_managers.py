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

from randusers_assets.contract import CONTRACT
from randusers_assets.errors import Interrupted
from randusers_assets.io_managers import UsersIOManager
from randusers_assets.pipeline.flatten.frames import FetchFacts, RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import save
from randusers_assets.pipeline.publish.publish import PassedCsv
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

RAW_KEY, FRAMES_KEY = f"raw_users/dt={DAY}/users.jsonl.zst", f"users_df/dt={DAY}/users.parquet"


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
    """A store whose user presses Ctrl-C during every transfer."""

    def download(self, path: str, advice: str) -> tuple[TempFile, Stored]:  # noqa: ARG002  # the base's
        """Be interrupted."""
        raise dg.DagsterExecutionInterruptedError

    def put(self, *_args: object, **_settings: object) -> Stored:
        """Be interrupted."""
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
) -> tuple[bytes, dict[str, str]]:
    """The object of three rows is what the UI shows of it; its bytes and other metadata."""
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
    assert answer["Metadata"].pop("sha256") == digest
    return body, answer["Metadata"]


def test_interrupted_transfers_end_the_run(snapshot_store: SnapshotStore) -> None:
    """Neither a download nor an upload that somebody ends is retried."""
    real = snapshot_store.store
    store = Interrupting(lambda: real.client, real.bucket)
    manager = UsersIOManager(SnapshotRun(store, CONTRACT))
    with pytest.raises(Interrupted):
        store_output(manager, "users_df", frames_of(users(1)))
    with pytest.raises(Interrupted):
        load_as(manager, "users_df", UserFrames)


def test_raw_users_are_stored_as_zstd_json_lines(store: Store, manager: UsersIOManager) -> None:
    """One JSON line a row, with the facts of the fetch; the next step gets the very same object."""
    raw = builders.raw_users_of(users(3))
    metadata = store_output(manager, "raw_users", raw)
    assert load_as(manager, "raw_users", RawUsers) is raw
    assert store.client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 1
    body, beside = assert_shown(store, metadata, RAW_KEY, "application/zstd")
    lines = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
    assert [msgspec.json.decode(line) for line in lines.splitlines()] == users(3)
    assert beside.keys() == {"fetch"}
    assert msgspec.json.decode(beside["fetch"], type=FetchFacts) == builders.facts_of(3)


def test_users_df_is_stored_as_parquet(store: Store, manager: UsersIOManager) -> None:
    """The contract's columns in order, for any reader; the next step gets the very same object."""
    frames = frames_of(users(3))
    metadata = store_output(manager, "users_df", frames)
    assert load_as(manager, "users_df", UserFrames) is frames
    assert store.client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 1
    body, beside = assert_shown(store, metadata, FRAMES_KEY, "application/vnd.apache.parquet")
    table = pq.read_table(pa.BufferReader(body))
    assert table.column_names == list(CONTRACT.by_name)
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert beside == {}


def test_users_csv_is_published_with_its_receipt(store: Store, manager: UsersIOManager) -> None:
    """The IO manager publishes the audited CSV and shows what the receipt proves."""
    csv = builders.passed(csv_of(users(3)))
    for outcome in ("published", "unchanged"):
        metadata = store_output(manager, "users_csv", csv)
        receipt = bucket.receipt_of(store)
        assert receipt.run_id == "run-1"
        shown = {"receipt": msgspec.to_builtins(receipt), "outcome": outcome, "rejected": 0}
        content_type = "text/csv; charset=utf-8"
        body, beside = assert_shown(store, metadata, bucket.CSV, content_type, **shown)
        assert (body, beside) == (builders.bytes_of(csv.csv.file), {})


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
        "raw_users": f"{RAW_KEY} does not exist:",
        "users_df": f"{FRAMES_KEY} does not exist:",
        "users_csv": f"{bucket.RECEIPT} does not exist: {DAY} is not published;",
    }.items():
        with pytest.raises(dg.Failure) as raised:
            load_by_hand(snapshot_store, asset)
        uri = snapshot_store.store.uri(missing)
        assert raised.value.description == f"{uri} materialize {asset} for {DAY} first."
