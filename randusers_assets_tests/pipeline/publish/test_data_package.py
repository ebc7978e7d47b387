"""`datapackage.json` describes the last published CSV to tools that know nothing of the project."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.publish.data_package import describe_csv
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, LENIENT, PACKAGE
from randusers_assets_tests.pipeline.samples import ORDERS


def package_of(store: Store, contract: Contract = CONTRACT) -> dict[str, Any]:
    """The description of the published day, under a contract."""
    package: dict[str, Any] = msgspec.json.decode(describe_csv(contract, bucket.receipt_of(store)))
    return package


def validate(store: Store, directory: Path) -> dict[str, Any]:
    """What the frictionless validator says of a local copy of the prefix."""
    for path in (PACKAGE, CSV):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(bucket.body_of(store, path))
    validator = Path(sys.executable).with_name("frictionless")
    command = [str(validator), "validate", PACKAGE, "--json"]
    done = subprocess.run(  # noqa: S603  # the validator of this environment
        command, cwd=directory, capture_output=True, check=False, text=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["valid"] is (done.returncode == 0)
    return report


def test_data_package_is_accepted_with_its_csv(store: Store, tmp_path: Path) -> None:
    """The validator reads all published rows, hostile text and NULLs included, without an error."""
    hostile = user(2, name_title=None, dob_age=None, location_city='a "b", \\ ', phone="")
    snapshot = [user(1, email=bucket.BAD_EMAIL), hostile, *users(20)[2:]]
    bucket.publish_users(store, DAY, snapshot, LENIENT)
    report = validate(store, tmp_path)
    assert (report["errors"], report["valid"]) == ([], True)
    (task,) = report["tasks"]
    assert (task["name"], task["place"], task["errors"]) == ("users", CSV, [])
    assert (task["stats"]["rows"], task["labels"]) == (19, list(CONTRACT.by_name))


@pytest.mark.parametrize(
    ("old", "new", "problems"),
    [
        (b'"gender"', b'"sex"', {"byte-count", "hash-count", "incorrect-label"}),
        (b'"1968-07-21T10:02:51.768Z"', b'"July"', {"byte-count", "hash-count", "type-error"}),
        (b"-000000000002", b"-000000000001", {"hash-count", "unique-error"}),
        (b'"the second"', b"", {"byte-count", "hash-count", "constraint-error"}),
    ],
)
def test_data_package_is_refused_with_another_csv(
    store: Store, tmp_path: Path, old: bytes, new: bytes, problems: set[str]
) -> None:
    """Bytes and digest, header, types, unique and required columns are those of the package."""
    uuid = "00000000-0000-0000-0000-00000000000"
    first = user(1, login_uuid=f"{uuid}1", dob_date="1968-07-21T10:02:51.768Z")
    bucket.publish_users(
        store, DAY, [first, user(2, login_uuid=f"{uuid}2", login_username="the second")]
    )
    body = bucket.body_of(store, CSV)
    assert body.count(old) == 1
    store.put(CSV, body.replace(old, new), content_type="text/csv; charset=utf-8")
    (task,) = validate(store, tmp_path)["tasks"]
    assert {error["type"] for error in task["errors"]} == problems


def test_data_package_has_the_types_of_any_contract(store: Store) -> None:
    """Integers, numbers and instants are typed, all else is text; paths stay below the prefix."""
    bucket.publish_users(store, DAY, users(1))
    (resource,) = package_of(store)["resources"]
    assert (resource["path"], resource["schema"]["primaryKey"]) == (CSV, ["id"])
    fields = {field["name"]: field for field in resource["schema"]["fields"]}
    assert list(fields) == list(CONTRACT.by_name)
    assert fields["dob_date"] == {
        "name": "dob_date",
        "type": "datetime",
        "description": "Birth, UTC",
        "constraints": {"required": True},
    }
    assert fields["id"]["constraints"] == {"required": True, "unique": True}
    (resource,) = package_of(store, ORDERS)["resources"]
    assert [field["type"] for field in resource["schema"]["fields"]] == [
        *("integer", "number", "string", "string")
    ]
