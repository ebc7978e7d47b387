"""What a person sees who opens the UI: a proved snapshot, and a closed gate."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

# Not in `dagster`'s own names; its public way to report a materialization dates it by the clock.
from dagster._core.events import StepMaterializationData
from playwright.sync_api import Page, expect

from randusers_assets import assets
from randusers_assets.automation import users_snapshot_schedule
from randusers_assets.checks import raw_users_gates, users_csv_gates, users_df_gates
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.rules import row_rules
from randusers_assets.sensors import (
    users_csv_overdue_alert,
    users_snapshot_failure_alert,
    users_snapshot_recovery_alert,
)
from randusers_assets_tests.ui import serving
from randusers_sandbox.users import user

# What a node of the graph shows for an asset that was materialized.
EVENT = ("Latest event", re.compile(r"\S.* ago"))
SCHEDULE = "/locations/randusers_assets/schedules/users_snapshot_schedule"
ADVICE = "fix them at the source, or set RANDUSERS_MAX_REJECTED_RATIO to at least 0.05."
EMAILS = f"1 of {serving.USERS} rows fail, first id 1, in email; {ADVICE}"
RATIO = f"1 of {serving.USERS} rows are set aside; {ADVICE}"

expect.set_options(timeout=serving.PAGE_MILLISECONDS)
FRESHNESS = """{ assetNodes(assetKeys: [{path: ["users_csv"]}]) {
    freshnessStatusInfo { freshnessStatus } } }"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page, closed after these tests, as its event loop is in the way of Dagster's retries."""
    if serving.chromium() is None:
        pytest.skip("no Chromium: install chromium or google-chrome")
    with serving.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `snapshot` runs."""
    return tmp_path_factory.mktemp("snapshot")


@pytest.fixture(scope="module")
def snapshot(directory: Path) -> Iterator[str]:
    """The UI after one successful run for today."""
    with serving.snapshot_served(directory) as url:
        yield url


@pytest.fixture(scope="module")
def closed_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI of another instance, after one run over users of whom one has no valid email."""
    with serving.closed_gate_served(tmp_path_factory.mktemp("closed_gate")) as url:
        yield url


def sees(page: Page, *texts: str | re.Pattern[str]) -> None:
    """Wait until the page shows the texts, one below or beside the other."""
    patterns = (re.escape(text) if isinstance(text, str) else text.pattern for text in texts)
    shown = re.compile(r"\s+".join(patterns))
    expect(page.locator("body")).to_contain_text(shown, use_inner_text=True)


def names(gates: dg.AssetChecksDefinition, *, blocking: bool = True) -> Sequence[str]:
    """The names of a step's checks: the gates alone, or the warnings as well."""
    return [spec.name for spec in gates.check_specs if spec.blocking or not blocking]


def test_make_dev_starts_without_a_warning(directory: Path, snapshot: str) -> None:
    """Nothing that a person would wonder about, up to the line that names the URL."""
    start, url, _ = (directory / serving.SERVED_LOG).read_text().partition(snapshot)
    assert url
    warnings = [line for line in start.splitlines() if re.search(r"WARNING\b|Warning:", line)]
    # Dagster's daemon, once for a new instance.
    assert [line for line in warnings if "No cursor for event type" not in line] == []


def test_graph_shows_three_materialized_assets(page: Page, snapshot: str) -> None:
    """Each asset has a latest event, no closed gate, and today's partition."""
    page.goto(snapshot + serving.GRAPH)
    for asset, gates in (
        ("raw_users", raw_users_gates),
        ("users_df", users_df_gates),
        ("users_csv", users_csv_gates),
    ):
        opened, every = len(names(gates)), len(names(gates, blocking=False))
        # A warning closes nothing: some generated texts would be read as formulas.
        passed = "|".join(map(str, range(opened, every + 1)))
        checks = re.compile(f"(?:{passed}) / {every} Passed")
        sees(page, asset, *EVENT, "Asset checks", checks, "Partitions", "100% filled")


def test_checks_page_shows_every_gate_open(page: Page, snapshot: str) -> None:
    """Each gate of users_df is listed as succeeded; the selected one shows its description."""
    page.goto(snapshot + serving.CHECKS)
    for name in names(users_df_gates):
        sees(page, name, "Succeeded")
    rule, _ = row_rules(CONTRACT)["emails_are_valid"]
    sees(page, "This is a blocking asset check.", rule.description)
    sees(page, "Evaluation result", "Passed")


def test_checks_page_shows_the_closed_gates_and_the_message(page: Page, closed_gate: str) -> None:
    """The rule and the ratio are red, with why and who, masked; the other gates are green."""
    page.goto(closed_gate + serving.CHECKS)
    for name in names(users_df_gates):
        closed = name in ("emails_are_valid", "rejects_are_within_ratio")
        sees(page, name, "Failed" if closed else "Succeeded")
    sees(page, "Latest execution", EMAILS)
    sees(page, "Evaluation result", "Failed")
    sees(page, "id", "column", "value", "1", "email", "a•••")
    sees(page, "rows", "1", "Plots", "rows")
    expect(page.get_by_text(serving.INVALID_EMAIL)).to_have_count(0)
    page.goto(closed_gate + serving.CHECKS.replace("emails_are_valid", "rejects_are_within_ratio"))
    sees(page, "Latest execution", RATIO)
    # The count is plotted; the share and what is allowed are text.
    sees(page, "allowed", "0.0000%", "rejected", "1", "share", "5.0000%", "Plots", "rejected")


def test_graph_shows_that_users_csv_did_not_run_behind_a_closed_gate(
    page: Page, closed_gate: str
) -> None:
    """users_df has a latest event; users_csv has none, and its partition failed."""
    page.goto(closed_gate + serving.GRAPH)
    sees(page, "users_df", *EVENT, "Asset checks")
    never_run = f"0 / {len(names(users_csv_gates))} Passed"
    sees(page, "users_csv", "Latest event", "Asset checks", never_run)
    sees(page, never_run, "Partitions", "0% filled (1 failed)")


def test_failed_run_opens_with_the_message_of_the_closed_gates(
    page: Page, closed_gate: str
) -> None:
    """Where a run's page opens, at the log's end, the message is above Dagster's stack."""
    page.goto(closed_gate + "/runs")
    page.get_by_text("View", exact=True).click()
    closed = "Closed by emails_are_valid, rejects_are_within_ratio:"
    message = f"dagster._core.definitions.events.Failure: {closed} {EMAILS} {RATIO}"
    sees(page, "RUN_FAILURE", re.compile(r"Execution of run .*"), message, "Stack Trace:")
    expect(page.get_by_text(serving.INVALID_EMAIL)).to_have_count(0)


def materialize(page: Page, url: str, date: str) -> None:
    """Launch a run of all assets for one day, as a person does in the graph."""
    page.goto(url + serving.GRAPH)
    page.get_by_role("button", name=re.compile("Materialize")).first.click()
    dialog = page.get_by_role("dialog")
    days = dialog.get_by_placeholder(re.compile("partition"))
    days.fill(date)
    days.press("Enter")
    dialog.get_by_role("button", name="Launch 1 run").click()
    expect(dialog).to_have_count(0)


# The last two of this instance, as they change its latest executions.
def test_past_day_is_rebuilt_from_its_raw_snapshot(page: Page, closed_gate: str) -> None:
    """Materializing all for a day whose raw snapshot is stored publishes that day."""
    materialize(page, closed_gate, day := serving.past_day(2))
    page.goto(closed_gate + "/assets/users_csv?view=checks&checkDetail=matches_its_receipt")
    sees(page, "Latest execution", "The object matches its receipt.")
    sees(page, "Evaluation result", "Passed")
    sees(page, "Partition", day)


def test_checks_page_says_why_a_past_day_is_refused(page: Page, closed_gate: str) -> None:
    """Without a raw snapshot the checks of raw_users fail in the message of that day's run."""
    materialize(page, closed_gate, day := serving.past_day(3))
    for name in names(raw_users_gates, blocking=False):
        page.goto(closed_gate + f"/assets/raw_users?view=checks&checkDetail={name}")
        sees(page, f"{day}.json does not exist: raw_users of {day} cannot be fetched")
        sees(page, "Evaluation result", "Failed")


def test_catalog_describes_each_asset(page: Page, snapshot: str) -> None:
    """The list of assets shows the name and the grain of all three."""
    page.goto(snapshot + "/assets")
    for asset in (assets.raw_users, assets.users_csv, assets.users_df):
        grain = asset.descriptions_by_key[asset.key].partition("\n")[0]
        sees(page, asset.key.to_user_string(), grain)


def test_asset_page_shows_where_what_and_whose(page: Page, snapshot: str) -> None:
    """users_csv: freshness, rows, address, owner, code, and each column with type and meaning."""
    page.goto(snapshot + "/assets/users_csv?view=overview")
    sees(page, "Freshness policy", "Passing", "Row count", "500", "Description")
    sees(page, "Warns if more than 26 hours since last materialization")
    sees(page, "Owners", "data-engineering")
    sees(page, "Storage", "s3://randusers-sandbox/users_csv/dt=YYYY-MM-DD/users.csv", "S3")
    code = page.get_by_role("link", name="assets.py")
    expect(code).to_have_attribute("href", re.compile(r"/randusers_assets/assets\.py:\d+$"))
    for column in CONTRACT.columns:
        kind = "int64" if column.type == "integer" else re.compile("string|timestamp")
        tags = ["personal"] if column.personal else []
        limits = ["non-nullable"] if column.required else []
        only = ["unique"] if column.name in CONTRACT.unique else []
        meaning = f"{column.meaning} ({column.path})"
        sees(page, column.name, *tags, kind, *limits, *only, meaning)


def test_asset_page_shows_nothing_personal(page: Page, snapshot: str) -> None:
    """The preview of users_df is masked: what identifies any of the users is not on the page."""
    page.goto(snapshot + "/assets/users_df?view=overview")
    sees(page, "preview", re.compile(r".*"), "Show schema")
    sees(page, "nat", re.compile(r".*"), "rows")
    shown = page.locator("body").inner_text()
    for made in (json.loads(user(number)) for number in range(1, 501)):
        login = made["login"]
        secret = [made["email"], made["phone"], made["cell"], login["username"], login["password"]]
        assert [value for value in secret if value in shown] == []


def test_schedule_page_shows_what_it_requests_and_when(page: Page, snapshot: str) -> None:
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
    """All are listed, each with its description behind its info mark."""
    page.goto(snapshot + "/automation")
    listed: Sequence[tuple[dg.SensorDefinition | dg.ScheduleDefinition, str]] = (
        (users_csv_overdue_alert, "Standard sensor"),
        (users_snapshot_failure_alert, "Run status sensor"),
        (users_snapshot_recovery_alert, "Run status sensor"),
        (users_snapshot_schedule, "Scheduled At 06:00 AM UTC"),
    )
    for place, (automation, kind) in enumerate(listed):
        sees(page, automation.name, kind)
        page.get_by_label("info", exact=True).nth(place).hover()
        shown = page.get_by_text(automation.description or "no description")
        expect(shown.first).to_be_visible()


def materialized(home: Path, hours: float) -> None:
    """Record a materialization of users_csv as one of so many hours ago."""
    made = dg.AssetMaterialization("users_csv", partition=serving.today())
    event = dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="",
        event_specific_data=StepMaterializationData(made),
    )
    entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]  # it has no types
        None, "INFO", "", run_id="", timestamp=time.time() - hours * 3600, dagster_event=event
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.handle_new_event(entry)


def evaluated(url: str, state: str) -> bool:
    """Whether the daemon has found users_csv in this state."""
    info = serving.graphql(url, FRESHNESS)["assetNodes"][0]["freshnessStatusInfo"]
    return info is not None and info["freshnessStatus"] == state


def test_day_has_one_run_at_a_time(snapshot: str) -> None:
    """Of two runs of a day that are launched together, one waits until the other has ended."""
    launched = [serving.launch(snapshot, serving.today()) for _ in range(2)]
    runs = [serving.wait_for_end(snapshot, run_id) for run_id in launched]
    assert [run["status"] for run in runs] == ["SUCCESS"] * 2
    first, second = sorted((run["stats"] for run in runs), key=lambda stats: stats["launchTime"])
    assert second["launchTime"] >= first["endTime"]


# The last test, as it changes what the others see.
def test_freshness_warns_after_a_missed_day_and_fails_after_two(
    directory: Path, snapshot: str
) -> None:
    """With the project's dagster.yaml the state that the UI shows follows the last publication."""
    for hours, state in ((27, "WARNING"), (51, "DEGRADED"), (25, "HEALTHY")):
        materialized(directory / ".sandbox" / "dagster", hours)
        serving.wait(partial(evaluated, snapshot, state))
