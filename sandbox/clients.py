"""boto3 clients that can only reach the local AWS: loopback endpoint, fake credentials, nothing
from the environment."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

ACCOUNT = "000000000000"
"""MiniStack takes an access key of 12 digits as the account, and its bearer as the account's
root."""
SECRET = "test"

_lock = threading.Lock()


def endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def client(service: str, port: int, region: str) -> Any:
    """The boto3 client of `service`, shared; safe to use from several threads."""
    with _lock:  # a botocore session must not make two clients at once
        return _client(service, port, region)


@functools.cache
def _client(service: str, port: int, region: str) -> Any:
    config = Config(
        proxies={},
        s3={"addressing_style": "path"},
        max_pool_connections=32,
        connect_timeout=5,
        read_timeout=120,
        retries={"total_max_attempts": 2, "mode": "standard"},
        request_checksum_calculation="when_required",
    )
    return _session().client(
        service,
        region_name=region,
        endpoint_url=endpoint(port),
        config=config,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key=SECRET,
    )


@functools.cache
def _session() -> boto3.session.Session:
    """A session with every variable at botocore's default: no AWS_*, no profile, no file of the
    user's is looked at."""
    variables = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in _defaults().items()
    }
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=variables))


def _defaults() -> dict[str, Any]:
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    return {**BOTOCORE_DEFAUT_SESSION_VARIABLES, **files}
