"""The project's own definitions on the servers of a test."""

import dagster as dg

from randusers_assets.definitions import defs
from randusers_assets.io_managers import users_io_manager
from randusers_assets.resources import RandomUsersApi, SnapshotGate, SnapshotStore


def definitions_on(store: SnapshotStore, url: str = "http://127.0.0.1:9") -> dg.Definitions:
    """What definitions.py defines, with the bucket and the API of a test."""
    return dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        executor=defs.executor,
        resources={
            "random_users_api": RandomUsersApi(url=url),
            "snapshot_store": store,
            "snapshot_gate": SnapshotGate(),
            "users_io_manager": users_io_manager,
        },
    )
