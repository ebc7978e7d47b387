"""Worker processes that each download and decode a share of the pages, one per processor."""

import contextlib
import fcntl
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import cycle
from subprocess import PIPE, Popen

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import ApiClient, prefetch
from randusers_assets.pipeline.fetch.pages import Page

PIPE_BYTES = 1 << 20  # two pages of 500 users; the most that Linux allows everyone by default
# Keep freed memory in the process: allocating it anew for each page took 7 % of the time. One heap
# for all threads, of which one decodes: with a heap each a worker takes 7 MB more.
_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}


class Workers(contextlib.AbstractContextManager["Workers"]):
    """Processes that share a client's concurrency, deadline and pace, and end with this one."""

    def __init__(self, client: ApiClient) -> None:
        self.client, api = client, client.api
        count = min(api.concurrency, os.cpu_count() or 1)
        # What this process can import, they can.
        environment = {**os.environ, **_MALLOC, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", f"from {__name__} import main; main()"]
        self.processes: list[Popen[bytes]] = []
        for place in range(count):
            process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment)  # noqa: S603  # this interpreter, this module
            self.processes.append(process)
            # Optional: a system may refuse a larger pipe, and macOS cannot set the size.
            assert process.stdout is not None  # noqa: S101  # a pipe was asked for
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            share = replace(api, concurrency=len(range(place, api.concurrency, count)))
            left = client.deadline - time.monotonic()
            self._send(process, (share, client.contract, left, count))

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()  # it holds no state, and may be waiting for an answer
            # A killed process may leave part of our writes in the pipe.
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(None, None, None)

    def pages(self, numbers: Iterable[int], limit: int) -> Generator[Page, None, None]:
        """Yield pages in order, as `ApiClient.pages` does; the processes take turns."""

        def request(number: int, process: Popen[bytes]) -> Callable[[], Page]:
            self._send(process, (number, limit))
            return partial(self._receive, process)

        results = map(request, numbers, cycle(self.processes))
        return prefetch(results, 2 * self.client.api.concurrency)

    def _send(self, process: Popen[bytes], what: object) -> None:
        assert process.stdin is not None  # noqa: S101  # a pipe was asked for
        # A process that died is reported when its answer is read.
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(what, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()

    def _receive(self, process: Popen[bytes]) -> Page:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            answer, tally = pickle.load(process.stdout)  # noqa: S301  # written by `main`
        except (EOFError, pickle.UnpicklingError) as error:
            process.kill()
            raise SnapshotError(
                f"A worker process died (status {process.wait()}): see this run's standard error,"
                " and whether the machine ran out of memory; then run again.",
                retryable=True,
            ) from error
        self.client.count(tally)
        if isinstance(answer, SnapshotError):
            raise answer
        return answer  # type: ignore[no-any-return]  # pickle is untyped


def main() -> None:
    """Answer the page requests on standard input, in order, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    api, contract, left, processes = pickle.load(sys.stdin.buffer)  # noqa: S301  # written by `Workers`
    client = ApiClient(api, contract)
    client.deadline, client.processes = time.monotonic() + left, processes
    pages: queue.SimpleQueue[Future[Page]] = queue.SimpleQueue()

    def take(request: Callable[[int, int], "Future[Page]"]) -> None:
        with contextlib.suppress(EOFError):
            while True:
                pages.put(request(*pickle.load(sys.stdin.buffer)))  # noqa: S301  # likewise
        os._exit(0)  # nobody waits for the pending downloads any more

    # Under PYTHONUNBUFFERED `sys.stdout` loses the rest of a write that a signal cuts short.
    with (
        client.page_requests() as request,
        os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as answers,
    ):
        threading.Thread(target=take, args=[request], daemon=True).start()
        while True:
            try:
                answer: Page | SnapshotError = pages.get().result()
            except SnapshotError as error:
                answer = error
            pickle.dump((answer, client.take_tally()), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
