"""The S3 IO manager and its three formats: zstd JSON lines, Parquet, and the published CSV."""

from typing import Any

import dagster as dg

from randusers_assets.errors import INTERRUPTED, dagster_failures
from randusers_assets.metadata import object_metadata, publication_metadata, record_seconds
from randusers_assets.notify import ping_heartbeat
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.objects import load_csv, load_frames
from randusers_assets.pipeline.publish.publish import (
    PassedCsv,
    describe_interruption,
    publish,
)
from randusers_assets.pipeline.steps import SnapshotRun


class UsersIOManager(dg.IOManager):
    """Keeps each asset's day as one object; `users_csv` is published."""

    def __init__(self, run: SnapshotRun) -> None:
        self.run = run

    def handle_output(
        self, context: dg.OutputContext, obj: RawUsers | UserFrames | PassedCsv
    ) -> None:
        """Store a day, and show where and what in the materialization's metadata."""
        date = context.asset_partition_key
        store = self.run.store

        def interrupted() -> str:
            csv = obj.csv if isinstance(obj, PassedCsv) else None
            return describe_interruption(store, date, csv) if csv else INTERRUPTED

        with record_seconds(context, "store"), dagster_failures(context, interrupted):
            if isinstance(obj, PassedCsv):
                publication = publish(store, date, obj, context.run_id)
                shown = publication_metadata(publication, self.run)
            else:
                path, stored = self.run.save(date, obj)
                rows = obj.facts.declared if isinstance(obj, RawUsers) else obj.facts.flat_rows
                proof = stored.size, stored.sha256, stored.etag
                shown = object_metadata(store.uri(path), rows, *proof)
        context.add_output_metadata(shown)
        context.log.info("%s: %s rows.", shown["dagster/uri"], shown["dagster/row_count"])
        if isinstance(obj, PassedCsv):
            with dagster_failures(context, interrupted):
                ping_heartbeat(context.log)

    def load_input(self, context: dg.InputContext) -> Any:  # noqa: ANN401  # the annotation decides
        """Load a day: in batches where the input is annotated so, else as one DataFrame."""
        date, wanted = context.asset_partition_key, context.dagster_type.typing_type
        with dagster_failures(context):
            match context.asset_key.path[-1]:
                case "raw_users":
                    return self.run.load_raw(date)
                case "users_df":
                    if wanted is UserFrames:
                        return self.run.load_frames(date)
                    return load_frames(self.run.store, self.run.contract, date).to_pandas()
                case _:
                    return load_csv(self.run.store, self.run.contract, date)


@dg.io_manager(required_resource_keys={"snapshot_store"})
def users_io_manager(context: dg.InitResourceContext) -> UsersIOManager:
    """The IO manager of a run; it shares `snapshot_store` with the assets and the checks."""
    return UsersIOManager(context.resources.snapshot_store.run)
