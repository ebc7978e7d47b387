"""docs/scale.md names limits that are in the code, with their values."""

import json
import re
import statistics
from importlib import import_module
from pathlib import Path

import pytest

from randusers_assets.definitions import defs
from randusers_assets.pipeline.fetch.snapshot import SPACE_FACTOR
from randusers_assets.pipeline.flatten.frames import BATCH_ROWS, MAX_UNDECODABLE
from randusers_assets.pipeline.publish.diff import PASS_ROWS
from randusers_assets.pipeline.storage.duplicates import PASS_KEYS
from randusers_assets.pipeline.storage.multipart import PART_BYTES
from randusers_assets.pipeline.storage.s3 import SINGLE_PUT_BYTES
from randusers_assets.settings import SETTINGS

PAGE = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
RAW, CSV = 154, 512  # bytes a row, as the page says
REBUILD_SECONDS = int(defs.resolve_job_def("users_rebuild_job").tags["dagster/max_runtime"])


def test_page_names_code_that_is_there() -> None:
    """Each name is in the module beside it."""
    named = re.findall(r"`(\w+)` in `([\w/]+)\.py`", PAGE)
    modules = [import_module(f"randusers_assets.{path.replace('/', '.')}") for _, path in named]
    methods = {"to_pandas"}  # of a class of its module
    missing = [
        name
        for (name, _), module in zip(named, modules, strict=True)
        if name not in methods and not hasattr(module, name)
    ]
    assert (len(named), missing) == (9, [])


def test_page_has_the_memory_that_was_measured() -> None:
    """What a run takes at two sizes, and what each row adds, is in benchmarks/results.json."""
    path = Path("benchmarks/results.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    rounds = [*results["rounds"], *results["huge"]]
    small, large = (
        statistics.median(
            one["pss_mb"] for one in rounds if (one["users"], one["contender"]) == (users, "ours")
        )
        for users in (1_000_000, 10_000_000)
    )
    assert f"{small:.0f} MB of memory in all at 1,000,000 users and {large:.0f} MB" in PAGE
    assert f"which is {(large - small) / 9:.0f} bytes a row more" in PAGE


@pytest.mark.parametrize(
    "figure",
    [
        f"take {RAW} bytes a row as raw zstd, 110\nas Parquet and {CSV} as CSV",
        f"a fetch: {int(SETTINGS['RANDUSERS_DEADLINE_SECONDS'].default):,} s |",
        f"one PUT: {SINGLE_PUT_BYTES >> 30} GiB | {SINGLE_PUT_BYTES / CSV / 1e6:.1f} million",
        f"parts: 10,000 of {PART_BYTES >> 20} MiB",
        f"| {10_000 * PART_BYTES / CSV / 1e6:,.0f} million |",
        f"10 million take {SPACE_FACTOR * RAW / 100:.1f} GB",
        f"row groups of {BATCH_ROWS:,} rows",
        f"once per {PASS_KEYS:,} rows | 100 million: {-(-100_000_000 // PASS_KEYS)} times",
        f"passes of {PASS_ROWS:,} rows | 100 million: {-(-100_000_000 // PASS_ROWS)} passes",
        f"rebuild: {REBUILD_SECONDS:,} s |",
        f"undecodable rows: {MAX_UNDECODABLE:,} |",
    ],
)
def test_page_has_the_figures_of_the_code(figure: str) -> None:
    """A limit that is changed is changed on the page as well."""
    assert figure in PAGE
