"""Publishing: the audited bytes, once and conditionally; then the receipt; then `latest`."""

import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import dagster as dg
import msgspec

from randusers_assets.contract import COLUMNS, CONTRACT_VERSION
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.rules import out_of_line
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.receipt import Latest, ObjectProof, Receipt
from randusers_assets.pipeline.storage.s3 import Conflict, SnapshotStore, Stored
from randusers_assets.pipeline.storage.tempfiles import Spool, read_ahead

CODE_VERSION = version("randusers-assets")


@dataclass(frozen=True)
class Publication:
    """What publishing did: a new object, or none because the same bytes are published already."""

    receipt: Receipt
    outcome: Literal["published", "unchanged"]


def history_problems(
    store: SnapshotStore, date: str, rows: int, nulls: dict[str, int]
) -> tuple[list[str], Receipt | None]:
    """How a snapshot breaks with the last one published before its day, and that one's receipt."""
    past = receipts.receipt_before(store, date)
    if past is None:
        return [], None
    past_nulls = {column.name: column.nulls for column in past.columns}
    return out_of_line(rows, nulls, past.counts.published, past_nulls), past


def accepted_before(store: SnapshotStore, date: str, raw_sha256: str) -> str:
    """Why a day's receipt let the same raw snapshot break with the history; empty if not."""
    before = receipts.read_receipt(store, date)
    return before[0].accepted_change if before and before[0].raw_sha256 == raw_sha256 else ""


def publish(store: SnapshotStore, date: str, csv: AuditedCsv, run_id: str) -> Publication:
    """Publish a day's audited CSV: the object, the rejects, the receipt, then `latest.json`.

    Each write is conditional on what was there before, so that of two runs one publishes and the
    other ends as `unchanged` or in a conflict; a run cut short is completed by the next.

    Raises:
        dagster.Failure: the history gate is closed, another run publishes the day, or S3 fails.
    """
    before = receipts.read_receipt(store, date)
    problems, past = history_problems(store, date, csv.counts.published, csv.nulls)
    accepted = csv.gate.accept_change
    if before and before[0].csv.sha256 == csv.sha256:
        accepted = accepted or before[0].accepted_change
    if problems and not accepted:
        raise dg.Failure(
            f"The gate is closed: against {past.date if past else ''} the snapshot of {date} has"
            f" {'; '.join(problems)}. If the change is right, run once with the run config"
            ' resources: {snapshot_gate: {config: {accept_change: "why"}}}. Nothing is published.',
            allow_retries=False,
        )
    proved = before[0] if before else None
    stored = _write_csv(store, date, csv, proved)
    rejects = _write_rejects(store, date, csv, proved)
    if before and _proves(before[0], csv, stored):
        _point_latest(store, date)
        return Publication(before[0], "unchanged")
    receipt = Receipt(
        date=date,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=csv.counts,
        columns=[
            receipts.ColumnProof(name=c.name, type=c.type, nulls=csv.nulls[c.name]) for c in COLUMNS
        ],
        csv=_proof(store, receipts.csv_path(date), csv.sha256, stored),
        rejects=_proof(store, receipts.rejects_path(date), rejects.sha256, rejects),
        raw_sha256=csv.facts.raw_sha256,
        source=csv.facts.fetch,
        rules=csv.rules,
        max_rejected_ratio=csv.gate.max_rejected_ratio,
        previous=past.date if past else None,
        accepted_change=accepted,
        run_id=run_id,
        code_version=CODE_VERSION,
        contract_version=CONTRACT_VERSION,
    )
    publication = _write_receipt(store, receipt, csv, stored)
    _point_latest(store, date)
    return publication


def _proof(store: SnapshotStore, path: str, sha256: str, stored: Stored) -> ObjectProof:
    return ObjectProof(
        uri=store.uri(path),
        sha256=sha256,
        bytes=stored.size,
        etag=stored.etag,
        version_id=stored.version_id,
    )


def _proves(receipt: Receipt, csv: AuditedCsv, stored: Stored) -> bool:
    """Whether a receipt already stands for these bytes and these rejects."""
    return (receipt.csv.sha256, receipt.csv.etag, receipt.rejects.sha256) == (
        csv.sha256,
        stored.etag,
        csv.rejects.sha256,
    )


def _is_intact(now: Stored, spool: Spool, sha256: str, proof: ObjectProof | None) -> bool:
    """Whether these bytes are stored already; a receipt that knows another ETag for them objects.

    The digest in the metadata alone would be believed of an object that someone else wrote over.
    """
    rewritten = proof is not None and proof.sha256 == sha256 and proof.etag != now.etag
    return (now.sha256, now.size) == (sha256, spool.size) and not rewritten


def _write_csv(store: SnapshotStore, date: str, csv: AuditedCsv, proved: Receipt | None) -> Stored:
    """Put the CSV in the place of the one that is there now, unless it is the same."""
    path = receipts.csv_path(date)
    now = store.head(path)
    if now is None or not _is_intact(now, csv.spool, csv.sha256, proved.csv if proved else None):
        try:
            return store.put(
                path, csv.spool, csv.sha256, content_type=csv_format.CONTENT_TYPE, replaces=now
            )
        except Conflict:
            return _csv_in_place(store, date, csv)
    return now


def _csv_in_place(store: SnapshotStore, date: str, csv: AuditedCsv) -> Stored:
    """What is stored as the day's CSV, as long as it is this one."""
    path = receipts.csv_path(date)
    now = store.head(path)
    if now is None or now.sha256 != csv.sha256:
        raise _overtaken(store, path, date)
    return now


def _write_rejects(
    store: SnapshotStore, date: str, csv: AuditedCsv, proved: Receipt | None
) -> Stored:
    """Put the rejects in the place of those that are there now, unless they are the same."""
    path, sha256 = receipts.rejects_path(date), csv.rejects.sha256
    for _ in range(receipts.SWAP_TRIES):
        now = store.head(path)
        # After the look at the rejects, so that a run that was overtaken cannot replace the
        # rejects of the run that overtook it.
        _csv_in_place(store, date, csv)
        if now and _is_intact(now, csv.rejects, sha256, proved.rejects if proved else None):
            return now
        with contextlib.suppress(Conflict):
            return store.put(
                path, csv.rejects, sha256, content_type=csv_format.CONTENT_TYPE, replaces=now
            )
    raise _busy(store, path)


def _overtaken(store: SnapshotStore, path: str, date: str) -> dg.Failure:
    return dg.Failure(
        f"{store.uri(path)}: another run published {date} with other bytes at the same time;"
        " that publication stands. Run again to replace it with this one's data.",
        allow_retries=False,
    )


def _write_receipt(
    store: SnapshotStore, receipt: Receipt, csv: AuditedCsv, stored: Stored
) -> Publication:
    """Swap the receipt in while the CSV that it proves is still the one that is there."""
    path = receipts.receipt_path(receipt.date)
    body = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
    for _ in range(receipts.SWAP_TRIES):
        before = receipts.read_receipt(store, receipt.date)
        _csv_in_place(store, receipt.date, csv)
        if before and _proves(before[0], csv, stored):
            return Publication(before[0], "unchanged")
        with contextlib.suppress(Conflict):
            _put_json(store, path, body, before[1] if before else None)
            break
    else:
        raise _busy(store, path)
    _csv_in_place(store, receipt.date, csv)
    return Publication(receipt, "published")


def _point_latest(store: SnapshotStore, date: str) -> None:
    """Move `latest.json` to a day, never back to an older one."""
    latest = Latest(
        date=date,
        csv=store.uri(receipts.csv_path(date)),
        receipt=store.uri(receipts.receipt_path(date)),
    )
    body = msgspec.json.encode(latest)
    for _ in range(receipts.SWAP_TRIES):
        before = receipts.read_latest(store)
        if before and (before[0].date > date or before[0] == latest):
            return
        with contextlib.suppress(Conflict):
            _put_json(store, receipts.LATEST_PATH, body, before[1] if before else None)
            return
    raise _busy(store, receipts.LATEST_PATH)


def _put_json(store: SnapshotStore, path: str, body: bytes, replaces: Stored | None) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    store.put(path, body, sha256, content_type=receipts.CONTENT_TYPE, replaces=replaces)


def _busy(store: SnapshotStore, path: str) -> dg.Failure:
    return dg.Failure(
        f"{store.uri(path)} was changed by other runs {receipts.SWAP_TRIES} times in a row:"
        " run again when they are done."
    )


def read_back(store: SnapshotStore, date: str) -> tuple[list[str], dict[str, Any]]:
    """Stream a day's published object and hold it against its receipt.

    Returns the differences, one sentence each, and what was found.
    """
    found = receipts.read_receipt(store, date)
    if found is None:
        return [
            f"{store.uri(receipts.receipt_path(date))} does not exist: {date} is not proved."
        ], {}
    receipt = found[0]
    advice = f"materialize users_csv for {date} again"
    chunks, stored = store.stream(receipts.csv_path(date), advice)
    digest, size, lines = hashlib.sha256(), 0, 0
    for chunk in read_ahead(chunks):
        digest.update(chunk)
        size += len(chunk)
        # Text is single-line by the row rules, so that lines are records.
        lines += chunk.count(b"\n")
    facts = {
        "rows": max(lines - 1, 0),
        "bytes": size,
        "sha256": digest.hexdigest(),
        "etag": stored.etag.strip('"'),
    }
    expected = {
        "rows": receipt.counts.published,
        "bytes": receipt.csv.bytes,
        "sha256": receipt.csv.sha256,
        "etag": receipt.csv.etag.strip('"'),
    }
    uri = store.uri(receipts.csv_path(date))
    return [
        f"{uri}: {name} is {facts[name]}, its receipt says {expected[name]}: {advice}."
        for name in expected
        if facts[name] != expected[name]
    ], facts
