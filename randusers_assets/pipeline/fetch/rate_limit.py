"""What an answer's headers say about the API's rate limit, in the forms that services use."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import NamedTuple

EPOCH_FROM = 1e9  # seconds; no window is that long


class RateLimit(NamedTuple):
    """Requests left in the window, and seconds until it ends; infinity if not known."""

    remaining: float
    reset: float


def read_rate_limit(headers: Mapping[str, str]) -> RateLimit:
    """The limit that the headers give in full; else one that gives when the window ends."""
    return min(_limits(headers), key=lambda one: (max(one) == math.inf, one.reset == math.inf))


def read_retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that `Retry-After` asks for, also as an HTTP date; infinity if not known."""
    value = headers.get("Retry-After", "")
    date = parsedate_tz(value)
    if date is None:
        return _number(value)
    try:
        return max(0.0, mktime_tz(date) - time.time())
    except (ValueError, OverflowError):  # the year 0, say
        return math.inf


def _limits(headers: Mapping[str, str]) -> Iterator[RateLimit]:
    for name in ("RateLimit", "X-RateLimit"):
        sent = (headers.get(f"{name}-{field}", "") for field in ("Remaining", "Reset"))
        yield _limit(*sent)
    # IETF drafts: `"a";r=50;t=30, "b";r=9;t=5`, and before `limit=100, remaining=50, reset=5`.
    structured = re.sub(r'"(\\.|[^"\\])*"', "", headers.get("RateLimit", "")).lower()
    policies = [structured] if "remaining" in structured else structured.split(",")
    fields = [dict(re.findall(r"\b([a-z]+)=(\d+)", policy)) for policy in policies]
    old = (_limit(one.get("remaining", ""), one.get("reset", "")) for one in fields)
    new = (_limit(one.get("r", ""), one.get("t", "")) for one in fields)
    yield min([*old, *new], key=max)


def _limit(remaining: str, reset: str) -> RateLimit:
    seconds = _number(reset)
    if EPOCH_FROM < seconds < math.inf:
        seconds = max(0.0, seconds - time.time())
    return RateLimit(_number(remaining), seconds if seconds < EPOCH_FROM else math.inf)


def _number(value: str) -> float:
    """A header's number; infinity for what is none, or makes no sense."""
    try:
        number = float(value)
    except ValueError:
        return math.inf
    return number if number >= 0 else math.inf
