"""Partitions, the job and the schedule."""

from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from randusers_assets.automation import daily, is_present, users_snapshot_schedule
from randusers_assets.definitions import defs
from randusers_assets.errors import RETRY_POLICY
from randusers_assets.settings import SETTINGS

SIX = datetime.fromisoformat("2026-11-23T06:00:00+00:00")


@pytest.mark.parametrize(
    ("now", "present"),
    [
        ("22T23:59:59", False),
        ("23T00:00:00", True),
        ("23T23:59:59", True),
        ("24T00:59:59", True),
        ("24T01:00:00", False),
    ],
)
def test_day_is_present_until_an_hour_after_it(now: str, *, present: bool) -> None:
    """A day may be fetched from its midnight until an hour after its end."""
    assert is_present("2026-11-23", datetime.fromisoformat(f"2026-11-{now}+00:00")) is present


def test_daily_partitions_include_the_current_day() -> None:
    """At six in the morning the day's own partition already exists."""
    keys = daily.get_partition_keys(current_time=SIX)
    assert (keys[0], keys[-1]) == ("2026-11-01", "2026-11-23")


def test_schedule_requests_the_partition_of_its_day() -> None:
    """Each tick, by default at six UTC, requests one run of its day, under a key of that day."""
    assert users_snapshot_schedule.cron_schedule == "0 6 * * *"
    assert users_snapshot_schedule.execution_timezone == "UTC"
    repository = defs.get_repository_def()
    context = dg.build_schedule_context(scheduled_execution_time=SIX, repository_def=repository)
    (run,) = users_snapshot_schedule.evaluate_tick(context).run_requests or []
    assert (run.run_key, run.partition_key) == ("2026-11-23", "2026-11-23")


@pytest.mark.parametrize("name", ["users_snapshot_job", "users_rebuild_job"])
def test_job_runs_the_assets_and_all_their_checks(name: str) -> None:
    """No gate is left out of a job."""
    job = defs.resolve_job_def(name)
    assert {node.name for node in job.nodes} == {
        *("raw_users", "raw_users_gates", "users_df", "users_df_gates"),
        *("users_csv", "users_csv_gates"),
    }


def test_runs_may_last_as_long_as_all_tries_of_a_fetch_and_rebuilds_less(home: Path) -> None:
    """Dagster ends no run that is within its deadlines, and notices a lost rebuild first."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        longest = instance.run_monitoring_max_runtime_seconds
        assert instance.run_monitoring_start_timeout_seconds == 600
        assert instance.run_retries_max_retries == 2
    tries = RETRY_POLICY.max_retries + 1
    assert longest > tries * int(SETTINGS["RANDUSERS_DEADLINE_SECONDS"].default)
    rebuild = defs.resolve_job_def("users_rebuild_job").tags[MAX_RUNTIME_SECONDS_TAG]
    assert 0 < int(rebuild) < longest
