"""The Dagster instance that the command line keeps its runs in."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml  # type: ignore[import-untyped]  # it ships no types
from dagster_shared.check import CheckError
from sqlalchemy.exc import DBAPIError

from randusers_assets.pipeline.errors import SnapshotError

# A run of 500 users writes about 1 MB.
_INSTANCE_BYTES = 8 << 20
_DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The instance of `DAGSTER_HOME`, else a temporary one; SnapshotError if it keeps no run."""
    given = os.environ.get("DAGSTER_HOME")
    if not given:
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
        return
    home = Path(given).expanduser()
    if not home.is_absolute():
        raise SnapshotError(f"DAGSTER_HOME, {home}, is relative: set it to {home.absolute()}.")
    try:
        _require_writable(home)
        with dg.DagsterInstance.get() as instance:
            yield instance
    except (dg.DagsterInvalidConfigError, CheckError, yaml.YAMLError) as error:
        raise SnapshotError(
            f"{home}/dagster.yaml cannot be used ({type(error).__name__}): `dagster instance info`"
            " shows why."
        ) from error
    except (OSError, DBAPIError) as error:
        # SQLAlchemy's own message also holds the statement and its values.
        why = error.orig if isinstance(error, DBAPIError) else error.strerror
        raise SnapshotError(
            f"DAGSTER_HOME, {home}, keeps no runs ({why}): make it and its files writable, with"
            f" {_INSTANCE_BYTES >> 20} MB free, or name another directory."
        ) from error


def _require_writable(home: Path) -> None:
    if not (home / "dagster.yaml").is_file():
        raise SnapshotError(
            f"DAGSTER_HOME, {home}, is no directory with a dagster.yaml: mkdir -p {home} &&"
            f" cp dagster.yaml {home}"
        )
    config = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    if set(config.get("storage", ["sqlite"])) != {"sqlite"}:
        return  # runs are kept in another database
    with tempfile.TemporaryFile(dir=home) as file:
        file.write(bytes(_INSTANCE_BYTES))
    for database in map(home.joinpath, _DATABASES):
        if database.exists() and not os.access(database, os.W_OK):
            raise PermissionError(errno.EACCES, f"{database} is read-only")
