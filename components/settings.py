"""The stack's configuration: typed, checked, every mistake reported at once.

Nested types, defaults and what must fit together live here, the limits of single keys in
`components.limits`; `Pulumi.yaml` describes the top-level keys only, for Pulumi knows no nested
types.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from components import limits, naming
from components.checks import Kind, Mistake, Section, flag, near
from rollout.codec import shown
from rollout.release import (
    Abort,
    AlarmGate,
    Approval,
    FailureLimit,
    Firmware,
    Gate,
    Manifest,
    Pace,
    RingPlan,
    Version,
    Window,
)
from rollout.rings import MAX_RINGS, Share, ring_of

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "iot-ota"
"""Of the configuration's keys; the project's name in Pulumi.yaml."""
KEYS = (
    "environment",
    "protect",
    "tlsOnly",
    "signingKeys",
    "logRetentionDays",
    "notifications",
    "tags",
    "ownsAccountSettings",
    "fleet",
    "firmware",
    "rollout",
)
"""The top-level keys."""


@dataclass(frozen=True, kw_only=True)
class DeclaredDevice:
    """A device that the stack itself makes."""

    serial: str
    ring: str
    csr: str | None
    """Its certificate signing request (PEM); None where AWS makes the keys."""


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """The fleet, its rings and its declared devices."""

    name: str
    hardware: str
    device_type: str
    initial_version: str
    """What declared devices run before their first update."""
    attributes: Mapping[str, str]
    rings: tuple[Share, ...]
    devices: tuple[DeclaredDevice, ...]
    keys_in_state: bool


@dataclass(frozen=True, kw_only=True)
class Image:
    """Where the firmware image is: exactly one of the two."""

    path: str | None
    """A file, relative to the repository's root."""
    source: str | None
    """`bucket/key` of an S3 object, as CopyObject's CopySource takes it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of the stack's configuration."""

    environment: str
    fleet: FleetSettings
    manifest: Manifest
    image: Image
    protect: bool
    tls_only: bool
    signing_keys: tuple[str, ...]
    """Names of the signing keys: the first signs, the others are still believed."""
    """Whether bucket, queue and topic refuse requests without TLS."""
    log_retention_days: int
    notifications: tuple[str, ...]
    tags: Mapping[str, str]
    owns_account_settings: bool


class SettingsError(pulumi.RunError):
    """The configuration has mistakes; `mistakes` lists all of them, one line each."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        count = f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)}"
        super().__init__(
            "\n  ".join([f"the stack's configuration has {count}; nothing was changed:", *mistakes])
        )


def load(root: Path = ROOT) -> Settings:
    """Reads the stack's configuration; raises SettingsError with every mistake in it.

    `root` is the folder that image and CSR paths are relative to. Nothing but those files and the
    configuration is read.
    """
    mistakes: list[Mistake] = []
    top = Section(NAMESPACE, _values(), mistakes, separator=":")
    settings = _settings(top, root)
    top.close()
    if mistakes:
        raise SettingsError([str(mistake) for mistake in mistakes])
    return settings


def _values() -> dict[str, Any]:
    """The project's configuration. Pulumi hands over text; it is JSON for all that is not text in
    the stack file."""
    config = pulumi.Config(NAMESPACE)
    prefix = f"{NAMESPACE}:"
    given = {
        key.removeprefix(prefix)
        for key in {*CONFIG.get(), *get_config_env()}
        if key.startswith(prefix)
    }
    return {
        name: _parsed(config.get(name))
        for name in sorted(given | set(KEYS))
        if config.get(name) is not None
    }


def _parsed(value: str | None) -> Any:
    """What is not JSON stays text, and is then right or wrong by the key's kind."""
    try:
        return json.loads(value or "null")
    except (ValueError, RecursionError):
        return value


def _settings(top: Section, root: Path) -> Settings:
    environment = top.required("environment", limits.ENVIRONMENT)
    protect = top.optional("protect", flag(True), True)
    tls_only = top.optional("tlsOnly", flag(True), True)
    if not tls_only and environment != "dev":
        top.wrong(
            "tlsOnly",
            "must be true except in environment dev: it is false for a local AWS that has no TLS",
            "write tlsOnly: true",
        )
    keys = _signing_keys(top)
    retention = top.optional("logRetentionDays", limits.RETENTION, 30)
    notifications = _notifications(top)
    tags = _tags(top)
    owns = top.optional("ownsAccountSettings", flag(True), False)
    fleet = _fleet(top, environment, root)
    firmware, image = _firmware(top, fleet.hardware, root)
    return Settings(
        environment=environment,
        fleet=fleet,
        manifest=_manifest(top, firmware, fleet),
        image=image,
        protect=protect,
        tls_only=tls_only,
        signing_keys=keys,
        log_retention_days=retention,
        notifications=notifications,
        tags=tags,
        owns_account_settings=owns,
    )


def _signing_keys(top: Section) -> tuple[str, ...]:
    fix = 'signingKeys: ["1"]; for a rotation ["1", "2"], then ["2", "1"], then ["2"]'
    values = top.items(
        "signingKeys", "must be a list of the signing keys' names, the one that signs first", fix
    ) or ["1"]
    names = tuple(
        top.item("signingKeys", index, value, limits.SIGNING_KEY)
        for index, value in enumerate(values)
    )
    if len(set(names)) != len(names) or len(names) > limits.MAX_SIGNING_KEYS:
        allowed = (
            f"must be one to {limits.MAX_SIGNING_KEYS} different names: devices and controller hold"
            " each of them"
        )
        top.wrong("signingKeys", allowed, f"write {fix}")
    return names


def _notifications(top: Section) -> tuple[str, ...]:
    values = top.items("notifications", "must be a list of e-mail addresses", '["ops@example.com"]')
    addresses = [
        top.item("notifications", index, value, limits.EMAIL) for index, value in enumerate(values)
    ]
    for address in _repeated(addresses) if top.good("notifications") else ():
        top.note(
            top.place("notifications"),
            shown(address),
            "stands there twice: SNS keeps one subscription of it",
            "remove one",
        )
    return tuple(addresses)


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _tags(top: Section) -> dict[str, str]:
    tags = top.section("tags")
    own = ", ".join(naming.OWN_TAGS)
    if len(tags.data) > limits.MAX_TAGS:
        allowed = (
            f"at most {limits.MAX_TAGS}: an S3 object takes {naming.MAX_TAGS} (PutObjectTagging)"
            f" and {own} are added"
        )
        tags.note(tags.path, f"{len(tags.data)} tags", allowed, "remove some")
    taken = {key.lower(): key for key in naming.OWN_TAGS}
    for key in tags.data:
        other = taken.setdefault(key.lower(), key)
        if other != key or key in naming.OWN_TAGS:
            allowed = (
                f"{other} is there already, and IAM takes upper and lower case for one key"
                " (TagRole)"
            )
            tags.wrong(key, allowed, f"remove or rename {shown(key)}")
    return _words(tags, limits.TAG_KEY, limits.TAG_VALUE)


def _words(section: Section, key_kind: Kind[str], kind: Kind[str]) -> dict[str, str]:
    """An object of free keys: text to text."""
    for key in section.data:
        section.check_key(key, key_kind)
    return {key: section.required(key, kind) for key in sorted(section.data)}


# Fleet

RINGS = "[{name: canary, percent: 10}, {name: broad, percent: 90}]"
"""Rings as an example."""
CSR = re.compile(
    rb"-----BEGIN CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----\s*"
)


def _fleet(top: Section, environment: str, root: Path) -> FleetSettings:
    fleet = top.section("fleet", f"{{hardware: gateway-a1, rings: {RINGS}}}")
    name = fleet.optional("name", limits.FLEET_NAME, "iot-fleet")
    hardware = fleet.required("hardware", limits.HARDWARE)
    device_type = fleet.optional("deviceType", limits.DEVICE_TYPE, "device")
    initial = fleet.optional("initialVersion", limits.INITIAL_VERSION, "1.0.0")
    rings = _rings(fleet)
    places = _devices(fleet, rings)
    keys = fleet.optional("keysInState", flag(False), False)
    if keys and environment != "dev":
        allowed = (
            "must be false outside environment dev: AWS would make the devices' private keys and"
            " Pulumi keep them in its state"
        )
        fleet.wrong(
            "keysInState",
            allowed,
            "write keysInState: false and put each device's CSR in csrFolder",
        )
    csrs = _csrs(fleet, [] if keys else list(places), root)
    devices = tuple(
        DeclaredDevice(serial=serial, ring=ring, csr=csrs.get(serial))
        for serial, ring in places.items()
    )
    attributes = _attributes(fleet)
    fleet.close()
    return FleetSettings(
        name=name,
        hardware=hardware,
        device_type=device_type,
        initial_version=initial,
        attributes=attributes,
        rings=rings,
        devices=devices,
        keys_in_state=keys,
    )


def _attributes(fleet: Section) -> dict[str, str]:
    attributes = fleet.section("attributes")
    if len(attributes.data) > limits.MAX_ATTRIBUTES:
        allowed = (
            f"at most {limits.MAX_ATTRIBUTES}: a thing takes 50 (CreateThing),"
            f" {', '.join(limits.OWN_ATTRIBUTES)} are added"
        )
        fleet.note(attributes.path, f"{len(attributes.data)} attributes", allowed, "remove some")
    for key in limits.OWN_ATTRIBUTES:
        if key in attributes.data:
            attributes.wrong(
                key, "is an attribute that the fleet sets itself", f"remove or rename {shown(key)}"
            )
    return _words(attributes, limits.ATTRIBUTE_KEY, limits.ATTRIBUTE)


def _rings(fleet: Section) -> tuple[Share, ...]:
    allowed = (
        f"must be a list of 1 to {MAX_RINGS} rings (ours: a person must be able to follow them),"
        " each with name and percent"
    )
    shares = []
    for row in fleet.rows("rings", allowed, RINGS):
        shares.append(
            Share(
                name=row.required("name", limits.RING),
                percent=row.required("percent", limits.SHARE),
            )
        )
        row.close()
    path = fleet.place("rings")
    if fleet.good("rings"):
        if not 1 <= len(shares) <= MAX_RINGS:
            fleet.note(path, f"{len(shares)} rings", allowed, fleet.line("rings", RINGS))
        for name in _repeated([share.name for share in shares]):
            fleet.note(
                path,
                shown(name),
                "stands there twice: a device is in exactly one ring",
                "rename or remove one",
            )
        _add_up(fleet, shares)
    return tuple(shares)


def _add_up(fleet: Section, shares: Sequence[Share]) -> None:
    total = sum(round(share.percent * 100) for share in shares)
    if not shares or total == 100_00:
        return
    last = round(shares[-1].percent * 100) + 100_00 - total
    fix = (
        f"write percent: {last / 100:g} for ring {shares[-1].name}"
        if last > 0
        else "lower some of them"
    )
    fleet.note(
        fleet.place("rings"), f"{total / 100:g} %", "the percentages must add up to 100", fix
    )


def _devices(fleet: Section, rings: Sequence[Share]) -> dict[str, str]:
    """Serial to ring of each declared device; the ring is "" where devices or rings are wrong."""
    allowed = (
        f"must be a list, or a number from 0 to {limits.MAX_DEVICES} (a device is five resources:"
        " more are provisioned by claim)"
    )
    value = fleet.raw("devices")
    count = 3 if value is None else value
    if isinstance(count, list):
        named = _listed(fleet, count)
    elif (
        isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= limits.MAX_DEVICES
    ):
        named = [(f"{number:04d}", None) for number in range(1, count + 1)]
    else:
        fleet.wrong("devices", allowed, "write devices: 3")
        return {}
    if len(named) > limits.MAX_DEVICES:
        fleet.note(fleet.place("devices"), f"{len(named)} devices", allowed, "remove some")
    if not fleet.good("devices", "rings"):
        return {serial: "" for serial, _ in named}
    return _placed(fleet, named, rings)


def _listed(fleet: Section, values: list[Any]) -> list[tuple[str, str | None]]:
    """Devices by serial, each with its ring where the list names one."""
    named: list[tuple[str, str | None]] = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            named.append((fleet.item("devices", index, value, limits.SERIAL), None))
            continue
        row = Section(f"{fleet.place('devices')}[{index}]", value, fleet.mistakes)
        named.append(
            (row.required("serial", limits.SERIAL), row.optional("ring", limits.RING, None))
        )
        row.close()
    for serial in _repeated([serial for serial, _ in named]) if fleet.good("devices") else ():
        fleet.note(
            fleet.place("devices"),
            shown(serial),
            "stands there twice: thing names are unique (CreateThing)",
            "remove one",
        )
    return named


def _known_ring(section: Section, path: str, ring: str, names: Sequence[str] | None) -> None:
    if names is not None and ring not in names:
        section.note(
            path,
            shown(ring),
            f"is not a ring of this fleet: {near(ring, names)}",
            f"write {names[0]}, or add the ring",
        )


def _placed(
    fleet: Section, named: list[tuple[str, str | None]], rings: Sequence[Share]
) -> dict[str, str]:
    names = [ring.name for ring in rings]
    for serial, ring in named:
        _known_ring(fleet, f"{fleet.place('devices')}.{serial}", ring or names[0], names)
    places = {serial: ring or ring_of(serial, rings) for serial, ring in named}
    for name in names if places else ():
        if name not in places.values():
            allowed = (
                f"the hash of no declared serial ({len(places)} devices) falls into ring {name}: it"
                " would prove nothing"
            )
            fix = (
                "name a device's ring in the list fleet.devices: {serial:"
                f' "{next(iter(places))}", ring: {name}}}'
            )
            fleet.note(f"{fleet.place('rings')}.{name}", "no device", allowed, fix)
    return places


def _csrs(fleet: Section, serials: Sequence[str], root: Path) -> dict[str, str]:
    folder = fleet.optional("csrFolder", limits.CSR_FOLDER, "csr").rstrip("/")
    if _inside(root, folder) is None:
        fleet.wrong("csrFolder", limits.CSR_FOLDER.allowed, "write csrFolder: csr")
    if not fleet.good("devices", "csrFolder", "keysInState"):
        return {}
    return {serial: _csr(fleet, serial, f"{folder}/{serial}.csr", root) for serial in serials}


def _csr(fleet: Section, serial: str, name: str, root: Path) -> str:
    try:
        content = (root / name).read_bytes()
    except OSError:
        content = b""
    if CSR.fullmatch(content) and len(content) <= limits.MAX_CSR:
        return content.decode("ascii")
    fleet.note(
        f"{fleet.place('devices')}.{serial}",
        f"{name} {'is no certificate request' if content else 'is missing or empty'}",
        f"each device brings its own in PEM, at most {limits.MAX_CSR} characters"
        " (CreateCertificateFromCsr), and keeps its key",
        "on the device run: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        f" -keyout {serial}.key -subj /CN={serial} -out {serial}.csr, and copy {serial}.csr to"
        f" {name}",
    )
    return ""


def _inside(root: Path, name: str) -> Path | None:
    """The path of a file of the repository; None where the name leads out of it or cannot be a
    file's name."""
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return path if path.is_relative_to(root.resolve()) else None


# Firmware


def _firmware(top: Section, hardware: str, root: Path) -> tuple[Firmware, Image]:
    firmware = top.section(
        "firmware", f'{{version: "2.1.0", image: firmware/2.1.0.bin, sha256: "{"0" * 64}"}}'
    )
    number = firmware.required("version", limits.VERSION)
    minimum = firmware.optional("minimumVersion", limits.VERSION, None)
    if (
        minimum is not None
        and firmware.good("version", "minimumVersion")
        and Version(minimum) > Version(number)
    ):
        firmware.wrong(
            "minimumVersion",
            f"must not be above version {number}: nothing could install it",
            "lower it or leave it out",
        )
    downgrade = firmware.optional("allowDowngrade", flag(False), False)
    name = firmware.required("image", limits.IMAGE)
    source = limits.S3_IMAGE.fullmatch(name)
    digest, size = _stored(firmware) if source else _file(firmware, name, root)
    firmware.close()
    image = Image(path=None, source=source.group(1)) if source else Image(path=name, source=None)
    return (
        Firmware(
            version=number,
            sha256=digest,
            size=size,
            hardware=hardware,
            minimum_version=minimum,
            allow_downgrade=downgrade,
        ),
        image,
    )


def _stored(firmware: Section) -> tuple[str, int]:
    """Digest and size of an S3 image: only the configuration knows them before the preview."""
    return firmware.required("sha256", limits.DIGEST), firmware.required("size", limits.SIZE)


def _file(firmware: Section, name: str, root: Path) -> tuple[str, int]:
    """Digest and size of an image that is a file of the repository."""
    if firmware.raw("size") is not None:
        firmware.wrong("size", "is for s3:// images only: a file has its own size", "remove size")
    measured = _measured(firmware, name, root) if firmware.good("image") else None
    if measured is None:
        return firmware.required("sha256", limits.DIGEST), 1
    right, size = measured
    digest = firmware.required("sha256", limits.DIGEST.instead(right))
    if digest != right:
        firmware.wrong(
            "sha256", f"is not the SHA-256 of {name}, which is {right}", f'write sha256: "{right}"'
        )
    return digest, size


def _measured(firmware: Section, name: str, root: Path) -> tuple[str, int] | None:
    path = _inside(root, name)
    if path is None:
        firmware.wrong(
            "image",
            "must be inside the repository: what is released is what was reviewed",
            "copy it into firmware/",
        )
        return None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (OSError, ValueError):
        firmware.wrong(
            "image",
            "there is no such file",
            "put the image there, or write image: s3://bucket/key with its size",
        )
        return None
    if size == 0:
        firmware.wrong(
            "image", "has 0 bytes; a device cannot install nothing", "build the image again"
        )
    if size > limits.MAX_FILE:
        allowed = (
            f"has {size} bytes; a file may have {limits.MAX_FILE} (larger ones are stored in parts,"
            " without a SHA-256)"
        )
        firmware.wrong(
            "image", allowed, "put it into a bucket, and write image: s3://bucket/key with its size"
        )
    return digest, size


# Rollout


def _manifest(top: Section, firmware: Firmware, fleet: FleetSettings) -> Manifest:
    rollout = top.section("rollout")
    names = [ring.name for ring in fleet.rings] if top.good("fleet") else None
    gates = _gates(rollout, names, Counter(device.ring for device in fleet.devices))
    manifest = Manifest(
        schema=1,
        channel=rollout.optional("channel", limits.CHANNEL, "stable"),
        firmware=firmware,
        rings=tuple(
            RingPlan(name=ring.name, percent=ring.percent, gate=gates.get(ring.name, Gate()))
            for ring in fleet.rings
        ),
        pace=_pace(rollout),
        abort=_abort(rollout),
        in_progress_timeout_minutes=rollout.optional(
            "inProgressTimeoutMinutes", limits.TIMEOUT, Manifest.in_progress_timeout_minutes
        ),
        presigned_url_seconds=rollout.optional(
            "presignedUrlSeconds", limits.URL_LIFE, Manifest.presigned_url_seconds
        ),
        rollback=rollout.optional("rollback", limits.ROLLBACK, Manifest.rollback),
        paused=rollout.optional("paused", flag(False), Manifest.paused),
        halted=rollout.optional("halted", flag(False), Manifest.halted),
        approvals=_approvals(rollout, names),
        start_at=rollout.optional("startAt", limits.TIME, Manifest.start_at),
        window=_window(rollout),
    )
    rollout.close()
    return manifest


def _pace(rollout: Section) -> Pace:
    if not isinstance(rollout.raw("devicesPerMinute"), dict):
        return Pace(
            maximum_per_minute=rollout.optional(
                "devicesPerMinute", limits.RATE, Pace.maximum_per_minute
            )
        )
    rate = rollout.section("devicesPerMinute")
    base = rate.required("base", limits.RATE)
    maximum = rate.optional("maximum", limits.RATE, Pace.maximum_per_minute)
    if rate.good("base", "maximum") and base > maximum:
        rate.wrong(
            "base",
            f"must not be above the maximum, {maximum}: the rate only grows",
            f"write base: {maximum} or less",
        )
    pace = Pace(
        maximum_per_minute=maximum,
        base_per_minute=base,
        factor=rate.optional("factor", limits.FACTOR, Pace.factor),
        increase_after=rate.optional("increaseAfter", limits.INCREASE_AFTER, Pace.increase_after),
        increase_on=rate.optional("increaseOn", limits.INCREASE_ON, Pace.increase_on),
    )
    rate.close()
    return pace


def _abort(rollout: Section) -> tuple[Abort, ...]:
    allowed = (
        "must be a list of at least one object of on, percent and minimum: without one IoT itself"
        " never stops a job"
    )
    example = '[{"on": FAILED, percent: 20, minimum: 5}]'
    if rollout.raw("abort") is None:
        return Manifest.abort
    criteria = []
    for row in rollout.rows("abort", allowed, example):
        kind, percent = (
            row.required("on", limits.ABORT_ON),
            row.required("percent", limits.ABORT_PERCENT),
        )
        criteria.append(
            Abort(on=kind, percent=percent, minimum=row.required("minimum", limits.ABORT_MINIMUM))
        )
        row.close()
    if not criteria and rollout.good("abort"):
        rollout.wrong("abort", allowed, rollout.line("abort", example))
    return tuple(criteria)


def _approvals(rollout: Section, names: Sequence[str] | None) -> tuple[Approval, ...]:
    """An approval of another digest than this release's may stand: it has no effect."""
    approvals = []
    allowed = "must be a list of objects of ring and sha256"
    for row in rollout.rows("approvals", allowed, f'[{{ring: canary, sha256: "{"0" * 64}"}}]'):
        ring = row.required("ring", limits.RING)
        if row.good("ring"):
            _known_ring(row, row.place("ring"), ring, names)
        approvals.append(Approval(ring=ring, sha256=row.required("sha256", limits.DIGEST)))
        row.close()
    return tuple(approvals)


def _window(rollout: Section) -> Window | None:
    if rollout.raw("window") is None:
        return None
    window = rollout.section("window", '{cron: "0 2 * * *", minutes: 240}')
    result = Window(
        cron=window.required("cron", limits.CRON),
        minutes=window.required("minutes", limits.WINDOW_MINUTES),
    )
    window.close()
    return result


# Gates


def _gates(
    rollout: Section, names: Sequence[str] | None, sizes: Mapping[str, int]
) -> dict[str, Gate]:
    """Gates by ring, also the default ones, held against the ring's size where it is known.

    `names` is None where the fleet has mistakes, and then no ring is called unknown.
    """
    gates = rollout.section("gates")
    for name in gates.data:
        _known_ring(gates, gates.place(name), name, names)
    known = [*gates.data, *(names or ())]
    return {name: _gate(gates.section(name), sizes.get(name)) for name in dict.fromkeys(known)}


def _gate(gate: Section, size: int | None) -> Gate:
    limit = gate.section("failureLimit")
    result = Gate(
        coverage_percent=gate.optional("coveragePercent", limits.PERCENT, Gate.coverage_percent),
        success_percent=gate.optional("successPercent", limits.PERCENT, Gate.success_percent),
        minimum_succeeded=gate.optional("minimumSucceeded", limits.LEAST, Gate.minimum_succeeded),
        failure_limit=FailureLimit(
            percent=limit.optional("percent", limits.FAILURE_PERCENT, FailureLimit.percent),
            minimum=limit.optional("minimum", limits.FAILURE_MINIMUM, FailureLimit.minimum),
        ),
        soak_minutes=gate.optional("soakMinutes", limits.MINUTES, Gate.soak_minutes),
        alarms=_alarms(gate),
        approval=gate.optional("approval", flag(True), Gate.approval),
        deadline_minutes=gate.optional("deadlineMinutes", limits.DEADLINE, Gate.deadline_minutes),
        on_deadline=gate.optional("onDeadline", limits.ON_DEADLINE, Gate.on_deadline),
    )
    limit.close()
    gate.close()
    if (
        result.on_deadline == "advance"
        and result.deadline_minutes is None
        and gate.good("deadlineMinutes")
    ):
        gate.wrong(
            "onDeadline", "does nothing without deadlineMinutes", "write deadlineMinutes: 1440"
        )
    if size is not None:
        _within_size(gate, result, size)
    return result


def _within_size(gate: Section, result: Gate, size: int) -> None:
    """A least number above the ring's declared size can never be reached: nothing could pass, or
    nothing fail."""
    ring = f"the ring has {size} declared device{'s' * (size > 1)}"
    if result.minimum_succeeded > size and gate.good("minimumSucceeded"):
        fix = f"write minimumSucceeded: {size} or less"
        gate.note(
            gate.place("minimumSucceeded"),
            str(result.minimum_succeeded),
            f"{ring}: it could never pass",
            fix,
        )
    limit = result.failure_limit
    if limit.minimum > size and gate.good("failureLimit"):
        fix = f"write failureLimit: {{percent: {limit.percent:g}, minimum: {size}}}"
        gate.note(
            gate.place("failureLimit.minimum"),
            str(limit.minimum),
            f"{ring}: it could never fail, so this is no brake",
            fix,
        )


def _alarms(gate: Section) -> tuple[AlarmGate, ...]:
    allowed = (
        f"must be a list of at most {limits.MAX_ALARMS} objects of name and action (ten rings' fit"
        " DescribeAlarms: 100 names)"
    )
    example = f'{{name: "{limits.ALARM_NAME.example}", action: hold}}'
    alarms = []
    for row in gate.rows("alarms", allowed, f"[{example}]"):
        name = row.required("name", limits.ALARM_NAME)
        own = name.removeprefix("stack:")
        if own != name and own not in naming.GATE_ALARMS:
            row.wrong(
                "name",
                "is not an alarm of this stack that a gate can watch:"
                f" {near(own, naming.GATE_ALARMS)}",
                f"write {example}",
            )
        alarms.append(
            AlarmGate(
                name=name, action=row.optional("action", limits.ALARM_ACTION, AlarmGate.action)
            )
        )
        row.close()
    if len(alarms) > limits.MAX_ALARMS:
        gate.note(gate.place("alarms"), f"{len(alarms)} alarms", allowed, "remove some")
    return tuple(alarms)
