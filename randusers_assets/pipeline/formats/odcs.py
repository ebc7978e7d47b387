"""The contract in the Open Data Contract Standard, version 3.1."""

from typing import Any

from randusers_assets.pipeline.contract import Column, Contract
from randusers_assets.pipeline.formats.published import Published

# What `texts_are_single_line` allows. The two Unicode line ends are there themselves: ECMAScript,
# which the standard asks for, and RE2, which DuckDB has, agree on no escape for them.
SINGLE_LINE = "^[^\\x00-\\x1f\\x7f-\\x9f\u2028\u2029]*$"


def odcs(contract: Contract, published: Published) -> str:
    """A YAML document: a day's CSV, its columns, and the rules that all of its rows keep."""
    import yaml  # with the row rules 0.3 s, which no other format needs

    from randusers_assets.pipeline.audit.rules import row_rules

    rules = [
        {"name": name, "type": "text", "description": rule.description.partition(" If this")[0]}
        for name, (rule, _) in row_rules(contract).items()
    ]
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"{contract.name}_csv",
        "name": contract.name,
        "version": contract.version,
        "status": "active",
        "description": {"purpose": f"All rows of {contract.url}, one CSV for each UTC day."},
        "servers": [
            {
                "server": "s3",
                "type": "s3",
                "location": published.csv(contract),
                "format": "csv",
            }
        ],
        "schema": [
            {
                "name": contract.name,
                "logicalType": "object",
                "physicalType": "file",
                "quality": rules,
                "properties": [_property(contract, column) for column in contract.columns],
            }
        ],
        "slaProperties": [{"property": "frequency", "value": 1, "unit": "d"}],
    }
    return str(yaml.safe_dump(document, sort_keys=False, width=100))


def _property(contract: Contract, column: Column) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": column.name,
        "description": column.meaning,
        "required": column.required,
        "unique": column.name in contract.unique,
    }
    if column.name == contract.key:
        facts |= {"primaryKey": True, "primaryKeyPosition": 1}
    if column.personal:
        facts["classification"] = "personal"
    match column.type:
        case "integer" | "number":
            return facts | {"logicalType": column.type}
        case "timestamp":
            options = {"format": "yyyy-MM-dd'T'HH:mm:ss.SSSX", "timezone": True}
            return facts | {"logicalType": "timestamp", "logicalTypeOptions": options}
    options = {"pattern": SINGLE_LINE}
    if column.type == "email":
        options["format"] = "email"
    if column.required:
        options["minLength"] = 1
    return facts | {"logicalType": "string", "logicalTypeOptions": options}
