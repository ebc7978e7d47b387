"""Reading ahead keeps the order, passes errors on, and ends its thread."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.pipeline.storage.read_ahead import read_ahead
from randusers_assets_tests.patience import patience


@given(
    items=st.lists(st.none() | st.integers() | st.just(()), max_size=20), depth=st.integers(1, 5)
)
def test_read_ahead_keeps_the_order(items: list[object], depth: int) -> None:
    """Every item comes once, in order, whatever it is, also in a chain; then no thread is left."""
    before = threading.active_count()
    assert list(read_ahead(iter(items), depth)) == items
    assert list(read_ahead(read_ahead(iter(items), depth))) == items
    assert threading.active_count() == before


def test_read_ahead_prepares_so_many_items_and_no_more() -> None:
    """While the reader uses the first item, a thread prepares the next two, and stops there."""
    made = [threading.Event() for _ in range(10)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    with contextlib.closing(read_ahead(items(), depth=2)) as ahead:
        assert next(ahead) == 0
        assert made[2].wait(patience())
        assert [event.is_set() for event in made[3:]] == [False] * 7
        assert list(ahead) == list(range(1, 10))


@pytest.mark.parametrize("error", [ValueError("third"), KeyboardInterrupt()])
def test_read_ahead_raises_an_error_in_the_place_of_its_item(error: BaseException) -> None:
    """The items before an error come first; then that very error, also one that is an exit."""
    before = threading.active_count()

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    ahead = read_ahead(items())
    assert (next(ahead), next(ahead)) == (1, 2)
    with pytest.raises(type(error)) as raised:
        next(ahead)
    assert raised.value is error
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_read_ahead_closed_early_ends_its_threads_and_its_source(threads: int) -> None:
    """A reader that has seen enough leaves no thread, also of a chain, and the source cleans up."""
    before, closed = threading.active_count(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    ahead = read_ahead(items())
    if threads == 2:
        ahead = read_ahead(ahead)
    assert (next(ahead), next(ahead)) == (0, 1)
    assert threading.active_count() == before + threads
    ahead.close()
    assert threading.active_count() == before
    assert closed.wait(patience())


def test_read_ahead_dropped_by_an_error_of_its_reader_ends_its_thread() -> None:
    """An exception in the reader's loop ends the thread as well."""
    before = threading.active_count()
    with contextlib.suppress(ValueError):
        for _ in read_ahead(iter(range(1_000_000))):
            raise ValueError("enough")
    assert threading.active_count() == before
