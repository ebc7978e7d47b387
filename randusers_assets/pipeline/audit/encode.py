"""The CSV of a snapshot: one pass that sets bad rows aside and reads every encoded byte back.

The same pass writes the Parquet copy of the published rows.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import Audit, RuleCount, count_formulas
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.arrow import arrow_schema, typed_schema
from randusers_assets.pipeline.flatten.frames import FrameFacts, UserFrames, open_parquet
from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_host_limits


@dataclass(frozen=True, eq=False)
class AuditedCsv:
    """A CSV, the rows that were set aside, and all that the pass over the rows counted.

    `rows` and `rejected` count flat rows; `rejects` also holds the rows that were undecodable.
    `parquet_copy` has the published rows, typed; None where it is turned off. `nulls` counts the
    NULLs of each column among them.
    """

    contract: Contract
    facts: FrameFacts
    frames_sha256: str
    file: TempFile
    rejects: TempFile
    parquet_copy: TempFile | None
    rows: int
    rejected: int
    published: int
    nulls: dict[str, int]
    broken: dict[str, RuleCount]
    duplicates: dict[str, RuleCount]
    formulas: RuleCount
    seconds: float


def reject_schema(contract: Contract) -> pa.Schema:
    """The columns of the rejects: the contract's, and every rule that the row breaks."""
    return arrow_schema(contract).append(pa.field("broken_rules", pa.string()))


def audit_csv(frames: UserFrames, *, parquet_copy: bool = True) -> AuditedCsv:
    """Encode the rows that break no rule; parse each encoded batch back and compare it."""
    start = time.perf_counter()
    contract, schema = frames.contract, arrow_schema(frames.contract)
    audit, formulas = Audit(contract), RuleCount()
    file, rejects, published = TempFile(), TempFile(), 0
    copy, typed = TempFile() if parquet_copy else None, typed_schema(contract)
    nulls = dict.fromkeys(schema.names, 0)
    with (
        explain_host_limits(),
        file.writer() as csv,
        rejects.writer() as aside,
        open_parquet(copy, typed) if copy else contextlib.nullcontext() as parquet,
        contextlib.closing(read_ahead(_encode_batches(frames, audit, formulas))) as encoded,
        contextlib.closing(read_ahead(_read_back(encoded, contract))) as batches,
    ):
        csv.write(csv_format.encode_header(schema))
        aside.write(csv_format.encode_header(reject_schema(contract)))
        for good, records, bad in batches:
            csv.write(records)
            aside.write(bad)
            if parquet:
                parquet.write_table(good.cast(typed))
            published += good.num_rows
            for name in nulls:
                nulls[name] += good.column(name).null_count
        undecodable = [
            {**one.row, "broken_rules": f"{one.path or '$'}: {one.problem}"}
            for one in frames.facts.broken
        ]
        if undecodable:
            table = pa.Table.from_pylist(undecodable, reject_schema(contract))
            aside.write(csv_format.encode_csv(table))
    return AuditedCsv(
        contract=contract,
        facts=frames.facts,
        frames_sha256=frames.file.sha256,
        file=file,
        rejects=rejects,
        parquet_copy=copy,
        rows=audit.rows,
        rejected=audit.rejected,
        published=published,
        nulls=nulls,
        broken=audit.broken,
        duplicates=audit.count_duplicates(frames.batches),
        formulas=formulas,
        seconds=time.perf_counter() - start,
    )


def _encode_batches(
    frames: UserFrames, audit: Audit, formulas: RuleCount
) -> Iterator[tuple[pa.Table, bytes, bytes]]:
    """The good rows of each batch, their records, and those of the rows that are set aside."""
    for batch in frames.batches():
        verdict, bad = audit.add(batch), b""
        count_formulas(batch, frames.contract, formulas)
        good = verdict.good(batch)
        if rows := sorted(verdict.reasons):
            reasons = pa.array(["; ".join(verdict.reasons[row]) for row in rows])
            rejects = batch.take(pa.array(rows)).append_column("broken_rules", reasons)
            bad = csv_format.encode_csv(rejects)
        yield pa.Table.from_batches([good]), csv_format.encode_csv(good), bad


def _read_back(
    batches: Iterator[tuple[pa.Table, bytes, bytes]], contract: Contract
) -> Iterator[tuple[pa.Table, bytes, bytes]]:
    """The same, once the records have read back as the rows; else SnapshotError."""
    for good, records, bad in batches:
        parsed = csv_format.parse_csv(records, arrow_schema(contract))
        if parsed != good:
            key, pairs = contract.key, zip(good.to_pylist(), parsed.to_pylist(), strict=False)
            ids = (f"{key} {ours[key]}" for ours, theirs in pairs if ours != theirs)
            raise SnapshotError(
                "The CSV does not read back as the rows that it was made from, first at"
                f" {next(ids, 'the number of rows')}: nothing is written."
            )
        yield good, records, bad
