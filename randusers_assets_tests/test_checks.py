"""Each check shows what the pipeline judged, its step ends in the messages of the closed gates."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import dagster as dg
import pytest

from randusers_assets import checks
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import Policy, judge_raw
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import decode_raw
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.resources import SnapshotGate, SnapshotStore
from randusers_assets_tests import builders
from randusers_assets_tests.builders import User, frames_of, raw_users_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import BAD_EMAIL, DAY
from randusers_assets_tests.project import definitions_on

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
STRICT, LENIENT = SnapshotGate(), SnapshotGate(max_rejected_ratio=0.5, accept_rejects="known")
FIX = "fix them at the source, or set RANDUSERS_MAX_REJECTED_RATIO to at least"
RAW, DF, CSV = checks.raw_users_gates, checks.users_df_gates, checks.users_csv_gates

MATCHES = "matches_its_receipt"

Results = dict[str, dg.AssetCheckResult]


def run_checks(
    definition: dg.AssetChecksDefinition, *arguments: object
) -> tuple[Results, str | None]:
    """Every result of the checks on a day, by name, and the message that their step ends in."""
    results: Results = {}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_op_context(partition_key=DAY, instance=instance) as context,
    ):
        invoked = cast("Iterator[dg.AssetCheckResult]", definition(context, *arguments))
        try:
            for result in invoked:
                results[str(result.check_name)] = result
        except dg.Failure as failure:
            assert failure.allow_retries is False  # noqa: PT017  # after the results, not instead
            return results, failure.description
    return results, None


@pytest.mark.parametrize(
    ("asset", "check"),
    [("raw_users", "is_complete"), ("users_df", "ids_are_unique"), ("users_csv", MATCHES)],
)
def test_one_check_runs_alone(snapshot_store: SnapshotStore, asset: str, check: str) -> None:
    """What the UI's "Execute" beside a check starts: that check of that day, and nothing else."""
    bucket.publish_users(snapshot_store.store, DAY, users(10))
    job = definitions_on(snapshot_store).resolve_implicit_global_asset_job_def()
    one = {dg.AssetCheckKey(dg.AssetKey(asset), check)}
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(
            asset_selection=set(), asset_check_selection=one
        ).execute_in_process(instance=instance, tags={"dagster/partition": DAY})
    shown = [(one.check_name, one.passed) for one in result.get_asset_check_evaluations()]
    assert shown == [(check, True)]
    assert result.get_asset_materialization_events() == []


def failed(results: Results) -> dict[str, dg.AssetCheckSeverity]:
    """The checks that did not pass."""
    return {name: result.severity for name, result in results.items() if not result.passed}


def values_of(result: dg.AssetCheckResult) -> dict[str, Any]:
    """The metadata as plain values, the offenders as tuples."""
    return {
        name: [tuple(record.data.values()) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in result.metadata.items()
    }


def test_gates_block_and_are_partitioned() -> None:
    """Every gate blocks, on one day of its asset; the two warnings do not block."""
    for asset, definition in {"raw_users": RAW, "users_df": DF, "users_csv": CSV}.items():
        for spec in definition.check_specs:
            assert spec.asset_key == dg.AssetKey(asset)
            assert spec.blocking is (spec.name not in ("has_no_unknown_paths", "holds_no_formulas"))
            assert isinstance(spec.partitions_def, dg.DailyPartitionsDefinition)
            # What passing means, then what to do, or that there is nothing to do.
            then = ". If this fails, " if spec.blocking else ". This only warns: "
            assert then in str(spec.description)


def test_gates_are_exactly_those_that_the_pipeline_judges() -> None:
    """No finding that can stop a publication lacks a check, and no check lacks its finding."""
    raw = ["is_complete", "keeps_the_contract", "has_no_unknown_paths"]
    rules = ["emails_are_valid", "required_are_filled"]
    rules += ["texts_are_single_line", "timestamps_are_valid"]
    df = ["row_count_reconciles", *rules, "ids_are_unique", "rejects_are_within_ratio"]
    df += ["is_in_line_with_history", "holds_no_formulas"]
    judged_raw = judge_raw(decode_raw(raw_users_of(users(1))), Policy())
    assert [finding.name for finding in judged_raw] == raw
    assert [finding.name for finding in builders.judgement_of(users(1)).findings] == [*raw[:2], *df]
    for definition, names in ((RAW, raw), (DF, df), (CSV, ["matches_its_receipt"])):
        assert {spec.name for spec in definition.check_specs} == set(names)


INCOMPLETE, MANY = "row_count_reconciles", "rejects_are_within_ratio"


@pytest.mark.parametrize(
    ("snapshot", "declared", "strict", "lenient"),
    [
        (users(4, email=user(2)["email"]), 4, [], []),
        (users(4), 5, [INCOMPLETE], [INCOMPLETE]),
        ([*users(4), user(1, dob_age="x")], 5, [INCOMPLETE, MANY], [INCOMPLETE]),
        (users(4, id="x"), 4, [INCOMPLETE, MANY], [INCOMPLETE]),
        (users(4, dob_age="x"), 4, [MANY], []),
        (users(4, email=BAD_EMAIL), 4, ["emails_are_valid", MANY], []),
    ],
    ids=["one email twice", "too few", "key twice", "no key", "undecodable", "bad email"],
)
def test_users_df_gates_alone_pass_exactly_when_the_csv_is_published(
    snapshot_store: SnapshotStore,
    snapshot: list[User],
    declared: int,
    strict: list[str],
    lenient: list[str],
) -> None:
    """Where the checks of raw_users are left out, those of users_df close for every reason."""
    frames, store = frames_of(snapshot, declared), snapshot_store.store
    for gate, closed in ((STRICT, strict), (LENIENT, lenient)):
        results, end = run_checks(DF, frames, gate, snapshot_store)
        assert results.keys() == checks.USERS_DF_GATES.keys()
        assert [name for name, severity in failed(results).items() if severity is ERROR] == closed
        refused = pytest.raises(SnapshotError, match=r" Nothing is published\.$")
        with nullcontext() if end is None else refused:
            run = SnapshotRun(store, CONTRACT)
            publish(run.store, DAY, run.pass_gates(DAY, frames, gate.policy), "run")
        assert (store.head(bucket.CSV) is None) is bool(closed)


def test_raw_users_gates_show_what_decoding_found(snapshot_store: SnapshotStore) -> None:
    """Rows that are missing or break the contract close; within the ratio they warn."""
    retyped, nameless = user(1, location_postcode=["x"]), user(2)
    del nameless["name"]["first"]
    raw = raw_users_of([retyped, nameless, *users(10)[2:]], 11)
    strict, end = run_checks(RAW, raw, STRICT, snapshot_store)
    assert failed(strict) == {"is_complete": ERROR, "keeps_the_contract": ERROR}
    incomplete = "11 rows declared, 10 stored, 10 distinct keys."
    broken = "2 of 10 rows fail, first id 1, in location.postcode;"
    assert end == f"Closed by is_complete, keeps_the_contract: {incomplete} {broken} {FIX} 0.2."
    assert strict["is_complete"].description == incomplete
    assert values_of(strict["is_complete"]) == {"declared": 11, "stored": 10, "distinct_keys": 10}
    assert strict["keeps_the_contract"].description == f"{broken} {FIX} 0.2."
    problem = "expected int or str, got array"
    assert values_of(strict["keeps_the_contract"]) == {
        "rows": 2,
        "offenders": [("1", "location.postcode", problem), ("2", "name.first", "missing")],
        "paths": {f"location.postcode: {problem}": 1, "name.first: missing": 1},
    }
    lenient, end = run_checks(RAW, raw, LENIENT, snapshot_store)
    assert failed(lenient) == {"is_complete": ERROR, "keeps_the_contract": WARN}
    assert lenient["keeps_the_contract"].description == f"{broken} they are set aside."
    assert end == f"Closed by is_complete: {incomplete}"


def test_warnings_end_no_step(
    snapshot_store: SnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown paths and formulas are named, counted and logged, and close nothing."""
    first, second = user(1, name_last="=cmd|' /C calc'!A0", phone="+49 123"), user(2)
    first["badge"] = second["badge"] = {"colour": "blue"}
    second["name"]["middle"] = "May"
    raw, raw_end = run_checks(RAW, raw_users_of([first, second]), STRICT, snapshot_store)
    df, df_end = run_checks(DF, frames_of([first, second]), STRICT, snapshot_store)
    assert (failed(raw), raw_end) == ({"has_no_unknown_paths": WARN}, None)
    assert (failed(df), df_end) == ({"holds_no_formulas": WARN}, None)
    unknown, formulas = raw["has_no_unknown_paths"], df["holds_no_formulas"]
    assert unknown.description == "Unknown: badge, name.middle."
    assert values_of(unknown) == {"paths": {"badge": 2, "name.middle": 1}}
    assert formulas.description == "1 cells would be read as formulas by a spreadsheet."
    assert values_of(formulas) == {"cells": 1, "offenders": [("1", "name_last", "=•••")]}
    logged = [(record.levelname, record.message) for record in caplog.records]
    assert logged == [("WARNING", result.description) for result in (unknown, formulas)]


@pytest.mark.parametrize(
    ("rule", "column", "value", "masked"),
    [
        ("emails_are_valid", "email", "somebody@nowhere", "s•••"),
        ("required_are_filled", "name_first", "", ""),
        ("texts_are_single_line", "location_street_name", "A\nB", "A•••"),
        ("timestamps_are_valid", "dob_date", "1968-02-30T10:02:51.768Z", "1•••"),
    ],
)
def test_row_rule_closes_its_gate_beyond_the_ratio(
    snapshot_store: SnapshotStore, rule: str, column: str, value: str, masked: str
) -> None:
    """One bad cell fails its own rule, shown by key and masked value; within the ratio it warns."""
    snapshot = users(10, **{column: value})
    frames = frames_of(snapshot)
    strict, end = run_checks(DF, frames, STRICT, snapshot_store)
    lenient, open_end = run_checks(DF, frames, LENIENT, snapshot_store)
    assert failed(strict) == {rule: ERROR, MANY: ERROR}
    assert failed(lenient) == {rule: WARN}
    broken, aside = f"1 of 10 rows fail, first id 1, in {column};", "1 of 10 rows are set aside"
    assert strict[rule].description == f"{broken} {FIX} 0.1."
    assert lenient[rule].description == f"{broken} they are set aside."
    assert end == f"Closed by {rule}, {MANY}: {broken} {FIX} 0.1. {aside}; {FIX} 0.1."
    assert open_end is None
    for results in (strict, lenient):
        assert values_of(results[rule]) == {"rows": 1, "offenders": [("1", column, masked)]}
        everything = repr([(r.description, dict(r.metadata)) for r in results.values()])
        for one in snapshot:
            for private in (one["email"], one["name"]["last"], one["login"]["username"]):
                assert private not in everything
        assert not value or repr(value)[1:-1] not in everything


def test_published_csv_matches_its_receipt(snapshot_store: SnapshotStore) -> None:
    """The object as published passes, with what was read back; without a receipt it closes."""
    store, name = snapshot_store.store, "matches_its_receipt"
    results, end = run_checks(CSV, snapshot_store)
    assert failed(results) == {name: ERROR}
    assert end == (
        f"Closed by {name}: {store.uri(bucket.CSV)} does not exist: materialize users_csv for"
        f" {DAY}."
    )
    published = bucket.publish_csv(store, DAY, builders.csv_of(users(10)))
    results, end = run_checks(CSV, snapshot_store)
    assert (failed(results), end) == ({}, None)
    assert results[name].description == "The object matches its receipt."
    proof, etag = published.receipt.csv, published.stored.etag.strip('"')
    shown = {"bytes": proof.bytes, "sha256": proof.sha256, "etag": etag}
    assert values_of(results[name]) == {"rows": 10, **shown}
