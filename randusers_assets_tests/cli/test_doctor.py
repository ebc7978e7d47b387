"""`randusers doctor`: what is set up, line by line, and how to fix what is not."""

import shutil
from pathlib import Path

import pytest

from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.sandbox.processes import randusers
from randusers_sandbox.api import ApiSimulator


def test_doctor_shows_line_by_line_what_works(
    api: ApiSimulator, store: Store, tmp_path: Path
) -> None:
    """With everything in place, four lines of `ok` and exit status 0."""
    shutil.copy("dagster.yaml", tmp_path)
    done = randusers("doctor", DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == (
        f"ok    API          {api.url} declares 500 rows\n"
        "ok    credentials  found by boto3 (env)\n"
        f"ok    bucket       {store.uri(PROBE)} was written and read\n"
        f"ok    instance     keeps its runs in {tmp_path}\n"
    )


def test_doctor_shows_how_to_fix_what_does_not_work(
    monkeypatch: pytest.MonkeyPatch, api: ApiSimulator
) -> None:
    """What is missing is a line of `FAIL` with what to do, and exit status 1."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = randusers("doctor", RANDUSERS_BUCKET="")
    assert done.returncode == 1
    assert done.stdout == (
        f"ok    API          {api.url} declares 500 rows\n"
        "FAIL  credentials  not found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY, or attach a role.\n"
        "FAIL  bucket       RANDUSERS_BUCKET is not set: name the bucket for the snapshots.\n"
        "FAIL  instance     temporary: set DAGSTER_HOME to a directory with a copy of"
        " dagster.yaml; otherwise run history is lost when the process stops.\n"
    )
