"""A daily snapshot of a paginated REST API, published to Amazon S3 as a proved CSV."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from randusers_assets.definitions import defs
    from randusers_assets.pipeline.publish.load import load_users

__all__ = ["defs", "load_users"]

_HOMES = {
    "defs": "randusers_assets.definitions",
    "load_users": "randusers_assets.pipeline.publish.load",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the sandbox starts without Dagster."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
