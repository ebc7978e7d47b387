"""Partitions, the job and the schedule."""

from datetime import datetime

import dagster as dg
import pytest

from randusers_assets.automation import daily, is_present, users_snapshot_schedule
from randusers_assets.definitions import defs

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


def test_job_runs_the_assets_and_all_their_checks() -> None:
    """No gate is left out of the job."""
    job = defs.resolve_job_def("users_snapshot_job")
    assert {node.name for node in job.nodes} == {
        *("raw_users", "raw_users_gates", "users_df", "users_df_gates"),
        *("users_csv", "users_csv_gates"),
    }
