"""One process measured from outside, and the rows that it left in S3.

Only the standard library: a child starts with its parent's peak memory in its own account, so the
process that measures must stay smaller than any that it measures.
"""

import http.client
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

DEADLINE_SECONDS = 3600
# ru_maxrss is in KiB, on macOS in bytes (getrusage(2)).
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class BenchmarkError(RuntimeError):
    """A round that does not count; the message says which and why."""


class Usage(NamedTuple):
    """What a process took: seconds, CPU seconds with its children, MB of its largest process."""

    wall: float
    cpu: float
    peak_mb: float


def measure(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a process to its end, its output into `log`.

    Raises:
        BenchmarkError: it failed, or was no larger than this process, whose memory hides its own.
    """
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  # the contenders are this folder's own
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
        deadline.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            deadline.cancel()
            if process.returncode is None:
                process.kill()
    if process.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise BenchmarkError(f"{' '.join(argv)} ended with status {process.returncode}: {last}")
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise BenchmarkError(f"{' '.join(argv)} was smaller than the process that measured it.")
    peak_mb = usage.ru_maxrss * MAXRSS_BYTES / 1e6
    return Usage(wall, usage.ru_utime + usage.ru_stime, peak_mb)


def csv_rows(endpoint_url: str, bucket: str, keys: str) -> int:
    """Count the rows, without headers, of a bucket's CSV objects whose keys match `keys`."""
    rows = 0
    for key in _keys(endpoint_url, bucket):
        if re.fullmatch(keys, key):
            # No text of the generated users holds a line end.
            rows += sum(c.count(b"\n") for c in _ask("GET", endpoint_url, f"{bucket}/{key}")) - 1
    return rows


def empty_bucket(endpoint_url: str, bucket: str) -> None:
    """Delete a bucket's objects."""
    for key in _keys(endpoint_url, bucket):
        for _ in _ask("DELETE", endpoint_url, f"{bucket}/{key}"):
            pass


def _keys(endpoint_url: str, bucket: str) -> list[str]:
    listing = b"".join(_ask("GET", endpoint_url, bucket, "?list-type=2")).decode()
    if "<IsTruncated>true" in listing:
        raise BenchmarkError(f"{bucket} holds more objects than one listing shows.")
    return re.findall(r"<Key>(.*?)</Key>", listing)


def _ask(method: str, endpoint_url: str, path: str, query: str = "") -> Iterator[bytes]:
    # No boto3: this process must stay small. The local S3 asks for no signature.
    connection = http.client.HTTPConnection(urlsplit(endpoint_url).netloc, timeout=60)
    try:
        connection.request(method, f"/{quote(path)}{query}")
        response = connection.getresponse()
        if response.status >= 300:
            raise BenchmarkError(f"{method} /{path}: the local S3 answered {response.status}.")
        while chunk := response.read(1 << 20):
            yield chunk
    finally:
        connection.close()
