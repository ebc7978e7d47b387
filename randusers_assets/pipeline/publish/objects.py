"""Saving and loading a day's raw snapshot, flat rows and CSV."""

from typing import TYPE_CHECKING

import msgspec

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets.pipeline.flatten.frames import FetchFacts, RawUsers, UserFrames, to_frame
from randusers_assets.pipeline.publish.receipt import require_receipt
from randusers_assets.pipeline.storage.paths import csv_path, frames_path, raw_path
from randusers_assets.pipeline.storage.s3 import Store, Stored

if TYPE_CHECKING:
    import pandas as pd


def save(store: Store, date: str, snapshot: RawUsers | UserFrames) -> tuple[str, Stored]:
    """Store a day's raw snapshot or flat rows; the path, and what S3 says of the object."""
    path, content_type = frames_path(snapshot.contract, date), "application/vnd.apache.parquet"
    metadata = {}
    if isinstance(snapshot, RawUsers):
        path, content_type = raw_path(snapshot.contract, date), "application/zstd"
        metadata["fetch"] = msgspec.json.encode(snapshot.facts).decode("ascii")
    stored = store.put(path, snapshot.file, content_type=content_type, metadata=metadata)
    return path, stored


def load_raw(store: Store, contract: Contract, date: str) -> RawUsers:
    """A day's raw snapshot."""
    path, advice = raw_path(contract, date), f"materialize raw_{contract.name} for {date} first"
    file, stored = store.download(path, advice)
    try:
        facts = msgspec.json.decode(stored.metadata.get("fetch", ""), type=FetchFacts)
    except msgspec.DecodeError as error:
        raise SnapshotError(
            f"{store.uri(path)} has no facts of its fetch in its metadata: {advice}."
        ) from error
    return RawUsers(file, facts, contract)


def load_frames(store: Store, contract: Contract, date: str) -> UserFrames:
    """A day's flat rows, in batches."""
    path, advice = frames_path(contract, date), f"materialize {contract.name}_df for {date} first"
    return UserFrames(store.download(path, advice)[0], contract)


def load_csv(store: Store, contract: Contract, date: str | None = None) -> "pd.DataFrame":
    """The CSV published for a day, or the last one, as one DataFrame typed by the contract."""
    receipt = require_receipt(store, contract, date)
    path = csv_path(contract, receipt.date)
    advice = f"materialize {contract.name}_csv for {receipt.date} again"
    file, stored = store.download(path, advice)
    if stored.sha256 != receipt.csv.sha256:
        raise SnapshotError(f"{store.uri(path)} is not the object of its receipt: {advice}.")
    schema = arrow_schema(contract)
    with file.reader() as reader:
        reader.seek(len(csv_format.encode_header(schema)))
        return to_frame(csv_format.parse_csv(reader.read(), schema), contract)
