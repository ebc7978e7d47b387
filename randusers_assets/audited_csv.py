"""The CSV of a snapshot, audited: rows that break a rule set aside, every byte read back."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from randusers_assets import dialect
from randusers_assets.audit import EXAMPLES, Audit, Finding, Verdict
from randusers_assets.flattening import arrow_schema
from randusers_assets.receipts import Counts, RuleResult
from randusers_assets.settings import setting
from randusers_assets.snapshots import FrameFacts, UserFrames
from randusers_assets.spool import Spool, disk_full_named, read_ahead

if TYPE_CHECKING:
    import pyarrow as pa


class SnapshotGate(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """What may pass the gates; `accept_change` lets one run past the history gate, on record."""

    # The setting is the class's default: a run config that gives `accept_change` keeps defaults,
    # and would lose what definitions.py had given.
    max_rejected_ratio: float = Field(
        default=float(setting("RANDUSERS_MAX_REJECTED_RATIO")),
        ge=0,
        le=1,
        description="Share of users that may be set aside",
    )
    accept_change: str = Field(
        default="", description="Why this run's break with the history is right; in the receipt"
    )

    def rejects_too_many(self, rejected: int, rows: int) -> bool:
        """Whether so many of so many rows close the gate."""
        # Divided, as 29 of 100 is 0.29 while 0.29 * 100 is a little less than 29.
        return rejected / max(rows, 1) > self.max_rejected_ratio


@dataclass(frozen=True)
class AuditedCsv:
    """A CSV whose bytes were read back and held against their source, row by row."""

    spool: Spool
    sha256: str
    rejects: Spool
    counts: Counts
    nulls: dict[str, int]
    rules: list[RuleResult]
    facts: FrameFacts
    gate: SnapshotGate


def reject_schema() -> "pa.Schema":
    """The columns of the rejects object: the contract's, and every rule that the row breaks."""
    import pyarrow as pa

    return arrow_schema().append(pa.field("broken_rules", pa.string()))


def audited(frames: UserFrames, gate: SnapshotGate) -> AuditedCsv:
    """Encode a snapshot, setting rows that break a rule aside, and prove the bytes.

    Every encoded batch is parsed back and compared with its source before it is kept.

    Raises:
        dagster.Failure: more rows break a rule than the gate lets pass, a key repeats, the counts
            do not reconcile, or a row does not read back as it was.
    """
    audit = Audit()
    spool, rejects = Spool(), Spool()
    published = 0
    nulls = dict.fromkeys(arrow_schema().names, 0)
    with (
        disk_full_named(),
        spool.writer() as csv,
        rejects.writer() as aside,
        contextlib.closing(read_ahead(_encoded(frames, audit))) as batches,
    ):
        csv.write(dialect.header())
        aside.write(dialect.header(reject_schema()))
        for good, records, bad in batches:
            parsed = dialect.parse(records)
            if parsed != good:
                raise dg.Failure(
                    "The CSV does not read back as the rows that it was made from, first at"
                    f" user {_first_difference(good, parsed)}: nothing is written.",
                    allow_retries=False,
                )
            csv.write(records)
            aside.write(bad)
            published += good.num_rows
            for name in nulls:
                nulls[name] += good.column(name).null_count
        aside.write(_broken_records(frames.facts))
    rules = _rule_results(audit, frames)
    counts = Counts(
        declared=frames.facts.fetch.declared,
        raw=frames.facts.raw_rows,
        flat=audit.rows,
        rejected=audit.rejected + len(frames.facts.broken),
        published=published,
    )
    _hold(counts, rules, gate)
    return AuditedCsv(spool, spool.sha256, rejects, counts, nulls, rules, frames.facts, gate)


def _encoded(frames: UserFrames, audit: Audit) -> "Iterator[tuple[pa.Table, bytes, bytes]]":
    import pyarrow as pa

    for batch in frames.batches():
        verdict = audit.add(batch)
        good = verdict.good(batch)
        yield pa.Table.from_batches([good]), dialect.encode(good), _reject_records(batch, verdict)


def _reject_records(batch: "pa.RecordBatch", verdict: Verdict) -> bytes:
    import pyarrow as pa

    if not verdict.reasons:
        return b""
    rows = sorted(verdict.reasons)
    reasons = pa.array(["; ".join(verdict.reasons[row]) for row in rows])
    bad = batch.take(pa.array(rows))
    return dialect.encode(
        pa.RecordBatch.from_arrays([*bad.columns, reasons], schema=reject_schema())
    )


def _broken_records(facts: FrameFacts) -> bytes:
    import pyarrow as pa

    rows = [
        {**broken.row, "broken_rules": f"{broken.path or '$'}: {broken.problem}"}
        for broken in facts.broken
    ]
    return dialect.encode(pa.Table.from_pylist(rows, reject_schema())) if rows else b""


def _first_difference(good: "pa.Table", parsed: "pa.Table") -> object:
    for ours, theirs in zip(good.to_pylist(), parsed.to_pylist(), strict=False):
        if ours != theirs:
            return ours["id"]
    return "(the number of rows)"


def _rule_results(audit: Audit, frames: UserFrames) -> list[RuleResult]:
    repeated = audit.repeated(frames.batches)
    findings = {**audit.findings, **{f"{name}_is_unique": f for name, f in repeated.items()}}
    findings["contract_is_kept"] = Finding(
        len(frames.facts.broken), [broken.offender() for broken in frames.facts.broken[:EXAMPLES]]
    )
    return [
        RuleResult(name=name, users=finding.users, examples=finding.examples)
        for name, finding in findings.items()
    ]


def _hold(counts: Counts, rules: list[RuleResult], gate: SnapshotGate) -> None:
    """Raise one sentence if the snapshot may not be published."""
    broken = [rule for rule in rules if rule.users]
    for rule in broken:
        if rule.name.endswith("_is_unique"):
            raise dg.Failure(
                f"The gate is closed: {rule.users:,} users share their {rule.examples[0].column}"
                f" with another, user {rule.examples[0].id} first; nothing is published.",
                allow_retries=False,
            )
    if gate.rejects_too_many(counts.rejected, counts.raw):
        first = broken[0].examples[0]
        told = ", ".join(f"{rule.name}: {rule.users:,}" for rule in broken)
        raise dg.Failure(
            f"The gate is closed: {counts.rejected:,} of {counts.raw:,} users break a rule"
            f" ({told}), user {first.id} first, in {first.column} ({first.shown}); mend the"
            " source, or raise RANDUSERS_MAX_REJECTED_RATIO above"
            f" {gate.max_rejected_ratio:g} to set such users aside. Nothing is published.",
            allow_retries=False,
        )
    if not counts.published:
        raise dg.Failure(
            "The gate is closed: no user is left to publish; mend the source.", allow_retries=False
        )
    if (
        counts.declared != counts.raw
        or counts.flat + next(r.users for r in rules if r.name == "contract_is_kept") != counts.raw
        or counts.published + counts.rejected != counts.raw
    ):
        raise dg.Failure(
            f"The gate is closed: the counts do not reconcile ({counts}): materialize raw_users"
            " and users_df again.",
            allow_retries=False,
        )
