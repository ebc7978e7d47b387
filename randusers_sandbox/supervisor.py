"""Run one command with stand-ins for the API and S3, and leave no process behind."""

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
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from randusers_sandbox import guard
from randusers_sandbox.s3 import ACCESS_KEY, REGION, local_s3
from randusers_sandbox.user_file import SandboxError

BUCKET: Final = "randusers-sandbox"

_START_SECONDS: Final = 600.0  # ten million users take a minute or two to generate
_LEFTOVER_SECONDS: Final = 3.0
# Each would lead a client past the local S3, or fail it before its first request.
_DROPPED: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)

_Process = subprocess.Popen[bytes]


def run(
    command: Sequence[str],
    *,
    users: int,
    users_file: Path | None,
    directory: Path | None,
    latency_seconds: float,
) -> int:
    """Run a command with a stand-in for each part that the environment does not set.

    The API simulator stands in unless `RANDUSERS_API_URL` is set, the local S3 unless
    `RANDUSERS_BUCKET` is. The command runs in a process group of its own, is sent the signals that
    this process gets, and has no terminal as its standard input, which would stop it.

    Args:
        command: The program and its arguments.
        users: How many users to generate for the simulator.
        users_file: A JSON array of users to serve instead.
        directory: Where users and objects are kept; None for a temporary directory.
        latency_seconds: What the simulator waits before each answer.

    Returns:
        The command's exit status, 128 + n if signal n ended it, 1 if a stand-in died before it.

    Raises:
        SandboxError: A stand-in cannot start, or there is no such command.
        SystemExit: A signal came before the command ran; the status is 128 + its number.
    """
    if not command:
        raise SandboxError("No command is given: randusers sandbox -- COMMAND.")
    if shutil.which(command[0]) is None:
        raise SandboxError(f"The command {command[0]} is not found: check its name and PATH.")
    with contextlib.ExitStack() as stack:
        groups = stack.enter_context(_signals_passed_on())
        if directory is None:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="randusers-sandbox-"))
            )
        environment = dict(os.environ)
        parts: dict[str, _Process] = {}
        real_api, real_bucket = (os.environ.get(f"RANDUSERS_{n}") for n in ("API_URL", "BUCKET"))
        if not real_api:
            simulator = stack.enter_context(
                _simulator(directory / "api", users, users_file, latency_seconds)
            )
            parts["API simulator"] = simulator
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
        if not real_api:
            environment["RANDUSERS_API_URL"] = _first_line(simulator, directory / "api")
        if parts:
            environment |= _proxy_exception(environment)
        api = _without_secrets(environment["RANDUSERS_API_URL"])
        _say(f"the API is {'real' if real_api else 'the simulator'}, at {api}")
        bucket = environment["RANDUSERS_BUCKET"]
        where = "" if real_bucket else f", at {environment['AWS_ENDPOINT_URL_S3']}"
        _say(f"S3 is {'real' if real_bucket else 'the local S3'}, bucket {bucket}{where}")
        guarded = stack.enter_context(_guarded(command, environment))
        groups.append(guarded.pid)
        return _ended(guarded, parts)


def _ended(guarded: _Process, parts: Mapping[str, _Process]) -> int:
    """Wait for the first process to end; return the command's status, or 1 if it was a part."""
    endings: queue.SimpleQueue[str] = queue.SimpleQueue()

    def tell(name: str, process: _Process) -> None:
        process.wait()
        endings.put(name)

    for name, process in {**parts, "command": guarded}.items():
        threading.Thread(target=tell, args=(name, process), daemon=True).start()
    name = endings.get()
    if name == "command":
        # A negative status is a signal to the guard itself.
        return guarded.returncode if guarded.returncode >= 0 else 128 - guarded.returncode
    _say(f"the {name} died (status {parts[name].returncode}), so the command was ended")
    return 1


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[list[int]]:
    """Pass signals on to the process groups that the caller lists; while there is none, exit."""
    groups: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        if not groups:
            raise SystemExit(128 + number)
        for group in groups:
            _signal_group(group, number)

    # An ignored signal stays ignored, as under nohup.
    handled = [n for n in guard.PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, pass_on) for number in handled}
    try:
        yield groups
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _simulator(
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
            process.kill()  # it has nothing to lose


def _first_line(simulator: _Process, directory: Path) -> str:
    """Return the URL that the simulator prints once it answers."""
    assert simulator.stdout is not None  # noqa: S101 - a pipe was asked for
    ready, _, _ = select.select([simulator.stdout], [], [], _START_SECONDS)
    line = simulator.stdout.readline().decode().strip() if ready else ""
    if not line:
        log = directory / "api.log"
        said = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise SandboxError(said or f"The API simulator did not start: read its log, {log}.")
    return line


@contextlib.contextmanager
def _guarded(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Process]:
    """Run the command under its guard, in a process group named by the guard's id."""
    lifeline, held = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - to run the user's command is the purpose
            [sys.executable, "-I", "-S", guard.__file__, str(lifeline), *command],
            env=environment,
            stdin=subprocess.DEVNULL if os.isatty(0) else None,
            process_group=0,
            pass_fds=[lifeline],
        )
        os.close(lifeline)
        try:
            yield process
        finally:
            _end_group(process)
    finally:
        os.close(held)


def _end_group(guarded: _Process) -> None:
    """End what is left of the command: SIGTERM, then SIGKILL."""
    if _signal_group(guarded.pid, signal.SIGTERM):
        try:
            guarded.wait(guard.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(guarded.pid, signal.SIGKILL)
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while _signal_group(guarded.pid, 0) and time.monotonic() < deadline:
            time.sleep(0.02)  # nobody reports the end of a grandchild
        _signal_group(guarded.pid, signal.SIGKILL)
    guarded.wait()


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; say whether there was anyone to get it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # the latter on macOS, for a group of zombies
        return False
    return True


def _proxy_exception(environment: Mapping[str, str]) -> dict[str, str]:
    """Return settings that keep requests to loopback away from a proxy."""
    return {
        name: ",".join(filter(None, (environment.get(name), "127.0.0.1")))
        for name in ("NO_PROXY", "no_proxy")
    }


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _say(line: str) -> None:
    sys.stderr.write(f"randusers sandbox: {line}.\n")
    sys.stderr.flush()
