"""The whole program under the real stack files: what a preview shows is what an update does."""

from __future__ import annotations

from typing import Any

import pytest

from components.settings import SettingsError
from rollout.codec import sha256_hex
from rollout.release import Manifest
from tests.unit.harness import (
    PROJECT,
    STACKS,
    UNKNOWN,
    Graph,
    Resource,
    program,
    stack_config,
    whole,
)

EXPORTS = [
    "alarmNames",
    "bucketName",
    "channelName",
    "controllerName",
    "dashboardUrl",
    "deviceCertificates",
    "deviceNames",
    "devicePolicyName",
    "deviceRings",
    "eventLogGroups",
    "fleetGroupName",
    "fleetName",
    "iotEndpoint",
    "notificationsTopicArn",
    "quarantineGroupName",
    "region",
    "release",
    "ringGroupNames",
    "signingKeyArns",
    "signingPublicKey",
    "suffix",
    "thingTypeName",
]
PROVISIONING = ["claimCertificates", "provisioningTemplateName", "serialsTableName"]


def differs(update: Any, preview: Any) -> bool:
    """Whether an input that a preview knows is another in the update."""
    if preview is UNKNOWN:
        return False
    if isinstance(update, dict) and isinstance(preview, dict):
        return update.keys() != preview.keys() or any(
            differs(update[key], preview[key]) for key in update
        )
    if isinstance(update, list) and isinstance(preview, list):
        return len(update) != len(preview) or any(map(differs, update, preview))
    return bool(update != preview)


def structure(resource: Resource) -> tuple[Any, ...]:
    return (
        resource.type,
        resource.parent,
        resource.protect,
        resource.retain_on_delete,
        resource.needs,
        sorted(resource.inputs),
        resource.secret_inputs,
    )


@pytest.mark.parametrize("stack", STACKS)
def test_a_preview_has_the_graph_of_the_update(stack: str) -> None:
    update = {resource.urn: resource for resource in whole(stack)}
    preview = {resource.urn: resource for resource in whole(stack, preview=True)}
    assert sorted(update) == sorted(preview)
    assert [r for urn, r in preview.items() if structure(r) != structure(update[urn])] == [], (
        "depends on other things in a preview"
    )
    changed = [
        f"{r.name}: {key}"
        for urn, r in preview.items()
        for key in r.inputs
        if differs(update[urn].inputs[key], r.inputs[key])
    ]
    assert changed == [], "a preview showed other inputs than the update has"


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_the_manifest_is_known_in_both(stack: str, preview: bool) -> None:
    graph = whole(stack, preview)
    content = graph["channel-manifest"].inputs["content"]
    assert content == whole(stack)["channel-manifest"].inputs["content"]
    version = graph.exports["release"].value["version"]
    assert str(Manifest.parse(content).firmware.version) == version
    variables = graph["channel-controller-function"].inputs["environment"]["variables"]
    assert (
        variables["MANIFEST_SHA256"]
        == sha256_hex(content)
        == graph.exports["release"].value["manifestSha256"]
    )


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_the_outputs_are_an_interface(stack: str, preview: bool) -> None:
    graph = whole(stack, preview)
    keys = ["devicePrivateKeys"] if stack == "dev" else []
    claims = PROVISIONING if "fleet-provisioning" in {r.name for r in graph} else []
    assert bool(claims) == (stack in ("local", "staging", "prod"))
    assert sorted(graph.exports) == sorted([*EXPORTS, *keys, *claims])
    assert [name for name, export in graph.exports.items() if export.secret] == keys


@pytest.mark.parametrize("stack", STACKS)
def test_an_update_leaves_no_output_unknown_or_empty(stack: str) -> None:
    exports = {name: export.value for name, export in whole(stack).exports.items()}
    devices = 0 if stack == "prod" else len(exports["deviceNames"])
    assert [name for name, value in exports.items() if value in (None, UNKNOWN, "")] == []
    empty = [name for name, value in exports.items() if value == {}]
    assert empty == ([] if devices else ["deviceNames", "deviceRings", "deviceCertificates"])


def test_every_output_that_names_something_names_a_resource() -> None:
    graph = whole("dev")
    exports = {name: export.value for name, export in graph.exports.items()}
    names = {resource.inputs.get("name") for resource in graph}
    singles = (
        "controllerName",
        "thingTypeName",
        "fleetGroupName",
        "quarantineGroupName",
        "devicePolicyName",
    )
    maps = ("ringGroupNames", "deviceNames", "alarmNames", "eventLogGroups")
    assert {exports[name] for name in singles} <= names
    assert {value for name in maps for value in exports[name].values()} <= names
    assert exports["bucketName"] == graph["channel-bucket"].inputs["bucket"]


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_a_fleet_a_channel_and_perhaps_the_account(stack: str) -> None:
    owns = stack_config(stack)[f"{PROJECT}:ownsAccountSettings"] == "true"
    top = sorted(
        resource.name for resource in whole(stack) if resource.parent.endswith(f"{PROJECT}-{stack}")
    )
    assert top == sorted(["channel", "fleet", *(["account"] if owns else [])])


def test_the_program_does_not_ask_for_its_stacks_name() -> None:
    def shape(graph: Graph) -> list[str]:
        return sorted(f"{resource.type} {resource.name}" for resource in graph)

    dev = stack_config("dev")
    overrides = {
        key.removeprefix(f"{PROJECT}:"): value
        for key, value in dev.items()
        if key.startswith(f"{PROJECT}:")
    }
    assert shape(program("local", overrides=overrides)) == shape(whole("dev"))


@pytest.mark.parametrize("preview", [False, True])
def test_an_image_in_s3_is_released_like_one_in_the_repository(preview: bool) -> None:
    firmware = {
        "version": "2.1.0",
        "image": "s3://images/gateway-a1/2.1.0.bin",
        "sha256": "ab" * 32,
        "size": 1_048_576,
    }
    graph = program("dev", preview=preview, overrides={"firmware": firmware})
    assert graph["channel-artifact"].inputs["source"] == "images/gateway-a1/2.1.0.bin"
    assert graph.exports["release"].value["size"] == 1_048_576


def test_nothing_is_made_of_a_configuration_with_mistakes() -> None:
    with pytest.raises(
        SettingsError, match="tlsOnly: false; must be true except in environment dev"
    ):
        program("staging", overrides={"tlsOnly": False})


def test_without_tls_no_policy_asks_for_it() -> None:
    for stack in STACKS:
        denials = sum(
            "NobodyWithoutTls" in str(resource.inputs.get("policy")) for resource in whole(stack)
        )
        assert denials == (0 if stack == "local" else 3), (
            "bucket, queue and topic refuse requests without TLS, but for a local AWS"
        )


def test_a_destroy_gives_aws_time_to_detach_a_device_before_it_is_deleted() -> None:
    """AWS detaches seconds after it said so. The provider waits 25 s for the queue's policy to be
    gone: that goes after the jobs' end, as the attachments do, and before things and
    certificates."""
    graph = whole("dev")
    policy, end = "channel-controller-dead-letters-policy", "channel-controller-jobs-end"
    device = "fleet-device-0001"
    assert {device, f"{device}-certificate"} <= graph.before(policy)
    assert f"{device}-principal" not in graph.before(policy), "it would wait for its own detaching"
    assert {policy, f"{device}-principal"} <= graph.before(end)
