"""A worker, a host or its network is lost in the middle of a run; two hosts get one day."""

import itertools
import os
import signal
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish import objects
from randusers_assets.pipeline.storage.paths import csv_path, raw_pointer_path
from randusers_assets_tests.builders import raw_users_of, users
from randusers_assets_tests.cluster.deployment import (
    DEPLOY,
    ENDED,
    Cluster,
    Hold,
    assert_published_once,
    day,
    wait_until,
)
from randusers_assets_tests.patience import patience

# After this many seconds a run whose host is lost is ended; no other run takes as long.
SECONDS = int(patience(20))
AGO = itertools.count(30)


def status_of(shared: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """How a run stands."""
    run = shared.get_run_by_id(run_id)
    assert run
    return run.status


def wait_for_end(shared: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    """How a run ended."""
    wait_until(f"run {run_id} ends", lambda: status_of(shared, run_id) in ENDED)
    return status_of(shared, run_id)


def retry_of(shared: dg.DagsterInstance, run_id: str) -> str:
    """The run that was started because this one failed."""
    own = dg.RunsFilter(tags={"dagster/parent_run_id": run_id})
    wait_until(f"run {run_id} is retried", lambda: shared.get_runs(own))
    (run,) = shared.get_runs(own)
    return run.run_id


def failure_of(shared: dg.DagsterInstance, run_id: str) -> list[str]:
    """What Dagster's daemon said as it failed a run."""
    logs = shared.all_logs(run_id, of_type={dg.DagsterEventType.RUN_FAILURE})
    return [log.get_dagster_event().message or "" for log in logs]


def wait_for_request(hold: Hold) -> None:
    """Wait until a host has sent the request that is held."""
    wait_until("a host sends the request", hold.reached.is_set)


@pytest.fixture
def date(cluster: Cluster) -> str:
    """A past day with a raw snapshot that was never published; another one for each test."""
    new = day(next(AGO))
    objects.save(cluster.store, new, raw_users_of(users(10)))
    return new


def test_killed_worker_process_fails_its_run_which_is_retried(
    cluster: Cluster, shared: dg.DagsterInstance, date: str
) -> None:
    """Celery sees that a child was killed, and Dagster's daemon fails the run without waiting."""
    with cluster.held("GET", raw_pointer_path(CONTRACT, date)) as hold:
        lost = cluster.launch(date)
        wait_for_request(hold)
        (started,) = shared.all_logs(lost, of_type={dg.DagsterEventType.STEP_START})
        os.kill(started.get_dagster_event().pid or 0, signal.SIGKILL)
        assert wait_for_end(shared, lost) is dg.DagsterRunStatus.FAILURE
    assert wait_for_end(shared, retry_of(shared, lost)) is dg.DagsterRunStatus.SUCCESS
    (said,) = failure_of(shared, lost)
    assert "Celery task failed." in said
    assert_published_once(cluster, date)


@pytest.fixture
def replaced(cluster: Cluster) -> Iterator[list[str]]:
    """Hosts to start again at the end."""
    lost: list[str] = []
    yield lost
    for host in lost:
        cluster.start_worker(host)


def test_killed_host_is_noticed_and_its_run_retried_on_the_other(
    cluster: Cluster, shared: dg.DagsterInstance, date: str, replaced: list[str]
) -> None:
    """Nobody tells that a host is gone, so its run fails when it has taken `max_runtime`."""
    pointer = raw_pointer_path(CONTRACT, date)
    with cluster.held("GET", pointer) as hold:
        lost = cluster.launch(date, SECONDS)
        wait_for_request(hold)
        host = cluster.host_at(hold.host)
        cluster.kill(host)
        replaced.append(host)
        assert wait_for_end(shared, lost) is dg.DagsterRunStatus.FAILURE
        retry = retry_of(shared, lost)
        assert wait_for_end(shared, retry) is dg.DagsterRunStatus.SUCCESS
    assert f"Exceeded maximum runtime of {SECONDS} seconds." in failure_of(shared, lost)[0]
    assert_published_once(cluster, date)


def test_host_that_was_cut_off_comes_back_and_publishes_nothing_wrong(
    cluster: Cluster, shared: dg.DagsterInstance, date: str
) -> None:
    """Its run goes on beside the retry on the other host, and S3 refuses its CSV."""
    with cluster.held("PUT", csv_path(CONTRACT, date)) as hold:
        lost = cluster.launch(date, SECONDS)
        wait_for_request(hold)
        host = cluster.host_at(hold.host)
        cluster.network.cut(host)
        try:
            assert wait_for_end(shared, lost) is dg.DagsterRunStatus.FAILURE
            assert wait_for_end(shared, retry_of(shared, lost)) is dg.DagsterRunStatus.SUCCESS
            published = cluster.store.head(csv_path(CONTRACT, date))
        finally:
            cluster.network.restore(host)
        hold.released.set()
        wait_until("S3 answers the host that was cut off", lambda: hold.statuses)
    assert set(hold.statuses) == {412}
    assert cluster.store.head(csv_path(CONTRACT, date)) == published
    assert_published_once(cluster, date)
    assert status_of(shared, lost) is dg.DagsterRunStatus.FAILURE


# dagster-celery makes its task anew for each run that is launched.
@pytest.mark.filterwarnings("ignore:Task name 'execute_job' is already registered")
def test_two_hosts_with_the_same_day_at_once_publish_it_once(
    cluster: Cluster, shared: dg.DagsterInstance, date: str
) -> None:
    """Of two runs that both found no CSV, S3 takes the first one's; the other changes nothing."""
    path = csv_path(CONTRACT, date)
    cluster.stop("daemon")
    try:
        pair = [cluster.launch(date) for _ in range(2)]
        with (
            cluster.held("PUT", path) as one,
            cluster.held("PUT", path) as other,
            WorkspaceProcessContext(
                shared, WorkspaceFileTarget([str(DEPLOY / "workspace.yaml")])
            ) as process,
        ):
            for run_id in pair:  # past the queue, which gives a day one run at a time
                shared.launch_run(run_id, process.create_request_context())
            wait_until("both hosts write", lambda: one.reached.is_set() and other.reached.is_set())
            assert one.host != other.host
            for hold in (one, other):
                hold.released.set()
            assert [wait_for_end(shared, run_id).value for run_id in pair] == ["SUCCESS"] * 2
    finally:
        cluster.go_on("daemon")
    assert sorted(one.statuses + other.statuses) == [200, 412]
    assert_published_once(cluster, date)


def test_failed_rebuild_alerts(cluster: Cluster, shared: dg.DagsterInstance) -> None:
    """A day without a raw snapshot is posted with the message of the run, and is not retried."""
    date = day(58)
    before = len(cluster.receiver.posts)
    run_id = cluster.launch(date)
    assert wait_for_end(shared, run_id) is dg.DagsterRunStatus.FAILURE
    ours = f"users_rebuild_job failed for {date}."
    posts = cluster.receiver.posts
    wait_until("the alert comes", lambda: any(ours in str(body) for *_, body in posts[before:]))
    (text,) = [str(body) for *_, body in posts[before:] if ours in str(body)]
    assert f"raw_users of {date} cannot be fetched" in text
    assert shared.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id})) == []
