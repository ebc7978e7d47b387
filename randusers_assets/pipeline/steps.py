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
from randusers_assets.pipeline.storage.paths import frames_path, raw_path
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
    of the same process; a step that finds nothing computes them from what S3 holds.
    """

    def __init__(self, store: Store, contract: Contract) -> None:
        self.store, self.contract = store, contract
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
        return self._once("audited", frames.file.sha256, lambda: audit_csv(frames))

    def judge(self, date: str, frames: UserFrames, policy: Policy) -> Judgement:
        """The one judgement that the checks show and that publishing obeys."""
        csv = self.audit(frames)

        def compute() -> Judgement:
            history = find_history(self.store, self.contract, date, csv.file.sha256)
            return judge(csv, policy, history)

        return self._once("judged", (date, frames.file.sha256, policy), compute)

    def pass_gates(self, date: str, frames: UserFrames, policy: Policy) -> PassedCsv:
        """The CSV, if every gate is open; else the sentence of the closed ones."""
        passed = PassedCsv(self.audit(frames), self.judge(date, frames, policy))
        passed.judgement.enforce()
        return passed

    def save(self, date: str, snapshot: RawUsers | UserFrames) -> tuple[str, Stored]:
        """Store a raw snapshot or flat rows, and keep them for the next step."""
        path, stored = objects.save(self.store, date, snapshot)
        self._kept[path] = (stored.etag, snapshot)
        return path, stored

    def load_raw(self, date: str) -> RawUsers:
        """A day's raw snapshot: the kept one if S3 still holds that very object."""
        return self._load(date, raw_path(self.contract, date), objects.load_raw)

    def load_frames(self, date: str) -> UserFrames:
        """A day's flat rows: the kept ones if S3 still holds that very object."""
        return self._load(date, frames_path(self.contract, date), objects.load_frames)

    def release(self) -> None:
        """Drop what was computed, and with it the temp files."""
        self._kept.clear()

    def _once(self, what: str, key: object, compute: Callable[[], T]) -> T:
        if what not in self._kept or self._kept[what][0] != key:
            self._kept[what] = (key, compute())
        value: T = self._kept[what][1]
        return value

    def _load(self, date: str, path: str, load: Callable[[Store, Contract, str], T]) -> T:
        etag, value = self._kept.get(path, ("", None))
        now = self.store.head(path) if etag else None
        kept: T | None = value if now and now.etag == etag else None
        return kept or load(self.store, self.contract, date)
