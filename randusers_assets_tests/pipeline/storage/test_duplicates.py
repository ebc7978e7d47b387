"""Keys on the disk: which come twice, however many passes it takes to tell."""

import gc
from collections import Counter
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randusers_assets.pipeline.storage import duplicates as keys_module
from randusers_assets.pipeline.storage.duplicates import Keys
from randusers_assets.pipeline.storage.tempfiles import Spool

INT64 = st.integers(-(2**63), 2**63 - 1)


def keys_of(*parts: list[int]) -> Keys:
    """Keys that were added part by part."""
    keys = Keys()
    for part in parts:
        keys.add(np.array(part, dtype=np.int64))
    return keys


@pytest.mark.parametrize("pass_keys", [1, 2, 3, 100])
def test_keys_that_repeat_are_found_in_any_number_of_passes(
    monkeypatch: pytest.MonkeyPatch, pass_keys: int
) -> None:
    """Every key that comes more than once, once, in ascending order; negative ones too."""
    monkeypatch.setattr(keys_module, "PASS_KEYS", pass_keys)
    keys = keys_of([7, -3, 5], [], [5, 9, -3, -3], [8])
    assert keys.repeated().tolist() == [-3, 5]
    assert keys.comes_again() == (3, (3, 5))
    assert keys.count == 8


@pytest.mark.parametrize("parts", [[], [[]], [[1, 2, 3]], [[-1], [1]]])
def test_keys_that_are_distinct_come_once(parts: list[list[int]]) -> None:
    """No key is called a repetition that is none."""
    keys = keys_of(*parts)
    assert keys.repeated().tolist() == []
    assert keys.comes_again() == (0, None)


@settings(max_examples=50)
@given(parts=st.lists(st.lists(st.one_of(INT64, st.integers(-3, 3)), max_size=20), max_size=5))
def test_keys_agree_with_a_count_in_memory(parts: list[list[int]]) -> None:
    """Whatever the keys, they are those that a counter finds, at the place where it finds them."""
    every = [key for part in parts for key in part]
    counts = Counter(every)
    keys = keys_of(*parts)
    assert keys.repeated().tolist() == sorted(key for key, count in counts.items() if count > 1)
    first = next(((at, key) for at, key in enumerate(every) if key in every[:at]), None)
    assert keys.comes_again() == (len(every) - len(counts), first)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="macOS has no disk that is always full")
@pytest.mark.parametrize("count", [1, 1 << 18])
def test_keys_that_the_disk_cannot_hold_name_it(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """As they are taken, or as they are read if they were few, in one sentence; then no more."""
    monkeypatch.setattr(
        Spool,
        "writer",
        lambda _spool: Path("/dev/full").open("wb"),  # noqa: SIM115  # the keys close it
    )
    with pytest.raises(dg.Failure, match=r": the disk is full: make room, or point TMPDIR to"):
        keys_of([*range(count)]).repeated()
    gc.collect()  # what is left is not written once more


def test_keys_are_read_again_after_more_were_added() -> None:
    """To ask does not end the keys."""
    keys = keys_of([1, 2])
    assert keys.repeated().tolist() == []
    keys.add(np.array([2]))
    assert keys.repeated().tolist() == [2]
