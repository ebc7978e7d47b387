"""`randusers run | verify | list | rebuild | doctor | contract | sandbox`."""

import argparse
import atexit
import gc
import json
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.formats import FORMATS

# With less, libraries end the process themselves, or Dagster prints its own errors.
_LEAST = {
    "open files": (resource.RLIMIT_NOFILE, 128, "ulimit -n 128"),
    "memory in bytes": (resource.RLIMIT_AS, 1 << 30, f"ulimit -v {1 << 20}"),
}


def main() -> int:
    """Run the command line; 0 is success, 1 a failure in one sentence, 2 a usage error."""
    parser = argparse.ArgumentParser(
        prog="randusers",
        description="The users snapshot.",
        **_examples("randusers doctor", "randusers sandbox -- randusers run --head 3"),
    )
    parser.add_argument("--version", action="version", version=version("randusers-assets"))
    commands = parser.add_subparsers(dest="command", required=True)

    today = datetime.now(UTC).date().isoformat()
    once = 'randusers run --accept-change "a region was closed"'
    run = commands.add_parser(
        "run",
        help="run users_snapshot_job once, on this instance",
        **_examples("randusers run --head 3", once),
    )
    run.add_argument("--date", type=_day, default=today, help="partition (default: today, UTC)")
    reason = "why the rows may differ this much from the last published ones; recorded"
    run.add_argument("--accept-change", default="", metavar="WHY", help=reason)
    shown = run.add_mutually_exclusive_group()
    shown.add_argument("--head", type=_count, default=0, metavar="N", help="show N rows, masked")

    verify = commands.add_parser(
        "verify",
        help="prove a publication again, from the bucket alone",
        **_examples("randusers verify", f"randusers verify --date {today}"),
    )
    which = verify.add_mutually_exclusive_group()
    which.add_argument("--date", type=_day, help="the day to prove")
    which.add_argument("--latest", action="store_true", help="the last published day (default)")

    listing = commands.add_parser(
        "list",
        help="list the published days, newest first",
        **_examples("randusers list", "randusers list --json"),
    )
    rebuild = commands.add_parser(
        "rebuild",
        help="publish days again from their raw snapshots",
        **_examples(
            "randusers rebuild --from 2026-11-23",
            "randusers rebuild --from 2026-11-20 --to 2026-11-23",
        ),
    )
    rebuild.add_argument("--from", type=_day, required=True, dest="first", metavar="DAY")
    rebuild.add_argument("--to", type=_day, dest="last", metavar="DAY", help="default: --from")

    doctor = commands.add_parser(
        "doctor",
        help="check the setup, and say how to fix it",
        **_examples("randusers doctor", "randusers doctor --json"),
    )
    for command in (shown, verify, listing, rebuild, doctor):
        command.add_argument("--json", action="store_true", help="print one JSON object instead")

    contract = commands.add_parser(
        "contract",
        help="print the CSV's columns as SQL, Python or a data contract",
        **_examples(
            "randusers contract --format duckdb",
            "randusers contract --format odcs --output users.odcs.yaml",
        ),
    )
    formats = ", ".join(FORMATS)
    contract.add_argument(
        "--format", required=True, choices=FORMATS, metavar="FORMAT", help=f"one of {formats}"
    )
    contract.add_argument("--output", type=Path, metavar="PATH", help="write to this file instead")

    sandbox = commands.add_parser(
        "sandbox",
        help="run a command against a simulated API and a local S3",
        **_examples(
            "randusers sandbox -- randusers run",
            "randusers sandbox --users 1000000 -- randusers run",
        ),
    )
    sandbox.add_argument("--users", type=int, default=500, help="generated users (default: 500)")
    sandbox.add_argument("--users-file", type=Path, help="serve this JSON array of users instead")
    sandbox.add_argument("--directory", type=Path, help="keep the objects here")
    sandbox.add_argument("--latency-ms", type=float, default=0, help="wait before each answer")
    everything = "simulate both, whatever is configured"
    sandbox.add_argument("--simulate-all", action="store_true", help=everything)
    sandbox.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")

    given = parser.parse_args()
    if given.command == "sandbox":
        return _sandbox(given)
    if given.command == "contract":
        return _contract(given)
    report = _empty_report(given)
    try:
        status = _run_command(given, report)
    except SnapshotError as error:
        report["error"] = str(error)
        status = _fail(str(error))
    if given.json:
        print(json.dumps(report))
    return status


def _run_command(given: argparse.Namespace, report: dict[str, Any]) -> int:
    """Run a command that needs Dagster; SnapshotError if it fails."""
    for what, (limit, least, command) in _LEAST.items():
        allowed, _ = resource.getrlimit(limit)
        if allowed != resource.RLIM_INFINITY and allowed < least:
            raise SnapshotError(
                f"the limit of {what} is {allowed:,}: raise it (`{command}`, or higher)."
            )
    # Import with the GC off, then freeze: scanning Dagster's objects costs as much as 500 rows.
    gc.disable()
    import dagster as dg
    from dotenv import load_dotenv

    from randusers_assets.pipeline.storage.tempfiles import explain_host_limits

    load_dotenv(".env")  # as `dagster dev` does; here, what is set already wins
    atexit.register(gc.freeze)
    try:
        from randusers_assets.cli.doctor import doctor
        from randusers_assets.cli.past import list_days, rebuild
        from randusers_assets.cli.run import run, verify_and_show

        gc.freeze()
        gc.enable()
        show: Callable[[str], object] = (lambda _: None) if given.json else print
        with explain_host_limits():
            match given.command:
                case "run":
                    return run(given.date, given.head, given.accept_change, report, show)
                case "verify":
                    return verify_and_show(given.date, report, show)
                case "list":
                    return list_days(report, show)
                case "rebuild":
                    return rebuild(given.first, given.last or given.first, report, show)
                case _:
                    return doctor(report, show)
    except dg.DagsterInvalidDefinitionError as error:
        raise SnapshotError(str(error)) from error


def _empty_report(given: argparse.Namespace) -> dict[str, Any]:
    """What `--json` prints, until the command fills it."""
    match given.command:
        case "run":
            facts = {"date": given.date, "outcome": None, "success": False}
            return {**facts, "checks": [], "assets": [], "error": None}
        case "verify":
            return {"date": given.date, "proved": [], "error": None}
        case "list" | "rebuild":
            return {"days": [], "error": None}
        case _:
            return {"parts": [], "error": None}


def _examples(*lines: str) -> dict[str, Any]:
    epilog = "\n  ".join(("examples:", *lines))
    return {"epilog": epilog, "formatter_class": argparse.RawDescriptionHelpFormatter}


def _fail(message: str) -> int:
    print(f"randusers: {message}", file=sys.stderr)
    return 1


def _day(text: str) -> str:
    from randusers_assets.pipeline.storage.paths import require_day

    try:
        return require_day(text)
    except SnapshotError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a count such as 3")
    return int(text)


def _contract(given: argparse.Namespace) -> int:
    from randusers_assets.cli.contract import write_contract

    try:
        write_contract(given.format, given.output)
    except SnapshotError as error:
        return _fail(str(error))
    return 0


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
            simulate_all=given.simulate_all,
        )
    except SandboxError as error:
        return _fail(str(error))


if __name__ == "__main__":
    sys.exit(main())
