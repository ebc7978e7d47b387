"""Each gate passes a good day and closes, or warns, on a bad one; no offender is shown in full."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
import msgspec
import pytest

from randusers_assets import checks
from randusers_assets.pipeline.audit.encode import SnapshotGate
from randusers_assets.pipeline.audit.rules import ROW_RULES
from randusers_assets.pipeline.flatten.frames import RawUsers, UserFrames
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets_tests.builders import (
    User,
    csv_of,
    frames_of,
    frames_with,
    raw_users_of,
    user,
    users,
)

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings(
    "ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"
)

DAY, DAY_AFTER = "2026-11-22", "2026-11-23"
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
STRICT, LENIENT = SnapshotGate(), SnapshotGate(max_rejected_ratio=0.5)
BAD_EMAIL = "somebody@nowhere"

Results = dict[str, dg.AssetCheckResult]


def by_name(invoked: object) -> Results:
    """The evaluations of checks that were called directly, by the names of the checks."""
    evaluations = cast("Iterator[dg.AssetCheckResult]", invoked)
    results: Results = {}
    with contextlib.suppress(dg.Failure):  # a closed gate: the step's end, after every result
        for result in evaluations:
            results[str(result.check_name)] = result
    return results


def values_of(result: dg.AssetCheckResult) -> dict[str, Any]:
    """The metadata as plain values, the offenders as tuples."""
    return {
        name: [tuple(record.data.values()) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in result.metadata.items()
    }


def raw_gates(raw: RawUsers, gate: SnapshotGate = STRICT) -> Results:
    """The checks of raw_users."""
    return by_name(checks.raw_users_gates(raw, gate))


def df_gates(
    store: SnapshotStore, frames: UserFrames, gate: SnapshotGate = STRICT, date: str = DAY
) -> Results:
    """The checks of users_df on a day."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_op_context(partition_key=date, instance=instance) as context,
    ):
        return by_name(checks.users_df_gates(context, frames, gate, store))


def csv_gate(store: SnapshotStore) -> dg.AssetCheckResult:
    """The check of users_csv."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_op_context(partition_key=DAY, instance=instance) as context,
    ):
        return by_name(checks.users_csv_gates(context, store))["users_csv_matches_its_receipt"]


def assert_masked(results: Results, *snapshot: User) -> None:
    """No evaluation holds an email, a name or a user name of these users."""
    said = json.dumps(
        [
            (result.description, {n: repr(value) for n, value in result.metadata.items()})
            for result in results.values()
        ],
        ensure_ascii=False,
    )
    for one in snapshot:
        for value in (one["email"], one["name"]["last"], one["login"]["username"]):
            assert str(value) not in said


def test_gates_block_and_are_partitioned() -> None:
    """Every gate of the design blocks, on one day; the two warnings do not block."""
    specs = [
        spec
        for definition in (checks.raw_users_gates, checks.users_df_gates, checks.users_csv_gates)
        for spec in definition.check_specs
    ]
    assert {spec.name: spec.blocking for spec in specs} == {
        "raw_users_is_complete": True,
        "raw_users_keeps_the_contract": True,
        "raw_users_has_no_unknown_paths": False,
        "users_df_row_count_reconciles": True,
        "users_df_emails_are_valid": True,
        "users_df_required_are_filled": True,
        "users_df_texts_are_single_line": True,
        "users_df_timestamps_are_valid": True,
        "users_df_ids_are_unique": True,
        "users_df_is_in_line_with_history": True,
        "users_df_holds_no_formulas": False,
        "users_csv_matches_its_receipt": True,
    }
    assert {type(spec.partitions_def) for spec in specs} == {dg.DailyPartitionsDefinition}
    assert all(spec.description for spec in specs)


def test_good_raw_users_pass_every_gate() -> None:
    """Ten good users are complete, as the contract has them, and hold nothing new."""
    results = raw_gates(raw_users_of(users(10)))
    assert list(results) == [
        "raw_users_is_complete",
        "raw_users_keeps_the_contract",
        "raw_users_has_no_unknown_paths",
    ]
    assert all(result.passed for result in results.values())
    complete = results["raw_users_is_complete"]
    assert complete.description == "10 users declared, 10 stored, 10 distinct ids."
    assert values_of(complete) == {"declared": 10, "stored": 10, "distinct_ids": 10}
    assert results["raw_users_keeps_the_contract"].description == "All 10 users keep this rule."
    assert results["raw_users_has_no_unknown_paths"].description == "None."


@pytest.mark.parametrize(
    ("snapshot", "declared", "summary"),
    [
        (users(9), 10, "10 users declared, 9 stored, 9 distinct ids."),
        (users(11), 10, "10 users declared, 11 stored, 11 distinct ids."),
        ([*users(9), user(9)], 10, "10 users declared, 10 stored, 9 distinct ids."),
    ],
)
def test_raw_users_that_are_missing_or_doubled_close_the_gate(
    snapshot: list[User], declared: int, summary: str
) -> None:
    """Fewer, more or repeated users than declared are not complete."""
    result = raw_gates(raw_users_of(snapshot, declared))["raw_users_is_complete"]
    assert (result.passed, result.severity, result.description) == (False, ERROR, summary)


def test_raw_users_that_break_the_contract_close_the_gate() -> None:
    """Retyped and missing paths are counted and named, with the id of the user and no value."""
    retyped, nameless = user(1, location_postcode=["x"]), user(2)
    del nameless["name"]["first"]
    results = raw_gates(raw_users_of([retyped, nameless, *users(10)[2:]]))
    result = results["raw_users_keeps_the_contract"]
    assert (result.passed, result.severity) == (False, ERROR)
    assert result.description == (
        "2 of 10 users break raw_users_keeps_the_contract, user 1 first, in location.postcode;"
        " the gate is closed: mend them at the source, or raise RANDUSERS_MAX_REJECTED_RATIO"
        " above 0."
    )
    assert values_of(result) == {
        "users": 2,
        "share": "20 %; closed above 0 %",
        "offenders": [
            ("1", "location.postcode", "expected int or str, got array"),
            ("2", "name.first", "missing"),
        ],
        "paths": {"location.postcode: expected int or str, got array": 1, "name.first: missing": 1},
    }
    assert results["raw_users_is_complete"].passed
    assert_masked(results, retyped, nameless)


def test_raw_users_that_break_the_contract_within_the_ratio_warn() -> None:
    """Up to the ratio the check fails as a warning, which blocks nothing."""
    raw = raw_users_of(users(10, dob_age="four"))
    result = raw_gates(raw, SnapshotGate(max_rejected_ratio=0.1))["raw_users_keeps_the_contract"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == (
        "1 of 10 users break raw_users_keeps_the_contract, user 1 first, in dob.age;"
        " they are set aside."
    )


def test_unknown_paths_warn() -> None:
    """What the API sends beyond the contract is named and counted, and closes nothing."""
    first, second = users(2)
    first["badge"] = {"colour": "blue"}
    second["name"]["middle"] = "May"
    second["badge"] = None
    results = raw_gates(raw_users_of([first, second]))
    result = results["raw_users_has_no_unknown_paths"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == "Unknown: badge, name.middle."
    assert values_of(result) == {"paths": {"badge": 2, "name.middle": 1}}
    assert results["raw_users_keeps_the_contract"].passed


def test_good_users_df_passes_every_gate(store: SnapshotStore) -> None:
    """Ten good users pass; the sentences say what was seen."""
    results = df_gates(store, frames_of(users(10)))
    assert {name: result.description for name, result in results.items() if result.passed} == {
        "users_df_row_count_reconciles": "10 raw users, 10 rows, 0 set aside.",
        **{f"users_df_{name}": "All 10 users keep this rule." for name in ROW_RULES},
        "users_df_ids_are_unique": "10 users; 0 share their id, 0 share their login_uuid.",
        "users_df_is_in_line_with_history": "The first publication: no history yet.",
        "users_df_holds_no_formulas": "0 cells start a formula.",
    }
    assert len(results) == 8


@pytest.mark.parametrize(("declared", "raw"), [(11, 10), (11, 11), (9, 10)])
def test_row_counts_that_differ_close_the_gate(
    store: SnapshotStore, declared: int, raw: int
) -> None:
    """A row lost between declaration, raw and frame closes the gate."""
    frames = frames_of(users(10))
    fetch = msgspec.structs.replace(frames.facts.fetch, declared=declared)
    results = df_gates(store, frames_with(frames, fetch=fetch, raw_rows=raw))
    result = results["users_df_row_count_reconciles"]
    assert (result.passed, result.severity) == (False, ERROR)
    assert result.description == f"{raw} raw users, 10 rows, 0 set aside."
    assert values_of(result) == {"declared": declared, "raw": raw, "flat": 10, "set_aside": 0}


def test_rows_set_aside_reconcile(store: SnapshotStore) -> None:
    """A user that breaks the contract is accounted for."""
    frames = frames_of(users(10, dob_age="four"))
    result = df_gates(store, frames)["users_df_row_count_reconciles"]
    assert result.passed
    assert result.description == "10 raw users, 9 rows, 1 set aside."


ROW_CASES = [
    ("emails_are_valid", "email", BAD_EMAIL, "s•••"),
    ("required_are_filled", "name_first", "", ""),
    ("texts_are_single_line", "location_street_name", "A\nB", "A•••"),
    ("timestamps_are_valid", "dob_date", "1968-02-30T10:02:51.768Z", "1•••"),
]


@pytest.mark.parametrize(("rule", "column", "value", "shown"), ROW_CASES)
def test_row_rule_closes_its_gate(
    store: SnapshotStore, rule: str, column: str, value: str, shown: str
) -> None:
    """One bad cell closes exactly its own gate and is shown by id and masked value."""
    snapshot = users(10, **{column: value})
    results = df_gates(store, frames_of(snapshot))
    assert [name for name, result in results.items() if not result.passed] == [f"users_df_{rule}"]
    result = results[f"users_df_{rule}"]
    assert result.severity == ERROR
    assert result.description == (
        f"1 of 10 users break users_df_{rule}, user 1 first, in {column};"
        " the gate is closed: mend them at the source, or raise RANDUSERS_MAX_REJECTED_RATIO"
        " above 0."
    )
    assert values_of(result) == {
        "users": 1,
        "share": "10 %; closed above 0 %",
        "offenders": [("1", column, shown)],
    }
    assert_masked(results, *snapshot)
    assert not value or value not in repr(result.metadata)


@pytest.mark.parametrize(("rule", "column", "value", "shown"), ROW_CASES)
def test_row_rule_within_the_ratio_warns(
    store: SnapshotStore, rule: str, column: str, value: str, shown: str
) -> None:
    """With a ratio above the share the same cell warns, as the row is set aside."""
    frames = frames_of(users(10, **{column: value}))
    result = df_gates(store, frames, LENIENT)[f"users_df_{rule}"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == (
        f"1 of 10 users break users_df_{rule}, user 1 first, in {column}; they are set aside."
    )
    assert values_of(result)["share"] == "10 %; closed above 50 %"
    assert values_of(result)["offenders"] == [("1", column, shown)]


def test_only_the_first_offenders_are_named(store: SnapshotStore) -> None:
    """A flood of bad rows is counted whole and shown by its first five."""
    frames = frames_of([user(n, email=f"{n}@nowhere") for n in range(1, 11)])
    values = values_of(df_gates(store, frames)["users_df_emails_are_valid"])
    assert (values["users"], values["share"]) == (10, "100 %; closed above 0 %")
    assert values["offenders"] == [(str(n), "email", f"{n}•••") for n in range(1, 6)]


@pytest.mark.parametrize("column", ["id", "login_uuid"])
def test_repeated_keys_close_the_gate(store: SnapshotStore, column: str) -> None:
    """Two users of one id or login_uuid close the gate, whatever the ratio."""
    other = user(2)
    same = other["id"] if column == "id" else other["login"]["uuid"]
    results = df_gates(store, frames_of(users(10, **{column: same})), LENIENT)
    result = results["users_df_ids_are_unique"]
    assert (result.passed, result.severity) == (False, ERROR)
    shared = {"id": 0, "login_uuid": 0, column: 2}
    assert result.description == (
        f"10 users; {shared['id']} share their id, {shared['login_uuid']} share their login_uuid."
    )
    assert values_of(result) == {"users": 2, "offenders": [("2", column, str(same))]}


def test_repeated_email_passes(store: SnapshotStore) -> None:
    """Two users may share one email."""
    results = df_gates(store, frames_of(users(10, email=user(2)["email"])))
    assert all(result.passed for result in results.values())


def test_history_closes_its_gate(store: SnapshotStore) -> None:
    """A drop beyond the bound closes; one within it passes, and names the day before."""
    publish(store, DAY, csv_of(users(10)), "run")
    name = "users_df_is_in_line_with_history"
    drop = df_gates(store, frames_of(users(7)), date=DAY_AFTER)[name]
    assert (drop.passed, drop.severity) == (False, ERROR)
    assert drop.description == "7 rows after 10 (bound: 20%)"
    assert values_of(drop) == {"rows": 7, "rows_before": 10, "accepted": ""}
    small = df_gates(store, frames_of(users(8)), date=DAY_AFTER)[name]
    assert small.passed
    assert small.description == f"In line with {DAY}."


def test_history_gate_lets_an_accepted_change_pass(store: SnapshotStore) -> None:
    """With a reason the change passes; the same raw snapshot then passes without one."""
    publish(store, DAY, csv_of(users(10)), "run")
    name = "users_df_is_in_line_with_history"
    accepting = SnapshotGate(accept_change="a tenant left")
    result = df_gates(store, frames_of(users(7)), accepting, DAY_AFTER)[name]
    assert result.passed
    assert result.description == "7 rows after 10 (bound: 20%)"
    assert values_of(result)["accepted"] == "a tenant left"
    publish(store, DAY_AFTER, csv_of(users(7), accepting), "run")
    again = df_gates(store, frames_of(users(7)), date=DAY_AFTER)[name]
    assert (again.passed, values_of(again)["accepted"]) == (True, "a tenant left")
    assert not df_gates(store, frames_of(users(6)), date=DAY_AFTER)[name].passed


def test_step_with_closed_gates_ends_in_their_sentences() -> None:
    """After its last result the step fails, with each closed gate's name and what it said."""
    invoked = cast(
        "Iterator[dg.AssetCheckResult]",
        checks.raw_users_gates(raw_users_of(users(10, dob_age="four"), 11), STRICT),
    )
    seen = [next(invoked) for _ in checks.raw_users_gates.check_specs]
    with pytest.raises(dg.Failure) as raised:
        next(invoked)
    assert [result.passed for result in seen] == [False, False, True]
    assert raised.value.description == (
        "Closed by raw_users_is_complete, raw_users_keeps_the_contract:"
        f" {seen[0].description} {seen[1].description}"
    )
    assert raised.value.allow_retries is False


def test_step_with_a_warning_ends_well() -> None:
    """A failed check that closes nothing does not fail its step."""
    first = user(1)
    first["badge"] = "blue"
    invoked = cast(
        "Iterator[dg.AssetCheckResult]", checks.raw_users_gates(raw_users_of([first]), STRICT)
    )
    assert [result.passed for result in invoked] == [True, True, False]


def test_formulas_warn(store: SnapshotStore) -> None:
    """A cell that a spreadsheet would run warns and closes nothing; a phone number is none."""
    snapshot = users(10, name_last="=cmd|' /C calc'!A0", phone="+49 123")
    result = df_gates(store, frames_of(snapshot))["users_df_holds_no_formulas"]
    assert (result.passed, result.severity) == (False, WARN)
    assert result.description == "1 cells start a formula."
    assert values_of(result) == {"cells": 1, "offenders": [("1", "name_last", "=•••")]}


def test_published_csv_matches_its_receipt(store: SnapshotStore) -> None:
    """The object as published passes, with what was read back."""
    receipt = publish(store, DAY, csv_of(users(10)), "run").receipt
    result = csv_gate(store)
    assert result.passed
    assert result.description == "The object is as its receipt says."
    assert values_of(result) == {
        "rows": 10,
        "bytes": receipt.csv.bytes,
        "sha256": receipt.csv.sha256,
        "etag": receipt.csv.etag.strip('"'),
    }


def test_overwritten_csv_closes_the_gate(store: SnapshotStore) -> None:
    """An object that another writer put in its place is told from its receipt."""
    publish(store, DAY, csv_of(users(10)), "run")
    path, body = receipts.csv_path(DAY), b"id\n1\n"
    store.put(path, body, hashlib.sha256(body).hexdigest(), content_type="text/csv")
    result = csv_gate(store)
    assert (result.passed, result.severity) == (False, ERROR)
    assert str(result.description).startswith(
        f"{store.uri(path)}: rows is 1, its receipt says 10: materialize users_csv for {DAY} again."
    )
    assert values_of(result)["rows"] == 1


def test_unproved_csv_closes_the_gate(store: SnapshotStore) -> None:
    """A day without a receipt is not proved."""
    result = csv_gate(store)
    assert (result.passed, result.severity) == (False, ERROR)
    assert result.description == (
        f"s3://{store.bucket}/_receipts/users_csv/dt={DAY}.json does not exist: {DAY} is not"
        " proved."
    )
