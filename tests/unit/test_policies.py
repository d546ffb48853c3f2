"""Policies: what they allow, what they refuse, and that they fit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import policies
from components.location import Location
from components.policies import THING
from rollout.names import SERIAL_NAME, FleetNames, Names

LOCATION = Location(
    partition="aws", region="us-east-1", account="123456789012", dns_suffix="amazonaws.com"
)
NAMES = Names(fleet="iot-fleet", suffix="0a1b2c3d", channel="stable")
BUCKET = "arn:aws:s3:::iot-fleet-0a1b2c3d-firmware"
ROLE = "arn:aws:iam::123456789012:role/iot-fleet-0a1b2c3d-stable-controller"
SESSIONS = "arn:aws:sts::123456789012:assumed-role/iot-fleet-0a1b2c3d-stable-controller/*"
IOT = "arn:aws:iot:us-east-1:123456789012"

THINGS = st.from_regex(r"[a-zA-Z0-9:_-]{1,128}", fullmatch=True)
JOBS = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)


def allows(document: Any, action: str, resource: str, thing: str = "") -> bool:
    """Whether an Allow names action and resource; `*` is any text, `/` included, and THING the
    thing's name."""
    return any(
        statement["Effect"] == "Allow"
        and action in statement["Action"]
        and any(
            matches(pattern.replace(THING, thing), resource)
            for pattern in _list(statement["Resource"])
        )
        for statement in document["Statement"]
    )


def matches(pattern: str, resource: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), resource) is not None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


DEVICE = policies.device_policy(LOCATION)
PUBLISHES = (
    "jobs/start-next",
    "jobs/$next/get",
    "jobs/{job}/get",
    "jobs/{job}/update",
    "shadow/get",
    "shadow/update",
)
SUBSCRIBES = (
    "jobs/notify-next",
    *(
        f"jobs/{topic}/{answer}"
        for topic in ("start-next", "$next/get", "{job}/get", "{job}/update")
        for answer in ("accepted", "rejected")
    ),
    *(
        f"shadow/{topic}/{answer}"
        for topic in ("get", "update")
        for answer in ("accepted", "rejected")
    ),
)


def topic(thing: str, tail: str, kind: str = "topic") -> str:
    return f"{IOT}:{kind}/$aws/things/{thing}/{tail}"


@given(THINGS, JOBS)
def test_a_device_may_do_what_an_update_needs(thing: str, job: str) -> None:
    assert allows(DEVICE, "iot:Connect", f"{IOT}:client/{thing}", thing)
    for tail in PUBLISHES:
        assert allows(DEVICE, "iot:Publish", topic(thing, tail.format(job=job)), thing), tail
    for tail in SUBSCRIBES:
        assert allows(
            DEVICE, "iot:Subscribe", topic(thing, tail.format(job=job), "topicfilter"), thing
        ), tail
        assert allows(DEVICE, "iot:Receive", topic(thing, tail.format(job=job)), thing), tail


@given(THINGS, THINGS, JOBS)
def test_a_device_may_do_nothing_as_another(thing: str, other: str, job: str) -> None:
    if thing == other:
        return
    assert not allows(DEVICE, "iot:Connect", f"{IOT}:client/{other}", thing)
    for tail in (*PUBLISHES, *SUBSCRIBES):
        for action, kind in (
            ("iot:Publish", "topic"),
            ("iot:Subscribe", "topicfilter"),
            ("iot:Receive", "topic"),
        ):
            assert not allows(DEVICE, action, topic(other, tail.format(job=job), kind), thing), (
                f"{action} {tail}"
            )


@pytest.mark.parametrize(
    "tail",
    [
        "shadow/delete",
        "shadow/name/other/update",
        "jobs/get",
        "jobs/notify-next",
        "jobs/one/update/accepted",
    ],
)
def test_a_device_publishes_nothing_else(tail: str) -> None:
    assert not allows(DEVICE, "iot:Publish", topic("one", tail), "one")


@pytest.mark.parametrize(
    "filter_",
    [
        "#",
        "$aws/#",
        "$aws/things/#",
        "$aws/things/+/jobs/notify-next",
        "$aws/events/#",
        "$aws/things/one/#",
    ],
)
def test_a_device_subscribes_to_no_filter_that_reaches_others(filter_: str) -> None:
    assert not allows(DEVICE, "iot:Subscribe", f"{IOT}:topicfilter/{filter_}", "one")


def test_a_device_connects_only_with_a_certificate_attached_to_its_thing() -> None:
    connects = [
        statement for statement in DEVICE["Statement"] if statement["Action"] == ["iot:Connect"]
    ]
    assert [statement["Condition"] for statement in connects] == [
        {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
    ]


@pytest.mark.parametrize(
    ("partition", "region"),
    [
        ("aws", "ap-southeast-1"),
        ("aws-cn", "cn-northwest-1"),
        ("aws-us-gov", "us-gov-west-1"),
        ("aws-iso-b", "us-isob-east-1"),
    ],
)
def test_the_device_policy_fits_where_arns_are_longest(partition: str, region: str) -> None:
    location = Location(partition=partition, region=region, account="123456789012", dns_suffix="")
    size = len(re.sub(r"\s", "", policies.to_json(policies.device_policy(location))))
    assert size <= policies.MAX_DEVICE_POLICY, f"{size} characters in {region}"


FLEET = FleetNames(fleet="iot-fleet", suffix="0a1b2c3d")
CLAIM = policies.claim_policy(LOCATION, FLEET)
OWN = "provisioning-templates/iot-fleet-0a1b2c3d-claim/provision"
ASKS = [
    f"{api}/{encoding}"
    for api in ("certificates/create-from-csr", OWN)
    for encoding in ("json", "cbor")
]
ANSWERS = [f"{topic}/{answer}" for topic in ASKS for answer in ("accepted", "rejected")]


@given(st.from_regex(SERIAL_NAME, fullmatch=True))
def test_a_claim_certificate_lets_a_device_register_itself(serial: str) -> None:
    assert allows(CLAIM, "iot:Connect", f"{IOT}:client/claim.{serial}")
    for topic_ in ASKS:
        assert allows(CLAIM, "iot:Publish", f"{IOT}:topic/$aws/{topic_}")
    for topic_ in ANSWERS:
        assert allows(CLAIM, "iot:Subscribe", f"{IOT}:topicfilter/$aws/{topic_}")
        assert allows(CLAIM, "iot:Receive", f"{IOT}:topic/$aws/{topic_}")


@given(THINGS)
def test_a_claim_certificate_connects_as_no_thing(thing: str) -> None:
    """Names of things hold no dot (CreateThing)."""
    assert not allows(CLAIM, "iot:Connect", f"{IOT}:client/{thing}")
    assert not allows(CLAIM, "iot:Connect", f"{IOT}:client/{FLEET.thing(thing)}")


@pytest.mark.parametrize(
    "topic_",
    [
        "certificates/create/json",  # AWS would make the key, and send it
        "certificates/create/json/accepted",
        "provisioning-templates/other/provision/json",
        "provisioning-templates/iot-fleet-0a1b2c3d-claim-2/provision/json",
        "things/iot-fleet-0a1b2c3d-0001/shadow/get",
        "things/iot-fleet-0a1b2c3d-0001/jobs/start-next",
        "events/job/x/canceled",
        "rules/x/y",
    ],
)
def test_a_claim_certificate_does_nothing_else(topic_: str) -> None:
    assert not allows(CLAIM, "iot:Publish", f"{IOT}:topic/$aws/{topic_}")
    assert not allows(CLAIM, "iot:Receive", f"{IOT}:topic/$aws/{topic_}")
    assert not allows(CLAIM, "iot:Subscribe", f"{IOT}:topicfilter/$aws/{topic_}")


@pytest.mark.parametrize("topic_", ANSWERS)
def test_a_claim_certificate_answers_nobody(topic_: str) -> None:
    assert not allows(CLAIM, "iot:Publish", f"{IOT}:topic/$aws/{topic_}")


def test_the_claim_policy_fits_where_arns_and_names_are_longest() -> None:
    location = Location(
        partition="aws-us-gov", region="us-gov-west-1", account="123456789012", dns_suffix=""
    )
    names = FleetNames(fleet="f" * 20, suffix="0a1b2c3d")
    size = len(policies.to_json(policies.claim_policy(location, names)))
    assert size <= policies.MAX_DEVICE_POLICY


def test_iot_assumes_the_provisioning_role_for_this_template_only() -> None:
    assert policies.provisioning_trust(LOCATION, FLEET)["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": "123456789012"},
                "ArnLike": {
                    "aws:SourceArn": [f"{IOT}:provisioningtemplate/iot-fleet-0a1b2c3d-claim"]
                },
            },
        }
    ]


REGISTERS = policies.provisioning_policy(
    LOCATION,
    FLEET,
    [f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-{ring}" for ring in ("canary", "broad")],
    f"{IOT}:thingtype/iot-fleet-0a1b2c3d-gateway",
    ["iot-fleet-0a1b2c3d-device", "telemetry"],
)
CERTIFICATE = f"{IOT}:cert/{'c' * 64}"


@given(st.from_regex(SERIAL_NAME, fullmatch=True))
def test_the_provisioning_role_registers_a_device_of_this_fleet(serial: str) -> None:
    thing = f"{IOT}:thing/{FLEET.thing(serial)}"
    for action in ("CreateThing", "DescribeThing", "UpdateThing", "AddThingToThingGroup"):
        assert allows(REGISTERS, f"iot:{action}", thing), action
    for action in ("AttachPolicy", "AttachThingPrincipal", "UpdateCertificate"):
        assert allows(REGISTERS, f"iot:{action}", CERTIFICATE), action
    assert allows(
        REGISTERS, "iot:AddThingToThingGroup", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-canary"
    )


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("CreateThing", f"{IOT}:thing/other"),
        ("UpdateThing", f"{IOT}:thing/iot-fleet-ffffffff-0001"),
        ("AddThingToThingGroup", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d"),
        ("AddThingToThingGroup", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-stable-rollback-1"),
        ("AttachPolicy", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-canary"),
        ("RemoveThingFromThingGroup", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-canary"),
        ("CreatePolicy", f"{IOT}:policy/iot-fleet-0a1b2c3d-device"),
        ("DeleteThing", f"{IOT}:thing/iot-fleet-0a1b2c3d-0001"),
        ("DeleteCertificate", CERTIFICATE),
        ("DetachPolicy", CERTIFICATE),
        ("DetachThingPrincipal", CERTIFICATE),
        ("RegisterCertificate", "*"),
        ("CreateCertificateFromCsr", "*"),
    ],
)
def test_the_provisioning_role_does_less_than_the_managed_policy(
    action: str, resource: str
) -> None:
    assert not allows(REGISTERS, f"iot:{action}", resource)


def test_the_hook_reads_and_writes_single_records_and_asks_for_groups() -> None:
    table = "arn:aws:dynamodb:us-east-1:123456789012:table/iot-fleet-0a1b2c3d-serials"
    log = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/hook"
    assert policies.hook_policy(LOCATION, FLEET, table, log)["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": [f"{log}:*"],
        },
        {
            "Effect": "Allow",
            "Action": ["dynamodb:GetItem", "dynamodb:PutItem"],
            "Resource": [table],
        },
        {
            "Effect": "Allow",
            "Action": ["iot:ListThingGroupsForThing"],
            "Resource": [f"{IOT}:thing/iot-fleet-0a1b2c3d-*"],
        },
    ]


def test_lambda_assumes_a_role_for_this_account_only() -> None:
    assert policies.lambda_trust(LOCATION)["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
        }
    ]


def test_iot_assumes_the_presign_role_for_jobs_of_this_channel_only() -> None:
    assert policies.presign_trust(LOCATION, NAMES)["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": "123456789012"},
                "ArnLike": {"aws:SourceArn": [f"{IOT}:job/0a1b2c3d-stable-*"]},
            },
        }
    ]


def test_a_presigned_url_reads_images_only() -> None:
    assert policies.presign_policy(BUCKET)["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": [f"{BUCKET}/firmware/*"],
        }
    ]


def test_the_bucket_refuses_what_is_not_encrypted_and_any_other_hand_on_the_state() -> None:
    memory = [
        f"{BUCKET}/channels/stable/{key}" for key in ("state.json", "preflight.json", "ways-back/*")
    ]
    assert policies.bucket_policy(BUCKET, "stable", ROLE, tls_only=True, protect=False)[
        "Statement"
    ] == [
        {
            "Sid": "NobodyWithoutTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [BUCKET, f"{BUCKET}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Sid": "OnlyTheControllerWritesItsState",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObject"],
            "Resource": memory,
            "Condition": {"ArnNotLike": {"aws:PrincipalArn": [ROLE, SESSIONS]}},
        },
    ]


def test_the_rule_about_the_state_stays_where_there_is_no_tls() -> None:
    kept = policies.bucket_policy(BUCKET, "stable", ROLE, tls_only=False, protect=False)
    assert [s["Sid"] for s in kept["Statement"]] == ["OnlyTheControllerWritesItsState"]


def test_where_the_stack_is_protected_nobody_removes_a_version_but_the_manifests() -> None:
    document = policies.bucket_policy(BUCKET, "stable", ROLE, tls_only=False, protect=True)
    assert document["Statement"][1:] == [
        {
            "Sid": "NobodyRemovesAVersion",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObjectVersion"],
            "Resource": [
                f"{BUCKET}/firmware/*",
                f"{BUCKET}/channels/stable/control.json",
                f"{BUCKET}/channels/stable/state.json",
            ],
        },
        {
            "Sid": "NobodyStopsVersions",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:PutBucketVersioning"],
            "Resource": BUCKET,
        },
    ]


def test_only_the_controller_signs() -> None:
    document = policies.signing_key_policy(LOCATION, ROLE)
    signers = [s["Principal"] for s in document["Statement"] if "kms:Sign" in s["Action"]]
    assert signers == [{"AWS": ROLE}]
    account = [
        action
        for s in document["Statement"]
        if s["Principal"] != {"AWS": ROLE}
        for action in s["Action"]
    ]
    assert "kms:CreateGrant" not in account, "a grant would give Sign away"
    # without it AWS refuses the key: nobody could ever change its policy (MalformedPolicyDocument)
    assert "kms:PutKeyPolicy" in account
    assert {"kms:GetPublicKey", "kms:Verify", "kms:ScheduleKeyDeletion"} <= set(account)


RINGS = {
    "broad": f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-broad",
    "canary": f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-canary",
}
JOB = f"{IOT}:job/0a1b2c3d-stable-canary-1764000000"
ROLLBACK = f"{IOT}:thinggroup/iot-fleet-0a1b2c3d-stable-rollback-1764000000"
DEVICE_ARN = f"{IOT}:thing/named-by-somebody-else"
LOG = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/c"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
KEY = "arn:aws:kms:us-east-1:123456789012:key/k"
TICK = "arn:aws:events:us-east-1:123456789012:rule/iot-fleet-0a1b2c3d-stable-tick"
PRESIGN = "arn:aws:iam::123456789012:role/presign"
CONTROLLER = policies.controller_policy(LOCATION, NAMES, BUCKET, LOG, QUEUE, PRESIGN, [KEY], RINGS)

CALLS = [
    ("s3:GetObject", f"{BUCKET}/channels/stable/release.json"),
    ("s3:GetObject", f"{BUCKET}/channels/stable/control.json"),
    ("s3:GetObject", f"{BUCKET}/channels/stable/state.json"),
    ("s3:GetObject", f"{BUCKET}/firmware/2.1.0/{'0' * 64}.bin"),
    ("s3:GetObjectVersion", f"{BUCKET}/channels/stable/state.json"),
    ("s3:GetObjectVersion", f"{BUCKET}/firmware/2.1.0/{'0' * 64}.bin"),
    ("s3:GetObject", f"{BUCKET}/channels/stable/ways-back/1764000000/roster.json"),
    ("s3:PutObject", f"{BUCKET}/channels/stable/state.json"),
    ("s3:PutObject", f"{BUCKET}/channels/stable/ways-back/1764000000/things-07.json.gz"),
    ("s3:GetObject", f"{BUCKET}/channels/stable/preflight.json"),
    ("s3:PutObject", f"{BUCKET}/channels/stable/preflight.json"),
    ("s3:ListBucket", BUCKET),
    ("s3:ListBucketVersions", BUCKET),
    ("kms:Sign", KEY),
    ("kms:Verify", KEY),
    *(
        (f"iot:{call}", JOB)
        for call in (
            "CreateJob",
            "DescribeJob",
            "UpdateJob",
            "CancelJob",
            "GetJobDocument",
            "ListJobExecutionsForJob",
        )
    ),
    ("iot:CreateJob", RINGS["canary"]),
    ("iot:CreateJob", ROLLBACK),
    ("iot:ListJobs", "*"),
    ("iot:CreateThingGroup", ROLLBACK),
    ("iot:DeleteThingGroup", ROLLBACK),
    ("iot:ListThingGroups", "*"),
    ("iot:AddThingToThingGroup", ROLLBACK),
    ("iot:AddThingToThingGroup", DEVICE_ARN),
    ("iot:DescribeThing", DEVICE_ARN),
    ("iot:ListThingGroupsForThing", DEVICE_ARN),
    ("iot:ListThingPrincipals", DEVICE_ARN),
    ("iot:ListAttachedPolicies", "*"),
    ("iot:ListTargetsForPolicy", f"{IOT}:policy/{NAMES.device_policy}"),
    ("iot:ListThingsInThingGroup", ROLLBACK),
    ("iot:ListThingsInThingGroup", RINGS["broad"]),
    ("iam:PassRole", PRESIGN),
    ("cloudwatch:PutMetricData", "*"),
    ("cloudwatch:DescribeAlarms", "*"),
    ("events:DescribeRule", TICK),
    ("sqs:SendMessage", QUEUE),
    ("logs:CreateLogStream", f"{LOG}:log-stream:2026/11/24/[$LATEST]0"),
    ("logs:PutLogEvents", f"{LOG}:log-stream:2026/11/24/[$LATEST]0"),
]
REFUSED = [
    ("s3:PutObject", f"{BUCKET}/channels/stable/release.json"),
    ("s3:PutObject", f"{BUCKET}/channels/stable/control.json"),
    ("s3:PutObject", f"{BUCKET}/firmware/2.1.0/{'0' * 64}.bin"),
    ("s3:GetObject", f"{BUCKET}/channels/other/state.json"),
    ("s3:GetObjectVersion", f"{BUCKET}/channels/stable/control.json"),
    ("s3:DeleteObjectVersion", f"{BUCKET}/channels/stable/state.json"),
    ("s3:PutObject", f"{BUCKET}/channels/other/ways-back/1764000000/roster.json"),
    ("s3:DeleteObject", f"{BUCKET}/channels/stable/ways-back/1764000000/roster.json"),
    ("s3:DeleteObject", f"{BUCKET}/channels/stable/state.json"),
    ("s3:PutObject", f"{BUCKET}/channels/other/preflight.json"),
    ("iot:CancelJob", f"{IOT}:job/ffffffff-stable-canary-1"),
    ("iot:CancelJob", f"{IOT}:job/0a1b2c3d-other-canary-1"),
    ("iot:CreateJob", f"{IOT}:thinggroup/iot-fleet-0a1b2c3d"),
    ("iot:CreateJob", DEVICE_ARN),
    ("iot:AddThingToThingGroup", RINGS["canary"]),
    ("iot:DeleteThingGroup", RINGS["canary"]),
    ("iam:PassRole", ROLE),
    ("events:DescribeRule", f"{TICK}-2"),
    ("events:DescribeRule", "arn:aws:events:us-east-1:123456789012:rule/other/" + NAMES.tick),
]


@pytest.mark.parametrize(("action", "resource"), CALLS)
def test_the_controller_may_make_its_calls(action: str, resource: str) -> None:
    assert allows(CONTROLLER, action, resource)


@pytest.mark.parametrize(("action", "resource"), REFUSED)
def test_the_controller_may_not(action: str, resource: str) -> None:
    assert not allows(CONTROLLER, action, resource)


def test_the_controller_has_no_other_rights() -> None:
    granted = {action for statement in CONTROLLER["Statement"] for action in statement["Action"]}
    assert granted == {action for action, _ in CALLS}


def test_the_controller_lists_its_states_passes_its_role_to_iot_and_has_one_namespace() -> None:
    conditions = {
        tuple(s["Action"]): s["Condition"] for s in CONTROLLER["Statement"] if "Condition" in s
    }
    assert conditions == {
        ("s3:ListBucketVersions",): {"StringEquals": {"s3:prefix": NAMES.keys.state}},
        ("iam:PassRole",): {"StringEquals": {"iam:PassedToService": "iot.amazonaws.com"}},
        ("cloudwatch:PutMetricData",): {"StringEqualsIfExists": {"cloudwatch:namespace": "IotOta"}},
    }


def test_the_controllers_policy_fits_an_inline_policy_with_ten_rings_of_the_longest_names() -> None:
    names = Names(fleet="f" * 20, suffix="0" * 8, channel="c" * 20)
    rings = {
        f"{n}": LOCATION.arn("iot", f"thinggroup/{names.ring_group('r' * 20)}") for n in range(10)
    }
    document = policies.controller_policy(
        LOCATION, names, BUCKET, LOG, QUEUE, PRESIGN, [KEY], rings
    )
    assert len(policies.to_json(document)) <= 10_240, (
        "PutRolePolicy: all inline policies of a role together"
    )


def test_only_alarms_of_this_stack_notify() -> None:
    topic_arn = "arn:aws:sns:us-east-1:123456789012:t"
    publish, tls = policies.notifications_policy(topic_arn, LOCATION, NAMES, tls_only=True)[
        "Statement"
    ]
    assert publish == {
        "Sid": "AlarmsPublish",
        "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": ["sns:Publish"],
        "Resource": topic_arn,
        "Condition": {
            "StringEquals": {"aws:SourceAccount": "123456789012"},
            "ArnLike": {
                "aws:SourceArn": (
                    "arn:aws:cloudwatch:us-east-1:123456789012:alarm:iot-fleet-0a1b2c3d-*"
                )
            },
        },
    }
    assert (tls["Effect"], tls["Action"], tls["Resource"]) == ("Deny", "sns:Publish", [topic_arn])


def test_only_the_controller_sends_dead_letters() -> None:
    grant, tls = policies.dead_letters_policy(QUEUE, ROLE, tls_only=True)["Statement"]
    assert (grant["Principal"], grant["Action"], grant["Resource"]) == (
        {"AWS": ROLE},
        ["sqs:SendMessage"],
        QUEUE,
    )
    assert (tls["Effect"], tls["Resource"]) == ("Deny", [QUEUE])


def test_documents_are_the_same_text_whatever_the_order_of_their_arguments() -> None:
    other = policies.controller_policy(
        LOCATION, NAMES, BUCKET, LOG, QUEUE, PRESIGN, [KEY], dict(reversed(RINGS.items()))
    )
    assert policies.to_json(other) == policies.to_json(CONTROLLER)
    groups = ["arn:b", "arn:a"]
    assert policies.log_writing_policy(groups) == policies.log_writing_policy(groups[::-1])
    assert json.loads(policies.to_json(CONTROLLER)) == CONTROLLER
