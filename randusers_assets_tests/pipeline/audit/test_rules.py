"""The row and snapshot rules: one pass and one fail case each, and their shortcuts held to them."""

import json
import unicodedata
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from randusers_assets.contract import BY_NAME, COLUMNS, Offender, decode
from randusers_assets.pipeline.audit.rules import (
    CONTROL,
    EXAMPLES,
    MAX_NULL_SHARE_CHANGE,
    MAX_ROW_CHANGE,
    PLAIN_EMAIL,
    ROW_RULES,
    Audit,
    Finding,
    Verdict,
    formulas,
    is_email,
    out_of_line,
)
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten
from randusers_sandbox.users import user

[ROW] = flatten(decode(user(1))[0]).to_pylist()


def _batch(*changes: dict[str, Any]) -> pa.RecordBatch:
    """Good users, numbered from 1, each with its changes."""
    rows = [
        {**ROW, "id": number, "login_uuid": f"uuid-{number}", **change}
        for number, change in enumerate(changes, 1)
    ]
    return pa.RecordBatch.from_pylist(rows, arrow_schema())


def _audit(*changes: dict[str, Any]) -> tuple[Audit, Verdict]:
    audit = Audit()
    return audit, audit.add(_batch(*changes))


def test_audit_passes_generated_users() -> None:
    """Users as the sandbox's API sends them break no rule."""
    audit = Audit()
    users, _ = decode(b"".join(user(number) + b"\n" for number in range(1, 1001)))
    batch = flatten(users)
    assert audit.add(batch) == Verdict({})
    assert (audit.rows, audit.rejected) == (1000, 0)
    assert audit.findings == dict.fromkeys(ROW_RULES, Finding())
    assert audit.repeated(lambda: [batch]) == {"id": Finding(), "login_uuid": Finding()}


def test_audit_passes_real_users(real_users: list[dict[str, Any]]) -> None:
    """The API's own records break no rule and share no key."""
    audit = Audit()
    users, _ = decode(b"".join(json.dumps(one).encode() + b"\n" for one in real_users))
    batch = flatten(users)
    assert audit.add(batch) == Verdict({})
    assert audit.rows == len(real_users)
    assert audit.repeated(lambda: [batch]) == {"id": Finding(), "login_uuid": Finding()}


def test_row_rules_cover_the_columns_that_they_speak_of() -> None:
    """Emails, required columns, texts and timestamps: each rule reads all of its columns."""
    assert {name: rule.columns for name, rule in ROW_RULES.items()} == {
        "emails_are_valid": ("email",),
        "required_are_filled": tuple(c.name for c in COLUMNS if c.required),
        "texts_are_single_line": tuple(c.name for c in COLUMNS if c.type != "integer"),
        "timestamps_are_valid": ("dob_date", "registered_date"),
    }


@pytest.mark.parametrize(
    ("rule", "column", "good", "bad", "reasons"),
    [
        (
            "emails_are_valid",
            "email",
            "zoë@example.com",
            "zoe@example",
            ["email: is an email address"],
        ),
        ("required_are_filled", "name_first", "-", None, ["name_first: is filled"]),
        ("required_are_filled", "name_last", " ", "", ["name_last: is filled"]),
        ("required_are_filled", "nat", "NZ", None, ["nat: is filled"]),
        (
            "required_are_filled",
            "dob_date",
            "1968-07-21T10:02:51.768Z",
            None,
            ["dob_date: is filled"],
        ),
        ("texts_are_single_line", "nat", "N\u00a0Z", "N\nZ", ["nat: holds no control character"]),
        (
            "texts_are_single_line",
            "location_city",
            None,
            "a\x00b",
            ["location_city: holds no control character"],
        ),
        (
            "timestamps_are_valid",
            "dob_date",
            "2024-02-29T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            ["dob_date: is a UTC timestamp to the millisecond"],
        ),
    ],
)
def test_row_rule_passes_the_good_and_names_the_bad(
    rule: str, column: str, good: str | None, bad: str | None, reasons: list[str]
) -> None:
    """A good cell breaks no rule; a bad one breaks exactly this one, with its reason."""
    audit, verdict = _audit({column: good}, {column: bad}, {})
    assert verdict == Verdict({1: reasons})
    assert {name: found.users for name, found in audit.findings.items() if found.users} == {rule: 1}
    (example,) = audit.findings[rule].examples
    assert (example.id, example.column) == (2, column)


def test_audit_names_every_rule_that_a_row_breaks() -> None:
    """One bad user is one rejected row, with each of its reasons."""
    audit, verdict = _audit({"email": "", "phone": "1\t2", "dob_date": "\n"})
    assert verdict == Verdict(
        {
            0: [
                "email: is an email address",
                "email: is filled",
                "dob_date: holds no control character",
                "phone: holds no control character",
                "dob_date: is a UTC timestamp to the millisecond",
            ]
        }
    )
    assert (audit.rows, audit.rejected) == (1, 1)


def test_audit_counts_users_not_cells() -> None:
    """A user with three bad cells under one rule is one user."""
    audit, _ = _audit({"phone": "\n", "cell": "\n", "nat": "\n"}, {}, {"cell": "\r"})
    assert audit.findings["texts_are_single_line"].users == 2
    assert audit.rejected == 2


def test_audit_adds_batches_up() -> None:
    """Counts and NULLs run on from batch to batch; a verdict speaks of its own batch alone."""
    audit = Audit()
    assert audit.add(_batch({"name_title": None}, {"email": "x"})).reasons.keys() == {1}
    assert audit.add(_batch({"email": "y", "name_title": None})).reasons.keys() == {0}
    assert (audit.rows, audit.rejected, audit.findings["emails_are_valid"].users) == (3, 2, 2)
    assert audit.nulls == {**dict.fromkeys(BY_NAME, 0), "name_title": 2}


def test_audit_takes_an_empty_batch() -> None:
    """No user breaks no rule."""
    audit = Audit()
    batch = _batch()
    assert audit.add(batch) == Verdict({})
    assert audit.rows == 0
    assert audit.repeated(lambda: [batch]) == {"id": Finding(), "login_uuid": Finding()}
    assert Audit().repeated(list) == {"id": Finding(), "login_uuid": Finding()}


def test_audit_shows_five_masked_examples() -> None:
    """The first five offenders are shown by id, with one character of a personal value."""
    audit, _ = _audit(*({"email": f"secret-{number}"} for number in range(7)))
    finding = audit.findings["emails_are_valid"]
    assert finding.users == 7
    assert EXAMPLES == 5
    assert finding.examples == [Offender(number, "email", "s•••") for number in range(1, 6)]


def test_verdict_keeps_the_good_rows_in_order() -> None:
    """What breaks no rule is kept as it is, what breaks one is not."""
    batch = _batch({}, {"email": "x"}, {}, {"nat": ""}, {})
    verdict = Audit().add(batch)
    assert verdict.good(batch) == batch.take(pa.array([0, 2, 4]))
    good = _batch({}, {})
    assert Audit().add(good).good(good) is good


def test_verdict_may_keep_no_row() -> None:
    """Where every row breaks a rule, none is kept."""
    batch = _batch({"email": "x"}, {"email": "y"})
    kept = Audit().add(batch).good(batch)
    assert (kept.num_rows, kept.schema) == (0, arrow_schema())


def _accepted(address: str) -> bool:
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


_PLAIN = st.from_regex(PLAIN_EMAIL.removeprefix("^").removesuffix("$"), fullmatch=True)


@st.composite
def _near_misses(draw: st.DrawFn) -> str:
    """A plain address with a character or two put in, cut out or written over."""
    address = draw(_PLAIN)
    for _ in range(draw(st.integers(1, 2))):
        at, gone = draw(st.integers(0, len(address))), draw(st.integers(0, 1))
        piece = draw(st.sampled_from([*'.-_@+ \n"(,)AZé\u200f\0', "..", "xn--", ".test", ""]))
        address = address[:at] + piece + address[at + gone :]
    return address


@settings(deadline=None, max_examples=100)
@given(st.lists(_PLAIN, min_size=1, max_size=20, unique=True))
def test_plain_email_passes_nothing_that_email_validator_refuses(addresses: list[str]) -> None:
    """Whatever the shortcut matches, email-validator accepts."""
    assert [one for one in addresses if not _accepted(one)] == []
    assert pc.all(pc.match_substring_regex(pa.array(addresses), PLAIN_EMAIL)).as_py()


@settings(deadline=None, max_examples=150)
@given(st.lists(_near_misses() | st.emails() | st.text(max_size=20), min_size=1, max_size=20))
@example(["a@a.com\n", "A@a.com", "a@xn--a.com", "a@a--b.com", "a@test", "a..b@a.com", ""])
def test_emails_rule_is_the_verdict_of_email_validator(addresses: list[str]) -> None:
    """With or without the shortcut, an address is bad exactly if email-validator refuses it."""
    broken = ROW_RULES["emails_are_valid"].broken(BY_NAME["email"], pa.array(addresses))
    assert broken.tolist() == [row for row, one in enumerate(addresses) if not _accepted(one)]


def test_emails_rule_leaves_null_to_the_required_rule() -> None:
    """A missing address is not filled; it is no invalid one as well."""
    audit, verdict = _audit({"email": None})
    assert verdict == Verdict({0: ["email: is filled"]})
    assert audit.findings["emails_are_valid"] == Finding()


def test_is_email_accepts_and_refuses() -> None:
    """The verdict is on the syntax alone: no name is looked up."""
    assert is_email("ada@no-such-domain-4711.com")
    assert not is_email("ada@@example.com")


def _control(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" or c in "\u2028\u2029" for c in text)


_CELLS = st.none() | st.text(
    st.sampled_from(
        "az é\u00a0\u00c2\u00e2\u2027\u202a€😀\x00\t\n\r\x1f\x7f\x80\x85\x9f\u2028\u2029"
    )
    | st.characters(codec="utf-8"),
    max_size=6,
)


@pytest.mark.parametrize("around", ["az", "é字"])
def test_single_line_finds_every_control_character_alone(around: str) -> None:
    """Each closes by itself, in ASCII text and in other; what stands beside them does not."""
    rule = ROW_RULES["texts_are_single_line"]
    controls = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
    found = [
        code
        for code in [*range(0x110), *range(0x2020, 0x2040)]
        if rule.broken(BY_NAME["nat"], pa.array([chr(code).join(around)])).tolist() == [0]
    ]
    assert found == controls


@settings(deadline=None, max_examples=400)
@given(cells=st.lists(_CELLS, max_size=12), start=st.integers(0, 12), length=st.integers(0, 12))
@example(cells=[], start=0, length=0)
@example(cells=[None, None], start=0, length=2)
@example(cells=["\n", "a"], start=1, length=1)
@example(cells=["a", "\n"], start=0, length=1)
def test_single_line_shortcut_never_changes_the_verdict(
    cells: list[str | None], start: int, length: int
) -> None:
    """The pass over the bytes gives what the regular expression alone gives, also on slices."""
    values = pa.array(cells, pa.string()).slice(start, length)
    rule = ROW_RULES["texts_are_single_line"]
    found = rule.broken(BY_NAME["nat"], values).tolist()
    matched = pc.fill_null(pc.match_substring_regex(values, CONTROL), fill_value=False)
    assert found == pc.indices_nonzero(matched).to_pylist()
    kept = cells[start : start + length]
    assert found == [row for row, cell in enumerate(kept) if cell is not None and _control(cell)]


def test_control_characters_are_all_and_only_those_of_unicode() -> None:
    """Of all characters, the 65 controls and the two line ends are refused."""
    cells = [chr(code) for code in range(0x11_0000) if not 0xD800 <= code < 0xE000]
    found = ROW_RULES["texts_are_single_line"].broken(BY_NAME["nat"], pa.array(cells))
    assert [cells[row] for row in found] == [cell for cell in cells if _control(cell)]
    assert len(found) == 67


def test_repeated_finds_ids_across_batches() -> None:
    """Users who share an id are counted and shown once, wherever they stand."""
    batches = [_batch({}, {"id": 9}), _batch({"id": 9, "login_uuid": "b"}, {"id": 9}), _batch({})]
    audit = Audit()
    for batch in batches:
        audit.add(batch)
    ids = audit.repeated(lambda: batches)["id"]
    assert ids == Finding(5, [Offender(9, "id", "9"), Offender(1, "id", "1")])


def test_repeated_finds_uuids_and_names_the_second_user() -> None:
    """A uuid that stands twice is two users, the later one shown."""
    batch = _batch({}, {"login_uuid": "uuid-1"}, {})
    audit = Audit()
    audit.add(batch)
    assert audit.repeated(lambda: [batch]) == {
        "id": Finding(),
        "login_uuid": Finding(2, [Offender(2, "login_uuid", "uuid-1")]),
    }


def test_repeated_is_not_misled_by_null() -> None:
    """A NULL is no key, and does not hide the repeated one behind it."""
    uuids = [None, "a", None, "b", "b", None]
    batch = _batch(*({"login_uuid": one} for one in uuids))
    audit = Audit()
    audit.add(batch)
    found = audit.repeated(lambda: [batch])["login_uuid"]
    assert found == Finding(2, [Offender(5, "login_uuid", "b")])


def test_repeated_says_the_same_when_asked_again() -> None:
    """The second answer is the first one."""
    batch = _batch({"id": 1}, {"id": 1})
    audit = Audit()
    audit.add(batch)
    assert audit.repeated(lambda: [batch]) == audit.repeated(lambda: [batch])
    assert audit.repeated(lambda: [batch])["id"].users == 2


def test_repeated_compares_exactly_where_hashes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts of one hash are two keys; the snapshot is read again only for such a meeting."""
    batch = _batch({}, {})
    reads: list[int] = []

    def batches() -> list[pa.RecordBatch]:
        reads.append(1)
        return [batch]

    apart = Audit()
    apart.add(batch)
    assert apart.repeated(batches)["login_uuid"] == Finding()
    assert reads == []
    monkeypatch.setattr("randusers_assets.pipeline.audit.rules.hash", lambda _: 7, raising=False)
    meeting = Audit()
    meeting.add(batch)
    assert meeting.repeated(batches)["login_uuid"] == Finding()
    assert reads == [1]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1), _CELLS), max_size=6
        ),
        max_size=4,
    )
)
def test_repeated_counts_what_a_counter_counts(keys: list[list[tuple[int, str | None]]]) -> None:
    """Over any batches, the users who share a key are those that a plain count finds."""
    batches = [_batch(*({"id": one, "login_uuid": uuid} for one, uuid in part)) for part in keys]
    audit = Audit()
    for batch in batches:
        audit.add(batch)
    found = audit.repeated(lambda: batches)
    for place, name in enumerate(("id", "login_uuid")):
        counts = Counter(pair[place] for part in keys for pair in part)
        shared = [count for key, count in counts.items() if count > 1 and key is not None]
        assert found[name].users == sum(shared)
        assert len(found[name].examples) == min(EXAMPLES, len(shared))


@pytest.mark.parametrize("past", [5, 10, 15, 35, 500, 1_000_005])
def test_out_of_line_bounds_the_row_count(past: int) -> None:
    """A fifth more or fewer is in line, one row beyond it is not."""
    fifth = past // 5
    assert MAX_ROW_CHANGE == 0.2
    for rows in (past - fifth, past + fifth, past - fifth + 1, past + fifth - 1):
        assert out_of_line(rows, {}, past, {}) == []
    for rows in (past - fifth - 1, past + fifth + 1):
        assert out_of_line(rows, {}, past, {}) == [
            f"{rows:,} rows after {past:,} (bound: 20%)",
        ]


@pytest.mark.parametrize("past", range(0, 91, 10))
@pytest.mark.parametrize("scale", [1, 7])
def test_out_of_line_bounds_the_share_of_nulls(past: int, scale: int) -> None:
    """A tenth of the rows more or fewer NULLs is in line, one NULL beyond it is not."""
    rows, before, tenth = 100 * scale, past * scale, 10 * scale
    assert MAX_NULL_SHARE_CHANGE == 0.1
    for low, high in ((before, before + tenth), (before, before + tenth - 1)):
        assert out_of_line(rows, {"nat": high}, rows, {"nat": low}) == []
        assert out_of_line(rows, {"nat": low}, rows, {"nat": high}) == []
    beyond = before + tenth + 1
    assert out_of_line(rows, {"nat": beyond}, rows, {"nat": before}) == [
        f"nat is NULL in {beyond / rows:.1%} after {before / rows:.1%} (bound: 10% of the rows)"
    ]
    assert len(out_of_line(rows, {"nat": before}, rows, {"nat": beyond})) == 1


def test_out_of_line_compares_shares_not_counts() -> None:
    """Twice the NULLs of nearly as many rows is told by their shares."""
    assert out_of_line(120, {"nat": 12}, 100, {"nat": 10}) == []
    assert out_of_line(80, {"nat": 20}, 100, {"nat": 10}) == [
        "nat is NULL in 25.0% after 10.0% (bound: 10% of the rows)"
    ]


def test_out_of_line_takes_a_new_column_as_full_before() -> None:
    """A column that the past does not know had no NULL in it."""
    assert out_of_line(100, {"new": 10}, 100, {}) == []
    assert len(out_of_line(100, {"new": 11}, 100, {})) == 1


def test_out_of_line_stops_an_empty_snapshot() -> None:
    """No row after some is a change without bound."""
    assert out_of_line(0, {"nat": 0}, 500, {"nat": 0}) == ["0 rows after 500 (bound: 20%)"]


@pytest.mark.parametrize("cell", ["=1+1", "=", "@SUM(A1)", "+cmd|' /C calc'!A0", "-A1", "+1=2"])
def test_formulas_counts_what_a_spreadsheet_runs(cell: str) -> None:
    """A cell that starts a formula is counted and shown."""
    finding = Finding()
    formulas(_batch({}, {"location_city": cell}), finding)
    assert finding == Finding(1, [Offender(2, "location_city", cell)])


@pytest.mark.parametrize(
    "cell", ["+49 (0)30-1234", "-6:00", "-39.0490", "+", "-", "a=1", " =1", "", None, "'=1"]
)
def test_formulas_passes_what_a_spreadsheet_only_reads(cell: str | None) -> None:
    """Signed numbers, times and phone numbers are no formulas, nor is an inner sign."""
    finding = Finding()
    formulas(_batch({"location_city": cell}), finding)
    assert finding == Finding()


def test_formulas_counts_cells_and_masks_personal_ones() -> None:
    """Every such cell counts; the first five are shown, personal ones masked."""
    finding = Finding()
    formulas(_batch(*[{"phone": "=secret", "cell": "@secret"}] * 4), finding)
    assert finding.users == 8
    assert [offender.shown for offender in finding.examples] == ["=•••"] * 4 + ["@•••"]
