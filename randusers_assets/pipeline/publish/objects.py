"""Saving and loading a day's raw snapshot, flat rows and CSV."""

from typing import TYPE_CHECKING

import msgspec

from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.flatten.arrow import arrow_schema
from randusers_assets.pipeline.flatten.frames import (
    PARQUET_TYPE,
    FetchFacts,
    RawUsers,
    UserFrames,
    to_frame,
)
from randusers_assets.pipeline.publish.receipt import latest_day, parse, require_receipt
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.s3_errors import Missing
from randusers_assets.pipeline.storage.tempfiles import TempFile

if TYPE_CHECKING:
    import pandas as pd


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """The pointer to a day's current raw snapshot or flat rows."""

    uri: str
    sha256: str
    fetch: FetchFacts


def save(store: Store, date: str, snapshot: RawUsers | UserFrames) -> tuple[str, Stored]:
    """Store a raw snapshot or flat rows, then make them the day's current ones.

    Returns the path of the object, and what S3 says of it.
    """
    path, stored = keep(store, date, snapshot)
    if isinstance(snapshot, RawUsers):
        facts, at = snapshot.facts, paths.raw_pointer_path(snapshot.contract, date)
    else:
        facts, at = snapshot.facts.fetch, paths.frames_pointer_path(snapshot.contract, date)
    pointer = Current(uri=store.uri(path), sha256=snapshot.file.sha256, fetch=facts)
    body = msgspec.json.format(msgspec.json.encode(pointer), indent=2)
    store.put(at, body, content_type="application/json")
    return path, stored


def keep(store: Store, date: str, snapshot: RawUsers | UserFrames) -> tuple[str, Stored]:
    """Store a raw snapshot or flat rows under the key that names their content."""
    store.check_access()
    path_of, content_type = paths.frames_path, PARQUET_TYPE
    if isinstance(snapshot, RawUsers):
        path_of, content_type = paths.raw_path, "application/zstd"
    path = path_of(snapshot.contract, date, snapshot.file.sha256)
    return path, store.keep(path, snapshot.file, content_type=content_type)


def load_raw(store: Store, contract: Contract, date: str, advice: str = "") -> RawUsers:
    """A day's current raw snapshot; `advice` ends the message if it cannot be loaded."""
    at, old = paths.raw_pointer_path(contract, date), paths.version_1_paths(contract, date).raw
    again = f"materialize raw_{contract.name} for {date}"
    advice = advice or f"{again}, or restore its raw snapshot if that day is past"
    if current := _read_current(store, at, old, advice):
        path = paths.raw_path(contract, date, current.sha256)
        return RawUsers(_download(store, path, current, advice), current.fetch, contract)
    file, stored = store.download(old, advice)
    facts = parse(store, old, stored.metadata.get("fetch", "").encode(), FetchFacts, advice)
    raw = RawUsers(file, facts, contract)
    save(store, date, raw)  # under its digest, by which a receipt names it
    return raw


def load_frames(store: Store, contract: Contract, date: str) -> UserFrames:
    """A day's current flat rows, in batches."""
    at = paths.frames_pointer_path(contract, date)
    old = paths.version_1_paths(contract, date).frames
    advice = f"materialize {contract.name}_df for {date}"
    if current := _read_current(store, at, old, advice):
        path = paths.frames_path(contract, date, current.sha256)
        return UserFrames(_download(store, path, current, advice), contract)
    return UserFrames(store.download(old, advice)[0], contract)


def _read_current(store: Store, path: str, version_1: str, advice: str) -> Current | None:
    """A day's pointer; None if only release 0.1.0 stored the day, Missing if nothing did."""
    if found := store.read(path, advice):
        return parse(store, path, found[0], Current, advice)
    if store.head(version_1) is None:
        raise Missing(f"{store.uri(path)} does not exist: {advice}.")
    return None


def _download(store: Store, path: str, current: Current, advice: str) -> TempFile:
    file, _ = store.download(path, advice)
    if file.sha256 != current.sha256:
        raise store.altered(path, advice)
    return file


def load_csv(store: Store, contract: Contract, date: str | None = None) -> "pd.DataFrame":
    """The CSV published for a day, or the last one, as one DataFrame typed by the contract."""
    date = date or latest_day(store, contract)
    advice = f"materialize {contract.name}_csv for {date}"
    file, _ = store.download(paths.csv_path(contract, date), advice)
    require_receipt(store, contract, date, file.sha256)
    schema = arrow_schema(contract)
    with file.reader() as reader:
        reader.seek(len(csv_format.encode_header(schema)))
        return to_frame(csv_format.parse_csv(reader.read(), schema), contract)
