"""The assets, in the order in which the data flows: raw_users -> users_df -> users_csv."""

from datetime import UTC, datetime
from functools import partial

import dagster as dg

from randusers_assets.automation import daily, require_present
from randusers_assets.contract import CONTRACT_VERSION, table_schema
from randusers_assets.publishing import CODE_VERSION, AuditedCsv, SnapshotGate, audited
from randusers_assets.resources import RandomUsersApi, fetch_metadata, tenths
from randusers_assets.snapshots import RawUsers, UserFrames, lay_flat

# What the three have in common. Faults that outlast the retries within a step are tried again
# later; a closed gate and a wrong setting are not.
daily_asset = partial(
    dg.asset,
    group_name="randusers",
    partitions_def=daily,
    io_manager_key="users_io_manager",
    owners=["team:data-engineering"],
    code_version=f"{CODE_VERSION}+contract.{CONTRACT_VERSION}",
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)


@daily_asset(kinds={"python", "json", "s3"}, tags={"stage": "raw"})
def raw_users(context: dg.AssetExecutionContext, random_users_api: RandomUsersApi) -> RawUsers:
    """One JSON line per user, as the API sent it on that UTC day; credentials dropped."""
    require_present(context.partition_key, datetime.now(UTC))
    raw = random_users_api.snapshot(progress=tenths(context.log))
    context.add_output_metadata(fetch_metadata(raw.facts))
    return raw


@daily_asset(
    kinds={"python", "pandas", "parquet", "s3"},
    tags={"stage": "flat"},
    metadata={"dagster/column_schema": table_schema()},
)
def users_df(raw_users: RawUsers) -> UserFrames:
    """One row per user; nested fields joined with `_`, typed by the contract."""
    return lay_flat(raw_users)


@daily_asset(
    kinds={"python", "csv", "s3"},
    tags={"stage": "published"},
    metadata={"dagster/column_schema": table_schema()},
)
def users_csv(users_df: UserFrames, snapshot_gate: SnapshotGate) -> AuditedCsv:
    """One CSV record per user who passes the row rules; every byte audited before it is written."""
    return audited(users_df, snapshot_gate)
