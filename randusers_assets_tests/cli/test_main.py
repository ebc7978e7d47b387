"""The command line, as a person runs it: real processes, a real API simulator, a real S3."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_sandbox.api import Answer, ApiSimulator, generated_users, users_from_json
from randusers_sandbox.s3 import LocalS3

ROOT = Path(__file__).parents[2]
RANDUSERS = [sys.executable, "-m", "randusers_assets.cli.main"]
TODAY = datetime.now(UTC).date().isoformat()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiSimulator]:
    """An API of 500 generated users."""
    with ApiSimulator(generated_users(500, tmp_path)) as simulator:
        yield simulator


@pytest.fixture
def settings(api: ApiSimulator, store: SnapshotStore, s3_server: LocalS3) -> dict[str, str]:
    """The environment of somebody whose API and bucket both answer."""
    return {
        **os.environ,
        "RANDUSERS_API_URL": api.url,
        "RANDUSERS_BUCKET": store.bucket,
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url,
    }


def randusers(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a pipe sees it."""
    return subprocess.run(  # noqa: S603  # this project's own command line
        [*RANDUSERS, *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_run_publishes_and_verify_proves_it(settings: dict[str, str], store: SnapshotStore) -> None:
    """One run of the real job publishes; verify proves it from the bucket; rerun is `unchanged`."""
    run = randusers("run", "--head", "1", env=settings)
    assert run.returncode == 0, run.stderr
    assert run.stderr == "page 1 of 1\n"
    assert f"s3://{store.bucket}/users_csv/dt={TODAY}/users.csv" in run.stdout
    assert re.search(rf"^published {TODAY}, sha256 [0-9a-f]{{64}}$", run.stdout, re.M)
    assert "@example.com" not in run.stdout
    verify = randusers("verify", env=settings)
    assert (verify.returncode, verify.stderr) == (0, "")
    assert verify.stdout.splitlines()[-1] == (
        "ok  made again from the raw snapshot, the CSV has the same SHA-256"
    )
    again = randusers("run", env=settings)
    assert again.returncode == 0
    assert re.search(rf"^unchanged {TODAY}, sha256 ", again.stdout, re.M)


def test_run_on_the_real_records_publishes_them(
    settings: dict[str, str], real_users: list[dict[str, object]], tmp_path: Path
) -> None:
    """The API's own 500 records pass every gate."""
    import msgspec

    records = users_from_json([msgspec.json.encode(user) for user in real_users], tmp_path)
    with ApiSimulator(records) as simulator:
        run = randusers("run", env={**settings, "RANDUSERS_API_URL": simulator.url})
    assert run.returncode == 0, run.stderr
    assert "FAIL" not in run.stdout
    assert "500 users declared, 500 stored, 500 distinct ids." in run.stdout


def test_run_behind_a_closed_gate_publishes_nothing(
    settings: dict[str, str], store: SnapshotStore, tmp_path: Path
) -> None:
    """A user without a valid email closes the gate: one sentence, exit status 1, no object."""
    from randusers_sandbox.users import user

    bad = user(1).replace(b"@example.com", b"@@example.com")
    with ApiSimulator(users_from_json([bad], tmp_path)) as simulator:
        run = randusers("run", env={**settings, "RANDUSERS_API_URL": simulator.url})
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        "randusers: 1 of 1 users break users_df_emails_are_valid, user 1 first, in email;"
        " the gate is closed: mend them at the source, or raise RANDUSERS_MAX_REJECTED_RATIO"
        " above 0."
    )
    assert "FAIL  users_df_emails_are_valid" in run.stdout
    assert store.head(f"users_csv/dt={TODAY}/users.csv") is None


@pytest.mark.parametrize("page_size", [100, 5])
def test_run_that_is_interrupted_ends_at_once(
    settings: dict[str, str], store: SnapshotStore, tmp_path: Path, page_size: int
) -> None:
    """Ctrl-C in the middle of a fetch, by this process or by several, ends the run; no object."""
    with (
        ApiSimulator(generated_users(500, tmp_path), latency_seconds=1) as slow,
        subprocess.Popen(  # noqa: S603  # this project's own command line
            [*RANDUSERS, "run"],
            cwd=ROOT,
            env={
                **settings,
                "RANDUSERS_API_URL": slow.url,
                "RANDUSERS_PAGE_SIZE": str(page_size),
                "RANDUSERS_CONCURRENCY": "2",
            },
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as run,
    ):
        while slow.requests < 2:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
        asked = slow.requests
    assert run.returncode == 1
    assert said.splitlines()[-1] == (
        "randusers: The run was interrupted: what is published stays as it was."
    )
    assert asked < 500 // page_size  # nothing was begun again
    assert store.head(f"raw_users/dt={TODAY}/users.jsonl.zst") is None


class Refusing(ApiSimulator):
    """An API that answers 200 and says that it failed."""

    def answer(self, page: str | None, limit: str | None) -> Answer:  # noqa: ARG002  # the base's
        """The API's own way to fail with status 200."""
        return Answer(200, b'{"success":false,"data":null,"message":"down for the night"}')


def test_run_with_a_refusing_api_says_so(settings: dict[str, str], tmp_path: Path) -> None:
    """`success: false` ends the run in one sentence that names the URL."""
    with Refusing(generated_users(1, tmp_path)) as simulator:
        url = simulator.url
        run = randusers("run", env={**settings, "RANDUSERS_API_URL": url})
    assert run.returncode == 1
    assert run.stderr == (
        f"randusers: {url}?page=1&limit=500 answered success: false"
        " ('down for the night'): check RANDUSERS_API_URL and the API's status.\n"
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"RANDUSERS_BUCKET": ""},
            "RANDUSERS_BUCKET is not set: name the bucket that the snapshots go to.",
        ),
        (
            {"RANDUSERS_BUCKET": "no-such-bucket-here"},
            (
                "s3://no-such-bucket-here does not exist at {endpoint}: create the bucket, or"
                " correct RANDUSERS_BUCKET."
            ),
        ),
        (
            {"RANDUSERS_PAGE_SIZE": "many"},
            "RANDUSERS_PAGE_SIZE is not a count from 1: correct it in the environment or in .env.",
        ),
    ],
    ids=["bucket unset", "bucket unknown", "page size"],
)
def test_run_with_a_wrong_setting_names_it(
    settings: dict[str, str],
    api: ApiSimulator,
    s3_server: LocalS3,
    changed: dict[str, str],
    sentence: str,
) -> None:
    """A wrong setting ends in one sentence, before the API is asked for anything."""
    run = randusers("run", env={**settings, **changed})
    assert run.returncode == 1
    assert run.stderr == f"randusers: {sentence.format(endpoint=s3_server.endpoint_url)}\n"
    assert api.requests == 0


def test_run_for_what_is_no_day_is_a_wrong_call() -> None:
    """A date that does not exist ends with status 2."""
    run = randusers("run", "--date", "2026-11-50", env=os.environ)
    assert run.returncode == 2
    assert "'2026-11-50' is not a day such as 2026-11-23" in run.stderr


def test_run_before_the_first_partition_names_the_setting() -> None:
    """A day before RANDUSERS_START_DATE is no partition."""
    run = randusers("run", "--date", "2026-10-05", env=os.environ)
    assert run.returncode == 1
    assert run.stderr == (
        f"randusers: 2026-10-05 is no partition: they run from 2026-11-01 to {TODAY}"
        " (RANDUSERS_START_DATE).\n"
    )


def test_verify_of_an_empty_bucket_says_that_nothing_is_published(
    settings: dict[str, str], store: SnapshotStore
) -> None:
    """There is no latest day before the first publication."""
    done = randusers("verify", env=settings)
    assert (done.returncode, done.stderr) == (
        1,
        (
            f"randusers: {store.uri('_receipts/users_csv/latest.json')} does not exist:"
            " publish a day first.\n"
        ),
    )


def test_doctor_says_line_by_line_what_works(
    settings: dict[str, str], api: ApiSimulator, store: SnapshotStore, tmp_path: Path
) -> None:
    """With everything in place, four lines of `ok` and exit status 0."""
    (tmp_path / "home").mkdir()
    done = randusers("doctor", env={**settings, "DAGSTER_HOME": str(tmp_path / "home")})
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"ok    API          {api.url} declares 500 users",
            "ok    credentials  found by boto3 (env)",
            f"ok    bucket       {store.uri('_doctor/probe.txt')} was written and read",
            f"ok    instance     keeps its runs in {tmp_path / 'home'}",
        ],
    )


def test_doctor_says_how_to_mend_what_does_not_work(settings: dict[str, str]) -> None:
    """What is missing is a line of `MEND` with what to do, and exit status 1."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DAGSTER_HOME"):
        settings.pop(name, None)
    done = randusers("doctor", env={**settings, "RANDUSERS_BUCKET": ""})
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "MEND", "MEND", "MEND"]
    assert "set AWS_PROFILE" in done.stdout
    assert "RANDUSERS_BUCKET is not set" in done.stdout
    assert "set DAGSTER_HOME" in done.stdout


def test_sandbox_without_a_command_says_so() -> None:
    """The sandbox needs something to run."""
    done = randusers("sandbox", env=os.environ)
    assert (done.returncode, done.stderr) == (
        1,
        "randusers: No command is given: randusers sandbox -- COMMAND.\n",
    )
