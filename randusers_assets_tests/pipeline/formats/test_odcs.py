"""The data contract: what it says of the columns, and what datacontract-cli makes of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.formats.odcs import SINGLE_LINE, odcs
from randusers_assets.pipeline.formats.published import Published
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import users
from randusers_assets_tests.pipeline.audit.test_rules import has_control
from randusers_assets_tests.pipeline.publish.bucket import body_of, publish_users
from randusers_assets_tests.pipeline.samples import ORDERS
from randusers_assets_tests.readers import needs_readers, run_reader
from randusers_sandbox.s3 import ACCESS_KEY, REGION, LocalS3

DAY = "2026-11-23"


def document() -> dict[str, Any]:
    """The document as YAML gives it."""
    loaded: dict[str, Any] = yaml.safe_load(odcs(CONTRACT, Published("BUCKET", "PREFIX", "")))
    return loaded


def properties() -> list[dict[str, Any]]:
    """The columns of the document."""
    (schema,) = document()["schema"]
    columns: list[dict[str, Any]] = schema["properties"]
    return columns


def test_odcs_names_the_standard_the_contract_and_where_a_day_is() -> None:
    """Version 3.1 of the standard, the contract's own version, and the CSV's URI."""
    found = document()
    kept = {name: found[name] for name in ("apiVersion", "kind", "id", "name", "version", "status")}
    assert kept == {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "users_csv",
        "name": "users",
        "version": CONTRACT.version,
        "status": "active",
    }
    location = "s3://BUCKET/PREFIX/users_csv/dt=YYYY-MM-DD/users.csv"
    server = {"server": "s3", "type": "s3", "location": location, "format": "csv"}
    assert found["servers"] == [server]


def test_odcs_has_each_column_of_the_contract() -> None:
    """Names in order, meanings, and which ones are required, unique, the key and personal."""
    columns = properties()
    assert [(one["name"], one["description"]) for one in columns] == [
        (column.name, column.meaning) for column in CONTRACT.columns
    ]

    def with_fact(fact: str) -> dict[str, Any]:
        return {one["name"]: one[fact] for one in columns if one.get(fact)}

    assert with_fact("required") == {c.name: True for c in CONTRACT.columns if c.required}
    assert with_fact("unique") == {"id": True, "login_uuid": True}
    assert with_fact("primaryKey") == {"id": True}
    personal = {c.name: "personal" for c in CONTRACT.columns if c.personal}
    assert with_fact("classification") == personal


def test_odcs_types_and_rules_follow_the_column_type() -> None:
    """An email, a timestamp, an integer and, of another contract, a number and JSON."""
    types = {
        one["name"]: (one["logicalType"], one.get("logicalTypeOptions")) for one in properties()
    }
    form = {"pattern": SINGLE_LINE, "format": "email", "minLength": 1}
    assert types["email"] == ("string", form)
    instant = {"format": "yyyy-MM-dd'T'HH:mm:ss.SSSX", "timezone": True}
    assert types["dob_date"] == ("timestamp", instant)
    assert types["id"] == ("integer", None)
    (orders,) = yaml.safe_load(odcs(ORDERS, Published("BUCKET", "", "")))["schema"]
    assert [one["logicalType"] for one in orders["properties"]] == [
        *("integer", "number", "string", "string")
    ]
    assert [rule["name"] for rule in orders["quality"]] == [
        *("emails_are_valid", "required_are_filled", "texts_are_single_line")
    ]


def test_odcs_pattern_is_the_rule_of_single_lines() -> None:
    """The pattern allows exactly the characters that the row rule allows."""
    for character in map(chr, range(0x10000)):
        assert bool(re.match(SINGLE_LINE + r"\Z", character)) != has_control(character)


@needs_readers
@pytest.mark.parametrize("repeated", [0, 1], ids=["as published", "with a row twice"])
def test_datacontract_tests_a_published_csv(
    repeated: int, store: Store, s3_server: LocalS3, tmp_path: Path
) -> None:
    """`datacontract test` passes on a CSV that is published in S3, and not with a row twice."""
    publish_users(store, DAY, users(20, name_title=None, gender=""))
    path = paths.csv_path(CONTRACT, DAY)
    body = body_of(store, path)
    last = body.splitlines(keepends=True)[-1]
    store.put(path, body + last * repeated, content_type="text/csv")
    file = tmp_path / "users.odcs.yaml"
    text = odcs(CONTRACT, Published(store.bucket, "", "")).replace("YYYY-MM-DD", DAY)
    endpoint = f"  type: s3\n  endpointUrl: {s3_server.endpoint_url}\n"
    file.write_text(text.replace("  type: s3\n", endpoint), encoding="utf-8")
    keys = {
        "DATACONTRACT_S3_REGION": REGION,
        "DATACONTRACT_S3_ACCESS_KEY_ID": ACCESS_KEY,
        "DATACONTRACT_S3_SECRET_ACCESS_KEY": ACCESS_KEY,
    }
    results = tmp_path / "results.json"
    options = ("--output", str(results), "--output-format", "json")
    done = run_reader("datacontract", "test", str(file), *options, **keys)
    assert done.returncode == repeated, done.stdout + done.stderr
    checks = json.loads(results.read_text(encoding="utf-8"))["checks"]
    failed = {(one["type"], one["field"]) for one in checks if one["result"] != "passed"}
    assert failed == (
        {("field_unique", "id"), ("field_unique", "login_uuid")} if repeated else set()
    )
    columns = {one["field"] for one in checks if one["type"] == "field_is_present"}
    assert columns == set(CONTRACT.by_name)


@needs_readers
def test_datacontract_finds_the_contract_valid(tmp_path: Path) -> None:
    """`lint` accepts the document as ODCS 3.1, and not one of another kind."""
    file = tmp_path / "users.odcs.yaml"
    text = odcs(CONTRACT, Published("BUCKET", "PREFIX", ""))
    file.write_text(text, encoding="utf-8")
    done = run_reader("datacontract", "lint", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "against ODCS v3.1.0" in " ".join(done.stdout.split())
    file.write_text(text.replace("logicalType: integer", "logicalType: int"), encoding="utf-8")
    assert run_reader("datacontract", "lint", str(file)).returncode == 1
