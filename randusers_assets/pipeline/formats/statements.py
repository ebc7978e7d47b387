"""One statement or a few for each engine: the table, typed by the contract, and how to fill it."""

import json
from collections.abc import Callable

from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.formats.published import Published

# Integer, number, text and timestamp; Athena's CSV reader has text alone.
TYPES = {
    "bigquery": ("INT64", "FLOAT64", "STRING", "TIMESTAMP"),
    "duckdb": ("BIGINT", "DOUBLE", "VARCHAR", "TIMESTAMPTZ"),
    "pandas": ("pa.int64()", "pa.float64()", "pa.string()", 'pa.timestamp("ms", "UTC")'),
    "polars": ("pl.Int64", "pl.Float64", "pl.String", 'pl.Datetime("ms", "UTC")'),
    "redshift": ("BIGINT", "DOUBLE PRECISION", "VARCHAR(MAX)", "TIMESTAMPTZ"),
    "snowflake": ("BIGINT", "DOUBLE", "VARCHAR", "TIMESTAMP_TZ(3)"),
    "spark": ("BIGINT", "DOUBLE", "STRING", "TIMESTAMP"),
}

# The texts hold no control character (audit/rules.py), so that this one can stand for nothing.
NEVER = r"\u0001"


def type_name(engine: str, column: Column) -> str:
    """What an engine calls the type of a column."""
    integer, number, text, timestamp = TYPES[engine]
    others = {"integer": integer, "number": number, "timestamp": timestamp}
    return others.get(column.type, text)


def athena(contract: Contract, published: Published) -> str:
    """Two statements: the table as its CSV reader has it, all text, and a typed view of it."""
    table = f"{contract.name}_csv"
    folder = _quote(published.folder(contract))
    reader = f"'separatorChar' = ',', 'quoteChar' = '\"', 'escapeChar' = '{NEVER}'"
    return f"""\
CREATE EXTERNAL TABLE {table} (
{_lines(contract, lambda column: f"{column.name} string")}
)
PARTITIONED BY (dt string)
ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'
WITH SERDEPROPERTIES ({reader})
LOCATION {folder}
TBLPROPERTIES (
    'skip.header.line.count' = '1',
    'projection.enabled' = 'true',
    'projection.dt.type' = 'date',
    'projection.dt.format' = 'yyyy-MM-dd',
    'projection.dt.range' = '{published.start_date},NOW'
);

CREATE OR REPLACE VIEW {contract.name} AS
SELECT
{_lines(contract, _athena_value)},
    dt
FROM {table};
"""  # noqa: S608  # printed, not run


def _athena_value(column: Column) -> str:
    """A column of the typed view; an empty number or timestamp is NULL."""
    filled = f"NULLIF({column.name}, '')"
    match column.type:
        case "integer":
            return f"CAST({filled} AS bigint) AS {column.name}"
        case "number":
            return f"CAST({filled} AS double) AS {column.name}"
        case "timestamp":
            return f"from_iso8601_timestamp({filled}) AS {column.name}"
        case _:
            return column.name


def bigquery(contract: Contract, published: Published) -> str:
    """One statement, which replaces the table by a day."""
    return f"""\
LOAD DATA OVERWRITE DATASET.{contract.name} (
{_table_columns("bigquery", contract)}
)
FROM FILES (
    format = 'CSV',
    uris = [{_quote(published.csv(contract))}],
    skip_leading_rows = 1
)
WITH CONNECTION `CONNECTION`;
"""


def duckdb(contract: Contract, published: Published) -> str:
    """One statement: a view of a day, with the day as a column `dt`."""
    return f"""\
CREATE OR REPLACE VIEW {contract.name} AS
FROM read_csv(
    {_quote(published.csv(contract))},
    auto_detect = false, header = true, delim = ',', quote = '"', escape = '"',
    nullstr = '', allow_quoted_nulls = false, hive_partitioning = true,
    columns = {{
{_lines(contract, lambda column: f"    '{column.name}': '{type_name('duckdb', column)}'")}
    }}
);
"""


def pandas(contract: Contract, published: Published) -> str:
    """A script: `pd.read_csv` cannot tell NULL from the empty text, Arrow's reader can."""
    return f"""\
import boto3
import pandas as pd
import pyarrow as pa
from pyarrow import csv

types = {{
{_python_types("pandas", contract)}
}}
stored = boto3.client("s3").get_object(
    Bucket={json.dumps(published.bucket)},
    Key={json.dumps(published.csv_key(contract))},
)
rows = csv.read_csv(
    pa.BufferReader(stored["Body"].read()),
    convert_options=csv.ConvertOptions(
        column_types=types,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    ),
)
{contract.name} = rows.to_pandas(types_mapper={{pa.int64(): pd.Int64Dtype()}}.get)
"""


def polars(contract: Contract, published: Published) -> str:
    """A script."""
    uri = json.dumps(published.csv(contract))
    return f"""\
import polars as pl

schema = {{
{_python_types("polars", contract)}
}}
{contract.name} = pl.read_csv({uri}, schema=schema)
"""


def redshift(contract: Contract, published: Published) -> str:
    """The table, and a transaction that replaces its rows by those of a day."""
    return f"""\
CREATE TABLE IF NOT EXISTS {contract.name} (
{_table_columns("redshift", contract)}
);
BEGIN;
DELETE FROM {contract.name};
COPY {contract.name} FROM {_quote(published.csv(contract))}
IAM_ROLE default FORMAT CSV IGNOREHEADER 1 TIMEFORMAT 'auto';
COMMIT;
"""  # noqa: S608  # printed, not run


def snowflake(contract: Contract, published: Published) -> str:
    """The stage, the table, and a transaction that replaces its rows by those of a day."""
    table, stage = contract.name, f"{contract.name}_csv"
    folder = published.folder(contract)
    return f"""\
CREATE STAGE IF NOT EXISTS {stage}
    URL = {_quote(folder)}
    STORAGE_INTEGRATION = INTEGRATION
    FILE_FORMAT = (
        TYPE = CSV SKIP_HEADER = 1 FIELD_OPTIONALLY_ENCLOSED_BY = '"'
        ESCAPE_UNENCLOSED_FIELD = NONE EMPTY_FIELD_AS_NULL = TRUE NULL_IF = ()
    );
CREATE TABLE IF NOT EXISTS {table} (
{_table_columns("snowflake", contract)}
);
BEGIN;
DELETE FROM {table};
COPY INTO {table} FROM '@{stage}/{published.csv(contract).removeprefix(folder)}' FORCE = TRUE;
COMMIT;
"""  # noqa: S608  # printed, not run


def spark(contract: Contract, published: Published) -> str:
    """A script for a session named `spark`."""
    uri = json.dumps("s3a" + published.csv(contract).removeprefix("s3"))
    return f"""\
spark.conf.set("spark.sql.session.timeZone", "UTC")
schema = \"\"\"
{_lines(contract, lambda column: f"{column.name} {type_name('spark', column)}")}
\"\"\"
{contract.name} = spark.read.csv(
    {uri},
    schema=schema,
    header=True,
    escape='"',
    nullValue="{NEVER}",
    emptyValue="",
    mode="FAILFAST",
)
"""


def _lines(contract: Contract, line: Callable[[Column], str]) -> str:
    """A line for each column, indented, with commas between them."""
    return ",\n".join(f"    {line(column)}" for column in contract.columns)


def _table_columns(engine: str, contract: Contract) -> str:
    def column_of(column: Column) -> str:
        return f"{column.name} {type_name(engine, column)}{' NOT NULL' * column.required}"

    return _lines(contract, column_of)


def _python_types(engine: str, contract: Contract) -> str:
    return _lines(contract, lambda column: f'"{column.name}": {type_name(engine, column)}') + ","


def _quote(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"
