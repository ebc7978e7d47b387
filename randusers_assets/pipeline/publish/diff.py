"""What a day changed: rows that are new, gone or changed since the day before."""

import datetime
from dataclasses import dataclass, field

import numpy as np

from randusers_assets.pipeline.audit.csv_format import encode_csv
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import UserFrames
from randusers_assets.pipeline.publish.objects import load_frames
from randusers_assets.pipeline.storage.duplicates import Keys, Numbers, in_pass, int64_values
from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.pipeline.storage.s3_errors import Missing

# Keys shown of each kind.
SHOWN = 10

# Rows of one day that are compared at once; the two days take about 50 MB.
PASS_ROWS = 1 << 19


@dataclass
class Difference:
    """How many rows are new, gone or changed, and the lowest keys of each kind."""

    counts: dict[str, int] = field(default_factory=dict)
    keys: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, keys: Numbers) -> None:
        """Count sorted keys of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + len(keys)
        self.keys[kind] = sorted(self.keys.get(kind, []) + keys[:SHOWN].tolist())[:SHOWN]


@dataclass
class Comparison:
    """A snapshot compared with the day before; `problem` says why it could not be."""

    date: str
    difference: Difference | None = None
    problem: str = ""


def compare_with_day_before(store: Store, date: str, frames: UserFrames) -> Comparison | None:
    """Compare with the stored day before, if any; 16 bytes of disk a row, flat memory."""
    before = (datetime.date.fromisoformat(date) - datetime.timedelta(days=1)).isoformat()
    try:
        past = load_frames(store, frames.contract, before)
    except Missing:
        return None
    except SnapshotError as error:
        return Comparison(before, problem=str(error))
    return Comparison(before, compare(past, frames))


def compare(past: UserFrames, frames: UserFrames) -> Difference:
    """Compare two snapshots of one contract, key by key.

    A row group that both files hold is not read: its rows are the same.
    """
    old_digests, new_digests = [*past.group_digests()], [*frames.group_digests()]
    old = _Fingerprints(past, _indices(old_digests, without=new_digests))
    new = _Fingerprints(frames, _indices(new_digests, without=old_digests))
    passes = max(1, -(-max(old.keys.count, new.keys.count) // PASS_ROWS))
    difference = Difference()
    for number in range(passes):
        old_keys, old_rows = old.part(number, passes)
        new_keys, new_rows = new.part(number, passes)
        both, old_at, new_at = np.intersect1d(old_keys, new_keys, return_indices=True)
        difference.add("new", np.setdiff1d(new_keys, both))
        difference.add("gone", np.setdiff1d(old_keys, both))
        difference.add("changed", both[old_rows[old_at] != new_rows[new_at]])
    return difference


def _indices(digests: list[bytes], *, without: list[bytes]) -> list[int]:
    other = set(without)
    return [number for number, digest in enumerate(digests) if digest not in other]


class _Fingerprints:
    """The keys of some row groups and a 64-bit hash of each row, on the disk."""

    def __init__(self, frames: UserFrames, groups: list[int]) -> None:
        self.keys, self.rows = Keys(), Keys()
        for batch in read_ahead(frames.batches(groups=groups)) if groups else ():
            self.keys.add(int64_values(batch.column(frames.contract.key)))
            records = encode_csv(batch).split(b"\n")[:-1]
            if len(records) != batch.num_rows:
                # A cell holds a line end; the row rules will reject it.
                records = [encode_csv(batch.slice(row, 1)) for row in range(batch.num_rows)]
            self.rows.add(np.fromiter(map(hash, records), dtype=np.int64))

    def part(self, number: int, passes: int) -> tuple[Numbers, Numbers]:
        """The keys of one pass, and the hashes of their rows."""
        empty = np.empty(0, dtype=np.int64)
        keys, rows = [empty], [empty]
        for some, hashes in zip(self.keys.chunks(), self.rows.chunks(), strict=True):
            mine = in_pass(some, number, passes)
            keys.append(some[mine])
            rows.append(hashes[mine])
        return np.concatenate(keys), np.concatenate(rows)
