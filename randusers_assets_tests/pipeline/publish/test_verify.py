"""A published day is proved again from the bucket alone, or the first difference is named."""

import re

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import audit_csv
from randusers_assets.pipeline.audit.gates import Finding, Policy
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import decode_raw, flatten
from randusers_assets.pipeline.publish.objects import save
from randusers_assets.pipeline.publish.verify import read_back, verify
from randusers_assets.pipeline.storage.paths import raw_path
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import User, raw_users_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, LENIENT, RECEIPT, REJECTS

AGAIN = f"materialize users_csv for {DAY} again."
NOT_THE_RECEIPTS = "its size, SHA-256 or ETag is not the receipt's"
LOST_ROW = "0 rows do not reconcile with Counts(declared=3, raw=3, flat=3, rejected=1, published=2)"
ONE_MORE = dict.fromkeys(("declared", "raw", "flat", "published"), 4)
WRONG_SHAPE = "a row does not have the contract's columns and types"


def publish_users(store: Store, snapshot: list[User], policy: Policy | None = None) -> None:
    """Store a day's raw snapshot, publish the CSV that is made of it, and prove it.

    Proved before a test changes anything, so that any difference is the change's doing.
    """
    raw = raw_users_of(snapshot)
    save(store, DAY, raw)
    bucket.publish_csv(store, DAY, audit_csv(flatten(decode_raw(raw))), policy)
    assert len(proofs(store)) == 4


def proofs(store: Store) -> list[str]:
    """What is proved of the day."""
    return list(verify(store, CONTRACT, DAY))


def difference(store: Store) -> str:
    """The message of the difference that ends the proof."""
    return bucket.message_of(lambda: proofs(store))


def differs(store: Store, path: str, problem: str) -> str:
    """What is reported of an object."""
    return f"s3://{store.bucket}/{path}: {problem}: {AGAIN}"


def test_verify_proves_a_published_day(store: Store) -> None:
    """Bytes, rules, counts and raw are proved, one sentence each, also of the last day."""
    publish_users(store, users(3))
    size = len(bucket.body_of(store, CSV))
    assert proofs(store) == [
        f"s3://{store.bucket}/{CSV}: {size:,} bytes with the receipt's SHA-256",
        "3 rows pass every rule; NULLs are as counted",
        "3 declared = 3 published + 0 rejected",
        "rebuilt from the raw snapshot, the CSV has the same SHA-256",
    ]
    assert list(verify(store, CONTRACT)) == proofs(store)


def test_verify_proves_a_day_that_is_read_in_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were set aside count as rejected, one of many lines once."""
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 5000)
    lines = user(3, location_city='x"\n' * 1000)
    bad = [user(1, email=bucket.BAD_EMAIL), user(2, location_postcode=[1]), lines]
    publish_users(store, [*bad, *users(100)[3:]], LENIENT)
    assert bucket.body_of(store, REJECTS).count(b"\n") == 1003 + 1
    assert len(bucket.body_of(store, REJECTS)) > 5000
    assert len(bucket.body_of(store, CSV)) > 10 * 5000
    assert proofs(store)[1:] == [
        "97 rows pass every rule; NULLs are as counted",
        "100 declared = 97 published + 3 rejected",
        "rebuilt from the raw snapshot, the CSV has the same SHA-256",
    ]


def test_verify_accepts_a_receipt_from_before_rejects_were_accepted(store: Store) -> None:
    """A receipt without `accepted_rejects`, as older code wrote it, proves its day."""
    publish_users(store, users(3))
    receipt = msgspec.json.decode(bucket.body_of(store, RECEIPT))
    del receipt["accepted_rejects"]
    store.put(RECEIPT, msgspec.json.encode(receipt), content_type="application/json")
    assert len(proofs(store)) == 4
    assert bucket.receipt_of(store).accepted_rejects == ""


def test_verify_of_an_unpublished_day_differs(store: Store) -> None:
    """A day without a receipt has no proof."""
    assert difference(store) == (
        f"s3://{store.bucket}/{RECEIPT} does not exist: {DAY} is not published; materialize"
        f" users_csv for {DAY} first."
    )


@pytest.mark.parametrize("path", [CSV, REJECTS])
@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_verify_of_a_tampered_object_differs(
    store: Store, path: str, *, keeps_metadata: bool
) -> None:
    """One changed byte is found, whether the digest beside the object is kept or dropped."""
    publish_users(store, users(3))
    bucket.overwrite(store, path, keeps_metadata=keeps_metadata)
    assert difference(store) == (
        f"s3://{store.bucket}/{path} is not as it was written (its SHA-256 differs): {AGAIN}"
    )


def test_verify_of_a_csv_under_its_own_digest_differs(store: Store) -> None:
    """Changed bytes with a digest that fits them are not the receipt's; the advice fixes it."""
    publish_users(store, users(3))
    store.put(CSV, bucket.body_of(store, CSV) + b"\n", content_type=csv_format.CONTENT_TYPE)
    assert difference(store) == differs(store, CSV, NOT_THE_RECEIPTS)
    publish_users(store, users(3))


@pytest.mark.parametrize("path", [CSV, REJECTS, raw_path(CONTRACT, DAY)])
def test_verify_of_a_missing_object_differs(store: Store, path: str) -> None:
    """Without its CSV, its rejects or its raw snapshot a day is not proved."""
    publish_users(store, users(3))
    bucket.delete(store, path)
    advice = AGAIN if path in (CSV, REJECTS) else f"materialize raw_users for {DAY} first."
    assert difference(store) == f"s3://{store.bucket}/{path} does not exist: {advice}"


@pytest.mark.parametrize(
    ("changes", "path", "problem"),
    [
        ({"csv": {"bytes": 1}}, CSV, NOT_THE_RECEIPTS),
        ({"csv": {"sha256": "0" * 64}}, CSV, NOT_THE_RECEIPTS),
        ({"csv": {"etag": '"0"'}}, CSV, NOT_THE_RECEIPTS),
        ({"rejects": {"sha256": "0" * 64}}, REJECTS, NOT_THE_RECEIPTS),
        ({"counts": ONE_MORE}, CSV, "3 rows, broken rules: none"),
    ],
)
def test_verify_of_an_edited_receipt_differs(
    store: Store, changes: dict[str, object], path: str, problem: str
) -> None:
    """Another digest or size, or one row more, is contradicted by the objects."""
    publish_users(store, users(3))
    bucket.edit_receipt(store, **changes)
    assert difference(store) == differs(store, path, problem)


@pytest.mark.parametrize(("stage", "claimed"), [("declared", 4), ("raw", 4), ("rejected", 1)])
def test_verify_of_counts_that_do_not_reconcile_differs(
    store: Store, stage: str, claimed: int
) -> None:
    """A receipt that claims one row more at one stage alone is reported with all its counts."""
    publish_users(store, users(3))
    bucket.edit_receipt(store, counts={stage: claimed})
    problem = f"0 rows do not reconcile with {bucket.receipt_of(store).counts}"
    assert difference(store) == differs(store, REJECTS, problem)


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        (CSV, b'"email"', b'"e_mail"', "its header is not the contract's"),
        (REJECTS, b'"email"', b'"e_mail"', "its header is not the contract's"),
        (CSV, user(2)["email"].encode(), b"nobody", "2 rows, broken rules: emails_are_valid"),
        (CSV, b",2,", b",3,", "two rows share id or login_uuid"),
        (CSV, b",2,", b",", WRONG_SHAPE),
        (CSV, b",2,", b",Ada,", WRONG_SHAPE),
        (CSV, b'"Mrs"', b"", "a column's NULLs are not as many as the receipt counts"),
        (REJECTS, b",1,", b",Ada,", WRONG_SHAPE),
        (REJECTS, b"\n.+\n", b"\n", LOST_ROW),
    ],
)
def test_verify_of_a_forged_object_differs(
    store: Store, path: str, old: bytes, new: bytes, problem: str
) -> None:
    """The rows contradict a receipt that fits the object; the error shows no cell of theirs."""
    publish_users(store, users(3, email=bucket.BAD_EMAIL), LENIENT)
    body, changed = re.subn(old, new, bucket.body_of(store, path))
    assert changed == 1
    bucket.forge(store, path, body)
    with pytest.raises(SnapshotError) as caught:
        proofs(store)
    assert str(caught.value) == differs(store, path, problem)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_verify_of_another_raw_snapshot_differs_if_the_receipt_names_it(store: Store) -> None:
    """Raw that was fetched again since is no difference; raw that gives another CSV is one."""
    publish_users(store, users(3))
    other = raw_users_of(users(3, name_title="Dr"))
    save(store, DAY, other)
    fetched_again = "the raw snapshot was fetched again since: the CSV was not rebuilt from it"
    assert proofs(store)[3] == fetched_again
    bucket.edit_receipt(store, raw_sha256=other.file.sha256)
    problem = "rebuilt from the raw snapshot, it differs"
    assert difference(store) == differs(store, CSV, problem)


def test_read_back_finds_every_difference(store: Store) -> None:
    """An edited row count and size, and one changed byte, differ in one sentence each."""
    publish_users(store, users(3))
    proof = bucket.receipt_of(store).csv
    bucket.edit_receipt(store, counts={"published": 4}, csv={"bytes": 1})
    bucket.overwrite(store, CSV)
    found = read_back(store, CONTRACT, DAY)
    claims = {"rows": 4, "bytes": 1, "sha256": proof.sha256, "etag": proof.etag.strip('"')}
    assert (found.closed, found.facts["rows"], found.facts["bytes"]) == (True, 3, proof.bytes)
    assert found.sentence == " ".join(
        differs(store, CSV, f"{what} is {found.facts[what]}, its receipt says {claimed}")
        for what, claimed in claims.items()
    )


def test_read_back_of_a_missing_object_differs(store: Store) -> None:
    """A receipt without its CSV is an error that names the object; no receipt is a closed gate."""
    publish_users(store, users(3))
    bucket.delete(store, CSV)
    assert bucket.message_of(lambda: read_back(store, CONTRACT, DAY)) == (
        f"s3://{store.bucket}/{CSV} does not exist: {AGAIN}"
    )
    bucket.delete(store, RECEIPT)
    found = read_back(store, CONTRACT, DAY)
    assert found == Finding("matches_its_receipt", passed=False, sentence=difference(store))
    assert found.closed
