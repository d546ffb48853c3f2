"""AWS IoT: registry, certificates, policies, jobs' events, topic rules."""

from __future__ import annotations

from typing import Any

from sandbox.handlers.registry import (
    IdAndOutputs,
    Resource,
    join_tags,
    makes,
    makes_and_updates,
    pairs,
)


@makes("aws:iot/thingType:ThingType")
def thing_type(r: Resource) -> IdAndOutputs:
    name, tags = r.inputs["name"], pairs(r.inputs["tags"])
    properties = rename(r.inputs["properties"], description="thingTypeDescription")
    answer = r.aws.client("iot").create_thing_type(
        thingTypeName=name, thingTypeProperties=properties, tags=tags
    )
    return name, {"arn": answer["thingTypeArn"]}


@makes_and_updates("aws:iot/thingGroup:ThingGroup", "name", "parentGroupName", "tags")
def thing_group(r: Resource) -> IdAndOutputs:
    iot, name = r.aws.client("iot"), r.inputs["name"]
    properties = rename(r.inputs["properties"], description="thingGroupDescription")
    group = {"thingGroupName": name, "thingGroupProperties": properties}
    if r.old:
        iot.update_thing_group(**group)
        return name, r.old
    tags, parent = pairs(r.inputs.get("tags")), r.inputs.pick("parentGroupName")
    answer = iot.create_thing_group(**group, **parent, tags=tags)
    return name, {"arn": answer["thingGroupArn"]}


@makes_and_updates("aws:iot/thing:Thing", "name")
def thing(r: Resource) -> IdAndOutputs:
    iot, name, kind = r.aws.client("iot"), r.inputs["name"], r.inputs.pick("thingTypeName")
    attributes = {"attributes": r.inputs["attributes"]}
    if r.old:
        iot.update_thing(thingName=name, attributePayload={**attributes, "merge": False}, **kind)
        return name, r.old
    answer = iot.create_thing(thingName=name, attributePayload=attributes, **kind)
    return name, {"arn": answer["thingArn"]}


@makes_and_updates("aws:iot/certificate:Certificate", "csr")
def certificate(r: Resource) -> IdAndOutputs:
    iot, active = r.aws.client("iot"), r.inputs["active"]
    if r.old:
        id_ = r.old["arn"].rpartition("/")[2]
        iot.update_certificate(certificateId=id_, newStatus="ACTIVE" if active else "INACTIVE")
        return id_, r.old
    if csr := r.inputs.get("csr"):
        answer = iot.create_certificate_from_csr(certificateSigningRequest=csr, setAsActive=active)
        keys = {}
    else:
        answer = iot.create_keys_and_certificate(setAsActive=active)
        keys = {"privateKey": answer["keyPair"]["PrivateKey"]}
    outputs = {"arn": answer["certificateArn"], "certificatePem": answer["certificatePem"], **keys}
    return answer["certificateId"], outputs


@makes_and_updates("aws:iot/policy:Policy", "name", "tags")
def policy(r: Resource) -> IdAndOutputs:
    iot, name = r.aws.client("iot"), r.inputs["name"]
    document = {"policyName": name, "policyDocument": r.inputs["policy"]}
    if r.old:
        answer = iot.create_policy_version(**document, setAsDefault=True)
        # a policy has at most 5 versions, so the one before goes
        iot.delete_policy_version(policyName=name, policyVersionId=r.old["defaultVersionId"])
        return name, {**r.old, "defaultVersionId": answer["policyVersionId"]}
    answer = iot.create_policy(**document, tags=pairs(r.inputs.get("tags")))
    return name, {"arn": answer["policyArn"], "defaultVersionId": answer["policyVersionId"]}


@makes("aws:iot/policyAttachment:PolicyAttachment")
def policy_attachment(r: Resource) -> IdAndOutputs:
    name, target = r.inputs["policy"], r.inputs["target"]
    r.aws.client("iot").attach_policy(policyName=name, target=target)
    return f"{name}|{target}", {}


@makes("aws:iot/thingPrincipalAttachment:ThingPrincipalAttachment")
def thing_principal_attachment(r: Resource) -> IdAndOutputs:
    name, principal = r.inputs["thing"], r.inputs["principal"]
    r.aws.client("iot").attach_thing_principal(thingName=name, principal=principal)
    return f"{name}|{principal}", {}


@makes("aws:iot/thingGroupMembership:ThingGroupMembership")
def thing_group_membership(r: Resource) -> IdAndOutputs:
    group, name = r.inputs["thingGroupName"], r.inputs["thingName"]
    overriding = {"overrideDynamicGroups": r.inputs["overrideDynamicGroup"]}
    r.aws.client("iot").add_thing_to_thing_group(thingGroupName=group, thingName=name, **overriding)
    return f"{group}/{name}", {}


@makes_and_updates("aws:iot/indexingConfiguration:IndexingConfiguration")
def indexing_configuration(r: Resource) -> IdAndOutputs:
    r.aws.client("iot").update_indexing_configuration(**r.inputs.pick_rest())
    return "indexing-configuration", {}


@makes_and_updates("aws:iot/eventConfigurations:EventConfigurations")
def event_configurations(r: Resource) -> IdAndOutputs:
    switches = {kind: {"Enabled": on} for kind, on in r.inputs["eventConfigurations"].items()}
    r.aws.client("iot").update_event_configurations(eventConfigurations=switches)
    return r.aws.region, {}


@makes_and_updates("aws:iot/topicRule:TopicRule", "name", "tags")
def topic_rule(r: Resource) -> IdAndOutputs:
    iot, name = r.aws.client("iot"), r.inputs["name"]
    actions = [{"cloudwatchLogs": action} for action in r.inputs.get("cloudwatchLogs", [])]
    actions += [{"lambda": action} for action in r.inputs.get("lambdas", [])]
    payload = {
        **r.inputs.pick("sql", "description"),
        "awsIotSqlVersion": r.inputs["sqlVersion"],
        "ruleDisabled": not r.inputs["enabled"],
        "actions": actions,
    }
    if r.old:
        iot.replace_topic_rule(ruleName=name, topicRulePayload=payload)
    else:
        tags = join_tags(r.inputs["tags"])
        iot.create_topic_rule(ruleName=name, topicRulePayload=payload, tags=tags)
    return name, {"arn": r.aws.arn("iot", f"rule/{name}")}


@makes_and_updates("aws:iot/provisioningTemplate:ProvisioningTemplate", "name", "tags")
def provisioning_template(r: Resource) -> IdAndOutputs:
    iot, name, body = r.aws.client("iot"), r.inputs["name"], r.inputs["templateBody"]
    tags, settings = pairs(r.inputs.get("tags")), r.inputs.pick_rest()
    if not r.old:
        answer = iot.create_provisioning_template(
            templateName=name, templateBody=body, tags=tags, **settings
        )
        return name, {"arn": answer["templateArn"]}
    iot.update_provisioning_template(templateName=name, **settings)
    if "templateBody" in r.changed:
        iot.create_provisioning_template_version(
            templateName=name, templateBody=body, setAsDefault=True
        )
    return name, r.old


def rename(values: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
