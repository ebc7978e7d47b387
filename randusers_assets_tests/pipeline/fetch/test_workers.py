"""Real processes that fetch: what they answer, how they share a limit, and that they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from randusers_assets.pipeline.fetch import workers as fetchers
from randusers_assets.pipeline.fetch.client import Fetch, Unfetched
from randusers_assets.pipeline.fetch.workers import Fetchers
from randusers_sandbox.api import Answer, ApiSimulator, generated_users

PAGES = 40


def asked_of(api: ApiSimulator, pages: int = PAGES, concurrency: int = 4) -> list[object]:
    """The ids that processes bring in, page by page."""
    with Fetch(api.url, concurrency, 60) as fetch, Fetchers(fetch) as running:
        return [
            page.flat.rows.column("id").to_pylist()
            for page in running.pages(range(1, pages + 1), len(api.users) // pages)
        ]


def test_fetchers_bring_every_page_in_order(tmp_path: Path) -> None:
    """The pages come as they were asked for, whichever process had each."""
    with ApiSimulator(generated_users(2 * PAGES, tmp_path)) as api:
        assert asked_of(api) == [[number, number + 1] for number in range(1, 2 * PAGES, 2)]


@pytest.mark.parametrize("concurrency", [1, 2, 3, 5])
def test_fetchers_share_the_concurrency(tmp_path: Path, concurrency: int) -> None:
    """Together they hold as many pages in flight as this process would, and no more."""
    held, most, changing = 0, 0, threading.Lock()

    class Watched(ApiSimulator):
        def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
            nonlocal held, most
            with changing:
                held += 1
                most = max(most, held)
            time.sleep(0.02)
            with changing:
                held -= 1
            return super().respond(target, headers)

    with Watched(generated_users(PAGES, tmp_path)) as api:
        asked_of(api, concurrency=concurrency)
    assert most == concurrency


def test_fetchers_share_the_rate_limit(tmp_path: Path) -> None:
    """Under a limit of ten requests a second no process is told to slow down."""
    statuses: Counter[int] = Counter()

    class Noted(ApiSimulator):
        def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
            answer = super().respond(target, headers)
            statuses[answer.status] += 1
            return answer

    with Noted(generated_users(20, tmp_path), rate_limit=10, window_seconds=1) as api:
        assert asked_of(api, pages=20, concurrency=2) == [[number] for number in range(1, 21)]
    assert statuses == {200: 20}


def test_fetchers_fail_in_the_sentence_of_the_page(tmp_path: Path) -> None:
    """What one process cannot fetch is told here, with whether a later try may help."""

    class Gone(ApiSimulator):
        def answer(self, page: str | None, limit: str | None) -> Answer:
            return Answer(404, b"") if page == "7" else super().answer(page, limit)

    with Gone(generated_users(PAGES, tmp_path)) as api:
        url = api.url
        with pytest.raises(Unfetched) as failed:
            asked_of(api)
    assert str(failed.value) == (
        f"{url}?page=7&limit=1 answered HTTP 404: check RANDUSERS_API_URL."
    )
    assert failed.value.final


def test_fetchers_do_with_the_pipes_that_they_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that allows no wider pipe gives every page all the same."""
    monkeypatch.setattr(fetchers, "PIPE_BYTES", 2**31 - 1)  # refused to root as well
    with ApiSimulator(generated_users(2 * PAGES, tmp_path)) as api:
        assert len(asked_of(api)) == PAGES


def test_fetchers_start_without_dagster() -> None:
    """What a process that fetches imports is not what takes the most time to."""
    script = (
        "import sys, randusers_assets.pipeline.fetch.workers; sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603  # this interpreter


def test_fetchers_that_are_gone_are_one_sentence(tmp_path: Path) -> None:
    """Processes that the machine killed are named with their status, and what to look at."""
    with (
        ApiSimulator(generated_users(PAGES, tmp_path)) as api,
        Fetch(api.url, 4, 60) as fetch,
        Fetchers(fetch) as running,
    ):
        for process in running.processes:
            process.kill()
        with pytest.raises(Unfetched) as failed:
            list(running.pages(range(1, PAGES), 1))
    assert str(failed.value) == (
        "A process that fetches pages ended (status -9): see this run's standard error, and"
        " whether the machine ran out of memory; then run again."
    )
    assert not failed.value.final


def test_fetchers_answer_whole_when_they_are_stopped_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals cut long writes short; also where Python is told not to buffer, nothing is lost."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    pages, rows = 30, 2_000
    with (
        ApiSimulator(generated_users(pages * rows, tmp_path)) as api,
        Fetch(api.url, 4, 60) as fetch,
        Fetchers(fetch) as running,
    ):
        over = threading.Event()

        def interrupt() -> None:
            while not over.wait(0.002):
                for process in running.processes:
                    process.send_signal(signal.SIGSTOP)
                    process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            came = 0
            for page in running.pages(range(1, pages + 1), rows):
                came += len(page.flat)
                time.sleep(0.01)  # the pipes fill, so that writes are long
        finally:
            over.set()
            thread.join()
    assert came == pages * rows


def test_fetchers_end_with_the_process_that_started_them() -> None:
    """Not even `kill -9` leaves one behind."""
    script = (
        "import time\n"
        "from randusers_assets.pipeline.fetch.workers import Fetchers\n"
        "from randusers_assets.pipeline.fetch.client import Fetch\n"
        "running = Fetchers(Fetch('http://127.0.0.1:9', 2, 60))\n"
        "print(*(process.pid for process in running.processes), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:  # noqa: S603  # this interpreter
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == min(2, os.cpu_count() or 1)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 10
        while (left := [*filter(is_alive, pids)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left == []


def is_alive(pid: int) -> bool:
    """Whether a process with the id is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
