"""The command line as a person runs it, with an API and a bucket that answer."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster_aws.s3 import S3Resource

from randusers_assets.cli import doctor, main, past, run
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import RandomUsersApi, SnapshotStore
from randusers_assets.settings import setting
from randusers_assets_tests.project import definitions_on
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import LocalS3

TODAY = datetime.now(UTC).date().isoformat()
DAY_BEFORE = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()

# As `processes.randusers`: arguments, and variables of the environment by name.
Randusers = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, store: Store, s3_server: LocalS3, tmp_path: Path
) -> Iterator[ApiSimulator]:
    """An API of 500 generated users; the environment names it and the empty bucket."""
    monkeypatch.setenv("RANDUSERS_BUCKET", store.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    with ApiSimulator(generated_users(500, tmp_path)) as simulator:
        monkeypatch.setenv("RANDUSERS_API_URL", simulator.url)
        yield simulator


@pytest.fixture
def randusers_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Randusers:
    """`randusers` in this process, which has imported Dagster: a process takes a second more.

    Of the settings it takes the API's URL and the bucket; the others are read at the import.
    """

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch, warnings.catch_warnings():
            # Dagster itself, as it initializes a resource that depends on another.
            warnings.filterwarnings("ignore", "InitResourceContext.dagster_run", DeprecationWarning)
            for name, value in {**environment, "PYTHON_DOTENV_DISABLED": "1"}.items():
                patch.setenv(name, value)
            url, s3_url = setting("RANDUSERS_API_URL"), os.environ.get("AWS_ENDPOINT_URL_S3")
            s3 = S3Resource(endpoint_url=s3_url)
            store = SnapshotStore(s3_resource=s3, bucket=setting("RANDUSERS_BUCKET"))
            for module in (doctor, past, run):
                patch.setattr(module, "snapshot_store", store)
            for module in (doctor, run):
                patch.setattr(module, "random_users_api", RandomUsersApi(url=url))
            patch.setattr(run, "defs", definitions_on(store, url))
            patch.setattr(sys, "argv", ["randusers", *arguments])
            status = main.main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out, err)

    return call
