"""The S3 IO manager and its three formats: zstd JSON lines, Parquet, and the published CSV."""

from typing import Any

import dagster as dg
import msgspec
from pydantic import PrivateAttr

from randusers_assets.errors import ending_when_interrupted
from randusers_assets.metadata import timed
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.flatten.frames import FetchFacts, RawUsers, UserFrames, to_frame
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import Publication, publish
from randusers_assets.pipeline.storage.s3 import SnapshotStore, Stored

_REBUILD = "materialize {asset} for {date} first"


class UsersIOManager(dg.ConfigurableIOManager):
    """Keeps each asset's daily snapshot as one object; `users_csv` goes through `publish`."""

    snapshot_store: dg.ResourceDependency[SnapshotStore]

    # What this process stored last, which is what the next steps ask for: path, ETag, value.
    _last: tuple[str, str, Any] = PrivateAttr(("", "", None))

    def handle_output(
        self, context: dg.OutputContext, obj: RawUsers | UserFrames | AuditedCsv
    ) -> None:
        """Store a snapshot, and say where and what in the materialization's metadata."""
        with timed(context, "store"), ending_when_interrupted():
            metadata = self._stored(context, obj)
        context.add_output_metadata(metadata)
        context.log.info("%s: %s users.", metadata["dagster/uri"], metadata["dagster/row_count"])

    def _stored(
        self, context: dg.OutputContext, obj: RawUsers | UserFrames | AuditedCsv
    ) -> dict[str, Any]:
        date = context.asset_partition_key
        match obj:
            case RawUsers():
                path, rows = raw_path(date), obj.facts.declared
                stored = save_raw(self.snapshot_store, date, obj)
            case UserFrames():
                path, rows = frames_path(date), obj.facts.flat_rows
                stored = save_frames(self.snapshot_store, date, obj)
            case AuditedCsv():
                publication = publish(self.snapshot_store, date, obj, context.run_id)
                return publication_metadata(publication)
        self._last = (path, stored.etag, obj)
        return object_metadata(self.snapshot_store.uri(path), rows, stored)

    def load_input(self, context: dg.InputContext) -> Any:  # noqa: ANN401  # the annotation decides
        """Load a snapshot: as a spool in batches where the input is so annotated, else whole."""
        asset, date = context.asset_key.path[-1], context.asset_partition_key
        wanted = context.dagster_type.typing_type
        with ending_when_interrupted():
            return self._loaded(asset, date, wanted)

    def _loaded(self, asset: str, date: str, wanted: object) -> Any:  # noqa: ANN401  # as above
        match asset:
            case "raw_users":
                return self._unchanged(raw_path(date)) or load_raw(self.snapshot_store, date)
            case "users_df":
                frames = self._unchanged(frames_path(date)) or load_frames(
                    self.snapshot_store, date
                )
                return frames if wanted is UserFrames else frames.to_pandas()
            case _:
                return load_csv(self.snapshot_store, date)

    def _unchanged(self, path: str) -> Any:  # noqa: ANN401  # what was stored there
        """What this process stored at a path last, as long as S3 still holds that very object."""
        stored_at, etag, value = self._last
        now = self.snapshot_store.head(path) if stored_at == path else None
        return value if now and now.etag == etag else None


def raw_path(date: str) -> str:
    """Where a day's raw snapshot is, below the prefix."""
    return f"raw_users/dt={date}/users.jsonl.zst"


def frames_path(date: str) -> str:
    """Where a day's flat users are, below the prefix."""
    return f"users_df/dt={date}/users.parquet"


def save_raw(store: SnapshotStore, date: str, raw: RawUsers) -> Stored:
    """Store a raw snapshot, the facts of its fetch beside it in the object's metadata."""
    return store.put(
        raw_path(date),
        raw.spool,
        raw.spool.sha256,
        content_type="application/zstd",
        metadata={"fetch": msgspec.json.encode(raw.facts).decode("ascii")},
    )


def save_frames(store: SnapshotStore, date: str, frames: UserFrames) -> Stored:
    """Store flat users."""
    return store.put(
        frames_path(date),
        frames.spool,
        frames.spool.sha256,
        content_type="application/vnd.apache.parquet",
    )


def load_raw(store: SnapshotStore, date: str) -> RawUsers:
    """A day's raw snapshot.

    Raises:
        dagster.Failure: there is none, or S3 cannot be read.
    """
    advice = _REBUILD.format(asset="raw_users", date=date)
    spool, stored = store.download(raw_path(date), advice)
    try:
        facts = msgspec.json.decode(stored.metadata.get("fetch", ""), type=FetchFacts)
    except msgspec.DecodeError as error:
        raise dg.Failure(
            f"{store.uri(raw_path(date))} does not carry the facts of its fetch: {advice}.",
            allow_retries=False,
        ) from error
    return RawUsers(spool, facts)


def load_frames(store: SnapshotStore, date: str) -> UserFrames:
    """A day's flat users, in batches.

    Raises:
        dagster.Failure: there are none, or S3 cannot be read.
    """
    spool, _ = store.download(frames_path(date), _REBUILD.format(asset="users_df", date=date))
    return UserFrames(spool)


def load_csv(store: SnapshotStore, date: str) -> Any:  # noqa: ANN401  # pandas loads late
    """A day's published CSV as one DataFrame, typed by the contract.

    Raises:
        dagster.Failure: the day is not published, or S3 cannot be read.
    """
    advice = _REBUILD.format(asset="users_csv", date=date)
    spool, _ = store.download(receipts.csv_path(date), advice)
    with spool.reader() as file:
        file.seek(len(csv_format.header()))
        return to_frame(csv_format.parse(file.read()))


def object_metadata(uri: str, rows: int, stored: Stored) -> dict[str, Any]:
    """What the UI shows of a stored object."""
    return {
        "dagster/uri": uri,
        "dagster/row_count": rows,
        "bytes": stored.size,
        "sha256": stored.sha256,
        "etag": stored.etag.strip('"'),
    }


def publication_metadata(publication: Publication) -> dict[str, Any]:
    """What the UI shows of a publication."""
    receipt = publication.receipt
    return {
        "dagster/uri": receipt.csv.uri,
        "dagster/row_count": receipt.counts.published,
        "bytes": receipt.csv.bytes,
        "sha256": receipt.csv.sha256,
        "etag": receipt.csv.etag.strip('"'),
        "outcome": publication.outcome,
        "rejected": receipt.counts.rejected,
        "receipt": dg.MetadataValue.json(msgspec.to_builtins(receipt)),
    }
