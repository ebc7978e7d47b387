"""How long the API client takes for pages that each make it wait, as JSON on standard output."""

import json
import os
import sys
import time

from randusers_assets.resources import RandomUsersApi


def main(page_size: int, concurrency: int) -> None:
    """Fetch one snapshot and tell the seconds and the pages."""
    api = RandomUsersApi(
        url=os.environ["RANDUSERS_API_URL"], page_size=page_size, concurrency=concurrency
    )
    start = time.perf_counter()
    raw = api.snapshot()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "pages": raw.facts.pages, "concurrency": concurrency}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
