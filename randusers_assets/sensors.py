"""A failed snapshot, and the first one after it that succeeds, told to a webhook."""

import contextlib
import html
import logging
import threading
from collections.abc import Iterator

import dagster as dg
import tenacity

# Not in `dagster`'s own names. Returned rather than left to the sensor, because a tick that holds
# a reaction to one run and a skip of another fails: github.com/dagster-io/dagster/issues/17359.
from dagster._core.definitions.run_request import DagsterRunReaction

from randusers_assets.automation import users_snapshot_job
from randusers_assets.errors import closed, root_cause, sentence
from randusers_assets.settings import setting

# Either ends the tick: one run a tick.
Reaction = dg.SkipReason | DagsterRunReaction

WEBHOOK, UI = "RANDUSERS_ALERT_WEBHOOK_URL", "RANDUSERS_UI_URL"

# Together they stay below the 60 s that Dagster gives the evaluation of a sensor, even where each
# of a receiver's addresses has its own timeout.
TRIES, TRYING_SECONDS, CONNECT_SECONDS, READ_SECONDS = 4, 20.0, 3.0, 5.0
WAIT = tenacity.wait_exponential(max=4) + tenacity.wait_random(0, 1)

# The run that succeeded is looked for among the last ones to end: the daemon may lag behind them.
RUNS_LOOKED_AT = 100


class Undelivered(Exception):
    """The receiver did not take an alert; `passing` if it may take the next try."""

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
    said = f"{run.job_name} succeeded again, for {_partition(run)}; the run before it had failed."
    return _alert(context, said)


def failure_text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why a run failed: the sentence, then what failed, for which day, by which gates.

    Only a `dagster.Failure` is quoted: the message of any other error may hold data.
    """
    types = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_FAILURE}
    events = [e.get_dagster_event() for e in instance.all_logs(run.run_id, of_type=types)]
    gates = [
        event.asset_check_evaluation_data
        for event in events
        if not event.is_step_failure and closed(event.asset_check_evaluation_data)
    ]
    sentences = [check.description or "" for check in gates]
    for event in events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            cause = root_cause(event.step_failure_data.error)
            sentences.append(
                sentence(cause)
                if cause.cls_name == dg.Failure.__name__
                else f"{event.step_key} ended in an unexpected {cause.cls_name}: read the run."
            )
    lost = "No step failed: the run could not start, or its process was lost."
    by = f", closed by {', '.join(check.check_name for check in gates)}" if gates else ""
    why = next(filter(None, sentences), lost)
    return f"{why}\n{run.job_name} failed for {_partition(run)}{by}."


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get("dagster/partition", "no partition")


def _after_a_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether, of the job's runs that failed or succeeded, the one that ended before failed."""
    ended = dg.RunsFilter(
        job_name=run.job_name,
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
    )
    records = iter(instance.get_run_records(ended, limit=RUNS_LOOKED_AT, order_by="end_time"))
    for record in records:
        if record.dagster_run.run_id == run.run_id:
            break
    before = next(records, None)
    return before is not None and before.dagster_run.status is dg.DagsterRunStatus.FAILURE


def _alert(context: dg.RunStatusSensorContext, said: str) -> Reaction:
    """Post an alert; whatever keeps it from its receiver is logged and makes the tick a skip."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_after_delay(TRYING_SECONDS),
        wait=WAIT,
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, Undelivered) and e.passing),
        reraise=True,
    )
    try:
        url, base = setting(WEBHOOK), setting(UI)
        if not url:
            return dg.SkipReason(f"{WEBHOOK} is not set: nobody is told.")
        link = f"{base.rstrip('/')}/runs/{context.dagster_run.run_id}"
        retrying(post, url, f"{said}\n{link}")
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


def post(url: str, text: str) -> None:
    """Post `{"text": …}` once, with the three characters escaped that Slack gives a meaning.

    https://docs.slack.dev/messaging/formatting-message-text#escaping

    Raises:
        Undelivered: there was no answer, or one that is not a success; the URL is not told.
    """
    import requests

    try:
        with (
            _unlogged(),
            requests.post(
                url,
                json={"text": html.escape(text, quote=False)},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,  # the answer's body is of no interest
            ) as response,
        ):
            status = response.status_code
    except requests.RequestException as error:
        # `from None`: the error's own message holds the URL.
        passing = isinstance(error, requests.ConnectionError | requests.Timeout)
        raise Undelivered(f"no answer ({type(error).__name__})", passing=passing) from None
    if not 200 <= status < 300:
        raise Undelivered(
            f"the receiver answered HTTP {status}", passing=status == 429 or status >= 500
        )


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Drop this thread's urllib3 log lines: at DEBUG they hold the path, which is the secret."""
    log, here = logging.getLogger("urllib3.connectionpool"), threading.get_ident()

    def elsewhere(_record: logging.LogRecord) -> bool:
        return threading.get_ident() != here

    log.addFilter(elsewhere)
    try:
        yield
    finally:
        log.removeFilter(elsewhere)
