"""Arguments that the component tests share."""

from __future__ import annotations

from components.naming import Location, Names
from components.settings import DeclaredDevice, FleetSettings, Image
from rollout.release import Firmware, Manifest, RingPlan
from rollout.rings import Share

P = "iot-fleet-0a1b2c3d"
NAMES = Names(fleet="iot-fleet", suffix="0a1b2c3d", channel="stable")
LOCATION = Location(
    partition="aws", region="us-east-1", account="123456789012", dns_suffix="amazonaws.com"
)
IOT = "arn:aws:iot:us-east-1:123456789012"
TAGS = {"project": "iot-ota", "team": "devices"}
RINGS = (Share(name="canary", percent=10), Share(name="broad", percent=90))
RING_ARNS = {ring.name: f"{IOT}:thinggroup/{P}-{ring.name}" for ring in RINGS}

FIRMWARE = Firmware(version="2.1.0", sha256="ab" * 32, size=65_600, hardware="gateway-a1")
MANIFEST = Manifest(
    schema=1,
    channel="stable",
    firmware=FIRMWARE,
    rings=tuple(RingPlan(name=ring.name, percent=ring.percent) for ring in RINGS),
)
LOCAL_IMAGE = Image(path="firmware/2.1.0.bin", source=None)
S3_IMAGE = Image(path=None, source="images/gateway-a1/2.1.0.bin")


def fleet(*, keys_in_state: bool = False, devices: int = 1) -> FleetSettings:
    """A fleet whose first device is in canary, the others in broad."""
    return FleetSettings(
        name="iot-fleet",
        hardware="gateway-a1",
        device_type="gateway",
        initial_version="2.0.0",
        attributes={"site": "lab"},
        rings=RINGS,
        devices=tuple(
            DeclaredDevice(
                serial=f"{number:04d}",
                ring="canary" if number == 1 else "broad",
                csr=None if keys_in_state else f"request {number}",
            )
            for number in range(1, devices + 1)
        ),
        keys_in_state=keys_in_state,
    )
