"""The wiring, nothing else."""

import dagster as dg
from dagster_aws.s3 import S3Resource

from randusers_assets.assets import raw_users, users_csv, users_df
from randusers_assets.automation import users_snapshot_job, users_snapshot_schedule
from randusers_assets.checks import (
    raw_users_gates,
    users_csv_gates,
    users_df_gates,
)
from randusers_assets.io_managers import UsersIOManager, frames_path, raw_path
from randusers_assets.pipeline.audit.encode import SnapshotGate
from randusers_assets.pipeline.publish.receipt import csv_path
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets.previews import with_code_references
from randusers_assets.resources import RandomUsersApi
from randusers_assets.sensors import users_snapshot_failure_alert, users_snapshot_recovery_alert
from randusers_assets.settings import setting

snapshot_store = SnapshotStore(
    s3_resource=S3Resource(),
    bucket=setting("RANDUSERS_BUCKET"),
    prefix=setting("RANDUSERS_PREFIX"),
    kms_key_id=setting("RANDUSERS_KMS_KEY_ID"),
)

random_users_api = RandomUsersApi(
    url=setting("RANDUSERS_API_URL"),
    page_size=int(setting("RANDUSERS_PAGE_SIZE")),
    concurrency=int(setting("RANDUSERS_CONCURRENCY")),
)


def located(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset, its page telling where each day's object is; without a bucket it is nowhere."""
    path = {"raw_users": raw_path, "users_df": frames_path, "users_csv": csv_path}
    uri = snapshot_store.uri(path[asset.key.to_user_string()]("YYYY-MM-DD"))
    known = {"dagster/uri": uri} if snapshot_store.bucket else {}
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=known))


defs = dg.Definitions(
    assets=[located(asset) for asset in with_code_references([raw_users, users_df, users_csv])],
    asset_checks=[raw_users_gates, users_df_gates, users_csv_gates],
    jobs=[users_snapshot_job],
    schedules=[users_snapshot_schedule],
    sensors=[users_snapshot_failure_alert, users_snapshot_recovery_alert],
    resources={
        "random_users_api": random_users_api,
        "snapshot_store": snapshot_store,
        "users_io_manager": UsersIOManager(snapshot_store=snapshot_store),
        "snapshot_gate": SnapshotGate(),
    },
)
