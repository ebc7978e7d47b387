"""deploy/k8s/values.yaml: the Job of a run, and the instance of the deployment."""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes.client
import pytest
import yaml

# Not public names: a launcher is made of dagster.yaml, and a run of what a code location sends.
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._serdes import ConfigurableClassData
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher

from randusers_assets_tests.sandbox.processes import run

VALUES = yaml.safe_load(Path("deploy/k8s/values.yaml").read_text(encoding="utf-8"))
RUN = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
CODE = VALUES["dagster-user-deployments"]["deployments"][0]
IMAGE = f"{CODE['image']['repository']}:{CODE['image']['tag']}"
SECTIONS = {
    "containerConfig": "container_config",
    "podSpecConfig": "pod_spec_config",
    "jobSpecConfig": "job_spec_config",
}
KUBECONFIG = """
clusters: [{name: test, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: test, user: {}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
"""


def launcher_of(runs: dict[str, Any], directory: Path) -> K8sRunLauncher:
    """The launcher that Dagster makes of what the chart writes to dagster.yaml."""
    (directory / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "dagster_home": "/opt/dagster/dagster_home",
        "load_incluster_config": False,
        "kubeconfig_file": str(directory / "kubeconfig"),
        "run_k8s_config": {SECTIONS[name]: section for name, section in runs.items()},
    }
    data = ConfigurableClassData("dagster_k8s.launcher", "K8sRunLauncher", json.dumps(config))
    launcher = data.rehydrate(as_type=K8sRunLauncher)
    assert launcher is not None
    return launcher


def job_of(launcher: K8sRunLauncher) -> dict[str, Any]:
    """The Job that Kubernetes gets from the launcher for a run of the project's job."""
    pointer = ModuleCodePointer("randusers_assets.definitions", "defs")
    repository = RepositoryPythonOrigin("python", pointer, container_image=IMAGE)
    origin = JobPythonOrigin("users_snapshot_job", repository)
    context = K8sContainerContext.create_for_run(
        dg.DagsterRun("users_snapshot_job", job_code_origin=origin), launcher, include_run_tags=True
    )
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(IMAGE, launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run",
        user_defined_k8s_config=context.run_k8s_config,
    )
    sent: dict[str, Any] = kubernetes.client.ApiClient().sanitize_for_serialization(job)
    return sent


def validated(job: dict[str, Any], directory: Path) -> tuple[int, str]:
    """The status and the output of `kubernetes-validate --strict`."""
    (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
    program = str(Path(sys.executable).with_name("kubernetes-validate"))
    done = run(program, "--strict", str(directory / "job.json"))
    return done.returncode, done.stdout + done.stderr


def test_job_of_a_run_fits_the_schema_of_kubernetes(tmp_path: Path) -> None:
    """The Job has only what Kubernetes knows; its container is as small as the one of compose."""
    job = job_of(launcher_of(RUN, tmp_path))
    assert validated(job, tmp_path)[0] == 0, validated(job, tmp_path)[1]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    dockerfile = Path("deploy/docker/Dockerfile").read_text(encoding="utf-8")
    user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
    assert f"\nUSER {user}:{group}\n" in dockerfile
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert set(mounts.values()) == {"/tmp", "/opt/dagster/dagster_home/storage"}  # noqa: S108  # the container's
    assert set(container["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert set(container["resources"]["limits"]) == {"memory", "ephemeral-storage"}


@pytest.mark.parametrize(
    ("key", "misspelt"),
    [
        ("resources", "resource"),
        ("requests", "request"),
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("configMapRef", "configMapref"),
        ("mountPath", "mountpath"),
    ],
)
def test_job_with_a_misspelt_key_cannot_be_built(key: str, misspelt: str, tmp_path: Path) -> None:
    """Dagster takes a misspelt key when it starts, and would fail at the launch of a run."""
    wrong = json.loads(json.dumps(RUN["containerConfig"]).replace(f'"{key}"', f'"{misspelt}"'))
    launcher = launcher_of(RUN | {"containerConfig": wrong}, tmp_path)
    with pytest.raises(Exception, match=f"Unexpected keys in model class .*{misspelt}"):
        job_of(launcher)


def test_schema_of_kubernetes_knows_a_misspelt_key(tmp_path: Path) -> None:
    """The check of the Job is strict: it refuses a key that Kubernetes would drop."""
    job = job_of(launcher_of(RUN, tmp_path))
    job["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapref"] = {}
    status, output = validated(job, tmp_path)
    assert (status, "configMapref" in output) == (1, True), output


def test_kubernetes_keeps_the_instance_of_the_project() -> None:
    """The instance is the one of dagster.yaml; the parts that the chart would write are off."""
    project = yaml.safe_load(Path("dagster.yaml").read_text(encoding="utf-8"))
    assert VALUES["telemetry"] == project.pop("telemetry")
    assert VALUES["additionalInstanceConfig"] == project
    daemon = VALUES["dagsterDaemon"]
    written = [VALUES["retention"], daemon["runMonitoring"], daemon["runRetries"]]
    assert [*written, daemon["runCoordinator"]] == [{"enabled": False}] * 4


def test_kubernetes_runs_the_code_location_of_the_project() -> None:
    """The code server loads the module of workspace.yaml, on the port of the image."""
    (location,) = yaml.safe_load(Path("workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    module = location["python_module"]["module_name"]
    assert CODE["dagsterApiGrpcArgs"] == ["--module-name", module]
    dockerfile = Path("deploy/docker/Dockerfile").read_text(encoding="utf-8")
    assert f"\nEXPOSE {CODE['port']}\n" in dockerfile
