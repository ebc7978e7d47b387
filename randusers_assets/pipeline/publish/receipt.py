"""The receipt: the object that proves one publication; `docs/receipt.md` explains it."""

from typing import Final, Literal, TypeVar

import dagster as dg
import msgspec

from randusers_assets.contract import Offender
from randusers_assets.pipeline.flatten.frames import FetchFacts
from randusers_assets.pipeline.storage.s3 import SnapshotStore, Stored

T = TypeVar("T")

RECEIPT_VERSION: Final = 1

CONTENT_TYPE = "application/json"

# Compare-and-swap rounds before a busy object is given up.
SWAP_TRIES = 20


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Users at each stage: declared = raw = flat + broken, and published + rejected = raw."""

    declared: int
    raw: int
    flat: int
    rejected: int
    published: int


class ObjectProof(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it was written."""

    uri: str
    sha256: str
    bytes: int
    etag: str
    version_id: str | None = None


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One rule over the whole snapshot: the users that break it, and the first of them, masked."""

    name: str
    users: int
    examples: list[Offender]


class ColumnProof(msgspec.Struct, frozen=True, kw_only=True):
    """A published column and its NULLs among the published rows."""

    name: str
    type: str
    nulls: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one publication."""

    receipt_version: Literal[1] = RECEIPT_VERSION
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


def csv_path(date: str) -> str:
    """Where a day's CSV is, below the prefix."""
    return f"users_csv/dt={date}/users.csv"


def receipt_path(date: str) -> str:
    """Where a day's receipt is, below the prefix."""
    return f"_receipts/users_csv/dt={date}.json"


def rejects_path(date: str) -> str:
    """Where the rows that a day set aside are, below the prefix."""
    return f"_rejects/users_csv/dt={date}.csv"


LATEST_PATH = "_receipts/users_csv/latest.json"


def read_receipt(store: SnapshotStore, date: str) -> tuple[Receipt, Stored] | None:
    """A day's receipt, or None if the day is not published.

    Raises:
        dagster.Failure: the object is not a receipt of this version.
    """
    return _read(store, receipt_path(date), Receipt)


def read_latest(store: SnapshotStore) -> tuple[Latest, Stored] | None:
    """The pointer to the last published day, or None if there is none.

    Raises:
        dagster.Failure: the object is not such a pointer.
    """
    return _read(store, LATEST_PATH, Latest)


def _read(store: SnapshotStore, path: str, kind: type[T]) -> tuple[T, Stored] | None:
    found = store.read(path)
    if found is None:
        return None
    body, stored = found
    try:
        return msgspec.json.decode(body, type=kind), stored
    except msgspec.DecodeError as error:
        raise dg.Failure(
            f"{store.uri(path)} is not a {kind.__name__.lower()} of version {RECEIPT_VERSION}"
            f" ({str(error).replace('`', '')}): restore the object, or move it away.",
            allow_retries=False,
        ) from error


def receipt_before(store: SnapshotStore, date: str) -> Receipt | None:
    """The last publication of a day before `date`, found from the bucket alone.

    Walks back from `latest.json` along each receipt's `previous`.
    """
    latest = read_latest(store)
    day = latest[0].date if latest else None
    while day is not None:
        found = read_receipt(store, day)
        if found is None:
            raise dg.Failure(
                f"{store.uri(receipt_path(day))} is missing though the receipts point to it:"
                " restore it, so that the history can be checked.",
                allow_retries=False,
            )
        if day < date:
            return found[0]
        day = found[0].previous
    return None
