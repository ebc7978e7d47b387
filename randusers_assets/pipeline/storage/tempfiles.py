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
from contextvars import ContextVar
from typing import TYPE_CHECKING

from randusers_assets.pipeline.errors import SnapshotError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


_opened: ContextVar["weakref.WeakSet[TempFile] | None"] = ContextVar("_opened", default=None)


@contextlib.contextmanager
def close_temp_files() -> Iterator[None]:
    """Close, at the end, the temp files that were opened meanwhile.

    Tracebacks and Dagster's contexts refer to them in cycles, which an idle process never frees.
    """
    before, opened = _opened.get(), weakref.WeakSet[TempFile]()
    _opened.set(opened)
    try:
        yield
    finally:
        _opened.set(before)
        for file in opened:
            file.close()


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
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # `close` closes it
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._file.close)
        self.close = weakref.finalize(self, self._closing.close)
        self.digest = hashlib.sha256()
        if (opened := _opened.get()) is not None:
            opened.add(self)

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
            file = io.FileIO(os.dup(self._file.fileno()), "w")
        # Not the writer's: to close a buffered file may flush it to a full disk.
        self._closing.callback(file.close)
        return _DigestingWriter(self.digest, file)

    def reader(self) -> io.BufferedReader:
        """Open for reading, with a position of its own; it may be closed."""
        return io.BufferedReader(_Reader(self), 1 << 20)

    def pread(self, length: int, position: int) -> bytes:
        """Up to so many bytes from a position; ValueError once the file is closed."""
        return os.pread(self._file.fileno(), length, position)


class _DigestingWriter(io.BufferedWriter):
    def __init__(self, digest: "hashlib._Hash", file: io.FileIO) -> None:
        super().__init__(file, 1 << 20)
        self._digest = digest

    def write(self, data: "ReadableBuffer", /) -> int:
        self._digest.update(data)
        return super().write(data)


class _Reader(io.RawIOBase):
    def __init__(self, file: TempFile) -> None:
        self._file = file  # which stays open as long as it is read
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (0, self._position, self._file.size)[whence] + offset
        return self._position

    def readinto(self, into: "WriteableBuffer", /) -> int:
        room = memoryview(into).cast("B")
        data = self._file.pread(len(room), self._position)
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
