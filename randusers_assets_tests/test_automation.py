"""Partitions, the job and the schedule."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from randusers_assets.automation import daily, require_present, users_snapshot_schedule
from randusers_assets.definitions import defs


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "now", ["2026-11-23T00:00:00", "2026-11-23T23:59:59", "2026-11-24T00:59:59"]
)
def test_require_present_lets_the_running_day_and_an_hour_of_grace_pass(now: str) -> None:
    """A day may be fetched from its midnight until an hour after its end."""
    require_present("2026-11-23", _at(now))


@pytest.mark.parametrize("now", ["2026-11-22T23:59:59", "2026-11-24T01:00:00"])
def test_require_present_refuses_another_day(now: str) -> None:
    """The API has only a present, and the sentence says what can be done instead."""
    with pytest.raises(dg.Failure) as raised:
        require_present("2026-11-23", _at(now))
    assert raised.value.description == (
        "raw_users of 2026-11-23 cannot be fetched: the API has only a present. Rebuild users_df"
        " and users_csv from the stored raw snapshot, or materialize today's partition."
    )
    assert raised.value.allow_retries is False


def test_daily_partitions_hold_the_day_that_is_running() -> None:
    """At six in the morning the day's own partition is there already."""
    keys = daily.get_partition_keys(current_time=_at("2026-11-23T06:00:00"))
    assert (keys[0], keys[-1]) == ("2026-11-01", "2026-11-23")


def test_schedule_tick_requests_the_partition_of_its_day() -> None:
    """A tick asks for one run of the day that it is in, named so that it is asked for once."""
    context = dg.build_schedule_context(
        scheduled_execution_time=_at("2026-11-23T06:00:00"),
        repository_def=defs.get_repository_def(),
    )
    tick = users_snapshot_schedule.evaluate_tick(context)
    assert [(run.run_key, run.partition_key) for run in tick.run_requests or []] == [
        ("2026-11-23", "2026-11-23")
    ]


def test_schedule_ticks_at_six_utc_by_default() -> None:
    """The default of RANDUSERS_CRON, in UTC."""
    assert users_snapshot_schedule.cron_schedule == "0 6 * * *"
    assert users_snapshot_schedule.execution_timezone == "UTC"


def test_job_holds_the_assets_and_all_their_checks() -> None:
    """The job runs every asset and every check, so that no gate is left out."""
    job = defs.resolve_job_def("users_snapshot_job")
    assert {node.name for node in job.nodes} == {
        "raw_users",
        "raw_users_gates",
        "users_df",
        "users_df_gates",
        "users_csv",
        "users_csv_gates",
    }
