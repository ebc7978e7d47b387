"""A published day is proved again from the bucket alone, or the first difference is told."""

import hashlib

import dagster as dg
import msgspec
import pytest

from randusers_assets.io_managers import raw_path, save_raw
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import SnapshotGate, audited, reject_schema
from randusers_assets.pipeline.flatten.frames import BLOCK_BYTES, lay_flat
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish import verify as verification
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.publish.receipt import Counts, Receipt
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.s3 import SnapshotStore, Stored
from randusers_assets_tests.builders import User, raw_users_of, user, users

DAY = "2026-11-22"
LENIENT = SnapshotGate(max_rejected_ratio=0.5)
BAD_EMAIL = "nobody@nowhere"
CSV, REJECTS = receipts.csv_path(DAY), receipts.rejects_path(DAY)
AGAIN = "materialize users_csv of that day again."


def published(
    store: SnapshotStore, snapshot: list[User], gate: SnapshotGate | None = None
) -> Receipt:
    """Store a day's raw snapshot, publish the CSV that is made of it, and prove it; the receipt.

    Proved before a test changes anything, so that what is told after is the change's doing.
    """
    raw = raw_users_of(snapshot)
    save_raw(store, DAY, raw)
    receipt = publish(store, DAY, audited(lay_flat(raw), gate or SnapshotGate()), "run").receipt
    assert len(list(verify(store, DAY))) == 4
    return receipt


def body_of(store: SnapshotStore, path: str) -> bytes:
    """The bytes of an object that is there."""
    found = store.read(path)
    assert found
    return found[0]


def write(store: SnapshotStore, path: str, body: bytes) -> Stored:
    """Write over an object with its own digest beside it."""
    digest = hashlib.sha256(body).hexdigest()
    return store.put(path, body, digest, content_type=csv_format.CONTENT_TYPE)


def edit_receipt(store: SnapshotStore, receipt: Receipt, **changes: object) -> None:
    """Write over the day's receipt with other fields."""
    edited = msgspec.structs.replace(receipt, **changes)
    write(store, receipts.receipt_path(DAY), msgspec.json.encode(edited))


def edit_counts(store: SnapshotStore, receipt: Receipt, **changes: int) -> Counts:
    """Write over the day's receipt with other counts; the counts."""
    counts: Counts = msgspec.structs.replace(receipt.counts, **changes)
    edit_receipt(store, receipt, counts=counts)
    return counts


def forge(store: SnapshotStore, receipt: Receipt, path: str, body: bytes) -> None:
    """Write over the CSV or the rejects, and edit the receipt so that it stands for the new bytes.

    The strongest forgery: only the rows themselves and the raw snapshot can contradict it.
    """
    stored = write(store, path, body)
    name = "csv" if path == CSV else "rejects"
    proof = msgspec.structs.replace(
        getattr(receipt, name), sha256=stored.sha256, bytes=stored.size, etag=stored.etag
    )
    edit_receipt(store, receipt, **{name: proof})


def difference(store: SnapshotStore) -> str:
    """The sentence of the difference that ends the proof, which no retry mends."""
    with pytest.raises(dg.Failure) as caught:
        list(verify(store, DAY))
    assert not caught.value.allow_retries
    return caught.value.description or ""


def differs(store: SnapshotStore, path: str, problem: str) -> str:
    """What is said of an object."""
    return f"s3://{store.bucket}/{path}: {problem}: {AGAIN}"


def test_verify_proves_a_published_day(store: SnapshotStore) -> None:
    """Bytes, rules, counts and raw are proved, one sentence each."""
    published(store, users(3))
    assert list(verify(store, DAY)) == [
        f"s3://{store.bucket}/{CSV}: {len(body_of(store, CSV)):,} bytes with the receipt's SHA-256",
        "3 rows keep every rule; NULLs are as counted",
        "3 declared = 3 published + 0 rejected",
        "made again from the raw snapshot, the CSV has the same SHA-256",
    ]


@pytest.mark.parametrize("block_bytes", [1, 300])
def test_verify_proves_a_day_of_many_blocks(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Wherever a block ends in a record, within a text or between two cells, no row is cut."""
    monkeypatch.setattr(verification, "BLOCK_BYTES", block_bytes)
    published(store, users(40))
    assert list(verify(store, DAY))[1] == "40 rows keep every rule; NULLs are as counted"


def test_verify_proves_a_day_with_rejected_rows(store: SnapshotStore) -> None:
    """Rows set aside under the receipt's own ratio count as rejected, and raw gives the CSV."""
    published(
        store, [user(1, email=BAD_EMAIL), user(2, location_postcode=[1]), *users(5)[2:]], LENIENT
    )
    assert list(verify(store, DAY))[1:] == [
        "3 rows keep every rule; NULLs are as counted",
        "5 declared = 3 published + 2 rejected",
        "made again from the raw snapshot, the CSV has the same SHA-256",
    ]


def test_verify_counts_a_reject_of_many_lines_once(store: SnapshotStore) -> None:
    """A rejected text whose line ends reach past a block is still one row."""
    lines = f'{"x" * 999}"\n' * (BLOCK_BYTES // 1000 + 1)
    published(store, [user(1, location_city=lines), *users(4)[1:]], LENIENT)
    assert len(body_of(store, REJECTS)) > BLOCK_BYTES
    assert list(verify(store, DAY))[2] == "4 declared = 3 published + 1 rejected"


def test_verify_of_a_day_without_a_receipt_differs(store: SnapshotStore) -> None:
    """A day that is not published is told before anything is proved."""
    assert difference(store) == differs(
        store, f"_receipts/users_csv/dt={DAY}.json", f"{DAY} is not published"
    )


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_verify_of_a_tampered_csv_differs(store: SnapshotStore, *, keeps_metadata: bool) -> None:
    """One changed digit is told, whether the digest beside the object is kept or dropped."""
    published(store, users(3))
    found = store.read(CSV)
    assert found
    body, stored = found
    store.client.put_object(
        Bucket=store.bucket,
        Key=CSV,
        Body=body.replace(b",3,", b",4,"),
        Metadata=dict(stored.metadata) if keeps_metadata else {},
    )
    assert difference(store) == (
        f"s3://{store.bucket}/{CSV} is not as it was written (its SHA-256 differs): {AGAIN}"
    )


def test_verify_of_a_csv_under_its_own_digest_differs(store: SnapshotStore) -> None:
    """Changed bytes with a digest that fits them are not those of the receipt."""
    published(store, users(3))
    write(store, CSV, body_of(store, CSV).replace(b",3,", b",4,"))
    assert difference(store) == differs(
        store, CSV, "its size, SHA-256 or ETag is not the receipt's"
    )


@pytest.mark.parametrize(
    ("name", "path", "change"),
    [
        ("csv", CSV, {"bytes": 1}),
        ("csv", CSV, {"sha256": "0" * 64}),
        ("csv", CSV, {"etag": '"0"'}),
        ("rejects", REJECTS, {"sha256": "0" * 64}),
    ],
)
def test_verify_of_an_edited_proof_differs(
    store: SnapshotStore, name: str, path: str, change: dict[str, object]
) -> None:
    """A receipt with another size, digest or ETag than the object's does not prove it."""
    receipt = published(store, users(3))
    edited = msgspec.structs.replace(getattr(receipt, name), **change)
    edit_receipt(store, receipt, **{name: edited})
    assert difference(store) == differs(
        store, path, "its size, SHA-256 or ETag is not the receipt's"
    )


@pytest.mark.parametrize("path", [CSV, REJECTS])
def test_verify_of_a_missing_object_differs(store: SnapshotStore, path: str) -> None:
    """A receipt without its CSV or its rejects proves nothing."""
    published(store, users(3))
    store.client.delete_object(Bucket=store.bucket, Key=path)
    assert difference(store) == f"s3://{store.bucket}/{path} does not exist: {AGAIN}"


@pytest.mark.parametrize("path", [CSV, REJECTS])
def test_verify_of_another_header_differs(store: SnapshotStore, path: str) -> None:
    """A renamed column is told though the receipt was edited to match."""
    receipt = published(store, users(3))
    forge(store, receipt, path, body_of(store, path).replace(b'"email"', b'"e_mail"', 1))
    assert difference(store) == differs(store, path, "its header is not the contract's")


def test_verify_of_a_row_that_breaks_a_rule_differs(store: SnapshotStore) -> None:
    """A bad email is named by its rule though the receipt was edited to match."""
    receipt = published(store, users(3))
    address = user(2)["email"].encode()
    forge(store, receipt, CSV, body_of(store, CSV).replace(address, BAD_EMAIL.encode()))
    assert difference(store) == differs(store, CSV, "3 rows, broken rules: ['emails_are_valid']")


@pytest.mark.parametrize(
    ("path", "id_cell", "cell"),
    [(CSV, b",2,", b","), (CSV, b",2,", b",Ada,"), (REJECTS, b",1,", b",Ada,")],
)
def test_verify_of_a_row_of_another_shape_differs(
    store: SnapshotStore, path: str, id_cell: bytes, cell: bytes
) -> None:
    """A row without its id, or with text for it, ends in one sentence, which shows no cell."""
    receipt = published(store, users(3, email=BAD_EMAIL), LENIENT)
    body = body_of(store, path)
    assert body.count(id_cell) == 1
    forge(store, receipt, path, body.replace(id_cell, cell))
    with pytest.raises(dg.Failure) as caught:
        list(verify(store, DAY))
    assert caught.value.description == differs(
        store, path, "a row does not have the contract's columns and types"
    )
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_verify_of_a_repeated_id_differs(store: SnapshotStore) -> None:
    """Two users with one id are told though the receipt was edited to match."""
    receipt = published(store, users(3))
    header, first, second, third = body_of(store, CSV).splitlines(keepends=True)
    assert second.count(b",2,") == 1
    twice = second.replace(b",2,", b",1,")
    forge(store, receipt, CSV, b"".join([header, first, twice, third]))
    assert difference(store) == differs(store, CSV, "two users share an id or a login_uuid")


def test_verify_of_edited_nulls_differs(store: SnapshotStore) -> None:
    """A receipt that counts one NULL too many is contradicted by the rows."""
    receipt = published(store, users(3, name_title=None))
    columns = [
        msgspec.structs.replace(c, nulls=c.nulls + (c.name == "name_title"))
        for c in receipt.columns
    ]
    edit_receipt(store, receipt, columns=columns)
    assert difference(store) == differs(
        store, CSV, "the NULLs of a column are not as the receipt counted them"
    )


def test_verify_of_an_edited_row_count_differs(store: SnapshotStore) -> None:
    """A receipt that claims a fourth row is contradicted by the three that are there."""
    receipt = published(store, users(3))
    edit_counts(store, receipt, published=4, declared=4, raw=4, flat=4)
    assert difference(store) == differs(store, CSV, "3 rows, broken rules: none")


def test_verify_of_a_tampered_rejects_object_differs(store: SnapshotStore) -> None:
    """Rejects that lost their row are told by the digest beside the object."""
    published(store, users(3, email=BAD_EMAIL), LENIENT)
    found = store.read(REJECTS)
    assert found
    store.client.put_object(
        Bucket=store.bucket,
        Key=REJECTS,
        Body=csv_format.header(reject_schema()),
        Metadata=dict(found[1].metadata),
    )
    assert difference(store) == (
        f"s3://{store.bucket}/{REJECTS} is not as it was written (its SHA-256 differs): {AGAIN}"
    )


def test_verify_of_rejects_that_lost_a_row_differs(store: SnapshotStore) -> None:
    """One reject too few does not reconcile though the receipt was edited to match."""
    receipt = published(store, users(3, email=BAD_EMAIL), LENIENT)
    forge(store, receipt, REJECTS, csv_format.header(reject_schema()))
    assert difference(store) == differs(
        store,
        REJECTS,
        "0 rows do not reconcile with Counts(declared=3, raw=3, flat=3, rejected=1, published=2)",
    )


@pytest.mark.parametrize("stage", ["declared", "raw", "rejected"])
def test_verify_of_counts_that_do_not_reconcile_differs(store: SnapshotStore, stage: str) -> None:
    """A receipt that claims a user more or less at one stage alone is told with all its counts."""
    receipt = published(store, users(3))
    counts = edit_counts(store, receipt, **{stage: getattr(receipt.counts, stage) + 1})
    assert difference(store) == differs(store, REJECTS, f"0 rows do not reconcile with {counts}")


def test_verify_says_that_raw_was_fetched_again(store: SnapshotStore) -> None:
    """Another raw snapshot than the receipt's is said and is no difference."""
    published(store, users(3))
    save_raw(store, DAY, raw_users_of(users(3, name_title="Dr")))
    assert list(verify(store, DAY))[2:] == [
        "3 declared = 3 published + 0 rejected",
        "the raw snapshot was fetched again since: the CSV was not made again from it",
    ]


def test_verify_of_raw_that_gives_another_csv_differs(store: SnapshotStore) -> None:
    """A raw snapshot that the receipt stands for and that gives other bytes is told."""
    receipt = published(store, users(3))
    other = raw_users_of(users(3, name_title="Dr"))
    save_raw(store, DAY, other)
    edit_receipt(store, receipt, raw_sha256=other.spool.sha256)
    assert difference(store) == differs(store, CSV, "made again from raw, it differs")


def test_verify_of_a_missing_raw_snapshot_differs(store: SnapshotStore) -> None:
    """Without raw the CSV cannot be made again, which ends the proof."""
    published(store, users(3))
    store.client.delete_object(Bucket=store.bucket, Key=raw_path(DAY))
    assert difference(store) == (
        f"s3://{store.bucket}/{raw_path(DAY)} does not exist: materialize raw_users for {DAY}"
        " first."
    )


def test_verify_proves_a_day_that_was_published_again(store: SnapshotStore) -> None:
    """Following the advice of a difference mends the day."""
    published(store, users(3))
    write(store, CSV, body_of(store, CSV).replace(b",3,", b",4,"))
    assert difference(store)
    published(store, users(3))
