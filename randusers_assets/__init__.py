"""A daily snapshot of a paginated REST API, published to Amazon S3 as a CSV with its proof."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from randusers_assets.definitions import defs

__all__ = ["defs", "load_users"]


def load_users(date: str | None = None) -> "pd.DataFrame":
    """The users published for a day, or the latest ones; SnapshotError if there are none."""
    from dotenv import load_dotenv

    load_dotenv(".env")  # before the definitions, which read the settings; what is set wins

    from randusers_assets.contract import CONTRACT
    from randusers_assets.definitions import snapshot_store
    from randusers_assets.pipeline.publish.objects import load_csv
    from randusers_assets.pipeline.storage.paths import require_day

    date = date and require_day(date)
    return load_csv(snapshot_store.store, CONTRACT, date)


def __getattr__(name: str) -> object:
    """Import `defs` when it is asked for: workers and the sandbox start without Dagster."""
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from randusers_assets.definitions import defs

    return defs
