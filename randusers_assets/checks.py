"""The gates: blocking asset checks that show what pipeline/audit judged."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import dagster as dg

from randusers_assets.automation import daily
from randusers_assets.contract import CONTRACT
from randusers_assets.errors import INTERRUPTED_CHECK, dagster_failures
from randusers_assets.pipeline.audit.gates import Finding, describe_closed, judge_raw
from randusers_assets.pipeline.audit.rules import row_rules
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.verify import read_back
from randusers_assets.resources import SnapshotGate, SnapshotStore

# Their failures do not stop a run.
ONLY_WARN = ("has_no_unknown_paths", "holds_no_formulas")

RAW_USERS_GATES = {
    "is_complete": "As many rows and distinct keys are stored as the API declared. If this fails,"
    " rows are missing or doubled: materialize raw_users again.",
    "keeps_the_contract": "Every path of the contract is there, with its type. If this fails, the"
    " API changed: adapt contract.py.",
    "has_no_unknown_paths": "The API sends nothing that is not in the contract. This only warns:"
    " new paths are kept in raw_users, and get no column until contract.py names them.",
}
USERS_DF_GATES = {
    "row_count_reconciles": "Every raw row is published or set aside. If this fails, rows were lost"
    " or doubled on the way: materialize raw_users again.",
    **{name: rule.description for name, (rule, _) in row_rules(CONTRACT).items()},
    "ids_are_unique": f"No two rows share {' or '.join(CONTRACT.unique)}. If this fails, the source"
    " sends rows twice: tell its owner; nothing is published.",
    "rejects_are_within_ratio": "No more rows are set aside than max_rejected_ratio allows, over"
    " all rules together. If this fails, fix the rows at the source, or raise"
    " RANDUSERS_MAX_REJECTED_RATIO.",
    "is_in_line_with_history": "Row count and NULL shares changed no more since the last"
    " publication than the stated bounds. If this fails, data vanished or exploded: if the change"
    " is right, run once with snapshot_gate's accept_change.",
    "holds_no_formulas": "No cell would be read as a formula by a spreadsheet. This only warns:"
    " cells are published as they are, so import the CSV as text.",
}
USERS_CSV_GATES = {
    "matches_its_receipt": "The stored object, read back, has the bytes, the digest and the rows of"
    " its receipt. If this fails, something else wrote to it: materialize users_csv again.",
}


def gates(asset: str, descriptions: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """The checks of one day of an asset; without `partitions_def` each would load all days."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of `partitions_def`
        return [
            dg.AssetCheckSpec(
                name,
                asset=asset,
                description=text,
                blocking=name not in ONLY_WARN,
                partitions_def=daily,
            )
            for name, text in descriptions.items()
        ]


def check_results(
    context: dg.AssetCheckExecutionContext, findings: Sequence[Finding]
) -> Iterator[dg.AssetCheckResult]:
    """Show each finding whose check is selected; if a gate is closed, end the step in its message.

    The run page shows that message last; Dagster's own would only name the check, above a stack.
    """
    selected = {key.name: key.asset_key for key in context.selected_asset_check_keys}
    findings = [finding for finding in findings if finding.name in selected]
    for finding in findings:
        severity = dg.AssetCheckSeverity.WARN if finding.warns else dg.AssetCheckSeverity.ERROR
        if not finding.passed:
            level = logging.WARNING if finding.warns else logging.ERROR
            dg.get_dagster_logger().log(level, finding.sentence)
        offenders = [
            dg.TableRecord({CONTRACT.key: str(one.id), "column": one.column, "value": one.shown})
            for one in finding.examples
        ]
        table = {"offenders": dg.MetadataValue.table(offenders)} if offenders else {}
        yield dg.AssetCheckResult(
            check_name=finding.name,
            asset_key=selected[finding.name],
            passed=finding.passed,
            severity=severity,
            description=finding.sentence,
            metadata={**finding.facts, **table},
        )
    if closed := describe_closed(findings):
        raise dg.Failure(closed, allow_retries=False)


@contextmanager
def explain_refusal(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Fail the checks of raw_users for its day, with the message, if that day is refused.

    They do not run then; by itself Dagster would show "Execution failed" and no reason.
    """
    try:
        yield
    except SnapshotError as refusal:
        for name in RAW_USERS_GATES if not refusal.retryable else ():
            evaluation = dg.AssetCheckEvaluation(
                asset_key=context.asset_key,
                check_name=name,
                passed=False,
                severity=dg.AssetCheckSeverity("WARN" if name in ONLY_WARN else "ERROR"),
                description=str(refusal),
                metadata={"run": dg.MetadataValue.dagster_run(context.run.run_id)},
                partition=context.partition_key,
            )
            context.instance.report_runless_asset_event(evaluation)
        raise


# `can_subset`: the UI can execute one of them.
gate_check = partial(dg.multi_asset_check, can_subset=True)


@gate_check(name="raw_users_gates", specs=gates("raw_users", RAW_USERS_GATES))
def raw_users_gates(
    context: dg.AssetCheckExecutionContext,
    raw_users: RawUsers,
    snapshot_gate: SnapshotGate,
    snapshot_store: SnapshotStore,
) -> Iterator[dg.AssetCheckResult]:
    """Judge what decoding the stored lines found."""
    with dagster_failures():
        findings = judge_raw(snapshot_store.run.decode(raw_users), snapshot_gate.policy)
    yield from check_results(context, findings)


@gate_check(name="users_df_gates", specs=gates("users_df", USERS_DF_GATES))
def users_df_gates(
    context: dg.AssetCheckExecutionContext,
    users_df: UserFrames,
    snapshot_gate: SnapshotGate,
    snapshot_store: SnapshotStore,
) -> Iterator[dg.AssetCheckResult]:
    """Show the judgement that users_csv obeys."""
    with dagster_failures():
        judgement = snapshot_store.run.judge(context.partition_key, users_df, snapshot_gate.policy)
    yield from check_results(context, judgement.findings)


@gate_check(name="users_csv_gates", specs=gates("users_csv", USERS_CSV_GATES))
def users_csv_gates(
    context: dg.AssetCheckExecutionContext, snapshot_store: SnapshotStore
) -> Iterator[dg.AssetCheckResult]:
    """Read the published object back and compare it with its receipt."""
    with dagster_failures(interrupted=lambda: INTERRUPTED_CHECK):
        finding = read_back(snapshot_store.store, CONTRACT, context.partition_key)
    yield from check_results(context, [finding])
