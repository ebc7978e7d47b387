"""What a person sees who opens the UI: a proved snapshot, and a closed gate."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence

import dagster as dg
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from randusers_assets.audit import ROW_RULES
from randusers_assets.automation import users_snapshot_schedule
from randusers_assets.checks import raw_users_gates, users_csv_gates, users_df_gates
from randusers_assets.sandbox.users import user
from randusers_assets_tests.ui.serving import (
    CHECKS,
    GRAPH,
    PAGE_MILLISECONDS,
    ROOT,
    browser,
    chromium,
    command,
    environment,
    instance_home,
    served,
    snapshot_served,
)

USERS = 20
INVALID_EMAIL = "ada at example.com"
# What a node of the graph says of an asset that was materialized.
EVENT = ("Latest event", re.compile(r"\S.* ago"))

expect.set_options(timeout=PAGE_MILLISECONDS)


@pytest.fixture(scope="session")
def chrome() -> Iterator[BrowserContext]:
    """The browser."""
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium: install chromium (or google-chrome) to run the UI tests")
    with browser(executable) as context:
        yield context


@pytest.fixture
def page(chrome: BrowserContext) -> Iterator[Page]:
    """An empty page."""
    opened = chrome.new_page()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def snapshot(
    chrome: BrowserContext,  # noqa: ARG001  # without a browser there is nothing to serve for
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The UI after one successful run for today."""
    with snapshot_served(tmp_path_factory.mktemp("snapshot")) as url:
        yield url


@pytest.fixture(scope="session")
def closed_gate(
    chrome: BrowserContext,  # noqa: ARG001  # as above
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The UI of another instance, after one run over users of whom one has no valid email."""
    directory = tmp_path_factory.mktemp("closed_gate")
    home, users_file = instance_home(directory), directory / "users.json"
    users = [json.loads(user(number)) for number in range(1, USERS + 1)]
    users[0]["email"] = INVALID_EMAIL
    users_file.write_text(json.dumps(users))
    sandbox = command("randusers", "sandbox", "--users-file", str(users_file), "--")
    ran = subprocess.run(  # noqa: S603  # this environment's own command
        [*sandbox, "randusers", "run"],
        cwd=ROOT,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    webserver = command("dagster-webserver", "--host", "127.0.0.1", "--port")
    with served(home, lambda port: [*webserver, str(port)]) as url:
        yield url


def sees(page: Page, *texts: str | re.Pattern[str]) -> None:
    """Wait until the page shows the texts, one below or beside the other."""
    patterns = (re.escape(text) if isinstance(text, str) else text.pattern for text in texts)
    shown = re.compile(r"\s+".join(patterns))
    expect(page.locator("body")).to_contain_text(shown, use_inner_text=True)


def names(gates: dg.AssetChecksDefinition, *, blocking: bool = True) -> Sequence[str]:
    """The names of a step's checks: the gates alone, or the warnings as well."""
    return [spec.name for spec in gates.check_specs if spec.blocking or not blocking]


def test_graph_shows_three_materialized_assets(page: Page, snapshot: str) -> None:
    """Each asset has a latest event, no closed gate, and today's partition."""
    page.goto(snapshot + GRAPH)
    for asset, gates in (
        ("raw_users", raw_users_gates),
        ("users_df", users_df_gates),
        ("users_csv", users_csv_gates),
    ):
        opened, every = len(names(gates)), len(names(gates, blocking=False))
        # A warning closes nothing: the generated users have some texts that start a formula.
        passed = "|".join(map(str, range(opened, every + 1)))
        checks = re.compile(f"(?:{passed}) / {every} Passed")
        sees(page, asset, *EVENT, "Asset checks", checks, "Partitions", "100% filled")


def test_checks_page_shows_every_gate_open(page: Page, snapshot: str) -> None:
    """Each gate of users_df is listed by its name as succeeded; the one opened says what it is."""
    page.goto(snapshot + CHECKS)
    for name in names(users_df_gates):
        sees(page, name, "Succeeded")
    sees(page, "This is a blocking asset check.", ROW_RULES["emails_are_valid"].description)
    sees(page, "Evaluation result", "Passed")


def test_checks_page_shows_the_closed_gate_and_its_sentence(page: Page, closed_gate: str) -> None:
    """The gate is red, says why and who, masked; the other gates are green."""
    page.goto(closed_gate + CHECKS)
    sees(page, "users_df_emails_are_valid", "Failed")
    sees(page, "Latest execution", f"1 of {USERS} users break users_df_emails_are_valid")
    sees(page, "Evaluation result", "Failed")
    sees(page, "1", "email", "a•••")
    expect(page.get_by_text(INVALID_EMAIL)).to_have_count(0)
    for name in names(users_df_gates):
        if name != "users_df_emails_are_valid":
            sees(page, name, "Succeeded")


def test_graph_shows_that_users_csv_did_not_run_behind_a_closed_gate(
    page: Page, closed_gate: str
) -> None:
    """users_df has a latest event; users_csv has none, and its partition failed."""
    page.goto(closed_gate + GRAPH)
    sees(page, "users_df", *EVENT, "Asset checks")
    never_run = f"0 / {len(names(users_csv_gates))} Passed"
    sees(page, "users_csv", "Latest event", "Asset checks", never_run)
    sees(page, never_run, "Partitions", "0% filled (1 failed)")


def test_schedule_page_says_what_it_requests_and_when(page: Page, snapshot: str) -> None:
    """Description, target and cron of the schedule, in words."""
    page.goto(snapshot + "/locations/randusers_assets/schedules/users_snapshot_schedule")
    sees(page, "Description", users_snapshot_schedule.description or "no description")
    sees(page, "Target", "users_snapshot_job")
    sees(page, "At 06:00 AM UTC", "(0 6 * * *)")
