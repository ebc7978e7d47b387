"""docs/reading.md: each statement is what the command prints, and the rest is run."""

import fnmatch
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import get_args

import boto3
import nbformat
import pandas as pd
import pytest
from botocore.exceptions import ClientError
from nbclient import NotebookClient

from randusers_assets import definitions
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.contract import ColumnType
from randusers_assets.pipeline.flatten.arrow import flatten_lines
from randusers_assets.pipeline.flatten.frames import to_frame
from randusers_assets.pipeline.formats import FORMATS
from randusers_assets.pipeline.formats.published import Published
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import user, users
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish.bucket import body_of, publish_users
from randusers_assets_tests.pipeline.samples import ORDERS, json_lines, order
from randusers_assets_tests.sandbox.processes import run
from randusers_sandbox.s3 import LocalS3

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK = DOCS / "first-look.ipynb"
READING = (DOCS / "reading.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", READING, re.M | re.S))
DAY = "2026-11-23"
EXAMPLE = Published("BUCKET", "PREFIX", "2026-11-01")
# A person's `aws s3 cp` of one object, to a file or to stdout.
AWS = """\
#!{python}
import boto3, os, sys
bucket, key = sys.argv[3].removeprefix("s3://").split("/", 1)
body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
if sys.argv[4] == "-":
    sys.stdout.buffer.write(body)
else:
    open(os.path.join(sys.argv[4], os.path.basename(key)), "wb").write(body)
"""


def block(section: str, language: str, number: int = 0) -> str:
    """One of the code blocks of a section."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.M | re.S)
    return str(blocks[number])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "odcs"])
def test_reading_shows_what_the_command_prints(name: str) -> None:
    """The section of each engine has the output of `randusers contract` without a bucket."""
    (section,) = (title for title in SECTIONS if title.lower() == name)
    language = "python" if name in ("pandas", "polars", "spark") else "sql"
    assert block(section, language) == FORMATS[name](CONTRACT, EXAMPLE)


def test_reading_names_the_vendors_page_of_what_is_not_run() -> None:
    """Each section that says that its statement is not run links to the vendor's page."""
    titles = [title for title, text in SECTIONS.items() if "Not run" in text]
    assert titles == ["Spark", "Athena", "Redshift", "Snowflake", "BigQuery"]
    assert [title for title in titles if "](https://" not in SECTIONS[title]] == []
    table = dict(re.findall(r"^\| (\w+) \|.*\| (yes|no) \|$", READING, re.M))
    assert {name for name, ran in table.items() if ran == "no"} == {*titles, "Excel"} - {"Athena"}


@pytest.fixture
def published(store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket with a published day; the AWS settings lead to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    publish_users(store, DAY, users(5))
    return store


def for_bucket(code: str, store: Store) -> str:
    """The document's code with the names of a bucket instead of the placeholders."""
    return code.replace("BUCKET", store.bucket).replace("PREFIX/", "")


def test_reading_event_is_matched_by_the_rule() -> None:
    """The rule matches the event of a day's CSV by type, bucket and key, and no other object."""
    rule, event = (json.loads(block("Consume when", "json", number)) for number in (0, 1))
    assert event["source"] in rule["source"]
    assert event["detail-type"] in rule["detail-type"]
    detail, expected = event["detail"], rule["detail"]
    assert detail["bucket"]["name"] in expected["bucket"]["name"]
    ((kind, wildcard),) = expected["object"]["key"][0].items()
    assert kind == "wildcard"
    assert detail["object"]["key"] == f"PREFIX/{paths.csv_path(CONTRACT, DAY)}"
    assert fnmatch.fnmatchcase(detail["object"]["key"], wildcard)
    others = (
        paths.latest_path(CONTRACT),
        paths.receipt_path(CONTRACT, DAY, "0" * 64),
        paths.rejects_path(CONTRACT, DAY, "0" * 64),
        paths.frames_path(CONTRACT, DAY, "0" * 64),
    )
    assert [one for one in others if fnmatch.fnmatchcase(f"PREFIX/{one}", wildcard)] == []


@pytest.mark.parametrize("changed", [False, True], ids=["published", "changed"])
def test_reading_digest_is_checked_in_shell(
    changed: bool,  # noqa: FBT001  # a case
    published: Store,
    tmp_path: Path,
) -> None:
    """The two commands print the receipt of a published CSV, and fail for a changed one."""
    _change(published, changed=changed)
    program = tmp_path / "aws"
    program.write_text(AWS.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}:{Path(str(shutil.which('sha256sum'))).parent}"
    commands = for_bucket(block("Check the digest", "sh"), published)
    done = run("sh", "-ec", commands, cwd=str(tmp_path), PATH=path)
    assert (done.returncode != 0) == changed, done.stderr
    if not changed:
        assert json.loads(done.stdout)["counts"]["published"] == 5


@pytest.mark.parametrize("changed", [False, True], ids=["published", "changed"])
def test_reading_digest_is_checked_in_two_lines_of_python(
    changed: bool,  # noqa: FBT001  # a case
    published: Store,
) -> None:
    """The second line finds the receipt of a published CSV, and raises for a changed one."""
    _change(published, changed=changed)
    code = for_bucket(block("Check the digest", "python"), published)
    assert len(code.splitlines()) == 2
    (receipts,) = re.findall(r'^`receipts = "(.*)"`', SECTIONS["Check the digest"], re.M)
    receipts = for_bucket(receipts, published)
    scope = {"s3": boto3.client("s3"), "hashlib": hashlib, "receipts": receipts}
    if changed:
        with pytest.raises(ClientError, match="NoSuchKey"):
            exec(code, scope)  # noqa: S102  # the document's own
    else:
        exec(code, scope)  # noqa: S102  # the document's own


def _change(store: Store, *, changed: bool) -> None:
    path = paths.csv_path(CONTRACT, DAY)
    store.put(path, body_of(store, path) + b"\n" * changed, content_type="text/csv")


def test_reading_dtypes_are_those_of_load_users(
    snapshot_store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has the dtype of each column type, as the frames of two contracts have them."""
    monkeypatch.setattr(definitions, "snapshot_store", snapshot_store)
    publish_users(snapshot_store.store, DAY, users(5))
    section = "Python: load_users"
    scope: dict[str, pd.DataFrame] = {}
    exec(block(section, "python"), scope)  # noqa: S102  # the document's own
    rows = re.findall(r"^\| `(.+?)`( *|, required) \| `(.+?)`", SECTIONS[section], re.M)
    table = {(name, required.strip(", ")): dtype for name, required, dtype in rows}
    dtypes = {
        (name, required): dtype
        for (names, required), dtype in table.items()
        for name in names.split("`, `")
    }
    flat = flatten_lines(json_lines(order(1), order(2)), ORDERS).rows
    for contract, frame in ((CONTRACT, scope["users"]), (ORDERS, to_frame(flat, ORDERS))):
        for column in contract.columns:
            required = "required" if column.type == "integer" and column.required else ""
            assert str(frame.dtypes[column.name]) == dtypes[column.type, required], column.name
    assert {name for name, _ in dtypes} == set(get_args(ColumnType))


def test_first_look_runs_on_two_days(published: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook, kept without output, plots a day and finds what the next one changed."""
    changed = [user(1, location_city="Elsewhere"), *users(6)[1:]]
    publish_users(published, "2026-11-24", changed)
    monkeypatch.setenv("RANDUSERS_BUCKET", published.bucket)
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
    NotebookClient(notebook, timeout=patience(300), kernel_name="python3").execute()
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert len([one for one in shown if "image/png" in one]) == 2
    texts = "\n".join(one.get("text/plain", "") for one in shown)
    assert re.search(r"left_only +1\n", texts)
    assert re.search(r"right_only +0\n", texts)
    assert "['location_city']" in texts
