"""Run and watch processes."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter until it ends, and return its status and output."""
    command, settings = [sys.executable, *arguments], os.environ | environment
    return subprocess.run(  # noqa: S603 - this interpreter
        command, env=settings, capture_output=True, check=False, encoding="utf-8"
    )


def _ps(*fields: str) -> list[list[str]]:
    """Return these fields of every live process."""
    listing = subprocess.run(  # noqa: S603 - a fixed command
        ["ps", "-A", "-ww", "-o", ",".join(f"{name}=" for name in ("stat", *fields))],  # noqa: S607 - the system's ps
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(maxsplit=len(fields)) for line in listing.splitlines()]
    return [row[1:] for row in rows if not row[0].startswith("Z")]


def descendants(process: int) -> dict[int, str]:
    """Return the command lines of a process's descendants, by process id."""
    found = {process: ""}
    rows = [(int(pid), int(parent), line) for pid, parent, line in _ps("pid", "ppid", "args")]
    while more := {p: line for p, parent, line in rows if parent in found and p not in found}:
        found |= more
    return {pid: line for pid, line in found.items() if pid != process}


def wait_until_gone(processes: Mapping[int, str]) -> None:
    """Fail the test unless all of these processes end within 15 seconds."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        left = {int(pid) for (pid,) in _ps("pid")} & processes.keys()
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"still running: {[processes[pid] for pid in left]}")
