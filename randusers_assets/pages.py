"""One page of the API: what it declares, its users as JSON lines, how it fits the plan."""

import re
from array import array
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from randusers_assets.contract import CREDENTIALS


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
    data: list[msgspec.Raw]


class _Envelope(msgspec.Struct):
    success: bool
    data: _Listing | None
    message: str = ""


class _Credentials(msgspec.Struct, gc=False):
    password: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    salt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    md5: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    sha1: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    sha256: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NO_CREDENTIALS = _Credentials()


class _Key(msgspec.Struct, gc=False):
    id: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    login: _Credentials


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_user_decoder = msgspec.json.Decoder(list[_Key])

# The credentials in the API's own order and spelling, which no other object has. What this does
# not catch, `_without_credentials` does.
_CREDENTIAL_FIELDS = re.compile(
    b"".join(rb',"%s":"[^"\\]*(?:\\.[^"\\]*)*"' % name.encode() for name in CREDENTIALS)
)


@dataclass(frozen=True)
class Page:
    """A page as read: what it declares, its users' ids, and its users as JSON lines."""

    listing: _Listing
    ids: list[int]
    lines: bytes


def read_page(body: bytes) -> Page:
    """Read the API's answer, dropping the credentials of every user.

    Raises:
        Refused: the API says `success: false`.
        Unreadable: the body is not JSON, or not a page of users with integer ids.
    """
    try:
        return _read(body)
    except msgspec.ValidationError as error:
        raise Unreadable(f"not one of the API's pages ({_plain(error)})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("not JSON" if body[:1] != b"{" else "broken off or broken JSON") from error


def _read(body: bytes) -> Page:
    envelope = _envelope_decoder.decode(_CREDENTIAL_FIELDS.sub(b"", body))
    if not envelope.success:
        raise Refused(envelope.message)
    if envelope.data is None:
        raise Unreadable("not one of the API's pages (no data)")
    listing = envelope.data
    users: list[Any] = listing.data
    lines = b"".join(b"%b\n" % user for user in users)
    if not _is_utf8(lines):  # msgspec does not look into the text that it passes over
        raise Unreadable("broken off or broken JSON")
    try:
        keys = _user_decoder.decode(b"[%b]" % b",".join(users))
        safe = all(key.login == _NO_CREDENTIALS for key in keys)
    except msgspec.ValidationError:
        safe = False
    one_login_each = lines.count(b'"login":') == len(users)  # of two, msgspec sees the last
    one_line_each = lines.count(b"\n") == len(users) and b"\r" not in lines
    if safe and one_login_each and one_line_each:
        return Page(listing, [key.id for key in keys], lines)
    return Page(listing, *_without_credentials(users))


def _is_utf8(text: bytes) -> bool:
    """Whether bytes are UTF-8; by Arrow, which builds no text and lets other threads run."""
    import pyarrow as pa

    offsets = pa.py_buffer(array("i", [0, len(text)]))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(text)]).validate(
            full=True
        )
    except pa.ArrowInvalid:
        return False
    return True


def _without_credentials(users: list[msgspec.Raw]) -> tuple[list[int], bytes]:
    """The careful way: each user decoded whole, whatever its shape, and written anew."""
    ids, lines = [], []
    for place, raw in enumerate(users, 1):
        user = msgspec.json.decode(raw)
        number = user.get("id") if isinstance(user, dict) else None
        if type(number) is not int or not -(2**63) <= number < 2**63:
            raise Unreadable(f"user {place} of the page has no integer id")
        if "login" in user:
            user["login"] = _stripped(user["login"])
        ids.append(number)
        lines.append(msgspec.json.encode(user) + b"\n")
    return ids, b"".join(lines)


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
    listing = first.listing
    total, limit = listing.total_items, listing.limit
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
    listing, rows = page.listing, plan.rows_of(number)
    for field, expected, got in (
        ("page", number, listing.page),
        ("limit", plan.page_size, listing.limit),
        ("totalItems", plan.total, listing.total_items),
        ("totalPages", plan.pages, listing.total_pages),
        ("users in data", rows, len(page.ids)),
        ("currentPageItems", rows, listing.current_page_items),
        ("previousPage", number > 1, listing.previous_page),
        ("nextPage", number < plan.pages, listing.next_page),
    ):
        if expected != got:
            raise Drift(number, field, expected, got)
