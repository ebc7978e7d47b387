"""The command line: verification, and calls that are wrong."""

import re

import pytest

from randusers_assets_tests.cli.conftest import TODAY
from randusers_assets_tests.sandbox.processes import RANDUSERS, randusers, run

OUTSIDE = "2026-10-05 is no partition: they run from 2026-11-01"


@pytest.mark.usefixtures("api")
def test_main_verifies_what_run_published() -> None:
    """After a run, `verify` proves the day from the bucket alone; another run is `unchanged`."""
    assert randusers("run").returncode == 0
    verify = randusers("verify")
    assert (verify.returncode, verify.stderr) == (0, "")
    rebuilt = r"^ok  rebuilt from s3://\S+, the CSV has the same SHA-256$"
    assert re.search(rebuilt, verify.stdout, re.MULTILINE)
    again = randusers("run")
    assert again.stdout.splitlines()[-1].startswith(f"unchanged {TODAY}, sha256 ")


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("run --date 2026-11-50", 2, "'2026-11-50' is not a day such as 2026-11-23"),
        ("run --date 2026-10-05", 1, f"{OUTSIDE} to {TODAY} (RANDUSERS_START_DATE)."),
        ("sandbox", 1, "No command is given: randusers sandbox -- COMMAND."),
        ("sandbox no-such", 1, "The command no-such is not found: check its name and PATH."),
    ],
    ids=["no date", "before the first partition", "no command", "unknown command"],
)
def test_main_refuses_a_wrong_call(call: str, status: int, message: str) -> None:
    """A wrong call ends with one message: status 2 for what argparse refuses, else 1."""
    done = randusers(*call.split())
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].endswith(f": {message}")


@pytest.mark.parametrize("command", ["run", "verify", "doctor"])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("-n 127", "open files is 127: raise it (`ulimit -n 128`, or higher)."),
        (
            "-v 1048575",
            "memory in bytes is 1,073,740,800: raise it (`ulimit -v 1048576`, or higher).",
        ),
    ],
    ids=["open files", "memory"],
)
def test_main_needs_open_files_and_memory(command: str, limit: str, message: str) -> None:
    """With less than it needs, a command ends before it begins, in one sentence."""
    done = run("sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *RANDUSERS, command)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"randusers: the limit of {message}\n",
    )
