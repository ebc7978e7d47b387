"""A page is read as the API sent it, less the credentials, and held against the plan."""

import json
import re
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from randusers_assets.contract import CREDENTIALS
from randusers_assets.pipeline.fetch.pages import (
    Drift,
    Page,
    Plan,
    Refused,
    Unreadable,
    check_page,
    plan_of,
    read_page,
)
from randusers_sandbox import paging
from randusers_sandbox.users import user

MARK = "s3cr3t"


def page_body(*users: bytes, page: int = 1, limit: int = 500, total: int | None = None) -> bytes:
    """The API's body of one page, compact, with these users in it."""
    envelope = paging.envelope(page, limit, len(users) if total is None else total)
    head, tail = json.dumps(envelope, separators=(",", ":")).encode().split(b"[]")
    return head + b"[" + b",".join(users) + b"]" + tail


def compact(value: object) -> bytes:
    """JSON as JavaScript writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def lines_of(page: Page) -> bytes:
    """A page's JSON lines."""
    return pa.input_stream(pa.py_buffer(page.pressed), compression="zstd").read()  # type: ignore[no-any-return]  # pyarrow is untyped


def ids_of(page: Page) -> list[int]:
    """The ids of a page's users."""
    return page.flat.ids().tolist()


def less_credentials(sent: bytes) -> dict[str, Any]:
    """What must be left of a user that the API sent."""
    kept: dict[str, Any] = json.loads(sent)
    kept["login"] = {k: v for k, v in kept["login"].items() if k not in CREDENTIALS}
    return kept


def with_login(login: bytes) -> bytes:
    """A user whose `login` is this JSON."""
    return b'{"id":7,"login":' + login + b',"nat":"NZ"}'


def test_read_page_reads_the_apis_own_envelope() -> None:
    """What page 2 of 3 declares, and its users' ids, are the API's."""
    users = [user(number) for number in (3, 4)]
    page = read_page(page_body(*users, page=2, limit=2, total=5))
    assert ids_of(page) == [3, 4]
    assert page.declares == {
        "page": 2,
        "limit": 2,
        "totalPages": 3,
        "totalItems": 5,
        "currentPageItems": 2,
        "previousPage": True,
        "nextPage": True,
    }


def test_read_page_keeps_every_other_byte_of_a_compact_user() -> None:
    """The lines are the API's own text with the five credentials cut out, and nothing else."""
    sent = user(1)
    login = json.loads(sent)["login"]
    cut = "".join(f',"{name}":"{login[name]}"' for name in CREDENTIALS).encode()
    assert sent.count(cut) == 1
    assert lines_of(read_page(page_body(sent))) == sent.replace(cut, b"") + b"\n"


def test_read_page_keeps_unknown_fields_byte_for_byte() -> None:
    """Numbers, escapes and objects that the contract does not know are not written anew."""
    unknown = rb'"score":1.50,"big":1e3,"text":"a\u0041\/\"","deep":{"b":[1, 2],"a":null}'
    sent = rb'{"id":7,"login":{"uuid":"u","password":"p\"\\","salt":"\"","md5":"m","sha1":"1"'
    sent += b',"sha256":"2"},' + unknown + b"}"
    lines = lines_of(read_page(page_body(sent)))
    assert lines == b'{"id":7,"login":{"uuid":"u"},' + unknown + b"}\n"


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(
            b'{"uuid":"u","password":"%b","salt":"%b","md5":"%b","sha1":"%b","sha256":"%b"}',
            id="the API's order",
        ),
        pytest.param(
            rb'{"uuid":"u","password":"\"%b\\","salt":"}%b","md5":"%b\"","sha1":"%b","sha256":"%b"}',
            id="escaped quotes",
        ),
        pytest.param(
            b'{"sha256":"%b","sha1":"%b","uuid":"u","md5":"%b","salt":"%b","password":"%b"}',
            id="another order",
        ),
        pytest.param(
            b'{"password":"%b","salt":"%b","md5":"%b","sha1":"%b","sha256":"%b","uuid":"u"}',
            id="credentials first",
        ),
        pytest.param(
            b'{"uuid":"u", "password" : "%b",\n"salt":\t"%b","md5": "%b","sha1":"%b"'
            b',"sha256":"%b" }',
            id="whitespace",
        ),
        pytest.param(
            rb'{"uuid":"u","pass\u0077ord":"%b","\u0073alt":"%b","md\u0035":"%b"'
            rb',"sha\u0031":"%b","sha25\u0036":"%b"}',
            id="escaped names",
        ),
        pytest.param(
            b'{"uuid":"u","password":["%b"],"salt":{"a":"%b"},"md5":["%b"],"sha1":"%b"'
            b',"sha256":[["%b"]]}',
            id="not text",
        ),
        pytest.param(
            b'{"password":"%b","salt":"%b","md5":"%b"},"login":{"sha1":"%b","sha256":"%b"'
            b',"uuid":"u"}',
            id="login twice",
        ),
        pytest.param(
            b'{"password":"%b","salt":"%b","md5":"%b","sha1":"%b","sha256":"%b"}'
            b',"login":{"uuid":"u"}',
            id="login twice, the last one clean",
        ),
    ],
)
def test_read_page_drops_credentials_however_they_are_spelt(login: bytes) -> None:
    """Order, spacing, escapes and types of the credentials do not let one through."""
    sent = with_login(login.replace(b"%b", MARK.encode()))
    page = read_page(page_body(user(1), sent, user(2)))
    assert MARK.encode() not in lines_of(page)
    assert ids_of(page) == [1, 7, 2]
    lines = lines_of(page).splitlines()
    assert [json.loads(line) for line in lines] == [
        less_credentials(user(1)),
        {"id": 7, "login": {"uuid": "u"}, "nat": "NZ"},
        less_credentials(user(2)),
    ]


@pytest.mark.parametrize(
    ("login", "kept"),
    [
        (b'[{"password":"s3cr3t","uuid":"u"}]', [{"uuid": "u"}]),
        (b'{"salt":"s3cr3t","was":[{"md5":"s3cr3t","on":1}]}', {"was": [{"on": 1}]}),
        (b"null", None),
        (b'"s"', "s"),
        (b"[]", []),
        (b"{}", {}),
    ],
    ids=["a list", "a list within", "null", "text", "an empty list", "an empty object"],
)
def test_read_page_keeps_a_login_of_another_shape_less_its_credentials(
    login: bytes, kept: object
) -> None:
    """A retyped `login` reaches the schema gate as it is, but for the credentials within."""
    page = read_page(page_body(with_login(login)))
    assert json.loads(lines_of(page)) == {"id": 7, "login": kept, "nat": "NZ"}


def test_read_page_keeps_a_user_without_a_login() -> None:
    """A missing `login` is for the schema gate to name, not invented here."""
    assert lines_of(read_page(page_body(b'{"id":7}'))) == b'{"id":7}\n'


@pytest.mark.parametrize(
    "value",
    [
        r",\"password\":\"a\",\"salt\":\"b\",\"md5\":\"c\",\"sha1\":\"d\",\"sha256\":\"e\"",
        "password",
        ",password:salt,md5",
    ],
)
def test_read_page_keeps_a_value_that_reads_like_credentials(value: str) -> None:
    """Text within a value is the user's own, whatever it looks like."""
    sent = user(1).replace(b'"nat":', b'"note":"' + value.encode() + b'","nat":')
    assert json.loads(lines_of(read_page(page_body(sent)))) == less_credentials(sent)


def test_read_page_writes_a_pretty_printed_page_one_user_a_line() -> None:
    """Whitespace between the tokens is the one thing that is not kept."""
    body = json.dumps(json.loads(page_body(user(1), user(2))), indent=2).encode()
    page = read_page(body)
    assert ids_of(page) == [1, 2]
    assert lines_of(page) == b"".join(compact(less_credentials(user(n))) + b"\n" for n in (1, 2))


def test_read_page_writes_a_carriage_return_between_tokens_as_nothing() -> None:
    r"""Readers of lines split at `\r` as well, so that none is left."""
    assert lines_of(read_page(page_body(b'{"id":7,\r"login":{}}'))) == b'{"id":7,"login":{}}\n'


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
            st.permutations(CREDENTIALS).flatmap(
                lambda names: st.integers(0, len(names)).map(lambda count: names[:count])
            ),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
# A busy machine draws slowly; that is no fault of the strategy's.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_read_page_loses_nothing_but_credentials(
    made: list[tuple[int, dict[str, Any], list[str], bool]],
    ascii_only: bool,  # noqa: FBT001  # hypothesis draws it
    indent: int | None,
) -> None:
    """Whatever else users hold comes out equal, one a line, and no credential with it."""
    users, kept = [], []
    for number, login, credentials, first in made:
        secrets = {name: f"{MARK}{name}" for name in credentials}
        clean = {k: v for k, v in login.items() if k not in CREDENTIALS}
        users.append({"id": number, "login": secrets | clean if first else clean | secrets})
        kept.append({"id": number, "login": clean})
    envelope = paging.envelope(1, 500, len(users))
    envelope["data"]["data"] = users
    body = json.dumps(envelope, ensure_ascii=ascii_only, indent=indent).encode()
    page = read_page(body)
    assert MARK.encode() not in lines_of(page)
    assert ids_of(page) == [one["id"] for one in kept]
    assert [json.loads(line) for line in lines_of(page).splitlines()] == kept


@pytest.mark.parametrize("number", [-(2**63), 0, 2**63 - 1])
def test_read_page_takes_every_integer_id_that_a_column_can_hold(number: int) -> None:
    """The bounds of 64 bits are ids."""
    assert ids_of(read_page(page_body(b'{"id":%d,"login":{}}' % number))) == [number]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id":"2","login":{}}',
        b'{"id":2.5,"login":{}}',
        b'{"id":true,"login":{}}',
        b'{"id":null,"login":{}}',
        b'{"id":9223372036854775808,"login":{}}',
        b'{"login":{}}',
        b"[2]",
        b"null",
    ],
)
def test_read_page_refuses_a_user_without_an_integer_id(bad: bytes) -> None:
    """The place of the user is named, its values are not."""
    with pytest.raises(Unreadable, match=r"^user 2 of the page has no integer id$"):
        read_page(page_body(user(1), bad))


GOOD = page_body(user(1))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"<html><title>Sign in</title></html>", "not JSON"),
        (GOOD[:-1], "broken off or broken JSON"),
        (GOOD[:200], "broken off or broken JSON"),
        (GOOD.replace(b'"email":"', b'"email":"\xff'), "broken off or broken JSON"),
        (GOOD.replace(b'"email":"', rb'"email":"\ud800'), "broken off or broken JSON"),
        (page_body(b"[" * 100_000 + b"]" * 100_000), "broken off or broken JSON"),
        (
            page_body(b'{"id":7,"login":{"salt":1e400}}'),
            "not one of the API's pages (Number out of range - at $[...][...])",
        ),
        (b"[]", "not one of the API's pages (Expected object, got array)"),
        (
            b'{"ok":true}',
            "not one of the API's pages (Object missing required field success)",
        ),
        (b'{"success":true,"data":null}', "not one of the API's pages (no data)"),
        (
            GOOD.replace(b'"page":1', b'"page":"s3cr3t"'),
            "not one of the API's pages (Expected int | null, got str - at $.data.page)",
        ),
        (
            GOOD.replace(b'"nextPage":false', b'"nextPage":2'),
            "not one of the API's pages (Expected bool | null, got int - at $.data.nextPage)",
        ),
    ],
)
def test_read_page_says_what_is_wrong_with_a_body_and_shows_no_value(
    body: bytes, sentence: str
) -> None:
    """A body that is not a page gives one phrase."""
    with pytest.raises(Unreadable, match=f"^{re.escape(sentence)}$"):
        read_page(body)


def test_read_page_takes_any_script() -> None:
    """The other side of the UTF-8 rule: text that is valid is kept as it is."""
    sent = '{"id":7,"login":{},"name":"Păun 田中 👩‍🔬\u2028"}'.encode()
    assert lines_of(read_page(page_body(sent))) == sent + b"\n"


def test_read_page_raises_the_apis_own_refusal() -> None:
    """`success: false` carries the API's message."""
    body = b'{"statusCode":500,"data":null,"success":false,"errors":[],"message":"Out of order"}'
    with pytest.raises(Refused, match=r"^Out of order$"):
        read_page(body)


def page_of(number: int, size: int, total: int, **declares: int | None) -> Page:
    """A page that fits its plan, but for what it declares by these names."""
    start, stop = paging.bounds(number, size, total)
    users = [b'{"id":%d,"login":{}}' % place for place in range(start, stop)]
    page = read_page(page_body(*users, page=number, limit=size, total=total))
    return replace(page, declares={**page.declares, **declares})


@pytest.mark.parametrize(
    ("limit", "total", "rows"),
    [(2, 5, [2, 2, 1]), (2, 4, [2, 2]), (5, 5, [5]), (500, 1, [1]), (1, 2, [1, 1])],
)
def test_plan_of_says_how_many_users_each_place_calls_for(
    limit: int, total: int, rows: list[int]
) -> None:
    """All pages are full but the last one, and each page of such an API fits."""
    plan = plan_of(page_of(1, limit, total))
    assert plan == Plan(total, limit, len(rows))
    assert [plan.rows_of(number) for number in range(1, plan.pages + 1)] == rows
    for number in range(1, plan.pages + 1):
        check_page(page_of(number, limit, total), number, plan)


def test_plan_of_an_empty_api_is_no_pages() -> None:
    """Zero users contradict nothing; whether they may be published is not the page's matter."""
    assert plan_of(page_of(1, 500, 0)) == Plan(0, 500, 0)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("totalItems", None, "page 1: totalItems: expected a count, got None"),
        ("totalItems", -1, "page 1: totalItems: expected a count, got -1"),
        ("limit", None, "page 1: limit: expected a positive count, got None"),
        ("limit", 0, "page 1: limit: expected a positive count, got 0"),
        ("limit", -2, "page 1: limit: expected a positive count, got -2"),
        ("totalPages", None, "page 1: totalPages: expected 3, got None"),
        ("totalItems", 1, "page 1: totalPages: expected 1, got 3"),
        ("nextPage", False, "page 1: nextPage: expected True, got False"),
    ],
)
def test_plan_of_a_page_that_contradicts_itself_is_drift(
    field: str, value: int | None, sentence: str
) -> None:
    """The first page is held against its own plan."""
    with pytest.raises(Drift, match=f"^{re.escape(sentence)}$"):
        plan_of(page_of(1, 2, 5, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("page", 1, "page: expected 2, got 1"),
        ("page", None, "page: expected 2, got None"),
        ("limit", 3, "limit: expected 2, got 3"),
        ("totalItems", 6, "totalItems: expected 5, got 6"),
        ("totalPages", 4, "totalPages: expected 3, got 4"),
        ("currentPageItems", 1, "currentPageItems: expected 2, got 1"),
        ("previousPage", False, "previousPage: expected True, got False"),
        ("nextPage", False, "nextPage: expected True, got False"),
        ("nextPage", None, "nextPage: expected True, got None"),
    ],
)
def test_check_page_names_the_field_that_does_not_fit(
    field: str, value: int | None, sentence: str
) -> None:
    """Each field is held against the plan: page, field, expected, got."""
    with pytest.raises(Drift, match=f"^page 2: {re.escape(sentence)}$"):
        check_page(page_of(2, 2, 5, **{field: value}), 2, Plan(5, 2, 3))


@pytest.mark.parametrize("ids", [[], [3], [3, 4, 5]])
def test_check_page_counts_the_users_themselves(ids: list[int]) -> None:
    """A count that the page declares does not stand in for its users."""
    flat = read_page(page_body(*map(user, ids))).flat
    page = replace(page_of(2, 2, 5), flat=flat)
    sentence = f"^page 2: users in data: expected 2, got {len(ids)}$"
    with pytest.raises(Drift, match=sentence):
        check_page(page, 2, Plan(5, 2, 3))
