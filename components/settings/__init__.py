"""The stack's configuration: typed, checked, every mistake reported at once.

Nested types, defaults and what must fit together live here, the limits of single keys in
`components.limits`; `Pulumi.yaml` describes the top-level keys only, for Pulumi knows no nested
types. The arguments of the components (`components.arguments`) go through the same readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

# the public Config answers known keys only, and an unknown key must be a mistake
from pulumi.runtime.config import CONFIG

from components.checks import Mistake, MistakesError, Section, boolean
from components.settings.channel_settings import CHANNEL_KEYS, ChannelSettings, read_channel
from components.settings.common import COMMON_KEYS, CommonSettings, read_common
from components.settings.firmware import Image, read_adopted, read_firmware
from components.settings.fleet import RINGS, FleetSettings, read_fleet
from components.settings.rollout import read_manifest
from components.stack_file import ROOT
from rollout.release import Manifest

NAMESPACE = "iot-ota"
"""Of the configuration's keys; the project's name in Pulumi.yaml."""
KEYS = (*COMMON_KEYS, *CHANNEL_KEYS, "ownsAccountSettings", "fleet", "firmware", "rollout")
"""The top-level keys."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of the stack's configuration."""

    common: CommonSettings
    fleet: FleetSettings
    channel: ChannelSettings
    owns_account_settings: bool
    values: Mapping[str, Any]
    """The keys as they stand, without mistakes."""

    @property
    def manifest(self) -> Manifest:
        return self.channel.manifest

    @property
    def image(self) -> Image:
        return self.channel.image

    @property
    def fleet_values(self) -> dict[str, Any]:
        """What DeviceFleetArgs takes, among others."""
        devices = [{"serial": each.serial, "ring": each.ring} for each in self.fleet.devices]
        own = {"name": self.fleet.name, "devices": devices}
        return {**self.values, **self.values["fleet"], **own}

    @property
    def channel_values(self) -> dict[str, Any]:
        """What FirmwareChannelArgs takes, among others."""
        rollout = {**(self.values.get("rollout") or {}), "channel": self.manifest.channel}
        own = {"adopted": self.values["fleet"].get("adopted")}
        return {**self.values, **self.values["firmware"], **rollout, **own}


class SettingsError(MistakesError):
    """The configuration has mistakes."""


def load() -> Settings:
    """`read` of the stack that Pulumi runs, in the folder where it runs the program."""
    return read({**pulumi.runtime.get_config_env(), **CONFIG.get()}, Path.cwd())


def read(configuration: Mapping[str, str], root: Path = ROOT) -> Settings:
    """The settings in a stack's configuration, as Pulumi hands it over.

    `root` is the folder of image and CSR paths; nothing else is read. Raises SettingsError with
    every mistake.
    """
    prefix = f"{NAMESPACE}:"
    values = {
        key.removeprefix(prefix): _parse(text)
        for key, text in sorted(configuration.items())
        if key.startswith(prefix)
    }
    mistakes: list[Mistake] = []
    top = Section(NAMESPACE, values, mistakes, separator=":")
    common = read_common(top)
    owns = top.read("ownsAccountSettings", boolean(False), False)
    section = top.subsection("fleet", f"{{hardware: gateway-a1, rings: {RINGS}}}")
    fleet = read_fleet(section, common.environment, root)
    example = f'{{version: "2.1.0", image: firmware/2.1.0.bin, sha256: "{"0" * 64}"}}'
    firmware, rollout = top.subsection("firmware", example), top.subsection("rollout")
    made, image = read_firmware(firmware, fleet.hardware, root)
    adopted = read_adopted(section, made, root)
    sizes = fleet.ring_sizes if top.has_no_mistakes_at("fleet") else None
    before = adopted.firmware if adopted else None
    manifest = read_manifest(rollout, made, fleet.rings, sizes, before)
    channel = read_channel(top, common.environment, manifest, image, adopted)
    for each in (section, firmware, rollout, top):
        each.refuse_unknown_keys()
    if mistakes:
        raise SettingsError("the stack's configuration", "nothing was changed", mistakes)
    return Settings(
        common=common, fleet=fleet, channel=channel, owns_account_settings=owns, values=values
    )


def _parse(value: str | None) -> Any:
    """What is not JSON stays text, and is then right or wrong by the key's kind."""
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        return value
