"""What the UI shows of a snapshot beyond its size: a masked preview, and who the users are."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from randusers_assets.contract import COLUMNS, mask
from randusers_assets.pipeline.flatten.frames import UserFrames

PREVIEW_ROWS = 5
TOP = 10
BAR = 20
AGES = 10

# What would end a cell of a Markdown table.
_PIPE = {ord("|"): "\\|"}


def insights(frames: UserFrames) -> dict[str, Any]:
    """Metadata for a materialization of users_df: preview, nationalities and ages."""
    nationalities, decades = Counter[str](), Counter[int]()
    for batch in frames.batches("nat", "dob_age"):
        for pair in batch.column("nat").value_counts().to_pylist():
            nationalities[str(pair["values"])] += pair["counts"]
        for pair in batch.column("dob_age").drop_null().value_counts().to_pylist():
            decades[pair["values"] // AGES * AGES] += pair["counts"]
    ages = {f"{age} to {age + AGES - 1}": decades[age] for age in sorted(decades)}
    first = next(frames.batches(), None)
    return {
        "preview": preview(first.slice(0, PREVIEW_ROWS).to_pylist() if first else []),
        "top_nationalities": bars(dict(nationalities.most_common(TOP))),
        "ages": bars(ages),
    }


def preview(rows: Sequence[Mapping[str, object]]) -> dg.TableMetadataValue:
    """A few rows as a table, personal values masked."""
    return dg.MetadataValue.table(
        [dg.TableRecord({c.name: mask(c, row[c.name]) for c in COLUMNS}) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(c.name) for c in COLUMNS]),
    )


def bars(counts: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """Counts as a small bar chart in Markdown, in the order given."""
    most = max(counts.values(), default=1)
    rows = [
        f"| {name.translate(_PIPE)} | {count:,} | `{'█' * max(1, round(BAR * count / most))}` |"
        for name, count in counts.items()
    ]
    return dg.MetadataValue.md("\n".join(["| | users | |", "|---|--:|---|", *rows]))


@contextmanager
def timed(context: dg.AssetExecutionContext | dg.OutputContext, stage: str) -> Iterator[None]:
    """Add the seconds of a stage to the materialization, as a number that the UI plots."""
    start = time.perf_counter()
    yield
    context.add_output_metadata({f"{stage}_seconds": round(time.perf_counter() - start, 3)})
