"""Past days rebuilt by a backfill on two hosts."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish import objects
from randusers_assets.pipeline.storage.paths import csv_path, raw_pointer_path
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import raw_users_of, users
from randusers_assets_tests.cluster.deployment import (
    BACKFILL,
    ENDED,
    GOING_ON,
    HOSTS,
    START_TIMEOUT,
    Cluster,
    assert_published_once,
    day,
    store_at,
    wait_until,
)
from randusers_assets_tests.pipeline.publish.bucket import (
    BAD_EMAIL,
    LENIENT,
    publish_users,
    state_of,
)
from randusers_assets_tests.sandbox.processes import randusers
from randusers_assets_tests.ui.serving import graphql
from randusers_sandbox.s3 import local_s3

# Yesterday may still be fetched for an hour.
DAYS = [day(ago) for ago in range(21, 1, -1)]
MORE_DAYS = [day(ago) for ago in range(27, 24, -1)]

State = Mapping[str, tuple[str, bytes]]


def publish_and_fetch_again(store: Store) -> None:
    """Each day published, and then a raw snapshot of it that is not published yet."""
    for number, date in enumerate(DAYS):
        publish_users(store, date, users(30 + number), LENIENT)
        objects.save(store, date, raw_users_of(users(31 + number, email=BAD_EMAIL)))


def less_time_and_run(store: Store) -> State:
    """Every object of the bucket, less when it was published, and by which run."""
    return {
        key: (kind, re.sub(rb'"run_id": "[^"]*"', b"", body))
        for key, (kind, body) in state_of(store).items()
    }


def launch_backfill(cluster: Cluster, days: list[str]) -> dg.RunsFilter:
    """Rebuild days by one backfill, as the UI does; how to find its runs."""
    made = graphql(cluster.url, BACKFILL, days=days)["launchPartitionBackfill"]
    return dg.RunsFilter(tags={"dagster/backfill": made["backfillId"]})


@dataclass
class Backfilled:
    """What a backfill left: its runs, and the bucket before and after it."""

    runs: list[dg.RunRecord]
    before: State
    after: State


@pytest.fixture(scope="module")
def backfilled(cluster: Cluster, shared: dg.DagsterInstance) -> Backfilled:
    """The days rebuilt by one backfill, whose first runs take longer than a run may wait."""
    publish_and_fetch_again(cluster.store)
    before = less_time_and_run(cluster.store)
    pointers = [raw_pointer_path(CONTRACT, date) for date in DAYS]
    with cluster.held("GET", *pointers, every_host=True) as hold:
        own = launch_backfill(cluster, DAYS)
        wait_until("all runs are queued", lambda: shared.get_runs_count(own) >= len(DAYS))
        queued = time.monotonic()
        wait_until("a run has begun", hold.reached.is_set)
        waited = queued + START_TIMEOUT + 5
        wait_until("the queue is old enough", lambda: time.monotonic() > waited)
    ended = dg.RunsFilter(tags=own.tags, statuses=ENDED)
    wait_until("the backfill ends", lambda: shared.get_runs_count(ended) >= len(DAYS), seconds=300)
    runs = list(shared.get_run_records(own))
    return Backfilled(runs, before, less_time_and_run(cluster.store))


def test_backfill_on_two_hosts_gives_the_bytes_of_one_machine(
    cluster: Cluster, backfilled: Backfilled, tmp_path: Path
) -> None:
    """Every object is the same but for time and run id: CSV, Parquet, rejects and receipts."""
    with local_s3(tmp_path / "s3") as server:
        server.create_bucket(cluster.store.bucket)
        alone = store_at(server.endpoint_url)
        publish_and_fetch_again(alone)
        assert less_time_and_run(alone) == backfilled.before
        there = {**cluster.environment, "AWS_ENDPOINT_URL_S3": server.endpoint_url}
        done = randusers("rebuild", "--from", DAYS[0], "--to", DAYS[-1], **there)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("published  ") == len(DAYS)
        assert less_time_and_run(alone) == backfilled.after
    for path in (csv_path(CONTRACT, date) for date in DAYS):
        assert backfilled.after[path] != backfilled.before[path]
    shares = [cluster.log_of(host).count("RUN_SUCCESS") for host in HOSTS]
    assert min(shares) >= 1
    assert sum(shares) == len(DAYS)


def test_queue_longer_than_the_start_timeout_loses_no_run(backfilled: Backfilled) -> None:
    """What waits in Dagster's queue is not in Redis, so no run is failed for waiting."""
    waited = [(r.start_time or 0) - r.create_timestamp.timestamp() for r in backfilled.runs]
    assert max(waited) > START_TIMEOUT
    assert Counter(run.dagster_run.status.value for run in backfilled.runs) == {"SUCCESS": 20}


def test_idle_worker_holds_no_temp_file(
    cluster: Cluster, shared: dg.DagsterInstance, backfilled: Backfilled
) -> None:
    """The process that ran the days still waits for the next, and has given their disk back."""
    steps = {dg.DagsterEventType.STEP_START}
    found = (shared.all_logs(run.dagster_run.run_id, of_type=steps) for run in backfilled.runs)
    workers = {log.get_dagster_event().pid for logs in found for log in logs}
    assert len(workers) == len(HOSTS)
    for worker in workers:
        files = Path(f"/proc/{worker}/fd").iterdir()
        held = [str(file.readlink()) for file in files]
        # A file without a name, such as TMPDIR/#1234 (deleted); Celery's own once had names.
        assert [
            file for file in held if file.startswith(str(cluster.directory)) and "/#" in file
        ] == []


def test_second_daemon_publishes_nothing_else(
    cluster: Cluster, shared: dg.DagsterInstance, backfilled: Backfilled
) -> None:
    """Dagster may give a day to both daemons; each day has one CSV, its receipt and no other."""
    assert backfilled.runs
    for date in MORE_DAYS:
        objects.save(cluster.store, date, raw_users_of(users(30)))
    cluster.start_daemon("second daemon")
    wait_until("both are there", lambda: "Another BACKFILL" in cluster.log_of("second daemon"))
    own = launch_backfill(cluster, MORE_DAYS)
    wait_until(
        "the days are published and no run goes on",
        lambda: (
            all(cluster.store.head(csv_path(CONTRACT, date)) for date in MORE_DAYS)
            and not shared.get_runs(dg.RunsFilter(tags=own.tags, statuses=GOING_ON))
        ),
        seconds=300,
    )
    cluster.kill("second daemon")
    for date in MORE_DAYS:
        assert_published_once(cluster, date)
