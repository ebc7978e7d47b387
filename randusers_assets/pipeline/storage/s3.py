"""The bucket: temp files and small JSON objects in and out, with conditional writes."""

import base64
import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from randusers_assets.pipeline.errors import Altered, Conflict, SnapshotError
from randusers_assets.pipeline.storage.multipart import upload_in_parts
from randusers_assets.pipeline.storage.paths import key_of
from randusers_assets.pipeline.storage.s3_errors import (
    Denied,
    Missing,
    explain,
    is_busy,
)
from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_host_limits
from randusers_assets.pipeline.storage.time_limits import read_within, seconds_for

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

SINGLE_PUT_BYTES = 5 * 1024**3  # at most (AWS: "Amazon S3 multipart upload limits")
CHUNK_BYTES = 1 << 20
PROBE = "_access/probe.txt"
SWAP_TRIES = 20  # while other runs keep changing the object
PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds, before a write or the rest of a body is tried again
_BROKEN_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


@dataclass(frozen=True)
class Stored:
    """An object as S3 holds it."""

    etag: str
    size: int
    version_id: str | None
    metadata: Mapping[str, str]
    content_type: str = ""
    content_encoding: str = ""

    @property
    def sha256(self) -> str:
        """The digest stored with the object; S3 verified it when the object was written."""
        return self.metadata.get("sha256", "")


@dataclass(frozen=True)
class Replacement:
    """A new body for an object; `of` is what it replaces, None for nothing."""

    of: Stored | None
    body: TempFile | bytes


@dataclass(frozen=True)
class Store:
    """One bucket and prefix; needs s3:GetObject and s3:PutObject there, and no listing."""

    make_client: "Callable[[], S3Client]"
    bucket: str
    prefix: str = ""
    kms_key_id: str = ""
    owner: str = ""
    _access: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @cached_property
    def client(self) -> "S3Client":
        """The boto3 client."""
        try:
            return self.make_client()
        except ValueError as error:
            raise SnapshotError(
                "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and"
                " AWS_DEFAULT_REGION."
            ) from error

    def key(self, path: str) -> str:
        """The object key of a path below the prefix."""
        return key_of(self.prefix, path)

    def uri(self, path: str) -> str:
        """The `s3://` URI of a path below the prefix."""
        return f"s3://{self.bucket}/{self.key(path)}"

    def link(self, path: str) -> str:
        """Where a browser shows an object: in AWS's console, else at the endpoint itself."""
        key, endpoint = quote(self.key(path)), urlsplit(self.client.meta.endpoint_url)
        if (endpoint.hostname or "").endswith(".amazonaws.com"):
            return f"https://console.aws.amazon.com/s3/object/{self.bucket}?prefix={key}"
        host = endpoint.netloc.rpartition("@")[2]  # without a password
        return f"{endpoint.scheme}://{host}/{self.bucket}/{key}"

    def _address(self, path: str) -> dict[str, Any]:
        # S3 refuses a request for a bucket of another account than the one that is expected.
        owner = {"ExpectedBucketOwner": self.owner} if self.owner else {}
        return {"Bucket": self.bucket, "Key": self.key(path), **owner}

    def altered(self, path: str, advice: str) -> Altered:
        """The error for an object whose bytes are not those that were written."""
        return Altered(
            f"{self.uri(path)} is not as it was written (its SHA-256 differs): {advice}."
        )

    def check_access(self) -> str:
        """Write a probe and read it back; its URI. From then on a 403 counts as a missing object.

        Without s3:ListBucket S3 answers 403 both for a missing key and for one that may not be
        read, so whoever acts on an object's absence calls this first (AWS: "GetObject").
        """
        if not self._access.is_set():
            body, advice = b"Written and read to check the access.\n", "check the S3 service"
            self.put(PROBE, body, content_type="text/plain")
            if b"".join(self.stream(PROBE, advice)[0]) != body:
                raise self.altered(PROBE, advice)
            self._access.set()
        return self.uri(PROBE)

    def head(self, path: str) -> Stored | None:
        """What is stored at a path; None if nothing is."""
        try:
            with self._explain(path):
                return _stored(self.client.head_object(**self._address(path)))
        except Missing:
            return None
        except Denied:
            # The answer to GET has a body, which may say why.
            with contextlib.suppress(Missing):
                return self.stream(path, "run again")[1]
            return None

    def read(self, path: str, advice: str) -> tuple[bytes, Stored] | None:
        """A small object whole, or None if there is none.

        SnapshotError, ending with `advice`, if its digest is not the stored one.
        """
        try:
            chunks, stored = self.stream(path, advice)
        except Missing:
            return None
        body = b"".join(chunks)
        if hashlib.sha256(body).hexdigest() != stored.sha256:
            raise self.altered(path, advice)
        return body, stored

    def holds(self, path: str, now: Stored, body: TempFile | bytes, content_type: str) -> bool:
        """Whether the object `now` is this one, its bytes included: they are read to see."""
        size, sha256 = _size_and_sha256(body)
        described = (now.size, now.sha256, now.content_type, now.content_encoding)
        if described != (size, sha256, content_type, ""):
            return False
        digest = hashlib.sha256()
        for chunk in self.stream(path, "run again")[0]:
            digest.update(chunk)
        return digest.hexdigest() == sha256

    def keep(self, path: str, body: TempFile | bytes, *, content_type: str) -> Stored:
        """Write an object unless these very bytes are stored already."""
        now = self.head(path)
        if now and self.holds(path, now, body, content_type):
            return now
        return self.put(path, body, content_type=content_type)

    def stream(self, path: str, advice: str) -> tuple[Generator[bytes, None, None], Stored]:
        """An object in chunks, and what S3 says of it; a missing one's error ends with `advice`."""
        try:
            with self._explain(path, advice):
                answer = self.client.get_object(**self._address(path))
                try:
                    stored = _stored(answer)
                except BotoCoreError:
                    answer["Body"].close()
                    raise
        except Denied:
            if not self._access.is_set():
                raise
            raise Missing(f"{self.uri(path)} does not exist: {advice}.") from None
        return self._chunks(path, answer["Body"], stored), stored

    def download(self, path: str, advice: str) -> tuple[TempFile, Stored]:
        """Download an object to a temp file; SnapshotError if its digest is not the stored one."""
        chunks, stored = self.stream(path, advice)
        file = TempFile(expected_bytes=stored.size)
        with explain_host_limits(), file.writer() as writer:
            writer.writelines(chunks)
        if file.sha256 != stored.sha256:
            raise self.altered(path, advice)
        return file, stored

    def put(
        self,
        path: str,
        body: TempFile | bytes,
        *,
        content_type: str,
        sha256: str | None = None,
        replaces: Stored | bool | None = True,
    ) -> Stored:
        """Write an object that S3 refuses unless its bytes have the digest `sha256` (or their own).

        `replaces` is the object that must be there, None for none, True for any; else Conflict.
        """
        size, digest = _size_and_sha256(body)
        sha256 = sha256 or digest
        address = self._address(path)
        described: dict[str, Any] = {"ContentType": content_type, "Metadata": {"sha256": sha256}}
        if self.kms_key_id:
            described |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if replaces is None else {}
        if isinstance(replaces, Stored):
            condition = {"IfMatch": replaces.etag}

        def send() -> Any:  # noqa: ANN401  # the two answers share only the fields read below
            if isinstance(body, TempFile) and size > SINGLE_PUT_BYTES:
                return upload_in_parts(self.client, address, described, body, sha256, condition)
            checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
            source = body if isinstance(body, bytes) else body.reader()
            return self.client.put_object(
                **address,
                **described,
                **condition,
                Body=source,
                ContentLength=size,
                ChecksumSHA256=checksum,
            )

        with self._explain(path, conditional=bool(condition)):
            answer = _send_again_while_busy(send)
            _require_whole_head(answer)
        version_id = answer.get("VersionId")
        return Stored(answer["ETag"], size, version_id, described["Metadata"], content_type)

    def swap(
        self, path: str, decide: Callable[[], Stored | Replacement | None], *, content_type: str
    ) -> Stored | None:
        """Replace an object by compare-and-swap; SnapshotError after `SWAP_TRIES` lost races.

        `decide` looks at what is stored and returns its replacement, or else what it keeps.
        """
        for _ in range(SWAP_TRIES):
            chosen = decide()
            if not isinstance(chosen, Replacement):
                return chosen
            with contextlib.suppress(Conflict):
                return self.put(path, chosen.body, content_type=content_type, replaces=chosen.of)
        raise SnapshotError(
            f"{self.uri(path)} was changed by other runs {SWAP_TRIES} times in a row: run again"
            " when they are done.",
            retryable=True,
        )

    def _chunks(
        self, path: str, body: "StreamingBody", stored: Stored
    ) -> Generator[bytes, None, None]:
        """Yield a body in chunks; where the connection breaks off, the rest of the same object."""
        at, pauses = 0, iter(PAUSES)
        with self._explain(path):
            while True:
                try:
                    for chunk in read_within(seconds_for(stored.size - at), body, CHUNK_BYTES):
                        at += len(chunk)
                        yield chunk
                except _BROKEN_OFF:
                    pause = next(pauses, None)
                    if pause is None:
                        raise
                else:
                    return
                time.sleep(pause)
                rest: dict[str, Any] = {"Range": f"bytes={at}-"} if at else {}
                body = self.client.get_object(**self._address(path), IfMatch=stored.etag, **rest)[
                    "Body"
                ]

    @contextlib.contextmanager
    def _explain(self, path: str, advice: str = "", *, conditional: bool = False) -> Iterator[None]:
        if not self.bucket:
            raise SnapshotError("RANDUSERS_BUCKET is not set: name the bucket for the snapshots.")
        uri, endpoint = self.uri(path), "AWS"  # credentials can fail as the client is built, too
        try:
            endpoint = self.client.meta.endpoint_url
            yield
        except (BotoCoreError, ClientError, OSError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # a temp file's
            explained = explain(
                error, uri, endpoint, owner=self.owner, advice=advice, conditional=conditional
            )
            explained.args = (" ".join([str(explained), *getattr(error, "__notes__", [])]),)
            raise explained from None  # S3's own message may hold what no log should


def _send_again_while_busy(send: Callable[[], Any]) -> Any:  # noqa: ANN401  # S3's answer
    for pause in PAUSES:
        try:
            return send()
        except ClientError as error:
            if not is_busy(error):
                raise
        time.sleep(pause)
    return send()


def _stored(head: Any) -> Stored:  # noqa: ANN401  # HeadObject's or GetObject's answer
    _require_whole_head(head, "ContentLength")
    return Stored(
        etag=head["ETag"],
        size=head["ContentLength"],
        version_id=head.get("VersionId"),
        # Some stores that are not AWS return `Sha256`.
        metadata={name.lower(): value for name, value in head["Metadata"].items()},
        content_type=head.get("ContentType", ""),
        content_encoding=head.get("ContentEncoding", ""),
    )


def _require_whole_head(answer: Any, *names: str) -> None:  # noqa: ANN401  # S3's answer
    # Headers that end early are no error to http.client.
    if not (re.fullmatch(r'(W/)?"[^"]+"', answer.get("ETag", "")) and {*names} <= answer.keys()):
        raise ConnectionClosedError(endpoint_url="")


def _size_and_sha256(body: TempFile | bytes) -> tuple[int, str]:
    if isinstance(body, bytes):
        return len(body), hashlib.sha256(body).hexdigest()
    return body.size, body.sha256
