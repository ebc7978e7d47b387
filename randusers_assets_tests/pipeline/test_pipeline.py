"""What importing the pipeline does to the process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE = "MIMALLOC_ARENA_EAGER_COMMIT"


@pytest.mark.parametrize(("setting", "huge"), [({}, False), ({VARIABLE: "2"}, True)])
@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="this system does not give huge pages to those who ask, and only to them",
)
def test_pipeline_keeps_arrow_from_huge_pages(setting: dict[str, str], *, huge: bool) -> None:
    """PyArrow's memory is in small pages, unless the environment sets mimalloc's own default."""
    code = (
        "import randusers_assets.pipeline, pyarrow as pa\n"
        "held = [pa.array([b'x' * 10_000] * 100) for _ in range(64)]\n"
        "print(open('/proc/self/smaps_rollup').read())"
    )
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE} | setting
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    kilobytes = re.search(r"^AnonHugePages: +(\d+) kB", done.stdout, re.M)
    assert kilobytes
    assert (int(kilobytes[1]) > 0) == huge
