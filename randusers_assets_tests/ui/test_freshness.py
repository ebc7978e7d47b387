"""The freshness of users_csv turns, by the daemon that `dagster dev` starts."""

import time
from functools import partial
from pathlib import Path

import dagster as dg

# Not in `dagster`'s own names; its public way to report a materialization dates it by the clock.
from dagster._core.events import StepMaterializationData

from randusers_assets_tests.ui import serving

FRESHNESS = """{ assetNodes(assetKeys: [{path: ["users_csv"]}]) {
    freshnessStatusInfo { freshnessStatus } } }"""


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


def test_freshness_warns_after_a_missed_day_and_fails_after_two(tmp_path: Path) -> None:
    """With the project's dagster.yaml the state that the UI shows follows the last publication."""
    home = tmp_path / "dagster"
    with serving.served(home, *serving.DEVELOPMENT) as url:
        for hours, state in ((25, "HEALTHY"), (27, "WARNING"), (51, "DEGRADED")):
            materialized(home, hours)
            serving.wait(partial(evaluated, url, state))
