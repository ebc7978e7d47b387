"""Alerts watch every run of the code location, however it was started, and the freshness policy."""

from collections.abc import Iterator

import dagster as dg
import pytest
import tenacity
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.utils import make_new_run_id
from dagster._record import copy

from randusers_assets import notify
from randusers_assets.automation import daily
from randusers_assets.notify import WEBHOOK
from randusers_assets.sensors import (
    users_csv_overdue_alert,
    users_snapshot_failure_alert,
    users_snapshot_recovery_alert,
)
from randusers_assets_tests.alerting import DAY, PATH, Daemon, Receiver, job, receiving

ASSETS = ("raw_users", "users_df", "users_csv")
CHECK = dg.AssetCheckKey(dg.AssetKey("users_df"), "ids_are_unique")
NO_FAILURE_BEFORE = "The run before this one had not failed."
OVERDUE = (
    "users_csv is overdue: its freshness policy fails. Turn on users_snapshot_schedule, or read why"
    " the last runs failed.\nhttp://localhost:3000/assets/users_csv"
)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(notify, "WAIT", tenacity.wait_none())


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver of alerts."""
    with receiving(monkeypatch, WEBHOOK) as receiver:
        yield receiver


def texts(receiver: Receiver) -> list[str]:
    """The alerts so far, each without its first and last line: what failed or succeeded."""
    return ["\n".join(body["text"].splitlines()[-2:-1]) for _, _, body in receiver.posts]


def asset_job(*, failing: bool = True) -> dg.JobDefinition:
    """Dagster's own job of the asset graph: three assets and a check, which fail or pass."""

    def made(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, partitions_def=daily)
        def one() -> None:
            if failing:
                raise dg.Failure(f"{name} is not made.", allow_retries=False)

        return one

    @dg.asset_check(asset="users_df")
    def ids_are_unique() -> dg.AssetCheckResult:
        if failing:
            raise dg.Failure("Two rows share their id.", allow_retries=False)
        return dg.AssetCheckResult(passed=True)

    all_of_it = dg.Definitions(
        assets=[made(name) for name in ASSETS],
        asset_checks=[ids_are_unique],
        executor=dg.in_process_executor,
    )
    return all_of_it.resolve_implicit_global_asset_job_def()


def run_selected(
    daemon: Daemon, *assets: str, failing: bool = True, tags: dict[str, str] | None = None
) -> str:
    """Run assets, or else the check alone, under a record like that of the UI; the run's id."""
    keys = {dg.AssetKey(name) for name in assets}
    checks = None if assets else {CHECK}
    selected = asset_job(failing=failing).get_subset(
        asset_selection=keys, asset_check_selection=checks
    )
    unselected = daemon.instance.create_run_for_job(
        selected, tags={"dagster/partition": DAY, **(tags or {})}
    )
    run = copy(
        unselected,
        run_id=make_new_run_id(),
        asset_selection=frozenset(keys),
        asset_check_selection=checks,
    )
    daemon.instance.add_run(run)
    assert run.job_name == "__ASSET_JOB"
    return execute_run(InMemoryJob(selected), run, daemon.instance).run_id


@pytest.mark.parametrize(
    ("assets", "tags", "subject"),
    [
        (ASSETS, {}, "raw_users, users_csv, users_df"),  # "Materialize all"
        (("users_csv",), {"dagster/backfill": "abcdefgh"}, "users_csv"),
        ((), {}, "Checks of users_df"),
    ],
)
def test_run_that_the_ui_started_is_alerted_by_what_was_selected(
    instance: dg.DagsterInstance,
    receiver: Receiver,
    assets: tuple[str, ...],
    tags: dict[str, str],
    subject: str,
) -> None:
    """Of the asset graph, of a backfill, of a check alone: failure and recovery are posted."""
    failures = Daemon(instance, users_snapshot_failure_alert)
    recoveries = Daemon(instance, users_snapshot_recovery_alert)
    failed = run_selected(failures, *assets, tags=tags)
    assert failures.tick() == failed
    recovered = run_selected(recoveries, *assets, tags=tags, failing=False)
    assert recoveries.tick() == recovered
    assert texts(receiver) == [
        f"{subject} failed for {DAY}.",
        f"{subject} succeeded again, for {DAY}; the run before it had failed.",
    ]


def test_run_of_the_job_is_alerted_by_the_jobs_name(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """The name that the schedule's runs have."""
    failures = Daemon(instance, users_snapshot_failure_alert)
    failed = failures.run(job(dg.Failure("No.", allow_retries=False)))
    assert failures.tick() == failed
    assert texts(receiver) == [f"users_snapshot_job failed for {DAY}."]


def test_run_of_the_whole_graph_has_a_name(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """A run of the asset graph in which nothing is selected, as an API client may start it."""
    failures = Daemon(instance, users_snapshot_failure_alert)
    run = instance.create_run_for_job(asset_job(), tags={"dagster/partition": DAY})
    instance.report_run_failed(run)
    assert failures.tick() == run.run_id
    assert texts(receiver) == [f"The asset graph failed for {DAY}."]


def test_recovery_is_of_the_same_selection(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """A success of one asset recovers no failure of another."""
    recoveries = Daemon(instance, users_snapshot_recovery_alert)
    run_selected(recoveries, "users_csv")
    run_selected(recoveries, "users_df", failing=False)
    assert recoveries.tick() == NO_FAILURE_BEFORE
    recovered = run_selected(recoveries, "users_csv", failing=False)
    assert recoveries.tick() == recovered
    assert len(receiver.posts) == 1


def failed_elsewhere(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A failed run of users_csv, which another code location has as well."""
    location = RegisteredCodeLocationOrigin("another")
    code = RepositoryPythonOrigin("python", ModuleCodePointer("another", "defs"), None, None, None)
    run = instance.create_run_for_job(
        asset_job(),
        tags={"dagster/partition": DAY},
        asset_selection={dg.AssetKey("users_csv")},
        remote_job_origin=RemoteJobOrigin(
            RemoteRepositoryOrigin(location, "__repository__"), "__ASSET_JOB"
        ),
        job_code_origin=JobPythonOrigin("__ASSET_JOB", code),
    )
    instance.report_run_failed(run)
    return run


def test_runs_of_another_code_location_are_not_alerted(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """Its `__ASSET_JOB` has the same name; its failure is neither posted nor recovered here."""
    failures = Daemon(instance, users_snapshot_failure_alert)
    recoveries = Daemon(instance, users_snapshot_recovery_alert)
    failed_elsewhere(instance)
    run_selected(recoveries, "users_csv", failing=False)
    assert failures.tick() == "Sensor function returned an empty result"
    assert recoveries.tick() == NO_FAILURE_BEFORE
    assert receiver.posts == []


def become(instance: dg.DagsterInstance, state: str) -> None:
    """Record a freshness state of users_csv as Dagster's freshness daemon does."""
    change = FreshnessStateChange(
        key=dg.AssetKey("users_csv"),
        previous_state=FreshnessState.UNKNOWN,
        new_state=FreshnessState(state),
        state_change_timestamp=0.0,
    )
    instance._report_runless_asset_event(change)  # noqa: SLF001  # what the daemon calls


def test_overdue_alert_posts_when_the_freshness_policy_begins_to_fail(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """One post each time that the state becomes FAIL, none while it stays so or is another."""
    daemon = Daemon(instance, users_csv_overdue_alert)
    ticks = []
    for state in ("PASS", "WARN", "FAIL", "FAIL", "PASS", "FAIL"):
        become(instance, state)
        ticks.append(daemon.tick())
    sent = "users_csv is overdue: the alert is sent."
    assert ticks == [
        "The freshness of users_csv is PASS, before UNKNOWN.",
        "The freshness of users_csv is WARN, before PASS.",
        sent,
        "The freshness of users_csv is FAIL, before FAIL.",
        "The freshness of users_csv is PASS, before FAIL.",
        sent,
    ]
    assert receiver.posts == [(PATH, "application/json", {"text": OVERDUE})] * 2


def test_overdue_alert_that_is_not_delivered_says_so_once(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """It is given up as the other alerts are: the next tick does not post again."""
    daemon = Daemon(instance, users_csv_overdue_alert)
    become(instance, "FAIL")
    receiver.statuses = [404]
    reason = f"The alert was not delivered: the receiver answered HTTP 404. Check {WEBHOOK}."
    assert daemon.tick() == reason
    assert daemon.tick() == "The freshness of users_csv is FAIL, before FAIL."
    assert len(receiver.posts) == 1
