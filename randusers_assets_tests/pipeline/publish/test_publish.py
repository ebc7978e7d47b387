"""A day is published whole and with its proof, or not at all."""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.publish.publish import CODE_VERSION, Publication
from randusers_assets.pipeline.publish.receipt import require_receipt
from randusers_assets.pipeline.publish.verify import read_back
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import bytes_of, csv_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import BAD_EMAIL, DAY, DAY_AFTER, LENIENT


def test_first_publication_writes_the_keys_of_the_design(store: Store) -> None:
    """Four objects with their bytes and types; the receipt is exactly this JSON."""
    csv = csv_of(users(10, email=BAD_EMAIL))
    publication = bucket.publish_csv(store, DAY, csv, Policy(0.1, "a test account"), "run-1")
    receipt = bucket.assert_consistent(store)
    assert publication == Publication(receipt, "published")
    state, text = bucket.state_of(store), "text/csv; charset=utf-8"
    assert {key: content_type for key, (content_type, _) in state.items()} == {
        f"_receipts/users_csv/dt={DAY}.json": "application/json",
        "_receipts/users_csv/latest.json": "application/json",
        f"_rejects/users_csv/dt={DAY}.csv": text,
        f"users_csv/dt={DAY}/users.csv": text,
    }
    assert bucket.body_of(store, bucket.CSV) == bytes_of(csv.file)
    assert bucket.body_of(store, bucket.REJECTS) == bytes_of(csv.rejects)

    def proof(path: str, file: TempFile) -> dict[str, object]:
        facts = {"uri": f"s3://{store.bucket}/{path}", "sha256": file.sha256, "bytes": file.size}
        etag = hashlib.md5(bytes_of(file), usedforsecurity=False).hexdigest()
        return {**facts, "etag": f'"{etag}"', "version_id": None}

    types = {c.name: c.type for c in CONTRACT.columns} | {"email": "text"}
    bad_email = [{"id": 1, "column": "email", "shown": "n•••"}]
    names = (
        "required_are_filled texts_are_single_line timestamps_are_valid id_is_unique"
        " login_uuid_is_unique contract_is_kept"
    )
    kept = [{"name": name, "users": 0, "examples": []} for name in names.split()]
    expected = {
        "receipt_version": 1,
        "date": DAY,
        "published_at": receipt.published_at,
        "counts": {"declared": 10, "raw": 10, "flat": 10, "rejected": 1, "published": 9},
        "columns": [{"name": name, "type": kind, "nulls": 0} for name, kind in types.items()],
        "csv": proof(f"users_csv/dt={DAY}/users.csv", csv.file),
        "rejects": proof(f"_rejects/users_csv/dt={DAY}.csv", csv.rejects),
        "raw_sha256": csv.facts.raw_sha256,
        "source": csv.facts.fetch,
        "rules": [{"name": "emails_are_valid", "users": 1, "examples": bad_email}, *kept],
        "max_rejected_ratio": 0.1,
        "accepted_rejects": "a test account",
        "previous": None,
        "accepted_change": "",
        "run_id": "run-1",
        "code_version": CODE_VERSION,
        "contract_version": CONTRACT.version,
    }
    body = msgspec.json.format(msgspec.json.encode(expected), indent=2)
    assert store.read(bucket.RECEIPT) == (body, store.head(bucket.RECEIPT))


def test_publish_of_the_same_bytes_again_changes_nothing(store: Store) -> None:
    """The second run is `unchanged`: no object has another ETag or another time of writing."""

    def written() -> list[tuple[object, ...]]:
        listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
        return [(found["Key"], found["ETag"], found["LastModified"]) for found in listed]

    first = bucket.publish_csv(store, DAY, csv_of(users(10)), run_id="run-1")
    before = written()
    again = bucket.publish_csv(store, DAY, csv_of(users(10)), run_id="run-2")
    assert again == Publication(first.receipt, "unchanged")
    assert written() == before


def test_publish_of_new_bytes_replaces_the_day(store: Store) -> None:
    """New data for a published day replaces the old, receipt and rejects included."""
    bucket.publish_csv(store, DAY, csv_of(users(10)), run_id="run-1")
    csv = csv_of(users(10, email=BAD_EMAIL))
    assert bucket.publish_csv(store, DAY, csv, LENIENT, "run-2").outcome == "published"
    receipt = bucket.assert_consistent(store)
    assert (receipt.csv.sha256, receipt.run_id) == (csv.file.sha256, "run-2")
    assert bucket.body_of(store, bucket.REJECTS) == bytes_of(csv.rejects)


def test_publish_of_an_older_day_leaves_latest_as_it_is(store: Store) -> None:
    """`latest.json` moves on to a newer day and never back to an older one."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    bucket.publish_csv(store, bucket.DAY_BEFORE, csv_of(users(10, name_first="Ada")))
    assert require_receipt(store, CONTRACT, None).date == DAY
    assert read_back(store, CONTRACT, bucket.DAY_BEFORE).passed
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(10)))
    latest = require_receipt(store, CONTRACT, None)
    assert (latest.date, latest.previous) == (DAY_AFTER, DAY)


def test_publish_records_an_accepted_change_and_keeps_it_accepted(store: Store) -> None:
    """An accepted day says why in its receipt; its rerun passes, other bytes do not."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    accepting = Policy(accept_change="a tenant left")
    accepted = bucket.publish_csv(store, DAY_AFTER, csv_of(users(7)), accepting)
    assert accepted.receipt.accepted_change == "a tenant left"
    assert bucket.receipt_of(store, DAY_AFTER) == accepted.receipt
    again = bucket.publish_csv(store, DAY_AFTER, csv_of(users(7)))
    assert again == Publication(accepted.receipt, "unchanged")
    assert ": 6 rows after 10 (bound: 20%)." in bucket.message_of(
        lambda: bucket.publish_csv(store, DAY_AFTER, csv_of(users(6)))
    )


@pytest.mark.parametrize("path", [bucket.CSV, bucket.REJECTS])
@pytest.mark.parametrize("damage", [bucket.delete, bucket.overwrite])
def test_rerun_restores_a_damaged_object(
    store: Store, path: str, damage: Callable[[Store, str], None]
) -> None:
    """What is gone, or overwritten with its digest kept in the metadata, is written again."""
    csv = csv_of(users(10, email=BAD_EMAIL))
    bucket.publish_csv(store, DAY, csv, LENIENT)
    before = bucket.state_of(store)
    damage(store, path)
    assert bucket.state_of(store) != before
    assert bucket.publish_csv(store, DAY, csv, LENIENT).outcome == "unchanged"
    assert bucket.state_of(store) == before
    bucket.assert_consistent(store)


class CorruptingStore(Store):
    """A store on a machine that flips a bit of the CSV between the audit and the write."""

    def put(self, path: str, body: TempFile | bytes, **options: Any) -> Stored:  # noqa: ANN401  # the store's own
        """Write the CSV with one bit flipped."""
        sha256 = None
        if isinstance(body, TempFile) and path.endswith("users.csv"):
            sha256, data = body.sha256, bytearray(bytes_of(body))
            data[len(data) // 2] ^= 1
            with body.writer() as file:
                file.write(data)
        return super().put(path, body, **options, sha256=sha256)


@pytest.mark.parametrize("published_before", [False, True])
def test_publish_of_a_corrupted_byte_is_refused_and_changes_nothing(
    store: Store, *, published_before: bool
) -> None:
    """S3 refuses bytes other than the audited ones; the bucket stays as it was."""
    if published_before:
        bucket.publish_csv(store, DAY, csv_of(users(9)))
    before = bucket.state_of(store)
    corrupting = CorruptingStore(lambda: store.client, store.bucket)
    assert bucket.message_of(lambda: bucket.publish_csv(corrupting, DAY, csv_of(users(10)))) == (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv is not written: the bytes sent are not"
        " those that were audited (their SHA-256 differs): check this machine's disk and memory,"
        " then run again."
    )
    assert bucket.state_of(store) == before
