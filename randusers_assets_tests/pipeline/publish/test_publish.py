"""A day is published whole and proved, or not at all, whatever dies, races or lies on the way."""

import hashlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import dagster as dg
import msgspec
import pyarrow as pa
import pytest
from dagster_aws.s3 import S3Resource
from hypothesis import given, settings
from hypothesis import strategies as st

from randusers_assets.contract import COLUMNS, CONTRACT_VERSION, Offender
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv, SnapshotGate, audited, reject_schema
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import CODE_VERSION, Publication, publish, read_back
from randusers_assets.pipeline.publish.receipt import Counts, Receipt, RuleResult
from randusers_assets.pipeline.storage.s3 import SnapshotStore, Stored
from randusers_assets.pipeline.storage.tempfiles import Spool
from randusers_assets_tests.builders import User, csv_of, frames_of, frames_with, user, users

DAY_BEFORE, DAY, DAY_AFTER = "2026-11-21", "2026-11-22", "2026-11-23"
LENIENT = SnapshotGate(max_rejected_ratio=0.5)
BAD_EMAIL = "nobody@nowhere"


def closed(act: Callable[[], object]) -> str:
    """The sentence of a closed gate, which no retry opens."""
    with pytest.raises(dg.Failure) as caught:
        act()
    assert not caught.value.allow_retries
    return caught.value.description or ""


def bytes_of(spool: Spool) -> bytes:
    """The spool's bytes."""
    with spool.reader() as file:
        return file.read()


def records_of(body: bytes, schema: pa.Schema | None = None) -> list[dict[str, object]]:
    """The records of a CSV of ours, less the header that is asserted here."""
    header = csv_format.header(schema)
    assert body.startswith(header)
    records: list[dict[str, object]] = csv_format.parse(body[len(header) :], schema).to_pylist()
    return records


def test_audit_reconciles_counts_and_bytes() -> None:
    """Ten good users are ten records; the digest is that of the bytes, and nothing is rejected."""
    csv = csv_of(users(10, name_title=None))
    body = bytes_of(csv.spool)
    assert csv.counts == Counts(declared=10, raw=10, flat=10, rejected=0, published=10)
    assert csv.sha256 == hashlib.sha256(body).hexdigest()
    assert [record["id"] for record in records_of(body)] == list(range(1, 11))
    assert {name: count for name, count in csv.nulls.items() if count} == {"name_title": 1}
    assert bytes_of(csv.rejects) == csv_format.header(reject_schema())
    assert [rule.users for rule in csv.rules] == [0] * 7


def test_audit_gives_the_same_bytes_for_the_same_snapshot() -> None:
    """Same snapshot in, same CSV and same rejects out."""
    first, second = (csv_of(users(10, email=BAD_EMAIL), LENIENT) for _ in range(2))
    assert bytes_of(first.spool) == bytes_of(second.spool)
    assert bytes_of(first.rejects) == bytes_of(second.rejects)


def test_audit_sets_bad_rows_aside_with_every_reason() -> None:
    """Rejects hold the whole row with each rule it breaks; a broken user has its readable part."""
    snapshot = [
        user(1, email=BAD_EMAIL, name_first="", dob_date="2001-02-30T00:00:00.000Z"),
        user(2, location_city="a\nb"),
        user(3, location_postcode=[1]),
        *(user(number) for number in range(4, 11)),
    ]
    csv = csv_of(snapshot, LENIENT)
    assert csv.counts == Counts(declared=10, raw=10, flat=9, rejected=3, published=7)
    assert [record["id"] for record in records_of(bytes_of(csv.spool))] == list(range(4, 11))
    rejects = records_of(bytes_of(csv.rejects), reject_schema())
    assert [(reject["id"], reject["broken_rules"]) for reject in rejects] == [
        (
            1,
            (
                "email: is an email address; name_first: is filled;"
                " dob_date: is a UTC timestamp to the millisecond"
            ),
        ),
        (2, "location_city: holds no control character"),
        (3, "location.postcode: expected int or str, got array"),
    ]
    assert [reject["location_city"] for reject in rejects[:2]] == [
        snapshot[0]["location"]["city"],
        "a\nb",
    ]
    assert rejects[2]["email"] == snapshot[2]["email"]
    assert rejects[2]["location_postcode"] is None
    assert {rule.name: rule.users for rule in csv.rules} == {
        "emails_are_valid": 1,
        "required_are_filled": 1,
        "texts_are_single_line": 1,
        "timestamps_are_valid": 1,
        "id_is_unique": 0,
        "login_uuid_is_unique": 0,
        "contract_is_kept": 1,
    }
    assert csv.rules[0].examples == [Offender(1, "email", "n•••")]


@pytest.mark.parametrize("bad", [1, 7, 29])
def test_gate_lets_pass_exactly_its_share(bad: int) -> None:
    """A share of bad rows equal to the ratio passes; the next bad row closes the gate."""
    gate = SnapshotGate(max_rejected_ratio=float(f"0.{bad:02}"))
    assert not gate.rejects_too_many(bad, 100)
    assert gate.rejects_too_many(bad + 1, 100)


def test_gate_at_zero_lets_no_bad_row_pass() -> None:
    """The default ratio closes at the first bad row, and at none before."""
    assert not SnapshotGate().rejects_too_many(0, 10)
    assert SnapshotGate().rejects_too_many(1, 1_000_000)


def test_audit_of_a_bad_email_closes_the_gate() -> None:
    """One bad row at ratio 0 names rule, count, user, column and setting, the value masked."""
    assert closed(lambda: csv_of(users(10, email=BAD_EMAIL))) == (
        "The gate is closed: 1 of 10 users break a rule (emails_are_valid: 1), user 1 first, in"
        " email (n•••); mend the source, or raise RANDUSERS_MAX_REJECTED_RATIO above 0 to set such"
        " users aside. Nothing is published."
    )


def test_audit_above_the_ratio_closes_the_gate() -> None:
    """Two bad rows of ten pass at 0.2 and do not at 0.19."""
    snapshot = [user(1, email=BAD_EMAIL), user(2, location_postcode=[1]), *users(10)[2:]]
    assert csv_of(snapshot, SnapshotGate(max_rejected_ratio=0.2)).counts.rejected == 2
    assert closed(lambda: csv_of(snapshot, SnapshotGate(max_rejected_ratio=0.19))) == (
        "The gate is closed: 2 of 10 users break a rule (emails_are_valid: 1, contract_is_kept:"
        " 1), user 1 first, in email (n•••); mend the source, or raise"
        " RANDUSERS_MAX_REJECTED_RATIO above 0.19 to set such users aside. Nothing is published."
    )


@pytest.mark.parametrize("column", ["id", "login_uuid"])
def test_audit_of_a_repeated_key_closes_the_gate(column: str) -> None:
    """No ratio lets two users share an id or a login_uuid."""
    other = user(2)
    same = other["id"] if column == "id" else other["login"]["uuid"]
    anything_goes = SnapshotGate(max_rejected_ratio=1)
    assert closed(lambda: csv_of(users(10, **{column: same}), anything_goes)) == (
        f"The gate is closed: 2 users share their {column} with another, user 2 first; nothing is"
        " published."
    )


def test_audit_with_no_user_left_closes_the_gate() -> None:
    """Neither an empty snapshot nor one with bad rows alone is published, whatever the ratio."""
    sentence = "The gate is closed: no user is left to publish; mend the source."
    anything_goes = SnapshotGate(max_rejected_ratio=1)
    assert closed(lambda: csv_of([], anything_goes)) == sentence
    assert closed(lambda: csv_of(users(1, email=BAD_EMAIL), anything_goes)) == sentence


@pytest.mark.parametrize(("declared", "raw"), [(11, 10), (9, 10), (11, 11)])
def test_audit_of_counts_that_differ_closes_the_gate(declared: int, raw: int) -> None:
    """Declared, raw and flat users must be the same number."""
    frames = frames_of(users(10))
    fetch = msgspec.structs.replace(frames.facts.fetch, declared=declared)
    other = frames_with(frames, fetch=fetch, raw_rows=raw)
    assert closed(lambda: audited(other, SnapshotGate())) == (
        f"The gate is closed: the counts do not reconcile (Counts(declared={declared}, raw={raw},"
        " flat=10, rejected=0, published=10)): materialize raw_users and users_df again."
    )


def test_audit_of_a_csv_that_reads_back_otherwise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that loses the empty text is caught at the first user that it changes."""
    encode = csv_format.encode
    monkeypatch.setattr(csv_format, "encode", lambda rows: encode(rows).replace(b'""', b""))
    snapshot = [*users(3), user(4, name_title="")]
    assert closed(lambda: csv_of(snapshot)) == (
        "The CSV does not read back as the rows that it was made from, first at user 4: nothing is"
        " written."
    )


FAULTS: list[Mapping[str, object]] = [
    {},
    {"email": BAD_EMAIL},
    {"email": None},
    {"name_last": ""},
    {"phone": "1\u20282"},
    {"registered_date": "yesterday"},
    {"location_postcode": {}},
    {"dob_age": "four"},
    {"email": "", "nat": None, "cell": "\x00"},
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=12))
def test_audit_loses_no_user(faults: list[Mapping[str, object]]) -> None:
    """Good + rejected = raw, user by user: the good in the CSV, the bad in the rejects, once."""
    snapshot = [user(1), *(user(n, **fault) for n, fault in enumerate(faults, 2))]
    bad = [n for n, fault in enumerate(faults, 2) if fault]
    csv = csv_of(snapshot, SnapshotGate(max_rejected_ratio=1))
    published = [record["id"] for record in records_of(bytes_of(csv.spool))]
    rejected = records_of(bytes_of(csv.rejects), reject_schema())
    assert published == [n for n in range(1, len(snapshot) + 1) if n not in bad]
    assert sorted(str(reject["id"]) for reject in rejected) == sorted(map(str, bad))
    assert all(reject["broken_rules"] for reject in rejected)
    assert (csv.counts.published, csv.counts.rejected) == (len(published), len(bad))
    assert csv.counts.published + csv.counts.rejected == csv.counts.raw == len(snapshot)


State = dict[str, tuple[str, str]]


def state_of(store: SnapshotStore) -> State:
    """Every object of the bucket: its content type and bytes, less the moment of publication."""
    listed = store.client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    state = {}
    for key in (found["Key"] for found in listed):
        answer = store.client.get_object(Bucket=store.bucket, Key=key)
        body = answer["Body"].read().decode()
        state[key] = answer["ContentType"], re.sub(r'"published_at": "[^"]*"', "", body)
    return state


def emptied(store: SnapshotStore) -> None:
    """Remove every object."""
    for key in state_of(store):
        store.client.delete_object(Bucket=store.bucket, Key=key)


def receipt_of(store: SnapshotStore, date: str = DAY) -> Receipt:
    """The receipt of a published day."""
    found = receipts.read_receipt(store, date)
    assert found
    return found[0]


def latest_date(store: SnapshotStore) -> str:
    """The day that `latest.json` points to."""
    found = receipts.read_latest(store)
    assert found
    return found[0].date


def assert_consistent(store: SnapshotStore, date: str = DAY) -> Receipt:
    """CSV, rejects, receipt and pointer agree; the receipt that says so."""
    assert read_back(store, date)[0] == []
    receipt = receipt_of(store, date)
    rejects = store.read(receipts.rejects_path(date))
    assert rejects
    assert hashlib.sha256(rejects[0]).hexdigest() == receipt.rejects.sha256
    assert (rejects[1].etag, rejects[1].size) == (receipt.rejects.etag, receipt.rejects.bytes)
    assert latest_date(store) == date
    return receipt


def test_first_publication_writes_the_keys_of_the_design(store: SnapshotStore) -> None:
    """Four objects with their bytes and types, and a receipt that holds every fact of them."""
    csv = csv_of(users(10, email=BAD_EMAIL), SnapshotGate(max_rejected_ratio=0.1))
    publication = publish(store, DAY, csv, "run-1")
    state = state_of(store)
    assert list(state) == [
        f"_receipts/users_csv/dt={DAY}.json",
        "_receipts/users_csv/latest.json",
        f"_rejects/users_csv/dt={DAY}.csv",
        f"users_csv/dt={DAY}/users.csv",
    ]
    text = "text/csv; charset=utf-8"
    assert state[f"users_csv/dt={DAY}/users.csv"] == (text, bytes_of(csv.spool).decode())
    assert state[f"_rejects/users_csv/dt={DAY}.csv"] == (text, bytes_of(csv.rejects).decode())
    uri = f"s3://{store.bucket}"
    content_type, latest = state["_receipts/users_csv/latest.json"]
    assert content_type == "application/json"
    assert msgspec.json.decode(latest) == {
        "date": DAY,
        "csv": f"{uri}/users_csv/dt={DAY}/users.csv",
        "receipt": f"{uri}/_receipts/users_csv/dt={DAY}.json",
    }
    receipt = assert_consistent(store)
    assert publication == Publication(receipt, "published")
    assert receipt.counts == Counts(declared=10, raw=10, flat=10, rejected=1, published=9)
    assert receipt.csv.uri == f"{uri}/users_csv/dt={DAY}/users.csv"
    assert receipt.csv.sha256 == csv.sha256
    assert receipt.rejects.uri == f"{uri}/_rejects/users_csv/dt={DAY}.csv"
    assert receipt.raw_sha256 == csv.facts.raw_sha256
    assert receipt.source == csv.facts.fetch
    assert receipt.rules[0] == RuleResult(
        name="emails_are_valid", users=1, examples=[Offender(1, "email", "n•••")]
    )
    assert [(c.name, c.type, c.nulls) for c in receipt.columns] == [
        (c.name, c.type, 0) for c in COLUMNS
    ]
    assert (receipt.date, receipt.run_id, receipt.max_rejected_ratio) == (DAY, "run-1", 0.1)
    assert (receipt.previous, receipt.accepted_change) == (None, "")
    assert (receipt.code_version, receipt.contract_version) == (CODE_VERSION, CONTRACT_VERSION)


def test_publishing_the_same_bytes_again_changes_nothing(store: SnapshotStore) -> None:
    """The second run is `unchanged`: no object has another ETag or another moment of writing."""

    def written() -> list[tuple[object, ...]]:
        listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
        return [(found["Key"], found["ETag"], found["LastModified"]) for found in listed]

    first = publish(store, DAY, csv_of(users(10)), "run-1")
    before = written()
    assert publish(store, DAY, csv_of(users(10)), "run-2") == Publication(
        first.receipt, "unchanged"
    )
    assert written() == before


def test_publishing_new_bytes_replaces_the_day(store: SnapshotStore) -> None:
    """New data for a published day takes the place of the old, receipt and rejects included."""
    publish(store, DAY, csv_of(users(10)), "run-1")
    csv = csv_of(users(10, email=BAD_EMAIL), LENIENT)
    assert publish(store, DAY, csv, "run-2").outcome == "published"
    receipt = assert_consistent(store)
    assert (receipt.csv.sha256, receipt.run_id) == (csv.sha256, "run-2")


def test_publishing_an_older_day_leaves_latest_where_it_is(store: SnapshotStore) -> None:
    """`latest.json` moves on to a newer day and never back to an older one."""
    publish(store, DAY, csv_of(users(10)), "run")
    publish(store, DAY_BEFORE, csv_of(users(10, name_first="Ada")), "run")
    assert latest_date(store) == DAY
    assert read_back(store, DAY_BEFORE)[0] == []
    publish(store, DAY_AFTER, csv_of(users(10)), "run")
    assert latest_date(store) == DAY_AFTER
    assert receipt_of(store, DAY_AFTER).previous == DAY


def test_history_gate_closes_on_a_drop(store: SnapshotStore) -> None:
    """Seven users after ten are not published, and nothing is touched; eight are."""
    publish(store, DAY, csv_of(users(10)), "run")
    before = state_of(store)
    assert closed(lambda: publish(store, DAY_AFTER, csv_of(users(7)), "run")) == (
        f"The gate is closed: against {DAY} the snapshot of {DAY_AFTER} has 7 rows after 10"
        " (bound: 20%). If the change is right, run once with the run config resources:"
        ' {snapshot_gate: {config: {accept_change: "why"}}}. Nothing is published.'
    )
    assert state_of(store) == before
    assert publish(store, DAY_AFTER, csv_of(users(8)), "run").outcome == "published"


def test_history_gate_closes_on_vanished_values(store: SnapshotStore) -> None:
    """A column that turns NULL in two of ten users is named with both shares."""
    publish(store, DAY, csv_of(users(10)), "run")
    snapshot = [user(1, name_title=None), user(2, name_title=None), *users(10)[2:]]
    assert closed(lambda: publish(store, DAY_AFTER, csv_of(snapshot), "run")).startswith(
        f"The gate is closed: against {DAY} the snapshot of {DAY_AFTER} has name_title is NULL in"
        " 20.0% after 0.0% (bound: 10% of the rows). If the change is right,"
    )


def test_accepted_change_is_on_record_and_stays_accepted(store: SnapshotStore) -> None:
    """An accepted day says why in its receipt; its rerun passes, other bytes do not."""
    publish(store, DAY, csv_of(users(10)), "run")
    accepting = SnapshotGate(accept_change="a tenant left")
    accepted = publish(store, DAY_AFTER, csv_of(users(7), accepting), "run")
    assert accepted.receipt.accepted_change == "a tenant left"
    assert receipt_of(store, DAY_AFTER) == accepted.receipt
    again = publish(store, DAY_AFTER, csv_of(users(7)), "run")
    assert again == Publication(accepted.receipt, "unchanged")
    assert "has 6 rows after 10" in closed(
        lambda: publish(store, DAY_AFTER, csv_of(users(6)), "run")
    )


def test_rerun_restores_rejects_that_are_gone(store: SnapshotStore) -> None:
    """An unchanged day still gets back the rejects that its receipt proves."""
    csv = csv_of(users(10, email=BAD_EMAIL), LENIENT)
    publish(store, DAY, csv, "run")
    store.client.delete_object(Bucket=store.bucket, Key=receipts.rejects_path(DAY))
    assert publish(store, DAY, csv, "run").outcome == "unchanged"
    assert_consistent(store)


def tampered(store: SnapshotStore) -> bytes:
    """Change one digit of the stored CSV, all its metadata kept; the good bytes."""
    path = receipts.csv_path(DAY)
    found = store.read(path)
    assert found
    body, stored = found
    store.client.put_object(
        Bucket=store.bucket,
        Key=path,
        Body=body.replace(b",1,", b",2,"),
        ContentType=csv_format.CONTENT_TYPE,
        Metadata=dict(stored.metadata),
    )
    return body


def test_rerun_replaces_a_csv_that_only_claims_its_digest(store: SnapshotStore) -> None:
    """An object that someone wrote over is not believed for the digest in its metadata."""
    csv = csv_of(users(10))
    publish(store, DAY, csv, "run")
    body = tampered(store)
    assert publish(store, DAY, csv, "run").outcome == "unchanged"
    assert_consistent(store)
    assert (store.read(receipts.csv_path(DAY)) or [b""])[0] == body


def test_read_back_of_a_good_day_gives_its_facts(store: SnapshotStore) -> None:
    """No differences, and the rows, bytes, digest and ETag that were found."""
    csv = csv_of(users(10))
    receipt = publish(store, DAY, csv, "run").receipt
    assert read_back(store, DAY) == (
        [],
        {
            "rows": 10,
            "bytes": csv.spool.size,
            "sha256": csv.sha256,
            "etag": receipt.csv.etag.strip('"'),
        },
    )


def test_read_back_finds_a_tampered_object(store: SnapshotStore) -> None:
    """One changed digit differs in digest and ETag, told one sentence each."""
    receipt = publish(store, DAY, csv_of(users(10)), "run").receipt
    tampered(store)
    differences, found = read_back(store, DAY)
    uri, proved = receipt.csv.uri, receipt.csv
    then = f"materialize users_csv for {DAY} again"
    etag = proved.etag.strip('"')
    assert differences == [
        f"{uri}: sha256 is {found['sha256']}, its receipt says {proved.sha256}: {then}.",
        f"{uri}: etag is {found['etag']}, its receipt says {etag}: {then}.",
    ]
    assert found["rows"] == 10


def test_read_back_without_a_receipt_proves_nothing(store: SnapshotStore) -> None:
    """A day with a CSV and no receipt is told as not proved."""
    publish(store, DAY, csv_of(users(10)), "run")
    store.client.delete_object(Bucket=store.bucket, Key=receipts.receipt_path(DAY))
    missing = f"s3://{store.bucket}/_receipts/users_csv/dt={DAY}.json"
    assert read_back(store, DAY) == ([f"{missing} does not exist: {DAY} is not proved."], {})


def test_read_back_finds_an_edited_receipt(store: SnapshotStore) -> None:
    """A receipt that claims other counts and another size is contradicted by the object."""
    receipt = publish(store, DAY, csv_of(users(10)), "run").receipt
    edited = msgspec.structs.replace(
        receipt,
        counts=msgspec.structs.replace(receipt.counts, published=11),
        csv=msgspec.structs.replace(receipt.csv, bytes=1),
    )
    path = receipts.receipt_path(DAY)
    body = msgspec.json.encode(edited)
    store.put(path, body, hashlib.sha256(body).hexdigest(), content_type="application/json")
    advice = f"materialize users_csv for {DAY} again"
    assert read_back(store, DAY)[0] == [
        f"{receipt.csv.uri}: rows is 10, its receipt says 11: {advice}.",
        f"{receipt.csv.uri}: bytes is {receipt.csv.bytes}, its receipt says 1: {advice}.",
    ]


def test_read_back_of_a_missing_object_says_what_to_do(store: SnapshotStore) -> None:
    """A receipt without its CSV is an error that names the object."""
    publish(store, DAY, csv_of(users(10)), "run")
    store.client.delete_object(Bucket=store.bucket, Key=receipts.csv_path(DAY))
    assert closed(lambda: read_back(store, DAY)) == (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv does not exist: materialize users_csv"
        f" for {DAY} again."
    )


class CorruptingStore(SnapshotStore):
    """A store on a machine that flips a bit of the CSV between the audit and the write."""

    def put(  # noqa: D102  # as the store's
        self,
        path: str,
        body: Spool | bytes,
        sha256: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        replaces: Stored | bool | None = True,
    ) -> Stored:
        if isinstance(body, Spool) and path.endswith("users.csv"):
            data = bytearray(bytes_of(body))
            data[len(data) // 2] ^= 1
            with body.writer() as file:
                file.write(data)
        return super().put(
            path, body, sha256, content_type=content_type, metadata=metadata, replaces=replaces
        )


@pytest.mark.parametrize("published_before", [False, True])
def test_corrupted_byte_is_refused_and_nothing_changes(
    store: SnapshotStore, *, published_before: bool
) -> None:
    """S3 refuses bytes other than the audited ones; the bucket stays as it was."""
    if published_before:
        publish(store, DAY, csv_of(users(9)), "run")
    before = state_of(store)
    corrupting = CorruptingStore(s3_resource=store.s3_resource, bucket=store.bucket)
    assert closed(lambda: publish(corrupting, DAY, csv_of(users(10)), "run")) == (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv is not written: the bytes sent are not"
        " those that were audited (their SHA-256 differs): check this machine's disk and memory,"
        " then run again."
    )
    assert state_of(store) == before


Moment = Literal["before", "after"]


class DyingStore(SnapshotStore):
    """A store whose process is killed right before or after one of its writes."""

    dies_at: str
    moment: Moment

    def put(  # noqa: D102  # as the store's
        self,
        path: str,
        body: Spool | bytes,
        sha256: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        replaces: Stored | bool | None = True,
    ) -> Stored:
        if path == self.dies_at and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        stored = super().put(
            path, body, sha256, content_type=content_type, metadata=metadata, replaces=replaces
        )
        if path == self.dies_at and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return stored


def old_snapshot() -> list[User]:
    """What is published first."""
    return users(10, email=BAD_EMAIL)


def new_snapshot() -> list[User]:
    """What replaces it: other good rows, and other rejects."""
    return [*users(10), user(11, email=BAD_EMAIL)]


def publish_and_die(endpoint_url: str, bucket: str, dies_at: str, moment: Moment) -> None:
    """The body of the process that is killed."""
    store = DyingStore(
        s3_resource=S3Resource(endpoint_url=endpoint_url),
        bucket=bucket,
        dies_at=dies_at,
        moment=moment,
    )
    publish(store, DAY, csv_of(new_snapshot(), LENIENT), "run")


def killed_at(store: SnapshotStore, dies_at: str, moment: Moment) -> None:
    """Publish the new snapshot in a process of its own, which SIGKILL ends at that point."""
    # The fork server imports once for all these processes, also what is imported late; it runs
    # no thread when it forks.
    context = multiprocessing.get_context("forkserver")
    late = ["boto3", "botocore.client", "email_validator", "pyarrow.compute", "pyarrow.csv"]
    context.set_forkserver_preload([__name__, *late])
    process = context.Process(
        target=publish_and_die,
        args=(store.client.meta.endpoint_url, store.bucket, dies_at, moment),
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


@contextmanager
def reading(store: SnapshotStore) -> Iterator[set[bytes | None]]:
    """Read the CSV over and over meanwhile; every body that was seen, None for a missing one."""
    seen: set[bytes | None] = set()
    first, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.wait(0.005):
            found = store.read(receipts.csv_path(DAY))
            seen.add(found[0] if found else None)
            first.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert first.wait(30)
    yield seen
    done.set()
    thread.join()


WRITES = (
    receipts.csv_path(DAY),
    receipts.rejects_path(DAY),
    receipts.receipt_path(DAY),
    receipts.LATEST_PATH,
)

# Between two writes there are only reads: after the one is before the next.
STEPS: list[tuple[str, Moment]] = [(WRITES[0], "before"), *((path, "after") for path in WRITES)]


@pytest.mark.parametrize(("dies_at", "moment"), STEPS)
def test_first_publication_killed_at_any_write_is_completed_by_the_next_run(
    store: SnapshotStore, dies_at: str, moment: Moment
) -> None:
    """After SIGKILL at each boundary, a rerun ends where an undisturbed run ends."""
    csv = csv_of(new_snapshot(), LENIENT)
    publish(store, DAY, csv, "run")
    undisturbed = state_of(store)
    emptied(store)
    killed_at(store, dies_at, moment)
    assert state_of(store).keys() <= undisturbed.keys()
    publish(store, DAY, csv, "run")
    assert state_of(store) == undisturbed
    assert_consistent(store)


# The pointer stands on the day already: a republication does not write it.
@pytest.mark.parametrize(("dies_at", "moment"), STEPS[:-1])
def test_republication_killed_at_any_write_is_completed_by_the_next_run(
    store: SnapshotStore, dies_at: str, moment: Moment
) -> None:
    """The same for new bytes; a reader sees the old or the new object all the while."""
    old, new = csv_of(old_snapshot(), LENIENT), csv_of(new_snapshot(), LENIENT)
    publish(store, DAY, old, "run")
    publish(store, DAY, new, "run")
    undisturbed = state_of(store)
    emptied(store)
    publish(store, DAY, old, "run")
    with reading(store) as seen:
        killed_at(store, dies_at, moment)
        publish(store, DAY, new, "run")
    assert state_of(store) == undisturbed
    assert_consistent(store)
    assert seen <= {bytes_of(old.spool), bytes_of(new.spool)}


@pytest.mark.parametrize("dies_at", [receipts.csv_path(DAY), receipts.rejects_path(DAY)])
def test_killed_republication_can_be_taken_back(store: SnapshotStore, dies_at: str) -> None:
    """After a kill half-way, publishing the old bytes restores the old day, rejects included."""
    old = csv_of(old_snapshot(), LENIENT)
    publish(store, DAY, old, "run")
    before = state_of(store)
    killed_at(store, dies_at, "after")
    assert state_of(store) != before
    assert publish(store, DAY, old, "run").outcome == "unchanged"
    assert state_of(store) == before
    assert_consistent(store)


RACERS = 16


def race(store: SnapshotStore, csvs: list[AuditedCsv]) -> list[Publication | dg.Failure]:
    """Publish them all at once; what each came to."""
    barrier = threading.Barrier(len(csvs))
    ends: dict[int, Publication | dg.Failure] = {}

    def run(number: int) -> None:
        barrier.wait()
        try:
            ends[number] = publish(store, DAY, csvs[number], f"run-{number}")
        except dg.Failure as failure:
            ends[number] = failure

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(csvs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [ends[number] for number in range(len(csvs))]


def test_race_with_the_same_bytes_publishes_once(store: SnapshotStore) -> None:
    """Of 16 runs one publishes; the others find their bytes published by it."""
    csv = csv_of(new_snapshot(), LENIENT)
    ends = race(store, [csv] * RACERS)
    publications = [end for end in ends if isinstance(end, Publication)]
    assert sorted(end.outcome for end in publications) == ["published"] + ["unchanged"] * 15
    receipt = assert_consistent(store)
    assert {end.receipt.run_id for end in publications} == {receipt.run_id}


@pytest.mark.parametrize("published_before", [False, True])
def test_race_with_different_bytes_leaves_one_whole_day(
    store: SnapshotStore, *, published_before: bool
) -> None:
    """Each of 16 runs publishes or says that another did; the day is one run's, whole."""
    if published_before:
        publish(store, DAY, csv_of(old_snapshot(), LENIENT), "run")
    csvs = [
        csv_of([*users(10, name_first=f"Ada {number}"), user(11, email=f"{number}@x")], LENIENT)
        for number in range(RACERS)
    ]
    ends = race(store, csvs)
    conflict = (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv: another run published {DAY} with other"
        " bytes at the same time; that publication stands. Run again to replace it with this one's"
        " data."
    )
    published = {
        f"run-{number}"
        for number, end in enumerate(ends)
        if isinstance(end, Publication) and end.outcome == "published"
    }
    conflicts = [end.description for end in ends if isinstance(end, dg.Failure)]
    assert conflicts == [conflict] * (RACERS - len(published))
    receipt = assert_consistent(store)
    assert receipt.run_id in published
    assert receipt.csv.sha256 == csvs[int(receipt.run_id.removeprefix("run-"))].sha256
