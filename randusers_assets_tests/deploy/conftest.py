"""The fixture of both files: CloudFormation and what the stack is made of."""

from collections.abc import Iterator

import pytest

from randusers_assets_tests.deploy.emulators import free_port, run_emulator


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of ministack, which enforces the policies of roles, buckets and topics."""
    port = free_port()
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3,cloudformation,iam,sts,events,sns,sqs",
        "AUTH": "true",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
    }
    with run_emulator(tmp_path_factory.mktemp("cloud"), port, "ministack", **settings) as url:
        yield url
