"""Why a run failed, from its own events, and what a step ends in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster_shared.error import SerializableErrorInfo


INTERRUPTED = "The run was interrupted: what is published stays as it was."


class Interrupted(dg.DagsterError, dg.DagsterExecutionInterruptedError):
    """A run that somebody ended; as Dagster's error, so that no retry policy begins it again."""


@contextmanager
def ending_when_interrupted() -> Iterator[None]:
    """Let Ctrl-C, or Terminate in the UI, end the step: Dagster has a retry policy try it again.

    Raises:
        Interrupted: in the place of Dagster's own.
    """
    try:
        yield
    except dg.DagsterExecutionInterruptedError:
        raise Interrupted(INTERRUPTED) from None


def closed(check: dg.AssetCheckEvaluation) -> bool:
    """Whether a check closed its gate: blocking, failed, and no mere warning."""
    failed = not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    return failed and bool(check.blocking)


def root_cause(error: "SerializableErrorInfo") -> "SerializableErrorInfo":
    """The first `dagster.Failure` of an error and its causes, else the last of them."""
    while error.cls_name != dg.Failure.__name__ and error.cause is not None:
        error = error.cause
    return error


def sentence(cause: "SerializableErrorInfo") -> str:
    """The sentence of a `dagster.Failure` or an interruption; else the class and message."""
    if cause.cls_name in (Interrupted.__name__, dg.DagsterExecutionInterruptedError.__name__):
        return INTERRUPTED
    said = cause.message.strip()
    return said.partition(": ")[2] if cause.cls_name == dg.Failure.__name__ else said


@contextmanager
def final_on_the_last_try(
    context: dg.AssetExecutionContext, policy: dg.RetryPolicy
) -> Iterator[None]:
    """Let a failure of a step's last try end the run itself, so that its page opens with it.

    Dagster's own end of the tries is "Exceeded max_retries", above a stack, above the failure.
    """
    try:
        yield
    except dg.Failure as failure:
        failure.allow_retries &= context.retry_number < policy.max_retries
        raise
