"""The settings: environment variables, their defaults and their form."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import dagster as dg

from randusers_assets.contract import CONTRACT


class Setting(NamedTuple):
    """One variable: its default, the form of a value, and what it is for."""

    default: str
    form: str
    expected: str
    meaning: str


URL = r"https?://[^\s?#]+"

SETTINGS: Mapping[str, Setting] = {
    "RANDUSERS_BUCKET": Setting("", r".*", "a bucket's name", "Bucket for the snapshots"),
    "RANDUSERS_PREFIX": Setting("", r"\S*", "a key prefix", "Prefix of every key"),
    "RANDUSERS_API_URL": Setting(
        CONTRACT.url, URL, "an http(s) URL without a query", "The users API"
    ),
    "RANDUSERS_PAGE_SIZE": Setting("500", r"[1-9]\d{0,5}", "a count from 1", "Rows a page"),
    "RANDUSERS_CONCURRENCY": Setting("8", r"[1-9]\d?", "1 to 99", "Pages downloaded at once"),
    "RANDUSERS_START_DATE": Setting(
        "2026-11-01", r"\d{4}-[01]\d-[0-3]\d", "a day such as 2026-11-01", "First partition"
    ),
    "RANDUSERS_CRON": Setting(
        "0 6 * * *", r"\S+( \S+){4}", "five cron fields", "When the schedule runs, UTC"
    ),
    "RANDUSERS_MAX_REJECTED_RATIO": Setting(
        "0", r"0|1|0?\.\d+|[01]\.0*", "a share from 0 to 1", "Share of rows that may be set aside"
    ),
    "RANDUSERS_KMS_KEY_ID": Setting(
        "", r"\S*", "a KMS key id or ARN", "SSE-KMS key (default: the bucket's encryption)"
    ),
    "RANDUSERS_ALERT_WEBHOOK_URL": Setting(
        "", r"(https?://\S+)?", "an http(s) URL", "Failed runs are posted here"
    ),
    "RANDUSERS_UI_URL": Setting(
        "http://localhost:3000", URL, "an http(s) URL", "The UI that alerts link to"
    ),
}


def setting(name: str) -> str:
    """The value of a setting, or its default; DagsterInvalidDefinitionError on a wrong form."""
    known = SETTINGS[name]
    value = dg.EnvVar(name).get_value() or known.default
    if not re.fullmatch(known.form, value):
        raise dg.DagsterInvalidDefinitionError(
            f"{name} is not {known.expected}: correct it in the environment or in .env."
        )
    return value
