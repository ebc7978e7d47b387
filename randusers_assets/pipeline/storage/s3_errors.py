"""boto3's errors as one sentence each: what, where, what to do."""

import re
from http import HTTPStatus
from typing import Any

from botocore import exceptions

from randusers_assets.pipeline.errors import Conflict, SnapshotError

_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
_ELSEWHERE = (
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)
_DIGESTS = (
    "BadDigest",
    "InvalidDigest",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
)


class Missing(SnapshotError):
    """There is no object."""


class Denied(SnapshotError):
    """An object may not be read, or there is none: without s3:ListBucket S3 does not say which."""


def is_busy(error: exceptions.ClientError) -> bool:
    """Whether another write of the object was under way: AWS says to send this one again."""
    return _status(error) == HTTPStatus.CONFLICT


def parts_left(error: Exception) -> str:
    """The sentence that follows the error of an upload whose parts S3 did not remove."""
    reason = _code(error) if isinstance(error, exceptions.ClientError) else type(error).__name__
    return (
        f"The parts that were sent are still in the bucket, because the abort failed ({reason}):"
        " allow s3:AbortMultipartUpload to these credentials, or have a lifecycle rule of the"
        " bucket remove incomplete uploads."
    )


def explain(
    error: Exception, uri: str, endpoint: str, *, owner: str, advice: str, conditional: bool
) -> SnapshotError:
    """Why a request for `uri` failed; `advice` ends the message of a missing object."""
    if isinstance(error, (exceptions.ProfileNotFound, exceptions.ConfigParseError)):
        return SnapshotError(f"{error}: correct AWS_PROFILE or the AWS config file.")
    if isinstance(error, _CREDENTIALS):
        return SnapshotError(
            f"{uri}: AWS credentials are missing or incomplete: set AWS_PROFILE, or"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role."
        )
    if isinstance(error, exceptions.ParamValidationError):
        return SnapshotError(
            f"{uri} is not a valid S3 location: correct RANDUSERS_BUCKET and RANDUSERS_PREFIX."
        )
    if isinstance(error, exceptions.FlexibleChecksumError):
        return SnapshotError(
            f"{uri}: the bytes received are not those that S3 sent (their checksum differs): run"
            " again, and if it stays so, check the network and this machine's memory.",
            retryable=True,
        )
    if _is_endless(error):
        return SnapshotError(
            f"{uri}: S3 at {endpoint} redirects every request: correct AWS_ENDPOINT_URL_S3 and"
            " AWS_DEFAULT_REGION."
        )
    if not isinstance(error, exceptions.ClientError):
        return SnapshotError(
            f"{uri}: S3 at {endpoint} cannot be reached or closed the connection"
            f" ({type(error).__name__}): check AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION and"
            " the network.",
            retryable=True,
        )
    operation, code, status = error.operation_name, _code(error), _status(error)
    of_kms = code == "AccessDenied" and "kms" in _message(error).lower()
    # To a wrong owner, S3 answers as to a lack of permission.
    another = owner and f" Or {owner} does not own the bucket: correct RANDUSERS_BUCKET_OWNER."
    action = "s3:GetObject" if operation in ("HeadObject", "GetObject") else "s3:PutObject"
    match operation, code:
        case _ if conditional and (status in (409, 412) or code == "NoSuchKey"):
            return Conflict(f"{uri} was changed by another run.")
        case "GetObject", "PreconditionFailed":
            return SnapshotError(f"{uri} was changed while it was read: run again.", retryable=True)
        case _ if code in _ELSEWHERE or status in (301, 307):
            region = _region(error)
            return SnapshotError(
                f"{uri}: the bucket is in {region or 'another region'} ({code}): set"
                f" AWS_DEFAULT_REGION to {region or 'its region'}."
            )
        case _ if of_kms or code.startswith("KMS."):
            return SnapshotError(
                f"{uri}: S3 may not use the KMS key ({code}): correct RANDUSERS_KMS_KEY_ID, and"
                " allow kms:GenerateDataKey and kms:Decrypt on that key to these credentials, as"
                " deploy/iam-policy.json does."
            )
        # The answer to HeadObject has no body, so its code is the status.
        case ("HeadObject", "404") | ("GetObject", "NoSuchKey"):
            return Missing(f"{uri} does not exist: {advice}.")
        case ("HeadObject", "400" | "403") | ("GetObject", "AccessDenied"):
            return Denied(
                f"{uri}: S3 refused s3:GetObject, or there is no such object (it says the same of"
                " both where s3:ListBucket is not allowed): allow s3:GetObject to these"
                " credentials, as deploy/iam-policy.json does, and see that the day is published."
                + another
            )
        case _, "NoSuchBucket":
            return SnapshotError(
                f"{'/'.join(uri.split('/')[:3])} does not exist at {endpoint}: create the bucket,"
                " or correct RANDUSERS_BUCKET."
            )
        case _, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken":
            return SnapshotError(
                f"{uri}: S3 does not accept these AWS credentials ({code}): correct or renew them."
            )
        case _, "AccessDenied" | "403":
            return SnapshotError(
                f"{uri}: S3 refused {action} ({code}): allow it to these credentials, as"
                f" deploy/iam-policy.json does.{another}"
            )
        case _ if code in _DIGESTS:
            return SnapshotError(
                f"{uri} is not written: the bytes sent are not those that were audited (their"
                " SHA-256 differs): check this machine's disk and memory, then run again."
            )
    return SnapshotError(
        f"{uri}: S3 answered {code} (HTTP {status}) to {action}: see the service's status and the"
        " bucket's settings.",
        retryable=True,
    )


def _is_endless(error: BaseException | None) -> bool:
    """Whether botocore followed redirects without end, asking each for the bucket's region."""
    while error and not isinstance(error, RecursionError):
        error = error.__context__  # it may be caught and raised again as a connection's
    return error is not None


def _code(error: exceptions.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _message(error: exceptions.ClientError) -> str:
    return error.response.get("Error", {}).get("Message") or ""


def _status(error: exceptions.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _region(error: exceptions.ClientError) -> str:
    """The bucket's region, where the answer says it."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named: Any = error.response.get("Error", {})  # its stubs do not know Region
    region = headers.get("x-amz-bucket-region") or named.get("Region", "")
    return region if re.fullmatch(r"[a-z]+(-[a-z]+)*(-?\d+)?", region) else ""
