"""What flows between the assets: whole lines, flattened in order, in bounded batches."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten import frames as module
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten_lines
from randusers_assets.pipeline.flatten.frames import (
    BATCH_ROWS,
    MAX_UNDECODABLE,
    FrameFacts,
    RawUsers,
    UserFrames,
    decode_raw,
    flatten,
    parse_timestamps,
    to_frame,
)
from randusers_assets_tests import builders
from randusers_assets_tests.builders import facts_of, frames_of, temp_file_of
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order

TIMESTAMP = "2024-02-29T23:59:59.999Z"
INSTANT = datetime(2024, 2, 29, 23, 59, 59, 999_000, UTC)
FOREIGN = "{0}.parquet was not written under this contract: materialize {0}_df again."


def _raw(lines: bytes) -> RawUsers:
    return RawUsers(temp_file_of(pa.Codec("zstd").compress(lines, asbytes=True)), FACTS, CONTRACT)


def _flat(lines: bytes) -> UserFrames:
    return flatten(decode_raw(_raw(lines)))


def _lines(count: int) -> bytes:
    return b"".join(ONE.replace(b'"id":1,', b'"id":%d,' % id_) for id_ in range(1, count + 1))


FACTS = facts_of(3)
ONE = json_lines(builders.user(1))


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
        patch.setattr(module, "BLOCK_BYTES", block)
        blocks = list(_raw(data).blocks())
    assert b"".join(blocks) == data
    assert all(one.endswith(b"\n") for one in blocks[:-1])
    assert all(blocks)


def test_raw_users_blocks_are_bounded() -> None:
    """A snapshot is read in units of about a block, by each reader from its first line on."""
    data = _lines(2000)
    raw = _raw(data)
    blocks = list(raw.blocks())
    assert len(blocks) == -(-len(data) // module.BLOCK_BYTES)
    assert max(map(len, blocks)) <= module.BLOCK_BYTES + len(ONE) + 3
    assert [*zip(raw.blocks(), raw.blocks(), strict=True)] == [*zip(blocks, blocks, strict=True)]


def test_raw_users_that_are_truncated_are_an_error() -> None:
    """A snapshot that lacks its end is not read as a smaller one."""
    data = pa.Codec("zstd").compress(_lines(2000), asbytes=True)
    message = r"^The raw snapshot of users is not whole zstd: materialize raw_users again\.$"
    with pytest.raises(SnapshotError, match=message):
        list(RawUsers(temp_file_of(data[:-1]), FACTS, CONTRACT).blocks())


def test_flatten_keeps_every_user_in_order() -> None:
    """Over many blocks and row groups, rows are as `flatten_lines` gives them; so are the bytes."""
    count = BATCH_ROWS + 2500
    sent = json_lines(*map(builders.user, range(1, count + 1)))
    raw = _raw(sent)
    decoded = decode_raw(raw)
    assert (decoded.problems, decoded.unknown, decoded.duplicates.sharing) == ({}, {}, 0)
    rows = flatten_lines(sent, CONTRACT).rows
    frames = flatten(decoded)
    assert pa.Table.from_batches(frames.batches()) == pa.Table.from_batches([rows])
    assert frames.file.sha256 == decode_raw(raw).frames.file.sha256
    sha256 = raw.file.sha256
    assert frames.facts == FrameFacts(
        fetch=FACTS, raw_rows=count, raw_keys=count, raw_sha256=sha256, flat_rows=count, broken=[]
    )


def test_flatten_keeps_every_real_user(real_users: list[dict[str, Any]]) -> None:
    """The API's own records are flattened, all of them, and each date of birth is an instant."""
    frames = frames_of(real_users)
    assert frames.facts.raw_rows == frames.facts.flat_rows == len(real_users)
    born = [at.isoformat(timespec="milliseconds") for at in frames.to_pandas()["dob_date"]]
    sent = [one["dob"]["date"] for one in real_users]
    assert born == [text.replace("Z", "+00:00") for text in sent]


def test_flatten_sets_undecodable_users_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """An undecodable user is no row, but counted and named with its line in the snapshot."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    users = builders.users(70, gender=[], name_title=None)
    users[1:1] = [users[1]]
    no_text = msgspec.Raw(ONE.rstrip().replace(b'"nat":"', b'"nat":"\xff'))
    decoded = decode_raw(_raw(json_lines(*users[:51], [], *users[51:], {"x": 1}, no_text)))
    frames = flatten(decoded)
    facts = frames.facts
    assert frames.to_pandas()["id"].tolist() == [2, *range(2, 71)]
    broken = [(one.id, one.line, one.describe("id")) for one in facts.broken]
    assert broken == [
        (1, 1, "id 1: gender: expected str, got array"),
        (None, 52, "line 52: $: expected object, got array"),
        (None, 73, "line 73: gender: missing"),
        (1, 74, "id 1: $: not UTF-8"),
    ]
    assert (facts.raw_rows, facts.raw_keys, facts.flat_rows) == (74, 70, 70)
    assert facts.broken[0].row["name_first"] == users[0]["name"]["first"]
    assert decoded.problems == Counter(text.partition(": ")[2] for _, _, text in broken)
    assert (decoded.unknown, decoded.duplicates.sharing) == ({"x": 1}, 4)


def test_flatten_fails_beyond_the_bound_of_undecodable_users() -> None:
    """Up to the bound all are stored; one more is a changed API, counted and refused for good."""
    facts = _flat(b"{}\n" * MAX_UNDECODABLE).facts
    assert (facts.raw_rows, facts.flat_rows) == (MAX_UNDECODABLE, 0)
    assert len(facts.broken) == MAX_UNDECODABLE
    decoded = decode_raw(_raw(b'{"id":5}\n' * (MAX_UNDECODABLE + 1)))
    assert decoded.problems == {"gender: missing": MAX_UNDECODABLE + 1}
    with pytest.raises(SnapshotError) as failure:
        flatten(decoded)
    assert str(failure.value) == (
        "More than 1,000 rows break the contract, first id 5: gender: missing: adapt contract.py"
        " to http://127.0.0.1:9/users."
    )
    assert not failure.value.retryable


def test_flatten_of_no_user_is_an_empty_frame() -> None:
    """An empty snapshot has no row, but the columns and their types."""
    frames = _flat(b"")
    assert (frames.facts.raw_rows, frames.facts.flat_rows, frames.facts.broken) == (0, 0, [])
    assert (list(frames), list(frames.batches())) == ([], [])
    whole = frames.to_pandas()
    assert whole.shape == (0, len(CONTRACT.columns))
    assert whole.dtypes.equals(_flat(ONE).to_pandas().dtypes)


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
    frames = _flat(_lines(rows))
    metadata = pq.ParquetFile(frames.file.reader()).metadata
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    batches = list(frames.batches())
    assert groups == [batch.num_rows for batch in batches] == sizes
    assert {batch.schema for batch in batches} == {arrow_schema(CONTRACT)}
    parts = list(frames)
    assert [len(part) for part in parts] == sizes
    assert all(type(part) is pd.DataFrame for part in parts)
    assert [one for part in parts for one in part["id"]] == list(range(1, rows + 1))
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), frames.to_pandas())


def test_frames_have_exact_dtypes() -> None:
    """Text is `str`, the id `int64`, integers that may be NULL `Int64`, timestamps UTC instants."""
    kinds = {"integer": "Int64", "timestamp": "datetime64[ms, UTC]"}
    expected = {column.name: kinds.get(column.type, "str") for column in CONTRACT.columns}
    dtypes = _flat(ONE).to_pandas().dtypes.astype(str).to_dict()
    assert dtypes == {**expected, "id": "int64"}
    orders = to_frame(flatten_lines(json_lines(order(1)), ORDERS).rows, ORDERS)
    assert orders.dtypes.astype(str).tolist() == ["int64", "float64", "str", "str"]


def test_frames_keep_null_the_empty_text_and_every_digit() -> None:
    """NULL and a day that does not exist are missing, `""` is not; no integer becomes a float."""
    changes: list[tuple[object, ...]] = [
        (None, None, None),
        ("", 2**63 - 1, TIMESTAMP),
        ("Ms", 0, "2023-02-30T00:00:00.000Z"),
    ]
    names = ["name_title", "dob_age", "dob_date"]
    users = [builders.user(1, **dict(zip(names, values, strict=True))) for values in changes]
    frame = frames_of(users).to_pandas()[names]
    assert frame.isna().to_numpy().tolist() == [[True] * 3, [False] * 3, [False, False, True]]
    assert frame.iloc[1].tolist() == ["", 2**63 - 1, pd.Timestamp(TIMESTAMP)]


def _parquet(table: pa.Table, footer: bytes | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(footer and {b"randusers": footer}), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


_FOOTER = msgspec.json.encode(
    FrameFacts(fetch=FACTS, raw_rows=0, raw_sha256="", flat_rows=0, broken=[])
)
_EMPTY = arrow_schema(CONTRACT).empty_table()


def test_frames_are_read_under_their_contract_alone() -> None:
    """A Parquet file with the contract's columns and the facts of a snapshot is a snapshot."""
    file = temp_file_of(_parquet(_EMPTY, _FOOTER))
    facts = UserFrames(file, CONTRACT).facts
    assert (facts.fetch, facts.raw_keys) == (FACTS, None)
    with pytest.raises(SnapshotError, match=f"^{re.escape(FOREIGN.format('orders'))}$"):
        UserFrames(file, ORDERS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not Parquet at all",
        _parquet(_EMPTY),
        _parquet(_EMPTY, b"{}"),
        _parquet(_EMPTY, b"not JSON"),
        _parquet(_EMPTY.drop_columns(["nat"]), _FOOTER),
        _parquet(_EMPTY.set_column(0, "gender", pa.array([], pa.int64())), _FOOTER),
    ],
    ids=["empty", "text", "no facts", "other facts", "no JSON", "columns", "types"],
)
def test_frames_refuse_a_file_of_another_form(data: bytes) -> None:
    """Any other file is refused with the one sentence that says what to do."""
    with pytest.raises(SnapshotError, match=f"^{re.escape(FOREIGN.format('users'))}$"):
        UserFrames(temp_file_of(data), CONTRACT)


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "1968-07-21", "1968-07-21T10:02:51Z", "1968-07-21T10:02:51.76Z"),
        *("1968-07-21T10:02:51.7680Z", "1968-07-21 10:02:51.768Z", "1968-07-21T10:02:51.768z"),
        *("1968-07-21T10:02:51.768", "1968-07-21T10:02:51+0000", "1968-07-21T10:02:51.768Z\n"),
        *("\u0661968-07-21T10:02:51.768Z", "1968-02-30T10:02:51.768Z", "1967-02-29T10:02:51.768Z"),
        *("1968-13-01T10:02:51.768Z", "1968-07-21T24:00:00.000Z", "1968-07-21T23:59:60.000Z"),
    ],
)
def test_parse_timestamps_reads_only_the_one_form(text: str | None) -> None:
    """Another form, or a day or time that does not exist, is NULL; its neighbours are instants."""
    found = parse_timestamps(pa.array([TIMESTAMP, text, TIMESTAMP], pa.string()))
    assert (found.type, found.to_pylist()) == (pa.timestamp("ms", "UTC"), [INSTANT, None, INSTANT])


@given(
    st.from_regex(
        r"\A(0000|1\d\d\d|9999)-(0[0-9]|1[0-3])-([0-2]\d|3[0-2])T(2[0-5]|[01]\d):[0-6]\d:[0-6]\d\.\d{3}Z\Z"
    )
)
def test_parse_timestamps_does_not_depend_on_neighbours(text: str) -> None:
    """A text reads the same alone and beside a day that does not exist."""
    alone = parse_timestamps(pa.array([text]))
    beside = parse_timestamps(pa.array([text, "2023-02-30T00:00:00.000Z"]))
    assert beside[0] == alone[0] or (not beside[0].is_valid and not alone[0].is_valid)
