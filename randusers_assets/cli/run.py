"""`randusers run` and `verify`: the real job, once, in this process; a publication proved again."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
from tqdm import tqdm

from randusers_assets.automation import require_partition
from randusers_assets.cli.instance import open_instance
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import defs, random_users_api, snapshot_store
from randusers_assets.errors import failure_message, gate_failed, root_cause
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.snapshot import Progress, log_every_tenth
from randusers_assets.pipeline.flatten.frames import RawUsers
from randusers_assets.pipeline.publish.receipt import latest_day
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


def run(
    date: str,
    rows: int,
    accept_change: str,
    report: dict[str, Any],
    show: Callable[[str], object],
) -> int:
    """Run the job for a day; report and show what it did, show so many of its rows, masked."""
    result = run_job(date, accept_change=accept_change)
    report |= describe(result)
    for line in summary(report):
        show(line)
    if not result.success:
        raise SnapshotError(why_failed(result))
    for line in masked_rows(date, rows) if rows else ():
        show(line)
    return 0


def verify_and_show(date: str | None, report: dict[str, Any], show: Callable[[str], object]) -> int:
    """Prove a day, by default the last published one, from the bucket alone."""
    report["date"] = date or latest_day(snapshot_store.store, CONTRACT)
    for proved in verify(snapshot_store.store, CONTRACT, report["date"]):
        report["proved"].append(proved)
        show(f"ok  {proved}")
    return 0


def run_job(
    date: str, *assets: str, job: str = "users_snapshot_job", accept_change: str = ""
) -> dg.ExecuteInProcessResult:
    """Run a job for a day on the configured instance (`DAGSTER_HOME`).

    All its assets are materialized, or only those that are named.
    """
    require_partition(date)
    gate = {"snapshot_gate": {"config": {"accept_change": accept_change}}}
    # Dagster takes no resource in place of another where only some assets are selected.
    api = _ShowingPages(**random_users_api.model_dump())
    with open_instance() as instance:
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=date,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            run_config={**_QUIET, "resources": gate},
            raise_on_error=False,
            resources={} if assets else {"random_users_api": api},
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


def describe(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What a run did: its outcome and checks; rows, bytes, digest, URI and seconds of assets."""
    checks = [
        {
            "asset": check.asset_key.to_user_string(),
            "check": check.check_name,
            "passed": check.passed,
            "severity": check.severity.value,
            "closed": gate_failed(check),
            "description": check.description,
        }
        for check in result.get_asset_check_evaluations()
    ]
    ends = [event for event in result.all_events if event.is_step_success]
    seconds = {e.step_key: e.step_success_data.duration_ms / 1000 for e in ends}
    outcome, assets = None, []
    for made in result.get_asset_materialization_events():
        asset = str(made.step_key)
        facts = {key: value.value for key, value in made.materialization.metadata.items()}
        assets.append(
            {
                "asset": asset,
                "rows": facts["dagster/row_count"],
                "bytes": facts["bytes"],
                "sha256": facts["sha256"],
                "uri": facts["dagster/uri"],
                "seconds": seconds.get(asset, 0),
            }
        )
        if asset == "users_csv" and result.success:
            outcome = facts["outcome"]
    return {"outcome": outcome, "success": result.success, "checks": checks, "assets": assets}


def summary(report: Mapping[str, Any]) -> Iterator[str]:
    """What a run did, line by line: checks, then rows, bytes, seconds and URI of each asset."""
    for check in report["checks"]:
        mark = "ok   " if check["passed"] else "FAIL " if check["closed"] else "warn "
        yield f"{mark} {check['asset']:<10} {check['check']:<24} {check['description']}"
    for made in report["assets"]:
        yield (
            f"{made['asset']:<10} {made['rows']:>9,} rows {made['bytes']:>13,} bytes"
            f" {made['seconds']:>7.2f} s  {made['uri']}"
        )
    if report["outcome"]:
        yield f"{report['outcome']} {report['date']}, sha256 {report['assets'][-1]['sha256']}"


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
