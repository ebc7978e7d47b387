"""Servers that stand in for AWS: ministack deploys the stack, moto enforces the role's policy."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from randusers_assets_tests.patience import patience

TEMPLATE = Path(__file__).parents[2] / "deploy" / "aws" / "stack.yaml"
ACCOUNT = "000000000000"  # ministack's
ROOT = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}

Credentials = Mapping[str, str]


@contextlib.contextmanager
def run_emulator(directory: Path, port: int, *module: str, **environment: str) -> Iterator[str]:
    """Run a module that serves this port of loopback; its URL."""
    settings = {"TMPDIR": str(directory), **environment}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # a module of the lock
            [sys.executable, "-m", *module], env=os.environ | settings, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + patience()
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{module[0]} did not start: {(directory / 'log').read_text()}")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(patience())


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        return int(chooser.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def client(service: str, url: str, credentials: Credentials = ROOT) -> Any:  # noqa: ANN401  # only S3 has stubs
    """A boto3 client of a service of an emulator."""
    make: Any = boto3.client
    return make(service, endpoint_url=url, region_name="us-east-1", **credentials)


def assume(url: str, role_arn: str) -> Credentials:
    """Credentials of a role."""
    answer = client("sts", url).assume_role(RoleArn=role_arn, RoleSessionName="run")
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {key: answer["Credentials"][name] for key, name in zip(keys, names, strict=True)}


@dataclass(frozen=True)
class Stack:
    """The template, deployed to ministack's CloudFormation."""

    url: str
    name: str  # also the bucket's
    outputs: Mapping[str, str]

    @property
    def role(self) -> str:
        """The name of the role."""
        return self.outputs["RoleArn"].rpartition("/")[2]

    def client(self, service: str, credentials: Credentials = ROOT) -> Any:  # noqa: ANN401  # only S3 has stubs
        """A boto3 client of a service."""
        return client(service, self.url, credentials)

    def resources(self) -> dict[str, str]:
        """The physical id of each resource, by its name in the template."""
        found = self.client("cloudformation").describe_stack_resources(StackName=self.name)
        ids = found["StackResources"]
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in ids}

    def statements(self) -> list[dict[str, Any]]:
        """What the role allows."""
        iam, role = self.client("iam"), {"RoleName": self.role}
        names = sorted(iam.list_role_policies(**role)["PolicyNames"], reverse=True)
        assert iam.list_attached_role_policies(**role)["AttachedPolicies"] == []
        found = (iam.get_role_policy(**role, PolicyName=name)["PolicyDocument"] for name in names)
        return [statement for policy in found for statement in policy["Statement"]]


def deploy(url: str, **parameters: str) -> Stack:
    """Deploy the template with a bucket of its own, and a role that root may assume."""
    name = f"stack-{uuid.uuid4().hex[:12]}"
    given = {"BucketName": name, "TrustedArn": f"arn:aws:iam::{ACCOUNT}:root", **parameters}
    cloudformation = client("cloudformation", url)
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    waiting = {"Delay": 0.1, "MaxAttempts": int(patience() * 10)}
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=waiting)
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return Stack(url, name, outputs)
