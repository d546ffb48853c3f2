"""A stack leaves an AWS that detaches certificates seconds after it said so, and stays while
devices of others use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops import local_aws
from rollout.names import StackOutput
from sandbox import ministack, session
from tests.engine.cli import Checkout
from tests.engine.slow_detach import SlowDetach, detaching_slowly
from tests.sandbox.conftest import free_instance

REGION, STACK = "us-east-1", "dev"
DESTROY = ("destroy", "--yes", "--skip-preview", "--stack", STACK)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkout, SlowDetach, Any]]:
    """`dev`, deployed, before an AWS that detaches after 5 s; and a client of its IoT."""
    folder = tmp_path_factory.mktemp("leaving")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        with detaching_slowly(instance.port) as proxy:
            checkout = Checkout(folder, proxy.port)
            checkout.add_stack(STACK)
            checkout.up(STACK)
            client = partial(local_aws.client, port=instance.port, region=REGION)
            yield checkout, proxy, client("iot")
    finally:
        session.down(instance)


def test_a_stack_that_another_device_uses_stays_until_that_is_let_go(
    slow: tuple[Checkout, SlowDetach, Any], tmp_path: Path
) -> None:
    checkout, _, iot = slow
    outputs = checkout.outputs(STACK)
    ring, policy = outputs[StackOutput.RING_GROUP_NAMES]["all"], outputs["devicePolicyName"]
    iot.create_thing(thingName="Pump_12")
    iot.add_thing_to_thing_group(thingName="Pump_12", thingGroupName=ring)
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    said = checkout.pulumi(*DESTROY, fails=True)
    assert "1 in its thing groups, and 1 certificates have the policy" in said
    assert "python -m ops drain" in said
    things = {thing["thingName"] for thing in iot.list_things()["things"]}
    assert things >= {"Pump_12", *outputs[StackOutput.DEVICE_NAMES].values()}, "nothing is gone"
    iot.remove_thing_from_thing_group(thingName="Pump_12", thingGroupName=ring)
    iot.detach_policy(policyName=policy, target=made["certificateArn"])


def test_a_stack_with_declared_devices_goes_in_one_go(
    slow: tuple[Checkout, SlowDetach, Any],
) -> None:
    checkout, proxy, iot = slow
    checkout.pulumi(*DESTROY)
    assert proxy.detached == 3, "the proxy was asked"
    assert proxy.refused == 0
    assert [thing["thingName"] for thing in iot.list_things()["things"]] == ["Pump_12"]
    state = json.loads(checkout.pulumi("stack", "export", "--stack", STACK))
    assert state["deployment"].get("resources", []) == []


def test_the_proxy_refuses_as_aws_does(slow: tuple[Checkout, SlowDetach, Any]) -> None:
    """Else the destroy above would prove nothing."""
    _, proxy, _ = slow
    iot = local_aws.client("iot", proxy.port, REGION)
    iot.create_thing(thingName="probe")
    made = iot.create_keys_and_certificate(setAsActive=False)
    iot.attach_thing_principal(thingName="probe", principal=made["certificateArn"])
    iot.detach_thing_principal(thingName="probe", principal=made["certificateArn"])
    with pytest.raises(iot.exceptions.InvalidRequestException, match="still attached"):
        iot.delete_thing(thingName="probe")
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_certificate(certificateId=made["certificateId"], forceDelete=True)
    proxy.wait()
    iot.delete_thing(thingName="probe")
    iot.delete_certificate(certificateId=made["certificateId"])
