"""The gates: blocking asset checks, each named by the fact it asserts."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

import dagster as dg

from randusers_assets.automation import daily
from randusers_assets.contract import Offender
from randusers_assets.pipeline.audit.encode import SnapshotGate, encoded
from randusers_assets.pipeline.audit.rules import EXAMPLES, ROW_RULES, Finding
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish.publish import accepted_before, history_problems, read_back
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets.previews import daily_check_spec

P = ParamSpec("P")


def gate(asset: str, fact: str, description: str, *, blocking: bool = True) -> dg.AssetCheckSpec:
    """A check of one day of an asset."""
    return daily_check_spec(f"{asset}_{fact}", asset, description, daily, blocking=blocking)


def result(
    asset: str,
    fact: str,
    *,
    passed: bool,
    summary: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **metadata: Any,  # noqa: ANN401  # whatever Dagster takes as a metadata value
) -> dg.AssetCheckResult:
    """An evaluation of the check `<asset>_<fact>`; one that fails is a line of the run's log."""
    if not passed:
        dg.get_dagster_logger().log(logging.getLevelName(severity.value), summary)
    return dg.AssetCheckResult(
        check_name=f"{asset}_{fact}",
        asset_key=asset,
        passed=passed,
        severity=severity,
        description=summary,
        metadata=metadata,
    )


def rows_result(
    asset: str,
    fact: str,
    finding: Finding,
    rows: int,
    policy: SnapshotGate,
    **metadata: Any,  # noqa: ANN401  # as in `result`
) -> dg.AssetCheckResult:
    """Judge users who break a row rule: none passes, up to the gate's share warns, more closes."""
    closes = policy.rejects_too_many(finding.users, rows)
    summary = f"All {rows:,} users keep this rule."
    if finding.users:
        first = finding.examples[0]
        who = "one without an id" if first.id is None else f"user {first.id}"
        then = (
            "the gate is closed: mend them at the source, or raise RANDUSERS_MAX_REJECTED_RATIO"
            f" above {policy.max_rejected_ratio:g}"
            if closes
            else "they are set aside"
        )
        summary = (
            f"{finding.users:,} of {rows:,} users break {asset}_{fact}, {who} first, in"
            f" {first.column}; {then}."
        )
    return result(
        asset,
        fact,
        passed=finding.users == 0,
        summary=summary,
        severity=dg.AssetCheckSeverity.ERROR if closes else dg.AssetCheckSeverity.WARN,
        users=finding.users,
        # As text: a number is a plot, and the users are the one to look at.
        share=f"{percent(finding.users / max(rows, 1))};"
        f" closed above {percent(policy.max_rejected_ratio)}",
        **offenders_table(finding.examples),
        **metadata,
    )


def percent(share: float) -> str:
    """A share of the users, as people say it."""
    return f"{100 * share:.4g} %"


def offenders_table(offenders: Sequence[Offender]) -> dict[str, Any]:
    """The first users who break a rule, by id, their personal values masked; if there are any."""
    if not offenders:
        return {}
    columns = [dg.TableColumn(name) for name in ("id", "column", "value")]
    rows = [
        dg.TableRecord({"id": str(o.id), "column": o.column, "value": o.shown}) for o in offenders
    ]
    return {"offenders": dg.MetadataValue.table(rows, schema=dg.TableSchema(columns))}


def ending_in_its_sentence(
    gates: Callable[P, Iterator[dg.AssetCheckResult]],
) -> Callable[P, Iterator[dg.AssetCheckResult]]:
    """End a step whose gate is closed in the gate's sentence, which a run's page shows last.

    Dagster's own end of such a step names the gate alone, above a stack.

    Raises:
        dagster.Failure: a gate is closed; once every check of the step is evaluated.
    """

    @functools.wraps(gates)
    def judged(*args: P.args, **kwargs: P.kwargs) -> Iterator[dg.AssetCheckResult]:
        closed = []
        for one in gates(*args, **kwargs):
            if not one.passed and one.severity is dg.AssetCheckSeverity.ERROR:
                closed.append(one)
            yield one
        if closed:
            names = ", ".join(str(one.check_name) for one in closed)
            sentences = " ".join(str(one.description) for one in closed)
            raise dg.Failure(f"Closed by {names}: {sentences}", allow_retries=False)

    return judged


@dg.multi_asset_check(
    name="raw_users_gates",
    specs=[
        gate(
            "raw_users",
            "is_complete",
            "The stored lines and the distinct ids are as many as the API declared. Failing means"
            " users are missing or doubled: materialize raw_users again.",
        ),
        gate(
            "raw_users",
            "keeps_the_contract",
            "Every path of the contract is there, with its type. Failing means the API changed:"
            " bring contract.py in line with it.",
        ),
        gate(
            "raw_users",
            "has_no_unknown_paths",
            "The API sends nothing that the contract does not know. A warning: what is new is kept"
            " in raw, and in no column until contract.py names it.",
            blocking=False,
        ),
    ],
)
@ending_in_its_sentence
def raw_users_gates(
    raw_users: RawUsers, snapshot_gate: SnapshotGate
) -> Iterator[dg.AssetCheckResult]:
    """Hold what the one reading of the stored lines found against what the API declared."""
    reading, declared = raw_users.reading, raw_users.facts.declared
    yield result(
        "raw_users",
        "is_complete",
        passed=declared == reading.rows == reading.distinct_ids,
        summary=f"{declared:,} users declared, {reading.rows:,} stored,"
        f" {reading.distinct_ids:,} distinct ids.",
        declared=declared,
        stored=reading.rows,
        distinct_ids=reading.distinct_ids,
    )
    examples = [broken.offender() for broken in reading.broken[:EXAMPLES]]
    yield rows_result(
        "raw_users",
        "keeps_the_contract",
        Finding(reading.problems.total(), examples),
        reading.rows,
        snapshot_gate,
        paths=dict(reading.problems),
    )
    unknown = reading.unknown
    yield result(
        "raw_users",
        "has_no_unknown_paths",
        passed=not unknown,
        summary=f"Unknown: {', '.join(sorted(unknown))}." if unknown else "None.",
        severity=dg.AssetCheckSeverity.WARN,
        paths=dict(unknown),
    )


@dg.multi_asset_check(
    name="users_df_gates",
    specs=[
        gate(
            "users_df",
            "row_count_reconciles",
            "Every raw user is one row, or set aside for breaking the contract. Failing means that"
            " rows were lost on the way: materialize users_df again.",
        ),
        *(gate("users_df", name, rule.description) for name, rule in ROW_RULES.items()),
        gate(
            "users_df",
            "ids_are_unique",
            "No two users share an id or a login_uuid. Failing means that the source doubles"
            " users: tell its owner; nothing is published.",
        ),
        gate(
            "users_df",
            "is_in_line_with_history",
            "Row count and NULL shares moved no further from the last publication than the stated"
            " bounds. Failing means that data vanished or exploded: if the change is right, run"
            " once with snapshot_gate's accept_change.",
        ),
        gate(
            "users_df",
            "holds_no_formulas",
            "No cell starts a formula in a spreadsheet. A warning: cells are published as they"
            " are, so import the CSV as text.",
            blocking=False,
        ),
    ],
)
@ending_in_its_sentence
def users_df_gates(
    context: dg.AssetCheckExecutionContext,
    users_df: UserFrames,
    snapshot_gate: SnapshotGate,
    snapshot_store: SnapshotStore,
) -> Iterator[dg.AssetCheckResult]:
    """Judge what the one pass over the flat users found, by all the rules of users_df."""
    csv = encoded(users_df)
    audit, cells = csv.audit, csv.formulas
    facts, set_aside = users_df.facts, len(users_df.facts.broken)
    yield result(
        "users_df",
        "row_count_reconciles",
        passed=facts.fetch.declared == facts.raw_rows == audit.rows + set_aside,
        summary=f"{facts.raw_rows:,} raw users, {audit.rows:,} rows, {set_aside:,} set aside.",
        declared=facts.fetch.declared,
        raw=facts.raw_rows,
        flat=audit.rows,
        set_aside=set_aside,
    )
    for name, finding in audit.findings.items():
        yield rows_result("users_df", name, finding, audit.rows, snapshot_gate)
    examples = [example for finding in csv.repeated.values() for example in finding.examples]
    yield result(
        "users_df",
        "ids_are_unique",
        passed=not examples,
        summary=f"{audit.rows:,} users; "
        + ", ".join(f"{f.users:,} share their {name}" for name, f in csv.repeated.items())
        + ".",
        users=sum(finding.users for finding in csv.repeated.values()),
        **offenders_table(examples),
    )
    problems, past = history_problems(
        snapshot_store, context.partition_key, audit.rows, audit.nulls
    )
    accepted = snapshot_gate.accept_change or accepted_before(
        snapshot_store, context.partition_key, facts.raw_sha256
    )
    yield result(
        "users_df",
        "is_in_line_with_history",
        passed=not problems or bool(accepted),
        summary="; ".join(problems)
        or (f"In line with {past.date}." if past else "The first publication: no history yet."),
        rows=audit.rows,
        rows_before=past.counts.published if past else None,
        accepted=accepted,
    )
    yield result(
        "users_df",
        "holds_no_formulas",
        passed=cells.users == 0,
        summary=f"{cells.users:,} cells start a formula.",
        severity=dg.AssetCheckSeverity.WARN,
        cells=cells.users,
        **offenders_table(cells.examples),
    )


@dg.multi_asset_check(
    name="users_csv_gates",
    specs=[
        gate(
            "users_csv",
            "matches_its_receipt",
            "The stored object, read back, has the bytes, the digest and the rows of its receipt."
            " Failing means that another writer touched it: materialize users_csv again.",
        ),
    ],
)
@ending_in_its_sentence
def users_csv_gates(
    context: dg.AssetCheckExecutionContext, snapshot_store: SnapshotStore
) -> Iterator[dg.AssetCheckResult]:
    """Read the published object back by streaming and hold it against its receipt."""
    differences, found = read_back(snapshot_store, context.partition_key)
    yield result(
        "users_csv",
        "matches_its_receipt",
        passed=not differences,
        summary=" ".join(differences) or "The object is as its receipt says.",
        **found,
    )
