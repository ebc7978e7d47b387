"""Spools keep nothing behind and name a full disk; read-ahead keeps order and ends its thread."""

import contextlib
import errno
import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named, read_ahead


def _filled(data: bytes) -> Spool:
    spool = Spool()
    with spool.writer() as file:
        file.write(data)
    return spool


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_spool_gives_back_what_was_written() -> None:
    """Size, digest and bytes are those of what was written, also of nothing."""
    for data in (b"", b"some bytes" * 300_000):
        spool = _filled(data)
        assert spool.size == len(data)
        assert spool.sha256 == hashlib.sha256(data).hexdigest()
        assert spool.reader().read() == data
    assert (Spool().size, Spool().reader().read()) == (0, b"")


def test_spool_readers_are_independent() -> None:
    """Each reader has its own position; closing one leaves the others and the spool open."""
    spool = _filled(b"0123456789")
    one, other = spool.reader(), spool.reader()
    assert one.read(4) == b"0123"
    assert other.read(2) == b"01"
    one.close()
    assert other.read() == b"23456789"
    assert spool.sha256 == hashlib.sha256(b"0123456789").hexdigest()
    assert spool.reader().read() == b"0123456789"


def test_spool_readers_seek() -> None:
    """A reader seeks from the start, from where it is and from the end, and tells."""
    reader = _filled(b"0123456789").reader()
    assert (reader.seek(7), reader.read(1)) == (7, b"7")
    assert (reader.seek(-3, os.SEEK_CUR), reader.read(1)) == (5, b"5")
    assert (reader.seek(-1, os.SEEK_END), reader.read()) == (9, b"9")
    assert reader.tell() == 10
    assert reader.read() == b""


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=50), position=st.integers(0, 60), length=st.integers(0, 60))
def test_spool_reads_at_any_place(data: bytes, position: int, length: int) -> None:
    """`read_at` is the slice of the bytes, shorter at the end."""
    assert _filled(data).read_at(position, length) == data[position : position + length]


def test_spool_can_be_read_by_threads_at_once() -> None:
    """Readers on several threads do not move each other."""
    data = bytes(range(256)) * 20_000
    spool = _filled(data)
    found: list[bool] = []

    def read() -> None:
        reader = spool.reader()
        found.append(b"".join(iter(lambda: reader.read(9973), b"")) == data)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_spool_writer_starts_anew() -> None:
    """A second writer replaces what the first one wrote."""
    spool = _filled(b"a longer text")
    with spool.writer() as file:
        file.write(b"short")
    assert spool.reader().read() == b"short"


def test_spool_leaves_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on the directory's disk but in no directory: nothing to clean up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = _filled(b"bytes")
    assert list(tmp_path.iterdir()) == []
    assert spool.size == 5


def _open_files_in(directory: Path) -> int:
    """How many descriptors of this process are open on files of a directory, unlinked or not."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own is closed by now
            links.append(str(descriptor.readlink()))
    return sum(link.startswith(f"{directory}/") for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc lists the open files")
def test_spool_is_closed_when_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last user gone, the descriptor is closed, without a ResourceWarning."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spool = _filled(b"bytes")
        reader = spool.reader()
        del spool
        assert _open_files_in(tmp_path) == 1
        assert reader.read() == b"bytes"
        del reader
        assert _open_files_in(tmp_path) == 0
    assert [one for one in caught if str(tmp_path) in str(one.message)] == []


def test_spool_refuses_a_disk_that_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for what is expected, one sentence names the directory and both figures."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(dg.Failure) as failure:
        Spool(expected_bytes=1 << 60)
    assert re.fullmatch(
        re.escape(f"{tmp_path}: the spool needs 1,152,921,504,606,846,976 bytes and ")
        + r"\d{1,3}(,\d{3})* are free: make room, or point TMPDIR to a larger disk\.",
        failure.value.description or "",
    )


def test_spool_takes_a_disk_with_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for what is expected, the spool is there, and empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert Spool(expected_bytes=1).size == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or quota is one sentence that names the directory, its cause kept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(dg.Failure) as failure, disk_full_named():
        raise OSError(number, os.strerror(number))
    assert failure.value.description == (
        f"{tmp_path}: the disk is full: make room, or point TMPDIR to a larger one."
    )
    assert isinstance(failure.value.__cause__, OSError)


def test_disk_full_named_passes_other_errors_through() -> None:
    """Any other error is the error that it was."""
    with pytest.raises(PermissionError), disk_full_named():
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(KeyError), disk_full_named():
        raise KeyError("x")


_LAY_FLAT_ON_A_FULL_DISK = """
import os, tempfile, warnings
import dagster as dg
import pyarrow as pa
from randusers_assets.pipeline.flatten import frames as snapshots
from randusers_sandbox.users import user
from randusers_assets.pipeline.storage.tempfiles import Spool

warnings.simplefilter("error")
facts = snapshots.FetchFacts(url="u", declared=9, pages=1, page_size=1, tries=1, retries=0,
                             waited_seconds=0.0, bytes=1, fetched_at="t")
raw = snapshots.RawUsers(Spool(), facts)
with raw.spool.writer() as file, pa.CompressedOutputStream(file, "zstd") as stream:
    for number in range(1, 12_001):
        stream.write(user(number) + b"\\n")
tempfile.tempdir = os.environ["FULL"]
try:
    snapshots.lay_flat(raw)
except dg.Failure as failure:
    print(failure.description)
"""


def test_lay_flat_names_a_disk_that_fills_up(tmp_path: Path) -> None:
    """On a real disk of 256 kB, laying users flat ends in the sentence, with nothing on stderr."""
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    script = 'mount -t tmpfs -o size=256k none "$FULL" && exec "$@"'
    environment = {**os.environ, "FULL": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    if (
        not shutil.which("unshare")
        or subprocess.run(  # noqa: S603  # a fixed command
            [*mount, script, "sh", "true"], env=environment, capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this machine lets no user mount a disk of their own")
    done = subprocess.run(  # noqa: S603  # this interpreter
        [*mount, script, "sh", sys.executable, "-c", _LAY_FLAT_ON_A_FULL_DISK],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (
        f"{tmp_path}: the disk is full: make room, or point TMPDIR to a larger one.\n",
        "",
    )


@settings(deadline=None, max_examples=50)
@given(
    items=st.lists(st.none() | st.integers() | st.just(()), max_size=20), depth=st.integers(1, 5)
)
def test_read_ahead_keeps_order(items: list[object], depth: int) -> None:
    """Every item comes once, in order, whatever it is; then the thread has ended."""
    assert list(read_ahead(iter(items), depth)) == items
    assert _threads() == []


def test_read_ahead_prepares_items_before_they_are_asked_for() -> None:
    """While the reader holds the first item, the thread gets on with the next ones, no further."""
    made = [threading.Event() for _ in range(10)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    with contextlib.closing(read_ahead(items(), depth=2)) as ahead:
        assert next(ahead) == 0
        # Two wait in the queue, the third in the thread's hand.
        assert made[3].wait(10)
        assert [event.is_set() for event in made[4:]] == [False] * 6
        assert list(ahead) == list(range(1, 10))


def test_read_ahead_raises_in_the_place_of_the_item() -> None:
    """What came before the exception comes first; the exception is the very one."""
    error = ValueError("third")

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    ahead = read_ahead(items())
    assert (next(ahead), next(ahead)) == (1, 2)
    with pytest.raises(ValueError, match="third") as raised:
        next(ahead)
    assert raised.value is error
    assert _threads() == []


def test_read_ahead_passes_an_exit_through() -> None:
    """Also what is no Exception reaches the reader instead of dying with the thread."""

    def items() -> Iterator[int]:
        yield from ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(read_ahead(items()))


def test_read_ahead_closed_early_ends_its_thread_and_its_source() -> None:
    """A reader that has seen enough leaves no thread, and the source runs its cleanup."""
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert len(_threads()) == 1
    ahead.close()
    assert _threads() == []
    assert closed.wait(10)


def test_read_ahead_dropped_early_ends_its_thread() -> None:
    """An exception in the reader's loop, which drops the iterator, ends the thread as well."""

    def read_some() -> None:
        for number in read_ahead(iter(range(1_000_000))):
            if number == 3:
                raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        read_some()
    assert _threads() == []


def test_read_ahead_chains() -> None:
    """One read-ahead over another keeps order, and closing the outer one ends both threads."""
    assert list(read_ahead(read_ahead(iter(range(50))))) == list(range(50))
    ahead = read_ahead(read_ahead(iter(range(1_000_000))))
    assert next(ahead) == 0
    assert len(_threads()) == 2
    ahead.close()
    del ahead
    gc.collect()
    assert _threads() == []
