"""What a person sees who opens the UI: a proved snapshot, and a closed gate."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence

import dagster as dg
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from randusers_assets import assets
from randusers_assets.automation import users_snapshot_schedule
from randusers_assets.checks import raw_users_gates, users_csv_gates, users_df_gates
from randusers_assets.contract import COLUMNS
from randusers_assets.pipeline.audit.rules import ROW_RULES
from randusers_assets.sensors import users_snapshot_failure_alert, users_snapshot_recovery_alert
from randusers_assets_tests.ui.serving import (
    CHECKS,
    GRAPH,
    PAGE_MILLISECONDS,
    ROOT,
    browser,
    chromium,
    command,
    environment,
    graphql,
    instance_home,
    served,
    snapshot_served,
)
from randusers_sandbox.users import user

USERS = 20
INVALID_EMAIL = "ada at example.com"
# What a node of the graph says of an asset that was materialized.
EVENT = ("Latest event", re.compile(r"\S.* ago"))
SCHEDULE = "/locations/randusers_assets/schedules/users_snapshot_schedule"
SENTENCE = (
    f"1 of {USERS} users break users_df_emails_are_valid, user 1 first, in email; the gate is"
    " closed: mend them at the source, or raise RANDUSERS_MAX_REJECTED_RATIO above 0."
)

LINEAGE = """{ assetNodes(assetKeys: [{path: ["users_df"]}, {path: ["users_csv"]}]) {
    assetKey { path } assetMaterializations(limit: 1) { metadataEntries {
        ... on TableColumnLineageMetadataEntry { lineage {
            columnName columnDeps { assetKey { path } columnName } } } } } } }"""

expect.set_options(timeout=PAGE_MILLISECONDS)


@pytest.fixture(scope="module")
def chrome() -> Iterator[BrowserContext]:
    """The browser; closed with its tests, as its event loop is in the way of Dagster's retries."""
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


@pytest.fixture(scope="module")
def snapshot(
    chrome: BrowserContext,  # noqa: ARG001  # without a browser there is nothing to serve for
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The UI after one successful run for today."""
    with snapshot_served(tmp_path_factory.mktemp("snapshot")) as url:
        yield url


@pytest.fixture(scope="module")
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
    sees(page, "Latest execution", SENTENCE)
    sees(page, "Evaluation result", "Failed")
    sees(page, "id", "column", "value", "1", "email", "a•••")
    # The count is plotted; the threshold stands beside the value.
    sees(page, "share", "5 %; closed above 0 %", "users", "1", "Plots", "users")
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


def test_failed_run_opens_with_the_sentence_of_the_closed_gate(
    page: Page, closed_gate: str
) -> None:
    """Where a run's page opens, at the log's end, the sentence is above Dagster's stack."""
    page.goto(closed_gate + "/runs")
    page.get_by_text("View", exact=True).click()
    failure = "dagster._core.definitions.events.Failure: Closed by users_df_emails_are_valid:"
    said = f"{failure} {SENTENCE}"
    sees(page, "RUN_FAILURE", re.compile(r"Execution of run .*"), said, "Stack Trace:")
    expect(page.get_by_text(INVALID_EMAIL)).to_have_count(0)


def test_catalog_says_what_each_asset_is(page: Page, snapshot: str) -> None:
    """The list of assets shows the name and the description of all three."""
    page.goto(snapshot + "/assets")
    for asset in (assets.raw_users, assets.users_csv, assets.users_df):
        sees(page, asset.key.to_user_string(), asset.descriptions_by_key[asset.key])


def test_asset_page_says_where_what_and_whose(page: Page, snapshot: str) -> None:
    """users_csv: freshness, rows, address, owner, code, and each column with type and meaning."""
    page.goto(snapshot + "/assets/users_csv?view=overview")
    sees(page, "Freshness policy", "Passing", "Row count", "500", "Description")
    sees(page, "Warns if more than 26 hours since last materialization")
    sees(page, "Owners", "data-engineering")
    sees(page, "Storage", "s3://randusers-sandbox/users_csv/dt=YYYY-MM-DD/users.csv", "S3")
    code = page.get_by_role("link", name="assets.py")
    expect(code).to_have_attribute("href", re.compile(r"/randusers_assets/assets\.py:\d+$"))
    for column in COLUMNS:
        kind = "int64" if column.type == "integer" else re.compile("string|timestamp")
        told = ["personal"] if column.personal else []
        limits = ["non-nullable"] if column.required else []
        only = ["unique"] if column.name in ("id", "login_uuid") else []
        meaning = f"{column.meaning} ({column.path})"
        sees(page, column.name, *told, kind, *limits, *only, meaning)


def test_materializations_carry_the_lineage_of_each_column(snapshot: str) -> None:
    """JSON path to flat column to CSV column; only Dagster+ draws what every instance keeps."""
    nodes = graphql(snapshot, LINEAGE)["assetNodes"]
    traced = {
        node["assetKey"]["path"][0]: sorted(
            (one["columnName"], dep["assetKey"]["path"][0], dep["columnName"])
            for entry in node["assetMaterializations"][0]["metadataEntries"]
            for one in entry.get("lineage", [])
            for dep in one["columnDeps"]
        )
        for node in nodes
    }
    assert traced == {
        "users_df": sorted((column.name, "raw_users", column.path) for column in COLUMNS),
        "users_csv": sorted((column.name, "users_df", column.name) for column in COLUMNS),
    }


def test_asset_page_shows_nothing_personal(page: Page, snapshot: str) -> None:
    """The preview of users_df is masked: what identifies any of the users is not on the page."""
    page.goto(snapshot + "/assets/users_df?view=overview")
    sees(page, "preview", re.compile(r".*"), "Show schema")
    sees(page, "top_nationalities", re.compile(r".*"), "users")
    shown = page.locator("body").inner_text()
    for made in (json.loads(user(number)) for number in range(1, 501)):
        login = made["login"]
        told = [made["email"], made["phone"], made["cell"], login["username"], login["password"]]
        assert [value for value in told if value in shown] == []


def test_schedule_page_says_what_it_requests_and_when(page: Page, snapshot: str) -> None:
    """Description, target and cron in words; once it is turned on, its next tick."""
    page.goto(snapshot + SCHEDULE)
    sees(page, "Description", users_snapshot_schedule.description or "no description")
    sees(page, "Target", "users_snapshot_job")
    sees(page, "At 06:00 AM UTC", "(0 6 * * *)")
    expect(page.get_by_text("Next tick")).to_have_count(0)
    switch = page.get_by_role("checkbox").locator("..")
    switch.click()
    sees(page, "Next tick", re.compile(r"\w{3} \d+, 6:00:00 AM UTC"), "Target")
    switch.click()
    expect(page.get_by_text("Next tick")).to_have_count(0)


def test_automation_page_lists_the_schedule_and_the_sensors(page: Page, snapshot: str) -> None:
    """All three are listed, each with its description behind its mark."""
    page.goto(snapshot + "/automation")
    listed: Sequence[tuple[dg.SensorDefinition | dg.ScheduleDefinition, str]] = (
        (users_snapshot_failure_alert, "Run status sensor"),
        (users_snapshot_recovery_alert, "Run status sensor"),
        (users_snapshot_schedule, "Scheduled At 06:00 AM UTC"),
    )
    for place, (automation, kind) in enumerate(listed):
        sees(page, automation.name, kind)
        page.get_by_label("info", exact=True).nth(place).hover()
        shown = page.get_by_text(automation.description or "no description")
        expect(shown.first).to_be_visible()
