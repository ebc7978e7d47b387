"""Publish the day before today, for a run of today to compare with; prints the day as JSON."""

import json
from datetime import UTC, datetime, timedelta

from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import random_users_api, snapshot_store
from randusers_assets.pipeline.steps import run_snapshot


def main() -> None:
    """Run the pipeline without Dagster, whose assets refuse to fetch a past day."""
    date = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    run_snapshot(random_users_api.api, snapshot_store.store, CONTRACT, date)
    print(json.dumps({"date": date}))


if __name__ == "__main__":
    main()
