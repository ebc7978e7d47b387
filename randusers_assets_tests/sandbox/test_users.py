"""Generated users have the shape of the API's users and the quirks of its data."""

import json
import re
import unicodedata
import uuid
from collections import Counter
from typing import Any

import pytest
from email_validator import validate_email

from randusers_assets_tests.sandbox.processes import python
from randusers_sandbox.users import user

# One user of the API without its values: the keys in the order that the API sends.
SHAPE = (
    '{"gender":0,"name":{"title":0,"first":0,"last":0},"location":{"street":{"number":0,"name":0},'
    '"city":0,"state":0,"country":0,"postcode":0,"coordinates":{"latitude":0,"longitude":0},'
    '"timezone":{"offset":0,"description":0}},"email":0,"login":{"uuid":0,"username":0,'
    '"password":0,"salt":0,"md5":0,"sha1":0,"sha256":0},"dob":{"date":0,"age":0},'
    '"registered":{"date":0,"age":0},"phone":0,"cell":0,"id":0,'
    '"picture":{"large":0,"medium":0,"thumbnail":0},"nat":0}'
)
DATE = re.compile(r"(19|20)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def users() -> list[dict[str, Any]]:
    """Return four blocks of 500 users."""
    return [json.loads(user(number)) for number in range(1, 2001)]


def _shape(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    return 0


def test_users_have_the_keys_of_the_api_in_its_order(users: list[dict[str, Any]]) -> None:
    """Every user has the keys that the API sends, in the same order."""
    assert {json.dumps(_shape(one), separators=(",", ":")) for one in users} == {SHAPE}


def test_real_users_have_the_keys_of_the_api_in_its_order(real_users: list[dict[str, Any]]) -> None:
    """The sample of the API's users has its shape, with postcodes of both types."""
    assert {json.dumps(_shape(one), separators=(",", ":")) for one in real_users} == {SHAPE}
    assert {type(one["location"]["postcode"]) for one in real_users} == {int, str}


def test_users_are_compact_utf8_json(users: list[dict[str, Any]]) -> None:
    """A user is formatted as by JavaScript's JSON.stringify: no spaces, no escaped letters."""
    for one in users:
        again = json.dumps(one, ensure_ascii=False, separators=(",", ":"))
        assert user(one["id"]) == again.encode()


def test_users_are_a_function_of_number_and_seed() -> None:
    """Another process makes the same bytes; another seed does not."""
    code = "import sys; from randusers_sandbox.users import user; print(user(7, 3).decode())"
    assert python("-c", code, PYTHONIOENCODING="utf-8").stdout == user(7, 3).decode() + "\n"
    assert user(7, 3) != user(7, 4)


def test_users_are_numbered_and_have_a_valid_uuid_each(users: list[dict[str, Any]]) -> None:
    """The ids are 1 to n, and the uuids are unique and of version 4."""
    assert [one["id"] for one in users] == list(range(1, 2001))
    uuids = {uuid.UUID(one["login"]["uuid"]) for one in users}
    assert len(uuids) == len(users)
    assert {(one.version, one.variant) for one in uuids} == {(4, uuid.RFC_4122)}


def test_users_repeat_one_email_in_each_500(users: list[dict[str, Any]]) -> None:
    """In each block of 500 exactly two users share an email and a name."""
    for start in range(0, 2000, 500):
        block = users[start : start + 500]
        counts = Counter(one["email"] for one in block)
        assert sorted(counts.values()) == [1] * 498 + [2]
        (shared,) = (email for email, count in counts.items() if count == 2)
        one, other = (one["name"] for one in block if one["email"] == shared)
        assert one == other
    assert len({one["email"] for one in users}) == 1996


def test_users_have_emails_that_email_validator_accepts(users: list[dict[str, Any]]) -> None:
    """Every email is valid, normalized, in ASCII, and at example.com."""
    for one in users:
        verdict = validate_email(one["email"], check_deliverability=False)
        assert (verdict.normalized, verdict.ascii_domain) == (one["email"], "example.com")


def test_users_have_integer_postcodes_four_times_in_five(users: list[dict[str, Any]]) -> None:
    """One postcode in five is a string, since it has a space or a leading zero."""
    postcodes = [one["location"]["postcode"] for one in users]
    strings = [code for code in postcodes if isinstance(code, str)]
    assert {type(code) for code in postcodes} == {int, str}
    assert 0.75 < 1 - len(strings) / len(postcodes) < 0.85
    assert {(" " in code, code[0] == "0") for code in strings} >= {(True, False), (False, True)}
    assert all(" " in code or code[0] == "0" for code in strings)


def test_users_have_names_in_many_scripts(users: list[dict[str, Any]]) -> None:
    """Names are in Latin letters with accents and in at least seven other scripts."""
    letters = {c for one in users for c in one["name"]["first"] + one["name"]["last"]}
    scripts = {unicodedata.name(c).split()[0] for c in letters if c.isalpha()}
    others = {"CYRILLIC", "ARABIC", "DEVANAGARI", "GREEK", "CJK", "HIRAGANA", "KATAKANA"}
    assert scripts >= {"LATIN"} | others
    assert any("WITH" in unicodedata.name(c) for c in letters)


def test_users_have_values_that_a_spreadsheet_reads_as_formulas(
    users: list[dict[str, Any]],
) -> None:
    """Some phones, cells, states and time zone offsets start with `+`, others with `-`."""
    for values in (
        [one["phone"] for one in users],
        [one["cell"] for one in users],
        [one["location"]["state"] for one in users],
        [one["location"]["timezone"]["offset"] for one in users],
    ):
        assert {"+", "-"} < {value[0] for value in values}


def test_users_have_values_in_the_formats_of_the_api(users: list[dict[str, Any]]) -> None:
    """Dates, coordinates, hashes, pictures and ages look like the API's."""
    for one in users:
        coordinates, login = one["location"]["coordinates"], one["login"]
        assert re.fullmatch(r"-?\d{1,2}\.\d{4}", coordinates["latitude"])
        assert re.fullmatch(r"-?\d{1,3}\.\d{4}", coordinates["longitude"])
        assert DATE.fullmatch(one["dob"]["date"])
        assert DATE.fullmatch(one["registered"]["date"])
        assert 2022 <= int(one["dob"]["date"][:4]) + one["dob"]["age"] <= 2023
        for key, length in (("md5", 32), ("sha1", 40), ("sha256", 64)):
            assert re.fullmatch(f"[0-9a-f]{{{length}}}", login[key])
        folder = {"male": "men", "female": "women"}[one["gender"]]
        assert re.fullmatch(
            rf"https://randomuser\.me/api/portraits/thumb/{folder}/\d\d?\.jpg",
            one["picture"]["thumbnail"],
        )
