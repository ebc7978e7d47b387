"""`randusers list` and `rebuild`: the published days, and days again from their raw snapshots."""

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from randusers_assets.automation import daily, is_present, require_partition
from randusers_assets.cli.run import run_job, why_failed
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import snapshot_store
from randusers_assets.errors import was_interrupted
from randusers_assets.pipeline.errors import Altered, SnapshotError
from randusers_assets.pipeline.publish.receipt import Receipt, read_published
from randusers_assets.pipeline.storage.s3 import PROBE
from randusers_assets.pipeline.storage.s3_errors import Denied


class Day(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A day as both commands show it: its publication, or why there is none to show."""

    date: str
    outcome: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    published_at: str = ""
    run_id: str = ""
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"FAIL  {self.date}  {self.error}"
        outcome = f"{self.outcome:<9}  " if self.outcome else ""
        return (
            f"{outcome}{self.date} {self.rows:>9,} rows {self.bytes:>13,} bytes"
            f"  sha256 {self.sha256[:12]}  {self.published_at}  run {self.run_id}"
        )


def list_days(report: dict[str, Any], show: Callable[[str], object]) -> int:
    """Show the published days, newest first; SnapshotError if the receipt of one cannot be read."""
    return _show(_published_days(), report, show)


def rebuild(first: str, last: str, report: dict[str, Any], show: Callable[[str], object]) -> int:
    """Publish each of the days again from its stored raw snapshot; SnapshotError if one fails."""
    for date in (first, last):
        require_partition(date)
    if first > last:
        raise SnapshotError(f"--from {first} is after --to {last}: exchange them.")
    dates = (date for date in daily.get_partition_keys() if first <= date <= last)
    return _show(map(_rebuild, dates), report, show)


def _published_days() -> Iterator[Day]:
    store, dates = snapshot_store.store, daily.get_partition_keys()[::-1]
    denied, none = list[Denied](), True
    for date, found in read_published(store, CONTRACT, dates):
        none = False
        match found:
            case Receipt():
                yield _day(found)
            case Altered():
                yield Day(date=date, error=str(found))
            case Denied():
                denied.append(found)
    if denied and not _may_read():
        raise denied[0]  # it is the same for each
    if none:
        print(f"No day since {dates[-1]} is published at {store.uri('')}.", file=sys.stderr)


def _may_read() -> bool:
    """Whether the object that each run writes can be read: then a 403 is a day without a CSV."""
    try:
        return snapshot_store.store.read(PROBE, "run again") is not None
    except Denied:
        return False


def _rebuild(date: str) -> Day:
    # The API would be asked again for a day that it still serves.
    assets = ("users_df", "users_csv") if is_present(date, datetime.now(UTC)) else ()
    try:
        result = run_job(date, *assets, job="users_rebuild_job")
    except SnapshotError as error:
        return Day(date=date, error=str(error))
    if was_interrupted(result):
        raise SnapshotError(why_failed(result))
    if not result.success:
        return Day(date=date, error=why_failed(result))
    (made,) = result.asset_materializations_for_node("users_csv")
    receipt = msgspec.convert(made.metadata["receipt"].value, Receipt)
    return _day(receipt, str(made.metadata["outcome"].value))


def _day(receipt: Receipt, outcome: str = "") -> Day:
    return Day(
        date=receipt.date,
        outcome=outcome,
        rows=receipt.counts.published,
        bytes=receipt.csv.bytes,
        sha256=receipt.csv.sha256,
        published_at=receipt.published_at,
        run_id=receipt.run_id,
    )


def _show(days: Iterable[Day], report: dict[str, Any], show: Callable[[str], object]) -> int:
    """Show each day as it comes; SnapshotError if one failed."""
    for day in days:
        show(str(day))
        report["days"].append(msgspec.to_builtins(day))
    failed = sum("error" in day for day in report["days"])
    if failed:
        raise SnapshotError(f"{failed} of {len(report['days'])} days failed.")
    return 0
