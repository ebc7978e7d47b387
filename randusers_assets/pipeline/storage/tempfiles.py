"""Unlinked temp files: what keeps memory flat whatever the number of rows."""

import contextlib
import errno
import hashlib
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from randusers_assets.pipeline.errors import SnapshotError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class TempFile:
    """An unlinked file in `TMPDIR`, freed with its last user, also after `kill -9`."""

    def __init__(self, expected_bytes: int = 0) -> None:
        try:
            free = shutil.disk_usage(tempfile.gettempdir()).free
        except FileNotFoundError as error:
            raise SnapshotError(
                "No temporary directory is writable: set TMPDIR to one with room."
            ) from error
        if free < expected_bytes:
            raise _no_room(f"the snapshot needs {expected_bytes:,} bytes and {free:,} are free")
        with explain_host_limits():
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # the finalizer closes it
        self._closes = weakref.finalize(self, self._file.close)
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        """The length in bytes."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def sha256(self) -> str:
        """The digest of the bytes as they were given, even if the disk changed them since."""
        return self.digest.hexdigest()

    def writer(self) -> io.BufferedWriter:
        """Open for writing, from empty; close it when done."""
        self._file.truncate(0)
        self._file.seek(0)
        self.digest = hashlib.sha256()
        with explain_host_limits():
            return _DigestingWriter(self.digest, os.dup(self._file.fileno()))

    def reader(self) -> io.BufferedReader:
        """Open for reading, with a position of its own; it may be closed."""
        return io.BufferedReader(_Reader(self, self._file.fileno()), 1 << 20)


class _DigestingWriter(io.BufferedWriter):
    def __init__(self, digest: "hashlib._Hash", descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "w"), 1 << 20)
        self._digest = digest

    def write(self, data: "ReadableBuffer", /) -> int:
        self._digest.update(data)
        return super().write(data)


class _Reader(io.RawIOBase):
    def __init__(self, file: TempFile, descriptor: int) -> None:
        self._file = file  # which keeps the descriptor open
        self._descriptor, self._position = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (0, self._position, self._file.size)[whence] + offset
        return self._position

    def readinto(self, into: "WriteableBuffer", /) -> int:
        room = memoryview(into).cast("B")
        data = os.pread(self._descriptor, len(room), self._position)
        room[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextlib.contextmanager
def explain_host_limits() -> Iterator[None]:
    """Turn a lack of disk, open files, memory or threads into one SnapshotError."""
    try:
        yield
    except MemoryError as error:
        raise _out_of("memory", "-v") from error
    except RuntimeError as error:
        if str(error) != "can't start new thread":
            raise
        raise _out_of("threads", "-u") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise _out_of("open files", "-n") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room("the disk is full") from error
        raise


def _out_of(what: str, option: str) -> SnapshotError:
    advice = f"raise the limit (ulimit {option}, or the container's), and run again."
    return SnapshotError(f"The process ran out of {what}: {advice}", retryable=True)


def _no_room(problem: str) -> SnapshotError:
    advice = "make room, or point TMPDIR to a larger disk."
    return SnapshotError(f"{tempfile.gettempdir()}: {problem}: {advice}", retryable=True)
