"""The difference to the day before."""

import msgspec

from randusers_assets.io_managers import save_frames
from randusers_assets.pipeline.publish.diff import changes
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_assets_tests.builders import frames_of, user

BEFORE, DAY = "2026-11-22", "2026-11-23"


def test_changes_name_the_new_the_gone_and_the_changed(store: SnapshotStore) -> None:
    """One user came, one went, one moved: counts to plot, and their ids."""
    save_frames(store, BEFORE, frames_of([user(1), user(2), user(3)]))
    today = frames_of([user(4), user(3, location_city="Elsewhere"), user(1)])
    found = changes(store, DAY, today)
    assert found.pop("first_ids").data == {"new": [4], "gone": [2], "changed": [3]}
    assert found == {
        "compared_with": BEFORE,
        "new_users": 1,
        "gone_users": 1,
        "changed_users": 1,
    }


def test_changes_of_the_same_users_are_none(store: SnapshotStore) -> None:
    """The same users in another order, one with a line end in a cell, have not changed."""
    same = [user(1), user(2, location_street_name="A\nB"), user(3)]
    save_frames(store, BEFORE, frames_of(same))
    found = changes(store, DAY, frames_of(same[::-1]))
    assert found.pop("first_ids").data == {"new": [], "gone": [], "changed": []}
    assert found == {
        "compared_with": BEFORE,
        "new_users": 0,
        "gone_users": 0,
        "changed_users": 0,
    }


def test_changes_without_a_day_before_are_not_told(store: SnapshotStore) -> None:
    """The first day has nothing to be compared with."""
    assert changes(store, DAY, frames_of([user(1)])) == {}


def test_changes_against_another_contract_are_said_to_be_unknown(store: SnapshotStore) -> None:
    """A day stored under another contract does not fail the day after it."""
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    path = f"users_df/dt={BEFORE}/users.parquet"
    store.put(path, b"test", digest, content_type="application/vnd.apache.parquet")
    assert msgspec.json.encode(changes(store, DAY, frames_of([user(1)]))).decode() == (
        f'{{"not_compared":"{store.uri(path)}: users.parquet was not written under this contract:'
        ' rebuild users_df."}'
    )
