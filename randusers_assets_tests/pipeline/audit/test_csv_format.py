"""The CSV format: its exact bytes, and hostile text through four readers."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.csv_format import encode_csv, parse_csv, read_csv
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten_lines
from randusers_assets_tests.builders import user
from randusers_assets_tests.pipeline.audit.test_rules import has_control

GOLDEN = Path(__file__).parents[2] / "golden" / "users.csv"
SCHEMA = arrow_schema(CONTRACT)
HEADER = csv_format.encode_header(SCHEMA)
PAIR = pa.schema([("a", pa.string()), ("b", pa.int64())])

Row = dict[str, Any]

ADA: Row = {
    "gender": "female",
    "name_title": "Ms",
    "name_first": "Ada",
    "name_last": "Păun",
    "location_street_number": 61,
    "location_street_name": "Lunn Avenue",
    "location_city": "Timaru",
    "location_state": "Otago",
    "location_country": "New Zealand",
    "location_postcode": 92298,
    "location_coordinates_latitude": "-39.0490",
    "location_coordinates_longitude": "+45.2350",
    "location_timezone_offset": "-6:00",
    "location_timezone_description": "Central Time (US & Canada), Mexico City",
    "email": "ada.paun@example.com",
    "login_username": "bluebird1",
    "dob_date": "1968-07-21T10:02:51.768Z",
    "dob_age": 54,
    "registered_date": "2019-01-31T10:09:35.816Z",
    "registered_age": 4,
    "phone": "+64-555-0100",
    "cell": "(064)-555-0101",
    "picture_large": "https://x/l.jpg",
    "picture_medium": "https://x/m.jpg",
    "picture_thumbnail": None,
    "nat": "NZ",
}

# One hostile user a line: what differs from Ada.
HOSTILE: tuple[Row, ...] = (
    {},
    {"name_first": 'Ada "the\' quote"', "name_last": '"', "location_city": 'a,b,"",c'},
    {"name_title": "=1+1", "location_city": "@SUM(A1)", "phone": "-2+3", "cell": "+cmd|' /C'!A0"},
    {"name_title": None, "gender": "", "location_street_number": None, "dob_age": None},
    {"name_first": "\u0639\u0644\u06cc", "name_last": "\u202e\u200fright\u200e-to-left\u202c"},
    {
        "name_first": "😀👩\u200d👩\u200d👧",
        "name_last": "e\u0301 \u00e9",
        "location_city": "東京都",
    },
    {"gender": "\ufefffemale", "location_state": " \u00a0 spaced  ", "nat": "\ufeff"},
    {"location_postcode": "0270", "location_street_number": -(2**63), "dob_age": 2**63 - 1},
    {"location_postcode": "3305 DO", "location_city": "\\", "location_state": '\\"', "nat": "NULL"},
    {"name_title": "NA", "name_first": "null", "name_last": "nan", "location_city": "#N/A"},
    {"location_city": "#", "location_state": "'", "location_country": ";|", "location_postcode": 0},
)


def _flat(snapshot: list[Row]) -> pa.RecordBatch:
    flat = flatten_lines("\n".join(map(json.dumps, snapshot)).encode(), CONTRACT)
    assert flat.undecodable == []
    return flat.rows


def _users(*changes: Row) -> pa.RecordBatch:
    uuid = "f2a1c6de-0001-4000-8000-{:012}".format
    snapshot = enumerate(changes, 1)
    return _flat([user(n, **{**ADA, "login_uuid": uuid(n), **one}) for n, one in snapshot])


def read_ours(data: bytes, schema: pa.Schema = SCHEMA) -> list[Row]:
    """The records of a CSV, after its header."""
    header = csv_format.encode_header(schema)
    assert data.startswith(header)
    rows: list[Row] = parse_csv(data[len(header) :], schema).to_pylist()
    return rows


def _read_csv(data: bytes) -> list[Row]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def _read_pandas(data: bytes) -> list[Row]:
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def _read_arrow(data: bytes, schema: pa.Schema) -> list[Row]:
    nulls = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": False}
    table = pyarrow.csv.read_csv(
        io.BytesIO(data),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=schema, **nulls),
    )
    rows: list[Row] = table.to_pylist()
    return rows


def _read_duckdb(data: bytes, schema: pa.Schema) -> list[Row]:
    types = {one.name: "BIGINT" if one.type == pa.int64() else "VARCHAR" for one in schema}
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        # On the module's connection: opening one takes 20 times as long as the query.
        rows = duckdb.execute(
            f"FROM read_csv('{file.name}', auto_detect=false, header=true, delim=',',"
            f" quote='\"', escape='\"', nullstr='', allow_quoted_nulls=false, columns={types})"
        ).fetchall()
    return [dict(zip(types, row, strict=True)) for row in rows]


def _assert_reads_back(data: bytes, rows: list[Row], schema: pa.Schema = SCHEMA) -> None:
    """Check every reader; csv, and pandas with NA words off, cannot tell NULL from `""`."""
    for read in (read_ours, _read_arrow, _read_duckdb):
        assert read(data, schema) == rows
    texts = [{k: "" if cell is None else str(cell) for k, cell in row.items()} for row in rows]
    for read_texts in (_read_csv, _read_pandas):
        assert read_texts(data) == texts


def test_golden_file_is_what_is_written_byte_for_byte() -> None:
    """Hostile users that break no rule are exactly the golden file, in every reader, too."""
    batch = _users(*HOSTILE)
    assert Audit(CONTRACT).add(batch).reasons == {}
    assert HEADER + encode_csv(batch) == GOLDEN.read_bytes()
    _assert_reads_back(GOLDEN.read_bytes(), batch.to_pylist())


def test_encode_quotes_text_and_leaves_numbers_and_null_bare() -> None:
    """Names and text are quoted, numbers are bare, NULL is nothing; a BOM is only a cell's own."""
    texts = ["x", 'q"', "", None, "1", "\ufeffé😀"]
    table = pa.table({"a": texts, "b": pa.array([1, -2, None, 0, 2**63 - 1, 1])})
    assert csv_format.encode_header(table.schema) + encode_csv(table) == (
        b'"a","b"\n"x",1\n"q""",-2\n"",\n,0\n"1",9223372036854775807\n'
        b'"\xef\xbb\xbf\xc3\xa9\xf0\x9f\x98\x80",1\n'
    )


def test_encode_of_no_rows_is_nothing() -> None:
    """No row is no byte, and reads back as no row of the schema."""
    assert encode_csv(_users()) == b""
    assert parse_csv(b"", SCHEMA) == SCHEMA.empty_table()
    assert list(read_csv(io.BytesIO(b""), SCHEMA)) == []


def test_encode_gives_the_same_bytes_whatever_the_batches() -> None:
    """The bytes depend on the rows alone, not on how they are cut."""
    batch = _users(*HOSTILE)
    whole = encode_csv(batch)
    assert encode_csv(pa.Table.from_batches([batch])) == whole
    parts = [batch.slice(start, 3) for start in range(0, len(HOSTILE), 3)]
    assert b"".join(map(encode_csv, parts)) == whole
    assert encode_csv(pa.Table.from_batches(parts)) == whole


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=8))
@example([0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 9007199254740993.0, None])
def test_numbers_read_back_to_the_last_bit(numbers: list[float | None]) -> None:
    """A floating-point number is written bare, and parsed as the very same one."""
    table = pa.table({"x": pa.array(numbers, pa.float64()), "id": range(len(numbers))})
    records = encode_csv(table)
    assert b'"' not in records
    # As text, since 0.0 == -0.0.
    parsed = parse_csv(records, table.schema)["x"].to_pylist()
    assert list(map(repr, parsed)) == list(map(repr, numbers))


def test_parse_keeps_null_and_the_empty_text_apart() -> None:
    """Nothing is NULL, `""` is the empty text, and a word such as NULL is that word."""
    parsed = parse_csv(b',1\n"",2\n"NULL",\nNULL,3\n', PAIR)
    assert parsed.to_pydict() == {"a": [None, "", "NULL", "NULL"], "b": [1, 2, None, 3]}
    assert parsed.schema == PAIR


@pytest.mark.parametrize(
    "records", [b'"x"\n', b'"x",1,2\n', b'"x",one\n', b'"x",1.5\n', b'"x",""\n', b'"x","y\n']
)
def test_parse_and_read_refuse_records_of_another_shape(records: bytes) -> None:
    """A record without the schema's columns or types is an error, never a guess."""
    with pytest.raises(pa.ArrowInvalid):
        parse_csv(records, PAIR)
    with pytest.raises(pa.ArrowInvalid):
        list(read_csv(io.BytesIO(records), PAIR))


@pytest.mark.parametrize("length", [10_000, (1 << 20) + 1, 3 << 20])
def test_parse_reads_cells_of_any_length(length: int) -> None:
    """A cell of 10 kB and one longer than Arrow's block read back as they were written."""
    batch = _users({}, {"location_city": '",=é😀' * (length // 6)}, {})
    assert parse_csv(encode_csv(batch), SCHEMA) == pa.Table.from_batches([batch])


@pytest.mark.parametrize("block_bytes", [64, 65, 100, 1 << 24])
def test_read_gives_every_record_across_blocks(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Records are read wherever a block ends, also inside a value with line ends and quotes."""
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", block_bytes)
    cells = ["a\nb", "\n", 'q"\n"', "\r\n", "é😀\n", "", None, "x,\n,y"]
    rows = [{"a": cells[n % len(cells)], "b": None if n % 5 else n} for n in range(200)]
    records = encode_csv(pa.Table.from_pylist(rows, PAIR))
    batches = list(read_csv(io.BytesIO(records), PAIR))
    assert (len(batches) > 1) == (len(records) > block_bytes)
    assert pa.Table.from_batches(batches) == parse_csv(records, PAIR)
    assert [row for batch in batches for row in batch.to_pylist()] == rows


def test_read_refuses_a_record_longer_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that does not fit in a block is an error, not a cut value."""
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 64)
    records = b'"x",1\n"' + b"y" * 200 + b'",2\n'
    with pytest.raises(pa.ArrowInvalid, match="straddling object straddles two block boundaries"):
        list(read_csv(io.BytesIO(records), PAIR))


def test_real_users_read_back_in_every_reader(real_users: list[Row]) -> None:
    """The API's own records come out of each reader as they went in."""
    batch = _flat(real_users)
    _assert_reads_back(HEADER + encode_csv(batch), batch.to_pylist())


_MARKS = ['"', '""', ",", ";", "'", "\\", "\\n", "|", "#", " ", "\u00a0", "=", "+", "-", "@"]
_SCRIPTS = [*"\ufeff\u200e\u200f\u202e\u2066\u0301\U0010ffffé東😀"]
_WORDS = ["NULL", "NaN", "NA", "None", "true", "1e5", "0270", "1968-07-21", "=cmd|' /C'!A0"]
_CONTROLS = ["\n", "\r", "\r\n", "\0", "\t", "\x1a", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"]
_PIECES = st.sampled_from([*_MARKS, *_SCRIPTS, *_WORDS, *_CONTROLS])
_TEXTS = st.none() | st.lists(_PIECES | st.text(max_size=4), max_size=4).map("".join)
_CHANGES = st.fixed_dictionaries(
    {"location_city": _TEXTS},
    optional={"gender": _TEXTS, "nat": _TEXTS, "phone": _TEXTS, "location_postcode": _TEXTS},
)


@given(st.lists(_CHANGES, min_size=1, max_size=6))
@example([{"location_city": "x" * 10_000 + '"'}, {"location_city": None}, {"location_city": ""}])
def test_hostile_text_reads_back_in_every_reader(snapshot: list[Row]) -> None:
    """What goes in comes out, of all rows but those with a control character or without `nat`."""
    batch = _users(*snapshot)
    good = Audit(CONTRACT).add(batch).good(batch)
    assert good.column("id").to_pylist() == [
        number
        for number, changes in enumerate(snapshot, 1)
        if not any(map(has_control, changes.values())) and changes.get("nat", "NZ")
    ]
    _assert_reads_back(HEADER + encode_csv(good), good.to_pylist())


_INT64 = st.sampled_from([-(2**63), -1, 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.fixed_dictionaries({"a": _TEXTS, "b": st.none() | _INT64}), max_size=12))
@example([{"a": one, "b": None} for one in [None, "", *_CONTROLS, *_WORDS, *_MARKS]])
def test_any_cell_reads_back_in_every_reader(rows: list[Row]) -> None:
    """Even of cells that the audit would set aside, NUL and line ends too, none is changed."""
    records = encode_csv(pa.Table.from_pylist(rows, PAIR))
    _assert_reads_back(csv_format.encode_header(PAIR) + records, rows, PAIR)


def test_pandas_by_default_takes_words_for_null() -> None:
    """Left to its defaults, pandas reads NA, null, `""` and NULL alike as NaN."""
    data = b'"id","a"\n1,"NA"\n2,"null"\n3,""\n4,\n5,"x"\n'
    absent = pd.read_csv(io.BytesIO(data))["a"].isna().tolist()
    assert absent == [True, True, True, True, False]
