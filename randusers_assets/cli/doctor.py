"""`randusers doctor`: what is set up, line by line, and how to fix what is not."""

import os
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError

from randusers_assets.cli.instance import open_instance
from randusers_assets.contract import CONTRACT
from randusers_assets.definitions import random_users_api, snapshot_store
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import redact_url
from randusers_assets.pipeline.fetch.snapshot import count_rows


def doctor(report: dict[str, Any], show: Callable[[str], object]) -> int:
    """Report and show for each part whether it works, with what was seen or what to do."""
    checks = {"API": _api, "credentials": _credentials, "bucket": _bucket, "instance": _instance}
    status = 0
    for part, check in checks.items():
        try:
            ok, text = True, check()
        except SnapshotError as error:
            ok, text, status = False, str(error), 1
        report["parts"].append({"part": part, "ok": ok, "text": text})
        show(f"{'ok' if ok else 'FAIL':<5} {part:<12} {text}")
    return status


def _api() -> str:
    api = random_users_api.api
    return f"{redact_url(api.url)} declares {count_rows(api, CONTRACT):,} rows"


def _credentials() -> str:
    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        raise SnapshotError(f"{error}: correct AWS_PROFILE or the file that names it.") from error
    if found is None:
        raise SnapshotError(
            "not found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach"
            " a role."
        )
    return f"found by boto3 ({found.method})"


def _bucket() -> str:
    return f"{snapshot_store.store.check_access()} was written and read"


def _instance() -> str:
    if not os.environ.get("DAGSTER_HOME"):
        raise SnapshotError(
            "temporary: set DAGSTER_HOME to a directory with a copy of dagster.yaml; otherwise run"
            " history is lost when the process stops."
        )
    with open_instance() as instance:
        return f"keeps its runs in {instance.root_directory}"
