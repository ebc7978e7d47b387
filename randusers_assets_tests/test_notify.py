"""The heartbeat reaches a real receiver after each publication, and harms none."""

import logging
from collections.abc import Iterator

import dagster as dg
import pytest
import tenacity

from randusers_assets import notify
from randusers_assets.contract import CONTRACT
from randusers_assets.io_managers import UsersIOManager
from randusers_assets.notify import HEARTBEAT, TRIES
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests import builders
from randusers_assets_tests.alerting import DAY, PATH, Receiver, receiving
from randusers_assets_tests.builders import User, csv_of, frames_of, raw_users_of, users


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr(notify, "WAIT", tenacity.wait_none())


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver of the heartbeat."""
    with receiving(monkeypatch, HEARTBEAT) as receiver:
        yield receiver


@pytest.fixture
def manager(store: Store) -> UsersIOManager:
    """The IO manager of one run."""
    return UsersIOManager(SnapshotRun(store, CONTRACT))


def publish(manager: UsersIOManager, snapshot: list[User]) -> None:
    """Publish these users as the step of users_csv does."""
    context = dg.build_output_context(asset_key="users_csv", partition_key=DAY, run_id="run-1")
    manager.handle_output(context, builders.passed(csv_of(snapshot)))


def is_published(store: Store) -> bool:
    """Whether the pointer, the last write of a publication, is there."""
    return store.head(paths.latest_path(CONTRACT)) is not None


def test_heartbeat_follows_each_publication(
    manager: UsersIOManager, store: Store, receiver: Receiver
) -> None:
    """One GET after latest.json is written, and one more for the same bytes again."""
    before_it: list[bool] = []
    receiver.on_request = lambda: before_it.append(is_published(store))
    publish(manager, users(3))
    assert (receiver.pings, before_it) == ([PATH], [True])
    publish(manager, users(3))
    assert receiver.pings == [PATH] * 2


def test_heartbeat_follows_nothing_else(
    manager: UsersIOManager, store: Store, receiver: Receiver
) -> None:
    """Neither raw_users nor users_df is a publication, nor is a CSV whose gate is closed."""
    for asset, value in (("raw_users", raw_users_of(users(3))), ("users_df", frames_of(users(3)))):
        context = dg.build_output_context(asset_key=asset, partition_key=DAY, run_id="run-1")
        manager.handle_output(context, value)
    with pytest.raises(dg.Failure):
        publish(manager, users(3, email="nobody@@example.com"))
    assert receiver.pings == []
    assert not is_published(store)


def test_heartbeat_is_optional(
    manager: UsersIOManager,
    store: Store,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the variable nothing is requested."""
    monkeypatch.delenv(HEARTBEAT)
    publish(manager, users(3))
    assert receiver.pings == []
    assert is_published(store)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("404", f"the receiver answered HTTP 404. Check {HEARTBEAT}."),
        ("500", f"the receiver answered HTTP 500, {TRIES} times. Check {HEARTBEAT}."),
        ("dead", f"no answer (ConnectionError), {TRIES} times. Check {HEARTBEAT}."),
        ("drips", f"no complete answer within 0.3 s, {TRIES} times. Check {HEARTBEAT}."),
        (
            "form",
            f"{HEARTBEAT} is not an http(s) URL: correct it in the environment or in .env.",
        ),
    ],
)
def test_heartbeat_that_is_not_delivered_only_warns(
    manager: UsersIOManager,
    store: Store,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    fault: str,
    why: str,
) -> None:
    """The publication stands; one warning says why, and no log line has the URL."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(notify, "REQUEST_SECONDS", 0.3 if fault == "drips" else 10.0)
    if fault == "dead":
        receiver.shutdown()
        receiver.server_close()
    elif fault == "form":
        monkeypatch.setenv(HEARTBEAT, PATH)
    elif fault == "drips":
        receiver.drips = True
    else:
        receiver.statuses = [int(fault)]
    publish(manager, users(3))
    assert is_published(store)
    lines = [*caplog.messages, *capfd.readouterr().err.splitlines()]
    warning = f"The heartbeat was not delivered: {why}"
    assert [line for line in lines if warning in line and "WARNING" in line] == lines[-1:]
    assert not [line for line in lines if PATH in line or f":{receiver.server_port}" in line]
