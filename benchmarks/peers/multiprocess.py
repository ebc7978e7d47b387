"""Our own assets under the executor that Dagster uses by default: a process for each step."""

import sys
from datetime import UTC, datetime

import dagster as dg

from randusers_assets.definitions import defs as ours


def every_asset() -> dg.JobDefinition:
    """Build the job; each step's process does so again."""
    job = dg.define_asset_job("every_asset", executor_def=dg.multiprocess_executor)
    return dg.Definitions.merge(ours, dg.Definitions(jobs=[job])).resolve_job_def("every_asset")


if __name__ == "__main__":
    with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
        result = dg.execute_job(
            dg.reconstructable(every_asset),
            instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={"dagster/partition": datetime.now(UTC).date().isoformat()},
        )
        sys.exit(not result.success)
