"""`randusers contract`: what it prints, what it writes, and what it refuses."""

import re
from pathlib import Path

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.formats import FORMATS
from randusers_assets.pipeline.formats.published import Published
from randusers_assets_tests.sandbox.processes import RANDUSERS, python, randusers, run

PLACEHOLDERS = Published("BUCKET", "PREFIX", "2026-11-01")


@pytest.mark.parametrize("name", FORMATS)
def test_contract_prints_a_format_with_placeholders(name: str, tmp_path: Path) -> None:
    """With nothing set, and no AWS, the statement has BUCKET and PREFIX to replace."""
    done = randusers("contract", "--format", name, cwd=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == FORMATS[name](CONTRACT, PLACEHOLDERS)


def test_contract_prints_the_bucket_that_is_set(tmp_path: Path) -> None:
    """Bucket, prefix and first day come from the environment and from `.env`."""
    (tmp_path / ".env").write_text("RANDUSERS_BUCKET=lake\nRANDUSERS_PREFIX=raw\n", "utf-8")
    place = {"RANDUSERS_PREFIX": "/team/api/", "RANDUSERS_START_DATE": "2026-11-20"}
    done = randusers("contract", "--format", "athena", cwd=str(tmp_path), **place)
    assert "\nLOCATION 's3://lake/team/api/users_csv/'\n" in done.stdout
    assert "'projection.dt.range' = '2026-11-20,NOW'\n" in done.stdout


def test_contract_prints_a_bucket_without_a_prefix(tmp_path: Path) -> None:
    """With a bucket and no prefix there is none, not a placeholder."""
    done = randusers("contract", "--format", "redshift", cwd=str(tmp_path), RANDUSERS_BUCKET="lake")
    assert "'s3://lake/users_csv/dt=YYYY-MM-DD/users.csv'" in done.stdout


def test_contract_starts_without_dagster_and_boto3() -> None:
    """Printing a statement loads neither Dagster nor an AWS client nor pandas."""
    code = (
        "import sys\n"
        "from randusers_assets.cli.main import main\n"
        "sys.argv[1:] = ['contract', '--format', 'duckdb']\n"
        "assert main() == 0\n"
        "heavy = {'dagster', 'boto3', 'botocore', 'pandas', 'pyarrow', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = python("-c", code)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")


def test_contract_writes_the_file_that_it_would_print(tmp_path: Path) -> None:
    """`--output` gives the same text, also over an older file, and leaves no other file."""
    file = tmp_path / "users.odcs.yaml"
    file.write_text("old", encoding="utf-8")
    done = randusers("contract", "--format", "odcs", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text(encoding="utf-8") == randusers("contract", "--format", "odcs").stdout
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no-such/users.sql", "No such file or directory"),
        (".", "it is not a file"),
        ("", "it is not a file"),
        ("users.sql/inside", "Not a directory"),
    ],
)
def test_contract_names_a_path_that_cannot_be_written(
    path: str, problem: str, tmp_path: Path
) -> None:
    """One sentence, status 1, and nothing is written."""
    (tmp_path / "users.sql").write_text("old", encoding="utf-8")
    done = randusers("contract", "--format", "duckdb", "--output", path, cwd=str(tmp_path))
    shown = path or "."
    message = f"randusers: {shown} cannot be written ({problem}): choose another --output.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    assert [one.name for one in tmp_path.iterdir()] == ["users.sql"]
    assert (tmp_path / "users.sql").read_text(encoding="utf-8") == "old"


def test_contract_leaves_the_old_file_if_the_new_one_does_not_fit(tmp_path: Path) -> None:
    """A write that breaks off in the middle leaves what was there, and no part of the new text."""
    file = tmp_path / "users.odcs.yaml"
    file.write_text("old", encoding="utf-8")
    command = (*RANDUSERS, "contract", "--format", "odcs", "--output", str(file))
    done = run("sh", "-c", 'ulimit -f 4 && exec "$@"', "sh", *command, PYTHONDONTWRITEBYTECODE="1")
    message = f"randusers: {file} cannot be written (File too large): choose another --output.\n"
    assert (done.returncode, done.stderr) == (1, message)
    assert [(one.name, one.read_text(encoding="utf-8")) for one in tmp_path.iterdir()] == [
        (file.name, "old")
    ]


@pytest.mark.parametrize("arguments", [["--format", "excel"], []], ids=["unknown", "none"])
def test_contract_names_the_formats_in_a_usage_error(arguments: list[str]) -> None:
    """An unknown format, or none, is a usage error; the help has every format."""
    done = randusers("contract", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    problem = done.stderr.splitlines()[-1]
    if arguments:
        assert re.findall(r"'(\w+)'", problem)[0] == "excel"
        assert all(name in problem for name in FORMATS)
    else:
        assert problem.endswith("the following arguments are required: --format")
    assert f"one of {', '.join(FORMATS)}" in " ".join(
        randusers("contract", "--help").stdout.split()
    )


def test_contract_names_a_wrong_setting() -> None:
    """A bucket that is none is refused in its own sentence."""
    done = randusers("contract", "--format", "duckdb", RANDUSERS_BUCKET="s3://lake")
    message = (
        "randusers: RANDUSERS_BUCKET is 's3://lake', not a bucket's name alone, without s3:// and"
        " /: correct it in the environment or in .env.\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
