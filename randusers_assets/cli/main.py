"""`randusers run | verify | doctor | sandbox`."""

import argparse
import atexit
import gc
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path

# With less, libraries end the process themselves, or Dagster prints its own errors.
_LEAST = {
    "open files": (resource.RLIMIT_NOFILE, 128, "ulimit -n 128"),
    "memory in bytes": (resource.RLIMIT_AS, 1 << 30, f"ulimit -v {1 << 20}"),
}


def main() -> int:
    """Run the command line; 0 is success, 1 a failure in one sentence, 2 a usage error."""
    parser = argparse.ArgumentParser(prog="randusers", description="The users snapshot.")
    commands = parser.add_subparsers(dest="command", required=True)

    today = datetime.now(UTC).date().isoformat()
    run = commands.add_parser("run", help="run users_snapshot_job once, on this instance")
    run.add_argument("--date", type=_day, default=today, help="partition (default: today, UTC)")
    run.add_argument("--head", type=int, default=0, metavar="N", help="show N rows, masked")

    verify = commands.add_parser("verify", help="prove a publication again, from the bucket alone")
    which = verify.add_mutually_exclusive_group()
    which.add_argument("--date", type=_day, help="the day to prove")
    which.add_argument("--latest", action="store_true", help="the last published day (default)")

    commands.add_parser("doctor", help="check the setup, and say how to fix it")

    in_sandbox = "run a command against a simulated API and a local S3"
    sandbox = commands.add_parser("sandbox", help=in_sandbox)
    sandbox.add_argument("--users", type=int, default=500, help="generated users (default: 500)")
    sandbox.add_argument("--users-file", type=Path, help="serve this JSON array of users instead")
    sandbox.add_argument("--directory", type=Path, help="keep the objects here")
    sandbox.add_argument("--latency-ms", type=float, default=0, help="wait before each answer")
    sandbox.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")

    given = parser.parse_args()
    return _sandbox(given) if given.command == "sandbox" else _run_command(given)


def _run_command(given: argparse.Namespace) -> int:
    """Run a command that needs Dagster; print its failure as one sentence."""
    for what, (limit, least, command) in _LEAST.items():
        allowed, _ = resource.getrlimit(limit)
        if allowed != resource.RLIM_INFINITY and allowed < least:
            return _fail(f"the limit of {what} is {allowed:,}: raise it (`{command}`, or higher).")
    # Import with the GC off, then freeze: scanning Dagster's objects costs as much as 500 rows.
    gc.disable()
    import dagster as dg
    from dotenv import load_dotenv

    from randusers_assets.pipeline.errors import SnapshotError
    from randusers_assets.pipeline.storage.tempfiles import explain_host_limits

    load_dotenv(".env")  # as `dagster dev` does; here, what is set already wins
    atexit.register(gc.freeze)
    try:
        from randusers_assets.cli.doctor import doctor
        from randusers_assets.cli.run import run, verify_and_print

        gc.freeze()
        gc.enable()
        with explain_host_limits():
            match given.command:
                case "run":
                    return run(given.date, given.head)
                case "verify":
                    return verify_and_print(given.date)
                case _:
                    return doctor()
    except (SnapshotError, dg.DagsterInvalidDefinitionError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"randusers: {message}", file=sys.stderr)
    return 1


def _day(text: str) -> str:
    from randusers_assets.pipeline.errors import SnapshotError
    from randusers_assets.pipeline.storage.paths import require_day

    try:
        return require_day(text)
    except SnapshotError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
