"""`randusers run | verify | doctor | sandbox`."""

import argparse
import atexit
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")


def main() -> int:
    """Run the command line; 0 is success, 1 a failure told in one sentence, 2 a wrong call."""
    parser = argparse.ArgumentParser(prog="randusers", description="The users snapshot.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run users_snapshot_job once, on this instance")
    run.add_argument("--date", type=_day, default=None, help="partition (default: today, UTC)")
    run.add_argument("--head", type=int, default=0, metavar="N", help="show N rows, masked")
    run.set_defaults(run=lambda given: _told(_snapshot, given.date or _today(), given.head))

    verify = commands.add_parser("verify", help="prove a publication again, from the bucket alone")
    which = verify.add_mutually_exclusive_group()
    which.add_argument("--date", type=_day, default=None, help="the day to prove")
    which.add_argument("--latest", action="store_true", help="the last published day (default)")
    verify.set_defaults(run=lambda given: _told(_verify, given.date))

    doctor = commands.add_parser("doctor", help="say what is set up, and how to mend what is not")
    doctor.set_defaults(run=lambda _given: _told(_doctor))

    sandbox = commands.add_parser("sandbox", help="run a command with stand-ins for the API and S3")
    sandbox.add_argument("--users", type=int, default=500, help="generated users (default: 500)")
    sandbox.add_argument("--users-file", type=Path, help="serve this JSON array of users instead")
    sandbox.add_argument("--directory", type=Path, help="keep the objects here")
    sandbox.add_argument("--latency-ms", type=float, default=0, help="wait before each answer")
    sandbox.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    sandbox.set_defaults(run=_sandbox)

    given = parser.parse_args()
    status: int = given.run(given)
    return status


def _told(command: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    """The status of a command that needs Dagster; its failure is told in one sentence."""
    with _importing():
        import dagster as dg
    atexit.register(gc.freeze)
    try:
        return command(*args, **kwargs)
    except dg.Failure as failure:
        return _fail(failure.description or "")
    except dg.DagsterInvalidDefinitionError as error:
        return _fail(str(error))


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Keep the garbage collector from what imports make, all of which lasts as long as the process.

    Its walks over Dagster's hundreds of thousands of objects, as they come, in the run and as the
    process ends, took as long as all the rest of a run of 500 users.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _fail(sentence: str) -> int:
    print(f"randusers: {sentence}", file=sys.stderr)
    return 1


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _day(text: str) -> str:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-23") from None


def _snapshot(date: str, head: int) -> int:
    with _importing():
        from randusers_assets.cli.run import masked_rows, run_snapshot, summary

    outcome = run_snapshot(date)
    for line in summary(outcome):
        print(line)
    if outcome.success and head:
        for line in masked_rows(date, head):
            print(line)
    return 0 if outcome.success else _fail(outcome.sentence)


def _verify(date: str | None) -> int:
    with _importing():
        from randusers_assets.definitions import snapshot_store
        from randusers_assets.pipeline.publish.receipt import LATEST_PATH, read_latest
        from randusers_assets.pipeline.publish.verify import verify

    if date is None:
        latest = read_latest(snapshot_store)
        if latest is None:
            return _fail(f"{snapshot_store.uri(LATEST_PATH)} does not exist: publish a day first.")
        date = latest[0].date
    for proved in verify(snapshot_store, date):
        print(f"ok  {proved}")
    return 0


def _doctor() -> int:
    with _importing():
        from randusers_assets.cli.doctor import examine

    healthy = True
    for subject, ok, said in examine():
        healthy = healthy and ok
        print(f"{'ok  ' if ok else 'MEND'}  {subject:<12} {said}")
    return 0 if healthy else 1


def _sandbox(given: argparse.Namespace) -> int:
    from randusers_sandbox import supervisor
    from randusers_sandbox.user_file import SandboxError

    try:
        return supervisor.run(
            given.argv[1:] if given.argv[:1] == ["--"] else given.argv,
            users=given.users,
            users_file=given.users_file,
            directory=given.directory,
            latency_seconds=given.latency_ms / 1000,
        )
    except SandboxError as error:
        return _fail(str(error))


if __name__ == "__main__":
    sys.exit(main())
