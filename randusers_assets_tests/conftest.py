"""The fixtures: no test reaches real AWS, and the API and S3 are real servers on loopback."""

import gc
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource
from hypothesis import HealthCheck, settings

from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import SnapshotStore
from randusers_assets.settings import SETTINGS
from randusers_sandbox.s3 import LocalS3, local_s3

# `make test` tries the same examples every time, `make fuzz` new ones; neither is timed.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("test", UNTIMED, max_examples=200, derandomize=True)
settings.register_profile("fuzz", UNTIMED, max_examples=2_000, derandomize=False)
settings.load_profile("test")


def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than processors: the tests wait for servers and processes."""
    return (os.cpu_count() or 1) + 2


def pytest_configure() -> None:
    """Import the tests without the garbage collector, as `randusers` imports Dagster."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect what the tests make, and not scan the imports each time: it takes a seventh."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the browser's tests, which take the longest of all files."""
    items.sort(key=lambda item: "/ui/" not in item.nodeid)


@pytest.fixture(autouse=True)
def no_real_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials, endpoint and profile that lead nowhere but to what a test starts itself."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "REQUESTS_CA_BUNDLE", *SETTINGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # The discard port: nothing answers there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """One S3 server process for the whole session."""
    with local_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def snapshot_store(s3_server: LocalS3) -> SnapshotStore:
    """The Dagster resource of a new, empty bucket of the S3 server."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.create_bucket(bucket)
    return SnapshotStore(s3_resource=S3Resource(endpoint_url=s3_server.endpoint_url), bucket=bucket)


@pytest.fixture
def store(snapshot_store: SnapshotStore) -> Store:
    """The same bucket as the pipeline takes it."""
    return snapshot_store.store


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A `DAGSTER_HOME` with a copy of dagster.yaml."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy("dagster.yaml", home)
    return home


@pytest.fixture(scope="session")
def real_users() -> list[dict[str, Any]]:
    """20 users as the API sends them, with made-up values, or those in RANDUSERS_REAL_USERS."""
    sample = Path(__file__).parent / "data" / "users.json"
    path = Path(os.environ.get("RANDUSERS_REAL_USERS") or sample)
    users: list[dict[str, Any]] = json.loads(path.read_bytes())
    return users
