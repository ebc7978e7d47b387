"""For notebooks and scripts: the published users as a DataFrame."""

from typing import TYPE_CHECKING

import dagster as dg

from randusers_assets.definitions import snapshot_store
from randusers_assets.io_managers import load_csv
from randusers_assets.pipeline.publish.receipt import (
    LATEST_PATH,
    csv_path,
    read_latest,
    read_receipt,
    receipt_path,
)

if TYPE_CHECKING:
    import pandas as pd


def load_users(date: str | None = None) -> "pd.DataFrame":
    """The users published for a day, or the latest ones, typed by the contract.

    Raises:
        dagster.Failure: nothing is published, or the object is not the one of its receipt.
    """
    if date is None:
        latest = read_latest(snapshot_store)
        if latest is None:
            raise dg.Failure(
                f"{snapshot_store.uri(LATEST_PATH)} does not exist: publish a day first."
            )
        date = latest[0].date
    proved = read_receipt(snapshot_store, date)
    if proved is None:
        raise dg.Failure(
            f"{snapshot_store.uri(receipt_path(date))} does not exist: {date} is not published;"
            " materialize users_csv for it first."
        )
    stored = snapshot_store.head(csv_path(date))
    if stored is None or stored.sha256 != proved[0].csv.sha256:
        raise dg.Failure(
            f"{snapshot_store.uri(csv_path(date))} is not the object of its receipt: materialize"
            " users_csv for it again."
        )
    users: pd.DataFrame = load_csv(snapshot_store, date)
    return users
