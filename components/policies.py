"""IAM policies, trust policies and resource policies. Pure: each function returns a dict.

No document allows a wildcard action. A resource that ends in a wildcard has its reason beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pulumi

from components.location import Location
from rollout.names import (
    CLAIM_CLIENT,
    FIRMWARE_PREFIX,
    METRIC_NAMESPACE,
    ChannelKeys,
    FleetNames,
    Names,
)

Document = dict[str, Any]
Statement = dict[str, Any]

THING = "${iot:Connection.Thing.ThingName}"
"""IoT puts the thing's name in here, if the client id names a thing of the certificate."""

MAX_DEVICE_POLICY = 2048
"""Characters of an IoT policy, white space not counted (IoT developer guide, policy limits)."""

KEY_ADMINISTRATION = (
    *("kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey"),
    *("kms:DisableKey", "kms:EnableKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus"),
    *("kms:ListGrants", "kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy"),
    *("kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource"),
    *("kms:UpdateAlias", "kms:UpdateKeyDescription"),
)
"""What the account may do with the signing key. Not Sign; CreateGrant would give it away."""


def fill_in(document: Callable[..., Document], **inputs: pulumi.Input[Any]) -> pulumi.Output[str]:
    """The JSON of a document with outputs as arguments; unknown as long as one of them is."""
    return pulumi.Output.all(**inputs).apply(lambda values: to_json(document(**values)))


def to_json(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"))


def device_policy(location: Location) -> Document:
    """What any device may do: connect as itself, its own jobs, its own classic shadow.

    One policy for all devices, at most MAX_DEVICE_POLICY characters: subscriptions are listed as
    far as that allows. What is received was subscribed to, so Receive names the device only.
    """

    def topics(kind: str, *tails: str) -> list[str]:
        return [location.arn("iot", f"{kind}/$aws/things/{THING}/{tail}") for tail in tails]

    # `*` after jobs/ is a job's id, made with a release; at the end it is accepted or rejected
    requests = ("jobs/start-next", "jobs/*/get", "jobs/*/update", "shadow/get", "shadow/update")
    answers = ("jobs/notify-next", *(f"{request}/*" for request in requests))
    return _policy(
        _statement(
            ["iot:Connect"],
            [location.arn("iot", f"client/{THING}")],
            condition={"Bool": {"iot:Connection.Thing.IsAttached": "true"}},
        ),
        _statement(["iot:Publish"], topics("topic", *requests)),
        _statement(["iot:Subscribe"], topics("topicfilter", *answers)),
        _statement(["iot:Receive"], topics("topic", "jobs/*", "shadow/*")),
    )


def claim_policy(location: Location, names: FleetNames) -> Document:
    """What a claim certificate may do: get a certificate for a key of the device's own, and
    register it by this fleet's template, under a client id that no thing can have.

    The wildcards are the serial in the client id, and the payload's format and the answer
    (`json/accepted`). AWS IoT answers to the client that asked only.
    """
    api = ("$aws/certificates/create-from-csr", template_topic(names))
    requests = [f"{topic}/{encoding}" for topic in api for encoding in ("cbor", "json")]

    def topics(kind: str, names: Sequence[str]) -> list[str]:
        return [location.arn("iot", f"{kind}/{name}") for name in names]

    answers = [f"{topic}/*" for topic in api]
    return _policy(
        _statement(["iot:Connect"], [location.arn("iot", f"client/{CLAIM_CLIENT}*")]),
        _statement(["iot:Publish"], topics("topic", requests)),
        _statement(["iot:Subscribe"], topics("topicfilter", answers)),
        _statement(["iot:Receive"], topics("topic", answers)),
    )


def template_topic(names: FleetNames) -> str:
    """Where a device asks to be registered (RegisterThing of the device provisioning MQTT API)."""
    return f"$aws/provisioning-templates/{names.provisioning_template}/provision"


def template_arn(location: Location, names: FleetNames) -> str:
    """Of the fleet's provisioning template, before it is there."""
    return location.arn("iot", f"provisioningtemplate/{names.provisioning_template}")


def provisioning_trust(location: Location, names: FleetNames) -> Document:
    """IoT registers devices, by this template only."""
    return service_trust("iot.amazonaws.com", location, [template_arn(location, names)])


def provisioning_policy(
    location: Location,
    names: FleetNames,
    ring_arns: Sequence[str],
    thing_type_arn: str,
    policy_names: Sequence[str],
) -> Document:
    """What RegisterThing does by this template: of AWSIoTThingsRegistration no more than that.

    See https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsiot.html
    """
    # the wildcard is the serial
    things = location.arn("iot", f"thing/{names.thing('*')}")
    # AWS names a certificate when a device asks for it
    certificates = location.arn("iot", "cert/*")
    named = [location.arn("iot", f"policy/{name}") for name in sorted(policy_names)]
    return _policy(
        _statement(
            [
                "iot:CreateThing",
                "iot:DescribeThing",
                "iot:ListThingGroupsForThing",
                "iot:ListThingPrincipals",
                "iot:UpdateThing",
            ],
            [things],
        ),
        _statement(
            ["iot:AddThingToThingGroup", "iot:UpdateThingGroupsForThing"],
            [*sorted(ring_arns), things],
        ),
        _statement(["iot:DescribeThingGroup"], sorted(ring_arns)),
        _statement(["iot:DescribeThingType"], [thing_type_arn]),
        # IAM knows AttachPolicy by what the policy is attached to
        _statement(
            [
                "iot:AttachPolicy",
                "iot:AttachPrincipalPolicy",
                "iot:DescribeCertificate",
                "iot:ListPrincipalThings",
                "iot:UpdateCertificate",
            ],
            [certificates],
        ),
        # AWS asks for the certificate and states the thing, MiniStack asks for the thing
        _statement(
            ["iot:AttachThingPrincipal"],
            [certificates, things],
            condition={"ArnLikeIfExists": {"iot:thingArn": things}},
        ),
        _statement(["iot:GetPolicy", "iot:ListTargetsForPolicy"], named),
        # IAM knows no resource for these: three list, and RegisterThing can do no more than the
        # calls above
        _statement(
            [
                "iot:ListAttachedPolicies",
                "iot:ListPolicyPrincipals",
                "iot:ListPrincipalPolicies",
                "iot:RegisterThing",
            ],
            ["*"],
        ),
    )


def hook_policy(
    location: Location, names: FleetNames, table_arn: str, log_group_arn: str
) -> Document:
    """The calls of the pre-provisioning hook."""
    return _policy(
        # streams are named by Lambda at run time
        _statement(["logs:CreateLogStream", "logs:PutLogEvents"], [f"{log_group_arn}:*"]),
        _statement(["dynamodb:GetItem", "dynamodb:PutItem"], [table_arn]),
        # which ring a device is in that comes again; the wildcard is its serial
        _statement(
            ["iot:ListThingGroupsForThing"], [location.arn("iot", f"thing/{names.thing('*')}")]
        ),
    )


def service_trust(service: str, location: Location, source_arns: Sequence[str] = ()) -> Document:
    """A role that `service` may assume, only for this account and, if any, for `source_arns`."""
    condition: dict[str, Any] = {"StringEquals": {"aws:SourceAccount": location.account}}
    if source_arns:
        condition["ArnLike"] = {"aws:SourceArn": sorted(source_arns)}
    return _policy(
        _statement("sts:AssumeRole", principal={"Service": service}, condition=condition)
    )


def lambda_trust(location: Location) -> Document:
    """Lambda names the account, and no function, when it assumes a role."""
    return service_trust("lambda.amazonaws.com", location)


def presign_trust(location: Location, names: Names) -> Document:
    """IoT Jobs presigns URLs; the wildcard is ring and sequence in the id of a channel's job."""
    jobs = location.arn("iot", f"job/{names.job_prefix}*")
    return service_trust("iot.amazonaws.com", location, [jobs])


def presign_policy(bucket_arn: str) -> Document:
    """The wildcard is the image: a job may offer any release, the last good one included. It names
    one version of the object."""
    images = [f"{bucket_arn}/{FIRMWARE_PREFIX}*"]
    return _policy(_statement(["s3:GetObject", "s3:GetObjectVersion"], images))


def event_log_trust(location: Location, names: FleetNames) -> Document:
    """The wildcard is which of the stack's topic rules."""
    rules = location.arn("iot", f"rule/{names.topic_rule_prefix}*")
    return service_trust("iot.amazonaws.com", location, [rules])


def log_writing_policy(log_group_arns: Sequence[str]) -> Document:
    """Writing into log groups; the wildcard is the log stream, whose name the writer makes up."""
    actions = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    return _policy(_statement(actions, [f"{arn}:*" for arn in sorted(log_group_arns)]))


def bucket_policy(
    bucket_arn: str, channel: str, controller_role_arn: str, tls_only: bool, protect: bool
) -> Document:
    """Nobody without TLS; nobody but the controller writes or removes its memory: `state.json`,
    `preflight.json`, and whom each way back must bring back (the wildcard is which of them).

    Where the stack is protected nobody removes a version of an image, of the memory or of the
    orders, or stops that there are versions: a job names a version, and what was lost is found in
    them. (The manifest's go with the resource that writes it.)
    """
    # AWS names a session by its role; a local AWS (MiniStack) by the session itself, which AWS
    # never does here
    session = controller_role_arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
    keys = ChannelKeys(channel)
    others = {"ArnNotLike": {"aws:PrincipalArn": [controller_role_arn, f"{session}/*"]}}
    return _policy(
        *_tls("s3:*", [bucket_arn, f"{bucket_arn}/*"], tls_only),
        _statement(
            ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"],
            _memory(bucket_arn, keys),
            sid="OnlyTheControllerWritesItsState",
            effect="Deny",
            principal="*",
            condition=others,
        ),
        *(_keep_versions(bucket_arn, keys) if protect else ()),
    )


def _memory(bucket_arn: str, keys: ChannelKeys) -> list[str]:
    """What the controller alone writes. Ways back are made with a release: the wildcard is which
    of them."""
    return [f"{bucket_arn}/{key}" for key in (keys.state, keys.preflight, f"{keys.ways_back}*")]


def _keep_versions(bucket_arn: str, keys: ChannelKeys) -> list[Statement]:
    kept = [f"{bucket_arn}/{key}" for key in (f"{FIRMWARE_PREFIX}*", keys.orders, keys.state)]
    return [
        _statement(
            ["s3:DeleteObjectVersion"],
            kept,
            sid="NobodyRemovesAVersion",
            effect="Deny",
            principal="*",
        ),
        _statement(
            ["s3:PutBucketVersioning"],
            bucket_arn,
            sid="NobodyStopsVersions",
            effect="Deny",
            principal="*",
        ),
    ]


def signing_key_policy(location: Location, controller_role_arn: str) -> Document:
    """The account administers and verifies; only the controller signs. `*` means this key."""

    def grant(sid: str, principal: str, *actions: str) -> Statement:
        return _statement(list(actions), "*", sid=sid, principal={"AWS": principal})

    return _policy(
        grant("AccountAdministers", location.account_root, *KEY_ADMINISTRATION),
        grant("AccountVerifies", location.account_root, "kms:GetPublicKey", "kms:Verify"),
        grant("OnlyTheControllerSigns", controller_role_arn, "kms:Sign"),
    )


def controller_policy(
    location: Location,
    names: Names,
    bucket_arn: str,
    log_group_arn: str,
    dead_letters_arn: str,
    presign_role_arn: str,
    signing_key_arns: Sequence[str],
    ring_groups: Mapping[str, str],
    image_key_arn: str | None = None,
) -> Document:
    """The calls the controller makes, on what it makes them. `image_key_arn` is the key that signs
    images, where job documents hold their signatures."""
    rings, keys = sorted(ring_groups.values()), names.keys
    # jobs and groups of rollbacks are made with a release; devices may have any name
    jobs = location.arn("iot", f"job/{names.job_prefix}*")
    rollbacks = location.arn("iot", f"thinggroup/{names.rollback_group_prefix}*")
    things = location.arn("iot", "thing/*")
    # a ring that has left the stack, too: whether devices are left in its group
    groups = location.arn("iot", f"thinggroup/{names.fleet_group}-*")
    read = [f"{bucket_arn}/{key}" for key in (keys.manifest, keys.orders)]
    memory = _memory(bucket_arn, keys)
    # MiniStack names the default bus in a rule's ARN, AWS does not
    ticks = [location.arn("events", f"rule/{bus}{names.tick}") for bus in ("", "default/")]
    return _policy(
        # streams are named by Lambda at run time
        _statement(["logs:CreateLogStream", "logs:PutLogEvents"], [f"{log_group_arn}:*"]),
        # images: any release may have to be checked, the last good one included
        _statement(["s3:GetObject"], [*read, *memory, f"{bucket_arn}/{FIRMWARE_PREFIX}*"]),
        # one version of an image, which a job names; earlier states, where the newest is lost
        _statement(
            ["s3:GetObjectVersion"],
            [f"{bucket_arn}/{keys.state}", f"{bucket_arn}/{FIRMWARE_PREFIX}*"],
        ),
        _statement(["s3:PutObject"], memory),
        # without it S3 answers 403, not 404, for a key that is not there
        _statement(["s3:ListBucket"], [bucket_arn]),
        # whether the state lies on the version that it replaced
        _statement(
            ["s3:ListBucketVersions"],
            [bucket_arn],
            condition={"StringEquals": {"s3:prefix": keys.state}},
        ),
        _statement(
            ["kms:Sign"], [signing_key_arns[0], *([image_key_arn] if image_key_arn else [])]
        ),
        # during a rotation: the state that the key before signed is still the newest
        _statement(["kms:Verify"], sorted(signing_key_arns)),
        _statement(["iot:CreateJob"], [jobs, *rings, rollbacks]),
        _statement(
            [
                "iot:CancelJob",
                "iot:DescribeJob",
                "iot:GetJobDocument",
                "iot:ListJobExecutionsForJob",
                "iot:UpdateJob",
            ],
            [jobs],
        ),
        _statement(["iot:CreateThingGroup", "iot:DeleteThingGroup"], [rollbacks]),
        # only into a rollback's group: AWS checks the group as well as the thing
        _statement(["iot:AddThingToThingGroup"], [rollbacks, things]),
        # whether a thing is there, and could go back
        _statement(
            ["iot:DescribeThing", "iot:ListThingGroupsForThing", "iot:ListThingPrincipals"],
            [things],
        ),
        _statement(["iot:ListThingsInThingGroup"], sorted({*rings, groups})),
        # whether devices still use the stack when it is destroyed
        _statement(
            ["iot:ListTargetsForPolicy"], [location.arn("iot", f"policy/{names.device_policy}")]
        ),
        # IAM knows no resource for these three: they list, and change nothing
        _statement(["iot:ListAttachedPolicies", "iot:ListJobs", "iot:ListThingGroups"], ["*"]),
        _statement(
            ["iam:PassRole"],
            [presign_role_arn],
            condition={"StringEquals": {"iam:PassedToService": "iot.amazonaws.com"}},
        ),
        # IAM knows no resource for metrics, but a namespace: AWS always states it, MiniStack never
        _statement(
            ["cloudwatch:PutMetricData"],
            ["*"],
            condition={"StringEqualsIfExists": {"cloudwatch:namespace": METRIC_NAMESPACE}},
        ),
        # gates name alarms of other stacks too, and one call asks for several
        _statement(["cloudwatch:DescribeAlarms"], ["*"]),
        # whether the tick is gone, as it is when the stack is destroyed
        _statement(["events:DescribeRule"], ticks),
        _statement(["sqs:SendMessage"], [dead_letters_arn]),
    )


def dead_letters_policy(queue_arn: str, controller_role_arn: str, tls_only: bool) -> Document:
    """Lambda sends as the controller's role; nobody sends or reads without TLS."""
    role = {"AWS": controller_role_arn}
    return _policy(
        _statement(["sqs:SendMessage"], queue_arn, sid="ControllerSends", principal=role),
        *_tls("sqs:*", [queue_arn], tls_only),
    )


def notifications_policy(
    topic_arn: str, location: Location, names: Names, tls_only: bool
) -> Document:
    """Only CloudWatch publishes, only for this stack's alarms; the wildcard is which of them."""
    alarms = location.arn("cloudwatch", f"alarm:{names.fleet_group}-*")
    return _policy(
        _statement(
            ["sns:Publish"],
            topic_arn,
            sid="AlarmsPublish",
            principal={"Service": "cloudwatch.amazonaws.com"},
            condition={
                "StringEquals": {"aws:SourceAccount": location.account},
                "ArnLike": {"aws:SourceArn": alarms},
            },
        ),
        *_tls("sns:Publish", [topic_arn], tls_only),
    )


def _policy(*statements: Statement) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _statement(
    action: str | list[str],
    resource: str | list[str] | None = None,
    *,
    sid: str | None = None,
    effect: str = "Allow",
    principal: str | dict[str, str] | None = None,
    condition: dict[str, Any] | None = None,
) -> Statement:
    """Only a policy of a resource has a `principal`, only a trust policy no `resource`."""
    who = {"Sid": sid, "Effect": effect, "Principal": principal}
    what = {"Action": action, "Resource": resource, "Condition": condition}
    return {key: value for key, value in {**who, **what}.items() if value is not None}


def _tls(action: str, resources: list[str], tls_only: bool) -> list[Statement]:
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    deny = _statement(
        action,
        resources,
        sid="NobodyWithoutTls",
        effect="Deny",
        principal="*",
        condition=condition,
    )
    return [deny] if tls_only else []
