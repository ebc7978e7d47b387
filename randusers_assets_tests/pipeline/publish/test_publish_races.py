"""Whatever is killed or races on the way, the CSV that a reader finds has its proof."""

import hashlib
import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import boto3
import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.publish.data_package import describe_csv
from randusers_assets.pipeline.publish.publish import Publication
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import bytes_of, csv_of, user, users
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, DAY_AFTER, LENIENT
from randusers_sandbox.s3 import LocalS3

# The writes of a day, in their order; the CSV is the commit.
WRITES = (
    "_access/probe.txt",
    "raw_users/",
    "_current/raw_users/",
    "users_df/",
    "_current/users_df/",
    "_rejects/",
    "_receipts/users_csv/dt=",
    "users_csv/",
    "users_parquet/",
    "_receipts/users_csv/latest.json",
    "datapackage.json",
)


class DyingStore(Store):
    """A store whose process gets a signal right after one of its writes."""

    dies_at: str
    signal: int

    def put(self, path: str, body: TempFile | bytes, **options: Any) -> Stored:  # noqa: ANN401  # the store's own
        """Write, and be killed after the one write."""
        stored = super().put(path, body, **options)
        if path.startswith(self.dies_at):
            os.kill(os.getpid(), self.signal)
        return stored


# What is published first, and what replaces it: other good rows, and other rejects.
OLD = users(10, email=bucket.BAD_EMAIL)
NEW = [*users(10), user(11, email=bucket.BAD_EMAIL)]


def publish_and_die(endpoint_url: str, name: str, dies_at: str, by: int) -> None:
    """The body of the process that is killed."""
    store = DyingStore(lambda: boto3.client("s3", endpoint_url=endpoint_url), name)
    store.__dict__.update(dies_at=dies_at, signal=by)  # the class is frozen
    bucket.publish_users(store, DAY, NEW, LENIENT)


def publish_killed(store: Store, dies_at: str, by: int = signal.SIGKILL) -> None:
    """Publish the new snapshot in a process of its own, which a signal ends after that write."""
    # The fork server imports once for all these processes, also what is imported late; it runs
    # no thread when it forks.
    context = multiprocessing.get_context("forkserver")
    late = ["botocore.client", "email_validator", "pyarrow.compute", "pyarrow.csv"]
    context.set_forkserver_preload([__name__, *late])
    arguments = (store.client.meta.endpoint_url, store.bucket, dies_at, by)
    process = context.Process(target=publish_and_die, args=arguments)
    process.start()
    process.join(patience(60))
    assert process.exitcode == -by
    process.close()


@contextmanager
def reading(store: Store) -> Iterator[set[bytes | None]]:
    """Read the CSV over and over meanwhile; every body that was seen, None for a missing one."""
    seen: set[bytes | None] = set()
    first, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.wait(0.005):
            found = store.read(CSV, "")
            seen.add(found[0] if found else None)
            first.set()

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            assert first.wait(patience(30))
            yield seen
        finally:
            done.set()
        reader.result()


def prove_what_is_published(store: Store) -> bytes | None:
    """The day's CSV, if there is one; `verify` proves it whatever was killed before."""
    found = store.read(CSV, "")
    # What follows the CSV may be missing, and is proved after it.
    assert found is None or len(list(islice(verify(store, CONTRACT, DAY), 4))) == 4
    return found[0] if found else None


State = dict[str, tuple[str, bytes]]


def nameless(state: State, store: Store) -> State:
    """The objects as they would be in a bucket of any name."""
    name = store.bucket.encode()
    return {key: (kind, body.replace(name, b"bucket")) for key, (kind, body) in state.items()}


UNDISTURBED: dict[bool, State] = {}


@pytest.fixture
def undisturbed(s3_server: LocalS3) -> dict[bool, State]:
    """What two runs leave that nobody kills: without and with a day that was there before."""
    for published_before in (False, True) if not UNDISTURBED else ():
        name = f"undisturbed-{uuid.uuid4().hex[:12]}"
        s3_server.create_bucket(name)
        client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
        store = Store(lambda client=client: client, name)  # type: ignore[misc]
        for snapshot in [OLD, NEW] if published_before else [NEW]:
            bucket.publish_users(store, DAY, snapshot, LENIENT)
        UNDISTURBED[published_before] = nameless(bucket.state_of(store), store)
    return UNDISTURBED


# Between two writes there are only reads: after the one is before the next.
KILLS = [
    (dies_at, by, before)
    for dies_at in WRITES
    for by, before in ((signal.SIGKILL, True), (signal.SIGTERM, False))
    # Where a day was published before, the pointer names it already.
    if not (before and dies_at.endswith("latest.json"))
]


@pytest.mark.parametrize(("dies_at", "by", "published_before"), KILLS)
def test_publication_killed_at_any_write_is_proved_and_completed_by_the_next_run(
    store: Store,
    dies_at: str,
    by: int,
    undisturbed: dict[bool, State],
    *,
    published_before: bool,
) -> None:
    """What is there after the kill has its proof; a rerun ends where an undisturbed run ends."""
    if published_before:
        bucket.publish_users(store, DAY, OLD, LENIENT)
    old = bytes_of(csv_of(OLD).file) if published_before else None
    new = bytes_of(csv_of(NEW).file)
    with reading(store) as seen:
        publish_killed(store, dies_at, by)
        committed = WRITES.index(dies_at) >= WRITES.index("users_csv/")
        assert prove_what_is_published(store) == (new if committed else old)
        bucket.publish_users(store, DAY, NEW, LENIENT)
    assert nameless(bucket.state_of(store), store) == undisturbed[published_before]
    assert prove_what_is_published(store) == new
    assert len(list(verify(store, CONTRACT, DAY))) == 6
    assert seen <= {old, new}


@pytest.mark.parametrize("dies_at", ["_receipts/users_csv/dt=", "users_csv/"])
def test_republication_killed_half_way_can_be_taken_back(store: Store, dies_at: str) -> None:
    """Publishing the old rows again restores the old day; the new proof is left beside it."""
    bucket.publish_users(store, DAY, OLD, LENIENT)
    before = bucket.state_of(store)
    publish_killed(store, dies_at)
    taken_back = bucket.publish_users(store, DAY, OLD, LENIENT)
    assert taken_back.outcome == ("published" if dies_at == "users_csv/" else "unchanged")
    after = bucket.state_of(store)
    assert {key: after[key] for key in before} == before
    prove_what_is_published(store)


class OvertakenStore(Store):
    """A store whose process is slow: another run publishes right before one of its writes."""

    at: str
    other_day: str
    overtaken = False

    def put(self, path: str, body: TempFile | bytes, **options: Any) -> Stored:  # noqa: ANN401  # the store's own
        """Let the other run publish, once, and write then."""
        if path.startswith(self.at) and not self.overtaken:
            self.__dict__["overtaken"] = True  # the class is frozen
            bucket.publish_users(
                Store(lambda: self.client, self.bucket), self.other_day, OLD, LENIENT
            )
        return super().put(path, body, **options)


@pytest.mark.parametrize(
    ("at", "other_day"),
    [
        ("users_parquet/", DAY),
        ("_receipts/users_csv/latest.json", DAY),
        ("datapackage.json", DAY),
        ("datapackage.json", DAY_AFTER),
    ],
)
def test_run_that_is_overtaken_leaves_the_other_runs_objects(
    store: Store, at: str, other_day: str
) -> None:
    """What follows the CSV belongs to the CSV that is published, whoever writes last."""
    slow = OvertakenStore(lambda: store.client, store.bucket)
    slow.__dict__.update(at=at, other_day=other_day)
    assert bucket.publish_users(slow, DAY, users(10)).outcome == "published"
    for day in {DAY, other_day}:
        receipt = bucket.receipt_of(store, day)
        copy = bucket.body_of(store, paths.parquet_copy_path(CONTRACT, day))
        assert receipt.parquet_copy
        assert hashlib.sha256(copy).hexdigest() == receipt.parquet_copy.sha256
    receipt = bucket.receipt_of(store, other_day)
    assert receipt.csv.sha256 == csv_of(OLD).file.sha256
    assert bucket.body_of(store, bucket.PACKAGE) == describe_csv(CONTRACT, receipt)


RACERS = 8


def race(store: Store, snapshots: list[list[dict[str, Any]]]) -> list[Publication | SnapshotError]:
    """Publish them all at once; what each came to."""
    barrier = threading.Barrier(len(snapshots))

    def run(snapshot: list[dict[str, Any]]) -> Publication | SnapshotError:
        barrier.wait(patience(30))
        try:
            return bucket.publish_users(store, DAY, snapshot, LENIENT)
        except SnapshotError as error:
            return error

    with ThreadPoolExecutor(len(snapshots)) as pool:
        return list(pool.map(run, snapshots))


def test_race_with_the_same_bytes_publishes_once(store: Store) -> None:
    """Of 8 runs one publishes; the others find their bytes published by it."""
    ends = race(store, [NEW] * RACERS)
    publications = [end for end in ends if isinstance(end, Publication)]
    assert sorted(end.outcome for end in publications) == ["published"] + ["unchanged"] * 7
    receipt = bucket.assert_consistent(store)
    assert all(end.receipt == receipt for end in publications)
    prove_what_is_published(store)


@pytest.mark.parametrize("published_before", [False, True])
def test_race_with_different_bytes_leaves_one_whole_day(
    store: Store, *, published_before: bool
) -> None:
    """Each of 8 runs publishes or reports that another did; the day is one run's, whole."""
    if published_before:
        bucket.publish_users(store, DAY, OLD, LENIENT)
    snapshots = [
        [*users(10, name_first=f"Ada {number}"), user(11, email=f"{number}@x")]
        for number in range(RACERS)
    ]
    with reading(store) as seen:
        ends = race(store, snapshots)
    conflict = (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv: another run published {DAY} with other"
        " bytes at the same time, and that publication stays. Run again to replace it with this"
        " data."
    )
    published = [end for end in ends if isinstance(end, Publication)]
    assert {end.outcome for end in published} == {"published"}
    conflicts = [(str(end), end.retryable) for end in ends if isinstance(end, SnapshotError)]
    assert conflicts == [(conflict, False)] * (RACERS - len(published))
    receipt = bucket.assert_consistent(store)
    assert receipt in [end.receipt for end in published]
    prove_what_is_published(store)
    old = bytes_of(csv_of(OLD).file) if published_before else None
    assert seen <= {old, *(bytes_of(csv_of(snapshot).file) for snapshot in snapshots)}
