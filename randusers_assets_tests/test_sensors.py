"""A failed run and the recovery from it reach a real receiver, and its URL no log."""

import logging
import threading
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
import tenacity

from randusers_assets import notify
from randusers_assets.definitions import defs
from randusers_assets.notify import WEBHOOK
from randusers_assets.sensors import (
    users_snapshot_failure_alert,
    users_snapshot_recovery_alert,
)
from randusers_assets_tests.alerting import DAY, PATH, Daemon, Receiver, job, receiving
from randusers_assets_tests.patience import patience

Lines = Callable[[], list[str]]

# Dagster's own message for a tick that found no run.
NO_NEWS = "Sensor function returned an empty result"
NO_FAILURE_BEFORE = "The run before this one had not failed."


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver of alerts."""
    with receiving(monkeypatch, WEBHOOK) as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once, and link to the default UI."""
    monkeypatch.setattr(notify, "WAIT", tenacity.wait_none())
    monkeypatch.delenv("RANDUSERS_UI_URL", raising=False)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Lines:
    """Make a function that gives every log line so far: those of the libraries, then Dagster's."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")  # the Kubernetes client makes it quiet
    return lambda: [*caplog.messages, *capfd.readouterr().err.splitlines()]


@pytest.fixture
def failures(instance: dg.DagsterInstance) -> Daemon:
    """The daemon of the failure alert."""
    return Daemon(instance, users_snapshot_failure_alert)


@pytest.fixture
def recoveries(instance: dg.DagsterInstance) -> Daemon:
    """The daemon of the recovery alert."""
    return Daemon(instance, users_snapshot_recovery_alert)


def test_failure_alert_gives_message_day_and_link(failures: Daemon, receiver: Receiver) -> None:
    """A step's `dagster.Failure` comes first, then job and day, then the run's page."""
    failure = dg.Failure("The API declares zero rows: nothing is published.", allow_retries=False)
    failure.__cause__ = ValueError("ada@example.com")
    run_id = failures.run(job(failure))
    assert failures.tick() == run_id
    link = f"http://localhost:3000/runs/{run_id}"
    text = f"{failure.description}\nusers_snapshot_job failed for {DAY}.\n{link}"
    assert receiver.posts == [(PATH, "application/json", {"text": text})]


def test_failure_alert_names_the_closed_gates(
    failures: Daemon, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first closed gate's message, escaped as Slack asks; the gates' names; the UI's URL."""
    run_id = failures.run(job(failing_checks=True))
    monkeypatch.setenv("RANDUSERS_UI_URL", "https://dagster.example.com/")
    assert failures.tick() == run_id
    text = (
        "20 rows; 2 share their id &lt;1&gt; &amp; more.\n"
        f"users_snapshot_job failed for {DAY}, closed by ids_are_unique, required_are_filled.\n"
        f"https://dagster.example.com/runs/{run_id}"
    )
    assert [body for _, _, body in receiver.posts] == [{"text": text}]


def test_failure_alert_quotes_no_unexpected_error(failures: Daemon, receiver: Receiver) -> None:
    """Any other error's message may hold data, so the alert gives its class; a lost run has none.

    A run that succeeds is no failure.
    """
    unexpected = failures.run(job(ValueError("ada@example.com")))
    lost = failures.lost_run().run_id
    failures.run(job())
    assert [failures.tick() for _ in range(3)] == [unexpected, lost, NO_NEWS]
    texts = [body["text"].splitlines()[:2] for _, _, body in receiver.posts]
    why = "users_df ended in an unexpected ValueError: read the run."
    lost_why = "No step failed: the run could not start, or its process was lost."
    assert texts == [[w, f"users_snapshot_job failed for {DAY}."] for w in (why, lost_why)]


def test_alert_is_retried_and_delivered_once(failures: Daemon, receiver: Receiver) -> None:
    """After passing faults the same text is posted again, and after a success no more."""
    failed = failures.lost_run()
    receiver.statuses = [500, 429, 503, 200]
    assert failures.tick() == failed.run_id
    assert failures.tick() == NO_NEWS
    assert receiver.posts == receiver.posts[:1] * 4


@pytest.mark.parametrize(
    ("status", "why", "posts"),
    [
        (500, f"the receiver answered HTTP 500, {notify.TRIES} times", notify.TRIES),
        (302, "the receiver answered HTTP 302", 1),
        (None, f"no answer (ConnectionError), {notify.TRIES} times", 0),  # nobody listens
    ],
)
def test_alert_that_is_not_delivered_ends_in_a_skip(
    failures: Daemon, receiver: Receiver, logged: Lines, status: int | None, why: str, posts: int
) -> None:
    """Retried where that may help, redirected nowhere; one log line, without the URL."""
    failures.lost_run()
    if status is None:
        receiver.shutdown()
        receiver.server_close()
    else:
        receiver.statuses = [status]
    reason = f"The alert was not delivered: {why}. Check {WEBHOOK}."
    assert failures.tick() == reason
    assert [path for path, _, _ in receiver.posts] == [PATH] * posts
    lines = logged()
    assert [line for line in lines if reason in line] == lines[-1:]
    assert not [line for line in lines if PATH in line or str(receiver.server_port) in line]
    assert failures.tick() == NO_NEWS


@pytest.mark.parametrize(("seconds", "times"), [(20.0, f", {notify.TRIES} times"), (0.0, "")])
def test_alert_to_a_receiver_that_drips_is_given_up(
    failures: Daemon,
    receiver: Receiver,
    logged: Lines,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    times: str,
) -> None:
    """A head that never ends is given up, though no read of it takes long, and retried in time."""
    failures.lost_run()
    receiver.drips = True
    monkeypatch.setattr(notify, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(notify, "TRYING_SECONDS", seconds)
    why = f"no complete answer within 0.3 s{times}"
    assert failures.tick() == f"The alert was not delivered: {why}. Check {WEBHOOK}."
    receiver.ended.set()
    assert not [line for line in logged() if PATH in line]


def test_alert_takes_less_time_than_a_sensor_has() -> None:
    """The last try ends at most 40 s after the first began; Dagster gives a sensor 60 s."""
    longest_wait = 5.0  # of WAIT
    assert notify.TRYING_SECONDS + longest_wait + notify.REQUEST_SECONDS <= 40


def test_alert_leaves_the_log_lines_of_other_threads_alone(logged: Lines) -> None:
    """What keeps the URL from the log is bound to the thread that posts, and to the post."""
    log = logging.getLogger("urllib3.connectionpool")
    other = threading.Thread(target=log.debug, args=("from another thread",))
    with notify._unlogged():  # noqa: SLF001  # the window is too short to hit from outside
        log.debug("hidden")
        other.start()
        other.join(patience())
    log.debug("afterwards")
    assert logged() == ["from another thread", "afterwards"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", f"{WEBHOOK} is not set: no alert is sent."),
        (PATH, f"{WEBHOOK} is not an http(s) URL: correct it in the environment or in .env."),
        ("http://[/s3", f"The alert was not delivered: no answer (InvalidURL). Check {WEBHOOK}."),
    ],
)
def test_alert_without_a_usable_setting_names_it(
    failures: Daemon, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    """An unset or wrong setting skips the tick; the reason names it without its value."""
    failures.lost_run()
    monkeypatch.setenv(WEBHOOK, value)
    assert failures.tick() == reason


def test_recovery_alert_posts_the_first_success_after_a_failure(
    recoveries: Daemon, receiver: Receiver
) -> None:
    """One post for failure, failure, success, success: for the first success."""
    recoveries.lost_run()
    recoveries.lost_run()
    recovered = recoveries.run(job())
    recoveries.run(job())
    assert recoveries.tick() == recovered
    assert recoveries.tick() == NO_FAILURE_BEFORE
    text = f"users_snapshot_job succeeded again, for {DAY}; the run before it had failed.\n"
    link = f"http://localhost:3000/runs/{recovered}"
    assert receiver.posts == [(PATH, "application/json", {"text": text + link})]


@pytest.mark.usefixtures("receiver")
def test_recovery_alert_goes_by_the_order_in_which_runs_ended(recoveries: Daemon) -> None:
    """A failure that began before a success and ended after it is what the next one recovers."""
    early = recoveries.waiting_run()
    recoveries.run(job())
    assert recoveries.tick() == NO_FAILURE_BEFORE
    recoveries.instance.report_run_failed(early)
    recovered = recoveries.run(job())
    assert recoveries.tick() == recovered


def test_recovery_alert_is_silent_without_a_failure_before(
    recoveries: Daemon, receiver: Receiver
) -> None:
    """The first run ever, a success after a success, and another job's failure are no recovery."""
    another_job = dg.GraphDefinition(name="another_job").to_job()
    for _ in range(2):
        recoveries.run(job())
        assert recoveries.tick() == NO_FAILURE_BEFORE
        another = recoveries.instance.create_run_for_job(another_job)
        recoveries.instance.report_run_failed(another)
    assert receiver.posts == []


def test_alerts_run_without_being_switched_on() -> None:
    """All of the definitions' sensors watch from the first start of the daemon."""
    alerts = [sensor for sensor in defs.sensors or [] if isinstance(sensor, dg.SensorDefinition)]
    assert [sensor.name for sensor in alerts] == [
        "users_snapshot_failure_alert",
        "users_snapshot_recovery_alert",
        "users_csv_overdue_alert",
    ]
    for sensor in alerts:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert WEBHOOK in (sensor.description or "")
