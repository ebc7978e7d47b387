"""Every failure of S3 is one sentence: what, where, what to do, and no secret."""

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping

import boto3
import pytest
from botocore.config import Config
from dagster_aws.s3 import S3Resource

from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage import s3
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.pipeline.storage.s3_proxy import Answer, Fault, Request, error, s3_proxy
from randusers_sandbox.s3 import LocalS3

Act = Callable[[Store], object]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try follows at once."""
    monkeypatch.setattr(s3, "PAUSES", (0.0,))


@contextlib.contextmanager
def s3_that_answers(answer: Answer) -> Iterator[Store]:
    """A store on a real HTTP server that has one answer, and denies to look at the bucket."""

    def rule(request: Request) -> Fault:
        return Fault(answer=error(403) if request.path == "/some-bucket" else answer)

    with s3_proxy("http://127.0.0.1:9", rule) as url:
        client = boto3.client("s3", endpoint_url=url, config=Config(retries={"max_attempts": 1}))
        yield Store(lambda: client, "some-bucket")


ACTS: Mapping[str, Act] = {
    "read": lambda store: store.read("a", "advice"),
    "write": lambda store: store.put("a", b"x", content_type="text/plain", replaces=None),
    "overwrite": lambda store: store.put("a", b"x", content_type="text/plain"),
}


def failure_of(act: Act, store: Store, *, retryable: bool = False) -> str:
    """The message of an error that a retry may fix only where `retryable` says so."""
    with pytest.raises(SnapshotError) as caught:
        act(store)
    assert caught.value.retryable == retryable
    assert "AKIDSECRET" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


CREDENTIALS = ": S3 does not accept these AWS credentials ({0}): correct or renew them."
REFUSED = ": S3 refused {1} ({0}): allow it to these credentials, as deploy/iam-policy.json does."
DIGEST = (
    " is not written: the bytes sent are not those that were audited (their SHA-256 differs):"
    " check this machine's disk and memory, then run again."
)
CHANGED = " was changed by another run."
KMS = (
    ": S3 may not use the KMS key ({0}): correct RANDUSERS_KMS_KEY_ID, and allow"
    " kms:GenerateDataKey and kms:Decrypt on that key to these credentials, as"
    " deploy/iam-policy.json does."
)
ELSEWHERE = ": the bucket is in another region ({0}): set AWS_DEFAULT_REGION to its region."
OTHER = ": S3 answered {0} (HTTP {2}) to {1}: see the service's status and the bucket's settings."


@pytest.mark.parametrize(
    ("act", "status", "code", "message"),
    [
        ("read", 403, "InvalidAccessKeyId", CREDENTIALS),
        ("write", 403, "SignatureDoesNotMatch", CREDENTIALS),
        ("read", 400, "ExpiredToken", CREDENTIALS),
        ("write", 400, "InvalidToken", CREDENTIALS),
        ("read", 403, "Forbidden", OTHER),
        ("write", 403, "AccessDenied", REFUSED),
        ("write", 403, "", REFUSED),
        ("write", 400, "BadDigest", DIGEST),
        ("write", 400, "XAmzContentChecksumMismatch", DIGEST),
        ("write", 400, "XAmzContentSHA256Mismatch", DIGEST),
        ("write", 400, "InvalidDigest", DIGEST),
        ("write", 412, "PreconditionFailed", CHANGED),
        ("write", 404, "NoSuchKey", CHANGED),
        ("write", 409, "OperationAborted", CHANGED),
        ("overwrite", 409, "OperationAborted", OTHER),
        ("write", 400, "KMS.DisabledException", KMS),
        ("read", 400, "KMS.NotFoundException", KMS),
        ("write", 301, "PermanentRedirect", ELSEWHERE),
        ("read", 400, "AuthorizationHeaderMalformed", ELSEWHERE),
        ("write", 400, "IllegalLocationConstraintException", ELSEWHERE),
        ("read", 301, "", ELSEWHERE),
        ("write", 307, "", ELSEWHERE),
        ("read", 400, "InvalidRequest", OTHER),
        ("write", 400, "InvalidRequest", OTHER),
    ],
)
def test_answer_of_s3_is_explained(act: str, status: int, code: str, message: str) -> None:
    """Credentials, permissions and digests have a sentence each; only others may be retried."""
    answer = error(status, code, message="AKIDSECRET")
    with s3_that_answers(answer) as store:
        failure = failure_of(ACTS[act], store, retryable=message == OTHER)
    action = "s3:GetObject" if act == "read" else "s3:PutObject"
    assert failure == f"s3://some-bucket/a{message.format(code or status, action, status)}"


@pytest.mark.parametrize("act", ["read", "head", "write"])
def test_denied_use_of_a_kms_key_is_named(act: str) -> None:
    """AccessDenied that names a KMS action is about the key, also where an object is looked for."""
    denied = error(403, "AccessDenied", "AKIDSECRET may not perform: kms:Decrypt on the key")
    with s3_that_answers(denied) as store:
        failure = failure_of({**ACTS, "head": lambda store: store.head("a")}[act], store)
    assert failure == f"s3://some-bucket/a{KMS.format('AccessDenied')}"


@pytest.mark.parametrize(
    ("region", "named"),
    [
        ("eu-north-1", "eu-north-1"),
        ("us-gov-west-1", "us-gov-west-1"),
        ("nbg1", "nbg1"),
        ("AKIDSECRET", ""),
    ],
)
@pytest.mark.parametrize("act", ["read", "write"])
def test_region_of_the_bucket_is_named(act: str, region: str, named: str) -> None:
    """The region that S3's answer gives, if it can be one, is what to set."""
    with s3_that_answers(error(301, "PermanentRedirect", x_amz_bucket_region=region)) as store:
        assert failure_of(ACTS[act], store) == (
            f"s3://some-bucket/a: the bucket is in {named or 'another region'} (PermanentRedirect):"
            f" set AWS_DEFAULT_REGION to {named or 'its region'}."
        )


@pytest.mark.parametrize("status", [400, 403])
def test_head_that_fails_is_explained_by_a_get(status: int) -> None:
    """The answer to HEAD has no body, and so no code; that to GET has one."""
    with s3_that_answers(error(status, "ExpiredToken", "AKIDSECRET")) as store:
        failure = failure_of(lambda store: store.head("a"), store)
    assert failure == f"s3://some-bucket/a{CREDENTIALS.format('ExpiredToken')}"


def test_server_that_redirects_everything_is_named() -> None:
    """For example http to https; botocore would ask it for the bucket's region without end."""
    with s3_proxy("http://127.0.0.1:9", lambda _: Fault(answer=error(301))) as url:
        store = Store(lambda: boto3.client("s3", endpoint_url=url), "some-bucket")
        assert failure_of(ACTS["write"], store) == (
            f"s3://some-bucket/a: S3 at {url} redirects every request: correct AWS_ENDPOINT_URL_S3"
            " and AWS_DEFAULT_REGION."
        )


def test_access_denied_to_an_object_says_what_it_may_mean() -> None:
    """S3 hides a missing key behind AccessDenied where listing is not allowed."""
    with s3_that_answers(error(403, "AccessDenied", "AKIDSECRET")) as store:
        acts: list[Act] = [
            ACTS["read"],
            lambda store: store.head("a"),
            lambda store: store.stream("a", ""),
        ]
        for act in acts:
            assert failure_of(act, store) == (
                "s3://some-bucket/a: S3 refused s3:GetObject, or there is no such object (it says"
                " the same of both where s3:ListBucket is not allowed): allow s3:GetObject to these"
                " credentials, as deploy/iam-policy.json does, and see that the day is published."
            )


def test_endpoint_that_is_gone_is_an_error() -> None:
    """Nothing listens: the endpoint, the region and the network are named; it may be retried."""
    with s3_that_answers(error(500)) as store:
        url = store.client.meta.endpoint_url
    assert failure_of(ACTS["read"], store, retryable=True) == (
        f"s3://some-bucket/a: S3 at {url} cannot be reached or closed the connection"
        " (EndpointConnectionError): check AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION and the network."
    )


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
ENDPOINT = (
    "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and AWS_DEFAULT_REGION."
)
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
