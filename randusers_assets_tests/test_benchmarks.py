"""The benchmarks' measurement, second day and report."""

import os
import resource
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import PIPELINES, script
from benchmarks.measure import MAXRSS_BYTES, BenchmarkError, csv_rows, empty_bucket, measure
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.diff import Comparison, Difference, compare_with_day_before
from randusers_assets.pipeline.publish.receipt import find_history
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import frames_of, users
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import LocalS3


def rounds(*figures: tuple[str, float, float, float], size: int = 500) -> list[dict[str, Any]]:
    """Rounds of the contenders, each with its wall, CPU and peak."""
    return [
        {"users": size, "contender": name, "wall": wall, "cpu": cpu, "peak_mb": peak}
        for name, wall, cpu, peak in figures
    ]


def rendered(*figures: tuple[str, float, float, float]) -> str:
    """The report of these rounds."""
    facts = {"machine": {"cores": 2}, "load": 0, "versions": {}}
    return report.render({**facts, "rounds": rounds(*figures)})


def test_measure_counts_the_memory_of_the_process(tmp_path: Path) -> None:
    """A process that fills memory is measured as that large, and little more."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
    filled = own + 50_000_000
    usage = measure([sys.executable, "-c", f"b'x' * {filled}"], os.environ, tmp_path / "log")
    assert filled / 1e6 < usage.peak_mb < filled / 1e6 + 100


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('why'); sys.exit(3)", r"ended with status 3: why$"),
        ("", r"was smaller than the process that measured it\.$"),
    ],
    ids=["failed", "smaller"],
)
def test_measure_refuses_what_does_not_count(tmp_path: Path, code: str, message: str) -> None:
    """A failure ends the round with its last line; a peak that may be the parent's own does too."""
    with pytest.raises(BenchmarkError, match=message):
        measure([sys.executable, "-c", code], os.environ, tmp_path / "log")


def test_csv_rows_counts_the_records_of_the_matching_objects(
    s3_server: LocalS3, store: Store
) -> None:
    """Rows are counted in the objects that match alone, without headers, until they are deleted."""
    for key, body in (("a/1.csv", b"h\n1\n2\n"), ("a/2.csv", b"h\n3\n"), ("b.csv", b"h\n4\n")):
        store.put(key, body, content_type="text/csv")
    assert csv_rows(s3_server.endpoint_url, store.bucket, r"a/.+\.csv") == 3
    empty_bucket(s3_server.endpoint_url, store.bucket)
    assert csv_rows(s3_server.endpoint_url, store.bucket, r"a/.+\.csv") == 0


def test_second_day_has_a_day_to_compare_with(
    s3_server: LocalS3, store: Store, tmp_path: Path
) -> None:
    """What is published first is yesterday, for the comparison and for the history gate."""
    contender = next(c for c in PIPELINES if c.name == report.SECOND_DAY)
    assert contender == PIPELINES[0]._replace(name="ours, second day", days=2)
    settings = {"RANDUSERS_BUCKET": store.bucket, "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url}
    now = datetime.now(UTC)
    today, yesterday = (day.date().isoformat() for day in (now, now - timedelta(days=1)))
    with ApiSimulator(generated_users(20, tmp_path)) as api:
        env = {**os.environ, **settings, "RANDUSERS_API_URL": api.url}
        assert script("benchmarks.day_before", [], env) == {"date": yesterday}
    kinds = ("new", "gone", "changed")
    nothing = Difference(dict.fromkeys(kinds, 0), {kind: [] for kind in kinds})
    comparison = compare_with_day_before(store, today, frames_of(users(20)))
    assert comparison == Comparison(yesterday, nothing)
    history = find_history(store, CONTRACT, today, "")
    assert (history.date, history.rows) == (yesterday, 20)


def test_report_gives_medians_ratios_and_where_a_peer_wins() -> None:
    """Each figure of the table comes from the rounds, and a better peer is named."""
    text = rendered(
        (report.NAIVE, 9.0, 2.0, 150.0),
        (report.OURS, 2.0, 2.0, 200.0),
        (report.OURS, 4.0, 2.0, 200.0),
        (report.OURS, 3.0, 2.0, 200.0),
        (report.SECOND_DAY, 3.3, 1.0, 200.0),
        (report.EMPTY, 2.0, 2.0, 100.0),
        (report.FROZEN, 1.5, 2.0, 100.0),
    )
    table = text[text.index("| users |") : text.index("\n\n## Where")].splitlines()
    assert [table[0], *table[2:]] == [
        "| users |  | wall, s | ratio | CPU, s | ratio | peak, MB | ratio |",
        "| 500 | ours | 3.00 (2.00-4.00) |  | 2.00 |  | 200 |  |",
        "| 500 | ours, second day | 3.30 | 1.10x | 1.00 | 0.50x | 200 | 1.00x |",
        "| 500 | naive | 9.00 | 3.00x | 2.00 | 1.00x | 150 | 0.75x |",
        "| 500 | three empty assets | 2.00 | 0.67x | 2.00 | 1.00x | 100 | 0.50x |",
        "| 500 | three empty assets, GC frozen | 1.50 | 0.50x | 2.00 | 1.00x | 100 | 0.50x |",
    ]
    better = text[text.index("## Where") : text.index("Ours runs every check")].split("\n\n")[1]
    assert better == "- 500 users, peak, MB: naive 150, ours 200."
    assert "| ours/three empty assets, wall at 500 | 1.50 | <= 1.25 | **no** |" in text


def test_report_names_no_winner_where_ours_is_best() -> None:
    """Without a better peer the report states that there is none."""
    text = rendered((report.OURS, 1.0, 1.0, 1.0), (report.DLT, 2.0, 2.0, 2.0))
    assert "## Where another does better\n\nNowhere in this run.\n" in text


def test_plot_shows_each_contender(tmp_path: Path) -> None:
    """The plot is an SVG whose legend names ours and the peers, as text."""
    names = (report.OURS, report.NAIVE, report.DLT)
    every = [
        one for size in (500, 5000) for one in rounds(*((n, 1, 1, 1) for n in names), size=size)
    ]
    report.plot({"rounds": every}, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert [name for name in names if f">{name}</text>" not in drawn] == []
