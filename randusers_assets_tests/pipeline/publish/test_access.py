"""Denied is not missing: S3 says 403 of both, and only a run that may read acts on an absence."""

import boto3
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import History
from randusers_assets.pipeline.publish.objects import load_csv
from randusers_assets.pipeline.publish.receipt import find_history
from randusers_assets.pipeline.publish.verify import read_back, verify
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.builders import users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, DAY_AFTER, DAY_BEFORE
from randusers_assets_tests.pipeline.storage.s3_proxy import (
    Answer,
    Fault,
    Request,
    deny_reads,
    error,
    s3_proxy,
)
from randusers_sandbox.s3 import LocalS3

DENIED = (
    "S3 refused s3:GetObject, or there is no such object (it says the same of both where"
    " s3:ListBucket is not allowed): allow s3:GetObject to these credentials, as"
    " deploy/iam-policy.json does, and see that the day is published."
)


def refuse_to_tell(request: Request) -> Fault | None:
    """S3 without s3:ListBucket: 403 instead of 404."""

    def change(answer: Answer) -> Answer:
        return error(403, "AccessDenied") if answer.status == 404 else answer

    return Fault(change=change) if request.method in ("GET", "HEAD") else None


def store_at(url: str, store: Store) -> Store:
    """The same bucket through a proxy."""
    client = boto3.client("s3", endpoint_url=url)
    return Store(lambda: client, store.bucket)


def test_run_without_list_bucket_publishes_and_compares(
    store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 of a missing object is that, once the run has written and read an object."""
    monkeypatch.setattr("randusers_assets.pipeline.publish.receipt.HISTORY_DAYS", 3)
    with s3_proxy(s3_server.endpoint_url, refuse_to_tell) as url:
        bucket.publish_users(store_at(url, store), DAY_BEFORE, users(10))
        closed = bucket.message_of(
            lambda: bucket.publish_users(store_at(url, store), DAY, users(5))
        )
        assert closed.startswith("Closed by is_in_line_with_history: Against 2026-11-21: 5 rows")
        assert len(list(verify(store_at(url, store), CONTRACT))) == 6
        own = store_at(url, store)
        own.check_access()
        assert own.head(CSV) is None
        assert own.read(CSV, "") is None


def test_reader_without_list_bucket_is_told_of_both(store: Store, s3_server: LocalS3) -> None:
    """A process that has read nothing cannot say that a day is not published."""
    with s3_proxy(s3_server.endpoint_url, refuse_to_tell) as url:
        own = store_at(url, store)
        for act in (
            lambda: list(verify(own, CONTRACT, DAY)),
            lambda: load_csv(own, CONTRACT, DAY),
            lambda: read_back(own, CONTRACT, DAY),
            lambda: own.head(CSV),
        ):
            assert bucket.message_of(act) == f"{store.uri(CSV)}: {DENIED}"


def test_run_that_may_not_read_ends_before_it_decides(store: Store, s3_server: LocalS3) -> None:
    """A denied day before is no first publication, and the day's CSV is no missing one."""
    bucket.publish_users(store, DAY_BEFORE, users(10))
    before = bucket.state_of(store)
    with s3_proxy(s3_server.endpoint_url, deny_reads("")) as url:
        for act in (
            lambda: find_history(store_at(url, store), CONTRACT, DAY, ""),
            lambda: bucket.publish_users(store_at(url, store), DAY, users(5)),
        ):
            assert bucket.message_of(act) == f"{store.uri(PROBE)}: {DENIED}"
    assert bucket.state_of(store) == before


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_object_under_a_refused_kms_key_is_not_missing(
    store: Store, s3_server: LocalS3, method: str
) -> None:
    """The answer to HEAD cannot say that it is about KMS; that to GET does, and it counts."""
    bucket.publish_users(store, DAY_BEFORE, users(10))
    kms = error(403, "AccessDenied", "User is not authorized to perform: kms:Decrypt")

    def rule(request: Request) -> Fault | None:
        return Fault(answer=kms) if request.path.endswith(f"{DAY_BEFORE}/users.csv") else None

    with s3_proxy(s3_server.endpoint_url, rule) as url:
        own = store_at(url, store)
        act = {
            "HEAD": lambda: find_history(own, CONTRACT, DAY, ""),
            "GET": lambda: load_csv(own, CONTRACT, DAY_BEFORE),
        }[method]
        message = bucket.message_of(act)
    assert "kms:Decrypt" in message
    assert message.startswith(f"s3://{store.bucket}/users_csv/dt={DAY_BEFORE}/users.csv: ")


def test_history_asks_for_the_day_before_first(store: Store, s3_server: LocalS3) -> None:
    """Where the day before is published, one request finds it; else the other days are asked."""
    bucket.publish_users(store, DAY, users(10))
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.method == "HEAD":
            asked.append(request.path.removeprefix(f"/{store.bucket}/"))

    with s3_proxy(s3_server.endpoint_url, note) as url:
        own = store_at(url, store)
        assert find_history(own, CONTRACT, DAY_AFTER, "").date == DAY
        assert asked == [CSV]
        asked.clear()
        assert find_history(own, CONTRACT, DAY, "") == History()
    assert len(set(asked)) == 35


@pytest.mark.parametrize("refused", [bucket.COPY, bucket.LATEST, bucket.PACKAGE])
def test_publication_whose_followers_cannot_be_written_stands(
    store: Store, s3_server: LocalS3, refused: str
) -> None:
    """The message says that the CSV is published; the next run writes what is missing."""

    def rule(request: Request) -> Fault | None:
        hit = request.method == "PUT" and request.path == f"/{store.bucket}/{refused}"
        return Fault(answer=error(403, "AccessDenied")) if hit else None

    with s3_proxy(s3_server.endpoint_url, rule) as url:
        message = bucket.message_of(
            lambda: bucket.publish_users(store_at(url, store), DAY, users(5))
        )
    assert message.startswith(
        f"{DAY} is published with its receipt, but an object that follows it is not written:"
        f" {store.uri(refused)}: S3 refused s3:PutObject"
    )
    assert read_back(store, CONTRACT, DAY).passed
    assert store.head(refused) is None
    assert bucket.publish_users(store, DAY, users(5)).outcome == "unchanged"
    bucket.assert_consistent(store)
