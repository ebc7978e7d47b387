"""The local S3 listens on loopback only, keeps its objects, and reports what it cannot do."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest

from randusers_assets_tests.patience import patience
from randusers_assets_tests.sandbox.processes import python
from randusers_sandbox.s3 import local_s3
from randusers_sandbox.user_file import SandboxError


def test_local_s3_keeps_buckets_and_objects(tmp_path: Path) -> None:
    """An object survives a restart on the same directory; the bucket is not versioned."""
    with local_s3(tmp_path) as s3:
        s3.create_bucket("kept")
        client = boto3.client("s3", endpoint_url=s3.endpoint_url)
        client.put_object(Bucket="kept", Key="a/b", Body=b"bytes")
    with local_s3(tmp_path) as s3:
        s3.create_bucket("kept")
        client = boto3.client("s3", endpoint_url=s3.endpoint_url)
        assert client.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"bytes"
        assert "Status" not in client.get_bucket_versioning(Bucket="kept")


def test_local_s3_reports_why_it_creates_no_bucket(tmp_path: Path) -> None:
    """A name that S3 does not allow, and a server that has ended, are each an error."""
    with local_s3(tmp_path) as s3:
        with pytest.raises(SandboxError, match=r"^The local S3 .* bucket A .*InvalidBucketName"):
            s3.create_bucket("A")
        s3.process.kill()
        s3.process.wait()
        silent = f"^The local S3 at {s3.endpoint_url} does not answer"
        with pytest.raises(SandboxError, match=silent):
            s3.create_bucket("late")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="listeners are read from Linux's /proc")
def test_local_s3_listens_on_one_loopback_port(tmp_path: Path) -> None:
    """The server has exactly one listener, on 127.0.0.1, and closes it when it ends."""
    with local_s3(tmp_path) as s3:
        port = urlsplit(s3.endpoint_url).port or 0
        own = {link.readlink().name for link in Path(f"/proc/{s3.process.pid}/fd").iterdir()}
        lines = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{s3.process.pid}/net/{table}").read_text().splitlines()[1:]
        ]
        # Columns of /proc/net/tcp: 1 the local address, 3 the state (0A listens), 9 the inode.
        listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own]
        assert listening == [f"0100007F:{port:04X}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=patience())


def test_local_s3_refuses_a_directory_or_a_port_in_use(tmp_path: Path) -> None:
    """A second server on the same directory or port gives an error of one sentence."""
    with local_s3(tmp_path) as s3:
        port = urlsplit(s3.endpoint_url).port or 0
        used = f"Another sandbox uses the directory {tmp_path}: stop it, or choose another one."
        busy = f"cannot listen on 127.0.0.1:{port}, which is in use: choose a free port."
        for directory, message in ((tmp_path, used), (tmp_path / "other", f"The local S3 {busy}")):
            with pytest.raises(SandboxError) as refusal, local_s3(directory, port):
                pass
            assert str(refusal.value) == message


def test_local_s3_names_its_extra_when_not_installed(tmp_path: Path) -> None:
    """Without ministack the error says what to install."""
    code = (
        "import sys; sys.modules['ministack'] = None\n"  # as if it were not installed
        "from pathlib import Path; from randusers_sandbox.s3 import local_s3\n"
        "local_s3(Path(sys.argv[1])).__enter__()"
    )
    assert python("-c", code, str(tmp_path)).stderr.splitlines()[-1] == (
        "randusers_sandbox.user_file.SandboxError: The local S3 (ministack) is not installed:"
        " pip install 'randusers-assets[sandbox]'."
    )
