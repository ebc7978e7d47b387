"""The users of a day as a notebook gets them, or one sentence."""

import hashlib

import dagster as dg
import pandas as pd
import pytest

import randusers_assets
from randusers_assets.contract import COLUMNS
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.publish import load as loading
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.load import load_users
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets_tests.builders import csv_of, user, users

DAY, DAY_AFTER = "2026-11-22", "2026-11-23"


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch, store: SnapshotStore) -> None:
    """The store of the test in the place of the one that the environment configures."""
    monkeypatch.setattr(loading, "snapshot_store", store)


def refused(date: str | None = None) -> str:
    """The sentence with which loading ends."""
    with pytest.raises(dg.Failure) as caught:
        load_users(date)
    return caught.value.description or ""


def test_load_users_gives_the_day_typed_by_the_contract(store: SnapshotStore) -> None:
    """Ids are int64, dates UTC to the millisecond, text str, and integers with NULLs Int64."""
    snapshot = [user(1, location_postcode="0270", name_title=None, dob_age=None), user(2)]
    publish(store, DAY, csv_of(snapshot), "run")
    frame = load_users(DAY)
    kinds = {"timestamp": "datetime64[ms, UTC]", "integer": "Int64"}
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        **{c.name: kinds.get(c.type, "str") for c in COLUMNS},
        "id": "int64",
    }
    assert list(frame.columns) == [c.name for c in COLUMNS]
    assert frame["id"].tolist() == [1, 2]
    assert frame["location_postcode"][0] == "0270"
    assert frame["name_title"].isna().tolist() == [True, False]
    assert frame["dob_age"].isna().tolist() == [True, False]
    assert frame["dob_age"][1] == snapshot[1]["dob"]["age"]
    assert frame["dob_date"][1] == pd.Timestamp(snapshot[1]["dob"]["date"])


def test_load_users_without_a_day_gives_the_latest(store: SnapshotStore) -> None:
    """The latest day is loaded unless one is given, also from the package's own name."""
    publish(store, DAY, csv_of(users(10)), "run")
    publish(store, DAY_AFTER, csv_of(users(11)), "run")
    assert len(load_users()) == 11
    assert len(load_users(DAY)) == 10
    assert randusers_assets.load_users is load_users


def test_load_users_of_an_empty_bucket_names_the_pointer(store: SnapshotStore) -> None:
    """Where nothing is published there is no latest day."""
    assert refused() == (
        f"s3://{store.bucket}/_receipts/users_csv/latest.json does not exist: publish a day first."
    )


def test_load_users_of_a_day_that_is_not_published_names_its_receipt(store: SnapshotStore) -> None:
    """A day without a receipt is not loaded, though another one is published."""
    publish(store, DAY, csv_of(users(3)), "run")
    assert refused(DAY_AFTER) == (
        f"s3://{store.bucket}/_receipts/users_csv/dt={DAY_AFTER}.json does not exist: {DAY_AFTER}"
        " is not published; materialize users_csv for it first."
    )
    assert len(load_users(DAY)) == 3


@pytest.mark.parametrize("missing", [False, True])
def test_load_users_refuses_another_object_than_the_receipts(
    store: SnapshotStore, *, missing: bool
) -> None:
    """An object with a digest of its own, or none at all, is not the one that was published."""
    publish(store, DAY, csv_of(users(3)), "run")
    assert len(load_users(DAY)) == 3
    path = receipts.csv_path(DAY)
    if missing:
        store.client.delete_object(Bucket=store.bucket, Key=path)
    else:
        body = csv_format.header()
        digest = hashlib.sha256(body).hexdigest()
        store.put(path, body, digest, content_type=csv_format.CONTENT_TYPE)
    assert refused(DAY) == (
        f"s3://{store.bucket}/{path} is not the object of its receipt: materialize users_csv for"
        " it again."
    )


def test_load_users_refuses_bytes_that_only_claim_the_digest(store: SnapshotStore) -> None:
    """An object that was written over with its metadata kept is not loaded."""
    publish(store, DAY, csv_of(users(3)), "run")
    path = receipts.csv_path(DAY)
    found = store.read(path)
    assert found
    store.client.put_object(
        Bucket=store.bucket, Key=path, Body=found[0] + b"\n", Metadata=dict(found[1].metadata)
    )
    assert refused(DAY) == (
        f"s3://{store.bucket}/{path} is not as it was written (its SHA-256 differs): materialize"
        f" users_csv for {DAY} first."
    )
