"""The keys of a snapshot on the disk, and which of them come twice, in memory that stays flat."""

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named

if TYPE_CHECKING:
    from randusers_assets.pipeline.flatten.arrow import Numbers

# Keys that are sorted at once: 16 MB.
PASS_KEYS = 1 << 21
_CHUNK_BYTES = 1 << 20


class Keys:
    """64-bit keys in the order in which they came; 8 bytes of the disk each."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._file = self._spool.writer()
        # Not the file itself, which would write what is left to a disk that may be full.
        self._closes = weakref.finalize(self, self._file.raw.close)
        self.count = 0

    def add(self, keys: "Numbers") -> None:
        """Take more keys.

        Raises:
            dagster.Failure: the disk is full.
        """
        with disk_full_named():
            self._file.write(keys.tobytes())
        self.count += len(keys)

    def chunks(self) -> "Iterator[Numbers]":
        """Yield the keys as they came, a few at a time."""
        import numpy as np

        with disk_full_named():
            self._file.flush()
        with self._spool.reader() as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield np.frombuffer(chunk, dtype=np.int64)

    def repeated(self) -> "Numbers":
        """The keys that come more than once, each once, in ascending order.

        Reads all keys once for every `PASS_KEYS` of them, and sorts those of one remainder.
        """
        import numpy as np

        passes = max(1, -(-self.count // PASS_KEYS))
        found = [np.empty(0, dtype=np.int64)]
        for remainder in range(passes):
            part = np.concatenate([found[0], *(c[c % passes == remainder] for c in self.chunks())])
            part.sort()
            found.append(np.unique(part[1:][part[1:] == part[:-1]]))
        return np.sort(np.concatenate(found))

    def comes_again(self) -> tuple[int, tuple[int, int] | None]:
        """How many keys came before already, and the first of them: its place, from 0, and itself.

        Takes memory by the number of those keys, of which there ought to be none.
        """
        import numpy as np

        if not (suspects := self.repeated()).size:
            return 0, None
        seen: set[int] = set()
        again, first, place = 0, None, 0
        for chunk in self.chunks():
            for at in np.flatnonzero(np.isin(chunk, suspects)).tolist():
                key = int(chunk[at])
                if key in seen:
                    again += 1
                    first = first or (place + at, key)
                seen.add(key)
            place += len(chunk)
        return again, first
