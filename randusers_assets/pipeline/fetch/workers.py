"""Processes that each fetch and read a share of the pages, so that no processor is idle."""

import contextlib
import fcntl
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from itertools import cycle
from types import TracebackType

from randusers_assets.pipeline.fetch.client import Fetch, Unfetched
from randusers_assets.pipeline.fetch.pages import Page

# Two pages of 500 users as they are answered; the most that Linux lets anyone have by default.
PIPE_BYTES = 1 << 20

# The pages' memory stays with the process from page to page; to get it anew took 7 % of the time.
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}


class Fetchers:
    """A process a processor, which share a fetch's concurrency, deadline and pace.

    Each ends with this one, also after `kill -9`.
    """

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        count = min(fetch.concurrency, os.cpu_count() or 1)
        shares = [len(range(place, fetch.concurrency, count)) for place in range(count)]
        # What this process can import, they can.
        environment = {**os.environ, **_KEPT_MEMORY, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.processes = [
            subprocess.Popen(  # noqa: S603  # this interpreter, this module
                [sys.executable, "-c", f"from {__name__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for _ in shares
        ]
        left = fetch.deadline - time.monotonic()
        for process, share in zip(self.processes, shares, strict=True):
            # A help, not a need: a system may allow no wider pipe, and macOS knows none.
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            settings = {
                "url": fetch.url,
                "concurrency": share,
                "deadline_seconds": fetch.deadline_seconds,
                "left": left,
                "processes": count,
            }
            self._tell(process, settings)

    def __enter__(self) -> "Fetchers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()  # it has nothing to lose, and may be waiting for an answer
            # One that was killed did not take all that was written to it.
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(kind, error, at)

    def pages(self, numbers: Iterable[int], limit: int) -> Generator[Page, None, None]:
        """Yield pages in order, as `Fetch.pages` does; the processes take turns.

        Raises:
            Unfetched: as `Fetch.page`, or a process is gone.
        """
        asked: deque[subprocess.Popen[bytes]] = deque()
        for number, process in zip(numbers, cycle(self.processes), strict=False):
            self._tell(process, (number, limit))
            asked.append(process)
            if len(asked) >= 2 * self.fetch.concurrency:
                yield self._answer(asked.popleft())
        while asked:
            yield self._answer(asked.popleft())

    def _tell(self, process: subprocess.Popen[bytes], what: object) -> None:
        assert process.stdin is not None  # noqa: S101  # a pipe was asked for
        # One that is gone is found out as its answer is missed.
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(what, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()

    def _answer(self, process: subprocess.Popen[bytes]) -> Page:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            answer, tally = pickle.load(process.stdout)  # noqa: S301  # written by `main`
        except (EOFError, pickle.UnpicklingError) as error:
            process.kill()
            raise Unfetched(
                f"A process that fetches pages ended (status {process.wait()}): see this run's"
                " standard error, and whether the machine ran out of memory; then run again."
            ) from error
        self.fetch.count(tally)
        if isinstance(answer, Unfetched):
            raise answer
        return answer  # type: ignore[no-any-return]  # pickle is untyped


def main() -> None:
    """Fetch and read the pages that standard input asks for, in order, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked ends this one
    fetch = Fetch(**pickle.load(sys.stdin.buffer))  # noqa: S301  # written by `Fetchers`
    pages: queue.SimpleQueue[Future[Page]] = queue.SimpleQueue()

    def take(ask: Callable[[int, int], "Future[Page]"]) -> None:
        with contextlib.suppress(EOFError):
            while True:
                pages.put(ask(*pickle.load(sys.stdin.buffer)))  # noqa: S301  # likewise
        os._exit(0)  # whatever is in flight, nobody waits for it any more

    # Under PYTHONUNBUFFERED `sys.stdout` loses the rest of a write that a signal cuts short.
    with fetch.asking() as ask, os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as answers:
        threading.Thread(target=take, args=[ask], daemon=True).start()
        while True:
            try:
                answer: Page | Unfetched = pages.get().result()
            except Unfetched as unfetched:
                answer = unfetched
            pickle.dump((answer, fetch.counted()), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
