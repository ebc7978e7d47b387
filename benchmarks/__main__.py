"""Measure ours, the peers and the floors, and write the report."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.measure import BenchmarkError, Usage, csv_rows, empty_bucket, measure
from randusers_sandbox.s3 import ACCESS_KEY, REGION, LocalS3, local_s3
from randusers_sandbox.user_file import SandboxError

HERE = Path(__file__).parent
PEERS = HERE / "peers"
WORK = HERE.parent / ".sandbox" / "bench"
PEERS_VENV = WORK / "peers-venv"
PEERS_PYTHON = str(PEERS_VENV / "bin" / "python")

LARGEST_START_UP = 10_000  # up to here a round is mostly start-up
FLOOR_USERS = 100_000
HUGE = 10_000_000
DISK_BYTES_A_USER = 4_700  # simulator; raw, Parquet and CSV on disk and, for two days, in S3
LATENCY_PAGES, LATENCY_MS, LATENCY_AT_ONCE, PAGE_SIZE = 200, 100, 8, 500


class Contender(NamedTuple):
    """A program to measure; `keys` are the CSV objects that it leaves, None if it leaves none.

    `days` is 2 where the day before is published first, which is not measured.
    """

    name: str
    argv: tuple[str, ...]
    keys: str | None
    days: int = 1


OUR_ARGV = (str(Path(sys.executable).with_name("randusers")), "run")
OUR_KEYS = r"users_csv/dt=[^/]+/users\.csv"
# `{scratch}` is the round's directory, `{workers}` how many processes are worth their start.
PIPELINES = (
    Contender(report.OURS, OUR_ARGV, OUR_KEYS),
    Contender(report.SECOND_DAY, OUR_ARGV, OUR_KEYS, days=2),
    Contender(report.NAIVE, (PEERS_PYTHON, str(PEERS / "naive.py")), r"users\.csv"),
    Contender(
        report.DLT,
        (PEERS_PYTHON, str(PEERS / "dlt_pipeline.py"), "{scratch}", "{workers}"),
        r"dlt/users/.+\.csv",
    ),
)
DAGSTER_ALONE = tuple(
    Contender(name, (sys.executable, str(PEERS / "three_empty_assets.py"), *arguments), None)
    for name, arguments in ((report.EMPTY, ()), (report.FROZEN, ("gc-frozen",)))
)
MULTIPROCESS = Contender(
    report.MULTIPROCESS, (sys.executable, str(PEERS / "multiprocess.py"), "{scratch}"), OUR_KEYS
)


@contextlib.contextmanager
def simulator(users: int, latency_ms: int = 0) -> Iterator[str]:
    """Serve generated users, made once and kept, from a process of its own; yields the URL."""
    need = users * DISK_BYTES_A_USER
    WORK.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(WORK).free) < need:
        raise BenchmarkError(f"{WORK}: {users:,} users need {need:,} bytes and {free:,} are free.")
    log = WORK / "api.log"
    command = [sys.executable, "-m", "randusers_sandbox.api", "--directory", f"{WORK}/api"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 - this interpreter, this project
            [*command, "--users", str(users), "--latency-ms", str(latency_ms), "--end-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        url = process.stdout.readline().decode().strip()
        if not url:
            raise BenchmarkError(f"The API simulator did not start: read its log, {log}.")
        yield url
        # Leaving closes its standard input, which ends it, and waits for it.


@contextlib.contextmanager
def fresh(url: str, s3: LocalS3) -> Iterator[tuple[dict[str, str], Path, str]]:
    """Yield an environment, a scratch directory and a bucket, the latter two emptied after."""
    bucket = f"bench-{uuid.uuid4().hex[:12]}"
    scratch = WORK / bucket
    scratch.mkdir()
    s3.create_bucket(bucket)
    # Of the caller's own only PATH and HOME: no profile, no DAGSTER_HOME, no proxy.
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "TMPDIR": str(scratch),
        "RANDUSERS_API_URL": url,
        "RANDUSERS_BUCKET": bucket,
        "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
        "AWS_ENDPOINT_URL": s3.endpoint_url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }
    try:
        yield environment, scratch, bucket
    finally:
        empty_bucket(s3.endpoint_url, bucket)
        shutil.rmtree(scratch)


def run_once(contender: Contender, users: int, url: str, s3: LocalS3) -> Usage:
    """Measure one contender once; the round counts only if all rows are in S3."""
    workers = 1 if users <= LARGEST_START_UP else os.cpu_count() or 1
    with fresh(url, s3) as (env, scratch, bucket):
        argv = [part.format(scratch=scratch, workers=workers) for part in contender.argv]
        if contender.days > 1:
            script("benchmarks.day_before", [], env)
        usage = measure(argv, env, WORK / "round.log")
        if contender.keys:
            expected = users * contender.days
            rows = csv_rows(s3.endpoint_url, bucket, contender.keys)
            if rows != expected:
                raise BenchmarkError(f"{contender.name} wrote {rows:,} of {expected:,} rows.")
    return usage


def how_often(contender: Contender, users: int, *, quick: bool) -> int:
    """How many rounds a contender runs: fewer where they take long."""
    if quick:
        return 1 if contender is MULTIPROCESS else 2
    if users <= LARGEST_START_UP:
        return 3 if contender is MULTIPROCESS else 7
    return 2 if users >= 1_000_000 and contender.argv != OUR_ARGV else 3


def compete(
    users: int, s3: LocalS3, contenders: Sequence[Contender], rounds: dict[str, int]
) -> list[dict[str, Any]]:
    """Run the contenders in turn, every other round in reverse."""
    records = []
    with simulator(users) as url:
        for number in range(max(rounds.values())):
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                if number < rounds[contender.name]:
                    usage = run_once(contender, users, url, s3)
                    progress(
                        f"{users:>10,} users  {contender.name:<30} {usage.wall:8.2f} s wall"
                        f" {usage.cpu:8.2f} s CPU {usage.peak_mb:8.0f} MB"
                    )
                    records.append({"users": users, "contender": contender.name, **usage._asdict()})
    return records


def script(module: str, arguments: Sequence[int], env: dict[str, str]) -> dict[str, Any]:
    """Run a module of this package in a process of its own, and read the JSON that it prints."""
    done = subprocess.run(  # noqa: S603 - this interpreter, this package
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=HERE.parent,
        env=env,
        stdout=subprocess.PIPE,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise BenchmarkError(f"{module} ended with status {done.returncode}.")
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def floors(users: int, s3: LocalS3) -> dict[str, Any]:
    """Each stage alone, on the same users."""
    with simulator(users) as url, fresh(url, s3) as (env, _, _):
        return script("benchmarks.floors", [users], env)


def latency(s3: LocalS3) -> dict[str, Any]:
    """Our client on slow pages, and the ideal for as many downloaded at once."""
    users = LATENCY_PAGES * PAGE_SIZE
    with simulator(users, LATENCY_MS) as url, fresh(url, s3) as (env, _, _):
        measured = script("benchmarks.latency", [PAGE_SIZE, LATENCY_AT_ONCE], env)
    ideal = -(-LATENCY_PAGES // LATENCY_AT_ONCE) * LATENCY_MS / 1000
    return {**measured, "latency_ms": LATENCY_MS, "ideal": ideal}


def install_peers() -> None:
    """Install the peers' lock in an environment of their own, bytecode compiled."""
    lock, done = PEERS / "requirements.lock", PEERS_VENV / "installed.lock"
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    uv = [sys.executable, "-m", "uv"]
    install = ["pip", "install", "-q", "--compile-bytecode", "--require-hashes", "-r", str(lock)]
    for command in (
        ["venv", "-q", "--clear", "-p", sys.executable, str(PEERS_VENV)],
        [*install, "-p", PEERS_PYTHON],
    ):
        subprocess.run([*uv, *command], check=True)  # noqa: S603 - uv of this environment
    shutil.copy(lock, done)


def machine() -> dict[str, Any]:
    """What the figures depend on; no host name, no path."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": next(iter(models), platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "memory, GB": round(memory / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, list[str]]:
    """What ours and the peers run on."""
    ask = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    peers = ("dlt", "requests", "pandas", "boto3", "pyarrow")
    ours = ("dagster", "dagster-aws", "requests", "boto3", "pyarrow", "msgspec", "ministack")
    found = subprocess.run(  # noqa: S603 - the peers' own interpreter
        [PEERS_PYTHON, "-c", ask, *peers], check=True, capture_output=True, text=True
    ).stdout.split()
    return {
        "Ours": [f"{name} {version(name)}" for name in ours],
        "Peers": [f"{name} {peer}" for name, peer in zip(peers, found, strict=True)],
    }


def load_results(path: Path, *, anew: bool) -> dict[str, Any]:
    """The results to add to: none, or those of `path` if they are of this machine."""
    empty: dict[str, Any] = {"machine": machine(), "versions": versions(), "rounds": []}
    if anew or not path.exists():
        return {**empty, "load": round(os.getloadavg()[0], 2)}
    results: dict[str, Any] = json.loads(path.read_text())
    if any(results[key] != empty[key] for key in ("machine", "versions")):
        raise BenchmarkError(f"{path} is from another machine or version: run without a flag.")
    return results


def progress(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if a round failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, few rounds; kept apart")
    parser.add_argument("--huge", action="store_true", help=f"add only ours, at {HUGE:,} users")
    parser.add_argument("--latency", action="store_true", help="measure the latency again")
    parser.add_argument("--floors", action="store_true", help="measure the floors again")
    parser.add_argument("--sizes", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    sizes = [500, 100_000] if given.quick else [500, 100_000, 1_000_000]
    if given.sizes:
        sizes = [int(size) for size in given.sizes.split(",")]
    # Only a full run may change the figures that readers see.
    directory = WORK / "results" if given.quick or given.sizes else HERE
    directory.mkdir(parents=True, exist_ok=True)
    part = given.huge or given.latency or given.floors
    try:
        install_peers()
        results = load_results(directory / "results.json", anew=not part)
        with local_s3(WORK / "s3") as s3:
            if not part:
                full_run(results, sizes, s3, quick=given.quick, at_most=given.rounds)
            if given.huge:
                old = [record for record in results["rounds"] if record["users"] != HUGE]
                results["rounds"] = old + compete(HUGE, s3, PIPELINES[:1], {report.OURS: 1})
            if given.floors or not part:
                results["floors"] = floors(max(n for n in sizes if n <= FLOOR_USERS), s3)
            if given.latency or not part:
                results["latency"] = latency(s3)
    except (BenchmarkError, SandboxError, subprocess.SubprocessError) as error:
        progress(f"benchmarks: {error}")
        return 1
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report.render(results)
    (directory / "results.md").write_text(text)
    if results["rounds"]:
        report.plot(results, directory / "results.svg")
    print(text)
    return 0


def full_run(
    results: dict[str, Any], sizes: list[int], s3: LocalS3, *, quick: bool, at_most: int | None
) -> None:
    """All contenders at all sizes."""
    progress("one warm-up round that does not count:")
    compete(min(sizes), s3, PIPELINES, {c.name: 1 for c in PIPELINES})
    for users in sizes:
        contenders = list(PIPELINES)
        if users == min(sizes):
            contenders += [*DAGSTER_ALONE, MULTIPROCESS]
        rounds = {c.name: how_often(c, users, quick=quick) for c in contenders}
        if at_most:
            rounds = {name: min(count, at_most) for name, count in rounds.items()}
        results["rounds"] += compete(users, s3, contenders, rounds)


if __name__ == "__main__":
    sys.exit(main())
