"""Where each object is, below the prefix."""

from randusers_assets.pipeline.contract import Contract


def raw_path(contract: Contract, date: str) -> str:
    """A day's raw snapshot: zstd JSON lines."""
    return f"raw_{contract.name}/dt={date}/{contract.name}.jsonl.zst"


def frames_path(contract: Contract, date: str) -> str:
    """A day's flat rows: Parquet."""
    return f"{contract.name}_df/dt={date}/{contract.name}.parquet"


def csv_path(contract: Contract, date: str) -> str:
    """A day's published CSV."""
    return f"{contract.name}_csv/dt={date}/{contract.name}.csv"


def rejects_path(contract: Contract, date: str) -> str:
    """The rows that a day set aside: CSV."""
    return f"_rejects/{contract.name}_csv/dt={date}.csv"


def receipt_path(contract: Contract, date: str) -> str:
    """A day's receipt: JSON."""
    return f"_receipts/{contract.name}_csv/dt={date}.json"


def latest_path(contract: Contract) -> str:
    """The pointer to the last published day: JSON."""
    return f"_receipts/{contract.name}_csv/latest.json"
