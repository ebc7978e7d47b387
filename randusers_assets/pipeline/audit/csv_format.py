"""The CSV dialect: UTF-8, no BOM, `,`, LF, text quoted, numbers bare, NULL empty and unquoted."""

from typing import TYPE_CHECKING

from randusers_assets.pipeline.flatten.arrow import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT_TYPE = "text/csv; charset=utf-8"


def header(schema: "pa.Schema | None" = None) -> bytes:
    """The header row, quoted like any text (RFC 4180, section 2.3)."""
    names = (schema or arrow_schema()).names
    return (",".join(f'"{name}"' for name in names) + "\n").encode()


def encode(rows: "pa.RecordBatch | pa.Table") -> bytes:
    """Write flat rows as CSV records, without a header (RFC 4180, sections 2.5 to 2.7)."""
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    # "needed" is Arrow's word for quoting all text and no number: only text can need quotes.
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
    records: bytes = sink.getvalue().to_pybytes()
    return records


def parse(records: bytes, schema: "pa.Schema | None" = None) -> "pa.Table":
    """Read CSV records without a header back, `""` as the empty text and nothing as NULL.

    Raises:
        pyarrow.ArrowInvalid: a record does not have the columns or the types of the schema.
    """
    import pyarrow as pa
    from pyarrow import csv

    schema = schema or arrow_schema()
    if not records:
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(records),
        # One block: no record may straddle two, however long it is; Arrow's offsets end at 2 GiB.
        # Threads would have nothing to share but the columns, and cost 30 MB.
        read_options=csv.ReadOptions(
            use_threads=False, column_names=schema.names, block_size=min(len(records), 1 << 30)
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
