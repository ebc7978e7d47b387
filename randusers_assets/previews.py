"""The two parts of Dagster 1.13 that it calls preview or beta, used all the same; silenced here."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg


@contextmanager
def accepted() -> Iterator[None]:
    """Let Dagster's preview and beta warnings pass in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def with_code_references(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, each with the file and line that the UI links to; beta."""
    with accepted():
        return [
            asset
            for asset in dg.with_source_code_references(assets)
            if isinstance(asset, dg.AssetsDefinition)
        ]


def daily_check_spec(
    name: str, asset: str, description: str, daily: dg.PartitionsDefinition[str], *, blocking: bool
) -> dg.AssetCheckSpec:
    """A check of one day of an asset; preview, and without it a check loads every day."""
    with accepted():
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=blocking, partitions_def=daily
        )
