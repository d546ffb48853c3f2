"""Random ids, IAM roles, KMS keys."""

from __future__ import annotations

import secrets

from sandbox.handlers.registry import (
    IdAndOutputs,
    Resource,
    makes,
    makes_and_updates,
    pairs,
    pascal,
)


@makes("random:index/randomId:RandomId")
def random_id(r: Resource) -> IdAndOutputs:
    digits = secrets.token_hex(r.inputs["byteLength"])
    return digits, {"hex": digits}


@makes_and_updates("aws:iam/role:Role", "name", "tags")
def role(r: Resource) -> IdAndOutputs:
    iam, name, trust = r.aws.client("iam"), r.inputs["name"], r.inputs["assumeRolePolicy"]
    settings = pascal(r.inputs.pick("description"))
    if r.old:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        iam.update_role(RoleName=name, **settings)
        return name, r.old
    settings["Tags"] = pairs(r.inputs.get("tags"))
    answer = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, **settings)
    return name, {"arn": answer["Role"]["Arn"]}


@makes_and_updates("aws:iam/rolePolicy:RolePolicy", "name", "role")
def role_policy(r: Resource) -> IdAndOutputs:
    iam, owner, name = r.aws.client("iam"), r.inputs["role"], r.inputs["name"]
    iam.put_role_policy(RoleName=owner, PolicyName=name, PolicyDocument=r.inputs["policy"])
    return f"{owner}:{name}", {}


@makes_and_updates("aws:kms/key:Key", "keyUsage", "customerMasterKeySpec", "tags")
def key(r: Resource) -> IdAndOutputs:
    kms, policy = r.aws.client("kms"), r.inputs["policy"]
    description = pascal(r.inputs.pick("description"))
    r.inputs.ignore("deletionWindowInDays")
    if r.old:
        id_ = r.old["keyId"]
        kms.put_key_policy(KeyId=id_, PolicyName="default", Policy=policy)
        kms.update_key_description(KeyId=id_, **description)
        return id_, r.old
    kind = {"KeyUsage": r.inputs["keyUsage"], "KeySpec": r.inputs["customerMasterKeySpec"]}
    tags = pairs(r.inputs["tags"], "TagKey", "TagValue")
    answer = kms.create_key(Policy=policy, Tags=tags, **kind, **description)["KeyMetadata"]
    return answer["KeyId"], {"keyId": answer["KeyId"], "arn": answer["Arn"]}


@makes("aws:kms/alias:Alias")
def alias(r: Resource) -> IdAndOutputs:
    name = r.inputs["name"]
    r.aws.client("kms").create_alias(AliasName=name, TargetKeyId=r.inputs["targetKeyId"])
    return name, {}
