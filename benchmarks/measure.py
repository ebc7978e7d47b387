"""One process measured from outside, and the rows that it left in S3.

Only the standard library: a child starts with its parent's peak memory in its own account, so the
process that measures must stay smaller than any that it measures.
"""

import contextlib
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROC = Path("/proc")
Usage = dict[str, float | None]
# Reading takes 13 ms for each GB, in which the process cannot map memory: so a tenth of the time
# at most, lest the larger peers be slowed down.
SAMPLE_SECONDS, PAUSE_FACTOR = 0.15, 9
# ru_maxrss is in KiB, on macOS in bytes (getrusage(2)).
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class BenchmarkError(RuntimeError):
    """A round that does not count; the message says which and why."""


def measure(argv: Sequence[str], env: Mapping[str, str], log: Path, **servers: int) -> Usage:
    """Run a process to its end, its output into `log`; return what it took.

    That is seconds, CPU seconds with its children, MB of its largest process, PSS in MB of all its
    processes at once, and CPU seconds of servers by process id. None is what nothing tells.
    """
    ended, sums = threading.Event(), [0]
    before = {name: cpu_seconds(pid) for name, pid in servers.items()}
    with log.open("wb") as output:
        start = now = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  # the contenders are this folder's own
            argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

    def watch() -> None:
        nonlocal now
        while not ended.wait(max(SAMPLE_SECONDS, PAUSE_FACTOR * (time.perf_counter() - now))):
            now = time.perf_counter()
            sums.append(tree_pss(process.pid))

    try:
        threading.Thread(target=watch).start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        ended.set()
        if process.returncode is None:
            process.kill()
    if process.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise BenchmarkError(f"{' '.join(argv)} ended with status {process.returncode}: {last}")
    # Then its own memory is hidden by that of this process.
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise BenchmarkError(f"{' '.join(argv)} was smaller than the process that measured it.")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * MAXRSS_BYTES / 1e6,
        "pss_mb": max(sums) / 1e6 or None,
        **{n: cpu_seconds(p) - before[n] if PROC.exists() else None for n, p in servers.items()},
    }


def tree_pss(pid: int) -> int:
    """The bytes of a process and its descendants, shared ones counted once; 0 if it has ended."""
    total = 0
    with contextlib.suppress(OSError):
        rollup = (PROC / f"{pid}/smaps_rollup").read_text()
        total = sum(int(size) for size in re.findall(r"^Pss: +(\d+) kB", rollup, re.M)) * 1024
        for task in (PROC / f"{pid}/task").iterdir():
            total += sum(tree_pss(int(child)) for child in (task / "children").read_text().split())
    return total


def cpu_seconds(pid: int) -> float:
    """The CPU seconds so far of a process and of the children that it waited for."""
    if not PROC.exists():
        return 0
    # The name, in parentheses, may hold anything; proc(5) has utime to cstime 11 fields later.
    fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def take_rows() -> dict[str, int]:
    """Count the rows of each CSV object of the bucket, without headers, and delete all objects.

    For a process of its own: boto3 would make the one that measures large.
    """
    import boto3

    s3, bucket = boto3.client("s3"), os.environ["RANDUSERS_BUCKET"]
    rows = {}
    for found in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        key = found["Key"]
        if key.endswith(".csv"):
            # No text of the generated users holds a line end.
            chunks = s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20)
            rows[key] = sum(chunk.count(b"\n") for chunk in chunks) - 1
        s3.delete_object(Bucket=bucket, Key=key)
    return rows
