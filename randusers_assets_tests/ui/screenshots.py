"""`python -m randusers_assets_tests.ui.screenshots`: the README's pictures, from a real run."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from randusers_assets_tests.ui import serving

# Path of the page, text that its last part to load shows, height in pixels.
PICTURES = {
    "graph": (serving.GRAPH, "100% filled", 540),
    "checks": (serving.CHECKS, "Evaluation result", 800),
}
FOLDER = serving.ROOT / "docs" / "pictures"


def take(page: Page, url: str, name: str) -> None:
    """Take one picture, once the page is whole and nothing covers it."""
    path, last, height = PICTURES[name]
    page.set_viewport_size({"width": 1400, "height": height})
    page.goto(url + path)
    expect(page.get_by_text(last).first).to_be_visible(timeout=serving.PAGE_MILLISECONDS)
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")


def main() -> None:
    """Take every picture into docs/pictures."""
    if serving.chromium() is None:
        sys.exit("No Chromium is installed: install chromium or google-chrome.")
    with (
        tempfile.TemporaryDirectory() as directory,
        serving.snapshot_served(Path(directory)) as url,
        serving.browser() as page,
    ):
        for name in PICTURES:
            take(page, url, name)
            print(f"docs/pictures/{name}.png")


if __name__ == "__main__":
    main()
