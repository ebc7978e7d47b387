"""Verification: a publication proved again from the bucket alone."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import audit_csv, reject_schema
from randusers_assets.pipeline.audit.gates import Finding
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets.pipeline.flatten.frames import decode_raw, flatten
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.objects import load_raw
from randusers_assets.pipeline.storage.paths import csv_path, rejects_path
from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets.pipeline.storage.s3 import Store


def read_back(store: Store, contract: Contract, date: str) -> Finding:
    """Stream a day's published object and compare it with its receipt."""
    name = "matches_its_receipt"
    found = receipts.read_receipt(store, contract, date)
    if found is None:
        missing = receipts.not_published(store, contract, date)
        return Finding(name, passed=False, sentence=str(missing))
    receipt, path = found[0], csv_path(contract, date)
    advice = f"materialize {contract.name}_csv for {date} again"
    chunks, stored = store.stream(path, advice)
    digest, size, lines = hashlib.sha256(), 0, 0
    for chunk in read_ahead(chunks):
        digest.update(chunk)
        size += len(chunk)
        # Text is single-line by the row rules, so that lines are records.
        lines += chunk.count(b"\n")
    compared = {
        "rows": (max(lines - 1, 0), receipt.counts.published),
        "bytes": (size, receipt.csv.bytes),
        "sha256": (digest.hexdigest(), receipt.csv.sha256),
        "etag": (stored.etag.strip('"'), receipt.csv.etag.strip('"')),
    }
    differences = [
        f"{store.uri(path)}: {what} is {actual}, its receipt says {expected}: {advice}."
        for what, (actual, expected) in compared.items()
        if actual != expected
    ]
    sentence = " ".join(differences) or "The object matches its receipt."
    facts = {what: actual for what, (actual, _) in compared.items()}
    return Finding(name, passed=not differences, sentence=sentence, facts=facts)


def verify(store: Store, contract: Contract, date: str | None = None) -> Iterator[str]:
    """Prove a day again, or the last one; yield each proof; SnapshotError at a difference."""
    receipt = receipts.require_receipt(store, contract, date)
    day, counts = receipt.date, receipt.counts
    advice = f"materialize {contract.name}_csv for {day} again"
    csv = _Download(store, csv_path(contract, day), receipt.csv, arrow_schema(contract), advice)
    yield f"{csv.uri}: {csv.file.size:,} bytes with the receipt's SHA-256"
    _check_rows(csv, contract, receipt)
    yield f"{counts.published:,} rows pass every rule; NULLs are as counted"
    path, schema = rejects_path(contract, day), reject_schema(contract)
    rejects = _Download(store, path, receipt.rejects, schema, advice)
    rejected = sum(batch.num_rows for batch in rejects.batches())
    stages = {counts.declared, counts.raw, counts.published + rejected}
    if rejected != counts.rejected or len(stages) > 1:
        raise rejects.differs(f"{rejected:,} rows do not reconcile with {counts}")
    yield f"{counts.declared:,} declared = {counts.published:,} published + {rejected:,} rejected"
    raw = load_raw(store, contract, day)
    if raw.file.sha256 != receipt.raw_sha256:
        yield "the raw snapshot was fetched again since: the CSV was not rebuilt from it"
    elif audit_csv(flatten(decode_raw(raw))).file.sha256 == receipt.csv.sha256:
        yield "rebuilt from the raw snapshot, the CSV has the same SHA-256"
    else:
        raise csv.differs("rebuilt from the raw snapshot, it differs")


class _Download:
    """A published object, whose bytes are those of its receipt."""

    def __init__(
        self, store: Store, path: str, proof: receipts.ObjectProof, schema: pa.Schema, advice: str
    ) -> None:
        self.uri, self.schema, self.advice = store.uri(path), schema, advice
        self.file, stored = store.download(path, advice)
        found = (self.file.size, self.file.sha256, stored.etag)
        if found != (proof.bytes, proof.sha256, proof.etag):
            raise self.differs("its size, SHA-256 or ETag is not the receipt's")

    def differs(self, problem: str) -> SnapshotError:
        return SnapshotError(f"{self.uri}: {problem}: {self.advice}.")

    def batches(self) -> Iterator[pa.RecordBatch]:
        with self.file.reader() as file:
            if file.readline() != csv_format.encode_header(self.schema):
                raise self.differs("its header is not the contract's")
            try:
                yield from csv_format.read_csv(file, self.schema)
            except pa.ArrowInvalid:
                # Arrow's own sentence quotes the row, which is personal.
                problem = "a row does not have the contract's columns and types"
                raise self.differs(problem) from None


def _check_rows(csv: _Download, contract: Contract, receipt: receipts.Receipt) -> None:
    audit = Audit(contract)
    for batch in csv.batches():
        audit.add(batch)
    broken = ", ".join(name for name, count in audit.broken.items() if count.rows)
    if broken or audit.rows != receipt.counts.published:
        raise csv.differs(f"{audit.rows:,} rows, broken rules: {broken or 'none'}")
    if audit.nulls != {column.name: column.nulls for column in receipt.columns}:
        raise csv.differs("a column's NULLs are not as many as the receipt counts")
    if any(count.rows for count in audit.count_duplicates(csv.batches).values()):
        raise csv.differs(f"two rows share {' or '.join(contract.unique)}")
