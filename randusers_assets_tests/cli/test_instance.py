"""`DAGSTER_HOME`: one that cannot keep a run ends the command in one sentence."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from randusers_assets.cli import instance
from randusers_assets.cli.instance import open_instance
from randusers_assets.cli.run import why_failed
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets_tests.cli.conftest import Randusers
from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import RANDUSERS, run
from randusers_sandbox.api import ApiSimulator, generated_users

NO_YAML = "{home}, is no directory with a dagster.yaml: mkdir -p {home} && cp dagster.yaml {home}"
KEEPS_NO_RUNS = (
    "{{home}}, keeps no runs ({}): make it and its files writable, with 8 MB free, or name another"
    " directory."
)
# Root may write everywhere, but not without its capabilities.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
PREFIX = UNPRIVILEGED if os.geteuid() == 0 and shutil.which(UNPRIVILEGED[0]) else ()


def _replace_by_a_file(home: Path) -> None:
    shutil.rmtree(home)
    home.touch()


def _make_read_only(home: Path) -> None:
    if os.geteuid() == 0 and not PREFIX:
        pytest.skip("no setpriv takes from root the right to write everywhere")
    home.chmod(0o500)


def _make_database_read_only(home: Path) -> None:
    (home / "history").mkdir()
    (home / "history" / "runs.db").touch(0o400)
    _make_read_only(home)
    home.chmod(0o700)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "read-only": (_make_read_only, KEEPS_NO_RUNS.format("Permission denied")),
    "database read-only": (
        _make_database_read_only,
        KEEPS_NO_RUNS.format("{home}/history/runs.db is read-only"),
    ),
}
SPOILED_FOR_ALL: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, NO_YAML),
    "a file": (_replace_by_a_file, NO_YAML),
    "no dagster.yaml": (lambda home: (home / "dagster.yaml").unlink(), NO_YAML),
    "history a file": (
        lambda home: (home / "history").touch(),
        KEEPS_NO_RUNS.format("File exists"),
    ),
    "database a directory": (
        lambda home: (home / "history" / "runs.db").mkdir(parents=True),
        KEEPS_NO_RUNS.format("unable to open database file"),
    ),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_run_without_a_usable_dagster_home_says_what_to_do(
    api: ApiSimulator, home: Path, spoiled: str
) -> None:
    """One sentence that names the directory, before the API gets a request."""
    spoil, message = SPOILED[spoiled]
    spoil(home)
    done = run(*PREFIX, *RANDUSERS, "run", DAGSTER_HOME=str(home))
    sentence = f"randusers: DAGSTER_HOME, {message.format(home=home)}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
    assert api.requests == 0


def open_spoiled(monkeypatch: pytest.MonkeyPatch, home: str) -> str:
    """What is said of a `DAGSTER_HOME` that no instance can be opened in."""
    monkeypatch.setenv("DAGSTER_HOME", home)
    with pytest.raises(SnapshotError) as refused, open_instance():
        pass
    return str(refused.value)


@pytest.mark.parametrize("spoiled", SPOILED_FOR_ALL)
def test_instance_is_not_opened_where_it_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path, spoiled: str
) -> None:
    """The sentence that the commands end in, for a directory that nobody could use."""
    spoil, message = SPOILED_FOR_ALL[spoiled]
    spoil(home)
    sentence = f"DAGSTER_HOME, {message.format(home=home)}"
    assert open_spoiled(monkeypatch, str(home)) == sentence


@pytest.mark.usefixtures("api")
def test_doctor_shows_how_to_fix_dagster_home(home: Path, randusers_here: Randusers) -> None:
    """The same sentence is the line of the instance."""
    shutil.rmtree(home)
    done = randusers_here("doctor", DAGSTER_HOME=str(home))
    line = f"FAIL  instance     DAGSTER_HOME, {NO_YAML.format(home=home)}"
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (1, line, "")


@pytest.mark.parametrize(
    ("content", "error"),
    [("telemetry: [", "ParserError"), ("telemetry: 1", "DagsterInvalidConfigError")],
    ids=["no YAML", "wrong YAML"],
)
def test_instance_names_a_dagster_yaml_that_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, home: Path, content: str, error: str
) -> None:
    """The sentence names the file, quotes nothing of it, and the command that shows the details."""
    (home / "dagster.yaml").write_text(content)
    why = f"cannot be used ({error}): `dagster instance info` shows why."
    assert open_spoiled(monkeypatch, str(home)) == f"{home}/dagster.yaml {why}"


def test_instance_needs_an_absolute_dagster_home(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """A relative path is answered with the absolute one."""
    monkeypatch.chdir(home.parent)
    sentence = f"DAGSTER_HOME, home, is relative: set it to {home}."
    assert open_spoiled(monkeypatch, "home") == sentence


def test_instance_may_keep_its_runs_in_another_database(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """With storage other than SQLite files, the directory is not written to."""
    # Without `+psycopg2`, SQLAlchemy looks for another driver, which is not installed.
    postgres = "storage: {postgres: {postgres_url: 'postgresql://127.0.0.1:9/dagster'}}"
    (home / "dagster.yaml").write_text(postgres)
    monkeypatch.setattr(instance, "_INSTANCE_BYTES", 1 << 60)  # more than any disk has
    missing = "cannot be used (ModuleNotFoundError): `dagster instance info` shows why."
    assert open_spoiled(monkeypatch, str(home)) == f"{home}/dagster.yaml {missing}"


@pytest.mark.usefixtures("api")
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare gives a disk of one's own")
def test_run_needs_room_in_dagster_home(home: Path) -> None:
    """On a disk of 4 MB, the sentence says that it is full."""
    shell = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    script = 'mount -t tmpfs -o size=4m none "$0" && cp dagster.yaml "$0" && exec "$@"'
    done = run(*shell, script, str(home), *RANDUSERS, "run", DAGSTER_HOME=str(home))
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip("this machine lets no user mount a disk of their own")
    message = KEEPS_NO_RUNS.format("No space left on device").format(home=home)
    assert (done.returncode, done.stderr) == (1, f"randusers: DAGSTER_HOME, {message}\n")


def _run_and_spoil(home: Path, tmp_path: Path, spoil: Callable[[int], object]) -> tuple[int, str]:
    """Spoil something once a run has sent a request; the run's exit status and stderr."""
    with (
        ApiSimulator(generated_users(500, tmp_path), latency_seconds=1) as slow,
        subprocess.Popen(  # noqa: S603  # this project's own command line
            [*RANDUSERS, "run"],
            env=os.environ | {"RANDUSERS_API_URL": slow.url, "DAGSTER_HOME": str(home)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        while slow.requests < 1:
            assert process.poll() is None
            time.sleep(0.02)
        spoil(process.pid)
        _, stderr = process.communicate(timeout=patience(60))
    return process.returncode, stderr


@pytest.mark.usefixtures("api")
def test_run_that_loses_its_dagster_home_says_so_last(home: Path, tmp_path: Path) -> None:
    """The sentence is the last line, and there is no stack."""
    status, stderr = _run_and_spoil(home, tmp_path, lambda _: shutil.rmtree(home / "history"))
    message = KEEPS_NO_RUNS.format("unable to open database file").format(home=home)
    assert (status, stderr.splitlines()[-1]) == (1, f"randusers: DAGSTER_HOME, {message}")
    assert "Traceback" not in stderr


def test_run_that_fails_outside_of_its_steps_says_why() -> None:
    """Where no step failed, the first line of the run's own error is in the sentence."""

    @dg.resource
    def broken_resource() -> None:
        raise ValueError("no room\n[parameters: ada@example.com]")

    @dg.job(resource_defs={"broken": broken_resource})
    def broken_job() -> None:
        dg.op(name="read", required_resource_keys={"broken"})(lambda: None)()

    assert why_failed(broken_job.execute_in_process(raise_on_error=False)) == (
        "The run failed outside of its steps (ValueError: no room): see whether DAGSTER_HOME is"
        " writable and whether `ulimit -n` allows more open files, and run again."
    )
