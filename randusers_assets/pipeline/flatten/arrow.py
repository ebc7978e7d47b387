"""Flattening: decoded users laid out as Arrow columns."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from randusers_assets.contract import COLUMNS, TIMESTAMP, Broken, as_sent, inspect

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Flat:
    """Some lines of a raw snapshot, read once: the users laid flat, and all that does not fit."""

    rows: "pa.RecordBatch"
    broken: list[Broken]
    unknown: dict[str, int]

    def __len__(self) -> int:
        """The users, those that break the contract included."""
        return int(self.rows.num_rows) + len(self.broken)

    def ids(self) -> "Numbers":
        """The users' ids in the order of the lines; of broken users only those that are legible."""
        import numpy as np

        column = self.rows.column("id")
        ids = np.frombuffer(column.buffers()[1], np.int64, len(column), column.offset * 8)
        # Each stands before as many of the good rows as lines were good up to it.
        legible = [(b.line - 1 - i, b.id) for i, b in enumerate(self.broken) if b.id is not None]
        return np.insert(ids, [at for at, _ in legible], [number for _, number in legible])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows in Arrow's own form: a tenth of the time that column by column takes."""
        return _unpickled, (self.rows.serialize(), self.broken, self.unknown)


def _unpickled(rows: "pa.Buffer", broken: list[Broken], unknown: dict[str, int]) -> Flat:
    import pyarrow as pa

    batch = pa.ipc.read_record_batch(rows, arrow_schema())
    return Flat(batch, broken, unknown)


def read_lines(block: bytes) -> Flat:
    """Decode whole JSON lines and lay them flat; lines are counted from 1."""
    users, broken, unknown = inspect(block, 1)
    return Flat(flatten(users), broken, unknown)


@cache
def arrow_schema() -> "pa.Schema":
    """The flat columns in contract order: `int64` or `string`, all nullable.

    Timestamps stay text, as sent, so that the CSV cannot differ from the API by a formatting rule.
    """
    import pyarrow as pa

    return pa.schema(
        [(c.name, pa.int64() if c.type == "integer" else pa.string()) for c in COLUMNS]
    )


def flatten(users: Sequence[Any]) -> "pa.RecordBatch":
    """Lay decoded users out as one record batch in contract order, one row a user."""
    import pyarrow as pa

    arrays = [
        _integers(sent) if column.type == "integer" else _texts(as_sent(column, sent))
        for column, sent in zip(COLUMNS, _by_column(users), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema())


def _by_column(users: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Each column's values; what its path shares with another's is looked up once."""
    nodes: dict[str, Sequence[Any]] = {"": users}
    for column in COLUMNS:
        path = ""
        for key in column.path.split("."):
            parent, path = path, f"{path}.{key}"
            if path not in nodes:
                nodes[path] = list(map(attrgetter(key), nodes[parent]))
        yield nodes[path]


# Neither `pa.array` nor a Python value given to a compute function here and in audit.py: either
# makes Arrow import pandas, which takes longer than 500 users do.


def _integers(values: "Sequence[Any]") -> "pa.Array":
    import pyarrow as pa

    try:
        validity, numbers = None, array("q", values)
    except TypeError:  # a NULL
        validity, numbers = _validity(values), array("q", [value or 0 for value in values])
    return pa.Array.from_buffers(pa.int64(), len(values), [validity, pa.py_buffer(numbers)])


def _texts(values: "Sequence[Any]") -> "pa.Array":
    import numpy as np
    import pyarrow as pa

    validity, texts = None, values
    try:
        joined = "".join(texts)
    except TypeError:  # a NULL
        validity, texts = _validity(values), [value or "" for value in values]
        joined = "".join(texts)
    data = joined.encode()
    offsets = np.array([0, *map(len, texts)], dtype=np.int32).cumsum(dtype=np.int32)
    if len(data) > len(joined):
        # From characters to bytes: a character begins at each byte that continues none (RFC 3629).
        octets = np.frombuffer(data, dtype=np.uint8)
        begins = np.flatnonzero((octets & 0xC0) != 0x80)
        offsets = np.append(begins, len(data)).astype(np.int32)[offsets]
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _validity(values: Sequence[object]) -> "pa.Buffer":
    import numpy as np
    import pyarrow as pa

    present = np.fromiter((value is not None for value in values), dtype=bool)
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def instants(values: "pa.Array") -> "pa.Array":
    """Read timestamps as `timestamp[ms, UTC]`; NULL where a text is not one of the contract's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    instant = pa.timestamp("ms", "UTC")
    nothing = pa.nulls(len(values), values.type)
    shaped = pc.if_else(pc.match_substring_regex(values, TIMESTAMP), values, nothing)
    try:
        return shaped.cast(instant)
    except pa.ArrowInvalid:  # a day or an hour that does not exist; Arrow does not say in which row
        return pa.array([_instant(text, instant) for text in shaped], instant)


def _instant(text: "pa.Scalar", instant: "pa.DataType") -> "pa.Scalar | None":
    import pyarrow as pa

    try:
        return text.cast(instant)
    except pa.ArrowInvalid:
        return None
