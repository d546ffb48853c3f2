"""A fleet of gateways, and the firmware that it runs."""

import sys
from pathlib import Path

import pulumi

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where iot-ota is checked out
from components.device_fleet import DeviceFleet, DeviceFleetArgs
from components.firmware_channel import FirmwareChannel, FirmwareChannelArgs
from rollout.rings import Share

rings = [Share(name="canary", percent=10), Share(name="broad", percent=90)]
fleet = DeviceFleet("gateways", DeviceFleetArgs(hardware="gateway-a1", rings=rings))
image, sha256 = "firmware/2.1.0.bin", Path("firmware/2.1.0.sha256").read_text().strip()
release = FirmwareChannelArgs(fleet=fleet, version="2.1.0", image=image, sha256=sha256)
channel = FirmwareChannel("stable", release)
for name, value in {**fleet.stack_outputs(), **channel.stack_outputs()}.items():
    pulumi.export(name, value)
