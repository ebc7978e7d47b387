"""What a contract is: the names of its columns, what they show, and what it refuses."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.pipeline.contract import Column, Contract, Paging
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets_tests.pipeline.samples import ORDERS

KEY = Column("id", "integer", "The row", required=True)


def contract(*columns: Column, **changes: Any) -> Contract:  # noqa: ANN401  # of any field
    """A contract of `id` and these columns."""
    made = {"name": "rows", "version": "1", "url": "", "columns": (KEY, *columns), "key": "id"}
    return Contract(**{**made, "unique": ("id",), **changes})


def text(path: str) -> Column:
    """A column of text."""
    return Column(path, "text", "")


def test_column_name_is_its_path_joined_with_underscores() -> None:
    """A name is flat, finds its column, and the names are in the order of the columns."""
    assert Column("location.street.number", "integer", "").name == "location_street_number"
    assert list(ORDERS.by_name) == ["order_number", "order_total", "buyer_email", "items"]
    assert tuple(ORDERS.by_name.values()) == ORDERS.columns


@given(value=st.none() | st.text() | st.integers(-(2**63), 2**63) | st.floats())
def test_column_masks_all_but_the_first_character_of_a_personal_value(
    value: str | float | None,
) -> None:
    """A masked value has one length whatever it hides; no value is shown as nothing."""
    shown = "" if value is None else str(value)
    assert Column("email", "email", "", personal=True).mask(value) == (
        f"{shown[0]}•••" if shown else ""
    )
    assert text("city").mask(value) == shown


def test_contract_takes_a_nested_key_other_paging_and_neighbouring_paths() -> None:
    """Only `key` and `unique` are needed; FreeAPI's paging is the default."""
    assert contract().paging == Paging()
    assert contract(text("name"), text("names.first"), secrets=("nam.e", "ids")).charts == ()
    assert contract(Column("j.k", "json", ""), secrets=("k.j", "jj.k")).secrets == ("k.j", "jj.k")
    assert ORDERS.by_name[ORDERS.key].path == "order.number"


NO_COLUMN = "{} is no column."
NO_KEY = "the key nr must be a required integer."
OVERLAP = "the paths {} and {} overlap."
PERSONAL_CHART = "a chart of who would show personal values."


@pytest.mark.parametrize(
    ("columns", "changes", "sentence"),
    [
        ([], {"key": "nr"}, NO_COLUMN.format("nr")),
        ([], {"unique": ("id", "nr")}, NO_COLUMN.format("nr")),
        ([text("a.b")], {"charts": ("a.b", "a")}, NO_COLUMN.format("a")),
        ([text("a.b"), text("a_b")], {}, "two columns have one name."),
        ([text("a.first-name")], {}, "the path a.first-name must be identifiers joined with dots."),
        ([text("nr")], {"key": "nr"}, NO_KEY),
        ([Column("nr", "integer", "")], {"key": "nr"}, NO_KEY),
        ([Column("nr", "number", "", required=True)], {"key": "nr"}, NO_KEY),
        ([text("a"), text("a.b")], {}, OVERLAP.format("a", "a.b")),
        ([text("a.b")], {"secrets": ("a.b",)}, OVERLAP.format("a.b", "a.b")),
        ([text("a.b.c")], {"secrets": ("a",)}, OVERLAP.format("a", "a.b.c")),
        ([Column("a", "json", "")], {"secrets": ("a.pin",)}, OVERLAP.format("a", "a.pin")),
        ([Column("who", "text", "", personal=True)], {"charts": ("id", "who")}, PERSONAL_CHART),
    ],
)
def test_contract_refuses_names_that_do_not_fit_together(
    columns: list[Column], changes: dict[str, Any], sentence: str
) -> None:
    """A mistake in contract.py is one sentence as the contract is made."""
    with pytest.raises(SnapshotError, match=f"^contract\\.py: {re.escape(sentence)}$"):
        contract(*columns, **changes)
