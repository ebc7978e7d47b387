"""Run one command with stand-ins for the API and S3; no process outlives it."""

import contextlib
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from dotenv import dotenv_values

from randusers_sandbox import guard
from randusers_sandbox.s3 import ACCESS_KEY, REGION, local_s3
from randusers_sandbox.user_file import SandboxError

BUCKET: Final = "randusers-sandbox"

_START_SECONDS: Final = 600.0  # ten million users take a minute or two to generate
LEFTOVER_SECONDS: Final = 3.0
# With any of these a client would bypass the local S3, or fail before its first request.
_DROPPED: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)

# They let `.env` win over the environment.
_READ_ENV_FILE_FIRST: Final = ("dagster", "dg")
_SIGNAL: Final = "signal"

_Process = subprocess.Popen[bytes]


def run(
    command: Sequence[str],
    *,
    users: int,
    users_file: Path | None,
    directory: Path | None,
    latency_seconds: float,
    simulate_all: bool = False,
) -> int:
    """Run a command with stand-ins, and return its exit status, or 128 + the signal that ended it.

    The API is simulated unless `RANDUSERS_API_URL` is set, S3 unless `RANDUSERS_BUCKET` is, in the
    environment or in `.env`. With `simulate_all` both are, and neither the caller's settings nor
    those in `.env` reach the command.

    The command gets every signal that this process gets, and is killed if it does not end in time.
    If a stand-in ends first, so does the command, with status 1. Without a `directory` the data is
    in a temporary one.
    """
    if not command:
        raise SandboxError("No command is given: randusers sandbox -- COMMAND.")
    if shutil.which(command[0]) is None:
        raise SandboxError(f"The command {command[0]} is not found: check its name and PATH.")
    configured = {**dotenv_values(".env"), **os.environ}
    if simulate_all:
        if Path(command[0]).name in _READ_ENV_FILE_FIRST and Path(".env").exists():
            raise SandboxError(
                f"{command[0]} takes .env before what the sandbox sets: move .env away, or leave"
                " out --simulate-all."
            )
        configured = {}
    endings: queue.SimpleQueue[str] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        groups = stack.enter_context(_forward_signals(endings))
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="randusers-sandbox-")
            directory = Path(stack.enter_context(temporary))
        environment = dict(os.environ)
        if simulate_all:
            own = ("RANDUSERS_", "DAGSTER_HOME")
            environment = {k: v for k, v in os.environ.items() if not k.startswith(own)}
            environment["PYTHON_DOTENV_DISABLED"] = "1"  # `randusers` then reads no .env
        parts: dict[str, _Process] = {}
        real_api, real_bucket = (configured.get(f"RANDUSERS_{n}") for n in ("API_URL", "BUCKET"))
        if not real_api:
            # It generates its users while the local S3 starts.
            starting = simulator(directory / "api", users, users_file, latency_seconds)
            parts["API simulator"] = stack.enter_context(starting)
        if not real_bucket:
            s3 = stack.enter_context(local_s3(directory / "s3"))
            parts["local S3"] = s3.process
            s3.create_bucket(BUCKET)
            for name in _DROPPED:
                environment.pop(name, None)
            environment |= {
                "RANDUSERS_BUCKET": BUCKET,
                "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,
            }
            if not configured.get("RANDUSERS_START_DATE"):
                environment["RANDUSERS_START_DATE"] = _first_day(directory)
        if not real_api:
            environment["RANDUSERS_API_URL"] = url_of(parts["API simulator"], directory / "api")
        if parts:
            environment |= _proxy_exception(environment)
        api = _without_secrets(real_api or environment["RANDUSERS_API_URL"])
        _log(f"the API is {'real' if real_api else 'the simulator'}, at {api}")
        bucket = real_bucket or BUCKET
        where = "" if real_bucket else f", at {environment['AWS_ENDPOINT_URL_S3']}"
        _log(f"S3 is {'real' if real_bucket else 'the local S3'}, bucket {bucket}{where}")
        guarded = stack.enter_context(_guarded(command, environment))
        groups.append(guarded.pid)
        return _ended(guarded, parts, endings)


def _first_day(directory: Path) -> str:
    """Return the day on which the directory was first used: there is no snapshot of any before."""
    file = directory / "first-day"
    if not file.exists():
        file.write_text(datetime.now(UTC).date().isoformat())
    return file.read_text()


def _ended(
    guarded: _Process, parts: Mapping[str, _Process], endings: "queue.SimpleQueue[str]"
) -> int:
    """Wait for the first process to end; return the command's status, or 1 if it was a part."""

    def wait(name: str, process: _Process) -> None:
        process.wait()
        endings.put(name)

    for name, process in {**parts, "command": guarded}.items():
        threading.Thread(target=wait, args=(name, process), daemon=True).start()
    name = endings.get()
    deadline = time.monotonic() + guard.STOP_SECONDS
    while name == _SIGNAL:
        try:
            name = endings.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            _log(f"the command did not end within {guard.STOP_SECONDS:g} s, so it was killed")
            _signal_group(guarded.pid, signal.SIGKILL)
            guarded.wait()
            name = "command"
    if name == "command":
        # A negative status is a signal to the guard itself.
        return guarded.returncode if guarded.returncode >= 0 else 128 - guarded.returncode
    status = parts[name].returncode
    _log(f"the {name} died (status {status}), so the command was stopped: run it again")
    return 1


@contextlib.contextmanager
def _forward_signals(endings: "queue.SimpleQueue[str]") -> Iterator[list[int]]:
    """Forward signals to the process groups in the list that this yields; exit if it is empty."""
    groups: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        if not groups:
            raise SystemExit(128 + number)
        for group in groups:
            _signal_group(group, number)
        endings.put(_SIGNAL)  # this call may interrupt another of itself

    # An ignored signal stays ignored, as under nohup.
    handled = [n for n in guard.FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, forward) for number in handled}
    try:
        yield groups
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def simulator(
    directory: Path, users: int, users_file: Path | None, latency_seconds: float
) -> Iterator[_Process]:
    """Run the API simulator as its own process, which ends with this one."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["--users", str(users), "--latency-ms", str(latency_seconds * 1000)]
    if users_file is not None:
        arguments += ["--users-file", str(users_file)]
    arguments += ["--directory", str(directory), "--end-with-stdin"]
    with (
        (directory / "api.log").open("wb") as log,
        subprocess.Popen(  # noqa: S603 - this interpreter, this package
            [sys.executable, "-m", "randusers_sandbox.api", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def url_of(simulator: _Process, directory: Path) -> str:
    """Return the URL that the simulator prints once it answers."""
    assert simulator.stdout is not None  # noqa: S101 - it is a pipe
    ready, _, _ = select.select([simulator.stdout], [], [], _START_SECONDS)
    line = simulator.stdout.readline().decode().strip() if ready else ""
    if not line:
        log = directory / "api.log"
        reason = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise SandboxError(reason or f"The API simulator did not start: read its log, {log}.")
    return line


@contextlib.contextmanager
def _guarded(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Process]:
    """Run the command under the guard, as a process group that has the guard's id."""
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - the user asked for it
            [sys.executable, "-I", "-S", guard.__file__, str(read_end), *command],
            env=environment,
            # A background process group that reads from the terminal is stopped.
            stdin=subprocess.DEVNULL if os.isatty(0) else None,
            process_group=0,
            pass_fds=[read_end],
        )
        os.close(read_end)
        try:
            yield process
        finally:
            end_group(process)
    finally:
        os.close(write_end)


def end_group(guarded: _Process) -> None:
    """End the command and all of its children: SIGTERM, then SIGKILL."""
    if _signal_group(guarded.pid, signal.SIGTERM):
        try:
            guarded.wait(guard.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(guarded.pid, signal.SIGKILL)
        deadline = time.monotonic() + LEFTOVER_SECONDS
        while _signal_group(guarded.pid, 0) and time.monotonic() < deadline:
            time.sleep(0.02)  # only its parent can wait for a grandchild
        _signal_group(guarded.pid, signal.SIGKILL)
    guarded.wait()


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether the group exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS denies signals to zombies
        return False
    return True


def _proxy_exception(environment: Mapping[str, str]) -> dict[str, str]:
    """Return settings that exclude loopback from any proxy."""
    return {
        name: ",".join(filter(None, (environment.get(name), "127.0.0.1")))
        for name in ("NO_PROXY", "no_proxy")
    }


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _log(line: str) -> None:
    sys.stderr.write(f"randusers sandbox: {line}.\n")
    sys.stderr.flush()
