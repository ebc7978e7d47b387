"""The receipt: the object that proves one publication; docs/receipt.md explains it."""

from typing import Literal, TypeVar

import msgspec

from randusers_assets.pipeline.audit.gates import Counts, History, RuleResult
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import FetchFacts
from randusers_assets.pipeline.storage.paths import latest_path, receipt_path
from randusers_assets.pipeline.storage.s3 import Store, Stored

T = TypeVar("T")

CONTENT_TYPE = "application/json"


class ObjectProof(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it was written."""

    uri: str
    sha256: str
    bytes: int
    etag: str
    version_id: str | None = None


class ColumnProof(msgspec.Struct, frozen=True):
    """A published column and its NULLs among the published rows."""

    name: str
    type: str
    nulls: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one publication."""

    receipt_version: Literal[1] = 1
    date: str
    published_at: str
    counts: Counts
    columns: list[ColumnProof]
    csv: ObjectProof
    rejects: ObjectProof
    raw_sha256: str
    source: FetchFacts
    rules: list[RuleResult]
    max_rejected_ratio: float
    accepted_rejects: str = ""
    previous: str | None
    accepted_change: str
    run_id: str
    code_version: str
    contract_version: str


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """The pointer to the last published day."""

    date: str
    csv: str
    receipt: str


def read_receipt(store: Store, contract: Contract, date: str) -> tuple[Receipt, Stored] | None:
    """A day's receipt; None if the day is not published."""
    return _read(store, receipt_path(contract, date), Receipt)


def read_latest(store: Store, contract: Contract) -> tuple[Latest, Stored] | None:
    """The pointer to the last published day; None if there is none."""
    return _read(store, latest_path(contract), Latest)


def _read(store: Store, path: str, kind: type[T]) -> tuple[T, Stored] | None:
    found = store.read(path)
    try:
        return (msgspec.json.decode(found[0], type=kind), found[1]) if found else None
    except msgspec.DecodeError as error:
        raise SnapshotError(
            f"{store.uri(path)} is not a {kind.__name__.lower()} of version 1"
            f" ({str(error).replace('`', '')}): restore the object, or move it away."
        ) from error


def require_receipt(store: Store, contract: Contract, date: str | None) -> Receipt:
    """The receipt of a day, or of the last one; SnapshotError if it is not published."""
    if date is None and (latest := read_latest(store, contract)):
        date = latest[0].date
    found = read_receipt(store, contract, date) if date else None
    if found is None:
        raise not_published(store, contract, date)
    return found[0]


def not_published(store: Store, contract: Contract, date: str | None) -> SnapshotError:
    """The one sentence for a day, or all days, not being published."""
    uri = store.uri(receipt_path(contract, date) if date else latest_path(contract))
    missing = f"{date} is not published" if date else "no day is published"
    day = f" for {date}" if date else ""
    return SnapshotError(
        f"{uri} does not exist: {missing}; materialize {contract.name}_csv{day} first."
    )


def find_history(store: Store, contract: Contract, date: str, sha256: str) -> History:
    """What the gates need to know of the publications before a day.

    A change that was accepted for a CSV of the same `sha256` stays accepted.
    """
    own, latest = read_receipt(store, contract, date), read_latest(store, contract)
    accepted = own[0].accepted_change if own and own[0].csv.sha256 == sha256 else ""
    day = latest[0].date if latest else None
    while day is not None:
        found = read_receipt(store, contract, day)
        if found is None:
            raise SnapshotError(
                f"{store.uri(receipt_path(contract, day))} is missing though the receipts point to"
                " it: restore it, so that the history can be checked."
            )
        receipt = found[0]
        if day < date:
            nulls = {column.name: column.nulls for column in receipt.columns}
            return History(day, receipt.counts.published, nulls, accepted)
        day = receipt.previous
    return History(accepted_change=accepted)
