"""What a contract is: an endpoint, how it pages, and one table of columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import msgspec

from randusers_assets.pipeline.errors import SnapshotError

ColumnType = Literal["integer", "number", "text", "email", "timestamp", "code", "json"]

# RFC 3339 with exactly milliseconds and `Z`: the one form that Arrow and the CSV give back as sent.
TIMESTAMP = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where the API's JSON holds it, what it may be, and what it means.

    `code` is text that comes as an int or a string; `json` is a list or object, published as text.
    A `required` column is neither NULL nor empty; others may be NULL, but their paths must be
    there. Only the first character of a `personal` value is ever shown.
    """

    path: str
    type: ColumnType
    meaning: str
    required: bool = False
    personal: bool = False

    @property
    def name(self) -> str:
        """The flat name: the JSON path joined with `_`."""
        return self.path.replace(".", "_")

    @property
    def is_text(self) -> bool:
        """Whether the flat column holds text."""
        return self.type not in ("integer", "number")

    def mask(self, value: object) -> str:
        """A value as it may be shown."""
        text = "" if value is None else str(value)
        return f"{text[:1]}•••" if self.personal and text else text


@dataclass(frozen=True, slots=True)
class Paging:
    """Page-number paging: query parameters, the answer's `listing`, and that one's fields."""

    page: str = "page"
    limit: str = "limit"
    total_items: str = "totalItems"
    total_pages: str = "totalPages"
    page_items: str = "currentPageItems"
    previous: str = "previousPage"
    next: str = "nextPage"
    rows: str = "data"
    listing: str = "data"
    success: str = "success"


@dataclass(frozen=True, eq=False)
class Contract:
    """An endpoint and what is published of it; SnapshotError if its names do not fit together.

    `key` names a row in messages; `unique` columns never repeat; `secrets` are JSON paths that are
    dropped as a page is read; `charts` are the columns whose values the UI counts.
    """

    name: str
    version: str
    url: str
    columns: tuple[Column, ...]
    key: str
    unique: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()
    paging: Paging = Paging()

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise SnapshotError(f"contract.py: {problem}.")

    def _problems(self) -> Iterator[str]:
        for name in sorted({self.key, *self.unique, *self.charts} - set(self.by_name)):
            yield f"{name} is no column"
        if len(self.by_name) < len(self.columns):
            yield "two columns have one name"
        key = self.by_name[self.key]
        if key.type != "integer" or not key.required:
            yield f"the key {self.key} must be a required integer"
        for name in self.charts:
            if self.by_name[name].is_text and self.by_name[name].personal:
                yield f"a chart of {name} would show personal values"
        paths = sorted([*(column.path for column in self.columns), *self.secrets])
        for path in paths:
            if not all(part.isidentifier() for part in path.split(".")):
                yield f"the path {path} must be identifiers joined with dots"
        for outer, inner in pairwise(f"{path}." for path in paths):
            if inner.startswith(outer):
                yield f"the paths {outer[:-1]} and {inner[:-1]} overlap"

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by flat name, in order."""
        return {column.name: column for column in self.columns}


class Offender(msgspec.Struct, frozen=True):
    """One cell that breaks a rule: the row's key, the column, and the masked value."""

    id: int | None
    column: str
    shown: str
