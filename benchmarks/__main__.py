"""Measure ours, the peers, the stages and the UI, and write the report."""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.measure import BenchmarkError, measure
from randusers_sandbox.s3 import ACCESS_KEY, REGION, LocalS3, local_s3
from randusers_sandbox.supervisor import simulator, url_of
from randusers_sandbox.user_file import SandboxError

HERE = Path(__file__).parent
PEERS_LOCK = HERE / "peers" / "requirements.lock"
WORK = HERE.parent / ".sandbox" / "bench"
PROGRAMS = {
    "randusers": str(Path(sys.executable).with_name("randusers")),
    "python": sys.executable,
    "peer": str(WORK / "peers-venv" / "bin" / "python"),
    "peers": str(HERE / "peers"),
}
SMALL, MEDIUM, HUGE = 500, 100_000, 10_000_000
ROUNDS, QUICK_ROUNDS = {SMALL: 7, MEDIUM: 3, 1_000_000: 3}, {SMALL: 2, MEDIUM: 2}
LATENCY_MS = 100
Record = dict[str, Any]


class Contender(NamedTuple):
    """A program to measure, and the keys of the CSV objects that it leaves, if any.

    With 2 `days`, the day before is published first, which is not measured.
    """

    name: str
    command: str
    keys: str | None = None
    days: int = 1
    most_rounds: int = 7


# `{scratch}` is the round's directory, `{workers}` how many processes are worth their start.
OURS = Contender(report.OURS, "{randusers} run", r"users_csv/dt=[^/]+/users\.csv")
PIPELINES = (
    OURS,
    OURS._replace(name=report.SECOND_DAY, days=2),
    Contender(report.NAIVE, "{peer} {peers}/naive.py", r"users\.csv"),
    Contender(
        report.DLT, "{peer} {peers}/dlt_pipeline.py {scratch} {workers}", r"dlt/users/.+\.csv"
    ),
)
STEPS = "{python} {peers}/multiprocess.py {scratch}"
START_UP = (
    Contender(report.EMPTY, "{python} {peers}/three_empty_assets.py"),
    Contender(report.FROZEN, "{python} {peers}/three_empty_assets.py gc-frozen"),
    Contender(report.MULTIPROCESS, STEPS, OURS.keys, most_rounds=3),
)


@contextlib.contextmanager
def fresh(url: str, s3: LocalS3) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield the environment of a round and its directory, which goes as the bucket's objects do."""
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
        **dict.fromkeys(("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), s3.endpoint_url),
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ACCESS_KEY),
        **dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), REGION),
    }
    try:
        yield environment, scratch
    finally:
        call("measure.take_rows", environment)
        shutil.rmtree(scratch)


def call(function: str, env: Mapping[str, str], *arguments: int) -> Any:  # noqa: ANN401  # JSON
    """Call a function of this package in a process of its own, as this one must stay small."""
    module, _, name = function.partition(".")
    code = f"import json, benchmarks.{module} as m; print(json.dumps(m.{name}(*{arguments})))"
    done = subprocess.run(  # noqa: S603 - this interpreter, this package
        [sys.executable, "-c", code], cwd=HERE.parent, env=env, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def alone(function: str, argument: int, users: int, s3: LocalS3, latency_ms: int = 0) -> Any:  # noqa: ANN401
    """What a function of this package returns with so many users to fetch."""
    with (
        simulator(WORK / "api", users, None, latency_ms / 1000) as api,
        fresh(url_of(api, WORK / "api"), s3) as (env, _),
    ):
        return call(function, env, argument)


def run_once(contender: Contender, users: int, url: str, s3: LocalS3, **servers: int) -> Record:
    """Measure one contender once; the round counts only if all rows are in S3."""
    with fresh(url, s3) as (env, scratch):
        own = {"scratch": scratch, "workers": 1 if users == SMALL else os.cpu_count()}
        argv = [part.format(**PROGRAMS, **own) for part in contender.command.split()]
        if contender.days > 1:
            call("alone.publish", env, contender.days - 1)
        usage = measure(argv, env, WORK / "round.log", **servers)
        if contender.keys:
            expected, found = users * contender.days, call("measure.take_rows", env)
            rows = sum(found[key] for key in found if re.fullmatch(contender.keys, key))
            if rows != expected:
                raise BenchmarkError(f"{contender.name} wrote {rows:,} of {expected:,} rows.")
    record = {"users": users, "contender": contender.name, **usage}
    print(record, file=sys.stderr, flush=True)
    return record


def compete(users: int, s3: LocalS3, those: Sequence[Contender], rounds: int) -> list[Record]:
    """Run the contenders in turn, every other round in reverse."""
    with simulator(WORK / "api", users, None, 0) as api:
        url = url_of(api, WORK / "api")
        return [
            run_once(contender, users, url, s3, api_cpu=api.pid, s3_cpu=s3.process.pid)
            for number in range(rounds)
            for contender in those[:: 1 if number % 2 == 0 else -1]
            if number < contender.most_rounds
        ]


def measured(part: str, s3: LocalS3, rounds: Mapping[int, int]) -> Any:  # noqa: ANN401  # JSON
    """The figures of one part of the results."""
    match part:
        case "clicks":
            return alone("clicks.clicks", 3, SMALL, s3)
        case "floors":
            return alone("alone.floors", MEDIUM, MEDIUM, s3)
        case "latency":
            return alone("alone.latency", LATENCY_MS, MEDIUM, s3, LATENCY_MS)
        case "huge":
            return compete(HUGE, s3, (OURS,), 1)
        case "busy":
            burn = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
            with subprocess.Popen([sys.executable, "-c", burn]) as process:  # noqa: S603
                try:
                    return compete(MEDIUM, s3, [one for one in PIPELINES if one.days == 1], 2)
                finally:
                    process.kill()
    compete(SMALL, s3, PIPELINES, 1)  # to warm up
    sizes = [compete(n, s3, PIPELINES + START_UP * (n == SMALL), rounds[n]) for n in rounds]
    return [record for records in sizes for record in records]


def install_peers() -> None:
    """Install the peers' lock in an environment of their own, bytecode compiled."""
    uv = [sys.executable, "-m", "uv"]
    create = ["venv", "-q", "--allow-existing", "-p", sys.executable, str(WORK / "peers-venv")]
    sync = ["pip", "sync", "-q", "--compile-bytecode", "--require-hashes", str(PEERS_LOCK)]
    for command in (create, [*sync, "-p", PROGRAMS["peer"]]):
        subprocess.run([*uv, *command], check=True)  # noqa: S603 - uv of this environment


def setting() -> dict[str, Any]:
    """The machine, without its name and paths, and the versions: what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    known = cpuinfo.read_text() if cpuinfo.exists() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    locks = {"Ours": HERE.parent / "requirements.lock", "Peers": PEERS_LOCK}
    named = r"^(dagster|dagster-aws|dlt|pandas|boto3|pyarrow|msgspec|ministack)(?:\[.*\])?==(\S+)"
    return {
        "machine": {
            "CPU": "".join(re.findall(r"^model name\s*: (.*)", known, re.M)[:1]),
            "cores": os.cpu_count(),
            "memory, GB": round(memory / 1e9, 1),
            "kernel": f"{platform.system()} {platform.release()}",
            "Python": platform.python_version(),
        },
        "versions": {
            who: [" ".join(found) for found in re.findall(named, lock.read_text(), re.M)]
            for who, lock in locks.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 1 if a round failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, few rounds; kept apart")
    for part in ("clicks", "floors", "latency", "busy", "huge"):
        only = f"add only {part} to the results"
        parser.add_argument(f"--{part}", action="append_const", dest="parts", const=part, help=only)
    given = parser.parse_args(arguments)
    # Only a full run may change the figures that readers see.
    directory = WORK / "results" if given.quick else HERE
    directory.mkdir(parents=True, exist_ok=True)
    path, now = directory / "results.json", setting()
    results = {**now, "load": round(os.getloadavg()[0], 2)}
    if given.parts and path.exists():
        results = json.loads(path.read_text())
    if results | now != results:
        parser.error(f"{path} is of another machine or other versions: run without a flag.")
    try:
        install_peers()
        with local_s3(WORK / "s3") as s3:
            # The short ones first: what fails does so soon.
            for part in given.parts or ("clicks", "floors", "latency", "rounds"):
                results[part] = measured(part, s3, QUICK_ROUNDS if given.quick else ROUNDS)
    except (BenchmarkError, SandboxError, subprocess.SubprocessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    path.write_text(json.dumps(results, indent=1) + "\n")
    (directory / "results.md").write_text(report.render(results))
    print(report.render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
