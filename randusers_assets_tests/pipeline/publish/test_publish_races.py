"""Whatever is killed or races on the way, the bucket holds one whole day."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from randusers_assets.pipeline.audit.encode import AuditedCsv
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.publish.publish import Publication
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import bytes_of, csv_of, user, users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.publish.bucket import CSV, DAY, LENIENT, RECEIPT, REJECTS


class DyingStore(Store):
    """A store whose process is killed right after one of its writes."""

    dies_at: str

    def put(self, path: str, body: TempFile | bytes, **options: Any) -> Stored:  # noqa: ANN401  # the store's own
        """Write, and be killed after the one write."""
        stored = super().put(path, body, **options)
        if path == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return stored


# What is published first, and what replaces it: other good rows, and other rejects.
OLD = users(10, email=bucket.BAD_EMAIL)
NEW = [*users(10), user(11, email=bucket.BAD_EMAIL)]


def publish_and_die(endpoint_url: str, name: str, dies_at: str) -> None:
    """The body of the process that is killed."""
    store = DyingStore(lambda: boto3.client("s3", endpoint_url=endpoint_url), name)
    store.dies_at = dies_at
    bucket.publish_csv(store, DAY, csv_of(NEW), LENIENT)


def publish_killed(store: Store, dies_at: str) -> None:
    """Publish the new snapshot in a process of its own, which SIGKILL ends after that write."""
    # The fork server imports once for all these processes, also what is imported late; it runs
    # no thread when it forks.
    context = multiprocessing.get_context("forkserver")
    late = ["botocore.client", "email_validator", "pyarrow.compute", "pyarrow.csv"]
    context.set_forkserver_preload([__name__, *late])
    arguments = (store.client.meta.endpoint_url, store.bucket, dies_at)
    process = context.Process(target=publish_and_die, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


@contextmanager
def reading(store: Store) -> Iterator[set[bytes | None]]:
    """Read the CSV over and over meanwhile; every body that was seen, None for a missing one."""
    seen: set[bytes | None] = set()
    first, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.wait(0.005):
            found = store.read(CSV)
            seen.add(found[0] if found else None)
            first.set()

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            assert first.wait(30)
            yield seen
        finally:
            done.set()
        reader.result()


# Between two writes there are only reads: after the one is before the next. A republication does
# not write the pointer, which names the day already.
KILLS = [(path, before) for path in (CSV, REJECTS, RECEIPT) for before in (False, True)]


@pytest.mark.parametrize(("dies_at", "published_before"), [*KILLS, (bucket.LATEST, False)])
def test_publication_killed_at_any_write_is_completed_by_the_next_run(
    store: Store, dies_at: str, *, published_before: bool
) -> None:
    """After SIGKILL a rerun ends where an undisturbed run ends; readers see whole objects."""
    old, new = csv_of(OLD), csv_of(NEW)
    earlier = [old] if published_before else []
    for csv in (*earlier, new):
        bucket.publish_csv(store, DAY, csv, LENIENT)
    undisturbed = bucket.state_of(store)
    bucket.delete(store, *undisturbed)
    for csv in earlier:
        bucket.publish_csv(store, DAY, csv, LENIENT)
    with reading(store) as seen:
        publish_killed(store, dies_at)
        assert bucket.state_of(store).keys() <= undisturbed.keys()
        bucket.publish_csv(store, DAY, new, LENIENT)
    assert bucket.state_of(store) == undisturbed
    bucket.assert_consistent(store)
    assert seen <= {bytes_of(old.file) if published_before else None, bytes_of(new.file)}


@pytest.mark.parametrize("dies_at", [CSV, REJECTS])
def test_republication_killed_half_way_can_be_taken_back(store: Store, dies_at: str) -> None:
    """Publishing the old bytes again restores the old day, rejects included."""
    old = csv_of(OLD)
    bucket.publish_csv(store, DAY, old, LENIENT)
    before = bucket.state_of(store)
    publish_killed(store, dies_at)
    assert bucket.state_of(store) != before
    assert bucket.publish_csv(store, DAY, old, LENIENT).outcome == "unchanged"
    assert bucket.state_of(store) == before
    bucket.assert_consistent(store)


RACERS = 16


def race(store: Store, csvs: list[AuditedCsv]) -> list[Publication | SnapshotError]:
    """Publish them all at once; what each came to."""
    barrier = threading.Barrier(len(csvs))

    def run(number: int, csv: AuditedCsv) -> Publication | SnapshotError:
        barrier.wait(30)
        try:
            return bucket.publish_csv(store, DAY, csv, LENIENT, f"run-{number}")
        except SnapshotError as error:
            return error

    with ThreadPoolExecutor(len(csvs)) as pool:
        return list(pool.map(run, range(len(csvs)), csvs))


def test_race_with_the_same_bytes_publishes_once(store: Store) -> None:
    """Of 16 runs one publishes; the others find their bytes published by it."""
    ends = race(store, [csv_of(NEW)] * RACERS)
    publications = [end for end in ends if isinstance(end, Publication)]
    assert sorted(end.outcome for end in publications) == ["published"] + ["unchanged"] * 15
    receipt = bucket.assert_consistent(store)
    assert {end.receipt.run_id for end in publications} == {receipt.run_id}


@pytest.mark.parametrize("published_before", [False, True])
def test_race_with_different_bytes_leaves_one_whole_day(
    store: Store, *, published_before: bool
) -> None:
    """Each of 16 runs publishes or reports that another did; the day is one run's, whole."""
    if published_before:
        bucket.publish_csv(store, DAY, csv_of(OLD), LENIENT)
    csvs = [
        csv_of([*users(10, name_first=f"Ada {number}"), user(11, email=f"{number}@x")])
        for number in range(RACERS)
    ]
    ends = race(store, csvs)
    conflict = (
        f"s3://{store.bucket}/users_csv/dt={DAY}/users.csv: another run published {DAY} with other"
        " bytes at the same time, and that publication stays. Run again to replace it with this"
        " data."
    )
    published = {
        f"run-{number}"
        for number, end in enumerate(ends)
        if isinstance(end, Publication) and end.outcome == "published"
    }
    conflicts = [(str(end), end.retryable) for end in ends if isinstance(end, SnapshotError)]
    assert conflicts == [(conflict, False)] * (RACERS - len(published))
    receipt = bucket.assert_consistent(store)
    assert receipt.run_id in published
    assert receipt.csv.sha256 == csvs[int(receipt.run_id.removeprefix("run-"))].file.sha256
