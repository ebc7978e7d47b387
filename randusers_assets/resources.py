"""The users API as a Dagster resource, and what a run tells of a fetch."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain, count, islice
from typing import Any

import dagster as dg
import tenacity
from pydantic import Field

from randusers_assets.pipeline.fetch.client import READ_SECONDS, Fetch, Unfetched, shown
from randusers_assets.pipeline.fetch.pages import Drift, Page, Plan, check_page, plan_of
from randusers_assets.pipeline.fetch.workers import Fetchers
from randusers_assets.pipeline.flatten.arrow import Flat
from randusers_assets.pipeline.flatten.frames import FetchFacts, RawUsers, read_once
from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named

logger = logging.getLogger(__name__)

SNAPSHOT_TRIES = 3
# What raw, flat, CSV and keys take on the disk together, to raw alone: 5.0, and some room.
SPOOLS_TO_RAW = 6
# Fewer pages are in before processes that fetch have started.
FETCHERS_FROM_PAGES = 50
# What each flight of this process brings in while they start.
FLIGHTS_MEANWHILE = 3


class RandomUsersApi(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """FreeAPI's randomusers, or an API that pages the same way."""

    url: str = Field(description="The endpoint, without a query")
    page_size: int = Field(default=500, ge=1, description="Users a page (`limit`)")
    concurrency: int = Field(default=8, ge=1, description="Pages in flight at once")
    deadline_seconds: float = Field(default=3600, gt=0, description="For one whole snapshot")

    def snapshot(
        self, progress: Callable[[int, int], None] = lambda _page, _pages: None
    ) -> RawUsers:
        """Fetch every user that the API declares, each once, in the API's order.

        `progress` is called with each page's number and the number of pages. On drift all is
        fetched again, a few times.

        Raises:
            dagster.Failure: the API cannot be read, refuses, holds no users, or keeps drifting.
        """
        started, tries = datetime.now(UTC), count(1)
        with self._fetching(self.concurrency, self.deadline_seconds) as fetch:
            retrying = tenacity.Retrying(
                stop=tenacity.stop_after_attempt(SNAPSHOT_TRIES),
                wait=tenacity.wait_exponential_jitter(max=30),
                retry=tenacity.retry_if_exception_type(Drift),
                sleep=fetch.sleep,
                reraise=True,
            )
            try:
                return retrying(lambda: self._whole(fetch, progress, started, next(tries)))
            except Drift as drift:
                raise dg.Failure(
                    f"{shown(self.url)}: the data kept changing while it was read,"
                    f" {SNAPSHOT_TRIES} times; at last on {drift}. Nothing is kept: run again when"
                    " the API is at rest.",
                ) from drift

    def probe(self) -> int:
        """Ask for one user and return the declared total.

        Raises:
            dagster.Failure: as `snapshot` does.
        """
        with self._fetching(1, READ_SECONDS) as fetch:
            try:
                return plan_of(fetch.page(1, 1)).total
            except Drift as drift:
                raise dg.Failure(
                    f"{shown(self.url)} contradicts itself on {drift}: check RANDUSERS_API_URL."
                ) from drift

    @contextlib.contextmanager
    def _fetching(self, concurrency: int, deadline_seconds: float) -> Iterator[Fetch]:
        try:
            with Fetch(self.url, concurrency, deadline_seconds) as fetch:
                yield fetch
        except Unfetched as unfetched:
            raise dg.Failure(str(unfetched), allow_retries=not unfetched.final) from unfetched

    def _whole(
        self, fetch: Fetch, progress: Callable[[int, int], None], started: datetime, tries: int
    ) -> RawUsers:
        """Read all pages once, into a spool.

        Raises:
            Drift: a page does not fit the plan, or a user came twice.
        """
        first = fetch.page(1, self.page_size)
        plan = plan_of(first)
        if plan.total == 0:
            raise dg.Failure(
                f"{shown(self.url)} declares zero users: an empty snapshot is never published;"
                " check RANDUSERS_API_URL.",
                allow_retries=False,
            )
        spool = Spool(expected_bytes=SPOOLS_TO_RAW * len(first.pressed) * plan.pages)

        def facts() -> FetchFacts:
            return FetchFacts(
                url=shown(self.url),
                declared=plan.total,
                pages=plan.pages,
                page_size=plan.page_size,
                tries=tries,
                retries=fetch.tally.retries,
                waited_seconds=round(fetch.tally.waited, 3),
                bytes=fetch.tally.bytes,
                fetched_at=started.isoformat(timespec="seconds"),
            )

        with disk_full_named(), spool.writer() as file, _others(fetch, plan) as others:

            def flats() -> Iterator[Flat]:
                for number, page in enumerate(chain([first], others), 1):
                    check_page(page, number, plan)
                    file.write(page.pressed)
                    logger.debug("page %d of %d", number, plan.pages)
                    progress(number, plan.pages)
                    yield page.flat

            reading = read_once(flats(), lambda: (facts(), spool.sha256))
        if reading.repeated is not None:
            place, user = reading.repeated
            page = place // plan.page_size + 1
            raise Drift(page, "id", "users not sent before", f"user {user} again")
        return RawUsers(spool, facts(), reading)


@contextlib.contextmanager
def _others(fetch: Fetch, plan: Plan) -> Iterator[Iterator[Page]]:
    """The pages after the first, in order: most of them from processes where they are many."""
    numbers = iter(range(2, plan.pages + 1))
    with contextlib.ExitStack() as stack:
        if plan.pages < FETCHERS_FROM_PAGES:
            yield stack.enter_context(contextlib.closing(fetch.pages(numbers, plan.page_size)))
            return
        fetchers = stack.enter_context(Fetchers(fetch))
        meanwhile = islice(numbers, FLIGHTS_MEANWHILE * fetch.concurrency)
        here = stack.enter_context(contextlib.closing(fetch.pages(meanwhile, plan.page_size)))
        yield chain(here, fetchers.pages(numbers, plan.page_size))


def tenths(log: logging.Logger) -> Callable[[int, int], None]:
    """A `progress` that logs ten lines at most."""

    def progress(page: int, pages: int) -> None:
        if page * 10 // pages > (page - 1) * 10 // pages:
            log.info("Fetched page %d of %d.", page, pages)

    return progress


def fetch_metadata(facts: FetchFacts) -> dict[str, Any]:
    """The facts of a fetch, for the UI."""
    return {
        "source": dg.MetadataValue.url(facts.url),
        "declared": facts.declared,
        "pages": facts.pages,
        "page_size": facts.page_size,
        "tries": facts.tries,
        "retries": facts.retries,
        "waited_seconds": facts.waited_seconds,
        "bytes_fetched": facts.bytes,
        "fetched_at": facts.fetched_at,
    }
