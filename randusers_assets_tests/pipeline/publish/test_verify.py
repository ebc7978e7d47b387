"""A published day is proved again from the bucket alone, or the first difference is named."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.gates import Finding
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import keep, save
from randusers_assets.pipeline.publish.publish import CODE_VERSION
from randusers_assets.pipeline.publish.verify import read_back, verify
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import (
    frames_of,
    frames_with,
    raw_users_of,
    temp_file_of,
    user,
    users,
)
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import (
    COPY,
    CSV,
    DAY,
    DAY_BEFORE,
    LENIENT,
    publish_users,
)

AGAIN = f"materialize users_csv for {DAY}."
ALTERED = "is not as it was written (its SHA-256 differs)"
NOT_THE_RECEIPT = "cannot be proved without it"


def proofs(store: Store) -> list[str]:
    """What is proved of the day."""
    return list(verify(store, CONTRACT, DAY))


def difference(store: Store) -> str:
    """The message of the difference that ends the proof."""
    return bucket.message_of(lambda: proofs(store))


def named(store: Store, what: str) -> str:
    """The key of an object that the day's receipt names."""
    uri: str = getattr(bucket.receipt_of(store), what).uri
    return uri.removeprefix(store.uri(""))


def untrue(store: Store, problem: str) -> str:
    """What is reported of a receipt."""
    return f"{store.uri(bucket.receipt_key(store))}: {problem}: {AGAIN}"


def test_verify_proves_a_published_day(store: Store) -> None:
    """Each object that is published or named is proved in one sentence, also of the last day."""
    publish_users(store, DAY, users(3))
    receipt, size = bucket.receipt_of(store), len(bucket.body_of(store, CSV))
    assert receipt.parquet
    assert proofs(store) == [
        f"s3://{store.bucket}/{CSV}: {size:,} bytes with the SHA-256 of its receipt",
        f"rebuilt from {receipt.raw.uri}, the CSV has the same SHA-256",
        "3 declared = 3 published + 0 rejected; rules and NULLs are as counted",
        f"{receipt.parquet.uri} has the same rows",
        f"s3://{store.bucket}/{COPY} has the same bytes as one made again",
        f"s3://{store.bucket}/datapackage.json describes it",
    ]
    assert list(verify(store, CONTRACT)) == proofs(store)


def test_verify_proves_a_day_that_is_read_in_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were set aside count as rejected, one of many lines once."""
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 5000)
    lines = user(3, location_city='x"\n' * 1000)
    bad = [user(1, email=bucket.BAD_EMAIL), user(2, location_postcode=[1]), lines]
    publish_users(store, DAY, [*bad, *users(100)[3:]], LENIENT)
    assert bucket.body_of(store, bucket.rejects_key(store)).count(b"\n") == 1003 + 1
    assert len(bucket.body_of(store, CSV)) > 10 * 5000
    assert proofs(store)[2] == (
        "100 declared = 97 published + 3 rejected; rules and NULLs are as counted"
    )


def test_verify_proves_a_day_whose_raw_snapshot_was_fetched_again(store: Store) -> None:
    """What a publication was made of stays under its own key."""
    publish_users(store, DAY, users(3))
    save(store, DAY, raw_users_of(users(4)))
    save(store, DAY, frames_of(users(4)))
    assert len(proofs(store)) == 6


def test_verify_proves_a_day_of_release_0_1_0(store: Store) -> None:
    """A receipt of version 1 proves its day, without the Parquet that it does not name."""
    publish_users(store, DAY, users(3, email=bucket.BAD_EMAIL), LENIENT)
    bucket.become_version_1(store, DAY)
    assert len(proofs(store)) == 3
    # It was one object a day, which the next fetch replaced.
    old = paths.version_1_paths(CONTRACT, DAY)
    store.put(old.raw, b"other", content_type="application/zstd")
    assert difference(store) == (
        f"{store.uri(old.receipt)}: {store.uri(old.raw)} has another SHA-256 than raw.sha256:"
        f" {AGAIN}"
    )


def test_verify_of_an_unpublished_day_differs(store: Store) -> None:
    """A day without a CSV has no proof, nor has a bucket without a day."""
    assert difference(store) == f"s3://{store.bucket}/{CSV} does not exist: {AGAIN}"
    assert bucket.message_of(lambda: list(verify(store, CONTRACT))) == (
        f"s3://{store.bucket}/_receipts/users_csv/latest.json does not exist: no day is published;"
        " materialize users_csv first."
    )


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_verify_of_a_tampered_csv_differs(store: Store, *, keeps_metadata: bool) -> None:
    """One changed byte has no receipt, whether the digest beside it is kept or dropped."""
    publish_users(store, DAY, users(3))
    bucket.overwrite(store, CSV, keeps_metadata=keeps_metadata)
    receipt = store.uri(bucket.receipt_key(store))
    assert difference(store) == (
        f"s3://{store.bucket}/{CSV} has no receipt: {receipt} does not exist; {AGAIN}"
    )


@pytest.mark.parametrize("what", ["rejects", "raw", "parquet"])
@pytest.mark.parametrize(
    ("damage", "problem"), [(bucket.delete, "does not exist"), (bucket.overwrite, ALTERED)]
)
def test_verify_of_a_damaged_origin_differs(
    store: Store, what: str, damage: Callable[[Store, str], None], problem: str
) -> None:
    """Without its rejects, its raw snapshot or its Parquet, as written, a day is not proved."""
    publish_users(store, DAY, users(3))
    path = named(store, what)
    damage(store, path)
    assert difference(store) == (
        f"s3://{store.bucket}/{path} {problem}: restore it from a backup; what is published cannot"
        " be proved without it."
    )


@pytest.mark.parametrize("what", ["rejects", "raw", "parquet"])
def test_verify_of_another_object_under_its_own_digest_differs(store: Store, what: str) -> None:
    """An object that is intact, but is not the one that the receipt names."""
    publish_users(store, DAY, users(3))
    path = named(store, what)
    store.put(path, b"other", content_type="text/plain")
    assert difference(store) == untrue(
        store, f"{store.uri(path)} has another SHA-256 than {what}.sha256"
    )


def test_verify_of_yesterdays_objects_under_todays_keys_differs(store: Store) -> None:
    """Three whole objects of another day are the proof of that day only."""
    publish_users(store, DAY_BEFORE, users(3))
    receipt = bucket.receipt_key(store, DAY_BEFORE)
    for path in (paths.csv_path(CONTRACT, DAY_BEFORE), receipt):
        now = store.head(path)
        assert now
        store.client.copy_object(
            Bucket=store.bucket,
            Key=path.replace(DAY_BEFORE, DAY),
            CopySource={"Bucket": store.bucket, "Key": path},
        )
    assert difference(store) == (
        f"{store.uri(receipt.replace(DAY_BEFORE, DAY))} is the receipt of another CSV: restore it,"
        " or delete it and materialize the day's CSV."
    )


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ({"ContentType": "text/plain"}, "Content-Type is text/plain, not text/csv; charset=utf-8"),
        ({"ContentEncoding": "gzip"}, "Content-Encoding is gzip, not none"),
        ({"Metadata": {}}, "SHA-256 in its metadata is none, not {sha256}"),
    ],
)
def test_verify_of_a_csv_that_says_otherwise_how_to_read_it_differs(
    store: Store, types: dict[str, str], problem: str
) -> None:
    """The right bytes with another type, encoding or digest beside them are not as published."""
    publish_users(store, DAY, users(3))
    now, body = store.head(CSV), bucket.body_of(store, CSV)
    assert now
    kept = {"ContentType": now.content_type, "Metadata": now.metadata}
    store.client.put_object(Bucket=store.bucket, Key=CSV, Body=body, **{**kept, **types})  # type: ignore[arg-type]  # by name
    problem = problem.format(sha256=bucket.csv_sha256(store))
    assert difference(store) == f"s3://{store.bucket}/{CSV}: {problem}: {AGAIN}"
    publish_users(store, DAY, users(3))
    assert len(proofs(store)) == 6


RULES = [{"name": "emails_are_valid", "users": 1, "examples": []}]
UNTRUE: dict[str, tuple[dict[str, Any], str | None]] = {
    "counts.declared": ({"counts": {"declared": 4}}, "counts: not what {raw} gives"),
    "counts.rejected": ({"counts": {"rejected": 1}}, "counts: not what {raw} gives"),
    "csv.bytes": ({"csv": {"bytes": 1}}, None),
    "csv.uri": ({"csv": {"uri": "s3://other/users.csv"}}, None),
    "counts.published": ({"counts": {"published": 4}}, None),
    "rules": ({"rules": RULES}, "rules: not what {raw} gives"),
    "columns": ({"columns": []}, "columns: not what {raw} gives"),
    "rejects.bytes": ({"rejects": {"bytes": 1}}, "rejects: not what {raw} gives"),
    "rejects.sha256": (
        {"rejects": {"sha256": "0" * 64}},
        "rejects: not what {raw} gives",
    ),
    "rejects.uri": (
        {"rejects": {"uri": "s3://other/x.csv"}},
        "rejects.uri is not one of this bucket, prefix and day",
    ),
    "raw.uri": (
        {"raw": {"uri": "s3://other/x.zst"}},
        "raw.uri is not one of this bucket, prefix and day",
    ),
    "raw.sha256": (
        {"raw": {"sha256": "0" * 64}},
        "raw.uri is not one of this bucket, prefix and day",
    ),
    "parquet.uri": (
        {"parquet": {"uri": "s3://other/x.parquet"}},
        "parquet.uri is not one of this bucket, prefix and day",
    ),
    "parquet_copy.uri": (
        {"parquet_copy": {"uri": "s3://other/x.parquet"}},
        "parquet_copy.uri is not one of this bucket, prefix and day",
    ),
    "parquet_copy.sha256": (
        {"parquet_copy": {"sha256": "0" * 64}},
        "{copy} has another SHA-256 than parquet_copy.sha256",
    ),
    "parquet_copy.bytes": (
        {"parquet_copy": {"bytes": 1}},
        "{copy} has other bytes than parquet_copy.bytes",
    ),
    "source": ({"source": {"url": "http://other"}}, "source is not what {parquet} says"),
    "source.fetched_at": (
        {"source": {"fetched_at": "2020-01-01T00:00:00+00:00"}},
        "source is not what {parquet} says",
    ),
}


@pytest.mark.parametrize("claim", UNTRUE)
def test_verify_of_an_edited_receipt_differs(store: Store, claim: str) -> None:
    """Each claim that the raw snapshot, the CSV or the Parquet contradicts is named."""
    publish_users(store, DAY, users(3))
    was = bucket.receipt_of(store)
    changes, problem = UNTRUE[claim]
    bucket.edit_receipt(store, **changes)
    assert was.parquet
    if problem is None:
        assert difference(store).startswith(f"s3://{store.bucket}/{CSV}: ")
    else:
        problem = problem.format(raw=was.raw.uri, parquet=was.parquet.uri, copy=store.uri(COPY))
        assert difference(store) == untrue(store, problem)


def test_edited_receipt_is_written_again(store: Store) -> None:
    """The advice of the difference fixes it, also where the CSV is the same."""
    publish_users(store, DAY, users(3))
    bucket.edit_receipt(store, rules=RULES, csv={"bytes": 1})
    assert publish_users(store, DAY, users(3)).outcome == "unchanged"
    assert len(proofs(store)) == 6


def test_verify_of_rejects_above_the_ratio_differs(store: Store) -> None:
    """A receipt that allowed fewer rejects than there are cannot have passed the gates."""
    publish_users(store, DAY, users(3, email=bucket.BAD_EMAIL), LENIENT)
    assert len(proofs(store)) == 6
    bucket.edit_receipt(store, max_rejected_ratio=0.1)
    assert "the raw snapshot does not pass the gates (Closed by emails_are_valid" in (
        difference(store)
    )


def test_verify_of_a_publication_under_another_contract_says_so(store: Store) -> None:
    """A day is proved by the code whose contract it was published under."""
    publish_users(store, DAY, users(3))
    bucket.edit_receipt(store, contract_version="0")
    assert difference(store) == (
        f"{store.uri(bucket.receipt_key(store))}: published under contract version 0, and this"
        f" code has version {CONTRACT.version}: verify it with the code of version {CODE_VERSION}."
    )


def forge(store: Store, what: str, snapshot: RawUsers | UserFrames) -> None:
    """Let the receipt name another raw snapshot or Parquet that is stored as it should be."""
    path, _ = keep(store, DAY, snapshot)
    bucket.edit_receipt(store, **{what: {"uri": store.uri(path), "sha256": snapshot.file.sha256}})


def test_verify_of_a_receipt_with_another_raw_snapshot_differs(store: Store) -> None:
    """The strongest forgery: all digests fit, and only the rows contradict."""
    publish_users(store, DAY, users(3))
    forge(store, "raw", raw_users_of(users(3, name_title="Dr")))
    assert difference(store) == untrue(
        store, f"csv: not what {bucket.receipt_of(store).raw.uri} gives"
    )


def test_verify_of_a_receipt_with_a_raw_snapshot_that_is_none_differs(store: Store) -> None:
    """An object that is not zstd is one sentence."""
    publish_users(store, DAY, users(3))
    raw = raw_users_of(users(3))
    forge(store, "raw", dataclasses.replace(raw, file=temp_file_of(b"other")))
    assert difference(store) == (
        "The raw snapshot of users is not whole zstd: materialize raw_users again."
    )


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_verify_of_a_receipt_with_another_parquet_differs(store: Store, rows: int) -> None:
    """A changed cell, a row less or one more is found although the footer is the right one."""
    publish_users(store, DAY, users(3))
    was = bucket.receipt_of(store)
    facts = frames_of(users(3)).facts
    other = frames_of(users(rows, name_title="Dr"))
    forge(
        store,
        "parquet",
        frames_with(other, **{f: getattr(facts, f) for f in facts.__struct_fields__}),
    )
    parquet = bucket.receipt_of(store).parquet
    assert parquet
    assert difference(store) == untrue(store, f"{parquet.uri} has other rows than {was.raw.uri}")


def test_read_back_shows_the_object(store: Store) -> None:
    """The check shows rows, bytes, digest and ETag of the stored object."""
    publish_users(store, DAY, users(3))
    receipt, now = bucket.receipt_of(store), store.head(CSV)
    assert now
    facts = {
        "rows": 3,
        "bytes": now.size,
        "sha256": receipt.csv.sha256,
        "etag": now.etag.strip('"'),
    }
    assert read_back(store, CONTRACT, DAY) == Finding(
        "matches_its_receipt", passed=True, sentence="The object matches its receipt.", facts=facts
    )


def test_read_back_finds_every_difference(store: Store) -> None:
    """An edited row count and size and another type differ in one sentence each."""
    publish_users(store, DAY, users(3))
    size = bucket.receipt_of(store).csv.bytes
    bucket.edit_receipt(store, counts={"published": 4}, csv={"bytes": 1})
    store.put(CSV, temp_file_of(bucket.body_of(store, CSV)), content_type="text/plain")
    found = read_back(store, CONTRACT, DAY)
    differences = (
        "rows is 3, not 4",
        f"bytes is {size}, not 1",
        "Content-Type is text/plain, not text/csv; charset=utf-8",
    )
    assert found.closed
    assert found.sentence == " ".join(
        f"s3://{store.bucket}/{CSV}: {problem}: {AGAIN}" for problem in differences
    )


@pytest.mark.parametrize("missing", [bucket.receipt_key, lambda _: CSV])
def test_read_back_without_the_object_or_its_receipt_is_a_closed_gate(
    store: Store, missing: Callable[[Store], str]
) -> None:
    """A CSV without its receipt is not proved; a day without its CSV is not published."""
    publish_users(store, DAY, users(3))
    bucket.delete(store, missing(store))
    found = read_back(store, CONTRACT, DAY)
    assert found == Finding("matches_its_receipt", passed=False, sentence=difference(store))
    assert found.closed
