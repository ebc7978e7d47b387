"""Paging as the API's JavaScript computes it, even for nonsense."""

import math
import re
from typing import Any, Final

_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?)", re.IGNORECASE)
_INTEGER: Final = re.compile(r"0(x[0-9a-f]+|o[0-7]+|b[01]+)", re.IGNORECASE)
_EXACT: Final = 2**53


def js_number(text: str) -> int | float:
    """Return a string as a number as JavaScript's unary `+` does: NaN where Python would raise."""
    text = text.strip()
    if not text:
        return 0
    if _INTEGER.fullmatch(text):
        value = float(int(text, 0))
    elif _DECIMAL.fullmatch(text):
        value = float(text)
    elif text.lstrip("+-") == "Infinity" and len(text) <= len("+Infinity"):
        value = -math.inf if text.startswith("-") else math.inf
    else:
        value = math.nan
    return int(value) if value.is_integer() and abs(value) <= _EXACT else value


def envelope(page: float, limit: float, total: int) -> dict[str, Any]:
    """Return the API's body for a page, without users; NaN and infinities become null."""
    pages: float = total / limit if limit else math.inf * total
    if math.isfinite(pages):
        pages = math.ceil(pages)
    start, stop = bounds(page, limit, total)
    return {
        "statusCode": 200,
        "data": {
            "page": _json_number(page),
            "limit": _json_number(limit),
            "totalPages": _json_number(pages),
            "previousPage": page > 1,
            "nextPage": page < pages,
            "totalItems": total,
            "currentPageItems": max(stop - start, 0),
            "data": [],
        },
        "message": "Random users fetched successfully",
        "success": True,
    }


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def bounds(page: float, limit: float, total: int) -> tuple[int, int]:
    """Return the bounds of JavaScript's `users.slice(start, start + limit)` for a page."""
    start = (page - 1) * limit
    return _js_index(start, total), _js_index(start + limit, total)


def _js_index(value: float, length: int) -> int:
    if math.isnan(value):
        return 0
    if math.isinf(value):
        return 0 if value < 0 else length
    index = math.trunc(value)
    return max(index + length, 0) if index < 0 else min(index, length)
