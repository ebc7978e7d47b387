"""The two locks: what a deployment installs is what the tests ran with."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pins(lock: str) -> set[str]:
    """Each package of a lock with its version and hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found = re.findall(r"^([a-z0-9]\S+).*\\\n((?:.+\\\n)*.+)", text, re.M)
    return {f"{package} {hashes}" for package, hashes in found}


def names(lock: str) -> set[str]:
    """The packages of a lock."""
    return {re.split(r"[=\[]", pin)[0] for pin in pins(lock)}


def test_run_lock_has_the_same_pins_as_the_development_lock() -> None:
    """A deployment gets no version and no hash that was not tested."""
    assert pins("requirements-run.lock") - pins("requirements.lock") == set()


def test_run_lock_has_what_a_deployment_runs_and_nothing_else() -> None:
    """The webserver, PostgreSQL, Celery and Kubernetes; neither the sandbox nor the tools."""
    run, everything = names("requirements-run.lock"), names("requirements.lock")
    needed = {"dagster", "dagster-webserver", "dagster-postgres", "dagster-celery", "dagster-k8s"}
    assert needed | {"boto3", "pyarrow", "redis", "psycopg2-binary"} <= run
    assert {"ministack", "pytest", "mypy", "ruff", "duckdb", "playwright"} <= everything - run
