"""The sandbox's factory: the claim certificate's key and request, and devices that hold no more
than the claim and their serial.

`make up` deploys the claim, adds `serials.csv` to the registry, and lets the devices come in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.stack_file import read_configuration
from device.agent import DeviceConfig
from device.claiming import (
    CLAIM_FILES,
    ClaimConfig,
    Claiming,
    Identity,
    Keyring,
    make_csr,
    make_key,
)
from device.flash import write_atomically
from sandbox.deploy import DEVICES, STACK_FILE
from sandbox.instance import Instance, SandboxError

SERIALS = Path(__file__).with_name("serials.csv")
"""The simulated devices."""
CLAIM = "sandbox"
"""The name of its claim certificate in the stack file."""
CLAIM_KEY, CLAIM_REQUEST = "claim.key", "claim.csr"
"""In the sandbox's folder; the request outlives a rebuild, as the factory does."""
FLEET = "iot-ota:fleet"

Tell = Callable[[str], None]


def override_claim(instance: Instance, root: Path) -> dict[str, Any]:
    """The `fleet` of the stack file whose claim CLAIM is for this factory's key."""
    fleet = json.loads(read_configuration(root / STACK_FILE, root).get(FLEET, "{}"))
    provisioning = fleet.get("provisioning") or {}
    claims = provisioning.get("claims") or []
    if CLAIM not in [claim.get("name") for claim in claims]:
        return {}
    request = _read_or_make_request(instance)
    claims = [{**one, "csr": request} if one["name"] == CLAIM else one for one in claims]
    return {FLEET: {**fleet, "provisioning": {**provisioning, "claims": claims}}}


def _read_or_make_request(instance: Instance) -> str:
    instance.create()
    key, request = instance.folder / CLAIM_KEY, instance.folder / CLAIM_REQUEST
    if not key.exists():
        write_atomically(key, make_key())
        request.unlink(missing_ok=True)
    if not request.exists():
        write_atomically(request, make_csr(key.read_text(), f"claim-{CLAIM}"))
    return request.read_text()


@dataclass(frozen=True, kw_only=True)
class DeviceFactory:
    """What it needs to build devices, and to let them come in."""

    instance: Instance
    claim_pem: str
    """The claim's certificate."""
    template: str
    endpoint: Mapping[str, Any]
    """The fields of device.mqtt.Endpoint."""
    firmware: Mapping[str, Any]
    """What is built into every device: the other fields of DeviceConfig."""

    def build(self, serial: str, on_progress: Tell, on_trouble: Tell) -> Claiming:
        """A device with its serial and, unless it has come in, the claim."""
        folder = self._folder(serial)
        if Keyring(folder).memory.thing is None:
            folder.mkdir(parents=True, exist_ok=True)
            key = self.instance.folder / CLAIM_KEY
            if not key.exists():
                raise SandboxError(f"{key} is missing: `make down`, then `make up`")
            for name, text in zip(CLAIM_FILES, (self.claim_pem, key.read_text()), strict=True):
                write_atomically(folder / name, text)
        config = ClaimConfig(serial=serial, folder=folder, template=self.template, **self.endpoint)
        return Claiming(config, on_progress, on_trouble)

    def configure(self, serial: str, identity: Identity) -> DeviceConfig:
        """The device that has come in."""
        own = {"serial": serial, "folder": self._folder(serial), **asdict(identity)}
        return DeviceConfig(**own, **self.endpoint, **self.firmware)

    def _folder(self, serial: str) -> Path:
        return self.instance.folder / DEVICES / serial
