"""Every failure of S3 is one sentence: what, where, what to do, and no secret."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Mapping

import boto3
import pytest
from botocore.config import Config
from dagster_aws.s3 import S3Resource

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage.s3 import Store
from randusers_sandbox.s3 import LocalS3

Act = Callable[[Store], object]


@contextlib.contextmanager
def s3_that_answers(status: int, code: str = "", missing: int = 0) -> Iterator[Store]:
    """A store on a real HTTP server with one answer, whose body lacks so many declared bytes."""
    body = f"<Error><Code>{code}</Code><Message>AKIDSECRET</Message></Error>" if code else ""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`

        def answer(self) -> None:
            self.close_connection = True
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response_only(status)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = answer  # noqa: N815  # http.server's names

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            one_retry = Config(retries={"max_attempts": 1})
            client = boto3.client("s3", endpoint_url=url, config=one_retry)
            yield Store(lambda: client, "some-bucket")
        finally:
            server.shutdown()


ACTS: Mapping[str, Act] = {
    "read": lambda store: store.read("a"),
    "write": lambda store: store.put("a", b"x", content_type="text/plain", replaces=None),
    "overwrite": lambda store: store.put("a", b"x", content_type="text/plain"),
}


def failure_of(act: Act, store: Store, *, retryable: bool = False) -> str:
    """The message of an error that a retry may fix only where `retryable` says so."""
    with pytest.raises(SnapshotError) as caught:
        act(store)
    assert caught.value.retryable == retryable
    return str(caught.value)


CREDENTIALS = ": S3 does not accept these AWS credentials ({0}): correct or renew them."
REFUSED = ": S3 refused {1} ({0}): allow it to these credentials, as deploy/iam-policy.json does."
DIGEST = (
    " is not written: the bytes sent are not those that were audited (their SHA-256 differs):"
    " check this machine's disk and memory, then run again."
)
CHANGED = " was changed by another run."
OTHER = ": S3 answered {0} (HTTP {2}) to {1}: see the service's status and the bucket's settings."


@pytest.mark.parametrize(
    ("act", "status", "code", "message"),
    [
        ("read", 403, "InvalidAccessKeyId", CREDENTIALS),
        ("write", 403, "SignatureDoesNotMatch", CREDENTIALS),
        ("read", 400, "ExpiredToken", CREDENTIALS),
        ("write", 400, "InvalidToken", CREDENTIALS),
        ("read", 403, "", REFUSED),
        ("write", 403, "AccessDenied", REFUSED),
        ("write", 400, "BadDigest", DIGEST),
        ("write", 400, "XAmzContentChecksumMismatch", DIGEST),
        ("write", 400, "InvalidDigest", DIGEST),
        ("write", 409, "OperationAborted", CHANGED),
        ("overwrite", 409, "OperationAborted", OTHER),
        ("read", 400, "InvalidRequest", OTHER),
        ("write", 400, "InvalidRequest", OTHER),
    ],
)
def test_answer_of_s3_is_explained(act: str, status: int, code: str, message: str) -> None:
    """Credentials, permissions and digests have a sentence each; only others may be retried."""
    with s3_that_answers(status, code) as store:
        failure = failure_of(ACTS[act], store, retryable=message == OTHER)
    action = "s3:GetObject" if act == "read" else "s3:PutObject"
    assert failure == f"s3://some-bucket/a{message.format(code or status, action, status)}"


def test_access_denied_to_an_object_counts_as_missing() -> None:
    """S3 hides a missing key behind AccessDenied where listing is not allowed."""
    with s3_that_answers(403, "AccessDenied") as store:
        assert (store.head("a"), store.read("a")) == (None, None)
        assert failure_of(lambda store: store.stream("a", "materialize it"), store) == (
            "s3://some-bucket/a does not exist or may not be read: materialize it."
        )


def test_connection_that_fails_is_an_error() -> None:
    """A body shorter than declared, and an endpoint that is gone: either may be retried."""
    message = (
        "s3://some-bucket/a: S3 at {} cannot be reached or closed the connection ({}): check"
        " AWS_ENDPOINT_URL_S3, AWS_REGION and the network."
    )
    with s3_that_answers(200, missing=4) as store:
        url = store.client.meta.endpoint_url
        broken_off = failure_of(ACTS["read"], store, retryable=True)
    gone = failure_of(ACTS["read"], store, retryable=True)
    assert broken_off == message.format(url, "ResponseStreamingError")
    assert gone == message.format(url, "EndpointConnectionError")


@pytest.mark.parametrize("act", [ACTS["read"], ACTS["write"]])
def test_wrong_bucket_is_named(act: Act, store: Store, s3_server: LocalS3) -> None:
    """A bucket that is not set, does not exist, or cannot exist points to the settings."""
    assert failure_of(act, Store(lambda: store.client, "")) == (
        "RANDUSERS_BUCKET is not set: name the bucket for the snapshots."
    )
    assert failure_of(act, Store(lambda: store.client, "no-such-bucket", "prefix")) == (
        f"s3://no-such-bucket does not exist at {s3_server.endpoint_url}: create the bucket, or"
        " correct RANDUSERS_BUCKET."
    )
    assert failure_of(act, Store(lambda: store.client, "Not a bucket!")) == (
        "s3://Not a bucket!/a is not a valid S3 location: correct RANDUSERS_BUCKET and"
        " RANDUSERS_PREFIX."
    )


MISSING = (
    "s3://some-bucket/a: AWS credentials are missing or incomplete: set AWS_PROFILE, or"
    " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role."
)
ENDPOINT = "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and AWS_REGION."
FILE = "correct AWS_PROFILE or the AWS config file."


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, MISSING),
        ({"AWS_SECRET_ACCESS_KEY": ""}, MISSING),
        ({"AWS_ACCESS_KEY_ID": ""}, MISSING),
        ({"AWS_PROFILE": "nobody"}, f"The config profile (nobody) could not be found: {FILE}"),
        ({"AWS_CONFIG_FILE": __file__}, f"Unable to parse config file: {__file__}: {FILE}"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, ENDPOINT),
        ({"AWS_DEFAULT_REGION": "no region"}, ENDPOINT),
    ],
)
def test_wrong_settings_are_named(
    settings: Mapping[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials, profile, config file, endpoint or region: the message says what to set."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert failure_of(ACTS["write"], Store(S3Resource().get_client, "some-bucket")) == message
