"""The sandbox configures its command, returns its status, and leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import (
    RANDUSERS,
    descendants,
    randusers,
    wait_until_gone,
)
from randusers_sandbox import supervisor
from randusers_sandbox.s3 import local_s3
from randusers_sandbox.user_file import SandboxError

# Prints its environment, then waits for a signal; it ends with status 5 on SIGINT.
COMMAND = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(5))
print(json.dumps(dict(os.environ)), flush=True)
while True:
    signal.pause()
"""
WAIT = (sys.executable, "-I", "-S", "-c", COMMAND)
# Each stand-in takes time to start, so a test that does not need one sets its variable.
NO_API = {"RANDUSERS_API_URL": "http://user:secret@api.invalid/users?token=secret"}
NO_S3 = {"RANDUSERS_BUCKET": "real-bucket"}


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(("RANDUSERS_", "AWS_"))}


@contextmanager
def _sandbox(directory: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {k: v for k, v in os.environ.items() if k not in _settings(os.environ)}
    with subprocess.Popen(  # noqa: S603  # this project's own command line
        [*RANDUSERS, "sandbox", "--users", "20", "--directory", str(directory), "--", *command],
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        bound = threading.Timer(patience(300), process.kill)
        bound.start()
        try:
            yield process
        finally:
            bound.cancel()
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    """What the command prints when it starts."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def _waiting(
    directory: Path, *before: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], dict[int, str]]]:
    """Run COMMAND in a sandbox; yield the sandbox and its processes, none of which may be left."""
    with _sandbox(directory, *before, *WAIT, **environment) as process:
        assert _first_line(process)
        processes = descendants(process.pid)
        yield process, processes
        wait_until_gone(processes)


def test_supervisor_configures_the_command(tmp_path: Path) -> None:
    """Both stand-ins answer before the command runs, and the caller's AWS settings are removed."""
    caller = {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_REGION": "eu-north-1"}
    with _sandbox(tmp_path, *WAIT, **caller, NO_PROXY="internal") as process:
        environment = json.loads(_first_line(process))
        endpoint, url = environment["AWS_ENDPOINT_URL_S3"], environment["RANDUSERS_API_URL"]
        assert requests.get(url, timeout=patience()).json()["data"]["totalItems"] == 20
        assert requests.head(f"{endpoint}/randusers-sandbox", timeout=patience()).ok
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=patience())
    assert _settings(environment) == {
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
        environment = json.loads(_first_line(process))
        assert len(descendants(process.pid)) == 2  # guard, command
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=patience())
    assert _settings(environment) == {**NO_API, **NO_S3, "AWS_PROFILE": "mine"}
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
        assert process.wait(patience()) == status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 5), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
)
def test_supervisor_forwards_signals(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Ctrl-C, SIGTERM and SIGHUP reach the command, whose status comes back; no process is left."""
    with _waiting(tmp_path) as (process, processes):
        assert len(processes) == 4  # simulator, local S3, guard, command
        process.send_signal(number)
        assert process.wait(patience()) == status


@pytest.mark.parametrize(
    ("part", "name"), [("sandbox.api", "API simulator"), ("ministack", "local S3")]
)
def test_supervisor_ends_the_command_when_a_part_dies(tmp_path: Path, part: str, name: str) -> None:
    """A killed stand-in ends the command, and one sentence names it."""
    with _waiting(tmp_path) as (process, processes):
        (victim,) = (pid for pid, line in processes.items() if part in line)
        os.kill(victim, signal.SIGKILL)
        _, output = process.communicate(timeout=patience())
        assert process.returncode == 1
    died = f"the {name} died (status -9), so the command was stopped: run it again."
    assert output.splitlines()[-1] == f"randusers sandbox: {died}"


def test_supervisor_killed_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL to the supervisor ends the stand-ins and the command, and frees the directory."""
    with _waiting(tmp_path, "sh", "-c", '"$@"; :', "sh") as (process, processes):
        assert len(processes) == 5  # simulator, local S3, guard, shell, its child
        process.send_signal(signal.SIGKILL)
        process.wait()
    with local_s3(tmp_path / "s3") as s3:
        assert s3.process.poll() is None


@pytest.mark.parametrize("victim", ["command", "guard"])
def test_supervisor_survives_a_killed_command(tmp_path: Path, victim: str) -> None:
    """SIGKILL to the command, or to its guard, becomes the exit status; no process is left."""
    with _waiting(tmp_path, **NO_S3) as (process, processes):
        _simulator, guard, command = sorted(processes)
        os.kill({"command": command, "guard": guard}[victim], signal.SIGKILL)
        assert process.wait(patience()) == 128 + 9


def test_supervisor_ends_what_the_command_left(tmp_path: Path) -> None:
    """A child that the command left in the background ends with the sandbox."""
    script = "sleep 600 & echo $!; exit 3"
    with _sandbox(tmp_path, "sh", "-c", script, **NO_API, **NO_S3) as process:
        left = int(_first_line(process))
        assert process.wait(patience()) == 3
        wait_until_gone({left: "sleep"})


def test_supervisor_ends_at_once_when_stopped_at_start(tmp_path: Path) -> None:
    """A signal before the command runs ends the stand-ins, with the signal's status."""
    with _sandbox(tmp_path, *WAIT) as process:
        while not (processes := descendants(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(patience()) == 128 + 15
        wait_until_gone(processes)


def test_supervisor_removes_its_temporary_directory(tmp_path: Path) -> None:
    """Without a directory the data is in a temporary one, which is removed at the end."""
    command = ("sandbox", "--users", "20", "--", "sh", "-c", f"ls {tmp_path}")
    ended = randusers(*command, **NO_S3, TMPDIR=str(tmp_path))
    assert ended.returncode == 0
    assert ended.stdout.startswith("randusers-sandbox-")
    assert list(tmp_path.iterdir()) == []


def test_supervisor_reports_why_the_simulator_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the simulator's own sentence, and the signal handlers are restored."""
    monkeypatch.setenv("RANDUSERS_BUCKET", "real-bucket")
    monkeypatch.delenv("RANDUSERS_API_URL", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    file = tmp_path / "users.json"
    file.write_text("{}")
    message = f"^The users file {file} is not a JSON array of users "
    with pytest.raises(SandboxError, match=message):
        supervisor.run(["true"], users=1, users_file=file, directory=tmp_path, latency_seconds=0)
    assert signal.getsignal(signal.SIGTERM) is handler
