"""IAM policies, trust policies and resource policies. Pure: each function returns the document as a
dict.

No document allows a wildcard action. Where a resource ends in a wildcard, its reason stands beside
it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pulumi

from components.naming import Location, Names
from rollout.release import control_key, manifest_key, state_key

Document = dict[str, Any]
Statement = dict[str, Any]

METRIC_NAMESPACE = "IotOta"
"""The CloudWatch namespace of the controller's metrics."""

THING = "${iot:Connection.Thing.ThingName}"
"""IoT puts the thing's name in here when the client id is the name of a thing that the certificate
is attached to."""

MAX_DEVICE_POLICY = 2048
"""Characters of an IoT policy, white space not counted (IoT developer guide, policy limits)."""

KEY_ADMINISTRATION = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)
"""What the account may do with the signing key. Neither Sign nor CreateGrant, which would give Sign
away."""


def filled(document: Callable[..., Document], **inputs: pulumi.Input[Any]) -> pulumi.Output[str]:
    """The JSON of a document whose arguments are outputs; unknown in a preview while one of them
    is."""
    return pulumi.Output.all(**inputs).apply(lambda values: text(document(**values)))


def text(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"))


def device_policy(location: Location) -> Document:
    """What a device may do, whichever it is: connect as itself, its own jobs, its own classic
    shadow.

    One policy for all devices, at most MAX_DEVICE_POLICY characters. Subscriptions are listed as
    far as that allows; what is received can only be what was subscribed to, so Receive is bounded
    by the device's own name.
    """

    def topics(kind: str, *tails: str) -> list[str]:
        return [location.arn("iot", f"{kind}/$aws/things/{THING}/{tail}") for tail in tails]

    connect = location.arn("iot", f"client/{THING}")
    attached = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
    # `*` after jobs/ is a job's id, made when a release is offered; at the end it is accepted or
    # rejected
    requests = topics(
        "topic", "jobs/start-next", "jobs/*/get", "jobs/*/update", "shadow/get", "shadow/update"
    )
    answers = topics(
        "topicfilter",
        *(
            "jobs/notify-next",
            "jobs/start-next/*",
            "jobs/*/get/*",
            "jobs/*/update/*",
            "shadow/get/*",
            "shadow/update/*",
        ),
    )
    return _policy(
        _allow(["iot:Connect"], [connect], attached),
        _allow(["iot:Publish"], requests),
        _allow(["iot:Subscribe"], answers),
        _allow(["iot:Receive"], topics("topic", "jobs/*", "shadow/*")),
    )


def service_trust(service: str, location: Location, source_arns: Sequence[str] = ()) -> Document:
    """A role that `service` may assume, only for this account and, where the service says for
    which, these resources."""
    condition: Statement = {"StringEquals": {"aws:SourceAccount": location.account}}
    if source_arns:
        condition["ArnLike"] = {"aws:SourceArn": sorted(source_arns)}
    return _policy(
        {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
            "Condition": condition,
        },
    )


def lambda_trust(location: Location) -> Document:
    """Lambda names the account, and no function, when it assumes a role."""
    return service_trust("lambda.amazonaws.com", location)


def presign_trust(location: Location, names: Names) -> Document:
    """IoT Jobs assumes the role to presign URLs; the wildcard is the ring and sequence in the id of
    a job of this channel."""
    return service_trust("iot.amazonaws.com", location, [location.arn("iot", f"job/{names.jobs}*")])


def presign_policy(bucket_arn: str) -> Document:
    """The wildcard is the image: any release may be the one that a job offers, the last good one
    included."""
    return _policy(_allow(["s3:GetObject"], [f"{bucket_arn}/firmware/*"]))


def event_log_trust(location: Location, names: Names) -> Document:
    """The wildcard is which of the stack's topic rules."""
    return service_trust(
        "iot.amazonaws.com", location, [location.arn("iot", f"rule/{names.rules}*")]
    )


def log_writing_policy(log_group_arns: Sequence[str]) -> Document:
    """Writing into these log groups; the wildcard is the log stream, whose name the writer makes
    up."""
    return _policy(
        _allow(
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [f"{arn}:*" for arn in sorted(log_group_arns)],
        )
    )


def bucket_policy(
    bucket_arn: str, channel: str, controller_role_arn: str, tls_only: bool
) -> Document:
    """Nobody without TLS; nobody but the controller writes or removes its memory, `state.json`."""
    # AWS names a session by its role; a local AWS (MiniStack) by the session itself, which AWS
    # never does here
    session_arn = (
        controller_role_arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/*"
    )
    others = {"ArnNotLike": {"aws:PrincipalArn": [controller_role_arn, session_arn]}}
    return _policy(
        *_tls("s3:*", [bucket_arn, f"{bucket_arn}/*"], tls_only),
        {
            "Sid": "OnlyTheControllerWritesItsState",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"],
            "Resource": f"{bucket_arn}/{state_key(channel)}",
            "Condition": others,
        },
    )


def signing_key_policy(location: Location, controller_role_arn: str) -> Document:
    """The account administers the key and may verify; only the controller signs. `*` in a key
    policy is this key."""
    account = {"AWS": location.account_root}
    return _policy(
        _grant("AccountAdministers", account, KEY_ADMINISTRATION),
        _grant("AccountVerifies", account, ("kms:GetPublicKey", "kms:Verify")),
        _grant("OnlyTheControllerSigns", {"AWS": controller_role_arn}, ("kms:Sign",)),
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
) -> Document:
    """The calls the controller makes, on what it makes them."""
    channel = names.channel
    rings = sorted(ring_groups.values())
    jobs = location.arn("iot", f"job/{names.jobs}*")  # ids are made when a release is offered
    rollbacks = location.arn(
        "iot", f"thinggroup/{names.rollback_groups}*"
    )  # made when a release is rolled back
    things = location.arn("iot", f"thing/{names.prefix}-*")  # devices join after the deployment
    keys = [f"{bucket_arn}/{key(channel)}" for key in (manifest_key, control_key, state_key)]
    return _policy(
        # streams are named by Lambda at run time
        _allow(["logs:CreateLogStream", "logs:PutLogEvents"], [f"{log_group_arn}:*"]),
        # images: any release may have to be checked, the last good one included
        _allow(["s3:GetObject"], [*keys, f"{bucket_arn}/firmware/*"]),
        _allow(["s3:PutObject"], [f"{bucket_arn}/{state_key(channel)}"]),
        # without it S3 answers 403, not 404, for a key that is not there
        _allow(["s3:ListBucket"], [bucket_arn]),
        _allow(["kms:Sign"], [signing_key_arns[0]]),
        # during a rotation: the state that the key before signed is still the newest
        _allow(["kms:Verify"], sorted(signing_key_arns)),
        _allow(["iot:CreateJob"], [jobs, *rings, rollbacks]),
        _allow(
            ["iot:CancelJob", "iot:DescribeJob", "iot:ListJobExecutionsForJob", "iot:UpdateJob"],
            [jobs],
        ),
        _allow(["iot:CreateThingGroup", "iot:DeleteThingGroup"], [rollbacks]),
        _allow(["iot:AddThingToThingGroup"], [rollbacks, things]),
        _allow(["iot:ListThingsInThingGroup"], [*rings, rollbacks]),
        # IAM knows no resource for these two: they list what the account has
        _allow(["iot:ListJobs", "iot:ListThingGroups"], ["*"]),
        _allow(
            ["iam:PassRole"],
            [presign_role_arn],
            {"StringEquals": {"iam:PassedToService": "iot.amazonaws.com"}},
        ),
        # IAM knows no resource for metrics: the condition keeps to the namespace, which AWS always
        # states (MiniStack does not)
        _allow(
            ["cloudwatch:PutMetricData"],
            ["*"],
            {"StringEqualsIfExists": {"cloudwatch:namespace": METRIC_NAMESPACE}},
        ),
        # gates name alarms of other stacks too, and one call asks for several
        _allow(["cloudwatch:DescribeAlarms"], ["*"]),
        _allow(["sqs:SendMessage"], [dead_letters_arn]),
    )


def dead_letters_policy(queue_arn: str, controller_role_arn: str, tls_only: bool) -> Document:
    """Lambda sends as the controller's role; nobody sends or reads without TLS."""
    return _policy(
        _grant("ControllerSends", {"AWS": controller_role_arn}, ("sqs:SendMessage",), queue_arn),
        *_tls("sqs:*", [queue_arn], tls_only),
    )


def notifications_policy(
    topic_arn: str, location: Location, names: Names, tls_only: bool
) -> Document:
    """Only CloudWatch publishes, only for this stack's alarms; the wildcard is which of them."""
    alarms = location.arn("cloudwatch", f"alarm:{names.prefix}-*")
    publish = _grant(
        "AlarmsPublish", {"Service": "cloudwatch.amazonaws.com"}, ("sns:Publish",), topic_arn
    )
    publish["Condition"] = {
        "StringEquals": {"aws:SourceAccount": location.account},
        "ArnLike": {"aws:SourceArn": alarms},
    }
    return _policy(publish, *_tls("sns:Publish", [topic_arn], tls_only))


def _policy(*statements: Statement) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(
    actions: list[str], resources: list[str], condition: Mapping[str, Any] | None = None
) -> Statement:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": dict(condition)} if condition else {})


def _grant(
    sid: str, principal: Mapping[str, str], actions: Sequence[str], resource: str = "*"
) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": dict(principal),
        "Action": list(actions),
        "Resource": resource,
    }


def _tls(action: str, resources: list[str], tls_only: bool) -> list[Statement]:
    if not tls_only:
        return []
    return [
        {
            "Sid": "NobodyWithoutTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": action,
            "Resource": resources,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]
