"""The wiring, nothing else."""

import dagster as dg
from dagster_aws.s3 import S3Resource

from randusers_assets import assets, automation, checks, io_managers, sensors
from randusers_assets.metadata import with_places
from randusers_assets.resources import RandomUsersApi, SnapshotGate, SnapshotStore
from randusers_assets.settings import setting, setting_for_a_run

random_users_api = RandomUsersApi(
    url=setting_for_a_run("RANDUSERS_API_URL"),
    token=setting_for_a_run("RANDUSERS_API_TOKEN"),
    page_size=int(setting("RANDUSERS_PAGE_SIZE")),
    concurrency=int(setting("RANDUSERS_CONCURRENCY")),
    deadline_seconds=int(setting("RANDUSERS_DEADLINE_SECONDS")),
)

snapshot_store = SnapshotStore(
    s3_resource=S3Resource(),
    bucket=setting("RANDUSERS_BUCKET"),
    prefix=setting("RANDUSERS_PREFIX"),
    kms_key_id=setting("RANDUSERS_KMS_KEY_ID"),
    owner=setting("RANDUSERS_BUCKET_OWNER"),
    publish_parquet=setting("RANDUSERS_PUBLISH_PARQUET") == "on",
)

defs = dg.Definitions(
    assets=with_places([assets.raw_users, assets.users_df, assets.users_csv], snapshot_store.run),
    asset_checks=[checks.raw_users_gates, checks.users_df_gates, checks.users_csv_gates],
    jobs=[automation.users_snapshot_job, automation.users_rebuild_job],
    schedules=[automation.users_snapshot_schedule],
    sensors=[
        sensors.users_snapshot_failure_alert,
        sensors.users_snapshot_recovery_alert,
        sensors.users_csv_overdue_alert,
    ],
    executor=dg.in_process_executor,  # each process imports Dagster anew
    resources={
        "random_users_api": random_users_api,
        "snapshot_store": snapshot_store,
        "snapshot_gate": SnapshotGate(),
        "users_io_manager": io_managers.users_io_manager,
    },
)
