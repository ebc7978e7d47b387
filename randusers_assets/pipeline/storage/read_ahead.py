"""Reading ahead: the next items are computed in a thread while the last one is used."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def read_ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` in order while a thread prepares the next `depth` of them.

    An exception of `items` is raised in its place; closing early waits for the item in preparation.
    """
    pool = ThreadPoolExecutor(1)
    try:
        ahead = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := ahead.popleft().result()) is not _END:
            ahead.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]  # the futures give T or _END
    finally:
        pool.shutdown(cancel_futures=True)
