"""The gates: what each finding says, and that publishing obeys exactly what the checks show."""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from randusers_assets.pipeline.audit import gates
from randusers_assets.pipeline.audit.encode import AuditedCsv, audit_csv
from randusers_assets.pipeline.audit.gates import History, Judgement, Policy, judge, judge_raw
from randusers_assets.pipeline.audit.rules import RuleCount
from randusers_assets.pipeline.contract import Offender
from randusers_assets.pipeline.flatten.frames import decode_raw, flatten
from randusers_assets.pipeline.publish.publish import PassedCsv, publish
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests import builders
from randusers_assets_tests.builders import User, csv_of, judgement_of, raw_users_of, user, users
from randusers_assets_tests.pipeline.audit.test_encode import FAULTS
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import BAD_EMAIL, DAY, DAY_BEFORE

ANYTHING_GOES = Policy(max_rejected_ratio=1)
RATIO = "rejects_are_within_ratio"
TENTH = "(bound: 10% of the rows)"
FIX = "fix them at the source, or set RANDUSERS_MAX_REJECTED_RATIO to at least"


def closed(judgement: Judgement) -> dict[str, str]:
    """The sentences of the closed gates, in which publishing ends as well."""
    sentences = {one.name: one.sentence for one in judgement.findings if one.closed}
    message = f"Closed by {', '.join(sentences)}: {' '.join(sentences.values())}"
    assert gates.describe_closed(judgement.findings) == (message if sentences else "")
    if sentences:
        assert bucket.message_of(judgement.enforce) == f"{message} Nothing is published."
    else:
        judgement.enforce()
    return sentences


def found(judgement: Judgement, name: str) -> gates.Finding:
    """The finding of this name."""
    (finding,) = (one for one in judgement.findings if one.name == name)
    return finding


def changes(rows: int, nulls: dict[str, int], past: int, past_nulls: int = 0) -> list[str]:
    """What changed beyond its bound since a day of so many rows and NULLs of `nat`."""
    return gates.history_violations(rows, nulls, History(DAY_BEFORE, past, {"nat": past_nulls}))


@pytest.mark.parametrize("past", [5, 10, 15, 35, 500, 1_000_005])
def test_history_violations_bound_the_row_count(past: int) -> None:
    """A fifth more or fewer rows passes, one row beyond it does not."""
    fifth = past // 5
    for rows in (past - fifth, past + fifth, past - fifth + 1, past + fifth - 1):
        assert changes(rows, {}, past) == []
    for rows in (past - fifth - 1, past + fifth + 1):
        assert changes(rows, {}, past) == [f"{rows:,} rows after {past:,} (bound: 20%)"]


@pytest.mark.parametrize("past", range(0, 91, 10))
@pytest.mark.parametrize("scale", [1, 7])
def test_history_violations_bound_the_share_of_nulls(past: int, scale: int) -> None:
    """NULLs in a tenth of the rows more or fewer pass, one NULL beyond that does not."""
    rows, low, high = 100 * scale, past * scale, (past + 10) * scale
    for was, now in ((low, high), (high, low), (low, high - 1), (high - 1, low)):
        assert changes(rows, {"nat": now}, rows, was) == []
    for was, now in ((low, high + 1), (high + 1, low)):
        shares = f"{now / rows:.1%} after {was / rows:.1%}"
        assert changes(rows, {"nat": now}, rows, was) == [f"nat is NULL in {shares} {TENTH}"]


def test_history_violations_compare_shares_not_counts() -> None:
    """NULLs are compared by their shares; a new column had none, and no history is no change."""
    assert changes(120, {"nat": 12}, 100, 10) == []
    assert changes(80, {"nat": 20}, 100, 10) == [f"nat is NULL in 25.0% after 10.0% {TENTH}"]
    assert changes(100, {"new": 10}, 100) == []
    assert changes(100, {"new": 11}, 100) == [f"new is NULL in 11.0% after 0.0% {TENTH}"]
    assert changes(0, {"nat": 0}, 100, 10) == ["0 rows after 100 (bound: 20%)"]
    assert gates.history_violations(10, {"nat": 10}, History()) == []


def reconciled(raw: str, flat: int, bad: int) -> str:
    """The sentence about the rows at each stage, if only undecodable ones are set aside."""
    return f"{raw} = {flat} flat + {bad} undecodable = {flat} to publish + {bad} set aside."


def test_judge_passes_good_rows() -> None:
    """Ten good rows pass every gate, and each sentence says what was seen."""
    judgement = judgement_of(users(10))
    row_rules = "emails_are_valid required_are_filled texts_are_single_line timestamps_are_valid"
    assert {one.name: one.sentence for one in judgement.findings if one.passed} == {
        "is_complete": "10 rows declared, 10 stored, 10 distinct keys.",
        "row_count_reconciles": reconciled("10 raw rows", 10, 0),
        **dict.fromkeys(["keeps_the_contract", *row_rules.split()], "All 10 rows pass."),
        "ids_are_unique": "10 rows; 0 share their id, 0 share their login_uuid.",
        "rejects_are_within_ratio": "0 of 10 rows are set aside.",
        "is_in_line_with_history": "No earlier publication.",
        "holds_no_formulas": "0 cells would be read as formulas by a spreadsheet.",
    }
    assert closed(judgement) == {}
    assert judgement.counts == gates.Counts(declared=10, raw=10, flat=10, rejected=0, published=10)
    assert [rule.users for rule in judgement.rules] == [0] * 7
    in_line = judgement_of(users(10), history=History(DAY_BEFORE, 10))
    assert found(in_line, "is_in_line_with_history").sentence == f"In line with {DAY_BEFORE}."
    assert (judgement.compared_with, in_line.compared_with) == (None, DAY_BEFORE)


def _too_many(name: str, where: str) -> dict[str, str]:
    return {
        name: f"1 of 10 rows fail, first {where}; {FIX} 0.1.",
        RATIO: f"1 of 10 rows are set aside; {FIX} 0.1.",
    }


NINE_KEYS = "is_complete row_count_reconciles"
NO_ID = _too_many("keeps_the_contract", "one without id, in id")
NONE_LEFT = "rows are set aside; no row is left to publish: fix them at the source."
NO_NAT = {"required_are_filled": f"1 of 1 rows fail, first id 1, in nat; {FIX} 1."}
SAME_UUID = user(2)["login"]["uuid"]


def _nine_keys(flat: int, bad: int) -> dict[str, str]:
    return {
        "is_complete": "10 rows declared, 10 stored, 9 distinct keys.",
        "row_count_reconciles": reconciled("10 raw rows with 9 distinct keys", flat, bad),
    }


def _shared(ids: int, uuids: int) -> dict[str, str]:
    shared = f"{ids} share their id, {uuids} share their login_uuid"
    return {"ids_are_unique": f"10 rows; {shared}."}


@pytest.mark.parametrize(
    ("snapshot", "strict", "always"),
    [
        (users(10, email=BAD_EMAIL), _too_many("emails_are_valid", "id 1, in email"), ""),
        (users(10, dob_age="x"), _too_many("keeps_the_contract", "id 1, in dob.age"), ""),
        (users(10, id="x"), _nine_keys(9, 1) | NO_ID, NINE_KEYS),
        (users(10, id=2), _nine_keys(10, 0) | _shared(2, 0), f"{NINE_KEYS} ids_are_unique"),
        (users(10, login_uuid=SAME_UUID), _shared(0, 2), "ids_are_unique"),
        ([], {RATIO: f"0 of 0 {NONE_LEFT}"}, RATIO),
        (users(1, nat=None), NO_NAT | {RATIO: f"1 of 1 {NONE_LEFT}"}, RATIO),
    ],
    ids=["bad cell", "undecodable", "no key", "id twice", "uuid twice", "no row", "no good row"],
)
def test_judge_says_why_it_closes(
    snapshot: list[User], strict: dict[str, str], always: str
) -> None:
    """Each closed gate has its exact sentence; a high ratio opens those that single rows close."""
    assert closed(judgement_of(snapshot)) == strict
    assert list(closed(judgement_of(snapshot, ANYTHING_GOES))) == always.split()


def test_judge_warns_of_rejects_and_formulas() -> None:
    """Bad rows within the ratio and formulas fail their checks, are shown, and close nothing."""
    snapshot = users(10, email=BAD_EMAIL, location_postcode=[1], location_city="=1")
    snapshot[1:3] = user(2, email=BAD_EMAIL), user(3, location_city="=1")
    judgement, share = judgement_of(snapshot, Policy(0.2, "known")), "20.0000%"
    assert closed(judgement) == {}
    failed = [one for one in judgement.findings if not one.passed]
    assert [one.sentence for one in failed] == [
        "1 of 10 rows fail, first id 1, in location.postcode; they are set aside.",
        "1 of 9 rows fail, first id 2, in email; they are set aside.",
        "1 cells would be read as formulas by a spreadsheet.",
    ]
    assert [list(one.examples) for one in failed] == [
        [Offender(1, "location.postcode", "expected int or str, got array")],
        [Offender(2, "email", "n•••")],
        [Offender(3, "location_city", "=1")],
    ]
    within = found(judgement, RATIO)
    assert within.sentence == "2 of 10 rows are set aside."
    assert within.facts == {"rejected": 2, "share": share, "allowed": share, "accepted": "known"}


def test_judge_adds_all_rules_up() -> None:
    """Two rules that 3% of the rows break each are 6%: closed at 0.05, open at 0.06."""
    snapshot = [
        *(user(n, email=BAD_EMAIL) for n in range(1, 4)),
        *(user(n, location_postcode=[1]) for n in range(4, 7)),
        *users(100)[6:],
    ]
    judgement = judgement_of(snapshot, Policy(0.05))
    assert closed(judgement) == {
        "keeps_the_contract": f"3 of 100 rows fail, first id 4, in location.postcode; {FIX} 0.06.",
        "emails_are_valid": f"3 of 97 rows fail, first id 1, in email; {FIX} 0.06.",
        RATIO: f"6 of 100 rows are set aside; {FIX} 0.06.",
    }
    broken = {rule.name: rule.users for rule in judgement.rules if rule.users}
    assert broken == {"emails_are_valid": 3, "contract_is_kept": 3}
    assert closed(judgement_of(snapshot, Policy(0.06))) == {}


@cache
def _one_row() -> AuditedCsv:
    return csv_of(users(1))


@given(st.integers(2, 3_000_000).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))))
@example((1, 100))
@example((7, 100))
@example((29, 100))
@example((1, 3_000_000))
@example((1, 3))
def test_judge_names_the_least_ratio_that_lets_the_rows_pass(case: tuple[int, int]) -> None:
    """Whatever the counts, the ratio in the sentence opens the gate, and 0.0001 less does not."""
    rejected, rows = case
    one = _one_row()
    fetch = msgspec.structs.replace(one.facts.fetch, declared=rows)
    csv = replace(
        one,
        facts=msgspec.structs.replace(one.facts, fetch=fetch, raw_rows=rows, raw_keys=rows),
        rows=rows,
        rejected=rejected,
        published=rows - rejected,
        broken={"emails_are_valid": RuleCount(rejected, [Offender(1, "email", "n•••")])},
    )
    sentences = closed(judge(csv, Policy(), History()))
    assert sentences.keys() == {"emails_are_valid", RATIO}
    advice = sentences["emails_are_valid"].partition("; ")[2]
    assert sentences[RATIO] == f"{rejected:,} of {rows:,} rows are set aside; {advice}"
    ratio = float(advice.removeprefix(f"{FIX} ").removesuffix("."))
    assert closed(judge(csv, Policy(ratio), History())) == {}
    less = round(ratio - 0.0001, 4)
    assert closed(judge(csv, Policy(less), History())).keys() == sentences.keys()


@pytest.mark.parametrize(("declared", "raw"), [(11, 10), (9, 10), (11, 11), (10, 11)])
def test_judge_closes_where_counts_differ(declared: int, raw: int) -> None:
    """Declared, raw and flat rows must be the same number, as must distinct keys if counted."""
    frames = builders.frames_of(users(10))
    uncounted = audit_csv(builders.frames_with(frames, raw_keys=None))
    assert closed(judge(uncounted, ANYTHING_GOES, History())) == {}
    fetch = msgspec.structs.replace(frames.facts.fetch, declared=declared)
    csv = audit_csv(builders.frames_with(frames, fetch=fetch, raw_rows=raw))
    rows = f"{raw} raw rows" if raw == 10 else f"{raw} raw rows with 10 distinct keys"
    assert closed(judge(csv, ANYTHING_GOES, History())) == {
        "is_complete": f"{declared} rows declared, {raw} stored, 10 distinct keys.",
        "row_count_reconciles": reconciled(rows, 10, 0),
    }


def test_judge_compares_published_rows_with_published_rows() -> None:
    """After 100 rows, 75 good ones of 90 are too few, and 105 good ones of 125 are not too many."""
    history, policy = History(DAY_BEFORE, 100), Policy(0.5)

    def some(rows: int, bad: int) -> list[User]:
        return [*(user(n, email=BAD_EMAIL) for n in range(1, bad + 1)), *users(rows)[bad:]]

    assert closed(judgement_of(some(90, 15), policy, history)) == {
        "is_in_line_with_history": f"Against {DAY_BEFORE}: 75 rows after 100 (bound: 20%)."
        ' If the change is right, run once with `randusers run --accept-change "why"` or with the'
        ' run config resources: {snapshot_gate: {config: {accept_change: "why"}}}.'
    }
    assert closed(judgement_of(some(125, 20), policy, history)) == {}


@pytest.mark.parametrize("reasons", [("a region left", "before"), ("", "a region left")])
def test_judge_lets_an_accepted_change_pass(reasons: tuple[str, str]) -> None:
    """A change passes with the run's reason, else with that of the receipt for the same CSV."""
    history = History(DAY_BEFORE, 10, accepted_change=reasons[1])
    judgement = judgement_of(users(7), Policy(accept_change=reasons[0]), history)
    finding = found(judgement, "is_in_line_with_history")
    sentence = f"Against {DAY_BEFORE}: 7 rows after 10 (bound: 20%). Accepted: a region left."
    assert (finding.passed, finding.sentence) == (True, sentence)
    assert finding.facts == {"rows": 7, "rows_before": 10, "accepted": "a region left"}
    assert (judgement.accepted_change, judgement.compared_with) == ("a region left", DAY_BEFORE)


def test_judge_raw_says_what_decoding_found() -> None:
    """Missing rows and undecodable ones close; paths that the contract does not know only warn."""
    snapshot = users(9, dob_age="four")
    snapshot[1]["badge"] = {"colour": "blue"}
    complete, contract, unknown = judge_raw(decode_raw(raw_users_of(snapshot, 10)), Policy())
    assert complete.sentence == "10 rows declared, 9 stored, 9 distinct keys."
    assert contract.sentence == f"1 of 9 rows fail, first id 1, in dob.age; {FIX} 0.1112."
    assert contract.facts == {"rows": 1, "paths": {"dob.age: expected int, got str": 1}}
    assert (unknown.sentence, unknown.facts) == ("Unknown: badge.", {"paths": {"badge": 1}})
    assert [one.closed for one in (complete, contract, unknown)] == [True, True, False]
    good = judge_raw(decode_raw(raw_users_of(users(9))), Policy())
    assert [one.sentence for one in good if one.passed][1:] == ["All 9 rows pass.", "None."]


def test_judge_raw_closes_at_a_changed_api() -> None:
    """No ratio lets more than 1,000 undecodable rows pass, and none is advised."""
    decoded = decode_raw(raw_users_of(users(10, dob_age="four")))
    changed = replace(decoded, problems=Counter({"a problem": 1_001}))
    (finding,) = (one for one in judge_raw(changed, ANYTHING_GOES) if one.closed)
    assert finding.sentence == (
        "1,001 of 10 rows fail, first id 1, in dob.age; more than 1,000 is a changed API: adapt"
        " contract.py."
    )
    frames = builders.frames_with(decoded.frames, raw_rows=1_000)
    most = replace(decoded, frames=frames, problems=Counter({"a problem": 1_000}))
    assert not judge_raw(most, ANYTHING_GOES)[1].closed


HARMLESS: list[Mapping[str, Any]] = [{}, {}, {}, {"name_title": None}, {"location_city": "=1+1"}]
FATAL: list[Mapping[str, Any]] = [{"id": 1}, {"login_uuid": SAME_UUID}, {"id": "x"}]
OFF = st.sampled_from([0] * 8 + [-1, 1])
POLICIES = st.builds(
    Policy, st.sampled_from([0.0, 0.25, 0.5, 1.0]), accept_change=st.sampled_from(["", "why"])
)


@settings(
    max_examples=settings().max_examples // 2,  # a dozen requests to S3 in each that publishes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    faults=st.lists(st.sampled_from(HARMLESS * 6 + FAULTS + FATAL), min_size=3, max_size=11),
    off=st.tuples(OFF, OFF),
    policy=POLICIES,
    past=st.none() | st.tuples(st.integers(4, 14), st.integers(0, 4)),
)
@example(faults=[{}] * 5, off=(0, 0), policy=Policy(), past=(5, 0))
@example(faults=[{}] * 5, off=(0, 0), policy=Policy(), past=(8, 0))
@example(faults=[*FAULTS, {}], off=(0, 0), policy=Policy(0.8), past=None)
@example(faults=[{}, {"id": "x"}, {}], off=(0, 0), policy=ANYTHING_GOES, past=None)
@example(faults=[{"email": None}] * 3, off=(0, -5), policy=Policy(), past=None)
def test_publish_obeys_exactly_what_the_checks_show(
    store: Store,
    faults: list[Mapping[str, Any]],
    off: tuple[int, int],
    policy: Policy,
    past: tuple[int, int] | None,
) -> None:
    """All gates are open exactly when publishing succeeds; when one is not, S3 is not asked."""
    # A prefix of its own is as good as an empty bucket, and faster.
    fresh = Store(lambda: store.client, store.bucket, uuid.uuid4().hex)

    history = History(DAY_BEFORE, past[0], {"name_title": past[1]}) if past else History()
    # SAME_UUID is that of user 2, who comes later than user 1 and before all faults.
    snapshot = [user(1), user(2), *(user(n, **fault) for n, fault in enumerate(faults, 3))]
    rows = len(snapshot)
    decoded = decode_raw(raw_users_of(snapshot, rows + off[0]))
    frames = builders.frames_with(decoded.frames, raw_rows=rows + off[1])
    decoded = replace(decoded, frames=frames)
    csv = audit_csv(flatten(decoded))
    judgement = judge(csv, policy, history)
    shut = {one.name for one in [*judge_raw(decoded, policy), *judgement.findings] if one.closed}
    # The findings that are shown on users_df close whenever those on raw_users do.
    assert bool(shut) == bool(shut - {"is_complete", "keeps_the_contract"})

    if not shut:
        publish(fresh, DAY, PassedCsv(csv, judgement), "run")
        assert bucket.body_of(fresh, bucket.CSV) == builders.bytes_of(csv.file)
    else:
        unused = Store(lambda: pytest.fail("S3 was asked"), store.bucket)
        message = bucket.message_of(lambda: publish(unused, DAY, PassedCsv(csv, judgement), "run"))
        assert message == f"{gates.describe_closed(judgement.findings)} Nothing is published."

    # The same decision from the faults alone.
    bad = sum(one not in HARMLESS for one in faults)
    good, nulls = rows - bad, faults.count({"name_title": None})
    was, was_null = past or (good, nulls)
    in_line = abs(good - was) * 5 <= was and abs(nulls * was - was_null * good) * 10 <= was * good
    assert (not shut) == (
        off == (0, 0)
        and not any(one in FATAL for one in faults)
        and bad / rows <= policy.max_rejected_ratio
        and (in_line or bool(policy.accept_change))
    )
