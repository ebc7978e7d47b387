"""What each stage costs alone, on the same pages, as JSON on standard output."""

import http.client
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import urlsplit

import boto3
import msgspec
import pyarrow as pa

from randusers_assets.contract import user_type
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.fetch.pages import listing_of, read_page
from randusers_assets.pipeline.flatten.arrow import flatten
from randusers_assets.pipeline.flatten.frames import BATCH_ROWS

PASSES = 5
PAGE_SIZE = 500


def fetch(url: str, users: int) -> list[bytes]:
    """The bodies of all pages, one after the other on one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    pages = []
    for page in range(1, -(-users // PAGE_SIZE) + 1):
        connection.request("GET", f"{parts.path}?page={page}&limit={PAGE_SIZE}")
        pages.append(connection.getresponse().read())
    connection.close()
    return pages


def batches(
    pages: Sequence[bytes], flat: Callable[[bytes], pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Pages as flat batches of the pipeline's size."""
    held: list[pa.RecordBatch] = []
    for number, body in enumerate(pages, 1):
        held.append(flat(body))
        if len(held) == BATCH_ROWS // PAGE_SIZE or number == len(pages):
            yield pa.Table.from_batches(held).combine_chunks().to_batches()[0]
            held = []


def decoded(body: bytes) -> pa.RecordBatch:
    """A page's users laid flat, every path and type of the contract enforced."""
    user = user_type(forbid_unknown=True, credentials=True)
    return flatten(listing_of(body, user).data)


def read(body: bytes) -> pa.RecordBatch:
    """The same, and the page's raw lines pressed on the way, as a snapshot is fetched."""
    return read_page(body).flat.rows


def transform(
    pages: Sequence[bytes], flat: Callable[[bytes], pa.RecordBatch] = decoded
) -> Iterator[bytes]:
    """Page bytes to CSV bytes, the contract and the row rules enforced; all in this thread."""
    audit = Audit()
    for batch in batches(pages, flat):
        yield csv_format.encode(audit.add(batch).good(batch))


def least(clock: Callable[[], float], work: Callable[[], object]) -> float:
    """The least of a few passes, in seconds."""
    taken = []
    for _ in range(PASSES):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def drained(results: Iterable[object]) -> None:
    """Let each result go as the next comes, so that no floor pays for memory it need not hold."""
    deque(results, maxlen=0)


def main(users: int) -> None:
    """Measure every floor; CPU seconds for what computes, wall seconds for what waits."""
    url, bucket = os.environ["RANDUSERS_API_URL"], os.environ["RANDUSERS_BUCKET"]
    pages = fetch(url, users)
    csv = csv_format.header() + b"".join(transform(pages))
    flat = list(batches(pages, decoded))
    s3 = boto3.client("s3")
    cpu, wall = time.process_time, time.perf_counter
    floors = {
        "users": users,
        "page_bytes": sum(map(len, pages)),
        "csv_bytes": len(csv),
        "fetch": least(wall, lambda: fetch(url, users)),
        "json": least(cpu, lambda: drained(map(json.loads, pages))),
        "msgspec": least(cpu, lambda: drained(map(msgspec.json.decode, pages))),
        "transform": least(cpu, lambda: drained(transform(pages))),
        "transform_raw": least(cpu, lambda: drained(transform(pages, read))),
        "csv": least(cpu, lambda: drained(map(csv_format.encode, flat))),
        "upload": least(wall, lambda: s3.put_object(Bucket=bucket, Key="floor.csv", Body=csv)),
    }
    print(json.dumps(floors))


if __name__ == "__main__":
    main(int(sys.argv[1]))
