"""`python -m randusers_assets_tests.ui.screenshots`: the README's pictures, from a real run."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from randusers_assets_tests.ui.serving import (
    CHECKS,
    GRAPH,
    PAGE_MILLISECONDS,
    ROOT,
    browser,
    chromium,
    snapshot_served,
)

# Path of the page, text that its last part to load shows, height in pixels.
PICTURES = {
    "graph": (GRAPH, "100% filled", 540),
    "checks": (CHECKS, "Evaluation result", 800),
}


def take(page: Page, url: str, name: str, folder: Path) -> Path:
    """Take one picture, once the page is whole and nothing covers it."""
    path, last, height = PICTURES[name]
    page.set_viewport_size({"width": 1400, "height": height})
    page.goto(url + path)
    expect(page.get_by_text(last).first).to_be_visible(timeout=PAGE_MILLISECONDS)
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("dialog")).to_have_count(0)
    picture = folder / f"{name}.png"
    page.screenshot(path=picture, animations="disabled")
    return picture


def main() -> int:
    """Take every picture into docs/pictures."""
    executable = chromium()
    if executable is None:
        print("No Chromium is installed: install chromium or google-chrome.", file=sys.stderr)
        return 1
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        snapshot_served(Path(directory)) as url,
        browser(executable) as context,
    ):
        page = context.new_page()
        for name in PICTURES:
            print(take(page, url, name, folder).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
