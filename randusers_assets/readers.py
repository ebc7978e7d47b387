"""Processes that read pages, so that the one that fetches them has its time for fetching."""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from types import TracebackType

import dagster as dg

from randusers_assets import pages
from randusers_assets.pages import Page

# A page of 500 users in one piece; the most that Linux lets anyone have.
PIPE_BYTES = 1 << 20


class PageReaders:
    """A process a processor, `at_most` so many; each ends with this one, also after `kill -9`."""

    def __init__(self, at_most: int) -> None:
        # What this process can import, they can.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.processes = [
            subprocess.Popen(  # noqa: S603  # this interpreter, this module
                [sys.executable, "-c", f"from {pages.__name__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                pipesize=PIPE_BYTES,
            )
            for _ in range(min(at_most, os.cpu_count() or 1))
        ]
        self._idle = queue.SimpleQueue[subprocess.Popen[bytes]]()
        for process in self.processes:
            self._idle.put(process)

    def __enter__(self) -> "PageReaders":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for process in self.processes:
            # One that was killed did not take all that was written to it.
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(kind, error, at)

    def read(self, body: bytes) -> Page:
        """`read_page` in the next process that is idle.

        Raises:
            Refused, Unreadable: as `read_page`.
            dagster.Failure: the process is gone.
        """
        process = self._idle.get()
        assert process.stdin is not None  # noqa: S101  # pipes were asked for
        assert process.stdout is not None  # noqa: S101
        try:
            pickle.dump(body, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            answer = pickle.load(process.stdout)  # noqa: S301  # written by `pages.main`
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            process.kill()
            raise dg.Failure(
                f"A process that reads pages ended (status {process.wait()}): see this run's"
                " standard error, and whether the machine ran out of memory; then run again."
            ) from error
        finally:
            self._idle.put(process)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]  # pickle is untyped
