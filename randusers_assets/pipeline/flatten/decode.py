"""Decoding JSON rows by the contract, with the JSON path of whatever does not fit."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec

from randusers_assets.pipeline.contract import Column, ColumnType, Contract, Offender

# What msgspec accepts for a value that is not NULL; text of the types that are not here.
_JSON_TYPES: dict[ColumnType, Any] = {
    # Arrow's and Parquet's bound on an integer column.
    "integer": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    # From there on a double loses digits of an integer.
    "number": Annotated[float, msgspec.Meta(gt=-(2**53), lt=2**53)],
    "code": int | str,
    "json": list[Any] | dict[str, Any],
}

# What msgspec raises for JSON that does not fit, for text that is not UTF-8, and for deep nesting.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UndecodableUser(msgspec.Struct, frozen=True):
    """A row that breaks the contract; `row` holds its columns, NULL where a type is wrong."""

    id: int | None
    line: int
    path: str
    problem: str
    row: dict[str, Any]

    def describe(self, key: str) -> str:
        """`id 17: location.postcode: expected int or str, got array`, without any value."""
        who = f"line {self.line}" if self.id is None else f"{key} {self.id}"
        return f"{who}: {self.path or '$'}: {self.problem}"

    def offender(self) -> Offender:
        """The same, as a row for a table of offenders."""
        return Offender(self.id, self.path or "$", self.problem)


def _json_type(column: Column, key: str) -> Any:  # noqa: ANN401  # a type form has no common type
    """What msgspec accepts for a column; the row rules check NULLs, except for the key's."""
    json_type = _JSON_TYPES.get(column.type, str)
    return json_type if column.name == key else json_type | None


@cache
def row_type(
    contract: Contract, *, forbid_unknown: bool, secrets: bool = False
) -> type[msgspec.Struct]:
    """The nested struct of one row; with the secret fields only if asked for."""
    fields: dict[str, Any] = {c.path: (_json_type(c, contract.key),) for c in contract.columns}
    if secrets:
        fields |= dict.fromkeys(contract.secrets, (msgspec.Raw | msgspec.UnsetType, msgspec.UNSET))
    return _struct("Row", fields, forbid=forbid_unknown)


def _struct(name: str, types: dict[str, Any], *, forbid: bool) -> type[msgspec.Struct]:
    tree: dict[str, dict[str, Any]] = {}
    for path, type_and_default in types.items():
        head, _, rest = path.partition(".")
        tree.setdefault(head, {})[rest] = type_and_default
    fields: list[Any] = []
    for head, below in tree.items():
        if "" in below:
            fields.append((head, *below[""]))
        else:
            fields.append((head, _struct(head.title(), below, forbid=forbid)))
    # gc=False: rows hold no cycles, and the garbage collector would visit each of them.
    # kw_only=True: an object that holds only secrets is a field after optional ones.
    return msgspec.defstruct(name, fields, gc=False, kw_only=True, forbid_unknown_fields=forbid)


def decode_lines(
    block: bytes, contract: Contract
) -> tuple[list[Any], list[UndecodableUser], Counter[str]]:
    """Decode lines that end with LF, numbered from 1 without blank ones; count unknown paths."""
    try:
        decoder = msgspec.json.Decoder(row_type(contract, forbid_unknown=True))
        return decoder.decode_lines(block), [], Counter()
    except UNDECODABLE:
        decoder = msgspec.json.Decoder(row_type(contract, forbid_unknown=False))
    rows: list[Any] = []
    undecodable: list[UndecodableUser] = []
    unknown = Counter[str]()
    for number, line in enumerate(filter(bytes.strip, block.split(b"\n")), 1):
        try:
            rows.append(decoder.decode(line))
        except UNDECODABLE as error:
            row = _readable_columns(line, contract)
            undecodable.append(UndecodableUser(row[contract.key], number, *_explain(error), row))
        unknown.update(_unknown_paths(_decode_json(line), _known_paths(contract)))
    return rows, undecodable, unknown


def _decode_json(line: bytes | str) -> Any:  # noqa: ANN401  # any JSON value; None for no JSON
    try:
        return msgspec.json.decode(line)
    except UNDECODABLE:
        return None


def value_at(row: Any, path: str) -> Any:  # noqa: ANN401  # any JSON value
    """The value at a JSON path of a decoded row; None where there is none."""
    for key in path.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _explain(error: Exception) -> tuple[str, str]:
    """Turn an error of msgspec into a JSON path and a short problem, without any value."""
    if isinstance(error, UnicodeDecodeError):
        return "", "not UTF-8"
    if isinstance(error, RecursionError):
        return "", "nested too deep"
    problem, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return f"{path}.{missing[1]}".lstrip("."), "missing"
    if typed := re.fullmatch(r"Expected `(.+)`, got `(.+)`", problem):
        wanted = " or ".join(kind for kind in typed[1].split(" | ") if kind != "null")
        return path, f"expected {wanted}, got {typed[2]}"
    problem = problem.replace("`", "")
    return path, problem if problem.startswith("JSON") else problem[:1].lower() + problem[1:]


def _readable_columns(line: bytes, contract: Contract) -> dict[str, Any]:
    sent = _decode_json(line.decode(errors="replace"))
    row: dict[str, Any] = {}
    for column in contract.columns:
        try:
            value = msgspec.convert(value_at(sent, column.path), _json_type(column, contract.key))
            (row[column.name],) = as_text(column, [value])
        except msgspec.ValidationError:
            row[column.name] = None
    return row


def as_text(column: Column, values: Sequence[Any]) -> Sequence[Any]:
    """Values as their column holds them: codes as text, lists and objects as compact JSON."""
    if column.type == "code":
        return [str(value) if isinstance(value, int) else value for value in values]
    if column.type == "json":
        encode = msgspec.json.encode
        return [None if value is None else encode(value).decode() for value in values]
    return values


@cache
def _known_paths(contract: Contract) -> dict[str, bool]:
    """The paths of the contract; true where the paths below must be known as well."""
    return {
        ".".join(parts[:depth]): depth < len(parts) or column.type != "json"
        for column in contract.columns
        for parts in [column.path.split(".")]
        for depth in range(1, len(parts) + 1)
    }


def _unknown_paths(node: Any, known: dict[str, bool], prefix: str = "") -> Iterator[str]:  # noqa: ANN401  # any JSON value
    for key, value in node.items() if isinstance(node, dict) else ():
        path = f"{prefix}{key}"
        if path not in known:
            yield path
        elif known[path]:
            yield from _unknown_paths(value, known, f"{path}.")
