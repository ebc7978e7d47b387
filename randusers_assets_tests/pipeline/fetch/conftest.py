"""The fixtures of a fetch: users to serve, and waits that take no time."""

import pytest

from randusers_assets.pipeline.fetch.client import ApiClient
from randusers_sandbox.api import UserSpool, generated_users


@pytest.fixture(scope="session")
def ten_users(tmp_path_factory: pytest.TempPathFactory) -> UserSpool:
    """Ten users: five pages of two."""
    return generated_users(10, tmp_path_factory.mktemp("users"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of every client of this process, each over at once."""
    begun: list[float] = []
    monkeypatch.setattr(ApiClient, "sleep", lambda _client, seconds: begun.append(seconds))
    return begun
