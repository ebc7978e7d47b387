"""`randusers run`, with a real API simulator and a real S3."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from randusers_assets.checks import RAW_USERS_GATES, USERS_CSV_GATES, USERS_DF_GATES
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.receipt import require_receipt
from randusers_assets.pipeline.storage.paths import csv_path
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.builders import bytes_of, users
from randusers_assets_tests.cli.conftest import DAY_BEFORE, TODAY, Randusers
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish.bucket import publish_users, state_of
from randusers_assets_tests.sandbox.processes import RANDUSERS, randusers
from randusers_sandbox.api import ApiSimulator, generated_users, users_from_json
from randusers_sandbox.users import user

pytestmark = pytest.mark.usefixtures("api")

FIX = "fix them at the source, or set RANDUSERS_MAX_REJECTED_RATIO to at least"
CREATE = "create the bucket, or correct RANDUSERS_BUCKET"
UNSET = "RANDUSERS_BUCKET is not set: name the bucket for the snapshots."


def test_run_publishes_and_shows_what_it_did(
    store: Store, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The checks, the three objects, the outcome and masked rows; the instance keeps the run."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    run = randusers("run", "--head", "1", DAGSTER_HOME=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert run.stderr == "Fetched page 1 of 1.\n"
    assert "FAIL" not in run.stdout
    assert "ok    raw_users  is_complete              500 rows declared, 500 stored," in run.stdout
    *_, made, outcome, header, row = run.stdout.splitlines()
    assert re.fullmatch(r"users_csv +500 rows +[\d,]+ bytes +[\d.]+ s  s3://.+", made)
    assert made.endswith(f"  {store.uri(csv_path(CONTRACT, TODAY))}")
    assert re.fullmatch(rf"published {TODAY}, sha256 [0-9a-f]{{64}}", outcome)
    assert header.startswith('"gender","name_title",')
    first = msgspec.json.decode(user(1))
    assert row.startswith(f'"{first["gender"][0]}•••","{first["name"]["title"]}",')
    assert "@example.com" not in run.stdout
    assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]


def test_run_on_the_real_records_publishes_them(
    real_users: list[dict[str, object]], tmp_path: Path, randusers_here: Randusers
) -> None:
    """Records in the API's own shape pass every gate."""
    records = users_from_json([msgspec.json.encode(user) for user in real_users], tmp_path)
    with ApiSimulator(records) as simulator:
        run = randusers_here("run", RANDUSERS_API_URL=simulator.url)
    assert run.returncode == 0, run.stderr
    assert "FAIL" not in run.stdout
    n = len(real_users)
    assert f"{n} rows declared, {n} stored, {n} distinct keys." in run.stdout


def test_run_behind_a_closed_gate_publishes_nothing(
    store: Store, tmp_path: Path, randusers_here: Randusers
) -> None:
    """A user without a valid email closes the gate: one message, exit status 1, no CSV."""
    bad = user(1).replace(b"@example.com", b"@@example.com")
    with ApiSimulator(users_from_json([bad], tmp_path)) as simulator:
        run = randusers_here("run", RANDUSERS_API_URL=simulator.url)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"randusers: 1 of 1 rows fail, first id 1, in email; {FIX} 1."
    )
    assert "FAIL  users_df   emails_are_valid" in run.stdout
    assert "published" not in run.stdout
    assert store.head(csv_path(CONTRACT, TODAY)) is None


def test_run_accepts_a_change_with_its_reason(
    store: Store, tmp_path: Path, randusers_here: Randusers
) -> None:
    """Far fewer rows close the gate, whose message is the call that publishes them."""
    publish_users(store, DAY_BEFORE, users(10))
    with ApiSimulator(users_from_json([user(1)], tmp_path)) as simulator:
        closed = randusers_here("run", RANDUSERS_API_URL=simulator.url)
        accept = ("run", "--accept-change", "a region was closed")
        run = randusers(*accept, RANDUSERS_API_URL=simulator.url, RANDUSERS_MAX_REJECTED_RATIO="1")
    assert closed.returncode == 1
    assert closed.stderr.splitlines()[-1] == (
        f"randusers: Against {DAY_BEFORE}: 1 rows after 10 (bound: 20%). If the change is right,"
        ' run once with `randusers run --accept-change "why"` or with the run config resources:'
        ' {snapshot_gate: {config: {accept_change: "why"}}}.'
    )
    assert run.returncode == 0, run.stderr
    receipt = require_receipt(store, CONTRACT, TODAY, run.stdout.split()[-1])
    assert (receipt.accepted_change, receipt.max_rejected_ratio) == ("a region was closed", 1)


def test_run_prints_json_of_what_it_did(store: Store, randusers_here: Randusers) -> None:
    """One object has the outcome, every check and the three objects; progress stays on stderr."""
    run = randusers_here("run", "--json")
    assert (run.returncode, run.stderr) == (0, "Fetched page 1 of 1.\n")
    printed = json.loads(run.stdout)
    checks, assets = printed.pop("checks"), printed.pop("assets")
    assert printed == {"date": TODAY, "outcome": "published", "success": True, "error": None}
    assert checks[0] == {
        "asset": "raw_users",
        "check": "is_complete",
        "passed": True,
        "severity": "ERROR",
        "closed": False,
        "description": "500 rows declared, 500 stored, 500 distinct keys.",
    }
    assert len(checks) == len(RAW_USERS_GATES | USERS_DF_GATES | USERS_CSV_GATES)
    assert [made["asset"] for made in assets] == ["raw_users", "users_df", "users_csv"]
    path = csv_path(CONTRACT, TODAY)
    body = bytes_of(store.download(path, "")[0])
    assert assets[2].pop("seconds") > 0
    assert assets[2] == {
        "asset": "users_csv",
        "rows": 500,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "uri": store.uri(path),
    }


def test_run_behind_a_closed_gate_prints_json_and_its_error(tmp_path: Path) -> None:
    """The object has what was done until then, and the sentence that ends stderr; status 1."""
    bad = user(1).replace(b"@example.com", b"@@example.com")
    with ApiSimulator(users_from_json([bad], tmp_path)) as simulator:
        run = randusers("run", "--json", RANDUSERS_API_URL=simulator.url)
    printed = json.loads(run.stdout)
    error = f"1 of 1 rows fail, first id 1, in email; {FIX} 1."
    assert (run.returncode, run.stderr.splitlines()[-1]) == (1, f"randusers: {error}")
    assert (printed["success"], printed["outcome"], printed["error"]) == (False, None, error)
    (emails,) = [one for one in printed["checks"] if one["check"] == "emails_are_valid"]
    assert (emails["passed"], emails["closed"], emails["description"]) == (False, True, error)
    assert [made["asset"] for made in printed["assets"]] == ["raw_users", "users_df"]


@pytest.mark.parametrize("page_size", [100, 5], ids=["threads", "workers"])
def test_run_that_is_interrupted_ends_at_once(store: Store, tmp_path: Path, page_size: int) -> None:
    """Ctrl-C during a fetch, by one process or by several, ends the run; nothing is stored."""
    settings = {"RANDUSERS_PAGE_SIZE": str(page_size), "RANDUSERS_CONCURRENCY": "2"}
    with (
        ApiSimulator(generated_users(500, tmp_path), latency_seconds=1) as slow,
        subprocess.Popen(  # noqa: S603  # this project's own command line
            [*RANDUSERS, "run"],
            env=os.environ | settings | {"RANDUSERS_API_URL": slow.url},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as run,
    ):
        while slow.requests < 2:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate(timeout=patience())
        requested = slow.requests
    assert run.returncode == 1
    assert stderr.splitlines()[-1] == (
        "randusers: The run was interrupted before it published anything: the CSV that is published"
        " and its receipt stay as they were."
    )
    assert requested < 500 // page_size  # nothing was begun again
    assert state_of(store).keys() == {PROBE}


@pytest.mark.parametrize(
    ("name", "value", "requests", "message"),
    [
        ("BUCKET", "", 0, UNSET),
        ("BUCKET", "no-such", 0, f"s3://no-such does not exist at {{s3}}: {CREATE}."),
        ("API_URL", "{api}/no", 1, "{api}/no?page=1&limit=500 answered HTTP 404: check {name}."),
    ],
    ids=["bucket unset", "bucket unknown", "API"],
)
def test_run_with_a_wrong_setting_names_it(
    api: ApiSimulator,
    randusers_here: Randusers,
    name: str,
    value: str,
    requests: int,
    message: str,
) -> None:
    """A wrong setting ends in one message, before the API gets more requests than show it."""
    name = f"RANDUSERS_{name}"
    facts = {"name": name, "api": api.url, "s3": os.environ["AWS_ENDPOINT_URL_S3"]}
    run = randusers_here("run", **{name: value.format(**facts)})
    assert (run.returncode, run.stderr) == (1, f"randusers: {message.format(**facts)}\n")
    assert api.requests == requests


def test_run_with_a_setting_of_the_wrong_form_names_it(api: ApiSimulator) -> None:
    """The definitions cannot be imported: one message, and the API gets no request."""
    run = randusers("run", RANDUSERS_START_DATE="2026-02-31")
    expected = "a day until today such as 2026-11-01: correct it in the environment or in .env"
    message = f"RANDUSERS_START_DATE is '2026-02-31', not {expected}."
    assert (run.returncode, run.stderr, api.requests) == (1, f"randusers: {message}\n", 0)
