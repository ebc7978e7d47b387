"""The wiring: it loads without a warning, without the webserver, and describes each asset."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._cli.workspace.cli_target import workspace_opts_to_load_target
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_aws.s3 import S3Resource
from dagster_shared.cli import WorkspaceOpts

import randusers_assets
from randusers_assets import definitions
from randusers_assets.assets import raw_users, users_csv, users_df
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import defs
from randusers_assets.metadata import raw_schema, table_schema, with_places
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.sandbox.processes import python, run

ROOT = Path(__file__).parent.parent
STRICT = ("-W", "error", "-c")
LOAD = """
import json, sys
from randusers_assets.definitions import defs

modules = sorted(sys.modules)
import dagster as dg

gate = {"snapshot_gate": defs.resources["snapshot_gate"]}
config = {"snapshot_gate": {"config": {"accept_change": "why"}}}
with dg.build_resources(gate, resource_config=config) as resources:
    policy = str(resources.snapshot_gate.policy)
uris = {s.key.path[0]: s.metadata.get("dagster/uri") for s in defs.resolve_all_asset_specs()}
print(json.dumps({"modules": modules, "policy": policy, "uris": uris}))
"""
PLACES = {
    "raw_users": "raw_users/dt=YYYY-MM-DD/SHA256.jsonl.zst",
    "users_csv": "users_csv/dt=YYYY-MM-DD/users.csv",
    "users_df": "users_df/dt=YYYY-MM-DD/SHA256.parquet",
}


def test_definitions_are_one_literal_in_45_lines() -> None:
    """The whole wiring fits on a screen, and nothing is added to it elsewhere."""
    source = Path(definitions.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 45
    assert source.count("dg.Definitions(") == 1
    assert re.findall(r"^(?:if|for|def|class|with|try)\b", source, re.M) == []


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """What a process says that loads the definitions with settings; it may not warn."""
    settings = {"BUCKET": "lake", "PREFIX": "people", "MAX_REJECTED_RATIO": "0.25"}
    done = python(*STRICT, LOAD, **{f"RANDUSERS_{name}": value for name, value in settings.items()})
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_definitions_load_without_a_warning_the_webserver_or_heavy_libraries(
    loaded: dict[str, Any],
) -> None:
    """Heavy libraries are imported where they are used, and the webserver is never needed."""
    heavy = {"pandas", "email_validator", "dagster_webserver", "ministack", "duckdb"}
    assert heavy & set(loaded["modules"]) == set()
    assert "randusers_assets.definitions" in loaded["modules"]


def test_snapshot_gate_keeps_its_ratio_when_a_run_accepts_a_change(loaded: dict[str, Any]) -> None:
    """The run config of the history gate's message changes nothing but `accept_change`."""
    policy = "Policy(max_rejected_ratio=0.25, accept_rejects='', accept_change='why')"
    assert loaded["policy"] == policy


def test_definitions_run_every_job_in_one_process() -> None:
    """The job of runs from the asset graph and of backfills has the in-process executor, too."""
    jobs = (
        defs.resolve_implicit_global_asset_job_def(),
        defs.resolve_job_def("users_snapshot_job"),
    )
    assert [job.executor_def.name for job in jobs] == ["in_process", "in_process"]


def test_definitions_are_found_by_dagster_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dagster dev` reads workspace.yaml, which a `[tool.dagster]` or `[tool.dg]` would hide."""
    monkeypatch.chdir(ROOT)
    target = workspace_opts_to_load_target(WorkspaceOpts())
    assert target == WorkspaceFileTarget(paths=["workspace.yaml"])
    (origin,) = target.create_origins()
    assert origin.loadable_target_origin.module_name == definitions.__name__
    assert origin.location_name == "randusers_assets"


def test_definitions_are_found_by_dg() -> None:
    """`dg check defs` loads the project."""
    done = run(str(Path(sys.executable).with_name("dg")), "check", "defs", cwd=str(ROOT))
    assert done.returncode == 0, done.stderr


def test_definitions_are_valid_and_exported_by_the_package() -> None:
    """Every asset finds its resources, and `randusers_assets.defs` is that one object."""
    dg.Definitions.validate_loadable(defs)
    assert randusers_assets.defs is defs
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = randusers_assets.nothing


def test_definitions_show_where_the_assets_are_if_a_bucket_is_set(
    loaded: dict[str, Any],
) -> None:
    """The address on an asset's page is the store's; without a bucket there is none."""
    assert loaded["uris"] == {name: f"s3://lake/people/{place}" for name, place in PLACES.items()}
    for bucket, shown in (("lake", set(PLACES)), ("", set())):
        store = SnapshotStore(s3_resource=S3Resource(), bucket=bucket)
        placed = with_places([raw_users, users_df, users_csv], store.run)
        specs = [spec for asset in placed for spec in asset.specs]
        assert {s.key.to_user_string() for s in specs if "dagster/uri" in s.metadata} == shown


@pytest.mark.parametrize(("value", "copies"), [("", True), ("on", True), ("off", False)])
def test_definitions_turn_the_parquet_copy_on_and_off(value: str, *, copies: bool) -> None:
    """The run takes RANDUSERS_PUBLISH_PARQUET from the environment."""
    code = "from randusers_assets.definitions import snapshot_store as s; print(s.run.parquet_copy)"
    done = python(*STRICT, code, RANDUSERS_PUBLISH_PARQUET=value)
    assert (done.stderr, done.stdout) == ("", f"{copies}\n")


@pytest.mark.parametrize("name", PLACES)
def test_definitions_describe_own_and_tag_every_asset(name: str) -> None:
    """Each asset states its grain, owner, kinds, code version, source file and columns."""
    node = defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert str(node.description).startswith("One ")
    assert (list(node.owners), node.group_name) == (["team:data-engineering"], "randusers")
    assert "s3" in node.kinds
    assert str(node.code_version).endswith(f"+contract.{CONTRACT.version}")
    (reference,) = node.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("/randusers_assets/assets.py")
    schema = table_schema(CONTRACT) if name != "raw_users" else raw_schema(CONTRACT)
    assert node.metadata["dagster/column_schema"] == schema
    if name != "raw_users":
        contract = node.metadata["contract"]
        assert isinstance(contract, dg.PathMetadataValue)
        assert (ROOT / str(contract.value)).is_file()
