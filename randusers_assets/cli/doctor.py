"""`randusers doctor`: what is set up, line by line, and how to mend what is not."""

import hashlib
import os
from collections.abc import Callable, Iterator

import dagster as dg

from randusers_assets.definitions import random_users_api, snapshot_store

_PROBE = "_doctor/probe.txt"


def examine() -> Iterator[tuple[str, bool, str]]:
    """Yield each part's name, whether it works, and what was seen or is to be done."""
    for part, look in (
        ("API", _api),
        ("credentials", _credentials),
        ("bucket", _bucket),
        ("instance", _instance),
    ):
        ok, said = _told(look)
        yield part, ok, said


def _told(look: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, look()
    except dg.Failure as failure:
        return False, failure.description or ""


def _api() -> str:
    return f"{random_users_api.url} declares {random_users_api.probe():,} users"


def _credentials() -> str:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        raise dg.Failure(f"{error}: correct AWS_PROFILE or the file that names it.") from error
    if found is None:
        raise dg.Failure(
            "none are found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " attach a role."
        )
    return f"found by boto3 ({found.method})"


def _bucket() -> str:
    body = b"randusers doctor was here\n"
    digest = hashlib.sha256(body).hexdigest()
    snapshot_store.put(_PROBE, body, digest, content_type="text/plain")
    read = snapshot_store.read(_PROBE)
    if read is None or read[0] != body:
        raise dg.Failure(
            f"{snapshot_store.uri(_PROBE)} was written but cannot be read: allow s3:GetObject, as"
            " deploy/iam-policy.json does."
        )
    return f"{snapshot_store.uri(_PROBE)} was written and read"


def _instance() -> str:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise dg.Failure(
            "is temporary: set DAGSTER_HOME to a directory with a copy of dagster.yaml, so that"
            " runs and checks are kept."
        )
    with dg.DagsterInstance.get() as instance:
        return f"keeps its runs in {instance.root_directory}"
