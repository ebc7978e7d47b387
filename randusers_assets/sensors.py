"""Alerts: a failed snapshot, and the first success after it, are posted to a webhook."""

import contextlib
import html
import logging
import queue
import threading
from collections.abc import Iterator

import dagster as dg
import requests
import tenacity

# Not a public name. Returned, because a tick that mixes a reaction to one run with a skip of
# another fails: github.com/dagster-io/dagster/issues/17359.
from dagster._core.definitions.run_request import DagsterRunReaction

from randusers_assets.automation import users_snapshot_job
from randusers_assets.errors import failure_message, gate_failed, root_cause
from randusers_assets.settings import setting

Reaction = dg.SkipReason | DagsterRunReaction

WEBHOOK, UI = "RANDUSERS_ALERT_WEBHOOK_URL", "RANDUSERS_UI_URL"

# A try begins at most 20 + 5 s after the first and takes at most 10 s: below the 60 s that Dagster
# gives a sensor.
TRIES, TRYING_SECONDS = 4, 20.0
WAIT = tenacity.wait_exponential(max=4) + tenacity.wait_random(0, 1)
CONNECT_SECONDS, READ_SECONDS, POST_SECONDS = 3.0, 5.0, 10.0

# How many of the last runs to end are searched for the one that succeeded.
RUNS_SEARCHED = 100


class Undelivered(Exception):
    """The receiver did not accept an alert; `passing` if a retry may help."""

    def __init__(self, phrase: str, *, passing: bool) -> None:
        super().__init__(phrase)
        self.passing = passing


@dg.run_failure_sensor(
    monitored_jobs=[users_snapshot_job],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts why a snapshot failed to RANDUSERS_ALERT_WEBHOOK_URL, where it is set.",
)
def users_snapshot_failure_alert(context: dg.RunFailureSensorContext) -> Reaction:
    """Post a failed run's sentence, closed gates, partition and link."""
    return _alert(context, failure_text(context.instance, context.dagster_run))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[users_snapshot_job],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts the first success after a failure to RANDUSERS_ALERT_WEBHOOK_URL.",
)
def users_snapshot_recovery_alert(context: dg.RunStatusSensorContext) -> Reaction:
    """Post a successful run's partition and link, if the run that ended before it had failed."""
    if not _after_a_failure(context.instance, context.dagster_run):
        return dg.SkipReason("The run before this one had not failed.")
    run = context.dagster_run
    text = f"{run.job_name} succeeded again, for {_partition(run)}; the run before it had failed."
    return _alert(context, text)


def failure_text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why a run failed; only a `dagster.Failure` is quoted: other messages may hold data."""
    types = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_FAILURE}
    events = [e.get_dagster_event() for e in instance.all_logs(run.run_id, of_type=types)]
    checks = [e.asset_check_evaluation_data for e in events if not e.is_step_failure]
    gates = [check for check in checks if gate_failed(check)]
    sentences = [check.description or "" for check in gates]
    for event in events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            cause = root_cause(event.step_failure_data.error)
            unexpected = f"{event.step_key} ended in an unexpected {cause.cls_name}: read the run."
            ours = cause.cls_name == dg.Failure.__name__
            sentences.append(failure_message(cause) if ours else unexpected)
    lost = "No step failed: the run could not start, or its process was lost."
    by = f", closed by {', '.join(check.check_name for check in gates)}" if gates else ""
    why = next(filter(None, sentences), lost)
    return f"{why}\n{run.job_name} failed for {_partition(run)}{by}."


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get("dagster/partition", "no partition")


def _after_a_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether, of the job's runs that failed or succeeded, the one that ended before failed."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    runs = dg.RunsFilter(job_name=run.job_name, statuses=ended)
    records = iter(instance.get_run_records(runs, limit=RUNS_SEARCHED, order_by="end_time"))
    for record in records:
        if record.dagster_run.run_id == run.run_id:
            break
    before = next(records, None)
    return before is not None and before.dagster_run.status is dg.DagsterRunStatus.FAILURE


def _alert(context: dg.RunStatusSensorContext, text: str) -> Reaction:
    """Post an alert; if it cannot be delivered, log why and skip the tick."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_after_delay(TRYING_SECONDS),
        wait=WAIT,
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, Undelivered) and e.passing),
        reraise=True,
    )
    try:
        url, base = setting(WEBHOOK), setting(UI)
        if not url:
            return dg.SkipReason(f"{WEBHOOK} is not set: no alert is sent.")
        link = f"{base.rstrip('/')}/runs/{context.dagster_run.run_id}"
        retrying(post, url, f"{text}\n{link}")
    except dg.DagsterInvalidDefinitionError as error:
        reason = str(error)
    except Undelivered as undelivered:
        tries = retrying.statistics["attempt_number"]
        times = f", {tries} times" if tries > 1 else ""
        reason = f"The alert was not delivered: {undelivered}{times}. Check {WEBHOOK}."
    else:
        return DagsterRunReaction(context.dagster_run, run_status=context.dagster_run.status)
    context.log.error(reason)
    return dg.SkipReason(reason)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Drop this thread's urllib3 log lines: at DEBUG they hold the path, which is the secret."""
    log, here = logging.getLogger("urllib3.connectionpool"), threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(of_another_thread)
    try:
        yield
    finally:
        log.removeFilter(of_another_thread)


def post(url: str, text: str) -> None:
    """Post once within POST_SECONDS, or raise Undelivered, which never shows the URL.

    In a daemon thread: the timeouts of requests start anew with every byte that is received.
    """
    outcome: queue.SimpleQueue[Undelivered | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_post(url, text)), daemon=True).start()
    try:
        undelivered = outcome.get(timeout=POST_SECONDS)
    except queue.Empty:
        undelivered = Undelivered(f"no complete answer within {POST_SECONDS:g} s", passing=True)
    if undelivered:
        raise undelivered


@_unlogged()
def _post(url: str, text: str) -> Undelivered | None:
    """Post `{"text": …}`; why it was not delivered, if it was not.

    Slack's three are escaped: docs.slack.dev/messaging/formatting-message-text#escaping
    """
    body, timeout = {"text": html.escape(text, quote=False)}, (CONNECT_SECONDS, READ_SECONDS)
    try:
        # Streamed, as the body of the answer is not needed.
        answer = requests.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True)
        answer.close()
    except requests.RequestException as error:
        # Only its class: the error's own message holds the URL.
        passing = isinstance(error, requests.ConnectionError | requests.Timeout)
        return Undelivered(f"no answer ({type(error).__name__})", passing=passing)
    status = answer.status_code
    if 200 <= status < 300:
        return None
    passing = status == 429 or status >= 500
    return Undelivered(f"the receiver answered HTTP {status}", passing=passing)
