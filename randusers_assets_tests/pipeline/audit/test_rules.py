"""The row rules: one good and one bad cell each, and the shortcuts compared with the slow way."""

import json
import unicodedata
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import rules
from randusers_assets.pipeline.audit.rules import EXAMPLES, Audit, RuleCount, Verdict
from randusers_assets.pipeline.contract import Column, Contract, Offender
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten_lines
from randusers_sandbox.users import user

[ROW] = flatten_lines(user(1), CONTRACT).rows.to_pylist()
RULES = {rule.name: rule for rule in rules.ROW_RULES}
LEAP_DAY = "2024-02-29T00:00:00.000Z"


def _batch(*changes: dict[str, Any]) -> pa.RecordBatch:
    """Good users, numbered from 1, each with its changes."""
    rows = [
        {**ROW, "id": number, "login_uuid": f"uuid-{number}", **change}
        for number, change in enumerate(changes, 1)
    ]
    return pa.RecordBatch.from_pylist(rows, arrow_schema(CONTRACT))


def _audit(*batches: pa.RecordBatch) -> Audit:
    audit = Audit(CONTRACT)
    for batch in batches:
        audit.add(batch)
    return audit


def _bad(rule: str, cells: pa.Array) -> list[int]:
    """The rows that a rule finds bad."""
    rows: list[int] = RULES[rule].find_bad(cells).tolist()
    return rows


def _assert_passes(lines: list[bytes]) -> None:
    batch, audit = flatten_lines(b"\n".join(lines), CONTRACT).rows, Audit(CONTRACT)
    assert audit.add(batch) == Verdict({})
    assert (audit.rows, audit.rejected) == (len(lines), 0)
    assert audit.broken == dict.fromkeys(RULES, RuleCount())
    assert audit.count_duplicates(lambda: [batch]) == dict.fromkeys(CONTRACT.unique, RuleCount())


def test_audit_passes_generated_users() -> None:
    """Users as the sandbox's API sends them break no rule and share no key."""
    _assert_passes([user(number) for number in range(1, 1001)])


def test_audit_passes_real_users(real_users: list[dict[str, Any]]) -> None:
    """The API's own records break no rule and share no key."""
    _assert_passes([json.dumps(one).encode() for one in real_users])


def test_row_rules_apply_to_their_columns() -> None:
    """Each rule checks all columns of its kind; a contract without such columns has no rule."""
    found = rules.row_rules(CONTRACT)
    assert {name: [column.name for column in columns] for name, (_, columns) in found.items()} == {
        "emails_are_valid": ["email"],
        "required_are_filled": [c.name for c in CONTRACT.columns if c.required],
        "texts_are_single_line": [c.name for c in CONTRACT.columns if c.type != "integer"],
        "timestamps_are_valid": ["dob_date", "registered_date"],
    }
    columns = (Column("n", "integer", "A key", required=True), Column("x", "number", "A number"))
    bare = Contract("bare", "1", "http://127.0.0.1:9", columns, key="n", unique=("n",))
    assert {name: columns for name, (_, columns) in rules.row_rules(bare).items()} == {
        "required_are_filled": [columns[0]]
    }


@pytest.mark.parametrize(
    ("rule", "column", "good", "bad"),
    [
        ("emails_are_valid", "email", "zoë@example.com", "zoe@example"),
        ("required_are_filled", "name_first", "-", None),
        ("required_are_filled", "name_last", " ", ""),
        ("required_are_filled", "nat", "NZ", None),
        ("required_are_filled", "dob_date", LEAP_DAY, None),
        ("texts_are_single_line", "nat", "N\u00a0Z", "N\nZ"),
        ("texts_are_single_line", "location_city", None, "a\x00b"),
        ("timestamps_are_valid", "dob_date", LEAP_DAY, LEAP_DAY.replace("2024", "2023")),
    ],
)
def test_row_rule_passes_the_good_and_names_the_bad(
    rule: str, column: str, good: str | None, bad: str | None
) -> None:
    """A good cell breaks no rule; a bad one breaks exactly this one, with its reason."""
    audit = Audit(CONTRACT)
    verdict = audit.add(_batch({column: good}, {column: bad}, {}))
    assert verdict == Verdict({1: [f"{column}: {RULES[rule].fact}"]})
    assert {name: found.rows for name, found in audit.broken.items() if found.rows} == {rule: 1}
    (example,) = audit.broken[rule].examples
    assert (example.id, example.column) == (2, column)


def test_audit_names_every_rule_that_a_row_breaks() -> None:
    """One bad row is one rejected row, with each of its reasons; a NULL is only not filled."""
    audit = Audit(CONTRACT)
    bad = {"email": "", "phone": "1\t2", "dob_date": "\n"}
    assert audit.add(_batch(bad, {"email": None})) == Verdict(
        {
            0: [
                "email: is an email address",
                "email: is filled",
                "dob_date: holds no control character",
                "phone: holds no control character",
                "dob_date: is a UTC timestamp to the millisecond",
            ],
            1: ["email: is filled"],
        }
    )
    assert (audit.rows, audit.rejected, audit.broken["emails_are_valid"].rows) == (2, 2, 1)


def test_audit_adds_batches_up() -> None:
    """Rows, not cells, are counted over all batches; a verdict is about its own batch alone."""
    audit = Audit(CONTRACT)
    bad = {"phone": "\n", "cell": "\n", "nat": "\n", "name_title": None}
    assert audit.add(_batch(bad, {}, {"cell": "\r"})).reasons.keys() == {0, 2}
    assert audit.add(_batch({}, {"phone": "\n", "name_title": None})).reasons.keys() == {1}
    assert audit.add(_batch()) == Verdict({})
    assert (audit.rows, audit.rejected, audit.broken["texts_are_single_line"].rows) == (5, 3, 3)
    assert audit.nulls == {**dict.fromkeys(CONTRACT.by_name, 0), "name_title": 2}


def test_audit_shows_five_masked_examples() -> None:
    """The first five offenders are shown by id, with one character of a personal value."""
    audit = _audit(_batch(*({"email": f"secret-{number}"} for number in range(7))))
    assert EXAMPLES == 5
    examples = [Offender(number, "email", "s•••") for number in range(1, 6)]
    assert audit.broken["emails_are_valid"] == RuleCount(7, examples)


def test_verdict_keeps_the_good_rows_in_order() -> None:
    """Rows that break no rule are kept as they are, the others are not; there may be none."""
    batch = _batch({}, {}, {}, {}, {})
    assert Verdict({1: [], 3: []}).good(batch) == batch.take(pa.array([0, 2, 4]))
    assert Verdict({}).good(batch) is batch
    assert Verdict({row: [] for row in range(5)}).good(batch) == batch.slice(0, 0)


def _accepted(address: str) -> bool:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


_PLAIN = st.from_regex(rules.PLAIN_EMAIL.removeprefix("^").removesuffix("$"), fullmatch=True)


@st.composite
def _near_misses(draw: st.DrawFn) -> str:
    """A plain address with a character or two inserted, removed or replaced."""
    address = draw(_PLAIN)
    for _ in range(draw(st.integers(1, 2))):
        at, gone = draw(st.integers(0, len(address))), draw(st.integers(0, 1))
        piece = draw(st.sampled_from([*'.-_@+ \n"(,)AZé\u200f\0', "..", "xn--", ".test", ""]))
        address = address[:at] + piece + address[at + gone :]
    return address


@given(st.lists(_PLAIN, min_size=1, max_size=20, unique=True))
def test_plain_email_passes_nothing_that_email_validator_refuses(addresses: list[str]) -> None:
    """Whatever the shortcut matches, email-validator accepts."""
    assert [one for one in addresses if not _accepted(one)] == []
    assert pc.all(pc.match_substring_regex(pa.array(addresses), rules.PLAIN_EMAIL)).as_py()


@given(st.lists(_near_misses() | st.emails() | st.text(max_size=20), min_size=1, max_size=20))
@example(["a@a.com\n", "A@a.com", "a@xn--a.com", "a@a--b.com", "a@test", "a..b@a.com", ""])
@example(["ada@no-such-domain-4711.com", "ada@@example.com"])
def test_emails_rule_agrees_with_email_validator(addresses: list[str]) -> None:
    """An address is bad exactly if email-validator refuses its syntax; no name is looked up."""
    refused = [row for row, one in enumerate(addresses) if not _accepted(one)]
    assert _bad("emails_are_valid", pa.array(addresses)) == refused


def has_control(text: str | None) -> bool:
    """Whether a text holds a control character or a Unicode line end."""
    return any(unicodedata.category(c) == "Cc" or c in "\u2028\u2029" for c in text or "")


_CELLS = st.none() | st.text(
    st.sampled_from(
        "az é\u00a0\u00c2\u00e2\u2027\u202a€😀\x00\t\n\r\x1f\x7f\x80\x85\x9f\u2028\u2029"
    )
    | st.characters(codec="utf-8"),
    max_size=6,
)


@pytest.mark.parametrize("around", ["az", "é字"])
def test_single_line_finds_every_control_character_alone(around: str) -> None:
    """Each is found by itself, in ASCII text and in other; the characters next to them are not."""
    controls = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
    found = [
        code
        for code in [*range(0x110), *range(0x2020, 0x2040)]
        if _bad("texts_are_single_line", pa.array([chr(code).join(around)])) == [0]
    ]
    assert found == controls


@given(cells=st.lists(_CELLS, max_size=12), start=st.integers(0, 12), length=st.integers(0, 12))
@example(cells=[], start=0, length=0)
@example(cells=[None, None], start=0, length=2)
@example(cells=["\n", "a"], start=1, length=1)
@example(cells=["a", "\n"], start=0, length=1)
def test_single_line_shortcut_never_changes_the_verdict(
    cells: list[str | None], start: int, length: int
) -> None:
    """The pass over the bytes finds what the regular expression alone finds, also on slices."""
    values = pa.array(cells, pa.string()).slice(start, length)
    found = _bad("texts_are_single_line", values)
    matched = pc.fill_null(pc.match_substring_regex(values, rules.CONTROL), fill_value=False)
    assert found == pc.indices_nonzero(matched).to_pylist()
    kept = cells[start : start + length]
    assert found == [row for row, cell in enumerate(kept) if has_control(cell)]


def test_control_characters_are_all_and_only_those_of_unicode() -> None:
    """Of all characters, the 65 controls and the two line ends are refused."""
    cells = [chr(code) for code in range(0x11_0000) if not 0xD800 <= code < 0xE000]
    found = _bad("texts_are_single_line", pa.array(cells))
    assert [cells[row] for row in found] == [cell for cell in cells if has_control(cell)]
    assert len(found) == 67


def test_duplicates_are_found_across_batches() -> None:
    """Rows that share a key are all counted, each key shown in its second row; NULL is no key."""
    batches = [
        _batch({"login_uuid": None}, {"id": 9, "login_uuid": None}),
        _batch({"id": 9, "login_uuid": "b"}, {"id": 9}),
        _batch({}, {"id": 7, "login_uuid": "b"}),
    ]
    audit = _audit(*batches)
    for _ in range(2):
        assert audit.count_duplicates(lambda: batches) == {
            "id": RuleCount(5, [Offender(9, "id", "9"), Offender(1, "id", "1")]),
            "login_uuid": RuleCount(2, [Offender(7, "login_uuid", "b")]),
        }


def test_duplicates_are_compared_exactly_where_hashes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts of one hash are two keys; the rows are read again only where that happens."""
    batch = _batch({}, {})
    reads: list[int] = []

    def batches() -> list[pa.RecordBatch]:
        reads.append(1)
        return [batch]

    assert _audit(batch).count_duplicates(batches)["login_uuid"] == RuleCount()
    assert reads == []
    monkeypatch.setattr(rules, "hash", lambda _: 7, raising=False)
    assert _audit(batch).count_duplicates(batches)["login_uuid"] == RuleCount()
    assert reads == [1]


_IDS = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.lists(st.tuples(_IDS, _CELLS), max_size=6), max_size=4))
@example([])
@example([[]])
def test_duplicates_are_those_of_a_counter(keys: list[list[tuple[int, str | None]]]) -> None:
    """Over any batches, the rows that share a key are those that a plain count finds."""
    batches = [_batch(*({"id": one, "login_uuid": text} for one, text in part)) for part in keys]
    found = _audit(*batches).count_duplicates(lambda: batches)
    for place, name in enumerate(("id", "login_uuid")):
        counts = Counter(pair[place] for part in keys for pair in part)
        shared = [count for key, count in counts.items() if count > 1 and key is not None]
        assert found[name].rows == sum(shared)
        assert len(found[name].examples) == min(EXAMPLES, len(shared))


def _formulas(*changes: dict[str, Any]) -> RuleCount:
    count = RuleCount()
    # A slice, whose values do not start where its buffers do.
    rules.count_formulas(_batch({"location_city": "=0"}, *changes).slice(1), CONTRACT, count)
    return count


RUN = ["=1+1", "=", "@SUM(A1)", "+cmd|' /C calc'!A0", "-A1", "+1=2"]
READ = ["+49 (0)30-1234", "-6:00", "-39.0490", "+", "-", "a=1", " =1", "", None, "'=1"]


@pytest.mark.parametrize("cell", [*RUN, *READ])
def test_formulas_counts_what_a_spreadsheet_runs(cell: str | None) -> None:
    """A cell that starts a formula is counted; signed numbers, times and inner signs are not."""
    shown = [Offender(2, "location_city", str(cell))] if cell in RUN else []
    assert _formulas({"location_city": cell}, {}) == RuleCount(len(shown), shown)


def test_formulas_counts_cells_and_masks_personal_ones() -> None:
    """Every such cell counts; the first five are shown, personal ones masked."""
    count = _formulas(*[{"phone": "=secret", "cell": "@secret"}] * 4)
    assert count.rows == 8
    assert [offender.shown for offender in count.examples] == ["=•••"] * 4 + ["@•••"]
