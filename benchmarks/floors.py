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

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit import csv_format
from randusers_assets.pipeline.audit.rules import Audit
from randusers_assets.pipeline.fetch.pages import decode_listing, read_page
from randusers_assets.pipeline.flatten.arrow import arrow_schema, flatten_rows
from randusers_assets.pipeline.flatten.decode import row_type
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


def decode(body: bytes) -> pa.RecordBatch:
    """A page's users, flattened, every path and type of the contract enforced."""
    row = row_type(CONTRACT, forbid_unknown=True, secrets=True)
    return flatten_rows(decode_listing(body, CONTRACT.paging, row).rows, CONTRACT)


def read(body: bytes) -> pa.RecordBatch:
    """The same, and the page's raw lines compressed on the way, as a snapshot is fetched."""
    return read_page(body, CONTRACT).lines.rows


def transform(
    pages: Sequence[bytes], flat: Callable[[bytes], pa.RecordBatch] = decode
) -> Iterator[bytes]:
    """Page bytes to CSV bytes, the contract and the row rules enforced; all in this thread."""
    audit = Audit(CONTRACT)
    for batch in batches(pages, flat):
        yield csv_format.encode_csv(audit.add(batch).good(batch))


def fastest(clock: Callable[[], float], work: Callable[[], object]) -> float:
    """The fastest of a few passes, in seconds."""
    seconds = []
    for _ in range(PASSES):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)


def drain(results: Iterable[object]) -> None:
    """Drop each result when the next comes, so that no floor pays for memory it does not need."""
    deque(results, maxlen=0)


def main(users: int) -> None:
    """Measure every floor; CPU seconds for what computes, wall seconds for what waits."""
    url, bucket = os.environ["RANDUSERS_API_URL"], os.environ["RANDUSERS_BUCKET"]
    pages = fetch(url, users)
    csv = csv_format.encode_header(arrow_schema(CONTRACT)) + b"".join(transform(pages))
    flat = list(batches(pages, decode))
    s3 = boto3.client("s3")
    cpu, wall = time.process_time, time.perf_counter
    floors = {
        "users": users,
        "page_bytes": sum(map(len, pages)),
        "csv_bytes": len(csv),
        "fetch": fastest(wall, lambda: fetch(url, users)),
        "json": fastest(cpu, lambda: drain(map(json.loads, pages))),
        "msgspec": fastest(cpu, lambda: drain(map(msgspec.json.decode, pages))),
        "transform": fastest(cpu, lambda: drain(transform(pages))),
        "transform_raw": fastest(cpu, lambda: drain(transform(pages, read))),
        "csv": fastest(cpu, lambda: drain(map(csv_format.encode_csv, flat))),
        "upload": fastest(wall, lambda: s3.put_object(Bucket=bucket, Key="floor.csv", Body=csv)),
    }
    print(json.dumps(floors))


if __name__ == "__main__":
    main(int(sys.argv[1]))
