"""How long a person waits after a click in Dagster's UI, by the GraphQL that the UI sends."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from benchmarks import report
from benchmarks.alone import publish
from benchmarks.measure import BenchmarkError
from randusers_sandbox.s3 import free_port
from randusers_sandbox.supervisor import end_group

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS, POLL_SECONDS, PAUSE_SECONDS = 300, 0.2, 2
ASSETS = """
{assetNodes {assetKey {path} of: assetChecksOrError {... on AssetChecks {checks {name}}}}}"""
LAUNCH = """
mutation($click: String!, $day: String!, $job: String!, $assets: [AssetKeyInput!],
         $checks: [AssetCheckHandleInput!]) {
  launchPipelineExecution(executionParams: {
    mode: "default", selector: {
      repositoryLocationName: "randusers_assets", repositoryName: "__repository__",
      pipelineName: $job, assetSelection: $assets, assetCheckSelection: $checks},
    executionMetadata: {tags: [
      {key: "dagster/partition", value: $day}, {key: "click", value: $click}]}
  }) {... on Error {message}}
}"""
BACKFILL = """
mutation($click: String!, $days: [String!]!, $assets: [AssetKeyInput!]!) {
  launchPartitionBackfill(backfillParams: {
    assetSelection: $assets, partitionNames: $days, tags: [{key: "click", value: $click}]
  }) {... on Error {message}}
}"""
RUNS = """
query($click: String!) {
  runsOrError(filter: {tags: [{key: "click", value: $click}]}) {... on Runs {results {
    status stats {... on RunStatsSnapshot {enqueuedTime launchTime startTime endTime}}}}}
}"""


def clicks(rounds: int) -> list[dict[str, Any]]:
    """Click each button so many times, every other round in reverse, after one warm-up."""
    days, today = publish(report.PAST_DAYS), datetime.now(UTC).date().isoformat()
    with served(start_date=days[0]) as url:
        nodes = wait_for(lambda: ask(url, ASSETS)["assetNodes"])
        assets = [node["assetKey"] for node in nodes]
        checks = [{**node, **check} for node in nodes for check in node.pop("of")["checks"]]
        one = [check for check in checks if check["name"] == "emails_are_valid"]
        every = {"day": today, "job": "__ASSET_JOB", "assets": assets, "checks": checks}
        buttons: list[tuple[str, dict[str, Any]]] = [
            (report.JOB, {"day": today, "job": "users_snapshot_job"}),
            (report.ALL, every),
            (report.BACKFILL, {"days": days, "assets": assets}),
            (report.CHECK, {**every, "assets": [], "checks": one}),
        ]
        click(url, *buttons[0])
        turns = [buttons[:: 1 if number % 2 == 0 else -1] for number in range(rounds)]
        return [click(url, *button) for turn in turns for button in turn]


def click(url: str, name: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Click once; the seconds to the end of the last run, and those of the median run's parts."""
    days = variables.get("days", [])
    time.sleep(PAUSE_SECONDS)  # the process of the run before ends
    own, clicked = uuid.uuid4().hex, time.time()
    (refused,) = ask(url, BACKFILL if days else LAUNCH, click=own, **variables).values()
    if refused:
        raise BenchmarkError(f"{name} was not launched: {refused['message']}")

    def ended() -> list[dict[str, float]]:
        runs = ask(url, RUNS, click=own)["runsOrError"]["results"]
        states = [run["status"] for run in runs]
        if {"FAILURE", "CANCELED"}.intersection(states):
            raise BenchmarkError(f"{name}: a run did not end in SUCCESS.")
        return [run["stats"] for run in runs] if states == ["SUCCESS"] * len(days or [1]) else []

    stats = sorted(wait_for(ended), key=lambda run: run["endTime"] - run["launchTime"])
    median, first = stats[len(stats) // 2], min(run["launchTime"] for run in stats)
    return {
        "click": name,
        "seconds": max(run["endTime"] for run in stats) - clicked,
        # A backfill queues its runs some time after the click.
        "queue": first - (clicked if days else median["enqueuedTime"]),
        "start": median["startTime"] - median["launchTime"],
        "steps": median["endTime"] - median["startTime"],
    }


@contextlib.contextmanager
def served(start_date: str) -> Iterator[str]:
    """Serve the UI as `make dev` does, over this process's API and bucket; yield its URL."""
    port = str(free_port())
    dagster, quiet = str(Path(sys.executable).with_name("dagster")), subprocess.DEVNULL
    argv = [dagster, "dev", "--workspace", str(ROOT / "workspace.yaml"), "--port", port]
    with tempfile.TemporaryDirectory() as home:
        shutil.copy(ROOT / "dagster.yaml", home)
        env = {**os.environ, "DAGSTER_HOME": home, "RANDUSERS_START_DATE": start_date}
        with subprocess.Popen(  # noqa: S603 - this environment's own command
            argv, cwd=home, env=env, stdout=quiet, stderr=quiet, process_group=0
        ) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                end_group(process)


def ask(url: str, query: str, **variables: object) -> Any:  # noqa: ANN401  # JSON
    """The data that the UI's server answers to a query."""
    body = {"query": query, "variables": variables}
    answer = requests.post(f"{url}/graphql", json=body, timeout=60).json()
    if "errors" in answer:
        raise BenchmarkError(f"The UI's server answered {answer['errors']}")
    return answer["data"]


def wait_for(fact: Callable[[], Any]) -> Any:  # noqa: ANN401  # JSON
    """Wait until the UI's server answers something that is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):  # it starts
            if found := fact():
                return found
        time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"The UI's server took more than {PATIENCE_SECONDS} s.")
