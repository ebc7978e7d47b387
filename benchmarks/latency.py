"""How long the API client takes for pages that each make it wait, as JSON on standard output."""

import json
import os
import sys
import time

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.fetch.snapshot import fetch_snapshot


def main(page_size: int, concurrency: int) -> None:
    """Fetch one snapshot; print the seconds and the pages."""
    api = Api(os.environ["RANDUSERS_API_URL"], page_size, concurrency)
    start = time.perf_counter()
    raw, _ = fetch_snapshot(api, CONTRACT)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "pages": raw.facts.pages, "concurrency": concurrency}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
