"""What holds for every test: no way to a real AWS or any other machine, and the same examples in
every run of CI."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Set before any test module is imported: boto3 and Pulumi read their surroundings when they are.
for name in [name for name in os.environ if name.startswith(("AWS_", "PULUMI_", "BOTO_"))]:
    del os.environ[name]
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "PULUMI_SKIP_UPDATE_CHECK": "true",
}

settings.register_profile(
    "project",
    deadline=None,  # a shared machine is slow at times
    max_examples=100,
    derandomize="CI" in os.environ,  # a change must not fail on an example that it did not bring
    database=None,
    print_blob=True,
)
settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def only_this_machine() -> Iterator[None]:
    """Refuses every connection that would leave this machine, whatever a test or a library
    tries."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _refusing(getattr(socket.socket, name)))
        yield


def _refusing(connect: Any) -> Any:
    def connect_here(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise PermissionError(f"a test tried to reach {address[0]}: tests stay on this machine")
        return connect(self, address)

    return connect_here


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
