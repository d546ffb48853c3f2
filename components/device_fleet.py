"""The fleet: thing type, thing groups, the device policy, declared devices, provisioning by claim,
event logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from components import limits, policies, tags
from components.arguments import Arguments, CommonArgs, read_arguments
from components.checks import Section
from components.claim_provisioning import ClaimProvisioning, ClaimProvisioningArgs
from components.context import Context, keep
from components.event_logs import EventLogs
from components.location import find_location
from components.settings.common import CommonSettings, read_common
from components.settings.fleet import (
    ClaimCertificate,
    DeviceSettings,
    FleetSettings,
    read_fleet,
)
from rollout.codec import encode
from rollout.names import OWN_ATTRIBUTES, FleetNames, StackOutput
from rollout.rings import Share
from rollout.version import Version


@dataclass(frozen=True, kw_only=True)
class DeclaredDevice:
    """A device that the program declares."""

    serial: str
    """Its serial number; its thing is named by it."""
    ring: str | None = None
    """By default the one that the serial's hash says."""


@dataclass(frozen=True, kw_only=True)
class Provisioning:
    """How devices come in by claim.

    See https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
    """

    claims: Sequence[ClaimCertificate] = ()
    """Claim certificates, at most ten."""


@dataclass(frozen=True, kw_only=True)
class DeviceFleetArgs(CommonArgs):
    """What a fleet is made of.

    >>> args = DeviceFleetArgs(hardware="gateway-a1", rings=[Share(name="all", percent=100)])
    >>> args.protect, args.environment, args.devices
    (True, 'production', ())
    """

    hardware: str
    """The hardware family; devices of another reject the fleet's firmware."""
    rings: Sequence[Share]
    """One to ten, in the order in which a release reaches them; their percentages add up to 100."""
    name: str | None = None
    """What the names of nearly everything in AWS begin with; by default the component's name."""
    device_type: str = "device"
    """The thing type.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_CreateThingType.html
    """
    initial_version: str | Version = "1.0.0"
    """What declared devices run before their first update."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Of every declared device, at most 47.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_AttributePayload.html
    """
    devices: int | Sequence[str | DeclaredDevice] = ()
    """Devices that the program makes, at most 100: by serial, or how many with the serials 0001,
    0002 and so on. Larger fleets are provisioned by claim."""
    csr_folder: str = "csr"
    """Where each declared device's certificate signing request is, `<serial>.csr`.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html
    """
    keys_in_state: bool = False
    """Whether AWS makes the devices' keys, secret in the state; in environment `dev` only."""
    provisioning: Provisioning | None = None
    """Whether devices come in by claim, and by which claim certificates; by default none does."""
    device_policies: Sequence[str] = ()
    """Names of IoT policies, at most nine, that every device gets beside the fleet's own: declared
    devices, and those that come in by claim.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_AttachPolicy.html
    """
    suffix: pulumi.Input[str] | None = None
    """Eight hexadecimal digits that keep the names apart from other fleets'; by default random."""


@dataclass(frozen=True, kw_only=True)
class FleetReference(Arguments):
    """A fleet as its channel needs it: a DeviceFleet's, or of another stack's outputs.

    What is plain decides what is released, and is known in every preview.

        other = pulumi.StackReference("fleets/prod")
        fleet = FleetReference(
            name="gateways", hardware="gateway-a1", rings=rings, suffix=other.get_output("suffix")
        )
    """

    name: str
    """The fleet's."""
    hardware: str
    """The fleet's hardware family."""
    rings: Sequence[Share]
    """The fleet's, in its order."""
    suffix: pulumi.Input[str]
    """The fleet's: eight hexadecimal digits that are in all its names."""
    ring_group_arns: pulumi.Input[Mapping[str, pulumi.Input[str]]] | None = None
    """Ring to thing group ARN; by default what the names and the suffix say."""
    ring_sizes: Mapping[str, int] = field(default_factory=dict)
    """Declared devices by ring, where they are all that there are: a gate must not ask for more."""
    provisioned: bool = False
    """Whether the fleet's devices come in by claim: there are alarms on it then."""


class DeviceFleet(pulumi.ComponentResource):
    """A thing group with a child per ring, a policy for every device, declared devices, what lets
    others come in, event logs.

    rings = [Share(name="canary", percent=10), Share(name="broad", percent=90)]
    fleet = DeviceFleet("gateways", DeviceFleetArgs(hardware="gateway-a1", rings=rings))
    """

    suffix: pulumi.Output[str]
    region: pulumi.Output[str]
    iot_endpoint: pulumi.Output[str]
    """Where devices connect to.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeEndpoint.html
    """
    group_name: pulumi.Output[str]
    thing_type_name: pulumi.Output[str]
    policy_name: pulumi.Output[str]
    ring_names: dict[str, pulumi.Output[str]]
    """Ring to thing group name."""
    ring_arns: dict[str, pulumi.Output[str]]
    """Ring to thing group ARN."""
    quarantine_group_name: pulumi.Output[str]
    """The thing group of devices that were cut off."""
    device_names: dict[str, pulumi.Output[str]]
    """Serial to thing name."""
    device_certificates: dict[str, pulumi.Output[str]]
    """Serial to certificate, PEM."""
    device_private_keys: dict[str, pulumi.Output[str]]
    """Serial to private key, PEM and secret; empty where the devices made their own."""
    event_log_groups: dict[str, pulumi.Output[str]]
    """Kind of events to log group name."""
    device_resources: list[pulumi.Resource]
    """The declared devices' things and certificates."""
    provisioning: ClaimProvisioning | None
    """Where devices come in by claim."""
    reference: FleetReference
    """What a channel needs of the fleet."""

    def __init__(
        self, name: str, args: DeviceFleetArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Raises ArgumentsError with every mistake in `args`. Paths are from the current folder."""
        values = {"name": name} | encode(args)
        common, self._fleet = read_arguments("DeviceFleet", name, values, read_fleet_values)
        super().__init__("iotota:index:DeviceFleet", name, None, opts)
        self._name, self._child = name, pulumi.ResourceOptions(parent=self)
        # for what devices are in, and what they connect by; a declared device must not inherit it
        self._kept = keep(self._child, common.protect)
        fleet = self._fleet
        if args.suffix is None:
            # every name holds it: to lose it is to rename, and so to replace, everything
            self.suffix = random.RandomId(f"{name}-suffix", byte_length=4, opts=self._kept).hex
        else:
            self.suffix = pulumi.Output.from_input(args.suffix)
        self._context = context = Context(
            names=self.suffix.apply(lambda suffix: FleetNames(fleet=fleet.name, suffix=suffix)),
            location=find_location(self),
            tags=tags.tags(common.environment, fleet.name, common.tags),
            log_retention_days=common.log_retention_days,
            protect=common.protect,
        )
        thing_type = aws.iot.ThingType(
            f"{name}-type",
            name=context.names.apply(lambda names: names.thing_type(fleet.device_type)),
            properties={
                "description": f"{fleet.device_type} devices of the fleet {fleet.name}",
                # what ListThings can search; a thing type takes three (CreateThingType)
                "searchable_attributes": list(OWN_ATTRIBUTES),
            },
            tags=context.tags,
            opts=self._kept,
        )
        policy = aws.iot.Policy(
            f"{name}-policy",
            name=context.names.device_policy,
            policy=policies.fill_in(policies.device_policy, location=context.location),
            tags=context.tags,
            opts=self._kept,
        )
        rings = self._make_groups()
        self.region = context.location.region
        self.iot_endpoint = aws.iot.get_endpoint_output(
            endpoint_type="iot:Data-ATS", opts=pulumi.InvokeOutputOptions(parent=self)
        ).endpoint_address
        self.thing_type_name, self.policy_name = thing_type.name, policy.name
        self.ring_names = {ring: group.name for ring, group in rings.items()}
        self.ring_arns = {ring: group.arn for ring, group in rings.items()}
        self.device_names, self.device_certificates, self.device_private_keys = {}, {}, {}
        self.device_resources = []
        for device in fleet.devices:
            self._make_device(device, thing_type, policy, rings[device.ring])
        self.provisioning = self._make_provisioning(thing_type, policy, rings)
        self.event_log_groups = EventLogs(f"{name}-logs", context, self._child).group_names
        self.reference = FleetReference(
            name=fleet.name,
            hardware=fleet.hardware,
            rings=fleet.rings,
            suffix=self.suffix,
            ring_group_arns=self.ring_arns,
            ring_sizes=fleet.ring_sizes,
            provisioned=fleet.is_provisioned,
        )
        self.register_outputs(self.stack_outputs())

    def stack_outputs(self) -> dict[str, pulumi.Input[object]]:
        """What a stack exports of its fleet."""
        outputs: dict[str, pulumi.Input[object]] = {
            StackOutput.SUFFIX: self.suffix,
            StackOutput.REGION: self.region,
            StackOutput.IOT_ENDPOINT: self.iot_endpoint,
            StackOutput.FLEET_NAME: self._fleet.name,
            StackOutput.THING_TYPE_NAME: self.thing_type_name,
            StackOutput.FLEET_GROUP_NAME: self.group_name,
            StackOutput.RING_GROUP_NAMES: self.ring_names,
            StackOutput.QUARANTINE_GROUP_NAME: self.quarantine_group_name,
            StackOutput.DEVICE_POLICY_NAME: self.policy_name,
            StackOutput.DEVICE_NAMES: self.device_names,
            StackOutput.DEVICE_RINGS: {each.serial: each.ring for each in self._fleet.devices},
            StackOutput.DEVICE_CERTIFICATES: self.device_certificates,
            StackOutput.EVENT_LOG_GROUPS: self.event_log_groups,
        }
        if self.provisioning is not None:
            outputs[StackOutput.SERIALS_TABLE_NAME] = self.provisioning.table_name
            outputs[StackOutput.PROVISIONING_TEMPLATE_NAME] = self.provisioning.template_name
            outputs[StackOutput.CLAIM_CERTIFICATES] = self.provisioning.certificates
        if self._fleet.keys_in_state:
            keys = pulumi.Output.secret(self.device_private_keys)
            outputs[StackOutput.DEVICE_PRIVATE_KEYS] = keys
        return outputs

    def _make_groups(self) -> dict[str, aws.iot.ThingGroup]:
        """The fleet's group and in it a group for each ring; beside it the group of devices that
        were cut off, so that no job for the fleet reaches them."""
        fleet, context = self._fleet, self._context
        whole = aws.iot.ThingGroup(
            f"{self._name}-group",
            name=context.names.fleet_group,
            properties=_group_properties(
                f"All devices of the fleet {fleet.name}", {"hardware": fleet.hardware}
            ),
            tags=context.tags,
            opts=self._kept,
        )
        self.group_name = whole.name
        self.quarantine_group_name = aws.iot.ThingGroup(
            f"{self._name}-quarantine",
            name=context.names.quarantine_group,
            properties=_group_properties(
                f"Devices that were cut off from the fleet {fleet.name}",
                {"hardware": fleet.hardware},
            ),
            tags=context.tags,
            opts=self._kept,
        ).name
        return {
            ring.name: aws.iot.ThingGroup(
                f"{self._name}-ring-{ring.name}",
                name=context.names.apply(partial(FleetNames.ring_group, ring=ring.name)),
                parent_group_name=whole.name,
                properties=_group_properties(
                    f"Ring {position} of {len(fleet.rings)} of the fleet {fleet.name}",
                    {"hardware": fleet.hardware, "percent": f"{ring.percent:g}", "ring": ring.name},
                ),
                tags=context.tags,
                opts=self._kept,
            )
            for position, ring in enumerate(fleet.rings, start=1)
        }

    def _make_provisioning(
        self,
        thing_type: aws.iot.ThingType,
        policy: aws.iot.Policy,
        rings: Mapping[str, aws.iot.ThingGroup],
    ) -> ClaimProvisioning | None:
        """What lets devices in by claim, where the configuration asks for it."""
        if not self._fleet.is_provisioned:
            return None
        args = ClaimProvisioningArgs(
            context=self._context,
            fleet=self._fleet,
            thing_type=thing_type,
            policy=policy,
            rings=list(rings.values()),
        )
        return ClaimProvisioning(f"{self._name}-provisioning", args, self._child)

    def _make_device(
        self,
        device: DeviceSettings,
        thing_type: aws.iot.ThingType,
        policy: aws.iot.Policy,
        ring: aws.iot.ThingGroup,
    ) -> None:
        """The attachments need thing and certificate: a destroy detaches before it deletes."""
        fleet, label = self._fleet, f"{self._name}-device-{device.serial}"
        own = (fleet.hardware, str(fleet.initial_version), device.serial)
        thing = aws.iot.Thing(
            label,
            name=self._context.names.apply(partial(FleetNames.thing, serial=device.serial)),
            thing_type_name=thing_type.name,
            attributes={**fleet.attributes, **dict(zip(OWN_ATTRIBUTES, own, strict=True))},
            opts=self._child,
        )
        # without a CSR AWS makes the key, and the state keeps it as a secret
        certificate = aws.iot.Certificate(
            f"{label}-certificate", active=True, csr=device.csr, opts=self._child
        )
        aws.iot.PolicyAttachment(
            f"{label}-policy", policy=policy.name, target=certificate.arn, opts=self._child
        )
        for other in fleet.device_policies:
            aws.iot.PolicyAttachment(
                f"{label}-policy-{other}",
                policy=other,
                target=certificate.arn,
                opts=self._child,
            )
        aws.iot.ThingPrincipalAttachment(
            f"{label}-principal", principal=certificate.arn, thing=thing.name, opts=self._child
        )
        # a thing is never in two groups of one hierarchy: one ring lets it go, another takes it
        moved = pulumi.ResourceOptions(delete_before_replace=True)
        aws.iot.ThingGroupMembership(
            f"{label}-ring",
            thing_name=thing.name,
            thing_group_name=ring.name,
            override_dynamic_group=False,
            opts=pulumi.ResourceOptions.merge(self._child, moved),
        )
        self.device_resources += [thing, certificate]
        self.device_names[device.serial] = thing.name
        # the provider marks it secret for the key's sake; a certificate is public
        public = pulumi.Output.unsecret(certificate.certificate_pem)
        self.device_certificates[device.serial] = public
        if fleet.keys_in_state:
            self.device_private_keys[device.serial] = certificate.private_key


def read_fleet_values(section: Section) -> tuple[CommonSettings, FleetSettings]:
    """What DeviceFleetArgs says, as plain values by camelCase keys."""
    if isinstance(section.get("suffix"), str):
        section.require("suffix", limits.SUFFIX)
    common = read_common(section)
    return common, read_fleet(section, common.environment, Path.cwd())


def _group_properties(
    description: str, attributes: Mapping[str, str]
) -> aws.iot.ThingGroupPropertiesArgsDict:
    return {"description": description, "attribute_payload": {"attributes": dict(attributes)}}
