"""Verification: a publication proved again from the bucket alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from randusers_assets import dialect, receipts
from randusers_assets.audit import Audit
from randusers_assets.audited_csv import SnapshotGate, audited, reject_schema
from randusers_assets.io_managers import load_raw
from randusers_assets.receipts import ObjectProof, Receipt
from randusers_assets.snapshots import BLOCK_BYTES, lay_flat
from randusers_assets.spool import Spool
from randusers_assets.store import SnapshotStore

if TYPE_CHECKING:
    import pyarrow as pa


def verify(store: SnapshotStore, date: str) -> Iterator[str]:
    """Prove a day again, yielding what was proved, one sentence each.

    Raises:
        dagster.Failure: the first difference between the bucket and the day's receipt.
    """
    found = receipts.read_receipt(store, date)
    if found is None:
        raise _differs(store, receipts.receipt_path(date), f"{date} is not published")
    receipt = found[0]
    csv = _as_written(store, receipts.csv_path(date), receipt.csv)
    yield f"{receipt.csv.uri}: {receipt.csv.bytes:,} bytes with the receipt's SHA-256"
    _hold_rows(store, date, csv, receipt)
    yield f"{receipt.counts.published:,} rows keep every rule; NULLs are as counted"
    rejects = _as_written(store, receipts.rejects_path(date), receipt.rejects)
    rejected = sum(dialect.parse(block, reject_schema()).num_rows for block in _records(rejects))
    counts = receipt.counts
    if rejected != counts.rejected or counts.published + rejected != counts.declared:
        raise _differs(
            store, receipts.rejects_path(date), f"{rejected:,} rows do not reconcile with {counts}"
        )
    yield f"{counts.declared:,} declared = {counts.published:,} published + {rejected:,} rejected"
    yield _from_raw(store, date, receipt)


def _differs(store: SnapshotStore, path: str, problem: str) -> dg.Failure:
    return dg.Failure(
        f"{store.uri(path)}: {problem}: materialize users_csv of that day again.",
        allow_retries=False,
    )


def _as_written(store: SnapshotStore, path: str, proof: ObjectProof) -> Spool:
    spool, stored = store.download(path, "materialize users_csv of that day again")
    if (spool.sha256, stored.etag) != (proof.sha256, proof.etag):
        raise _differs(store, path, "its SHA-256 or ETag is not the receipt's")
    return spool


def _records(csv: Spool) -> Iterator[bytes]:
    """The records below the header, whole ones, about `BLOCK_BYTES` at a time."""
    with csv.reader() as file:
        file.readline()
        while block := file.read(BLOCK_BYTES):
            yield block + file.readline()


def _batches(csv: Spool) -> "Iterator[pa.RecordBatch]":
    for block in _records(csv):
        yield from dialect.parse(block).to_batches()


def _hold_rows(store: SnapshotStore, date: str, csv: Spool, receipt: Receipt) -> None:
    path, audit = receipts.csv_path(date), Audit()
    with csv.reader() as file:
        if file.readline() != dialect.header():
            raise _differs(store, path, "its header is not the contract's")
    for batch in _batches(csv):
        audit.add(batch)
    broken = [name for name, finding in audit.findings.items() if finding.users]
    if broken or audit.rows != receipt.counts.published:
        raise _differs(store, path, f"{audit.rows:,} rows, broken rules: {broken or 'none'}")
    if audit.nulls != {column.name: column.nulls for column in receipt.columns}:
        raise _differs(store, path, "the NULLs of a column are not as the receipt counted them")
    if any(finding.users for finding in audit.repeated(lambda: _batches(csv)).values()):
        raise _differs(store, path, "two users share an id or a login_uuid")


def _from_raw(store: SnapshotStore, date: str, receipt: Receipt) -> str:
    """Make the CSV again from the stored raw snapshot, if that is still the one it was made of."""
    raw = load_raw(store, date)
    if raw.spool.sha256 != receipt.raw_sha256:
        return "the raw snapshot was fetched again since: the CSV was not made again from it"
    gate = SnapshotGate(max_rejected_ratio=receipt.max_rejected_ratio)
    if audited(lay_flat(raw), gate).sha256 != receipt.csv.sha256:
        raise _differs(store, receipts.csv_path(date), "made again from raw, it differs")
    return "made again from the raw snapshot, the CSV has the same SHA-256"
