"""The one boundary between the pipeline's errors and Dagster's, and how a run's failure is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.publish.publish import UNTOUCHED
from randusers_assets.pipeline.storage.tempfiles import explain_host_limits

if TYPE_CHECKING:
    from dagster_shared.error import SerializableErrorInfo

# For errors that outlast the retries within a step and may pass later.
RETRY_POLICY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)

INTERRUPTED = f"The run was interrupted before it published anything: {UNTOUCHED}."
INTERRUPTED_CHECK = f"The run was interrupted in a check: {UNTOUCHED}."
INTERRUPTED_ELSEWHERE = (
    "The run was interrupted between its steps: `randusers verify` shows what is published."
)


class Interrupted(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """Somebody stopped the run; a Dagster error, because Dagster never retries those."""


Context = dg.AssetExecutionContext | dg.OutputContext | dg.InputContext


def _attempts(context: Context | None) -> int:
    """How often the step was tried before; 0 outside of a run, as in `load_asset_value`."""
    if isinstance(context, dg.AssetExecutionContext):
        attempts: int = context.retry_number
        return attempts
    try:
        return context.step_context.previous_attempt_count if context else 0
    except dg.DagsterInvariantViolationError:
        return 0


@contextmanager
def dagster_failures(
    context: Context | None = None, interrupted: Callable[[], str] = lambda: INTERRUPTED
) -> Iterator[None]:
    """Turn a SnapshotError into a dagster.Failure, which ends the step in its sentence.

    The last attempt, which `context` knows, is not retried: Dagster would report "Exceeded
    max_retries". Ctrl-C and Terminate raise Interrupted, as Dagster would retry its own
    interruption; `interrupted` says what is true of the bucket then.
    """
    try:
        with explain_host_limits():
            yield
    except SnapshotError as error:
        retry = error.retryable and _attempts(context) < RETRY_POLICY.max_retries
        raise dg.Failure(str(error), allow_retries=retry) from error
    except dg.DagsterExecutionInterruptedError:
        raise Interrupted(interrupted()) from None


def gate_failed(check: dg.AssetCheckEvaluation) -> bool:
    """Whether a check closed its gate: it is blocking, it failed, and it does not only warn."""
    failed = not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    return failed and bool(check.blocking)


def root_cause(error: "SerializableErrorInfo") -> "SerializableErrorInfo":
    """The first `dagster.Failure` of an error and its causes, else the last of them."""
    while error.cls_name != dg.Failure.__name__ and error.cause is not None:
        error = error.cause
    return error


def was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether somebody stopped a run."""
    errors = (e.step_failure_data.error for e in result.all_events if e.is_step_failure)
    names = (Interrupted.__name__, dg.DagsterExecutionInterruptedError.__name__)
    return any(error and root_cause(error).cls_name in names for error in errors)


def failure_message(cause: "SerializableErrorInfo") -> str:
    """The sentence of a `dagster.Failure` or an interruption; else the class and message."""
    if cause.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return INTERRUPTED_ELSEWHERE
    message, ours = cause.message.strip(), (dg.Failure.__name__, Interrupted.__name__)
    return message.partition(": ")[2] if cause.cls_name in ours else message
