"""The contract as Dagster's catalog shows it: column schemas and lineage."""

from collections.abc import Callable

import dagster as dg

from randusers_assets.contract import COLUMNS, UNIQUE, Column


def table_schema() -> dg.TableSchema:
    """The columns as Dagster's UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                type={"integer": "int64", "timestamp": "timestamp"}.get(column.type, "string"),
                description=f"{column.meaning} (`{column.path}`)",
                constraints=dg.TableColumnConstraints(
                    nullable=not column.required, unique=column.name in UNIQUE
                ),
                tags={"personal": ""} if column.personal else {},
            )
            for column in COLUMNS
        ]
    )


def raw_schema() -> dg.TableSchema:
    """The JSON paths of a raw user that the contract knows."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.path,
                type={"integer": "int", "code": "int or string"}.get(column.type, "string"),
                description=column.meaning,
                tags={"personal": ""} if column.personal else {},
            )
            for column in COLUMNS
        ]
    )


def lineage(upstream: str, source: Callable[[Column], str]) -> dg.TableColumnLineage:
    """Each flat column's one source in the asset upstream."""
    key = dg.AssetKey(upstream)
    return dg.TableColumnLineage({c.name: [dg.TableColumnDep(key, source(c))] for c in COLUMNS})
