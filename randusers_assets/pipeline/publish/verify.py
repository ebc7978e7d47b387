"""Verification: a publication proved again from the bucket alone."""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest

import pyarrow as pa
import pyarrow.parquet as pq

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv, audit_csv
from randusers_assets.pipeline.audit.gates import Finding, History, Policy, describe_closed, judge
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Altered, SnapshotError
from randusers_assets.pipeline.flatten.frames import (
    BATCH_ROWS,
    RawUsers,
    UserFrames,
    decode_raw,
    flatten,
)
from randusers_assets.pipeline.publish.data_package import describe_csv
from randusers_assets.pipeline.publish.publish import PassedCsv, describe, rejects_paths
from randusers_assets.pipeline.publish.receipt import (
    CONTENT_TYPE,
    ObjectProof,
    Receipt,
    latest_day,
    read_latest,
    require_receipt,
)
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.pipeline.storage.s3_errors import Missing
from randusers_assets.pipeline.storage.tempfiles import TempFile

_RESTORE = "restore it from a backup; what is published cannot be proved without it"

# What a receipt says of a day that the raw snapshot gives again.
DERIVED = ("counts", "columns", "csv", "rules", "contract_version")


def read_back(store: Store, contract: Contract, date: str) -> Finding:
    """Stream a day's published object and compare it with its receipt."""
    name, path = "matches_its_receipt", paths.csv_path(contract, date)
    advice = f"materialize {contract.name}_csv for {date}"
    digest, size, lines = hashlib.sha256(), 0, 0
    try:
        chunks, stored = store.stream(path, advice)
        for chunk in read_ahead(chunks):
            digest.update(chunk)
            size += len(chunk)
            # Text is single-line by the row rules, so that lines are records.
            lines += chunk.count(b"\n")
        receipt = require_receipt(store, contract, date, digest.hexdigest())
    except (Missing, Altered) as difference:
        return Finding(name, passed=False, sentence=str(difference))
    facts = {"rows": max(lines - 1, 0), "bytes": size, "sha256": digest.hexdigest()}
    compared = {
        "rows": (facts["rows"], receipt.counts.published),
        "bytes": (size, receipt.csv.bytes),
        "URI": (store.uri(path), receipt.csv.uri),
        "SHA-256 in its metadata": (stored.sha256, facts["sha256"]),
        "Content-Type": (stored.content_type, csv_format.CONTENT_TYPE),
        "Content-Encoding": (stored.content_encoding, ""),
    }
    differences = [
        f"{store.uri(path)}: {what} is {actual or 'none'}, not {expected or 'none'}: {advice}."
        for what, (actual, expected) in compared.items()
        if actual != expected
    ]
    sentence = " ".join(differences) or "The object matches its receipt."
    facts["etag"] = stored.etag.strip('"')
    return Finding(name, passed=not differences, sentence=sentence, facts=facts)


def verify(store: Store, contract: Contract, date: str | None = None) -> Iterator[str]:
    """Prove a day again, or the last one; yield each proof; SnapshotError at a difference.

    The raw snapshot that the receipt names is decoded, audited and judged again. Everything else
    must be what that gives.
    """
    date = date or latest_day(store, contract)
    found = read_back(store, contract, date)
    if not found.passed:
        raise SnapshotError(found.sentence)
    sha256 = found.facts["sha256"]
    receipt = require_receipt(store, contract, date, sha256)
    yield f"{receipt.csv.uri}: {receipt.csv.bytes:,} bytes with the SHA-256 of its receipt"
    proof = _Proof(store, contract, receipt)
    frames, csv = proof.rebuild()
    counts = receipt.counts
    yield f"rebuilt from {receipt.raw.uri}, the CSV has the same SHA-256"
    yield (
        f"{counts.declared:,} declared = {counts.published:,} published"
        f" + {counts.rejected:,} rejected; rules and NULLs are as counted"
    )
    if receipt.parquet:
        proof.compare_parquet(frames)
        yield f"{receipt.parquet.uri} has the same rows"
    if receipt.parquet_copy and csv.parquet_copy:
        yield proof.compare_copy(receipt.parquet_copy, csv.parquet_copy)
    latest = read_latest(store, contract)
    if latest and latest[0].date == date and receipt.receipt_version > 1:
        yield proof.compare_data_package()


class _Proof:
    """A receipt compared with what it names."""

    def __init__(self, store: Store, contract: Contract, receipt: Receipt) -> None:
        self.store, self.contract, self.receipt = store, contract, receipt
        self.paths = paths.version_1_paths(contract, receipt.date)
        self.uri = store.uri(self.paths.receipt)
        self.again = f"materialize {contract.name}_csv for {receipt.date}"
        if receipt.receipt_version > 1:
            path = paths.receipt_path(contract, receipt.date, receipt.csv.sha256)
            self.uri = store.uri(path)

    def differs(self, problem: str) -> SnapshotError:
        """The error for a receipt that is not true."""
        return SnapshotError(f"{self.uri}: {problem}: {self.again}.")

    def download(
        self, what: str, uri: str, sha256: str, *allowed: str, advice: str = _RESTORE
    ) -> TempFile:
        """An object that the receipt names, at one of the paths that it may have."""
        path = next((path for path in allowed if self.store.uri(path) == uri), None)
        if path is None:
            raise self.differs(f"{what}.uri is not one of this bucket, prefix and day")
        file, _ = self.store.download(path, advice)
        if file.sha256 != sha256:
            raise self.differs(f"{uri} has another SHA-256 than {what}.sha256")
        return file

    def rebuild(self) -> tuple[UserFrames, AuditedCsv]:
        """Make the day again from its raw snapshot, and compare everything that this gives."""
        receipt, store, date = self.receipt, self.store, self.receipt.date
        if receipt.contract_version != self.contract.version:
            raise SnapshotError(
                f"{self.uri}: published under contract version {receipt.contract_version}, and"
                f" this code has version {self.contract.version}: verify it with the code of"
                f" version {receipt.code_version}."
            )
        raw = paths.raw_path(self.contract, date, receipt.raw.sha256), self.paths.raw
        file = self.download("raw", receipt.raw.uri, receipt.raw.sha256, *raw)
        frames = flatten(decode_raw(RawUsers(file, receipt.source, self.contract)))
        csv = audit_csv(frames, parquet_copy=receipt.parquet_copy is not None)
        judgement = judge(csv, Policy(receipt.max_rejected_ratio), History())
        if closed := describe_closed(judgement.findings):
            raise self.differs(f"the raw snapshot does not pass the gates ({closed})")
        rejects, proof = rejects_paths(csv, date), receipt.rejects
        passed = PassedCsv(csv, judgement)
        expected = describe(store, date, passed, rejects_path=rejects[0], run_id="")
        derived = {name: getattr(expected, name) for name in DERIVED}
        problems = [name for name, value in derived.items() if getattr(receipt, name) != value]
        if (proof.sha256, proof.bytes) != (csv.rejects.sha256, csv.rejects.size):
            problems.append("rejects")
        if problems:
            raise self.differs(f"{', '.join(problems)}: not what {receipt.raw.uri} gives")
        self.download("rejects", proof.uri, proof.sha256, *rejects, self.paths.rejects)
        return frames, csv

    def compare_parquet(self, frames: UserFrames) -> None:
        """Compare the rows, and the facts of the fetch, with those of the stored Parquet file."""
        parquet = self.receipt.parquet
        assert parquet is not None  # noqa: S101  # `verify` asks only if there is one
        path = paths.frames_path(self.contract, self.receipt.date, parquet.sha256)
        file = self.download("parquet", parquet.uri, parquet.sha256, path)
        stored = UserFrames(file, self.contract)
        if stored.facts != frames.facts:
            raise self.differs(f"source is not what {parquet.uri} says")
        for theirs, ours in zip_longest(stored.batches(), frames.batches()):
            if theirs != ours:
                raise self.differs(f"{parquet.uri} has other rows than {self.receipt.raw.uri}")

    def compare_copy(self, proof: ObjectProof, rebuilt: TempFile) -> str:
        """Compare the Parquet copy with one made again; what was proved.

        Another version of pyarrow may write the same rows as other bytes.
        """
        path = paths.parquet_copy_path(self.contract, self.receipt.date)
        what, uri = "parquet_copy", proof.uri
        file = self.download(what, uri, proof.sha256, path, advice=self.again)
        if file.size != proof.bytes:
            raise self.differs(f"{uri} has other bytes than {what}.bytes")
        if file.sha256 == rebuilt.sha256:
            return f"{uri} has the same bytes as one made again"
        ours = pq.ParquetFile(rebuilt.reader())
        try:
            theirs = pq.ParquetFile(file.reader())
            rows = zip_longest(theirs.iter_batches(BATCH_ROWS), ours.iter_batches(BATCH_ROWS))
            same = theirs.schema_arrow == ours.schema_arrow and all(a == b for a, b in rows)
        except pa.ArrowInvalid as error:
            raise self.differs(f"{uri} is not Parquet") from error
        if not same:
            raise self.differs(f"{uri} has other rows than {self.receipt.raw.uri}")
        writers = f"{theirs.metadata.created_by}, here {ours.metadata.created_by}"
        return f"{uri} has the same rows, though not the same bytes (written by {writers})"

    def compare_data_package(self) -> str:
        """Compare `datapackage.json`, which describes the last published day; what was proved."""
        path, body = paths.data_package_path(), describe_csv(self.contract, self.receipt)
        uri, now = self.store.uri(path), self.store.head(path)
        if now is None or not self.store.holds(path, now, body, CONTENT_TYPE):
            raise SnapshotError(f"{uri} does not describe {self.receipt.csv.uri}: {self.again}.")
        return f"{uri} describes it"
