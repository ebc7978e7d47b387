"""The store writes what was audited or nothing, lists nothing, and fails in one sentence."""

import contextlib
import errno
import hashlib
import http.server
import io
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from randusers_assets import io_managers
from randusers_assets.pipeline.publish import receipt as receipts
from randusers_assets.pipeline.publish.publish import publish, read_back
from randusers_assets.pipeline.storage import s3 as store_module
from randusers_assets.pipeline.storage.s3 import Conflict, SnapshotStore, Stored
from randusers_assets.pipeline.storage.tempfiles import Spool
from randusers_assets_tests.builders import csv_of, frames_of, raw_users_of, users
from randusers_sandbox.s3 import LocalS3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.model import OperationModel

MIB = 1 << 20
NOT_AS_AUDITED = (
    "s3://{bucket}/a is not written: the bytes sent are not those that were audited (their SHA-256"
    " differs): check this machine's disk and memory, then run again."
)


def sha256_of(body: bytes) -> str:
    """The digest as the store takes it."""
    return hashlib.sha256(body).hexdigest()


def put(store: SnapshotStore, body: bytes, **condition: Stored | None) -> Stored:
    """Write `a`."""
    return store.put(
        "a",
        body,
        sha256_of(body),
        content_type="text/plain",
        metadata={"k": "v"},
        **condition,
    )


def spool_of(body: bytes) -> Spool:
    """A spool of these bytes."""
    spool = Spool()
    with spool.writer() as file:
        file.write(body)
    return spool


def body_of(store: SnapshotStore, path: str) -> bytes | None:
    """The bytes at a path, or None."""
    found = store.read(path)
    return found[0] if found else None


class AnsweringS3:
    """A store on a real HTTP server that gives every request the answer that a test has set."""

    def __init__(self, endpoint_url: str) -> None:
        self.status, self.body, self.length = 200, b"", 0
        self.store = SnapshotStore(
            s3_resource=S3Resource(endpoint_url=endpoint_url, max_attempts=1), bucket="some-bucket"
        )

    def answers(self, status: int, body: bytes, length: int | None = None) -> SnapshotStore:
        """Set the answer; a body may be shorter than the length that is declared."""
        self.status, self.body = status, body
        self.length = len(body) if length is None else length
        return self.store


@pytest.fixture(scope="module")
def answering_s3() -> Iterator[AnsweringS3]:
    """The answers that no well-meaning S3 server gives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`

        def answer(self) -> None:
            self.close_connection = True
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(s3.status)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(s3.length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(s3.body)

        do_GET = do_PUT = do_HEAD = answer  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        s3 = AnsweringS3(f"http://127.0.0.1:{server.server_port}")
        yield s3
        server.shutdown()
        thread.join()


def s3_error(code: str) -> bytes:
    """S3's error body; its message must never be repeated."""
    return f"<Error><Code>{code}</Code><Message>AKIDSECRET</Message></Error>".encode()


def sentence_of(act: Callable[[], object]) -> str:
    """The failure's sentence, which holds no credential and nothing of boto's stack."""
    with pytest.raises(dg.Failure) as caught:
        act()
    sentence = caught.value.description or ""
    assert str(caught.value) == sentence
    assert not re.search(r"test-secret|AKIDSECRET|Traceback|botocore|An error occurred", sentence)
    assert "\n" not in sentence
    return sentence


def test_store_reads_back_what_it_put(store: SnapshotStore) -> None:
    """Head, read, stream and download give the bytes, size, ETag and metadata that were put."""
    body = bytes(range(256)) * 8192
    written = put(store, body)
    assert written.size == len(body)
    assert written.etag == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    assert written.metadata == {"k": "v", "sha256": sha256_of(body)}
    assert store.head("a") == written
    assert store.read("a") == (body, written)
    chunks, streamed = store.stream("a", "advice")
    assert [len(chunk) for chunk in chunks] == [MIB, MIB]
    assert streamed == written
    spool, downloaded = store.download("a", "advice")
    assert spool.reader().read() == body
    assert downloaded == written
    answer = store.client.head_object(Bucket=store.bucket, Key="a")
    assert answer["ContentType"] == "text/plain"
    assert "ContentEncoding" not in answer


def test_store_finds_nothing_where_nothing_is(store: SnapshotStore) -> None:
    """A missing object is None to head and read."""
    assert store.head("a") is None
    assert store.read("a") is None


@pytest.mark.parametrize(
    ("prefix", "key"), [("", "a/b"), ("p", "p/a/b"), ("p/q/", "p/q/a/b"), ("/p", "p/a/b")]
)
def test_store_puts_keys_below_the_prefix(store: SnapshotStore, prefix: str, key: str) -> None:
    """The prefix stands before the path with one slash between, however it was written."""
    below = SnapshotStore(s3_resource=store.s3_resource, bucket=store.bucket, prefix=prefix)
    assert below.key("a/b") == key
    assert below.uri("a/b") == f"s3://{store.bucket}/{key}"
    below.put("a/b", b"x", sha256_of(b"x"), content_type="text/plain")
    listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
    assert [found["Key"] for found in listed] == [key]


def test_put_for_no_object_refuses_to_replace_one(store: SnapshotStore) -> None:
    """`replaces=None` writes the first object and conflicts with it afterwards."""
    put(store, b"first", replaces=None)
    with pytest.raises(Conflict) as caught:
        put(store, b"second", replaces=None)
    assert str(caught.value) == f"s3://{store.bucket}/a"
    assert body_of(store, "a") == b"first"


def test_put_over_an_object_refuses_any_other(store: SnapshotStore) -> None:
    """`replaces=Stored` writes over that very object, and over no later one."""
    first = put(store, b"first", replaces=None)
    put(store, b"second", replaces=first)
    with pytest.raises(Conflict):
        put(store, b"third", replaces=first)
    assert body_of(store, "a") == b"second"


def test_put_over_an_object_that_is_gone_conflicts(store: SnapshotStore) -> None:
    """`replaces=Stored` does not bring an object back that was removed."""
    first = put(store, b"first", replaces=None)
    store.client.delete_object(Bucket=store.bucket, Key="a")
    with pytest.raises(Conflict):
        put(store, b"second", replaces=first)
    assert store.head("a") is None


def test_put_over_anything_replaces_it(store: SnapshotStore) -> None:
    """`replaces=True` asks for nothing."""
    put(store, b"first")
    put(store, b"second")
    assert body_of(store, "a") == b"second"


def test_put_with_a_wrong_digest_is_refused_by_the_server(store: SnapshotStore) -> None:
    """S3 itself refuses bytes of another digest, and what was there stays."""
    put(store, b"good")
    sentence = sentence_of(
        lambda: store.put("a", b"bad", sha256_of(b"other"), content_type="text/plain")
    )
    assert sentence == NOT_AS_AUDITED.format(bucket=store.bucket)
    assert body_of(store, "a") == b"good"


def test_put_encrypts_with_the_key_of_the_settings(store: SnapshotStore) -> None:
    """With `RANDUSERS_KMS_KEY_ID` the object is SSE-KMS under that key; without, as the bucket."""
    keyed = SnapshotStore(s3_resource=store.s3_resource, bucket=store.bucket, kms_key_id="key-1")
    put(keyed, b"x")
    answer = store.client.head_object(Bucket=store.bucket, Key="a")
    assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", "key-1")
    put(store, b"x")
    assert "SSEKMSKeyId" not in store.client.head_object(Bucket=store.bucket, Key="a")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A body of two full parts and a rest, S3's smallest part being 5 MiB."""
    monkeypatch.setattr(store_module, "SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(store_module, "PART_BYTES", 5 * MIB)
    return b"0123456789abcdef" * (11 * MIB // 16)


def uploads(store: SnapshotStore) -> object:
    """The uploads that were begun and neither completed nor aborted."""
    return store.client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", [])


def test_put_in_parts_writes_the_same_bytes(store: SnapshotStore, small_parts: bytes) -> None:
    """A large spool goes up in three parts, and is conditional like any other put."""
    spool = spool_of(small_parts)
    digest = sha256_of(small_parts)
    written = store.put("a", spool, digest, content_type="text/csv", replaces=None)
    assert written.etag.endswith('-3"')
    assert store.head("a") == written
    assert body_of(store, "a") == small_parts
    assert store.client.head_object(Bucket=store.bucket, Key="a")["ContentType"] == "text/csv"
    with pytest.raises(Conflict):
        store.put("a", spool, digest, content_type="text/csv", replaces=None)
    other = Stored('"other"', 0, None, {})
    with pytest.raises(Conflict):
        store.put("a", spool, digest, content_type="text/csv", replaces=other)
    assert store.put("a", spool, digest, content_type="text/csv", replaces=written) == written
    assert uploads(store) == []


def test_put_in_parts_with_a_wrong_digest_leaves_nothing(
    store: SnapshotStore, small_parts: bytes
) -> None:
    """The digest of the whole is held against the parts before they become the object."""
    spool = spool_of(small_parts)
    sentence = sentence_of(
        lambda: store.put("a", spool, sha256_of(b"other"), content_type="text/csv")
    )
    assert sentence == NOT_AS_AUDITED.format(bucket=store.bucket)
    assert store.head("a") is None
    assert uploads(store) == []


class BreakingSpool(Spool):
    """A spool on a disk that fails after the first part."""

    def reader(self) -> io.BufferedReader:
        """A file that fails after 5 MiB."""
        good = super().reader()

        class Breaking(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, into: "WriteableBuffer", /) -> int:
                if good.tell() > 5 * MIB:
                    raise OSError(errno.EIO, "the disk is broken")
                return good.readinto(into)

        return io.BufferedReader(Breaking(), MIB)


def test_put_in_parts_that_breaks_off_leaves_nothing(
    store: SnapshotStore, small_parts: bytes
) -> None:
    """A fault after the first part aborts the upload and shows through."""
    spool = BreakingSpool()
    with spool.writer() as file:
        file.write(small_parts)
    with pytest.raises(OSError, match="the disk is broken"):
        store.put("a", spool, sha256_of(small_parts), content_type="text/csv")
    assert store.head("a") is None
    assert uploads(store) == []


def test_download_refuses_bytes_that_are_not_as_written(store: SnapshotStore) -> None:
    """An object whose bytes do not have the digest of its metadata is not loaded."""
    store.client.put_object(
        Bucket=store.bucket, Key="a", Body=b"bad", Metadata={"sha256": sha256_of(b"good")}
    )
    assert sentence_of(lambda: store.download("a", "write it again")) == (
        f"s3://{store.bucket}/a is not as it was written (its SHA-256 differs): write it again."
    )


def test_missing_object_is_named_with_what_to_do(store: SnapshotStore) -> None:
    """Streaming what is not there gives the URI and the advice."""
    assert sentence_of(lambda: store.stream("a", "materialize it")) == (
        f"s3://{store.bucket}/a does not exist: materialize it."
    )


def test_missing_object_without_the_right_to_list_is_named_too(answering_s3: AnsweringS3) -> None:
    """S3 hides a missing key behind AccessDenied where listing is not allowed."""
    store = answering_s3.answers(403, s3_error("AccessDenied"))
    assert store.head("a") is None
    assert store.read("a") is None
    assert sentence_of(lambda: store.stream("a", "materialize it")) == (
        "s3://some-bucket/a does not exist or may not be read: materialize it."
    )


def test_unset_bucket_is_named(store: SnapshotStore) -> None:
    """Reading and writing without a bucket say which setting is missing."""
    unset = SnapshotStore(s3_resource=store.s3_resource, bucket="")
    sentence = "RANDUSERS_BUCKET is not set: name the bucket that the snapshots go to."
    for act in (lambda: unset.read("a"), lambda: unset.head("a"), lambda: put(unset, b"x")):
        assert sentence_of(act) == sentence


def test_unknown_bucket_is_named(store: SnapshotStore, s3_server: LocalS3) -> None:
    """Reading, streaming and writing say that the bucket is not there."""
    unknown = SnapshotStore(s3_resource=store.s3_resource, bucket="no-such-bucket")
    sentence = (
        f"s3://no-such-bucket does not exist at {s3_server.endpoint_url}: create the bucket, or"
        " correct RANDUSERS_BUCKET."
    )
    for act in (
        lambda: unknown.read("a"),
        lambda: unknown.stream("a", "advice"),
        lambda: put(unknown, b"x", replaces=None),
    ):
        assert sentence_of(act) == sentence


def test_invalid_bucket_name_is_named(store: SnapshotStore) -> None:
    """A name that S3 does not allow points to the settings."""
    invalid = SnapshotStore(s3_resource=store.s3_resource, bucket="Not a bucket!")
    assert sentence_of(lambda: invalid.read("a")) == (
        "s3://Not a bucket!/a is not a valid S3 location: correct RANDUSERS_BUCKET and"
        " RANDUSERS_PREFIX."
    )


@pytest.mark.parametrize("known", [(), ("AWS_ACCESS_KEY_ID",)])
def test_missing_credentials_are_told(
    known: tuple[str, ...], s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty or half credential chain says what to set."""
    for name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - set(known):
        monkeypatch.delenv(name)
    # Clients are kept by their settings: this region gets one of its own.
    resource = S3Resource(endpoint_url=s3_server.endpoint_url, region_name=f"us-west-{len(known)}")
    store = SnapshotStore(s3_resource=resource, bucket="some-bucket")
    assert sentence_of(lambda: put(store, b"x")) == (
        "s3://some-bucket/a: AWS credentials are missing or incomplete: set AWS_PROFILE, or"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role."
    )


def test_unknown_profile_is_named() -> None:
    """A profile that no file configures is told as such."""
    store = SnapshotStore(s3_resource=S3Resource(profile_name="nobody"), bucket="some-bucket")
    assert sentence_of(lambda: store.read("a")) == (
        "The config profile (nobody) could not be found: correct AWS_PROFILE or the AWS config"
        " file."
    )


@pytest.mark.parametrize(
    "resource", [S3Resource(endpoint_url="nonsense"), S3Resource(region_name="no region")]
)
def test_unusable_endpoint_is_told(resource: S3Resource) -> None:
    """An endpoint that is no URL and a region that is no region point to the settings."""
    store = SnapshotStore(s3_resource=resource, bucket="some-bucket")
    assert sentence_of(lambda: store.head("a")) == (
        "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and AWS_REGION."
    )


def test_unreachable_endpoint_is_named() -> None:
    """An endpoint where nothing answers is told with the URL; such a fault may be retried."""
    resource = S3Resource(endpoint_url="http://127.0.0.1:9", max_attempts=1)
    store = SnapshotStore(s3_resource=resource, bucket="some-bucket")
    with pytest.raises(dg.Failure) as caught:
        store.read("a")
    assert caught.value.description == (
        "s3://some-bucket/a: S3 at http://127.0.0.1:9 cannot be reached or broke off"
        " (EndpointConnectionError): check AWS_ENDPOINT_URL_S3, AWS_REGION and the network."
    )
    assert caught.value.allow_retries


def test_object_that_breaks_off_is_told(answering_s3: AnsweringS3) -> None:
    """A body shorter than it was declared is an error, never a short object."""
    store = answering_s3.answers(200, b"half", length=8)
    chunks, _ = store.stream("a", "advice")
    assert sentence_of(lambda: list(chunks)) == (
        f"s3://some-bucket/a: S3 at {store.client.meta.endpoint_url} cannot be reached or broke"
        " off (ResponseStreamingError): check AWS_ENDPOINT_URL_S3, AWS_REGION and the network."
    )


def test_access_denied_names_the_action(answering_s3: AnsweringS3) -> None:
    """A refused write names the action and the policy that allows it."""
    store = answering_s3.answers(403, s3_error("AccessDenied"))
    assert sentence_of(lambda: put(store, b"x", replaces=None)) == (
        "s3://some-bucket/a: S3 refused s3:PutObject (AccessDenied): allow it to these"
        " credentials, as deploy/iam-policy.json does."
    )


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_wrong_credentials_are_told(code: str, answering_s3: AnsweringS3) -> None:
    """Credentials that S3 does not take are told apart from a missing permission."""
    store = answering_s3.answers(403, s3_error(code))
    for act in (lambda: put(store, b"x"), lambda: store.read("a")):
        assert sentence_of(act) == (
            f"s3://some-bucket/a: S3 does not take these AWS credentials ({code}): correct or"
            " renew them."
        )


def test_other_answers_of_s3_are_told(answering_s3: AnsweringS3) -> None:
    """An error that has no sentence of its own is named by its code and status."""
    store = answering_s3.answers(400, s3_error("InvalidRequest"))
    assert sentence_of(lambda: put(store, b"x")) == (
        "s3://some-bucket/a: S3 answered InvalidRequest (HTTP 400) to s3:PutObject: see the"
        " service's status and the bucket's settings."
    )


@contextlib.contextmanager
def calls_of(store: SnapshotStore) -> Iterator[list[tuple[str, str]]]:
    """The operations that the client is asked for, and the key of each."""
    made: list[tuple[str, str]] = []

    def note(params: dict[str, str], model: "OperationModel", **_: object) -> None:
        made.append((model.name, params.get("Key", "")))

    events = store.client.meta.events
    events.register("before-parameter-build.s3", note)
    yield made
    events.unregister("before-parameter-build.s3", note)


def test_store_needs_no_list_bucket(store: SnapshotStore) -> None:
    """A whole day, twice, with and without its objects, makes only Get, Head and PutObject."""
    with calls_of(store) as made:
        for date in ("2026-11-22", "2026-11-23"):
            with pytest.raises(dg.Failure, match="does not exist"):
                io_managers.load_raw(store, date)
            io_managers.save_raw(store, date, raw_users_of(users(3)))
            io_managers.save_frames(store, date, frames_of(users(3)))
            io_managers.load_raw(store, date)
            io_managers.load_frames(store, date)
            for count in (3, 3):
                publish(store, date, csv_of(users(count)), "run")
            assert read_back(store, date)[0] == []
        receipts.receipt_before(store, "2026-11-24")
    assert {name for name, _ in made} == {"GetObject", "HeadObject", "PutObject"}
    assert all(key for _, key in made)
