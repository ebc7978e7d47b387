"""`make test-image`: build deploy/docker/Dockerfile for real, and run what compose.yaml would.

buildah builds it on a base of Debian's packages, where no image registry is reached. runc runs it
as compose would: the image's user, a read-only root file system, no capabilities; in a network
namespace, so that the ports of compose.yaml are free.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import RANDUSERS, run

BASE, IMAGE = "localhost/randusers-base", "localhost/randusers-assets"
BUILDAH = ("buildah", "--storage-driver", "vfs")
STORAGE = "/opt/dagster/dagster_home/storage"
MOST_BYTES = 800_000_000  # without the base; 694,083,102 when this was written
SERVICES = yaml.safe_load(Path("deploy/docker/compose.yaml").read_text(encoding="utf-8"))[
    "services"
]
TODAY = datetime.now(UTC).date().isoformat()

Completed = subprocess.CompletedProcess[str]


def succeed(*command: str) -> str:
    """The output of a command that must succeed."""
    done = run(*command)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def wait_for(what: str, *processes: subprocess.Popen[bytes], until: Callable[[], bool]) -> None:
    """Wait until a function is true; fail if one of the processes ends before."""
    deadline = time.monotonic() + patience(180)
    while not until():
        assert [one.args for one in processes if one.poll() is not None] == [], what
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


class Image(NamedTuple):
    """The image as it is mounted, with its configuration."""

    root: Path
    size: int
    config: Mapping[str, Any]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, built by buildah on a base of Debian's packages, which is kept."""
    tools = ("buildah", "debootstrap", "runc", "ip")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if os.geteuid() or missing:
        pytest.skip(f"needs root and {', '.join(tools)}; missing: {missing or 'root'}")
    if not succeed(*BUILDAH, "images", "--quiet", "--filter", f"reference={BASE}"):
        base = tmp_path_factory.mktemp("base") / "root"
        packages = "--include=python3-venv,ca-certificates"
        succeed("debootstrap", "--variant=minbase", packages, "trixie", str(base))
        for cache in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(base / cache)
        container = succeed(*BUILDAH, "from", "scratch")
        succeed(*BUILDAH, "add", "--quiet", container, str(base), "/")
        succeed(*BUILDAH, "commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(base)
    # The certificates of this machine, for one behind a proxy that has its own.
    trust = "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"
    options = ("--isolation=chroot", "--format=docker", trust, f"--build-arg=BASE={BASE}")
    built = ("--file=deploy/docker/Dockerfile", f"--tag={IMAGE}", ".")
    succeed(*BUILDAH, "build", "--quiet", *options, *built)
    inspected = json.loads(succeed(*BUILDAH, "inspect", "--type=image", IMAGE))
    container = succeed(*BUILDAH, "from", IMAGE)
    try:
        root = Path(succeed(*BUILDAH, "mount", container))
        size = int(succeed("du", "--summarize", "--bytes", f"{root}/opt").split()[0])
        yield Image(root, size, inspected["Docker"]["config"])
    finally:
        succeed(*BUILDAH, "rm", container)
        succeed(*BUILDAH, "rmi", IMAGE)


class Host:
    """A network namespace, and containers of the image in it."""

    def __init__(self, image: Image, directory: Path) -> None:
        self.image, self.directory = image, directory
        self.namespace = f"randusers-{uuid.uuid4().hex[:8]}"
        self.environment: dict[str, str] = {}
        self.hosts = directory / "hosts"
        self.hosts.write_text("127.0.0.1 localhost code postgres\n", encoding="utf-8")
        self.storage = directory / "storage"
        self.storage.mkdir()
        os.chown(self.storage, 10001, 10001)

    def inside(self, *command: str) -> list[str]:
        """The command that runs another one in the namespace."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def command(self, *command: str) -> list[str]:
        """The command that runs one in a new container."""
        config = self.image.config
        bundle = self.directory / uuid.uuid4().hex[:8]
        bundle.mkdir()
        succeed("runc", "spec", "--bundle", str(bundle))
        spec = json.loads((bundle / "config.json").read_bytes())
        user, group = map(int, config["User"].split(":"))
        spec["root"] = {"path": str(self.image.root), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": user, "gid": group},
            "cwd": config["WorkingDir"],
            "args": list(command),
            "env": [*config["Env"], *(f"{k}={v}" for k, v in self.environment.items())],
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [],  # those of this process
        }
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/run/netns/{self.namespace}"
        bind = {"type": "bind", "options": ["bind", "nosuid", "nodev"]}
        spec["mounts"] += [
            {"destination": "/tmp", "type": "tmpfs", "options": ["mode=1777"]},  # noqa: S108  # the container's
            bind | {"destination": "/etc/hosts", "source": str(self.hosts)},
            bind | {"destination": STORAGE, "source": str(self.storage)},
        ]
        (bundle / "config.json").write_text(json.dumps(spec), encoding="utf-8")
        return ["runc", "run", "--bundle", str(bundle), f"{self.namespace}-{bundle.name}"]

    def run(self, *command: str) -> Completed:
        """Run a command in a new container until it ends."""
        return run(*self.command(*command))

    @contextlib.contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that goes on, with its output in a file; stopped at the end."""
        path = self.directory / f"{uuid.uuid4().hex[:8]}.log"
        with path.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:  # noqa: S603  # this project's own commands
            try:
                yield process
            except BaseException:
                print(path.read_text(encoding="utf-8"))  # what pytest shows of a failed test
                raise
            finally:
                process.terminate()
                try:
                    process.wait(patience())
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture(scope="module")
def host(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the simulated API and the local S3, whose addresses the containers get."""
    host = Host(image, tmp_path_factory.mktemp("host"))
    succeed("ip", "netns", "add", host.namespace)
    try:
        succeed("ip", "-netns", host.namespace, "link", "set", "lo", "up")
        seen = host.directory / "environment"
        show = f"env > {seen}.part && mv {seen}.part {seen} && exec sleep infinity"
        sandbox = host.inside(*RANDUSERS, "sandbox", "--simulate-all", "--", "sh", "-c", show)
        with host.running(*sandbox) as process:
            wait_for("the sandbox", process, until=seen.exists)
            pairs = (one.partition("=") for one in seen.read_text(encoding="utf-8").splitlines())
            own = ("RANDUSERS_", "AWS_")
            host.environment = {name: value for name, _, value in pairs if name.startswith(own)}
            yield host
    finally:
        succeed("ip", "netns", "delete", host.namespace)


def test_image_is_small(image: Image) -> None:
    """What the image adds to its base has no test tool, cache or local S3 in it."""
    assert image.size < MOST_BYTES
    packages = {path.name for path in image.root.glob("opt/randusers/lib/*/site-packages/*")}
    assert {"dagster_postgres", "dagster_webserver", "randusers_assets"} <= packages
    assert packages.isdisjoint({"pytest", "ministack", "mypy", "uv", "playwright"})
    assert not (image.root / "src").exists()


def test_image_prints_its_version(host: Host) -> None:
    """`randusers --version` in the image is the project's."""
    assert host.run("randusers", "--version").stdout == f"{version('randusers-assets')}\n"


def test_image_writes_to_nothing_but_its_mounts(host: Host) -> None:
    """Its user has no rights; TMPDIR and the output of the runs are writable, the rest is not."""
    tried = ("/tmp/a", f"{STORAGE}/a", "/a", "/opt/dagster/a", "/opt/dagster/dagster_home/a")  # noqa: S108  # the container's
    script = "id -u; grep -E '^CapBnd|^NoNewPrivs' /proc/self/status; for path in $@; do"
    done = host.run("sh", "-c", f"{script} touch $path; done", "sh", *tried)
    assert done.stdout.split() == ["10001", "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    refused = [line for line in done.stderr.splitlines() if "Read-only file system" in line]
    assert [line.split("'")[1] for line in refused] == list(tried[2:]), done.stderr


def test_image_publishes_a_day(host: Host) -> None:
    """`randusers run` without a run history publishes, and `randusers verify` proves it."""
    ran = host.run("env", "--unset=DAGSTER_HOME", "randusers", "run")
    assert ran.returncode == 0, ran.stderr
    assert f"published {TODAY}" in ran.stdout
    verified = host.run("randusers", "verify", "--date", TODAY)
    assert verified.returncode == 0, verified.stderr


@pytest.fixture
def password(host: Host) -> Iterator[str]:
    """The password of a PostgreSQL server on the host, with the user and database of compose."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")

    def postgres(program: str, *options: str) -> list[str]:
        return host.inside("runuser", "-u", "postgres", "--", f"{programs[-1]}/{program}", *options)

    data, password = Path("/var/lib/postgresql") / host.namespace, secrets.token_hex(16)
    socket = (f"--host={data}", "--username=dagster")
    try:
        trust = ("--auth-local=trust", "--auth-host=scram-sha-256")
        succeed(*postgres("initdb", f"--pgdata={data}", "--username=dagster", *trust))
        with host.running(*postgres("postgres", "-D", str(data), "-k", str(data))) as server:
            ready = postgres("pg_isready", "--quiet", *socket)
            wait_for("PostgreSQL", server, until=lambda: run(*ready).returncode == 0)
            set_password = f"ALTER USER dagster PASSWORD '{password}'"
            for statement in (set_password, "CREATE DATABASE dagster"):
                succeed(*postgres("psql", *socket, "--dbname=postgres", f"--command={statement}"))
            yield password
    finally:
        shutil.rmtree(data, ignore_errors=True)


def test_compose_services_publish_a_day(host: Host, password: str) -> None:
    """The services of compose.yaml become healthy; a run launched through the queue publishes."""
    host.environment |= {
        "DAGSTER_PG_HOST": "postgres",
        "DAGSTER_PG_PASSWORD": password,
        "RANDUSERS_PREFIX": "compose",
    }
    healthy = {name: SERVICES[name]["healthcheck"]["test"] for name in ("webserver", "daemon")}
    commands = {name: SERVICES[name]["command"] for name in healthy}
    commands["code"], healthy["code"] = (
        host.image.config["Cmd"],
        host.image.config["Healthcheck"]["Test"],
    )

    def succeeds(*command: str) -> bool:
        return host.run(*command).returncode == 0

    with contextlib.ExitStack() as stack:
        for name in ("code", "webserver", "daemon"):
            process = stack.enter_context(host.running(*host.command(*commands[name])))
            wait_for(name, process, until=functools.partial(succeeds, *healthy[name][1:]))
        server = ("--grpc-host", "code", "--grpc-port", "4000")
        tags = ("--tags", json.dumps({"dagster/partition": TODAY}))
        launched = host.run("dagster", "job", "launch", *server, "-j", "users_snapshot_job", *tags)
        assert launched.returncode == 0, launched.stderr
        wait_for("the run", process, until=lambda: succeeds("randusers", "verify", "--date", TODAY))
        output = [path.name for path in host.storage.rglob("*.out")]
    assert output, "the output of the run is in the volume that the webserver reads"
