"""What the README shows is what its commands print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

import randusers_assets
from randusers_assets.definitions import defs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIES = [
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\d+\.\d\d s", "SECONDS"),
    # zstd's and Parquet's bytes differ with the platform; the CSV's do not.
    (r"(raw_users|users_df) +500 rows +[\d,]+ bytes +", r"\1 500 rows SIZE bytes "),
    (r" +SECONDS", " SECONDS"),
]


def settled(text: str) -> list[str]:
    """The lines of an output, with what may differ from run to run replaced."""
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return text.splitlines()


def test_readme_shows_what_the_demo_prints() -> None:
    """The block below `make demo` is the output of the command that the target runs."""
    shown = re.search(r"^\$ make demo\n(.*?)^\$ make test", README, re.M | re.S)
    command = re.search(
        r"^demo:.*\n\trandusers (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    assert shown
    assert command
    cli = [sys.executable, "-m", "randusers_assets.cli.main"]
    argv = [*cli, *command[1].replace("-- randusers", f"-- {' '.join(cli)}").split()]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(  # noqa: S603  # this project's own command line
        argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert settled(done.stdout) == settled(shown[1])


def test_reading_statement_for_duckdb_reads_the_dialect() -> None:
    """DuckDB's statement in docs/reading.md runs on a CSV of ours and keeps NULL apart from ""."""
    reading = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
    statement = re.search(r"^## DuckDB\n.*?```sql\n(.*?)```", reading, re.M | re.S)
    assert statement
    golden = Path(__file__).parent / "golden" / "users.csv"
    query = re.sub(r"s3://[^']+", str(golden), statement[1]).strip().rstrip(";")
    texts = duckdb.execute(query.replace("id, email, dob_date", "gender, name_title")).fetchall()
    cells = {cell for row in texts for cell in row}
    assert {None, ""} <= cells
    assert len(duckdb.execute(query).fetchall()) == len(texts)


def test_readme_table_is_the_one_that_the_benchmark_wrote() -> None:
    """The figures under "Measured" are those of benchmarks/results.md, line for line."""
    written = (ROOT / "benchmarks" / "results.md").read_text(encoding="utf-8")
    shown = re.search(r"^\| users \|.*?\n\n", README, re.M | re.S)
    assert shown
    assert shown[0] in written


def test_readme_names_every_module() -> None:
    """The layout leaves no module of the package out."""
    modules = {path.name for path in Path(randusers_assets.__file__).parent.glob("*.py")}
    assert modules - {"__init__.py"} <= set(
        re.findall(r"`(?:randusers_assets/)?(\w+\.py)`", README)
    )


def test_readme_names_what_it_links_to() -> None:
    """Every file that the README links to or shows is there."""
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("name", ["users_snapshot_schedule"])
def test_readme_names_the_schedule_that_there_is(name: str) -> None:
    """The schedule to turn on exists under the README's name."""
    assert name in README
    assert name in {schedule.name for schedule in defs.schedules or []}
