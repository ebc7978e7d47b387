"""A whole snapshot: every row that the API declares, each once."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count, islice

import tenacity

from randusers_assets.pipeline.contract import Contract
from randusers_assets.pipeline.errors import Drift, SnapshotError
from randusers_assets.pipeline.fetch.client import READ_SECONDS, Api, ApiClient
from randusers_assets.pipeline.fetch.pages import Page, Plan, check_page, plan_of
from randusers_assets.pipeline.fetch.workers import Workers
from randusers_assets.pipeline.flatten.arrow import FlatLines
from randusers_assets.pipeline.flatten.frames import DecodedRaw, FetchFacts, RawUsers, write_parquet
from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_host_limits

Progress = Callable[[int, int], None]  # called with each page's number and the number of pages

SNAPSHOT_TRIES = 3
SPACE_FACTOR = 7  # temp-file space as a multiple of the raw size (measured at 1,000,000 rows: 5.6)
WORKERS_FROM_PAGES = 50  # with fewer pages, workers would start too late to help
PAGES_WHILE_STARTING = 3  # that each thread downloads while the workers start


def fetch_snapshot(
    api: Api, contract: Contract, progress: Progress = lambda _page, _pages: None
) -> tuple[RawUsers, DecodedRaw]:
    """Fetch every row in the API's order; start again on drift, `SNAPSHOT_TRIES` times in all."""
    started, tries = datetime.now(UTC), count(1)
    with ApiClient(api, contract) as client:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(SNAPSHOT_TRIES),
            wait=tenacity.wait_exponential_jitter(max=30),
            retry=tenacity.retry_if_exception_type(Drift),
            sleep=client.sleep,
            reraise=True,
        )
        try:
            return retrying(lambda: _fetch_once(client, progress, started, next(tries)))
        except Drift as drift:
            raise SnapshotError(
                f"{client.url}: the data changed during all {SNAPSHOT_TRIES} attempts"
                f" (last mismatch: {drift}). Retry when the source is stable.",
                retryable=True,
            ) from drift


def log_every_tenth(log: Callable[[str, int, int], object]) -> Progress:
    """A progress callback that logs ten lines at most, with a function such as `Logger.info`."""

    def progress(page: int, pages: int) -> None:
        if page * 10 // pages > (page - 1) * 10 // pages:
            log("Fetched page %d of %d.", page, pages)

    return progress


def count_rows(api: Api, contract: Contract) -> int:
    """Request one row and return the declared total."""
    api = replace(api, page_size=1, concurrency=1, deadline_seconds=READ_SECONDS)
    with ApiClient(api, contract) as client:
        try:
            return plan_of(client.page(1, 1), contract.paging).total
        except Drift as drift:
            raise SnapshotError(
                f"{client.url} contradicts itself on {drift}: check RANDUSERS_API_URL."
            ) from drift


def _fetch_once(
    client: ApiClient, progress: Progress, started: datetime, tries: int
) -> tuple[RawUsers, DecodedRaw]:
    """Read all pages once; Drift if a page does not fit the plan, or a row came twice."""
    first, contract = client.page(1, client.api.page_size), client.contract
    plan = plan_of(first, contract.paging)
    if plan.total == 0:
        raise SnapshotError(
            f"{client.url} declares zero rows, and an empty snapshot is never published:"
            " check RANDUSERS_API_URL."
        )
    file = TempFile(expected_bytes=SPACE_FACTOR * len(first.compressed) * plan.pages)

    def source() -> tuple[FetchFacts, str]:
        facts = FetchFacts(
            url=client.url,
            declared=plan.total,
            pages=plan.pages,
            page_size=plan.page_size,
            tries=tries,
            retries=client.tally.retries,
            waited_seconds=round(client.tally.waited, 3),
            bytes=client.tally.bytes,
            fetched_at=started.isoformat(timespec="seconds"),
        )
        return facts, file.sha256

    with (
        explain_host_limits(),
        file.writer() as writer,
        contextlib.closing(_remaining_pages(client, plan)) as remaining,
    ):

        def lines() -> Iterator[FlatLines]:
            for number, page in enumerate(chain([first], remaining), 1):
                check_page(page, number, plan, contract.paging)
                writer.write(page.compressed)
                progress(number, plan.pages)
                yield page.lines

        decoded = write_parquet(lines(), contract, source)
    if decoded.duplicates.examples:
        place, key = decoded.duplicates.examples[0]
        page = place // plan.page_size + 1
        raise Drift(page, contract.key, "rows not sent before", f"{key} again")
    return RawUsers(file, decoded.frames.facts.fetch, contract), decoded


def _remaining_pages(client: ApiClient, plan: Plan) -> Generator[Page, None, None]:
    """The pages after the first, in order; workers fetch most of them if there are many."""
    numbers = iter(range(2, plan.pages + 1))
    if plan.pages < WORKERS_FROM_PAGES:
        yield from client.pages(numbers, plan.page_size)
        return
    with Workers(client) as workers:
        meanwhile = islice(numbers, PAGES_WHILE_STARTING * client.api.concurrency)
        yield from client.pages(meanwhile, plan.page_size)
        yield from workers.pages(numbers, plan.page_size)
