"""Verification: a publication proved again from the bucket alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from randusers_assets.io_managers import load_raw
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import SnapshotGate, audited, reject_schema
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets.pipeline.flatten.frames import BLOCK_BYTES, lay_flat
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.receipt import ObjectProof, Receipt
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets.pipeline.storage.tempfiles import Spool

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
    path = receipts.csv_path(date)
    csv = _as_written(store, path, receipt.csv)
    yield f"{store.uri(path)}: {csv.size:,} bytes with the receipt's SHA-256"
    _hold_rows(store, date, csv, receipt)
    yield f"{receipt.counts.published:,} rows keep every rule; NULLs are as counted"
    path, counts = receipts.rejects_path(date), receipt.counts
    rejects = _as_written(store, path, receipt.rejects)
    rejected = sum(table.num_rows for table in _tables(store, path, rejects, reject_schema()))
    stages = {counts.declared, counts.raw, counts.published + rejected}
    if rejected != counts.rejected or len(stages) > 1:
        raise _differs(store, path, f"{rejected:,} rows do not reconcile with {counts}")
    yield f"{counts.declared:,} declared = {counts.published:,} published + {rejected:,} rejected"
    yield _from_raw(store, date, receipt)


def _differs(store: SnapshotStore, path: str, problem: str) -> dg.Failure:
    return dg.Failure(
        f"{store.uri(path)}: {problem}: materialize users_csv of that day again.",
        allow_retries=False,
    )


def _as_written(store: SnapshotStore, path: str, proof: ObjectProof) -> Spool:
    spool, stored = store.download(path, "materialize users_csv of that day again")
    if (spool.size, spool.sha256, stored.etag) != (proof.bytes, proof.sha256, proof.etag):
        raise _differs(store, path, "its size, SHA-256 or ETag is not the receipt's")
    return spool


def _tables(
    store: SnapshotStore, path: str, csv: Spool, schema: "pa.Schema"
) -> "Iterator[pa.Table]":
    """The rows of a CSV of ours, about `BLOCK_BYTES` at a time."""
    import pyarrow as pa

    with csv.reader() as file:
        if file.readline() != csv_format.header(schema):
            raise _differs(store, path, "its header is not the contract's")
        while block := bytearray(file.read(BLOCK_BYTES)):
            block += file.readline()
            # Quotes are paired in a whole record: a text among the rejects may hold a line end.
            open_quote = block.count(b'"') % 2
            while open_quote and (line := file.readline()):
                block += line
                open_quote ^= line.count(b'"') % 2
            try:
                table = csv_format.parse(bytes(block), schema)
            except pa.ArrowInvalid:
                # Arrow's own sentence quotes the row, which is personal.
                raise _differs(
                    store, path, "a row does not have the contract's columns and types"
                ) from None
            yield table


def _hold_rows(store: SnapshotStore, date: str, csv: Spool, receipt: Receipt) -> None:
    path, audit = receipts.csv_path(date), Audit()

    def batches() -> "Iterator[pa.RecordBatch]":
        for table in _tables(store, path, csv, arrow_schema()):
            yield from table.to_batches()

    for batch in batches():
        audit.add(batch)
    broken = [name for name, finding in audit.findings.items() if finding.users]
    if broken or audit.rows != receipt.counts.published:
        raise _differs(store, path, f"{audit.rows:,} rows, broken rules: {broken or 'none'}")
    if audit.nulls != {column.name: column.nulls for column in receipt.columns}:
        raise _differs(store, path, "the NULLs of a column are not as the receipt counted them")
    if any(finding.users for finding in audit.repeated(batches).values()):
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
