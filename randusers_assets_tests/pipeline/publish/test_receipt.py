"""Receipts round-trip, refuse what they do not know, and lead back through the history."""

import hashlib

import dagster as dg
import msgspec
import pytest

from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.publish.receipt import Latest
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets_tests.builders import csv_of, users

DAYS = ("2026-11-20", "2026-11-21", "2026-11-23")
FIRST, SECOND, THIRD = DAYS


@pytest.fixture
def published(store: SnapshotStore) -> SnapshotStore:
    """A bucket with three published days, the fourth day between them left out."""
    for day in DAYS:
        publish(store, day, csv_of(users(3)), f"run-{day}")
    return store


def written(store: SnapshotStore, path: str, body: bytes) -> None:
    """Put other bytes in the place of a JSON object."""
    store.put(path, body, hashlib.sha256(body).hexdigest(), content_type=receipts.CONTENT_TYPE)


def sentence_of_receipt(store: SnapshotStore, body: bytes) -> str:
    """What reading a receipt of these bytes says."""
    written(store, receipts.receipt_path(FIRST), body)
    with pytest.raises(dg.Failure) as caught:
        receipts.read_receipt(store, FIRST)
    assert not caught.value.allow_retries
    return caught.value.description or ""


def test_receipt_reads_back_as_it_was_written(store: SnapshotStore) -> None:
    """What `publish` returns is what the bucket holds, and says its version first."""
    receipt = publish(store, FIRST, csv_of(users(3)), "run").receipt
    found = receipts.read_receipt(store, FIRST)
    assert found
    assert found[0] == receipt
    stored = store.read(receipts.receipt_path(FIRST))
    assert stored
    assert stored[1] == found[1]
    assert stored[0].startswith(b'{\n  "receipt_version": 1,\n  "date": "2026-11-20",\n')
    assert msgspec.json.decode(msgspec.json.encode(receipt), type=receipts.Receipt) == receipt


def test_receipt_of_an_unpublished_day_is_none(store: SnapshotStore) -> None:
    """Neither a receipt nor a pointer is invented."""
    assert receipts.read_receipt(store, FIRST) is None
    assert receipts.read_latest(store) is None
    assert receipts.receipt_before(store, FIRST) is None


def test_receipt_of_an_unknown_version_is_refused(store: SnapshotStore) -> None:
    """A receipt of a later version is not guessed at."""
    receipt = publish(store, FIRST, csv_of(users(3)), "run").receipt
    later = msgspec.json.encode({**msgspec.to_builtins(receipt), "receipt_version": 2})
    assert sentence_of_receipt(store, later) == (
        f"s3://{store.bucket}/_receipts/users_csv/dt=2026-11-20.json is not a receipt of version 1"
        " (Invalid enum value 2 - at $.receipt_version): restore the object, or move it away."
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"date": ', "Input data was truncated"),
        (b"{}", "Object missing required field date"),
        (b"", "Input data was truncated"),
        (b"<html>", "JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_broken_receipt_is_refused(store: SnapshotStore, body: bytes, problem: str) -> None:
    """What is no receipt is named, with what is wrong and what to do."""
    assert sentence_of_receipt(store, body) == (
        f"s3://{store.bucket}/_receipts/users_csv/dt=2026-11-20.json is not a receipt of version 1"
        f" ({problem}): restore the object, or move it away."
    )


def test_broken_pointer_is_refused(published: SnapshotStore) -> None:
    """A `latest.json` that cannot be read stops the history rather than starting a new one."""
    written(published, receipts.LATEST_PATH, b"[]")
    with pytest.raises(dg.Failure) as caught:
        receipts.receipt_before(published, THIRD)
    assert caught.value.description == (
        f"s3://{published.bucket}/_receipts/users_csv/latest.json is not a latest of version 1"
        " (Expected object, got array): restore the object, or move it away."
    )


def test_receipt_before_walks_back_along_the_links(published: SnapshotStore) -> None:
    """The last publication strictly before a day is found from any day, published or not."""
    found = {
        day: before.date if (before := receipts.receipt_before(published, day)) else None
        for day in ("2026-11-19", FIRST, SECOND, "2026-11-22", THIRD, "2026-11-24")
    }
    assert found == {
        "2026-11-19": None,
        FIRST: None,
        SECOND: FIRST,
        "2026-11-22": SECOND,
        THIRD: SECOND,
        "2026-11-24": THIRD,
    }


def test_receipt_before_names_a_missing_link(published: SnapshotStore) -> None:
    """A hole in the chain is told, as the history behind it cannot be checked."""
    published.client.delete_object(Bucket=published.bucket, Key=receipts.receipt_path(SECOND))
    with pytest.raises(dg.Failure) as caught:
        receipts.receipt_before(published, THIRD)
    assert caught.value.description == (
        f"s3://{published.bucket}/_receipts/users_csv/dt=2026-11-21.json is missing though the"
        " receipts point to it: restore it, so that the history can be checked."
    )
    last = receipts.receipt_before(published, "2026-11-24")
    assert last
    assert last.date == THIRD


def test_pointer_names_the_day_and_its_objects(published: SnapshotStore) -> None:
    """`latest.json` leads a reader from one known key to the last CSV and its proof."""
    found = receipts.read_latest(published)
    assert found
    uri = f"s3://{published.bucket}"
    assert found[0] == Latest(
        date=THIRD,
        csv=f"{uri}/users_csv/dt=2026-11-23/users.csv",
        receipt=f"{uri}/_receipts/users_csv/dt=2026-11-23.json",
    )
