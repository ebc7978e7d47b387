"""The contract in the languages of its readers: SQL, data frames and ODCS."""

from collections.abc import Callable

from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.formats import odcs, statements
from randusers_assets.pipeline.formats.published import Published

Format = Callable[[Contract, Published], str]

FORMATS: dict[str, Format] = {
    "athena": statements.athena,
    "bigquery": statements.bigquery,
    "duckdb": statements.duckdb,
    "odcs": odcs.odcs,
    "pandas": statements.pandas,
    "polars": statements.polars,
    "redshift": statements.redshift,
    "snowflake": statements.snowflake,
    "spark": statements.spark,
}
