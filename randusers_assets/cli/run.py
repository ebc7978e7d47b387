"""`randusers run`: the real job, once, in this process, and what there is to say of it."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from tqdm import tqdm

from randusers_assets.automation import daily
from randusers_assets.contract import COLUMNS, mask
from randusers_assets.definitions import defs, snapshot_store
from randusers_assets.errors import closed, root_cause, sentence
from randusers_assets.io_managers import load_frames

# Dagster's own log goes to the instance, and the terminal gets the summary.
_AT_A_TERMINAL = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Outcome:
    """A run as it ended; `sentence` says why where it did not publish."""

    date: str
    success: bool
    sentence: str
    checks: list[dg.AssetCheckEvaluation]
    materializations: list[dg.AssetMaterialization]
    seconds: dict[str, float]


def run_snapshot(date: str) -> Outcome:
    """Run `users_snapshot_job` for a day on the configured instance (`DAGSTER_HOME`).

    Raises:
        dagster.Failure: the day is not a partition.
    """
    if not daily.has_partition_key(date):
        raise dg.Failure(
            f"{date} is no partition: they run from {daily.get_first_partition_key()} to"
            f" {daily.get_last_partition_key()} (RANDUSERS_START_DATE)."
        )
    job = defs.resolve_job_def("users_snapshot_job")
    with _instance() as instance, _pages_shown():
        result = job.execute_in_process(
            instance=instance, partition_key=date, run_config=_AT_A_TERMINAL, raise_on_error=False
        )
        steps = instance.get_run_step_stats(result.run_id)
        checks = result.get_asset_check_evaluations()
        sentences = [c.description or c.check_name for c in checks if closed(c)]
        sentences += [
            sentence(root_cause(event.step_failure_data.error))
            for event in result.all_events
            if event.is_step_failure and event.step_failure_data.error
        ]
        return Outcome(
            date,
            result.success,
            next(iter(sentences), ""),
            list(checks),
            [event.materialization for event in result.get_asset_materialization_events()],
            {s.step_key: s.end_time - s.start_time for s in steps if s.end_time and s.start_time},
        )


@contextlib.contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    in_use = dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else None
    with in_use or dg.DagsterInstance.ephemeral() as instance:
        yield instance


class _Pages(logging.Handler):
    """Shows the API client's pages: a bar on a terminal, else a line each tenth."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.bar = tqdm(unit="page", disable=not sys.stderr.isatty(), leave=False)

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (int(page), int(pages)) if not self.bar.disable:
                self.bar.total = pages
                self.bar.update(page - self.bar.n)
            case (int(page), int(pages)) if page * 10 // pages > (page - 1) * 10 // pages:
                print(record.getMessage(), file=sys.stderr)


@contextlib.contextmanager
def _pages_shown() -> Iterator[None]:
    log, handler = logging.getLogger("randusers_assets.resources"), _Pages()
    level, propagate = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
        handler.bar.close()


def summary(outcome: Outcome) -> Iterator[str]:
    """What a run did, line by line: checks, then rows, bytes, seconds and URI of each asset."""
    for check in outcome.checks:
        mark = "ok   " if check.passed else "FAIL " if closed(check) else "warn "
        yield f"{mark} {check.check_name:<34} {check.description}"
    for made in outcome.materializations:
        asset = made.asset_key.to_user_string()
        told = {key: value.value for key, value in made.metadata.items()}
        yield (
            f"{asset:<10} {told['dagster/row_count']:>9,} rows {told['bytes']:>13,} bytes"
            f" {outcome.seconds.get(asset, 0):>7.2f} s  {told['dagster/uri']}"
        )
    published = [made for made in outcome.materializations if made.asset_key.path == ["users_csv"]]
    if outcome.success and published:
        told = {key: value.value for key, value in published[0].metadata.items()}
        yield f"{told['outcome']} {outcome.date}, sha256 {told['sha256']}"


def masked_rows(date: str, rows: int) -> Iterator[str]:
    """The header and the first rows of a day's snapshot as CSV, personal values masked."""
    yield ",".join(f'"{column.name}"' for column in COLUMNS)
    batch = next(load_frames(snapshot_store, date).batches()).slice(0, rows)
    for row in batch.to_pylist():
        yield ",".join(
            str(row[column.name])
            if column.type == "integer" and not column.personal
            else f'"{mask(column, row[column.name])}"'
            for column in COLUMNS
        )
