"""Flattening: decoded users laid out as Arrow columns."""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from randusers_assets.contract import COLUMNS, TIMESTAMP, as_sent

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMN_VALUES = attrgetter(*(column.path for column in COLUMNS))


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

    values = zip(*map(_COLUMN_VALUES, users), strict=True) if users else ((),) * len(COLUMNS)
    arrays = [
        _integers(sent)
        if column.type == "integer"
        else _texts([as_sent(column, v) for v in sent] if column.type == "code" else sent)
        for column, sent in zip(COLUMNS, values, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema())


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
    import pyarrow as pa

    validity, texts = None, values
    try:
        joined = "".join(texts)
    except TypeError:  # a NULL
        validity, texts = _validity(values), [value or "" for value in values]
        joined = "".join(texts)
    data = joined.encode()
    if len(data) > len(joined):
        texts = [text.encode() for text in texts]
    offsets = array("i", accumulate(map(len, texts), initial=0))
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
