"""What ends a run: the failure of the last try, and whoever interrupts it."""

import dagster as dg
import pytest

from randusers_assets.errors import ending_when_interrupted, final_on_the_last_try, sentence

POLICY = dg.RetryPolicy(max_retries=2)
SAID = "The API is down: look at its status page."


@dg.asset(retry_policy=POLICY)
def fetched(context: dg.AssetExecutionContext) -> None:
    """An asset whose every try fails."""
    with final_on_the_last_try(context, POLICY):
        raise dg.Failure(SAID)


@dg.asset(retry_policy=POLICY)
def refused(context: dg.AssetExecutionContext) -> None:
    """An asset that no second try helps."""
    with final_on_the_last_try(context, POLICY):
        raise dg.Failure(SAID, allow_retries=False)


@pytest.mark.parametrize(("asset", "tries"), [(fetched, 3), (refused, 1)])
def test_failure_of_the_last_try_is_what_the_step_ends_in(
    asset: dg.AssetsDefinition, tries: int
) -> None:
    """The step is tried as often as its policy allows, and ends in the failure, not around it."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], instance=instance, raise_on_error=False)
    (ended,) = (event for event in result.all_events if event.is_step_failure)
    again = [event for event in result.all_events if event.is_step_up_for_retry]
    error = ended.step_failure_data.error
    assert error is not None
    assert (len(again) + 1, error.cls_name, error.cause) == (tries, "Failure", None)
    assert sentence(error) == SAID


@dg.asset(retry_policy=POLICY)
@ending_when_interrupted()
def interrupted() -> None:
    """An asset that somebody interrupts."""
    raise dg.DagsterExecutionInterruptedError


@dg.asset(retry_policy=POLICY)
def begun_again() -> None:
    """The same, left to Dagster."""
    raise dg.DagsterExecutionInterruptedError


@pytest.mark.parametrize(("asset", "tries"), [(interrupted, 1), (begun_again, 3)])
def test_interrupted_step_is_not_tried_again(asset: dg.AssetsDefinition, tries: int) -> None:
    """Terminate and Ctrl-C end the run, in a sentence; a policy alone would begin it again."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([asset], instance=instance, raise_on_error=False)
    (ended,) = (event for event in result.all_events if event.is_step_failure)
    again = [event for event in result.all_events if event.is_step_up_for_retry]
    assert len(again) + 1 == tries
    error = ended.step_failure_data.error
    assert error is not None
    assert (error.cls_name == "Interrupted") is (asset is interrupted)


def test_interrupted_gates_say_so_too() -> None:
    """A step without a retry policy ends in Dagster's own error, told in the same sentence."""

    @dg.asset
    def gates() -> None:
        raise dg.DagsterExecutionInterruptedError

    result = dg.materialize([gates], raise_on_error=False)
    (ended,) = (event for event in result.all_events if event.is_step_failure)
    error = ended.step_failure_data.error
    assert error is not None
    assert sentence(error) == "The run was interrupted: what is published stays as it was."
