"""Alerts: failed runs, the first success after one, and an overdue CSV are posted to a webhook."""

import dagster as dg

# Not a public name. Returned, because a tick that mixes a reaction to one run with a skip of
# another fails: github.com/dagster-io/dagster/issues/17359.
from dagster._core.definitions.run_request import DagsterRunReaction

from randusers_assets.errors import failure_message, gate_failed, root_cause
from randusers_assets.notify import WEBHOOK, Undelivered, deliver
from randusers_assets.settings import setting

Reaction = dg.SkipReason | DagsterRunReaction

# How many of the last runs to end are searched for the one that succeeded, and the one before.
RUNS_SEARCHED = 100


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts why a run failed to RANDUSERS_ALERT_WEBHOOK_URL, where it is set.",
)
def users_snapshot_failure_alert(context: dg.RunFailureSensorContext) -> Reaction:
    """Post a failed run's sentence, closed gates, partition and link."""
    return _alert(context, failure_text(context.instance, context.dagster_run))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts the first success after a failure to RANDUSERS_ALERT_WEBHOOK_URL.",
)
def users_snapshot_recovery_alert(context: dg.RunStatusSensorContext) -> Reaction:
    """Post a successful run's partition and link, if the run that ended before it had failed."""
    if not _after_a_failure(context.instance, context.dagster_run):
        return dg.SkipReason("The run before this one had not failed.")
    run = context.dagster_run
    text = f"{_subject(run)} succeeded again, for {_partition(run)}; the run before it had failed."
    return _alert(context, text)


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts to RANDUSERS_ALERT_WEBHOOK_URL when users_csv becomes overdue.",
)
def users_csv_overdue_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Post when the freshness policy of users_csv begins to fail."""
    key = dg.AssetKey("users_csv")
    record = context.instance.get_freshness_state_records([key]).get(key)
    state = record.freshness_state.value if record else "UNKNOWN"
    before = context.cursor
    context.update_cursor(state)
    if state != "FAIL" or before == "FAIL":
        return dg.SkipReason(f"The freshness of users_csv is {state}, before {before}.")
    text = (
        "users_csv is overdue: its freshness policy fails. Turn on users_snapshot_schedule, or read"
        " why the last runs failed."
    )
    reason = _undelivered(context, text, "assets/users_csv")
    return dg.SkipReason(reason or "users_csv is overdue: the alert is sent.")


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
    return f"{why}\n{_subject(run)} failed for {_partition(run)}{by}."


def _subject(run: dg.DagsterRun) -> str:
    """What a run was of: its job, or what was selected in the UI, where Dagster names the job."""
    if not run.job_name.startswith("__"):
        return run.job_name
    if run.asset_selection:
        return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))
    # The asset alone: of the checks, the message names those that closed.
    checked = {check.asset_key.to_user_string() for check in run.asset_check_selection or ()}
    return f"Checks of {', '.join(sorted(checked))}" if checked else "The asset graph"


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get("dagster/partition", "no partition")


def _after_a_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether, of the runs of the same that failed or succeeded, the one that ended before failed.

    Of the same: of the same job or selection, in the same code location.
    """
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    wanted = dg.RunsFilter(job_name=run.job_name, statuses=ended)
    records = instance.get_run_records(wanted, limit=RUNS_SEARCHED, order_by="end_time")
    same = (r.dagster_run for r in records if _identity(r.dagster_run) == _identity(run))
    for one in same:
        if one.run_id == run.run_id:
            break
    before = next(same, None)
    return before is not None and before.status is dg.DagsterRunStatus.FAILURE


def _identity(run: dg.DagsterRun) -> tuple[str, str | None]:
    """What a run was of, and its code location: every location has an `__ASSET_JOB`."""
    origin = run.remote_job_origin
    return _subject(run), origin.location_name if origin else None


def _alert(context: dg.RunStatusSensorContext, text: str) -> Reaction:
    """Post an alert about a run; if it cannot be delivered, skip the tick."""
    run = context.dagster_run
    reason = _undelivered(context, text, f"runs/{run.run_id}")
    return dg.SkipReason(reason) if reason else DagsterRunReaction(run, run_status=run.status)


def _undelivered(
    context: dg.RunStatusSensorContext | dg.SensorEvaluationContext, text: str, page: str
) -> str | None:
    """Post a text and a link to a page of the UI; why it was not delivered, which is logged."""
    try:
        url, base = setting(WEBHOOK), setting("RANDUSERS_UI_URL")
        if not url:
            return f"{WEBHOOK} is not set: no alert is sent."
        deliver(url, f"{text}\n{base.rstrip('/')}/{page}")
    except dg.DagsterInvalidDefinitionError as error:
        reason = str(error)
    except Undelivered as undelivered:
        reason = f"The alert was not delivered: {undelivered}. Check {WEBHOOK}."
    else:
        return None
    context.log.error(reason)
    return reason
