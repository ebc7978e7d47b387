"""Real worker processes: what they answer, how they share a limit, and that they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch import workers as fetch_workers
from randusers_assets.pipeline.fetch.client import Api, ApiClient
from randusers_assets.pipeline.fetch.workers import Workers
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.fetch.serving import AlteredApi, fault, keys_of, on
from randusers_assets_tests.sandbox.processes import wait_until_gone
from randusers_sandbox.api import Answer, ApiSimulator, generated_users

PAGES = 40


@contextmanager
def workers_of(simulator: ApiSimulator, concurrency: int = 4, token: str = "") -> Iterator[Workers]:
    """Workers that download from the simulator."""
    api = Api(simulator.url, concurrency=concurrency, deadline_seconds=patience(), token=token)
    with ApiClient(api, CONTRACT) as client, Workers(client) as workers:
        yield workers


@pytest.mark.parametrize("pipe_bytes", [fetch_workers.PIPE_BYTES, 2**31 - 1])
def test_workers_give_every_page_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipe_bytes: int
) -> None:
    """Whichever process had each page, and also where the system allows no larger pipe."""
    monkeypatch.setattr(fetch_workers, "PIPE_BYTES", pipe_bytes)  # 2 GiB are refused to root too
    with ApiSimulator(generated_users(2 * PAGES, tmp_path)) as api, workers_of(api) as workers:
        assert keys_of(workers, PAGES) == [[n, n + 1] for n in range(1, 2 * PAGES, 2)]


@pytest.mark.parametrize("concurrency", [1, 2, 3, 5])
def test_workers_share_the_concurrency(tmp_path: Path, concurrency: int) -> None:
    """Together they download as many pages at once as this process would, and no more."""
    users = generated_users(PAGES, tmp_path)
    slow = AlteredApi(users, hold_until=concurrency, latency_seconds=0.02)
    with slow as api, workers_of(api, concurrency) as workers:
        keys_of(workers, PAGES, limit=1)
    assert api.most == concurrency


def test_workers_share_the_rate_limit(tmp_path: Path) -> None:
    """Under a limit of ten requests a second no worker gets a 429."""
    with (
        AlteredApi(generated_users(20, tmp_path), rate_limit=10, window_seconds=1) as api,
        workers_of(api, concurrency=2) as workers,
    ):
        assert keys_of(workers, 20, limit=1) == [[number] for number in range(1, 21)]
    assert {answer.status for answer in api.answers} == {200}


def test_workers_sign_in_with_the_token(tmp_path: Path) -> None:
    """Each worker gets it through its pipe, and not from its command line."""
    users, token = generated_users(PAGES, tmp_path), "s3cr3t"
    sent: set[str | None] = set()

    class Noted(ApiSimulator):
        def respond(self, target: str, headers: Mapping[str, str]) -> Answer:
            sent.add(headers.get("authorization"))
            return super().respond(target, headers)

    with Noted(users) as api, workers_of(api, token=token) as workers:
        assert len(keys_of(workers, PAGES, limit=1)) == PAGES
        assert all(token not in str(process.args) for process in workers.processes)
    assert sent == {f"Bearer {token}"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "?page=7&limit=1 answered HTTP 404: check RANDUSERS_API_URL."),
        (429, ": the next try would be in 900 s, past the deadline: run again later."),
    ],
)
def test_workers_fail_with_the_message_of_the_page(
    tmp_path: Path, status: int, message: str
) -> None:
    """What a worker cannot download is raised here, with whether a retry may help."""
    alter = on(7, fault(status, Retry_After="899.5"))
    with AlteredApi(generated_users(PAGES, tmp_path), alter) as api, workers_of(api) as workers:
        with pytest.raises(SnapshotError) as failed:
            keys_of(workers, PAGES, limit=1)
        said = str(failed.value).replace(f" of {patience():.0f} s", "")
        assert said == f"{api.url}{message}"
    assert failed.value.retryable is (status == 429)


def test_workers_start_without_dagster() -> None:
    """A worker does not import what takes the most time to."""
    script = (
        "import sys, randusers_assets.pipeline.fetch.workers; sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603  # this interpreter


def test_workers_that_died_are_named_with_their_status(tmp_path: Path) -> None:
    """If the machine killed workers, the message says what to look at, and to run again."""
    with ApiSimulator(generated_users(PAGES, tmp_path)) as api, workers_of(api) as workers:
        for process in workers.processes:
            process.kill()
        with pytest.raises(SnapshotError) as failed:
            keys_of(workers, PAGES, limit=1)
    assert str(failed.value) == (
        "A worker process died (status -9): see this run's standard error, and whether the machine"
        " ran out of memory; then run again."
    )
    assert failed.value.retryable


def test_workers_lose_nothing_when_they_are_stopped_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals cut long writes short; every answer is whole, also under PYTHONUNBUFFERED."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    pages, rows = 30, 2_000
    users, over = generated_users(pages * rows, tmp_path), threading.Event()
    with ApiSimulator(users) as api, workers_of(api) as workers:

        def interrupt() -> None:
            while not over.wait(0.002):
                for process in workers.processes:
                    process.send_signal(signal.SIGSTOP)
                    process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            came = 0
            for page in workers.pages(range(1, pages + 1), rows):
                came += len(page.lines)
                time.sleep(0.01)  # the pipes fill, so that writes are long
        finally:
            over.set()
            thread.join(patience())
    assert came == pages * rows


def test_workers_leave_ctrl_c_to_their_parent(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to them as well: they go on until the parent kills them."""
    with ApiSimulator(generated_users(PAGES, tmp_path)) as api, workers_of(api) as workers:
        keys_of(workers, PAGES, limit=1)  # each has started
        for process in workers.processes:
            process.send_signal(signal.SIGINT)
        assert keys_of(workers, PAGES, limit=1) == [[number] for number in range(1, PAGES + 1)]
    assert {process.returncode for process in workers.processes} == {-signal.SIGKILL}


def test_workers_end_with_the_process_that_started_them() -> None:
    """Not even `kill -9` leaves one behind."""
    script = (
        "import time\n"
        "from randusers_assets.contract import CONTRACT\n"
        "from randusers_assets.pipeline.fetch.client import Api, ApiClient\n"
        "from randusers_assets.pipeline.fetch.workers import Workers\n"
        "client = ApiClient(Api('http://127.0.0.1:9', concurrency=2), CONTRACT)\n"
        "workers = Workers(client)\n"
        "print(*(process.pid for process in workers.processes), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:  # noqa: S603  # this interpreter
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == min(2, os.cpu_count() or 1)
        parent.kill()
        wait_until_gone(dict.fromkeys(pids, "a worker"))
