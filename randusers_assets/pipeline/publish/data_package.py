"""`datapackage.json`: the last published CSV, as the tools of Frictionless Data read it.

The standard is at https://datapackage.org/standard/data-package/.
"""

from typing import Any

import msgspec

from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.publish.receipt import Receipt
from randusers_assets.pipeline.storage.paths import csv_path

_TYPES = {"integer": "integer", "number": "number", "timestamp": "datetime"}

_DIALECT = {
    "delimiter": ",",
    "lineTerminator": "\n",
    "quoteChar": '"',
    "doubleQuote": True,
    "skipInitialSpace": False,
    "header": True,
}


def describe_csv(contract: Contract, receipt: Receipt) -> bytes:
    """The data package of a published CSV; its paths are relative to the prefix."""
    schema = {
        "fields": [_field(contract, column) for column in contract.columns],
        "missingValues": [""],  # the standard has no word for the difference from an empty text
        "primaryKey": [contract.key],
    }
    resource = {
        "name": contract.name,
        "type": "table",
        "path": csv_path(contract, receipt.date),
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": receipt.csv.bytes,
        "hash": f"sha256:{receipt.csv.sha256}",
        "dialect": _DIALECT,
        "schema": schema,
    }
    package = {
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "name": contract.name,
        "description": f"{contract.name} of {receipt.date}, UTC",
        "resources": [resource],
    }
    return msgspec.json.format(msgspec.json.encode(package), indent=2)


def _field(contract: Contract, column: Column) -> dict[str, Any]:
    constraints = {"required": column.required, "unique": column.name in contract.unique}
    kept = {name: True for name, holds in constraints.items() if holds}
    return {
        "name": column.name,
        "type": _TYPES.get(column.type, "string"),
        "description": column.meaning,
        **({"constraints": kept} if kept else {}),
    }
