"""The settings: environment variables, their defaults and their form.

Dagster is imported where it is used: `randusers contract` starts without it.
"""

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage.paths import require_day


class Setting(NamedTuple):
    """One variable: its default, the form of a value, and what it is for."""

    default: str
    form: str | Callable[[str], bool]
    expected: str
    meaning: str
    secret: bool = False


def _is_past_day(value: str) -> bool:
    try:
        return value == require_day(value) <= datetime.now(UTC).date().isoformat()
    except SnapshotError:
        return False


def _is_cron(value: str) -> bool:
    import dagster as dg

    try:
        dg.ScheduleDefinition(name="any", job_name="any", cron_schedule=value)
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


URL = r"https?://[^\s?#]+"

SETTINGS: Mapping[str, Setting] = {
    "RANDUSERS_BUCKET": Setting(
        "", r"arn:\S+|[^\s/]*", "a bucket's name alone, without s3:// and /", "For snapshots"
    ),
    "RANDUSERS_BUCKET_OWNER": Setting(
        "", r"(\d{12})?", "an AWS account id of 12 digits", "Bucket's account"
    ),
    "RANDUSERS_PREFIX": Setting("", r"\S*", "a key prefix", "Key prefix"),
    "RANDUSERS_API_URL": Setting(
        CONTRACT.url, URL, "an http(s) URL without a query", "Users API", secret=True
    ),
    "RANDUSERS_API_TOKEN": Setting(
        "", r"([A-Za-z0-9._~+/-]+=*)?", "a bearer token (RFC 6750)", "Bearer token", secret=True
    ),
    "RANDUSERS_PAGE_SIZE": Setting("500", r"[1-9]\d{0,5}", "a count from 1", "Rows a page"),
    "RANDUSERS_CONCURRENCY": Setting("8", r"[1-9]\d?", "1 to 99", "Parallel downloads"),
    "RANDUSERS_DEADLINE_SECONDS": Setting(
        "3600", r"[1-9]\d{0,5}", "a count of seconds from 1", "Per snapshot"
    ),
    "RANDUSERS_START_DATE": Setting(
        "2026-11-01", _is_past_day, "a day until today such as 2026-11-01", "First partition"
    ),
    "RANDUSERS_CRON": Setting(
        "0 6 * * *", _is_cron, "a cron schedule such as 0 6 * * *", "Schedule, UTC"
    ),
    "RANDUSERS_MAX_REJECTED_RATIO": Setting(
        "0", r"0|1|0?\.\d+|[01]\.0*", "a share from 0 to 1", "Allowed share of bad rows"
    ),
    "RANDUSERS_PUBLISH_PARQUET": Setting("on", r"on|off", "on or off", "Also as Parquet"),
    "RANDUSERS_KMS_KEY_ID": Setting("", r"\S*", "a KMS key id or ARN", "SSE-KMS key"),
    "RANDUSERS_ALERT_WEBHOOK_URL": Setting(
        "", r"(https?://\S+)?", "an http(s) URL", "Receives alerts", secret=True
    ),
    "RANDUSERS_HEARTBEAT_URL": Setting(
        "", r"(https?://\S+)?", "an http(s) URL", "Pinged when published", secret=True
    ),
    "RANDUSERS_UI_URL": Setting(
        "http://localhost:3000", URL, "an http(s) URL", "Alerts link here", secret=True
    ),
}


def read_setting(name: str) -> str:
    """The value of a setting, or its default; SnapshotError on a wrong form."""
    return _check(name, os.environ.get(name) or SETTINGS[name].default)


def setting(name: str) -> str:
    """The same for Dagster's definitions; DagsterInvalidDefinitionError on a wrong form."""
    import dagster as dg

    try:
        return read_setting(name)
    except SnapshotError as error:
        raise dg.DagsterInvalidDefinitionError(str(error)) from None


def setting_for_a_run(name: str) -> str:
    """A setting that may hold a secret, for a resource: Dagster reads it in a run and not before.

    So Dagster's UI and database have the variable's name, or the default if it is not set.
    """
    import dagster as dg

    variable = dg.EnvVar(name)
    return variable if variable.get_value() else SETTINGS[name].default


def checked_setting(name: str, value: str) -> str:
    """The value, by now read, if it has the form of the setting; else SnapshotError."""
    import dagster as dg

    return read_setting(name) if isinstance(value, dg.EnvVar) else _check(name, value)


def _check(name: str, value: str) -> str:
    known = SETTINGS[name]
    if isinstance(known.form, str):
        fits = re.fullmatch(known.form, value) is not None
    else:
        fits = known.form(value)
    if not fits:
        is_not = "is not" if known.secret else f"is {value!r}, not"
        raise SnapshotError(
            f"{name} {is_not} {known.expected}: correct it in the environment or in .env."
        )
    return value
