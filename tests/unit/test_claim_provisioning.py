"""ClaimProvisioning: the registry, claim certificates, the hook, and the template."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import limits, policies
from components.claim_provisioning import template_body
from components.device_fleet import DeviceFleet, Provisioning
from components.settings.fleet import ClaimCertificate
from rollout.claim_rules import fill_template
from rollout.names import FleetNames, HookVariable, TemplateParameter
from rollout.serial import Serial
from tests.unit.examples import IOT, LOCATION, RING_ARNS, TAGS, P, fleet_args
from tests.unit.harness import ROOT, UNKNOWN, Graph, build
from tests.unit.test_claim_rules import RULES

NAMES = FleetNames(fleet="iot-fleet", suffix="0a1b2c3d")
CSR = (ROOT / "csr" / "claim-example.csr").read_text()
CLAIMS = (
    ClaimCertificate(name="factory-a", csr="csr/claim-example.csr"),
    ClaimCertificate(name="factory-b", csr=CSR, active=False),
)
HOOK = f"arn:aws:lambda:us-east-1:123456789012:function:{P}-provisioning-hook"
TEMPLATE = f"{IOT}:provisioningtemplate/{P}-claim"


@cache
def made(
    *,
    preview: bool = False,
    protect: bool = False,
    claims: tuple[ClaimCertificate, ...] = CLAIMS,
    device_policies: tuple[str, ...] = ("telemetry",),
) -> Graph:
    args = fleet_args(
        devices=0,
        protect=protect,
        provisioning=Provisioning(claims=claims),
        device_policies=device_policies,
    )
    return build(lambda: DeviceFleet("fleet", args).stack_outputs(), preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_its_resources_do_not_grow_with_the_number_of_devices(preview: bool) -> None:
    own = [
        "fleet-provisioning-hook-function",
        "fleet-provisioning-hook-log",
        "fleet-provisioning-hook-permission",
        "fleet-provisioning-hook-rights",
        "fleet-provisioning-hook-role",
        "fleet-provisioning-policy",
        "fleet-provisioning-rights",
        "fleet-provisioning-role",
        "fleet-provisioning-serials",
        "fleet-provisioning-template",
    ]
    claims = [
        f"fleet-provisioning-claim-{name}-{part}"
        for name in ("factory-a", "factory-b")
        for part in ("certificate", "policy")
    ]
    assert made(preview=preview).children("fleet-provisioning") == sorted([*own, *claims])
    assert made(preview=preview, claims=()).children("fleet-provisioning") == own


@pytest.mark.parametrize("preview", [False, True])
def test_without_it_none_of_it_is_there(preview: bool) -> None:
    graph = build(
        lambda: DeviceFleet("fleet", fleet_args(devices=0)).stack_outputs(), preview=preview
    )
    assert [r for r in graph if "provisioning" in r.name] == []
    assert not {"serialsTableName", "provisioningTemplateName", "claimCertificates"} & set(
        graph.exports
    )


def test_a_preview_registers_what_the_update_does() -> None:
    update, preview = made(), made(preview=True)
    assert update.urns() == preview.urns()
    by_urn = {resource.urn: resource for resource in preview}
    for resource in update:
        other = by_urn[resource.urn]
        assert sorted(resource.inputs) == sorted(other.inputs)
        assert resource.needs == other.needs
        assert (resource.protect, resource.retain_on_delete) == (
            other.protect,
            other.retain_on_delete,
        )


@pytest.mark.parametrize("protect", [False, True])
def test_the_registry_is_encrypted_can_be_restored_and_is_kept(protect: bool) -> None:
    table = made(protect=protect)["fleet-provisioning-serials"]
    assert table.inputs == {
        "name": f"{P}-serials",
        "attributes": [{"name": "serial", "type": "S"}],
        "hashKey": "serial",
        "billingMode": "PAY_PER_REQUEST",
        "pointInTimeRecovery": {"enabled": True},
        "serverSideEncryption": {"enabled": True},
        "deletionProtectionEnabled": protect,
        "tags": TAGS,
    }
    assert bool(table.protect) == bool(table.retain_on_delete) == protect


def test_a_claim_certificate_is_of_a_key_that_the_stack_never_sees() -> None:
    graph = made()
    first, second = (f"fleet-provisioning-claim-factory-{letter}" for letter in "ab")
    assert graph[f"{first}-certificate"].inputs == {"active": True, "csr": CSR}
    assert graph[f"{second}-certificate"].inputs == {"active": False, "csr": CSR}
    for name in (first, second):
        attached = graph[f"{name}-policy"].inputs
        assert attached["policy"] == f"{P}-claim"
        assert attached["target"].startswith(f"{IOT}:cert/")
        assert {f"{name}-certificate", "fleet-provisioning-policy"} <= graph.before(
            f"{name}-policy"
        )
    assert graph.exports["claimCertificates"].value == {
        "factory-a": f"certificate of {first}-certificate",
        "factory-b": f"certificate of {second}-certificate",
    }
    assert not graph.exports["claimCertificates"].secret


@pytest.mark.parametrize("preview", [False, True])
def test_a_claim_certificate_in_use_is_protected_until_it_is_deactivated(preview: bool) -> None:
    """A new name or request for it would leave a factory's devices outside. Out of use it goes
    like anything else."""
    graph = made(preview=preview, protect=True)
    kept = {r.name for r in graph if r.protect and "-claim-" in r.name}
    assert kept == {"fleet-provisioning-claim-factory-a-certificate"}
    assert {r.name for r in graph if r.retain_on_delete and "-claim-" in r.name} == kept


def test_claims_are_retired_one_by_one() -> None:
    """To take one out of the list changes nothing else but whom the hook believes."""
    both, one = made(), made(claims=CLAIMS[1:])
    gone = {r.name for r in both} - {r.name for r in one}
    assert gone == {
        "fleet-provisioning-claim-factory-a-certificate",
        "fleet-provisioning-claim-factory-a-policy",
    }
    changed = [r.name for r in one if r.inputs != both[r.name].inputs]
    assert changed == ["fleet-provisioning-hook-function"]


def test_the_claim_policy_is_the_document() -> None:
    assert made()["fleet-provisioning-policy"].inputs == {
        "name": f"{P}-claim",
        "policy": policies.to_json(policies.claim_policy(LOCATION, NAMES)),
        "tags": TAGS,
    }


def test_the_hook_knows_what_a_device_gets_and_only_the_active_claims() -> None:
    graph = made()
    inputs = dict(graph["fleet-provisioning-hook-function"].inputs)
    assert "functions/provisioning.py" in inputs.pop("code")
    attached = graph["fleet-provisioning-claim-factory-a-policy"].inputs["target"]
    assert inputs == {
        "name": f"{P}-provisioning-hook",
        "description": "Says which devices the fleet iot-fleet takes in",
        "role": f"arn:aws:iam::123456789012:role/{P}-provisioning-hook",
        "runtime": "python3.13",
        "handler": "functions.provisioning.handler",
        "architectures": ["arm64"],
        "timeout": 4,
        "memorySize": 512,
        "environment": {
            "variables": {
                "ATTRIBUTES": '{"site": "lab"}',
                "CLAIM_CERTIFICATES": json.dumps([attached.rpartition("/")[2]]),
                "FLEET": "iot-fleet",
                "HARDWARE": "gateway-a1",
                "INITIAL_VERSION": "2.0.0",
                "RINGS": json.dumps(
                    [{"name": "canary", "percent": 10.0}, {"name": "broad", "percent": 90.0}]
                ),
                "SUFFIX": "0a1b2c3d",
                "THING_TYPE": f"{P}-gateway",
            }
        },
        "tags": TAGS,
    }
    before = graph.before("fleet-provisioning-hook-function")
    assert {"fleet-provisioning-hook-rights", "fleet-provisioning-hook-log"} <= before


def test_no_claim_leaves_the_hook_with_none() -> None:
    variables = made(claims=())["fleet-provisioning-hook-function"].inputs["environment"]
    assert variables["variables"]["CLAIM_CERTIFICATES"] == "[]"


def test_rights_and_trust_are_the_documents() -> None:
    graph = made()
    expected = policies.provisioning_policy(
        LOCATION,
        NAMES,
        sorted(RING_ARNS.values()),
        f"{IOT}:thingtype/{P}-gateway",
        [f"{P}-device", "telemetry"],
    )
    assert graph["fleet-provisioning-rights"].document("policy") == expected
    assert graph["fleet-provisioning-role"].document("assumeRolePolicy") == (
        policies.provisioning_trust(LOCATION, NAMES)
    )
    log = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/{P}-provisioning-hook"
    table = f"arn:aws:dynamodb:us-east-1:123456789012:table/{P}-serials"
    assert graph["fleet-provisioning-hook-rights"].document("policy") == (
        policies.hook_policy(LOCATION, NAMES, table, log)
    )
    assert graph["fleet-provisioning-hook-role"].document("assumeRolePolicy") == (
        policies.lambda_trust(LOCATION)
    )


def test_iot_calls_the_hook_for_this_template_and_may_before_there_is_one() -> None:
    graph = made()
    assert graph["fleet-provisioning-hook-permission"].inputs == {
        "statementId": "template",
        "action": "lambda:InvokeFunction",
        "function": f"{P}-provisioning-hook",
        "principal": "iot.amazonaws.com",
        "sourceArn": TEMPLATE,
        "sourceAccount": "123456789012",
    }
    assert {"fleet-provisioning-hook-permission", "fleet-provisioning-rights"} <= graph.before(
        "fleet-provisioning-template"
    )


def test_the_template() -> None:
    inputs = dict(made()["fleet-provisioning-template"].inputs)
    body = json.loads(inputs.pop("templateBody"))
    assert inputs == {
        "name": f"{P}-claim",
        "description": "Registers devices of the fleet iot-fleet that come by claim",
        "enabled": True,
        "provisioningRoleArn": f"arn:aws:iam::123456789012:role/{P}-provisioning",
        "preProvisioningHook": {"targetArn": HOOK, "payloadVersion": "2020-04-01"},
        "tags": TAGS,
    }
    assert body["Resources"] == {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "ThingName"},
                "ThingTypeName": {"Ref": "ThingType"},
                "ThingGroups": [{"Ref": "RingGroup"}],
                "AttributePayload": {
                    "hardware": {"Ref": "Hardware"},
                    "initialVersion": {"Ref": "InitialVersion"},
                    "serial": {"Ref": "SerialNumber"},
                    "site": {"Ref": "Attribute::site"},
                },
            },
            "OverrideSettings": {
                "AttributePayload": "MERGE",
                "ThingGroups": "MERGE",
                "ThingTypeName": "REPLACE",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {
                "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                "Status": "Active",
            },
        },
        "policy1": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": f"{P}-device"}},
        "policy2": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "telemetry"}},
    }


def test_a_preview_does_not_know_the_template_s_body_while_it_does_not_know_the_policy() -> None:
    body = made(preview=True)["fleet-provisioning-template"].inputs["templateBody"]
    assert body is UNKNOWN or len(body) < 10_240


def test_the_hook_says_every_parameter_of_the_template() -> None:
    """One that it left out would be the device's to say."""
    body = template_body(sorted(RULES.attributes), ["policy"])
    answered = fill_template(Serial(serial="0001"), RULES, "group")
    assert set(body["Parameters"]) == set(answered)
    assert _references(body["Resources"]) == {*answered, TemplateParameter.CERTIFICATE}


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["Ref"]} if "Ref" in value else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


def test_no_release_changes_the_template() -> None:
    """AWS keeps five versions: neither versions, hardware, rings' shares nor values are in it."""

    def body(claims: tuple[ClaimCertificate, ...] = CLAIMS, **changes: object) -> str:
        args = fleet_args(devices=0, provisioning=Provisioning(claims=claims), **changes)
        graph = build(lambda: DeviceFleet("fleet", args).stack_outputs())
        return str(graph["fleet-provisioning-template"].inputs["templateBody"])

    first = body()
    assert body(initial_version="9.9.9", hardware="gateway-b1") == first
    assert body((), attributes={"site": "elsewhere"}) == first


KEYS = st.text("abcXYZ019_.,@/:#-", min_size=1, max_size=128)


@given(st.dictionaries(KEYS, st.text("abc=[]", min_size=1, max_size=400), max_size=47))
def test_body_and_environment_fit_whatever_the_settings_allow(attributes: dict[str, str]) -> None:
    """CreateProvisioningTemplate takes 10,240 characters, Lambda 4 KB of environment."""
    while len(json.dumps(attributes)) > limits.MAX_PROVISIONED_ATTRIBUTES:
        attributes.popitem()
    names = [f"{'f' * 20}-0a1b2c3d-device", *("p" * 128 for _ in range(9))]
    assert len(policies.to_json(template_body(sorted(attributes), names))) < 10_240
    rings = [{"name": "r" * 20, "percent": 10.01}] * 10
    variables = {
        HookVariable.ATTRIBUTES: json.dumps(attributes),
        HookVariable.CLAIM_CERTIFICATES: json.dumps(["0" * 64] * limits.MAX_CLAIMS),
        HookVariable.FLEET: "f" * 20,
        HookVariable.HARDWARE: "h" * 800,
        HookVariable.INITIAL_VERSION: "1.0.0-" + "a" * 240,
        HookVariable.RINGS: json.dumps(rings),
        HookVariable.SUFFIX: "0" * 8,
        HookVariable.THING_TYPE: "t" * 128,
    }
    assert set(variables) == set(HookVariable)
    assert sum(len(key) + len(value) for key, value in variables.items()) < 4096
