"""What a day changed: users who are new, gone or changed since the day before."""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from randusers_assets.io_managers import frames_path, load_frames
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.flatten.frames import UserFrames
from randusers_assets.pipeline.storage.s3 import SnapshotStore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]

# Ids shown of each kind.
SHOWN = 10


def changes(store: SnapshotStore, date: str, frames: UserFrames) -> dict[str, Any]:
    """Metadata that compares a snapshot with the stored one of the day before, if there is one.

    Takes 32 bytes of memory a user. A snapshot of another contract is named, not compared.
    """
    before = (datetime.date.fromisoformat(date) - datetime.timedelta(days=1)).isoformat()
    if store.head(frames_path(before)) is None:
        return {}
    try:
        past = load_frames(store, before)
    except dg.Failure as failure:
        return {"not_compared": f"{store.uri(frames_path(before))}: {failure.description}"}
    new, gone, changed = compare(fingerprints(past), fingerprints(frames))
    counts = {"new_users": len(new), "gone_users": len(gone), "changed_users": len(changed)}
    ids = {"new": new, "gone": gone, "changed": changed}
    return {
        "compared_with": before,
        **counts,
        "first_ids": dg.MetadataValue.json({kind: some[:SHOWN] for kind, some in ids.items()}),
    }


def fingerprints(frames: UserFrames) -> "tuple[Numbers, Numbers]":
    """The ids of a snapshot in ascending order, and a 64-bit hash of each one's row."""
    import numpy as np

    ids, hashes = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for batch in frames.batches():
        numbers = batch.column("id")
        octets = np.frombuffer(numbers.buffers()[1], dtype=np.int64)
        ids.append(octets[numbers.offset : numbers.offset + len(numbers)].copy())
        hashes.append(np.fromiter(map(hash, _records(batch)), dtype=np.int64))
    order = np.argsort(every := np.concatenate(ids), kind="stable")
    return every[order], np.concatenate(hashes)[order]


def _records(batch: "pa.RecordBatch") -> Sequence[bytes]:
    records = csv_format.encode(batch).split(b"\n")[:-1]
    if len(records) == batch.num_rows:
        return records
    # A cell that the single-line rule is going to refuse.
    return [csv_format.encode(batch.slice(row, 1)) for row in range(batch.num_rows)]


def compare(
    before: "tuple[Numbers, Numbers]", after: "tuple[Numbers, Numbers]"
) -> tuple[list[int], list[int], list[int]]:
    """The ids that are new, gone, and there on both days with different rows."""
    import numpy as np

    (old_ids, old_rows), (new_ids, new_rows) = before, after
    both, old_at, new_at = np.intersect1d(old_ids, new_ids, return_indices=True)
    changed = both[old_rows[old_at] != new_rows[new_at]]
    new, gone = np.setdiff1d(new_ids, both), np.setdiff1d(old_ids, both)
    return new.tolist(), gone.tolist(), changed.tolist()
