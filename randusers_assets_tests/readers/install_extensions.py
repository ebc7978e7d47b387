"""Install DuckDB's extensions for S3 below HOME, from packages: DuckDB would download them."""

import importlib
from pathlib import Path

import duckdb

for name in ("httpfs", "aws"):
    package = importlib.import_module(f"duckdb_extension_{name}")
    (file,) = Path(str(package.__file__)).parent.rglob(f"{name}.duckdb_extension")
    duckdb.execute(f"INSTALL '{file}'")
