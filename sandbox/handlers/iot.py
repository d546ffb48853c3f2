"""AWS IoT: registry, certificates, policies, jobs' events, topic rules."""

from __future__ import annotations

from typing import Any

from sandbox.handlers.registry import Made, Resource, handles, makes, pairs, text


@makes("aws:iot/thingType:ThingType")
def thing_type(r: Resource) -> Made:
    name = r.called()
    made = r.aws.client("iot").create_thing_type(
        thingTypeName=name,
        thingTypeProperties=renamed(r.inputs.get("properties"), description="thingTypeDescription"),
        tags=pairs(r.inputs.get("tags")),
    )
    return name, {"name": name, "arn": made["thingTypeArn"]}


@handles("aws:iot/thingGroup:ThingGroup", "name", "parentGroupName", "tags")
def thing_group(r: Resource) -> Made:
    iot, name = r.aws.client("iot"), r.called()
    properties = renamed(r.inputs.get("properties"), description="thingGroupDescription")
    if r.old:
        made = iot.update_thing_group(thingGroupName=name, thingGroupProperties=properties)
        return name, {**r.old, "version": made["version"]}
    parent = r.inputs.pick("parentGroupName")
    made = iot.create_thing_group(
        thingGroupName=name,
        thingGroupProperties=properties,
        tags=pairs(r.inputs.get("tags")),
        **parent,
    )
    return name, {"name": name, "arn": made["thingGroupArn"], "version": 1}


@handles("aws:iot/thing:Thing", "name")
def thing(r: Resource) -> Made:
    iot, name = r.aws.client("iot"), r.called()
    kind, attributes = (
        r.inputs.pick("thingTypeName"),
        {"attributes": r.inputs.get("attributes") or {}},
    )
    if r.old:
        iot.update_thing(thingName=name, attributePayload={**attributes, "merge": False}, **kind)
        return name, dict(r.old)
    made = iot.create_thing(thingName=name, attributePayload=attributes, **kind)
    return name, {"name": name, "arn": made["thingArn"], "defaultClientId": name, "version": 1}


@handles("aws:iot/certificate:Certificate", "csr", "certificatePem", "caPem")
def certificate(r: Resource) -> Made:
    iot, active = r.aws.client("iot"), r.inputs["active"]
    if r.old:
        number = r.old["arn"].rpartition("/")[2]
        iot.update_certificate(certificateId=number, newStatus="ACTIVE" if active else "INACTIVE")
        return number, dict(r.old)
    if csr := r.inputs.get("csr"):
        made = iot.create_certificate_from_csr(certificateSigningRequest=csr, setAsActive=active)
        keys = {}
    else:
        made = iot.create_keys_and_certificate(setAsActive=active)
        keys = {
            "privateKey": made["keyPair"]["PrivateKey"],
            "publicKey": made["keyPair"]["PublicKey"],
        }
    return made["certificateId"], {
        "arn": made["certificateArn"],
        "certificatePem": made["certificatePem"],
        **keys,
    }


@handles("aws:iot/policy:Policy", "name", "tags")
def policy(r: Resource) -> Made:
    iot, name, document = r.aws.client("iot"), r.called(), text(r.inputs["policy"])
    if r.old:
        made = iot.create_policy_version(
            policyName=name, policyDocument=document, setAsDefault=True
        )
        # a policy has at most 5 versions, so the one before goes
        iot.delete_policy_version(policyName=name, policyVersionId=r.old["defaultVersionId"])
        return name, {**r.old, "defaultVersionId": made["policyVersionId"]}
    made = iot.create_policy(
        policyName=name, policyDocument=document, tags=pairs(r.inputs.get("tags"))
    )
    return name, {
        "name": name,
        "arn": made["policyArn"],
        "defaultVersionId": made["policyVersionId"],
    }


@makes("aws:iot/policyAttachment:PolicyAttachment")
def policy_attachment(r: Resource) -> Made:
    name, target = r.inputs["policy"], r.inputs["target"]
    r.aws.client("iot").attach_policy(policyName=name, target=target)
    return f"{name}|{target}", {}


@makes("aws:iot/thingPrincipalAttachment:ThingPrincipalAttachment")
def thing_principal_attachment(r: Resource) -> Made:
    name, principal = r.inputs["thing"], r.inputs["principal"]
    r.aws.client("iot").attach_thing_principal(
        thingName=name, principal=principal, **r.inputs.pick("thingPrincipalType")
    )
    return f"{name}|{principal}", {}


@makes("aws:iot/thingGroupMembership:ThingGroupMembership")
def thing_group_membership(r: Resource) -> Made:
    group, name = r.inputs["thingGroupName"], r.inputs["thingName"]
    overriding = {"overrideDynamicGroups": r.inputs.get("overrideDynamicGroup") or False}
    r.aws.client("iot").add_thing_to_thing_group(thingGroupName=group, thingName=name, **overriding)
    return f"{group}/{name}", {}


@handles("aws:iot/indexingConfiguration:IndexingConfiguration")
def indexing_configuration(r: Resource) -> Made:
    r.aws.client("iot").update_indexing_configuration(
        **r.inputs.pick("thingIndexingConfiguration", "thingGroupIndexingConfiguration")
    )
    return "indexing-configuration", {}


@handles("aws:iot/eventConfigurations:EventConfigurations")
def event_configurations(r: Resource) -> Made:
    wanted = {kind: {"Enabled": on} for kind, on in r.inputs["eventConfigurations"].items()}
    r.aws.client("iot").update_event_configurations(eventConfigurations=wanted)
    return r.aws.region, {}


ACTIONS = {"lambdas": "lambda", "republishes": "republish", "cloudwatchMetrics": "cloudwatchMetric"}
"""A rule's inputs by the API's name of the action, where they differ."""
RULE_ACTIONS = ("cloudwatchLogs", "cloudwatchMetrics", "lambdas", "republishes", "sns", "sqs")


@handles("aws:iot/topicRule:TopicRule", "name", "tags")
def topic_rule(r: Resource) -> Made:
    iot, name = r.aws.client("iot"), r.called()
    payload = {
        **r.inputs.pick("sql", "description"),
        "awsIotSqlVersion": r.inputs["sqlVersion"],
        "ruleDisabled": not r.inputs["enabled"],
        "actions": [
            {ACTIONS.get(k, k): action} for k in RULE_ACTIONS for action in r.inputs.get(k) or []
        ],
    }
    if failure := r.inputs.get("errorAction"):
        payload["errorAction"] = failure
    if r.old:
        iot.replace_topic_rule(ruleName=name, topicRulePayload=payload)
    else:
        tags = "&".join(
            f"{key}={value}" for key, value in sorted((r.inputs.get("tags") or {}).items())
        )
        iot.create_topic_rule(
            ruleName=name, topicRulePayload=payload, **({"tags": tags} if tags else {})
        )
    return name, {"name": name, "arn": r.aws.arn("iot", f"rule/{name}")}


def renamed(values: dict[str, Any] | None, **names: str) -> dict[str, Any]:
    return {
        names.get(key, key): value for key, value in (values or {}).items() if value is not None
    }
