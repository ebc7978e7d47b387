"""The command line: verification, and calls that are wrong."""

import json
import re
from importlib.metadata import version

import pytest

from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.cli.conftest import TODAY, Randusers
from randusers_assets_tests.sandbox.processes import RANDUSERS, randusers, run

OUTSIDE = "2026-10-05 is no partition: they run from 2026-11-01"


@pytest.mark.usefixtures("api")
def test_main_verifies_what_run_published(randusers_here: Randusers) -> None:
    """After a run, `verify` proves the day from the bucket alone; another run is `unchanged`."""
    assert randusers_here("run").returncode == 0
    verify = randusers("verify")
    assert (verify.returncode, verify.stderr) == (0, "")
    rebuilt = r"^ok  rebuilt from s3://\S+, the CSV has the same SHA-256$"
    assert re.search(rebuilt, verify.stdout, re.MULTILINE)
    as_json = randusers_here("verify", "--json")
    proved = [line.removeprefix("ok  ") for line in verify.stdout.splitlines()]
    assert json.loads(as_json.stdout) == {"date": TODAY, "proved": proved, "error": None}
    again = randusers_here("run")
    assert again.stdout.splitlines()[-1].startswith(f"unchanged {TODAY}, sha256 ")


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("run --date 2026-11-50", 2, "'2026-11-50' is not a day such as 2026-11-23"),
        ("run --head -3", 2, "argument --head: '-3' is not a count such as 3"),
        ("run --head 1 --json", 2, "argument --json: not allowed with argument --head"),
        ("sandbox", 1, "No command is given: randusers sandbox -- COMMAND."),
        ("sandbox no-such", 1, "The command no-such is not found: check its name and PATH."),
    ],
    ids=[
        "no date",
        "no count",
        "rows in JSON",
        "no command",
        "unknown command",
    ],
)
def test_main_refuses_a_wrong_call(call: str, status: int, message: str) -> None:
    """A wrong call ends with one message: status 2 for what argparse refuses, else 1."""
    done = randusers(*call.split())
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].endswith(f": {message}")


def test_main_refuses_a_day_before_the_first_partition(randusers_here: Randusers) -> None:
    """The sentence has the range of the partitions; status 1."""
    done = randusers_here("run", "--date", "2026-10-05")
    sentence = f"randusers: {OUTSIDE} to {TODAY} (RANDUSERS_START_DATE).\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


@pytest.mark.usefixtures("api")
def test_main_prints_json_of_what_cannot_be_verified(
    store: Store, randusers_here: Randusers
) -> None:
    """The error is in the object, and a sentence on stderr; status 1."""
    done = randusers_here("verify", "--json")
    error = (
        f"s3://{store.bucket}/_receipts/users_csv/latest.json does not exist: no day is published;"
        " materialize users_csv first."
    )
    assert (done.returncode, done.stderr) == (1, f"randusers: {error}\n")
    assert json.loads(done.stdout) == {"date": None, "proved": [], "error": error}


NOTHING: dict[str, dict[str, object]] = {
    "run": {"date": TODAY, "outcome": None, "success": False, "checks": [], "assets": []},
    "verify": {"date": None, "proved": []},
    "list": {"days": []},
    "rebuild --from 2026-11-23": {"days": []},
    "doctor": {"parts": []},
}


def test_main_prints_json_of_a_command_with_a_wrong_setting() -> None:
    """The object has every key and the error."""
    done = randusers("run", "--json", RANDUSERS_PAGE_SIZE="0")
    error = (
        "RANDUSERS_PAGE_SIZE is '0', not a count from 1: correct it in the environment or in .env."
    )
    assert (done.returncode, done.stderr) == (1, f"randusers: {error}\n")
    assert json.loads(done.stdout) == {**NOTHING["run"], "error": error}


@pytest.mark.parametrize("command", ["", "run ", "verify ", "doctor ", "sandbox "])
def test_main_shows_two_examples_in_each_help(command: str) -> None:
    """The help of a command ends in two calls of it."""
    done = randusers(*f"{command}--help".split())
    heading, *examples = done.stdout.splitlines()[-3:]
    assert heading == "examples:"
    call = f"  randusers {command}".rstrip()
    assert [line.startswith(call) for line in examples] == [True, True]


def test_main_shows_its_version() -> None:
    """The version is that of the installed package."""
    done = randusers("--version")
    assert (done.returncode, done.stdout) == (0, f"{version('randusers-assets')}\n")


@pytest.mark.parametrize("command", NOTHING)
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
    """With less than it needs, a command ends before it begins: a sentence, and JSON without it."""
    call = ("sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *RANDUSERS, *command.split())
    error = f"the limit of {message}"
    sentence = f"randusers: {error}\n"
    done, as_json = run(*call), run(*call, "--json")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
    assert (as_json.returncode, as_json.stderr) == (1, sentence)
    assert json.loads(as_json.stdout) == {**NOTHING[command], "error": error}
