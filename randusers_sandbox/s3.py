"""A local S3: ministack as a child process, on loopback alone, that keeps its objects."""

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
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from randusers_sandbox.user_file import SandboxError

ACCESS_KEY: Final = "sandbox"
REGION: Final = "us-east-1"

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_LOCK_SECONDS: Final = 2.0  # above what _CHILD takes to end
_ATTEMPTS: Final = 3  # another process may take a free port between its choice and its use

# Ends when its standard input closes, that is when its parent is gone, however that died:
# Linux's PR_SET_PDEATHSIG is not on macOS and fires when the parent's thread ends.
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


class LocalS3:
    """A running local S3.

    Attributes:
        endpoint_url: For `AWS_ENDPOINT_URL_S3`; any credentials will do.
        process: The server itself.
    """

    def __init__(self, endpoint_url: str, process: subprocess.Popen[bytes]) -> None:
        self.endpoint_url = endpoint_url
        self.process = process

    def create_bucket(self, name: str) -> None:
        """Create a bucket, versioning off; one that exists is left as it is.

        Raises:
            SandboxError: The server refused it or is gone.
        """
        # No boto3: it would read the caller's profile, proxies and configuration, and load for
        # longer than the server takes to start.
        connection = http.client.HTTPConnection(urlsplit(self.endpoint_url).netloc, timeout=10)
        try:
            connection.request("PUT", f"/{name}")
            response = connection.getresponse()
            said = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise SandboxError(f"The local S3 at {self.endpoint_url} is gone: {error}.") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise SandboxError(
                f"The local S3 did not create the bucket {name}: {' '.join(said.split())}"
            )


@contextlib.contextmanager
def local_s3(directory: Path, port: int = 0) -> Iterator[LocalS3]:
    """Run a local S3 that keeps its objects under `directory`, until the context ends.

    Raises:
        SandboxError: ministack is not installed, did not answer in time, the port is in use, or
            another sandbox runs on the directory.
    """
    if importlib.util.find_spec("ministack") is None:
        raise SandboxError(
            "The local S3 (ministack) is not installed: pip install 'randusers-assets[sandbox]'."
        )
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        if not _locked(lock.fileno()):
            raise SandboxError(
                f"Another sandbox runs on {directory}: end it, or choose another directory."
            )
        process, chosen = _started(directory, port, lock.fileno())
        try:
            yield LocalS3(f"http://127.0.0.1:{chosen}", process)
        finally:
            _stop(process)


def _locked(lock: int) -> bool:
    """Take the lock, giving the server of a killed sandbox the time to end; say if it is ours."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _started(directory: Path, port: int, lock: int) -> tuple[subprocess.Popen[bytes], int]:
    """Return a server that answers, and its port."""
    if port and _in_use(port):
        raise SandboxError(
            f"The local S3 cannot listen on 127.0.0.1:{port}, which is in use: choose a free port."
        )
    for _ in range(1 if port else _ATTEMPTS):
        chosen = port or _free_port()
        process = _spawn(directory, chosen, lock)
        try:
            if _answers(process, chosen):
                return process, chosen
        except BaseException:
            _stop(process)
            raise
        _stop(process)
    raise SandboxError(
        f"The local S3 (ministack) did not start: read its log, {directory / 'ministack.log'}."
    )


def _spawn(directory: Path, port: int, lock: int) -> subprocess.Popen[bytes]:
    # By default ministack listens on every interface, opens listeners of other services, keeps
    # nothing and leaves a pid file in the temporary directory.
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
        # Memory stays with the server (glibc alone reads these): to get it from the kernel anew
        # for every object took as long as all the rest of a large PUT.
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
            # A Ctrl-C in the terminal is for the command, which may still be writing.
            process_group=0,
            # The lock lasts as long as the server, also when its parent was killed.
            pass_fds=[lock],
        )


def _free_port() -> int:
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        return int(chooser.getsockname()[1])


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers; say whether it did before it ended or time was up."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
        try:
            connection.request("GET", "/_ministack/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return process.poll() is None
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)  # not listening yet; there is nothing to wait on
        finally:
            connection.close()
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
