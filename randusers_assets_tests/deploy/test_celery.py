"""deploy/celery/: the project's own dagster.yaml, and what several machines need beside it."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_celery.launcher import CeleryRunLauncher

from randusers_assets.definitions import defs

ROOT = Path(__file__).parents[2]
CELERY = ROOT / "deploy" / "celery"


def config_of(path: Path) -> dict[str, object]:
    """A YAML file."""
    config: dict[str, object] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def test_celery_has_the_projects_own_instance_settings() -> None:
    """Nothing of dagster.yaml is lost or different, but for the limits that Celery needs."""
    own, here = config_of(ROOT / "dagster.yaml"), config_of(CELERY / "dagster.yaml")
    own["concurrency"]["runs"]["max_concurrent_runs"] = 2  # type: ignore[index]  # YAML
    own["run_monitoring"]["start_timeout_seconds"] = 3600  # type: ignore[index]  # YAML
    assert {key: here[key] for key in own} == own
    assert set(here) - set(own) == {"storage", "run_launcher"}


def test_celery_lets_a_run_wait_in_redis_for_a_whole_rebuild() -> None:
    """With one host lost, the run that waits for the other one is not failed meanwhile."""
    monitoring = config_of(CELERY / "dagster.yaml")["run_monitoring"]
    rebuild = defs.resolve_job_def("users_rebuild_job").tags["dagster/max_runtime"]
    assert monitoring["start_timeout_seconds"] > int(rebuild)  # type: ignore[index]  # YAML


def test_celery_workers_read_what_the_launcher_writes() -> None:
    """Both name the same broker, backend and options; a busy worker takes no second run."""
    launcher = config_of(CELERY / "dagster.yaml")["run_launcher"]["config"]  # type: ignore[index]  # YAML
    worker = config_of(CELERY / "celery.yaml")["execution"]["config"]  # type: ignore[index]  # YAML
    assert worker["config_source"].pop("worker_disable_prefetch") is True
    assert launcher == {**worker, "default_queue": "dagster"}


def test_celery_launcher_is_accepted_by_dagster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster builds it from the file, with the broker of the environment."""
    monkeypatch.setenv("DAGSTER_CELERY_BROKER", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("DAGSTER_CELERY_BACKEND", "redis://127.0.0.1:9/1")
    config = config_of(CELERY / "dagster.yaml")
    del config["storage"]  # PostgreSQL is only there in `make test-cluster`
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, CeleryRunLauncher)
        assert launcher.broker == "redis://127.0.0.1:9/0"
        assert launcher.config_source["broker_transport_options"] == {"visibility_timeout": 86400}
