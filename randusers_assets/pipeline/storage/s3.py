"""The bucket: temp files and small JSON objects in and out, with conditional writes."""

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from randusers_assets.pipeline.errors import Conflict, SnapshotError
from randusers_assets.pipeline.storage.s3_errors import Missing, digest_error, explain
from randusers_assets.pipeline.storage.tempfiles import TempFile, explain_disk_full

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SINGLE_PUT_BYTES = 5 * 1024**3  # at most (AWS: "Amazon S3 multipart upload limits")
PART_BYTES = 256 * 1024**2
CHUNK_BYTES = 1 << 20
SWAP_TRIES = 20  # while other runs keep changing the object


@dataclass(frozen=True)
class Stored:
    """An object as S3 holds it."""

    etag: str
    size: int
    version_id: str | None
    metadata: Mapping[str, str]

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

    @cached_property
    def client(self) -> "S3Client":
        """The boto3 client."""
        try:
            return self.make_client()
        except ValueError as error:
            raise SnapshotError(
                "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and AWS_REGION."
            ) from error

    def key(self, path: str) -> str:
        """The object key of a path below the prefix."""
        return f"{self.prefix.strip('/')}/{path}".lstrip("/")

    def uri(self, path: str) -> str:
        """The `s3://` URI of a path below the prefix."""
        return f"s3://{self.bucket}/{self.key(path)}"

    def head(self, path: str) -> Stored | None:
        """What is stored at a path; None if nothing is.

        Without s3:ListBucket S3 answers 403 for a missing key, so that counts as missing too: a
        conditional write that follows fails where that was wrong.
        """
        try:
            with self._explain(path):
                return _stored(self.client.head_object(Bucket=self.bucket, Key=self.key(path)))
        except Missing:
            return None

    def read(self, path: str) -> tuple[bytes, Stored] | None:
        """A small object whole, or None if there is none (see `head`)."""
        try:
            chunks, stored = self.stream(path, "")
        except Missing:
            return None
        return b"".join(chunks), stored

    def stream(self, path: str, advice: str) -> tuple[Iterator[bytes], Stored]:
        """An object in chunks, and what S3 says of it; a missing one's error ends with `advice`."""
        with self._explain(path, advice):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.key(path))

        def chunks() -> Iterator[bytes]:
            with self._explain(path), contextlib.closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)

        return chunks(), _stored(answer)

    def download(self, path: str, advice: str) -> tuple[TempFile, Stored]:
        """Download an object to a temp file; SnapshotError if its digest is not the stored one."""
        chunks, stored = self.stream(path, advice)
        file = TempFile(expected_bytes=stored.size)
        with explain_disk_full(), file.writer() as writer:
            writer.writelines(chunks)
        if file.sha256 != stored.sha256:
            raise SnapshotError(
                f"{self.uri(path)} is not as it was written (its SHA-256 differs): {advice}."
            )
        return file, stored

    def put(
        self,
        path: str,
        body: TempFile | bytes,
        *,
        content_type: str,
        sha256: str | None = None,
        metadata: Mapping[str, str] | None = None,
        replaces: Stored | bool | None = True,
    ) -> Stored:
        """Write an object that S3 refuses unless its bytes have the digest `sha256` (or their own).

        `replaces` is the object that must be there, None for none, True for any; else Conflict.
        """
        if sha256 is None:
            sha256 = body.sha256 if isinstance(body, TempFile) else hashlib.sha256(body).hexdigest()
        request: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key(path)}
        request |= {"ContentType": content_type, "Metadata": {**(metadata or {}), "sha256": sha256}}
        if self.kms_key_id:
            request |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if replaces is None else {}
        if isinstance(replaces, Stored):
            condition = {"IfMatch": replaces.etag}
        size = len(body) if isinstance(body, bytes) else body.size
        with self._explain(path, conditional=bool(condition)):
            if isinstance(body, TempFile) and size > SINGLE_PUT_BYTES:
                answer = self._put_parts(request, body, sha256, condition)
            else:
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                source = body if isinstance(body, bytes) else body.reader()
                answer = self.client.put_object(
                    **request, **condition, Body=source, ContentLength=size, ChecksumSHA256=checksum
                )
        return Stored(answer["ETag"], size, answer.get("VersionId"), request["Metadata"])

    def swap(
        self, path: str, decide: Callable[[], Stored | Replacement], *, content_type: str
    ) -> Stored:
        """Replace an object by compare-and-swap; SnapshotError after `SWAP_TRIES` lost races.

        `decide` looks at what is stored and returns it, to keep it, or its replacement.
        """
        for _ in range(SWAP_TRIES):
            chosen = decide()
            if isinstance(chosen, Stored):
                return chosen
            with contextlib.suppress(Conflict):
                return self.put(path, chosen.body, content_type=content_type, replaces=chosen.of)
        raise SnapshotError(
            f"{self.uri(path)} was changed by other runs {SWAP_TRIES} times in a row: run again"
            " when they are done.",
            retryable=True,
        )

    def _put_parts(
        self, request: dict[str, Any], body: TempFile, sha256: str, condition: dict[str, Any]
    ) -> Any:  # noqa: ANN401  # the two answers share only the fields that `put` reads
        """Upload in parts, each with its checksum; after a failure no part is left behind."""
        file, parts, whole = body.reader(), list[Any](), hashlib.sha256()
        upload = self.client.create_multipart_upload(**request, ChecksumAlgorithm="SHA256")
        where = {"Bucket": self.bucket, "Key": request["Key"], "UploadId": upload["UploadId"]}
        with contextlib.ExitStack() as undo:
            undo.callback(self.client.abort_multipart_upload, **where)
            while data := file.read(PART_BYTES):
                whole.update(data)
                checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
                part: Any = {"PartNumber": len(parts) + 1, "ChecksumSHA256": checksum}
                sent = self.client.upload_part(**where, **part, Body=data)
                parts.append({**part, "ETag": sent["ETag"]})
            if whole.hexdigest() != sha256:
                raise digest_error(f"s3://{self.bucket}/{request['Key']}")
            answer = self.client.complete_multipart_upload(
                **where, **condition, MultipartUpload={"Parts": parts}
            )
            undo.pop_all()
        return answer

    @contextlib.contextmanager
    def _explain(self, path: str, advice: str = "", *, conditional: bool = False) -> Iterator[None]:
        if not self.bucket:
            raise SnapshotError("RANDUSERS_BUCKET is not set: name the bucket for the snapshots.")
        uri, endpoint = self.uri(path), "AWS"  # credentials can fail as the client is built, too
        try:
            endpoint = self.client.meta.endpoint_url
            yield
        except (BotoCoreError, ClientError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # a temp file's
            raise explain(error, uri, endpoint, advice=advice, conditional=conditional) from error


def _stored(head: Any) -> Stored:  # noqa: ANN401  # HeadObject's or GetObject's answer
    return Stored(head["ETag"], head["ContentLength"], head.get("VersionId"), head["Metadata"])
