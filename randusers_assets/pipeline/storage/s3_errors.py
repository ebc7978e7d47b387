"""boto3's errors as one sentence each: what, where, what to do."""

from botocore import exceptions

from randusers_assets.pipeline.errors import Conflict, SnapshotError

_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)


class Missing(SnapshotError):
    """There is no object, or it may not be read."""


def digest_error(uri: str) -> SnapshotError:
    """The bytes sent differ from those that were audited."""
    return SnapshotError(
        f"{uri} is not written: the bytes sent are not those that were audited (their SHA-256"
        " differs): check this machine's disk and memory, then run again."
    )


def explain(
    error: Exception, uri: str, endpoint: str, *, advice: str, conditional: bool
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
    if not isinstance(error, exceptions.ClientError):
        return SnapshotError(
            f"{uri}: S3 at {endpoint} cannot be reached or closed the connection"
            f" ({type(error).__name__}): check AWS_ENDPOINT_URL_S3, AWS_REGION and the network.",
            retryable=True,
        )
    operation, code = error.operation_name, error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    action = "s3:GetObject" if operation in ("HeadObject", "GetObject") else "s3:PutObject"
    match operation, code:
        case _ if conditional and (status in (409, 412) or code == "NoSuchKey"):
            return Conflict(f"{uri} was changed by another run.")
        # The answer to HeadObject has no body, so its code is the status.
        case ("HeadObject", "403" | "404") | ("GetObject", "NoSuchKey" | "AccessDenied"):
            denied = " or may not be read" if code == "AccessDenied" else ""
            return Missing(f"{uri} does not exist{denied}: {advice}.")
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
                " deploy/iam-policy.json does."
            )
        case _, "BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest":
            return digest_error(uri)
    return SnapshotError(
        f"{uri}: S3 answered {code} (HTTP {status}) to {action}: see the service's status and the"
        " bucket's settings.",
        retryable=True,
    )
