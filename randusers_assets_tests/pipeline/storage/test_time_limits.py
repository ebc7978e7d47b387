"""Whatever S3 does, a request and a body end in bounded time, and in one sentence."""

import io
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from botocore import UNSIGNED
from botocore.exceptions import ResponseStreamingError
from botocore.response import StreamingBody
from dagster_aws.s3 import S3Resource

from randusers_assets import resources
from randusers_assets.pipeline.errors import SnapshotError
from randusers_assets.pipeline.storage import s3, time_limits
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets.pipeline.storage.time_limits import read_within, seconds_for
from randusers_assets.resources import SnapshotStore
from randusers_assets_tests.builders import temp_file_of
from randusers_assets_tests.pipeline.storage import s3_proxy as s3_proxy_module
from randusers_assets_tests.pipeline.storage.s3_proxy import (
    Answer,
    Fault,
    Request,
    error,
    s3_proxy,
)
from randusers_sandbox.s3 import LocalS3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BODY = bytes(range(256)) * 16
TRIES = 2


def read(store: Store) -> object:
    """Read the object."""
    return store.read("a", "advice")


def head(store: Store) -> object:
    """Look at the object."""
    return store.head("a")


def write(store: Store) -> object:
    """Write the object anew."""
    return store.put("a", BODY, content_type="text/plain")


@pytest.fixture
def fails_as(
    store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Fault, Callable[[Store], object]], str]:
    """Return a function that does something with an object, and gives the kind of its failure."""
    write(store)
    monkeypatch.setattr(s3, "PAUSES", (0.0,) * (TRIES - 1))

    def fails(fault: Fault, act: Callable[[Store], object]) -> str:
        requests: list[Request] = []

        def rule(request: Request) -> Fault:
            requests.append(request)
            return fault

        with ThreadPoolExecutor(1) as pool, s3_proxy(s3_server.endpoint_url, rule) as url:
            s3_resource = S3Resource(endpoint_url=url, max_attempts=TRIES)
            limited = SnapshotStore(s3_resource=s3_resource, bucket=store.bucket).store
            failure = pool.submit(act, limited).exception(timeout=20)
        assert isinstance(failure, SnapshotError)
        assert failure.retryable
        assert len(requests) == TRIES
        found = re.fullmatch(
            rf"s3://{store.bucket}/a: S3 at {url} cannot be reached or closed the connection"
            r" \((\w+)\): check AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION and the network\.",
            str(failure),
        )
        assert found
        return found[1]

    return fails


@pytest.mark.parametrize("act", [read, head, write])
@pytest.mark.parametrize("when", ["before", "after"])
def test_request_that_hangs_ends(
    fails_as: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Store], object],
    when: str,
) -> None:
    """A request that is never answered, carried out or not, ends after its tries."""
    monkeypatch.setattr(resources, "READ_SECONDS", 0.2)
    never = threading.Event()
    fault = Fault(hang=never) if when == "before" else Fault(hang_after=never)
    assert fails_as(fault, act) == "ReadTimeoutError"


DENIED = error(403, "Forbidden", "x" * 500)


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (read, Fault(drip="head")),
        (head, Fault(drip="head")),
        (write, Fault(drip="head")),
        (read, Fault(drip="body")),
        (read, Fault(answer=DENIED, drip="body")),
        (write, Fault(answer=DENIED, drip="body")),
    ],
)
def test_answer_that_drips_ends(
    fails_as: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Store], object],
    fault: Fault,
) -> None:
    """Headers, a body or an error that come a byte at a time end, though each byte is in time."""
    monkeypatch.setattr(time_limits, "TRANSFER_SECONDS", 0.2)
    assert fails_as(fault, act) == "ReadTimeoutError"


def test_assembly_of_parts_may_take_longer(
    store: Store, s3_server: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers spaces for minutes while it assembles a large object; that is not ended."""
    monkeypatch.setattr(time_limits, "TRANSFER_SECONDS", 1.0)
    monkeypatch.setattr(s3_proxy_module, "DRIP_SECONDS", 0.002)
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 1)
    requests: list[Request] = []

    def rule(request: Request) -> Fault:
        requests.append(request)
        slow = request.method == "POST" and request.query.startswith("uploadId")
        return Fault(change=spaced, drip="body") if slow else Fault()

    def spaced(answer: Answer) -> Answer:
        return replace(answer, body=answer.body + b" " * 1000)

    with s3_proxy(s3_server.endpoint_url, rule) as url:
        limited = SnapshotStore(s3_resource=S3Resource(endpoint_url=url), bucket=store.bucket).store
        limited.put("a", temp_file_of(BODY), content_type="text/plain")
    assert [request.method for request in requests] == ["POST", "PUT", "POST"]


def test_time_limit_grows_with_the_size() -> None:
    """Half a minute, and 8 seconds for each MiB."""
    assert [seconds_for(size) for size in (0, 1 << 20, 1 << 30)] == [30, 38, 30 + 8192]


class WatchedBody(StreamingBody):
    """A body of three chunks, each of which takes a moment, and what ended it."""

    ended = False

    def read(self, amt: int | None = None) -> bytes:
        """Read after a moment."""
        time.sleep(0.1)
        return super().read(amt)

    def set_socket_timeout(self, timeout: float) -> None:  # noqa: ARG002  # botocore's signature
        """Note that the time is over."""
        self.ended = True


@pytest.mark.parametrize(("limit", "ended"), [(1.0, False), (0.15, True)])
def test_time_limit_leaves_out_what_the_reader_does(limit: float, *, ended: bool) -> None:
    """Four reads take 0.4 seconds, and what the reader does between them more than a second."""
    body, chunks = WatchedBody(io.BytesIO(b"0123456789"), 10), []
    for chunk in read_within(limit, body, 4):
        chunks.append(chunk)
        time.sleep(0.4)
    assert (chunks, body.ended) == ([b"0123", b"4567", b"89"], ended)


class BrokenStream(io.BytesIO):
    """A connection whose TLS fails in the middle."""

    def read(self, _: int | None = -1, /) -> bytes:
        """Raise what urllib3 raises, and botocore passes on."""
        raise urllib3.exceptions.SSLError("decryption failed or bad record mac")


def test_broken_tls_is_a_broken_body() -> None:
    """An error of urllib3 that botocore does not know counts as a connection that broke off."""
    with pytest.raises(ResponseStreamingError, match="bad record mac"):
        list(read_within(1.0, StreamingBody(BrokenStream(), 10), 4))


def test_time_limits_leave_no_thread(store: Store) -> None:
    """The thread that watches a transfer ends with it."""
    before = set(threading.enumerate())
    write(store)
    read(store)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_client_has_the_settings_of_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field of S3Resource reaches the client, and boto3's own chain stands behind it."""

    def client_of(s3_resource: S3Resource) -> "S3Client":
        return SnapshotStore(s3_resource=s3_resource, bucket="b").store.client

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:10")
    given = S3Resource(
        region_name="eu-north-1",
        endpoint_url="https://127.0.0.1:11",
        max_attempts=7,
        aws_access_key_id="id",
        aws_secret_access_key="key",  # noqa: S106  # made up
        aws_session_token="token",  # noqa: S106  # made up
        verify=False,
    )
    endpoint: Any = client_of(given)._endpoint  # type: ignore[attr-defined]  # noqa: SLF001  # no public way
    assert endpoint.http_session._verify is False  # noqa: SLF001
    meta = client_of(given).meta
    assert (meta.region_name, meta.endpoint_url) == ("eu-north-1", "https://127.0.0.1:11")
    config: Any = meta.config  # its stubs know no attribute
    assert config.retries == {"mode": "standard", "total_max_attempts": 7}
    assert (config.connect_timeout, config.read_timeout) == (10, 30)
    params = {"Bucket": "b", "Key": "k"}
    signed = client_of(given).generate_presigned_url("get_object", Params=params)
    assert "&X-Amz-Credential=id%2F" in signed
    assert "&X-Amz-Security-Token=token&" in signed

    meta = client_of(S3Resource()).meta
    assert (meta.region_name, meta.endpoint_url) == ("us-east-1", "http://127.0.0.1:10")
    config = meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 5}
    config = client_of(S3Resource(use_unsigned_session=True)).meta.config
    assert config.signature_version is UNSIGNED
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    plain = client_of(S3Resource(use_ssl=False, region_name="eu-north-1")).meta
    assert plain.endpoint_url == "http://s3.eu-north-1.amazonaws.com"
    with pytest.raises(SnapshotError, match=r"^The config profile \(nobody\) could not be found: "):
        head(SnapshotStore(s3_resource=S3Resource(profile_name="nobody"), bucket="b").store)
