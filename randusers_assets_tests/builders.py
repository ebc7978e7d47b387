"""Small builders of snapshots, at each stage from the API's JSON to the audited CSV."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from randusers_assets.contract import BY_NAME, CREDENTIALS
from randusers_assets.pipeline.audit.encode import AuditedCsv, SnapshotGate, audited
from randusers_assets.pipeline.flatten.frames import (
    FetchFacts,
    FrameFacts,
    RawUsers,
    UserFrames,
    lay_flat,
)
from randusers_assets.pipeline.storage.tempfiles import Spool
from randusers_sandbox import users as simulated

User = dict[str, Any]


def user(number: int, **changes: object) -> User:
    """A valid user in the API's shape, less credentials; `changes` go by the flat column names."""
    made: User = json.loads(simulated.user(number))
    for name in CREDENTIALS:
        del made["login"][name]
    for column, value in changes.items():
        *parents, leaf = BY_NAME[column].path.split(".")
        node = made
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return made


def users(count: int, **changes: object) -> list[User]:
    """Valid users 1 to `count`, the first of them with `changes`."""
    return [user(number, **(changes if number == 1 else {})) for number in range(1, count + 1)]


def facts_of(declared: int) -> FetchFacts:
    """The facts of a fetch of so many users."""
    return FetchFacts(
        url="http://127.0.0.1:9/users",
        declared=declared,
        pages=1,
        page_size=500,
        tries=1,
        retries=0,
        waited_seconds=0.0,
        bytes=10_000,
        fetched_at="2026-11-23T06:00:00+00:00",
    )


def raw_users_of(snapshot: Sequence[User], declared: int | None = None) -> RawUsers:
    """The raw snapshot of these users, whether the contract lets them through or not."""
    spool = Spool()
    with spool.writer() as file, pa.CompressedOutputStream(file, "zstd") as stream:
        for one in snapshot:
            stream.write(msgspec.json.encode(one) + b"\n")
    return RawUsers(spool, facts_of(len(snapshot) if declared is None else declared))


def frames_of(snapshot: Sequence[User], declared: int | None = None) -> UserFrames:
    """These users laid flat."""
    return lay_flat(raw_users_of(snapshot, declared))


def frames_with(frames: UserFrames, **changes: object) -> UserFrames:
    """The same rows under other facts of where they come from (`FrameFacts`)."""
    facts: FrameFacts = msgspec.structs.replace(frames.facts, **changes)
    spool = Spool()
    with (
        spool.writer() as file,
        pq.ParquetWriter(file, next(frames.batches()).schema) as parquet,
    ):
        for batch in frames.batches():
            parquet.write_batch(batch)
        parquet.add_key_value_metadata({"randusers": msgspec.json.encode(facts).decode()})
    return UserFrames(spool)


def csv_of(snapshot: Sequence[User], gate: SnapshotGate | None = None) -> AuditedCsv:
    """The audited CSV of these users, under a gate that lets no bad row pass unless given."""
    return audited(frames_of(snapshot), gate or SnapshotGate())
