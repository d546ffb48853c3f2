"""What went wrong, in a line that a person can act on."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from cloud.clients import error_code

ACCESS_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "ForbiddenException", "UnauthorizedException", "403"}
)
SIGN_IN_ENDED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
UNKNOWN_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
SERVICES = {
    "BatchGetItem": "dynamodb",
    "DeleteItem": "dynamodb",
    "DeleteObject": "s3",
    "DescribeAlarms": "cloudwatch",
    "GetMetricStatistics": "cloudwatch",
    "GetCallerIdentity": "sts",
    "GetItem": "dynamodb",
    "GetObject": "s3",
    "GetPublicKey": "kms",
    "ListObjectsV2": "s3",
    "PutItem": "dynamodb",
    "PutObject": "s3",
    "Scan": "dynamodb",
    "Verify": "kms",
}
"""By operation outside IoT: the service in the name of the permission that it needs."""
SIGN_IN = "the sign-in to AWS has ended: sign in again"


class OpsError(Exception):
    """Something the operator can act on; its text is all that is shown."""


def explain(error: ClientError | BotoCoreError) -> str:
    """One line for an error of AWS or of the way to it: what failed, and what to do."""
    if isinstance(error, ClientError):
        return _explain_answer(error)
    if isinstance(error, SSOError | TokenRetrievalError):
        return f"{SIGN_IN}, for example with `aws sso login` ({error})"
    if isinstance(error, NoCredentialsError | CredentialRetrievalError):
        return f"no AWS credentials: sign in, or set AWS_PROFILE ({error})"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"AWS cannot be reached: {error}"
    return f"AWS cannot be asked: {error}"


def _explain_answer(error: ClientError) -> str:
    what, operation = error_code(error), error.operation_name
    said = str(error.response.get("Error", {}).get("Message", ""))
    if what in ACCESS_DENIED:
        needed = f"{SERVICES.get(operation, 'iot')}:{operation}"
        if operation == "GetObject":
            needed += " (and s3:ListBucket: without it a missing object looks forbidden)"
        return f"AWS does not allow it: you need the permission {needed} ({said})"
    if what in SIGN_IN_ENDED:
        return f"{SIGN_IN} ({operation}: {said})"
    if what in UNKNOWN_CREDENTIALS:
        check = "check AWS_PROFILE and the access key"
        return f"AWS does not know these credentials: {check} ({operation}: {said})"
    if what == "NoSuchBucket":
        return "the bucket does not exist: are these the outputs of a stack that still stands?"
    return f"AWS answered {operation} with {what}: {said}"
