"""Publishing: the audited bytes, once and conditionally; then the receipt; then `latest.json`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import msgspec

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.gates import Judgement
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Conflict, SnapshotError
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.receipt import ColumnProof, Latest, ObjectProof, Receipt
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Replacement, Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile

CODE_VERSION = version("randusers-assets")


@dataclass(frozen=True)
class Publication:
    """What publishing did: a new object, or none because the same bytes are published already."""

    receipt: Receipt
    outcome: Literal["published", "unchanged"]


@dataclass(frozen=True, eq=False)
class PassedCsv:
    """A CSV and the judgement that let it pass."""

    csv: AuditedCsv
    judgement: Judgement


def publish(store: Store, date: str, passed: PassedCsv, run_id: str) -> Publication:
    """Publish a day's CSV: the object, the rejects, the receipt, then `latest.json`.

    Each write is conditional on what was there before, so that of two runs one publishes and the
    other ends as `unchanged` or in a SnapshotError; the next run completes an interrupted one.
    """
    passed.judgement.enforce()
    csv, contract = passed.csv, passed.csv.contract
    before = receipts.read_receipt(store, contract, date)
    csv_proof, rejects_proof = (before[0].csv, before[0].rejects) if before else (None, None)
    stored = _write_csv(store, date, csv, csv_proof)
    rejects = _write_rejects(store, date, csv, rejects_proof)
    receipt = Receipt(
        date=date,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=passed.judgement.counts,
        columns=[
            # An email is text to whoever reads the CSV.
            ColumnProof(c.name, "text" if c.type == "email" else c.type, csv.nulls[c.name])
            for c in contract.columns
        ],
        csv=_proof(store, paths.csv_path(contract, date), stored),
        rejects=_proof(store, paths.rejects_path(contract, date), rejects),
        raw_sha256=csv.facts.raw_sha256,
        source=csv.facts.fetch,
        rules=list(passed.judgement.rules),
        max_rejected_ratio=passed.judgement.policy.max_rejected_ratio,
        accepted_rejects=passed.judgement.policy.accept_rejects,
        previous=passed.judgement.compared_with,
        accepted_change=passed.judgement.accepted_change,
        run_id=run_id,
        code_version=CODE_VERSION,
        contract_version=contract.version,
    )
    publication = _write_receipt(store, csv, receipt, before)
    _point_latest(store, contract, receipt)
    return publication


def _proof(store: Store, path: str, of: Stored) -> ObjectProof:
    return ObjectProof(
        uri=store.uri(path), sha256=of.sha256, bytes=of.size, etag=of.etag, version_id=of.version_id
    )


def _write_csv(store: Store, date: str, csv: AuditedCsv, proof: ObjectProof | None) -> Stored:
    """Replace the CSV that is there now, unless it is the same."""
    path = paths.csv_path(csv.contract, date)
    now = store.head(path)
    if now and _is_intact(now, csv.file, proof):
        return now
    try:
        return store.put(path, csv.file, content_type=csv_format.CONTENT_TYPE, replaces=now)
    except Conflict:
        return _require_csv(store, date, csv)


def _require_csv(store: Store, date: str, csv: AuditedCsv) -> Stored:
    """What is stored as the day's CSV, as long as it is this one."""
    path = paths.csv_path(csv.contract, date)
    now = store.head(path)
    if now is None or now.sha256 != csv.file.sha256:
        raise SnapshotError(
            f"{store.uri(path)}: another run published {date} with other bytes at the same time,"
            " and that publication stays. Run again to replace it with this data."
        )
    return now


def _write_rejects(store: Store, date: str, csv: AuditedCsv, proof: ObjectProof | None) -> Stored:
    """Replace the rejects that are there now, unless they are the same."""
    path = paths.rejects_path(csv.contract, date)

    def decide() -> Stored | Replacement:
        now = store.head(path)
        # After the look at the rejects, so that a run that lost the race for the CSV cannot
        # replace the rejects of the run that won it.
        _require_csv(store, date, csv)
        if now and _is_intact(now, csv.rejects, proof):
            return now
        return Replacement(now, csv.rejects)

    return store.swap(path, decide, content_type=csv_format.CONTENT_TYPE)


def _write_receipt(
    store: Store, csv: AuditedCsv, receipt: Receipt, before: tuple[Receipt, Stored] | None
) -> Publication:
    """Replace the receipt, `before` at first, while the CSV that it proves is still there."""
    publication = Publication(receipt, "published")

    def digests(of: Receipt) -> tuple[str, str, str]:
        return of.csv.sha256, of.csv.etag, of.rejects.sha256

    def decide() -> Stored | Replacement:
        nonlocal before, publication
        # Read again at every later try.
        now, before = before or receipts.read_receipt(store, csv.contract, receipt.date), None
        if now and digests(now[0]) == digests(receipt):
            publication = Publication(now[0], "unchanged")
            return now[1]
        _require_csv(store, receipt.date, csv)
        body = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
        return Replacement(now[1] if now else None, body)

    path = paths.receipt_path(csv.contract, receipt.date)
    store.swap(path, decide, content_type=receipts.CONTENT_TYPE)
    if publication.outcome == "published":
        _require_csv(store, receipt.date, csv)
    return publication


def _point_latest(store: Store, contract: Contract, receipt: Receipt) -> None:
    """Move `latest.json` to this day, never back from a later one."""
    uri = store.uri(paths.receipt_path(contract, receipt.date))
    latest = Latest(date=receipt.date, csv=receipt.csv.uri, receipt=uri)

    def decide() -> Stored | Replacement:
        before = receipts.read_latest(store, contract)
        if before and (before[0].date > latest.date or before[0] == latest):
            return before[1]
        return Replacement(before[1] if before else None, msgspec.json.encode(latest))

    store.swap(paths.latest_path(contract), decide, content_type=receipts.CONTENT_TYPE)


def _is_intact(now: Stored, file: TempFile, proof: ObjectProof | None) -> bool:
    """Whether these bytes are stored and unmodified since the receipt (same ETag).

    The digest in the metadata alone would also match an object that someone else overwrote.
    """
    rewritten = proof is not None and proof.sha256 == file.sha256 and proof.etag != now.etag
    return (now.sha256, now.size) == (file.sha256, file.size) and not rewritten
