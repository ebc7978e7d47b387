"""The assets, in data-flow order: raw_users -> users_df -> users_csv."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from randusers_assets import metadata
from randusers_assets.automation import daily, is_present
from randusers_assets.checks import explain_refusal
from randusers_assets.contract import CONTRACT
from randusers_assets.errors import RETRY_POLICY, dagster_failures
from randusers_assets.pipeline.fetch.snapshot import log_every_tenth
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.diff import compare_with_day_before
from randusers_assets.pipeline.publish.publish import CODE_VERSION, PassedCsv
from randusers_assets.resources import RandomUsersApi, SnapshotGate, SnapshotStore

# What the three have in common.
daily_asset = partial(
    dg.asset,
    group_name="randusers",
    partitions_def=daily,
    io_manager_key="users_io_manager",
    owners=["team:data-engineering"],
    code_version=f"{CODE_VERSION}+contract.{CONTRACT.version}",
    retry_policy=RETRY_POLICY,
)


@daily_asset(
    kinds={"python", "json", "s3"},
    tags={"stage": "raw", "dagster/storage_kind": "s3"},
    metadata={
        "dagster/column_schema": metadata.raw_schema(CONTRACT),
        "api": dg.MetadataValue.url(CONTRACT.url),
    },
)
def raw_users(
    context: dg.AssetExecutionContext,
    random_users_api: RandomUsersApi,
    snapshot_store: SnapshotStore,
) -> RawUsers:
    """One JSON line per user, as the API sent it on that UTC day; credentials dropped.

    A past day can't be fetched again: its stored raw snapshot is kept.
    """
    date = context.partition_key
    with dagster_failures(context):
        snapshot_store.store.check_access()  # fails on a wrong bucket before a long fetch
        if is_present(date, datetime.now(UTC)):
            with metadata.record_seconds(context, "fetch"):
                raw = random_users_api.fetch(snapshot_store.run, log_every_tenth(context.log.info))
        else:
            with explain_refusal(context):
                raw = snapshot_store.run.keep_raw(date)
            context.log.info("Kept the raw snapshot, fetched at %s.", raw.facts.fetched_at)
            context.add_output_metadata(metadata.kept_metadata(raw.facts))
    context.add_output_metadata(metadata.fetch_metadata(raw.facts))
    return raw


@daily_asset(
    kinds={"python", "parquet", "s3"},
    tags={"stage": "flat", "dagster/storage_kind": "s3"},
    metadata={
        "dagster/column_schema": metadata.table_schema(CONTRACT),
        "contract": dg.MetadataValue.path(metadata.CONTRACT_DOCUMENT),
    },
)
def users_df(
    context: dg.AssetExecutionContext, raw_users: RawUsers, snapshot_store: SnapshotStore
) -> UserFrames:
    """One row per user; nested fields joined with `_`, typed by the contract."""
    with dagster_failures(context):
        with metadata.record_seconds(context, "flatten"):
            frames = snapshot_store.run.flatten(raw_users)
        comparison = compare_with_day_before(snapshot_store.store, context.partition_key, frames)
    context.add_output_metadata(metadata.lineage(CONTRACT, "raw_users", lambda column: column.path))
    context.add_output_metadata(metadata.frames_metadata(frames))
    context.add_output_metadata(metadata.comparison_metadata(comparison))
    return frames


@daily_asset(
    kinds={"python", "csv", "s3"},
    tags={"stage": "published", "dagster/storage_kind": "s3"},
    metadata={
        "dagster/column_schema": metadata.table_schema(CONTRACT),
        "contract": dg.MetadataValue.path(metadata.CONTRACT_DOCUMENT),
    },
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(hours=26), fail_window=timedelta(hours=50)
    ),
)
def users_csv(
    context: dg.AssetExecutionContext,
    users_df: UserFrames,
    snapshot_gate: SnapshotGate,
    snapshot_store: SnapshotStore,
) -> PassedCsv:
    """One CSV record per user that passes the row rules; published only if every gate is open."""
    with dagster_failures(context):
        run, policy = snapshot_store.run, snapshot_gate.policy
        passed = run.pass_gates(context.partition_key, users_df, policy)
    context.add_output_metadata(metadata.lineage(CONTRACT, "users_df", lambda column: column.name))
    seconds = round(passed.csv.seconds, 3)  # in whichever step it ran
    context.add_output_metadata({"audit_seconds": seconds})
    return passed
