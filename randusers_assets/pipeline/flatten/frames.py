"""Raw and flat snapshots on the disk, read and written in bounded batches."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from randusers_assets.pipeline.contract import TIMESTAMP, Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.arrow import FlatLines, arrow_schema, flatten_lines
from randusers_assets.pipeline.flatten.decode import UndecodableUser
from randusers_assets.pipeline.storage.duplicates import Duplicates, Keys
from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_host_limits

if TYPE_CHECKING:
    import pandas as pd

# About 500 users: object-building parsers slow down on larger units.
BLOCK_BYTES = 1 << 18

# Rows of a record batch and of a Parquet row group.
BATCH_ROWS = 5_000

PARQUET_TYPE = "application/vnd.apache.parquet"

# More undecodable rows are a changed API. They are in the Parquet footer, which must stay small.
MAX_UNDECODABLE = 1_000

_FOOTER_KEY = b"randusers"


class FetchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a snapshot was fetched."""

    url: str
    declared: int
    pages: int
    page_size: int
    tries: int
    retries: int
    waited_seconds: float
    bytes: int
    fetched_at: str


class FrameFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What flat rows were made from; `raw_keys` (distinct keys) is None in an older file."""

    fetch: FetchFacts
    raw_rows: int
    raw_keys: int | None = None
    raw_sha256: str
    flat_rows: int
    broken: list[UndecodableUser]


@dataclass(frozen=True, eq=False)
class RawUsers:
    """One JSON line per row as the API sent it, less the secrets, in a zstd temp file."""

    file: TempFile
    facts: FetchFacts
    contract: Contract

    def blocks(self) -> Iterator[bytes]:
        """Yield whole lines, about `BLOCK_BYTES` at a time."""
        stream = io.BufferedReader(pa.CompressedInputStream(self.file.reader(), "zstd"))
        try:
            while block := stream.read(BLOCK_BYTES):
                yield block + stream.readline()
        except OSError as error:
            if error.errno:
                raise  # the temp file's
            name = self.contract.name
            raise SnapshotError(
                f"The raw snapshot of {name} is not whole zstd: materialize raw_{name} again."
            ) from error


class UserFrames:
    """One flat row per user in a Parquet temp file; iterating gives DataFrames of `BATCH_ROWS`."""

    def __init__(self, file: TempFile, contract: Contract) -> None:
        self.file = file
        self.contract = contract
        cause = None
        try:
            self._parquet = pq.ParquetFile(file.reader(), pre_buffer=False)
            footer = (self._parquet.metadata.metadata or {}).get(_FOOTER_KEY, b"")
            self.facts = msgspec.json.decode(footer, type=FrameFacts)
        except (pa.ArrowInvalid, msgspec.DecodeError) as error:
            cause = error
        if cause or self._parquet.schema_arrow != arrow_schema(contract):
            raise SnapshotError(
                f"{contract.name}.parquet was not written under this contract: materialize"
                f" {contract.name}_df again."
            ) from cause

    def batches(
        self, *columns: str, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield record batches of up to `BATCH_ROWS` rows; all, or some columns or row groups."""
        batches = self._parquet.iter_batches(
            BATCH_ROWS, row_groups=groups, columns=columns or None, use_threads=False
        )
        return (batch.replace_schema_metadata() for batch in batches)

    def group_digests(self) -> Iterator[bytes]:
        """Yield the SHA-256 of each row group as it is stored; equal ones hold equal rows."""
        for number in range(self._parquet.num_row_groups):
            group = self._parquet.metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
            sizes = [chunk.total_compressed_size for chunk in chunks]
            start, end = min(starts), max(map(add, starts, sizes))
            yield hashlib.sha256(self.file.pread(end - start, start)).digest()

    def __iter__(self) -> "Iterator[pd.DataFrame]":
        return (to_frame(batch, self.contract) for batch in self.batches())

    def to_pandas(self) -> "pd.DataFrame":
        """The whole snapshot as one ordinary DataFrame."""
        table = pa.Table.from_batches(self.batches(), arrow_schema(self.contract))
        return to_frame(table, self.contract)


@dataclass(frozen=True)
class DecodedRaw:
    """Everything that one pass over a raw snapshot finds.

    `problems` counts all undecodable rows, by path and problem; the facts of `frames` keep the
    first `MAX_UNDECODABLE`. `unknown` counts the JSON paths that are not in the contract.
    """

    frames: UserFrames
    duplicates: Duplicates
    problems: Counter[str]
    unknown: Counter[str]


def decode_raw(raw: RawUsers) -> DecodedRaw:
    """Decode and flatten the stored lines."""
    lines = read_ahead(flatten_lines(block, raw.contract) for block in raw.blocks())
    return write_parquet(lines, raw.contract, lambda: (raw.facts, raw.file.sha256))


@contextmanager
def open_parquet(file: TempFile, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Open a temp file for writing Parquet; the same rows give the same bytes."""
    with (
        explain_host_limits(),
        file.writer() as writer,
        # Buffer 1 MiB so that PyArrow rarely calls into Python.
        pa.BufferedOutputStream(pa.PythonFile(writer, "w"), 1 << 20) as sink,
        # No dictionaries: most values hardly repeat, and zstd finds those that do.
        pq.ParquetWriter(
            sink, schema, compression="zstd", compression_level=1, use_dictionary=False
        ) as parquet,
    ):
        yield parquet


def write_parquet(
    lines: Iterable[FlatLines], contract: Contract, source: Callable[[], tuple[FetchFacts, str]]
) -> DecodedRaw:
    """Write lines to Parquet as they come; at the end, `source` gives the raw facts and SHA-256."""
    undecodable: list[UndecodableUser] = []
    problems, unknown = Counter[str](), Counter[str]()
    keys = Keys()
    rows = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for some in lines:
            for one in some.undecodable:
                problems[f"{one.path or '$'}: {one.problem}"] += 1
                if len(undecodable) < MAX_UNDECODABLE:
                    undecodable.append(msgspec.structs.replace(one, line=rows + one.line))
            unknown.update(some.unknown)
            keys.add(some.keys(contract))
            rows += len(some)
            yield some.rows

    file = TempFile()
    with open_parquet(file, arrow_schema(contract)) as parquet:
        for table in _in_batches(batches()):
            parquet.write_table(table, row_group_size=BATCH_ROWS)
        fetch, raw_sha256 = source()
        duplicates = keys.count_duplicates()
        facts = FrameFacts(
            fetch=fetch,
            raw_rows=rows,
            raw_keys=keys.count - duplicates.repeating,
            raw_sha256=raw_sha256,
            flat_rows=rows - problems.total(),
            broken=undecodable,
        )
        parquet.add_key_value_metadata({_FOOTER_KEY: msgspec.json.encode(facts)})
    return DecodedRaw(UserFrames(file, contract), duplicates, problems, unknown)


def flatten(decoded: DecodedRaw) -> UserFrames:
    """The flat rows; SnapshotError if more than `MAX_UNDECODABLE` rows break the contract."""
    if decoded.problems.total() > MAX_UNDECODABLE:
        facts, key = decoded.frames.facts, decoded.frames.contract.key
        raise SnapshotError(
            f"More than {MAX_UNDECODABLE:,} rows break the contract, first"
            f" {facts.broken[0].describe(key)}: adapt contract.py to {facts.fetch.url}."
        )
    return decoded.frames


def _in_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather small record batches into tables of `BATCH_ROWS` rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        while rows >= BATCH_ROWS:
            table = pa.Table.from_batches(held).combine_chunks()
            yield table.slice(0, BATCH_ROWS)
            held = table.slice(BATCH_ROWS).to_batches()
            rows -= BATCH_ROWS
    if rows:
        yield pa.Table.from_batches(held).combine_chunks()


def to_frame(rows: pa.RecordBatch | pa.Table, contract: Contract) -> "pd.DataFrame":
    """Convert flat rows to pandas: `str`, `int64` (`Int64` where NULL may be), UTC timestamps."""
    import pandas as pd  # 0.3 s, and no run needs it

    for index, column in enumerate(contract.columns):
        if column.type == "timestamp":
            rows = rows.set_column(index, column.name, parse_timestamps(rows.column(index)))
    frame = rows.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    required = [c.name for c in contract.columns if c.type == "integer" and c.required]
    return frame.astype(dict.fromkeys(required, "int64"))  # type: ignore[no-any-return]  # pyarrow is untyped


def parse_timestamps(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Read texts as `timestamp[ms, UTC]`; NULL where one is not a timestamp of the one form."""
    instant = pa.timestamp("ms", "UTC")
    nothing = pa.nulls(len(values), values.type)
    shaped = pc.if_else(pc.match_substring_regex(values, TIMESTAMP), values, nothing)
    try:
        return shaped.cast(instant)
    except pa.ArrowInvalid:  # a day or hour that does not exist, in a row that Arrow does not name
        return pa.array([_instant(text, instant) for text in shaped], instant)


def _instant(text: pa.Scalar, instant: pa.DataType) -> pa.Scalar | None:
    try:
        return text.cast(instant)
    except pa.ArrowInvalid:
        return None
