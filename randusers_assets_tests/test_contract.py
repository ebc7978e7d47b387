"""The contract of this project: it covers the API, and no other module knows its columns."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

import randusers_assets
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets_tests.builders import user
from randusers_sandbox import users as simulated

PACKAGE = Path(randusers_assets.__file__).parent
# A column type is named like the column: these modules define, audit and publish that type. An ODCS
# document has an `id` of its own.
TYPE_NAMES = {
    "pipeline/audit/rules.py": {"email"},
    "pipeline/contract.py": {"email"},
    "pipeline/formats/odcs.py": {"email", "id"},
    "pipeline/publish/publish.py": {"email"},
}


def _paths(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_contract_holds_the_paths_of_a_user_each_exactly_once() -> None:
    """Each value that the API sends, less the secrets, is one column, in the order sent."""
    paths = [column.path for column in CONTRACT.columns]
    assert paths == list(_paths(user(1)))
    sent = list(_paths(json.loads(simulated.user(1))))
    assert sorted((*paths, *CONTRACT.secrets)) == sorted(sent)


def test_contract_has_flat_names_and_types_and_keys_that_are_required() -> None:
    """SQL takes each name without quotes, four columns are int64, and no key is ever NULL."""
    schema = arrow_schema(CONTRACT)
    assert schema.names == list(CONTRACT.by_name)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in schema.names)
    integers = [name for name in schema.names if schema.field(name).type == pa.int64()]
    assert integers == ["location_street_number", "dob_age", "registered_age", "id"]
    assert {str(kind) for kind in schema.types} == {"int64", "string"}
    assert CONTRACT.unique == ("id", "login_uuid")
    assert all(CONTRACT.by_name[name].required for name in CONTRACT.unique)


def test_contract_masks_what_identifies_a_person() -> None:
    """Names, addresses, birth, phones and pictures are personal; keys and places are not."""
    personal = {column.name for column in CONTRACT.columns if column.personal}
    assert personal >= {
        *("name_first", "name_last", "location_street_name", "email", "login_username"),
        *("dob_date", "phone", "cell", "picture_large"),
    }
    assert personal.isdisjoint({*CONTRACT.unique, "nat", "location_country"})


def _strings(module: Path) -> Iterator[str]:
    """The string constants of a module, less its docstrings."""
    tree = ast.parse(module.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)


def test_contract_is_the_only_module_that_names_its_columns() -> None:
    """For another API one edits contract.py alone: no column or secret is named elsewhere."""
    columns = [name for one in CONTRACT.columns for name in (one.name, one.path)]
    named = {
        str(module.relative_to(PACKAGE)): {*columns, *CONTRACT.secrets} & set(_strings(module))
        for module in PACKAGE.rglob("*.py")
        if module != PACKAGE / "contract.py"
    }
    assert {module: names for module, names in named.items() if names} == TYPE_NAMES
