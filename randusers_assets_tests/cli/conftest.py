"""The command line as a person runs it: in a process, with an API and a bucket that answer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from randusers_assets.pipeline.storage.s3 import Store
from randusers_sandbox.api import ApiSimulator, generated_users
from randusers_sandbox.s3 import LocalS3

TODAY = datetime.now(UTC).date().isoformat()
DAY_BEFORE = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, store: Store, s3_server: LocalS3, tmp_path: Path
) -> Iterator[ApiSimulator]:
    """An API of 500 generated users; the environment names it and the empty bucket."""
    monkeypatch.setenv("RANDUSERS_BUCKET", store.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    with ApiSimulator(generated_users(500, tmp_path)) as simulator:
        monkeypatch.setenv("RANDUSERS_API_URL", simulator.url)
        yield simulator
