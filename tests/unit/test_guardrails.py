"""What holds for every resource of every stack."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.tags import MAX_TAGS
from tests.unit.harness import (
    PROJECT,
    STACKS,
    Account,
    Graph,
    Resource,
    program,
    stack_config,
    whole,
)

pytestmark = pytest.mark.parametrize("stack", STACKS)

DOCUMENTS = ("policy", "assumeRolePolicy")

WILDCARDS = {
    # resource of an Allow: why it ends in, or is, a wildcard
    r"\*": (
        "IAM knows no narrower resource (ListAttachedPolicies, ListJobs, ListThingGroups,"
        " PutMetricData, DescribeAlarms), or a key's own policy"
    ),
    r"arn:aws:s3:::[^/]+/firmware/\*": "images: any release may be offered, or offered again",
    r"arn:aws:s3:::[^/]+/channels/stable/ways-back/\*": (
        "whom a way back must bring, written when there is one"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:job/[0-9a-f]{8}-stable-\*": (
        "the channel's jobs, made when a release is offered"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:thinggroup/.+-stable-rollback-\*": (
        "the channel's rollback groups, made by a rollback"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:thinggroup/iot-fleet-[0-9a-f]{8}-\*": (
        "who is in one of the fleet's groups, a ring's that has left the stack, too"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:thing/\*": (
        "devices, which may have any name; AWS checks the group that they join as well, and the"
        " other calls only read"
    ),
    r"arn:aws:logs:[^:]+:[^:]+:log-group:[^*]+:\*": "log streams, named by who writes them",
    r"arn:aws:iot:[^:]+:[^:]+:topic(filter)?/\$aws/things/"
    r"\$\{iot:Connection\.Thing\.ThingName\}/(jobs|shadow)/.*": ("a device's own topics"),
}

PROVISIONING_WILDCARDS = {
    r"arn:aws:iot:[^:]+:[^:]+:client/claim\.\*": "the serial of a device that has no thing yet",
    r"arn:aws:iot:[^:]+:[^:]+:topic(filter)?/\$aws/(certificates/create-from-csr"
    r"|provisioning-templates/iot-fleet-[0-9a-f]{8}-claim/provision)/\*": (
        "the payload's format, and accepted or rejected"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:thing/iot-fleet-[0-9a-f]{8}-\*": (
        "the things of devices that come in, named by their serials"
    ),
    r"arn:aws:iot:[^:]+:[^:]+:cert/\*": "certificates, named by AWS when a device asks for one",
}
"""Where devices come in by claim."""

ONLY_ANYWHERE = {
    "cloudwatch:DescribeAlarms",
    "cloudwatch:PutMetricData",
    "iot:ListAttachedPolicies",
    "iot:ListJobs",
    "iot:ListThingGroups",
}

PROVISIONING_ANYWHERE = {
    "iot:ListPolicyPrincipals",
    "iot:ListPrincipalPolicies",
    "iot:RegisterThing",
}
"""Beside ONLY_ANYWHERE, where devices come in by claim."""

PROTECTED = {
    # name of a resource that a protected stack protects and keeps: what it holds
    r"fleet-suffix": "every name",
    r"fleet-group": "the rings",
    r"fleet-quarantine": "which devices were cut off",
    r"fleet-ring-.+": "which devices are in the ring",
    r"fleet-type": "what kind of thing each device is; AWS deletes none that is in use",
    r"fleet-policy": "what every device may do",
    r"fleet-logs-(job-events|device-registry-events|thing-group-events)-log": "evidence",
    r"channel-bucket": "images, memory and orders",
    r"channel-bucket-(encryption|ownership|policy|public-access|versioning)": "guards the bucket",
    r"channel-signing-(key|alias)-.+": "what devices believe",
    r"channel-controller-role": "whom the key's policy names, by an id that no other role has",
    r"channel-controller-log": "evidence",
}
PROVISIONING_PROTECTED = {
    r"fleet-provisioning-serials": "who has which serial",
    r"fleet-provisioning-policy": "what a device may do that is not registered yet",
    r"fleet-provisioning-claim-.+-certificate": "what devices that wait in boxes connect by",
    r"fleet-provisioning-hook-log": "evidence",
}
"""Where devices come in by claim."""


def is_provisioned(stack: str) -> bool:
    return "provisioning" in setting(stack, "fleet")


def wildcards(stack: str) -> list[str]:
    return [*WILDCARDS, *(PROVISIONING_WILDCARDS if is_provisioned(stack) else ())]


def protected(stack: str) -> list[str]:
    return [*PROTECTED, *(PROVISIONING_PROTECTED if is_provisioned(stack) else ())]


def statements(graph: Graph) -> Iterator[tuple[Resource, dict[str, Any]]]:
    """Every statement of every policy, trust policies included."""
    for resource in graph:
        for key in DOCUMENTS:
            if isinstance(text := resource.inputs.get(key), str) and text.startswith("{"):
                for statement in json.loads(text)["Statement"]:
                    yield resource, statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def setting(stack: str, key: str) -> Any:
    return json.loads(stack_config(stack)[f"{PROJECT}:{key}"])


def allowed(graph: Graph, key: str) -> list[tuple[Resource, str]]:
    """Every action, or every resource, that some policy allows."""
    return [
        (r, item)
        for r, s in statements(graph)
        if s["Effect"] == "Allow"
        for item in listed(s.get(key, []))
    ]


def test_no_policy_allows_a_wildcard_action(stack: str) -> None:
    assert [
        (resource, action) for resource, action in allowed(whole(stack), "Action") if "*" in action
    ] == []


def test_every_wildcard_resource_has_a_reason(stack: str) -> None:
    wild = [(resource, item) for resource, item in allowed(whole(stack), "Resource") if "*" in item]
    unexplained = [
        (resource, item)
        for resource, item in wild
        if not any(re.fullmatch(pattern, item) for pattern in wildcards(stack))
    ]
    assert unexplained == [], (
        "name what is allowed, or add the wildcard to WILDCARDS with its reason"
    )


def test_every_reason_is_still_needed(stack: str) -> None:
    items = {item for _, item in allowed(whole(stack), "Resource")}
    assert [
        pattern
        for pattern in wildcards(stack)
        if not any(re.fullmatch(pattern, item) for item in items)
    ] == []


def test_only_calls_without_a_resource_are_allowed_on_all(stack: str) -> None:
    anywhere = {
        action
        for resource, statement in statements(whole(stack))
        if statement.get("Resource") in ("*", ["*"])
        and statement["Effect"] == "Allow"
        and "kms/key" not in resource.type
        for action in listed(statement["Action"])
    }
    assert anywhere == ONLY_ANYWHERE | (PROVISIONING_ANYWHERE if is_provisioned(stack) else set())


def test_nobody_is_allowed_everything(stack: str) -> None:
    open_ = [
        (r, s)
        for r, s in statements(whole(stack))
        if s["Effect"] == "Allow" and s.get("Principal") in ("*", {"AWS": "*"})
    ]
    assert open_ == []
    assert [
        r
        for r, s in statements(whole(stack))
        if {"NotAction", "NotPrincipal", "NotResource"} & s.keys()
    ] == []


def test_every_service_acts_for_this_account_only(stack: str) -> None:
    """The confused deputy: a service that acts for another customer must not reach this account."""
    granted = [(r, s) for r, s in statements(whole(stack)) if "Service" in s.get("Principal", {})]
    assert len(granted) == 4 + 2 * is_provisioned(stack), (
        "two roles of the channel, one of the fleet, the notifications' topic, and two to provision"
    )
    assert [
        r
        for r, s in granted
        if s["Condition"]["StringEquals"] != {"aws:SourceAccount": "123456789012"}
    ] == []
    # Lambda names no function when it assumes a role
    without = [
        s["Principal"]["Service"]
        for _, s in granted
        if "aws:SourceArn" not in s["Condition"].get("ArnLike", {})
    ]
    assert without == ["lambda.amazonaws.com"] * len(whole(stack).of("Function"))


def test_every_service_that_calls_a_function_does_so_for_one_resource(stack: str) -> None:
    permissions = whole(stack).of("Permission")
    assert len(permissions) == 3 + is_provisioned(stack)
    for permission in permissions:
        assert permission.inputs["sourceAccount"] == "123456789012"
        assert permission.inputs["sourceArn"].startswith("arn:aws:")
        assert "*" not in permission.inputs["sourceArn"]


def test_every_bucket_is_private_versioned_and_encrypted(stack: str) -> None:
    graph = whole(stack)
    buckets = [bucket.inputs["bucket"] for bucket in graph.of("Bucket")]
    assert len(buckets) == 1

    def of(type_: str, key: str) -> list[Any]:
        return [item.inputs[key] for item in graph.of(type_) if item.inputs["bucket"] in buckets]

    assert of("BucketVersioning", "versioningConfiguration") == [{"status": "Enabled"}]
    assert of("BucketServerSideEncryptionConfiguration", "rules") == [
        [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]
    ]
    assert of("BucketOwnershipControls", "rule") == [{"objectOwnership": "BucketOwnerEnforced"}]
    blocks = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    assert [of("BucketPublicAccessBlock", block) for block in blocks] == [[True]] * 4
    assert len(of("BucketPolicy", "policy")) == 1


def test_bucket_queue_and_topic_refuse_requests_without_tls(stack: str) -> None:
    denied = {
        resource.type.rpartition(":")[2]
        for resource, statement in statements(whole(stack))
        if statement["Effect"] == "Deny"
        and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
    }
    # MiniStack speaks plain HTTP and keeps to bucket policies
    assert denied == (set() if stack == "local" else {"BucketPolicy", "QueuePolicy", "TopicPolicy"})


def test_queues_are_encrypted_and_topics_hold_no_secret(stack: str) -> None:
    graph = whole(stack)
    assert [queue.inputs["sqsManagedSseEnabled"] for queue in graph.of("Queue")] == [True]
    # CloudWatch cannot publish to a topic that the AWS managed key encrypts
    assert [topic.name for topic in graph.of("Topic") if "kmsMasterKeyId" not in topic.inputs] == [
        "channel-monitoring-notifications"
    ]


def test_what_cannot_be_made_again_is_protected_and_kept(stack: str) -> None:
    graph, protect = whole(stack), setting(stack, "protect")
    names = protected(stack)
    kept = {r.name for r in graph if any(re.fullmatch(name, r.name) for name in names)}
    assert {r.name for r in graph if r.protect} == (kept if protect else set())
    assert {r.name for r in graph if r.retain_on_delete} - {"channel-artifact"} == (
        kept if protect else set()
    )
    for name in names:
        assert any(re.fullmatch(name, found) for found in kept), f"{name} is nowhere"
    assert [bucket.inputs["forceDestroy"] for bucket in graph.of("Bucket")] == [not protect]


def test_no_kind_of_what_holds_something_is_forgotten(stack: str) -> None:
    """Whatever is of a kind that holds devices, rights, keys, images or evidence is in the table,
    or here, with why not."""
    holding = {
        "Bucket",
        "Key",
        "Alias",
        "LogGroup",
        "Policy",
        "ThingGroup",
        "ThingType",
        "RandomId",
        "Table",
    }
    assert [
        r
        for r in whole(stack)
        if r.type.rpartition(":")[2] in holding
        and not any(re.fullmatch(name, r.name) for name in protected(stack))
    ] == []


def test_every_table_is_encrypted_can_be_restored_and_is_protected_in_aws_too(stack: str) -> None:
    tables = whole(stack).of("Table")
    assert len(tables) == is_provisioned(stack)
    for table in tables:
        assert table.inputs["serverSideEncryption"] == {"enabled": True}
        assert table.inputs["pointInTimeRecovery"] == {"enabled": True}
        assert table.inputs["deletionProtectionEnabled"] == setting(stack, "protect")


def test_what_an_ordinary_change_removes_is_never_protected(stack: str) -> None:
    """A device, the ring it is in, a recipient, an alarm's rule, a ring's guard, account settings
    that are handed to another stack. (A claim certificate is a whole factory's.)"""
    ordinary = {
        "Certificate",
        "EventConfigurations",
        "IndexingConfiguration",
        "Invocation",
        "PolicyAttachment",
        "Thing",
        "ThingGroupMembership",
        "ThingPrincipalAttachment",
        "TopicSubscription",
    }
    found = [
        r
        for r in whole(stack)
        if r.type.rpartition(":")[2] in ordinary
        and not re.fullmatch(r"fleet-provisioning-claim-.+-certificate", r.name)
    ]
    assert [r for r in found if r.protect or r.retain_on_delete] == []


def test_signing_images_adds_a_key_that_is_kept_and_no_wider_right(stack: str) -> None:
    extra = {"documentExtra": {"signature": "{imageSignature}"}}
    graph = program(stack, overrides={"rollout": setting(stack, "rollout") | extra})
    names = {resource.name for resource in whole(stack)}
    made = {resource.name: resource for resource in graph if resource.name not in names}
    assert set(made) == {"channel-image-key", "channel-image-alias"}
    protect = setting(stack, "protect")
    assert {bool(r.protect) for r in made.values()} == {protect}
    assert {bool(r.retain_on_delete) for r in made.values()} == {protect}
    assert {item for _, item in allowed(graph, "Resource") if "*" in item} == {
        item for _, item in allowed(whole(stack), "Resource") if "*" in item
    }
    signers = [
        (resource.name, s["Principal"])
        for resource, s in statements(graph)
        if "kms:Sign" in listed(s["Action"]) and "Principal" in s
    ]
    role = graph["channel-controller-role"]
    assert "channel-image-key" in dict(signers)
    assert all(str(who["AWS"]).endswith(role.inputs["name"]) for _, who in signers)


def test_what_every_release_replaces_is_never_protected(stack: str) -> None:
    artifact = whole(stack)["channel-artifact"]
    assert (artifact.protect, artifact.retain_on_delete) == (False, True)


def test_everything_taggable_has_at_most_ten_tags_and_the_programs_own(stack: str) -> None:
    taggable = [resource for resource in whole(stack) if takes_tags(resource)]
    assert len(taggable) > 30
    assert [
        resource
        for resource in taggable
        if len(resource.inputs.get("tags") or {}) not in range(3, MAX_TAGS + 1)
    ] == []
    assert [
        resource
        for resource in taggable
        if not {"project", "environment", "fleet"} <= resource.inputs["tags"].keys()
    ] == []


def takes_tags(resource: Resource) -> bool:
    parts = re.fullmatch(r"aws:(\w+)/\w+:(\w+)", resource.type)
    if parts is None:
        return False
    module = importlib.import_module(f"pulumi_aws.{parts[1].replace('lambda', 'lambda_')}")
    return hasattr(getattr(module, f"{parts[2]}Args"), "tags")


def test_logs_are_kept_as_long_as_the_stack_says(stack: str) -> None:
    groups = whole(stack).of("LogGroup")
    assert len(groups) == 4 + is_provisioned(stack)
    assert {group.inputs["retentionInDays"] for group in groups} == {
        setting(stack, "logRetentionDays")
    }


def test_the_function_writes_into_a_log_group_of_the_stack(stack: str) -> None:
    graph = whole(stack)
    groups = {group.inputs["name"] for group in graph.of("LogGroup")}
    assert {f"/aws/lambda/{function.inputs['name']}" for function in graph.of("Function")} <= groups


def test_no_private_key_is_in_plain_text(stack: str) -> None:
    graph = whole(stack)
    plain = {name: export.value for name, export in graph.exports.items() if not export.secret}
    assert "private key" not in json.dumps(plain)
    assert [r for r in graph if "private key" in json.dumps(r.inputs, default=str)] == []


def test_everything_uses_the_default_provider(stack: str) -> None:
    """An explicit one ignores the stack's `aws:` keys, endpoints included: the local stack would
    reach AWS."""
    assert [resource for resource in whole(stack) if resource.provider] == []


def test_no_two_resources_share_a_name(stack: str) -> None:
    names = [resource.name for resource in whole(stack)]
    assert sorted(names) == sorted(set(names))


def test_every_child_bears_the_name_of_its_parent(stack: str) -> None:
    graph = whole(stack)
    by_urn = {resource.urn: resource for resource in graph}
    children = [(r, by_urn[r.parent]) for r in graph if r.parent in by_urn]
    assert [
        child for child, parent in children if not child.name.startswith(f"{parent.name}-")
    ] == []
    assert [r for r in graph if r.custom and r.parent not in by_urn] == []


def test_arns_are_made_of_partition_region_and_account(stack: str) -> None:
    china = Account(
        partition="aws-cn",
        region="cn-north-1",
        number="210987654321",
        dns_suffix="amazonaws.com.cn",
    )
    text = json.dumps([dict(resource.inputs) for resource in program(stack, account=china)])
    arns = re.findall(r"arn:[^\"\\\s]*", text)
    assert len(arns) > 50
    assert [arn for arn in arns if not arn.startswith("arn:aws-cn:")] == []
    regional = [
        arn
        for arn in arns
        if not arn.startswith(("arn:aws-cn:s3:", "arn:aws-cn:iam:", "arn:aws-cn:sts:"))
    ]
    assert [arn for arn in regional if arn.split(":")[3:5] != ["cn-north-1", "210987654321"]] == []
    assert "123456789012" not in text
