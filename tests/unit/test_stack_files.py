"""The project file, the stack files, and the samples they name: in step with the settings and with
each other."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.settings import KEYS, NAMESPACE, Settings, SettingsError, read
from components.settings.firmware import FileImage
from forecast.cli import UNDECLARED
from rollout.evidence import is_failing
from rollout.version import Version
from tests.unit.harness import ROOT, STACKS, stack_config

PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
CONFIG: dict[str, Any] = PROJECT["config"]
PYTHON_TYPES = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}
"""The types that a project file knows; it has no `number`."""


def loaded(stack: str) -> Settings:
    return read(stack_config(stack))


# Pulumi.yaml
# -------------------------------------------------------------------------------------------------


def test_the_project_file_describes_exactly_the_keys_that_the_settings_read() -> None:
    assert PROJECT["name"] == NAMESPACE
    assert set(CONFIG) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_is_described_with_a_type_that_pulumi_knows(key: str) -> None:
    about = CONFIG[key]
    assert set(about) <= {"type", "items", "description", "default"}
    assert about["description"].strip() == about["description"] != ""
    kind = PYTHON_TYPES[about["type"]]
    assert ("items" in about) == (kind is list), "Pulumi refuses an array without items"
    if "default" in about:
        assert type(about["default"]) is kind


@pytest.mark.parametrize("key", KEYS)
def test_a_key_without_a_default_is_one_that_the_settings_require(key: str) -> None:
    """Pulumi itself refuses a stack that lacks such a key, and the settings say so too where Pulumi
    is not asked."""
    config = stack_config("dev")
    config.pop(f"{NAMESPACE}:{key}", None)
    if "default" not in CONFIG[key]:
        with pytest.raises(SettingsError, match=f"{NAMESPACE}:{key}: missing"):
            read(config)
        return
    written = {**config, f"{NAMESPACE}:{key}": json.dumps(CONFIG[key]["default"])}
    assert replace(read(written), values={}) == replace(read(config), values={}), (
        "the default of Pulumi.yaml is the settings' own"
    )


def test_the_program_runs_in_its_virtual_environment_and_asks_for_no_newer_cli_than_its_sdk() -> (
    None
):
    assert PROJECT["runtime"] == {
        "name": "python",
        "options": {"toolchain": "pip", "virtualenv": ".venv"},
    }
    least = PROJECT["requiredPulumiVersion"]
    assert least.startswith(">=")
    assert not Version(least.removeprefix(">=")) > Version(version("pulumi"))


# Stack files
# -------------------------------------------------------------------------------------------------


def test_every_stack_file_is_a_known_stack() -> None:
    assert {path.name for path in ROOT.glob("Pulumi.*.yaml")} == {
        f"Pulumi.{stack}.yaml" for stack in STACKS
    }


@pytest.mark.parametrize(
    ("stack", "environment", "rings", "devices", "protect", "days"),
    [
        ("local", "dev", {"canary": 10, "broad": 90}, {}, False, 1),
        ("dev", "dev", {"all": 100}, {"all": 3}, False, 7),
        ("staging", "staging", {"canary": 10, "broad": 90}, {"canary": 1, "broad": 2}, True, 30),
        ("prod", "production", {"canary": 1, "early": 10, "broad": 89}, {}, True, 365),
    ],
)
def test_each_stack_is_what_it_is_for(
    stack: str,
    environment: str,
    rings: dict[str, float],
    devices: dict[str, int],
    protect: bool,
    days: int,
) -> None:
    settings = loaded(stack)
    assert settings.common.environment == environment
    assert {ring.name: ring.percent for ring in settings.fleet.rings} == rings
    assert Counter(device.ring for device in settings.fleet.devices) == devices
    assert (settings.common.protect, settings.common.log_retention_days) == (protect, days)
    assert settings.fleet.keys_in_state == (stack == "dev")
    assert all(
        (device.csr is None) == settings.fleet.keys_in_state for device in settings.fleet.devices
    )


def test_one_stack_owns_the_settings_of_an_account_and_region() -> None:
    owners = [
        stack_config(stack)["aws:region"]
        for stack in STACKS
        if stack != "local" and loaded(stack).owns_account_settings
    ]
    regions = {stack_config(stack)["aws:region"] for stack in STACKS if stack != "local"}
    assert sorted(owners) == sorted(regions)


def test_production_soaks_for_hours_and_asks_a_person_before_the_broad_ring() -> None:
    canary, early, broad = (ring.gate for ring in loaded("prod").manifest.rings)
    assert min(gate.soak_minutes for gate in (canary, early, broad)) >= 60
    assert [gate.approval for gate in (canary, early, broad)] == [False, True, False]
    assert all(gate.alarms for gate in (canary, early, broad))
    assert loaded("prod").manifest.pace.base_per_minute == 10, "the rate grows with what is known"


def test_staging_watches_alarms_and_gates_of_the_sandbox_take_seconds() -> None:
    assert all(ring.gate.alarms for ring in loaded("staging").manifest.rings)
    for ring in loaded("local").manifest.rings:
        assert 0 < ring.gate.soak_minutes <= 0.1
        assert ring.gate.alarms == (), (
            "MiniStack's alarms ignore dimensions and missing data: they would hold a ring for ever"
        )


@pytest.mark.parametrize("stack", STACKS)
def test_a_release_that_fails_on_every_device_of_a_ring_is_stopped_there(stack: str) -> None:
    settings = loaded(stack)
    sizes = Counter(device.ring for device in settings.fleet.devices)
    for ring in settings.manifest.rings:
        size = sizes[ring.name] or round(UNDECLARED * ring.percent / 100)
        assert is_failing(ring.gate.failure_limit, size, size)


def test_the_sandbox_can_reach_no_aws() -> None:
    config = stack_config("local")
    [endpoints] = json.loads(config["aws:endpoints"])
    assert {urlsplit(address).hostname for address in endpoints.values()} == {"127.0.0.1"}
    assert (config["aws:accessKey"], config["aws:secretKey"]) == (
        "000000000000",
        "test",
    ), "no key of AWS is of this form"
    used = {
        "iam",
        "iot",
        "kms",
        "lambda",
        "logs",
        "s3",
        "sns",
        "sqs",
        "sts",
        "cloudwatch",
        "events",
    }
    assert used <= set(endpoints), "a service without an endpoint would go to AWS"


@pytest.mark.parametrize("name", ["Pulumi.yaml", *(f"Pulumi.{stack}.yaml" for stack in STACKS)])
def test_every_yaml_reader_takes_every_key_for_text(name: str) -> None:
    """YAML 1.1 takes `on` for true; Pulumi's own reader does not, but editors and this project's
    tools do."""
    assert not [
        key for key in _keys(yaml.safe_load((ROOT / name).read_text())) if not isinstance(key, str)
    ]


def _keys(value: Any) -> Iterator[Any]:
    for key, item in value.items() if isinstance(value, dict) else ():
        yield key
        yield from _keys(item)
    for item in value if isinstance(value, list) else ():
        yield from _keys(item)


# Samples
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "self_test"),
    [("2.0.0", "pass"), ("2.1.0", "pass"), ("2.2.0", "pass"), ("2.3.0", "fail")],
)
def test_each_sample_image_is_what_its_script_makes(number: str, self_test: str) -> None:
    make = runpy.run_path(str(ROOT / "firmware" / "make_sample.py"))["image"]
    content = (ROOT / "firmware" / f"{number}.bin").read_bytes()
    assert content == make(number, "gateway-a1", self_test)
    header, _, payload = content.partition(b"\n")
    assert json.loads(header) == {
        "hardware": "gateway-a1",
        "selfTest": self_test,
        "version": number,
    }
    assert len(payload) == 65_536


@pytest.mark.parametrize("stack", STACKS)
def test_each_stack_releases_a_sample_for_its_hardware(stack: str) -> None:
    settings = loaded(stack)
    assert isinstance(settings.image, FileImage)
    header = json.loads(settings.image.path.read_bytes().partition(b"\n")[0])
    firmware = settings.manifest.firmware
    assert header == {
        "hardware": firmware.hardware,
        "selfTest": "pass",
        "version": str(firmware.version),
    }


def test_the_sample_requests_are_of_a_kind_that_aws_takes_and_hold_no_key() -> None:
    devices = loaded("staging").fleet.devices
    requests = {device.serial: device.csr for device in devices}
    for stack in ("staging", "prod"):
        [claim] = loaded(stack).fleet.claims
        requests[f"claim-{claim.name}"] = claim.csr
    for name, csr in requests.items():
        assert csr is not None
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1), (
            "CreateCertificateFromCsr takes RSA, P-256, P-384 and P-521"
        )
        assert request.is_signature_valid
        assert [
            each.value for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ] == [name]
    files = {path.name for path in (ROOT / "csr").iterdir()}
    assert files == {"README.md", *(f"{name}.csr" for name in requests)}
