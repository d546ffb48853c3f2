"""DeviceFleet: groups, policy, declared devices, and the order in which they go."""

from __future__ import annotations

from functools import cache

import pytest

from components import policies
from components.arguments import ArgumentsError
from components.device_fleet import DeclaredDevice, DeviceFleet, DeviceFleetArgs
from rollout.rings import Share
from tests.unit.examples import IOT, LOCATION, RING_ARNS, RINGS, SUFFIX, TAGS, P, fleet_args
from tests.unit.harness import ROOT, UNKNOWN, Graph, build

DEVICE = [
    "fleet-device-0001",
    *(f"fleet-device-0001-{part}" for part in ("certificate", "policy", "principal", "ring")),
]


@cache
def made(*, preview: bool = False, keys_in_state: bool = False, devices: int = 2) -> Graph:
    args = fleet_args(devices=devices, keys_in_state=keys_in_state)

    def program() -> object:
        made = DeviceFleet("fleet", args)
        return {**made.stack_outputs(), "ringArns": made.ring_arns}

    return build(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_a_fleet_is_groups_policy_type_and_five_resources_a_device(preview: bool) -> None:
    shared = [
        "fleet-group",
        "fleet-logs",
        "fleet-policy",
        "fleet-quarantine",
        "fleet-ring-broad",
        "fleet-ring-canary",
        "fleet-type",
    ]
    second = [name.replace("0001", "0002") for name in DEVICE]
    assert made(preview=preview).children("fleet") == sorted([*shared, *DEVICE, *second])
    many = made(preview=preview, devices=4, keys_in_state=True)
    assert len(many.children("fleet")) == len(shared) + 4 * 5
    assert made(preview=preview, devices=0).children("fleet") == shared


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("protect", [False, True])
def test_a_fleet_makes_its_own_suffix_and_keeps_it_where_it_is_protected(
    preview: bool, protect: bool
) -> None:
    """Every name holds it: another one would replace everything."""

    def program() -> object:
        return DeviceFleet("fleet", fleet_args(suffix=None, protect=protect)).stack_outputs()

    graph = build(program, preview=preview)
    suffix = graph["fleet-suffix"]
    assert suffix.inputs == {"byteLength": 4}
    assert (bool(suffix.protect), bool(suffix.retain_on_delete)) == (protect, protect)
    if not preview:
        group = graph["fleet-group"].inputs["name"]
        assert group == f"iot-fleet-{graph.exports['suffix'].value}"


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("protect", [False, True])
def test_a_protected_fleet_keeps_groups_type_policy_and_logs_and_no_device(
    preview: bool, protect: bool
) -> None:
    graph = build(
        lambda: DeviceFleet("fleet", fleet_args(devices=2, protect=protect)).stack_outputs(),
        preview=preview,
    )
    kept = [
        "fleet-group",
        "fleet-logs-device-registry-events-log",
        "fleet-logs-job-events-log",
        "fleet-logs-thing-group-events-log",
        "fleet-policy",
        "fleet-quarantine",
        "fleet-ring-broad",
        "fleet-ring-canary",
        "fleet-type",
    ]
    assert sorted(r.name for r in graph if r.protect) == kept * protect
    assert sorted(r.name for r in graph if r.retain_on_delete) == kept * protect


def test_what_is_left_out_has_the_safe_default() -> None:
    args = DeviceFleetArgs(hardware="gateway-a1", rings=RINGS)
    graph = build(lambda: DeviceFleet("gateways", args))
    assert graph["gateways-suffix"].protect
    assert graph.of("Thing") == [], "devices are provisioned, or declared by name"
    assert {group.inputs["retentionInDays"] for group in graph.of("LogGroup")} == {30}
    tags = {"environment": "production", "fleet": "gateways", "project": "iot-ota"}
    assert graph["gateways-group"].inputs["tags"] == tags
    assert graph["gateways-group"].inputs["name"].startswith("gateways-")
    assert graph["gateways-type"].inputs["name"].endswith("-device")


def test_its_mistakes_are_listed_at_once_and_nothing_is_made() -> None:
    made = []
    args = DeviceFleetArgs(
        hardware="gateway a1",
        rings=[Share(name="Canary", percent=10), Share(name="broad", percent=90.001)],
        devices=[DeclaredDevice(serial="a b")],
        environment="prod",
        keys_in_state=True,
        suffix="abc",
        tags={"aws:team": "devices"},
    )
    with pytest.raises(ArgumentsError) as raised:
        build(lambda: made.append(DeviceFleet("gateways_1", args)))
    assert [mistake.split(": ")[0] for mistake in raised.value.mistakes] == [
        "gateways_1.suffix",
        "gateways_1.environment",
        "gateways_1.tags.aws:team",
        "gateways_1.rings[0].name",
        "gateways_1.rings[1].percent",
        "gateways_1.devices[0].serial",
        "gateways_1.name",
        "gateways_1.hardware",
    ]
    assert str(raised.value).startswith(
        "DeviceFleet gateways_1 has 8 mistakes; it was not registered:\n  gateways_1.suffix:"
        ' "abc"; must be 8 lower-case hexadecimal digits'
    )
    assert made == []


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


def test_devices_that_were_cut_off_are_in_a_group_outside_the_fleets() -> None:
    assert made()["fleet-quarantine"].inputs == {
        "name": f"{P}-quarantine",
        "properties": {
            "description": "Devices that were cut off from the fleet iot-fleet",
            "attributePayload": {"attributes": {"hardware": "gateway-a1"}},
        },
        "tags": TAGS,
    }, "a parent would bring the jobs of the fleet's group to them"


def test_a_device_gets_the_policies_that_the_customer_has_for_it() -> None:
    policies = ["telemetry", "logs@2"]
    args = fleet_args(devices=2, device_policies=policies)
    graph = build(lambda: DeviceFleet("fleet", args).stack_outputs())
    attached = {item.name: item.inputs["policy"] for item in graph.of("PolicyAttachment")}
    names = {"": f"{P}-device", "-telemetry": "telemetry", "-logs@2": "logs@2"}
    for serial in ("0001", "0002"):
        own = f"fleet-device-{serial}-policy"
        found = {item.removeprefix(own): policy for item, policy in attached.items()}
        assert {key: found.get(key) for key in names} == names
        targets = {graph[own + key].inputs["target"] for key in names}
        assert targets == {graph[f"fleet-device-{serial}-principal"].inputs["principal"]}
    assert len(attached) == 2 * len(names)


def test_there_is_one_policy_and_it_is_the_documents() -> None:
    graph = made(devices=3)
    (policy,) = graph.of("Policy")
    assert policy.inputs == {
        "name": f"{P}-device",
        "policy": policies.to_json(policies.device_policy(LOCATION)),
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
        "fleet-device-0001-certificate": {
            "active": True,
            "csr": (ROOT / "csr" / "0001.csr").read_text(),
        },
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
        "suffix": SUFFIX,
        "region": "us-east-1",
        "iotEndpoint": "a1-ats.iot.us-east-1.amazonaws.com",
        "fleetName": "iot-fleet",
        "thingTypeName": f"{P}-gateway",
        "fleetGroupName": P,
        "ringGroupNames": {"canary": f"{P}-canary", "broad": f"{P}-broad"},
        "quarantineGroupName": f"{P}-quarantine",
        "devicePolicyName": f"{P}-device",
        "deviceNames": {"0001": f"{P}-0001", "0002": f"{P}-0002"},
        "deviceRings": {"0001": "canary", "0002": "broad"},
        "deviceCertificates": {
            f"000{n}": f"certificate of fleet-device-000{n}-certificate" for n in (1, 2)
        },
        "eventLogGroups": {
            events: f"/iot-ota/{P}/{events}"
            for events in ("job-events", "device-registry-events", "thing-group-events")
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
        serial: UNKNOWN if preview else f"private key of fleet-device-{serial}-certificate"
        for serial in ("0001", "0002")
    }
    assert [name for name, export in graph.exports.items() if export.secret] == [
        "devicePrivateKeys"
    ]
