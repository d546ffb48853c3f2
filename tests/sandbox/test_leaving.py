"""Devices leave a running fleet: cut off, restored, let go of; certificates and policies are
enforced."""

from __future__ import annotations

import time
from typing import Any

from ops.device_report import report_device
from rollout.names import StackOutput
from tests.sandbox.fleet import EVERYBODY, Fleet
from tests.sandbox.intruder import Intruder

STOLEN = "0005"
CUT_OFF_SECONDS = 20.0
"""A dozen calls of a busy machine's local AWS; of one that is not, a second."""


def may_connect(fleet: Fleet, serial: str) -> bool:
    config = fleet.configs[serial]
    identity = (config.certificate_pem, config.private_key_pem)
    port, thing = fleet.instance.mqtt_port, config.thing
    with Intruder(port, config.ca_pem, thing, identity) as device:
        return device.connected()


def groups_of(fleet: Fleet, thing: str) -> list[str]:
    answer = fleet.client("iot").list_thing_groups_for_thing(thingName=thing)
    return [group["groupName"] for group in answer["thingGroups"]]


def test_a_stolen_device_is_let_in_no_more_though_the_controller_is_down(fleet: Fleet) -> None:
    thing, names = fleet.thing(STOLEN), fleet.sandbox.names
    before = groups_of(fleet, thing)
    with fleet.controller_down():
        began = time.monotonic()
        said = fleet.ops("quarantine", STOLEN)
        took = time.monotonic() - began
    assert took < CUT_OFF_SECONDS
    assert "does not end connections" in said, "the local AWS has no DeleteConnection"
    assert f"serial {STOLEN} is blocked" in said
    # it looks at certificates when a device connects: one that is connected stays so
    fleet.disconnect(STOLEN)
    assert not may_connect(fleet, STOLEN)
    assert may_connect(fleet, "0004"), "nobody else is cut off"
    assert groups_of(fleet, thing) == [names.quarantine_group]
    report = report_device(fleet.sandbox.channel, fleet.sandbox.stack, thing)
    assert report.cut_off
    assert report.cut_off.order.why == "a test"
    assert report.cut_off.done_at
    fleet.ops("restore", STOLEN)
    assert groups_of(fleet, thing) == before
    assert may_connect(fleet, STOLEN)
    fleet.connect(STOLEN)


def test_what_the_stack_did_not_create_is_let_go(fleet: Fleet) -> None:
    iot, names = fleet.client("iot"), fleet.sandbox.names
    policy = fleet.sandbox.outputs[StackOutput.DEVICE_POLICY_NAME]
    made = {thing: add_device(iot, names, policy, thing) for thing in (names.thing("x-9"), "Pump")}
    dry = fleet.ops("drain", "--dry-run")
    assert "REMOVES 6 devices that" in dry, "the five that came by claim, and another"
    assert "Takes 1 device that" in dry
    fleet.ops("drain")
    things = {thing["thingName"] for thing in iot.list_things()["things"]}
    assert things == {"Pump"}
    assert groups_of(fleet, "Pump") == []
    foreign = iot.describe_certificate(certificateId=made["Pump"]["certificateId"])
    assert foreign["certificateDescription"]["status"] == "ACTIVE"
    assert iot.list_targets_for_policy(policyName=policy)["targets"] == []
    assert not any(may_connect(fleet, serial) for serial in EVERYBODY)
    assert fleet.live_jobs() == []


def add_device(iot: Any, names: Any, policy: str, thing: str) -> dict[str, Any]:
    """A thing in a ring, with a certificate that has the stack's policy."""
    iot.create_thing(thingName=thing, attributePayload={"attributes": {"serial": thing}})
    iot.add_thing_to_thing_group(thingName=thing, thingGroupName=names.ring_group("broad"))
    made: dict[str, Any] = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    return made
