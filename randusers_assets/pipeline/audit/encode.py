"""The CSV of a snapshot, audited: rows that break a rule set aside, every byte read back."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import dagster as dg
from pydantic import Field

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import EXAMPLES, Audit, Finding, Verdict, formulas
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets.pipeline.flatten.frames import FrameFacts, UserFrames
from randusers_assets.pipeline.publish.receipt import Counts, RuleResult
from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named, read_ahead
from randusers_assets.settings import setting

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
    seconds: float


def reject_schema() -> "pa.Schema":
    """The columns of the rejects object: the contract's, and every rule that the row breaks."""
    import pyarrow as pa

    return arrow_schema().append(pa.field("broken_rules", pa.string()))


@dataclass(frozen=True)
class EncodedCsv:
    """A snapshot's CSV and all that the one pass over its rows found; no gate has judged it yet."""

    spool: Spool
    rejects: Spool
    audit: Audit
    repeated: dict[str, Finding]
    formulas: Finding
    published: int
    nulls: dict[str, int]
    seconds: float


_encodings: "WeakKeyDictionary[UserFrames, EncodedCsv]" = WeakKeyDictionary()


def encoded(frames: UserFrames) -> EncodedCsv:
    """The CSV of a snapshot: encoded when first asked for, then the same to its gates and to S3.

    Rows that break a rule are set aside. Every encoded batch is parsed back and compared with its
    source before it is kept.

    Raises:
        dagster.Failure: a row does not read back as it was.
    """
    if frames not in _encodings:
        _encodings[frames] = _encode(frames)
    return _encodings[frames]


def _encode(frames: UserFrames) -> EncodedCsv:
    start = time.perf_counter()
    audit, cells = Audit(), Finding()
    spool, rejects = Spool(), Spool()
    published = 0
    nulls = dict.fromkeys(arrow_schema().names, 0)
    with (
        disk_full_named(),
        spool.writer() as csv,
        rejects.writer() as aside,
        contextlib.closing(read_ahead(_judged(frames, audit))) as batches,
    ):
        csv.write(csv_format.header())
        aside.write(csv_format.header(reject_schema()))
        for batch, good, records, bad in batches:
            formulas(batch, cells)
            parsed = csv_format.parse(records)
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
    repeated = audit.repeated(frames.batches)
    seconds = time.perf_counter() - start
    return EncodedCsv(spool, rejects, audit, repeated, cells, published, nulls, seconds)


def _judged(
    frames: UserFrames, audit: Audit
) -> "Iterator[tuple[pa.RecordBatch, pa.Table, bytes, bytes]]":
    import pyarrow as pa

    for batch in frames.batches():
        verdict = audit.add(batch)
        good = verdict.good(batch)
        table = pa.Table.from_batches([good])
        yield batch, table, csv_format.encode(good), _reject_records(batch, verdict)


def audited(frames: UserFrames, gate: SnapshotGate) -> AuditedCsv:
    """The CSV of a snapshot, once every rule has let it pass.

    Raises:
        dagster.Failure: as `encoded`; more rows break a rule than the gate lets pass, a key
            repeats, or the counts do not reconcile.
    """
    csv = encoded(frames)
    rules = _rule_results(csv, frames.facts)
    counts = Counts(
        declared=frames.facts.fetch.declared,
        raw=frames.facts.raw_rows,
        flat=csv.audit.rows,
        rejected=csv.audit.rejected + len(frames.facts.broken),
        published=csv.published,
    )
    _hold(counts, rules, gate)
    return AuditedCsv(
        csv.spool,
        csv.spool.sha256,
        csv.rejects,
        counts,
        csv.nulls,
        rules,
        frames.facts,
        gate,
        csv.seconds,
    )


def _reject_records(batch: "pa.RecordBatch", verdict: Verdict) -> bytes:
    import pyarrow as pa

    if not verdict.reasons:
        return b""
    rows = sorted(verdict.reasons)
    reasons = pa.array(["; ".join(verdict.reasons[row]) for row in rows])
    bad = batch.take(pa.array(rows))
    return csv_format.encode(
        pa.RecordBatch.from_arrays([*bad.columns, reasons], schema=reject_schema())
    )


def _broken_records(facts: FrameFacts) -> bytes:
    import pyarrow as pa

    rows = [
        {**broken.row, "broken_rules": f"{broken.path or '$'}: {broken.problem}"}
        for broken in facts.broken
    ]
    return csv_format.encode(pa.Table.from_pylist(rows, reject_schema())) if rows else b""


def _first_difference(good: "pa.Table", parsed: "pa.Table") -> object:
    for ours, theirs in zip(good.to_pylist(), parsed.to_pylist(), strict=False):
        if ours != theirs:
            return ours["id"]
    return "(the number of rows)"


def _rule_results(csv: EncodedCsv, facts: FrameFacts) -> list[RuleResult]:
    unique = {f"{name}_is_unique": finding for name, finding in csv.repeated.items()}
    findings = {**csv.audit.findings, **unique}
    findings["contract_is_kept"] = Finding(
        len(facts.broken), [broken.offender() for broken in facts.broken[:EXAMPLES]]
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
