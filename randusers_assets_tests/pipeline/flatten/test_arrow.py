"""Rows as columns: their types and order, timestamps, keys, and the way between processes."""

import pickle
from dataclasses import replace

import msgspec
import pyarrow as pa
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.flatten.arrow import FlatLines, arrow_schema, flatten_lines
from randusers_assets_tests.builders import user
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order


def test_flatten_lines_keeps_numbers_and_json_whatever_is_beside_them() -> None:
    """A NULL in the column does not change its neighbours, not even a negative zero."""
    assert arrow_schema(ORDERS).types == [pa.int64(), pa.float64(), pa.string(), pa.string()]
    kept = order(1, order={"number": 1, "total": -0.0})
    null = order(2, order={"number": 2, "total": None}, items=None)
    alone = flatten_lines(json_lines(kept), ORDERS).rows.to_pylist()
    both = flatten_lines(json_lines(kept, null), ORDERS).rows.to_pylist()
    assert repr(both[:1]) == repr(alone)
    assert repr(alone[0]["order_total"]) == "-0.0"
    assert (both[1]["order_total"], both[1]["items"]) == (None, None)


def test_flatten_lines_reads_fields_whatever_their_names() -> None:
    """Words of Python, and letters that Python's own names would not keep apart, are read too."""
    names = ("class", "ﬁt", "fit")
    columns = [Column(name, "text", "") for name in names]
    contract = replace(ORDERS, columns=(*ORDERS.columns, *columns))
    rows = flatten_lines(
        json_lines(order(1, **dict(zip(names, "abc", strict=True)))), contract
    ).rows
    assert [rows.column(name).to_pylist() for name in names] == [["a"], ["b"], ["c"]]


def undecodable(number: int) -> dict[str, object]:
    """A row that breaks the contract, with a key."""
    return {"id": number, "login": {}}


@pytest.mark.parametrize(
    ("contract", "sent", "keys"),
    [
        (
            CONTRACT,
            [*map(undecodable, [1, 2]), user(3), *map(undecodable, [4, 5])],
            [1, 2, 3, 4, 5],
        ),
        (CONTRACT, [undecodable(1), user(2)], [1, 2]),
        (CONTRACT, [undecodable(1), undecodable(2)], [1, 2]),
        (CONTRACT, [user(1), {"login": {}}, undecodable(3), user(4)], [1, 3, 4]),
        (CONTRACT, [user(3), user(1), user(2)], [3, 1, 2]),
        (CONTRACT, [], []),
        (ORDERS, [order(8), order(9, items="[]"), order(7)], [8, 9, 7]),
    ],
)
def test_flat_lines_keys_are_a_copy_in_the_order_of_the_lines(
    contract: Contract, sent: list[object], keys: list[int]
) -> None:
    """Undecodable rows are among the good ones; one without a key is a line all the same."""
    lines = flatten_lines(json_lines(*sent), contract)
    found = lines.keys(contract)
    assert (found.tolist(), found.base, len(lines)) == (keys, None, len(sent))
    assert lines.rows.schema == arrow_schema(contract)


def test_flat_lines_are_pickled_whole() -> None:
    """What one process decoded another has: schema, rows, undecodable rows and unknown paths."""
    users = flatten_lines(json_lines({**user(1), "new": 1}, undecodable(2), user(3)), CONTRACT)
    orders = flatten_lines(json_lines(order(1), msgspec.Raw(b"{")), ORDERS)
    for lines, contract in ((users, CONTRACT), (orders, ORDERS)):
        again: FlatLines = pickle.loads(pickle.dumps(lines))  # noqa: S301  # pickled on the same line
        assert again == lines
        assert again.rows.schema == arrow_schema(contract)
    assert (users.rows.num_rows, len(users.undecodable), users.unknown) == (2, 1, {"new": 1})
