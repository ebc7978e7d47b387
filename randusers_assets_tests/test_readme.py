"""The documents: every command, figure, link and table in them is the project's own."""

import json
import re
import shlex
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import msgspec
import pytest
import yaml

from benchmarks import report
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import defs
from randusers_assets.pipeline.audit.gates import MAX_NULL_SHARE_CHANGE, MAX_ROW_CHANGE
from randusers_assets.pipeline.flatten.frames import FrameFacts
from randusers_assets.pipeline.publish.receipt import Receipt
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.sandbox.processes import RANDUSERS, randusers, run
from randusers_sandbox.s3 import LocalS3

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "users.csv"
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
}
README, CONTRIBUTING = DOCUMENTS["README.md"], DOCUMENTS["CONTRIBUTING.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ *\$ (.*)$", "\n".join(DOCUMENTS.values()), re.M)
OTHERS = r"dagster dev|\. \.venv/bin/activate|export |git pull$|sha256sum |.*GOLDEN"
COMPOSE_FILE = "deploy/docker/compose.yaml"  # as docs/operations.md exports it
VARIES = (
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r" +\d+\.\d\d s", " SECONDS"),
    (r"/[0-9a-f]{64}\.", "/SHA256."),
    # zstd's and Parquet's bytes differ with the platform; the CSV's do not.
    (r"(raw_users|users_df) +500 rows +[\d,]+ bytes", r"\1 500 rows SIZE bytes"),
)


def without_what_varies(text: str) -> list[str]:
    """The lines of an output, without what differs from run to run."""
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return text.splitlines()


def table(document: str) -> list[str]:
    """The names that the first column of a document's tables gives, in backticks."""
    cells = re.findall(r"^\| (`.*?) \|", DOCUMENTS[document], re.M)
    return re.findall(r"`([^`]+)`", " ".join(cells))


def test_readme_shows_what_the_demo_prints() -> None:
    """The block below `make demo` is the output of the command that the target runs."""
    (shown,) = re.findall(r"^\$ make demo\n(.*?)^\$ make test", README, re.M | re.S)
    (command,) = re.findall(r"^demo:.*\n\t(randusers .*)$", MAKEFILE, re.M)
    demo = run(*shlex.split(command.replace("randusers ", f"{shlex.join(RANDUSERS)} ")))
    assert without_what_varies(demo.stdout) == without_what_varies(shown), demo.stderr


@pytest.mark.parametrize("environment", [{}, {"RANDUSERS_PREFIX": "set"}])
def test_readme_copy_of_the_env_file_is_read(
    environment: dict[str, str], store: Store, s3_server: LocalS3, tmp_path: Path
) -> None:
    """`randusers` takes bucket and prefix from `.env`; what the environment sets wins."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = text.replace("# RANDUSERS_BUCKET=", f"RANDUSERS_BUCKET={store.bucket}")
    text = text.replace("# RANDUSERS_PREFIX=", "RANDUSERS_PREFIX=read")
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    environment = {**environment, "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url}
    verify = randusers("verify", cwd=str(tmp_path), **environment)
    prefix = environment.get("RANDUSERS_PREFIX", "read")
    latest = f"s3://{store.bucket}/{prefix}/_receipts/users_csv/latest.json"
    missing = "does not exist: no day is published; materialize users_csv first."
    assert (verify.returncode, verify.stderr) == (1, f"randusers: {latest} {missing}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_documents_show_commands_that_exist(command: str) -> None:
    """Each line after `$` names a target, a subcommand and its options, a file or a test."""
    program, *words = shlex.split(command, comments=True)
    match program.removeprefix(".venv/bin/"):
        case "make":
            assert re.search(rf"^{words[0]}:.*## ", MAKEFILE, re.M)
        case "randusers":
            usage = randusers(words[0], "--help").stdout
            options = " ".join(words).partition(" -- ")[0]
            assert set(re.findall(r"--[\w-]+", options)) <= set(re.findall(r"--[\w-]+", usage))
        case "pytest" if words[0] == "-k":
            tests = Path(__file__).parent.glob("test_*.py")
            assert any(f"def {words[1]}(" in path.read_text(encoding="utf-8") for path in tests)
        case "pytest" | "cp":
            assert (ROOT / words[0]).is_file()
        case "docker":
            assert words[0] == "compose"
            assert words[1] in ("build", "exec", "run", "up")
            services = yaml.safe_load((ROOT / COMPOSE_FILE).read_text(encoding="utf-8"))["services"]
            if words[1] == "exec":
                assert words[2] in services
                if words[3] == "randusers":
                    test_documents_show_commands_that_exist(shlex.join(words[3:]))
        case "aws":
            assert words[0] == "s3api"  # test_operations_restore_an_older_csv runs these
        case _:
            assert re.match(OTHERS, command)


def test_contributing_writes_the_golden_file_again() -> None:
    """The command for the golden file writes the bytes that it has, as the contract is the same."""
    _, option, code = shlex.split(next(one for one in COMMANDS if "GOLDEN" in one))
    printing = code.replace("t.GOLDEN.write_bytes", "import sys; sys.stdout.write(repr") + ")"
    assert run(sys.executable, option, printing, cwd=str(ROOT)).stdout == repr(GOLDEN.read_bytes())


def test_contributing_shows_what_make_help_prints() -> None:
    """`make help` lists every target, and CONTRIBUTING.md shows the list."""
    printed = run("make", "-s", "--no-print-directory", "help", cwd=str(ROOT)).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert sorted(line.split()[0] for line in printed.splitlines()) == sorted(phony.split())
    assert f"$ make help\n{printed}```" in CONTRIBUTING


def test_contributing_names_every_module() -> None:
    """The layout has each module of the package and each folder of the pipeline."""
    package = ROOT / "randusers_assets"
    modules = {path.name for path in package.glob("[!_]*.py")}
    folders = {f"pipeline/{path.parent.name}/" for path in package.glob("pipeline/*/__init__.py")}
    assert modules | folders | {"cli/", "pipeline/steps.py"} == set(table("CONTRIBUTING.md"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_link_to_what_exists(name: str) -> None:
    """Every file that a document links to or shows is there."""
    links = re.findall(r"\]\((?!http)([^)#]+)", DOCUMENTS[name])
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).is_file()] == []


def test_changelog_begins_with_the_version_of_the_package() -> None:
    """`randusers --version` is the release that the first heading announces, or before it."""
    (announced, *_) = re.findall(r"^## \[([\d.]+)\]", DOCUMENTS["CHANGELOG.md"], re.M)
    assert re.fullmatch(rf"{re.escape(announced)}(\.dev\d+)?", version("randusers-assets"))


def test_readme_links_to_every_document() -> None:
    """The README leads to each document and is itself of at most 700 words."""
    assert set(DOCUMENTS) - {"README.md"} <= set(re.findall(r"\]\(([^)]+)\)", README))
    assert len(README.split()) <= 700


def test_readme_names_the_commands_and_the_schedule() -> None:
    """The command table has each subcommand; the schedule exists under the README's name."""
    commands = [name.split()[1] for name in table("README.md") if name.startswith("randusers ")]
    assert f"{{{','.join(commands)}}}" in randusers("--help").stdout
    assert [f"`{schedule.name}`" in README for schedule in defs.schedules or []] == [True]


def test_readme_exception_is_a_run_config_that_dagster_takes() -> None:
    """The run config under "When a gate closes" is valid, and the bounds there are the code's."""
    (shown,) = re.findall(r"```yaml\n(.*?)\n```", README, re.S)
    config = json.loads(re.sub(r"(\w+):", r'"\1":', f"{{{shown}}}"))
    assert dg.validate_run_config(defs.resolve_job_def("users_snapshot_job"), config)
    rows, nulls = f"more than {MAX_ROW_CHANGE:.0%}", f"more than {MAX_NULL_SHARE_CHANGE:.0%}"
    assert f"{rows}, or a column's NULLs by {nulls} of the rows" in " ".join(README.split())


def test_readme_figures_are_those_of_the_benchmark() -> None:
    """The line on speed has the medians of benchmarks/results.json."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))

    def median(users: int, name: str, metric: str) -> float:
        every = results["rounds"]
        mine = (one for one in every if (one["users"], one["contender"]) == (users, name))
        return float(statistics.median(one[metric] for one in mine))

    names = (report.OURS, report.NAIVE, report.DLT)
    walls = {n: [median(n, name, "wall") for name in names] for n in (500, 1_000_000)}
    seconds = {n: [f"{s:.0f} s" if s > 10 else f"{s:.2g} s" for s in walls[n]] for n in walls}
    megabytes = [f"{median(1_000_000, name, 'pss_mb'):,.0f} MB" for name in names]
    ours, script, dlt = (f"{s} and {m}" for s, m in zip(seconds[1_000_000], megabytes, strict=True))
    small = "500 users take {}, mostly Dagster's start-up (script {}, dlt {})".format(*seconds[500])
    line = f"1,000,000 users take {ours} in all (pandas script {script}, dlt {dlt}); {small}."
    assert line in " ".join(README.split())


def test_documents_describe_the_objects_as_they_are() -> None:
    """Keys, receipt fields and footer fields in docs/ are those of the code."""
    receipt, footer = ({f.name for f in msgspec.structs.fields(s)} for s in (Receipt, FrameFacts))
    named = [getattr(paths, f"{what}_path") for what in ("raw", "frames", "rejects", "receipt")]
    keys = {path(CONTRACT, "2026-11-23", "SHA256") for path in named}
    dated = (
        *(paths.csv_path, paths.parquet_copy_path),
        *(paths.raw_pointer_path, paths.frames_pointer_path),
    )
    keys |= {path(CONTRACT, "2026-11-23") for path in dated}
    others = {paths.latest_path(CONTRACT), paths.data_package_path(), PROBE}
    assert set(table("docs/bucket.md")) == keys | others | footer
    assert set(table("docs/receipt.md")) == receipt


def test_faults_name_tests_that_exist() -> None:
    """Each row of docs/faults.md is held by a test of this suite."""
    named = set(re.findall(r"`(test_\w+)`", DOCUMENTS["docs/faults.md"]))
    files = Path(__file__).parent.rglob("test_*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    assert named - set(re.findall(r"^def (test_\w+)", code, re.M)) == set()
