"""The role of the stack, enforced by moto around real runs: it suffices, and less does not."""

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.steps import run_snapshot
from randusers_assets.pipeline.storage import multipart, s3
from randusers_assets.pipeline.storage.s3 import PROBE, Store
from randusers_assets_tests.builders import temp_file_of
from randusers_assets_tests.deploy.emulators import (
    Credentials,
    assume,
    client,
    deploy,
    free_port,
    run_emulator,
)
from randusers_assets_tests.pipeline.publish.bucket import message_of
from randusers_assets_tests.pipeline.storage.s3_proxy import Request, s3_proxy
from randusers_assets_tests.sandbox.processes import randusers
from randusers_sandbox.api import ApiSimulator, generated_users

DAY = "2026-11-22"
ACCOUNT = "123456789012"  # moto's
MIB = 1 << 20

Statements = Sequence[dict[str, Any]]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of moto, which enforces policies once `enforce` has said so."""
    port = free_port()
    module = ("moto.server", "-H", "127.0.0.1", "-p", str(port))
    unlimited = {"INITIAL_NO_AUTH_ACTION_COUNT": "inf"}
    with run_emulator(tmp_path_factory.mktemp("moto"), port, *module, **unlimited) as url:
        yield url


@pytest.fixture(scope="module")
def deployed(cloud: str) -> tuple[str, Statements]:
    """A bucket's name, and what the role of its stack allows, as CloudFormation resolved it."""
    stack = deploy(cloud, Prefix="lake/users/")
    return stack.name, stack.statements()


@dataclass(frozen=True)
class Role:
    """A role in moto, and the bucket that its policy is about."""

    url: str
    bucket: str
    credentials: Credentials

    @property
    def s3(self) -> Any:  # noqa: ANN401  # a boto3 client
        """The role's client."""
        return client("s3", self.url, self.credentials)

    def store(self, prefix: str = "lake/users") -> Store:
        """The bucket as a run of the role has it."""
        s3 = self.s3
        return Store(lambda: s3, self.bucket, prefix, owner=ACCOUNT)

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Have moto enforce the policy; outside, whoever asks may do anything."""
        set_actions_without_policy(self.url, "0")
        try:
            yield
        finally:
            set_actions_without_policy(self.url, "inf")

    def keys(self) -> list[str]:
        """The keys in the bucket."""
        listed = client("s3", self.url).list_objects_v2(Bucket=self.bucket)
        return [found["Key"] for found in listed.get("Contents", [])]

    def unfinished_uploads(self) -> list[str]:
        """The keys of uploads that are neither complete nor aborted."""
        listed = client("s3", self.url).list_multipart_uploads(Bucket=self.bucket)
        return [upload["Key"] for upload in listed.get("Uploads", [])]


def set_actions_without_policy(url: str, count: str) -> None:
    """Say how many actions moto takes before it enforces policies."""
    requests.post(f"{url}/moto-api/reset-auth", data=count, timeout=10).raise_for_status()


@pytest.fixture
def role_without(moto: str, deployed: tuple[str, Statements]) -> Callable[..., Role]:
    """Make a role that has the policy of the stack without some actions, and an empty bucket."""

    def make(*removed: str) -> Role:
        of, (statement,) = deployed
        bucket, name = (f"{what}-{uuid.uuid4().hex[:12]}" for what in ("bucket", "role"))
        allowed = [action for action in statement["Action"] if action not in removed]
        assert len(allowed) == len(statement["Action"]) - len(removed)
        resource = statement["Resource"].replace(of, bucket)
        document = {"Version": "2012-10-17"}
        policy = {**document, "Statement": [{**statement, "Action": allowed, "Resource": resource}]}
        anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        trust = {**document, "Statement": [anybody]}
        client("s3", moto).create_bucket(Bucket=bucket)
        iam = client("iam", moto)
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        return Role(moto, bucket, assume(moto, role["Arn"]))

    return make


def test_role_is_enough_for_a_run(role_without: Callable[..., Role], tmp_path: Path) -> None:
    """The job publishes and `verify` proves it; every request names the bucket's owner."""
    role, owners = role_without(), list[str | None]()

    def note(request: Request) -> None:
        owners.append(request.headers.get("x-amz-expected-bucket-owner"))

    with (
        ApiSimulator(generated_users(10, tmp_path)) as api,
        s3_proxy(role.url, note) as url,
        role.enforced(),
    ):
        settings = {
            **{name.upper(): value for name, value in role.credentials.items()},
            "AWS_ENDPOINT_URL_S3": url,
            "RANDUSERS_API_URL": api.url,
            "RANDUSERS_BUCKET": role.bucket,
            "RANDUSERS_BUCKET_OWNER": ACCOUNT,
            "RANDUSERS_PREFIX": "lake/users",
        }
        run = randusers("run", **settings)
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1].startswith("published ")
        verified = randusers("verify", **settings)
        assert verified.returncode == 0, verified.stderr
    assert set(owners) == {ACCOUNT}
    assert len(role.keys()) == 11  # one of each in docs/bucket.md


PUT = (
    "S3 refused s3:PutObject (AccessDenied): allow it to these credentials, as"
    f" deploy/iam-policy.json does. Or {ACCOUNT} does not own the bucket: correct"
    " RANDUSERS_BUCKET_OWNER."
)
GET = (
    "S3 refused s3:GetObject, or there is no such object (it says the same of both where"
    " s3:ListBucket is not allowed): allow s3:GetObject to these credentials, as"
    " deploy/iam-policy.json does, and see that the day is published."
    f" Or {ACCOUNT} does not own the bucket: correct RANDUSERS_BUCKET_OWNER."
)


@pytest.mark.parametrize(
    ("removed", "prefix", "refused"),
    [
        (["s3:GetObject"], "lake/users", GET),
        (["s3:PutObject"], "lake/users", PUT),
        ([], "lake/users2", PUT),
        ([], "", PUT),
    ],
)
def test_run_with_less_than_the_role_is_refused(
    role_without: Callable[..., Role], tmp_path: Path, removed: list[str], prefix: str, refused: str
) -> None:
    """Without an action, or below another prefix, a run ends at its probe and says what to do."""
    role = role_without(*removed)
    store = role.store(prefix)
    with ApiSimulator(generated_users(10, tmp_path)) as api, role.enforced():
        message = message_of(lambda: run_snapshot(Api(api.url), store, CONTRACT, DAY))
    assert message == f"{store.uri(PROBE)}: {refused}"
    assert role.keys() == ([store.key(PROBE)] if refused == GET else [])


@pytest.mark.parametrize("removed", [[], ["s3:AbortMultipartUpload"]])
def test_upload_that_fails_is_aborted_by_the_role(
    role_without: Callable[..., Role], monkeypatch: pytest.MonkeyPatch, removed: list[str]
) -> None:
    """That alone needs s3:AbortMultipartUpload: without it, one succeeds and one leaves parts."""
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", MIB)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * MIB)
    role = role_without(*removed)
    store, body = role.store(), temp_file_of(bytes(6 * MIB))
    with role.enforced():
        store.put("whole", body, content_type="text/csv")
        with pytest.raises(SnapshotError) as caught:
            store.put("failed", body, content_type="text/csv", sha256="0" * 64)
    left = "because the abort failed (AccessDenied): allow s3:AbortMultipartUpload"
    assert (left in str(caught.value)) == bool(removed)
    assert role.unfinished_uploads() == ([store.key("failed")] if removed else [])
    assert role.keys() == [store.key("whole")]


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("delete_object", {}),
        ("put_object_acl", {"ACL": "public-read"}),
        ("put_object_tagging", {"Tagging": {"TagSet": []}}),
        ("list_objects_v2", {"Key": None}),
        ("list_multipart_uploads", {"Key": None}),
    ],
)
def test_role_may_do_nothing_else(
    role_without: Callable[..., Role], operation: str, given: dict[str, Any]
) -> None:
    """It deletes, lists and shares nothing, not even what it wrote."""
    role = role_without()
    with role.enforced():
        role.store().put("a", b"x", content_type="text/plain")
        request = {"Bucket": role.bucket, "Key": "lake/users/a", **given}
        request = {name: value for name, value in request.items() if value is not None}
        with pytest.raises(ClientError) as refused:
            getattr(role.s3, operation)(**request)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    assert role.keys() == ["lake/users/a"]
