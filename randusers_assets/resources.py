"""The users API as a Dagster resource, and what a run tells of a fetch."""

import logging
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from randusers_assets.fetching import READ_SECONDS, Fetch, shown
from randusers_assets.pages import Drift, plan_of
from randusers_assets.snapshots import FetchFacts, RawUsers


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

        `progress` is called with each page's number and the number of pages.

        Raises:
            dagster.Failure: the API cannot be read, refuses, holds no users, or keeps drifting.
        """
        with Fetch(self.url, self.concurrency, self.deadline_seconds) as fetch:
            return fetch.snapshot(self.page_size, progress)

    def probe(self) -> int:
        """Ask for one user and return the declared total.

        Raises:
            dagster.Failure: as `snapshot` does.
        """
        with Fetch(self.url, 1, READ_SECONDS) as fetch:
            try:
                return plan_of(fetch.page(1, 1)).total
            except Drift as drift:
                raise dg.Failure(
                    f"{shown(self.url)} contradicts itself on {drift}: check RANDUSERS_API_URL."
                ) from drift


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
