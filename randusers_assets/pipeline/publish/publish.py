"""Publishing: the receipt, then the audited bytes in one conditional write, then what follows."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import msgspec

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.gates import Judgement
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Altered, Conflict, SnapshotError
from randusers_assets.pipeline.flatten.frames import PARQUET_TYPE
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.data_package import describe_csv
from randusers_assets.pipeline.publish.receipt import (
    ColumnProof,
    Latest,
    ObjectProof,
    Origin,
    Receipt,
)
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Replacement, Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile

Outcome = Literal["published", "unchanged"]

UNTOUCHED = "the CSV that is published and its receipt stay as they were"

CODE_VERSION = version("randusers-assets")


@dataclass(frozen=True)
class Publication:
    """What publishing did: a new object, or none because the same bytes are published already."""

    receipt: Receipt
    stored: Stored
    outcome: Outcome


@dataclass(frozen=True, eq=False)
class PassedCsv:
    """A CSV and the judgement that let it pass."""

    csv: AuditedCsv
    judgement: Judgement


def publish(store: Store, date: str, passed: PassedCsv, run_id: str) -> Publication:
    """Publish a day's CSV: first its proof, then the CSV, then what follows it.

    Rejects and receipt are under keys that name the CSV's digest, so they change nothing for
    readers. The one conditional write of the CSV is the commit: of two runs one publishes, and
    the other ends as `unchanged` or in a SnapshotError. The next run completes an interrupted one.
    """
    passed.judgement.enforce()
    contract = passed.csv.contract
    store.check_access()
    rejects = _keep_rejects(store, date, passed.csv)
    receipt = describe(store, date, passed, rejects, run_id)
    receipt = _keep_receipt(store, contract, receipt)
    stored, outcome = _commit(store, date, passed.csv)
    try:
        _write_followers(store, passed.csv, receipt)
    except SnapshotError as error:
        raise SnapshotError(
            f"{date} is published with its receipt, but an object that follows it is not written:"
            f" {error}",
            retryable=error.retryable,
        ) from error
    return Publication(receipt, stored, outcome)


def describe(store: Store, date: str, passed: PassedCsv, rejects_path: str, run_id: str) -> Receipt:
    """The receipt of a CSV: what is known of it before it is written."""
    csv, contract, policy = passed.csv, passed.csv.contract, passed.judgement.policy
    raw, frames = csv.facts.raw_sha256, csv.frames_sha256
    return Receipt(
        date=date,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=passed.judgement.counts,
        columns=[
            # An email is text to whoever reads the CSV.
            ColumnProof(c.name, "text" if c.type == "email" else c.type, csv.nulls[c.name])
            for c in contract.columns
        ],
        csv=_proof(store, paths.csv_path(contract, date), csv.file),
        rejects=_proof(store, rejects_path, csv.rejects),
        parquet_copy=_proof(store, paths.parquet_copy_path(contract, date), csv.parquet_copy)
        if csv.parquet_copy
        else None,
        raw=Origin(uri=store.uri(paths.raw_path(contract, date, raw)), sha256=raw),
        parquet=Origin(uri=store.uri(paths.frames_path(contract, date, frames)), sha256=frames),
        source=csv.facts.fetch,
        rules=list(passed.judgement.rules),
        max_rejected_ratio=policy.max_rejected_ratio,
        accepted_rejects=policy.accept_rejects,
        compared_with=passed.judgement.compared_with,
        accepted_change=passed.judgement.accepted_change,
        run_id=run_id,
        code_version=CODE_VERSION,
        contract_version=contract.version,
    )


def _proof(store: Store, path: str, file: TempFile) -> ObjectProof:
    return ObjectProof(uri=store.uri(path), sha256=file.sha256, bytes=file.size)


def rejects_paths(csv: AuditedCsv, date: str) -> tuple[str, str]:
    """Where a CSV's rejects are, and where if the same CSV was published with other rejects."""
    names = csv.file.sha256, f"{csv.file.sha256}-{csv.rejects.sha256}"
    first, second = (paths.rejects_path(csv.contract, date, name) for name in names)
    return first, second


def _keep_rejects(store: Store, date: str, csv: AuditedCsv) -> str:
    """Store the rejects beside those that another receipt may name; their path."""
    first, second = rejects_paths(csv, date)
    with contextlib.suppress(Conflict):
        store.put(first, csv.rejects, content_type=csv_format.CONTENT_TYPE, replaces=None)
        return first
    now = store.head(first)
    path = first if now and now.sha256 == csv.rejects.sha256 else second
    store.keep(path, csv.rejects, content_type=csv_format.CONTENT_TYPE)
    return path


def _keep_receipt(store: Store, contract: Contract, receipt: Receipt) -> Receipt:
    """Store a receipt, or return the stored one if it proves the same."""
    path = paths.receipt_path(contract, receipt.date, receipt.csv.sha256)
    kept = receipt

    def decide() -> Stored | Replacement:
        nonlocal kept
        now, kept = store.head(path), receipt
        # One that cannot be read is written again.
        with contextlib.suppress(Altered):
            found = receipts.read_receipt(store, contract, receipt.date, receipt.csv.sha256)
            if found and _as_of(found, receipt) == receipt:
                kept = found
        body = msgspec.json.format(msgspec.json.encode(kept), indent=2)
        same = now and store.holds(path, now, body, receipts.CONTENT_TYPE)
        return now if now and same else Replacement(now, body)

    store.swap(path, decide, content_type=receipts.CONTENT_TYPE)
    return kept


def _as_of(receipt: Receipt, other: Receipt) -> Receipt:
    """A receipt as if it had been written in the run of another one."""
    return msgspec.structs.replace(receipt, published_at=other.published_at, run_id=other.run_id)


def _commit(store: Store, date: str, csv: AuditedCsv) -> tuple[Stored, Outcome]:
    """Replace the CSV that is there now, unless it is the same."""
    path = paths.csv_path(csv.contract, date)
    now = store.head(path)
    if now and store.holds(path, now, csv.file, csv_format.CONTENT_TYPE):
        return now, "unchanged"
    try:
        stored = store.put(path, csv.file, content_type=csv_format.CONTENT_TYPE, replaces=now)
    except SnapshotError as error:
        if not (error.retryable or isinstance(error, Conflict)):
            raise
        # Another run was faster, or this write succeeded and its answer was lost.
        now = store.head(path)
        if now and now.sha256 == csv.file.sha256:
            return now, "unchanged"
        if not isinstance(error, Conflict):
            raise
        raise SnapshotError(
            f"{store.uri(path)}: another run published {date} with other bytes at the same time,"
            " and that publication stays. Run again to replace it with this data."
        ) from error
    return stored, "published"


def _write_followers(store: Store, csv: AuditedCsv, receipt: Receipt) -> None:
    """Write the Parquet copy, `latest.json` and `datapackage.json`, in this order."""
    contract, date = csv.contract, receipt.date

    def is_published() -> bool:
        now = store.head(paths.csv_path(contract, date))
        return now is not None and now.sha256 == csv.file.sha256

    def is_latest() -> bool:
        return is_published() and receipts.latest_day(store, contract) == date

    if csv.parquet_copy:
        path = paths.parquet_copy_path(contract, date)
        _follow(store, path, csv.parquet_copy, PARQUET_TYPE, is_published)
    _point_latest(store, contract, date)
    package = describe_csv(contract, receipt)
    _follow(store, paths.data_package_path(), package, receipts.CONTENT_TYPE, is_latest)


def _follow(
    store: Store, path: str, body: TempFile | bytes, kind: str, belongs: Callable[[], bool]
) -> None:
    """Write an object while it belongs to what is published; else another run writes it.

    What is stored is looked at first. A run that publishes after that writes its own object, so the
    conditional write of this one fails, and it looks again.
    """

    def decide() -> Stored | Replacement | None:
        now = store.head(path)
        if not belongs() or (now and store.holds(path, now, body, kind)):
            return now
        return Replacement(now, body)

    store.swap(path, decide, content_type=kind)


def _point_latest(store: Store, contract: Contract, date: str) -> None:
    """Move `latest.json` to this day, never back from a later one."""
    path = paths.latest_path(contract)

    def pointer(day: str) -> Latest:
        csv, folder = paths.csv_path(contract, day), paths.receipts_path(contract, day)
        return Latest(date=day, csv=store.uri(csv), receipts=store.uri(folder))

    def decide() -> Stored | Replacement:
        now, latest = store.head(path), None
        with contextlib.suppress(Altered):
            found = receipts.read_latest(store, contract)
            latest = found[0] if found else None
        # Without a pointer that can be read, a later day may be published all the same.
        day = max(date, latest.date) if latest else receipts.last_published(store, contract, date)
        if now and latest == pointer(day):
            return now
        return Replacement(now, msgspec.json.encode(pointer(day)))

    store.swap(path, decide, content_type=receipts.CONTENT_TYPE)


def describe_interruption(store: Store, date: str, csv: AuditedCsv) -> str:
    """What is true of the bucket after publishing was interrupted, in one sentence."""
    path = paths.csv_path(csv.contract, date)
    try:
        now = store.head(path)
    except SnapshotError as error:
        return (
            f"The run was interrupted, and whether {date} is published cannot be seen: {error}"
            f" Then see `randusers verify --date {date}`."
        )
    if now and now.sha256 == csv.file.sha256:
        return (
            f"The run was interrupted after {date} was published with its receipt: run again to"
            " write what follows it, up to datapackage.json."
        )
    return f"The run was interrupted before it published {date}: {UNTOUCHED}."
