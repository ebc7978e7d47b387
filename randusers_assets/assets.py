"""The assets, in the order in which the data flows: raw_users -> users_df -> users_csv."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from randusers_assets.automation import daily, require_present
from randusers_assets.catalog import lineage, raw_schema, table_schema
from randusers_assets.contract import CONTRACT_VERSION
from randusers_assets.errors import ending_when_interrupted, final_on_the_last_try
from randusers_assets.metadata import insights, timed
from randusers_assets.pipeline.audit.encode import AuditedCsv, SnapshotGate, audited
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames, lay_flat
from randusers_assets.pipeline.publish.diff import changes
from randusers_assets.pipeline.publish.publish import CODE_VERSION
from randusers_assets.pipeline.publish.receipt import read_latest
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets.resources import RandomUsersApi, fetch_metadata, tenths

# Faults that outlast the retries within a step are tried again later; a closed gate and a wrong
# setting are not.
LATER = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)

# What the three have in common.
daily_asset = partial(
    dg.asset,
    group_name="randusers",
    partitions_def=daily,
    io_manager_key="users_io_manager",
    owners=["team:data-engineering"],
    code_version=f"{CODE_VERSION}+contract.{CONTRACT_VERSION}",
    retry_policy=LATER,
)


@daily_asset(
    kinds={"python", "json", "s3"},
    tags={"stage": "raw", "dagster/storage_kind": "s3"},
    metadata={
        "dagster/column_schema": raw_schema(),
        "api": dg.MetadataValue.url("https://api.freeapi.app"),
    },
)
def raw_users(
    context: dg.AssetExecutionContext,
    random_users_api: RandomUsersApi,
    snapshot_store: SnapshotStore,
) -> RawUsers:
    """One JSON line per user, as the API sent it on that UTC day; credentials dropped."""
    require_present(context.partition_key, datetime.now(UTC))
    with ending_when_interrupted(), final_on_the_last_try(context, LATER):
        read_latest(snapshot_store)  # a wrong bucket or credential is told before a long fetch
        with timed(context, "fetch"):
            raw = random_users_api.snapshot(progress=tenths(context.log))
    context.add_output_metadata(fetch_metadata(raw.facts))
    return raw


@daily_asset(
    kinds={"python", "pandas", "parquet", "s3"},
    tags={"stage": "flat", "dagster/storage_kind": "s3"},
    metadata={"dagster/column_schema": table_schema()},
)
def users_df(
    context: dg.AssetExecutionContext, raw_users: RawUsers, snapshot_store: SnapshotStore
) -> UserFrames:
    """One row per user; nested fields joined with `_`, typed by the contract."""
    with ending_when_interrupted():
        with timed(context, "flatten"):
            frames = lay_flat(raw_users)
        told = {**insights(frames), **changes(snapshot_store, context.partition_key, frames)}
    context.add_output_metadata(
        {"dagster/column_lineage": lineage("raw_users", lambda column: column.path), **told}
    )
    return frames


@daily_asset(
    kinds={"python", "csv", "s3"},
    tags={"stage": "published", "dagster/storage_kind": "s3"},
    metadata={"dagster/column_schema": table_schema()},
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
    ),
)
def users_csv(
    context: dg.AssetExecutionContext, users_df: UserFrames, snapshot_gate: SnapshotGate
) -> AuditedCsv:
    """One CSV record per user who passes the row rules; each byte audited before it is written."""
    with ending_when_interrupted():
        csv = audited(users_df, snapshot_gate)
    context.add_output_metadata(
        {
            "dagster/column_lineage": lineage("users_df", lambda column: column.name),
            "audit_seconds": round(csv.seconds, 3),  # wherever in the run it was made
        }
    )
    return csv
