"""Keys on the disk: which come twice, in any number of passes, in memory that stays flat."""

import gc
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage import duplicates
from randusers_assets.pipeline.storage.duplicates import Duplicates, Keys, in_pass, int64_values

INT64 = st.integers(-(2**63), 2**63 - 1)


def keys_of(*parts: list[int]) -> Keys:
    """Keys that were added part by part."""
    keys = Keys()
    for part in parts:
        keys.add(np.array(part, dtype=np.int64))
    return keys


@given(
    parts=st.lists(st.lists(st.one_of(INT64, st.integers(-3, 3)), max_size=20), max_size=5),
    pass_keys=st.integers(1, 100),
    at_most=st.integers(1, 3),
)
@example(parts=[[7, -3, 5], [], [5, 9, -3, -3], [8]], pass_keys=3, at_most=2)
def test_keys_agree_with_a_count_in_memory(
    parts: list[list[int]], pass_keys: int, at_most: int
) -> None:
    """In any number of passes, the repeated keys and their places are those of a plain count."""
    every = [key for part in parts for key in part]
    places = {key: [at for at, one in enumerate(every) if one == key] for key in set(every)}
    again = {key: at for key, at in places.items() if len(at) > 1}
    keys = keys_of(*parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "PASS_KEYS", pass_keys)
        assert keys.repeated().tolist() == sorted(again)
        assert keys.count_duplicates(at_most=at_most) == Duplicates(
            sharing=sum(map(len, again.values())),
            repeating=len(every) - len(places),
            examples=sorted((at[1], key) for key, at in again.items())[:at_most],
        )
    assert keys.count == len(every)


def test_keys_that_are_hashes_are_compared_by_their_exact_values() -> None:
    """Values that differ are no duplicates though their hashes meet; the source gives both."""
    chunks = [
        (np.array(keys), values.__getitem__, f"example of {values}, {{}}".format)
        for keys, values in (([1, 1, 2], "abx"), ([2, 1, 3, 2], "yaxy"))
    ]
    found = keys_of([1, 1, 2], [2, 1, 3, 2]).count_duplicates(lambda: chunks, at_most=5)
    examples = [(4, "example of yaxy, 1"), (6, "example of yaxy, 3")]
    assert found == Duplicates(sharing=4, repeating=2, examples=examples)


@pytest.mark.parametrize("parts", [[], [[]], [[1, 2, 3]], [[-1], [1]]])
def test_keys_that_are_distinct_are_counted_without_their_source(parts: list[list[int]]) -> None:
    """No exact value is read before a key comes twice, even if more keys are added later."""
    keys = keys_of(*parts)
    assert keys.repeated().tolist() == []
    assert keys.count_duplicates(lambda: pytest.fail("read")) == Duplicates()
    keys.add(np.array([9, 9]))
    assert keys.repeated().tolist() == [9]


@pytest.mark.parametrize("passes", [1, 2, 3, 8, 10, 64])
@pytest.mark.parametrize("times", [1, -1, 7, 1000, 1 << 20])
def test_passes_share_keys_with_a_stride_evenly(passes: int, times: int) -> None:
    """Each key is in one pass, and no pass has over 1% more than its share, also of multiples."""
    keys = np.arange(100_000) * times * passes
    masks = np.array([in_pass(keys, number, passes) for number in range(passes)])
    assert (masks.sum(axis=0) == 1).all()
    assert masks.sum(axis=1).max() <= 1.01 * len(keys) / passes


def test_keys_take_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many keys, 16 MiB of them, are counted in the same few MiB."""
    monkeypatch.setattr(duplicates, "PASS_KEYS", 1 << 17)
    peaks = []
    for count in (1 << 19, 1 << 21):
        keys = keys_of([0])
        keys.add(np.arange(count))
        tracemalloc.start()
        assert keys.count_duplicates() == Duplicates(sharing=2, repeating=1, examples=[(1, 0)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 8 << 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="macOS has no disk that is always full")
@pytest.mark.parametrize("count", [1, 1 << 18])
def test_keys_name_a_full_disk(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A full disk is named as many keys are added or as few are read, and not written to again."""
    monkeypatch.setattr(os, "dup", lambda _file: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(SnapshotError, match=r": the disk is full: make room, or point TMPDIR to"):
        keys_of([*range(count)]).repeated()
    gc.collect()  # a second write would warn, which fails the test


def test_int64_values_are_those_of_a_slice_and_not_copied() -> None:
    """The numbers of a sliced column are read where Arrow holds them."""
    column = pa.array([1, 2, 3, 4], pa.int64())
    values = int64_values(column.slice(1, 2))
    assert values.tolist() == [2, 3]
    assert values.ctypes.data == column.buffers()[1].address + 8
