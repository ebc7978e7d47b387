"""`python -m randusers_assets_tests.ui.screenshots`: the README's pictures, from a real run."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from randusers_assets_tests.ui import serving

# What is served, path of the page, text that its last part to load shows, height in pixels.
PICTURES = {
    "graph": (serving.snapshot_served, serving.GRAPH, "100% filled", 540),
    "checks": (serving.snapshot_served, serving.CHECKS, "Evaluation result", 800),
    "closed_gate": (serving.closed_gate_served, serving.CHECKS, "Evaluation result", 640),
}
FOLDER = serving.ROOT / "docs" / "pictures"


def take(page: Page, url: str, name: str) -> None:
    """Take one picture, once the page is whole and nothing covers it."""
    _, path, last, height = PICTURES[name]
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
    for serve in (serving.snapshot_served, serving.closed_gate_served):
        with (
            tempfile.TemporaryDirectory() as directory,
            serve(Path(directory)) as url,
            serving.browser() as page,
        ):
            for name in (name for name, picture in PICTURES.items() if picture[0] is serve):
                take(page, url, name)
                print(f"docs/pictures/{name}.png")


if __name__ == "__main__":
    main()
