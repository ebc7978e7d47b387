"""An asset of one's own takes users_df or users_csv as one typed DataFrame (docs/reading.md)."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.errors import failure_message, root_cause
from randusers_assets.io_managers import users_io_manager
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import user, users
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, publish_users
from randusers_assets_tests.project import definitions_on

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

READING = Path(__file__).parent.parent / "docs" / "reading.md"
SNAPSHOT = [
    user(1, registered_date="2019-12-31T23:59:59.999Z", name_title=None, dob_age=None),
    user(2, registered_date="2020-01-01T00:00:00.000Z", location_country=None, name_title=""),
    *users(5)[2:],
]


def example(upstream: str) -> dict[str, Any]:
    """What the example in the document defines, with this asset as its input."""
    section = READING.read_text(encoding="utf-8").partition("\n## In Dagster\n")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    defined: dict[str, Any] = {}
    exec(code.replace("users_df", upstream), defined)  # noqa: S102  # the document's own code
    return defined


def definitions_of(store: SnapshotStore, upstream: str, location: str) -> dg.Definitions:
    """The example in a code location of its own, or added to the project's assets."""
    defined = example(upstream)
    if location == "its own":
        assets = defined["defs"].assets
        resources = {"snapshot_store": store, "users_io_manager": users_io_manager}
        return dg.Definitions(assets=assets, resources=resources)
    return dg.Definitions.merge(definitions_on(store), dg.Definitions(assets=[defined["sign_ups"]]))


def materialize(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """Run the example for the day."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey("sign_ups")],
        instance=instance,
        partition_key=DAY,
        raise_on_error=False,
    )


@pytest.mark.parametrize("location", ["its own", "the project's"])
@pytest.mark.parametrize("upstream", ["users_df", "users_csv"])
def test_downstream_asset_of_the_document_counts_every_user(
    snapshot_store: SnapshotStore, instance: dg.DagsterInstance, upstream: str, location: str
) -> None:
    """The example runs as it is shown, its check passes, and its years are those in UTC."""
    publish_users(snapshot_store.store, DAY, SNAPSHOT)
    defs = definitions_of(snapshot_store, upstream, location)
    result = materialize(defs, instance)
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("counts_every_user", True)
    counts = result.output_for_node("sign_ups")
    assert counts["users"].sum() == len(SNAPSHOT)
    country = SNAPSHOT[0]["location"]["country"]
    assert counts[counts["location_country"] == country]["year"].tolist().count(2019) == 1
    assert counts[counts["location_country"].isna()]["year"].tolist() == [2020]


@pytest.mark.parametrize("location", ["its own", "the project's"])
@pytest.mark.parametrize("upstream", ["users_df", "users_csv"])
def test_downstream_dataframe_is_typed(
    snapshot_store: SnapshotStore, instance: dg.DagsterInstance, upstream: str, location: str
) -> None:
    """Integers stay integers beside a NULL, timestamps are instants in UTC, NULL is not `""`."""
    publish_users(snapshot_store.store, DAY, SNAPSHOT)
    defs = definitions_of(snapshot_store, upstream, location)
    frame = defs.load_asset_value(upstream, partition_key=DAY, instance=instance)
    assert isinstance(frame, pd.DataFrame)
    types = {"integer": "Int64", "number": "float64", "timestamp": "datetime64[ms, UTC]"}
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        c.name: "int64" if c.name == "id" else types.get(c.type, "str") for c in CONTRACT.columns
    }
    assert frame["registered_date"][0] == pd.Timestamp("2019-12-31T23:59:59.999", tz="UTC")
    assert frame["dob_age"].isna().tolist() == [True, False, False, False, False]
    assert frame["name_title"].isna().tolist() == [True, False, False, False, False]
    assert frame["name_title"][1] == ""


def test_downstream_asset_of_a_day_that_is_not_there_says_what_to_materialize(
    snapshot_store: SnapshotStore, instance: dg.DagsterInstance
) -> None:
    """The step fails in one sentence, and is not run again."""
    defs = definitions_of(snapshot_store, "users_csv", "its own")
    result = materialize(defs, instance)
    (error,) = (e.step_failure_data.error for e in result.all_events if e.is_step_failure)
    assert error
    uri = snapshot_store.store.uri(CSV)
    assert failure_message(root_cause(error)) == (
        f"{uri} does not exist: materialize users_csv for {DAY}."
    )
