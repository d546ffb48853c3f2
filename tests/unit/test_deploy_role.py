"""docs/deploy-role.json: what whoever deploys needs, for every type of resource, and no more."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

from tests.unit.harness import ROOT, STACKS, program, whole

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "deploy-role.json").read_text())

IOT_TAGS = "iot:TagResource iot:UntagResource iot:ListTagsForResource"
S3_TAGS = "s3:TagResource s3:UntagResource s3:ListTagsForResource"
ALARM_TAGS = "cloudwatch:TagResource cloudwatch:UntagResource cloudwatch:ListTagsForResource"

CALLS = {
    # type: what the provider calls to make, read, change and delete it
    "aws:cloudwatch/dashboard:Dashboard": (
        "cloudwatch:PutDashboard cloudwatch:GetDashboard cloudwatch:DeleteDashboards"
    ),
    "aws:cloudwatch/eventRule:EventRule": (
        "events:PutRule events:DescribeRule events:DeleteRule events:TagResource"
        " events:UntagResource events:ListTagsForResource"
    ),
    "aws:cloudwatch/eventTarget:EventTarget": (
        "events:PutTargets events:ListTargetsByRule events:RemoveTargets"
    ),
    "aws:cloudwatch/logGroup:LogGroup": (
        "logs:CreateLogGroup logs:DescribeLogGroups logs:PutRetentionPolicy logs:DeleteLogGroup"
        " logs:TagResource logs:UntagResource logs:ListTagsForResource"
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": (
        "cloudwatch:PutMetricAlarm cloudwatch:DescribeAlarms cloudwatch:DeleteAlarms " + ALARM_TAGS
    ),
    "aws:dynamodb/table:Table": (
        "dynamodb:CreateTable dynamodb:DescribeTable dynamodb:UpdateTable dynamodb:DeleteTable"
        " dynamodb:DescribeContinuousBackups dynamodb:UpdateContinuousBackups"
        " dynamodb:DescribeTimeToLive dynamodb:TagResource dynamodb:UntagResource"
        " dynamodb:ListTagsOfResource"
    ),
    "aws:iam/role:Role": (
        "iam:CreateRole iam:GetRole iam:UpdateRole iam:UpdateRoleDescription"
        " iam:UpdateAssumeRolePolicy iam:DeleteRole iam:TagRole iam:UntagRole iam:ListRolePolicies"
        " iam:ListAttachedRolePolicies iam:ListInstanceProfilesForRole"
    ),
    "aws:iam/rolePolicy:RolePolicy": "iam:PutRolePolicy iam:GetRolePolicy iam:DeleteRolePolicy",
    "aws:iot/certificate:Certificate": (
        "iot:CreateCertificateFromCsr iot:CreateKeysAndCertificate iot:DescribeCertificate"
        " iot:UpdateCertificate iot:DeleteCertificate"
    ),
    "aws:iot/eventConfigurations:EventConfigurations": (
        "iot:UpdateEventConfigurations iot:DescribeEventConfigurations"
    ),
    "aws:iot/indexingConfiguration:IndexingConfiguration": (
        "iot:UpdateIndexingConfiguration iot:GetIndexingConfiguration"
    ),
    "aws:iot/policy:Policy": (
        "iot:CreatePolicy iot:GetPolicy iot:ListPolicyVersions iot:CreatePolicyVersion"
        f" iot:DeletePolicyVersion iot:DeletePolicy {IOT_TAGS}"
    ),
    "aws:iot/policyAttachment:PolicyAttachment": (
        "iot:AttachPolicy iot:ListAttachedPolicies iot:DetachPolicy"
    ),
    "aws:iot/provisioningTemplate:ProvisioningTemplate": (
        "iot:CreateProvisioningTemplate iot:DescribeProvisioningTemplate"
        " iot:UpdateProvisioningTemplate iot:CreateProvisioningTemplateVersion"
        f" iot:DeleteProvisioningTemplate iam:PassRole {IOT_TAGS}"
    ),
    "aws:iot/thing:Thing": ("iot:CreateThing iot:DescribeThing iot:UpdateThing iot:DeleteThing"),
    "aws:iot/thingGroup:ThingGroup": (
        "iot:CreateThingGroup iot:DescribeThingGroup iot:UpdateThingGroup iot:DeleteThingGroup "
        + IOT_TAGS
    ),
    "aws:iot/thingGroupMembership:ThingGroupMembership": (
        "iot:AddThingToThingGroup iot:ListThingGroupsForThing iot:RemoveThingFromThingGroup"
    ),
    "aws:iot/thingPrincipalAttachment:ThingPrincipalAttachment": (
        "iot:AttachThingPrincipal iot:ListThingPrincipals iot:ListThingPrincipalsV2"
        " iot:DetachThingPrincipal"
    ),
    "aws:iot/thingType:ThingType": (
        "iot:CreateThingType iot:DescribeThingType iot:UpdateThingType iot:DeprecateThingType"
        f" iot:DeleteThingType {IOT_TAGS}"
    ),
    "aws:iot/topicRule:TopicRule": (
        "iot:CreateTopicRule iot:GetTopicRule iot:ListTopicRules iot:ReplaceTopicRule"
        f" iot:DeleteTopicRule iam:PassRole {IOT_TAGS}"
    ),
    "aws:kms/alias:Alias": "kms:CreateAlias kms:ListAliases kms:UpdateAlias kms:DeleteAlias",
    "aws:kms/key:Key": (
        "kms:CreateKey kms:DescribeKey kms:GetKeyPolicy kms:PutKeyPolicy kms:GetKeyRotationStatus"
        " kms:ListResourceTags kms:TagResource kms:UntagResource kms:EnableKey kms:DisableKey"
        " kms:UpdateKeyDescription kms:ScheduleKeyDeletion kms:CancelKeyDeletion"
    ),
    "aws:lambda/function:Function": (
        "lambda:CreateFunction lambda:GetFunction lambda:GetFunctionConfiguration"
        " lambda:GetFunctionCodeSigningConfig lambda:ListVersionsByFunction"
        " lambda:UpdateFunctionCode lambda:UpdateFunctionConfiguration lambda:DeleteFunction"
        " lambda:TagResource lambda:UntagResource lambda:ListTags iam:PassRole"
    ),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": (
        "lambda:PutFunctionEventInvokeConfig lambda:GetFunctionEventInvokeConfig"
        " lambda:DeleteFunctionEventInvokeConfig"
    ),
    "aws:lambda/invocation:Invocation": "lambda:InvokeFunction",
    "aws:lambda/permission:Permission": (
        "lambda:AddPermission lambda:GetPolicy lambda:RemovePermission"
    ),
    "aws:s3/bucket:Bucket": (
        "s3:CreateBucket s3:ListBucket s3:DeleteBucket s3:GetBucketAcl s3:GetBucketCORS"
        " s3:GetBucketLogging s3:GetBucketObjectLockConfiguration s3:GetBucketPolicy"
        " s3:GetBucketRequestPayment s3:GetBucketTagging s3:PutBucketTagging s3:GetBucketVersioning"
        " s3:GetBucketWebsite s3:GetBucketLocation s3:GetAccelerateConfiguration"
        " s3:GetEncryptionConfiguration s3:GetLifecycleConfiguration"
        " s3:GetReplicationConfiguration s3:ListBucketVersions s3:DeleteObject"
        f" s3:DeleteObjectVersion {S3_TAGS}"
    ),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "s3:PutLifecycleConfiguration s3:GetLifecycleConfiguration"
    ),
    "aws:s3/bucketNotification:BucketNotification": (
        "s3:PutBucketNotification s3:GetBucketNotification"
    ),
    "aws:s3/bucketObjectv2:BucketObjectv2": (
        "s3:PutObject s3:GetObject s3:GetObjectVersion s3:GetObjectTagging s3:PutObjectTagging"
        " s3:DeleteObject s3:DeleteObjectVersion s3:ListBucketVersions"
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": (
        "s3:PutBucketOwnershipControls s3:GetBucketOwnershipControls"
    ),
    "aws:s3/bucketPolicy:BucketPolicy": (
        "s3:PutBucketPolicy s3:GetBucketPolicy s3:DeleteBucketPolicy"
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": (
        "s3:PutBucketPublicAccessBlock s3:GetBucketPublicAccessBlock"
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:PutEncryptionConfiguration s3:GetEncryptionConfiguration"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": "s3:PutBucketVersioning s3:GetBucketVersioning",
    "aws:s3/objectCopy:ObjectCopy": (
        "s3:PutObject s3:GetObject s3:GetObjectTagging s3:PutObjectTagging s3:DeleteObject"
    ),
    "aws:sns/topic:Topic": (
        "sns:CreateTopic sns:GetTopicAttributes sns:SetTopicAttributes sns:DeleteTopic"
        " sns:TagResource sns:UntagResource sns:ListTagsForResource"
    ),
    "aws:sns/topicPolicy:TopicPolicy": "sns:SetTopicAttributes sns:GetTopicAttributes",
    "aws:sns/topicSubscription:TopicSubscription": (
        "sns:Subscribe sns:GetSubscriptionAttributes sns:ListSubscriptionsByTopic sns:Unsubscribe"
    ),
    "aws:sqs/queue:Queue": (
        "sqs:CreateQueue sqs:GetQueueUrl sqs:GetQueueAttributes sqs:SetQueueAttributes"
        " sqs:DeleteQueue sqs:TagQueue sqs:UntagQueue sqs:ListQueueTags"
    ),
    "aws:sqs/queuePolicy:QueuePolicy": "sqs:SetQueueAttributes sqs:GetQueueAttributes",
}
LOOKUPS = {
    "aws:index/getCallerIdentity:getCallerIdentity": "sts:GetCallerIdentity",
    "aws:index/getPartition:getPartition": "",
    "aws:index/getRegion:getRegion": "",
    "aws:iot/getEndpoint:getEndpoint": "iot:DescribeEndpoint",
    "aws:kms/getPublicKey:getPublicKey": "kms:GetPublicKey",
}
PULUMI = "s3:GetObject s3:PutObject s3:DeleteObject s3:ListBucket s3:GetBucketLocation"
SECRETS = "kms:Decrypt kms:Encrypt"
"""Of the state in a bucket, and of its secrets by a KMS key."""

NO_RESOURCE = {
    # what is allowed on everything: IAM knows no narrower resource, or it only lists
    "cloudwatch:DescribeAlarms",
    "iot:CreateCertificateFromCsr",
    "iot:CreateKeysAndCertificate",
    "iot:DescribeEndpoint",
    "iot:DescribeEventConfigurations",
    "iot:GetIndexingConfiguration",
    "iot:ListAttachedPolicies",
    "iot:ListTopicRules",
    "iot:UpdateEventConfigurations",
    "iot:UpdateIndexingConfiguration",
    "kms:CreateKey",
    "kms:ListAliases",
    "logs:DescribeLogGroups",
    "sns:GetSubscriptionAttributes",
    "sns:Unsubscribe",
    "sts:GetCallerIdentity",
}


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allowed() -> set[str]:
    return {action for each in DOCUMENT["Statement"] for action in listed(each["Action"])}


@cache
def declared() -> frozenset[str]:
    """Every type of the stacks, of one with an image in S3 too."""
    image = {"image": "s3://images/a.bin", "version": "2.1.0", "sha256": "ab" * 32, "size": 1}
    graphs = [*map(whole, STACKS), program("dev", overrides={"firmware": image})]
    types = {r.type for graph in graphs for r in graph if r.custom}
    return frozenset(kind for kind in types if kind.startswith("aws:"))


def test_there_are_calls_for_every_type_of_the_stacks() -> None:
    assert declared() == set(CALLS), "write down what the provider calls for it"
    assert whole("prod").lookups == set(LOOKUPS)


@pytest.mark.parametrize("kind", CALLS)
def test_the_role_may_make_every_call_of_a_type(kind: str) -> None:
    assert set(CALLS[kind].split()) - allowed() == set()


def test_the_role_may_do_no_more() -> None:
    needed = " ".join([*CALLS.values(), *LOOKUPS.values(), PULUMI, SECRETS]).split()
    assert allowed() == set(needed)


def test_no_action_is_a_wildcard_and_everything_is_only_where_iam_knows_no_narrower() -> None:
    assert [action for action in allowed() if "*" in action] == []
    anywhere = [each for each in DOCUMENT["Statement"] if each["Resource"] == "*"]
    assert {action for each in anywhere for action in listed(each["Action"])} == NO_RESOURCE
    assert {each["Effect"] for each in DOCUMENT["Statement"]} == {"Allow"}


@pytest.mark.parametrize("stack", STACKS)
def test_every_name_of_the_stacks_is_one_that_the_role_may_make(stack: str) -> None:
    """By its ARN: placeholders are filled in as the file's reader would."""
    region = "us-east-1"
    fills = {
        "REGION": "[a-z0-9-]+",
        "ACCOUNT": "[0-9]{12}",
        "FLEET_UNDERSCORED": "iot_fleet",
        "FLEET": "iot-fleet",
        r"\*": ".*",
    }
    patterns = []
    for each in DOCUMENT["Statement"]:
        for arn in listed(each["Resource"]):
            pattern = re.escape(arn).replace(r"\-", "-")
            for word, fill in fills.items():
                pattern = pattern.replace(word, fill)
            patterns += [pattern] if arn != "*" else []
    services = {
        "Table": "dynamodb:{r}:{a}:table/{name}",
        "Role": "iam::{a}:role/{name}",
        "Policy": "iot:{r}:{a}:policy/{name}",
        "ProvisioningTemplate": "iot:{r}:{a}:provisioningtemplate/{name}",
        "Thing": "iot:{r}:{a}:thing/{name}",
        "ThingGroup": "iot:{r}:{a}:thinggroup/{name}",
        "ThingType": "iot:{r}:{a}:thingtype/{name}",
        "TopicRule": "iot:{r}:{a}:rule/{name}",
        "Function": "lambda:{r}:{a}:function:{name}",
        "LogGroup": "logs:{r}:{a}:log-group:{name}",
        "Queue": "sqs:{r}:{a}:{name}",
        "Topic": "sns:{r}:{a}:{name}",
        "EventRule": "events:{r}:{a}:rule/{name}",
        "MetricAlarm": "cloudwatch:{r}:{a}:alarm:{name}",
        "Alias": "kms:{r}:{a}:{name}",
    }
    for kind, form in services.items():
        for resource in whole(stack).of(kind):
            name = resource.inputs["name"]
            arn = "arn:aws:" + form.format(r=region, a="123456789012", name=name)
            assert any(re.fullmatch(pattern, arn) for pattern in patterns), f"{arn} is not allowed"


def test_it_fits_a_role() -> None:
    """The policies of a role have 10,240 characters in all, without white space (PutRolePolicy);
    the longest names take the places of the placeholders."""
    text = re.sub(r"\s", "", json.dumps(DOCUMENT, separators=(",", ":")))
    longest = {
        "FLEET_UNDERSCORED": "f" * 20,
        "FLEET": "f" * 20,
        "ACCOUNT": "0" * 12,
        "REGION": "ap-southeast-1",
        "STATE-BUCKET": "b" * 63,
        "YOUR-IMAGES": "b" * 63,
        "SECRETS-KEY-ARN": "k" * 90,
    }
    for word, fill in longest.items():
        assert word in text
        text = text.replace(word, fill)
    assert len(text) < 10_240
