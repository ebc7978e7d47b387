"""One page of the API: what it declares, its users as lines and flat, how it fits the plan."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from randusers_assets.contract import CREDENTIALS, UNDECODABLE, user_type
from randusers_assets.pipeline.flatten.arrow import Flat, flatten, read_lines


class Drift(Exception):
    """A page that does not fit the plan that page 1 gave: the data moved while it was read."""

    def __init__(self, page: int, field: str, expected: object, got: object) -> None:
        super().__init__(f"page {page}: {field}: expected {expected}, got {got}")


class Unreadable(Exception):
    """A body that is not one of the API's pages; the message is a phrase without any value."""


class Refused(Exception):
    """The API's own `success: false`; the message is the API's."""


@dataclass(frozen=True)
class Plan:
    """What page 1 promises: users in all, users a page, pages."""

    total: int
    page_size: int
    pages: int

    def rows_of(self, page: int) -> int:
        """The users that a page's place calls for."""
        return min(self.page_size, self.total - (page - 1) * self.page_size)


class _Listing(msgspec.Struct, rename="camel"):
    page: int | None
    limit: int | None
    total_pages: int | None
    total_items: int | None
    current_page_items: int | None
    previous_page: bool | None
    next_page: bool | None
    data: list[Any]


class _Envelope(msgspec.Struct):
    success: bool
    data: _Listing | None
    message: str = ""


@cache
def _decoder(user: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401  # a type form
    """A decoder of whole answers whose users are of the type `user`."""
    listing = msgspec.defstruct("Listing", [("data", list[user])], bases=(_Listing,))
    fields = [("data", listing | None)]
    return msgspec.json.Decoder(msgspec.defstruct("Envelope", fields, bases=(_Envelope,)))


@dataclass(frozen=True)
class Page:
    """A page as read: what it declares by the API's names, and its users, twice.

    `pressed` holds them as JSON lines, one zstd frame; `flat` as columns.
    """

    declares: dict[str, int | None]
    pressed: bytes
    flat: Flat


def read_page(body: bytes) -> Page:
    """Read the API's answer once, dropping the credentials of every user.

    The lines of users that keep the contract are written anew: the same values, in its order.

    Raises:
        Refused: the API says `success: false`.
        Unreadable: the body is not JSON, or not a page of users with integer ids.
    """
    try:
        try:
            listing = listing_of(body, user_type(forbid_unknown=True, credentials=True))
        except UNDECODABLE:
            listing = listing_of(body, msgspec.Raw)
            lines = _without_credentials(listing.data)
            return _page(listing, lines, read_lines(lines))
    except msgspec.ValidationError as error:
        raise Unreadable(f"not one of the API's pages ({_plain(error)})") from error
    except UNDECODABLE as error:
        raise Unreadable("not JSON" if body[:1] != b"{" else "broken off or broken JSON") from error
    for user in listing.data:
        for name in CREDENTIALS:
            setattr(user.login, name, msgspec.UNSET)
    lines = _encoder.encode_lines(listing.data)
    return _page(listing, lines, Flat(flatten(listing.data), [], {}))


_encoder = msgspec.json.Encoder()


def listing_of(body: bytes, user: Any) -> Any:  # noqa: ANN401  # `user` is a type form
    """The `data` of the API's answer, its users decoded as `user`.

    Raises:
        Refused, Unreadable: as `read_page`.
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is not of that type.
    """
    envelope = _decoder(user).decode(body)
    if not envelope.success:
        raise Refused(envelope.message)
    if envelope.data is None:
        raise Unreadable("not one of the API's pages (no data)")
    return envelope.data


def _page(listing: _Listing, lines: bytes, flat: Flat) -> Page:
    import pyarrow as pa

    names = zip(listing.__struct_fields__, listing.__struct_encode_fields__, strict=True)
    declares = {sent: getattr(listing, name) for name, sent in names if name != "data"}
    return Page(declares, pa.Codec("zstd").compress(lines, asbytes=True), flat)


def _without_credentials(users: list[msgspec.Raw]) -> bytes:
    """JSON lines of users that do not all keep the contract, each value as it was sent."""
    lines = []
    for place, raw in enumerate(users, 1):
        user = msgspec.json.decode(raw)
        number = user.get("id") if isinstance(user, dict) else None
        if type(number) is not int or not -(2**63) <= number < 2**63:
            raise Unreadable(f"user {place} of the page has no integer id")
        as_sent: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if "login" in user:
            user["login"] = as_sent["login"] = _stripped(user["login"])
        line = _encoder.encode(as_sent)
        spread = b"\n" in line or b"\r" in line
        lines.append(_encoder.encode(user) if spread else line)
    return b"".join(b"%b\n" % line for line in lines)


def _stripped(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """A value less the credentials in it, at any depth."""
    if isinstance(value, dict):
        return {key: _stripped(inner) for key, inner in value.items() if key not in CREDENTIALS}
    return [_stripped(inner) for inner in value] if isinstance(value, list) else value


def _plain(error: msgspec.ValidationError) -> str:
    return str(error).replace("`", "")


def plan_of(first: Page) -> Plan:
    """The plan that page 1 gives; a limit that the server caps is the page size from then on.

    Raises:
        Drift: page 1 contradicts itself.
    """
    total, limit = first.declares["totalItems"], first.declares["limit"]
    if total is None or total < 0:
        raise Drift(1, "totalItems", "a count", total)
    if limit is None or limit < 1:
        raise Drift(1, "limit", "a positive count", limit)
    plan = Plan(total, limit, -(-total // limit))
    check_page(first, 1, plan)
    return plan


def check_page(page: Page, number: int, plan: Plan) -> None:
    """Hold a page against the plan, field by field.

    Raises:
        Drift: a field, or the number of users, is not what the page's place calls for.
    """
    rows = plan.rows_of(number)
    got = {**page.declares, "users in data": len(page.flat)}
    for field, expected in (
        ("page", number),
        ("limit", plan.page_size),
        ("totalItems", plan.total),
        ("totalPages", plan.pages),
        ("users in data", rows),
        ("currentPageItems", rows),
        ("previousPage", number > 1),
        ("nextPage", number < plan.pages),
    ):
        if expected != got[field]:
            raise Drift(number, field, expected, got[field])
