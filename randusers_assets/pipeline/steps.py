"""The whole pipeline on one screen: fetch -> flatten -> audit -> judge -> publish."""

from collections.abc import Callable
from typing import Any, TypeVar

from randusers_assets.pipeline.audit.encode import AuditedCsv, audit_csv
from randusers_assets.pipeline.audit.gates import Judgement, Policy, judge
from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.fetch.snapshot import Progress, fetch_snapshot
from randusers_assets.pipeline.flatten.frames import (
    DecodedRaw,
    RawUsers,
    UserFrames,
    decode_raw,
    flatten,
)
from randusers_assets.pipeline.publish import objects
from randusers_assets.pipeline.publish.publish import PassedCsv, Publication, publish
from randusers_assets.pipeline.publish.receipt import find_history
from randusers_assets.pipeline.storage.s3 import Store, Stored

T = TypeVar("T")


def run_snapshot(api: Api, store: Store, contract: Contract, date: str) -> Publication:
    """Publish one day: what the three assets do, without Dagster."""
    run = SnapshotRun(store, contract)
    raw = run.fetch(api)
    run.save(date, raw)
    frames = run.flatten(raw)
    run.save(date, frames)
    return publish(store, date, run.pass_gates(date, frames, Policy()), run_id="")


class SnapshotRun:
    """The steps of one run, and what it has computed already.

    The fetch also flattens, and the audit also encodes the CSV, so one pass gives the results of
    two steps. They are kept here, by the digest of what they were computed from, for the next step
    of the same process; a step that finds nothing computes them from the stored raw snapshot.
    """

    def __init__(self, store: Store, contract: Contract, *, parquet_copy: bool = True) -> None:
        self.store, self.contract, self.parquet_copy = store, contract, parquet_copy
        self._kept: dict[str, tuple[Any, Any]] = {}

    def fetch(self, api: Api, progress: Progress = lambda _page, _pages: None) -> RawUsers:
        """Every row that the API declares."""
        raw, decoded = fetch_snapshot(api, self.contract, progress)
        self._kept["decoded"] = (raw.file.sha256, decoded)
        return raw

    def decode(self, raw: RawUsers) -> DecodedRaw:
        """The rows of a raw snapshot, and whatever does not fit the contract."""
        return self._once("decoded", raw.file.sha256, lambda: decode_raw(raw))

    def flatten(self, raw: RawUsers) -> UserFrames:
        """The flat rows of a raw snapshot."""
        return flatten(self.decode(raw))

    def audit(self, frames: UserFrames) -> AuditedCsv:
        """The rows checked, and encoded as CSV."""

        def compute() -> AuditedCsv:
            return audit_csv(frames, parquet_copy=self.parquet_copy)

        return self._once("audited", frames.file.sha256, compute)

    def judge(self, date: str, frames: UserFrames, policy: Policy) -> Judgement:
        """The one judgement that the checks show and that publishing obeys."""
        csv = self.audit(frames)

        def compute() -> Judgement:
            history = find_history(self.store, self.contract, date, csv.file.sha256)
            return judge(csv, policy, history)

        return self._once("judged", (date, frames.file.sha256, policy), compute)

    def pass_gates(self, date: str, frames: UserFrames, policy: Policy) -> PassedCsv:
        """The CSV, if every gate is open; else SnapshotError. Flat rows not stored yet are."""
        passed = PassedCsv(self.audit(frames), self.judge(date, frames, policy))
        passed.judgement.enforce()
        if self._kept.get("frames") != (date, frames):
            objects.keep(self.store, date, frames)
        return passed

    def save(self, date: str, snapshot: RawUsers | UserFrames) -> tuple[str, Stored]:
        """Store a raw snapshot or flat rows, and keep them for the next step."""
        what = "raw" if isinstance(snapshot, RawUsers) else "frames"
        if self._kept.get(what) == (date, snapshot):  # what is stored already
            return objects.keep(self.store, date, snapshot)
        saved = objects.save(self.store, date, snapshot)
        self._kept[what] = (date, snapshot)
        return saved

    def keep_raw(self, date: str) -> RawUsers:
        """The stored raw snapshot of a past day; SnapshotError if it cannot be loaded."""
        raw, name = objects.load_raw, self.contract.name
        advice = (
            f"raw_{name} of {date} cannot be fetched, because the API serves only current data;"
            f" restore its raw snapshot and run `randusers rebuild --from {date}`, or materialize"
            " today's partition"
        )
        return self._once("raw", date, lambda: raw(self.store, self.contract, date, advice))

    def load_raw(self, date: str) -> RawUsers:
        """The raw snapshot that this run stored for a day, else the day's current one."""
        return self._once("raw", date, lambda: objects.load_raw(self.store, self.contract, date))

    def load_frames(self, date: str) -> UserFrames:
        """The flat rows that this run stored for a day, else those of its raw snapshot.

        Not the stored ones: what is published is a function of the raw snapshot alone.
        """
        if self._kept.get("frames", ("", None))[0] == date:
            frames: UserFrames = self._kept["frames"][1]
            return frames
        return self.flatten(self.load_raw(date))

    def _once(self, what: str, key: object, compute: Callable[[], T]) -> T:
        if what not in self._kept or self._kept[what][0] != key:
            self._kept[what] = (key, compute())
        value: T = self._kept[what][1]
        return value
