"""The sandbox configures its command, returns its status, and leaves no process behind."""

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

from randusers_assets_tests.sandbox.processes import descendants, python, wait_until_gone
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
# Prints its environment, then waits for a signal; it ends with status 5 on SIGINT.
COMMAND = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(5))
print(json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}), flush=True)
while True:
    signal.pause()
"""
WAIT = (sys.executable, "-I", "-S", "-c", COMMAND)
# Each stand-in takes time to start, so a test that does not need one sets its variable.
NO_API = {"RANDUSERS_API_URL": "http://user:secret@api.invalid/users?token=secret"}
NO_S3 = {"RANDUSERS_BUCKET": "real-bucket"}


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


def _started(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what COMMAND prints when it starts."""
    assert process.stdout is not None
    printed: dict[str, Any] = json.loads(process.stdout.readline())
    return printed


def _only(processes: Mapping[int, str], part: str) -> int:
    (found,) = (pid for pid, line in processes.items() if part in line)
    return found


def test_supervisor_configures_the_command(tmp_path: Path) -> None:
    """Both stand-ins answer before the command runs, and the caller's AWS settings are removed."""
    caller = {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_REGION": "eu-north-1"}
    with _sandbox(tmp_path, *WAIT, **caller, NO_PROXY="internal") as process:
        environment = _started(process)["environment"]
        endpoint, url = environment["AWS_ENDPOINT_URL_S3"], environment["RANDUSERS_API_URL"]
        assert requests.get(url, timeout=10).json()["data"]["totalItems"] == 20
        assert requests.head(f"{endpoint}/randusers-sandbox", timeout=10).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=20)
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
    assert output.splitlines() == [
        f"randusers sandbox: the API is the simulator, at {url}.",
        f"randusers sandbox: S3 is the local S3, bucket randusers-sandbox, at {endpoint}.",
    ]


def test_supervisor_stands_in_only_for_what_is_not_set(tmp_path: Path) -> None:
    """With API and bucket set nothing is started, AWS settings stay, and no secret is logged."""
    with _sandbox(tmp_path, *WAIT, **NO_API, **NO_S3, AWS_PROFILE="mine") as process:
        started = _started(process)
        environment = started["environment"]
        guard, command = sorted(descendants(process.pid))
        assert command == started["pid"] != guard
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=20)
    settings = {k: v for k, v in environment.items() if k.startswith(("RANDUSERS_", "AWS_"))}
    assert settings == {**NO_API, **NO_S3, "AWS_PROFILE": "mine"}
    assert output.splitlines() == [
        "randusers sandbox: the API is real, at http://api.invalid/users.",
        "randusers sandbox: S3 is real, bucket real-bucket.",
    ]


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)]
)
def test_supervisor_returns_the_exit_status(tmp_path: Path, script: str, status: int) -> None:
    """The status is the command's own, or 128 + the signal that ended it."""
    with _sandbox(tmp_path, "sh", "-c", script, **NO_API, **NO_S3) as process:
        assert process.wait(20) == status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 5), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
)
def test_supervisor_forwards_signals(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Ctrl-C, SIGTERM and SIGHUP reach the command, whose status comes back; no process is left."""
    with _sandbox(tmp_path, *WAIT) as process:
        _started(process)
        processes = descendants(process.pid)
        assert len(processes) == 4  # simulator, local S3, guard, command
        process.send_signal(number)
        assert process.wait(20) == status
        wait_until_gone(processes)


@pytest.mark.parametrize(
    ("part", "name"), [("sandbox.api", "API simulator"), ("ministack", "local S3")]
)
def test_supervisor_ends_the_command_when_a_part_dies(tmp_path: Path, part: str, name: str) -> None:
    """A killed stand-in ends the command, and one sentence names it."""
    with _sandbox(tmp_path, *WAIT) as process:
        _started(process)
        processes = descendants(process.pid)
        os.kill(_only(processes, part), signal.SIGKILL)
        assert process.wait(20) == 1
        wait_until_gone(processes)
        assert process.stderr is not None
        *_, reason = process.stderr.read().splitlines()
        assert reason == (
            f"randusers sandbox: the {name} died (status -9),"
            " so the command was stopped: run it again."
        )


def test_supervisor_killed_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL to the supervisor itself ends the stand-ins, the command and its children."""
    with _sandbox(tmp_path, "sh", "-c", '"$@"; :', "sh", *WAIT) as process:
        _started(process)
        processes = descendants(process.pid)
        assert len(processes) == 5  # simulator, local S3, guard, shell, its child
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_gone(processes)


@pytest.mark.parametrize("victim", ["command", "guard"])
def test_supervisor_survives_a_killed_command(tmp_path: Path, victim: str) -> None:
    """SIGKILL to the command, or to its guard, becomes the exit status; no process is left."""
    with _sandbox(tmp_path, *WAIT, **NO_S3) as process:
        command = _started(process)["pid"]
        processes = descendants(process.pid)
        guard = _only({p: line for p, line in processes.items() if p != command}, "guard.py")
        os.kill({"command": command, "guard": guard}[victim], signal.SIGKILL)
        assert process.wait(20) == 128 + 9
        wait_until_gone(processes)


def test_supervisor_ends_what_the_command_left(tmp_path: Path) -> None:
    """A child that the command left in the background ends with the sandbox."""
    script = "sleep 600 & echo $!; exit 3"
    with _sandbox(tmp_path, "sh", "-c", script, **NO_API, **NO_S3) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        assert process.wait(20) == 3
        wait_until_gone({left: "sleep"})


def test_supervisor_ends_at_once_when_stopped_at_start(tmp_path: Path) -> None:
    """A signal before the command runs ends the stand-ins, with the signal's status."""
    with _sandbox(tmp_path, *WAIT) as process:
        while not (processes := descendants(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + 15
        wait_until_gone(processes)


def test_supervisor_removes_its_temporary_directory(tmp_path: Path) -> None:
    """Without a directory the data is in a temporary one, which is removed at the end."""
    code = RUN.replace("Path(sys.argv[1])", "None")
    command = ("-c", code, "", "sh", "-c", f"ls {tmp_path}")
    ended = python(*command, **NO_S3, TMPDIR=str(tmp_path))
    assert ended.returncode == 0
    assert ended.stdout.startswith("randusers-sandbox-")
    assert list(tmp_path.iterdir()) == []


def _run(directory: Path, *command: str, users_file: Path | None = None) -> int:
    return supervisor.run(
        command, users=1, users_file=users_file, directory=directory, latency_seconds=0
    )


def test_supervisor_refuses_a_missing_command(tmp_path: Path) -> None:
    """No command, or one that is not on PATH, is refused before anything is started."""
    with pytest.raises(SandboxError, match=r"^No command is given: randusers sandbox -- COMMAND"):
        _run(tmp_path)
    with pytest.raises(SandboxError, match=r"^The command none-such is not found: check its name"):
        _run(tmp_path, "none-such")


def test_supervisor_reports_why_the_simulator_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the simulator's own sentence, and the signal handlers are restored."""
    monkeypatch.setenv("RANDUSERS_BUCKET", "real-bucket")
    monkeypatch.delenv("RANDUSERS_API_URL", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    file = tmp_path / "users.json"
    file.write_text("{}")
    with pytest.raises(SandboxError) as refusal:
        _run(tmp_path, "true", users_file=file)
    assert str(refusal.value).startswith(f"The users file {file} is not a JSON array of users (")
    assert signal.getsignal(signal.SIGTERM) is handler
