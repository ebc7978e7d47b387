"""Which keys come twice: kept on the disk, compared in memory that stays flat."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_host_limits

Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool]]

PASS_KEYS = 1 << 21  # sorted at once: 16 MB
_CHUNK_BYTES = 1 << 20

# A few keys, the exact value at a position of them, and what to show as an example of it.
Chunk = tuple[Numbers, Callable[[int], Any], Callable[[int], Any]]


def int64_values(column: pa.Array) -> Numbers:
    """The numbers of an `int64` column without NULLs, not copied."""
    numbers = np.frombuffer(column.buffers()[1], dtype=np.int64)
    return numbers[column.offset : column.offset + len(column)]


def in_pass(keys: Numbers, number: int, passes: int) -> Mask:
    """Which keys belong to one of several passes; the shares are even, also with a stride."""
    # Fibonacci hashing (Knuth, TAOCP 6.4): the high bits of a product are well mixed.
    mixed = keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)
    mask: Mask = mixed % np.uint64(passes) == number
    return mask


@dataclass
class Duplicates:
    """Rows that share their key; `examples` are the row, from 0, and example of repeating ones."""

    sharing: int = 0
    repeating: int = 0  # all but the first of each key
    examples: list[tuple[int, Any]] = field(default_factory=list)


class Keys:
    """64-bit keys in the order in which they came; 8 bytes of the disk each."""

    def __init__(self) -> None:
        self._temp = TempFile()
        self._file = self._temp.writer()
        self.count = 0

    def add(self, keys: Numbers) -> None:
        """Append keys."""
        with explain_host_limits():
            self._file.write(keys.tobytes())
        self.count += len(keys)

    def chunks(self) -> Iterator[Numbers]:
        """Yield the keys in order, 1 MiB at a time."""
        with explain_host_limits():
            self._file.flush()
        with self._temp.reader() as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield np.frombuffer(chunk, dtype=np.int64)

    def repeated(self) -> Numbers:
        """The keys that come twice or more, ascending; all are read once per `PASS_KEYS`."""
        passes = max(1, -(-self.count // PASS_KEYS))
        found = [np.empty(0, dtype=np.int64)]
        for number in range(passes):
            parts = (keys[in_pass(keys, number, passes)] for keys in self.chunks())
            part = np.concatenate([found[0], *parts])
            part.sort()
            found.append(np.unique(part[1:][part[1:] == part[:-1]]))
        return np.sort(np.concatenate(found))

    def count_duplicates(
        self, source: Callable[[], Iterable[Chunk]] | None = None, at_most: int = 1
    ) -> Duplicates:
        """Count the rows that share their key, and find the first few that repeat an earlier one.

        `source` gives them again with exact values, if keys are hashes; read only if they meet.
        """
        found = Duplicates()
        if not (suspects := self.repeated()).size:
            return found
        seen: dict[Any, int] = {}
        place = 0
        own = ((keys, keys.item, keys.item) for keys in self.chunks())
        for keys, value_at, example_at in source() if source else own:
            for at in np.flatnonzero(np.isin(keys, suspects)).tolist():
                value = value_at(at)
                seen[value] = seen.get(value, 0) + 1
                if seen[value] == 2 and len(found.examples) < at_most:
                    found.examples.append((place + at, example_at(at)))
            place += len(keys)
        found.sharing = sum(count for count in seen.values() if count > 1)
        found.repeating = sum(count - 1 for count in seen.values())
        return found
