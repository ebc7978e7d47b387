"""The receipt of a CSV is found by its digest, and the day before without a chain."""

import datetime
from collections.abc import Callable

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import History
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.storage.paths import csv_path, version_1_paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import csv_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import DAY, DAY_AFTER, DAY_BEFORE

# A day between DAY_AFTER and the last one is left out.
LAST, AFTER_LAST = "2026-11-25", "2026-11-26"
OTHER = "0" * 64
RESTORE = "restore it, or delete it and materialize the day's CSV."


@pytest.fixture
def published(store: Store) -> Store:
    """A bucket with three published days, the last one published first."""
    for day in (LAST, DAY_BEFORE, DAY):
        bucket.publish_csv(store, day, csv_of(users(3, name_title=None)))
    return store


def test_receipt_of_an_unpublished_day_is_none(store: Store) -> None:
    """Neither a receipt, a pointer nor a history is invented."""
    assert receipts.read_receipt(store, CONTRACT, DAY, OTHER) is None
    assert receipts.read_latest(store, CONTRACT) is None
    assert receipts.find_history(store, CONTRACT, DAY, OTHER) == History()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"date": ', "cannot be read (Input data was truncated)"),
        (b"{}", "cannot be read (Object missing required field date)"),
        (b"", "cannot be read (Input data was truncated)"),
        (b"<html>", "cannot be read (JSON is malformed: invalid character (byte 0))"),
        (b'{"receipt_version": 3}', "cannot be read (Invalid enum value 3 - at $.receipt_version)"),
    ],
)
def test_receipt_that_is_broken_or_of_a_later_version_is_refused(
    published: Store, body: bytes, problem: str
) -> None:
    """What is no receipt of a known version is named, with what is wrong and what to do."""
    path, digest = bucket.receipt_key(published), bucket.csv_sha256(published)
    published.put(path, body, content_type="application/json")
    assert bucket.message_of(lambda: receipts.read_receipt(published, CONTRACT, DAY, digest)) == (
        f"s3://{published.bucket}/{path} {problem}: {RESTORE}"
    )


def test_receipt_with_a_changed_byte_is_refused(published: Store) -> None:
    """The digest of a receipt is checked as it is read, that of the pointer as well."""
    path, digest = bucket.receipt_key(published), bucket.csv_sha256(published)
    for damaged, read in (
        (path, lambda: receipts.read_receipt(published, CONTRACT, DAY, digest)),
        (bucket.LATEST, lambda: receipts.latest_day(published, CONTRACT)),
    ):
        bucket.overwrite(published, damaged)
        assert bucket.message_of(read) == (
            f"s3://{published.bucket}/{damaged} is not as it was written (its SHA-256 differs):"
            f" {RESTORE}"
        )


@pytest.mark.parametrize(
    "claim",
    [{"date": DAY_AFTER}, {"csv": {"sha256": OTHER}}, {"receipt_version": 1}, {"parquet": None}],
)
def test_receipt_of_another_csv_is_refused(published: Store, claim: dict[str, object]) -> None:
    """A receipt proves the one CSV whose day and digest its key names."""
    path, digest = bucket.receipt_key(published), bucket.csv_sha256(published)
    bucket.edit_receipt(published, **claim)
    assert bucket.message_of(lambda: receipts.read_receipt(published, CONTRACT, DAY, digest)) == (
        f"s3://{published.bucket}/{path} is the receipt of another CSV: {RESTORE}"
    )


@pytest.mark.parametrize(
    ("day", "before"),
    [(DAY_BEFORE, None), (DAY, DAY_BEFORE), (DAY_AFTER, DAY), (LAST, DAY), (AFTER_LAST, LAST)],
)
def test_history_is_the_nearest_publication_before_a_day(
    published: Store, day: str, before: str | None
) -> None:
    """It is found from any day, in whatever order days were published, with rows and NULLs."""
    history = receipts.find_history(published, CONTRACT, day, OTHER)
    assert history.date == before
    assert history.rows == (3 if before else 0)
    assert history.nulls.get("name_title") == (1 if before else None)


@pytest.mark.parametrize(("days", "found"), [(35, True), (36, False)])
def test_history_goes_back_35_days(published: Store, days: int, *, found: bool) -> None:
    """A publication 35 days ago is compared with; an older one is not."""
    day = (datetime.date.fromisoformat(LAST) + datetime.timedelta(days=days)).isoformat()
    history = receipts.find_history(published, CONTRACT, day, OTHER)
    assert history.date == (LAST if found else None)


@pytest.mark.parametrize("damage", [bucket.delete, bucket.overwrite])
def test_history_needs_no_pointer(published: Store, damage: Callable[[Store, str], None]) -> None:
    """A deleted or unreadable `latest.json` does not start a new history."""
    damage(published, bucket.LATEST)
    assert receipts.find_history(published, CONTRACT, LAST, OTHER).date == DAY


@pytest.mark.parametrize("damage", [bucket.delete, bucket.overwrite])
def test_history_with_a_csv_without_its_receipt_is_refused(
    published: Store, damage: Callable[[Store, str], None]
) -> None:
    """The day and its receipt are named; other days are compared with their own day before."""
    path = bucket.receipt_key(published)
    damage(published, path)
    uri = f"s3://{published.bucket}/{path}"
    problem = f"{uri} is not as it was written (its SHA-256 differs): {RESTORE}"
    if damage is bucket.delete:
        problem = (
            f"{published.uri(bucket.CSV)} has no receipt: {uri} does not exist; materialize"
            f" users_csv for {DAY}."
        )
    assert bucket.message_of(lambda: receipts.find_history(published, CONTRACT, LAST, OTHER)) == (
        f"{LAST} cannot be compared with {DAY}: {problem}"
    )
    assert receipts.find_history(published, CONTRACT, AFTER_LAST, OTHER).date == LAST


def test_history_with_a_csv_that_something_else_wrote_is_refused(published: Store) -> None:
    """A CSV without the digest in its metadata has no receipt that could be found."""
    bucket.overwrite(published, bucket.CSV, keeps_metadata=False)
    assert bucket.message_of(lambda: receipts.find_history(published, CONTRACT, LAST, OTHER)) == (
        f"{LAST} cannot be compared with {DAY}: {published.uri(bucket.CSV)} is not as it was"
        f" written (its SHA-256 differs): {RESTORE}"
    )


def test_day_whose_receipt_is_lost_can_be_published_again(published: Store) -> None:
    """A missing or broken receipt of the day itself does not keep it from being rebuilt."""
    csv = csv_of(users(3, name_title=None))
    for damage in (bucket.delete, bucket.overwrite):
        damage(published, bucket.receipt_key(published))
        assert bucket.publish_csv(published, DAY, csv).outcome == "unchanged"
        assert bucket.receipt_of(published).counts.published == 3


def test_published_days_are_read_with_their_receipts(published: Store) -> None:
    """In the order asked for; what cannot be read is told in the receipt's place."""
    days = (AFTER_LAST, LAST, DAY_AFTER, DAY, DAY_BEFORE)
    key = bucket.receipt_key(published, DAY)
    bucket.delete(published, key)
    bucket.overwrite(published, csv_path(CONTRACT, DAY_BEFORE), keeps_metadata=False)
    (last, receipt), *others = receipts.read_published(published, CONTRACT, days)
    assert (last, receipt) == (LAST, bucket.receipt_of(published, LAST))
    csv, altered = (published.uri(csv_path(CONTRACT, day)) for day in (DAY, DAY_BEFORE))
    no_receipt = f"{csv} has no receipt: {published.uri(key)} does not exist;"
    assert [(day, str(error)) for day, error in others] == [
        (DAY, f"{no_receipt} materialize users_csv for {DAY}."),
        (DAY_BEFORE, f"{altered} is not as it was written (its SHA-256 differs): {RESTORE}"),
    ]


def test_receipt_of_version_1_is_read_by_the_digest_of_its_csv(published: Store) -> None:
    """What release 0.1.0 wrote proves its CSV, and no other."""
    bucket.become_version_1(published, DAY)
    digest = bucket.csv_sha256(published)
    receipt = receipts.require_receipt(published, CONTRACT, DAY, digest)
    paths = version_1_paths(CONTRACT, DAY)
    assert (receipt.receipt_version, receipt.parquet) == (1, None)
    assert receipt.raw.uri == published.uri(paths.raw)
    assert receipt.rejects.uri == published.uri(paths.rejects)
    assert receipt.compared_with == DAY_BEFORE
    assert receipts.read_receipt(published, CONTRACT, DAY, OTHER) is None
    assert receipts.find_history(published, CONTRACT, LAST, OTHER).rows == 3
    published.put(paths.receipt, b'{"raw_sha256": ""}', content_type="application/json")
    assert bucket.message_of(lambda: receipts.read_receipt(published, CONTRACT, DAY, digest)) == (
        f"{published.uri(paths.receipt)} cannot be read (Object missing required field date):"
        f" {RESTORE}"
    )
