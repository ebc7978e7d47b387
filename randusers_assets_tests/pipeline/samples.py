"""Samples for tests of the pipeline: JSON lines, and the contract and rows of another API."""

from typing import Any

import msgspec

from randusers_assets.pipeline.contract import Column, Contract, Paging

ORDERS = Contract(
    name="orders",
    version="1",
    url="http://127.0.0.1:9/orders",
    columns=(
        Column("order.number", "integer", "The order, unique", required=True),
        Column("order.total", "number", "In euros"),
        Column("buyer.email", "email", "Of the buyer", personal=True),
        Column("items", "json", "What is ordered"),
    ),
    key="order_number",
    unique=("order_number",),
    # One at the top, one beside a column, and one named as a column elsewhere is.
    secrets=("token", "order.pin", "buyer.number"),
    # In the order of Paging: page, limit, ..., listing, success.
    paging=Paging(
        *("at", "size", "count", "pages", "held", "before", "after", "orders", "result", "ok")
    ),
)


def order(number: int, **changes: object) -> dict[str, Any]:
    """A valid row of ORDERS without its secrets; `changes` go by the keys at the top."""
    return {
        "order": {"number": number, "total": 9.5},
        "buyer": {"email": "ana@example.com"},
        "items": [{"name": "nut", "count": 2}],
        **changes,
    }


def json_lines(*rows: object) -> bytes:
    """Compact JSON lines of any values; `msgspec.Raw` stands for its own bytes."""
    return msgspec.json.Encoder().encode_lines(rows)
