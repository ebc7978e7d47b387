"""`randusers list` and `rebuild`: past days, from the bucket."""

import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from randusers_assets.automation import daily
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.objects import load_csv, save
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.paths import csv_path, raw_pointer_path
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.builders import raw_users_of, users
from randusers_assets_tests.cli.conftest import TODAY, Randusers
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.test_access import DENIED, refuse_to_tell
from randusers_assets_tests.pipeline.storage.s3_proxy import Fault, Request, s3_proxy
from randusers_assets_tests.sandbox.processes import RANDUSERS, randusers
from randusers_sandbox.api import ApiSimulator
from randusers_sandbox.s3 import LocalS3

pytestmark = pytest.mark.usefixtures("api")

# From the oldest to yesterday, which may still be fetched for an hour.
FIRST, SECOND, THIRD, YESTERDAY = (
    (datetime.now(UTC).date() - timedelta(days=ago)).isoformat() for ago in (4, 3, 2, 1)
)
EXCHANGED = f"--from {THIRD} is after --to {FIRST}: exchange them."
START = daily.get_first_partition_key()
PARTITIONS = f"they run from {START} to {TODAY} (RANDUSERS_START_DATE)."
NO_PARTITION = f"2999-01-01 is no partition: {PARTITIONS}"
INTERRUPTED = (
    f"randusers: The run was interrupted before it published {SECOND}: the CSV that is published"
    " and its receipt stay as they were.\n"
)
LINE = r" +{} rows +[\d,]+ bytes  sha256 {}  \d{{4}}-\S+\+00:00  run {}"


def refusal(store: Store, date: str) -> str:
    """What is said of a past day without a raw snapshot."""
    return (
        f"{store.uri(raw_pointer_path(CONTRACT, date))} does not exist: raw_users of {date} cannot"
        " be fetched, because the API serves only current data; restore its raw snapshot and run"
        f" `randusers rebuild --from {date}`, or materialize today's partition."
    )


def shown_of(store: Store, date: str) -> dict[str, Any]:
    """What both commands show of a published day."""
    receipt = bucket.receipt_of(store, date)
    return {
        "date": date,
        "rows": receipt.counts.published,
        "bytes": receipt.csv.bytes,
        "sha256": receipt.csv.sha256,
        "published_at": receipt.published_at,
        "run_id": receipt.run_id,
    }


def test_rebuild_publishes_each_day_from_its_raw_snapshot(
    store: Store, api: ApiSimulator, randusers_here: Randusers
) -> None:
    """One line a day; one that fails does not stop the next; the API gets no request."""
    for date, count in ((FIRST, 10), (THIRD, 11)):
        save(store, date, raw_users_of(users(count)))
    done = randusers("rebuild", "--from", FIRST, "--to", THIRD)
    failure = "randusers: 1 of 3 days failed.\n"
    assert (done.returncode, done.stderr, api.requests) == (1, failure, 0)
    first, failed, third = done.stdout.splitlines()
    for line, date, count in ((first, FIRST, 10), (third, THIRD, 11)):
        digest = bucket.csv_sha256(store, date)[:12]
        shown = LINE.format(count, digest, bucket.receipt_of(store, date).run_id)
        assert re.fullmatch(f"published  {date}{shown}", line)
        assert len(list(verify(store, CONTRACT, date))) == (6 if date == THIRD else 5)
    assert failed == f"FAIL  {SECOND}  {refusal(store, SECOND)}"
    again = randusers_here("rebuild", "--from", FIRST)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == first.replace("published", "unchanged") + "\n"


def test_rebuild_of_today_does_not_fetch(
    store: Store, api: ApiSimulator, randusers_here: Randusers
) -> None:
    """The day that the API still serves is made of its raw snapshot as well."""
    missing = randusers_here("rebuild", "--from", TODAY)
    uri = store.uri(raw_pointer_path(CONTRACT, TODAY))
    advice = f"materialize raw_users for {TODAY}, or restore its raw snapshot if that day is past"
    problem = f"FAIL  {TODAY}  {uri} does not exist: {advice}.\n"
    assert (missing.returncode, missing.stdout) == (1, problem)
    save(store, TODAY, raw_users_of(users(10)))
    assert randusers_here("rebuild", "--from", TODAY).returncode == 0
    assert (len(load_csv(store, CONTRACT, TODAY)), api.requests) == (10, 0)


def test_rebuild_is_a_run_of_its_own_job(store: Store, home: Path) -> None:
    """Run history has it under users_rebuild_job, with that job's limit of the time it may take."""
    save(store, FIRST, raw_users_of(users(10)))
    assert randusers("rebuild", "--from", FIRST, DAGSTER_HOME=str(home)).returncode == 0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
    tags = (run.tags["dagster/partition"], run.tags["dagster/max_runtime"])
    assert (run.job_name, tags) == ("users_rebuild_job", (FIRST, "1800"))


def test_rebuild_prints_one_json_object(store: Store, randusers_here: Randusers) -> None:
    """Each day with its publication, or with the sentence that stderr has as well."""
    save(store, FIRST, raw_users_of(users(10)))
    done = randusers_here("rebuild", "--from", FIRST, "--to", SECOND, "--json")
    error = refusal(store, SECOND)
    failure = "1 of 2 days failed."
    days = [
        {"outcome": "published", **shown_of(store, FIRST)},
        {"date": SECOND, "error": error},
    ]
    assert json.loads(done.stdout) == {"days": days, "error": failure}
    assert (done.returncode, done.stderr) == (1, f"randusers: {failure}\n")


@pytest.mark.parametrize(
    ("last", "message"),
    [(FIRST, EXCHANGED), ("2999-01-01", NO_PARTITION)],
    ids=["exchanged", "no partition"],
)
def test_rebuild_refuses_a_wrong_range(
    store: Store, randusers_here: Randusers, last: str, message: str
) -> None:
    """One sentence, before any day is rebuilt."""
    for date in (FIRST, THIRD):
        save(store, date, raw_users_of(users(10)))
    done = randusers_here("rebuild", "--from", THIRD, "--to", last)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"randusers: {message}\n")
    assert [store.head(csv_path(CONTRACT, date)) for date in (FIRST, THIRD)] == [None, None]


def test_rebuild_needs_a_first_day() -> None:
    """There is no default: the call is refused."""
    done = randusers("rebuild", "--to", FIRST)
    sentence = "randusers rebuild: error: the following arguments are required: --from"
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (2, "", sentence)


def test_rebuild_that_is_interrupted_begins_no_other_day(store: Store, s3_server: LocalS3) -> None:
    """Ctrl-C ends the command with what is true of the bucket; the days done are in the array."""
    for date in (FIRST, SECOND, THIRD):
        save(store, date, raw_users_of(users(10)))
    runs: list[subprocess.Popen[str]] = []

    def stop(request: Request) -> Fault | None:
        if request.method != "PUT" or not request.path.endswith(csv_path(CONTRACT, SECOND)):
            return None
        return Fault(before=lambda: runs[0].send_signal(signal.SIGINT), lose="request")

    with s3_proxy(s3_server.endpoint_url, stop) as url:
        runs.append(
            subprocess.Popen(  # noqa: S603  # this project's own command line
                [*RANDUSERS, "rebuild", "--from", FIRST, "--to", THIRD, "--json"],
                env=os.environ | {"AWS_ENDPOINT_URL_S3": url},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        with runs[0] as run:
            stdout, stderr = run.communicate(timeout=patience(120))
    assert (run.returncode, stderr) == (1, INTERRUPTED)
    report = json.loads(stdout)
    assert [day["date"] for day in report["days"]] == [FIRST]
    assert f"randusers: {report['error']}\n" == INTERRUPTED
    assert store.head(csv_path(CONTRACT, THIRD)) is None


def test_list_shows_the_published_days_newest_first(
    store: Store, randusers_here: Randusers
) -> None:
    """Rows, bytes, digest, time and run of each; nothing of a day that is not published."""
    nothing = randusers("list", RANDUSERS_START_DATE=FIRST)
    sentence = f"No day since {FIRST} is published at s3://{store.bucket}/.\n"
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", sentence)
    for date, count in ((YESTERDAY, 11), (FIRST, 10)):
        bucket.publish_users(store, date, users(count))
    listed = randusers_here("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    for line, date, count in zip(lines, (YESTERDAY, FIRST), (11, 10), strict=True):
        digest = bucket.csv_sha256(store, date)[:12]
        assert re.fullmatch(f"{date}{LINE.format(count, digest, 'run')}", line)
    as_json = randusers_here("list", "--json")
    days = [shown_of(store, date) for date in (YESTERDAY, FIRST)]
    assert json.loads(as_json.stdout) == {"days": days, "error": None}
    assert (as_json.returncode, as_json.stderr) == (0, "")


def test_list_names_a_csv_without_a_receipt(store: Store, randusers_here: Randusers) -> None:
    """It is a line among the others, and the command fails."""
    for date in (FIRST, THIRD):
        bucket.publish_users(store, date, users(10))
    key = bucket.receipt_key(store, THIRD)
    bucket.delete(store, key)
    listed = randusers_here("list")
    uris = store.uri(csv_path(CONTRACT, THIRD)), store.uri(key)
    error = "{} has no receipt: {} does not exist; materialize users_csv for {}.".format(
        *uris, THIRD
    )
    failure = "1 of 2 days failed."
    assert (listed.returncode, listed.stderr) == (1, f"randusers: {failure}\n")
    named, other = listed.stdout.splitlines()
    assert named == f"FAIL  {THIRD}  {error}"
    assert other.startswith(f"{FIRST} ")
    as_json = json.loads(randusers_here("list", "--json").stdout)
    days = [{"date": THIRD, "error": error}, shown_of(store, FIRST)]
    assert as_json == {"days": days, "error": failure}


def test_list_without_list_bucket_asks_for_what_each_run_writes(
    store: Store, s3_server: LocalS3, randusers_here: Randusers
) -> None:
    """Who may read the probe knows that a 403 is a day without a CSV; else nobody can tell."""
    bucket.publish_users(store, THIRD, users(10))
    with s3_proxy(s3_server.endpoint_url, refuse_to_tell) as url:
        known = randusers_here("list", AWS_ENDPOINT_URL_S3=url)
        bucket.delete(store, PROBE)
        problem = randusers_here("list", AWS_ENDPOINT_URL_S3=url)
    assert (known.returncode, known.stderr) == (0, "")
    (line,) = known.stdout.splitlines()
    assert line.startswith(f"{THIRD} ")
    denied = f"randusers: {store.uri(csv_path(CONTRACT, TODAY))}: {DENIED}\n"
    assert (problem.returncode, problem.stdout, problem.stderr) == (1, known.stdout, denied)
