"""The fleet's settings: its rings, its declared devices, and how others come in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components import limits
from components.checks import Section, boolean, suggest
from components.settings.common import find_inside
from rollout.codec import show_value
from rollout.names import OWN_ATTRIBUTES
from rollout.rings import MAX_RINGS, Share, ring_of
from rollout.version import Version

FIRST_VERSION = Version("1.0.0")
RINGS = "[{name: canary, percent: 10}, {name: broad, percent: 90}]"
"""Rings as an example."""
CSR = re.compile(
    rb"-----BEGIN CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----\s*"
)
CSR_LIMIT = f"at most {limits.MAX_CSR} characters (CreateCertificateFromCsr)"
NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
"""Of openssl: a key that AWS IoT takes."""


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """A device that the stack itself makes."""

    serial: str
    ring: str
    csr: str | None
    """Its certificate signing request (PEM); None where AWS makes the keys."""


@dataclass(frozen=True, kw_only=True)
class ClaimCertificate:
    """A certificate that lets a device claim its serial, and no more: one a factory, say."""

    name: str
    """What the stack and its outputs call it."""
    csr: str
    """The certificate signing request: its file, or its PEM. The key stays with whoever made it.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html
    """
    active: bool = True
    """Whether devices may use it. Where the stack is protected, one that is active is, too: it is
    deactivated first, and taken out of the list then."""


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """The fleet, its rings and its declared devices."""

    name: str = "iot-fleet"
    hardware: str
    device_type: str = "device"
    initial_version: Version = FIRST_VERSION
    """What declared devices run before their first update."""
    attributes: Mapping[str, str]
    rings: tuple[Share, ...]
    devices: tuple[DeviceSettings, ...]
    keys_in_state: bool
    is_provisioned: bool
    """Whether devices come in by claim."""
    claims: tuple[ClaimCertificate, ...]
    """Each `csr` is PEM."""
    device_policies: tuple[str, ...]
    """Names of IoT policies that every device gets beside the fleet's own."""

    @property
    def ring_sizes(self) -> Counter[str]:
        """Declared devices by ring, where they are all that there are: none where others come
        in."""
        return Counter(device.ring for device in self.devices if not self.is_provisioned)


def read_fleet(fleet: Section, environment: str, root: Path) -> FleetSettings:
    """`root` is the folder that csrFolder is relative to."""
    rings = read_rings(fleet)
    ring_by_serial = _read_devices(fleet, rings)
    keys_in_state = fleet.read("keysInState", boolean(False), False)
    if keys_in_state and environment != "dev":
        allowed = "must be false outside environment dev: Pulumi's state would hold private keys"
        fix = "write keysInState: false and put each device's CSR in csrFolder"
        fleet.add_mistake("keysInState", allowed, fix)
    claims = _read_claims(fleet, root)
    policies = _read_device_policies(fleet)
    csrs = _read_csrs(fleet, [] if keys_in_state else list(ring_by_serial), root)
    devices = (
        DeviceSettings(serial=serial, ring=ring, csr=csrs.get(serial))
        for serial, ring in ring_by_serial.items()
    )
    return fleet.read_record(
        FleetSettings,
        limits.FLEET,
        attributes=_read_attributes(fleet),
        rings=rings,
        devices=tuple(devices),
        keys_in_state=keys_in_state,
        is_provisioned=fleet.get("provisioning") is not None,
        claims=claims,
        device_policies=policies,
    )


def _read_attributes(fleet: Section) -> dict[str, str]:
    attributes, own = fleet.subsection("attributes"), OWN_ATTRIBUTES
    if (count := len(attributes.data)) > limits.MAX_ATTRIBUTES:
        total = "a thing takes 50 (CreateThing)"
        allowed = f"at most {limits.MAX_ATTRIBUTES}: {total}, {', '.join(own)} are added"
        fleet.add_mistake("attributes", allowed, "remove some", f"{count} attributes")
    size = len(json.dumps(attributes.data))
    if size > limits.MAX_PROVISIONED_ATTRIBUTES and fleet.get("provisioning") is not None:
        most = f"at most {limits.MAX_PROVISIONED_ATTRIBUTES} characters of JSON where devices come"
        allowed = f"{most} in by claim: a Lambda function's environment holds them (CreateFunction)"
        fleet.add_mistake("attributes", allowed, "shorten or remove some", f"{size} characters")
    for key in own:
        if key in attributes.data:
            fix = f"remove or rename {show_value(key)}"
            attributes.add_mistake(key, "is an attribute that the fleet sets itself", fix)
    return attributes.read_map(limits.ATTRIBUTE_KEY, limits.ATTRIBUTE)


# Rings


def read_rings(fleet: Section) -> tuple[Share, ...]:
    count = f"1 to {MAX_RINGS} rings (ours: what a person can follow)"
    allowed = f"must be a list of {count}, each with name and percent"
    shares = tuple(fleet.read_rows("rings", Share, limits.SHARE, allowed, RINGS).values())
    if not fleet.has_no_mistakes_at("rings"):
        return shares
    if not 1 <= len(shares) <= MAX_RINGS:
        fix = fleet.format_fix("rings", RINGS)
        fleet.add_mistake("rings", allowed, fix, f"{len(shares)} rings")
    names = [share.name for share in shares]
    fleet.refuse_repeated("rings", names, "a device is in exactly one ring", "rename or remove one")
    total = sum(round(share.percent * 100) for share in shares)
    if shares and total != 100_00:
        last = round(shares[-1].percent * 100) + 100_00 - total
        fix = f"write percent: {last / 100:g} for ring {shares[-1].name}"
        fix, found = fix if last > 0 else "lower some of them", f"{total / 100:g} %"
        fleet.add_mistake("rings", "the percentages must add up to 100", fix, found)
    return shares


def check_ring(section: Section, key: str, ring: str, names: Sequence[str] | None) -> None:
    """`ring`, at `key`, must be among `names`, which is None where the fleet has mistakes."""
    if names is not None and ring not in names:
        allowed = f"is not a ring of this fleet: {suggest(ring, names)}"
        section.add_mistake(key, allowed, f"write {names[0]}, or add the ring", show_value(ring))


# Devices


def _read_devices(fleet: Section, rings: Sequence[Share]) -> dict[str, str]:
    """Serial to ring of each declared device; the ring is "" where devices or rings are wrong."""
    why = "a device is five resources: more are provisioned by claim"
    allowed = f"must be a list, or a number from 0 to {limits.MAX_DEVICES} ({why})"
    value = fleet.get("devices")
    count = 3 if value is None else value
    chosen: dict[str, str | None] = {}
    if isinstance(count, list):
        chosen = _read_listed(fleet, count)
    elif type(count) is int and 0 <= count <= limits.MAX_DEVICES:
        chosen = dict.fromkeys(f"{serial:04d}" for serial in range(1, count + 1))
    else:
        fleet.add_mistake("devices", allowed, "write devices: 3")
    if len(chosen) > limits.MAX_DEVICES:
        fleet.add_mistake("devices", allowed, "remove some", f"{len(chosen)} devices")
    if not fleet.has_no_mistakes_at("devices", "rings"):
        return dict.fromkeys(chosen, "")
    return _assign_rings(fleet, chosen, rings)


def _read_listed(fleet: Section, values: list[Any]) -> dict[str, str | None]:
    """Serial to ring of each device of a list; None where the list names no ring."""
    listed: list[tuple[str, str | None]] = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            listed.append((fleet.read_item("devices", index, value, limits.SERIAL), None))
            continue
        row = Section(f"{fleet.key_path('devices')}[{index}]", value, fleet.mistakes)
        listed.append((row.require("serial", limits.SERIAL), row.read("ring", limits.RING, None)))
        row.refuse_unknown_keys()
    serials = [serial for serial, _ in listed]
    fleet.refuse_repeated("devices", serials, "thing names are unique (CreateThing)", "remove one")
    return dict(listed)


def _assign_rings(
    fleet: Section, chosen: Mapping[str, str | None], rings: Sequence[Share]
) -> dict[str, str]:
    names = [ring.name for ring in rings]
    for serial, ring in chosen.items():
        check_ring(fleet, f"devices.{serial}", ring or names[0], names)
    assigned = {serial: ring or ring_of(serial, rings) for serial, ring in chosen.items()}
    count = f"no declared serial ({len(assigned)} devices)"
    for name in names if assigned else ():
        if name not in assigned.values():
            allowed = f"the hash of {count} falls into ring {name}: it would prove nothing"
            device = f'{{serial: "{next(iter(assigned))}", ring: {name}}}'
            fix = f"name a device's ring in the list fleet.devices: {device}"
            fleet.add_mistake(f"rings.{name}", allowed, fix, "no device")
    return assigned


# Provisioning


def _read_claims(fleet: Section, root: Path) -> tuple[ClaimCertificate, ...]:
    provisioning = fleet.subsection("provisioning")
    example = "[{name: factory-a, csr: csr/claim-factory-a.csr}]"
    allowed = f"must be a list of at most {limits.MAX_CLAIMS} claim certificates, each with name"
    allowed = f"{allowed} and csr"
    rows = provisioning.read_rows("claims", ClaimCertificate, limits.CLAIM, allowed, example)
    provisioning.refuse_unknown_keys()
    if len(rows) > limits.MAX_CLAIMS:
        provisioning.add_mistake("claims", allowed, "remove some", f"{len(rows)} claims")
    names = [claim.name for claim in rows.values()]
    provisioning.refuse_repeated(
        "claims", names, "it names the certificate", "rename or remove one"
    )
    return tuple(
        replace(claim, csr=_read_claim_csr(provisioning, f"{key}.csr", claim, root))
        for key, claim in rows.items()
    )


def _read_claim_csr(provisioning: Section, key: str, claim: ClaimCertificate, root: Path) -> str:
    """The request as PEM; a mistake where it is none."""
    if not provisioning.has_no_mistakes_at(key):
        return ""
    is_text = claim.csr.startswith("-----")
    content = claim.csr.encode() if is_text else _read_file(find_inside(root, claim.csr))
    if CSR.fullmatch(content) and len(content) <= limits.MAX_CSR:
        return content.decode("ascii")
    file, found = f"claim-{claim.name}", "the text" if is_text else show_value(claim.csr)
    provisioning.add_mistake(
        key,
        "must be a certificate signing request in PEM, its file in the repository or its text,"
        f" {CSR_LIMIT}",
        f"where the factory keeps its key run: {_show_request(file)}, and copy {file}.csr to csr/",
        f"{found} {'is no certificate request' if content else 'is missing or empty'}",
    )
    return ""


def _read_device_policies(fleet: Section) -> tuple[str, ...]:
    most = f"at most {limits.MAX_DEVICE_POLICIES}: a certificate takes ten (AttachPolicy)"
    allowed = f"must be a list of names of IoT policies, {most}, and ours is one"
    names = fleet.read_list("devicePolicies", limits.DEVICE_POLICY, allowed, "[telemetry]")
    if len(names) > limits.MAX_DEVICE_POLICIES:
        fleet.add_mistake("devicePolicies", allowed, "remove some", f"{len(names)} policies")
    fleet.refuse_repeated("devicePolicies", names, "a policy is attached once", "remove one")
    return names


# Certificate requests


def _read_csrs(fleet: Section, serials: Sequence[str], root: Path) -> dict[str, str]:
    folder = fleet.read("csrFolder", limits.CSR_FOLDER, "csr").rstrip("/")
    if find_inside(root, folder) is None:
        fleet.add_mistake("csrFolder", limits.CSR_FOLDER.allowed, "write csrFolder: csr")
    if not fleet.has_no_mistakes_at("devices", "csrFolder", "keysInState"):
        return {}
    return {serial: _read_csr(fleet, serial, f"{folder}/{serial}.csr", root) for serial in serials}


def _read_csr(fleet: Section, serial: str, name: str, root: Path) -> str:
    content = _read_file(root / name)
    if CSR.fullmatch(content) and len(content) <= limits.MAX_CSR:
        return content.decode("ascii")
    request = (
        f"openssl req -new {NEW_KEY} -keyout {serial}.key -subj /CN={serial} -out {serial}.csr"
    )
    fleet.add_mistake(
        f"devices.{serial}",
        f"each device brings its own in PEM, {CSR_LIMIT}, and keeps its key",
        f"on the device run: {request}, and copy {serial}.csr to {name}",
        f"{name} {'is no certificate request' if content else 'is missing or empty'}",
    )
    return ""


def _show_request(name: str) -> str:
    """How to make a key and a request for it."""
    return f"openssl req -new {NEW_KEY} -keyout {name}.key -subj /CN={name} -out {name}.csr"


def _read_file(path: Path | None) -> bytes:
    """Its content; nothing where it cannot be read."""
    try:
        return path.read_bytes() if path else b""
    except OSError:
        return b""
