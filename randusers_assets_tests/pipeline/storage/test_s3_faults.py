"""What the store does when S3 is busy, breaks off, or changes what it sends."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import boto3
import pytest
from botocore.config import Config

from randusers_assets.pipeline.errors import Conflict, SnapshotError
from randusers_assets.pipeline.storage import multipart, s3
from randusers_assets.pipeline.storage.s3 import Store, Stored
from randusers_assets.pipeline.storage.tempfiles import TempFile
from randusers_assets_tests.builders import bytes_of, temp_file_of
from randusers_assets_tests.pipeline.storage.s3_proxy import (
    Answer,
    Fault,
    Request,
    Rule,
    corrupt,
    error,
    s3_proxy,
)
from randusers_sandbox.s3 import LocalS3

MIB = 1 << 20
BODY = bytes(range(256)) * (4 * MIB // 256)
BUSY = error(409, "ConditionalRequestConflict")


class Faulty:
    """A store behind the proxy: what it does to the requests, and which came."""

    def __init__(self, bucket: str) -> None:
        self.rule: Rule = lambda _: None
        self.requests: list[Request] = []
        self.bucket, self.store = bucket, Store(lambda: pytest.fail("not running"), bucket)

    def __call__(self, request: Request) -> Fault | None:
        """The rule of the proxy."""
        self.requests.append(request)
        return self.rule(request)

    @property
    def calls(self) -> list[str]:
        """The methods of the requests, with the operation of an upload."""
        return [f"{r.method} {r.query.partition('=')[0]}".strip() for r in self.requests]


@pytest.fixture
def faulty(store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A store whose requests go through the proxy; another try follows at once."""
    monkeypatch.setattr(s3, "PAUSES", (0.0, 0.0))
    faulty = Faulty(store.bucket)
    with s3_proxy(s3_server.endpoint_url, faulty) as url:
        once = Config(retries={"total_max_attempts": 1, "mode": "standard"})
        client = boto3.client("s3", endpoint_url=url, config=once)
        faulty.store = Store(lambda: client, store.bucket)
        yield faulty


def put(store: Store, *, replaces: Stored | bool | None = True) -> Stored:
    """Write `a`."""
    return store.put("a", BODY, content_type="text/plain", replaces=replaces)


def times(count: int, fault: Fault, method: str) -> Rule:
    """A rule for the first requests of a method for the same thing."""
    return lambda request: (
        fault if (request.method, request.number <= count) == (method, True) else None
    )


def failure_of(act: Callable[[], object]) -> str:
    """The message of an error that a retry may fix."""
    with pytest.raises(SnapshotError) as caught:
        act()
    assert caught.value.retryable
    return str(caught.value)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> TempFile:
    """A body that goes up in two parts."""
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", MIB)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * MIB)
    return temp_file_of(BODY + BODY)


UPLOAD = ["POST uploads", "PUT uploadId", "PUT uploadId", "POST uploadId"]


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
@pytest.mark.parametrize("replaces", [None, True])
def test_put_is_sent_again_while_s3_is_busy(
    faulty: Faulty, code: str, replaces: Literal[True] | None
) -> None:
    """409 says that another write was under way: the third PUT is the one that counts."""
    faulty.rule = times(2, Fault(answer=error(409, code)), "PUT")
    written = put(faulty.store, replaces=replaces)
    assert faulty.calls == ["PUT"] * 3
    assert faulty.store.read("a", "advice") == (BODY, faulty.store.head("a"))
    assert faulty.store.head("a") == written


def test_put_is_sent_again_a_bounded_number_of_times(faulty: Faulty) -> None:
    """409 to the last try is a conflict; where the put was not conditional, it may be retried."""
    faulty.rule = times(9, Fault(answer=BUSY), "PUT")
    with pytest.raises(Conflict, match=rf"^s3://{faulty.bucket}/a was changed by another run\.$"):
        put(faulty.store, replaces=None)
    assert faulty.calls == ["PUT"] * 3
    assert failure_of(lambda: put(faulty.store)) == (
        f"s3://{faulty.bucket}/a: S3 answered ConditionalRequestConflict (HTTP 409) to"
        " s3:PutObject: see the service's status and the bucket's settings."
    )
    assert faulty.calls == ["PUT"] * 6


def test_put_that_lost_is_not_sent_again(faulty: Faulty) -> None:
    """412 says that the object is another one now: a conflict at once."""
    first = put(faulty.store, replaces=None)
    for replaces in (None, replace(first, etag='"other"')):
        with pytest.raises(Conflict):
            put(faulty.store, replaces=replaces)
    assert faulty.calls == ["PUT"] * 3


def test_put_in_parts_starts_again_while_s3_is_busy(faulty: Faulty, parts: TempFile) -> None:
    """After 409 to the last request of an upload, all its parts are sent again."""
    refuse = Fault(answer=BUSY)
    faulty.rule = lambda r: (
        refuse
        if r.query.startswith("uploadId") and r.method == "POST" and len(faulty.requests) == 4
        else None
    )
    faulty.store.put("a", parts, content_type="text/csv", replaces=None)
    assert faulty.calls == [*UPLOAD, "DELETE uploadId", *UPLOAD]
    assert bytes_of(faulty.store.download("a", "advice")[0]) == BODY + BODY


def test_body_that_is_cut_off_is_continued(faulty: Faulty) -> None:
    """The rest is asked for from where the body ended, of the same object."""
    stored = put(faulty.store)
    faulty.requests.clear()
    faulty.rule = times(2, Fault(lose="rest"), "GET")
    file, downloaded = faulty.store.download("a", "advice")
    assert (bytes_of(file), downloaded) == (BODY, stored)
    asked = [(r.headers.get("Range"), r.headers.get("If-Match")) for r in faulty.requests]
    etag = stored.etag
    assert asked == [(None, None), ("bytes=2097152-", etag), ("bytes=3145728-", etag)]


@pytest.mark.parametrize("read", [
    lambda store: bytes_of(store.download("a", "advice")[0]),
    lambda store: (store.read("a", "advice") or [b""])[0],
    lambda store: b"".join(store.stream("a", "advice")[0]),
])  # fmt: skip
def test_body_whose_connection_is_reset_is_continued(
    faulty: Faulty, read: Callable[[Store], bytes]
) -> None:
    """However an object is read, two resets do not show."""
    put(faulty.store)
    faulty.rule = times(2, Fault(lose="body"), "GET")
    assert read(faulty.store) == BODY


def test_body_that_always_breaks_off_is_an_error(faulty: Faulty) -> None:
    """After three tries the connection is named; the step may be retried."""
    put(faulty.store)
    faulty.rule = times(9, Fault(lose="body"), "GET")
    assert failure_of(lambda: faulty.store.read("a", "advice")) == (
        f"s3://{faulty.bucket}/a: S3 at {faulty.store.client.meta.endpoint_url} cannot be reached"
        " or closed the connection (ResponseStreamingError): check AWS_ENDPOINT_URL_S3,"
        " AWS_DEFAULT_REGION and the network."
    )
    assert faulty.calls == ["PUT", "GET", "GET", "GET"]


def test_body_of_two_objects_is_an_error(faulty: Faulty, store: Store) -> None:
    """An object that is replaced while it is read is not continued with the other's bytes."""
    put(faulty.store)
    change = Fault(lose="rest", after=lambda: store.put("a", BODY[1:], content_type="text/plain"))
    faulty.rule = times(1, change, "GET")
    assert failure_of(lambda: faulty.store.download("a", "advice")) == (
        f"s3://{faulty.bucket}/a was changed while it was read: run again."
    )


def test_body_that_arrives_damaged_is_an_error(faulty: Faulty) -> None:
    """Bytes that do not have the checksum that S3 sent are not the stored object's fault."""
    put(faulty.store)
    faulty.rule = times(1, Fault(change=corrupt), "GET")
    assert failure_of(lambda: faulty.store.download("a", "advice")) == (
        f"s3://{faulty.bucket}/a: the bytes received are not those that S3 sent (their checksum"
        " differs): run again, and if it stays so, check the network and this machine's memory."
    )
    assert bytes_of(faulty.store.download("a", "advice")[0]) == BODY


@pytest.mark.parametrize("name", ["x-amz-meta-Sha256", "X-Amz-Meta-SHA256"])
def test_digest_is_found_under_any_case_of_its_name(faulty: Faulty, name: str) -> None:
    """Some stores that are not AWS change the case of metadata."""
    digest = put(faulty.store).sha256

    def rename(answer: Answer) -> Answer:
        headers = dict(answer.headers)
        assert headers.pop("x-amz-meta-sha256") == digest
        return replace(answer, headers={**headers, name: digest})

    faulty.rule = lambda _: Fault(change=rename)
    _, downloaded = faulty.store.download("a", "advice")
    assert (downloaded.sha256, faulty.store.head("a")) == (digest, downloaded)


@pytest.mark.parametrize("kept", [[], ["ETag"], ["Content-Length"]])
@pytest.mark.parametrize("act", ["put", "head", "read"])
def test_answer_whose_headers_end_early_is_an_error(
    faulty: Faulty, act: str, kept: list[str]
) -> None:
    """An answer without its ETag, or with half of it, is not taken for the object's."""
    put(faulty.store)

    def cut(answer: Answer) -> Answer:
        headers = {name: answer.headers[name] for name in kept if name != "ETag"}
        return replace(answer, headers=headers | ({"ETag": '"d41d8c'} if "ETag" in kept else {}))

    faulty.rule = lambda _: Fault(change=cut)
    acts: dict[str, Callable[[], object]] = {
        "put": lambda: put(faulty.store),
        "head": lambda: faulty.store.head("a"),
        "read": lambda: faulty.store.read("a", "advice"),
    }
    with pytest.raises(
        SnapshotError, match=r"closed the connection \(ConnectionClosedError\)"
    ) as e:
        acts[act]()
    assert e.value.retryable


LEFT = (
    " The parts that were sent are still in the bucket, because the abort failed ({}): allow"
    " s3:AbortMultipartUpload to these credentials, or have a lifecycle rule of the bucket remove"
    " incomplete uploads."
)
DIGEST = (
    " is not written: the bytes sent are not those that were audited (their SHA-256 differs): check"
    " this machine's disk and memory, then run again."
)


@pytest.mark.parametrize(
    ("abort", "left"),
    [
        (Fault(answer=error(403, "AccessDenied", "AKIDSECRET")), LEFT.format("AccessDenied")),
        (Fault(lose="request"), LEFT.format("ConnectionClosedError")),
        (Fault(answer=error(404, "NoSuchUpload")), ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize(
    ("complete", "kind", "message"),
    [
        (Fault(answer=error(412, "PreconditionFailed")), Conflict, " was changed by another run."),
        (Fault(answer=error(400, "BadDigest")), SnapshotError, DIGEST),
        (None, SnapshotError, DIGEST),
    ],
)
def test_upload_that_fails_says_whether_its_parts_are_left(
    faulty: Faulty,
    parts: TempFile,
    abort: Fault | None,
    left: str,
    complete: Fault | None,
    kind: type[SnapshotError],
    message: str,
) -> None:
    """The first error stays the main one; what an abort that failed leaves follows it."""
    ends = {"DELETE": abort, "POST": complete}
    faulty.rule = lambda r: ends.get(r.method) if r.query.startswith("uploadId") else None
    digest = "0" * 64 if complete is None else None
    with pytest.raises(SnapshotError) as caught:
        faulty.store.put("a", parts, content_type="text/csv", sha256=digest, replaces=None)
    assert type(caught.value) is kind
    assert str(caught.value) == f"s3://{faulty.bucket}/a{message}{left}"
    assert faulty.calls[-1] == "DELETE uploadId"


OWNER, ANOTHER = "111122223333", "444455556666"
NOT_OWNER = f" Or {ANOTHER} does not own the bucket: correct RANDUSERS_BUCKET_OWNER."


def store_of(faulty: Faulty, owner: str) -> Store:
    """The store of this test with the setting `RANDUSERS_BUCKET_OWNER`."""
    client = faulty.store.client
    return Store(lambda: client, faulty.bucket, owner=owner)


@pytest.mark.parametrize("owner", ["", OWNER])
def test_bucket_owner_is_named_in_every_request(
    faulty: Faulty, parts: TempFile, owner: str
) -> None:
    """Where it is set, S3 gets it with each get, head and put, and with each step of an upload."""
    store = store_of(faulty, owner)
    faulty.rule = times(1, Fault(lose="rest"), "GET")
    put(store)
    store.head("a")
    store.read("a", "advice")
    store.put("a", parts, content_type="text/csv")
    with pytest.raises(SnapshotError):
        store.put("a", parts, content_type="text/csv", sha256="0" * 64)
    assert {*faulty.calls} == {"PUT", "HEAD", "GET", *UPLOAD, "DELETE uploadId"}
    named = [r.headers.get("x-amz-expected-bucket-owner", "") for r in faulty.requests]
    assert named == [owner] * len(faulty.calls)


def test_bucket_of_another_owner_is_refused(faulty: Faulty) -> None:
    """S3 answers as it does to a lack of permission, so that the message names both."""

    def rule(request: Request) -> Fault | None:
        expected = request.headers.get("x-amz-expected-bucket-owner", OWNER)
        code = "" if request.method == "HEAD" else "AccessDenied"  # HEAD's answer has no body
        return None if expected == OWNER else Fault(answer=error(403, code))

    faulty.rule = rule
    put(store_of(faulty, OWNER))
    other = store_of(faulty, ANOTHER)
    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: put(other), "S3 refused s3:PutObject (AccessDenied): "),
        (lambda: other.head("a"), "S3 refused s3:GetObject, or there is no such object"),
        (lambda: other.read("a", "advice"), "S3 refused s3:GetObject, or there is no such object"),
    ]
    for act, refused in acts:
        with pytest.raises(SnapshotError) as caught:
            act()
        assert str(caught.value).startswith(f"s3://{faulty.bucket}/a: {refused}")
        assert str(caught.value).endswith(NOT_OWNER)
    assert put(store_of(faulty, OWNER)) == put(store_of(faulty, ""))


def test_iam_policy_allows_what_the_store_does_and_no_more(faulty: Faulty, parts: TempFile) -> None:
    """Every request of the store is one of the actions; a KMS key needs the two of its own."""
    put(faulty.store)
    faulty.store.head("a")
    faulty.store.read("a", "advice")
    with pytest.raises(SnapshotError):
        faulty.store.put("a", parts, content_type="text/csv", sha256="0" * 64)
    actions = {"PUT": "s3:PutObject", "POST": "s3:PutObject", "DELETE": "s3:AbortMultipartUpload"}
    policy = json.loads((Path(__file__).parents[3] / "deploy" / "iam-policy.json").read_bytes())
    snapshots, key = policy["Statement"]
    assert {*snapshots["Action"]} == {
        actions.get(r.method, "s3:GetObject") for r in faulty.requests
    }
    assert snapshots["Resource"] == "arn:aws:s3:::BUCKET/PREFIX/*"
    assert key == {
        "Sid": "OnlyWithRandusersKmsKeyId",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": "arn:aws:kms:REGION:ACCOUNT:key/KEY",
    }
