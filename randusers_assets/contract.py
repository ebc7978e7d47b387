"""The contract: one table of columns, from which decoding, flattening, schemas and masks derive.

Nothing here needs Dagster, so that a process that fetches starts fast; see catalog.py.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import msgspec

CONTRACT_VERSION = "1"

ColumnType = Literal["integer", "text", "code", "timestamp"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where the API's JSON holds it, what it may be, and what it means.

    `code` is text that the API sends as an int or a string. A `required` column is neither NULL
    nor empty; any other may be NULL, but its path must be there.
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


COLUMNS: tuple[Column, ...] = (
    Column("gender", "text", "As the person states it", personal=True),
    Column("name.title", "text", "Form of address"),
    Column("name.first", "text", "Given name, in its own script", required=True, personal=True),
    Column("name.last", "text", "Family name, in its own script", required=True, personal=True),
    Column("location.street.number", "integer", "House number", personal=True),
    Column("location.street.name", "text", "Street", personal=True),
    Column("location.city", "text", "City"),
    Column("location.state", "text", "State, province or region"),
    Column("location.country", "text", "Country, in English"),
    Column("location.postcode", "code", "Postal code; leading zeros and spaces count"),
    Column("location.coordinates.latitude", "text", "Degrees north, as sent", personal=True),
    Column("location.coordinates.longitude", "text", "Degrees east, as sent", personal=True),
    Column("location.timezone.offset", "text", "Offset from UTC, such as -6:00"),
    Column("location.timezone.description", "text", "Cities of the time zone"),
    Column("email", "text", "Email address; two users may share one", required=True, personal=True),
    Column("login.uuid", "text", "The account, unique", required=True),
    Column("login.username", "text", "Sign-in name", required=True, personal=True),
    Column("dob.date", "timestamp", "Birth, UTC, to the millisecond", required=True, personal=True),
    Column("dob.age", "integer", "Age in whole years, as the API counts it", personal=True),
    Column("registered.date", "timestamp", "Sign-up, UTC, to the millisecond", required=True),
    Column("registered.age", "integer", "Whole years since sign-up, as the API counts them"),
    Column("phone", "text", "Phone number, as typed; may start with + or -", personal=True),
    Column("cell", "text", "Mobile number, as typed; may start with + or -", personal=True),
    Column("id", "integer", "The user, unique", required=True),
    Column("picture.large", "text", "Portrait of 128 px, URL", personal=True),
    Column("picture.medium", "text", "Portrait of 72 px, URL", personal=True),
    Column("picture.thumbnail", "text", "Portrait of 48 px, URL", personal=True),
    Column("nat", "text", "Nationality, ISO 3166-1 alpha-2", required=True),
)

BY_NAME = {column.name: column for column in COLUMNS}

# Dropped as the page is read: they reach no disk, log, error or preview.
CREDENTIALS = ("password", "salt", "md5", "sha1", "sha256")

UNIQUE = ("id", "login_uuid")

# RFC 3339 with exactly milliseconds and `Z`: the one form that Arrow and the CSV give back as sent.
TIMESTAMP = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"

# Arrow's and Parquet's bound on an integer column.
_INT64 = msgspec.Meta(ge=-(2**63), le=2**63 - 1)


class Offender(msgspec.Struct, frozen=True):
    """One cell that breaks a rule, shown by the user's id and a masked value."""

    id: int | None
    column: str
    shown: str


class Broken(msgspec.Struct, frozen=True):
    """A user that the contract cannot decode: where it stands, what broke, and what was readable.

    `row` holds the flat columns whose own values are of the right type, NULL elsewhere.
    """

    id: int | None
    line: int
    path: str
    problem: str
    row: dict[str, Any]

    def sentence(self) -> str:
        """`user 17: location.postcode: expected int or str, got array`, without any value."""
        who = f"line {self.line}" if self.id is None else f"user {self.id}"
        return f"{who}: {self.path or '$'}: {self.problem}"

    def offender(self) -> Offender:
        """The same, as a row for a table of offenders."""
        return Offender(self.id, self.path or "$", self.problem)


class _Identity(msgspec.Struct):
    id: Annotated[int, _INT64]


# What msgspec raises for JSON that does not fit, for text that is not UTF-8, for a bottomless nest.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _json_type(column: Column) -> Any:  # noqa: ANN401  # a type form has no common type
    """What msgspec lets through for a column; NULL is left to the row rules, except for the id."""
    match column.type:
        case "integer":
            return Annotated[int, _INT64] if column.name == "id" else Annotated[int, _INT64] | None
        case "code":
            return int | str | None
        case "text" | "timestamp":
            return str | None


@cache
def user_type(*, forbid_unknown: bool, credentials: bool = False) -> type[msgspec.Struct]:
    """The nested struct of one user, built from the table; as sent, or less the credentials."""
    tree: dict[str, Any] = {}
    for column in COLUMNS:
        *parents, leaf = column.path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = column
    if credentials:
        tree["login"] |= dict.fromkeys(CREDENTIALS)

    def struct(name: str, node: dict[str, Any]) -> type[msgspec.Struct]:
        fields = [
            (key, struct(key.title(), value) if isinstance(value, dict) else _json_type(value))
            if value
            else (key, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
            for key, value in node.items()
        ]
        # gc=False: users hold no cycles, and the collector would walk every one of them.
        return msgspec.defstruct(name, fields, gc=False, forbid_unknown_fields=forbid_unknown)

    return struct("User", tree)


@cache
def _decoder(*, forbid_unknown: bool) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(user_type(forbid_unknown=forbid_unknown))


def decode(block: bytes, first_line: int = 0) -> tuple[list[Any], list[Broken]]:
    """Decode whole JSON lines into user structs, and name each line that breaks the contract.

    Blank lines are no users. Paths that the contract does not know are passed over; see
    `unknown_paths`.
    """
    decoder = _decoder(forbid_unknown=False)
    try:
        return decoder.decode_lines(block), []
    except UNDECODABLE:
        users, broken = [], []
        for number, line in enumerate(_lines(block), first_line):
            try:
                users.append(decoder.decode(line))
            except UNDECODABLE as error:
                broken.append(_broken(line, number, error))
        return users, broken


def _lines(block: bytes) -> Iterator[bytes]:
    """The lines that msgspec's `decode_lines` sees: only LF ends one, and a blank one is none."""
    return filter(bytes.strip, block.split(b"\n"))


def _broken(line: bytes, number: int, error: Exception) -> Broken:
    try:
        identity = msgspec.json.decode(line, type=_Identity).id
    except UNDECODABLE:
        identity = None
    path, problem = _explain(error)
    return Broken(identity, number, path, problem, _readable(line))


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


def _readable(line: bytes) -> dict[str, Any]:
    """The columns of a broken line whose own values are of the right type; NULL for the others."""
    try:
        user = msgspec.json.decode(line)
    except UNDECODABLE:
        user = None
    row: dict[str, Any] = {}
    for column in COLUMNS:
        value = user
        for key in column.path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        try:
            (row[column.name],) = as_sent(column, [msgspec.convert(value, _json_type(column))])
        except msgspec.ValidationError:
            row[column.name] = None
    return row


def as_sent(column: Column, values: Sequence[Any]) -> Sequence[Any]:
    """Values as their column holds them: a code that came as an int is text, digit for digit."""
    if column.type != "code":
        return values
    return [str(value) if isinstance(value, int) else value for value in values]


def unknown_paths(block: bytes) -> dict[str, int]:
    """Count the JSON paths in whole JSON lines that the contract does not know."""
    try:
        _decoder(forbid_unknown=True).decode_lines(block)
    except UNDECODABLE:
        counts: dict[str, int] = {}
        for line in _lines(block):
            for path in _paths_of(line):
                if path not in _KNOWN:
                    counts[path] = counts.get(path, 0) + 1
        return counts
    return {}


def inspect(block: bytes, first_line: int = 0) -> tuple[list[Any], list[Broken], dict[str, int]]:
    """`decode` and `unknown_paths` of a block, in one pass where the contract knows every path."""
    try:
        return _decoder(forbid_unknown=True).decode_lines(block), [], {}
    except UNDECODABLE:
        return *decode(block, first_line), unknown_paths(block)


_KNOWN = frozenset(
    ".".join(parts[:depth])
    for parts in (column.path.split(".") for column in COLUMNS)
    for depth in range(1, len(parts) + 1)
)


def _paths_of(line: bytes) -> Iterator[str]:
    try:
        pending: list[tuple[str, Any]] = [("", msgspec.json.decode(line))]
    except UNDECODABLE:
        return
    while pending:
        prefix, node = pending.pop()
        for key, value in node.items() if isinstance(node, dict) else ():
            path = f"{prefix}.{key}".lstrip(".")
            yield path
            if path in _KNOWN:
                pending.append((path, value))


def mask(column: Column, value: object) -> str:
    """A value as it may be shown: a personal one keeps its first character and nothing else."""
    text = "" if value is None else str(value)
    return f"{text[:1]}•••" if column.personal and text else text
