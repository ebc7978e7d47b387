"""Settings: one table, and one sentence for each wrong value."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.settings import SETTINGS, checked_setting, setting, setting_for_a_run

ROOT = Path(__file__).parent.parent
TODAY = datetime.now(UTC).date()
# Two days on, as the day may change while the test runs.
FUTURE = TODAY + timedelta(days=2)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_default_has_its_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every default is a value that the setting itself allows, unset or empty."""
    monkeypatch.delenv(name, raising=False)
    assert setting(name) == SETTINGS[name].default
    monkeypatch.setenv(name, "")
    assert setting(name) == SETTINGS[name].default


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("RANDUSERS_PAGE_SIZE", "1", "0"),
        ("RANDUSERS_PAGE_SIZE", "10", "ten"),
        ("RANDUSERS_CONCURRENCY", "99", "100"),
        ("RANDUSERS_DEADLINE_SECONDS", "60", "0"),
        ("RANDUSERS_API_TOKEN", "a.B-c_9~+/==", "s3cr3t\u2028"),
        ("RANDUSERS_API_URL", "http://example.com", "ftp://example.com"),
        ("RANDUSERS_BUCKET", "lake", "s3://lake"),
        ("RANDUSERS_BUCKET", "arn:aws:s3:eu-west-1:1:accesspoint/lake", "lake/"),
        ("RANDUSERS_BUCKET_OWNER", "111122223333", "1111-2222-3333"),
        ("RANDUSERS_START_DATE", "2025-12-31", "yesterday"),
        ("RANDUSERS_START_DATE", "2024-02-29", "2026-02-31"),
        pytest.param("RANDUSERS_START_DATE", f"{TODAY}", f"{FUTURE}", id="start in the future"),
        ("RANDUSERS_START_DATE", "2025-12-01", "2025-12-1"),
        ("RANDUSERS_CRON", "30 5 * * 1-5", "daily"),
        ("RANDUSERS_CRON", "@daily", "99 99 * * *"),
        ("RANDUSERS_CRON", "0 0 29 2 *", "0 0 30 2 *"),
        ("RANDUSERS_MAX_REJECTED_RATIO", "0.05", "1.5"),
        ("RANDUSERS_PUBLISH_PARQUET", "off", "no"),
        ("RANDUSERS_ALERT_WEBHOOK_URL", "https://hooks.example.com", "hooks.example.com"),
        ("RANDUSERS_UI_URL", "https://ada:pw@dagster.example.com", "ada:pw@dagster.example.com"),
        ("RANDUSERS_HEARTBEAT_URL", "https://hc.example.com/a-b", "hc.example.com/a-b"),
    ],
)
def test_setting_of_the_wrong_form_is_named(
    name: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right value replaces the default; a wrong one is in the sentence, but for a secret."""
    monkeypatch.setenv(name, right)
    assert setting(name) == right
    monkeypatch.setenv(name, wrong)
    hidden = name.endswith(("_URL", "_TOKEN"))
    problem = f"{name} is not" if hidden else f"{name} is {wrong!r}, not"
    expected = SETTINGS[name].expected
    sentence = f"{problem} {expected}: correct it in the environment or in .env."
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=f"^{re.escape(sentence)}$"):
        setting(name)


@pytest.mark.parametrize("name", ["RANDUSERS_API_URL", "RANDUSERS_API_TOKEN"])
def test_setting_for_a_run_is_the_variable_where_it_is_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster then keeps its name; unset or empty, the default is no secret."""
    monkeypatch.setenv(name, "http://set")
    variable = setting_for_a_run(name)
    assert isinstance(variable, dg.EnvVar)
    assert variable.env_var_name == name
    monkeypatch.setenv(name, "")
    assert setting_for_a_run(name) == SETTINGS[name].default
    monkeypatch.delenv(name)
    assert setting_for_a_run(name) == SETTINGS[name].default
    assert not isinstance(setting_for_a_run(name), dg.EnvVar)


def test_checked_setting_reads_a_variable_that_dagster_has_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A value is checked as it is, a variable as what it holds now; neither is in the sentence."""
    name = "RANDUSERS_API_URL"
    monkeypatch.setenv(name, "http://set")
    assert checked_setting(name, dg.EnvVar(name)) == "http://set"
    assert checked_setting(name, "http://given") == "http://given"
    monkeypatch.setenv(name, "s3cr3t")
    for wrong in (dg.EnvVar(name), "s3cr3t", ""):
        with pytest.raises(SnapshotError) as refused:
            checked_setting(name, wrong)
        assert str(refused.value) == (
            f"{name} is not an http(s) URL without a query: correct it in the environment or in"
            " .env."
        )


def test_settings_are_documented_as_they_are_in_the_code() -> None:
    """The README and `.env.example` have every setting with its default, and no other."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(RANDUSERS_\w+)` \| (.*?) \| (.*?) \|$", readme, re.M) == [
        (name, f"`{known.default}`" if known.default else "none", known.meaning)
        for name, known in SETTINGS.items()
    ]
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    shown = re.findall(r"^# (RANDUSERS_\w+)=(.*)$", example, re.M)
    assert sorted(shown) == sorted((name, known.default) for name, known in SETTINGS.items())
    assert [name for name, _ in shown[:2]] == ["RANDUSERS_BUCKET", "RANDUSERS_START_DATE"]
