"""The program: one fleet, one firmware channel. What differs between stacks is in the stack
files."""

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from components import naming
from components.account_settings import AccountSettings
from components.device_fleet import DeviceFleet, DeviceFleetArgs
from components.firmware_channel import FirmwareChannel, FirmwareChannelArgs
from components.settings import load

settings = load()
partition, region = aws.get_partition_output(), aws.get_region_output().region
account, endpoint = (
    aws.get_caller_identity_output().account_id,
    aws.iot.get_endpoint_output(endpoint_type="iot:Data-ATS"),
)
location = pulumi.Output.all(
    partition=partition.partition, dns_suffix=partition.dns_suffix, region=region, account=account
).apply(lambda values: naming.Location(**values))
# every name holds it: to lose it is to rename, and so to replace, everything
kept = pulumi.ResourceOptions(protect=True, retain_on_delete=True) if settings.protect else None
suffix = random.RandomId("suffix", byte_length=4, opts=kept).hex
parts = {"fleet": settings.fleet.name, "channel": settings.manifest.channel}
names = suffix.apply(lambda digits: naming.Names(suffix=digits, **parts))
tags = naming.tags(settings.environment, settings.fleet.name, settings.tags)

if settings.owns_account_settings:
    AccountSettings("account")
fleet = DeviceFleet(
    "fleet", DeviceFleetArgs(names=names, location=location, fleet=settings.fleet, tags=tags)
)
channel = FirmwareChannel(
    "channel",
    FirmwareChannelArgs(
        names=names,
        location=location,
        manifest=settings.manifest,
        image=settings.image,
        signing_keys=settings.signing_keys,
        ring_groups=fleet.ring_arns,
        devices=[fleet],
        log_retention_days=settings.log_retention_days,
        notifications=settings.notifications,
        tags=tags,
        protect=settings.protect,
        tls_only=settings.tls_only,
    ),
)

stack = {"suffix": suffix, "region": region, "iotEndpoint": endpoint.endpoint_address}
for name, value in {**stack, **fleet.stack_outputs(), **channel.stack_outputs()}.items():
    pulumi.export(name, value)
