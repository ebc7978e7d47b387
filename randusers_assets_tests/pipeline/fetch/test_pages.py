"""A page is decoded as the API sent it, less the secrets, and compared with the plan."""

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Drift
from randusers_assets.pipeline.fetch.pages import (
    BadData,
    Page,
    Plan,
    Refused,
    Unreadable,
    check_page,
    plan_of,
    read_page,
)
from randusers_assets.pipeline.flatten.arrow import flatten_lines
from randusers_assets_tests import builders
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order
from randusers_sandbox import paging
from randusers_sandbox.users import user

MARK = "s3cr3t"
SECRETS = [path.removeprefix("login.") for path in CONTRACT.secrets]


def page_body(*users: bytes, page: int = 1, limit: int = 500, total: int | None = None) -> bytes:
    """The API's body of one page, compact, with these users in it."""
    envelope = paging.envelope(page, limit, len(users) if total is None else total)
    head, tail = json.dumps(envelope, separators=(",", ":")).encode().split(b"[]")
    return head + b"[" + b",".join(users) + b"]" + tail


def read(*users: bytes) -> Page:
    """A page of these users."""
    return read_page(page_body(*users), CONTRACT)


def lines_of(page: Page) -> bytes:
    """A page's JSON lines."""
    return pa.input_stream(pa.py_buffer(page.compressed), compression="zstd").read()  # type: ignore[no-any-return]  # pyarrow is untyped


def ids_of(page: Page) -> list[int]:
    """The ids of a page's users."""
    return page.lines.keys(CONTRACT).tolist()


def with_login(login: bytes) -> bytes:
    """A user whose `login` is this JSON."""
    return b'{"id":7,"login":' + login + b',"nat":"NZ"}'


def test_read_page_decodes_the_apis_own_envelope() -> None:
    """What page 2 of 3 declares, by the names of `Paging`, and its users' ids, are the API's."""
    page = read_page(page_body(user(3), user(4), page=2, limit=2, total=5), CONTRACT)
    assert ids_of(page) == [3, 4]
    counts = {"page": 2, "limit": 2, "total_pages": 3, "total_items": 5, "page_items": 2}
    assert page.declares == {**counts, "previous": True, "next": True}


def test_read_page_keeps_every_other_byte_of_a_compact_user() -> None:
    """The lines are the API's own text with the five secrets cut out, and nothing else."""
    sent = user(1)
    login = json.loads(sent)["login"]
    cut = "".join(f',"{name}":"{login[name]}"' for name in SECRETS).encode()
    assert sent.count(cut) == 1
    assert lines_of(read(sent)) == sent.replace(cut, b"") + b"\n"


@pytest.mark.parametrize(
    "login",
    [
        # The API's order, quotes within, another order, secrets first, white space, escaped names,
        # values that are no text, `login` twice, and twice with the last one clean.
        b'{"uuid":"u","password":"%b","salt":"%b","md5":"%b","sha1":"%b","sha256":"%b"}',
        rb'{"uuid":"u","password":"\"%b\\","salt":"}%b","md5":"%b\"","sha1":"%b","sha256":"%b"}',
        b'{"sha256":"%b","sha1":"%b","uuid":"u","md5":"%b","salt":"%b","password":"%b"}',
        b'{"password":"%b","salt":"%b","md5":"%b","sha1":"%b","sha256":"%b","uuid":"u"}',
        b'{"uuid":"u", "password" : "%b",\n"salt":\t"%b","md5": "%b","sha1":"%b","sha256":"%b" }',
        rb'{"uuid":"u","pass\u0077ord":"%b","\u0073alt":"%b","md\u0035":"%b","sha25\u0036":"%b"}',
        b'{"uuid":"u","password":["%b"],"salt":{"a":"%b"},"sha1":"%b","sha256":[["%b"]]}',
        b'{"password":"%b","salt":"%b"},"login":{"md5":"%b","sha1":"%b","sha256":"%b","uuid":"u"}',
        b'{"password":"%b","md5":"%b","sha1":"%b","sha256":"%b"},"login":{"uuid":"u"}',
    ],
)
def test_read_page_drops_secrets_however_they_are_spelt(login: bytes) -> None:
    """Order, spacing, escapes and types of the secrets do not let one through."""
    page = read(user(1), with_login(login.replace(b"%b", MARK.encode())), user(2))
    assert ids_of(page) == [1, 7, 2]
    assert lines_of(page) == json_lines(
        builders.user(1), {"id": 7, "login": {"uuid": "u"}, "nat": "NZ"}, builders.user(2)
    )


UNKNOWN = rb'"score":1.50,"big":1e3,"text":"a\u0041\/\"","deep":{"b":[1, 2],"a":null}'
ANY_SCRIPT = '{"id":7,"login":{},"name":"Păun 田中 👩‍🔬\u2028"}'.encode()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (
            rb'{"id":7,"login":{"uuid":"u","password":"p\"\\","salt":"\""},%b}' % UNKNOWN,
            b'{"id":7,"login":{"uuid":"u"},%b}' % UNKNOWN,
        ),
        (with_login(b'[{"password":"s3cr3t","uuid":"u"}]'), with_login(b'[{"uuid":"u"}]')),
        (
            with_login(b'{"salt":"s3cr3t","was":[{"md5":"s3cr3t","on":1}]}'),
            with_login(b'{"was":[{"on":1}]}'),
        ),
        *((with_login(one), with_login(one)) for one in (b"null", b'"s"', b"[]", b"{}")),
        (b'{"id":7}', b'{"id":7}'),
        (b'{"id":7,\r"login":{}}', b'{"id":7,"login":{}}'),
        (ANY_SCRIPT, ANY_SCRIPT),
    ],
)
def test_read_page_keeps_users_of_another_shape_byte_for_byte(sent: bytes, kept: bytes) -> None:
    r"""All but secrets and line ends is for the checks to name; `\r` would end a line for some."""
    assert lines_of(read(sent)) == kept + b"\n"


LOOKALIKE = r",\"password\":\"a\",\"salt\":\"b\",\"md5\":\"c\",\"sha1\":\"d\",\"sha256\":\"e\""


@pytest.mark.parametrize("value", [LOOKALIKE, "password", ",password:salt,md5"])
def test_read_page_keeps_a_value_that_reads_like_secrets(value: str) -> None:
    """Text within a value is the user's own, whatever it looks like."""
    sent = user(1).replace(b'"nat":', b'"note":"' + value.encode() + b'","nat":')
    note = json.loads(f'"{value}"')
    assert json.loads(lines_of(read(sent))) == {**builders.user(1), "note": note}


def test_read_page_writes_a_pretty_printed_page_one_user_a_line() -> None:
    """Whitespace between the tokens is the one thing that is not kept."""
    body = json.dumps(json.loads(page_body(user(1), user(2))), indent=2).encode()
    page = read_page(body, CONTRACT)
    assert ids_of(page) == [1, 2]
    assert lines_of(page) == json_lines(builders.user(1), builders.user(2))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.dictionaries(st.text(), JSON_VALUES, max_size=3),
            st.permutations(SECRETS).flatmap(
                lambda names: st.integers(0, len(names)).map(lambda count: names[:count])
            ),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_read_page_loses_nothing_but_secrets(
    made: list[tuple[int, dict[str, Any], list[str], bool]],
    ascii_only: bool,  # noqa: FBT001  # hypothesis draws it
    indent: int | None,
) -> None:
    """Whatever else users hold comes out equal, one a line, and no secret with it."""
    users, kept = [], []
    for number, login, names, first in made:
        secrets = {name: f"{MARK}{name}" for name in names}
        clean = {key: value for key, value in login.items() if key.lower() not in SECRETS}
        users.append({"id": number, "login": secrets | clean if first else clean | secrets})
        kept.append({"id": number, "login": clean})
    envelope = paging.envelope(1, 500, len(users))
    envelope["data"]["data"] = users
    body = json.dumps(envelope, ensure_ascii=ascii_only, indent=indent).encode()
    page = read_page(body, CONTRACT)
    assert MARK.encode() not in lines_of(page)
    assert ids_of(page) == [one["id"] for one in kept]
    assert [json.loads(line) for line in lines_of(page).splitlines()] == kept


BEYOND = b"9223372036854775808"


@pytest.mark.parametrize("number", [-(2**63), 0, 2**63 - 1])
def test_read_page_takes_every_integer_key_that_a_column_can_hold(number: int) -> None:
    """The bounds of 64 bits are keys."""
    assert ids_of(read(b'{"id":%d,"login":{}}' % number)) == [number]


@pytest.mark.parametrize(
    "bad",
    [
        *(b'{"id":%b,"login":{}}' % key for key in (b'"2"', b"2.5", b"true", b"null", BEYOND)),
        *(b'{"login":{}}', b"[2]", b"null"),
    ],
)
def test_read_page_refuses_a_row_without_an_integer_key(bad: bytes) -> None:
    """The place of the row is named, its values are not."""
    with pytest.raises(BadData, match=r"^row 2 of the page has no integer id$"):
        read(user(1), bad)


GOOD = page_body(user(1))
TORN = "truncated or broken JSON"
NO_PAGE = "not one of the API's pages "


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"<html><title>Sign in</title></html>", "not JSON"),
        (GOOD[:-1], TORN),
        (GOOD[:200], TORN),
        (GOOD.replace(b'"email":"', b'"email":"\xff'), TORN),
        (GOOD.replace(b'"email":"', rb'"email":"\ud800'), TORN),
        (page_body(b"[" * 100_000 + b"]" * 100_000), TORN),
        (b"[]", NO_PAGE + "(Expected object, got array)"),
        (b'{"ok":true}', NO_PAGE + "(Object missing required field success)"),
        (b'{"success":true,"data":null}', NO_PAGE + "(no data)"),
        (
            GOOD.replace(b'"page":1', b'"page":"s3cr3t"'),
            NO_PAGE + "(Expected int | null, got str - at $.data.page)",
        ),
        (
            GOOD.replace(b'"nextPage":false', b'"nextPage":2'),
            NO_PAGE + "(Expected bool | null, got int - at $.data.nextPage)",
        ),
    ],
)
def test_read_page_explains_a_body_that_is_no_page_without_any_value(
    body: bytes, sentence: str
) -> None:
    """A body that is not a page gives one phrase."""
    with pytest.raises(Unreadable, match=f"^{re.escape(sentence)}$"):
        read_page(body, CONTRACT)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (page_body(user(1), b'{"id":7,"big":1e400}'), "row 2 of the page: Number out of range"),
        (page_body(user(1), b'{"id":7,"on":[NaN]}'), "data.data[1].on[0] is NaN or an infinity"),
        (GOOD.replace(b'"age":', b'"age":-Infinity,"a":'), "data.data[0].dob.age is NaN or an inf"),
        (GOOD.replace(b'"page":1', b'"page":Infinity'), "data.page is NaN or an infinity"),
    ],
)
def test_read_page_says_where_its_data_is_at_fault(body: bytes, sentence: str) -> None:
    """A number that JSON or a column cannot hold is named by its row or path."""
    with pytest.raises(BadData, match=f"^{re.escape(sentence)}"):
        read_page(body, CONTRACT)


def test_read_page_ignores_a_byte_order_mark() -> None:
    """RFC 8259 forbids to send one and allows to ignore it; two are no JSON."""
    assert lines_of(read_page(b"\xef\xbb\xbf" + GOOD, CONTRACT)) == lines_of(read(user(1)))
    with pytest.raises(Unreadable, match=r"^not JSON$"):
        read_page(b"\xef\xbb\xbf" * 2 + GOOD, CONTRACT)


REFUSAL = b'{"statusCode":500,"data":null,"success":false,"errors":[],"message":"Out of order"}'
REFUSED_ORDER = b'{"ok":false,"error":"Out of order","result":null}'


@pytest.mark.parametrize(("body", "contract"), [(REFUSAL, CONTRACT), (REFUSED_ORDER, ORDERS)])
def test_read_page_raises_the_apis_own_refusal(body: bytes, contract: Contract) -> None:
    """An answer that is no success is told from a page, without the API's message."""
    with pytest.raises(Refused, match=r"^$"):
        read_page(body, contract)


def orders_body(*orders: bytes) -> bytes:
    """The only page of an API that names everything otherwise."""
    return (
        b'{"ok":true,"result":{"at":1,"size":9,"count":%d,"pages":1,"held":%d,"before":false'
        b',"after":false,"orders":[%b]}}' % (len(orders), len(orders), b",".join(orders))
    )


@pytest.mark.parametrize(
    ("more", "unknown"), [(b"", {}), (b',"on":1', {"on": 1})], ids=["fast", "slow"]
)
def test_read_page_drops_secrets_at_the_top_and_below_and_nothing_else(
    more: bytes, unknown: dict[str, int]
) -> None:
    """A row is the same whether or not it keeps the contract: `number` is secret in one place."""
    row = json_lines(order(7)).rstrip()[:-1] + more + b"}"
    sent = row.replace(b'{"order":{', b'{"token":"s3cr3t","order":{"pin":["s3cr3t"],').replace(
        b'"buyer":{', b'"buyer":{"number":{"a":"s3cr3t"},'
    )
    page = read_page(orders_body(sent), ORDERS)
    assert lines_of(page) == row + b"\n"
    assert page.lines.rows == flatten_lines(json_lines(order(7)), ORDERS).rows
    assert (page.lines.undecodable, page.lines.unknown) == ([], unknown)


def test_read_page_drops_secrets_beside_which_there_is_no_column() -> None:
    """An object of nothing but secrets may come after a secret at the top."""
    contract = replace(ORDERS, secrets=("token", "vault.key"))
    sent = order(7, token=MARK, vault={"key": MARK})
    page = read_page(orders_body(json_lines(sent).rstrip()), contract)
    assert lines_of(page) == json_lines(order(7, vault={}))
    assert page.lines.undecodable == []


@pytest.mark.parametrize("bad", [b'{"order":{"number":"7"}}', b'{"order":7}', b'{"number":7}'])
def test_read_page_finds_the_key_in_a_nested_path(bad: bytes) -> None:
    """A key below the top is a key as well, and named by its path where it is missing."""
    good = json_lines(order(7)).rstrip()
    page = read_page(orders_body(good, b'{"order":{"number":8}}'), ORDERS)
    assert page.lines.keys(ORDERS).tolist() == [7, 8]
    with pytest.raises(BadData, match=r"^row 2 of the page has no integer order\.number$"):
        read_page(orders_body(good, bad), ORDERS)


def test_pages_of_an_api_with_other_names_are_read_and_checked() -> None:
    """The envelope, its messages and the plan go by the names of the contract's `Paging`."""
    body = orders_body(json_lines(order(7)).rstrip())
    page = read_page(body, ORDERS)
    plan = plan_of(page, ORDERS.paging)
    assert plan == Plan(1, 9, 1)
    for field, name in (("total_items", "count"), ("limit", "size"), ("next", "after")):
        with pytest.raises(Drift, match=f"^page 1: {name}: expected .+, got None$"):
            plan_of(replace(page, declares={**page.declares, field: None}), ORDERS.paging)
    none = replace(page, lines=flatten_lines(b"", ORDERS))
    with pytest.raises(Drift, match=r"^page 1: rows in orders: expected 1, got 0$"):
        check_page(none, 1, plan, ORDERS.paging)
    for bad, problem in (
        (b'{"ok":true,"result":null}', "no result"),
        (body.replace(b'"size":9,', b""), "Object missing required field size - at $.result"),
        (GOOD, "Object missing required field ok"),
    ):
        sentence = re.escape(f"{NO_PAGE}({problem})")
        with pytest.raises(Unreadable, match=f"^{sentence}$"):
            read_page(bad, ORDERS)


def page_of(number: int, size: int, total: int, **declares: int | None) -> Page:
    """A page that fits its plan, but for what it declares by these names."""
    start, stop = paging.bounds(number, size, total)
    users = [b'{"id":%d,"login":{}}' % place for place in range(start, stop)]
    page = read_page(page_body(*users, page=number, limit=size, total=total), CONTRACT)
    return replace(page, declares={**page.declares, **declares})


@pytest.mark.parametrize(
    ("limit", "total", "rows"),
    [(2, 5, [2, 2, 1]), (2, 4, [2, 2]), (5, 5, [5]), (500, 1, [1]), (1, 2, [1, 1]), (500, 0, [])],
)
def test_plan_of_says_how_many_rows_each_page_must_have(
    limit: int, total: int, rows: list[int]
) -> None:
    """All pages are full but the last one, and each page of such an API fits; none is no drift."""
    plan = plan_of(page_of(1, limit, total), CONTRACT.paging)
    assert plan == Plan(total, limit, len(rows))
    for number, count in enumerate(rows, 1):
        page = page_of(number, limit, total)
        assert len(page.lines) == count
        check_page(page, number, plan, CONTRACT.paging)


@pytest.mark.parametrize(
    ("number", "field", "value", "sentence"),
    [
        (1, "total_items", None, "totalItems: expected a count, got None"),
        (1, "total_items", -1, "totalItems: expected a count, got -1"),
        (1, "limit", None, "limit: expected a positive count, got None"),
        (1, "limit", 0, "limit: expected a positive count, got 0"),
        (1, "limit", -2, "limit: expected a positive count, got -2"),
        (1, "total_pages", None, "totalPages: expected 3, got None"),
        (1, "total_items", 1, "totalPages: expected 1, got 3"),
        (1, "next", False, "nextPage: expected True, got False"),
        (2, "page", 1, "page: expected 2, got 1"),
        (2, "page", None, "page: expected 2, got None"),
        (2, "limit", 3, "limit: expected 2, got 3"),
        (2, "total_items", 6, "totalItems: expected 5, got 6"),
        (2, "total_pages", 4, "totalPages: expected 3, got 4"),
        (2, "page_items", 1, "currentPageItems: expected 2, got 1"),
        (2, "previous", False, "previousPage: expected True, got False"),
        (2, "next", False, "nextPage: expected True, got False"),
        (2, "next", None, "nextPage: expected True, got None"),
        (2, "total_items", None, "totalItems: expected 5, got None"),
        (1, "previous", True, "previousPage: expected False, got True"),
        (3, "next", True, "nextPage: expected False, got True"),
    ],
)
def test_page_that_contradicts_itself_or_the_plan_is_drift(
    number: int, field: str, value: int | None, sentence: str
) -> None:
    """Page 1 is compared with its own plan, any other with that: page, field, expected, got."""
    page = page_of(number, 2, 5, **{field: value})
    check = plan_of if number == 1 else partial(check_page, number=number, plan=Plan(5, 2, 3))
    with pytest.raises(Drift, match=f"^page {number}: {re.escape(sentence)}$"):
        check(page, paging=CONTRACT.paging)


@pytest.mark.parametrize("ids", [[], [3], [3, 4, 5]])
def test_check_page_counts_the_rows_themselves(ids: list[int]) -> None:
    """A count that the page declares does not replace that of its rows."""
    page = replace(page_of(2, 2, 5), lines=read(*map(user, ids)).lines)
    with pytest.raises(Drift, match=f"^page 2: rows in data: expected 2, got {len(ids)}$"):
        check_page(page, 2, Plan(5, 2, 3), CONTRACT.paging)
