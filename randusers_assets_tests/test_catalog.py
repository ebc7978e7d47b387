"""The contract as Dagster's catalog shows it."""

import dagster as dg

from randusers_assets.catalog import lineage, raw_schema, table_schema
from randusers_assets.contract import COLUMNS


def test_table_schema_tells_the_contract() -> None:
    """Dagster's schema has every column with its type, meaning, constraints and tag."""
    schema = table_schema()
    assert [column.name for column in schema.columns] == [column.name for column in COLUMNS]
    shown = {column.name: column for column in schema.columns}
    assert shown["id"] == dg.TableColumn(
        "id",
        "int64",
        "The user, unique (`id`)",
        dg.TableColumnConstraints(nullable=False, unique=True),
        {},
    )
    assert shown["dob_date"] == dg.TableColumn(
        "dob_date",
        "timestamp",
        "Birth, UTC, to the millisecond (`dob.date`)",
        dg.TableColumnConstraints(nullable=False, unique=False),
        {"personal": ""},
    )
    assert shown["location_postcode"] == dg.TableColumn(
        "location_postcode",
        "string",
        "Postal code; leading zeros and spaces count (`location.postcode`)",
        dg.TableColumnConstraints(nullable=True, unique=False),
        {},
    )
    for column in COLUMNS:
        assert shown[column.name].constraints.nullable is not column.required
        assert ("personal" in shown[column.name].tags) is column.personal


def test_raw_schema_names_every_path_of_the_contract() -> None:
    """Raw users have paths, with the types that JSON may have there, their meanings and tags."""
    shown = {column.name: column for column in raw_schema().columns}
    assert list(shown) == [column.path for column in COLUMNS]
    assert shown["id"] == dg.TableColumn("id", "int", "The user, unique")
    assert shown["location.postcode"] == dg.TableColumn(
        "location.postcode", "int or string", "Postal code; leading zeros and spaces count"
    )
    assert shown["dob.date"] == dg.TableColumn(
        "dob.date", "string", "Birth, UTC, to the millisecond", tags={"personal": ""}
    )


def test_lineage_gives_each_column_its_one_source() -> None:
    """A flat column comes from the one JSON path that its name joins."""
    sources = lineage("raw_users", lambda column: column.path).deps_by_column
    assert list(sources) == [column.name for column in COLUMNS]
    assert sources["dob_date"] == [dg.TableColumnDep(dg.AssetKey("raw_users"), "dob.date")]
