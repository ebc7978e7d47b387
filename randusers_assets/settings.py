"""The settings: one table of environment variables, their defaults and what they must look like."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True)
class Setting:
    """One variable: its default, the form a value must have, and what it is for."""

    default: str
    form: str
    expected: str
    meaning: str


API_URL = "https://api.freeapi.app/api/v1/public/randomusers"

SETTINGS: Mapping[str, Setting] = {
    "RANDUSERS_BUCKET": Setting("", r".*", "a bucket's name", "Bucket that the snapshots go to"),
    "RANDUSERS_PREFIX": Setting("", r"[^\s]*", "a key prefix", "Prefix of every key"),
    "RANDUSERS_API_URL": Setting(
        API_URL, r"https?://[^\s?#]+", "an http(s) URL without a query", "The users API"
    ),
    "RANDUSERS_PAGE_SIZE": Setting("500", r"[1-9]\d{0,5}", "a count from 1", "Users a page"),
    "RANDUSERS_CONCURRENCY": Setting("8", r"[1-9]\d?", "1 to 99", "Pages in flight at once"),
    "RANDUSERS_START_DATE": Setting(
        "2026-11-01", r"\d{4}-[01]\d-[0-3]\d", "a day such as 2026-11-01", "First partition"
    ),
    "RANDUSERS_CRON": Setting(
        "0 6 * * *", r"\S+( \S+){4}", "five cron fields", "When the schedule ticks, UTC"
    ),
    "RANDUSERS_MAX_REJECTED_RATIO": Setting(
        "0", r"0|1|0?\.\d+|1\.0*|0\.0*", "a share from 0 to 1", "Users that may be set aside"
    ),
    "RANDUSERS_KMS_KEY_ID": Setting(
        "", r"\S*", "a KMS key id or ARN", "SSE-KMS key; else the bucket's default encryption"
    ),
    "RANDUSERS_ALERT_WEBHOOK_URL": Setting(
        "", r"(https?://\S+)?", "an http(s) URL", "A failed run posts here"
    ),
    "RANDUSERS_UI_URL": Setting(
        "http://localhost:3000", r"https?://[^\s?#]+", "an http(s) URL", "The UI alerts link to"
    ),
}


def setting(name: str) -> str:
    """The value of a setting, or its default where the variable is unset or empty.

    Raises:
        dagster.DagsterInvalidDefinitionError: the value does not have the setting's form.
    """
    known = SETTINGS[name]
    value = dg.EnvVar(name).get_value() or known.default
    if not re.fullmatch(known.form, value):
        raise dg.DagsterInvalidDefinitionError(
            f"{name} is not {known.expected}: correct it in the environment or in .env."
        )
    return value
