"""What the tests of publishing do with a bucket: publish a day, look at it, and damage it."""

import hashlib
import re
from collections.abc import Callable, Sequence

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.publish.data_package import describe_csv
from randusers_assets.pipeline.publish.publish import Publication, publish
from randusers_assets.pipeline.publish.receipt import Receipt, find_history, require_receipt
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import User, passed, raw_users_of

DAY_BEFORE, DAY, DAY_AFTER = "2026-11-21", "2026-11-22", "2026-11-23"
CSV, LATEST = paths.csv_path(CONTRACT, DAY), paths.latest_path(CONTRACT)
COPY, PACKAGE = paths.parquet_copy_path(CONTRACT, DAY), paths.data_package_path()
LENIENT = Policy(max_rejected_ratio=0.5)
BAD_EMAIL = "nobody@nowhere"


def message_of(act: Callable[[], object]) -> str:
    """The message of an error that no retry fixes."""
    with pytest.raises(SnapshotError) as caught:
        act()
    assert not caught.value.retryable
    return str(caught.value)


def publish_csv(
    store: Store, date: str, csv: AuditedCsv, policy: Policy | None = None, run_id: str = "run"
) -> Publication:
    """Judge a CSV against the bucket's history and publish it, as a run does."""
    history = find_history(store, CONTRACT, date, csv.file.sha256)
    return publish(store, date, passed(csv, policy, history), run_id)


def publish_users(
    store: Store,
    date: str,
    snapshot: Sequence[User],
    policy: Policy | None = None,
    *,
    parquet_copy: bool = True,
) -> Publication:
    """Store, judge and publish a day's users, as a run does that has fetched them."""
    run, raw = SnapshotRun(store, CONTRACT, parquet_copy=parquet_copy), raw_users_of(snapshot)
    run.save(date, raw)
    frames = run.flatten(raw)
    run.save(date, frames)
    return publish(store, date, run.pass_gates(date, frames, policy or Policy()), "run")


def csv_sha256(store: Store, date: str = DAY) -> str:
    """The digest of a published CSV."""
    return hashlib.sha256(body_of(store, paths.csv_path(CONTRACT, date))).hexdigest()


def receipt_of(store: Store, date: str = DAY) -> Receipt:
    """The receipt of a published day."""
    return require_receipt(store, CONTRACT, date, csv_sha256(store, date))


def receipt_key(store: Store, date: str = DAY) -> str:
    """Where the receipt of a published day is."""
    return paths.receipt_path(CONTRACT, date, csv_sha256(store, date))


def rejects_key(store: Store, date: str = DAY) -> str:
    """Where the rejects of a published day are."""
    return receipt_of(store, date).rejects.uri.removeprefix(store.uri(""))


def body_of(store: Store, path: str) -> bytes:
    """The bytes of an object that is there."""
    return b"".join(store.stream(path, "")[0])


def state_of(store: Store) -> dict[str, tuple[str, bytes]]:
    """Every object of the bucket: its types and bytes, less the time of publication."""
    listed = store.client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    state = {}
    for found in listed:
        answer = store.client.get_object(Bucket=store.bucket, Key=found["Key"])
        body = re.sub(rb'"published_at": "[^"]*"', b"", answer["Body"].read())
        kind = f"{answer['ContentType']} {answer.get('ContentEncoding', '')}".strip()
        state[found["Key"]] = kind, body
    return state


def delete(store: Store, *keys: str) -> None:
    """Delete objects behind the pipeline's back."""
    for key in keys:
        store.client.delete_object(Bucket=store.bucket, Key=key)


def overwrite(store: Store, path: str, *, keeps_metadata: bool = True) -> None:
    """Change one byte of an object behind the pipeline's back, and its metadata to none or not."""
    body, now = body_of(store, path), store.head(path)
    assert now
    store.client.put_object(
        Bucket=store.bucket,
        Key=path,
        Body=body[:-2] + b"!\n",
        Metadata=now.metadata if keeps_metadata else {},
        ContentType=now.content_type,
    )


def edit_receipt(store: Store, **changes: object) -> None:
    """Write the day's receipt with other values; a dict changes only the fields that it names."""
    path = receipt_key(store)
    receipt = msgspec.json.decode(body_of(store, path))
    for name, value in changes.items():
        receipt[name] = {**receipt[name], **value} if isinstance(value, dict) else value
    store.put(path, msgspec.json.encode(receipt), content_type="application/json")


def become_version_1(store: Store, date: str) -> None:
    """Turn a published day into what release 0.1.0 would have left of it."""
    old, receipt = paths.version_1_paths(CONTRACT, date), receipt_of(store, date)
    key = receipt_key(store, date)
    moves = {old.rejects: receipt.rejects.uri, old.raw: receipt.raw.uri}
    if receipt.parquet:
        moves[old.frames] = receipt.parquet.uri
    for path, uri in moves.items():
        now = store.head(uri.removeprefix(store.uri("")))
        if now is None:
            continue  # of a day whose CSV alone is there
        metadata = {**now.metadata, "fetch": msgspec.json.encode(receipt.source).decode()}
        body = body_of(store, uri.removeprefix(store.uri("")))
        store.client.put_object(
            Bucket=store.bucket,
            Key=path,
            Body=body,
            Metadata=metadata,
            ContentType=now.content_type,
        )
        delete(store, uri.removeprefix(store.uri("")))
    delete(store, PACKAGE, paths.parquet_copy_path(CONTRACT, date))
    delete(store, paths.raw_pointer_path(CONTRACT, date), paths.frames_pointer_path(CONTRACT, date))
    body = msgspec.to_builtins(receipt)
    del body["parquet"], body["parquet_copy"], body["raw"], body["compared_with"]
    for name, path in (("csv", paths.csv_path(CONTRACT, date)), ("rejects", old.rejects)):
        body[name] |= {"uri": store.uri(path), "etag": '"e"', "version_id": None}
    body |= {"receipt_version": 1, "raw_sha256": receipt.raw.sha256}
    body |= {"previous": receipt.compared_with}
    store.put(old.receipt, msgspec.json.encode(body), content_type="application/json")
    delete(store, key)


def assert_consistent(store: Store) -> Receipt:
    """Check that CSV, receipt, rejects, Parquet copy and pointers agree; the receipt."""
    receipt = receipt_of(store)
    assert receipt.parquet_copy
    for proof in (receipt.csv, receipt.rejects, receipt.parquet_copy):
        body = body_of(store, proof.uri.removeprefix(store.uri("")))
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (proof.sha256, proof.bytes)
    assert body_of(store, CSV).count(b"\n") == receipt.counts.published + 1
    receipts = store.uri(paths.receipts_path(CONTRACT, DAY))
    latest = {"date": DAY, "csv": store.uri(CSV), "receipts": receipts}
    assert msgspec.json.decode(body_of(store, LATEST)) == latest
    assert body_of(store, PACKAGE) == describe_csv(CONTRACT, receipt)
    return receipt
