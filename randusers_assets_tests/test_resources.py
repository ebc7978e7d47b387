"""The Dagster resources: settings they refuse, the policy of a run, and what a run shares."""

import gc
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource
from pydantic import ValidationError

from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.resources import RandomUsersApi, SnapshotGate, SnapshotStore
from randusers_assets_tests.builders import users
from randusers_assets_tests.pipeline.storage.test_tempfiles import open_files_in
from randusers_assets_tests.project import definitions_on
from randusers_assets_tests.test_assets import api_of
from randusers_sandbox.api import ApiSimulator, generated_users

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")


def test_random_users_api_is_the_api_of_the_pipeline() -> None:
    """Each setting arrives."""
    url = "http://127.0.0.1:9"
    given = {"page_size": 2, "concurrency": 3, "deadline_seconds": 4, "token": "5"}
    assert RandomUsersApi.model_validate({"url": url, **given}).api == Api(url, 2, 3, 4, "5")


@pytest.mark.parametrize("setting", ["page_size", "concurrency", "deadline_seconds"])
def test_random_users_api_refuses_zero(setting: str) -> None:
    """A page, a thread or a deadline of zero is a mistake."""
    with pytest.raises(ValidationError, match=f"^1 validation error for .*\n{setting}\n"):
        RandomUsersApi.model_validate({"url": "http://127.0.0.1:9", setting: 0})


def test_random_users_api_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are read when they are used, copies keep them, and no repr has their values."""
    monkeypatch.setenv("RANDUSERS_API_URL", "http://me:s3cr3t@127.0.0.1:9")
    monkeypatch.setenv("RANDUSERS_API_TOKEN", "s3cr3t")
    url, token = dg.EnvVar("RANDUSERS_API_URL"), dg.EnvVar("RANDUSERS_API_TOKEN")
    configured = RandomUsersApi(url=url, token=token)
    copied = RandomUsersApi(**configured.model_dump())
    in_a_run = copied.process_config_and_initialize()
    for one in (configured, copied, in_a_run):
        assert (one.api.url, one.api.token) == ("http://me:s3cr3t@127.0.0.1:9", "s3cr3t")
        assert "s3cr3t" not in f"{one!r} {one} {one.api!r}"
    assert isinstance(copied.url, dg.EnvVar)
    assert isinstance(copied.token, dg.EnvVar)


@pytest.mark.parametrize(
    ("setting", "given", "reason"),
    [("0", 0, ""), ("0.25", 0.25, ""), ("0.25", 0.1, ""), ("0.25", 0.26, "x"), ("0", 1, "x")],
)
def test_snapshot_gate_policy_is_what_the_run_asks_for(
    monkeypatch: pytest.MonkeyPatch, setting: str, given: float, reason: str
) -> None:
    """Up to the setting a run needs no reason for its ratio; with one it may go above."""
    monkeypatch.setenv("RANDUSERS_MAX_REJECTED_RATIO", setting)
    gate = SnapshotGate(max_rejected_ratio=given, accept_rejects=reason, accept_change="a move")
    assert gate.policy == Policy(given, reason, "a move")


@pytest.mark.parametrize(("setting", "given"), [("", 0.01), ("0.25", 0.26)])
def test_snapshot_gate_asks_why_a_run_allows_more_rejects(
    monkeypatch: pytest.MonkeyPatch, setting: str, given: float
) -> None:
    """Above the setting a run needs a reason, and one for a change is not enough."""
    monkeypatch.setenv("RANDUSERS_MAX_REJECTED_RATIO", setting)
    gate = SnapshotGate(max_rejected_ratio=given, accept_change="why")
    with pytest.raises(SnapshotError) as refused:
        _ = gate.policy
    assert str(refused.value) == (
        f"The run config sets max_rejected_ratio to {given}, above RANDUSERS_MAX_REJECTED_RATIO"
        f" ({setting or 0}): add the reason, resources:"
        ' {snapshot_gate: {config: {accept_rejects: "why"}}}.'
    )


def test_snapshot_store_is_the_store_of_the_pipeline() -> None:
    """Each setting arrives."""
    given: dict[str, Any] = {"bucket": "b", "prefix": "p", "kms_key_id": "k", "owner": "1"}
    made = SnapshotStore(s3_resource=S3Resource(), **given).store
    assert {name: getattr(made, name) for name in given} == given


def test_snapshot_store_builds_one_client_for_the_same_settings() -> None:
    """Building a boto3 client takes longer than most requests; other settings get their own."""

    def client_of(url: str, bucket: str) -> object:
        return SnapshotStore(s3_resource=S3Resource(endpoint_url=url), bucket=bucket).store.client

    one = client_of("http://127.0.0.1:9", "one")
    assert client_of("http://127.0.0.1:9", "two") is one
    assert client_of("http://127.0.0.1:10", "one") is not one


def test_snapshot_store_run_is_shared_by_assets_checks_and_the_io_manager(
    snapshot_store: SnapshotStore, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """All steps of a run in one process use one object."""
    runs: list[SnapshotRun] = []

    class NotedStore(SnapshotStore):
        @property
        def run(self) -> SnapshotRun:
            runs.append(super().run)
            return runs[-1]

    with ApiSimulator(generated_users(10, tmp_path)) as api:
        defs = definitions_on(NotedStore(**dict(snapshot_store)), api.url)
        today = datetime.now(UTC).date().isoformat()
        job = defs.resolve_job_def("users_snapshot_job")
        job.execute_in_process(instance=instance, partition_key=today)
    assert len(runs) >= 6  # three assets, two checks, one IO manager
    assert len({id(run) for run in runs}) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc lists the open files")
@pytest.mark.parametrize(("changes", "success"), [({}, True), ({"email": "nobody"}, False)])
def test_snapshot_store_leaves_no_temp_file_open_when_the_run_ends(
    snapshot_store: SnapshotStore,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    changes: dict[str, object],
    success: bool,
) -> None:
    """A run that publishes and one that fails free the disk, without the garbage collector."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.disable()
    try:
        with api_of(users(10, **changes), tmp_path / "api") as api:
            before = open_files_in(tmp_path)
            job = definitions_on(snapshot_store, api.url).resolve_job_def("users_snapshot_job")
            today = datetime.now(UTC).date().isoformat()
            result = job.execute_in_process(
                instance=instance, partition_key=today, raise_on_error=False
            )
            assert (result.success, open_files_in(tmp_path)) == (success, before)
    finally:
        gc.enable()
