"""One page of the API: what it declares, its rows as JSON lines and flat, how it fits the plan."""

from dataclasses import asdict, dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from randusers_assets.pipeline.contract import Contract, Paging
from randusers_assets.pipeline.errors import Drift
from randusers_assets.pipeline.flatten.arrow import FlatLines, flatten_lines, flatten_rows
from randusers_assets.pipeline.flatten.decode import UNDECODABLE, row_type, value_at


class Unreadable(Exception):
    """A body that is not one of the API's pages; the message is a phrase without any value."""


class Refused(Exception):
    """The API answered that it failed; the message is the API's."""


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
    answer: list[Any] = [("success", bool), ("listing", listing | None), ("message", str, "")]
    return msgspec.json.Decoder(msgspec.defstruct("Answer", answer, rename=names))


@dataclass(frozen=True)
class Page:
    """What a page declares, and its rows: as JSON lines in one zstd frame, and as columns."""

    declares: dict[str, int | None]
    compressed: bytes
    lines: FlatLines


def read_page(body: bytes, contract: Contract) -> Page:
    """Decode the API's answer once, without the secrets of its rows; else Refused or Unreadable."""
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
        raise Refused(answer.message)
    if answer.listing is None:
        raise Unreadable(f"not one of the API's pages (no {paging.listing})")
    return answer.listing


def _without_secrets(rows: list[msgspec.Raw], contract: Contract) -> bytes:
    """JSON lines of rows that do not all keep the contract, each value as it was sent."""
    names: dict[str, set[str]] = {}
    for path in contract.secrets:
        names.setdefault(path.partition(".")[0], set()).add(path.rpartition(".")[2])
    key_path = contract.by_name[contract.key].path
    lines = []
    for place, raw in enumerate(rows, 1):
        row = msgspec.json.decode(raw)
        key = value_at(row, key_path)
        if type(key) is not int or not -(2**63) <= key < 2**63:
            raise Unreadable(f"row {place} of the page has no integer {key_path}")
        as_sent: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        for part in names.keys() & row.keys():
            if part in contract.secrets:
                del row[part], as_sent[part]
            else:
                row[part] = as_sent[part] = _strip(row[part], names[part])
        line = _encoder.encode(as_sent)
        spread = b"\n" in line or b"\r" in line
        lines.append(_encoder.encode(row) if spread else line)
    return b"".join(b"%b\n" % line for line in lines)


def _strip(value: Any, names: set[str]) -> Any:  # noqa: ANN401  # any JSON value
    """A value without the fields of these names, at any depth."""
    if isinstance(value, dict):
        return {key: _strip(inner, names) for key, inner in value.items() if key not in names}
    return [_strip(inner, names) for inner in value] if isinstance(value, list) else value


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
