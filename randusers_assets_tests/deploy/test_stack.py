"""The stack: a private bucket that loses nothing, its role, and an event for each publication."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.fetch.client import Api
from randusers_assets.pipeline.steps import run_snapshot
from randusers_assets.pipeline.storage import paths
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import users
from randusers_assets_tests.deploy.emulators import ACCOUNT, TEMPLATE, Stack, assume, deploy
from randusers_assets_tests.deploy.template import properties_of, template
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish.bucket import message_of, publish_users
from randusers_assets_tests.sandbox.processes import run
from randusers_sandbox.api import ApiSimulator, generated_users

DAY, DAY_AFTER = "2026-11-22", "2026-11-23"
KEY = "arn:aws:kms:eu-north-1:111122223333:key/0a1b"
ROOT_ARN = f"arn:aws:iam::{ACCOUNT}:root"
POLICY = TEMPLATE.parents[1] / "iam-policy.json"


@pytest.mark.parametrize(
    ("written", "misspelt", "finding"),
    [("", "", ""), ("VersioningConfiguration:", "Versioning:", "E3002")],
)
def test_template_is_what_cloudformation_takes(
    written: str, misspelt: str, finding: str, tmp_path: Path
) -> None:
    """cfn-lint finds nothing in it, and would find a property that does not exist."""
    text = TEMPLATE.read_text(encoding="utf-8").replace(written, misspelt)
    (tmp_path / "stack.yaml").write_text(text, encoding="utf-8")
    lint = str(Path(sys.executable).with_name("cfn-lint"))
    linted = run(lint, "--non-zero-exit-code", "informational", str(tmp_path / "stack.yaml"))
    assert linted.stdout.partition(" ")[0] == finding, linted.stdout
    assert linted.stderr == ""


def test_parameters_are_documented() -> None:
    """docs/bucket.md has each with its default, in the template's order."""
    document = (TEMPLATE.parents[2] / "docs" / "bucket.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\w+) \| (.*?) ?\| .+ \|$", document, re.M)
    defaults = {name: known.get("Default") for name, known in template()["Parameters"].items()}
    assert rows == [
        (name, "" if default is None else str(default) or "none")
        for name, default in defaults.items()
    ]


@pytest.fixture(scope="module")
def stack(cloud: str) -> Stack:
    """The stack as most would deploy it."""
    return deploy(cloud, Prefix="lake/users/")


def test_bucket_is_private_and_keeps_versions(stack: Stack) -> None:
    """Nobody gets access but by a policy of this account; what is replaced can be restored."""
    s3, bucket = stack.client("s3"), {"Bucket": stack.outputs["BucketName"]}
    blocks = s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
    assert blocks == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }
    assert s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    (ownership,) = properties_of("Bucket")["OwnershipControls"]["Rules"]
    assert ownership == {"ObjectOwnership": "BucketOwnerEnforced"}


def test_bucket_refuses_what_does_not_come_over_tls(stack: Stack) -> None:
    """The role may read and write over HTTPS alone."""
    s3 = stack.client("s3", assume(stack.url, stack.outputs["RoleArn"]))
    store = Store(lambda: s3, stack.name, "lake/users")
    assert message_of(store.check_access).startswith(
        f"s3://{stack.name}/lake/users/_access/probe.txt: S3 refused s3:PutObject (AccessDenied): "
    )
    over_tls(s3)
    assert store.check_access() == f"s3://{stack.name}/lake/users/_access/probe.txt"


def over_tls(s3: Any) -> None:  # noqa: ANN401  # a boto3 client
    """Have ministack take the client's requests for those of a proxy that ends TLS before it."""

    def mark(request: Any, **_: object) -> None:  # noqa: ANN401  # botocore's request
        request.headers["X-Forwarded-Proto"] = "https"

    s3.meta.events.register("before-send.s3", mark)


def test_each_publication_reaches_the_topic(stack: Stack, tmp_path: Path) -> None:
    """An event has the key of the CSV; a run that is `unchanged` and other objects give none."""
    sns, sqs = stack.client("sns"), stack.client("sqs")
    queue = sqs.create_queue(QueueName=stack.name)["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{stack.name}"
    policy = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})
    sns.subscribe(
        TopicArn=stack.outputs["Publications"],
        Protocol="sqs",
        Endpoint=arn,
        Attributes={"RawMessageDelivery": "true"},
    )
    s3 = stack.client("s3", assume(stack.url, stack.outputs["RoleArn"]))
    over_tls(s3)
    store = Store(lambda: s3, stack.name, "lake/users")
    with ApiSimulator(generated_users(10, tmp_path)) as api:
        outcomes = [
            run_snapshot(Api(api.url), store, CONTRACT, date).outcome
            for date in (DAY, DAY, DAY_AFTER)
        ]
    assert outcomes == ["published", "unchanged", "published"]
    keys, deadline = list[str](), time.monotonic() + patience()
    while time.monotonic() < deadline:
        got = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
        if len(keys) > 1 and not got:
            break
        for message in got:
            keys.append(json.loads(message["Body"])["detail"]["object"]["key"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert sorted(keys) == [store.key(paths.csv_path(CONTRACT, date)) for date in (DAY, DAY_AFTER)]


def test_topic_takes_messages_of_eventbridge_alone(stack: Stack) -> None:
    """Its policy names the service; ministack delivers without one, and AWS does not."""
    topic = stack.outputs["Publications"]
    found = stack.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    assert json.loads(found)["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": topic,
        }
    ]


@pytest.mark.parametrize(
    ("key", "encryption", "bucket_key"),
    [
        ("", {"SSEAlgorithm": "AES256"}, False),
        (KEY, {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}, True),
    ],
)
def test_bucket_is_encrypted(key: str, encryption: dict[str, str], *, bucket_key: bool) -> None:
    """With a KMS key under that one and a bucket key, which makes it cheap; else as S3 does."""
    (rule,) = properties_of("Bucket", KmsKeyArn=key)["BucketEncryption"][
        "ServerSideEncryptionConfiguration"
    ]
    assert rule["ServerSideEncryptionByDefault"] == encryption
    assert rule["BucketKeyEnabled"] == bucket_key


@pytest.mark.parametrize("days", ["0", "400"])
def test_lifecycle_expires_no_object_but_raw_snapshots(store: Store, days: str) -> None:
    """Only where a parameter says so; all else that a run writes stays until it is replaced."""
    ours = Store(lambda: store.client, store.bucket, "lake/users")
    for snapshot in (users(10), users(11)):
        publish_users(ours, DAY, snapshot)
    listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
    keys = {found["Key"] for found in listed}
    rules = properties_of("Bucket", Prefix="lake/users/", RawDays=days)["LifecycleConfiguration"]
    expiring = {
        key
        for rule in rules["Rules"]
        for key in keys
        if "ExpirationInDays" in rule and key.startswith(rule["Prefix"])
    }
    raw = {key for key in keys if key.endswith(".jsonl.zst")}
    assert len(raw) == 2
    assert expiring == (raw if days == "400" else set())
    age = {"Id": "RawSnapshots", "Status": "Enabled", "Prefix": "lake/users/raw_users/"}
    assert rules["Rules"] == [
        {
            "Id": "UnfinishedUploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {
            "Id": "NoncurrentVersions",
            "Status": "Enabled",
            "NoncurrentVersionExpiration": {"NoncurrentDays": 90},
            "ExpiredObjectDeleteMarker": True,
        },
        *([{**age, "ExpirationInDays": "400"}] if days == "400" else []),
    ]


def test_bucket_outlives_the_stack() -> None:
    """Neither the bucket nor its policy is deleted with the stack, or replaced by another."""
    for name in ("Bucket", "BucketPolicy"):
        resource = template()["Resources"][name]
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize(
    ("parameters", "principal", "has_profile"),
    [
        ({"TrustedArn": ""}, {"Service": "ecs-tasks.amazonaws.com"}, False),
        (
            {"TrustedArn": "", "TrustedService": "ec2.amazonaws.com"},
            {"Service": "ec2.amazonaws.com"},
            True,
        ),
        ({"TrustedArn": ROOT_ARN}, {"AWS": ROOT_ARN}, False),
    ],
)
def test_role_trusts_what_runs_dagster(
    cloud: str,
    parameters: dict[str, str],
    principal: dict[str, str],
    *,
    has_profile: bool,
) -> None:
    """A service of AWS, on EC2 by an instance profile, or the one principal that is given."""
    stack = deploy(cloud, **parameters)
    role = stack.client("iam").get_role(RoleName=stack.role)["Role"]
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust == {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    assert ("InstanceProfile" in stack.resources()) == has_profile


@pytest.mark.parametrize("key", ["", KEY])
def test_role_has_the_statements_of_the_iam_policy(cloud: str, key: str) -> None:
    """Those of deploy/iam-policy.json and no other; the one for KMS only with a key."""
    stack = deploy(cloud, Prefix="lake/users/", KmsKeyArn=key)
    text = POLICY.read_text(encoding="utf-8")
    text = text.replace("arn:aws:kms:REGION:ACCOUNT:key/KEY", KEY)
    text = text.replace("BUCKET/PREFIX", f"{stack.name}/lake/users")
    snapshots, kms = json.loads(text)["Statement"]
    assert stack.statements() == ([snapshots, kms] if key else [snapshots])


@pytest.mark.parametrize("prefix", ["lake", "/lake/", "lake*/"])
def test_prefix_of_another_form_is_refused(cloud: str, prefix: str) -> None:
    """Without its slash a prefix would allow its neighbours; with a star, any."""
    with pytest.raises(ClientError, match="Prefix"):
        deploy(cloud, Prefix=prefix)
