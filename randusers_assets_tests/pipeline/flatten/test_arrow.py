"""Lines read once: their ids in order, and the way from one process to another."""

import pickle

import pytest

from randusers_assets.pipeline.fetch.pages import read_page
from randusers_assets.pipeline.flatten.arrow import Flat, read_lines
from randusers_assets_tests.pipeline.fetch.test_pages import page_body
from randusers_sandbox.users import user

WITHOUT_ID = b'{"login":{}}'


def lines(*users: bytes) -> bytes:
    """JSON lines."""
    return b"".join(one + b"\n" for one in users)


def broken(number: int) -> bytes:
    """A user who breaks the contract, with an id."""
    return b'{"id":%d,"login":{}}' % number


@pytest.mark.parametrize(
    ("sent", "ids"),
    [
        ((user(1), user(2)), [1, 2]),
        ((broken(1), user(2), broken(3), broken(4), user(5), broken(6)), [1, 2, 3, 4, 5, 6]),
        ((broken(1), broken(2)), [1, 2]),
        ((user(1), WITHOUT_ID, broken(3), user(4)), [1, 3, 4]),
        ((), []),
    ],
    ids=["good users", "good and broken users", "broken users", "one without an id", "none"],
)
def test_flat_ids_are_in_the_order_of_the_lines(sent: tuple[bytes, ...], ids: list[int]) -> None:
    """Broken users stand among the good ones; who has no id is counted as a user all the same."""
    flat = read_lines(lines(*sent))
    assert flat.ids().tolist() == ids
    assert len(flat) == len(sent)


def test_flat_ids_do_not_hold_the_rows() -> None:
    """The ids are a copy, so that a snapshot's worth of them costs 8 bytes each and no more."""
    assert read_lines(lines(user(1))).ids().base is None


def test_flat_is_pickled_whole() -> None:
    """What one process read another has: rows, broken users and unknown paths."""
    body = page_body(user(1), broken(2), user(3).replace(b'"nat"', b'"new":1,"nat"'))
    flat = read_page(body).flat
    again: Flat = pickle.loads(pickle.dumps(flat))  # noqa: S301  # pickled on the same line
    assert again == flat
    assert (again.rows.num_rows, len(again.broken), again.unknown) == (2, 1, {"new": 1})
