"""DeviceFleet: groups, policy, declared devices, and the order in which they go."""

from __future__ import annotations

from functools import cache

import pytest

from components import documents
from components.device_fleet import DeviceFleet, DeviceFleetArgs
from tests.unit.examples import IOT, LOCATION, NAMES, RING_ARNS, TAGS, P, fleet
from tests.unit.harness import UNKNOWN, Graph, build

DEVICE = [
    "fleet-device-0001",
    *(f"fleet-device-0001-{part}" for part in ("certificate", "policy", "principal", "ring")),
]


@cache
def made(*, preview: bool = False, keys_in_state: bool = False, devices: int = 1) -> Graph:
    args = DeviceFleetArgs(
        names=NAMES,
        location=LOCATION,
        fleet=fleet(keys_in_state=keys_in_state, devices=devices),
        tags=TAGS,
    )

    def program() -> object:
        made = DeviceFleet("fleet", args)
        return {**made.stack_outputs(), "ringArns": made.ring_arns}

    return build(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_a_fleet_is_groups_policy_type_and_five_resources_a_device(preview: bool) -> None:
    shared = ["fleet-group", "fleet-policy", "fleet-ring-broad", "fleet-ring-canary", "fleet-type"]
    assert made(preview=preview).children("fleet") == sorted([*shared, *DEVICE])
    assert len(made(preview=preview, devices=4).children("fleet")) == len(shared) + 4 * 5
    assert made(preview=preview, devices=0).children("fleet") == shared


def test_the_thing_type_makes_its_attributes_searchable() -> None:
    assert made()["fleet-type"].inputs == {
        "name": f"{P}-gateway",
        "properties": {
            "description": "gateway devices of the fleet iot-fleet",
            "searchableAttributes": ["hardware", "initialVersion", "serial"],
        },
        "tags": TAGS,
    }


def test_the_fleets_group_holds_its_rings() -> None:
    graph = made()
    assert graph["fleet-group"].inputs == {
        "name": P,
        "properties": {
            "description": "All devices of the fleet iot-fleet",
            "attributePayload": {"attributes": {"hardware": "gateway-a1"}},
        },
        "tags": TAGS,
    }
    assert graph["fleet-ring-canary"].inputs == {
        "name": f"{P}-canary",
        "parentGroupName": P,
        "properties": {
            "description": "Ring 1 of 2 of the fleet iot-fleet",
            "attributePayload": {
                "attributes": {"hardware": "gateway-a1", "percent": "10", "ring": "canary"}
            },
        },
        "tags": TAGS,
    }


def test_there_is_one_policy_and_it_is_the_documents() -> None:
    graph = made(devices=3)
    (policy,) = graph.of("Policy")
    assert policy.inputs == {
        "name": f"{P}-device",
        "policy": documents.text(documents.device_policy(LOCATION)),
        "tags": TAGS,
    }


def test_a_device_is_a_thing_with_certificate_policy_and_ring() -> None:
    graph = made()
    (certificate_arn,) = {
        graph["fleet-device-0001-policy"].inputs["target"],
        graph["fleet-device-0001-principal"].inputs["principal"],
    }
    assert certificate_arn.startswith(f"{IOT}:cert/")
    assert {name: graph[name].inputs for name in DEVICE} == {
        "fleet-device-0001": {
            "name": f"{P}-0001",
            "thingTypeName": f"{P}-gateway",
            "attributes": {
                "hardware": "gateway-a1",
                "initialVersion": "2.0.0",
                "serial": "0001",
                "site": "lab",
            },
        },
        "fleet-device-0001-certificate": {"active": True, "csr": "request 1"},
        "fleet-device-0001-policy": {"policy": f"{P}-device", "target": certificate_arn},
        "fleet-device-0001-principal": {"principal": certificate_arn, "thing": f"{P}-0001"},
        "fleet-device-0001-ring": {
            "thingName": f"{P}-0001",
            "thingGroupName": f"{P}-canary",
            "overrideDynamicGroup": False,
        },
    }


def test_a_device_is_in_the_ring_the_settings_say() -> None:
    graph = made(devices=3)
    groups = {
        item.inputs["thingName"]: item.inputs["thingGroupName"]
        for item in graph.of("ThingGroupMembership")
    }
    assert groups == {
        f"{P}-0001": f"{P}-canary",
        f"{P}-0002": f"{P}-broad",
        f"{P}-0003": f"{P}-broad",
    }


def test_a_device_that_changes_its_ring_leaves_the_old_one_first() -> None:
    """IoT refuses a thing in two groups of one hierarchy, so the usual order of a replacement would
    fail."""
    assert made()["fleet-device-0001-ring"].delete_before_replace


def test_a_destroy_detaches_before_it_deletes() -> None:
    graph = made()
    assert {"fleet-device-0001", "fleet-device-0001-certificate"} <= graph.before(
        "fleet-device-0001-principal"
    )
    assert {"fleet-policy", "fleet-device-0001-certificate"} <= graph.before(
        "fleet-device-0001-policy"
    )
    assert {"fleet-device-0001", "fleet-ring-canary", "fleet-group"} <= graph.before(
        "fleet-device-0001-ring"
    )
    assert "fleet-type" in graph.before("fleet-device-0001")


def test_a_stack_exports_its_devices_and_no_key_that_it_does_not_hold() -> None:
    exports = {name: export.value for name, export in made(devices=2).exports.items()}
    assert exports == {
        "thingTypeName": f"{P}-gateway",
        "fleetGroupName": P,
        "ringGroupNames": {"canary": f"{P}-canary", "broad": f"{P}-broad"},
        "devicePolicyName": f"{P}-device",
        "deviceNames": {"0001": f"{P}-0001", "0002": f"{P}-0002"},
        "deviceRings": {"0001": "canary", "0002": "broad"},
        "deviceCertificates": {
            f"000{n}": f"certificate of fleet-device-000{n}-certificate" for n in (1, 2)
        },
        "ringArns": RING_ARNS,
    }


@pytest.mark.parametrize("preview", [False, True])
def test_keys_that_aws_makes_are_secret(preview: bool) -> None:
    graph = made(preview=preview, keys_in_state=True)
    assert graph["fleet-device-0001-certificate"].inputs == {"active": True}, (
        "without a request AWS makes the key"
    )
    keys = graph.exports["devicePrivateKeys"]
    assert keys.secret, "a private key is never plain text in the state"
    assert keys.value == {
        "0001": UNKNOWN if preview else "private key of fleet-device-0001-certificate"
    }
    assert [name for name, export in graph.exports.items() if export.secret] == [
        "devicePrivateKeys"
    ]
