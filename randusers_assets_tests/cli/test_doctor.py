"""`randusers doctor`: what is set up, line by line, and how to fix what is not."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.builders import users
from randusers_assets_tests.cli.conftest import TODAY, Randusers
from randusers_assets_tests.pipeline.publish.bucket import publish_users
from randusers_assets_tests.sandbox.processes import randusers, run
from randusers_sandbox.api import ApiSimulator


def test_doctor_shows_line_by_line_what_works(
    api: ApiSimulator, store: Store, tmp_path: Path, randusers_here: Randusers
) -> None:
    """With everything in place, four lines of `ok` and exit status 0; the same as JSON."""
    shutil.copy("dagster.yaml", tmp_path)
    as_json = randusers_here("doctor", "--json", DAGSTER_HOME=str(tmp_path))
    parts = {
        "API": f"{api.url} declares 500 rows",
        "credentials": "found by boto3 (env)",
        "bucket": f"{store.uri(PROBE)} was written and read",
        "instance": f"keeps its runs in {tmp_path}",
    }
    assert (as_json.returncode, json.loads(as_json.stdout)) == (
        0,
        {
            "parts": [{"part": part, "ok": True, "text": text} for part, text in parts.items()],
            "error": None,
        },
    )
    done = randusers("doctor", DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == (
        f"ok    API          {api.url} declares 500 rows\n"
        "ok    credentials  found by boto3 (env)\n"
        f"ok    bucket       {store.uri(PROBE)} was written and read\n"
        f"ok    instance     keeps its runs in {tmp_path}\n"
    )


def test_doctor_shows_how_to_fix_what_does_not_work(
    monkeypatch: pytest.MonkeyPatch, api: ApiSimulator, randusers_here: Randusers
) -> None:
    """What is missing is a line of `FAIL` with what to do, and exit status 1."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = randusers_here("doctor", RANDUSERS_BUCKET="")
    as_json = randusers_here("doctor", "--json", RANDUSERS_BUCKET="")
    parts = {part["part"]: part["ok"] for part in json.loads(as_json.stdout)["parts"]}
    assert (done.returncode, as_json.returncode) == (1, 1)
    assert parts == {"API": True, "credentials": False, "bucket": False, "instance": False}
    assert done.stdout == (
        f"ok    API          {api.url} declares 500 rows\n"
        "FAIL  credentials  not found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY, or attach a role.\n"
        "FAIL  bucket       RANDUSERS_BUCKET is not set: name the bucket for the snapshots.\n"
        "FAIL  instance     temporary: set DAGSTER_HOME to a directory with a copy of"
        " dagster.yaml; otherwise run history is lost when the process stops.\n"
    )


def test_env_file_is_all_that_doctor_and_load_users_need(
    monkeypatch: pytest.MonkeyPatch, api: ApiSimulator, store: Store, tmp_path: Path
) -> None:
    """Both read `.env` of the directory that they start in; what the environment sets wins."""
    publish_users(store, TODAY, users(10))
    shutil.copy("dagster.yaml", tmp_path)
    settings = {
        "RANDUSERS_BUCKET": "no-such",
        "RANDUSERS_API_URL": api.url,
        "AWS_ENDPOINT_URL_S3": os.environ["AWS_ENDPOINT_URL_S3"],
        "DAGSTER_HOME": str(tmp_path),
    }
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANDUSERS_BUCKET", store.bucket)
    lines = "\n".join(f"{name}={value}" for name, value in settings.items())
    (tmp_path / ".env").write_text(lines, encoding="utf-8")
    doctor = randusers("doctor", cwd=str(tmp_path))
    assert (doctor.returncode, doctor.stdout.count("ok    ")) == (0, 4), doctor.stdout
    load = (sys.executable, "-c", "import randusers_assets as r; print(len(r.load_users()))")
    loaded = run(*load, cwd=str(tmp_path))
    assert (loaded.returncode, loaded.stdout) == (0, "10\n"), loaded.stderr
