"""The readers in an environment of their own: `make readers`."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from randusers_assets_tests.sandbox.processes import run

ROOT = Path(__file__).parents[2] / ".sandbox" / "readers"

needs_readers = pytest.mark.skipif(
    not (ROOT / "installed").is_file(), reason="the readers are not installed: make readers"
)


def run_reader(command: str, *arguments: str, **environment: str) -> CompletedProcess[str]:
    """Run a command of the environment; its HOME has DuckDB's extensions."""
    return run(str(ROOT / "bin" / command), *arguments, HOME=str(ROOT), **environment)


def read(code: str, *arguments: str) -> Any:  # noqa: ANN401  # what the code prints as JSON
    """Run Python code with the readers; what it prints last is JSON."""
    done = run_reader("python", "-c", code, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
