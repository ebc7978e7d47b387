"""Upload a temp file in parts; nothing is published before the last request."""

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from randusers_assets.pipeline.storage.s3_errors import parts_left
from randusers_assets.pipeline.storage.tempfiles import TempFile

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

PART_BYTES = 256 * 1024**2


def upload_in_parts(
    client: "S3Client",
    address: dict[str, Any],
    described: dict[str, Any],
    body: TempFile,
    sha256: str,
    condition: dict[str, Any],
) -> Any:  # noqa: ANN401  # CompleteMultipartUpload's answer
    """Upload in parts, each with its checksum; after a failure, abort so that no part is left.

    ClientError BadDigest if all parts together do not have the digest `sha256`: S3 checks each
    part, but a full-object SHA-256 only of one PUT (AWS: "Checking object integrity").
    """
    upload = client.create_multipart_upload(**address, **described, ChecksumAlgorithm="SHA256")
    where = {**address, "UploadId": upload["UploadId"]}
    try:
        parts = _send_parts(client, where, body, sha256)
        return client.complete_multipart_upload(
            **where, **condition, MultipartUpload={"Parts": parts}
        )
    except BaseException as error:
        try:
            client.abort_multipart_upload(**where)
        except client.exceptions.NoSuchUpload:
            pass  # completed after all, or removed by a lifecycle rule
        except (BotoCoreError, ClientError, OSError) as refused:
            error.add_note(parts_left(refused))
        raise


def _send_parts(
    client: "S3Client", where: dict[str, Any], body: TempFile, sha256: str
) -> list[Any]:
    file, parts, whole = body.reader(), list[Any](), hashlib.sha256()
    while data := file.read(PART_BYTES):
        whole.update(data)
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        part: Any = {"PartNumber": len(parts) + 1, "ChecksumSHA256": checksum}
        # Each block of a file has its own timeout; bytes have one for the whole part.
        sent = client.upload_part(**where, **part, Body=io.BytesIO(data))
        parts.append({**part, "ETag": sent["ETag"]})
    if whole.hexdigest() != sha256:  # S3's answer to one PUT, which checks the whole
        raise ClientError({"Error": {"Code": "BadDigest"}}, "CompleteMultipartUpload")
    return parts
