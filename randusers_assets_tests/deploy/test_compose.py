"""deploy/docker/: what compose.yaml and the image's dagster.yaml say."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

from randusers_assets.settings import SETTINGS
from randusers_assets_tests.sandbox.processes import python

DOCKER = Path("deploy/docker")
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML's loader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # the loader's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize(("word", "status"), [("read_only", 0), ("readonly", 1)])
def test_compose_fits_the_schema_of_compose(word: str, status: int, tmp_path: Path) -> None:
    """compose.yaml has only keys and values that compose knows; a misspelt key is found."""
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE.replace("read_only", word), encoding="utf-8")
    schema = "--builtin-schema", "vendor.compose-spec"
    checked = python("-m", "check_jsonschema", *schema, str(path))
    assert checked.returncode == status, checked.stdout + checked.stderr
    assert ("'readonly' was unexpected" in checked.stdout) == bool(status)


def test_compose_passes_every_setting_on() -> None:
    """Each variable of the settings reaches the code location, and no default is a credential."""
    code = SERVICES["code"]["environment"]
    assert {name for name in code if name.startswith("RANDUSERS_")} == set(SETTINGS)
    given = {
        (name, value)
        for service in SERVICES.values()
        for name, value in service["environment"].items()
        if value is not None and ":?" not in value
    }
    own = {"DAGSTER_PG_HOST": "postgres", "POSTGRES_USER": "dagster", "POSTGRES_DB": "dagster"}
    assert given == set(own.items())


@pytest.mark.parametrize("name", SERVICES)
def test_compose_leaves_a_container_no_more_than_it_needs(name: str) -> None:
    """Root file systems are read-only, capabilities dropped, ports open on this machine alone."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    volumes = {volume.partition(":")[2] for volume in service.get("volumes", ())}
    assert "/tmp" in volumes | set(service.get("tmpfs", ()))  # noqa: S108  # the container's


def test_image_keeps_the_instance_of_the_project() -> None:
    """The image's dagster.yaml is the project's with PostgreSQL as its storage, no key twice."""
    project = Path("dagster.yaml").read_text(encoding="utf-8")
    storage = (DOCKER / "storage.yaml").read_text(encoding="utf-8")
    whole = yaml.load(project + storage, _UniqueKeys)  # noqa: S506  # a SafeLoader
    assert whole.pop("storage").keys() == {"postgres"}
    assert whole == yaml.safe_load(project)
