"""The sandbox configures its command, returns its status, and leaves no process behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import (
    RANDUSERS,
    descendants,
    randusers,
    run,
    wait_until_gone,
)
from randusers_sandbox import guard, supervisor
from randusers_sandbox.api import ApiSimulator
from randusers_sandbox.s3 import local_s3
from randusers_sandbox.user_file import SandboxError, generated_users

# Prints its environment, then waits for a signal; it ends with status 5 on SIGINT.
COMMAND = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(5))
print(json.dumps(dict(os.environ)), flush=True)
while True:
    signal.pause()
"""
WAIT = (sys.executable, "-I", "-S", "-c", COMMAND)
# `randusers` whose commands get less time to end.
IMPATIENT = (
    "import sys; from randusers_sandbox import guard; guard.STOP_SECONDS = 0.5;"
    " from randusers_assets.cli.main import main; sys.exit(main())"
)
# Ignores the signals that its shell ignores.
STUBBORN = "import time; print('started', flush=True); time.sleep(600)"
ROOT = Path(__file__).parents[2]
# Each stand-in takes time to start, so a test that does not need one sets its variable.
NO_API = {"RANDUSERS_API_URL": "http://user:secret@api.invalid/users?token=secret"}
NO_S3 = {"RANDUSERS_BUCKET": "real-bucket"}


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(("RANDUSERS_", "AWS_"))}


@contextmanager
def _started(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command without the settings of this process, and kill it at the end."""
    inherited = {k: v for k, v in os.environ.items() if k not in _settings(os.environ)}
    with subprocess.Popen(  # noqa: S603  # this project's own command line
        command,
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


def _sandbox(
    directory: Path, *command: str, **environment: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    options = ("--users", "20", "--directory", str(directory))
    return _started(*RANDUSERS, "sandbox", *options, "--", *command, **environment)


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
        "RANDUSERS_START_DATE": datetime.now(UTC).date().isoformat(),
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_supervisor_kills_a_command_that_ignores_signals(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A command and its child that ignore the signal are killed after a bound, and it is said."""
    stubborn = ("sh", "-c", 'trap "" INT TERM; "$@"; :', "sh", sys.executable, "-c", STUBBORN)
    impatient = (sys.executable, "-c", IMPATIENT, "sandbox", "--directory", str(tmp_path))
    with _started(*impatient, "--", *stubborn, **NO_API, **NO_S3) as process:
        assert _first_line(process) == "started\n"
        processes = descendants(process.pid)
        assert len(processes) == 3  # guard, shell, its child
        process.send_signal(number)
        _, output = process.communicate(timeout=patience())
        wait_until_gone(processes)
    assert process.returncode == 128 + 9
    killed = "the command did not end within 0.5 s, so it was killed."
    assert output.splitlines()[-1] == f"randusers sandbox: {killed}"


def test_supervisor_stops_in_less_than_ten_seconds() -> None:
    """The bounds of a stop, one after the other, are within ten seconds."""
    assert guard.STOP_SECONDS + supervisor.LEFTOVER_SECONDS < 10


def test_supervisor_takes_env_file_for_configured(tmp_path: Path) -> None:
    """A bucket in `.env` is as real as one in the environment, and the sandbox says so."""
    (tmp_path / ".env").write_text("RANDUSERS_BUCKET=real-bucket\n")
    done = randusers("sandbox", "--", "true", cwd=str(tmp_path), **NO_API)
    assert done.stderr.splitlines()[1:] == ["randusers sandbox: S3 is real, bucket real-bucket."]


def test_supervisor_simulates_all_whatever_is_configured(tmp_path: Path) -> None:
    """No setting of the environment or of `.env` reaches the command, and no request the real API.

    The run is that of `make demo`.
    """
    (tmp_path / ".env").write_text("RANDUSERS_BUCKET=other-bucket\nRANDUSERS_PREFIX=file\n")
    real = {**NO_S3, "RANDUSERS_PREFIX": "real", "DAGSTER_HOME": str(tmp_path / "none")}
    with ApiSimulator(generated_users(20, tmp_path / "real")) as api:
        done = randusers(
            *("sandbox", "--simulate-all", "--users", "30", "--", *RANDUSERS, "run"),
            cwd=str(tmp_path),
            **real,
            RANDUSERS_API_URL=api.url,
        )
        assert (done.returncode, api.requests) == (0, 0), done.stderr
    uris = re.findall(r"s3://\S+/(?=users_csv/)|\b30 rows declared", done.stdout)
    assert uris == ["30 rows declared", "s3://randusers-sandbox/"]


def test_supervisor_simulates_all_not_for_dagster_beside_an_env_file(tmp_path: Path) -> None:
    """Dagster would take `.env` before the environment, so the command is refused."""
    (tmp_path / ".env").write_text("RANDUSERS_BUCKET=real-bucket\n")
    dagster = str(Path(sys.executable).with_name("dagster"))
    done = randusers("sandbox", "--simulate-all", "--", dagster, "dev", cwd=str(tmp_path))
    why = f"{dagster} takes .env before what the sandbox sets"
    assert done.stderr == f"randusers: {why}: move .env away, or leave out --simulate-all.\n"
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("environment", "file", "day"),
    [
        ({}, "", "2026-11-20"),
        ({"RANDUSERS_START_DATE": "2026-11-02"}, "", "2026-11-02"),
        ({}, "RANDUSERS_START_DATE=2026-11-03", "unset"),
    ],
)
def test_supervisor_starts_partitions_with_its_directory(
    tmp_path: Path, environment: dict[str, str], file: str, day: str
) -> None:
    """The first partition is the day of the directory's first use, unless one is configured."""
    (tmp_path / "first-day").write_text("2026-11-20")
    (tmp_path / ".env").write_text(file)
    done = randusers(
        *("sandbox", "--directory", str(tmp_path), "--"),
        *("sh", "-c", 'echo "${RANDUSERS_START_DATE-unset}"'),
        cwd=str(tmp_path),
        **environment,
        **NO_API,
    )
    assert done.stdout == f"{day}\n", done.stderr


def test_make_dev_names_a_port_in_use() -> None:
    """`make dev` on a port in use says so in a sentence, and which argument chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (recipe,) = re.findall(r"^dev:.*\n\t@(.*)$", (ROOT / "Makefile").read_text(), re.M)
        taken = run("sh", "-c", recipe.replace("$(PORT)", str(port)))
    free = run("sh", "-c", recipe.replace("$(PORT)", str(port)))
    message = f"Port {port} is in use: choose another one, as in make dev PORT=3001.\n"
    assert (taken.returncode, taken.stderr) == (1, message)
    assert (free.returncode, free.stderr) == (0, "")


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
