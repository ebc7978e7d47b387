"""What the UI shows of a day: a masked preview, who the users are, and what a stage took."""

import dagster as dg
import pytest

from randusers_assets.contract import COLUMNS
from randusers_assets.metadata import bars, insights, preview, timed
from randusers_assets.pipeline.flatten.frames import BATCH_ROWS
from randusers_assets_tests.builders import User, frames_of, user, users

HEAD = "| | users | |\n|---|--:|---|"


def shown(snapshot: list[User]) -> list[dict[str, object]]:
    """The rows of the preview of a snapshot."""
    table = insights(frames_of(snapshot))["preview"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def chart(snapshot: list[User], name: str) -> str:
    """One of the charts of a snapshot."""
    markdown = insights(frames_of(snapshot))[name]
    assert isinstance(markdown, dg.MarkdownMetadataValue)
    assert markdown.md_str
    return markdown.md_str


def aged(*ages: int | None) -> list[User]:
    """One user of each age."""
    return [user(number, dob_age=age) for number, age in enumerate(ages, 1)]


def from_countries(*codes: str) -> list[User]:
    """One user of each nationality."""
    return [user(number, nat=code) for number, code in enumerate(codes, 1)]


def test_preview_masks_personal_columns_and_no_others() -> None:
    """A personal value keeps its first character; any other is shown, NULL as nothing."""
    sent = user(1, name_title=None, name_first="Ada", dob_age=36, cell=None, phone="")
    (row,) = shown([sent])
    assert row["name_first"] == "A•••"
    assert row["dob_age"] == "3•••"
    assert (row["name_title"], row["cell"], row["phone"]) == ("", "", "")
    assert (row["id"], row["nat"]) == ("1", sent["nat"])
    assert row["location_city"] == sent["location"]["city"]
    assert row["login_uuid"] == sent["login"]["uuid"]
    masked = {name for name, value in row.items() if str(value).endswith("•••")}
    assert masked == {c.name for c in COLUMNS if c.personal} - {"cell", "phone"}
    assert all(len(str(row[name])) == 4 for name in masked)


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (4, 4), (5, 5), (6, 5)])
def test_preview_shows_the_first_five_rows_at_most(count: int, rows: int) -> None:
    """The preview is of the first users in their order, also of fewer than five and of none."""
    assert [row["id"] for row in shown(users(count))] == [str(n) for n in range(1, rows + 1)]


def test_preview_of_no_rows_still_has_its_columns() -> None:
    """The table's columns are the contract's whether there is a row or not."""
    table = preview([])
    assert table.records == []
    assert [column.name for column in table.schema.columns] == [c.name for c in COLUMNS]


def test_insights_are_a_preview_and_two_charts() -> None:
    """A materialization of users_df gets these three and nothing else."""
    assert list(insights(frames_of(users(1)))) == ["preview", "top_nationalities", "ages"]


def test_nationalities_stand_in_order_of_their_users() -> None:
    """The most frequent first, its bar the longest, the others in proportion to it."""
    snapshot = from_countries("NO", "IE", "DE", "IE", "DE", "IE", "IE")
    assert chart(snapshot, "top_nationalities") == (
        f"{HEAD}\n| IE | 4 | `{'█' * 20}` |\n| DE | 2 | `{'█' * 10}` |\n| NO | 1 | `{'█' * 5}` |"
    )


def test_nationalities_below_the_tenth_are_left_out() -> None:
    """Of eleven nationalities the rarest is not in the chart; of ten none is missing."""
    ten = [code for code in "ABCDEFGHIJ" for _ in range(2)]
    assert chart(from_countries("K", *ten), "top_nationalities").count("\n") == 1 + 10
    assert "| K |" not in chart(from_countries("K", *ten), "top_nationalities")
    assert "| K | 1 |" in chart(from_countries("K", *ten[2:]), "top_nationalities")


def test_insights_count_the_users_of_every_batch() -> None:
    """Users beyond the first batch count as those of the first."""
    one = user(1, nat="IE", dob_age=30)
    found = insights(frames_of([one] * BATCH_ROWS + [one, user(2, nat="DE", dob_age=40)]))
    most = f"| {BATCH_ROWS + 1:,} | `{'█' * 20}` |"
    assert found["top_nationalities"].md_str == f"{HEAD}\n| IE {most}\n| DE | 1 | `█` |"
    assert found["ages"].md_str == f"{HEAD}\n| 30 to 39 {most}\n| 40 to 49 | 1 | `█` |"


def test_ages_are_counted_by_decades_in_their_order() -> None:
    """The ends of a decade count to it, and decades stand by age, whatever their users."""
    assert chart(aged(100, 30, 39, 40, 9, 0, 35, 33), "ages") == (
        f"{HEAD}\n| 0 to 9 | 2 | `{'█' * 10}` |\n| 30 to 39 | 4 | `{'█' * 20}` |"
        f"\n| 40 to 49 | 1 | `{'█' * 5}` |\n| 100 to 109 | 1 | `{'█' * 5}` |"
    )


def test_ages_that_are_null_are_not_counted() -> None:
    """A user without an age is in no decade; with no age at all the chart is empty."""
    assert chart(aged(30, None, 31, None), "ages") == f"{HEAD}\n| 30 to 39 | 2 | `{'█' * 20}` |"
    assert chart(aged(None, None), "ages") == HEAD


def test_bars_of_a_few_among_many_are_still_seen() -> None:
    """The shortest bar is one block, and large counts are grouped by thousands."""
    assert bars({"many": 1_000_000, "few": 1}).md_str == (
        f"{HEAD}\n| many | 1,000,000 | `{'█' * 20}` |\n| few | 1 | `█` |"
    )
    assert bars({}).md_str == HEAD


def test_timed_adds_the_seconds_of_a_stage() -> None:
    """The materialization gets one number, named after the stage."""
    context = dg.build_output_context(asset_key="users_df")
    with timed(context, "store"):
        pass
    metadata = context.get_logged_metadata()
    assert list(metadata) == ["store_seconds"]
    seconds = metadata["store_seconds"].value
    assert isinstance(seconds, float)
    assert seconds >= 0


def test_timed_adds_nothing_to_a_stage_that_fails() -> None:
    """The error goes on as it is, and no seconds are claimed."""
    context = dg.build_output_context(asset_key="users_df")
    with pytest.raises(KeyError), timed(context, "store"):
        raise KeyError("stage")
    assert context.get_logged_metadata() == {}
