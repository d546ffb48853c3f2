"""The program: one fleet, one firmware channel. What differs between stacks is in the stack
files."""

import gc

import pulumi

from components.account_settings import AccountSettings
from components.device_fleet import DeviceFleet, DeviceFleetArgs
from components.firmware_channel import FirmwareChannel, FirmwareChannelArgs
from components.location import begin_registrations
from components.settings import load

# Nearly all objects that a resource makes live until the end: looking for garbage after every 700,
# as Python does, takes a fifth of the time that evaluating 100 declared devices takes.
gc.set_threshold(10_000)
settings = load()
if settings.owns_account_settings:
    AccountSettings("account")
fleet = DeviceFleet("fleet", DeviceFleetArgs.from_values(settings.fleet_values))
channel = FirmwareChannel(
    "channel", FirmwareChannelArgs.from_values(settings.channel_values, fleet=fleet)
)
begin_registrations()
for name, value in {**fleet.stack_outputs(), **channel.stack_outputs()}.items():
    pulumi.export(name, value)
