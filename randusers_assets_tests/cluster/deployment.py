"""deploy/celery/ on two hosts of this machine, with the clients that the tests use it by."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml
from dagster_aws.s3 import S3Resource

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.alerting import Receiver, receiver
from randusers_assets_tests.cluster.network import POSTGRES, Network, network
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.storage.s3_proxy import Answer, Fault, Request, s3_proxy
from randusers_assets_tests.ui.serving import graphql
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import local_s3

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "celery"
BIN = Path(sys.executable).parent
HOSTS = ("hosta", "hostb")
BUCKET, PASSWORD = "randusers-cluster", "of this test alone"  # and of no one else
# Seconds: more than a run takes to start.
START_TIMEOUT = int(patience(20))
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
GOING_ON = [status for status in dg.DagsterRunStatus if status not in ENDED]
TODAY = datetime.now(UTC).date()

LAUNCH = """mutation($day: String!, $seconds: String!) { launchRun(executionParams: { selector: {
    jobName: "users_rebuild_job", repositoryName: "__repository__",
    repositoryLocationName: "randusers_assets" }, executionMetadata: { tags: [
    { key: "dagster/partition", value: $day }, { key: "dagster/max_runtime", value: $seconds }] }
    }) { ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""
BACKFILL = """mutation($days: [String!]!) { launchPartitionBackfill(backfillParams: {
    selector: { partitionSetName: "users_rebuild_job_partition_set", repositorySelector: {
    repositoryName: "__repository__", repositoryLocationName: "randusers_assets" } },
    partitionNames: $days }) {
    ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""


def day(ago: int) -> str:
    """The day so many days ago."""
    return (TODAY - timedelta(days=ago)).isoformat()


def wait_until(what: str, happened: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what must happen; fail the test if it does not."""
    deadline = time.monotonic() + patience(seconds)
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not happen that {what}")
        time.sleep(0.1)


@dataclass
class Hold:
    """Keeps requests until released: of every host, or of the first that sends one."""

    method: str
    paths: tuple[str, ...]
    every_host: bool = False
    host: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    statuses: list[int] = field(default_factory=list)  # that S3 answered this host


@dataclass
class Cluster:
    """A running deployment."""

    network: Network
    environment: Mapping[str, str]
    directory: Path
    store: Store
    receiver: Receiver
    holds: list[Hold] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The UI's."""
        return f"http://{self.network.servers}:3000"

    def rule(self, request: Request) -> Fault | None:
        """What happens to a request to S3: it is held, if a hold says so."""
        for hold in self.holds:
            same = request.method == hold.method and request.path in hold.paths
            if same and (hold.every_host or hold.host in ("", request.client)):
                hold.host = hold.host or request.client
                hold.reached.set()

                def note(answer: Answer, hold: Hold = hold) -> Answer:
                    hold.statuses.append(answer.status)
                    return answer

                return Fault(hang=hold.released, change=note)
        return None

    @contextlib.contextmanager
    def held(self, method: str, *paths: str, every_host: bool = False) -> Iterator[Hold]:
        """Hold the requests for some objects."""
        hold = Hold(method, tuple(f"/{BUCKET}/{path}" for path in paths), every_host)
        self.holds.append(hold)
        try:
            yield hold
        finally:
            hold.released.set()
            self.holds.remove(hold)

    def host_at(self, address: str) -> str:
        """The name of the host with this address."""
        return HOSTS[int(address.rpartition(".")[2]) - 11]

    def launch(self, date: str, seconds: int = 600) -> str:
        """Launch a rebuild that may take so long, as the UI does; its run id."""
        launched = graphql(self.url, LAUNCH, day=date, seconds=str(seconds))["launchRun"]
        assert "run" in launched, launched
        return str(launched["run"]["runId"])

    def start(self, name: str, *command: str, host: str = "", user: str = "", **more: str) -> None:
        """Start a process in a group of its own, on a host or on the servers' machine."""
        home = self.directory / (host or "servers")
        inside = ("ip", "netns", "exec", self.network.namespace(host)) if host else ()
        owner: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603  # this file's own commands
                [*inside, *command],
                cwd=ROOT if not user else "/",
                env={**self.environment, "DAGSTER_HOME": str(home), "TMPDIR": str(home), **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                **owner,
            )

    def log_of(self, name: str) -> str:
        """What a process has written."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """Kill a process with its whole group."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(patience())

    def kill_all(self) -> None:
        """Kill all processes."""
        for name in tuple(self.processes):
            self.kill(name)

    def stop(self, name: str) -> None:
        """Stop a process group, so that it does nothing until it goes on."""
        os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let it go on."""
        os.killpg(self.processes[name].pid, signal.SIGCONT)

    def start_worker(self, host: str) -> None:
        """Start a host's worker, as deploy/celery/README.md says, and wait until it takes runs."""
        words = ("worker", "start", "-A", "dagster_celery.app", "-y", str(DEPLOY / "celery.yaml"))
        options = ("-q", "dagster", "-i", "randusers_assets.definitions", "-n", host)
        pool = ("--", "--concurrency=1", "--pool=prefork")
        before = self.log_of(host).count(" ready.") if host in self.processes else 0
        self.start(host, str(BIN / "dagster-celery"), *words, *options, *pool, host=host)
        wait_until(f"{host} is ready", lambda: self.log_of(host).count(" ready.") > before)

    def start_daemon(self, name: str) -> None:
        """Start a daemon; there may be another one."""
        self.start(name, str(BIN / "dagster-daemon"), "run", "-w", str(DEPLOY / "workspace.yaml"))


def store_at(url: str) -> Store:
    """The bucket on a local S3."""
    s3 = S3Resource(
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106  # the local S3 takes any
    )
    return Store(s3.get_client, BUCKET)


def _listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _write_home(home: Path) -> None:
    """A `DAGSTER_HOME` with deploy/celery/dagster.yaml, which looks more often than by default."""
    home.mkdir()
    config = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    config["run_monitoring"] |= {"poll_interval_seconds": 2, "start_timeout_seconds": START_TIMEOUT}
    (home / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _start_postgres(cluster: Cluster, stack: contextlib.ExitStack) -> None:
    """A PostgreSQL server with an empty database for Dagster, in a directory that it may enter."""
    data, programs = Path(stack.enter_context(tempfile.TemporaryDirectory())), POSTGRES[-1].parent
    stack.callback(cluster.kill_all)  # before the directory goes
    shutil.chown(data, "postgres", "postgres")
    secret = data / "password"
    secret.write_text(PASSWORD)
    shutil.chown(secret, "postgres", "postgres")
    initialize = ("-D", str(data / "data"), "-U", "dagster", "-A", "scram-sha-256", "--no-sync")
    subprocess.run(  # noqa: S603  # Debian's own program
        [str(programs / "initdb"), *initialize, f"--pwfile={secret}"],
        check=True,
        stdout=subprocess.DEVNULL,
        user="postgres",
        group="postgres",
        extra_groups=[],
        cwd="/",
    )
    with (data / "data" / "pg_hba.conf").open("a") as allowed:
        allowed.write("host dagster,postgres dagster samenet scram-sha-256\n")
    host = cluster.network.servers
    options = ("-D", str(data / "data"), "-h", host, "-k", str(data), "-c", "fsync=off")
    cluster.start("postgres", str(programs / "postgres"), *options, user="postgres")
    login = ("-h", host, "-U", "dagster", "--maintenance-db=postgres")
    create = [str(programs / "createdb"), *login, "dagster"]
    wait_until(
        "PostgreSQL answers",
        lambda: (
            not subprocess.run(  # noqa: S603  # Debian's own program
                create,
                check=False,
                stderr=subprocess.DEVNULL,
                env={"PGPASSWORD": PASSWORD},
            ).returncode
        ),
    )


@contextlib.contextmanager
def deployed(directory: Path) -> Iterator[Cluster]:
    """Start all of it, workers included; nothing is left running at the end."""
    with network(HOSTS) as made, contextlib.ExitStack() as stack:
        alerts = stack.enter_context(receiver())
        s3 = stack.enter_context(local_s3(directory / "s3"))
        s3.create_bucket(BUCKET)
        users = generated_users(10, directory)
        api = stack.enter_context(ApiSimulator(users))
        answers = f"http://{urlsplit(api.url).netloc}"
        api_url = stack.enter_context(s3_proxy(answers, lambda _: None, made.outside))
        store = store_at(s3.endpoint_url)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANDUSERS_", "AWS_"))}
        cluster = Cluster(made, {}, directory, store, alerts)
        s3_url = stack.enter_context(s3_proxy(s3.endpoint_url, cluster.rule, made.outside))
        cluster.environment = kept | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "DAGSTER_POSTGRES_HOST": made.servers,
            "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
            "DAGSTER_CELERY_BROKER": f"redis://{made.servers}/0",
            "DAGSTER_CELERY_BACKEND": f"redis://{made.servers}/1",
            "DAGSTER_CODE_SERVER_HOST": made.servers,
            "AWS_ENDPOINT_URL_S3": s3_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RANDUSERS_BUCKET": BUCKET,
            "RANDUSERS_API_URL": f"{api_url}{urlsplit(api.url).path}",
            "RANDUSERS_START_DATE": day(60),
            "RANDUSERS_MAX_REJECTED_RATIO": "0.5",
            "RANDUSERS_ALERT_WEBHOOK_URL": alerts.url,
        }
        for name in ("servers", *HOSTS):
            _write_home(directory / name)
        _start_postgres(cluster, stack)
        redis = ("--bind", made.servers, "--protected-mode", "no", "--save", "")
        cluster.start("redis", "redis-server", *redis, "--dir", str(directory))
        code = ("code-server", "start", "-h", made.servers, "-p", "4000")
        module = ("-m", "randusers_assets.definitions", "-d", str(ROOT))
        cluster.start("code", str(BIN / "dagster"), *code, *module)
        wait_until("the code is served", lambda: _listening(made.servers, 4000))
        web = ("-h", made.servers, "-p", "3000", "-w", str(DEPLOY / "workspace.yaml"))
        cluster.start("web", str(BIN / "dagster-webserver"), *web)
        wait_until("the UI answers", lambda: _listening(made.servers, 3000))
        cluster.start_daemon("daemon")
        for host in HOSTS:
            cluster.start_worker(host)
        yield cluster


@contextlib.contextmanager
def instance_of(cluster: Cluster) -> Iterator[dg.DagsterInstance]:
    """The instance that all of the cluster shares."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(cluster.directory / "servers")) as instance:
            yield instance


def assert_published_once(cluster: Cluster, date: str) -> None:
    """The day is proved, with the one CSV that its raw snapshot gives."""
    # The last day's data package is proved as well.
    assert len(list(verify(cluster.store, CONTRACT, date))) in (5, 6)
    receipts = f"_receipts/users_csv/dt={date}/"
    listed = cluster.store.client.list_objects_v2(Bucket=cluster.store.bucket, Prefix=receipts)
    assert len(listed["Contents"]) == 1
