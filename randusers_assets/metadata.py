"""What the UI shows of the assets: schemas, lineage, a masked preview, charts, object facts."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import msgspec

from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.flatten.frames import FetchFacts, UserFrames
from randusers_assets.pipeline.publish.diff import Comparison
from randusers_assets.pipeline.publish.publish import Publication
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage.paths import (
    csv_path,
    frames_path,
    raw_path,
    receipt_path,
)

# How the columns are written as an Open Data Contract, and read elsewhere.
CONTRACT_DOCUMENT = "docs/reading.md"

# Rows of the preview; the most values of a chart, and the blocks of its longest bar.
PREVIEW_ROWS, TOP, BAR = 5, 10, 20


def table_schema(contract: Contract) -> dg.TableSchema:
    """The flat columns."""
    types = {"integer": "int64", "number": "float64", "timestamp": "timestamp"}
    columns = [
        dg.TableColumn(
            c.name,
            types.get(c.type, "string"),
            f"{c.meaning} (`{c.path}`)",
            dg.TableColumnConstraints(not c.required, c.name in contract.unique),
            tags=_tags(c),
        )
        for c in contract.columns
    ]
    return dg.TableSchema(columns)


def raw_schema(contract: Contract) -> dg.TableSchema:
    """The JSON paths of a raw row that the contract knows."""
    types = {"integer": "int", "number": "number", "code": "int or string"}
    types["json"] = "list or object"
    columns = [
        dg.TableColumn(c.path, types.get(c.type, "string"), c.meaning, tags=_tags(c))
        for c in contract.columns
    ]
    return dg.TableSchema(columns)


def _tags(column: Column) -> dict[str, str]:
    return {"personal": ""} if column.personal else {}


def lineage(contract: Contract, upstream: str, source: Callable[[Column], str]) -> dict[str, Any]:
    """The one source of each flat column in the asset upstream."""
    deps = {c.name: [dg.TableColumnDep(upstream, source(c))] for c in contract.columns}
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}


def with_places(
    assets: Sequence[dg.AssetsDefinition], run: SnapshotRun
) -> list[dg.AssetsDefinition]:
    """The assets with the file and line of their code, and with their objects' URIs."""
    day, contract = "YYYY-MM-DD", run.contract
    path = {
        "raw_users": raw_path(contract, day, "SHA256"),
        "users_df": frames_path(contract, day, "SHA256"),
        "users_csv": csv_path(contract, day),
    }

    def with_uri(spec: dg.AssetSpec) -> dg.AssetSpec:
        uri = run.store.uri(path[spec.key.to_user_string()])
        return spec.merge_attributes(metadata={"dagster/uri": uri} if run.store.bucket else {})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # of code references
        return [
            asset.map_asset_specs(with_uri)
            for asset in dg.with_source_code_references(assets)
            if isinstance(asset, dg.AssetsDefinition)
        ]


@contextmanager
def record_seconds(
    context: dg.AssetExecutionContext | dg.OutputContext, stage: str
) -> Iterator[None]:
    """Add the seconds of a stage to the materialization, as a number that the UI plots."""
    start = time.perf_counter()
    yield
    context.add_output_metadata({f"{stage}_seconds": round(time.perf_counter() - start, 3)})


def fetch_metadata(facts: FetchFacts) -> dict[str, Any]:
    """The facts of a fetch."""
    shown = msgspec.structs.asdict(facts)
    source = dg.MetadataValue.url(shown.pop("url"))
    return {"source": source, "bytes_fetched": shown.pop("bytes"), **shown}


def kept_metadata(facts: FetchFacts) -> dict[str, Any]:
    """That a raw snapshot was not fetched by this run."""
    return {"kept": f"fetched at {facts.fetched_at}"}


def object_metadata(uri: str, rows: int, size: int, sha256: str, etag: str) -> dict[str, Any]:
    """A stored object."""
    shown = {"dagster/uri": uri, "dagster/row_count": rows, "bytes": size, "sha256": sha256}
    return {**shown, "etag": etag.strip('"')}


def publication_metadata(publication: Publication, run: SnapshotRun) -> dict[str, Any]:
    """A publication, with a link to its receipt."""
    receipt, csv, etag = publication.receipt, publication.receipt.csv, publication.stored.etag
    path = receipt_path(run.contract, receipt.date, csv.sha256)
    copy = {"parquet_copy": receipt.parquet_copy.uri} if receipt.parquet_copy else {}
    return {
        **object_metadata(csv.uri, receipt.counts.published, csv.bytes, csv.sha256, etag),
        "outcome": publication.outcome,
        "rejected": receipt.counts.rejected,
        **copy,
        "receipt_link": dg.MetadataValue.url(run.store.link(path)),
        "receipt": dg.MetadataValue.json(msgspec.to_builtins(receipt)),
    }


def frames_metadata(frames: UserFrames) -> dict[str, Any]:
    """A masked preview, and the values of the contract's charts: the top 10, or numbers by tens."""
    contract = frames.contract
    counts = {name: Counter[Any]() for name in contract.charts}
    for batch in frames.batches(*contract.charts) if contract.charts else ():
        for name, values in counts.items():
            for pair in batch.column(name).drop_null().value_counts().to_pylist():
                values[pair["values"]] += pair["counts"]
    first = next(frames.batches(), None)
    rows = first.slice(0, PREVIEW_ROWS).to_pylist() if first else []
    masked = [
        dg.TableRecord({c.name: c.mask(row[c.name]) for c in contract.columns}) for row in rows
    ]
    schema = dg.TableSchema([dg.TableColumn(name) for name in contract.by_name])
    shown: dict[str, Any] = {"preview": dg.MetadataValue.table(masked, schema)}
    for name, values in counts.items():
        text = contract.by_name[name].is_text
        shown[name] = bars(dict(values.most_common(TOP)) if text else _tens(values))
    return shown


def _tens(values: Counter[Any]) -> dict[str, int]:
    tens = Counter[int]()
    for value, count in values.items():
        tens[int(value // 10) * 10] += count
    return {f"{start} to {start + 9}": tens[start] for start in sorted(tens)}


def bars(counts: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """Counts as a small bar chart in Markdown, in the order given."""
    most = max(counts.values(), default=1)
    rows = ["| | rows | |", "|---|--:|---|"]
    for name, count in counts.items():
        cell = name.replace("|", r"\|")  # a bare pipe would end the cell
        rows.append(f"| {cell} | {count:,} | `{'█' * max(1, round(BAR * count / most))}` |")
    return dg.MetadataValue.md("\n".join(rows))


def comparison_metadata(comparison: Comparison | None) -> dict[str, Any]:
    """What changed since the day before."""
    if comparison is None:
        return {}
    difference = comparison.difference
    if difference is None:
        return {"not_compared": comparison.problem}
    return {
        "compared_with": comparison.date,
        **{f"{kind}_rows": count for kind, count in difference.counts.items()},
        "first_keys": dg.MetadataValue.json(difference.keys),
    }
