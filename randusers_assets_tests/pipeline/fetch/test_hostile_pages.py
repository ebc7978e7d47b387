"""Whatever the API sends: no secret gets through, and no error but the known ones, nor a value."""

import json
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.pages import (
    BadData,
    Page,
    Refused,
    Unreadable,
    check_page,
    plan_of,
    read_page,
)
from randusers_assets_tests.pipeline.fetch.test_pages import (
    MARK,
    SECRETS,
    lines_of,
    orders_body,
    page_body,
    read,
)
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order
from randusers_sandbox import paging
from randusers_sandbox.users import user

TOLD = (SnapshotError, Refused, Unreadable, BadData)


@pytest.mark.parametrize("name", ["password", "Password", "PASSWORD", r"\u0050assword", "SHA1"])
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('"%s":"s3cr3t","nat":"NZ"', '"nat":"NZ"'),
        ('"name":{"first":"Ada","%s":"s3cr3t"}', '"name":{"first":"Ada"}'),
        ('"on":[[{"%s":{"a":["s3cr3t"]},"b":1.50}]]', '"on":[[{"b":1.50}]]'),
        ('"login":{"uuid":"u","%s":"s3cr3t"}', '"login":{"uuid":"u"}'),
        ('"nat":{"%s":"s3cr3t"}', '"nat":{}'),
        ('"on":{"a":{"%s":"s3cr3t"},"a":1}', '"on":{"a":1}'),
        ('"on": [1, 2],"nat":"%s"', '"on":[1, 2],"nat":"%s"'),
    ],
)
def test_read_page_drops_a_secrets_name_wherever_it_is(name: str, sent: str, kept: str) -> None:
    """Of a row that breaks the contract, at any depth and in any letter case; values stay."""
    row = '{"id":7,%s}'
    page = read((row % sent.replace("%s", name)).encode())
    assert lines_of(page).decode() == (row % kept.replace("%s", name)) + "\n"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        # `number` is a secret of the buyer's, and a column of the order's.
        ({"number": MARK, "on": 1}, {"on": 1}),
        ({"on": [{"order": {"number": MARK}}]}, {"on": [{"order": {}}]}),
        ({"buyer": {"order": {"NUMBER": MARK}}}, {"buyer": {"order": {}}}),
        # What is in a JSON column is published, as it is of rows that keep the contract.
        (
            {"items": [{"number": 5, "pin": 6}], "on": 1},
            {"items": [{"number": 5, "pin": 6}], "on": 1},
        ),
    ],
)
def test_read_page_keeps_a_column_that_has_a_secrets_name(
    sent: dict[str, Any], kept: dict[str, Any]
) -> None:
    """The path of a column wins over a name; elsewhere the name is dropped."""
    page = read_page(orders_body(json_lines(order(7) | sent).rstrip()), ORDERS)
    assert lines_of(page) == json_lines(order(7) | kept)


# Every text holds a mark, which no message may.
TEXTS = st.text().map(lambda text: MARK + text)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def _places(node: Any, *above: str) -> list[tuple[str, ...]]:  # noqa: ANN401  # any JSON value
    """The path of each field of an object, and of those below them."""
    below = node.items() if isinstance(node, dict) else ()
    return [(*above, key) for key, _ in below] + [
        place for key, inner in below for place in _places(inner, *above, key)
    ]


def _changed(tree: dict[str, Any], place: tuple[str, ...], value: object) -> dict[str, Any]:
    """The tree with this value in one place; without it for `...`."""
    changed = deepcopy(tree)
    node = changed
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return changed


def _marked(node: Any) -> Any:  # noqa: ANN401  # any JSON value
    """A JSON value with a mark in each of its texts."""
    if isinstance(node, dict):
        return {key: _marked(inner) for key, inner in node.items()}
    return MARK + node if isinstance(node, str) else node


def _read(answer: dict[str, Any], encoding: str = "utf-8") -> Page | str:
    """The first page of two that an answer is, or the message of its error."""
    try:
        body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(encoding)
        page = read_page(body, CONTRACT)
        check_page(page, 1, plan_of(page, CONTRACT.paging), CONTRACT.paging)
    except TOLD as error:
        return str(error)
    return page


SECRET = f"{MARK} of the login"
USERS = [_marked(json.loads(user(number))) for number in (1, 2)]
for one in USERS:
    one["login"] |= dict.fromkeys(SECRETS, SECRET)
ANSWER = paging.envelope(1, 2, 3)
ANSWER["data"]["data"] = USERS
RIGHT = _read(ANSWER)
ROWS = ("data", "data")


@given(
    st.sampled_from([place for place in _places(ANSWER) if place != ROWS]),
    st.just(...) | JSON_VALUES,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_read_page_of_any_envelope_is_the_right_page_or_a_known_error(
    place: tuple[str, ...], value: object, encoding: str
) -> None:
    """With any JSON value in any place of the envelope, or none; no message has a user's value."""
    assert isinstance(RIGHT, Page)
    match _read(_changed(ANSWER, place, value), encoding):
        case str(message):
            assert MARK not in message
        case page:
            assert (page.declares, page.compressed) == (RIGHT.declares, RIGHT.compressed)
            assert page.lines.rows == RIGHT.lines.rows


@given(st.sampled_from([(), *_places(USERS[0])]), st.just(...) | JSON_VALUES)
def test_read_page_of_any_user_is_a_row_an_undecodable_row_or_a_known_error(
    place: tuple[str, ...], value: object
) -> None:
    """With any JSON value in any place of a user; the other is whole, no message has a value."""
    other = _changed(USERS[1], place, value) if place else value
    users = [USERS[0], *([] if other is ... else [other])]
    page = _read(_changed(ANSWER, ROWS, users))
    if isinstance(page, str):
        assert MARK not in page
        return
    assert len(page.lines) == len(page.lines.keys(CONTRACT)) == 2
    first, second = lines_of(page).splitlines()
    assert first == lines_of(read(json_lines(USERS[0]).rstrip())).rstrip()
    assert json.loads(second)["id"] == page.lines.keys(CONTRACT)[1]
    assert SECRET.encode() not in lines_of(page)
    for one in page.lines.undecodable:
        assert MARK not in one.describe(CONTRACT.key)


@given(st.binary() | st.binary().map(lambda noise: page_body(noise)))
def test_read_page_of_any_bytes_is_a_page_or_a_known_error(body: bytes) -> None:
    """Also where the bytes are in the place of the rows."""
    with suppress(*TOLD):
        read_page(body, CONTRACT)
