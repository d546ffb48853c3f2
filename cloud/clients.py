"""boto3's clients, and how AWS's answers are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Connect = Callable[[str], Any]
"""Makes the boto3 client of a service, such as `boto3.Session().client`."""

CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=20,
    max_pool_connections=16,
)
"""How a client waits and tries again: a call gives up after some 25 s without an answer."""
QUICK_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=1, read_timeout=1
)
"""For the pre-provisioning hook, for which AWS IoT waits five seconds: a call is tried twice, and
each time waits a second for the connection and one for the answer."""
PAGE = 250
"""Most items in a page of AWS IoT's lists."""
AWS_ERRORS = (BotoCoreError, ClientError)
"""What a call raises when AWS refuses it, or cannot be asked."""
MISSING = frozenset(
    {
        "NoSuchKey",
        "NoSuchVersion",
        "404",
        "ResourceNotFoundException",
        # what S3 says where a version is asked for that is a delete marker
        "MethodNotAllowed",
        "405",
    }
)
ALREADY_SO = frozenset(
    {
        "InvalidRequestException",
        "InvalidStateTransitionException",
        "ResourceNotFoundException",
    }
)
"""Answers of AWS IoT to a call whose aim was reached before: the job has ended, the thing or the
group is gone."""


class Clients:
    """The clients of one account and region, each made when it is first asked for."""

    def __init__(self, connect: Connect) -> None:
        self._client = cache(connect)

    @property
    def cloudwatch(self) -> Any:
        return self._client("cloudwatch")

    @property
    def dynamodb(self) -> Any:
        return self._client("dynamodb")

    @property
    def events(self) -> Any:
        return self._client("events")

    @property
    def iot(self) -> Any:
        return self._client("iot")

    @property
    def iot_data(self) -> Any:
        return self._client("iot-data")

    @property
    def kms(self) -> Any:
        return self._client("kms")

    @property
    def s3(self) -> Any:
        return self._client("s3")

    @property
    def sts(self) -> Any:
        return self._client("sts")


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: ClientError) -> bool:
    return error_code(error) in MISSING


def attempt(call: Callable[..., object], **parameters: Any) -> bool:
    """Makes a call whose aim may have been reached already; False where it had been."""
    try:
        call(**parameters)
    except ClientError as error:
        if error_code(error) not in ALREADY_SO:
            raise
        return False
    return True


def list_all(client: Any, operation: str, key: str, **parameters: Any) -> Iterator[Any]:
    """Every item under `key` of an operation that answers in pages, page after page."""
    pages = client.get_paginator(operation).paginate(
        PaginationConfig={"PageSize": PAGE}, **parameters
    )
    for page in pages:
        yield from page.get(key, ())
