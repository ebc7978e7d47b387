"""Start the UI for real, run the job through it, and open it in Chromium."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import BrowserContext, sync_playwright

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_SECONDS, RUN_SECONDS, STOP_SECONDS = 90, 90, 30

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PAGE_MILLISECONDS = 30_000

GRAPH = "/locations/randusers_assets/asset-groups/randusers/lineage"
CHECKS = "/assets/users_df?view=checks&checkDetail=users_df_emails_are_valid"

LOCATION = """{ workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def chromium() -> str | None:
    """The path of the Chromium that is installed, if one is."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None)


@contextlib.contextmanager
def browser(executable: str) -> Iterator[BrowserContext]:
    """A headless browser, in UTC, that reaches nothing but this machine."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        with contextlib.closing(launched):
            context = launched.new_context(
                viewport={"width": 1400, "height": 800}, locale="en-US", timezone_id="UTC"
            )
            context.set_default_timeout(PAGE_MILLISECONDS)
            yield context


@contextlib.contextmanager
def snapshot_served(directory: Path) -> Iterator[str]:
    """Run `dagster dev` on the sandbox, and today's snapshot in it; yield the UI's URL."""
    sandbox = command("randusers", "sandbox", "--directory", str(directory / "sandbox"), "--")
    development = ["dagster", "dev", "--host", "127.0.0.1", "--port"]
    with served(instance_home(directory), lambda port: [*sandbox, *development, str(port)]) as url:
        run_today(url)
        yield url


def command(*words: str) -> list[str]:
    """A command of this environment."""
    return [str(BIN / words[0]), *words[1:]]


@contextlib.contextmanager
def served(home: Path, arguments: Callable[[int], Sequence[str]]) -> Iterator[str]:
    """Serve the instance of `home` by a command, and yield the UI's URL once the code is loaded.

    `arguments` makes the command for a port; it gets its own process group, ended at the end.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log_path = home / "served.log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(  # noqa: S603  # this environment's own commands
            arguments(port),
            cwd=ROOT,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        ) as process,
    ):
        try:
            wait(START_SECONDS, lambda: process.poll() is not None or _loaded(url))
            if process.poll() is not None:
                raise RuntimeError(f"the UI ended: {log_path.read_text()[-2000:]}")
            yield url
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def instance_home(directory: Path) -> Path:
    """A new DAGSTER_HOME with the project's instance settings, as `make dev` makes it."""
    home = directory / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    return home


def environment(home: Path) -> dict[str, str]:
    """This environment less what names a real API, bucket, account or receiver.

    Today is the only partition, so that the pages look the same on every day.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANDUSERS_", "AWS_"))}
    return kept | {
        "DAGSTER_HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RANDUSERS_START_DATE": today(),
        # How often Dagster's daemon looks at freshness policies; 30 by default.
        "FRESHNESS_DAEMON_INTERVAL_SECONDS": "1",
    }


def today() -> str:
    """The current UTC day, which is the partition that the API can fill."""
    return datetime.now(UTC).date().isoformat()


def run_today(url: str) -> None:
    """Launch the job for the current UTC day as the UI does, and wait for its end.

    Raises:
        RuntimeError: the run was not launched or did not succeed.
    """
    job = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "randusers_assets",
        "jobName": "users_snapshot_job",
    }
    tags = [{"key": "dagster/partition", "value": today()}]
    launched = graphql(
        url,
        LAUNCH,
        run={
            "selector": job,
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {"tags": tags},
        },
    )["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(f"the run was not launched: {launched}")
    run_id = str(launched["run"]["runId"])

    def status() -> str:
        return str(graphql(url, STATUS, id=run_id)["runOrError"]["status"])

    wait(RUN_SECONDS, lambda: status() in ("SUCCESS", "FAILURE"))
    if status() != "SUCCESS":
        raise RuntimeError(f"run {run_id} failed")


def graphql(url: str, query: str, **variables: object) -> Any:  # noqa: ANN401  # JSON
    """The data that the UI's server answers to a query."""
    answer = requests.post(
        f"{url}/graphql", json={"query": query, "variables": variables}, timeout=30
    )
    answer.raise_for_status()
    return answer.json()["data"]


def _loaded(url: str) -> bool:
    try:
        entries = graphql(url, LOCATION)["workspaceOrError"]["locationEntries"]
    except (requests.ConnectionError, requests.Timeout):
        return False
    failed = [e["locationOrLoadError"] for e in entries if e["loadStatus"] == "LOADED"]
    failed = [e for e in failed if e["__typename"] == "PythonError"]
    if failed:
        raise RuntimeError(failed[0]["message"])
    return bool(entries) and all(e["loadStatus"] == "LOADED" for e in entries)


def wait(seconds: float, fact: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not, for so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
