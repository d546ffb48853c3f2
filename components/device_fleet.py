"""The fleet: thing type, thing groups, the device policy, and the devices that the stack file
declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_aws as aws

from components import documents
from components.naming import Location, Names
from components.settings import DeclaredDevice, FleetSettings

SEARCHABLE = ("hardware", "initialVersion", "serial")
"""Attributes that ListThings can search; a thing type takes three (CreateThingType)."""


@dataclass(frozen=True, kw_only=True)
class DeviceFleetArgs:
    names: pulumi.Input[Names]
    location: pulumi.Input[Location]
    fleet: FleetSettings
    tags: Mapping[str, str]


class DeviceFleet(pulumi.ComponentResource):
    """A thing group with one child group per ring, a policy that fits every device, and the
    declared devices."""

    group_name: pulumi.Output[str]
    thing_type_name: pulumi.Output[str]
    policy_name: pulumi.Output[str]
    ring_names: dict[str, pulumi.Output[str]]
    """Ring to thing group name."""
    ring_arns: dict[str, pulumi.Output[str]]
    """Ring to thing group ARN."""
    device_names: dict[str, pulumi.Output[str]]
    """Serial to thing name."""
    device_certificates: dict[str, pulumi.Output[str]]
    """Serial to certificate, PEM."""
    device_private_keys: dict[str, pulumi.Output[str]]
    """Serial to private key, PEM and secret; empty where the devices made their own."""

    def __init__(
        self, name: str, args: DeviceFleetArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:DeviceFleet", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._names = pulumi.Output.from_input(args.names)
        thing_type = self._thing_type()
        policy = self._policy()
        rings = self._groups()
        self.thing_type_name, self.policy_name = thing_type.name, policy.name
        self.ring_names = {ring: group.name for ring, group in rings.items()}
        self.ring_arns = {ring: group.arn for ring, group in rings.items()}
        self.device_names, self.device_certificates, self.device_private_keys = {}, {}, {}
        for device in args.fleet.devices:
            self._device(device, thing_type, policy, rings[device.ring])
        self.register_outputs(self.stack_outputs())

    def stack_outputs(self) -> dict[str, pulumi.Input[object]]:
        """What a stack exports of its fleet."""
        outputs: dict[str, pulumi.Input[object]] = {
            "thingTypeName": self.thing_type_name,
            "fleetGroupName": self.group_name,
            "ringGroupNames": self.ring_names,
            "devicePolicyName": self.policy_name,
            "deviceNames": self.device_names,
            "deviceRings": {device.serial: device.ring for device in self._args.fleet.devices},
            "deviceCertificates": self.device_certificates,
        }
        if self._args.fleet.keys_in_state:
            outputs["devicePrivateKeys"] = pulumi.Output.secret(self.device_private_keys)
        return outputs

    def _thing_type(self) -> aws.iot.ThingType:
        fleet = self._args.fleet
        return aws.iot.ThingType(
            f"{self._name}-type",
            name=self._names.apply(lambda names: names.thing_type(fleet.device_type)),
            properties={
                "description": f"{fleet.device_type} devices of the fleet {fleet.name}",
                "searchable_attributes": list(SEARCHABLE),
            },
            tags=self._args.tags,
            opts=self._child,
        )

    def _policy(self) -> aws.iot.Policy:
        return aws.iot.Policy(
            f"{self._name}-policy",
            name=self._names.apply(lambda names: names.device_policy),
            policy=documents.filled(documents.device_policy, location=self._args.location),
            tags=self._args.tags,
            opts=self._child,
        )

    def _groups(self) -> dict[str, aws.iot.ThingGroup]:
        fleet = self._args.fleet
        whole = aws.iot.ThingGroup(
            f"{self._name}-group",
            name=self._names.apply(lambda names: names.prefix),
            properties=_properties(
                f"All devices of the fleet {fleet.name}", {"hardware": fleet.hardware}
            ),
            tags=self._args.tags,
            opts=self._child,
        )
        self.group_name = whole.name
        return {
            ring.name: aws.iot.ThingGroup(
                f"{self._name}-ring-{ring.name}",
                name=self._names.apply(partial(Names.ring_group, ring=ring.name)),
                parent_group_name=whole.name,
                properties=_properties(
                    f"Ring {position} of {len(fleet.rings)} of the fleet {fleet.name}",
                    {"hardware": fleet.hardware, "percent": f"{ring.percent:g}", "ring": ring.name},
                ),
                tags=self._args.tags,
                opts=self._child,
            )
            for position, ring in enumerate(fleet.rings, start=1)
        }

    def _device(
        self,
        device: DeclaredDevice,
        thing_type: aws.iot.ThingType,
        policy: aws.iot.Policy,
        ring: aws.iot.ThingGroup,
    ) -> None:
        """One device. The attachments need thing and certificate, so a destroy detaches before it
        deactivates and deletes."""
        fleet, label = self._args.fleet, f"{self._name}-device-{device.serial}"
        own = {
            "hardware": fleet.hardware,
            "initialVersion": fleet.initial_version,
            "serial": device.serial,
        }
        thing = aws.iot.Thing(
            label,
            name=self._names.apply(partial(Names.thing, serial=device.serial)),
            thing_type_name=thing_type.name,
            attributes={**fleet.attributes, **own},
            opts=self._child,
        )
        # without a CSR AWS makes the key, and the state keeps it as a secret
        certificate = aws.iot.Certificate(
            f"{label}-certificate", active=True, csr=device.csr, opts=self._child
        )
        aws.iot.PolicyAttachment(
            f"{label}-policy", policy=policy.name, target=certificate.arn, opts=self._child
        )
        aws.iot.ThingPrincipalAttachment(
            f"{label}-principal", principal=certificate.arn, thing=thing.name, opts=self._child
        )
        # a thing is never in two groups of one hierarchy: another ring takes it after this one let
        # it go
        moved = pulumi.ResourceOptions.merge(
            self._child, pulumi.ResourceOptions(delete_before_replace=True)
        )
        aws.iot.ThingGroupMembership(
            f"{label}-ring",
            thing_name=thing.name,
            thing_group_name=ring.name,
            override_dynamic_group=False,
            opts=moved,
        )
        self.device_names[device.serial] = thing.name
        # the provider marks it secret for the key's sake; a certificate is public
        self.device_certificates[device.serial] = pulumi.Output.unsecret(
            certificate.certificate_pem
        )
        if fleet.keys_in_state:
            self.device_private_keys[device.serial] = certificate.private_key


def _properties(
    description: str, attributes: Mapping[str, str]
) -> aws.iot.ThingGroupPropertiesArgsDict:
    return {"description": description, "attribute_payload": {"attributes": dict(attributes)}}
