"""The difference to the day before: exact counts and lowest keys, in memory that stays flat."""

import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.flatten import frames
from randusers_assets.pipeline.flatten.frames import UserFrames
from randusers_assets.pipeline.publish import diff
from randusers_assets.pipeline.publish.diff import Comparison, Difference, compare
from randusers_assets.pipeline.publish.objects import save
from randusers_assets.pipeline.storage.paths import version_1_paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import frames_of, user
from randusers_assets_tests.pipeline.publish.bucket import DAY, DAY_BEFORE

NONE = Difference({"new": 0, "gone": 0, "changed": 0}, {"new": [], "gone": [], "changed": []})


@pytest.fixture(params=[1, 7, 1000])
def pass_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare so many rows at once: several passes, or one."""
    monkeypatch.setattr(diff, "PASS_ROWS", request.param)


@pytest.mark.usefixtures("pass_rows")
def test_difference_names_the_new_the_gone_and_the_changed(store: Store) -> None:
    """One row came, one went, one changed: counts to plot, and their keys."""
    save(store, DAY_BEFORE, frames_of([user(1), user(2), user(3)]))
    today = frames_of([user(4), user(3, location_city="Elsewhere"), user(1)])
    assert diff.compare_with_day_before(store, DAY, today) == Comparison(
        DAY_BEFORE,
        Difference({"new": 1, "gone": 1, "changed": 1}, {"new": [4], "gone": [2], "changed": [3]}),
    )


@pytest.mark.usefixtures("pass_rows")
def test_difference_of_the_same_rows_is_none() -> None:
    """Rows in another order have not changed, also with a line end in a cell; another cell has."""
    same = [user(1), user(2, location_street_name="A\nB"), user(3)]
    assert compare(frames_of(same), frames_of(same[::-1])) == NONE
    changed = [*same[:1], user(2, location_street_name="A\nC"), same[2]]
    assert compare(frames_of(same), frames_of(changed)).keys["changed"] == [2]


@pytest.mark.usefixtures("pass_rows")
def test_difference_shows_the_lowest_keys_of_all_passes() -> None:
    """Of 30 rows of each kind, spread over the passes, the ten lowest keys are shown."""
    past = [user(number) for number in range(60, 0, -1)]
    today = [user(number, name_first="Ada") for number in (*range(90, 60, -1), *range(30, 0, -1))]
    found = compare(frames_of(past), frames_of(today))
    assert found.counts == {"new": 30, "gone": 30, "changed": 30}
    assert found.keys == {
        "new": list(range(61, 71)),
        "gone": list(range(31, 41)),
        "changed": list(range(1, 11)),
    }


class ReadFrames(UserFrames):
    """Flat rows that note which of their row groups are read."""

    def batches(self, *columns: str, groups: Sequence[int] | None = None) -> Iterator[Any]:
        """The same batches."""
        self.read = groups
        return super().batches(*columns, groups=groups)


def test_difference_reads_only_the_row_groups_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that both days hold are left out, wherever they are; what they hold is no change."""
    monkeypatch.setattr(frames, "BATCH_ROWS", 2)
    sent = [user(number) for number in range(1, 8)]
    past = ReadFrames(frames_of(sent).file, CONTRACT)
    changed = [*sent[4:6], *sent[:3], user(4, name_first="Ada"), user(9)]
    today = ReadFrames(frames_of(changed).file, CONTRACT)
    found = compare(past, today)
    assert found.keys == {"new": [9], "gone": [7], "changed": [4]}
    assert (past.read, today.read) == ([1, 3], [2, 3])


def test_difference_without_a_day_before_is_none(store: Store) -> None:
    """The first day has nothing to be compared with; an empty day before has every row new."""
    today = frames_of([user(1)])
    assert diff.compare_with_day_before(store, DAY, today) is None
    save(store, DAY_BEFORE, frames_of([]))
    difference = Difference({**NONE.counts, "new": 1}, {**NONE.keys, "new": [1]})
    assert diff.compare_with_day_before(store, DAY, today) == Comparison(DAY_BEFORE, difference)


def test_difference_to_another_contract_is_unknown(store: Store) -> None:
    """A day stored under another contract does not fail the day after it."""
    path = version_1_paths(CONTRACT, DAY_BEFORE).frames
    store.put(path, b"test", content_type="application/vnd.apache.parquet")
    assert diff.compare_with_day_before(store, DAY, frames_of([user(1)])) == Comparison(
        DAY_BEFORE,
        problem="users.parquet was not written under this contract: materialize users_df again.",
    )


def many_frames(rows: int, group: int) -> UserFrames:
    """One user, so many times under keys of its own, in row groups of so many rows."""
    single = frames_of([user(1)])
    [one] = single.batches()
    key = one.schema.get_field_index(CONTRACT.key)
    file = TempFile()
    with file.writer() as writer, pq.ParquetWriter(writer, one.schema) as parquet:
        for start in range(0, rows, group):
            batch = one.take(pa.array([0] * group))
            keys = pa.array(range(start, start + group), pa.int64())
            parquet.write_batch(batch.set_column(key, one.schema.field(key), keys))
        parquet.add_key_value_metadata({"randusers": msgspec.json.encode(single.facts)})
    return UserFrames(file, CONTRACT)


def test_difference_takes_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the rows take the same memory: one batch, one chunk and one pass are held."""
    monkeypatch.setattr("randusers_assets.pipeline.flatten.frames.BATCH_ROWS", 1000)
    monkeypatch.setattr("randusers_assets.pipeline.storage.duplicates._CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(diff, "PASS_ROWS", 2000)
    peaks = []
    for rows in (4000, 40_000):
        past, today = many_frames(rows, 1000), many_frames(rows, 500)  # no group is in both
        tracemalloc.start()
        assert compare(past, today) == NONE
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.05
