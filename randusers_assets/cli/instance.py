"""The Dagster instance that the command line keeps its runs in."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
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
        with _configured_instance(home) as instance:
            yield instance
    except (OSError, DBAPIError) as error:
        # SQLAlchemy's own message also holds the statement and its values.
        why = error.orig if isinstance(error, DBAPIError) else error.strerror
        raise SnapshotError(
            f"DAGSTER_HOME, {home}, keeps no runs ({why}): make it and its files writable, with"
            f" {_INSTANCE_BYTES >> 20} MB free, or name another directory."
        ) from error


def _configured_instance(home: Path) -> dg.DagsterInstance:
    try:
        return dg.DagsterInstance.get()
    except (OSError, DBAPIError):
        raise
    except Exception as error:  # a storage that is not SQLite's raises classes of its own
        raise _unusable(home, error) from error


def _unusable(home: Path, error: Exception) -> SnapshotError:
    return SnapshotError(
        f"{home}/dagster.yaml cannot be used ({type(error).__name__}): `dagster instance info`"
        " shows why."
    )


def _require_writable(home: Path) -> None:
    if not (home / "dagster.yaml").is_file():
        raise SnapshotError(
            f"DAGSTER_HOME, {home}, is no directory with a dagster.yaml: mkdir -p {home} &&"
            f" cp dagster.yaml {home}"
        )
    try:
        config = yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise _unusable(home, error) from error
    if set(config.get("storage", ["sqlite"])) != {"sqlite"}:
        return  # runs are kept in another database
    with tempfile.TemporaryFile(dir=home) as file:
        file.write(bytes(_INSTANCE_BYTES))
    for database in map(home.joinpath, _DATABASES):
        if database.exists() and not os.access(database, os.W_OK):
            raise PermissionError(errno.EACCES, f"{database} is read-only")
