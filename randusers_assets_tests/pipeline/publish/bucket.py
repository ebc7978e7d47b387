"""What the tests of publishing do with a bucket: publish a day, look at it, and damage it."""

import hashlib
import re
from collections.abc import Callable

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.publish.publish import Publication, publish
from randusers_assets.pipeline.publish.receipt import Receipt, find_history, require_receipt
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import passed

DAY_BEFORE, DAY, DAY_AFTER = "2026-11-21", "2026-11-22", "2026-11-23"
CSV, REJECTS = paths.csv_path(CONTRACT, DAY), paths.rejects_path(CONTRACT, DAY)
RECEIPT, LATEST = paths.receipt_path(CONTRACT, DAY), paths.latest_path(CONTRACT)
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


def receipt_of(store: Store, date: str = DAY) -> Receipt:
    """The receipt of a published day."""
    return require_receipt(store, CONTRACT, date)


def body_of(store: Store, path: str) -> bytes:
    """The bytes of an object that is there."""
    found = store.read(path)
    assert found
    return found[0]


def state_of(store: Store) -> dict[str, tuple[str, str]]:
    """Every object of the bucket: its content type and bytes, less the time of publication."""
    listed = store.client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    state = {}
    for found in listed:
        answer = store.client.get_object(Bucket=store.bucket, Key=found["Key"])
        body = re.sub(r'"published_at": "[^"]*"', "", answer["Body"].read().decode())
        state[found["Key"]] = answer["ContentType"], body
    return state


def delete(store: Store, *keys: str) -> None:
    """Delete objects behind the pipeline's back."""
    for key in keys:
        store.client.delete_object(Bucket=store.bucket, Key=key)


def overwrite(store: Store, path: str, *, keeps_metadata: bool = True) -> None:
    """Change one byte of an object behind the pipeline's back, and its metadata to none or not."""
    found = store.read(path)
    assert found
    body, metadata = found[0][:-2] + b"!\n", dict(found[1].metadata) if keeps_metadata else {}
    store.client.put_object(Bucket=store.bucket, Key=path, Body=body, Metadata=metadata)


def edit_receipt(store: Store, **changes: object) -> None:
    """Write the day's receipt with other values; a dict changes only the fields that it names."""
    receipt = msgspec.to_builtins(receipt_of(store))
    for name, value in changes.items():
        receipt[name] = {**receipt[name], **value} if isinstance(value, dict) else value
    store.put(RECEIPT, msgspec.json.encode(receipt), content_type="application/json")


def forge(store: Store, path: str, body: bytes) -> None:
    """Write the CSV or the rejects anew, and edit the receipt so that it proves the new bytes.

    The strongest forgery: only the rows themselves and the raw snapshot can contradict it.
    """
    stored = store.put(path, body, content_type="text/csv; charset=utf-8")
    proof = {"sha256": stored.sha256, "bytes": stored.size, "etag": stored.etag}
    edit_receipt(store, **{"csv" if path == CSV else "rejects": proof})


def assert_consistent(store: Store) -> Receipt:
    """Check that CSV, rejects, receipt and pointer agree; the receipt."""
    receipt = receipt_of(store)
    for path, proof in ((CSV, receipt.csv), (REJECTS, receipt.rejects)):
        found = store.read(path)
        assert found
        digest = hashlib.sha256(found[0]).hexdigest()
        assert (digest, found[1].size, found[1].etag) == (proof.sha256, proof.bytes, proof.etag)
    assert body_of(store, CSV).count(b"\n") == receipt.counts.published + 1
    latest = {"date": DAY, "csv": store.uri(CSV), "receipt": store.uri(RECEIPT)}
    assert msgspec.json.decode(body_of(store, LATEST)) == latest
    return receipt
