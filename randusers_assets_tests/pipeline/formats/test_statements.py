"""The statements for readers: run where the engine is here, else read as its rules say."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.csv_format import encode_csv, encode_header
from randusers_assets.pipeline.audit.rules import CONTROL
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten_lines
from randusers_assets.pipeline.flatten.frames import to_frame
from randusers_assets.pipeline.formats import FORMATS, statements
from randusers_assets.pipeline.formats.published import Published
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.pipeline.audit.test_csv_format import GOLDEN, read_ours
from randusers_assets_tests.pipeline.formats.opencsv import read_line
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order
from randusers_assets_tests.readers import needs_readers, read
from randusers_sandbox.s3 import ACCESS_KEY, LocalS3

DAY = "2026-11-23"
LAKE = Published("lake", "", "2026-11-01")
GOLDEN_ROWS = read_ours(GOLDEN.read_bytes())
TIMESTAMPS = [column.name for column in CONTRACT.columns if column.type == "timestamp"]
ORDER_ROWS = [order(1), order(2, order={"number": 2, "total": None}, items=['a"b', "\\"])]


def without_timestamps(row: dict[str, Any]) -> dict[str, Any]:
    """The cells of a row whose type has no two forms in Python."""
    return {name: cell for name, cell in row.items() if name not in TIMESTAMPS}


def lake(folder: Path, contract: str, data: bytes) -> Published:
    """A bucket of the local disk that holds a day's CSV, with a name that SQL must quote."""
    published = Published("lake", "o'neill", "2026-11-01")
    path = folder / "lake" / "o'neill" / f"{contract}_csv" / f"dt={DAY}" / f"{contract}.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return published


def on_disk(statement: str, folder: Path) -> str:
    """A statement that reads a day from the local disk instead of S3."""
    return statement.replace("s3://", f"{folder}/").replace("YYYY-MM-DD", DAY)


def test_duckdb_reads_typed_columns_and_null_apart(tmp_path: Path) -> None:
    """Each cell of the golden file comes as it is in the rows, NULL and `""` too, and the day."""
    published = lake(tmp_path, "users", GOLDEN.read_bytes())
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute(on_disk(statements.duckdb(CONTRACT, published), tmp_path))
        rows = engine.sql("FROM users")
        types = dict(zip(rows.columns, map(str, rows.types), strict=True))
        cells = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert {row.pop("dt").isoformat() for row in cells} == {DAY}
    assert list(map(without_timestamps, cells)) == list(map(without_timestamps, GOLDEN_ROWS))
    assert cells[0]["dob_date"].isoformat() == "1968-07-21T10:02:51.768000+00:00"
    assert types == {
        **dict.fromkeys(types, "VARCHAR"),
        **{column.name: "BIGINT" for column in CONTRACT.columns if column.type == "integer"},
        **dict.fromkeys(TIMESTAMPS, "TIMESTAMP WITH TIME ZONE"),
        "dt": "DATE",
    }
    assert {None, ""} <= {cell for row in cells for cell in row.values()}


def test_duckdb_keeps_a_latitude_that_it_would_guess_to_be_a_number(tmp_path: Path) -> None:
    """`-7.0000` stays as published; left to guess, DuckDB makes it -7.0."""
    data = GOLDEN.read_bytes().replace(b'"-39.0490"', b'"-7.0000"')
    published = lake(tmp_path, "users", data)
    statement = on_disk(statements.duckdb(CONTRACT, published), tmp_path)
    latitudes = "SELECT DISTINCT location_coordinates_latitude FROM "
    with duckdb.connect() as engine:
        engine.execute(statement)
        assert engine.execute(f"{latitudes} users").fetchall() == [("-7.0000",)]
        (file,) = tmp_path.rglob("users.csv")
        assert engine.execute(f"{latitudes} read_csv(?)", [str(file)]).fetchall() == [(-7.0,)]


def test_duckdb_reads_all_days(tmp_path: Path) -> None:
    """With `dt=*` the view has the rows of each day."""
    published = lake(tmp_path, "users", GOLDEN.read_bytes())
    (file,) = tmp_path.rglob("users.csv")
    shutil.copytree(file.parent, file.parents[1] / "dt=2026-11-24")
    statement = statements.duckdb(CONTRACT, published).replace("YYYY-MM-DD", "*")
    with duckdb.connect() as engine:
        engine.execute(on_disk(statement, tmp_path))
        days = engine.execute("SELECT dt, count(*) FROM users GROUP BY ALL ORDER BY 1").fetchall()
    rows = len(GOLDEN_ROWS)
    assert [(day.isoformat(), count) for day, count in days] == [(DAY, rows), ("2026-11-24", rows)]


@needs_readers
def test_duckdb_reads_a_day_from_s3(store: Store, s3_server: LocalS3) -> None:
    """The statement runs as it is printed, on S3."""
    store.put(paths.csv_path(CONTRACT, DAY), GOLDEN.read_bytes(), content_type="text/csv")
    statement = statements.duckdb(CONTRACT, Published(store.bucket, "", ""))
    code = (
        "import duckdb, json, sys\n"
        "duckdb.execute('LOAD httpfs')\n"
        "duckdb.execute(sys.argv[2])\n"
        "duckdb.execute(sys.argv[1])\n"
        "print(json.dumps(duckdb.sql('SELECT id, gender, name_title FROM users').fetchall()))"
    )
    secret = (
        f"CREATE SECRET (TYPE s3, KEY_ID '{ACCESS_KEY}', SECRET '{ACCESS_KEY}', USE_SSL false,"
        f" ENDPOINT '{s3_server.endpoint_url.removeprefix('http://')}', URL_STYLE path)"
    )
    assert read(code, statement.replace("YYYY-MM-DD", DAY), secret) == [
        [row[name] for name in ("id", "gender", "name_title")] for row in GOLDEN_ROWS
    ]


def test_duckdb_reads_another_contract(tmp_path: Path) -> None:
    """A `number` is a DOUBLE and `json` the published text; a NULL number stays NULL."""
    flat = flatten_lines(json_lines(*ORDER_ROWS), ORDERS).rows
    published = lake(tmp_path, "orders", encode_header(flat.schema) + encode_csv(flat))
    with duckdb.connect() as engine:
        engine.execute(on_disk(statements.duckdb(ORDERS, published), tmp_path))
        rows = engine.sql("SELECT * EXCLUDE dt FROM orders")
        assert list(map(str, rows.types)) == ["BIGINT", "DOUBLE", "VARCHAR", "VARCHAR"]
        read_back = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert read_back == flat.to_pylist()


def test_pandas_reads_what_load_users_gives(
    store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From S3 the script makes the rows and, but for a required integer, the dtypes of ours."""
    store.put(paths.csv_path(CONTRACT, DAY), GOLDEN.read_bytes(), content_type="text/csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    code = statements.pandas(CONTRACT, Published(store.bucket, "", ""))
    scope: dict[str, pd.DataFrame] = {}
    exec(code.replace("YYYY-MM-DD", DAY), scope)  # noqa: S102  # the script under test
    ours = to_frame(pa.Table.from_pylist(GOLDEN_ROWS, arrow_schema(CONTRACT)), CONTRACT)
    pd.testing.assert_frame_equal(scope["users"], ours.astype({"id": "Int64"}))


@needs_readers
def test_polars_reads_typed_columns_and_null_apart(tmp_path: Path) -> None:
    """Each cell of the golden file comes as it is in the rows, NULL and `""` too."""
    published = lake(tmp_path, "users", GOLDEN.read_bytes())
    code = on_disk(statements.polars(CONTRACT, published), tmp_path)
    code += "import json\nprint(json.dumps([list(map(str, users.dtypes)), users.to_dicts()], "
    types, cells = read(f"{code}default=lambda value: value.isoformat()))")
    assert list(map(without_timestamps, cells)) == list(map(without_timestamps, GOLDEN_ROWS))
    assert cells[0]["dob_date"] == "1968-07-21T10:02:51.768000+00:00"
    names = {"integer": "Int64", "timestamp": "Datetime(time_unit='ms', time_zone='UTC')"}
    assert types == [names.get(column.type, "String") for column in CONTRACT.columns]


_TEXTS = st.text(
    st.sampled_from('"\\,aé😀\u00a0 ') | st.characters(codec="utf-8", exclude_categories=["Cc"]),
    max_size=6,
).filter(lambda text: not re.search("[\u2028\u2029]", text))
_CELLS = st.lists(st.none() | _TEXTS, min_size=3, max_size=3)


def csv_lines(rows: list[list[str | None]]) -> list[str]:
    """Three columns of text and one of integers as the lines of a CSV of ours."""
    columns = [pa.array(texts, pa.string()) for texts in zip(*rows, strict=True)]
    numbers = pa.array([None if n % 2 else n for n in range(len(rows))], pa.int64())
    table = pa.table({"a": columns[0], "n": numbers, "b": columns[1], "c": columns[2]})
    return encode_csv(table).decode().split("\n")[:-1]


def escape_character() -> str:
    """The escape character that the statement for Athena names."""
    (escape,) = re.findall(r"'escapeChar' = '\\u([0-9a-f]{4})'", statements.athena(CONTRACT, LAKE))
    return chr(int(escape, 16))


@given(st.lists(_CELLS, min_size=1, max_size=8))
@example([['ends in \\"', "\\", '\\"'], ["", None, '"'], ['","', "\\\\", '""']])
def test_athena_reads_every_text(rows: list[list[str | None]]) -> None:
    """With the escape that we name, OpenCSVSerde gives each text back, and `""` for NULL."""
    for number, (line, (a, b, c)) in enumerate(zip(csv_lines(rows), rows, strict=True)):
        texts = [a or "", "" if number % 2 else str(number), b or "", c or ""]
        assert read_line(line, escape_character()) == texts


def test_athena_would_lose_text_with_a_backslash_as_escape() -> None:
    r"""With `\` as escape, a text that ends in a backslash swallows the next column."""
    (line,) = csv_lines([["a\\", "b\\", "c"]])
    assert line == '"a\\",0,"b\\","c"'
    assert read_line(line, escape_character()) == ["a\\", "0", "b\\", "c"]
    assert read_line(line, "\\") == ['a",0,b"', "c"]


def test_athena_escape_is_a_character_that_no_text_holds() -> None:
    """The row rules refuse it; Spark's mark for NULL is the same."""
    assert pc.match_substring_regex(pa.array([escape_character()]), CONTROL).to_pylist() == [True]
    assert f'nullValue="\\u{ord(escape_character()):04x}"' in statements.spark(CONTRACT, LAKE)


@needs_readers
def test_athena_view_casts_what_its_table_reads(tmp_path: Path) -> None:
    """The view, run by DuckDB after translation, types the cells of the table; empty is NULL."""
    text = GOLDEN.read_text(encoding="utf-8")
    table = tmp_path / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        lines = (read_line(line, escape_character()) for line in text.split("\n")[:-1])
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
    _, view = statements.athena(CONTRACT, LAKE).split(";")[:2]
    code = (
        "import duckdb, json, sqlglot, sys\n"
        "(view,) = sqlglot.transpile(sys.argv[1], read='athena', write='duckdb')\n"
        "duckdb.execute(\"SET TimeZone = 'UTC'\")\n"
        "duckdb.execute('CREATE TABLE users_csv AS SELECT *, \\'2026-11-23\\' AS dt FROM'\n"
        "    f\" read_csv('{sys.argv[2]}', all_varchar=true, header=true, nullstr='\\x02')\")\n"
        "duckdb.execute(view)\n"
        "users = duckdb.sql('FROM users')\n"
        "print(json.dumps([users.columns, list(map(str, users.types)), users.fetchall()],"
        " default=str))"
    )
    columns, types, cells = read(code, view, str(table))
    assert columns == [*CONTRACT.by_name, "dt"]
    names = {"integer": "BIGINT", "timestamp": "TIMESTAMP WITH TIME ZONE"}
    assert types == [*(names.get(c.type, "VARCHAR") for c in CONTRACT.columns), "VARCHAR"]
    texts = {column.name for column in CONTRACT.columns if column.is_text}
    expected = [
        {name: "" if cell is None and name in texts else cell for name, cell in row.items()}
        for row in map(without_timestamps, GOLDEN_ROWS)
    ]
    rows = (dict(zip(columns[:-1], row[:-1], strict=True)) for row in cells)
    assert list(map(without_timestamps, rows)) == expected


@needs_readers
@pytest.mark.parametrize("engine", ["athena", "bigquery", "redshift", "snowflake"])
def test_statements_are_of_the_dialect(engine: str) -> None:
    """A parser of each engine's SQL knows the statements that cannot run here, with all columns."""
    # It does not know BigQuery's connections.
    sql = re.sub(r"\nWITH CONNECTION .*(?=;)", "", FORMATS[engine](CONTRACT, LAKE))
    code = (
        "import json, sqlglot, sys\n"
        "from sqlglot import exp\n"
        "parsed = [one for one in sqlglot.parse(sys.argv[1], read=sys.argv[2]) if one]\n"
        "assert not any(one.find(exp.Command) for one in parsed), parsed\n"
        "columns = [column for one in parsed for column in one.find_all(exp.ColumnDef)]\n"
        "print(json.dumps([column.name for column in columns]))"
    )
    partitions = ["dt"] if engine == "athena" else []
    assert read(code, sql, engine) == [*CONTRACT.by_name, *partitions]


@pytest.mark.parametrize(
    ("engine", "required", "optional"),
    [
        ("bigquery", "order_number INT64 NOT NULL", "order_total FLOAT64"),
        ("redshift", "order_number BIGINT NOT NULL", "order_total DOUBLE PRECISION"),
        ("snowflake", "order_number BIGINT NOT NULL", "order_total DOUBLE"),
    ],
)
def test_tables_refuse_null_where_the_contract_does(
    engine: str, required: str, optional: str
) -> None:
    """A required column is NOT NULL, another one may be NULL."""
    assert f"\n    {required},\n    {optional},\n" in FORMATS[engine](ORDERS, LAKE)
