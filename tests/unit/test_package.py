"""The components as a package: what other languages may write, and what comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi
import pytest
import yaml

from package.adapters import ADAPTERS, Package
from package.schema import make_schema
from tests.unit.examples import FIRMWARE, SUFFIX
from tests.unit.harness import ROOT, Graph, build

Values = dict[str, Any]

SCHEMA = make_schema()
EXAMPLE = ROOT / "examples" / "yaml"
RINGS = [{"name": "canary", "percent": 10.0}, {"name": "broad", "percent": 90.0}]
FLEET: Values = {"hardware": "gateway-a1", "rings": RINGS}
CHANNEL: Values = {
    "fleet": {**FLEET, "name": "gateways", "suffix": SUFFIX},
    "version": "2.1.0",
    "image": "firmware/2.1.0.bin",
    "sha256": FIRMWARE.sha256,
}


def construct(kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a component that the engine asks for."""
    made = Package().construct(name, f"iotota:index:{kind}", inputs)
    return dict(made.state)


def made(kind: str, inputs: Mapping[str, Any], *, preview: bool = False) -> Graph:
    return build(lambda: construct(kind, "gateways", inputs), preview=preview)


def mistakes(kind: str, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Key to what the engine is told of it."""
    told: dict[str, str] = {}

    def program() -> None:
        with pytest.raises(pulumi.InputPropertiesError) as refused:
            construct(kind, "gateways", inputs)
        told.update({e["property_path"]: e["reason"] for e in refused.value.errors or ()})

    assert list(build(program)) == [], "it was registered"
    return told


# The schema


def descriptions() -> Iterator[tuple[str, str]]:
    for token, resource in SCHEMA["resources"].items():
        yield token, resource["description"]
        for part in ("inputProperties", "properties"):
            for name, about in resource[part].items():
                yield f"{token}.{part}.{name}", about["description"]
    for token, kind in SCHEMA["types"].items():
        yield token, kind["description"]
        if token != "iotota:index:Release":
            for name, about in kind["properties"].items():
                yield f"{token}.{name}", about["description"]


def test_every_component_has_an_adapter_and_no_other() -> None:
    assert set(SCHEMA["resources"]) == set(ADAPTERS)


def test_everything_is_described_in_words_of_the_schema() -> None:
    for where, text in descriptions():
        assert len(text) > 8, f"{where} is not described"
        assert not re.search(r"`[a-z]+_\w+`|`rollout\.", text), f"{where} speaks Python: {text}"


def test_names_are_in_camel_case() -> None:
    for where, _ in descriptions():
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", where.split(".")[-1]) or "." not in where


def test_what_has_no_default_is_required() -> None:
    resources = SCHEMA["resources"]
    fleet, channel = (
        resources["iotota:index:DeviceFleet"],
        resources["iotota:index:FirmwareChannel"],
    )
    assert fleet["requiredInputs"] == ["hardware", "rings"]
    assert channel["requiredInputs"] == ["fleet", "image", "sha256", "version"]
    required = {name: kind["required"] for name, kind in SCHEMA["types"].items()}
    assert required["iotota:index:FleetReference"] == ["hardware", "name", "rings", "suffix"]
    assert required["iotota:index:ClaimCertificate"] == ["csr", "name"]
    assert required["iotota:index:Pace"] == ["base"]
    assert required["iotota:index:Gate"] == []


def test_what_decides_which_resources_there_are_is_plain() -> None:
    inputs = SCHEMA["resources"]["iotota:index:DeviceFleet"]["inputProperties"]
    assert [name for name, about in inputs.items() if not about.get("plain")] == ["suffix"]
    reference = SCHEMA["types"]["iotota:index:FleetReference"]["properties"]
    fed = [name for name, about in reference.items() if not about.get("plain")]
    assert fed == ["suffix", "ringGroupArns"]


def test_types_are_told_as_they_are() -> None:
    fleet = SCHEMA["resources"]["iotota:index:DeviceFleet"]["inputProperties"]
    channel = SCHEMA["resources"]["iotota:index:FirmwareChannel"]["inputProperties"]
    kinds = fleet | channel
    assert kinds["version"]["type"] == "string"
    assert kinds["suffix"]["type"] == "string"
    assert kinds["logRetentionDays"]["type"] == "integer"
    assert [each.get("type") for each in kinds["devices"]["oneOf"]] == ["integer", "array"]
    assert kinds["gates"]["additionalProperties"]["$ref"] == "#/types/iotota:index:Gate"
    assert kinds["devicesPerMinute"]["oneOf"][1] == {"$ref": "#/types/iotota:index:Pace"}
    assert "Default: `30`." in kinds["logRetentionDays"]["description"]


def test_every_reference_leads_to_a_type() -> None:
    referred = set(re.findall(r'"#/types/([^"]+)"', json.dumps(SCHEMA)))
    assert referred == set(SCHEMA["types"])


# Components made through it


@pytest.mark.parametrize("preview", [False, True])
def test_a_fleet_s_outputs_are_those_of_the_schema(preview: bool) -> None:
    devices = {"devices": 2.0, "keysInState": True, "environment": "dev"}
    rings = {"rings": [{"name": "all", "percent": 100.0}]}
    claim = {"name": "factory-a", "csr": (ROOT / "csr" / "claim-example.csr").read_text()}
    provisioning = {"provisioning": {"claims": [claim]}}
    values = {**FLEET, **devices, **rings, **provisioning}
    graph = made("DeviceFleet", values, preview=preview)
    told = SCHEMA["resources"]["iotota:index:DeviceFleet"]
    assert set(graph.exports) == set(told["properties"])
    assert graph.exports["deviceRings"].value == {"0001": "all", "0002": "all"}
    assert graph.exports["devicePrivateKeys"].secret
    assert graph["gateways"].type == "iotota:index:DeviceFleet"
    without = made("DeviceFleet", FLEET, preview=preview)
    assert set(without.exports) == set(told["required"])


@pytest.mark.parametrize("preview", [False, True])
def test_a_channel_s_outputs_are_those_of_the_schema(preview: bool) -> None:
    extra = {"update": {"signature": "{imageSignature}", "size": "{size}", "tries": 3.0}}
    graph = made("FirmwareChannel", {**CHANNEL, "documentExtra": extra}, preview=preview)
    told = SCHEMA["resources"]["iotota:index:FirmwareChannel"]
    assert set(graph.exports) == set(told["properties"])
    manifest = graph["gateways-manifest"].inputs["content"]
    assert '"tries":3}' in manifest, "a whole number is none with a point"
    without = made("FirmwareChannel", CHANNEL, preview=preview)
    assert set(without.exports) == set(told["required"])
    release = graph.exports["release"].value
    assert set(release) == set(SCHEMA["types"]["iotota:index:Release"]["properties"])
    assert release["version"] == "2.1.0"


def test_account_settings_take_nothing() -> None:
    graph = made("AccountSettings", {})
    assert graph.children("gateways") == ["gateways-events", "gateways-indexing"]
    told = mistakes("AccountSettings", {"protect": True})
    assert told["protect"].startswith("true; is not a key here")


def test_all_that_a_channel_takes_comes_into_its_manifest() -> None:
    gate = {"minimumSucceeded": 3.0, "failureLimit": {"percent": 2.5, "devices": 2.0}}
    inputs = {
        **CHANNEL,
        "channel": "beta",
        "devicesPerMinute": {"base": 10.0, "factor": 1.5},
        "gates": {"canary": {**gate, "alarms": [{"name": "stack:controller-errors"}]}},
        "abort": [{"on": "FAILED", "percent": 40.0, "minimum": 30.0}],
        "window": {"cron": "0 2 * * *", "minutes": 240.0},
        "paused": True,
    }
    content = json.loads(made("FirmwareChannel", inputs)["gateways-manifest"].inputs["content"])
    assert (content["channel"], content["paused"]) == ("beta", True)
    assert content["pace"]["basePerMinute"] == 10
    assert content["abort"] == [{"on": "FAILED", "percent": 40.0, "minimum": 30}]
    canary = content["rings"][0]["gate"]
    assert (canary["minimumSucceeded"], canary["failureLimit"]["devices"]) == (3, 2)
    assert canary["alarms"] == [{"name": "stack:controller-errors", "action": "hold"}]
    assert content["window"] == {"cron": "0 2 * * *", "minutes": 240}


@pytest.mark.parametrize("preview", [False, True])
def test_a_suffix_may_come_from_a_resource(preview: bool) -> None:
    def program() -> None:
        fleet = construct("DeviceFleet", "gateways", FLEET)
        reference = {**CHANNEL["fleet"], "suffix": fleet["suffix"]}
        construct("FirmwareChannel", "stable", {**CHANNEL, "fleet": reference})

    graph = build(program, preview=preview)
    assert "gateways-suffix" in graph.before("stable-bucket")


# Mistakes


def test_every_mistake_is_told_at_once() -> None:
    wrong = {
        "hardwear": "gateway-a1",
        "rings": [{"name": "canary", "percent": 10.0, "weight": 1.0}, {"name": "Broad!"}],
        "logRetentionDays": 31.0,
        "devices": -1.0,
        "csrFolder": 2.5,
    }
    told = mistakes("DeviceFleet", wrong)
    assert sorted(told) == [
        "csrFolder",
        "devices",
        "hardware",
        "hardwear",
        "logRetentionDays",
        "rings[0].weight",
        "rings[1].name",
        "rings[1].percent",
    ]
    assert told["hardware"].startswith("missing; must be 1 to 800 letters")


@pytest.mark.parametrize("fleet", [None, "gateways", {}, {"name": "gateways", "ring": []}])
def test_a_channel_without_a_whole_fleet_is_told_what_lacks(fleet: object) -> None:
    inputs = {key: value for key, value in CHANNEL.items() if key != "fleet"}
    inputs |= {} if fleet is None else {"fleet": fleet}
    told = mistakes("FirmwareChannel", {**inputs, "versoin": "1"})
    assert "versoin" in told
    assert any(key.startswith("fleet") for key in told)


def test_what_must_be_known_in_a_preview_is_no_output() -> None:
    told = mistakes("DeviceFleet", {**FLEET, "hardware": object()})
    assert list(told) == ["hardware"]
    assert told["hardware"].startswith("is an output; must be a plain value")


# The example


def test_a_fleet_and_a_channel_take_few_lines_of_yaml() -> None:
    text = (EXAMPLE / "Pulumi.yaml").read_text()
    program = text.split("# what `python -m ops")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 15


def test_the_example_says_what_the_schema_takes() -> None:
    program = yaml.safe_load((EXAMPLE / "Pulumi.yaml").read_text())
    (path,) = program["packages"].values()
    assert (EXAMPLE / path / "PulumiPlugin.yaml").is_file()
    for resource in program["resources"].values():
        told = SCHEMA["resources"][resource["type"].replace(":", ":index:")]
        assert set(told["requiredInputs"]) <= set(resource["properties"])
        assert set(resource["properties"]) <= set(told["inputProperties"])
    kinds = {name: resource["type"] for name, resource in program["resources"].items()}
    for output, source in program["outputs"].items():
        resource, name = source[2:-1].split(".")
        assert name == output
        assert name in SCHEMA["resources"][kinds[resource].replace(":", ":index:")]["properties"]
