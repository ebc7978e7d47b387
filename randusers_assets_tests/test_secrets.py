"""No secret reaches an object, the output, a log, the run database or what the UI is given."""

import base64
import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.sandbox.processes import python, randusers
from randusers_sandbox.api import Answer, ApiSimulator, users_from_json
from randusers_sandbox.s3 import LocalS3
from randusers_sandbox.users import user

CREDENTIALS = ("password", "salt", "md5", "sha1", "sha256")
USER_SECRETS = {f"a user's {name}": f"planted-{name}" for name in CREDENTIALS}
SETTING_SECRETS = {
    name: f"planted-{name.lower()}"
    for name in (
        "RANDUSERS_ALERT_WEBHOOK_URL",
        "RANDUSERS_HEARTBEAT_URL",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    )
}
API_SECRETS = {"RANDUSERS_API_URL": "planted-url-password", "RANDUSERS_API_TOKEN": "planted-tok"}
BASIC = base64.b64encode(f"ada:{API_SECRETS['RANDUSERS_API_URL']}".encode()).decode()
SECRETS = {**USER_SECRETS, **SETTING_SECRETS, **API_SECRETS, "Authorization: Basic": BASIC}

_SNAPSHOT = """
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from randusers_assets.definitions import defs, random_users_api, snapshot_store
print(serialize_value(RepositorySnap.from_def(defs.get_repository_def())))
for name in ("users_snapshot_job", "__ASSET_JOB"):
    print(serialize_value(defs.resolve_job_def(name).get_job_snapshot()))
print(random_users_api, snapshot_store)
print(random_users_api.api.url, random_users_api.api.token)
"""


class Denying(ApiSimulator):
    """Refuses every request."""

    def answer(self, page: str | None, limit: str | None) -> Answer:  # noqa: ARG002  # as inherited
        """Repeat what was sent, and the users."""
        told = {"message": str(self.request_headers), "data": self.users.slice(0, 3).decode()}
        return Answer(401, json.dumps(told).encode())


def _users() -> list[bytes]:
    """A good row, one to set aside, and one that does not fit the contract; all with secrets."""
    rows: list[dict[str, Any]] = [json.loads(user(number)) for number in (1, 2, 3)]
    for row in rows:
        row["login"] |= {name: USER_SECRETS[f"a user's {name}"] for name in CREDENTIALS}
    rows[1]["email"] = "nobody@@example.com"
    rows[2]["dob"] = {"Password": USER_SECRETS["a user's password"]}
    return [json.dumps(row).encode() for row in rows]


def _settings(url: str, credential: str, home: Path) -> dict[str, str]:
    """The settings of a process, with a secret in each that may hold one."""
    secret = API_SECRETS[credential]
    of_api = {
        "RANDUSERS_API_URL": {"RANDUSERS_API_URL": url.replace("//", f"//ada:{secret}@")},
        "RANDUSERS_API_TOKEN": {"RANDUSERS_API_URL": url, "RANDUSERS_API_TOKEN": secret},
    }
    receivers = {
        name: f"http://127.0.0.1:9/{SETTING_SECRETS[name]}"
        for name in ("RANDUSERS_ALERT_WEBHOOK_URL", "RANDUSERS_HEARTBEAT_URL")
    }
    return {
        **SETTING_SECRETS,
        **of_api[credential],
        **receivers,
        "RANDUSERS_MAX_REJECTED_RATIO": "1",
        "DAGSTER_HOME": str(home),
    }


def _stored(store: Store, endpoint_url: str) -> Iterator[tuple[str, bytes]]:
    """Every object of the bucket: its metadata, and its bytes, not compressed."""
    s3 = boto3.client("s3", endpoint_url=endpoint_url)
    for listed in s3.list_objects_v2(Bucket=store.bucket).get("Contents", []):
        found = s3.get_object(Bucket=store.bucket, Key=listed["Key"])
        body = found["Body"].read()
        if listed["Key"].endswith(".zst"):
            body = pa.CompressedInputStream(BytesIO(body), "zstd").read()
        if listed["Key"].endswith(".parquet"):
            body = str(pq.read_table(BytesIO(body)).to_pylist()).encode()
        yield f"{listed['Key']} {found['Metadata']}", body


def _kept(home: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of an instance; of a database every value, not compressed."""
    for path in filter(Path.is_file, home.rglob("*")):
        if path.suffix != ".db":
            yield str(path), path.read_bytes()
            continue
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                for row in database.execute(f'SELECT * FROM "{table}"'):  # noqa: S608  # its name
                    yield f"{path} {table}", b"\n".join(map(_as_bytes, row))


def _as_bytes(value: object) -> bytes:
    """A value of a row; Dagster compresses the snapshots of jobs."""
    if isinstance(value, bytes):
        with contextlib.suppress(zlib.error):
            return zlib.decompress(value)
        return value
    return str(value).encode()


def _leaks(places: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Which secret is where."""
    return [
        (name, place)
        for place, content in places
        for name, secret in SECRETS.items()
        if secret in place or secret.encode() in content
    ]


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch, store: Store, s3_server: LocalS3) -> None:
    """The environment names the test's own, empty bucket."""
    monkeypatch.setenv("RANDUSERS_BUCKET", store.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)


@pytest.mark.parametrize("credential", API_SECRETS)
def test_successful_run_leaves_no_secret(
    store: Store, s3_server: LocalS3, home: Path, tmp_path: Path, credential: str
) -> None:
    """Rows that are published and rows that are set aside are stored without their credentials."""
    with ApiSimulator(users_from_json(_users(), tmp_path)) as api:
        settings = _settings(api.url, credential, home)
        by_url = credential == "RANDUSERS_API_URL"
        commands = ["run --head 3", "verify", "doctor"] if by_url else ["run --head 3"]
        done = [randusers(*command.split(), **settings) for command in commands]
        authorization = api.request_headers["authorization"]
    assert {one.returncode for one in done} == {0}, [one.stderr for one in done]
    assert authorization in (f"Basic {BASIC}", f"Bearer {API_SECRETS['RANDUSERS_API_TOKEN']}")
    assert "published" in done[0].stdout
    objects = list(_stored(store, s3_server.endpoint_url))
    folders = {"raw_users", "users_df", "_rejects", "users_csv", "_receipts"}
    assert folders <= {key.partition("/")[0] for key, _ in objects}
    assert _leaks(objects) == []
    output = [one.stdout.encode() + one.stderr.encode() for one in done]
    assert _leaks(zip(commands, output, strict=True)) == []
    kept = list(_kept(home))
    assert any(b'"PipelineSnapshot"' in content for _, content in kept)
    assert any(b"ASSET_MATERIALIZATION" in content for _, content in kept)
    assert _leaks(kept) == []


@pytest.mark.parametrize("credential", API_SECRETS)
def test_failed_run_leaves_no_secret(
    store: Store, s3_server: LocalS3, home: Path, tmp_path: Path, credential: str
) -> None:
    """An API that repeats the credentials in its refusal, and users with it, is not quoted."""
    with Denying(users_from_json(_users(), tmp_path)) as api:
        done = randusers("run", **_settings(api.url, credential, home))
    assert (done.returncode, "HTTP 401" in done.stderr) == (1, True)
    kept = list(_kept(home))
    assert any(b"STEP_FAILURE" in content for _, content in kept)
    output = [("output", done.stdout.encode() + done.stderr.encode())]
    assert _leaks([*output, *kept, *_stored(store, s3_server.endpoint_url)]) == []


def test_definitions_hold_no_secret(home: Path) -> None:
    """The UI, the run database and a repr get variables' names; the values are there when used."""
    both = _settings("http://127.0.0.1:9/users", "RANDUSERS_API_TOKEN", home)
    both |= _settings("http://127.0.0.1:9/users", "RANDUSERS_API_URL", home)
    done = python("-c", _SNAPSHOT, **both)
    *snapshots, resources, used = done.stdout.splitlines()
    assert used == f"{both['RANDUSERS_API_URL']} {both['RANDUSERS_API_TOKEN']}", done.stderr
    assert len(snapshots) == 3
    for snapshot in snapshots:
        for name in API_SECRETS:
            assert f'{{"env": "{name}"}}' in snapshot.replace("\\", "")
    seen = "".join((*snapshots, resources, done.stderr))
    assert _leaks([("snapshot", seen.encode())]) == []
