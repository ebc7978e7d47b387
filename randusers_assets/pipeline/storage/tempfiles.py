"""Disk spools and read-ahead: what keeps memory flat while the stages overlap."""

import contextlib
import errno
import hashlib
import io
import os
import queue
import shutil
import tempfile
import threading
import weakref
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

T = TypeVar("T")


class Spool:
    """An unlinked temporary file (`TMPDIR`), gone with its last user, also after `kill -9`.

    Raises:
        dagster.Failure: the directory has less room than `expected_bytes`.
    """

    def __init__(self, expected_bytes: int = 0) -> None:
        directory = tempfile.gettempdir()
        free = shutil.disk_usage(directory).free
        if free < expected_bytes:
            raise dg.Failure(
                f"{directory}: the spool needs {expected_bytes:,} bytes and {free:,} are free:"
                " make room, or point TMPDIR to a larger disk."
            )
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  # the finalizer closes it
        self._closes = weakref.finalize(self, self._file.close)
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        """The length in bytes."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def sha256(self) -> str:
        """The digest of the bytes as they were written, whatever the disk made of them."""
        return self.digest.hexdigest()

    def writer(self) -> io.BufferedWriter:
        """A file that writes the spool anew, from its start to its end; close it when done."""
        os.ftruncate(self._file.fileno(), 0)
        os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        self.digest = hashlib.sha256()
        return _Digested(self.digest, os.dup(self._file.fileno()))

    def reader(self) -> io.BufferedReader:
        """A file with a position of its own; whoever gets it may close it."""
        return io.BufferedReader(_View(self), 1 << 20)

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position` on; fewer at the end."""
        return os.pread(self._file.fileno(), length, position)


class _Digested(io.BufferedWriter):
    def __init__(self, digest: "hashlib._Hash", descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "w"), 1 << 20)
        self._digest = digest

    def write(self, data: "ReadableBuffer", /) -> int:
        self._digest.update(data)
        return super().write(data)


class _View(io.RawIOBase):
    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = (0, self._position, self._spool.size)[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, into: "WriteableBuffer", /) -> int:
        room = memoryview(into).cast("B")
        data = self._spool.read_at(self._position, len(room))
        room[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextlib.contextmanager
def disk_full_named() -> Iterator[None]:
    """Turn a full disk into one sentence that names the spool's directory."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise dg.Failure(
            f"{tempfile.gettempdir()}: the disk is full:"
            " make room, or point TMPDIR to a larger one."
        ) from error


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def read_ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` in order while a thread prepares the next `depth` of them.

    An exception of `items` is raised where its item would have been. Closing the result early
    ends the thread after the item that it is busy with.
    """
    ready: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: object) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not offer(item):
                    return
            offer(_END)
        except BaseException as error:  # noqa: BLE001  # handed over to the reader, who raises it
            offer(_Raised(error))

    thread = threading.Thread(target=produce, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]  # the queue holds T, _Raised and _END
    finally:
        stopped.set()
        thread.join()
