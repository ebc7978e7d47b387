"""The contract: its columns, what decodes, what each error says, and what it never says."""

import copy
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randusers_assets.contract import (
    BY_NAME,
    COLUMNS,
    CREDENTIALS,
    UNIQUE,
    Broken,
    Column,
    Offender,
    decode,
    mask,
    unknown_paths,
)
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten, instants
from randusers_sandbox.users import user

MARK = "Zanzibar-4711"
MISSING = object()


def _without_credentials(one: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in one["login"].items() if key not in CREDENTIALS}
    return {**one, "login": kept}


USER = {**_without_credentials(json.loads(user(1))), "id": 17}


def _line(one: object) -> bytes:
    return json.dumps(one, ensure_ascii=False).encode() + b"\n"


def _with(path: str, value: object, base: dict[str, Any] = USER) -> dict[str, Any]:
    """The user with another value at a JSON path, or without that path."""
    changed = copy.deepcopy(base)
    node = changed
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node[parent]
    if value is MISSING:
        del node[leaf]
    else:
        node[leaf] = value
    return changed


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _flat(one: dict[str, Any]) -> dict[str, Any]:
    """The flat row, made the slow way."""
    return {
        path.replace(".", "_"): str(value) if path == "location.postcode" else value
        for path, value in _leaves(_without_credentials(one))
    }


def _only_broken(block: bytes) -> Broken:
    users, (broken,) = decode(block)
    assert users == []
    return broken


def test_columns_are_the_paths_of_a_user_each_exactly_once() -> None:
    """Each value that the API sends, less the credentials, is one column, in the order sent."""
    assert [column.path for column in COLUMNS] == [path for path, _ in _leaves(USER)]
    assert len({column.name for column in COLUMNS}) == len(COLUMNS) == len(BY_NAME)


def test_columns_have_flat_names() -> None:
    """A name is its JSON path joined with `_`, and finds its column."""
    assert Column("location.street.number", "integer", "").name == "location_street_number"
    for column in COLUMNS:
        assert column.name == "_".join(column.path.split("."))
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
        assert BY_NAME[column.name] is column


def test_columns_hold_no_credential() -> None:
    """No column is one of the credentials that the API sends."""
    assert {column.path.rpartition(".")[2] for column in COLUMNS}.isdisjoint(CREDENTIALS)


def test_columns_that_are_unique_are_required() -> None:
    """A key of the table is a column of it, and never NULL."""
    assert UNIQUE == ("id", "login_uuid")
    assert all(BY_NAME[name].required for name in UNIQUE)


def test_arrow_schema_types_integers_and_leaves_all_else_text() -> None:
    """Three columns and the id are int64, every other is a string; all in contract order."""
    schema = arrow_schema()
    assert schema.names == [column.name for column in COLUMNS]
    integers = [name for name in schema.names if schema.field(name).type == pa.int64()]
    assert integers == ["location_street_number", "dob_age", "registered_age", "id"]
    assert {str(kind) for kind in schema.types} == {"int64", "string"}


def test_decode_and_flatten_keep_every_value_of_generated_users() -> None:
    """Users of the API's shape decode without a complaint, and each value is in its column."""
    lines = [user(number) for number in range(1, 1001)]
    users, broken = decode(b"".join(line + b"\n" for line in lines))
    assert broken == []
    assert flatten(users).to_pylist() == [_flat(json.loads(line)) for line in lines]


def test_decode_and_flatten_keep_every_value_of_real_users(
    real_users: list[dict[str, Any]],
) -> None:
    """The API's own records decode whole, hold no unknown path, and lose nothing."""
    block = b"".join(_line(_without_credentials(one)) for one in real_users)
    users, broken = decode(block)
    assert broken == []
    assert unknown_paths(block) == {}
    assert flatten(users).to_pylist() == [_flat(one) for one in real_users]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("location.postcode", [], "user 17: location.postcode: expected int or str, got array"),
        ("location.postcode", 1.5, "user 17: location.postcode: expected int or str, got float"),
        ("location.postcode", True, "user 17: location.postcode: expected int or str, got bool"),
        ("location.postcode", MISSING, "user 17: location.postcode: missing"),
        ("location", None, "user 17: location: expected object, got null"),
        ("location.street", "Lunn", "user 17: location.street: expected object, got str"),
        ("email", 5, "user 17: email: expected str, got int"),
        ("gender", MISSING, "user 17: gender: missing"),
        ("dob.age", "54", "user 17: dob.age: expected int, got str"),
        ("dob.age", 2**63, "user 17: dob.age: expected int <= 9223372036854775807"),
        ("dob.age", -(2**63) - 1, "user 17: dob.age: expected int >= -9223372036854775808"),
        ("id", "17", "line 0: id: expected int, got str"),
        ("id", 17.0, "line 0: id: expected int, got float"),
        ("id", None, "line 0: id: expected int, got null"),
        ("id", MISSING, "line 0: id: missing"),
        ("id", 2**63, "line 0: id: expected int <= 9223372036854775807"),
        ("id", 2**64, "line 0: id: expected int <= 9223372036854775807"),
    ],
)
def test_decode_names_the_user_the_path_and_the_problem(
    path: str, value: object, sentence: str
) -> None:
    """A broken user is one sentence: who, where, and what was expected."""
    assert _only_broken(_line(_with(path, value))).sentence() == sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"id":17,', "line 0: $: input data was truncated"),
        (b'{"id":17,"gender":x}', "line 0: $: JSON is malformed: invalid character (byte 18)"),
        (b"<html>", "line 0: $: JSON is malformed: invalid character (byte 0)"),
        (b"[]", "line 0: $: expected object, got array"),
        (b"null", "line 0: $: expected object, got null"),
        (b'{"id":17,"gender":"\xff"}', "user 17: $: not UTF-8"),
        (b'{"x":' * 100_000, "line 0: $: nested too deep"),
    ],
)
def test_decode_names_a_line_that_is_no_user(line: bytes, sentence: str) -> None:
    """A line that is not a JSON object in UTF-8 is named by its place, as no one's fault."""
    assert _only_broken(line + b"\n").sentence() == sentence


@pytest.mark.parametrize("bound", [-(2**63), 2**63 - 1])
def test_decode_takes_the_whole_range_of_int64(bound: int) -> None:
    """The greatest and the least 64-bit integer are values like any other."""
    users, broken = decode(_line(_with("dob.age", bound)) + _line(_with("id", bound)))
    assert broken == []
    rows = flatten(users).to_pylist()
    assert (rows[0]["dob_age"], rows[1]["id"]) == (bound, bound)


def test_decode_names_lines_by_number_and_keeps_the_good_users() -> None:
    """Broken lines count on from the first line's number; the users around them are decoded."""
    block = _line(USER) + b"[]\n" + _line(_with("id", 18)) + b"{\n"
    users, broken = decode(block, 101)
    assert [one.id for one in users] == [17, 18]
    assert [(one.id, one.line) for one in broken] == [(None, 102), (None, 104)]


def test_decode_sees_no_user_in_a_blank_line() -> None:
    """A blank line is no user, whether or not another line is broken."""
    for other, expected in ((b"", 0), (b"[]\n", 1)):
        users, broken = decode(b"\n" + _line(USER) + b" \n" + other)
        assert (len(users), len(broken)) == (1, expected)


def test_decode_ends_a_line_at_lf_alone() -> None:
    """A carriage return between two tokens is white space, also beside a broken line."""
    spread = _line(USER).replace(b"{", b"{\r")
    users, broken = decode(spread + b"[]\n")
    assert (len(users), len(broken)) == (1, 1)


def test_broken_row_keeps_what_is_of_the_right_type() -> None:
    """The row of a broken user is its flat row, NULL where a value is wrong."""
    broken = _only_broken(_line(_with("location.street", MARK, _with("location.postcode", 270))))
    absent = {"location_street_number": None, "location_street_name": None}
    assert broken.row == {**_flat(USER), "location_postcode": "270", **absent}


def test_broken_offender_shows_the_problem() -> None:
    """As a table row, a broken user has its id, its path and its problem."""
    broken = _only_broken(_line(_with("email", [])))
    assert broken.offender() == Offender(17, "email", "expected str, got array")
    assert _only_broken(b"[]\n").offender() == Offender(None, "$", "expected object, got array")


def _wrong_places() -> Iterator[tuple[str, Any]]:
    """Every JSON path of a user with every value that must not stand there, a marker in each."""
    wrong = (MARK, [MARK], {MARK: MARK}, [{"id": MARK}])
    for column in COLUMNS:
        for value in wrong[0 if column.type == "integer" else 1 :]:
            yield column.path, value
    for path in ("name", "location", "location.street", "location.timezone", "login", "dob"):
        for value in (MARK, [MARK], [{MARK: MARK}]):
            yield path, value


@settings(deadline=None, max_examples=300)
@given(places=st.lists(st.sampled_from(list(_wrong_places())), min_size=1, max_size=3))
def test_sentences_never_hold_a_value_of_the_wrong_type(places: list[tuple[str, Any]]) -> None:
    """Whatever stands where something else belongs, no word of it is told or kept."""
    changed: dict[str, Any] = USER
    taken: set[str] = set()
    for path, value in places:
        if taken.isdisjoint((path, path.split(".")[0], path.rpartition(".")[0])) and not any(
            one.startswith(f"{path}.") for one in taken
        ):
            taken.add(path)
            changed = _with(path, value, changed)
    broken = _only_broken(_line(changed))
    assert MARK not in f"{broken.sentence()} {broken.offender()} {broken}"
    assert broken.path.startswith(tuple(taken))


@settings(deadline=None, max_examples=300)
@given(
    path=st.sampled_from([c.path for c in COLUMNS if c.type == "text"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.sampled_from([None, b"\xff", b"\x00", b'"', b"}"]),
)
def test_sentences_never_hold_a_value_of_broken_json(
    path: str, place: float, junk: bytes | None
) -> None:
    """A line cut off or spoilt at any byte is told without any of its values."""
    line = _line(_with(path, MARK))
    at = 1 + int(place * (len(line) - 2))
    spoilt = line[:at] + (b"\n" if junk is None else junk + line[at:])
    for broken in decode(spoilt)[1]:
        assert MARK not in broken.sentence()
        assert MARK not in str(broken.offender())


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (92298, "92298"),
        (0, "0"),
        ("0270", "0270"),
        ("3305 DO", "3305 DO"),
        ("92298.0", "92298.0"),
        (10**20, "100000000000000000000"),
        ("", ""),
        (None, None),
    ],
)
def test_postcodes_become_text_as_sent(sent: object, text: str | None) -> None:
    """An int or string postcode is text with no `.0` and no lost zero; NULL stays NULL."""
    users, broken = decode(_line(_with("location.postcode", sent)))
    assert broken == []
    assert flatten(users).column("location_postcode").to_pylist() == [text]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(10**12), 10**12) | st.text(max_size=12), min_size=1, max_size=5))
def test_postcodes_of_any_mix_become_text_as_sent(postcodes: list[int | str]) -> None:
    """No neighbour changes how a postcode is written."""
    block = b"".join(
        json.dumps(_with("location.postcode", postcode)).encode() + b"\n" for postcode in postcodes
    )
    users, broken = decode(block)
    assert broken == []
    assert flatten(users).column("location_postcode").to_pylist() == [str(p) for p in postcodes]


def test_unknown_paths_are_counted_by_path() -> None:
    """Each path that the contract does not know is counted over the lines, the known ones not."""
    block = (
        _line(USER)
        + _line(_with("location.planet", "Earth"))
        + _line(_with("location.planet", {"name": "Earth"}, _with("tags", [1, 2])))
        + _line(_with("email", {"work": "a@a.com"}))
        + b"not JSON\n"
    )
    assert unknown_paths(block) == {"location.planet": 2, "tags": 1, "email.work": 1}


def test_unknown_paths_are_none_where_all_are_known() -> None:
    """Users under the contract, also ones of the wrong type, have no unknown path."""
    block = _line(USER) + _line(_with("location", MARK)) + _line(_with("id", MISSING))
    assert unknown_paths(block) == {}


def test_flatten_gives_contract_order_and_types() -> None:
    """The batch has the contract's schema and the users' order, also without any user."""
    users, _ = decode(b"".join(_line(_with("id", number)) for number in (3, 1, 2)))
    batch = flatten(users)
    assert batch.schema == arrow_schema()
    assert batch.column("id").to_pylist() == [3, 1, 2]
    assert (flatten([]).schema, flatten([]).num_rows) == (arrow_schema(), 0)


def test_flatten_keeps_null_and_the_empty_text_apart() -> None:
    """NULL is NULL, the empty text is empty, whatever the type of the column."""
    changes = [("name.title", None), ("name.title", ""), ("dob.age", None)]
    users, broken = decode(b"".join(_line(_with(*change)) for change in changes))
    assert broken == []
    rows = flatten(users).to_pylist()
    assert [row["name_title"] for row in rows[:2]] == [None, ""]
    assert rows[2]["dob_age"] is None


def test_instants_read_the_one_form() -> None:
    """A timestamp to the millisecond in UTC is that instant."""
    found = instants(pa.array(["1968-07-21T10:02:51.768Z", "2024-02-29T23:59:59.999Z"]))
    assert found.type == pa.timestamp("ms", "UTC")
    assert found.to_pylist() == [
        datetime(1968, 7, 21, 10, 2, 51, 768_000, UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999_000, UTC),
    ]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "1968-07-21",
        "1968-07-21T10:02:51Z",
        "1968-07-21T10:02:51.76Z",
        "1968-07-21T10:02:51.7680Z",
        "1968-07-21 10:02:51.768Z",
        "1968-07-21T10:02:51.768z",
        "1968-07-21T10:02:51.768",
        "1968-07-21T10:02:51+0000",
        "1968-07-21T10:02:51.768Z\n",
        "\u0661968-07-21T10:02:51.768Z",
        "1968-02-30T10:02:51.768Z",
        "1967-02-29T10:02:51.768Z",
        "1968-13-01T10:02:51.768Z",
        "1968-07-21T24:00:00.000Z",
        "1968-07-21T23:59:60.000Z",
    ],
)
def test_instants_are_null_for_anything_else(text: str | None) -> None:
    """Another form, or a day or time that does not exist, is no instant; its neighbours are."""
    good = "1968-07-21T10:02:51.768Z"
    found = instants(pa.array([good, text, good], pa.string()))
    assert [value is None for value in found.to_pylist()] == [False, True, False]


@settings(deadline=None, max_examples=300)
@given(
    st.from_regex(
        r"\A(0000|1\d\d\d|9999)-(0[0-9]|1[0-3])-([0-2]\d|3[0-2])T(2[0-5]|[01]\d):[0-6]\d:[0-6]\d\.\d{3}Z\Z"
    )
)
def test_instants_do_not_depend_on_their_neighbours(text: str) -> None:
    """A text reads the same alone and beside a day that does not exist."""
    alone = instants(pa.array([text]))
    beside = instants(pa.array([text, "2023-02-30T00:00:00.000Z"]))
    assert beside[0] == alone[0] or (not beside[0].is_valid and not alone[0].is_valid)


PERSONAL = [column for column in COLUMNS if column.personal]


@settings(deadline=None, max_examples=300)
@given(column=st.sampled_from(PERSONAL), value=st.none() | st.text() | st.integers(-(2**63), 2**63))
def test_mask_shows_at_most_one_character_of_a_personal_value(
    column: Column, value: str | int | None
) -> None:
    """A personal value is its first character and dots, of one length; nothing is nothing."""
    text = "" if value is None else str(value)
    assert mask(column, value) == (f"{text[0]}•••" if text else "")


def test_mask_shows_other_values() -> None:
    """A value that is not personal is shown as it is."""
    assert mask(BY_NAME["location_postcode"], "0270") == "0270"
    assert mask(BY_NAME["id"], 17) == "17"
    assert mask(BY_NAME["nat"], None) == ""


def test_mask_covers_what_tells_a_person() -> None:
    """Names, addresses, birth, phones and pictures are personal; keys and places are not."""
    assert {column.name for column in PERSONAL} >= {
        "name_first",
        "name_last",
        "location_street_name",
        "email",
        "login_username",
        "dob_date",
        "phone",
        "cell",
        "picture_large",
    }
    assert not BY_NAME["id"].personal
