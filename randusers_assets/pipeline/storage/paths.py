"""Where each object is, below the prefix.

Raw snapshots, flat rows, rejects and receipts are under keys that name their content, so that a
later run cannot replace what an earlier publication was made of.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError


def require_day(text: str) -> str:
    """The day as paths have it; SnapshotError if the text is none."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        raise SnapshotError(f"{text!r} is not a day such as 2026-11-23") from None


def key_of(prefix: str, path: str) -> str:
    """The object key of a path below a prefix."""
    return f"{prefix.strip('/')}/{path}".lstrip("/")


def raw_path(contract: Contract, date: str, sha256: str) -> str:
    """A raw snapshot of a day, by its own digest: zstd JSON lines."""
    return f"raw_{contract.name}/dt={date}/{sha256}.jsonl.zst"


def frames_path(contract: Contract, date: str, sha256: str) -> str:
    """Flat rows of a day, by their file's digest: Parquet."""
    return f"{contract.name}_df/dt={date}/{sha256}.parquet"


def raw_pointer_path(contract: Contract, date: str) -> str:
    """Which raw snapshot of a day is the current one: JSON."""
    return f"_current/raw_{contract.name}/dt={date}.json"


def frames_pointer_path(contract: Contract, date: str) -> str:
    """Which flat rows of a day are the current ones: JSON."""
    return f"_current/{contract.name}_df/dt={date}.json"


def csv_path(contract: Contract, date: str) -> str:
    """A day's published CSV."""
    return f"{contract.name}_csv/dt={date}/{contract.name}.csv"


def parquet_copy_path(contract: Contract, date: str) -> str:
    """A day's published rows once more, as Parquet; beside the CSV's folder, which holds CSVs."""
    return f"{contract.name}_parquet/dt={date}/{contract.name}.parquet"


def rejects_path(contract: Contract, date: str, name: str) -> str:
    """The rows set aside for a CSV, by that one's digest: CSV."""
    return f"_rejects/{contract.name}_csv/dt={date}/{name}.csv"


def receipt_path(contract: Contract, date: str, csv_sha256: str) -> str:
    """The receipt of a CSV, by that one's digest: JSON."""
    return f"{receipts_path(contract, date)}{csv_sha256}.json"


def receipts_path(contract: Contract, date: str) -> str:
    """The folder of a day's receipts, one for each CSV that was published or about to be."""
    return f"_receipts/{contract.name}_csv/dt={date}/"


def latest_path(contract: Contract) -> str:
    """The pointer to the last published day: JSON."""
    return f"_receipts/{contract.name}_csv/latest.json"


def data_package_path() -> str:
    """The description of the last published CSV for Frictionless tools: JSON, at the root.

    Below a `dt=` folder it would be read as data.
    """
    return "datapackage.json"


class Version1(NamedTuple):
    """A day's objects as release 0.1.0 wrote them: one of each, replaced by the next run."""

    raw: str
    frames: str
    rejects: str
    receipt: str


def version_1_paths(contract: Contract, date: str) -> Version1:
    """Where release 0.1.0 kept a day; its CSV and `latest.json` are where they are now."""
    name = contract.name
    return Version1(
        raw=f"raw_{name}/dt={date}/{name}.jsonl.zst",
        frames=f"{name}_df/dt={date}/{name}.parquet",
        rejects=f"_rejects/{name}_csv/dt={date}.csv",
        receipt=f"_receipts/{name}_csv/dt={date}.json",
    )
