"""When and how the snapshot runs: daily partitions, one job, one schedule."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from randusers_assets.settings import setting

# `end_offset=1`: the API has only a present, so the day that is running is a partition already.
daily = dg.DailyPartitionsDefinition(
    start_date=setting("RANDUSERS_START_DATE"), timezone="UTC", end_offset=1
)

# A run that started before midnight may fetch a little after it.
GRACE = timedelta(hours=1)


def require_present(date: str, now: datetime) -> None:
    """Let only the current UTC day be fetched.

    Raises:
        dagster.Failure: `date` is another day.
    """
    day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    if not day <= now < day + timedelta(days=1) + GRACE:
        raise dg.Failure(
            f"raw_users of {date} cannot be fetched: the API has only a present. Rebuild users_df"
            " and users_csv from the stored raw snapshot, or materialize today's partition.",
            allow_retries=False,
        )


users_snapshot_job = dg.define_asset_job(
    "users_snapshot_job",
    selection=["raw_users", "users_df", "users_csv"],
    # One process: the multiprocess executor imports everything anew for each step.
    executor_def=dg.in_process_executor,
    description="Fetch the API's users, lay them flat, publish the CSV; every gate on the way.",
)


@dg.schedule(
    job=users_snapshot_job,
    cron_schedule=setting("RANDUSERS_CRON"),
    execution_timezone="UTC",
    # A fetch from a wrong bucket or API is for a person to start, not for the first load.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Requests the snapshot of the current UTC day; the API keeps no other."
    " Off until it is turned on here.",
)
def users_snapshot_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Request the partition of the day that the tick is in."""
    date = context.scheduled_execution_time.astimezone(UTC).date().isoformat()
    return dg.RunRequest(run_key=date, partition_key=date)
