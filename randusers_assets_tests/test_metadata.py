"""What the UI shows of the assets: schemas, lineage, a masked preview, charts, seconds."""

import dagster as dg
import pytest

from randusers_assets import metadata
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.flatten.frames import BATCH_ROWS
from randusers_assets.pipeline.publish.diff import Comparison
from randusers_assets_tests.builders import User, frames_of, user, users

HEAD = "| | rows | |\n|---|--:|---|"


def previewed(snapshot: list[User]) -> list[dict[str, object]]:
    """The rows of the preview of a snapshot."""
    table = metadata.frames_metadata(frames_of(snapshot))["preview"]
    assert [column.name for column in table.schema.columns] == list(CONTRACT.by_name)
    return [dict(record.data) for record in table.records]


def charts(snapshot: list[User]) -> dict[str, str]:
    """The charts of a snapshot, less their head."""
    found = metadata.frames_metadata(frames_of(snapshot))
    return {name: found[name].md_str.removeprefix(HEAD) for name in CONTRACT.charts}


def chart(column: str, *values: object) -> str:
    """The chart of a column, of one user with each value."""
    return charts([user(number, **{column: v}) for number, v in enumerate(values, 1)])[column]


def test_table_schema_states_the_contract() -> None:
    """Dagster's schema has every column with its type, meaning, constraints and tag."""
    shown = {column.name: column for column in metadata.table_schema(CONTRACT).columns}
    assert list(shown) == list(CONTRACT.by_name)
    key, required, plain = (
        dg.TableColumnConstraints(nullable=nullable, unique=unique)
        for nullable, unique in ((False, True), (False, False), (True, False))
    )
    code = "Postal code; leading zeros and spaces count (`location.postcode`)"
    birth = "Birth, UTC (`dob.date`)"
    for column in (
        dg.TableColumn("id", "int64", "The user, unique (`id`)", key),
        dg.TableColumn("dob_date", "timestamp", birth, required, {"personal": ""}),
        dg.TableColumn("location_postcode", "string", code, plain),
    ):
        assert shown[column.name] == column
    for one in CONTRACT.columns:
        assert shown[one.name].constraints.nullable is not one.required
        assert ("personal" in shown[one.name].tags) is one.personal


def test_raw_schema_names_every_path_of_the_contract() -> None:
    """Raw rows have paths, with the types that JSON may have there, their meanings and tags."""
    shown = {column.name: column for column in metadata.raw_schema(CONTRACT).columns}
    assert list(shown) == [column.path for column in CONTRACT.columns]
    code = "Postal code; leading zeros and spaces count"
    for column in (
        dg.TableColumn("id", "int", "The user, unique"),
        dg.TableColumn("location.postcode", "int or string", code),
        dg.TableColumn("dob.date", "string", "Birth, UTC", tags={"personal": ""}),
    ):
        assert shown[column.name] == column


def test_schemas_know_the_types_that_another_contract_may_use() -> None:
    """Numbers and nested JSON have types of their own."""
    columns = (
        Column("key", "integer", "The row", required=True),
        Column("price", "number", "Net"),
        Column("tags", "json", "As sent"),
    )
    other = Contract("things", "1", "http://127.0.0.1:9", columns, key="key", unique=("key",))
    assert [c.type for c in metadata.table_schema(other).columns] == ["int64", "float64", "string"]
    assert [c.type for c in metadata.raw_schema(other).columns] == [
        "int",
        "number",
        "list or object",
    ]


def test_lineage_gives_each_column_its_one_source() -> None:
    """A flat column comes from the one JSON path that its name joins."""
    assert metadata.lineage(CONTRACT, "raw_users", lambda column: column.path) == {
        "dagster/column_lineage": dg.TableColumnLineage(
            {c.name: [dg.TableColumnDep("raw_users", c.path)] for c in CONTRACT.columns}
        )
    }


def test_preview_masks_personal_columns_and_no_others() -> None:
    """A personal value keeps its first character; any other is shown, NULL as nothing."""
    sent = user(1, name_title=None, name_first="Ada", dob_age=36, cell=None, phone="")
    (row,) = previewed([sent])
    assert (row["name_first"], row["dob_age"]) == ("A•••", "3•••")
    assert (row["name_title"], row["cell"], row["phone"]) == ("", "", "")
    assert (row["id"], row["nat"]) == ("1", sent["nat"])
    assert row["location_city"] == sent["location"]["city"]
    assert row["login_uuid"] == sent["login"]["uuid"]
    masked = {name for name, value in row.items() if str(value).endswith("•••")}
    assert masked == {c.name for c in CONTRACT.columns if c.personal} - {"cell", "phone"}
    assert all(len(str(row[name])) == 4 for name in masked)


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (4, 4), (5, 5), (6, 5)])
def test_preview_shows_the_first_five_rows_at_most(count: int, rows: int) -> None:
    """The preview is of the first rows in their order; its columns are there without rows, too."""
    assert [row["id"] for row in previewed(users(count))] == [str(n) for n in range(1, rows + 1)]


def test_text_chart_counts_the_ten_most_frequent_values() -> None:
    """The most frequent first, its bar the longest, the others in proportion to it."""
    assert chart("nat", "NO", "IE", "DE", "IE", "DE", "IE", "IE") == (
        f"\n| IE | 4 | `{'█' * 20}` |\n| DE | 2 | `{'█' * 10}` |\n| NO | 1 | `{'█' * 5}` |"
    )
    ten = [code for code in "ABCDEFGHIJ" for _ in range(2)]
    assert chart("nat", "K", *ten).count("\n") == 10
    assert "| K |" not in chart("nat", "K", *ten)
    assert "| K | 1 |" in chart("nat", "K", *ten[2:])


def test_number_chart_counts_by_tens_in_order() -> None:
    """The ends of ten numbers count to them; NULL counts to none."""
    assert chart("dob_age", 100, 30, 39, 40, 9, 0, 35, 33) == (
        f"\n| 0 to 9 | 2 | `{'█' * 10}` |\n| 30 to 39 | 4 | `{'█' * 20}` |"
        f"\n| 40 to 49 | 1 | `{'█' * 5}` |\n| 100 to 109 | 1 | `{'█' * 5}` |"
    )
    assert chart("dob_age", 30, None, 31, None) == f"\n| 30 to 39 | 2 | `{'█' * 20}` |"
    assert chart("dob_age", None, None) == ""


def test_charts_count_the_rows_of_every_batch() -> None:
    """Rows beyond the first batch count as those of the first; there is a chart a column named."""
    one = user(1, nat="IE", dob_age=30)
    most = f"| {BATCH_ROWS + 1:,} | `{'█' * 20}` |"
    assert charts([one] * BATCH_ROWS + [one, user(2, nat="DE", dob_age=40)]) == {
        "nat": f"\n| IE {most}\n| DE | 1 | `█` |",
        "dob_age": f"\n| 30 to 39 {most}\n| 40 to 49 | 1 | `█` |",
    }
    assert list(metadata.frames_metadata(frames_of(users(1)))) == ["preview", "nat", "dob_age"]


def test_bars_show_a_few_among_many() -> None:
    """The shortest bar is one block, counts have thousands separators, and a pipe ends no cell."""
    assert metadata.bars({"many": 1_000_000, "a|few": 1}).md_str == (
        f"{HEAD}\n| many | 1,000,000 | `{'█' * 20}` |\n| a\\|few | 1 | `█` |"
    )
    assert metadata.bars({}).md_str == HEAD


def test_comparison_metadata_says_why_there_is_none() -> None:
    """Without a day before nothing is shown; a day that cannot be compared gives the reason."""
    assert metadata.comparison_metadata(None) == {}
    problem = Comparison("2026-11-22", problem="Other columns.")
    assert metadata.comparison_metadata(problem) == {"not_compared": "Other columns."}


def test_record_seconds_adds_the_seconds_of_a_stage_that_succeeds() -> None:
    """The materialization gets one number, named after the stage; a failed stage adds none."""
    context = dg.build_output_context(asset_key="users_df")
    with pytest.raises(KeyError), metadata.record_seconds(context, "store"):
        raise KeyError("stage")
    assert context.get_logged_metadata() == {}
    with metadata.record_seconds(context, "store"):
        pass
    (shown,) = context.get_logged_metadata().items()
    assert shown[0] == "store_seconds"
    assert isinstance(shown[1], dg.FloatMetadataValue)
