"""The boundary to Dagster: what a step fails with, and whether it is retried."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import dagster as dg
import pytest

from randusers_assets.errors import RETRY_POLICY, dagster_failures, failure_message, root_cause
from randusers_assets.pipeline.errors import Conflict, Drift, SnapshotError

MESSAGE = "The API is down: look at its status page."
DOWN, REFUSED = SnapshotError(MESSAGE, retryable=True), SnapshotError(MESSAGE)
INTERRUPTED = (
    "The run was interrupted before it published anything: the CSV that is published and its"
    " receipt stay as they were."
)
INTERRUPTED_ELSEWHERE = (
    "The run was interrupted between its steps: `randusers verify` shows what is published."
)
STOPPED = dg.DagsterExecutionInterruptedError()
NO_DELAY = dg.RetryPolicy(max_retries=RETRY_POLICY.max_retries)

Boundary = Callable[[dg.AssetExecutionContext], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("error", "retries"),
    [(DOWN, True), (REFUSED, False), (Drift(2, "rows", 1, 2), True), (Conflict(MESSAGE), False)],
)
def test_snapshot_error_becomes_a_failure_with_its_message(
    error: SnapshotError, *, retries: bool
) -> None:
    """Dagster may retry exactly the errors that are retryable."""
    with pytest.raises(dg.Failure) as raised, dagster_failures():
        raise error
    assert (raised.value.description, raised.value.allow_retries) == (str(error), retries)
    assert raised.value.__cause__ is error


def test_other_errors_pass_the_boundary() -> None:
    """A bug stays the exception that it is."""
    with pytest.raises(KeyError, match="bug"), dagster_failures():
        raise KeyError("bug")


@pytest.mark.parametrize(
    ("error", "boundary", "policy", "attempts", "last"),
    [
        (DOWN, dagster_failures, NO_DELAY, 3, "Failure"),
        (REFUSED, dagster_failures, NO_DELAY, 1, "Failure"),
        (DOWN, lambda _: dagster_failures(), NO_DELAY, 3, "Dagster's own"),
        (STOPPED, dagster_failures, NO_DELAY, 1, "Interrupted"),
        (STOPPED, lambda _: nullcontext(), NO_DELAY, 3, "Dagster's own"),
        (STOPPED, lambda _: nullcontext(), None, 1, "Dagster's own"),
    ],
)
def test_step_ends_in_its_message_after_its_attempts(
    error: BaseException,
    boundary: Boundary,
    policy: dg.RetryPolicy | None,
    attempts: int,
    last: str,
) -> None:
    """The last attempt and an interruption end the step themselves; the message is always found."""

    @dg.asset(retry_policy=policy)
    def failing(context: dg.AssetExecutionContext) -> None:
        with boundary(context):
            raise error

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([failing], instance=instance, raise_on_error=False)
    (ended,) = (event for event in result.all_events if event.is_step_failure)
    retried = [event for event in result.all_events if event.is_step_up_for_retry]
    found = ended.step_failure_data.error
    assert found is not None
    assert len(retried) + 1 == attempts
    ours = found.cls_name in ("Failure", "Interrupted")
    assert (found.cls_name if ours else "Dagster's own") == last
    stopped = INTERRUPTED if last == "Interrupted" else INTERRUPTED_ELSEWHERE
    assert failure_message(root_cause(found)) == (stopped if error is STOPPED else MESSAGE)


@pytest.mark.parametrize("stores", [True, False])
def test_io_manager_ends_a_step_in_its_message_on_the_last_attempt(*, stores: bool) -> None:
    """An S3 outage that outlasts the retries of a step ends in its message, storing or loading."""

    class Failing(dg.IOManager):
        def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002  # Dagster's signature
            with dagster_failures(context):
                if stores:
                    raise DOWN

        def load_input(self, context: dg.InputContext) -> object:
            with dagster_failures(context):
                raise DOWN

    @dg.asset(retry_policy=NO_DELAY)
    def first() -> int:
        return 1

    @dg.asset(retry_policy=NO_DELAY)
    def second(first: int) -> int:
        return first

    resources = {"io_manager": Failing()}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [first, second], resources=resources, instance=instance, raise_on_error=False
        )
    (ended,) = (event for event in result.all_events if event.is_step_failure)
    retried = [event for event in result.all_events if event.is_step_up_for_retry]
    found = ended.step_failure_data.error
    assert found is not None
    assert (ended.step_key, len(retried)) == ("first" if stores else "second", 2)
    assert "max_retries" not in found.message
    assert failure_message(root_cause(found)) == MESSAGE
