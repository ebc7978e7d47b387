"""A failed run and the recovery from it reach a real receiver, and the receiver's URL no log."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
import tenacity

from randusers_assets import sensors as alerts
from randusers_assets.automation import daily
from randusers_assets.sensors import users_snapshot_failure_alert, users_snapshot_recovery_alert

PATH = "/services/T0/B0/s3cr3t"
DAY = "2026-11-23"
# What Dagster says of a tick that found no run.
NO_NEWS = "Sensor function returned an empty result"


class Receiver(ThreadingHTTPServer):
    """Answers with one status after the other, the last of them for ever."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.posts: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_port}{PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, self.headers["Content-Type"], body))
        left = self.server.statuses
        self.send_response(left.pop(0) if len(left) > 1 else left[0])
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch, *statuses: int) -> Iterator[Receiver]:
    """A receiver that the setting names."""
    with Receiver(*statuses) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        monkeypatch.setenv("RANDUSERS_ALERT_WEBHOOK_URL", receiver.url)
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once, and link to a UI that no environment names."""
    monkeypatch.setattr(alerts, "WAIT", tenacity.wait_none())
    monkeypatch.delenv("RANDUSERS_UI_URL", raising=False)


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Make a function that gives every log line so far: those of the libraries, then Dagster's."""
    caplog.set_level(logging.DEBUG)
    return lambda: [*caplog.messages, *capfd.readouterr().err.splitlines()]


def job(failure: Exception | None = None) -> dg.JobDefinition:
    """A job by the snapshot's name whose asset succeeds or raises."""

    @dg.asset(partitions_def=daily)
    def users_df() -> None:
        if failure:
            raise failure

    made = dg.define_asset_job("users_snapshot_job", executor_def=dg.in_process_executor)
    return dg.Definitions(assets=[users_df], jobs=[made]).resolve_job_def("users_snapshot_job")


def closing_job() -> dg.JobDefinition:
    """A job by the snapshot's name whose two gates close, after a check that only warns."""

    @dg.asset(partitions_def=daily)
    def users_df() -> None:
        """Nothing."""

    said = {
        "users_df_holds_no_formulas": "14 cells start a formula.",
        "users_df_ids_are_unique": "2 users share an id; the gate is <closed> & shut.",
        "users_df_required_are_filled": "1 of 20 users breaks this rule.",
    }
    warns = "users_df_holds_no_formulas"

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec(name, asset="users_df", blocking=True) for name in said]
    )
    def gates() -> Iterator[dg.AssetCheckResult]:
        for name, description in said.items():
            yield dg.AssetCheckResult(
                check_name=name,
                asset_key="users_df",
                passed=False,
                severity=dg.AssetCheckSeverity.WARN
                if name == warns
                else dg.AssetCheckSeverity.ERROR,
                description=description,
            )

    made = dg.define_asset_job("users_snapshot_job", executor_def=dg.in_process_executor)
    defs = dg.Definitions(assets=[users_df], asset_checks=[gates], jobs=[made])
    return defs.resolve_job_def("users_snapshot_job")


def run(instance: dg.DagsterInstance, made: dg.JobDefinition) -> str:
    """Run a job for the day on the instance; the run's id."""
    return made.execute_in_process(
        instance=instance, partition_key=DAY, raise_on_error=False
    ).run_id


def waiting_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run for the day that has not begun."""
    return instance.create_run_for_job(job(), tags={"dagster/partition": DAY})


def lost_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run for the day that failed before its first step."""
    made = waiting_run(instance)
    instance.report_run_failed(made)
    return made


class Daemon:
    """Ticks a sensor as the daemon does: each tick from the cursor of the one before."""

    def __init__(self, instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
        self.instance, self.sensor = instance, sensor
        self.cursor: str | None = None
        self.tick()

    def tick(self) -> str:
        """Evaluate the sensor once; why it skipped, or the ids of the runs it reacted to."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        assert not [r.error for r in data.dagster_run_reactions or [] if r.error]
        reactions = [r.dagster_run for r in data.dagster_run_reactions or [] if r.dagster_run]
        return data.skip_message or " ".join(run.run_id for run in reactions)


def test_failure_alert_tells_sentence_day_and_link_of_a_failed_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's `dagster.Failure` comes first, then job and day, then the run's page."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    failure = dg.Failure("The API declares zero users: nothing is published.", allow_retries=False)
    failure.__cause__ = ValueError("ada@example.com")
    run_id = run(instance, job(failure))
    with receiving(monkeypatch, 200) as receiver:
        assert daemon.tick() == run_id
    text = (
        "The API declares zero users: nothing is published.\n"
        f"users_snapshot_job failed for {DAY}.\n"
        f"http://localhost:3000/runs/{run_id}"
    )
    assert receiver.posts == [(PATH, "application/json", {"text": text})]


def test_failure_alert_names_the_closed_gates(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first closed gate's sentence, escaped as Slack asks; the gates' names; the UI's URL."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    run_id = run(instance, closing_job())
    monkeypatch.setenv("RANDUSERS_UI_URL", "https://dagster.example.com/")
    with receiving(monkeypatch, 200) as receiver:
        assert daemon.tick() == run_id
    text = (
        "2 users share an id; the gate is &lt;closed&gt; &amp; shut.\n"
        f"users_snapshot_job failed for {DAY},"
        " closed by users_df_ids_are_unique, users_df_required_are_filled.\n"
        f"https://dagster.example.com/runs/{run_id}"
    )
    assert [body for _, _, body in receiver.posts] == [{"text": text}]


def test_failure_alert_quotes_no_unexpected_error(instance: dg.DagsterInstance) -> None:
    """The message of an error other than `dagster.Failure` may hold data: its class is told."""
    run_id = run(instance, job(ValueError("ada@example.com")))
    failed = instance.get_run_by_id(run_id)
    assert failed
    assert alerts.failure_text(instance, failed) == (
        "users_df ended in an unexpected ValueError: read the run.\n"
        f"users_snapshot_job failed for {DAY}."
    )


def test_failure_alert_tells_of_a_run_without_steps(instance: dg.DagsterInstance) -> None:
    """A run whose process never came, or was lost, is told as such."""
    assert alerts.failure_text(instance, lost_run(instance)) == (
        "No step failed: the run could not start, or its process was lost.\n"
        f"users_snapshot_job failed for {DAY}."
    )


def test_failure_alert_is_silent_on_a_success(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that succeeds is no failure."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    run(instance, job())
    with receiving(monkeypatch, 200) as receiver:
        daemon.tick()
    assert receiver.posts == []


def test_alert_is_retried_and_delivered_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After passing faults the same text is posted again, and after a success no more."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    failed = lost_run(instance)
    with receiving(monkeypatch, 500, 429, 503, 200) as receiver:
        assert daemon.tick() == failed.run_id
        assert daemon.tick() == NO_NEWS
    assert receiver.posts == receiver.posts[:1] * 4


def test_alert_that_is_refused_ends_in_a_skip(
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    """Retried where that may help, never followed elsewhere; the URL is in no log line."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    for status, posts, times in ((500, alerts.TRIES, f", {alerts.TRIES} times"), (302, 1, "")):
        lost_run(instance)
        reason = (
            f"The alert was not delivered: the receiver answered HTTP {status}{times}."
            " Check RANDUSERS_ALERT_WEBHOOK_URL."
        )
        with receiving(monkeypatch, status) as receiver:
            assert daemon.tick() == reason
        assert [path for path, _, _ in receiver.posts] == [PATH] * posts
        lines = logged()
        assert [line for line in lines if reason in line] == lines[-1:]
        assert not [line for line in lines if PATH in line or str(receiver.server_port) in line]


def test_alert_to_a_receiver_that_is_down_ends_in_a_skip(
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    """Nobody listens: a bounded number of tries, one log line, no exception, no URL."""
    daemon = Daemon(instance, users_snapshot_failure_alert)
    lost_run(instance)
    with receiving(monkeypatch, 200):
        pass
    reason = (
        f"The alert was not delivered: no answer (ConnectionError), {alerts.TRIES} times."
        " Check RANDUSERS_ALERT_WEBHOOK_URL."
    )
    assert daemon.tick() == reason
    lines = logged()
    assert [line for line in lines if reason in line] == lines[-1:]
    assert not [line for line in lines if PATH in line]
    assert daemon.tick() == NO_NEWS


def test_alert_leaves_the_log_lines_of_other_threads_alone(
    logged: Callable[[], list[str]],
) -> None:
    """What keeps the URL from the log is bound to the thread that posts, and to the post."""
    log = logging.getLogger("urllib3.connectionpool")
    other = threading.Thread(target=log.debug, args=("from another thread",))
    with alerts._unlogged():  # noqa: SLF001  # the window is too short to hit from outside
        log.debug("hidden")
        other.start()
        other.join()
    log.debug("afterwards")
    assert logged() == ["from another thread", "afterwards"]


def test_alert_without_a_usable_setting_names_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unset or wrong setting skips the tick and is named; its value is not told."""
    daemon, name = Daemon(instance, users_snapshot_failure_alert), "RANDUSERS_ALERT_WEBHOOK_URL"
    for value, reason in (
        ("", f"{name} is not set: nobody is told."),
        (PATH, f"{name} is not an http(s) URL: correct it in the environment or in .env."),
        (
            f"http://[{PATH}",
            f"The alert was not delivered: no answer (InvalidURL). Check {name}.",
        ),
    ):
        lost_run(instance)
        monkeypatch.setenv(name, value)
        assert daemon.tick() == reason


def test_recovery_alert_posts_the_first_success_after_a_failure(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One post for failure, failure, success, success: for the first success."""
    daemon = Daemon(instance, users_snapshot_recovery_alert)
    lost_run(instance)
    lost_run(instance)
    recovered = run(instance, job())
    run(instance, job())
    with receiving(monkeypatch, 200) as receiver:
        assert daemon.tick() == recovered
        assert daemon.tick() == "The run before this one had not failed."
    text = (
        f"users_snapshot_job succeeded again, for {DAY}; the run before it had failed.\n"
        f"http://localhost:3000/runs/{recovered}"
    )
    assert receiver.posts == [(PATH, "application/json", {"text": text})]


def test_recovery_alert_goes_by_the_order_in_which_runs_ended(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that began before a success and ended after it is what the next one recovers."""
    early = waiting_run(instance)
    run(instance, job())
    daemon = Daemon(instance, users_snapshot_recovery_alert)
    instance.report_run_failed(early)
    recovered = run(instance, job())
    with receiving(monkeypatch, 200):
        assert daemon.tick() == recovered


def test_recovery_alert_is_silent_without_a_failure_before(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first run ever nor a success after a success is a recovery."""
    daemon = Daemon(instance, users_snapshot_recovery_alert)
    with receiving(monkeypatch, 200) as receiver:
        for _ in range(2):
            run(instance, job())
            assert daemon.tick() == "The run before this one had not failed."
    assert receiver.posts == []


def test_recovery_alert_is_silent_on_a_failure_of_another_job(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another job's run came to says nothing of the snapshot."""

    @dg.job
    def another_job() -> None:
        """Nothing."""

    daemon = Daemon(instance, users_snapshot_recovery_alert)
    instance.report_run_failed(instance.create_run_for_job(another_job))
    run(instance, job())
    with receiving(monkeypatch, 200) as receiver:
        assert daemon.tick() == "The run before this one had not failed."
    assert receiver.posts == []


def test_alerts_run_without_being_switched_on() -> None:
    """Both watch the snapshot's job from the first start of the daemon."""
    for sensor in (users_snapshot_failure_alert, users_snapshot_recovery_alert):
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert "RANDUSERS_ALERT_WEBHOOK_URL" in (sensor.description or "")
