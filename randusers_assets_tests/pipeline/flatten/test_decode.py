"""Decoding: what fits the contract, what each problem says, and what it never shows."""

import copy
from functools import reduce
from operator import getitem
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import Offender
from randusers_assets.pipeline.flatten.arrow import flatten_rows
from randusers_assets.pipeline.flatten.decode import decode_lines
from randusers_assets_tests import builders
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order

MARK = "Zanzibar-4711"
MISSING = object()
USER = builders.user(17)


def changed(path: str, value: object, base: dict[str, Any] = USER) -> dict[str, Any]:
    """The row with another value at a JSON path, or without that path."""
    row = copy.deepcopy(base)
    *parents, leaf = path.split(".")
    node = reduce(getitem, parents, row)
    node[leaf] = value
    if value is MISSING:
        del node[leaf]
    return row


def flat(sent: dict[str, Any]) -> dict[str, Any]:
    """The flat row of a user, made the slow way."""
    row = {c.name: reduce(getitem, c.path.split("."), sent) for c in CONTRACT.columns}
    return {**row, "location_postcode": str(row["location_postcode"])}


def test_decode_lines_keeps_every_value_of_generated_users() -> None:
    """Users of the API's shape are decoded without a problem, and each value is in its column."""
    sent = [builders.user(number) for number in range(1, 1001)]
    rows, undecodable, unknown = decode_lines(json_lines(*sent), CONTRACT)
    assert (undecodable, unknown) == ([], {})
    assert flatten_rows(rows, CONTRACT).to_pylist() == [flat(one) for one in sent]


def test_decode_lines_keeps_every_value_of_real_users(real_users: list[dict[str, Any]]) -> None:
    """The API's own records lose nothing, and only their secrets are unknown."""
    rows, undecodable, unknown = decode_lines(json_lines(*real_users), CONTRACT)
    assert (undecodable, set(unknown)) == ([], set(CONTRACT.secrets))
    assert flatten_rows(rows, CONTRACT).to_pylist() == [flat(one) for one in real_users]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("location.postcode", [], "id 17: location.postcode: expected int or str, got array"),
        ("location.postcode", 1.5, "id 17: location.postcode: expected int or str, got float"),
        ("location.postcode", True, "id 17: location.postcode: expected int or str, got bool"),
        ("location.postcode", MISSING, "id 17: location.postcode: missing"),
        ("location", None, "id 17: location: expected object, got null"),
        ("location.street", "Lunn", "id 17: location.street: expected object, got str"),
        ("email", 5, "id 17: email: expected str, got int"),
        ("gender", MISSING, "id 17: gender: missing"),
        ("dob.age", "54", "id 17: dob.age: expected int, got str"),
        ("dob.age", 2**63, "id 17: dob.age: expected int <= 9223372036854775807"),
        ("dob.age", -(2**63) - 1, "id 17: dob.age: expected int >= -9223372036854775808"),
        ("id", "17", "line 1: id: expected int, got str"),
        ("id", 17.0, "line 1: id: expected int, got float"),
        ("id", None, "line 1: id: expected int, got null"),
        ("id", MISSING, "line 1: id: missing"),
        ("id", 2**63, "line 1: id: expected int <= 9223372036854775807"),
        ("id", 2**64, "line 1: id: expected int <= 9223372036854775807"),
        ("id", 10**400, "line 1: id: expected int <= 9223372036854775807"),
        ("order.total", "5", "order_number 7: order.total: expected float, got str"),
        ("order.total", 2**53, "order_number 7: order.total: expected float < 9007199254740992.0"),
        ("order.total", True, "order_number 7: order.total: expected float, got bool"),
        ("order.total", msgspec.Raw(b"1e400"), "line 1: order.total: number out of range"),
        ("items", "[]", "order_number 7: items: expected object or array, got str"),
        ("items", 5, "order_number 7: items: expected object or array, got int"),
        ("order.number", None, "line 1: order.number: expected int, got null"),
        ("order", [], "line 1: order: expected object, got array"),
        ("$", [], "line 1: $: expected object, got array"),
        ("$", None, "line 1: $: expected object, got null"),
        ("$", msgspec.Raw(b'{"id":17,'), "line 1: $: input data was truncated"),
        ("$", msgspec.Raw(b'{"id":x}'), "line 1: $: JSON is malformed: invalid character (byte 6)"),
        ("$", msgspec.Raw(b"<html>"), "line 1: $: JSON is malformed: invalid character (byte 0)"),
        ("$", msgspec.Raw(b'{"id":17,"gender":"\xff"}'), "id 17: $: not UTF-8"),
        ("$", msgspec.Raw(b'{"x":' * 100_000), "line 1: $: nested too deep"),
    ],
)
def test_undecodable_user_describes_the_key_the_path_and_the_problem(
    path: str, value: object, sentence: str
) -> None:
    """One sentence says which row, by its line if it has no legible key, where, and the problem."""
    base, contract = (order(7), ORDERS) if path.split(".")[0] in order(7) else (USER, CONTRACT)
    line = json_lines(value if path == "$" else changed(path, value, base))
    rows, (found,), _ = decode_lines(line, contract)
    assert (rows, found.describe(contract.key)) == ([], sentence)
    assert found.offender() == Offender(found.id, *sentence.split(": ", 2)[1:])
    assert found.row.get(path.replace(".", "_")) is None


@pytest.mark.parametrize(
    ("block", "ids", "undecodable"),
    [
        (json_lines(USER, [], changed("id", 18)) + b"{\n", [17, 18], [2, 4]),
        (b"\n" + json_lines(USER) + b" \n", [17], []),
        (b"\n" + json_lines(USER) + b" \n[]\n", [17], [2]),
        (json_lines(USER).replace(b"{", b"{\r") + b"[]\n", [17], [2]),
    ],
    ids=["numbers", "blank lines", "blank lines beside a bad one", "carriage return"],
)
def test_decode_lines_numbers_the_lines_that_are_not_blank(
    block: bytes, ids: list[int], undecodable: list[int]
) -> None:
    """LF alone ends a line, a blank one does not count, and good rows beside bad ones are kept."""
    rows, found, _ = decode_lines(block, CONTRACT)
    assert [row.id for row in rows] == ids
    assert [(one.id, one.line) for one in found] == [(None, line) for line in undecodable]


def test_undecodable_user_keeps_what_is_of_the_right_type() -> None:
    """The row of an undecodable user is its flat row, NULL where a value is wrong."""
    sent = changed("location.street", MARK, changed("location.postcode", 270))
    absent = {"location_street_number": None, "location_street_name": None}
    expected = {**flat(USER), "location_postcode": "270", **absent}
    _, (found,), _ = decode_lines(json_lines(sent), CONTRACT)
    assert found.row == expected
    _, (found,), _ = decode_lines(json_lines(order(7, buyer=None)), ORDERS)
    items = '[{"name":"nut","count":2}]'
    assert list(found.row.values()) == [7, 9.5, None, items]


# Every JSON path of a user with every value that must not be there, a marker in each.
WRONG_VALUES = [
    *(
        (column.path, value)
        for column in CONTRACT.columns
        for value in (MARK, [MARK], {MARK: MARK}, [{"id": MARK}])
        if value != MARK or column.type == "integer"
    ),
    *(
        (path, value)
        for path in ("name", "location", "location.street", "location.timezone", "login", "dob")
        for value in (MARK, [MARK], [{MARK: MARK}])
    ),
]


@given(places=st.lists(st.sampled_from(WRONG_VALUES), min_size=1, max_size=3))
def test_undecodable_user_never_shows_a_value_of_the_wrong_type(
    places: list[tuple[str, Any]],
) -> None:
    """Whatever is where something else belongs, no word of it is shown or kept."""
    sent = USER
    for path, value in sorted(places, key=lambda place: -len(place[0])):  # an object comes last
        sent = changed(path, value, sent)
    _, (found,), _ = decode_lines(json_lines(sent), CONTRACT)
    assert MARK not in f"{found.describe('id')} {found.offender()} {found}"
    assert found.path.startswith(tuple(path for path, _ in places))


@given(
    path=st.sampled_from([c.path for c in CONTRACT.columns if c.type == "text"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.sampled_from([None, b"\xff", b"\x00", b'"', b"}"]),
)
def test_undecodable_user_never_shows_a_value_of_broken_json(
    path: str, place: float, junk: bytes | None
) -> None:
    """A line truncated or corrupted at any byte is described without any of its values."""
    line = json_lines(changed(path, MARK))
    at = 1 + int(place * (len(line) - 2))
    corrupt = line[:at] + (b"\n" if junk is None else junk + line[at:])
    for found in decode_lines(corrupt, CONTRACT)[1]:
        assert MARK not in f"{found.describe('id')} {found.offender()}"


@given(st.lists(st.integers(-(10**12), 10**12) | st.text(max_size=12), min_size=1, max_size=5))
def test_codes_of_any_mix_become_text_as_sent(codes: list[int | str]) -> None:
    """No neighbour changes how a code is written."""
    block = json_lines(*(changed("location.postcode", code) for code in codes))
    rows, undecodable, _ = decode_lines(block, CONTRACT)
    assert undecodable == []
    column = flatten_rows(rows, CONTRACT).column("location_postcode")
    assert column.to_pylist() == [str(code) for code in codes]


@pytest.mark.parametrize(
    ("path", "sent", "published"),
    [
        ("location.postcode", "0270", "'0270'"),
        ("location.postcode", 10**20, "'100000000000000000000'"),
        ("location.postcode", None, "None"),
        ("dob.age", -(2**63), "-9223372036854775808"),
        ("id", 2**63 - 1, "9223372036854775807"),
        ("order.total", 5, "5.0"),
        ("order.total", -0.1, "-0.1"),
        ("order.total", None, "None"),
        ("items", [1, 2.5, {"a": None, "ä": [True]}], """'[1,2.5,{"a":null,"ä":[true]}]'"""),
        ("items", {"b": "x y", "a": 10**20}, """'{"b":"x y","a":100000000000000000000}'"""),
        ("items", [], "'[]'"),
        ("items", {}, "'{}'"),
        ("items", None, "None"),
    ],
)
def test_values_are_published_as_their_column_holds_them(
    path: str, sent: object, published: str
) -> None:
    """Codes are text as sent, numbers floats, JSON compact text, also beside a bad line."""
    base, contract = (USER, CONTRACT) if path.split(".")[0] in USER else (order(7), ORDERS)
    block = json_lines(changed(path, sent, base))
    for lines in (block, block + b"[]\n"):
        rows, _, unknown = decode_lines(lines, contract)
        (row,) = flatten_rows(rows, contract).to_pylist()
        assert repr(row[path.replace(".", "_")]) == published
        assert unknown == {}


def test_unknown_paths_are_counted_by_path() -> None:
    """Each path that the contract does not know is counted, but none below a JSON column."""
    block = json_lines(
        USER,
        changed("location.planet", "Earth"),
        changed("location.planet", {"name": "Earth"}, changed("tags", [1, 2])),
        changed("email", {"work": "a@a.com"}),
        msgspec.Raw(b"not JSON"),
    )
    unknown = decode_lines(block, CONTRACT)[2]
    assert unknown == {"location.planet": 2, "tags": 1, "email.work": 1}
    wrong = json_lines(USER, changed("location", MARK), changed("id", MISSING))
    assert decode_lines(wrong, CONTRACT)[2] == {}
    block = json_lines(order(1, items={"a": {"b": 1}}), order(2, item={"a": 1}), order(3, items=1))
    assert decode_lines(block, ORDERS)[2] == {"item": 1}
