"""The store writes the bytes of a digest or nothing, conditionally, and lists nothing."""

import hashlib
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import requests
from botocore.model import OperationModel
from dagster_aws.s3 import S3Resource

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.audit.gates import Policy
from randusers_assets.pipeline.errors import Conflict, SnapshotError
from randusers_assets.pipeline.publish import objects
from randusers_assets.pipeline.publish.diff import compare_with_day_before
from randusers_assets.pipeline.publish.publish import publish
from randusers_assets.pipeline.publish.receipt import read_latest
from randusers_assets.pipeline.publish.verify import read_back
from randusers_assets.pipeline.steps import SnapshotRun
from randusers_assets.pipeline.storage import s3
from randusers_assets.pipeline.storage.s3 import Replacement, Store, Stored
from randusers_assets_tests.builders import bytes_of, frames_of, raw_users_of, users
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish.bucket import message_of
from randusers_sandbox.s3 import LocalS3

MIB = 1 << 20


def sha256_of(body: bytes) -> str:
    """The digest as the store takes it."""
    return hashlib.sha256(body).hexdigest()


def put(store: Store, body: bytes, *, replaces: Stored | bool | None = True) -> Stored:
    """Write `a`."""
    return store.put("a", body, content_type="text/plain", replaces=replaces)


def test_store_reads_back_what_it_put(store: Store) -> None:
    """Head, read, stream and download give the bytes, size, ETag and metadata that were put."""
    body = bytes(range(256)) * 8192
    written = put(store, body)
    etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    metadata = {"sha256": sha256_of(body)}
    assert written == Stored(etag, len(body), None, metadata, "text/plain")
    assert (store.head("a"), store.read("a", "advice")) == (written, (body, written))
    chunks, streamed = store.stream("a", "advice")
    assert ([len(chunk) for chunk in chunks], streamed) == ([MIB, MIB], written)
    file, downloaded = store.download("a", "advice")
    assert (bytes_of(file), downloaded) == (body, written)
    assert store.put("a", file, content_type="text/plain").sha256 == sha256_of(body)
    answer = store.client.head_object(Bucket=store.bucket, Key="a")
    assert answer["ContentType"] == "text/plain"
    assert "ContentEncoding" not in answer


def test_store_finds_nothing_where_nothing_is(store: Store) -> None:
    """A missing object is None to head and read; to stream it is an error with what to do."""
    assert (store.head("a"), store.read("a", "advice")) == (None, None)
    message = message_of(lambda: store.stream("a", "materialize it"))
    assert message == f"s3://{store.bucket}/a does not exist: materialize it."


@pytest.mark.parametrize(
    ("prefix", "key"), [("", "a/b"), ("p", "p/a/b"), ("p/q/", "p/q/a/b"), ("/p", "p/a/b")]
)
def test_store_puts_keys_below_the_prefix(store: Store, prefix: str, key: str) -> None:
    """The prefix stands before the path with one slash between, however it was written."""
    below = Store(lambda: store.client, store.bucket, prefix)
    assert below.key("a/b") == key
    assert below.uri("a/b") == f"s3://{store.bucket}/{key}"
    below.put("a/b", b"x", content_type="text/plain")
    listed = store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
    assert [found["Key"] for found in listed] == [key]


@pytest.mark.parametrize(
    ("endpoint", "link"),
    [
        (None, "https://console.aws.amazon.com/s3/object/lake?prefix=a%20b/dt%3D2026-11-23/x.json"),
        ("http://ada:pw@127.0.0.1:9", "http://127.0.0.1:9/lake/a%20b/dt%3D2026-11-23/x.json"),
        (
            "https://minio.example.com",
            "https://minio.example.com/lake/a%20b/dt%3D2026-11-23/x.json",
        ),
    ],
)
def test_store_links_to_an_object_without_a_password(
    endpoint: str | None, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's console shows it to who is logged in there; another endpoint is linked to itself."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    client = boto3.client("s3", endpoint_url=endpoint)
    assert Store(lambda: client, "lake", "a b").link("dt=2026-11-23/x.json") == link


def test_store_link_opens_the_object(store: Store) -> None:
    """The local S3 answers the link with the object."""
    put(store, b"body")
    assert requests.get(store.link("a"), timeout=10).content == b"body"


def test_put_writes_only_over_the_object_that_it_replaces(store: Store) -> None:
    """`replaces=None` writes the first object, a `Stored` over that very one, True over any."""
    first = put(store, b"first", replaces=None)
    with pytest.raises(Conflict, match=rf"^s3://{store.bucket}/a was changed by another run\.$"):
        put(store, b"second", replaces=None)
    assert store.read("a", "advice") == (b"first", first)
    second = put(store, b"second", replaces=first)
    with pytest.raises(Conflict):
        put(store, b"third", replaces=first)
    assert store.read("a", "advice") == (b"second", second)
    third = put(store, b"third")
    assert store.read("a", "advice") == (b"third", third)
    store.client.delete_object(Bucket=store.bucket, Key="a")
    with pytest.raises(Conflict):
        put(store, b"fourth", replaces=third)
    assert store.head("a") is None


def test_put_encrypts_with_the_key_of_the_settings(store: Store) -> None:
    """With `RANDUSERS_KMS_KEY_ID` the object is SSE-KMS under that key; without, as the bucket."""
    put(Store(lambda: store.client, store.bucket, kms_key_id="key-1"), b"x")
    answer = store.client.head_object(Bucket=store.bucket, Key="a")
    assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", "key-1")
    put(store, b"x")
    assert "SSEKMSKeyId" not in store.client.head_object(Bucket=store.bucket, Key="a")


@pytest.mark.parametrize("metadata", [{"sha256": sha256_of(b"good")}, {}])
def test_download_refuses_bytes_that_are_not_as_written(
    store: Store, metadata: Mapping[str, str]
) -> None:
    """An object whose bytes do not have the digest of its metadata is not loaded."""
    store.client.put_object(Bucket=store.bucket, Key="a", Body=b"bad", Metadata=metadata)
    assert message_of(lambda: store.download("a", "write it again")) == (
        f"s3://{store.bucket}/a is not as it was written (its SHA-256 differs): write it again."
    )


def test_swap_keeps_or_replaces_what_is_stored(store: Store) -> None:
    """What `decide` returns is kept or written, and returned; an error of S3 is passed on."""
    first = store.swap("a", lambda: Replacement(None, b"first"), content_type="text/plain")
    assert store.read("a", "advice") == (b"first", first)
    assert store.swap("a", lambda: first, content_type="text/csv") is first
    assert store.read("a", "advice") == (b"first", first)
    second = store.swap("a", lambda: Replacement(first, b"second"), content_type="text/csv")
    assert store.read("a", "advice") == (b"second", second)
    assert store.client.head_object(Bucket=store.bucket, Key="a")["ContentType"] == "text/csv"
    unknown = Store(lambda: store.client, "no-such-bucket")
    with pytest.raises(SnapshotError, match=r"^s3://no-such-bucket does not exist at "):
        unknown.swap("a", lambda: Replacement(None, b"first"), content_type="text/plain")


@pytest.mark.parametrize("before", [None, b"0"])
@pytest.mark.parametrize("tries", [1, 4])
def test_swap_by_runs_at_once_applies_each_change_or_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, before: bytes | None, tries: int
) -> None:
    """Of four runs that look at the same object, one try each lets one write, four let all."""
    monkeypatch.setattr(s3, "SWAP_TRIES", tries)
    if before:
        put(store, before)
    looked = threading.Barrier(4, timeout=patience())

    def append(name: bytes) -> None:
        first = [store.read("a", "advice")]
        looked.wait()

        def decide() -> Replacement:
            body, stored = (first.pop() if first else store.read("a", "advice")) or (b"", None)
            return Replacement(stored, body + name)

        store.swap("a", decide, content_type="text/plain")

    with ThreadPoolExecutor(4) as pool:
        runs = {name: pool.submit(append, name) for name in (b"1", b"2", b"3", b"4")}
    applied = [name for name, run in runs.items() if not run.exception()]
    busy = [run for run in runs.values() if "changed by other runs" in str(run.exception())]
    assert (len(applied), len(busy)) == (tries, 4 - tries)
    body, _ = store.read("a", "advice") or (b"", None)
    assert sorted(body) == sorted(b"".join([before or b"", *applied]))


def test_swap_that_other_runs_always_win_fails(store: Store) -> None:
    """After 20 tries the error asks to run again, and the others' object stays."""
    others: list[Stored] = []

    def decide() -> Replacement:
        now = store.head("a")
        others.append(put(store, b"%d" % len(others)))
        return Replacement(now, b"never")

    with pytest.raises(SnapshotError) as caught:
        store.swap("a", decide, content_type="text/plain")
    assert str(caught.value) == (
        f"s3://{store.bucket}/a was changed by other runs 20 times in a row: run again when they"
        " are done."
    )
    assert caught.value.retryable
    assert (len(others), store.read("a", "advice")) == (20, (b"19", others[-1]))


def test_store_needs_no_list_bucket(store: Store, s3_server: LocalS3) -> None:
    """A whole day, twice, with and without its objects, makes only Get, Head and PutObject."""
    calls: set[str] = set()

    def note(params: Mapping[str, str], model: OperationModel, **_: object) -> None:
        assert params["Key"]
        calls.add(model.name)

    own = Store(S3Resource(endpoint_url=s3_server.endpoint_url).get_client, store.bucket)
    own.client.meta.events.register("before-parameter-build.s3", note)
    raw, frames = raw_users_of(users(3)), frames_of(users(3))
    for date in ("2026-11-22", "2026-11-23"):
        read_latest(own, CONTRACT)
        with pytest.raises(SnapshotError, match="does not exist"):
            SnapshotRun(own, CONTRACT).load_raw(date)
        objects.save(own, date, raw)
        objects.save(own, date, frames)
        compare_with_day_before(own, date, frames)
        for _ in ("published", "unchanged"):
            run = SnapshotRun(own, CONTRACT)
            run.load_raw(date)
            run.load_frames(date)
            publish(own, date, run.pass_gates(date, frames, Policy()), "run")
        assert read_back(own, CONTRACT, date).passed
    assert calls == {"GetObject", "HeadObject", "PutObject"}
