"""One page of the API: what it declares, its rows as JSON lines and flat, how it fits the plan."""

import codecs
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from randusers_assets.pipeline.contract import Contract, Paging
from randusers_assets.pipeline.errors import Drift
from randusers_assets.pipeline.flatten.arrow import FlatLines, flatten_lines, flatten_rows
from randusers_assets.pipeline.flatten.decode import UNDECODABLE, row_type, value_at


class Unreadable(Exception):
    """A body that is not one of the API's pages; the message is a phrase without any value."""


class Refused(Exception):
    """The API answered that it failed."""


class BadData(Exception):
    """A page whose data is at fault, not its transfer; the message is a phrase as above."""


@dataclass(frozen=True)
class Plan:
    """What page 1 declares: rows in all, rows a page, pages."""

    total: int
    page_size: int
    pages: int


# What a page declares, by the names of `Paging`, and its JSON type.
_DECLARED: dict[str, Any] = {
    **dict.fromkeys(("page", "limit", "total_items", "total_pages", "page_items"), int | None),
    **dict.fromkeys(("previous", "next"), bool | None),
}


@cache
def _decoder(paging: Paging, row: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401  # a type form
    """A decoder of whole answers whose rows have the type `row`."""
    names = asdict(paging)
    listing = msgspec.defstruct("Listing", [*_DECLARED.items(), ("rows", list[row])], rename=names)
    answer: list[Any] = [("success", bool), ("listing", listing | None)]
    return msgspec.json.Decoder(msgspec.defstruct("Answer", answer, rename=names))


@dataclass(frozen=True)
class Page:
    """What a page declares, and its rows: as JSON lines in one zstd frame, and as columns."""

    declares: dict[str, int | None]
    compressed: bytes
    lines: FlatLines


def read_page(body: bytes, contract: Contract) -> Page:
    """Decode the API's answer once, less its rows' secrets; else Refused, Unreadable or BadData."""
    body = body.removeprefix(codecs.BOM_UTF8)  # RFC 8259 lets a parser ignore it
    try:
        try:
            row = row_type(contract, forbid_unknown=True, secrets=True)
            listing = decode_listing(body, contract.paging, row)
        except UNDECODABLE:
            listing = decode_listing(body, contract.paging, msgspec.Raw)
            lines = _without_secrets(listing.rows, contract)
            flat = flatten_lines(lines, contract)
        else:
            for parent_of, names in _secret_fields(contract):
                for row in listing.rows:
                    parent = parent_of(row)
                    for name in names:
                        setattr(parent, name, msgspec.UNSET)
            lines = _encoder.encode_lines(listing.rows)  # the same values, in the contract's order
            flat = FlatLines(flatten_rows(listing.rows, contract), [], {})
    except msgspec.ValidationError as error:
        problem = str(error).replace("`", "")
        raise Unreadable(f"not one of the API's pages ({problem})") from error
    except UNDECODABLE as error:
        if path := _path_of_a_constant(body):
            raise BadData(f"{path} is NaN or an infinity, which JSON has not") from error
        raise Unreadable("not JSON" if body[:1] != b"{" else "truncated or broken JSON") from error
    declares = {name: getattr(listing, name) for name in _DECLARED}
    return Page(declares, pa.Codec("zstd").compress(lines, asbytes=True), flat)


_encoder = msgspec.json.Encoder()


@cache
def _secret_fields(contract: Contract) -> list[tuple[Any, list[str]]]:
    """How to get from a row to each struct with secrets, and the names of these."""
    parents: dict[str, list[str]] = {}
    for path in contract.secrets:
        parent, _, name = path.rpartition(".")
        parents.setdefault(parent, []).append(name)
    return [(attrgetter(at) if at else lambda row: row, names) for at, names in parents.items()]


def decode_listing(body: bytes, paging: Paging, row: Any) -> Any:  # noqa: ANN401  # a type form
    """The listing of the API's answer, its rows decoded as `row`; errors are UNDECODABLE too."""
    answer = _decoder(paging, row).decode(body)
    if not answer.success:
        raise Refused
    if answer.listing is None:
        raise Unreadable(f"not one of the API's pages (no {paging.listing})")
    return answer.listing


def _without_secrets(rows: list[msgspec.Raw], contract: Contract) -> bytes:
    """JSON lines of rows that do not all keep the contract, each value as it was sent."""
    key_path, names = contract.by_name[contract.key].path, _names(contract)
    lines = []
    for place, raw in enumerate(rows, 1):
        try:
            key = value_at(msgspec.json.decode(raw), key_path)
        except msgspec.ValidationError as error:
            problem = str(error).partition(" - at")[0]
            raise BadData(f"row {place} of the page: {problem}") from error
        if type(key) is not int or not -(2**63) <= key < 2**63:
            raise BadData(f"row {place} of the page has no integer {key_path}")
        line = _encoder.encode(_strip_fields(raw, "", names))
        spread = b"\n" in line or b"\r" in line
        lines.append(msgspec.json.format(line, indent=-1) if spread else line)
    return b"".join(b"%b\n" % line for line in lines)


class _Names(NamedTuple):
    """What `_strip` needs to know of a contract."""

    secrets: set[str]  # in lower case
    quoted: re.Pattern[bytes]  # as they are in a text in lower case without escapes
    columns: set[str]  # paths of columns and of what they are in, which win over a name
    json_columns: set[str]


@cache
def _names(contract: Contract) -> _Names:
    secrets = {path.rpartition(".")[2].lower() for path in contract.secrets}
    prefixes = (accumulate(c.path.split("."), "{}.{}".format) for c in contract.columns)
    json_columns = {column.path for column in contract.columns if column.type == "json"}
    quoted = re.compile('"(?:{})"'.format("|".join(secrets)).encode())
    return _Names(secrets, quoted, set(chain.from_iterable(prefixes)), json_columns)


def _strip(value: msgspec.Raw, path: str, names: _Names) -> Any:  # noqa: ANN401  # encodes as it
    """A value without the fields, at any depth, that have a secret's name and are no column."""
    text = bytes(value).lstrip()
    if text[:1] not in (b"{", b"[") or path in names.json_columns:
        return value
    lower = text.lower()
    if b"\\u" not in lower and not names.quoted.search(lower):
        return value
    if text[:1] == b"{":
        return _strip_fields(value, f"{path}.", names)
    items = msgspec.json.decode(value, type=list[msgspec.Raw])
    return [_strip(item, f"{path}[]", names) for item in items]


def _strip_fields(value: msgspec.Raw, prefix: str, names: _Names) -> dict[str, Any]:
    return {
        name: _strip(inner, path, names)
        for name, inner in msgspec.json.decode(value, type=dict[str, msgspec.Raw]).items()
        if (path := prefix + name) in names.columns or name.lower() not in names.secrets
    }


def _path_of_a_constant(body: bytes) -> str:
    """Where a text that is JSON otherwise has NaN, Infinity or -Infinity; empty if it is not."""
    found = object()
    try:
        nodes = [("", json.loads(body, parse_constant=lambda _name: found))]
    except (ValueError, RecursionError):
        return ""
    for path, node in nodes:
        if node is found:
            return path.lstrip(".")
        if isinstance(node, dict):
            nodes += [(f"{path}.{name}", inner) for name, inner in node.items()]
        elif isinstance(node, list):
            nodes += [(f"{path}[{place}]", inner) for place, inner in enumerate(node)]
    return ""


def plan_of(first: Page, paging: Paging) -> Plan:
    """The plan that page 1 gives, or Drift; if the server caps the limit, that is the page size."""
    total, limit = first.declares["total_items"], first.declares["limit"]
    if total is None or total < 0:
        raise Drift(1, paging.total_items, "a count", total)
    if limit is None or limit < 1:
        raise Drift(1, paging.limit, "a positive count", limit)
    plan = Plan(total, limit, -(-total // limit))
    check_page(first, 1, plan, paging)
    return plan


def check_page(page: Page, number: int, plan: Plan, paging: Paging) -> None:
    """Raise Drift for the first field, or the number of rows, that is not as planned."""
    rows = min(plan.page_size, plan.total - (number - 1) * plan.page_size)
    expected = {
        "page": number,
        "limit": plan.page_size,
        "total_items": plan.total,
        "total_pages": plan.pages,
        "page_items": rows,
        "previous": number > 1,
        "next": number < plan.pages,
    }
    for field, value in expected.items():
        if page.declares[field] != value:
            raise Drift(number, getattr(paging, field), value, page.declares[field])
    if len(page.lines) != rows:
        raise Drift(number, f"rows in {paging.rows}", rows, len(page.lines))
