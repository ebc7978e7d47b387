"""Receipts of another version are refused, and lead back through the history."""

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import History
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import csv_of, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import DAY, DAY_AFTER, DAY_BEFORE, RECEIPT

# A day between DAY_AFTER and the last one is left out.
LAST, AFTER_LAST = "2026-11-25", "2026-11-26"


@pytest.fixture
def published(store: Store) -> Store:
    """A bucket with three published days."""
    for day in (DAY_BEFORE, DAY, LAST):
        bucket.publish_csv(store, day, csv_of(users(3, name_title=None)))
    return store


def test_receipt_of_an_unpublished_day_is_none(store: Store) -> None:
    """Neither a receipt, a pointer nor a history is invented."""
    assert receipts.read_receipt(store, CONTRACT, DAY) is None
    assert receipts.read_latest(store, CONTRACT) is None
    assert receipts.find_history(store, CONTRACT, DAY, "") == History()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"date": ', "Input data was truncated"),
        (b"{}", "Object missing required field date"),
        (b"", "Input data was truncated"),
        (b"<html>", "JSON is malformed: invalid character (byte 0)"),
        (b'{"receipt_version": 2}', "Invalid enum value 2 - at $.receipt_version"),
    ],
)
def test_receipt_that_is_broken_or_of_a_later_version_is_refused(
    store: Store, body: bytes, problem: str
) -> None:
    """What is no receipt of version 1 is named, with what is wrong and what to do."""
    store.put(RECEIPT, body, content_type="application/json")
    assert bucket.message_of(lambda: receipts.read_receipt(store, CONTRACT, DAY)) == (
        f"s3://{store.bucket}/_receipts/users_csv/dt=2026-11-22.json is not a receipt of version 1"
        f" ({problem}): restore the object, or move it away."
    )


def test_pointer_that_is_broken_stops_the_history(published: Store) -> None:
    """A `latest.json` that cannot be read does not start a new history."""
    published.put(bucket.LATEST, b"[]", content_type="application/json")
    assert bucket.message_of(lambda: receipts.find_history(published, CONTRACT, LAST, "")) == (
        f"s3://{published.bucket}/_receipts/users_csv/latest.json is not a latest of version 1"
        " (Expected object, got array): restore the object, or move it away."
    )


@pytest.mark.parametrize(
    ("day", "before"),
    [(DAY_BEFORE, None), (DAY, DAY_BEFORE), (DAY_AFTER, DAY), (LAST, DAY), (AFTER_LAST, LAST)],
)
def test_history_is_the_last_publication_before_a_day(
    published: Store, day: str, before: str | None
) -> None:
    """It is found from any day, published or not, with its rows and NULLs."""
    history = receipts.find_history(published, CONTRACT, day, "")
    assert history.date == before
    assert history.rows == (3 if before else 0)
    assert history.nulls.get("name_title") == (1 if before else None)


def test_history_with_a_missing_link_is_refused(published: Store) -> None:
    """A hole in the chain is named, as the history behind it cannot be checked."""
    bucket.delete(published, RECEIPT)
    assert bucket.message_of(lambda: receipts.find_history(published, CONTRACT, LAST, "")) == (
        f"s3://{published.bucket}/_receipts/users_csv/dt=2026-11-22.json is missing though the"
        " receipts point to it: restore it, so that the history can be checked."
    )
    assert receipts.find_history(published, CONTRACT, AFTER_LAST, "").date == LAST
