"""A day is published whole and with its proof, or not at all."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.publish.objects import load_raw
from randusers_assets.pipeline.publish.publish import CODE_VERSION, Publication
from randusers_assets.pipeline.publish.receipt import latest_day
from randusers_assets.pipeline.publish.verify import read_back, verify
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import bytes_of, csv_of, raw_users_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import (
    BAD_EMAIL,
    DAY,
    DAY_AFTER,
    DAY_BEFORE,
    LENIENT,
)


def test_first_publication_writes_the_keys_of_the_design(store: Store) -> None:
    """Eleven objects with their bytes and types; the receipt is exactly this JSON."""
    snapshot = users(10, email=BAD_EMAIL)
    publication = bucket.publish_users(store, DAY, snapshot, Policy(0.1, "a test account"))
    raw, csv = raw_users_of(snapshot), csv_of(snapshot)
    receipt = bucket.assert_consistent(store)
    assert (publication.receipt, publication.outcome) == (receipt, "published")
    assert publication.stored == store.head(bucket.CSV)
    state, text, json = bucket.state_of(store), "text/csv; charset=utf-8", "application/json"
    raw_key = f"raw_users/dt={DAY}/{raw.file.sha256}.jsonl.zst"
    parquet_key = f"users_df/dt={DAY}/{csv.frames_sha256}.parquet"
    rejects_key = f"_rejects/users_csv/dt={DAY}/{csv.file.sha256}.csv"
    receipt_key = f"_receipts/users_csv/dt={DAY}/{csv.file.sha256}.json"
    assert {key: content_type for key, (content_type, _) in state.items()} == {
        "_access/probe.txt": "text/plain",
        f"_current/raw_users/dt={DAY}.json": json,
        f"_current/users_df/dt={DAY}.json": json,
        receipt_key: json,
        "_receipts/users_csv/latest.json": json,
        rejects_key: text,
        raw_key: "application/zstd",
        f"users_csv/dt={DAY}/users.csv": text,
        parquet_key: "application/vnd.apache.parquet",
        f"users_parquet/dt={DAY}/users.parquet": "application/vnd.apache.parquet",
        "datapackage.json": json,
    }
    assert csv.parquet_copy
    assert bucket.body_of(store, bucket.CSV) == bytes_of(csv.file)
    assert bucket.body_of(store, rejects_key) == bytes_of(csv.rejects)
    assert bucket.body_of(store, bucket.COPY) == bytes_of(csv.parquet_copy)
    assert bucket.body_of(store, raw_key) == bytes_of(raw.file)

    def origin(path: str, sha256: str) -> dict[str, object]:
        return {"uri": f"s3://{store.bucket}/{path}", "sha256": sha256}

    def proof(path: str, file: TempFile) -> dict[str, object]:
        return {**origin(path, file.sha256), "bytes": file.size}

    types = {c.name: c.type for c in CONTRACT.columns} | {"email": "text"}
    bad_email = [{"id": 1, "column": "email", "shown": "n•••"}]
    names = (
        "required_are_filled texts_are_single_line timestamps_are_valid id_is_unique"
        " login_uuid_is_unique contract_is_kept"
    )
    kept = [{"name": name, "users": 0, "examples": []} for name in names.split()]
    expected = {
        "receipt_version": 2,
        "date": DAY,
        "published_at": receipt.published_at,
        "counts": {"declared": 10, "raw": 10, "flat": 10, "rejected": 1, "published": 9},
        "columns": [{"name": name, "type": kind, "nulls": 0} for name, kind in types.items()],
        "csv": proof(f"users_csv/dt={DAY}/users.csv", csv.file),
        "rejects": proof(rejects_key, csv.rejects),
        "parquet_copy": proof(f"users_parquet/dt={DAY}/users.parquet", csv.parquet_copy),
        "raw": origin(raw_key, raw.file.sha256),
        "parquet": origin(parquet_key, csv.frames_sha256),
        "source": csv.facts.fetch,
        "rules": [{"name": "emails_are_valid", "users": 1, "examples": bad_email}, *kept],
        "max_rejected_ratio": 0.1,
        "accepted_rejects": "a test account",
        "compared_with": None,
        "accepted_change": "",
        "run_id": "run",
        "code_version": CODE_VERSION,
        "contract_version": CONTRACT.version,
    }
    body = msgspec.json.format(msgspec.json.encode(expected), indent=2)
    assert bucket.body_of(store, receipt_key) == body


def test_publish_of_the_same_bytes_again_changes_nothing(store: Store) -> None:
    """The second run is `unchanged`: no object has another ETag or another time of writing."""

    def written() -> list[tuple[object, ...]]:
        listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
        return [(found["Key"], found["ETag"], found["LastModified"]) for found in listed]

    first = bucket.publish_csv(store, DAY, csv_of(users(10)), run_id="run-1")
    before = written()
    own = Store(lambda: store.client, store.bucket)
    own.check_access()
    again = bucket.publish_csv(own, DAY, csv_of(users(10)), run_id="run-2")
    assert again == Publication(first.receipt, first.stored, "unchanged")
    assert written()[1:] == before[1:]


def test_publish_of_new_bytes_replaces_the_day(store: Store) -> None:
    """New data for a published day replaces the old, receipt and rejects included."""
    bucket.publish_csv(store, DAY, csv_of(users(10)), run_id="run-1")
    old = bucket.receipt_key(store)
    csv = csv_of(users(10, email=BAD_EMAIL))
    assert bucket.publish_csv(store, DAY, csv, LENIENT, "run-2").outcome == "published"
    receipt = bucket.assert_consistent(store)
    assert (receipt.csv.sha256, receipt.run_id) == (csv.file.sha256, "run-2")
    assert bucket.body_of(store, bucket.rejects_key(store)) == bytes_of(csv.rejects)
    assert store.head(old)


def test_publish_of_an_older_day_leaves_latest_as_it_is(store: Store) -> None:
    """`latest.json` moves on to a newer day and never back to an older one."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    bucket.publish_csv(store, DAY_BEFORE, csv_of(users(10, name_first="Ada")))
    assert latest_day(store, CONTRACT) == DAY
    assert read_back(store, CONTRACT, DAY_BEFORE).passed
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(10)))
    assert latest_day(store, CONTRACT) == DAY_AFTER
    assert bucket.receipt_of(store, DAY_AFTER).compared_with == DAY


def test_publish_of_an_older_day_leaves_the_data_package_as_it_is(store: Store) -> None:
    """`datapackage.json` describes the last day, and the day that follows it replaces that."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    package = bucket.body_of(store, bucket.PACKAGE)
    bucket.publish_csv(store, DAY_BEFORE, csv_of(users(10, name_first="Ada")))
    assert bucket.body_of(store, bucket.PACKAGE) == package
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(10)))
    after = package.replace(DAY.encode(), DAY_AFTER.encode())
    assert bucket.body_of(store, bucket.PACKAGE) == after != package


def test_publish_without_the_parquet_copy_writes_and_names_none(store: Store) -> None:
    """Turned off, nothing else changes; turned on again, the next run adds it to the same CSV."""
    bucket.publish_users(store, DAY, users(10), parquet_copy=False)
    assert bucket.receipt_of(store).parquet_copy is None
    assert store.head(bucket.COPY) is None
    assert len(list(verify(store, CONTRACT, DAY))) == 5
    assert bucket.publish_users(store, DAY, users(10)).outcome == "unchanged"
    bucket.assert_consistent(store)
    assert len(list(verify(store, CONTRACT, DAY))) == 6


@pytest.mark.parametrize("damage", [bucket.delete, bucket.overwrite])
def test_publish_writes_a_lost_pointer_to_the_last_published_day(
    store: Store, damage: Callable[[Store, str], None]
) -> None:
    """Without a readable `latest.json` a rebuilt old day does not become the last one."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    bucket.publish_csv(store, DAY_AFTER, csv_of(users(10)))
    pointer = bucket.body_of(store, bucket.LATEST)
    damage(store, bucket.LATEST)
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    assert bucket.body_of(store, bucket.LATEST) == pointer


def test_publish_of_the_same_csv_with_other_rejects_keeps_both(store: Store) -> None:
    """Each receipt names its own rejects; those of the first are not replaced."""
    first, second = (
        csv_of([*users(9), user(10, email=email)]) for email in (BAD_EMAIL, "nobody@elsewhere")
    )
    assert first.file.sha256 == second.file.sha256
    bucket.publish_csv(store, DAY, first, LENIENT)
    rejects = bucket.rejects_key(store)
    assert bucket.publish_csv(store, DAY, second, LENIENT).outcome == "unchanged"
    assert bucket.assert_consistent(store).rejects.sha256 == second.rejects.sha256
    assert bucket.body_of(store, rejects) == bytes_of(first.rejects)
    assert bucket.rejects_key(store) == rejects.replace(
        ".csv", f"-{second.rejects.sha256}.csv"
    ).replace("users-", "users_")


def test_publish_after_a_closed_gate_leaves_the_day_proved(store: Store) -> None:
    """A refetch whose gates close moves the raw snapshot on; the published CSV keeps its own."""
    bucket.publish_users(store, DAY, users(10))
    receipt = bucket.receipt_of(store)
    closed = bucket.message_of(lambda: bucket.publish_users(store, DAY, users(10, email=BAD_EMAIL)))
    assert closed.startswith("Closed by emails_are_valid, rejects_are_within_ratio: ")
    assert load_raw(store, CONTRACT, DAY).file.sha256 != receipt.raw.sha256
    assert bucket.receipt_of(store) == receipt
    assert len(list(verify(store, CONTRACT, DAY))) == 6


def test_publish_records_an_accepted_change_and_keeps_it_accepted(store: Store) -> None:
    """An accepted day says why in its receipt; its rerun passes, other bytes do not."""
    bucket.publish_csv(store, DAY, csv_of(users(10)))
    accepting = Policy(accept_change="a tenant left")
    accepted = bucket.publish_csv(store, DAY_AFTER, csv_of(users(7)), accepting)
    assert accepted.receipt.accepted_change == "a tenant left"
    assert bucket.receipt_of(store, DAY_AFTER) == accepted.receipt
    again = bucket.publish_csv(store, DAY_AFTER, csv_of(users(7)))
    assert again == Publication(accepted.receipt, accepted.stored, "unchanged")
    assert ": 6 rows after 10 (bound: 20%)." in bucket.message_of(
        lambda: bucket.publish_csv(store, DAY_AFTER, csv_of(users(6)))
    )


def damage_nothing_but_the_type(store: Store, path: str) -> None:
    """Keep the bytes and the metadata of an object, and change how it says to read them."""
    body, now = bucket.body_of(store, path), store.head(path)
    assert now
    store.client.put_object(
        Bucket=store.bucket, Key=path, Body=body, Metadata=now.metadata, ContentEncoding="gzip"
    )


OBJECTS: dict[str, Callable[[Store], str]] = {
    "csv": lambda _: bucket.CSV,
    "rejects": bucket.rejects_key,
    "receipt": bucket.receipt_key,
    "raw": lambda store: bucket.receipt_of(store).raw.uri.removeprefix(store.uri("")),
    "parquet": lambda store: str(bucket.receipt_of(store).parquet).split("'")[1].split("/", 3)[3],
    "Parquet copy": lambda _: bucket.COPY,
    "data package": lambda _: bucket.PACKAGE,
    "current raw": lambda _: f"_current/raw_users/dt={DAY}.json",
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, bucket.overwrite) for name in OBJECTS),
        *((name, bucket.delete) for name in ("csv", "receipt", "Parquet copy", "data package")),
        *((name, damage_nothing_but_the_type) for name in ("csv", "receipt", "raw")),
    ],
)
def test_rerun_restores_a_damaged_object(
    store: Store, name: str, damage: Callable[[Store, str], None]
) -> None:
    """What is gone, overwritten with its digest kept, or of another type is written again."""
    snapshot = users(10, email=BAD_EMAIL)
    bucket.publish_users(store, DAY, snapshot, LENIENT)
    before, path = bucket.state_of(store), OBJECTS[name](store)
    damage(store, path)
    assert bucket.state_of(store) != before
    bucket.publish_users(store, DAY, snapshot, LENIENT)
    assert bucket.state_of(store) == before
    assert len(list(verify(store, CONTRACT, DAY))) == 6


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
    """S3 refuses bytes other than the audited ones; what is published stays as it was."""
    if published_before:
        bucket.publish_csv(store, DAY, csv_of(users(9)))
    before = bucket.state_of(store)
    corrupting = CorruptingStore(lambda: store.client, store.bucket)
    assert bucket.message_of(lambda: bucket.publish_csv(corrupting, DAY, csv_of(users(10)))) == (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv is not written: the bytes sent are not"
        " those that were audited (their SHA-256 differs): check this machine's disk and memory,"
        " then run again."
    )
    after, digest = bucket.state_of(store), csv_of(users(10)).file.sha256
    proof = {
        f"_rejects/users_csv/dt={DAY}/{digest}.csv",
        f"_receipts/users_csv/dt={DAY}/{digest}.json",
    }
    assert after.keys() - before.keys() - {"_access/probe.txt"} == proof
    assert {key: after[key] for key in before} == before
