"""Small builders of snapshots, at each stage from the API's JSON to the audited CSV."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.encode import AuditedCsv, audit_csv
from randusers_assets.pipeline.audit.gates import History, Judgement, Policy, judge
from randusers_assets.pipeline.flatten.frames import (
    FetchFacts,
    FrameFacts,
    RawUsers,
    UserFrames,
    decode_raw,
    flatten,
)
from randusers_assets.pipeline.publish.publish import PassedCsv
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_sandbox import users as simulated

User = dict[str, Any]


def user(number: int, **changes: object) -> User:
    """A valid user in the API's shape, less credentials; `changes` go by the flat column names."""
    made: User = json.loads(simulated.user(number))
    for path in CONTRACT.secrets:
        del made["login"][path.removeprefix("login.")]
    for column, value in changes.items():
        *parents, leaf = CONTRACT.by_name[column].path.split(".")
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
    """The raw snapshot of these users, whether they fit the contract or not."""
    file = TempFile()
    with file.writer() as writer, pa.CompressedOutputStream(writer, "zstd") as stream:
        for one in snapshot:
            stream.write(msgspec.json.encode(one) + b"\n")
    facts = facts_of(len(snapshot) if declared is None else declared)
    return RawUsers(file, facts, CONTRACT)


def frames_of(snapshot: Sequence[User], declared: int | None = None) -> UserFrames:
    """The flat rows of these users."""
    return flatten(decode_raw(raw_users_of(snapshot, declared)))


def frames_with(frames: UserFrames, **changes: object) -> UserFrames:
    """The same rows under other facts of where they come from (`FrameFacts`)."""
    facts: FrameFacts = msgspec.structs.replace(frames.facts, **changes)
    file = TempFile()
    schema = next(frames.batches()).schema
    with file.writer() as writer, pq.ParquetWriter(writer, schema) as parquet:
        for batch in frames.batches():
            parquet.write_batch(batch)
        parquet.add_key_value_metadata({"randusers": msgspec.json.encode(facts).decode()})
    return UserFrames(file, CONTRACT)


def csv_of(snapshot: Sequence[User]) -> AuditedCsv:
    """The CSV of these users, not judged."""
    return audit_csv(frames_of(snapshot))


def judgement_of(
    snapshot: Sequence[User], policy: Policy | None = None, history: History | None = None
) -> Judgement:
    """These users judged, by default with no bad row allowed and no history."""
    return judge(csv_of(snapshot), policy or Policy(), history or History())


def passed(
    csv: AuditedCsv, policy: Policy | None = None, history: History | None = None
) -> PassedCsv:
    """A CSV with its judgement; `publish` enforces it."""
    return PassedCsv(csv, judge(csv, policy or Policy(), history or History()))


def temp_file_of(data: bytes) -> TempFile:
    """A temp file of these bytes."""
    file = TempFile()
    with file.writer() as writer:
        writer.write(data)
    return file


def bytes_of(file: TempFile) -> bytes:
    """The bytes of a temp file."""
    with file.reader() as reader:
        return reader.read()
