"""Real reader processes: what they answer, and that they end."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest

from randusers_assets.pages import Refused, Unreadable, read_page
from randusers_assets.readers import PageReaders
from randusers_assets.sandbox.users import user
from randusers_assets_tests.test_pages import page_body

REFUSAL = b'{"data":null,"success":false,"message":"Out of order"}'


@pytest.fixture(scope="module")
def readers() -> Iterator[PageReaders]:
    """Processes that are running."""
    with PageReaders(8) as running:
        yield running


def test_readers_read_what_read_page_reads(readers: PageReaders) -> None:
    """Many threads at once get each the page of their own body."""
    bodies = [page_body(user(number), user(number + 1)) for number in range(1, 30)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(readers.read, bodies)) == [read_page(body) for body in bodies]


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [(REFUSAL, Refused, "^Out of order$"), (b"<html>", Unreadable, "^not JSON$")],
)
def test_readers_raise_what_read_page_raises(
    readers: PageReaders, body: bytes, kind: type[Exception], says: str
) -> None:
    """A page that cannot be read is told here, and the process reads on."""
    with pytest.raises(kind, match=says):
        readers.read(body)
    assert readers.read(page_body(user(1))) == read_page(page_body(user(1)))


def test_readers_that_are_gone_are_one_sentence() -> None:
    """Processes that the machine killed are named with their status, and what to look at."""
    with PageReaders(8) as killed:
        for process in killed.processes:
            process.kill()
        sentence = (
            r"^A process that reads pages ended \(status -9\): see this run's standard error, and"
            r" whether the machine ran out of memory; then run again\.$"
        )
        with pytest.raises(dg.Failure) as failed:
            killed.read(page_body(user(1)))
    assert failed.match(sentence)


def test_readers_end_with_the_process_that_started_them() -> None:
    """Not even `kill -9` leaves one behind."""
    script = (
        "import sys, time; from randusers_assets.readers import PageReaders; r = PageReaders(1);"
        "print(*(p.pid for p in r.processes), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:  # noqa: S603  # this interpreter
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 1
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        # The readers hold the other end of this pipe until they end.
        assert parent.stdout.read() == b""
