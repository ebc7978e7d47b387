"""Our code without Dagster: past days, each stage alone, and pages that make it wait."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import requests

from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import random_users_api, snapshot_store
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.fetch.pages import decode_listing, read_page
from randusers_assets.pipeline.fetch.snapshot import fetch_snapshot
from randusers_assets.pipeline.flatten.arrow import flatten_rows
from randusers_assets.pipeline.flatten.decode import row_type
from randusers_assets.pipeline.flatten.frames import BATCH_ROWS
from randusers_assets.pipeline.steps import run_snapshot

PASSES = 5
PAGE_SIZE = 500


def publish(days: int) -> list[str]:
    """Publish so many days before today; Dagster's assets refuse to fetch them."""
    today = datetime.now(UTC).date()
    dates = [(today - timedelta(days=ago)).isoformat() for ago in range(days, 0, -1)]
    for date in dates:
        run_snapshot(random_users_api.api, snapshot_store.store, CONTRACT, date)
    return dates


def latency(latency_ms: int) -> dict[str, float]:
    """Our client on pages that each wait so long, and the ideal for as many at once."""
    api = random_users_api.api
    start = time.perf_counter()
    raw, _ = fetch_snapshot(api, CONTRACT)
    seconds = time.perf_counter() - start
    facts = {"pages": raw.facts.pages, "latency_ms": latency_ms, "concurrency": api.concurrency}
    ideal = -(-raw.facts.pages // api.concurrency) * latency_ms / 1000
    return {**facts, "seconds": seconds, "ideal": ideal}


def floors(users: int) -> dict[str, float]:
    """CPU seconds of each stage on the same pages."""
    url, row = random_users_api.api.url, row_type(CONTRACT, forbid_unknown=True, secrets=True)
    asked = [{"page": n + 1, "limit": PAGE_SIZE} for n in range(-(-users // PAGE_SIZE))]
    with requests.Session() as api:
        pages = [api.get(url, params=page, timeout=60).content for page in asked]

    def decode(body: bytes) -> pa.RecordBatch:
        return flatten_rows(decode_listing(body, CONTRACT.paging, row).rows, CONTRACT)

    def decode_and_compress(body: bytes) -> pa.RecordBatch:
        return read_page(body, CONTRACT).lines.rows

    return {
        "users": users,
        "msgspec": fastest(lambda: map(msgspec.json.decode, pages)),
        "transform": fastest(lambda: transform(pages, decode)),
        "transform_raw": fastest(lambda: transform(pages, decode_and_compress)),
    }


def fastest(work: Callable[[], Iterable[object]]) -> float:
    """The fastest of a few passes; each result is dropped at once, so that none costs memory."""
    seconds = []
    for _ in range(PASSES):
        start = time.process_time()
        deque(work(), maxlen=0)
        seconds.append(time.process_time() - start)
    return min(seconds)


def transform(pages: Sequence[bytes], flat: Callable[[bytes], pa.RecordBatch]) -> Iterator[bytes]:
    """Page bytes to CSV bytes, the contract and the row rules enforced; all in this thread."""
    audit, step = Audit(CONTRACT), BATCH_ROWS // PAGE_SIZE
    for first in range(0, len(pages), step):
        held = pa.Table.from_batches([flat(body) for body in pages[first : first + step]])
        batch = held.combine_chunks().to_batches()[0]
        yield csv_format.encode_csv(audit.add(batch).good(batch))
