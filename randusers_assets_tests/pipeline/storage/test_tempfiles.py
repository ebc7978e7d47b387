"""Temp files leave nothing behind, and a full disk is named in one sentence."""

import contextlib
import errno
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage.tempfiles import (
    TempFile,
    close_temp_files,
    explain_host_limits,
)
from randusers_assets_tests.builders import bytes_of, temp_file_of

FULL = "the disk is full: make room, or point TMPDIR to a larger disk."
RAN_OUT = (
    "The process ran out of {}: raise the limit (ulimit -{}, or the container's), and run again."
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the temp files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_temp_file_gives_back_what_was_written_last() -> None:
    """Size, digest and bytes are those of the last writer, also of nothing and of no writer."""
    file = TempFile()
    assert (file.size, bytes_of(file)) == (0, b"")
    for data in (b"some bytes" * 300_000, b"short", b""):
        with file.writer() as writer:
            writer.write(data)
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert bytes_of(file) == data


def test_temp_file_readers_are_independent() -> None:
    """Each reader has its own position and seeks; closing one leaves the others and the file."""
    file = temp_file_of(b"0123456789")
    one, other = file.reader(), file.reader()
    assert (one.read(4), other.read(2)) == (b"0123", b"01")
    one.close()
    assert other.read() == b"23456789"
    assert (other.seek(7), other.read(1)) == (7, b"7")
    assert (other.seek(-3, os.SEEK_CUR), other.read(1)) == (5, b"5")
    assert (other.seek(-1, os.SEEK_END), other.read()) == (9, b"9")
    assert (other.tell(), other.read()) == (10, b"")
    assert bytes_of(file) == b"0123456789"


@given(data=st.binary(max_size=50), position=st.integers(0, 60), length=st.integers(0, 60))
def test_temp_file_reads_at_any_place(data: bytes, position: int, length: int) -> None:
    """Reading after a seek gives the slice of the bytes, shorter at the end."""
    with temp_file_of(data).reader() as reader:
        reader.seek(position)
        assert reader.read(length) == data[position : position + length]


def test_temp_file_can_be_read_by_threads_at_once() -> None:
    """Readers on several threads do not move each other."""
    data = bytes(range(256)) * 20_000
    file = temp_file_of(data)

    def read(_: int) -> bytes:
        with file.reader() as reader:
            return b"".join(iter(lambda: reader.read(9973), b""))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {data}


def open_files_in(directory: Path) -> int:
    """How many descriptors of this process are open on files of a directory, unlinked or not."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own is closed by now
            links.append(str(descriptor.readlink()))
    return sum(link.startswith(f"{directory}/") for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc lists the open files")
def test_temp_file_has_no_name_and_is_closed_when_dropped(directory: Path) -> None:
    """No directory lists the file, and with its last user it is gone, without a ResourceWarning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = temp_file_of(b"bytes")
        assert list(directory.iterdir()) == []
        reader = file.reader()
        del file
        assert open_files_in(directory) == 1
        assert reader.read() == b"bytes"
        del reader
        assert open_files_in(directory) == 0
    assert [one for one in caught if str(directory) in str(one.message)] == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc lists the open files")
def test_close_temp_files_closes_all_that_was_opened_in_it(directory: Path) -> None:
    """Files, their readers and writers are closed while they are referred to; no other file is."""
    before = temp_file_of(b"before")
    with close_temp_files():
        file, other = temp_file_of(b"bytes"), TempFile()
        reader, writer = file.reader(), other.writer()
        with close_temp_files():
            inner = temp_file_of(b"inner")
        assert open_files_in(directory) == 4
        writer.write(b"held in the buffer")
    assert open_files_in(directory) == 1
    assert bytes_of(before) == b"before"
    for closed in (reader, file.reader(), inner.reader()):
        with pytest.raises(ValueError, match="I/O operation on closed file"):
            closed.read(1)


def test_temp_file_needs_a_disk_with_room(directory: Path) -> None:
    """Without room for what is expected, one sentence names the directory and both numbers."""
    assert TempFile(expected_bytes=1).size == 0
    with pytest.raises(SnapshotError) as error:
        TempFile(expected_bytes=1 << 60)
    assert re.fullmatch(
        re.escape(f"{directory}: the snapshot needs 1,152,921,504,606,846,976 bytes and ")
        + r"\d{1,3}(,\d{3})* are free: make room, or point TMPDIR to a larger disk\.",
        str(error.value),
    )
    assert error.value.retryable


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_is_explained(number: int, directory: Path) -> None:
    """A full disk or quota is one sentence that names the directory, its cause kept."""
    cause = OSError(number, os.strerror(number))
    with pytest.raises(SnapshotError) as error, explain_host_limits():
        raise cause
    assert str(error.value) == f"{directory}: {FULL}"
    assert (error.value.retryable, error.value.__cause__) == (True, cause)


def test_temp_file_needs_a_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory that is gone is one sentence that names TMPDIR."""
    monkeypatch.setattr(tempfile, "tempdir", str(directory / "gone"))
    with pytest.raises(SnapshotError) as error:
        TempFile()
    assert str(error.value) == "No temporary directory is writable: set TMPDIR to one with room."


@contextlib.contextmanager
def _no_more_open_files() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_temp_file_explains_too_many_open_files() -> None:
    """Neither a new file nor a new writer of one opens; the sentence names the limit."""
    file = TempFile()
    for opening in (TempFile, file.writer):
        with pytest.raises(SnapshotError) as error, _no_more_open_files():
            opening()
        assert str(error.value) == RAN_OUT.format("open files", "n")


def _start_no_thread() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("exhaust", "message"),
    [
        (lambda: bytes(1 << 62), RAN_OUT.format("memory", "v")),
        (lambda: pa.allocate_buffer(1 << 62), RAN_OUT.format("memory", "v")),
        (_start_no_thread, RAN_OUT.format("threads", "u")),
    ],
    ids=["memory", "memory of Arrow", "threads"],
)
def test_lack_of_memory_or_threads_is_explained(
    exhaust: Callable[[], object], message: str
) -> None:
    """What a step ran out of is one sentence that names the limit, and may pass later."""
    with pytest.raises(SnapshotError) as error, explain_host_limits():
        exhaust()
    assert (str(error.value), error.value.retryable) == (message, True)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), RuntimeError("no"), KeyError("x")]
)
def test_explain_host_limits_passes_other_errors_through(error: Exception) -> None:
    """Any other error is the error that it was."""
    with pytest.raises(type(error)) as raised, explain_host_limits():
        raise error
    assert raised.value is error


_FLATTEN_ON_A_FULL_DISK = """
import os, tempfile
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import decode_raw, flatten
from randusers_assets_tests.builders import raw_users_of, users

raw = raw_users_of(users(12_000))
tempfile.tempdir = os.environ["FULL"]
try:
    flatten(decode_raw(raw))
except SnapshotError as error:
    print(error)
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare gives a disk of one's own")
def test_disk_full_is_explained_on_a_real_disk(tmp_path: Path) -> None:
    """On a disk of 256 kB, flattening fails with that message, and with nothing on stderr."""
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    script = 'mount -t tmpfs -o size=256k none "$FULL" && exec "$@"'
    done = subprocess.run(  # noqa: S603  # this interpreter
        [*shell, script, "sh", sys.executable, "-W", "error", "-c", _FLATTEN_ON_A_FULL_DISK],
        env={**os.environ, "FULL": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip("this machine lets no user mount a disk of their own")
    assert (done.stdout, done.stderr) == (f"{tmp_path}: {FULL}\n", "")
