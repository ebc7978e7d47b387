"""The sandbox sets its command up, passes its end on, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from randusers_sandbox import supervisor
from randusers_sandbox.user_file import SandboxError

RUN = """
import sys
from pathlib import Path
from randusers_sandbox import supervisor
sys.exit(supervisor.run(
    sys.argv[2:], users=20, users_file=None, directory=Path(sys.argv[1]), latency_seconds=0
))
"""
# Says what it was given, then waits for a signal; SIGINT has it end with a status of its own.
COMMAND = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(5))
print(json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}), flush=True)
while True:
    signal.pause()
"""
WAIT = (sys.executable, "-I", "-S", "-c", COMMAND)
# Each stand-in takes time to start: a test that does not need one sets its variable.
NO_API = {"RANDUSERS_API_URL": "http://user:secret@api.invalid/users?token=secret"}
NO_S3 = {"RANDUSERS_BUCKET": "real-bucket"}


def _ps(*fields: str) -> list[list[str]]:
    """Return those fields of every process that lives."""
    listing = subprocess.run(  # noqa: S603 - a fixed command
        ["ps", "-A", "-ww", "-o", ",".join(f"{name}=" for name in ("stat", *fields))],  # noqa: S607 - ps is where the system has it
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(maxsplit=len(fields)) for line in listing.splitlines()]
    return [row[1:] for row in rows if not row[0].startswith("Z")]


def _below(process: int) -> dict[int, str]:
    """Return the command lines of a process's descendants, by process id."""
    found = {process: ""}
    rows = [(int(pid), int(parent), line) for pid, parent, line in _ps("pid", "ppid", "args")]
    while more := {p: line for p, parent, line in rows if parent in found and p not in found}:
        found |= more
    return {pid: line for pid, line in found.items() if pid != process}


def _wait_until_gone(processes: Mapping[int, str]) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        left = {int(pid) for (pid,) in _ps("pid")} & processes.keys()
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"still there: {[processes[pid] for pid in left]}")


@contextmanager
def _sandbox(directory: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RANDUSERS_", "AWS_"))}
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", RUN, str(directory), *command],
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what COMMAND says once it runs."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def _only(processes: Mapping[int, str], part: str) -> int:
    (found,) = (pid for pid, line in processes.items() if part in line)
    return found


def test_supervisor_sets_the_command_up(tmp_path: Path) -> None:
    """Both stand-ins answer before the command runs, and nothing of the caller's AWS is left."""
    caller = {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_REGION": "eu-north-1"}
    with _sandbox(tmp_path, *WAIT, **caller, NO_PROXY="internal") as process:
        environment = _told(process)["environment"]
        endpoint, url = environment["AWS_ENDPOINT_URL_S3"], environment["RANDUSERS_API_URL"]
        assert requests.get(url, timeout=10).json()["data"]["totalItems"] == 20
        assert requests.head(f"{endpoint}/randusers-sandbox", timeout=10).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    settings = {k: v for k, v in environment.items() if k.startswith(("RANDUSERS_", "AWS_"))}
    assert settings == {
        "RANDUSERS_API_URL": url,
        "RANDUSERS_BUCKET": "randusers-sandbox",
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    assert environment["NO_PROXY"] == "internal,127.0.0.1"
    assert said.splitlines() == [
        f"randusers sandbox: the API is the simulator, at {url}.",
        f"randusers sandbox: S3 is the local S3, bucket randusers-sandbox, at {endpoint}.",
    ]


def test_supervisor_stands_in_only_for_what_is_not_set(tmp_path: Path) -> None:
    """With API and bucket set nothing is started, AWS settings stay, and no secret is shown."""
    with _sandbox(tmp_path, *WAIT, **NO_API, **NO_S3, AWS_PROFILE="mine") as process:
        told = _told(process)
        environment = told["environment"]
        guard, command = sorted(_below(process.pid))
        assert command == told["pid"] != guard
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    settings = {k: v for k, v in environment.items() if k.startswith(("RANDUSERS_", "AWS_"))}
    assert settings == {**NO_API, **NO_S3, "AWS_PROFILE": "mine"}
    assert said.splitlines() == [
        "randusers sandbox: the API is real, at http://api.invalid/users.",
        "randusers sandbox: S3 is real, bucket real-bucket.",
    ]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)]
)
def test_supervisor_passes_the_exit_status_on(tmp_path: Path, script: str, status: int) -> None:
    """The status is the command's own, or 128 + the signal that ended it."""
    with _sandbox(tmp_path, "sh", "-c", script, **NO_API, **NO_S3) as process:
        assert process.wait(20) == status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 5), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
)
def test_supervisor_passes_signals_on(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Ctrl-C and its like reach the command, whose status comes back; nothing is left."""
    with _sandbox(tmp_path, *WAIT) as process:
        _told(process)
        processes = _below(process.pid)
        assert len(processes) == 4  # simulator, local S3, guard, command
        process.send_signal(number)
        assert process.wait(20) == status
        _wait_until_gone(processes)


@pytest.mark.parametrize(
    ("part", "name"), [("sandbox.api", "API simulator"), ("ministack", "local S3")]
)
def test_supervisor_ends_the_command_when_a_part_dies(tmp_path: Path, part: str, name: str) -> None:
    """A killed stand-in ends the command, and one sentence says which it was."""
    with _sandbox(tmp_path, *WAIT) as process:
        _told(process)
        processes = _below(process.pid)
        os.kill(_only(processes, part), signal.SIGKILL)
        assert process.wait(20) == 1
        _wait_until_gone(processes)
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == (
            f"randusers sandbox: the {name} died (status -9), so the command was ended."
        )


def test_supervisor_killed_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL to the supervisor itself ends the stand-ins, the command and its children."""
    with _sandbox(tmp_path, "sh", "-c", '"$@"; :', "sh", *WAIT) as process:
        _told(process)
        processes = _below(process.pid)
        assert len(processes) == 5  # simulator, local S3, guard, shell, its child
        process.send_signal(signal.SIGKILL)
        process.wait()
        _wait_until_gone(processes)


@pytest.mark.parametrize("victim", ["command", "guard"])
def test_supervisor_survives_a_killed_command(tmp_path: Path, victim: str) -> None:
    """SIGKILL to the command, or to its guard, is passed on as a status; nothing is left."""
    with _sandbox(tmp_path, *WAIT, **NO_S3) as process:
        command = _told(process)["pid"]
        processes = _below(process.pid)
        guard = _only({p: line for p, line in processes.items() if p != command}, "guard.py")
        os.kill({"command": command, "guard": guard}[victim], signal.SIGKILL)
        assert process.wait(20) == 128 + 9
        _wait_until_gone(processes)


def test_supervisor_ends_what_the_command_left(tmp_path: Path) -> None:
    """A child that the command left in the background ends with the sandbox."""
    with _sandbox(
        tmp_path, "sh", "-c", "sleep 600 & echo $!; exit 3", **NO_API, **NO_S3
    ) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        assert process.wait(20) == 3
        _wait_until_gone({left: "sleep"})


def test_supervisor_ends_at_once_when_stopped_as_it_starts(tmp_path: Path) -> None:
    """A signal before the command runs ends what was started, with the signal's status."""
    with _sandbox(tmp_path, *WAIT) as process:
        while not (processes := _below(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + 15
        _wait_until_gone(processes)


def test_supervisor_removes_its_temporary_directory(tmp_path: Path) -> None:
    """Without a directory the data is in a temporary one, which is gone at the end."""
    code = RUN.replace("Path(sys.argv[1])", "None")
    command = (sys.executable, "-c", code, "", "sh", "-c", f"ls {tmp_path}")
    ended = subprocess.run(  # noqa: S603 - this interpreter
        command,
        env=os.environ | NO_S3 | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("randusers-sandbox-")
    assert list(tmp_path.iterdir()) == []


def _run(directory: Path, *command: str, users_file: Path | None = None) -> int:
    return supervisor.run(
        command, users=1, users_file=users_file, directory=directory, latency_seconds=0
    )


def test_supervisor_refuses_a_command_that_is_not_there(tmp_path: Path) -> None:
    """No command, or one that PATH does not have, is refused before anything is started."""
    with pytest.raises(SandboxError, match=r"^No command is given: randusers sandbox -- COMMAND"):
        _run(tmp_path)
    with pytest.raises(SandboxError) as refusal:
        _run(tmp_path, "no-such-command")
    assert str(refusal.value) == (
        "The command no-such-command is not found: check its name and PATH."
    )


def test_supervisor_passes_on_why_the_simulator_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator's sentence is the supervisor's, and the signal handlers are put back."""
    monkeypatch.setenv("RANDUSERS_BUCKET", "real-bucket")
    monkeypatch.delenv("RANDUSERS_API_URL", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    file = tmp_path / "users.json"
    file.write_text("{}")
    with pytest.raises(SandboxError) as refusal:
        _run(tmp_path, "true", users_file=file)
    assert str(refusal.value).startswith(f"The users file {file} is not a JSON array of users (")
    assert signal.getsignal(signal.SIGTERM) is handler
