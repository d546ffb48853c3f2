"""Sandboxes for tests: on free ports, in folders of their own, so that no test touches a running
one or another worker's."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pulumi_aws as aws
import pytest

from sandbox import session
from sandbox.instance import Instance
from tests.sandbox.fleet import Fleet

with warnings.catch_warnings():
    # loaded when first used, these modules warn of each of their old classes, which nobody here
    # uses
    warnings.simplefilter("ignore", DeprecationWarning)
    LOADED = (aws.lambda_.Function, aws.s3.Bucket)


def free_instance(folder: Path, *, auth: bool = True) -> Instance:
    """A sandbox to be, on two ports that nothing listens on; `auth`: its policies are enforced."""
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = {"port": one.getsockname()[1], "mqtt_port": two.getsockname()[1]}
        return Instance(folder=folder, auth=auth, **ports)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """A sandbox to be; what the test starts there is ended after it."""
    instance = free_instance(tmp_path / "sandbox")
    yield instance
    session.down(instance)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The deployed `local` stack with five devices, all of them on 2.1.0, the last good release."""
    instance = free_instance(tmp_path_factory.mktemp("fleet") / "sandbox")
    try:
        fleet = Fleet(instance)
        fleet.connect()
        fleet.proved("2.1.0")
        yield fleet
        fleet.disconnect()
    finally:
        session.down(instance)
