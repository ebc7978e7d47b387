"""The CSV dialect: its exact bytes, and hostile text through four readers."""

import copy
import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from randusers_assets.contract import COLUMNS, decode
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten

GOLDEN = Path(__file__).parents[2] / "golden" / "users.csv"

ADA: dict[str, Any] = {
    "gender": "female",
    "name": {"title": "Ms", "first": "Ada", "last": "Păun"},
    "location": {
        "street": {"number": 61, "name": "Lunn Avenue"},
        "city": "Timaru",
        "state": "Otago",
        "country": "New Zealand",
        "postcode": 92298,
        "coordinates": {"latitude": "-39.0490", "longitude": "+45.2350"},
        "timezone": {"offset": "-6:00", "description": "Central Time (US & Canada), Mexico City"},
    },
    "email": "ada.paun@example.com",
    "login": {"uuid": "f2a1c6de-0001-4000-8000-000000000001", "username": "bluebird1"},
    "dob": {"date": "1968-07-21T10:02:51.768Z", "age": 54},
    "registered": {"date": "2019-01-31T10:09:35.816Z", "age": 4},
    "phone": "+64-555-0100",
    "cell": "(064)-555-0101",
    "id": 1,
    "picture": {"large": "https://x/l.jpg", "medium": "https://x/m.jpg", "thumbnail": None},
    "nat": "NZ",
}

# One hostile user a line: what differs from Ada.
HOSTILE: tuple[dict[str, Any], ...] = (
    {},
    {"name.first": 'Ada "the\' quote"', "name.last": '"', "location.city": 'a,b,"",c'},
    {"name.title": "=1+1", "location.city": "@SUM(A1)", "phone": "-2+3", "cell": "+cmd|' /C'!A0"},
    {"name.title": None, "gender": "", "location.street.number": None, "dob.age": None},
    {"name.first": "\u0639\u0644\u06cc", "name.last": "\u202e\u200fright\u200e-to-left\u202c"},
    {
        "name.first": "😀👩\u200d👩\u200d👧",
        "name.last": "e\u0301 \u00e9",
        "location.city": "東京都",
    },
    {"gender": "\ufefffemale", "location.state": " \u00a0 spaced  ", "nat": "\ufeff"},
    {"location.postcode": "0270", "location.street.number": -(2**63), "dob.age": 2**63 - 1},
    {"location.postcode": "3305 DO", "location.city": "\\", "location.state": '\\"', "nat": "NULL"},
    {"name.title": "NA", "name.first": "null", "name.last": "nan", "location.city": "#N/A"},
    {"location.city": "#", "location.state": "'", "location.country": ";|", "location.postcode": 0},
)


def _changed(number: int, changes: dict[str, Any]) -> dict[str, Any]:
    one = copy.deepcopy(ADA)
    uuid = f"f2a1c6de-0001-4000-8000-{number:012}"
    for path, value in {"id": number, "login.uuid": uuid, **changes}.items():
        node = one
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return one


def _users(*changes: dict[str, Any]) -> pa.RecordBatch:
    lines = (json.dumps(_changed(number, one)) + "\n" for number, one in enumerate(changes, 1))
    users, broken = decode("".join(lines).encode())
    assert broken == []
    return flatten(users)


def _read_csv(data: bytes) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
    return [dict(row) for row in rows]


def _read_pandas(data: bytes) -> list[dict[str, Any]]:
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]


def _read_arrow(data: bytes) -> list[dict[str, Any]]:
    options = pyarrow.csv.ConvertOptions(
        column_types=arrow_schema(),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    rows: list[dict[str, Any]] = pyarrow.csv.read_csv(
        io.BytesIO(data), convert_options=options
    ).to_pylist()
    return rows


def _read_duckdb(path: Path) -> list[dict[str, Any]]:
    types = {c.name: "BIGINT" if c.type == "integer" else "VARCHAR" for c in COLUMNS}
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"FROM read_csv('{path}', auto_detect=false, header=true, delim=',',"
            f" quote='\"', escape='\"', nullstr='', allow_quoted_nulls=false, columns={types})"
        ).fetchall()
        names = [name for name, *_ in connection.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _as_text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows as a reader without NULL and numbers sees them."""
    return [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows]


def test_golden_file_is_what_is_written_byte_for_byte() -> None:
    """Hostile users that break no rule are exactly the golden file."""
    batch = _users(*HOSTILE)
    assert Audit().add(batch).reasons == {}
    assert csv_format.header() + csv_format.encode(batch) == GOLDEN.read_bytes()


def test_golden_file_reads_back_in_every_reader() -> None:
    """The golden bytes are the hostile users; csv and pandas cannot tell NULL from `""`."""
    rows = _users(*HOSTILE).to_pylist()
    data = GOLDEN.read_bytes()
    assert csv_format.parse(data[len(csv_format.header()) :]).to_pylist() == rows
    assert _read_arrow(data) == rows
    assert _read_duckdb(GOLDEN) == rows
    assert _read_csv(data) == _as_text(rows)
    assert _read_pandas(data) == _as_text(rows)


def test_header_names_the_columns_in_contract_order() -> None:
    """The header row is each name, quoted, and LF; another schema gives its own names."""
    names = [f'"{column.name}"' for column in COLUMNS]
    assert csv_format.header() == ",".join(names).encode() + b"\n"
    assert csv_format.header(pa.schema([("a", pa.string()), ("b", pa.int64())])) == b'"a","b"\n'


def test_encode_quotes_text_and_leaves_numbers_and_null_bare() -> None:
    """Text is quoted, its quotes doubled; numbers are bare, NULL is nothing, `""` is empty."""
    table = pa.table({"a": ["x", 'q"', "", None, "1"], "b": pa.array([1, -2, None, 0, 2**63 - 1])})
    assert csv_format.encode(table) == (b'"x",1\n"q""",-2\n"",\n,0\n"1",9223372036854775807\n')


def test_encode_writes_utf8_without_a_bom() -> None:
    """No byte-order mark starts the file; one in a cell stays in it."""
    table = pa.table({"a": ["\ufeffé😀"]})
    assert csv_format.encode(table) == b'"\xef\xbb\xbf\xc3\xa9\xf0\x9f\x98\x80"\n'
    assert csv_format.header()[:1] == b'"'


def test_encode_of_no_rows_is_nothing() -> None:
    """No row is no byte, and reads back as no row of the schema."""
    assert csv_format.encode(_users()) == b""
    assert csv_format.parse(b"") == arrow_schema().empty_table()


def test_encode_gives_the_same_bytes_whatever_the_batches() -> None:
    """The bytes depend on the rows alone, not on how they are cut or on when they are written."""
    batch = _users(*HOSTILE)
    whole = csv_format.encode(batch)
    assert csv_format.encode(_users(*HOSTILE)) == whole
    assert csv_format.encode(pa.Table.from_batches([batch])) == whole
    parts = [batch.slice(start, 3) for start in range(0, len(HOSTILE), 3)]
    assert b"".join(map(csv_format.encode, parts)) == whole
    assert csv_format.encode(pa.Table.from_batches(parts)) == whole


def test_parse_keeps_null_and_the_empty_text_apart() -> None:
    """Nothing is NULL, `""` is the empty text, and a word such as NULL is that word."""
    schema = pa.schema([("a", pa.string()), ("b", pa.int64())])
    parsed = csv_format.parse(b',1\n"",2\n"NULL",\nNULL,3\n', schema)
    assert parsed.to_pydict() == {"a": [None, "", "NULL", "NULL"], "b": [1, 2, None, 3]}
    assert parsed.schema == schema


@pytest.mark.parametrize(
    "records", [b'"x"\n', b'"x",1,2\n', b'"x",one\n', b'"x",1.5\n', b'"x",""\n', b'"x","y\n']
)
def test_parse_refuses_records_of_another_shape(records: bytes) -> None:
    """A record without the schema's columns or types is an error, never a guess."""
    schema = pa.schema([("a", pa.string()), ("b", pa.int64())])
    with pytest.raises(pa.ArrowInvalid):
        csv_format.parse(records, schema)


@pytest.mark.parametrize("length", [10_000, (1 << 20) + 1, 3 << 20])
def test_parse_reads_cells_of_any_length(length: int) -> None:
    """A cell of 10 kB and one longer than Arrow's block read back as they were written."""
    batch = _users({}, {"location.city": '",=é😀' * (length // 6)}, {})
    assert csv_format.parse(csv_format.encode(batch)) == pa.Table.from_batches([batch])


def test_real_users_read_back_in_every_reader(
    real_users: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The API's own records come out of each reader as they went in."""
    users, _ = decode(b"".join(json.dumps(one).encode() + b"\n" for one in real_users))
    rows = flatten(users).to_pylist()
    data = csv_format.header() + csv_format.encode(flatten(users))
    path = tmp_path / "users.csv"
    path.write_bytes(data)
    assert _read_arrow(data) == _read_duckdb(path) == rows
    assert _read_csv(data) == _read_pandas(data) == _as_text(rows)


_MARKS = ['"', '""', ",", ";", "'", "\\", "\\n", "|", "#", " ", "\u00a0", "=", "+", "-", "@"]
_SCRIPTS = [
    "\ufeff",
    "\u200e",
    "\u200f",
    "\u202e",
    "\u2066",
    "\u0301",
    "\U0010ffff",
    "é",
    "東",
    "😀",
]
_WORDS = ["NULL", "NaN", "NA", "None", "true", "1e5", "0270", "1968-07-21", "=cmd|' /C'!A0"]
_CONTROLS = ["\n", "\r", "\r\n", "\0", "\t", "\x1a", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"]
_PIECES = st.sampled_from([*_MARKS, *_SCRIPTS, *_WORDS, *_CONTROLS])
_TEXTS = st.none() | st.lists(_PIECES | st.text(max_size=4), max_size=4).map("".join)
_CHANGES = st.fixed_dictionaries(
    {"location.city": _TEXTS},
    optional={"gender": _TEXTS, "nat": _TEXTS, "phone": _TEXTS, "location.postcode": _TEXTS},
)
_SNAPSHOTS = st.lists(_CHANGES, min_size=1, max_size=12)


def _single_line(text: str | None) -> bool:
    return text is None or not any(
        unicodedata.category(one) == "Cc" or one in "\u2028\u2029" for one in text
    )


def _published(snapshot: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """The rows that the audit lets through, and the CSV of them.

    What it sets aside is what holds a control character or leaves `nat` empty, nothing else.
    """
    batch = _users(*snapshot)
    good = Audit().add(batch).good(batch)
    assert good.column("id").to_pylist() == [
        number
        for number, changes in enumerate(snapshot, 1)
        if all(map(_single_line, changes.values())) and changes.get("nat", "NZ")
    ]
    return good.to_pylist(), csv_format.header() + csv_format.encode(good)


@settings(deadline=None, max_examples=100)
@given(_SNAPSHOTS)
@example([{"location.city": "x" * 10_000 + '"'}, {"location.city": None}, {"location.city": ""}])
def test_hostile_text_reads_back_in_arrow(snapshot: list[dict[str, Any]]) -> None:
    """In pyarrow, ours and the plain reader, what goes in comes out, NULL and `""` apart."""
    rows, data = _published(snapshot)
    assert csv_format.parse(data[len(csv_format.header()) :]).to_pylist() == rows
    assert _read_arrow(data) == rows


@settings(deadline=None, max_examples=40)
@given(snapshot=_SNAPSHOTS)
@example([{"location.city": "x" * 10_000 + '"'}, {"location.city": None}, {"location.city": ""}])
def test_hostile_text_reads_back_in_duckdb(
    tmp_path_factory: pytest.TempPathFactory, snapshot: list[dict[str, Any]]
) -> None:
    """In DuckDB, told that a quoted field is never NULL, what goes in comes out."""
    rows, data = _published(snapshot)
    path = tmp_path_factory.getbasetemp() / "hostile.csv"
    path.write_bytes(data)
    assert _read_duckdb(path) == rows


@pytest.mark.parametrize("read", [_read_csv, _read_pandas], ids=["csv", "pandas"])
@settings(deadline=None, max_examples=100)
@given(snapshot=_SNAPSHOTS)
@example([{"location.city": "x" * 10_000 + '"'}, {"location.city": None}, {"location.city": ""}])
def test_hostile_text_reads_back_in_readers_without_null(
    read: Callable[[bytes], list[dict[str, Any]]], snapshot: list[dict[str, Any]]
) -> None:
    """In csv and in pandas (NA words off) what goes in comes out; NULL cannot be told from `""`."""
    rows, data = _published(snapshot)
    assert read(data) == _as_text(rows)


def test_pandas_by_default_takes_words_for_null() -> None:
    """Left to its defaults, pandas reads NA, null, `""` and NULL alike as NaN."""
    data = b'"id","a"\n1,"NA"\n2,"null"\n3,""\n4,\n5,"x"\n'
    absent = pd.read_csv(io.BytesIO(data))["a"].isna().tolist()
    assert absent == [True, True, True, True, False]
