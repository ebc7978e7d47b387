"""A local S3: ministack as a child process that listens on loopback only and keeps its objects."""

import contextlib
import fcntl
import http.client
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from randusers_sandbox.user_file import SandboxError

ACCESS_KEY: Final = "sandbox"
REGION: Final = "us-east-1"

_Process = subprocess.Popen[bytes]

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_LOCK_SECONDS: Final = 2.0  # longer than _CHILD takes to end
_ATTEMPTS: Final = 3  # another process may take the free port before ministack does

# The child ends when its standard input closes, which happens however its parent ends. macOS does
# not have Linux's PR_SET_PDEATHSIG, which also fires when only the parent's thread ends.
_CHILD: Final = """
import os, signal, sys, threading, time
def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
sys.argv = ["ministack"]
import uvloop
from ministack.app import main
uvloop.install()
main()
"""


@dataclass(frozen=True)
class LocalS3:
    """A running local S3, which accepts any credentials."""

    endpoint_url: str
    process: _Process

    def create_bucket(self, name: str) -> None:
        """Create a bucket without versioning, unless it exists."""
        try:
            status, body = _request(urlsplit(self.endpoint_url).netloc, "PUT", f"/{name}", 10.0)
        except (OSError, http.client.HTTPException) as error:
            raise SandboxError(
                f"The local S3 at {self.endpoint_url} does not answer ({error}): start it again."
            ) from error
        if status != http.HTTPStatus.OK:
            raise SandboxError(
                f"The local S3 did not create the bucket {name} (check its name):"
                f" {' '.join(body.decode(errors='replace').split())}"
            )


@contextlib.contextmanager
def local_s3(directory: Path, port: int = 0) -> Iterator[LocalS3]:
    """Run a local S3 that keeps its objects under `directory`, until the context ends."""
    if importlib.util.find_spec("ministack") is None:
        raise SandboxError(
            "The local S3 (ministack) is not installed: pip install 'randusers-assets[sandbox]'."
        )
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        if not _locked(lock.fileno()):
            raise SandboxError(
                f"Another sandbox uses the directory {directory}: stop it, or choose another one."
            )
        process, chosen = _started(directory, port, lock.fileno())
        try:
            yield LocalS3(f"http://127.0.0.1:{chosen}", process)
        finally:
            _stop(process)


def _locked(lock: int) -> bool:
    """Take the lock and return whether it worked; a killed sandbox's server gets time to end."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def _started(directory: Path, port: int, lock: int) -> tuple[_Process, int]:
    """Return a server that answers, and its port."""
    if port and _in_use(port):
        raise SandboxError(
            f"The local S3 cannot listen on 127.0.0.1:{port}, which is in use: choose a free port."
        )
    for _ in range(1 if port else _ATTEMPTS):
        chosen = port or free_port()
        with contextlib.ExitStack() as stack:
            process = _spawn(directory, chosen, lock)
            stack.callback(_stop, process)
            if _answers(process, chosen):
                stack.pop_all()
                return process, chosen
    raise SandboxError(
        f"The local S3 (ministack) did not start: read its log, {directory / 'ministack.log'}."
    )


def _spawn(directory: Path, port: int, lock: int) -> _Process:
    # By default ministack listens on every interface, starts other services, keeps no objects and
    # leaves a pid file in the temporary directory.
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(directory / "objects"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(directory / "state"),
        "TMPDIR": str(directory),
        "LOG_LEVEL": "WARNING",
        # Have glibc keep freed memory: getting it from the kernel for each object doubled the time
        # of a large PUT.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 31),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    }
    with (directory / "ministack.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - this interpreter, this module's own code
            [sys.executable, "-c", _CHILD],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal must not stop the server: the command may still be writing.
            process_group=0,
            # The server holds the lock until it ends, even if its parent is killed.
            pass_fds=[lock],
        )


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        return int(chooser.getsockname()[1])


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(process: _Process, port: int) -> bool:
    """Return whether the server answers before it ends or `_START_SECONDS` are over."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status, _ = _request(f"127.0.0.1:{port}", "GET", "/_ministack/health", _START_SECONDS)
            if status == http.HTTPStatus.OK:
                return process.poll() is None
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)  # not listening yet
    return False


def _request(netloc: str, method: str, path: str, seconds: float) -> tuple[int, bytes]:
    """Return the status and the body of the answer to one request."""
    # Not boto3: it takes longer to import than the server to start, and reads the caller's
    # profile, proxies and configuration.
    connection = http.client.HTTPConnection(netloc, timeout=seconds)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def _stop(process: _Process) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
