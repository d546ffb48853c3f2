"""Random ids, IAM roles, KMS keys."""

from __future__ import annotations

import base64
import secrets

from sandbox.handlers.registry import Made, Resource, handles, makes, pairs, pascal, text


@makes("random:index/randomId:RandomId")
def random_id(r: Resource) -> Made:
    prefix = r.inputs.get("prefix") or ""
    r.inputs.ignore("keepers")
    data = secrets.token_bytes(r.inputs["byteLength"])
    url = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    return url, {
        "hex": prefix + data.hex(),
        "dec": prefix + str(int.from_bytes(data, "big")),
        "b64Url": prefix + url,
        "b64Std": prefix + base64.b64encode(data).decode(),
    }


@handles("aws:iam/role:Role", "name", "path", "tags", "permissionsBoundary")
def role(r: Resource) -> Made:
    iam, name = r.aws.client("iam"), r.called()
    trust, rest = (
        text(r.inputs["assumeRolePolicy"]),
        pascal(r.inputs.pick("description", "maxSessionDuration")),
    )
    r.inputs.ignore("forceDetachPolicies")
    if r.old:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        iam.update_role(RoleName=name, **rest)
        return name, dict(r.old)
    place = pascal(r.inputs.pick("path", "permissionsBoundary"))
    made = iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=trust,
        Tags=pairs(r.inputs.get("tags")),
        **rest,
        **place,
    )
    return name, {"name": name, "arn": made["Role"]["Arn"], "uniqueId": made["Role"]["RoleId"]}


@handles("aws:iam/rolePolicy:RolePolicy", "name", "role")
def role_policy(r: Resource) -> Made:
    name, owner = r.called(), r.inputs["role"]
    r.aws.client("iam").put_role_policy(
        RoleName=owner, PolicyName=name, PolicyDocument=text(r.inputs["policy"])
    )
    return f"{owner}:{name}", {"name": name}


@handles(
    "aws:kms/key:Key",
    "keyUsage",
    "customerMasterKeySpec",
    "multiRegion",
    "tags",
    "isEnabled",
    "enableKeyRotation",
)
def key(r: Resource) -> Made:
    kms, document = r.aws.client("kms"), r.inputs.get("policy")
    r.inputs.ignore("deletionWindowInDays", "bypassPolicyLockoutSafetyCheck")
    described = pascal(r.inputs.pick("description"))
    if r.old:
        if "policy" in r.changed:
            kms.put_key_policy(KeyId=r.old["keyId"], PolicyName="default", Policy=text(document))
        if described:
            kms.update_key_description(KeyId=r.old["keyId"], **described)
        return r.old["keyId"], dict(r.old)
    kind = pascal(r.inputs.pick("keyUsage", "multiRegion"))
    if spec := r.inputs.get("customerMasterKeySpec"):
        kind["KeySpec"] = spec
    if document:
        kind["Policy"] = text(document)
    made = kms.create_key(
        **kind, **described, Tags=pairs(r.inputs.get("tags"), "TagKey", "TagValue")
    )["KeyMetadata"]
    if r.inputs.get("enableKeyRotation"):
        kms.enable_key_rotation(KeyId=made["KeyId"])
    if r.inputs.get("isEnabled") is False:
        kms.disable_key(KeyId=made["KeyId"])
    return made["KeyId"], {"keyId": made["KeyId"], "arn": made["Arn"]}


@handles("aws:kms/alias:Alias", "name")
def alias(r: Resource) -> Made:
    kms, name = r.aws.client("kms"), r.called()
    (kms.update_alias if r.old else kms.create_alias)(
        AliasName=name, TargetKeyId=r.inputs["targetKeyId"]
    )
    target = kms.describe_key(KeyId=name)["KeyMetadata"]["Arn"]
    return name, {"name": name, "arn": r.aws.arn("kms", name), "targetKeyArn": target}
