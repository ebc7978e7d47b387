"""What Dagster itself costs: three empty assets with as many checks, run like `randusers run`.

With the argument `gc-frozen`, it imports with the garbage collector off and freezes it, as there.
"""

import atexit
import gc
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

FROZEN = sys.argv[1:] == ["gc-frozen"]
if FROZEN:
    gc.disable()

import dagster as dg  # noqa: E402  # after the collector is off

DAILY = dg.DailyPartitionsDefinition("2026-11-01", timezone="UTC", end_offset=1)
CHECKS = {"raw_users": 3, "users_df": 9, "users_csv": 1}
warnings.filterwarnings("ignore", "Specifying a partitions_def", dg.PreviewWarning)


def empty(name: str, upstream: list[str]) -> dg.AssetsDefinition:
    """An asset that holds nothing."""

    @dg.asset(name=name, partitions_def=DAILY, deps=upstream)
    def nothing() -> None: ...

    return nothing


def gates(name: str, count: int) -> dg.AssetChecksDefinition:
    """Checks of one asset that always pass, in one op."""
    names = [f"{name}_fact_{number}" for number in range(count)]

    @dg.multi_asset_check(
        name=f"{name}_gates",
        specs=[
            dg.AssetCheckSpec(check, asset=name, blocking=True, partitions_def=DAILY)
            for check in names
        ],
    )
    def facts() -> Iterator[dg.AssetCheckResult]:
        for check in names:
            yield dg.AssetCheckResult(check_name=check, asset_key=name, passed=True)

    return facts


NAMES = list(CHECKS)
defs = dg.Definitions(
    assets=[empty(name, NAMES[:place][-1:]) for place, name in enumerate(NAMES)],
    asset_checks=[gates(name, count) for name, count in CHECKS.items()],
    jobs=[dg.define_asset_job("empty_job", NAMES, executor_def=dg.in_process_executor)],
)

if __name__ == "__main__":
    if FROZEN:
        gc.freeze()
        gc.enable()
        atexit.register(gc.freeze)
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("empty_job").execute_in_process(
            instance=instance,
            partition_key=datetime.now(UTC).date().isoformat(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    sys.exit(len(result.get_asset_check_evaluations()) != sum(CHECKS.values()))
