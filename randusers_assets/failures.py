"""Why a run failed, from its own events."""

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster_shared.error import SerializableErrorInfo


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
    """The sentence of a `dagster.Failure`; the class and message of another error."""
    said = cause.message.strip()
    return said.partition(": ")[2] if cause.cls_name == dg.Failure.__name__ else said
