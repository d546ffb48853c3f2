"""The configuration: every mistake is named with its key and its fix, all at once, and nothing else
is ever raised."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pulumi
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components import limits
from components.checks import Kind
from components.settings import KEYS, Settings, SettingsError, load, read
from components.settings.agents import list_agent_risks
from components.settings.common import CommonSettings
from components.settings.firmware import FileImage, S3Image
from components.settings.fleet import ClaimCertificate, DeviceSettings
from components.settings.rollout import list_abort_risks
from rollout.codec import camel_case
from rollout.names import Names
from rollout.release import Abort, AlarmGate, Approval, FailureLimit, Gate, Manifest, Pace, Window
from rollout.rings import Share, ring_of
from rollout.version import Version

IMAGE = b"an image"
DIGEST = hashlib.sha256(IMAGE).hexdigest()
OTHER = "f" * 64
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIHIMHECAQAw\n-----END CERTIFICATE REQUEST-----\n"

GONE = object()

VALID: dict[str, Any] = {
    "environment": "staging",
    "protect": True,
    "logRetentionDays": 30,
    "notifications": ["ops@example.com"],
    "tags": {"team": "devices"},
    "ownsAccountSettings": False,
    "fleet": {
        "name": "iot-fleet",
        "hardware": "gateway-a1",
        "deviceType": "gateway",
        "initialVersion": "2.0.0",
        "attributes": {"site": "lab"},
        "devices": [{"serial": "0001", "ring": "canary"}, "0002", "0003"],
        "rings": [{"name": "canary", "percent": 10}, {"name": "broad", "percent": 90}],
        "keysInState": False,
        "csrFolder": "csr",
        "devicePolicies": ["telemetry"],
    },
    "firmware": {
        "version": "v2.1.0",
        "image": "image.bin",
        "sha256": DIGEST,
        "minimumVersion": "1.0.0",
        "allowDowngrade": False,
    },
    "rollout": {
        "channel": "stable",
        "devicesPerMinute": {
            "base": 10,
            "factor": 2.5,
            "maximum": 500,
            "increaseAfter": 50,
            "increaseOn": "notified",
        },
        "abort": [{"on": "TIMED_OUT", "percent": 12.5, "minimum": 4}],
        "inProgressTimeoutMinutes": 20,
        "presignedUrlSeconds": 900,
        "rollback": "forbidden",
        "paused": True,
        "halted": False,
        "approvals": [{"ring": "canary", "sha256": OTHER}],
        "startAt": "2026-12-01T02:00:00Z",
        "window": {"cron": "0 2 * * 1-5", "minutes": 240},
        "gates": {
            "canary": {
                "coveragePercent": 100,
                "successPercent": 99.5,
                "minimumSucceeded": 1,
                "failureLimit": {"percent": 10, "falseStopPercent": 0.5, "devices": 1},
                "soakMinutes": 0.05,
                "alarms": [
                    {"name": "stack:dead-letters", "action": "rollback"},
                    {"name": "a team's alarm"},
                ],
                "approval": True,
                "deadlineMinutes": 60,
                "onDeadline": "advance",
            },
            "broad": {"failureLimit": {"devices": 2}},
        },
    },
}
PROVISIONED: dict[str, Any] = {
    **VALID,
    "fleet": {
        **VALID["fleet"],
        "provisioning": {
            "claims": [
                {"name": "factory-a", "csr": "csr/claim.csr"},
                {"name": "factory-b", "csr": CSR, "active": False},
            ]
        },
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an image and three devices' certificate requests."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "image.bin").write_bytes(IMAGE)
    (folder / "empty.bin").touch()
    (folder / "large.bin").write_bytes(bytes(5 * 1024**2 + 1))
    (folder / "csr").mkdir()
    for serial in ("0001", "0002", "0003"):
        (folder / "csr" / f"{serial}.csr").write_text(CSR)
    (folder / "csr" / "claim.csr").write_text(CSR)
    (folder / "csr" / "key.csr").write_text(CSR.replace("CERTIFICATE REQUEST", "PRIVATE KEY"))
    return folder


def texts(values: dict[str, Any]) -> dict[str, str]:
    """As Pulumi hands it over: text as it is, all else as JSON."""
    return {"aws:region": "us-east-1"} | {
        f"iot-ota:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid configuration with `value` at `path` (`rollout.abort.0.on`); GONE takes the key
    out."""
    provisioned = ("fleet.provisioning", "fleet.attributes")
    values = copy.deepcopy(PROVISIONED if path.startswith(provisioned) else VALID)
    *parents, last = path.split(".")
    place: Any = values
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return values


def mistakes(values: dict[str, Any], root: Path) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read(texts(values), root)
    assert isinstance(raised.value, pulumi.RunError), (
        "a mistake in the configuration shows no traceback"
    )
    assert all(mistake in str(raised.value) for mistake in raised.value.mistakes)
    return raised.value.mistakes


def test_devices_may_come_in_by_claim_and_then_no_ring_is_as_large_as_its_declared_devices(
    root: Path,
) -> None:
    values = copy.deepcopy(PROVISIONED)
    values["rollout"]["gates"]["canary"]["minimumSucceeded"] = 500
    fleet = read(texts(values), root).fleet
    assert fleet.claims == (
        ClaimCertificate(name="factory-a", csr=CSR, active=True),
        ClaimCertificate(name="factory-b", csr=CSR, active=False),
    )
    assert fleet.is_provisioned
    assert not fleet.ring_sizes
    without = {**VALID["fleet"], "provisioning": {}}
    fleet = read(texts({**VALID, "fleet": without}), root).fleet
    assert (fleet.is_provisioned, fleet.claims) == (True, ()), "all claims are retired"


def test_a_valid_configuration_becomes_typed_settings(root: Path) -> None:
    loaded = read(texts(VALID), root)
    assert loaded.common == CommonSettings(
        environment="staging", protect=True, log_retention_days=30, tags={"team": "devices"}
    )
    assert (loaded.channel.notifications, loaded.owns_account_settings) == (
        ("ops@example.com",),
        False,
    )
    assert loaded.image == FileImage(root / "image.bin")
    fleet = loaded.fleet
    assert (fleet.name, fleet.hardware, fleet.device_type, fleet.initial_version) == (
        "iot-fleet",
        "gateway-a1",
        "gateway",
        Version("2.0.0"),
    )
    assert fleet.rings == (Share(name="canary", percent=10.0), Share(name="broad", percent=90.0))
    assert fleet.devices == (
        DeviceSettings(serial="0001", ring="canary", csr=CSR),
        DeviceSettings(serial="0002", ring="broad", csr=CSR),
        DeviceSettings(serial="0003", ring="broad", csr=CSR),
    )
    assert (fleet.is_provisioned, fleet.claims) == (False, ())
    assert fleet.device_policies == ("telemetry",)
    manifest = loaded.manifest
    assert (manifest.channel, manifest.rollback, manifest.paused, manifest.halted) == (
        "stable",
        "forbidden",
        True,
        False,
    )
    assert (manifest.firmware.version, manifest.firmware.sha256, manifest.firmware.size) == (
        Version("2.1.0"),
        DIGEST,
        len(IMAGE),
    )
    assert (manifest.firmware.hardware, manifest.firmware.minimum_version) == (
        "gateway-a1",
        Version("1.0.0"),
    )
    assert manifest.pace == Pace(
        maximum_per_minute=500,
        base_per_minute=10,
        factor=2.5,
        increase_after=50,
        increase_on="notified",
    )
    assert manifest.abort == (Abort(on="TIMED_OUT", percent=12.5, minimum=4),)
    assert manifest.approvals == (Approval(ring="canary", sha256=OTHER),), (
        "an approval of another image stands, without effect"
    )
    assert manifest.window == Window(cron="0 2 * * 1-5", minutes=240)
    assert manifest.rings[0].gate == Gate(
        coverage_percent=100.0,
        success_percent=99.5,
        failure_limit=FailureLimit(percent=10.0, false_stop_percent=0.5, devices=1),
        soak_minutes=0.05,
        alarms=(
            AlarmGate(name="stack:dead-letters", action="rollback"),
            AlarmGate(name="a team's alarm"),
        ),
        approval=True,
        deadline_minutes=60.0,
        on_deadline="advance",
    )
    assert manifest.rings[1].gate == Gate(failure_limit=FailureLimit(devices=2))
    assert Manifest.parse(manifest.text()) == manifest


def test_what_is_left_out_has_the_safe_default(root: Path) -> None:
    rings = [{"name": "all", "percent": 100}]
    firmware = {"version": "2.1.0", "image": "image.bin", "sha256": DIGEST}
    values = {
        "environment": "production",
        "fleet": {"hardware": "gateway-a1", "rings": rings},
        "firmware": firmware,
    }
    loaded = read(texts(values), root)
    assert loaded.common.protect, "a stack is protected unless it says otherwise"
    assert not loaded.owns_account_settings, (
        "a stack leaves the account's settings alone unless it says otherwise"
    )
    assert not loaded.fleet.keys_in_state, (
        "devices bring their own keys unless the stack says otherwise"
    )
    assert (loaded.common.log_retention_days, loaded.common.tags) == (30, {})
    assert (loaded.channel.notifications, loaded.channel.signing_keys) == ((), ("1",))
    assert loaded.channel.tls_only
    assert (loaded.fleet.name, loaded.fleet.device_type, loaded.fleet.initial_version) == (
        "iot-fleet",
        "device",
        Version("1.0.0"),
    )
    assert [device.serial for device in loaded.fleet.devices] == ["0001", "0002", "0003"]
    assert loaded.manifest == Manifest(
        schema=1, channel="stable", firmware=loaded.manifest.firmware, rings=loaded.manifest.rings
    ), "the rollout's defaults are the manifest's"
    assert [ring.gate for ring in loaded.manifest.rings] == [Gate()]


def test_a_count_declares_serials_in_the_rings_their_hash_says(root: Path) -> None:
    many = {**VALID["fleet"], "devices": 100, "keysInState": True}
    fleet = read(texts({**VALID, "environment": "dev", "fleet": many}), root).fleet
    assert [device.serial for device in fleet.devices] == [
        f"{number:04d}" for number in range(1, 101)
    ]
    assert all(device.ring == ring_of(device.serial, fleet.rings) for device in fleet.devices)
    assert {device.csr for device in fleet.devices} == {None}, "AWS makes the keys"


def test_what_devices_ran_before_is_read_like_an_image(root: Path) -> None:
    given = {"version": "2.0.0", "image": "s3://images/2.0.0.bin", "sha256": OTHER, "size": 77}
    found = read(texts(changed("fleet.adopted", given)), root)
    adopted = found.channel.adopted
    assert adopted is not None
    assert adopted.image == S3Image("images/2.0.0.bin")
    assert found.manifest.adopted == adopted.firmware
    assert (str(adopted.firmware.version), adopted.firmware.size) == ("2.0.0", 77)
    assert adopted.firmware.hardware == "gateway-a1"
    assert found.channel_values["adopted"] == given
    same = {"version": "v2.1.0", "image": "image.bin", "sha256": DIGEST}
    assert read(texts(changed("fleet.adopted", same)), root).manifest.adopted is not None


def test_extra_keys_come_into_the_manifest_as_they_stand(root: Path) -> None:
    extra = {
        "version": "1.0",
        "steps": [{"n": 1, "f": 0.5, "on": True, "none": None}],
        "é": "{url}",
    }
    found = read(texts(changed("rollout.documentExtra", extra)), root).manifest
    assert found.document_extra == extra
    assert Manifest.parse(found.text()) == found


def test_every_mistake_of_the_extra_keys_is_told_at_once(root: Path) -> None:
    extra = {"release": 1, "url": 2, "a": ["{x}", {"b": "}"}], "c": "${size}", "d": 1e300}
    found = mistakes(changed("rollout.documentExtra", extra), root)
    assert {
        line.split(": ")[0].removeprefix("iot-ota:rollout.documentExtra.") for line in found
    } == {
        "release",
        "url",
        "a[0]",
        "a[1].b",
        "c",
        "d",
    }


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (None, None),
        ({"version": "1.0", "steps": []}, "AWS IoT Device Client: .*never answers REJECTED to"),
        ({"args": ["{url}"]}, "Device Client \\(old schema\\): .*no downgrade and no replay"),
        ({"afr_ota": {"files": []}}, "FreeRTOS OTA: .*an older image that was signed once"),
        ({"update": "{url}"}, "an agent that reads documentExtra only: .*replay"),
    ],
)
def test_what_existing_agents_do_not_check_is_told(
    extra: dict[str, Any] | None, says: str | None, root: Path
) -> None:
    manifest = read(texts(changed("rollout.documentExtra", extra)), root).manifest
    risks = list_agent_risks(manifest)
    assert [bool(re.search(says or "", risk)) for risk in risks] == [True] * bool(extra)


@pytest.mark.parametrize(
    ("step", "is_told"),
    [
        ({}, False),
        ({"ignoreStepFailure": "false"}, False),
        ({"ignoreStepFailure": "true"}, True),
        ({"allowStdErr": 1}, True),
    ],
)
def test_a_step_whose_failure_nobody_would_hear_of_is_told(
    step: dict[str, Any], is_told: bool, root: Path
) -> None:
    extra = {"version": "1.0", "steps": [{"action": {"name": "install", **step}}]}
    manifest = read(texts(changed("rollout.documentExtra", extra)), root).manifest
    assert any("reports SUCCEEDED" in risk for risk in list_agent_risks(manifest)) is is_told


def test_an_image_in_s3_needs_its_size_and_digest_only(root: Path) -> None:
    image = "s3://a-bucket/a1/2.1.0.bin"
    firmware = {"version": "2.1.0", "image": image, "sha256": OTHER, "size": 7}
    loaded = read(texts(changed("firmware", firmware)), root)
    assert loaded.image == S3Image("a-bucket/a1/2.1.0.bin")
    assert (loaded.manifest.firmware.sha256, loaded.manifest.firmware.size) == (OTHER, 7)


# Every mistake: what is changed, and what the one line must say, from the key to the fix
# ------------------------------

MISTAKES: list[tuple[str, Any, str]] = [
    # top level
    (
        "environment",
        "prod",
        'environment: "prod"; must be dev or staging or production .*: write production',
    ),
    ("environment", "5", "environment: 5; must be dev"),
    ("environment", GONE, 'environment: missing; .*; write iot-ota:environment: "dev"'),
    ("protect", "yes", 'protect: "yes"; must be true or false.*; write iot-ota:protect: true'),
    ("protect", 1, "protect: 1; must be true or false"),
    ("ownsAccountSettings", [], "ownsAccountSettings: \\[\\]; must be true or false"),
    (
        "logRetentionDays",
        8,
        (
            "logRetentionDays: 8; must be one of 1, 3, 5, 7, .*PutRetentionPolicy.*; write"
            " iot-ota:logRetentionDays: 30"
        ),
    ),
    ("logRetentionDays", True, "logRetentionDays: true; must be one of"),
    (
        "notifications",
        "ops@example.com",
        "notifications: .*; must be a list of e-mail addresses; write .*ops@example.com",
    ),
    ("notifications", ["ops@example"], "notifications\\[0\\]: .*; must be an e-mail address .*SNS"),
    ("notifications", ["a@b.cd", "a@b.cd"], "notifications: .*; stands there twice"),
    ("notifications", [5], "notifications\\[0\\]: 5; is no text, write it in quotes"),
    ("tags", {"aws:x": "1"}, "tags.aws:x: .*; a key .* not begin with aws:"),
    ("tags", {"k" * 129: "1"}, 'tags."kkk.*; a key is 1 to 128'),
    ("tags", {"team!": "1"}, 'tags."team!": .*; a key is 1 to 128 letters'),
    ("tags", {"team": "x" * 257}, "tags.team: .*; a value is 0 to 256"),
    ("tags", {"team": 7}, 'tags.team: 7; is no text, write it in quotes.*; write team: "devices"'),
    (
        "tags",
        {f"k{n}": "" for n in range(8)},
        "tags: 8 tags; at most 7: an S3 object takes 10 \\(PutObjectTagging\\)",
    ),
    ("tags", {"Fleet": "x"}, "tags.Fleet: .*; fleet is there already.*IAM"),
    ("tags", {"fleet": "x"}, "tags.fleet: .*; fleet is there already"),
    ("tags", {"team": "x", "Team": "y"}, "tags.Team: .*; team is there already"),
    ("tags", "team", 'tags: "team"; must be an object'),
    (
        "protekt",
        True,
        'protekt: true; is not a key here: did you mean protect\\?; remove or correct "protekt"',
    ),
    # fleet
    (
        "fleet",
        GONE,
        "fleet: missing; is required; write iot-ota:fleet: {hardware: gateway-a1, rings: ",
    ),
    ("fleet", [], "fleet: \\[\\]; must be an object"),
    ("fleet.naem", "x", "fleet.naem: .*did you mean name"),
    (
        "fleet.name",
        "Fleet",
        'fleet.name: "Fleet"; must be 2 to 20 .*CreateRole.*; write name: "iot-fleet"',
    ),
    ("fleet.name", "f" * 21, "fleet.name: .*; must be 2 to 20"),
    ("fleet.name", "fleet-", "fleet.name: .*not end with a hyphen"),
    ("fleet.name", "a--b", "fleet.name: .*single hyphens"),
    ("fleet.name", "sthree-a", "fleet.name: .*sthree-"),
    (
        "fleet.hardware",
        GONE,
        'fleet.hardware: missing; .*AttributeValue.*; write hardware: "gateway-a1"',
    ),
    ("fleet.hardware", "gateway a1", "fleet.hardware: .*without spaces"),
    ("fleet.deviceType", "x" * 99, "fleet.deviceType: .*1 to 98 .*CreateThingType"),
    ("fleet.deviceType", "a:b", "fleet.deviceType: .*colon"),
    (
        "fleet.initialVersion",
        2.0,
        'fleet.initialVersion: 2.0; .*in quotes.*; write initialVersion: "1.0.0"',
    ),
    ("fleet.initialVersion", "2.0.0+b7", "fleet.initialVersion: .*without \\+build"),
    (
        "fleet.attributes",
        {"site": "a b"},
        "fleet.attributes.site: .*without spaces \\(AttributeValue",
    ),
    ("fleet.attributes", {"site": ""}, "fleet.attributes.site: .*1 to 800"),
    ("fleet.attributes", {"site": "x" * 801}, "fleet.attributes.site: .*1 to 800"),
    ("fleet.attributes", {"a b": "x"}, 'fleet.attributes."a b": .*AttributeName'),
    ("fleet.attributes", {"serial": "x"}, "fleet.attributes.serial: .*the fleet sets itself"),
    (
        "fleet.attributes",
        {f"a{n}": "x" for n in range(48)},
        "fleet.attributes: 48 attributes; at most 47: a thing takes 50",
    ),
    (
        "fleet.rings",
        GONE,
        "fleet.rings: 0 rings; must be a list of 1 to 10 rings.*; write rings: \\[{name: canary",
    ),
    ("fleet.rings", [], "fleet.rings: 0 rings"),
    ("fleet.hardware", None, "fleet.hardware: missing"),
    ("fleet.provisioning", [], "fleet.provisioning: \\[\\]; must be an object"),
    ("fleet.provisioning", {"claim": []}, "fleet.provisioning.claim: .*did you mean claims"),
    (
        "fleet.provisioning.claims",
        "factory-a",
        'claims: "factory-a"; must be a list of at most 10 claim .*; write claims: \\[{name: fac',
    ),
    ("fleet.provisioning.claims", ["a"], 'claims\\[0\\]: "a"; must be a list'),
    (
        "fleet.provisioning.claims",
        [{"name": f"f{n}", "csr": CSR} for n in range(11)],
        "fleet.provisioning.claims: 11 claims; .*at most 10.*; remove some",
    ),
    ("fleet.provisioning.claims.0.name", GONE, "claims\\[0\\].name: missing; must be 1 to 32"),
    ("fleet.provisioning.claims.0.name", "Factory_A", "claims\\[0\\].name: .*lower-case"),
    ("fleet.provisioning.claims.0.name", "a-", "claims\\[0\\].name: .*nor end with a hyphen"),
    (
        "fleet.provisioning.claims.1.name",
        "factory-a",
        'fleet.provisioning.claims: "factory-a"; stands there twice: it names the certificate',
    ),
    ("fleet.provisioning.claims.0.csr", GONE, "claims\\[0\\].csr: missing; .*its file"),
    (
        "fleet.provisioning.claims.0.csr",
        "csr/none.csr",
        'claims\\[0\\].csr: "csr/none.csr" is missing or empty; .*at most 4096 .*run: openssl req'
        " .*-out claim-factory-a.csr, and copy",
    ),
    ("fleet.provisioning.claims.0.csr", "../../etc/passwd", "claims\\[0\\].csr: .* is missing"),
    ("fleet.provisioning.claims.0.csr", "csr", "claims\\[0\\].csr: .* is missing"),
    ("fleet.provisioning.claims.0.csr", "csr/key.csr", 'csr: "csr/key.csr" is no certificate'),
    ("fleet.provisioning.claims.0.csr", CSR + CSR, "csr: the text is no certificate request"),
    ("fleet.provisioning.claims.0.csr", "x" * 5000, "claims\\[0\\].csr: .*must be a certificate"),
    ("fleet.provisioning.claims.0.active", "no", "active: .*must be true or false"),
    ("fleet.provisioning.claims.0.key", "x", "claims\\[0\\].key: .*is not a key here"),
    (
        "fleet.attributes",
        {"a": "x" * 600, "b": "x" * 500},
        "fleet.attributes: 1118 characters; at most 1024 .*come in by claim.*CreateFunction",
    ),
    ("fleet.devicePolicies", "telemetry", "fleet.devicePolicies: .*must be a list of names"),
    ("fleet.devicePolicies", ["a b"], "fleet.devicePolicies\\[0\\]: .*PolicyName of AttachPolicy"),
    (
        "fleet.devicePolicies",
        [f"p{n}" for n in range(10)],
        "fleet.devicePolicies: 10 policies; .*at most 9: a certificate takes ten",
    ),
    ("fleet.devicePolicies", ["a", "a"], 'devicePolicies: "a"; stands there twice'),
    (
        "fleet.rings",
        [{"name": f"r{n}", "percent": 100 / 10 - (n > 9)} for n in range(11)],
        "fleet.rings: 11 rings; .*1 to 10",
    ),
    (
        "fleet.rings",
        [{"name": "canary", "percent": 10}, {"name": "broad", "percent": 89}],
        "fleet.rings: 99 %; .*add up to 100; write percent: 90 for ring broad",
    ),
    (
        "fleet.rings",
        [{"name": "canary", "percent": 100}, {"name": "broad", "percent": 50}],
        "fleet.rings: 150 %; .*; lower some",
    ),
    (
        "fleet.rings.0.percent",
        10.001,
        "fleet.rings\\[0\\].percent: 10.001; .*at most 2 decimals .*10,000 places",
    ),
    (
        "fleet.rings.0.percent",
        0,
        "fleet.rings\\[0\\].percent: 0; must be a number from 0.01 to 100",
    ),
    ("fleet.rings.0.percent", "10", 'fleet.rings\\[0\\].percent: "10"; must be a number'),
    ("fleet.rings.0.percent", 10**400, "fleet.rings\\[0\\].percent: 1000"),
    (
        "fleet.rings.1.name",
        "canary",
        'fleet.rings: "canary"; stands there twice: a device is in exactly one ring',
    ),
    ("fleet.rings.1.name", "rollback", "fleet.rings\\[1\\].name: .*not rollback"),
    ("fleet.rings.1.name", "Broad", "fleet.rings\\[1\\].name: .*lower-case.*CreateJob"),
    ("fleet.rings.1.name", "b" * 21, "fleet.rings\\[1\\].name: .*1 to 20"),
    ("fleet.rings.1.name", GONE, 'fleet.rings\\[1\\].name: missing; .*; write name: "canary"'),
    ("fleet.rings.1.gate", {}, "fleet.rings\\[1\\].gate: {}; is not a key here"),
    ("fleet.rings.1", "broad", 'fleet.rings\\[1\\]: "broad"; must be a list of 1 to 10 rings'),
    (
        "fleet.devices",
        -1,
        "fleet.devices: -1; must be .* 0 to 100 .*five resources.*; write devices: 3",
    ),
    ("fleet.devices", 101, "fleet.devices: 101; must be .* 0 to 100"),
    ("fleet.devices", True, "fleet.devices: true; must be .* 0 to 100"),
    ("fleet.devices", 3.0, "fleet.devices: 3.0; must be .* 0 to 100"),
    ("fleet.devices", "many", 'fleet.devices: "many"; must be .* 0 to 100'),
    (
        "fleet.devices",
        [f"d{n}" for n in range(101)],
        "fleet.devices: 101 devices; must be .* 0 to 100",
    ),
    (
        "fleet.devices",
        3,
        (
            "fleet.rings.canary: no device; the hash of no declared serial .*; name .*{serial:"
            ' "0001", ring: canary}'
        ),
    ),
    ("fleet.devices.1", "0001", 'fleet.devices: "0001"; stands there twice.*CreateThing'),
    (
        "fleet.devices.1",
        2,
        'fleet.devices\\[1\\]: 2; is no text, write it in quotes.*; write "0001"',
    ),
    ("fleet.devices.1", "a b", "fleet.devices\\[1\\]: .*1 to 98 letters.*CreateThing"),
    ("fleet.devices.1", "x" * 99, "fleet.devices\\[1\\]: .*1 to 98"),
    ("fleet.devices.0.serial", 1, "fleet.devices\\[0\\].serial: 1; is no text"),
    ("fleet.devices.0.rnig", "canary", "fleet.devices\\[0\\].rnig: .*did you mean ring"),
    (
        "fleet.devices.0.ring",
        "canry",
        'fleet.devices.0001: "canry"; is not a ring of this fleet: did you mean canary\\?',
    ),
    (
        "fleet.devices.2",
        "0004",
        (
            "fleet.devices.0004: csr/0004.csr is missing or empty; .*CreateCertificateFromCsr.*; on"
            " the device run: openssl req "
        ),
    ),
    ("fleet.devices.2", "key", "fleet.devices.key: csr/key.csr is no certificate request"),
    ("fleet.csrFolder", "../csr", "fleet.csrFolder: .*inside the repository; write csrFolder: csr"),
    ("fleet.csrFolder", "", "fleet.csrFolder: .*inside the repository"),
    (
        "fleet.keysInState",
        True,
        (
            "fleet.keysInState: true; must be false outside environment dev: .*; write keysInState:"
            " false"
        ),
    ),
    (
        "fleet.keysInState",
        "true",
        'fleet.keysInState: "true"; must be true or false, without quotes',
    ),
    # firmware
    ("firmware", GONE, "firmware: missing; is required; write iot-ota:firmware: {version: "),
    (
        "firmware.version",
        2.1,
        (
            "firmware.version: 2.1; must be a semantic version .*in quotes.*2.10; .*write version:"
            ' "2.1.0"'
        ),
    ),
    ("firmware.version", "2.1", 'firmware.version: "2.1"; must be a semantic version'),
    ("firmware.version", "2.1.0-" + "a" * 59, "firmware.version: .*at most 64 characters"),
    ("firmware.version", GONE, "firmware.version: missing; must be a semantic version"),
    (
        "firmware.minimumVersion",
        "2.1.1",
        'firmware.minimumVersion: "2.1.1"; must not be above version 2.1.0',
    ),
    ("firmware.minimumVersion", "old", "firmware.minimumVersion: .*semantic version"),
    ("firmware.allowDowngrade", "no", "firmware.allowDowngrade: .*true or false"),
    (
        "firmware.sha256",
        OTHER,
        (
            f'firmware.sha256: "f.*; is not the SHA-256 of image.bin, which is {DIGEST}; write'
            f' sha256: "{DIGEST}"'
        ),
    ),
    (
        "firmware.sha256",
        DIGEST.upper(),
        f'firmware.sha256: .*64 lower-case hexadecimal digits.*; write sha256: "{DIGEST}"',
    ),
    (
        "firmware.sha256",
        12,
        f'firmware.sha256: 12; is no text, write it in quotes.*; write sha256: "{DIGEST}"',
    ),
    ("firmware.sha256", GONE, f'firmware.sha256: missing; .*; write sha256: "{DIGEST}"'),
    (
        "firmware.image",
        GONE,
        (
            "firmware.image: missing; must be a file of the repository, or s3://.*; write image:"
            ' "firmware/2.1.0.bin"'
        ),
    ),
    ("firmware.image", "none.bin", "firmware.image: .*there is no such file; put the image there"),
    ("firmware.image", "csr", "firmware.image: .*there is no such file"),
    ("firmware.image", "a\x00b", "firmware.image: .*"),
    ("firmware.image", "x" * 5000, "firmware.image: .*there is no such file"),
    (
        "signingKeys",
        [1],
        r"signingKeys\[0\]: 1; is no text, write it in quotes: must be 1 to 8 lower-case",
    ),
    (
        "signingKeys",
        ["1", "1"],
        r"signingKeys: .*must be one to 3 different names: .*; write signingKeys",
    ),
    ("signingKeys", ["1", "2", "3", "4"], r"signingKeys: .*must be one to 3 different names"),
    ("signingKeys", "1", r"signingKeys: .*must be a list"),
    ("tlsOnly", False, r"tlsOnly: false; must be true except in environment dev"),
    ("firmware.image", "empty.bin", "firmware.image: .*has 0 bytes; .*build the image again"),
    (
        "firmware.image",
        "large.bin",
        "firmware.image: .*has 5242881 bytes; .*without a SHA-256.*; put it into a bucket",
    ),
    ("firmware.image", "../image.bin", "firmware.image: .*must be inside the repository"),
    ("firmware.image", "/etc/hostname", "firmware.image: .*must be inside the repository"),
    ("firmware.image", 5, "firmware.image: 5; must be a file"),
    ("firmware.size", 8, "firmware.size: 8; is for s3:// images only: .*; remove size"),
    (
        "firmware.image",
        "s3://a-bucket/x.bin",
        "firmware.size: missing; .*CopyObject.*; write size: 1048576",
    ),
    ("firmware.image", "s3://A/x", "firmware.image: .*s3://bucket/key"),
    ("firmware.image", "s3://a-bucket", "firmware.image: .*s3://bucket/key"),
    (
        "firmware",
        {"version": "1.0.0", "image": "s3://a-bucket/x", "sha256": OTHER, "size": 5 * 1024**3 + 1},
        "firmware.size: 5368709121; .*CopyObject copies at most 5 GB",
    ),
    (
        "firmware",
        {"version": "1.0.0", "image": "s3://a-bucket/x", "sha256": "abc", "size": 1},
        'firmware.sha256: "abc"; .*64 lower-case',
    ),
    ("firmware.sha265", OTHER, "firmware.sha265: .*did you mean sha256"),
    # rollout
    ("rollout", "fast", 'rollout: "fast"; must be an object'),
    ("rollout.gate", {}, "rollout.gate: {}; is not a key here: did you mean gates"),
    ("rollout.channel", "Stable", "rollout.channel: .*lower-case.*CreateJob"),
    ("rollout.channel", "c" * 21, "rollout.channel: .*1 to 20"),
    (
        "rollout.devicesPerMinute",
        0,
        "rollout.devicesPerMinute: 0; must be a whole number from 1 to 1000 .*CreateJob",
    ),
    ("rollout.devicesPerMinute", 1001, "rollout.devicesPerMinute: 1001; must be .* 1 to 1000"),
    ("rollout.devicesPerMinute", "100", 'rollout.devicesPerMinute: "100"; must be a whole number'),
    ("rollout.devicesPerMinute.base", 0, "devicesPerMinute.base: 0; must be .* 1 to 1000"),
    ("rollout.devicesPerMinute.base", GONE, "devicesPerMinute.base: missing"),
    (
        "rollout.devicesPerMinute.base",
        501,
        "devicesPerMinute.base: 501; must not be above the maximum, 500",
    ),
    (
        "rollout.devicesPerMinute.maximum",
        1001,
        "devicesPerMinute.maximum: 1001; must be .* 1 to 1000",
    ),
    (
        "rollout.devicesPerMinute.factor",
        1,
        (
            "devicesPerMinute.factor: 1; must be a number from 1.1 to 5 with at most 1 decimal"
            " .*incrementFactor"
        ),
    ),
    ("rollout.devicesPerMinute.factor", 5.1, "devicesPerMinute.factor: 5.1; must be"),
    (
        "rollout.devicesPerMinute.factor",
        1.25,
        "devicesPerMinute.factor: 1.25; .*at most 1 decimal ",
    ),
    ("rollout.devicesPerMinute.increaseAfter", 0, "devicesPerMinute.increaseAfter: 0; must be"),
    (
        "rollout.devicesPerMinute.increaseOn",
        "failed",
        "devicesPerMinute.increaseOn: .*succeeded or notified",
    ),
    ("rollout.devicesPerMinute.increase", 1, "devicesPerMinute.increase: 1; is not a key here"),
    ("rollout.abort", [], "rollout.abort: \\[\\]; must be a list of at least one"),
    ("rollout.abort", {}, "rollout.abort: {}; must be a list of at least one"),
    (
        "rollout.abort.0.on",
        "ALL",
        (
            'abort\\[0\\].on: "ALL"; must be FAILED or TIMED_OUT .*ALL counts it too; write "on":'
            ' "FAILED"'
        ),
    ),
    ("rollout.abort.0.on", "REJECTED", "abort\\[0\\].on: .*REJECTED is a device's word"),
    (
        "rollout.abort.0.percent",
        100.01,
        "abort\\[0\\].percent: 100.01; must be .*thresholdPercentage",
    ),
    ("rollout.abort.0.percent", 1.234, "abort\\[0\\].percent: 1.234; .*at most 2 decimals"),
    ("rollout.abort.0.minimum", 0, "abort\\[0\\].minimum: 0; must be .*minNumberOfExecutedThings"),
    ("rollout.abort.0.minimum", GONE, "abort\\[0\\].minimum: missing"),
    ("rollout.abort.0.action", "CANCEL", "abort\\[0\\].action: .*is not a key here"),
    (
        "rollout.inProgressTimeoutMinutes",
        0,
        "inProgressTimeoutMinutes: 0; must be .* 1 to 10080 .*7 days",
    ),
    ("rollout.inProgressTimeoutMinutes", 10081, "inProgressTimeoutMinutes: 10081; must be"),
    (
        "rollout.presignedUrlSeconds",
        59,
        "presignedUrlSeconds: 59; must be .* 60 to 3600 .*expiresInSec",
    ),
    ("rollout.presignedUrlSeconds", 3601, "presignedUrlSeconds: 3601; must be"),
    ("rollout.rollback", "manual", "rollout.rollback: .*automatic or forbidden"),
    ("rollout.paused", "yes", "rollout.paused: .*true or false"),
    ("rollout.halted", 1, "rollout.halted: 1; must be true or false"),
    ("rollout.approvals", {}, "rollout.approvals: {}; must be a list"),
    (
        "rollout.approvals.0.ring",
        "early",
        'approvals\\[0\\].ring: "early"; is not a ring of this fleet',
    ),
    ("rollout.approvals.0.sha256", "abc", "approvals\\[0\\].sha256: .*64 lower-case"),
    ("rollout.approvals.0.by", "me", "approvals\\[0\\].by: .*is not a key here"),
    (
        "rollout.startAt",
        "2026-12-01 02:00",
        'rollout.startAt: .*UTC time.*; write startAt: "2026-12-01T02:00:00Z"',
    ),
    ("rollout.startAt", "2026-13-01T02:00:00Z", "rollout.startAt: .*UTC time"),
    ("rollout.startAt", 20261201, "rollout.startAt: 20261201; is no text"),
    ("rollout.window", "nightly", 'rollout.window: "nightly"; must be an object'),
    ("rollout.window.cron", "0 2 * *", "window.cron: .*has 4 fields.*; write cron: "),
    ("rollout.window.cron", "99 2 * * *", "window.cron: .*minute .*0 to 59"),
    ("rollout.window.cron", "0 0 30 2 *", "window.cron: .*never comes"),
    ("rollout.window.minutes", 0, "window.minutes: 0; must be .* 1 to 1430"),
    ("rollout.window.minutes", 1431, "window.minutes: 1431; must be"),
    ("rollout.window.hours", 4, "window.hours: 4; is not a key here"),
    # gates
    ("rollout.gates", [], "rollout.gates: \\[\\]; must be an object"),
    ("rollout.gates.canry", {}, "gates.canry: .*is not a ring of this fleet: did you mean canary"),
    ("rollout.gates.canary", 5, "gates.canary: 5; must be an object"),
    (
        "rollout.gates.canary.soak",
        5,
        "gates.canary.soak: 5; is not a key here: did you mean soakMinutes",
    ),
    (
        "rollout.gates.canary.coveragePercent",
        101,
        "canary.coveragePercent: 101; must be a number from 0 to 100",
    ),
    (
        "rollout.gates.canary.successPercent",
        99.555,
        "canary.successPercent: 99.555; .*at most 2 decimals",
    ),
    (
        "rollout.gates.canary.minimumSucceeded",
        0,
        "canary.minimumSucceeded: 0; .*never passes for being empty",
    ),
    (
        "rollout.gates.canary.minimumSucceeded",
        2,
        (
            "canary.minimumSucceeded: 2; the ring has 1 declared device: it could never pass; write"
            " minimumSucceeded: 1 or less"
        ),
    ),
    (
        "rollout.gates.canary.failureLimit.minimum",
        2,
        "canary.failureLimit.minimum: 2; is no key any more: .*; remove it, or write devices: 2",
    ),
    (
        "rollout.gates.canary.failureLimit.devices",
        2,
        (
            "canary.failureLimit: .*; the ring has 1 declared device: .* no brake; write"
            " failureLimit: {percent: 10, devices: 1}"
        ),
    ),
    (
        "rollout.gates.canary.failureLimit.devices",
        0,
        "canary.failureLimit.devices: 0; must be a whole number from 1",
    ),
    (
        "rollout.gates.canary.failureLimit.falseStopPercent",
        0,
        "canary.failureLimit.falseStopPercent: 0; must be a number from 0.01 to 50",
    ),
    (
        "rollout.gates.broad.failureLimit",
        GONE,
        (
            "broad.failureLimit: .*; the ring has 2 declared devices: all of them failing would be"
            " no evidence, so this is no brake; write failureLimit: {percent: 10, devices: 2}"
        ),
    ),
    (
        "rollout.gates.canary.failureLimit.percent",
        51,
        "canary.failureLimit.percent: 51; must be a number from 0.1 to 50 .*no brake",
    ),
    (
        "rollout.gates.canary.failureLimit.percentage",
        10,
        "canary.failureLimit.percentage: 10; .*did you mean percent",
    ),
    ("rollout.gates.canary.soakMinutes", -1, "canary.soakMinutes: -1; must be a number from 0"),
    ("rollout.gates.canary.deadlineMinutes", "60", "canary.deadlineMinutes: .*must be a number"),
    (
        "rollout.gates.canary.deadlineMinutes",
        GONE,
        "canary.onDeadline: .*does nothing without deadlineMinutes; write deadlineMinutes: 1440",
    ),
    (
        "rollout.gates.canary.onDeadline",
        "rollback",
        "canary.onDeadline: .*a deadline never rolls back",
    ),
    ("rollout.gates.canary.approval", "ops", "canary.approval: .*true or false"),
    (
        "rollout.gates.canary.alarms.0.name",
        "stack:dead-letter",
        "alarms\\[0\\].name: .*did you mean dead-letters",
    ),
    (
        "rollout.gates.canary.alarms.0.name",
        "stack:person-needed",
        "alarms\\[0\\].name: .*that a gate can watch",
    ),
    ("rollout.gates.canary.alarms.0.name", "", "alarms\\[0\\].name: .*1 to 255 .*PutMetricAlarm"),
    ("rollout.gates.canary.alarms.0.action", "halt", "alarms\\[0\\].action: .*hold or rollback"),
    ("rollout.gates.canary.alarms.0.state", "OK", "alarms\\[0\\].state: .*is not a key here"),
    (
        "rollout.gates.canary.alarms",
        [{"name": f"a{n}"} for n in range(11)],
        "canary.alarms: 11 alarms; .*DescribeAlarms",
    ),
    # what is added to job documents
    ("rollout.documentExtra", [], "documentExtra: \\[\\]; must be an object"),
    ("rollout.documentExtra", {}, "documentExtra: {}; is empty; remove it, or write"),
    (
        "rollout.documentExtra",
        {"url": "x"},
        'documentExtra.url: "x"; is a key of the document itself \\(operation, release, url\\)',
    ),
    (
        "rollout.documentExtra",
        {"operation": "download.sh"},
        "documentExtra.operation: .*an agent that reads it finds install-firmware",
    ),
    (
        "rollout.documentExtra",
        {"steps": [{"args": ["{url}", "{digest}"]}]},
        'documentExtra.steps\\[0\\].args\\[1\\]: .*"{digest}" is no placeholder; there are',
    ),
    ("rollout.documentExtra", {"a": "{"}, 'documentExtra.a: "{"; .*write {{ and }} for braces'),
    ("rollout.documentExtra", {"a": "${url}"}, "documentExtra.a: .*no \\$ before it"),
    ("rollout.documentExtra", {"a": 2**60}, "documentExtra.a: .*2\\*\\*53.*in quotes"),
    ("rollout.documentExtra", {"a": "\ud800"}, "documentExtra.a: .*half a character"),
    ("rollout.documentExtra", {"": 1}, "documentExtra: .*1 to 128 characters"),
    ("rollout.documentExtra", {"k" * 129: 1}, "documentExtra: .*1 to 128 characters"),
    (
        "rollout.documentExtra",
        {"a": [[[[[[[[1]]]]]]]]},
        "documentExtra.a.*: .*is the 9th object or list within another; at most 8",
    ),
    (
        "rollout.documentExtra",
        {"a": "x" * 25_000},
        "documentExtra: too long; .*may come to \\d+ characters .*IoT takes 32768 .*; shorten it",
    ),
    (
        "rollout.documentExtra",
        {"a": ["{url}"] * 10},
        "documentExtra: 11 of them; a document holds 10 texts that IoT replaces, our own",
    ),
    # what devices ran before
    ("fleet.adopted", "1.4.2", 'adopted: "1.4.2"; must be an object'),
    ("fleet.adopted", {"image": "image.bin", "sha256": DIGEST}, "adopted.version: missing"),
    (
        "fleet.adopted",
        {"version": "2.0.0", "image": "image.bin", "sha256": OTHER},
        "adopted.sha256: .*is not the SHA-256 of image.bin",
    ),
    (
        "fleet.adopted",
        {"version": "2.0.0", "image": "s3://images/2.0.0.bin", "sha256": OTHER},
        "adopted.size: missing",
    ),
    (
        "fleet.adopted",
        {"version": "2.1.0", "image": "s3://images/2.1.0.bin", "sha256": OTHER, "size": 9},
        "adopted.version: .*with another image: a version keeps its digest; write the version",
    ),
    (
        "fleet.adopted",
        {"version": "2.0.0", "image": "image.bin", "sha256": DIGEST, "hardware": "a"},
        "adopted.hardware: .*is not a key here",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "says"), MISTAKES, ids=[f"{n}-{m[0]}" for n, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_one_line_with_key_limit_and_fix(
    path: str, value: Any, says: str, root: Path
) -> None:
    found = mistakes(changed(path, value), root)
    assert any(re.match(f"iot-ota:(?:.*\\.)?{says}", mistake) for mistake in found), found
    for mistake in found:
        assert "\n" not in mistake
        assert re.fullmatch(r"iot-ota:[^;]+: .+; .+; .+", mistake), (
            "key: value; what is allowed; the fix"
        )


def test_a_row_is_named_by_its_place_in_the_list(root: Path) -> None:
    rows = ["canary", {"ring": "early", "sha256": OTHER}]
    assert [
        each.partition(";")[0] for each in mistakes(changed("rollout.approvals", rows), root)
    ] == [
        'iot-ota:rollout.approvals[0]: "canary"',
        'iot-ota:rollout.approvals[1].ring: "early"',
    ]


def test_a_single_mistake_is_reported_alone(root: Path) -> None:
    """What stands in for a wrong value causes no further mistakes."""
    alone = [
        (path, value)
        for path, value, _ in MISTAKES
        if not path.startswith(("fleet", "firmware.image"))
    ]
    counts = {
        f"{path}={value!r}": len(mistakes(changed(path, value), root)) for path, value in alone
    }
    assert {where: count for where, count in counts.items() if count != 1} == {}


def test_every_mistake_of_every_key_is_reported_at_once(root: Path) -> None:
    found = mistakes(
        {
            "environment": "prod",
            "protect": "maybe",
            "logRetentionDays": 2,
            "notifications": ["nobody"],
            "tags": {"aws:x": "1"},
            "fleet": {
                "name": "X",
                "hardware": "a b",
                "devices": -1,
                "rings": [{"name": "R", "percent": 0}],
                "count": 3,
            },
            "firmware": {"version": 2.1, "image": "none.bin", "sha256": "abc", "size": 1},
            "rollout": {
                "devicesPerMinute": 0,
                "gates": {"canary": {"soakMinutes": "long"}},
                "startAt": "soon",
            },
            "fleets": {},
        },
        root,
    )
    keys = {
        mistake.removeprefix("iot-ota:").split(":")[0] for mistake in found if "aws" not in mistake
    }
    assert keys == {
        "environment",
        "protect",
        "logRetentionDays",
        "notifications[0]",
        "fleet.name",
        "fleet.hardware",
        "fleet.devices",
        "fleet.rings[0].name",
        "fleet.rings[0].percent",
        "fleet.count",
        "firmware.version",
        "firmware.image",
        "firmware.sha256",
        "firmware.size",
        "rollout.devicesPerMinute",
        "rollout.gates.canary.soakMinutes",
        "rollout.startAt",
        "fleets",
    }
    assert len(found) == len(keys) + 1, "and the tag"


def test_without_any_configuration_the_required_keys_are_named(root: Path) -> None:
    found = mistakes({}, root)
    assert [mistake.split(": ")[0] for mistake in found] == [
        "iot-ota:environment",
        "iot-ota:fleet",
        "iot-ota:firmware",
    ]


def test_no_declared_device_means_no_ring_is_empty_and_no_size_is_known(root: Path) -> None:
    values = changed("fleet.devices", 0)
    values["rollout"]["gates"]["canary"]["minimumSucceeded"] = 500
    assert read(texts(values), root).fleet.devices == ()


def test_an_unknown_key_is_found_in_the_environment_that_pulumi_gives_a_program(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    pulumi.runtime.set_all_config({})
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(texts(VALID)))
    assert load().common.environment == "staging"
    more = {"iot-ota:rolout": "{}", "other:rolout": "{}"}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(texts(VALID) | more))
    with pytest.raises(SettingsError) as raised:
        load()
    assert [mistake.split(";")[0] for mistake in raised.value.mistakes] == ["iot-ota:rolout: {}"]


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("rollout.gates.canary", {camel_case(field.name) for field in dataclasses.fields(Gate)}),
        (
            "rollout.gates.canary.failureLimit",
            {camel_case(field.name) for field in dataclasses.fields(FailureLimit)},
        ),
        (
            "rollout.gates.canary.alarms.0",
            {camel_case(field.name) for field in dataclasses.fields(AlarmGate)},
        ),
        ("rollout.abort.0", {camel_case(field.name) for field in dataclasses.fields(Abort)}),
        ("rollout.approvals.0", {camel_case(field.name) for field in dataclasses.fields(Approval)}),
        ("rollout.window", {camel_case(field.name) for field in dataclasses.fields(Window)}),
    ],
)
def test_every_field_of_the_manifest_can_be_configured(
    path: str, keys: set[str], root: Path
) -> None:
    [mistake] = mistakes(changed(f"{path}.zzzzzzzz", 1), root)
    known = re.search(r"known: (.+?);", mistake)
    assert known is not None
    assert set(known.group(1).split(", ")) == keys


KINDS = {name: kind for name, kind in vars(limits).items() if isinstance(kind, Kind)} | {
    f"{name}.{field}": kind
    for name, fields in vars(limits).items()
    if isinstance(fields, dict)
    for field, kind in fields.items()
    if isinstance(kind, Kind)
}


@pytest.mark.parametrize("name", KINDS)
def test_the_value_a_fix_shows_is_a_right_one(name: str) -> None:
    KINDS[name].read(KINDS[name].example)


def test_the_longest_names_fit_what_aws_takes() -> None:
    longest = "f" * 20
    limits.FLEET_NAME.read(longest)
    limits.CHANNEL.read(longest)
    limits.RING.read(longest)
    limits.SERIAL.read("s" * 98)
    names = Names(fleet=longest, suffix="0" * 8, channel=longest)
    lengths = {
        "role or function (64)": (64, [names.controller, names.presign_role]),
        "bucket (63)": (63, [names.bucket]),
        "queue (80)": (80, [names.dead_letters]),
        "thing, thing type or group (128)": (
            128,
            [names.thing("s" * 98), names.thing_type("s" * 98), names.ring_group(longest)],
        ),
        "job id (64)": (64, [f"{names.job_prefix}{longest}-{2**32}"]),
        "rollback group (128)": (128, [f"{names.rollback_group_prefix}{2**32}"]),
    }
    too_long = {
        what: [name for name in made if len(name) > limit]
        for what, (limit, made) in lengths.items()
    }
    assert not any(too_long.values()), too_long


# Properties
# -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def paths(value: Any, prefix: str = "") -> list[str]:
    """Every place of a configuration at which a value stands."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found = []
    for key, item in items:
        place = f"{prefix}{key}"
        found += [place, *paths(item, f"{place}.")]
    return found


def outcome(values: dict[str, Any], root: Path) -> Settings | SettingsError:
    try:
        return read(texts(values), root)
    except SettingsError as error:
        str(error).encode()
        return error


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(paths(VALID)), JSON)
def test_whatever_stands_at_a_key_only_a_settings_error_is_raised(
    root: Path, path: str, value: Any
) -> None:
    outcome(changed(path, value), root)


def test_a_key_that_no_terminal_can_show_is_shown_as_json(root: Path) -> None:
    """In the path and in the line to write."""
    found = mistakes({**VALID, "tags": {"\ud800": None}}, root)
    assert all('iot-ota:tags."\\ud800"' in mistake for mistake in found)
    assert any('write "\\ud800": "devices"' in mistake for mistake in found)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(KEYS) | TEXT, JSON, max_size=9))
def test_whatever_the_configuration_is_only_a_settings_error_is_raised(
    root: Path, values: dict[str, Any]
) -> None:
    outcome(values, root)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "9" * 5000, "NaN", "1e999", "\ud800", '{"a": 1}}']
)
def test_a_value_that_is_no_json_is_a_mistake_like_another(text: str, root: Path) -> None:
    for key in KEYS:
        result = outcome({**VALID, key: text}, root)
        if isinstance(result, SettingsError):
            assert all(mistake.startswith(f"iot-ota:{key}") for mistake in result.mistakes), (
                result.mistakes
            )
        else:
            assert text == "", "an empty value is an absent one"


def risks(criterion: Abort, limit: FailureLimit, root: Path) -> list[str]:
    manifest = read(texts(VALID), root).manifest
    ring = dataclasses.replace(manifest.rings[0], gate=Gate(failure_limit=limit))
    return list_abort_risks(dataclasses.replace(manifest, rings=(ring,), abort=(criterion,)))


@pytest.mark.parametrize(
    ("criterion", "percent", "is_risky"),
    [
        (Manifest.abort[0], 10, False),
        (Manifest.abort[0], 19, False),
        (Manifest.abort[0], 50, True),
        (Abort(on="FAILED", percent=10.0, minimum=10), 5, True),
        (Abort(on="FAILED", percent=10.0, minimum=1000), 5, False),
        (Abort(on="FAILED", percent=5.0, minimum=1_000_000), 5, True),
        (Abort(on="TIMED_OUT", percent=100.0, minimum=2), 5, False),
        (Abort(on="TIMED_OUT", percent=100.0, minimum=1), 5, True),
    ],
    ids=str,
)
def test_a_brake_that_may_stop_a_release_within_the_limit_is_told(
    criterion: Abort, percent: float, is_risky: bool, root: Path
) -> None:
    told = risks(criterion, FailureLimit(percent=percent), root)
    assert bool(told) == is_risky
    for text in told:
        assert f"{criterion.percent:g} % {criterion.on} of at least {criterion.minimum}" in text
        assert f"the limit of ring canary, {percent:g} %" in text


@pytest.mark.parametrize(("percent", "minimum"), [(10.0, 40), (20.0, 10), (50.0, 20), (25.0, 3)])
def test_the_chance_told_of_a_brake_is_not_below_the_true_one(
    percent: float, minimum: int, root: Path
) -> None:
    """The true one: exactly, device by device, over the first 400, at a share of 5 %."""
    chances, stopped = {0: 1.0}, 0.0
    for began in range(1, 401):
        later: dict[int, float] = {}
        for failing, chance in chances.items():
            later[failing] = later.get(failing, 0.0) + chance * 0.95
            later[failing + 1] = later.get(failing + 1, 0.0) + chance * 0.05
        is_over = {f: began >= minimum and f * 100 >= percent * began for f in later}
        stopped += sum(chance for failing, chance in later.items() if is_over[failing])
        chances = {f: c for f, c in later.items() if not is_over[f] and c > 1e-15}
    criterion = Abort(on="FAILED", percent=percent, minimum=minimum)
    [told] = risks(criterion, FailureLimit(percent=5, false_stop_percent=0.01), root) or [""]
    found = re.search(r"chance of up to ([\d.e-]+) %", told)
    assert (float(found.group(1)) if found else 0.01) >= 100 * stopped * 0.95, "2 digits are shown"


def hundredths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda value: value / 100)


GATES = st.fixed_dictionaries(
    {},
    optional={
        "coveragePercent": hundredths(0, 100_00),
        "successPercent": hundredths(0, 100_00),
        "minimumSucceeded": st.integers(1, 1_000_000),
        "failureLimit": st.fixed_dictionaries(
            {},
            optional={
                "percent": hundredths(10, 50_00),
                "falseStopPercent": hundredths(1, 50_00),
                "devices": st.integers(1, 1000),
            },
        ),
        "soakMinutes": hundredths(0, 525_600_00),
        "alarms": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["stack:dead-letters", "é"]),
                    "action": st.sampled_from(["hold", "rollback"]),
                }
            ),
            max_size=10,
        ),
        "approval": st.booleans(),
        "deadlineMinutes": hundredths(0, 525_600_00),
    },
)


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Any]:
    """A valid configuration of one to ten rings without declared devices."""
    cuts = sorted(draw(st.sets(st.integers(1, 99_99), max_size=9)))
    shares = [(high - low) / 100 for low, high in zip([0, *cuts], [*cuts, 100_00], strict=True)]
    names = [f"ring-{number}" for number in range(len(shares))]
    values = changed("fleet.devices", 0)
    values["fleet"]["rings"] = [
        {"name": name, "percent": share} for name, share in zip(names, shares, strict=True)
    ]
    values["rollout"] = draw(
        st.fixed_dictionaries(
            {"gates": st.dictionaries(st.sampled_from(names), GATES)},
            optional={
                "devicesPerMinute": (
                    st.integers(1, 1000)
                    | st.fixed_dictionaries(
                        {
                            "base": st.integers(1, 500),
                            "maximum": st.integers(500, 1000),
                            "factor": st.sampled_from([1.1, 3, 5]),
                        }
                    )
                ),
                "abort": st.lists(
                    st.fixed_dictionaries(
                        {
                            "on": st.sampled_from(["FAILED", "TIMED_OUT"]),
                            "percent": hundredths(1, 100_00),
                            "minimum": st.integers(1, 1000),
                        }
                    ),
                    min_size=1,
                ),
                "approvals": st.lists(
                    st.fixed_dictionaries(
                        {"ring": st.sampled_from(names), "sha256": st.just(OTHER)}
                    )
                ),
                "paused": st.booleans(),
                "window": st.just({"cron": "0 2 29 2 *", "minutes": 1430}),
                "startAt": st.just(None),
            },
        )
    )
    return values


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rollouts())
def test_valid_settings_make_a_manifest_whose_text_reads_back_equal(
    root: Path, values: dict[str, Any]
) -> None:
    manifest = read(texts(values), root).manifest
    assert Manifest.parse(manifest.text()) == manifest
    assert [ring.name for ring in manifest.rings] == [
        ring["name"] for ring in values["fleet"]["rings"]
    ]
    assert sum(round(ring.percent * 100) for ring in manifest.rings) == 100_00
