"""What flows between the assets: whole lines, laid flat in order, in bounded batches."""

import json
import threading
from collections.abc import Callable
from typing import Any

import dagster as dg
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from randusers_assets.contract import COLUMNS, decode
from randusers_assets.pipeline.flatten import frames as snapshots
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten
from randusers_assets.pipeline.flatten.frames import (
    BATCH_ROWS,
    MAX_BROKEN,
    FetchFacts,
    FrameFacts,
    RawUsers,
    UserFrames,
    lay_flat,
    to_frame,
)
from randusers_assets.pipeline.storage.tempfiles import Spool
from randusers_sandbox.users import user

FACTS = FetchFacts(
    url="http://api.test/users",
    declared=3,
    pages=1,
    page_size=500,
    tries=1,
    retries=0,
    waited_seconds=0.0,
    bytes=1,
    fetched_at="2026-11-23T06:00:00.000Z",
)
NOT_OURS = "users.parquet was not written under this contract: rebuild users_df."


def _spool(data: bytes) -> Spool:
    spool = Spool()
    with spool.writer() as file:
        file.write(data)
    return spool


def _raw(lines: bytes) -> RawUsers:
    return RawUsers(_spool(pa.Codec("zstd").compress(lines, asbytes=True)), FACTS)


def _lines(count: int, line: Callable[[int], bytes] = user) -> bytes:
    return b"".join(line(number) + b"\n" for number in range(1, count + 1))


def _small(number: int) -> bytes:
    """A user that costs little to make, for counts beyond a batch."""
    return _ONE.replace(b'"id":1,', b'"id":%d,' % number)


_ONE = user(1)


@settings(deadline=None, max_examples=150)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" "))),
    block=st.integers(1, 100),
    ended=st.booleans(),
)
@example(lines=[b"a" * 40, b"b"], block=1, ended=False)
def test_raw_users_blocks_are_whole_lines(lines: list[bytes], block: int, ended: bool) -> None:  # noqa: FBT001  # hypothesis passes by name
    """Whatever the block's size, blocks join to the bytes and only the last may lack its end."""
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "BLOCK_BYTES", block)
        blocks = list(_raw(data).blocks())
    assert b"".join(blocks) == data
    assert all(one.endswith(b"\n") for one in blocks[:-1])
    assert all(blocks)


def test_raw_users_blocks_are_bounded() -> None:
    """A snapshot of many blocks is read in units of about a block."""
    data = _lines(2000)
    blocks = list(_raw(data).blocks())
    assert b"".join(blocks) == data
    assert len(blocks) == -(-len(data) // snapshots.BLOCK_BYTES)
    assert max(map(len, blocks)) <= snapshots.BLOCK_BYTES + len(max(data.splitlines(), key=len))


def test_raw_users_can_be_read_again() -> None:
    """Each reading starts at the first line, also while another is under way."""
    raw = _raw(_lines(3))
    first = raw.blocks()
    assert next(first) == next(raw.blocks()) == _lines(3)


def test_raw_users_cut_short_are_an_error() -> None:
    """A snapshot that lacks its end is not read as a smaller one."""
    data = pa.Codec("zstd").compress(_lines(2000), asbytes=True)
    with pytest.raises(OSError, match="Truncated compressed stream"):
        list(RawUsers(_spool(data[:-1]), FACTS).blocks())


def test_raw_users_may_be_empty() -> None:
    """No line is no block."""
    assert list(_raw(b"").blocks()) == []


def test_lay_flat_keeps_every_user_in_order() -> None:
    """Over many blocks and row groups, the rows are the users, as `flatten` lays them."""
    lines = _lines(BATCH_ROWS + 2500)
    raw = _raw(lines)
    frames = lay_flat(raw)
    users, _ = decode(lines)
    assert pa.Table.from_batches(frames.batches()) == pa.Table.from_batches([flatten(users)])
    assert frames.facts == FrameFacts(
        fetch=FACTS,
        raw_rows=BATCH_ROWS + 2500,
        raw_sha256=raw.spool.sha256,
        flat_rows=BATCH_ROWS + 2500,
        broken=[],
    )


def test_lay_flat_keeps_every_real_user(real_users: list[dict[str, Any]]) -> None:
    """The API's own records are laid flat, all of them, with their postcodes as text."""
    frames = lay_flat(_raw(b"".join(json.dumps(one).encode() + b"\n" for one in real_users)))
    frame = frames.to_pandas()
    assert frames.facts.raw_rows == frames.facts.flat_rows == len(real_users)
    assert frame["id"].tolist() == [one["id"] for one in real_users]
    assert frame["location_postcode"].tolist() == [
        str(one["location"]["postcode"]) for one in real_users
    ]
    assert [f"{at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" for at in frame["dob_date"]] == [
        one["dob"]["date"] for one in real_users
    ]


def test_lay_flat_sets_broken_users_apart() -> None:
    """A user that the contract cannot decode is no row, but counted and named with its line."""
    wrong = user(2).replace(b'"gender":"', b'"gender":[],"x":"')
    frames = lay_flat(_raw(user(1) + b"\n" + wrong + b"\n" + user(3) + b"\n{}\n"))
    assert frames.to_pandas()["id"].tolist() == [1, 3]
    assert (frames.facts.raw_rows, frames.facts.flat_rows) == (4, 2)
    assert [(one.id, one.line, one.sentence()) for one in frames.facts.broken] == [
        (2, 2, "user 2: gender: expected str, got array"),
        (None, 4, "line 4: gender: missing"),
    ]
    assert frames.facts.broken[0].row["name_first"] == json.loads(user(2))["name"]["first"]


def test_lay_flat_numbers_lines_through_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of a broken user is its place in the snapshot, not in a block."""
    monkeypatch.setattr(snapshots, "BLOCK_BYTES", 1000)
    frames = lay_flat(_raw(_lines(50) + b"[]\n" + _lines(20) + b"{}"))
    assert [one.line for one in frames.facts.broken] == [51, 72]
    assert (frames.facts.raw_rows, frames.facts.flat_rows) == (72, 70)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**400])
def test_lay_flat_carries_a_user_whose_id_is_no_int64(number: int) -> None:
    """An id beyond 64 bits is a broken user, not a crash of the snapshot."""
    frames = lay_flat(_raw(user(1).replace(b'"id":1,', b'"id":%d,' % number) + b"\n"))
    (broken,) = frames.facts.broken
    assert broken.sentence() == "line 1: id: expected int <= 9223372036854775807"


def test_lay_flat_carries_a_user_that_is_not_utf8() -> None:
    """Bytes that are no text are a broken user, not a crash of the snapshot."""
    frames = lay_flat(_raw(user(1).replace(b'"nat":"', b'"nat":"\xff') + b"\n"))
    assert [one.sentence() for one in frames.facts.broken] == ["user 1: $: not UTF-8"]


def test_lay_flat_carries_as_many_broken_users_as_the_bound() -> None:
    """At the bound, every broken user is carried."""
    facts = lay_flat(_raw(b"{}\n" * MAX_BROKEN)).facts
    assert (facts.raw_rows, facts.flat_rows, len(facts.broken)) == (MAX_BROKEN, 0, MAX_BROKEN)


def test_lay_flat_fails_beyond_the_bound() -> None:
    """One broken user more is a changed API: it fails in one sentence, and ends its threads."""
    with pytest.raises(dg.Failure) as failure:
        lay_flat(_raw(b'{"id":5}\n' * (MAX_BROKEN + 1)))
    assert failure.value.description == (
        "More than 1,000 users break the contract, the first of them user 5: gender: missing:"
        " bring contract.py in line with http://api.test/users."
    )
    assert failure.value.allow_retries is False
    assert [one for one in threading.enumerate() if one.name == "read-ahead"] == []


def test_lay_flat_of_no_user_is_an_empty_frame() -> None:
    """An empty snapshot has the columns, their types and no row."""
    frames = lay_flat(_raw(b""))
    assert (frames.facts.raw_rows, frames.facts.flat_rows, frames.facts.broken) == (0, 0, [])
    assert (list(frames), list(frames.batches())) == ([], [])
    whole = frames.to_pandas()
    assert whole.shape == (0, len(COLUMNS))
    assert whole.dtypes.equals(lay_flat(_raw(_lines(1))).to_pandas().dtypes)


def test_lay_flat_gives_the_same_bytes_again() -> None:
    """The same raw snapshot gives the same Parquet file."""
    assert lay_flat(_raw(_lines(700))).spool.sha256 == lay_flat(_raw(_lines(700))).spool.sha256


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (BATCH_ROWS - 1, [BATCH_ROWS - 1]),
        (BATCH_ROWS, [BATCH_ROWS]),
        (BATCH_ROWS + 1, [BATCH_ROWS, 1]),
        (2 * BATCH_ROWS + 123, [BATCH_ROWS, BATCH_ROWS, 123]),
    ],
)
def test_frames_come_in_batches_of_one_size(rows: int, sizes: list[int]) -> None:
    """Row groups, record batches and DataFrames hold `BATCH_ROWS` rows, the last one the rest."""
    frames = lay_flat(_raw(_lines(rows, _small)))
    metadata = pq.ParquetFile(frames.spool.reader()).metadata
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    batches = list(frames.batches())
    assert groups == [batch.num_rows for batch in batches] == sizes
    assert {batch.schema for batch in batches} == {arrow_schema()}
    parts = list(frames)
    assert [len(part) for part in parts] == sizes
    assert all(type(part) is pd.DataFrame for part in parts)
    assert [one for part in parts for one in part["id"]] == list(range(1, rows + 1))


def test_frames_join_to_the_one_dataframe() -> None:
    """The batches, put one after the other, are what `to_pandas` gives."""
    frames = lay_flat(_raw(_lines(BATCH_ROWS + 50, _small)))
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), frames.to_pandas())


def test_frames_have_exact_dtypes() -> None:
    """Text is `str`, the id `int64`, integers that may be NULL `Int64`, timestamps UTC instants."""
    dtypes = {
        name: str(kind) for name, kind in lay_flat(_raw(_lines(3))).to_pandas().dtypes.items()
    }
    kinds = {"integer": "Int64", "timestamp": "datetime64[ms, UTC]", "text": "str", "code": "str"}
    assert dtypes == {**{column.name: kinds[column.type] for column in COLUMNS}, "id": "int64"}


def test_frames_keep_null_the_empty_text_and_the_greatest_integer() -> None:
    """No value passes through a float; NULL is missing, `""` is not."""
    one = json.loads(user(1))
    one["name"]["title"], one["dob"]["age"] = None, None
    other = json.loads(user(2))
    other["name"]["title"], other["dob"]["age"] = "", 2**63 - 1
    frame = lay_flat(
        _raw(json.dumps(one).encode() + b"\n" + json.dumps(other).encode())
    ).to_pandas()
    assert frame["name_title"].isna().tolist() == [True, False]
    assert frame["name_title"][1] == ""
    assert frame["dob_age"].isna().tolist() == [True, False]
    assert frame["dob_age"][1] == 2**63 - 1


def test_to_frame_reads_timestamps_and_leaves_wrong_ones_missing() -> None:
    """A timestamp is its instant; one that the audit refuses is missing, not a crash."""
    users, _ = decode(_lines(3))
    batch = flatten(users)
    texts = pa.array(["1968-07-21T10:02:51.768Z", "2023-02-30T00:00:00.000Z", None])
    column = batch.schema.get_field_index("dob_date")
    frame = to_frame(batch.set_column(column, "dob_date", texts))
    assert frame["dob_date"][0] == pd.Timestamp("1968-07-21T10:02:51.768Z")
    assert frame["dob_date"].isna().tolist() == [False, True, True]


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _footer(facts: bytes) -> dict[bytes, bytes]:
    return {b"randusers": facts}


_GOOD_FOOTER = msgspec.json.encode(
    FrameFacts(fetch=FACTS, raw_rows=0, raw_sha256="", flat_rows=0, broken=[])
)
_EMPTY = arrow_schema().empty_table()


def test_frames_are_read_from_a_file_of_ours() -> None:
    """A Parquet file with the contract's columns and our facts is a snapshot."""
    data = _parquet(_EMPTY.replace_schema_metadata(_footer(_GOOD_FOOTER)))
    assert UserFrames(_spool(data)).facts.fetch == FACTS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not Parquet at all",
        _parquet(_EMPTY),
        _parquet(_EMPTY.replace_schema_metadata(_footer(b"{}"))),
        _parquet(_EMPTY.replace_schema_metadata(_footer(b"not JSON"))),
        _parquet(_EMPTY.drop_columns(["nat"]).replace_schema_metadata(_footer(_GOOD_FOOTER))),
        _parquet(
            _EMPTY.set_column(0, "gender", pa.array([], pa.int64())).replace_schema_metadata(
                _footer(_GOOD_FOOTER)
            )
        ),
    ],
    ids=["empty", "text", "no facts", "other facts", "no JSON", "columns", "types"],
)
def test_frames_refuse_a_file_that_is_not_ours(data: bytes) -> None:
    """Any other file is refused with the one sentence that says what to do."""
    with pytest.raises(dg.Failure) as failure:
        UserFrames(_spool(data))
    assert failure.value.description == NOT_OURS
