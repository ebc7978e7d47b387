"""Run and watch processes."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from randusers_assets_tests.patience import patience

RANDUSERS = (sys.executable, "-m", "randusers_assets.cli.main")


def run(*command: str, cwd: str = ".", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends; its output goes to pipes."""
    return subprocess.run(  # noqa: S603  # this project's own commands
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=patience(300),
        check=False,
    )


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter until it ends."""
    return run(sys.executable, *arguments, **environment)


def randusers(
    *arguments: str, cwd: str = ".", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `randusers` until it ends."""
    return run(*RANDUSERS, *arguments, cwd=cwd, **environment)


def _live(*fields: str) -> list[list[str]]:
    """These fields of every live process, as `ps` names them."""
    listing = run("ps", "-A", "-ww", "-o", ",".join(f"{name}=" for name in ("stat", *fields)))
    listing.check_returncode()
    rows = [line.split(maxsplit=len(fields)) for line in listing.stdout.splitlines()]
    return [row[1:] for row in rows if not row[0].startswith("Z")]


def descendants(process: int) -> dict[int, str]:
    """The command lines of a process's descendants, by process id."""
    found = {process: ""}
    rows = [(int(pid), int(parent), line) for pid, parent, line in _live("pid", "ppid", "args")]
    while more := {p: line for p, parent, line in rows if parent in found and p not in found}:
        found |= more
    return {pid: line for pid, line in found.items() if pid != process}


def wait_until_gone(processes: Mapping[int, str]) -> None:
    """Fail the test unless all of these processes end in time."""
    deadline = time.monotonic() + patience()
    while left := {int(pid) for (pid,) in _live("pid")} & processes.keys():
        if time.monotonic() > deadline:
            pytest.fail(f"still running: {[processes[pid] for pid in left]}")
        time.sleep(0.02)
