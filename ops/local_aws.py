"""The sandbox's local AWS: the files that say where it is, and clients that can reach nothing else:
loopback endpoint, fake credentials, nothing from the environment."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import boto3
import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

from ops.paced import CONNECTIONS

FOLDER_VARIABLE = "SANDBOX_DIR"
"""Environment variable: the sandbox's folder."""
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".sandbox"
OUTPUTS_FILE = "outputs.json"
"""In the folder: the stack's outputs, once it is deployed."""
PROCESS_FILE = "ministack.json"
"""In the folder, while MiniStack runs: `port`, where it listens on 127.0.0.1, and more."""

ACCOUNT = "000000000000"
"""MiniStack takes an access key of 12 digits as the account, its bearer as the account's root."""
SECRET = "test"  # noqa: S105 - no secret

_lock = threading.Lock()


def sandbox_folder(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).absolute()


def endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def client(service: str, port: int, region: str) -> BaseClient:
    """The boto3 client of `service`, shared; safe to use from several threads."""
    with _lock:  # a botocore session must not make two clients at once
        return _client(service, port, region)


@functools.cache
def _client(service: str, port: int, region: str) -> BaseClient:
    config = Config(
        proxies={},
        s3={"addressing_style": "path"},
        max_pool_connections=CONNECTIONS,
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
    """Every variable at botocore's default: no AWS_*, no profile, no file of the user's."""
    variables = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    no_file = (None, None, os.devnull, None)
    variables |= {"config_file": no_file, "credentials_file": no_file}
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=variables))
