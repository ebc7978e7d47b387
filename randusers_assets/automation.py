"""When and how the snapshot runs: daily partitions, one job, one schedule."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.settings import setting

# `end_offset=1`: the API serves only current data, so today is a partition before it ends.
daily = dg.DailyPartitionsDefinition(
    start_date=setting("RANDUSERS_START_DATE"), timezone="UTC", end_offset=1
)

# A run that started before midnight may fetch a little after it.
GRACE = timedelta(hours=1)


def is_present(date: str, now: datetime) -> bool:
    """Whether the API still serves the data of `date`, a UTC day."""
    day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    return day <= now < day + timedelta(days=1) + GRACE


def require_partition(date: str) -> None:
    """Raise SnapshotError unless `date` is a partition."""
    if not daily.has_partition_key(date):
        raise SnapshotError(
            f"{date} is no partition: they run from {daily.get_first_partition_key()} to"
            f" {daily.get_last_partition_key()} (RANDUSERS_START_DATE)."
        )


users_snapshot_job = dg.define_asset_job(
    "users_snapshot_job",
    selection=["raw_users", "users_df", "users_csv"],
    description="Fetch the API's users, flatten them, and publish the CSV if every gate is open.",
)

users_rebuild_job = dg.define_asset_job(
    "users_rebuild_job",
    selection=["raw_users", "users_df", "users_csv"],
    # In seconds. Nothing is fetched, so a lost host is noticed sooner than by dagster.yaml.
    tags={"dagster/max_runtime": "1800"},
    description="Publish past days again from their stored raw snapshots.",
)


@dg.schedule(
    job=users_snapshot_job,
    cron_schedule=setting("RANDUSERS_CRON"),
    execution_timezone="UTC",
    # A person turns it on, once bucket and API are the right ones.
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Requests today's partition (UTC); the API serves only current data. Off until you"
    " turn it on.",
)
def users_snapshot_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Request the partition of the day that the tick is in."""
    date = context.scheduled_execution_time.astimezone(UTC).date().isoformat()
    return dg.RunRequest(run_key=date, partition_key=date)
