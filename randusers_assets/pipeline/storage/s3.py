"""The bucket: spools and small JSON objects in and out, conditionally where it matters."""

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field

from randusers_assets.pipeline.storage.tempfiles import Spool, disk_full_named

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from types_boto3_s3 import S3Client

# The largest object that one PutObject takes (AWS: "Amazon S3 multipart upload limits").
SINGLE_PUT_BYTES = 5 * 1024**3
PART_BYTES = 256 * 1024**2
CHUNK_BYTES = 1 << 20


class Conflict(Exception):
    """The object is not in the state that the write was conditional on."""


@dataclass(frozen=True)
class Stored:
    """An object as S3 holds it."""

    etag: str
    size: int
    version_id: str | None
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """The digest written with the object, and verified by S3 as it was written."""
        return self.metadata.get("sha256", "")


class SnapshotStore(dg.ConfigurableResource):  # type: ignore[type-arg]  # the resource is itself
    """One bucket and prefix; needs s3:GetObject and s3:PutObject there, and no listing."""

    s3_resource: dg.ResourceDependency[S3Resource]
    bucket: str = Field(description="The bucket, `RANDUSERS_BUCKET`")
    prefix: str = Field(default="", description="Key prefix, `RANDUSERS_PREFIX`")
    kms_key_id: str = Field(default="", description="SSE-KMS key; else the bucket's default")

    @property
    def client(self) -> "S3Client":
        """The boto3 client, built once for the same settings.

        Raises:
            dagster.Failure: the AWS settings allow none.
        """
        from botocore import exceptions

        try:
            return _client(self.s3_resource.model_dump_json())
        except (exceptions.ProfileNotFound, exceptions.ConfigParseError) as error:
            raise dg.Failure(
                f"{error}: correct AWS_PROFILE or the AWS config file.", allow_retries=False
            ) from error
        except ValueError as error:
            raise dg.Failure(
                "The AWS settings give no S3 endpoint: correct AWS_ENDPOINT_URL_S3 and AWS_REGION.",
                allow_retries=False,
            ) from error

    def key(self, path: str) -> str:
        """The object key of a path below the prefix."""
        return f"{self.prefix.strip('/')}/{path}".lstrip("/")

    def uri(self, path: str) -> str:
        """The `s3://` URI of a path below the prefix."""
        return f"s3://{self.bucket}/{self.key(path)}"

    def head(self, path: str) -> Stored | None:
        """What is stored at a path.

        None if nothing is. Without s3:ListBucket S3 answers 403 for a missing key, so that counts
        as missing too: a write that follows is conditional on it and fails where it is wrong.
        """
        with self._explained(path, "s3:GetObject"):
            try:
                answer = self.client.head_object(Bucket=self.bucket, Key=self.key(path))
            except self.client.exceptions.ClientError as error:
                if _status(error) in (403, 404) and _code(error) != "NoSuchBucket":
                    return None
                raise
        return _stored(answer)

    def read(self, path: str) -> tuple[bytes, Stored] | None:
        """A small object whole, or None if there is none (see `head`)."""
        with self._explained(path, "s3:GetObject"):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.key(path))
            except self.client.exceptions.ClientError as error:
                if _code(error) in ("NoSuchKey", "AccessDenied"):
                    return None
                raise
            with contextlib.closing(answer["Body"]) as body:
                return body.read(), _stored(answer)

    def stream(self, path: str, advice: str) -> tuple[Iterator[bytes], Stored]:
        """An object in chunks, and what S3 says of it.

        Raises:
            dagster.Failure: nothing is there (the sentence ends with `advice`), or S3 fails.
        """
        with self._explained(path, "s3:GetObject"):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self.key(path))
            except self.client.exceptions.ClientError as error:
                if _code(error) not in ("NoSuchKey", "AccessDenied"):
                    raise
                may_not = " or may not be read" if _code(error) == "AccessDenied" else ""
                raise dg.Failure(
                    f"{self.uri(path)} does not exist{may_not}: {advice}.", allow_retries=False
                ) from error

        def chunks() -> Iterator[bytes]:
            with self._explained(path, "s3:GetObject"), contextlib.closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)

        return chunks(), _stored(answer)

    def download(self, path: str, advice: str) -> tuple[Spool, Stored]:
        """An object into a spool, held against its digest.

        Raises:
            dagster.Failure: as `stream`; or the bytes are not those that were written.
        """
        chunks, stored = self.stream(path, advice)
        spool = Spool(expected_bytes=stored.size)
        with disk_full_named(), spool.writer() as file:
            for chunk in chunks:
                file.write(chunk)
        if spool.sha256 != stored.sha256:
            raise dg.Failure(
                f"{self.uri(path)} is not as it was written (its SHA-256 differs): {advice}.",
                allow_retries=False,
            )
        return spool, stored

    def put(
        self,
        path: str,
        body: Spool | bytes,
        sha256: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        replaces: Stored | bool | None = True,
    ) -> Stored:
        """Write an object that S3 refuses unless its bytes have the digest `sha256`.

        `replaces` is the object that must be there (None: no object); True for whatever is there.

        Raises:
            Conflict: another object is there than `replaces`.
            dagster.Failure: S3 refused or cannot be reached.
        """
        request: dict[str, Any] = {
            "Bucket": self.bucket,
            "Key": self.key(path),
            "ContentType": content_type,
            "Metadata": {**(metadata or {}), "sha256": sha256},
        }
        if self.kms_key_id:
            request |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        condition: dict[str, Any] = {}
        if replaces is None:
            condition = {"IfNoneMatch": "*"}
        elif isinstance(replaces, Stored):
            condition = {"IfMatch": replaces.etag}
        size = len(body) if isinstance(body, bytes) else body.size
        with self._explained(path, "s3:PutObject"):
            try:
                if isinstance(body, Spool) and size > SINGLE_PUT_BYTES:
                    answer = self._put_parts(request, body, sha256, condition)
                else:
                    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                    source = body if isinstance(body, bytes) else body.reader()
                    answer = self.client.put_object(
                        **request,
                        **condition,
                        Body=source,
                        ContentLength=size,
                        ChecksumSHA256=checksum,
                    )
            except self.client.exceptions.ClientError as error:
                if condition and (_status(error) in (409, 412) or _code(error) == "NoSuchKey"):
                    raise Conflict(self.uri(path)) from error
                raise
        return Stored(answer["ETag"], size, answer.get("VersionId"), request["Metadata"])

    def _put_parts(
        self, request: dict[str, Any], body: Spool, sha256: str, condition: dict[str, Any]
    ) -> Any:  # noqa: ANN401  # the two answers share only the fields that `put` reads
        """Upload in parts, each with its checksum; on any failure no part is left behind."""
        where = {"Bucket": request["Bucket"], "Key": request["Key"]}
        upload = self.client.create_multipart_upload(**request, ChecksumAlgorithm="SHA256")
        where["UploadId"] = upload["UploadId"]
        try:
            parts: list[Any] = []
            whole = hashlib.sha256()
            with body.reader() as file:
                while data := file.read(PART_BYTES):
                    whole.update(data)
                    part: dict[str, Any] = {
                        "PartNumber": len(parts) + 1,
                        "ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode(),
                    }
                    sent = self.client.upload_part(**where, **part, Body=data)
                    parts.append({**part, "ETag": sent["ETag"]})
            if whole.hexdigest() != sha256:
                raise _not_as_audited(f"s3://{where['Bucket']}/{where['Key']}")  # noqa: TRY301  # the parts are to be aborted
            return self.client.complete_multipart_upload(
                **where, **condition, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            self.client.abort_multipart_upload(**where)
            raise

    @contextlib.contextmanager
    def _explained(self, path: str, action: str) -> Iterator[None]:
        """Turn boto3's errors into one sentence: what, where, what to do."""
        from botocore import exceptions

        if not self.bucket:
            raise dg.Failure(
                "RANDUSERS_BUCKET is not set: name the bucket that the snapshots go to.",
                allow_retries=False,
            )
        uri = self.uri(path)
        try:
            yield
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
            exceptions.TokenRetrievalError,
            exceptions.SSOError,
        ) as error:
            raise dg.Failure(
                f"{uri}: AWS credentials are missing or incomplete: set AWS_PROFILE, or"
                " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role.",
                allow_retries=False,
            ) from error
        except exceptions.ParamValidationError as error:
            raise dg.Failure(
                f"{uri} is not a valid S3 location: correct RANDUSERS_BUCKET and RANDUSERS_PREFIX.",
                allow_retries=False,
            ) from error
        except exceptions.ClientError as error:
            raise self._sentence(error, uri, action) from error
        except (exceptions.BotoCoreError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            raise dg.Failure(
                f"{uri}: S3 at {self.client.meta.endpoint_url} cannot be reached or broke off"
                f" ({type(error).__name__}): check AWS_ENDPOINT_URL_S3, AWS_REGION and the network."
            ) from error

    def _sentence(self, error: "ClientError", uri: str, action: str) -> dg.Failure:
        match _code(error):
            case "NoSuchBucket":
                return dg.Failure(
                    f"s3://{self.bucket} does not exist at {self.client.meta.endpoint_url}:"
                    " create the bucket, or correct RANDUSERS_BUCKET.",
                    allow_retries=False,
                )
            case (
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken"
            ) as code:
                return dg.Failure(
                    f"{uri}: S3 does not take these AWS credentials ({code}): correct or renew"
                    " them.",
                    allow_retries=False,
                )
            case "AccessDenied" | "403" as code:
                return dg.Failure(
                    f"{uri}: S3 refused {action} ({code}): allow it to these credentials, as"
                    " deploy/iam-policy.json does.",
                    allow_retries=False,
                )
            case "BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest":
                return _not_as_audited(uri)
            case code:
                return dg.Failure(
                    f"{uri}: S3 answered {code} (HTTP {_status(error)}) to {action}:"
                    " see the service's status and the bucket's settings."
                )


def _not_as_audited(uri: str) -> dg.Failure:
    return dg.Failure(
        f"{uri} is not written: the bytes sent are not those that were audited (their SHA-256"
        " differs): check this machine's disk and memory, then run again.",
        allow_retries=False,
    )


@cache
def _client(settings: str) -> "S3Client":
    client: S3Client = S3Resource.model_validate_json(settings).get_client()
    return client


def _stored(answer: Any) -> Stored:  # noqa: ANN401  # HeadObject's or GetObject's answer
    return Stored(
        answer["ETag"], answer["ContentLength"], answer.get("VersionId"), answer["Metadata"]
    )


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
