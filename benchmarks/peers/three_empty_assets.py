"""What Dagster itself costs: three empty assets with as many checks, run like `randusers run`.

With `gc-frozen` it also imports dagster-aws, the garbage collector off and then frozen, as there.
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
    import dagster_aws.s3  # noqa: F401

import dagster as dg  # noqa: E402  # after the collector is off

DAILY = dg.DailyPartitionsDefinition("2026-11-01", timezone="UTC", end_offset=1)
CHECKS = {"raw_users": 3, "users_df": 9, "users_csv": 1}
NAMES = list(CHECKS)
warnings.filterwarnings("ignore", "Specifying a partitions_def", dg.PreviewWarning)


def gates(asset: str, count: int) -> dg.AssetChecksDefinition:
    """Checks of one asset that always pass, in one op."""
    specs = [
        dg.AssetCheckSpec(f"fact_{number}", asset=asset, blocking=True, partitions_def=DAILY)
        for number in range(count)
    ]

    @dg.multi_asset_check(name=f"{asset}_gates", specs=specs)
    def facts() -> Iterator[dg.AssetCheckResult]:
        for spec in specs:
            yield dg.AssetCheckResult(check_name=spec.name, asset_key=asset, passed=True)

    return facts


defs = dg.Definitions(
    assets=[
        dg.asset(name=name, partitions_def=DAILY, deps=NAMES[:place][-1:])(lambda: None)
        for place, name in enumerate(NAMES)
    ],
    asset_checks=[gates(asset, count) for asset, count in CHECKS.items()],
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
