"""The benchmarks' measurement, second day, clicks and report."""

import contextlib
import math
import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import clicks, report
from benchmarks import measure as measuring
from benchmarks.__main__ import PIPELINES, ROUNDS, START_UP, call
from benchmarks.measure import MAXRSS_BYTES, BenchmarkError, cpu_seconds, measure, tree_pss
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.diff import Comparison, Difference, compare_with_day_before
from randusers_assets.pipeline.publish.receipt import find_history
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import frames_of, users
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import LocalS3

# It holds so many bytes, and then has a child that holds as many beside it.
TWO_LARGE = """
import subprocess, sys
held = b"x" * int(sys.argv[1])
hold = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(1)"
subprocess.run([sys.executable, "-c", hold, sys.argv[1]], check=True)
"""


def own_peak() -> int:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES


def rounds(*figures: tuple[str, float, float, float], size: int = 500) -> list[dict[str, Any]]:
    """Rounds of the contenders, each with its wall, CPU and peak, as old results have them."""
    return [
        {"users": size, "contender": name, "wall": wall, "cpu": cpu, "peak_mb": peak}
        for name, wall, cpu, peak in figures
    ]


def rendered(*rounds: dict[str, Any], **parts: Any) -> str:  # noqa: ANN401  # JSON
    """The report of these rounds and of other parts of the results."""
    facts = {"machine": {"cores": 2}, "load": 0, "versions": {}}
    return report.render({**facts, "rounds": rounds, **parts})


def test_measure_counts_the_largest_process_and_all_of_them(tmp_path: Path) -> None:
    """The peak is that of one of two large processes; the PSS is that of both."""
    filled = own_peak() + 50_000_000
    argv = [sys.executable, "-c", TWO_LARGE, str(filled)]
    usage = measure(argv, os.environ, tmp_path / "log", own=os.getpid())
    assert list(usage) == ["wall", "cpu", "peak_mb", "pss_mb", "own"]
    peak, pss = usage["peak_mb"] or math.nan, usage["pss_mb"] or math.nan
    assert filled / 1e6 < peak < filled / 1e6 + 100
    assert 2 * filled / 1e6 < pss < 2 * filled / 1e6 + 100


def test_measure_leaves_out_what_the_system_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc there is no PSS and no server's CPU; the rest is measured."""
    monkeypatch.setattr(measuring, "PROC", tmp_path / "proc")
    argv = [sys.executable, "-c", f"b'x' * {own_peak() + 1_000_000}"]
    usage = measure(argv, os.environ, tmp_path / "log", own=os.getpid())
    assert [name for name, figure in usage.items() if figure is None] == ["pss_mb", "own"]


def test_tree_pss_takes_an_ended_process_as_nothing() -> None:
    """A process that ends between two looks is no error."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert (ended.wait(), tree_pss(ended.pid)) == (0, 0)


def test_cpu_seconds_counts_the_children_that_were_waited_for() -> None:
    """What a process has used with its child is what it says itself."""
    child = "n = 0\nfor _ in range(3_000_000): n += 1"
    code = (
        f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])\n"
        "print(sum(os.times()[:4]), os.times().children_user, flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:  # noqa: S603  # Python
        assert process.stdout is not None
        said, of_child = map(float, process.stdout.readline().split())
        assert cpu_seconds(process.pid) == pytest.approx(said, abs=0.05)
        assert said > of_child > 0.05


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


def test_take_rows_counts_the_records_and_empties_the_bucket(
    s3_server: LocalS3, store: Store
) -> None:
    """Rows are counted in the CSV objects alone, without headers; then all objects are gone."""
    for key, body in (("a/1.csv", b"h\n1\n2\n"), ("b.csv", b"h\n3\n"), ("c.json", b"1\n2\n")):
        store.put(key, body, content_type="text/csv")
    env = {**os.environ, **settings(s3_server, store)}
    assert call("measure.take_rows", env) == {"a/1.csv": 2, "b.csv": 1}
    assert call("measure.take_rows", env) == {}
    assert [store.head(key) for key in ("a/1.csv", "c.json")] == [None, None]


def settings(s3: LocalS3, store: Store) -> dict[str, str]:
    """The environment of a contender that writes to this bucket."""
    endpoints = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), s3.endpoint_url)
    return {"RANDUSERS_BUCKET": store.bucket, **endpoints}


def test_compete_runs_everything_three_times_at_least() -> None:
    """No contender has fewer than three rounds at any size."""
    assert min(*ROUNDS.values(), *(one.most_rounds for one in (*PIPELINES, *START_UP))) == 3
    assert max(ROUNDS) == 1_000_000


def test_second_day_has_a_day_to_compare_with(
    s3_server: LocalS3, store: Store, tmp_path: Path
) -> None:
    """What is published first is yesterday, for the comparison and for the history gate."""
    contender = next(c for c in PIPELINES if c.name == report.SECOND_DAY)
    assert contender == PIPELINES[0]._replace(name="ours, second day", days=2)
    now = datetime.now(UTC)
    today, yesterday = (day.date().isoformat() for day in (now, now - timedelta(days=1)))
    with ApiSimulator(generated_users(20, tmp_path)) as api:
        env = {**os.environ, **settings(s3_server, store), "RANDUSERS_API_URL": api.url}
        assert call("alone.publish", env, 1) == [yesterday]
    kinds = ("new", "gone", "changed")
    nothing = Difference(dict.fromkeys(kinds, 0), {kind: [] for kind in kinds})
    comparison = compare_with_day_before(store, today, frames_of(users(20)))
    assert comparison == Comparison(yesterday, nothing)
    history = find_history(store, CONTRACT, today, "")
    assert (history.date, history.rows) == (yesterday, 20)


def test_click_measures_a_run_of_the_ui(
    s3_server: LocalS3, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends in SUCCESS, its parts are within the whole, and what is refused is an error."""
    today = datetime.now(UTC).date().isoformat()
    with ApiSimulator(generated_users(20, tmp_path)) as api, contextlib.ExitStack() as stack:
        for name, value in {**settings(s3_server, store), "RANDUSERS_API_URL": api.url}.items():
            monkeypatch.setenv(name, value)
        url = stack.enter_context(clicks.served(start_date=today))
        nodes = clicks.wait_for(lambda: clicks.ask(url, clicks.ASSETS)["assetNodes"])
        assert len(nodes) == 3
        took = clicks.click(url, report.JOB, {"day": today, "job": "users_snapshot_job"})
        with pytest.raises(BenchmarkError, match=r"^one check was not launched: .*no_such_job"):
            clicks.click(url, report.CHECK, {"day": today, "job": "no_such_job"})
    assert list(took) == ["click", *report.WAITED]
    assert took["seconds"] >= took["queue"] + took["start"] + took["steps"] > 0
    assert min(took[part] for part in report.WAITED) >= 0


def test_report_gives_medians_and_ratios_and_marks_where_a_peer_wins() -> None:
    """Each figure comes from the rounds, a better peer is bold, and what is not known is empty."""
    new = {"pss_mb": 300, "api_cpu": 0.0, "s3_cpu": 0.5}
    text = rendered(
        *({**one, **new} for one in rounds((report.OURS, 2.0, 2.0, 200.0))),
        *rounds((report.SECOND_DAY, 3.3, 1.0, 200.0), (report.NAIVE, 9.0, 2.0, 150.0)),
        *({**one, **new} for one in rounds((report.OURS, 4.0, 2.0, 200.0))),
        *({**one, **new} for one in rounds((report.OURS, 3.0, 2.0, 200.0))),
        *({**one, **new, "pss_mb": None} for one in rounds((report.DLT, 2.0, 2.0, 300.0))),
        *rounds((report.FROZEN, 1.5, 2.0, 100.0)),
    )
    table = text[text.index("| users |") : text.index("\n\n## ")].splitlines()
    compared = "wall, s | ratio | CPU, s | ratio | PSS, MB | ratio | peak, MB | ratio"
    assert [table[0], *table[2:]] == [
        f"| users |  | {compared} | API's CPU, s | S3's CPU, s |",
        "| 500 | ours | 3.00 (2.00-4.00) |  | 2.00 |  | 300 |  | 200 |  | 0.000 | 0.500 |",
        "| 500 | ours, second day | 3.30 | 1.10x | 1.00 | 0.50x |  |  | 200 | 1.00x |  |  |",
        "| 500 | naive | 9.00 | 3.00x | 2.00 | 1.00x |  |  | 150 | **0.75x** |  |  |",
        "| 500 | dlt | 2.00 | **0.67x** | 2.00 | 1.00x |  |  | 300 | 1.50x | 0.000 | 0.500 |",
        f"| 500 | {report.FROZEN} | 1.50 | 0.50x | 2.00 | 1.00x |  |  | 100 | 0.50x |  |  |",
    ]
    assert f"| ours/{report.FROZEN}, wall at 500 | 2.00 | <= 1.25 | **no** |" in text


def test_report_shows_how_far_a_busy_machine_moves_the_ratios() -> None:
    """One line has both ratios, quiet and busy."""
    names = (report.OURS, report.NAIVE, report.DLT)
    quiet, busy = (
        rounds(*((name, wall, 1, 1) for name, wall in zip(names, walls, strict=True)), size=100_000)
        for walls in ((2, 9, 4), (4, 10, 6))
    )
    line = "at 100,000 users naive/ours 4.50x becomes 2.50x, and dlt/ours 2.00x becomes 1.50x."
    text = rendered(*quiet, busy=busy)
    assert re.findall("^While another process burns one core, (.*)$", text, re.M) == [line]


def test_report_shows_the_clicks_and_their_targets() -> None:
    """Each button has its medians; Materialize all is held against the job, and so is the queue."""
    parts = {"queue": 1.0, "start": 2.0, "steps": 0.5}
    clicked = [
        {"click": report.JOB, "seconds": 4.0, **parts},
        {"click": report.ALL, "seconds": 4.0, **parts},
        {"click": report.ALL, "seconds": 6.0, **parts, "queue": 3.0},
        {"click": report.BACKFILL, "seconds": 40.0, **parts, "queue": 20.0},
    ]
    text = rendered(clicks=clicked)
    assert text[text.index("| the job |") : text.index("\n\n## Targets")].splitlines() == [
        "| the job | 4.00 | 1.00 | 2.00 | 0.500 |",
        "| Materialize all | 5.00 (4.00-6.00) | 2.00 (1.00-3.00) | 2.00 | 0.500 |",
        "| backfill of 5 past days | 40.0 | 20.0 | 2.00 | 0.500 |",
    ]
    assert text.endswith(
        "| Materialize all / job, click to success | 1.25 | <= 1.1 | **no** |\n"
        "| queue, s | 2.00 | <= 1.5 | **no** |\n"
    )


def test_report_holds_the_pss_at_a_million_users() -> None:
    """All our processes are held to the bound, on the first day and on the second."""
    ours = rounds((report.OURS, 1, 1, 300), (report.SECOND_DAY, 1, 1, 300), size=1_000_000)
    text = rendered(*({**one, "pss_mb": 399 + 2 * n} for n, one in enumerate(ours)))
    assert "| PSS of all our processes at 1,000,000, MB | 399 | <= 400 | yes |" in text
    assert "| the same, second day | 401 | <= 400 | **no** |" in text
