"""The audited CSV: every row is published or set aside, once, and reads back as it was."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.encode import audit_csv, reject_schema
from randusers_assets.pipeline.audit.rules import RuleCount
from randusers_assets.pipeline.contract import Column, Contract, Offender
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.frames import decode_raw, flatten
from randusers_assets_tests.builders import bytes_of, csv_of, frames_of, raw_users_of, user, users
from randusers_assets_tests.pipeline.audit.test_csv_format import read_ours
from randusers_assets_tests.pipeline.publish.bucket import BAD_EMAIL

REJECTS = reject_schema(CONTRACT)
COLUMNS = (
    Column("id", "integer", "The key", required=True),
    Column("size.weight", "number", "In kg", required=True),
    Column("tags", "json", "Labels, as sent"),
)
THINGS = Contract("things", "1", "http://127.0.0.1:9/things", COLUMNS, key="id", unique=("id",))


def test_audit_csv_counts_rows_and_bytes() -> None:
    """Ten good users are ten records; the digest is that of the bytes, and nothing is rejected."""
    csv = csv_of(users(10, name_title=None))
    assert (csv.facts.fetch.declared, csv.facts.raw_rows) == (10, 10)
    assert (csv.rows, csv.rejected, csv.published) == (10, 0, 10)
    assert csv.file.sha256 == hashlib.sha256(bytes_of(csv.file)).hexdigest()
    assert [record["id"] for record in read_ours(bytes_of(csv.file))] == list(range(1, 11))
    assert csv.nulls == {**dict.fromkeys(CONTRACT.by_name, 0), "name_title": 1}
    assert bytes_of(csv.rejects) == csv_format.encode_header(REJECTS)
    assert not any(count.rows for count in [*csv.broken.values(), *csv.duplicates.values()])
    assert (len(csv.broken), len(csv.duplicates), csv.formulas) == (4, 2, RuleCount())


def test_audit_csv_sets_bad_rows_aside_with_every_reason() -> None:
    """Rejects hold the whole row with each rule it breaks; of an undecodable one what is legible.

    NULLs are counted of the published rows alone; the same rows give the same bytes again.
    """
    snapshot = [
        user(1, email=BAD_EMAIL, name_first="", name_title=None, dob_date="2001-02-30T00:00:00.0Z"),
        user(2, location_city="a\nb"),
        user(3, location_postcode=[1]),
        *(user(number, name_title=None) for number in range(4, 11)),
    ]
    csv, again = csv_of(snapshot), csv_of(snapshot)
    assert (csv.file.sha256, csv.rejects.sha256) == (again.file.sha256, again.rejects.sha256)
    assert (csv.rows, csv.rejected, csv.published) == (9, 2, 7)
    assert [record["id"] for record in read_ours(bytes_of(csv.file))] == list(range(4, 11))
    assert csv.nulls["name_title"] == 7
    rejects = read_ours(bytes_of(csv.rejects), REJECTS)
    reasons = "email: is an email address; name_first: is filled;"
    assert [(reject["id"], reject["broken_rules"]) for reject in rejects] == [
        (1, f"{reasons} dob_date: is a UTC timestamp to the millisecond"),
        (2, "location_city: holds no control character"),
        (3, "location.postcode: expected int or str, got array"),
    ]
    cities = [snapshot[0]["location"]["city"], "a\nb", snapshot[2]["location"]["city"]]
    assert [reject["location_city"] for reject in rejects] == cities
    assert rejects[2]["location_postcode"] is None
    assert csv.broken == {
        "emails_are_valid": RuleCount(1, [Offender(1, "email", "n•••")]),
        "required_are_filled": RuleCount(1, [Offender(1, "name_first", "")]),
        "texts_are_single_line": RuleCount(1, [Offender(2, "location_city", "a\nb")]),
        "timestamps_are_valid": RuleCount(1, [Offender(1, "dob_date", "2•••")]),
    }


def test_audit_csv_counts_duplicates_and_formulas() -> None:
    """Shared keys and formulas are counted, and set nothing aside."""
    csv = csv_of(users(10, id=2, location_city="=1+1"))
    twice = RuleCount(2, [Offender(2, "id", "2")])
    assert csv.duplicates == {"id": twice, "login_uuid": RuleCount()}
    assert csv.formulas == RuleCount(1, [Offender(2, "location_city", "=1+1")])
    assert (csv.rejected, csv.published) == (0, 10)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (lambda records: records.replace(b'""', b""), "id 4"),
        (lambda records: records[: records.rindex(b"\n", 0, -1) + 1], "the number of rows"),
    ],
    ids=["a value", "a row"],
)
def test_audit_csv_fails_if_rows_do_not_read_back(
    monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], first: str
) -> None:
    """An encoder that loses the empty text, or a row, is caught; no retry would help."""
    encode = csv_format.encode_csv
    monkeypatch.setattr(csv_format, "encode_csv", lambda rows: damage(encode(rows)))
    with pytest.raises(SnapshotError) as caught:
        csv_of([*users(3), user(4, name_title=""), user(5)])
    assert not caught.value.retryable
    assert str(caught.value) == (
        "The CSV does not read back as the rows that it was made from, first at"
        f" {first}: nothing is written."
    )


def test_audit_csv_copies_the_published_rows_to_parquet() -> None:
    """The rows of the CSV, typed, NULL apart from `""`; the same rows give the same bytes."""
    first = user(1, name_title=None, dob_age=None, dob_date="1968-07-21T10:02:51.768Z")
    snapshot = [first, user(2, email=BAD_EMAIL), user(3, name_title="")]
    csv, again = csv_of(snapshot), csv_of(snapshot)
    assert csv.parquet_copy
    assert again.parquet_copy
    assert bytes_of(csv.parquet_copy) == bytes_of(again.parquet_copy)
    table = pq.read_table(pa.BufferReader(bytes_of(csv.parquet_copy)))
    types = {"integer": pa.int64(), "number": pa.float64(), "timestamp": pa.timestamp("ms", "UTC")}
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == {
        c.name: types.get(c.type, pa.string()) for c in CONTRACT.columns
    }
    # As text, the instants are what the CSV has.
    rows = table.to_pylist()
    assert rows[0]["dob_date"].isoformat() == "1968-07-21T10:02:51.768000+00:00"
    for name in ("dob_date", "registered_date"):
        texts = pc.strftime(table.column(name), "%Y-%m-%dT%H:%M:%SZ")
        table = table.set_column(table.column_names.index(name), name, texts)
    assert table.to_pylist() == read_ours(bytes_of(csv.file))
    assert [(row["id"], row["name_title"], row["dob_age"]) for row in rows] == [
        (1, None, None),
        (3, "", snapshot[2]["dob"]["age"]),
    ]


def test_audit_csv_makes_no_parquet_copy_where_it_is_turned_off() -> None:
    """Nothing else depends on it."""
    frames = frames_of(users(3))
    on, off = audit_csv(frames), audit_csv(frames, parquet_copy=False)
    assert off.parquet_copy is None
    assert (off.file.sha256, off.nulls) == (on.file.sha256, on.nulls)


def test_audit_csv_writes_numbers_and_json() -> None:
    """Numbers are bare and exact, JSON is compact text; the rules apply to both."""
    sent = [
        {"id": 1, "size": {"weight": 0.1}, "tags": ["a,b", 'c"', None, {"d\n": 1.5}]},
        {"id": 2, "size": {"weight": 5}, "tags": {}},
        {"id": 3, "size": {"weight": -9007199254740991.0}, "tags": None},
        {"id": 4, "size": {"weight": None}, "tags": []},
        {"id": 5, "size": {"weight": 5e-324}, "tags": ["a\u2028b"]},
        {"id": 6, "size": {"weight": "heavy"}, "tags": [6]},
    ]
    csv = audit_csv(flatten(decode_raw(replace(raw_users_of(sent), contract=THINGS))))
    assert bytes_of(csv.file).decode() == (
        '"id","size_weight","tags"\n'
        '1,0.1,"[""a,b"",""c\\"""",null,{""d\\n"":1.5}]"\n'
        '2,5,"{}"\n'
        "3,-9.007199254740991e+15,\n"
    )
    assert bytes_of(csv.rejects).decode() == (
        '"id","size_weight","tags","broken_rules"\n'
        '4,,"[]","size_weight: is filled"\n'
        '5,5e-324,"[""a\u2028b""]","tags: holds no control character"\n'
        '6,,"[6]","size.weight: expected float, got str"\n'
    )
    assert csv.nulls == {"id": 0, "size_weight": 0, "tags": 1}
    assert csv.parquet_copy
    copy = pq.read_table(pa.BufferReader(bytes_of(csv.parquet_copy)))
    assert copy.schema.types == [pa.int64(), pa.float64(), pa.string()]
    assert copy.column("size_weight").to_pylist() == [0.1, 5.0, -9007199254740991.0]


FAULTS: list[Mapping[str, object]] = [
    {},
    {"email": BAD_EMAIL},
    {"email": None},
    {"name_last": ""},
    {"phone": "1\u20282"},
    {"registered_date": "yesterday"},
    {"location_postcode": {}},
    {"dob_age": "four"},
    {"email": "", "nat": None, "cell": "\x00"},
]


@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=12))
def test_audit_csv_loses_no_row(faults: list[Mapping[str, object]]) -> None:
    """Each row is in the CSV if it is good and in the rejects if it is bad, once."""
    snapshot = [user(1), *(user(n, **fault) for n, fault in enumerate(faults, 2))]
    bad = [n for n, fault in enumerate(faults, 2) if fault]
    csv = csv_of(snapshot)
    published = [record["id"] for record in read_ours(bytes_of(csv.file))]
    rejects = read_ours(bytes_of(csv.rejects), REJECTS)
    assert published == [n for n in range(1, len(snapshot) + 1) if n not in bad]
    assert sorted(reject["id"] for reject in rejects) == bad
    assert all(reject["broken_rules"] for reject in rejects)
    assert csv.published == len(published)
    assert csv.rejected + len(csv.facts.broken) == len(bad)
