"""The one judgement of a snapshot: the checks show its findings, the publishing step obeys it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.audit.rules import EXAMPLES, RuleCount
from randusers_assets.pipeline.contract import Offender
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import MAX_UNDECODABLE, DecodedRaw, FrameFacts

# Against the last publication: the share by which the row count may change, and the share of all
# rows by which the NULLs of a column may.
MAX_ROW_CHANGE = 0.2
MAX_NULL_SHARE_CHANGE = 0.1


@dataclass(frozen=True)
class Policy:
    """What may pass: the share of rows that may be set aside, and reasons for exceptions."""

    max_rejected_ratio: float = 0.0
    accept_rejects: str = ""
    accept_change: str = ""

    def advise(self, rejected: int, rows: int) -> str:
        """What to do where more rows are rejected than the ratio allows; else empty."""
        rows = max(rows, 1)
        # Divided, as 29 of 100 is 0.29 while 0.29 * 100 is a little less than 29.
        if rejected / rows <= self.max_rejected_ratio:
            return ""
        # In integers, as 0.07 * 10,000 is a little more than 700.
        ratio = -(-rejected * 10_000 // rows) / 10_000
        return f"fix them at the source, or set RANDUSERS_MAX_REJECTED_RATIO to at least {ratio:g}"


@dataclass(frozen=True)
class History:
    """The last publication before a day, and why this day's receipt accepted the same CSV."""

    date: str | None = None
    rows: int = 0
    nulls: Mapping[str, int] = field(default_factory=dict)
    accepted_change: str = ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows at each stage: declared = raw = flat + undecodable, and published + rejected = raw."""

    declared: int
    raw: int
    flat: int
    rejected: int
    published: int


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One rule over the whole snapshot: the rows that break it, and the first few, masked."""

    name: str
    users: int
    examples: list[Offender]


@dataclass(frozen=True)
class Finding:
    """What one check shows. A failed one closes the gate, unless it only warns."""

    name: str
    passed: bool
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Offender] = ()
    warns: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing may be published because of it."""
        return not self.passed and not self.warns


def describe_closed(findings: Iterable[Finding]) -> str:
    """One message for all closed gates; empty if every gate is open."""
    closed = [finding for finding in findings if finding.closed]
    names = ", ".join(finding.name for finding in closed)
    return f"Closed by {names}: {' '.join(f.sentence for f in closed)}" if closed else ""


@dataclass(frozen=True)
class Judgement:
    """A snapshot judged: every finding, and what the receipt records."""

    findings: Sequence[Finding]
    counts: Counts
    rules: Sequence[RuleResult]
    policy: Policy
    compared_with: str | None
    accepted_change: str

    def enforce(self) -> None:
        """Raise SnapshotError if a gate is closed."""
        if closed := describe_closed(self.findings):
            raise SnapshotError(f"{closed} Nothing is published.")


def judge_raw(decoded: DecodedRaw, policy: Policy) -> list[Finding]:
    """Judge what can be known before the rows are flat."""
    facts, key = decoded.frames.facts, decoded.frames.contract.key
    problems, unknown = dict(decoded.problems), dict(decoded.unknown)
    undecodable = RuleCount(decoded.problems.total(), _examples(facts))
    advice = policy.advise(undecodable.rows, facts.raw_rows)
    if undecodable.rows > MAX_UNDECODABLE:
        advice = f"more than {MAX_UNDECODABLE:,} is a changed API: adapt contract.py"
    sentence = f"Unknown: {', '.join(sorted(unknown))}." if unknown else "None."
    return [
        _complete(facts),
        _row_rule("keeps_the_contract", undecodable, facts.raw_rows, key, advice, paths=problems),
        Finding("has_no_unknown_paths", not unknown, sentence, {"paths": unknown}, warns=True),
    ]


def judge(csv: AuditedCsv, policy: Policy, history: History) -> Judgement:
    """Judge a snapshot: counts, rules, uniqueness, rejects and history."""
    facts, key = csv.facts, csv.contract.key
    undecodable = RuleCount(len(facts.broken), _examples(facts))
    counts = Counts(
        declared=facts.fetch.declared,
        raw=facts.raw_rows,
        flat=csv.rows,
        rejected=csv.rejected + undecodable.rows,
        published=csv.published,
    )
    advice = policy.advise(counts.rejected, counts.raw)
    accepted = policy.accept_change or history.accepted_change
    cells, examples = csv.formulas.rows, csv.formulas.examples
    sentence = f"{cells:,} cells would be read as formulas by a spreadsheet."
    findings = [
        _complete(facts),
        _row_rule("keeps_the_contract", undecodable, counts.raw, key, advice),
        _reconciled(counts, undecodable.rows, facts.raw_keys),
        *(_row_rule(name, count, csv.rows, key, advice) for name, count in csv.broken.items()),
        _unique(csv),
        _within_ratio(counts, policy, advice),
        _in_line(counts.published, csv.nulls, history, accepted),
        Finding("holds_no_formulas", not cells, sentence, {"cells": cells}, examples, warns=True),
    ]
    unique = {f"{name}_is_unique": count for name, count in csv.duplicates.items()}
    rules = {**csv.broken, **unique, "contract_is_kept": undecodable}.items()
    results = [RuleResult(name=name, users=c.rows, examples=c.examples) for name, c in rules]
    return Judgement(findings, counts, results, policy, history.date, accepted)


def _examples(facts: FrameFacts) -> list[Offender]:
    return [one.offender() for one in facts.broken[:EXAMPLES]]


def _complete(facts: FrameFacts) -> Finding:
    declared, rows = facts.fetch.declared, facts.raw_rows
    keys = rows if facts.raw_keys is None else facts.raw_keys
    sentence = f"{declared:,} rows declared, {rows:,} stored, {keys:,} distinct keys."
    shown = {"declared": declared, "stored": rows, "distinct_keys": keys}
    return Finding("is_complete", declared == rows == keys, sentence, shown)


def _row_rule(
    name: str, count: RuleCount, rows: int, key: str, advice: str, **facts: object
) -> Finding:
    """A rule that single rows break; it only warns where these may be set aside."""
    sentence = f"All {rows:,} rows pass."
    if count.rows:
        first, then = count.examples[0], advice or "they are set aside"
        who = f"one without {key}" if first.id is None else f"{key} {first.id}"
        sentence = f"{count.rows:,} of {rows:,} rows fail, first {who}, in {first.column}; {then}."
    facts = {"rows": count.rows, **facts}
    return Finding(name, not count.rows, sentence, facts, count.examples, warns=not advice)


def _reconciled(counts: Counts, undecodable: int, raw_keys: int | None) -> Finding:
    distinct = raw_keys in (None, counts.raw)
    keys = "" if distinct else f" with {raw_keys:,} distinct keys"
    in_full = counts.declared == counts.raw == counts.flat + undecodable
    return Finding(
        "row_count_reconciles",
        passed=distinct and in_full and counts.published + counts.rejected == counts.raw,
        sentence=f"{counts.raw:,} raw rows{keys} = {counts.flat:,} flat + {undecodable:,}"
        f" undecodable = {counts.published:,} to publish + {counts.rejected:,} set aside.",
        facts=msgspec.structs.asdict(counts),
    )


def _unique(csv: AuditedCsv) -> Finding:
    shared = ", ".join(f"{c.rows:,} share their {name}" for name, c in csv.duplicates.items())
    rows = sum(count.rows for count in csv.duplicates.values())
    examples = [one for count in csv.duplicates.values() for one in count.examples]
    sentence = f"{csv.rows:,} rows; {shared}."
    return Finding("ids_are_unique", rows == 0, sentence, {"rows": rows}, examples)


def _within_ratio(counts: Counts, policy: Policy, advice: str) -> Finding:
    if not counts.published:
        advice = "no row is left to publish: fix them at the source"
    sentence = f"{counts.rejected:,} of {counts.raw:,} rows are set aside"
    # Shares as text: the UI plots numbers, and the count is the one to plot.
    facts = {
        "rejected": counts.rejected,
        "share": f"{counts.rejected / max(counts.raw, 1):.4%}",
        "allowed": f"{policy.max_rejected_ratio:.4%}",
        "accepted": policy.accept_rejects,
    }
    sentence = f"{sentence}; {advice}." if advice else f"{sentence}."
    return Finding("rejects_are_within_ratio", not advice, sentence, facts)


def _in_line(rows: int, nulls: Mapping[str, int], history: History, accepted: str) -> Finding:
    problems = history_violations(rows, nulls, history)
    sentence = f"In line with {history.date}." if history.date else "No earlier publication."
    if problems:
        config = 'resources: {snapshot_gate: {config: {accept_change: "why"}}}'
        advice = (
            'If the change is right, run once with `randusers run --accept-change "why"` or with'
            f" the run config {config}."
        )
        then = f"Accepted: {accepted}." if accepted else advice
        sentence = f"Against {history.date}: {'; '.join(problems)}. {then}"
    before = history.rows if history.date else None
    facts = {"rows": rows, "rows_before": before, "accepted": accepted}
    return Finding("is_in_line_with_history", not problems or bool(accepted), sentence, facts)


def history_violations(rows: int, nulls: Mapping[str, int], history: History) -> list[str]:
    """Each count that changed beyond its bound since the last publication, as a phrase."""
    if history.date is None:
        return []
    problems = []
    if abs(rows - history.rows) > MAX_ROW_CHANGE * history.rows:
        problems.append(f"{rows:,} rows after {history.rows:,} (bound: {MAX_ROW_CHANGE:.0%})")
    for column, count in nulls.items():
        past, of, past_of = history.nulls.get(column, 0), max(rows, 1), max(history.rows, 1)
        # Multiplied out: a difference of two rounded shares would miss the bound itself.
        if abs(count * past_of - past * of) > MAX_NULL_SHARE_CHANGE * of * past_of:
            problems.append(
                f"{column} is NULL in {count / of:.1%} after {past / past_of:.1%}"
                f" (bound: {MAX_NULL_SHARE_CHANGE:.0%} of the rows)"
            )
    return problems
