"""The benchmarks' measurement and report."""

import os
import resource
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measure import MAXRSS_BYTES, BenchmarkError, csv_rows, empty_bucket, measure
from randusers_assets.pipeline.storage.s3 import SnapshotStore
from randusers_sandbox.s3 import LocalS3


def test_measure_counts_the_memory_of_the_process(tmp_path: Path) -> None:
    """A process that fills memory is measured as that large, and little more."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
    filled = own + 50_000_000
    usage = measure([sys.executable, "-c", f"b'x' * {filled}"], os.environ, tmp_path / "log")
    assert filled / 1e6 < usage.peak_mb < filled / 1e6 + 100


def test_measure_refuses_a_process_that_fails(tmp_path: Path) -> None:
    """A status other than 0 ends the round with the process's last line."""
    argv = [sys.executable, "-c", "import sys; print('why'); sys.exit(3)"]
    with pytest.raises(BenchmarkError, match=r"ended with status 3: why$"):
        measure(argv, os.environ, tmp_path / "log")


def test_measure_refuses_a_process_smaller_than_its_own(tmp_path: Path) -> None:
    """A peak that may be the measuring process's own does not count."""
    with pytest.raises(BenchmarkError, match=r"was smaller than the process that measured it\.$"):
        measure([sys.executable, "-c", ""], os.environ, tmp_path / "log")


def test_csv_rows_counts_the_records_of_the_matching_objects(
    s3_server: LocalS3, store: SnapshotStore
) -> None:
    """Rows are counted in the objects that match alone, without headers, until they are deleted."""
    client = store.s3_resource.get_client()
    for key, body in (("a/1.csv", b"h\n1\n2\n"), ("a/2.csv", b"h\n3\n"), ("b.csv", b"h\n4\n")):
        client.put_object(Bucket=store.bucket, Key=key, Body=body)
    assert csv_rows(s3_server.endpoint_url, store.bucket, r"a/.+\.csv") == 3
    empty_bucket(s3_server.endpoint_url, store.bucket)
    assert csv_rows(s3_server.endpoint_url, store.bucket, r"a/.+\.csv") == 0


def test_report_gives_medians_ratios_and_where_a_peer_wins() -> None:
    """Each figure of the table comes from the rounds, and a better peer is named."""
    rounds = [
        {"users": 500, "contender": name, "wall": wall, "cpu": 2.0, "peak_mb": peak}
        for name, wall, peak in (
            (report.NAIVE, 9.0, 150.0),
            (report.OURS, 2.0, 200.0),
            (report.OURS, 4.0, 200.0),
            (report.OURS, 3.0, 200.0),
            (report.EMPTY, 2.0, 100.0),
        )
    ]
    text = report.render({"machine": {"cores": 2}, "load": 0, "versions": {}, "rounds": rounds})
    assert "| 500 | ours | 3.00 (2.00-4.00) |  | 2.00 |  | 200 |  |" in text
    assert "| 500 | naive | 9.00 | 3.00x | 2.00 | 1.00x | 150 | 0.75x |" in text
    assert "- 500 users, peak, MB: naive 150, ours 200." in text
    assert "naive 9.00, ours" not in text
    assert "| ours to three empty assets, wall at 500 | 1.50 | <= 1.25 | **no** |" in text


def test_report_names_no_winner_where_ours_is_best() -> None:
    """Without a better peer the report says so."""
    rounds = [
        {"users": 500, "contender": name, "wall": cost, "cpu": cost, "peak_mb": cost}
        for name, cost in ((report.OURS, 1.0), (report.DLT, 2.0))
    ]
    text = report.render({"machine": {}, "load": 0, "versions": {}, "rounds": rounds})
    assert "## Where another does better\n\nNowhere in this run.\n" in text


def test_plot_shows_each_contender(tmp_path: Path) -> None:
    """The plot is an SVG whose legend names ours and the peers, as text."""
    rounds = [
        {"users": users, "contender": name, "wall": 1.0, "cpu": 1.0, "peak_mb": 1.0}
        for users in (500, 5000)
        for name in (report.OURS, report.NAIVE, report.DLT)
    ]
    report.plot({"rounds": rounds}, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert [f">{name}</text>" in drawn for name in (report.OURS, report.NAIVE, report.DLT)] == [
        True,
        True,
        True,
    ]
