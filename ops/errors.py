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

DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "ForbiddenException", "UnauthorizedException", "403"}
)
ENDED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
UNKNOWN = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
SERVICES = {
    "DescribeAlarms": "cloudwatch",
    "GetMetricStatistics": "cloudwatch",
    "GetCallerIdentity": "sts",
    "GetObject": "s3",
    "PutObject": "s3",
    "Verify": "kms",
}
"""Operations that this command line calls outside IoT, for the name of the permission that a call
needs."""


class OpsError(Exception):
    """Something the operator can act on; its text is all that is shown."""


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def explain(error: ClientError | BotoCoreError) -> str:
    """One line for an error of AWS or of the way to it: what failed, and what to do."""
    if isinstance(error, ClientError):
        return _explain_answer(error)
    if isinstance(error, SSOError | TokenRetrievalError):
        return (
            "the sign-in to AWS has ended: sign in again, for example with `aws sso login`"
            f" ({error})"
        )
    if isinstance(error, NoCredentialsError | CredentialRetrievalError):
        return f"no AWS credentials: sign in, or set AWS_PROFILE ({error})"
    if isinstance(error, ConnectionError | HTTPClientError):
        return f"AWS cannot be reached: {error}"
    return f"AWS cannot be asked: {error}"


def _explain_answer(error: ClientError) -> str:
    what, said = code(error), str(error.response.get("Error", {}).get("Message", ""))
    if what in DENIED:
        return f"AWS does not allow it: you need the permission {permission(error)} ({said})"
    if what in ENDED:
        return f"the sign-in to AWS has ended: sign in again ({error.operation_name}: {said})"
    if what in UNKNOWN:
        return (
            "AWS does not know these credentials: check AWS_PROFILE and the access key"
            f" ({error.operation_name}: {said})"
        )
    if what == "NoSuchBucket":
        return (
            "the stack's bucket does not exist: are these the outputs of a stack that still stands?"
        )
    return f"AWS answered {error.operation_name} with {what}: {said}"


def permission(error: ClientError) -> str:
    """The IAM action that the refused call needs."""
    name = f"{SERVICES.get(error.operation_name, 'iot')}:{error.operation_name}"
    return (
        f"{name} (and s3:ListBucket: without it a missing object looks forbidden)"
        if name == "s3:GetObject"
        else name
    )
