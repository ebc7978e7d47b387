"""`randusers run` and `verify`: the real job, once, in this process; a publication proved again."""

import sys
from collections.abc import Iterator

import dagster as dg
from tqdm import tqdm

from randusers_assets.automation import daily
from randusers_assets.cli.instance import open_instance
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import defs, random_users_api, snapshot_store
from randusers_assets.errors import failure_message, gate_failed, root_cause
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.snapshot import Progress, log_every_tenth
from randusers_assets.pipeline.flatten.frames import RawUsers
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.resources import RandomUsersApi

# Dagster's own log goes to the instance, and the terminal gets the summary.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class _ShowingPages(RandomUsersApi):
    """The API with a progress bar on a terminal, and a line for every tenth elsewhere."""

    def fetch(self, run: SnapshotRun, progress: Progress) -> RawUsers:
        lines = log_every_tenth(lambda text, *n: print(text % n, file=sys.stderr))
        with tqdm(unit="page", disable=not sys.stderr.isatty(), leave=False) as bar:

            def show(page: int, pages: int) -> None:
                progress(page, pages)
                if bar.disable:
                    lines(page, pages)
                bar.total = pages
                bar.update(page - bar.n)

            return super().fetch(run, show)


def run(date: str, rows: int) -> int:
    """Run the job for a day, and print what it did and so many of its rows, masked."""
    result = run_job(date)
    for line in summary(result):
        print(line)
    if not result.success:
        raise SnapshotError(why_failed(result))
    for line in masked_rows(date, rows) if rows else ():
        print(line)
    return 0


def verify_and_print(date: str | None) -> int:
    """Prove a day, by default the last published one, from the bucket alone."""
    for proved in verify(snapshot_store.store, CONTRACT, date):
        print(f"ok  {proved}")
    return 0


def run_job(date: str) -> dg.ExecuteInProcessResult:
    """Run `users_snapshot_job` for a day on the configured instance (`DAGSTER_HOME`)."""
    if not daily.has_partition_key(date):
        raise SnapshotError(
            f"{date} is no partition: they run from {daily.get_first_partition_key()} to"
            f" {daily.get_last_partition_key()} (RANDUSERS_START_DATE)."
        )
    with open_instance() as instance:
        return defs.resolve_job_def("users_snapshot_job").execute_in_process(
            instance=instance,
            partition_key=date,
            run_config=_QUIET,
            raise_on_error=False,
            resources={"random_users_api": _ShowingPages(**random_users_api.model_dump())},
        )


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    """The sentence of a failed run: its first closed gate, its first failed step, or its own."""
    for check in result.get_asset_check_evaluations():
        if gate_failed(check):
            return check.description or check.check_name
    errors = (e.step_failure_data.error for e in result.all_events if e.is_step_failure)
    if step_error := next(filter(None, errors), None):
        return failure_message(root_cause(step_error))
    own = (e.job_failure_data.error for e in result.all_events if e.is_run_failure)
    run_error = next(filter(None, own), None)
    # The other lines of SQLAlchemy's message hold the statement and its values.
    why = root_cause(run_error).message.partition("\n")[0] if run_error else "no event says why"
    return (
        f"The run failed outside of its steps ({why}): see whether DAGSTER_HOME is writable and"
        " whether `ulimit -n` allows more open files, and run again."
    )


def summary(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What a run did, line by line: checks, then rows, bytes, seconds and URI of each asset."""
    for check in result.get_asset_check_evaluations():
        mark = "ok   " if check.passed else "FAIL " if gate_failed(check) else "warn "
        asset = check.asset_key.to_user_string()
        yield f"{mark} {asset:<10} {check.check_name:<24} {check.description}"
    ends = [event for event in result.all_events if event.is_step_success]
    seconds = {e.step_key: e.step_success_data.duration_ms / 1000 for e in ends}
    for made in result.get_asset_materialization_events():
        asset = str(made.step_key)
        facts = {key: value.value for key, value in made.materialization.metadata.items()}
        yield (
            f"{asset:<10} {facts['dagster/row_count']:>9,} rows {facts['bytes']:>13,} bytes"
            f" {seconds.get(asset, 0):>7.2f} s  {facts['dagster/uri']}"
        )
        if asset == "users_csv" and result.success:
            yield f"{facts['outcome']} {made.partition}, sha256 {facts['sha256']}"


def masked_rows(date: str, rows: int) -> Iterator[str]:
    """The header and the first rows of a day's snapshot as CSV, personal values masked."""
    yield ",".join(f'"{name}"' for name in CONTRACT.by_name)
    batch = next(snapshot_store.run.load_frames(date).batches()).slice(0, rows)
    for row in batch.to_pylist():
        yield ",".join(
            f'"{column.mask(row[column.name])}"'
            if column.is_text or column.personal
            else str(row[column.name])
            for column in CONTRACT.columns
        )
