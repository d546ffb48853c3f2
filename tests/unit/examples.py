"""Arguments that the component tests share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
import pulumi_aws as aws

from components.context import Context
from components.device_fleet import DeclaredDevice, DeviceFleetArgs, FleetReference
from components.firmware_channel import FirmwareChannelArgs
from components.location import Location
from components.rollout_controller import RolloutController, RolloutControllerArgs
from rollout.names import Names
from rollout.release import Firmware, Manifest, RingPlan
from rollout.rings import Share
from rollout.version import Version

SUFFIX = "0a1b2c3d"
P = f"iot-fleet-{SUFFIX}"
NAMES = Names(fleet="iot-fleet", suffix=SUFFIX, channel="stable")
LOCATION = Location(
    partition="aws", region="us-east-1", account="123456789012", dns_suffix="amazonaws.com"
)
IOT = "arn:aws:iot:us-east-1:123456789012"
TAGS = {"environment": "dev", "fleet": "iot-fleet", "project": "iot-ota", "team": "devices"}
RINGS = (Share(name="canary", percent=10.0), Share(name="broad", percent=90.0))
RING_ARNS = {ring.name: f"{IOT}:thinggroup/{P}-{ring.name}" for ring in RINGS}

FIRMWARE = Firmware(
    version=Version("2.1.0"),
    sha256="65b53eb9107d56374ee5efc0be912bb7cf43ba2f94cc8fcebe73f8e588333dd4",
    size=65_603,
    hardware="gateway-a1",
)
MANIFEST = Manifest(
    schema=1,
    channel="stable",
    firmware=FIRMWARE,
    rings=tuple(RingPlan(name=ring.name, percent=ring.percent) for ring in RINGS),
)
IN_S3 = replace(FIRMWARE, sha256="ab" * 32, size=1_048_576)


def fleet_args(*, devices: int = 2, **changes: Any) -> DeviceFleetArgs:
    """A fleet whose first device is in canary, the others in broad."""
    numbers = range(1, devices + 1)
    args = DeviceFleetArgs(
        name="iot-fleet",
        hardware="gateway-a1",
        device_type="gateway",
        initial_version="2.0.0",
        attributes={"site": "lab"},
        rings=RINGS,
        devices=[
            DeclaredDevice(serial=f"{n:04d}", ring="canary" if n == 1 else "broad") for n in numbers
        ],
        environment="dev",
        log_retention_days=7,
        suffix=SUFFIX,
        tags={"team": "devices"},
    )
    return replace(args, **changes)


FLEET = FleetReference(
    name="iot-fleet",
    hardware="gateway-a1",
    rings=RINGS,
    suffix=SUFFIX,
    ring_group_arns=RING_ARNS,
)


def channel_args(*, in_s3: bool = False, **changes: Any) -> FirmwareChannelArgs:
    args = FirmwareChannelArgs(
        fleet=FLEET,
        channel="stable",
        version="2.1.0",
        image="s3://images/gateway-a1/2.1.0.bin" if in_s3 else "firmware/2.1.0.bin",
        sha256=IN_S3.sha256 if in_s3 else FIRMWARE.sha256,
        size=IN_S3.size if in_s3 else None,
        environment="dev",
        log_retention_days=7,
        notifications=["ops@example.com"],
        tags={"team": "devices"},
    )
    return replace(args, **changes)


def context(*, tls_only: bool = True, protect: bool = False) -> Context[Names]:
    return Context(
        names=pulumi.Output.from_input(NAMES),
        location=pulumi.Output.from_input(LOCATION),
        tags=TAGS,
        log_retention_days=7,
        protect=protect,
        tls_only=tls_only,
    )


def make_controller(
    *, tls_only: bool = True, of_this_stack: bool = True, protect: bool = False
) -> RolloutController:
    """A controller, and resources named `role`, `bucket`, `key`, `presign`, `artifact` and
    `device` that it needs."""
    bucket = aws.s3.Bucket("bucket", bucket=NAMES.bucket)
    args = RolloutControllerArgs(
        context=context(tls_only=tls_only, protect=protect),
        manifest=MANIFEST,
        artifact=aws.s3.BucketObjectv2("artifact", bucket=bucket.bucket, key="image"),
        bucket=bucket,
        role=aws.iam.Role("role", name=NAMES.controller, assume_role_policy="{}"),
        presign_role=aws.iam.Role("presign", name="presign", assume_role_policy="{}"),
        signing_keys=[aws.kms.Key("key")],
        ring_group_arns=RING_ARNS,
        fleet=aws.iot.Thing("device", name="device") if of_this_stack else None,
        devices=(),
        declared_devices=3,
    )
    return RolloutController("controller", args)
