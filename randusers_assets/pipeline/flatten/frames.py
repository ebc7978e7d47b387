"""What flows between the assets: spools of one snapshot, read in bounded batches."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import msgspec

from randusers_assets.contract import COLUMNS, Broken
from randusers_assets.pipeline.flatten.arrow import Flat, arrow_schema, instants, read_lines
from randusers_assets.pipeline.storage.duplicates import Keys
from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named, read_ahead

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# About 500 users: object-building parsers slow down on larger units.
BLOCK_BYTES = 1 << 18

# Rows of a record batch and of a Parquet row group.
BATCH_ROWS = 5_000

# Users set aside for breaking the contract are carried in the Parquet footer, which must stay
# small; more than this many is a changed API, not a bad row.
MAX_BROKEN = 1_000

_FOOTER_KEY = "randusers"


class FetchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a snapshot was fetched; carried with it from raw to receipt."""

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
    """Where flat users come from, and the users that could not be laid flat."""

    fetch: FetchFacts
    raw_rows: int
    raw_sha256: str
    flat_rows: int
    broken: list[Broken]


class RawUsers:
    """One JSON line per user as the API sent it, less credentials, in a zstd spool."""

    def __init__(self, spool: Spool, facts: FetchFacts, reading: "Reading | None" = None) -> None:
        self.spool = spool
        self.facts = facts
        self._reading = reading

    def blocks(self) -> Iterator[bytes]:
        """Yield whole lines, about `BLOCK_BYTES` at a time."""
        import pyarrow as pa

        stream = pa.CompressedInputStream(self.spool.reader(), "zstd")
        rest = b""
        while data := stream.read(BLOCK_BYTES):
            lines, newline, tail = (rest + data).rpartition(b"\n")
            if newline:
                yield lines + newline
            rest = tail
        if rest:
            yield rest

    @property
    def reading(self) -> "Reading":
        """What one pass over the lines found: the fetch's own, or made when first asked for."""
        if self._reading is None:
            flats = read_ahead(map(read_lines, self.blocks()))
            self._reading = read_once(flats, lambda: (self.facts, self.spool.sha256))
        return self._reading


class UserFrames:
    """One row per user, flat and typed by the contract, in a Parquet spool.

    Iterate for pandas DataFrames of up to `BATCH_ROWS` rows; `to_pandas` gives the one DataFrame.
    """

    def __init__(self, spool: Spool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.spool = spool
        try:
            self._file = pq.ParquetFile(spool.reader(), pre_buffer=False)
            footer = (self._file.metadata.metadata or {}).get(_FOOTER_KEY.encode(), b"")
            self.facts = msgspec.json.decode(footer, type=FrameFacts)
        except (pa.ArrowInvalid, msgspec.DecodeError) as error:
            raise _not_ours() from error
        if self._file.schema_arrow != arrow_schema():
            raise _not_ours()

    def batches(self, *columns: str) -> "Iterator[pa.RecordBatch]":
        """Yield record batches of up to `BATCH_ROWS` rows, of all columns or only of some."""
        for batch in self._file.iter_batches(
            BATCH_ROWS, columns=columns or None, use_threads=False
        ):
            yield batch.replace_schema_metadata()

    def __iter__(self) -> "Iterator[pd.DataFrame]":
        return map(to_frame, self.batches())

    def to_pandas(self) -> "pd.DataFrame":
        """The whole snapshot as one ordinary DataFrame."""
        import pyarrow as pa

        return to_frame(pa.Table.from_batches(self.batches(), arrow_schema()))


def _not_ours() -> dg.Failure:
    return dg.Failure("users.parquet was not written under this contract: rebuild users_df.")


@dataclass(frozen=True)
class Reading:
    """One pass over a raw snapshot: what its gates ask for, and its users laid flat.

    `repeated` is the first user whose id stood before: the place, from 0, and the id. Of the users
    that break the contract all are counted, by path and problem, and the first `MAX_BROKEN` kept.
    """

    rows: int
    distinct_ids: int
    repeated: tuple[int, int] | None
    problems: Counter[str]
    broken: list[Broken]
    unknown: Counter[str]
    frames: UserFrames


def read_once(flats: Iterable[Flat], source: Callable[[], tuple[FetchFacts, str]]) -> Reading:
    """Write flat lines into Parquet as they come, and gather what does not fit.

    `source` is asked at the end for the facts of the fetch and the digest of the raw snapshot.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken: list[Broken] = []
    problems, unknown = Counter[str](), Counter[str]()
    ids = Keys()
    rows = flat_rows = 0

    def batches() -> "Iterator[pa.RecordBatch]":
        nonlocal rows, flat_rows
        for flat in flats:
            for one in flat.broken:
                problems[f"{one.path}: {one.problem}"] += 1
                if len(broken) < MAX_BROKEN:
                    broken.append(msgspec.structs.replace(one, line=rows + one.line))
            unknown.update(flat.unknown)
            ids.add(flat.ids())
            rows += len(flat)
            flat_rows += flat.rows.num_rows
            yield flat.rows

    spool = Spool()
    with (
        disk_full_named(),
        spool.writer() as file,
        # A call into Python for a megabyte, not for each column of each batch.
        pa.BufferedOutputStream(pa.PythonFile(file, "w"), 1 << 20) as sink,
        # No dictionaries: most values hardly repeat, and zstd finds those that do.
        pq.ParquetWriter(
            sink, arrow_schema(), compression="zstd", compression_level=1, use_dictionary=False
        ) as parquet,
    ):
        for table in _in_batches(batches()):
            parquet.write_table(table, row_group_size=BATCH_ROWS)
        fetch, raw_sha256 = source()
        facts = FrameFacts(
            fetch=fetch, raw_rows=rows, raw_sha256=raw_sha256, flat_rows=flat_rows, broken=broken
        )
        parquet.add_key_value_metadata({_FOOTER_KEY: msgspec.json.encode(facts).decode()})
    again, repeated = ids.comes_again()
    return Reading(rows, ids.count - again, repeated, problems, broken, unknown, UserFrames(spool))


def lay_flat(raw: RawUsers) -> UserFrames:
    """The users of a raw snapshot laid flat, those that break the contract apart.

    Raises:
        dagster.Failure: more than `MAX_BROKEN` users break the contract.
    """
    reading = raw.reading
    if reading.problems.total() > MAX_BROKEN:
        raise dg.Failure(
            f"More than {MAX_BROKEN:,} users break the contract, the first of them"
            f" {reading.broken[0].sentence()}: bring contract.py in line with {raw.facts.url}.",
            allow_retries=False,
        )
    return reading.frames


def _in_batches(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.Table]":
    """Gather small record batches into tables of `BATCH_ROWS` rows, the last one shorter."""
    import pyarrow as pa

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


def to_frame(rows: "pa.RecordBatch | pa.Table") -> "pd.DataFrame":
    """Convert flat rows to pandas: `str`, `int64` (`Int64` where NULL may be), UTC timestamps."""
    import pandas as pd
    import pyarrow as pa

    for index, column in enumerate(COLUMNS):
        if column.type == "timestamp":
            rows = rows.set_column(index, column.name, _instants(rows.column(index)))
    frame = rows.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    required = [c.name for c in COLUMNS if c.type == "integer" and c.required]
    return frame.astype(dict.fromkeys(required, "int64"))  # type: ignore[no-any-return]  # pyarrow is untyped


def _instants(values: "pa.Array | pa.ChunkedArray") -> "pa.Array":
    import pyarrow as pa

    return instants(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
