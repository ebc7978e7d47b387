"""The three assets and their checks in Dagster's own runs, on real servers."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
from dagster_aws.s3 import S3Resource

from randusers_assets.checks import raw_users_gates
from randusers_assets.contract import CONTRACT
from randusers_assets.errors import failure_message, gate_failed, root_cause
from randusers_assets.pipeline.publish.objects import load_csv, save
from randusers_assets.pipeline.publish.receipt import Receipt, require_receipt
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.paths import csv_path
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import User, csv_of, frames_of, raw_users_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import publish_csv
from randusers_assets_tests.pipeline.storage.s3_proxy import Request, s3_proxy
from randusers_assets_tests.project import definitions_on
from randusers_sandbox.api import ApiSimulator, users_from_json
from randusers_sandbox.s3 import LocalS3

# Dagster itself, as it initializes a resource that depends on another.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")

# A run that starts before midnight may still fetch in the hour after it.
TODAY = datetime.now(UTC).date().isoformat()
YESTERDAY, PAST, OLDER = (
    (datetime.now(UTC).date() - timedelta(days=ago)).isoformat() for ago in (1, 2, 3)
)
USERS_CSV = [dg.AssetKey("users_csv")]
BAD = {"email": "somebody@nowhere"}
TWO_BAD = [user(1, **BAD), user(2, dob_age="four"), *users(10)[2:]]
RATIO = "rejects_are_within_ratio"


def accept(ratio: float) -> dict[str, object]:
    """The run config that allows a share of rejects."""
    return {"max_rejected_ratio": ratio, "accept_rejects": "known"}


def api_of(snapshot: list[User], directory: Path) -> ApiSimulator:
    """The API with these users."""
    return ApiSimulator(users_from_json([msgspec.json.encode(one) for one in snapshot], directory))


def run_job(
    store: SnapshotStore,
    api: ApiSimulator,
    gate: Mapping[str, object] | None = None,
    assets: list[dg.AssetKey] | None = None,
    date: str = TODAY,
) -> dg.ExecuteInProcessResult:
    """A run of the project's job, or of some assets alone, with snapshot_gate's run config."""
    job = definitions_on(store, api.url).resolve_job_def("users_snapshot_job")
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(
            partition_key=date,
            instance=instance,
            raise_on_error=False,
            run_config={"resources": {"snapshot_gate": {"config": {**(gate or {})}}}},
            asset_selection=assets,
        )


def message_of(result: dg.ExecuteInProcessResult) -> str:
    """What the one failed step says, which was not retried; empty if none failed."""
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    errors = [failure.error for failure in failures if failure.error is not None]
    assert len(errors) == (0 if result.success else 1)
    return "".join(failure_message(root_cause(error)) for error in errors)


def receipt_of(store: Store) -> Receipt | None:
    """Today's receipt."""
    found = store.head(csv_path(CONTRACT, TODAY))
    return require_receipt(store, CONTRACT, TODAY, found.sha256) if found else None


@pytest.mark.parametrize(
    ("snapshot", "past", "gate", "closed", "published"),
    [
        (users(10, email=user(2)["email"]), 0, {}, [], 10),
        (users(10), 12, {}, [], 10),
        (users(10, **BAD), 0, {}, ["emails_are_valid", RATIO], None),
        (users(10, **BAD), 0, accept(0.1), [], 9),
        (TWO_BAD, 0, accept(0.1), ["emails_are_valid", RATIO], None),
        (TWO_BAD, 0, accept(0.2), [], 8),
        (users(10, dob_age="four"), 0, {}, ["keeps_the_contract"], None),
        (users(10, login_uuid=user(2)["login"]["uuid"]), 0, {}, ["ids_are_unique"], None),
        (users(1, **BAD), 0, accept(1), [RATIO], None),
        (users(10), 13, {}, ["is_in_line_with_history"], None),
        (users(10), 13, {"accept_change": "a tenant left"}, [], 10),
    ],
)
def test_checks_pass_exactly_when_the_csv_is_published(
    snapshot_store: SnapshotStore,
    tmp_path: Path,
    snapshot: list[User],
    past: int,
    gate: Mapping[str, object],
    closed: list[str],
    published: int | None,
) -> None:
    """The run, its checks and the bucket agree, and so does a run of users_csv alone."""
    store = snapshot_store.store
    if past:
        publish_csv(store, YESTERDAY, csv_of(users(past)))
    with api_of(snapshot, tmp_path) as api:
        result = run_job(snapshot_store, api, gate)
        evaluations = result.get_asset_check_evaluations()
        assert [check.check_name for check in evaluations if gate_failed(check)] == closed
        assert result.success is (published is not None)
        assert (len(evaluations) == 13) is result.success
        assert message_of(result).startswith(f"Closed by {', '.join(closed)}: " if closed else "")
        receipt = receipt_of(store)
        assert (receipt.counts.published if receipt else None) == published
        assert (store.head(csv_path(CONTRACT, TODAY)) is not None) is result.success
        alone = run_job(snapshot_store, api, gate, USERS_CSV)
    assert alone.success is result.success
    own = [check.check_name for check in alone.get_asset_check_evaluations()]
    assert own == ["matches_its_receipt"] * alone.success
    assert receipt_of(store) == receipt
    if receipt:
        (shown,) = alone.asset_materializations_for_node("users_csv")
        assert shown.metadata["outcome"].value == "unchanged"
        assert receipt.csv.sha256 == shown.metadata["sha256"].value
        assert receipt.run_id == result.run_id
        assert receipt.counts.declared == len(snapshot)
        assert receipt.max_rejected_ratio == gate.get("max_rejected_ratio", 0)
        assert receipt.accepted_rejects == gate.get("accept_rejects", "")
        assert receipt.accepted_change == gate.get("accept_change", "")
        assert receipt.compared_with == (YESTERDAY if past else None)


def test_run_that_allows_more_rejects_than_the_setting_needs_a_reason(
    snapshot_store: SnapshotStore, tmp_path: Path
) -> None:
    """Without the reason the run fails in one sentence, and users_csv alone does as well."""
    save(snapshot_store.store, TODAY, raw_users_of(TWO_BAD))
    with api_of(TWO_BAD, tmp_path) as api:
        for assets in (None, USERS_CSV):
            run = run_job(snapshot_store, api, {"max_rejected_ratio": 0.5}, assets)
            assert message_of(run) == (
                "The run config sets max_rejected_ratio to 0.5, above RANDUSERS_MAX_REJECTED_RATIO"
                " (0): add the reason, resources: {snapshot_gate: {config: {accept_rejects:"
                ' "why"}}}.'
            )
    assert receipt_of(snapshot_store.store) is None


def test_materializations_show_facts_charts_and_what_changed(
    snapshot_store: SnapshotStore, tmp_path: Path
) -> None:
    """Each asset shows its object and its seconds; users_df also what changed since yesterday."""
    save(snapshot_store.store, YESTERDAY, frames_of([user(1), user(11)]))
    with api_of(users(10), tmp_path) as api:
        result, url = run_job(snapshot_store, api), api.url
    shown: dict[str, dict[str, Any]] = {}
    for asset in ("raw_users", "users_df", "users_csv"):
        (materialization,) = result.asset_materializations_for_node(asset)
        assert materialization.partition == TODAY
        shown[asset] = {name: value.value for name, value in materialization.metadata.items()}
    stored = {"dagster/uri", "dagster/row_count", "bytes", "sha256", "etag", "store_seconds"}
    assert {name: set(metadata) - stored for name, metadata in shown.items()} == {
        "raw_users": {
            *("source", "declared", "pages", "page_size", "tries", "retries", "waited_seconds"),
            *("bytes_fetched", "fetched_at", "fetch_seconds"),
        },
        "users_df": {
            *("dagster/column_lineage", "preview", "nat", "dob_age", "flatten_seconds"),
            *("compared_with", "new_rows", "gone_rows", "changed_rows", "first_keys"),
        },
        "users_csv": {
            *("dagster/column_lineage", "outcome", "rejected", "audit_seconds"),
            *("receipt", "receipt_link", "parquet_copy"),
        },
    }
    assert [metadata["dagster/row_count"] for metadata in shown.values()] == [10, 10, 10]
    assert (shown["raw_users"]["source"], shown["raw_users"]["declared"]) == (url, 10)
    assert shown["users_df"]["first_keys"] == {"new": [*range(2, 11)], "gone": [11], "changed": []}
    for asset, *source in (
        ("users_df", "raw_users", "dob.date"),
        ("users_csv", "users_df", "dob_date"),
    ):
        deps = shown[asset]["dagster/column_lineage"].deps_by_column["dob_date"]
        assert deps == [dg.TableColumnDep(*source)]


def test_raw_users_fail_before_the_fetch_where_it_would_be_in_vain(
    snapshot_store: SnapshotStore, tmp_path: Path
) -> None:
    """A bucket that is not there ends the run without a request."""
    missing = SnapshotStore(s3_resource=snapshot_store.s3_resource, bucket="not-there")
    with api_of(users(10), tmp_path) as api:
        assert message_of(run_job(missing, api)).startswith("s3://not-there does not exist at ")
        assert api.requests == 0


def test_raw_users_of_a_past_day_keep_what_is_stored(
    snapshot_store: SnapshotStore, s3_server: LocalS3, tmp_path: Path
) -> None:
    """The materialization shows the stored object; no request is sent and nothing is written."""
    store, raw = snapshot_store.store, raw_users_of(users(10))
    path, stored = save(store, PAST, raw)
    written: list[str] = []

    def note_writes(request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            written.append(request.path)

    with (
        s3_proxy(s3_server.endpoint_url, note_writes) as url,
        api_of(users(11), tmp_path) as api,
    ):
        s3 = S3Resource(endpoint_url=url)
        noted = SnapshotStore(s3_resource=s3, bucket=store.bucket)
        result = run_job(noted, api, assets=[dg.AssetKey("raw_users")], date=PAST)
        assert (message_of(result), api.requests) == ("", 0)
    assert written == [f"/{store.bucket}/{PROBE}"]
    facts = msgspec.to_builtins(raw.facts)
    facts |= {"source": facts.pop("url"), "bytes_fetched": facts.pop("bytes")}
    (made,) = result.asset_materializations_for_node("raw_users")
    shown = {name: value.value for name, value in made.metadata.items()}
    assert isinstance(shown.pop("store_seconds"), float)
    assert shown == {
        "dagster/uri": store.uri(path),
        "dagster/row_count": 10,
        "bytes": raw.file.size,
        "sha256": raw.file.sha256,
        "etag": stored.etag.strip('"'),
        "kept": "fetched at 2026-11-23T06:00:00+00:00",
        **facts,
    }


def test_job_of_a_past_day_publishes_it_from_its_raw_snapshot(
    snapshot_store: SnapshotStore, tmp_path: Path
) -> None:
    """All assets and checks succeed, as in a backfill, and the bucket proves the day."""
    store = snapshot_store.store
    save(store, PAST, raw_users_of(users(10)))
    with api_of(users(11), tmp_path) as api:
        result = run_job(snapshot_store, api, date=PAST)
        assert (message_of(result), api.requests) == ("", 0)
    assert len(result.get_asset_check_evaluations()) == 13
    assert len(list(verify(store, CONTRACT, PAST))) == 6
    assert load_csv(store, CONTRACT, PAST)["id"].tolist() == list(range(1, 11))


@pytest.mark.parametrize("damage", [None, bucket.delete, bucket.overwrite])
def test_raw_users_of_a_past_day_that_cannot_be_loaded_are_refused(
    snapshot_store: SnapshotStore,
    tmp_path: Path,
    damage: Callable[[Store, str], None] | None,
) -> None:
    """The one sentence names the object, the day and what can be done; other days stay."""
    store, at = snapshot_store.store, f"_current/raw_users/dt={PAST}.json"
    save(store, YESTERDAY, raw_users_of(users(10)))
    if damage:
        at, _ = save(store, PAST, raw_users_of(users(9)))
        damage(store, at)
    store.check_access()
    before = bucket.state_of(store)
    with api_of(users(10), tmp_path) as api:
        message = message_of(run_job(snapshot_store, api, date=PAST))
        assert api.requests == 0
    altered = "is not as it was written (its SHA-256 differs)"
    problem = altered if damage is bucket.overwrite else "does not exist"
    assert message == (
        f"{store.uri(at)} {problem}: raw_users of {PAST} cannot be fetched, because the API serves"
        f" only current data; restore its raw snapshot and run `randusers rebuild --from {PAST}`,"
        " or materialize today's partition."
    )
    assert bucket.state_of(store) == before


def test_checks_of_a_refused_day_fail_in_its_message(
    snapshot_store: SnapshotStore, instance: dg.DagsterInstance
) -> None:
    """Those of raw_users, which cannot run; a day with a stored raw snapshot keeps its results."""
    save(snapshot_store.store, PAST, raw_users_of(users(10)))
    job = definitions_on(snapshot_store).resolve_job_def("users_snapshot_job")
    kept, refused = (
        job.execute_in_process(partition_key=date, instance=instance, raise_on_error=False)
        for date in (PAST, OLDER)
    )
    assert (kept.success, refused.success) == (True, False)
    shown = set()
    for spec in raw_users_gates.check_specs:
        history = instance.event_log_storage.get_asset_check_execution_history(spec.key, limit=9)
        found = [record.evaluation for record in history]
        shown |= {
            (spec.name, one.partition, one.passed, one.description)
            for one in found
            if isinstance(one, dg.AssetCheckEvaluation)
        }
    names = [spec.name for spec in raw_users_gates.check_specs]
    failed = {(name, OLDER, False, message_of(refused)) for name in names}
    assert {one for one in shown if not one[2]} == failed
    assert {one[:2] for one in shown - failed} == {(name, PAST) for name in names}
