"""dlt as a peer: `rest_api` to `filesystem`, tuned by https://dlthub.com/docs/reference/performance.

Arguments: a new directory for dlt's state, and how many processes may normalize. `rest_api` yields
dicts, which dlt parses again with orjson and writes with Python's `csv`: its pyarrow writer takes
only Arrow tables.
"""

import os
import sys

import dlt
from dlt.destinations import filesystem
from dlt.sources.rest_api import rest_api_source

directory, workers = sys.argv[1], int(sys.argv[2])
dlt.config["runtime.dlthub_telemetry"] = False
dlt.config["restore_from_destination"] = False  # no table of its own state
dlt.config["data_writer.disable_compression"] = True
dlt.config["data_writer.buffer_max_items"] = 20_000
dlt.config["data_writer.file_max_items"] = 50_000  # a worker takes whole files
dlt.config["normalize.workers"] = workers

# Without hints, postcodes become two columns, by type, and timestamps are parsed and written anew.
TEXTS = ("location__postcode", "dob__date", "registered__date")

url, _, path = os.environ["RANDUSERS_API_URL"].rpartition("/")
source = rest_api_source(
    {
        "client": {
            "base_url": url,
            # With a total path, each page's JSON would be parsed twice; an empty page ends it too.
            "paginator": {"type": "page_number", "base_page": 1, "total_path": None},
        },
        "resources": [
            {
                "name": "users",
                "endpoint": {"path": path, "params": {"limit": 500}, "data_selector": "data.data"},
                "write_disposition": "append",
                "columns": {name: {"data_type": "text"} for name in TEXTS},
            }
        ],
    },
    name="randusers",
    parallelized=True,
)
pipeline = dlt.pipeline(
    pipeline_name="randusers",
    pipelines_dir=directory,
    destination=filesystem(bucket_url=f"s3://{os.environ['RANDUSERS_BUCKET']}"),
    dataset_name="dlt",
)
pipeline.run(source, loader_file_format="csv").raise_on_failed_jobs()
