"""Settings: one table, and one sentence for each wrong value."""

import re
from pathlib import Path

import dagster as dg
import pytest

from randusers_assets.settings import SETTINGS, setting

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_default_has_the_form_of_its_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every default is a value that the setting itself allows."""
    monkeypatch.delenv(name, raising=False)
    assert setting(name) == SETTINGS[name].default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANDUSERS_PAGE_SIZE", "0"),
        ("RANDUSERS_PAGE_SIZE", "ten"),
        ("RANDUSERS_CONCURRENCY", "100"),
        ("RANDUSERS_API_URL", "ftp://example.com"),
        ("RANDUSERS_START_DATE", "yesterday"),
        ("RANDUSERS_CRON", "daily"),
        ("RANDUSERS_MAX_REJECTED_RATIO", "1.5"),
        ("RANDUSERS_ALERT_WEBHOOK_URL", "hooks.example.com"),
    ],
)
def test_setting_of_the_wrong_form_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong value ends in one sentence that names the setting and not the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.DagsterInvalidDefinitionError) as raised:
        setting(name)
    assert str(raised.value) == (
        f"{name} is not {SETTINGS[name].expected}: correct it in the environment or in .env."
    )


def test_setting_given_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the right form replaces the default."""
    monkeypatch.setenv("RANDUSERS_MAX_REJECTED_RATIO", "0.05")
    assert setting("RANDUSERS_MAX_REJECTED_RATIO") == "0.05"


def test_settings_table_of_the_readme_is_the_one_in_the_code() -> None:
    """The README documents every setting with its default and meaning, and no other."""
    rows = re.findall(r"^\| `(RANDUSERS_\w+)` \| (.*?) \| (.*?) \|$", _read("README.md"), re.M)
    assert rows == [
        (name, f"`{known.default}`" if known.default else "none", known.meaning)
        for name, known in SETTINGS.items()
    ]


def test_settings_example_is_the_one_in_the_code() -> None:
    """`.env.example` holds every setting with its default, commented out."""
    lines = re.findall(r"^# (RANDUSERS_\w+)=(.*)$", _read(".env.example"), re.M)
    assert lines == [(name, known.default) for name, known in SETTINGS.items()]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
