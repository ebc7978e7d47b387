"""`python -m randusers_assets_tests.first_hour`: what a new user does with the README alone.

From a clone, a shell and an empty bucket to a first day, a past day rebuilt and an alert received.
Every command of the README's console blocks runs as it is written, but `make test`, which is what
CI runs beside this.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster_aws.s3 import S3Resource

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import RandomUsersApi, SnapshotStore
from randusers_assets_tests.alerting import Receiver, receiver
from randusers_assets_tests.patience import patience
from randusers_assets_tests.ui import serving
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import local_s3

BUCKET = "first-hour"
MARK = "<ended with>"
TODAY, YESTERDAY, TWO_DAYS_AGO = (
    (datetime.now(UTC).date() - timedelta(days=ago)).isoformat() for ago in range(3)
)
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
START_SCHEDULE = """mutation { startSchedule(scheduleSelector: {
    scheduleName: "users_snapshot_schedule", repositoryName: "__repository__",
    repositoryLocationName: "randusers_assets" }) {
    ... on ScheduleStateResult { scheduleState { status } } ... on Error { message } } }"""


class Shell:
    """A bash without the virtual environment, in which one command follows the other."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("RANDUSERS_", "AWS_"))
        }
        for name in ("VIRTUAL_ENV", "DAGSTER_HOME", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL"):
            inherited.pop(name, None)
        folders = inherited["PATH"].split(os.pathsep)
        inherited["PATH"] = os.pathsep.join(one for one in folders if one != str(serving.BIN))
        self._began = time.monotonic()
        self._bash = subprocess.Popen(
            ["bash"],  # noqa: S607  # the user's own
            cwd=directory,
            env={**inherited, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        self._bash.communicate()

    def run(self, command: str) -> str:
        """The output of a command; RuntimeError if its status is not 0."""
        self.start(command)
        return self.finish()

    def start(self, command: str) -> None:
        """Begin a command, and show when."""
        seconds = round(time.monotonic() - self._began)
        print(f"{seconds // 60:>2}:{seconds % 60:02}  $ {command}", flush=True)
        if self._bash.stdin:
            self._bash.stdin.write(f"{{ {command}\n}} < /dev/null\necho '{MARK}' $?\n")
            self._bash.stdin.flush()

    def finish(self) -> str:
        """Wait for the command that was begun, as `run` does."""
        timer = threading.Timer(patience(600), self.signal, [signal.SIGKILL])
        timer.start()
        output, status = "", ""
        for line in self._bash.stdout or ():
            if line.startswith(MARK):
                status = line.removeprefix(MARK).strip()
                break
            output += line
        timer.cancel()
        if status != "0":
            raise RuntimeError(f"the command ended with status {status or 'unknown'}:\n{output}")
        return output

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the shell and what runs in it."""
        os.killpg(self._bash.pid, number)


def console_commands(document: Path) -> list[str]:
    """The commands of a document's console blocks."""
    blocks = re.findall(
        r"^```console\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S
    )
    return re.findall(r"^\$ (.*)$", "\n".join(blocks), re.M)


def fill(env_file: Path, **settings: str) -> None:
    """Set these settings as the file says: each has a line of its own, commented out."""
    text = env_file.read_text(encoding="utf-8")
    for name, value in settings.items():
        text, found = re.subn(rf"^# {name}=.*$", f"{name}={value}", text, flags=re.M)
        if not found:
            raise RuntimeError(f"{env_file.name} does not name {name}")
    env_file.write_text(text, encoding="utf-8")


def require(fact: str, text: str) -> str:
    """The line of a text that matches a pattern, which is shown; RuntimeError if there is none."""
    if not (found := re.search(f"^.*{fact}.*$", text, re.M)):
        raise RuntimeError(f"nothing matches {fact!r} in:\n{text}")
    print(f"         {found[0][:110]}", flush=True)
    return found[0]


def publish_first_day(shell: Shell, clone: Path, **settings: str) -> date:
    """Run the README's commands up to `dagster dev`, and prove the day that they publish."""
    shows = {
        "make demo": "^published ",
        "randusers doctor": "^ok    instance ",
        "randusers run": "^published ",
    }
    line = ""
    for command in console_commands(clone / "README.md"):
        typed = command.partition("#")[0].strip()
        if typed in ("make test", "dagster dev"):
            continue
        printed = shell.run(command)
        if typed == "cp .env.example .env":
            fill(clone / ".env", **settings)
        elif typed in shows:
            line = require(shows.pop(typed), printed)
    if shows:
        raise RuntimeError(f"the README does not name {', '.join(shows)}")
    day = date.fromisoformat(line.split()[1].rstrip(","))
    require(f"^ok  .*/users_csv/dt={day}/users.csv", shell.run("randusers verify"))
    return day


def rebuild_past_day(shell: Shell, store: Store, api_url: str, day: date) -> None:
    """Publish a day anew whose raw snapshot is there; first store it, as a run would have then."""
    snapshot = SnapshotRun(store, CONTRACT)
    snapshot.save(str(day), snapshot.fetch(RandomUsersApi(url=api_url).api))
    rebuilt = shell.run(f"randusers rebuild --from {day} --to {day}")
    require(f"^published  {day} +500 rows", rebuilt)
    verified = shell.run(f"randusers verify --date {day}")
    require(f"^ok  .*/users_csv/dt={day}/users.csv", verified)
    require(f"^{day} +500 rows", shell.run("randusers list"))


def receive_alert(shell: Shell, alerts: Receiver, day: date) -> None:
    """In the UI, turn the schedule on, and run a day that cannot be fetched: an alert tells."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    shell.start(f"dagster dev --port {port} &> dagster-dev.log")
    serving.wait(lambda: serving.answers(url))
    require("RUNNING", str(serving.graphql(url, START_SCHEDULE)))
    serving.run_day(url, str(day), "FAILURE")
    serving.wait(lambda: bool(alerts.posts))
    _, _, body = alerts.posts[0]
    require(f"raw_users of {day} cannot be fetched", body["text"])
    shell.signal(signal.SIGINT)
    shell.finish()


def main() -> None:
    """Go the whole way; RuntimeError names the step that does not work."""
    os.environ.update(AWS)
    with (
        tempfile.TemporaryDirectory() as name,
        local_s3(Path(name) / "s3") as s3,
        ApiSimulator(generated_users(500, Path(name))) as api,
        receiver() as alerts,
    ):
        s3.create_bucket(BUCKET)
        resource = S3Resource(endpoint_url=s3.endpoint_url)
        store = SnapshotStore(s3_resource=resource, bucket=BUCKET).store
        environment = {
            "AWS_ENDPOINT_URL_S3": s3.endpoint_url,
            "RANDUSERS_ALERT_WEBHOOK_URL": alerts.url,
        }
        with Shell(Path(name), AWS | environment) as shell:
            shell.run(f"git clone -q {serving.ROOT} clone && cd clone")
            day = publish_first_day(
                shell,
                Path(name) / "clone",
                RANDUSERS_BUCKET=BUCKET,
                RANDUSERS_START_DATE=str(datetime.now(UTC).date() - timedelta(days=2)),
                RANDUSERS_API_URL=api.url,
            )
            rebuild_past_day(shell, store, api.url, day - timedelta(days=1))
            receive_alert(shell, alerts, day - timedelta(days=2))


if __name__ == "__main__":
    main()
