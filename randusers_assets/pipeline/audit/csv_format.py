"""The CSV format: UTF-8, no BOM, `,`, LF, text quoted, numbers bare, NULL empty and unquoted."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv

CONTENT_TYPE = "text/csv; charset=utf-8"

# Of a CSV that is read in pieces; a record must fit in one.
BLOCK_BYTES = 1 << 24


def encode_header(schema: pa.Schema) -> bytes:
    """The header row, quoted like any text (RFC 4180, section 2.3)."""
    return (",".join(f'"{name}"' for name in schema.names) + "\n").encode()


def encode_csv(rows: pa.RecordBatch | pa.Table) -> bytes:
    """Write flat rows as CSV records, without a header (RFC 4180, sections 2.5 to 2.7)."""
    sink = pa.BufferOutputStream()
    # "needed" is Arrow's word for quoting all text and no number: only text can need quotes.
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
    return bytes(sink.getvalue())


def parse_csv(records: bytes, schema: pa.Schema) -> pa.Table:
    """Parse CSV records without a header; `""` is the empty text and nothing is NULL."""
    if not records:
        return schema.empty_table()
    # One block: no record may straddle two, however long it is; Arrow's offsets end at 2 GiB.
    return csv.read_csv(pa.BufferReader(records), **_options(schema, min(len(records), 1 << 30)))


def read_csv(file: BinaryIO, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Parse CSV records from a file as `parse_csv` does, `BLOCK_BYTES` at a time."""
    if file.read(1):  # Arrow refuses an empty file
        file.seek(-1, 1)
        yield from csv.open_csv(pa.PythonFile(file, "r"), **_options(schema, BLOCK_BYTES))


def _options(schema: pa.Schema, block_bytes: int) -> dict[str, Any]:
    # Threads would have nothing to share but the columns, and cost 30 MB.
    reading = {"use_threads": False, "column_names": schema.names, "block_size": block_bytes}
    nulls = {"strings_can_be_null": True, "quoted_strings_can_be_null": False}
    return {
        "read_options": csv.ReadOptions(**reading),
        "parse_options": csv.ParseOptions(newlines_in_values=True),
        "convert_options": csv.ConvertOptions(column_types=schema, null_values=[""], **nulls),
    }
