"""docs/operations.md: its figures are those of real runs, its commands do what it says."""

import re
import shlex
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore import xform_name
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy  # not a public name

from randusers_assets import sensors
from randusers_assets.assets import users_csv
from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.snapshot import SPACE_FACTOR
from randusers_assets.pipeline.publish.receipt import HISTORY_DAYS
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.steps import run_snapshot
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.multipart import PART_BYTES
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.resources import RandomUsersApi
from randusers_assets_tests.builders import users
from randusers_assets_tests.pipeline.publish import bucket
from randusers_assets_tests.pipeline.storage.s3_proxy import Request, s3_proxy
from randusers_assets_tests.sandbox.processes import randusers
from randusers_sandbox.api import ApiSimulator
from randusers_sandbox.s3 import LocalS3
from randusers_sandbox.user_file import generated_users

OPERATIONS = Path("docs/operations.md").read_text(encoding="utf-8")
WORDS = " ".join(OPERATIONS.split())
DAY = "2026-11-23"  # of the commands
CSV = f"users_csv/dt={DAY}/users.csv"


def test_operations_count_the_requests_of_a_run(
    store: Store, s3_server: LocalS3, tmp_path: Path
) -> None:
    """The table has the requests of the first and of a repeated run of a day; so do the bytes."""
    today = datetime.now(UTC).date()
    rows, seen = 2_000, list[Request]()
    with ApiSimulator(generated_users(rows, tmp_path)) as api:
        run_snapshot(RandomUsersApi(url=api.url).api, store, CONTRACT, str(today - timedelta(1)))
        with s3_proxy(s3_server.endpoint_url, seen.append) as url:
            environment = {
                "RANDUSERS_BUCKET": store.bucket,
                "RANDUSERS_API_URL": api.url,
                "AWS_ENDPOINT_URL_S3": url,
            }
            for run in ("first of the day", "repeated, data unchanged"):
                api.requests, before = 0, len(seen)
                ran = randusers("run", **environment)
                assert ran.returncode == 0, ran.stderr
                count = Counter(request.method for request in seen[before:])
                assert api.requests == rows / 500
                line = f"| {run} | 1 a page | {count['PUT']} | {count['GET']} | {count['HEAD']} |"
                assert line in OPERATIONS
    bytes_a_row = {
        kind: max(len(one.body) for one in seen if f"/{kind}/dt=" in one.path) / rows
        for kind in ("raw_users", "users_df", "users_csv")
    }
    sizes = r"about (\d+) bytes in the raw snapshot, (\d+) in the Parquet file and (\d+) in the CSV"
    (told,) = re.findall(sizes, WORDS)
    # Compressed bytes differ a little with the platform.
    assert list(bytes_a_row.values()) == pytest.approx([int(size) for size in told], rel=0.1)
    assert SPACE_FACTOR * bytes_a_row["raw_users"] <= 1_200


def test_operations_sizes_are_those_of_the_code() -> None:
    """Factor, parts and days are the code's; the Job of a run asks for what the text says."""
    assert f"{SPACE_FACTOR} times the compressed raw snapshot" in WORDS
    assert f"larger than {PART_BYTES // 1024**2} MiB" in WORDS
    assert f"no day was published in the last {HISTORY_DAYS}" in WORDS
    values = yaml.safe_load(Path("deploy/k8s/values.yaml").read_text(encoding="utf-8"))
    runs = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    resources = runs["containerConfig"]["resources"]
    asked = {"memory": "1Gi", "ephemeral-storage": "2Gi"}
    assert (resources["limits"], resources["requests"]) == (asked, asked | {"cpu": "1"})
    (megabytes,) = re.findall(r"\| memory \| 1 GiB\. All processes of a run take (\d+) MB", WORDS)
    results = Path("benchmarks/results.md").read_text(encoding="utf-8")
    assert re.search(rf"\| 1,000,000 \| ours, second day \|.*\| {megabytes} \(", results)
    assert "`values.yaml` asks for 2 GiB" in WORDS


def test_operations_explain_each_alert() -> None:
    """What the table quotes is in the texts of the alerts, and the hours are the policy's."""
    quoted = re.findall(r'^\| "(.*?)" ', OPERATIONS, re.M)
    fixed = [part for quote in quoted for part in re.split(r"\.\.\.|DAY|GATE", quote)]
    source = re.sub(r'"\n\s*f?"', "", Path(sensors.__file__).read_text(encoding="utf-8"))
    assert [part for part in map(str.strip, fixed) if part not in source] == []
    (policy,) = (spec.freshness_policy for spec in users_csv.specs)
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    hours = policy.fail_window.to_timedelta() / timedelta(hours=1)
    assert f"no day was published for {hours:.0f} hours" in WORDS


def s3api(command: str, store: Store, **given: str) -> Any:  # noqa: ANN401  # what S3 answers
    """Run an `aws s3api` command of the text by boto3, from whose model the CLI is made."""
    for name, value in {"BUCKET": store.bucket, **given}.items():
        command = re.sub(rf"\b{name}\b", value, command)
    aws, tool, operation, *words = shlex.split(command)
    assert (aws, tool) == ("aws", "s3api")
    method = operation.replace("-", "_")
    shape = store.client.meta.service_model.operation_model(
        store.client.meta.method_to_api_mapping[method]
    ).input_shape
    assert shape is not None
    members = {f"--{xform_name(member, '-')}": member for member in shape.members}
    # `get-object` takes one name without an option: the file that it writes.
    options = dict(zip(words[::2], words[1::2], strict=False))
    return getattr(store.client, method)(**{members[name]: options[name] for name in options})


def test_operations_restore_an_older_csv(store: Store) -> None:
    """The commands find the proved version, make it the current one, and `verify` proves it."""
    store.client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    bucket.publish_users(store, DAY, users(10))
    old = bucket.csv_sha256(store, DAY)
    bucket.publish_users(store, DAY, users(11))
    assert bucket.csv_sha256(store, DAY) != old

    listing, get, head, copy = re.findall(r"^\$ (aws s3api .*)$", OPERATIONS, re.M)
    versions = [version["VersionId"] for version in s3api(listing, store)["Versions"]]
    digests = [sha256(s3api(get, store, VERSION=v)["Body"].read()).hexdigest() for v in versions]
    assert sorted(digests) == sorted({old, bucket.csv_sha256(store, DAY)})
    assert s3api(head, store, SHA256=old)["ContentLength"] > 0
    s3api(copy, store, VERSION=versions[digests.index(old)])
    assert bucket.csv_sha256(store, DAY) == old
    stored = store.client.head_object(
        Bucket=store.bucket, Key=paths.csv_path(CONTRACT, DAY), ChecksumMode="ENABLED"
    )
    assert stored["ContentType"] == "text/csv; charset=utf-8"
    assert "ChecksumSHA256" in stored
    with pytest.raises(SnapshotError, match=r"users\.parquet has another SHA-256"):
        list(verify(store, CONTRACT, DAY))
    for path in (paths.parquet_copy_path(CONTRACT, DAY), paths.data_package_path()):
        versions = s3api(listing.replace(CSV, path), store)["Versions"]
        s3api(copy.replace(CSV, path), store, VERSION=versions[1]["VersionId"])
    assert len(list(verify(store, CONTRACT, DAY))) == 6
