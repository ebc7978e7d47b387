"""Start the UI for real, run the job through it, and open it in Chromium."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from dagster_aws.s3 import S3Resource
from playwright.sync_api import Page, ViewportSize, sync_playwright

from randusers_assets.pipeline.publish.objects import save
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import raw_users_of, users
from randusers_assets_tests.patience import patience
from randusers_sandbox.s3 import ACCESS_KEY, REGION
from randusers_sandbox.supervisor import BUCKET
from randusers_sandbox.users import user

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGE_MILLISECONDS = patience(60_000)
# In the directory of a served UI: what its command printed.
SERVED_LOG = "served.log"
USERS = 20
INVALID_EMAIL = "ada at example.com"

GRAPH = "/locations/randusers_assets/asset-groups/randusers/lineage"
CHECKS = "/assets/users_df?view=checks&checkDetail=emails_are_valid"

LAUNCH = """mutation($day: String!) { launchRun(executionParams: { selector: {
    jobName: "users_snapshot_job", repositoryName: "__repository__",
    repositoryLocationName: "randusers_assets" },
    executionMetadata: { tags: [{ key: "dagster/partition", value: $day }] } }) {
    ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status stats {
    ... on RunStatsSnapshot { enqueuedTime launchTime startTime endTime } } } } }"""


def chromium() -> str | None:
    """The path of the Chromium that is installed, if one is."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, found), None)


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A page of a headless browser, in UTC, that reaches nothing but this machine."""
    local = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=[local]) as launched,
    ):
        size: ViewportSize = {"width": 1400, "height": 800}
        page = launched.new_page(viewport=size, locale="en-US", timezone_id="UTC")
        page.set_default_timeout(PAGE_MILLISECONDS)
        yield page


@contextlib.contextmanager
def snapshot_served(directory: Path) -> Iterator[str]:
    """`make dev` in this directory, after one successful run for today."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, directory)
    makefile = ("-f", str(ROOT / "Makefile"), "-o", ".venv/installed")  # as it is: no installation
    with served(directory, "make", *makefile, "dev", "PORT=") as url:
        run_day(url, today(), "SUCCESS")
        yield url


@contextlib.contextmanager
def closed_gate_served(directory: Path) -> Iterator[str]:
    """The UI after one run over users of whom one has no valid email.

    Of the three days before, only the second has a raw snapshot.
    """
    sent = [json.loads(user(number)) for number in range(1, USERS + 1)]
    sent[0]["email"] = INVALID_EMAIL
    (file := directory / "users.json").write_text(json.dumps(sent))
    (home := directory / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    sandbox = ("randusers", "sandbox", "--directory", str(directory), "--users-file", str(file))
    dev = ("dagster", "dev", "--workspace", str(ROOT / "workspace.yaml"), "--port=")
    environment = {"DAGSTER_HOME": str(home), "RANDUSERS_START_DATE": past_day(3)}
    with served(directory, *sandbox, "--", *dev, **environment) as url:
        store_raw(directory, past_day(2))
        run_day(url, today(), "FAILURE")
        yield url


@contextlib.contextmanager
def served(directory: Path, *words: str, **environment: str) -> Iterator[str]:
    """Serve the UI by a command in a directory, whose last word lacks the port; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (
        (directory / SERVED_LOG).open("wb") as log,
        subprocess.Popen(  # noqa: S603  # this environment's own commands
            [*words[:-1], f"{words[-1]}{port}"],
            cwd=directory,
            env=_environment() | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        ) as process,
    ):
        try:
            wait(lambda: process.poll() is not None or answers(url))
            if process.poll() is not None:
                raise RuntimeError(f"the UI ended: {(directory / SERVED_LOG).read_text()[-2000:]}")
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience())
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """This environment with nothing real in it; by itself it makes today the only partition."""
    dropped = ("RANDUSERS_", "AWS_", "DAGSTER_", "MAKE", "PYTHONWARNINGS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RANDUSERS_START_DATE": today(),
        # How often Dagster's daemon looks at freshness policies; 30 by default.
        "FRESHNESS_DAEMON_INTERVAL_SECONDS": "1",
    }


def today() -> str:
    """The current UTC day, which is the partition that the API can fill."""
    return datetime.now(UTC).date().isoformat()


def past_day(ago: int) -> str:
    """A UTC day so many days ago."""
    return (datetime.now(UTC).date() - timedelta(days=ago)).isoformat()


def store_raw(directory: Path, date: str) -> None:
    """Store a raw snapshot of a day in the local S3 of a served UI."""
    (url,) = re.findall(rf"bucket {BUCKET}, at (\S+)\.", (directory / SERVED_LOG).read_text())
    s3 = S3Resource(
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=ACCESS_KEY,
    )
    save(SnapshotStore(s3_resource=s3, bucket=BUCKET).store, date, raw_users_of(users(USERS)))


def run_day(url: str, day: str, status: str) -> None:
    """Run the job for a day; RuntimeError if it does not end in this status."""
    ended = wait_for_end(url, launch(url, day))["status"]
    if ended != status:
        raise RuntimeError(f"the run ended in {ended}")


def launch(url: str, day: str) -> str:
    """Launch the job for a day as the UI does; its run id."""
    launched = graphql(url, LAUNCH, day=day)["launchRun"]
    if "run" not in launched:
        raise RuntimeError(f"the run was not launched: {launched}")
    return str(launched["run"]["runId"])


def wait_for_end(url: str, run_id: str) -> Any:  # noqa: ANN401  # JSON
    """Wait until a run has ended; its status, and when it was queued, launched and so on."""

    def ended() -> bool:
        now = graphql(url, RUN, id=run_id)["runOrError"]
        return now["status"] in ("SUCCESS", "FAILURE") and now["stats"]["endTime"] is not None

    wait(ended)
    return graphql(url, RUN, id=run_id)["runOrError"]


def graphql(url: str, query: str, **variables: object) -> Any:  # noqa: ANN401  # JSON
    """The data that the UI's server answers to a query."""
    body = {"query": query, "variables": variables}
    answer = requests.post(f"{url}/graphql", json=body, timeout=patience())
    answer.raise_for_status()
    return answer.json()["data"]


def answers(url: str) -> bool:
    """Whether the UI is served, which it is once the code is loaded."""
    try:
        return requests.get(f"{url}/server_info", timeout=patience()).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


def wait(fact: Callable[[], bool]) -> None:
    """Wait until something is so; TimeoutError if it is not in time."""
    seconds = patience(300)
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.2)
