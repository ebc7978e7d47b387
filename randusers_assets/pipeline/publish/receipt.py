"""The receipt: the object that proves one publication; docs/receipt.md explains it."""

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal, TypeVar

import msgspec

from randusers_assets.pipeline.audit.gates import Counts, History, RuleResult
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Altered, SnapshotError
from randusers_assets.pipeline.flatten.frames import FetchFacts
from randusers_assets.pipeline.storage.paths import (
    csv_path,
    latest_path,
    receipt_path,
    version_1_paths,
)
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.s3_errors import Denied

T = TypeVar("T")

CONTENT_TYPE = "application/json"

HISTORY_DAYS = 35  # how far back the last published day is searched: a month and some holidays
HISTORY_REQUESTS = 8  # at once


class ObjectProof(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it was written."""

    uri: str
    sha256: str
    bytes: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """An object that the CSV was made from."""

    uri: str
    sha256: str


class ColumnProof(msgspec.Struct, frozen=True):
    """A published column and its NULLs among the published rows."""

    name: str
    type: str
    nulls: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one publication; `parquet` is None in one of version 1.

    `parquet_copy` is None where RANDUSERS_PUBLISH_PARQUET was off.
    """

    receipt_version: Literal[1, 2] = 2
    date: str
    published_at: str
    counts: Counts
    columns: list[ColumnProof]
    csv: ObjectProof
    rejects: ObjectProof
    parquet_copy: ObjectProof | None = None
    raw: Origin
    parquet: Origin | None = None
    source: FetchFacts
    rules: list[RuleResult]
    max_rejected_ratio: float
    accepted_rejects: str = ""
    compared_with: str | None
    accepted_change: str
    run_id: str
    code_version: str
    contract_version: str


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """The pointer to the last published day; `receipts` is where its receipt is."""

    date: str
    csv: str
    receipts: str = ""


_RESTORE = "restore it, or delete it and materialize the day's CSV"


def parse(store: Store, path: str, body: bytes, kind: type[T], advice: str = _RESTORE) -> T:
    """The value of a small JSON object; Altered, ending with `advice`, if it is not of the kind."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        problem = str(error).replace("`", "")
        raise Altered(f"{store.uri(path)} cannot be read ({problem}): {advice}.") from error


def read_receipt(store: Store, contract: Contract, date: str, csv_sha256: str) -> Receipt | None:
    """The receipt of a day's CSV with that digest, also one of version 1; None if there is none.

    Altered if it cannot be read, or is of another CSV.
    """
    path = receipt_path(contract, date, csv_sha256)
    found = store.read(path, _RESTORE)
    if found is None:
        return _read_version_1(store, contract, date, csv_sha256)
    receipt = parse(store, path, found[0], Receipt)
    claims = receipt.receipt_version, receipt.date, receipt.csv.sha256
    if claims != (2, date, csv_sha256) or receipt.parquet is None:
        raise Altered(f"{store.uri(path)} is the receipt of another CSV: {_RESTORE}.")
    return receipt


def _read_version_1(store: Store, contract: Contract, date: str, csv_sha256: str) -> Receipt | None:
    paths = version_1_paths(contract, date)
    found = store.read(paths.receipt, _RESTORE)
    if found is None:
        return None
    body = parse(store, paths.receipt, found[0], dict[str, Any])
    raw = {"uri": store.uri(paths.raw), "sha256": body.get("raw_sha256")}
    body |= {"raw": raw, "compared_with": body.get("previous")}
    receipt = parse(store, paths.receipt, msgspec.json.encode(body), Receipt)
    return receipt if receipt.csv.sha256 == csv_sha256 else None


def require_receipt(store: Store, contract: Contract, date: str, csv_sha256: str) -> Receipt:
    """The receipt of a day's CSV with that digest; Altered if there is none."""
    receipt = read_receipt(store, contract, date, csv_sha256)
    if receipt is None:
        raise Altered(
            f"{store.uri(csv_path(contract, date))} has no receipt:"
            f" {store.uri(receipt_path(contract, date, csv_sha256))} does not exist; materialize"
            f" {contract.name}_csv for {date}."
        )
    return receipt


def _receipt_of(store: Store, contract: Contract, date: str, csv: Stored) -> Receipt:
    if not csv.sha256:
        raise store.altered(csv_path(contract, date), _RESTORE)
    return require_receipt(store, contract, date, csv.sha256)


def read_latest(store: Store, contract: Contract) -> tuple[Latest, Stored] | None:
    """The pointer to the last published day; None if there is none."""
    path = latest_path(contract)
    found = store.read(path, _RESTORE)
    return (parse(store, path, found[0], Latest), found[1]) if found else None


def latest_day(store: Store, contract: Contract) -> str:
    """The last published day; SnapshotError if there is none."""
    latest = read_latest(store, contract)
    if latest is None:
        raise SnapshotError(
            f"{store.uri(latest_path(contract))} does not exist: no day is published; materialize"
            f" {contract.name}_csv first."
        )
    return latest[0].date


def find_history(store: Store, contract: Contract, date: str, csv_sha256: str) -> History:
    """The nearest day of the `HISTORY_DAYS` before that is published, as the gates need it.

    A change that was accepted for a CSV of the same digest stays accepted.
    """
    store.check_access()
    accepted = ""
    # A receipt of its own that cannot be read is written again.
    with contextlib.suppress(Altered):
        own = read_receipt(store, contract, date, csv_sha256)
        accepted = own.accepted_change if own else ""
    day = datetime.date.fromisoformat(date)
    days = [(day - timedelta(days=ago)).isoformat() for ago in range(1, HISTORY_DAYS + 1)]
    for before, csv in find_published(store, contract, days):
        try:
            receipt = _receipt_of(store, contract, before, csv)
        except Altered as error:
            raise SnapshotError(f"{date} cannot be compared with {before}: {error}") from error
        nulls = {column.name: column.nulls for column in receipt.columns}
        return History(before, receipt.counts.published, nulls, accepted)
    return History(accepted_change=accepted)


def find_published(
    store: Store, contract: Contract, dates: Sequence[str]
) -> Iterator[tuple[str, Stored]]:
    """Yield each of the days that has a CSV, in the order given; the first is asked for alone."""

    def csv(date: str) -> Stored | None:
        return store.head(csv_path(contract, date))

    with ThreadPoolExecutor(HISTORY_REQUESTS) as pool:
        # Most often the first is there.
        for some in (dates[:1], dates[1:]):
            for date, found in zip(some, pool.map(csv, some), strict=True):
                if found:
                    yield date, found


def read_published(
    store: Store, contract: Contract, dates: Sequence[str]
) -> Iterator[tuple[str, Receipt | Altered | Denied]]:
    """Yield each of the days that is published, with its receipt, or why that cannot be read.

    Denied is also what a day gives that may not be published.
    """

    def read(date: str) -> Receipt | Altered | Denied | None:
        try:
            csv = store.head(csv_path(contract, date))
            return _receipt_of(store, contract, date, csv) if csv else None
        except (Altered, Denied) as error:
            return error

    with ThreadPoolExecutor(HISTORY_REQUESTS) as pool:
        for date, found in zip(dates, pool.map(read, dates), strict=True):
            if found:
                yield date, found


def last_published(store: Store, contract: Contract, date: str) -> str:
    """The last day that is published, of a day that is and of those after it."""
    day, today = datetime.date.fromisoformat(date), datetime.datetime.now(datetime.UTC).date()
    later = [(today - timedelta(days=ago)).isoformat() for ago in range((today - day).days)]
    return next((last for last, _ in find_published(store, contract, later)), date)
