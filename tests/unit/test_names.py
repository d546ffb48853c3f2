"""Names and tags stay within AWS's limits, whatever the configuration may hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import limits
from components.location import Location
from components.tags import MAX_TAGS, tags
from rollout.names import ALARMS, EVENT_LOGS, PROVISIONING_ALARMS, ROLLBACK, ChannelKeys, Names

FLEETS = st.from_regex(r"[a-z]([a-z0-9]|-(?=[a-z0-9])){0,18}[a-z0-9]", fullmatch=True)
WORDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,19}", fullmatch=True)
SUFFIXES = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
LONGEST = Names(fleet="f" * 20, suffix="0" * 8, channel="c" * 20)

AWS = {
    # what, its name at its longest, AWS's pattern
    "bucket (CreateBucket)": (LONGEST.bucket, r"(?!xn--)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "function (CreateFunction)": (LONGEST.controller, r"[a-zA-Z0-9-_]{1,64}"),
    "controller role (CreateRole)": (LONGEST.controller, r"[\w+=,.@-]{1,64}"),
    "presign role (CreateRole)": (LONGEST.presign_role, r"[\w+=,.@-]{1,64}"),
    "event log role (CreateRole)": (LONGEST.event_log_role, r"[\w+=,.@-]{1,64}"),
    "queue (CreateQueue)": (LONGEST.dead_letters, r"[a-zA-Z0-9_-]{1,80}"),
    "event rule (PutRule)": (LONGEST.tick, r"[.\-_A-Za-z0-9]{1,64}"),
    "key alias (CreateAlias)": (
        LONGEST.signing_alias("12345678"),
        r"(?!alias/aws/)alias/[a-zA-Z0-9/_-]{1,250}",
    ),
    "topic (CreateTopic)": (LONGEST.notifications, r"[a-zA-Z0-9_-]{1,256}"),
    "dashboard (PutDashboard)": (LONGEST.fleet_group, r"[A-Za-z0-9_-]{1,255}"),
    "thing type (CreateThingType)": (LONGEST.thing_type("t" * 98), r"[a-zA-Z0-9:_-]{1,128}"),
    "thing (CreateThing)": (LONGEST.thing("s" * 98), r"[a-zA-Z0-9:_-]{1,128}"),
    "fleet group (CreateThingGroup)": (LONGEST.fleet_group, r"[a-zA-Z0-9:_-]{1,128}"),
    "ring group (CreateThingGroup)": (LONGEST.ring_group("r" * 20), r"[a-zA-Z0-9:_-]{1,128}"),
    "device policy (CreatePolicy)": (LONGEST.device_policy, r"[\w+=,.@-]{1,128}"),
    "function log (CreateLogGroup)": (LONGEST.controller_log, r"[.\-_/#A-Za-z0-9]{1,512}"),
    **{
        f"log {events} (CreateLogGroup)": (LONGEST.event_log(events), r"[.\-_/#A-Za-z0-9]{1,512}")
        for events in EVENT_LOGS
    },
    **{
        f"alarm {short} (PutMetricAlarm)": (LONGEST.alarm(short), r"[ -~]{1,255}")
        for short in (*ALARMS, *PROVISIONING_ALARMS)
    },
    "quarantine group (CreateThingGroup)": (LONGEST.quarantine_group, r"[a-zA-Z0-9:_-]{1,128}"),
    "table (CreateTable)": (LONGEST.serials_table, r"[a-zA-Z0-9_.-]{3,255}"),
    "template (CreateProvisioningTemplate)": (LONGEST.provisioning_template, r"[\w-]{1,36}"),
    "claim policy (CreatePolicy)": (LONGEST.claim_policy, r"[\w+=,.@-]{1,128}"),
    "provisioning role (CreateRole)": (LONGEST.provisioning_role, r"[\w+=,.@-]{1,64}"),
    "hook, and its role (CreateFunction)": (LONGEST.provisioning_hook, r"[a-zA-Z0-9-_]{1,64}"),
    "hook log (CreateLogGroup)": (LONGEST.provisioning_hook_log, r"[.\-_/#A-Za-z0-9]{1,512}"),
    "topic rule (CreateTopicRule)": (
        LONGEST.topic_rule("thing_type_association_events"),
        r"[a-zA-Z0-9_]{1,128}",
    ),
}


@pytest.mark.parametrize("what", AWS)
def test_the_longest_name_is_one_that_aws_takes(what: str) -> None:
    name, pattern = AWS[what]
    assert re.fullmatch(pattern, name), (
        f"{what}: {name!r} of {len(name)} characters does not match {pattern}"
    )


@given(FLEETS, SUFFIXES, WORDS)
def test_every_name_says_which_fleet_and_stack_it_belongs_to(
    fleet: str, suffix: str, channel: str
) -> None:
    names = Names(fleet=fleet, suffix=suffix, channel=channel)
    of_stack = [
        names.bucket,
        names.device_policy,
        names.notifications,
        names.thing("1"),
        names.ring_group("r"),
        names.event_log("x"),
    ]
    of_channel = [
        names.controller,
        names.controller_log,
        names.dead_letters,
        names.presign_role,
        names.signing_alias("1"),
        names.tick,
    ]
    assert all(f"{fleet}-{suffix}" in name for name in of_stack + of_channel)
    assert all(f"{suffix}-{channel}-" in name for name in of_channel)


@given(FLEETS, SUFFIXES, WORDS, WORDS, st.integers(1, 9_999_999_999))
def test_the_prefixes_in_policies_fit_the_names_the_controller_makes(
    fleet: str, suffix: str, channel: str, ring: str, sequence: int
) -> None:
    names = Names(fleet=fleet, suffix=suffix, channel=channel)
    assert names.job(ring, sequence).startswith(names.job_prefix)
    assert names.split_job(names.job(ring, sequence)) == (ring, sequence)
    group = names.rollback_group(sequence)
    assert group.startswith(names.rollback_group_prefix)
    assert names.rollback_sequence(group) == sequence


@pytest.mark.parametrize(
    "job",
    [
        "",
        "0a1b2c3d-stable-5",
        "0a1b2c3d-stable-canary-",
        "0a1b2c3d-stable-canary-1x",
        "0a1b2c3d-stable-canary-\u00b2",
        "0a1b2c3d-other-canary-5",
        "ffffffff-stable-canary-5",
    ],
)
def test_a_job_of_others_has_no_ring_and_no_sequence(job: str) -> None:
    names = Names(fleet="iot-fleet", suffix="0a1b2c3d", channel="stable")
    assert names.split_job(job) is None
    assert names.job_sequence(job) is None
    assert names.rollback_sequence(job) is None


@pytest.mark.parametrize("digits", ["007", "0", "5-child", "\u0665", "-5", ""])
def test_a_group_that_no_rollback_names_so_is_of_nobody(digits: str) -> None:
    prefix = LONGEST.rollback_group_prefix
    assert LONGEST.rollback_sequence(f"{prefix}{digits}") is None


def test_the_longest_names_still_make_a_job_id() -> None:
    for ring in ("r" * 20, ROLLBACK):
        assert len(LONGEST.job(ring, 9_999_999_999)) <= 64


def test_the_keys_of_a_channel_are_the_contract_of_its_bucket() -> None:
    keys = ChannelKeys("stable")
    assert (keys.manifest, keys.orders, keys.state) == (
        "channels/stable/release.json",
        "channels/stable/control.json",
        "channels/stable/state.json",
    )
    assert keys.roster(1764000000) == "channels/stable/ways-back/1764000000/roster.json"
    assert keys.roster_sheet(1764000000, 7) == (
        "channels/stable/ways-back/1764000000/things-07.json.gz"
    )


@pytest.mark.parametrize("short", ALARMS)
def test_a_gate_finds_the_stacks_own_alarms(short: str) -> None:
    assert LONGEST.gate_alarm(f"stack:{short}") == LONGEST.alarm(short)
    assert LONGEST.gate_alarm("others-alarm") == "others-alarm"


@given(FLEETS)
def test_the_settings_take_the_fleet_names_these_tests_are_made_of(fleet: str) -> None:
    assert fleet.startswith(("sthree-", "amzn-s3-demo-")) or limits.FLEET_NAME.read(fleet) == fleet


def test_tags_are_the_programs_own_and_the_stacks() -> None:
    assert tags("dev", "iot-fleet", {"team": "devices"}) == {
        "environment": "dev",
        "fleet": "iot-fleet",
        "project": "iot-ota",
        "team": "devices",
    }


def test_a_stack_cannot_change_the_programs_own_tags() -> None:
    assert tags("dev", "iot-fleet", {"project": "other"})["project"] == "iot-ota"


def test_ten_tags_are_the_most() -> None:
    seven = {f"key{number}": "value" for number in range(7)}
    assert len(tags("dev", "iot-fleet", seven)) == MAX_TAGS == 10
    with pytest.raises(ValueError, match="an S3 object takes 10"):
        tags("dev", "iot-fleet", seven | {"one": "more"})


def test_arns_are_made_of_the_location() -> None:
    china = Location(
        partition="aws-cn",
        region="cn-north-1",
        account="123456789012",
        dns_suffix="amazonaws.com.cn",
    )
    assert china.arn("iot", "rule/x") == "arn:aws-cn:iot:cn-north-1:123456789012:rule/x"
    assert china.account_root == "arn:aws-cn:iam::123456789012:root"


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-central-1", "eu-central-1.console.aws.amazon.com"),
        ("aws-cn", "cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_console_links_follow_the_partition(partition: str, region: str, host: str) -> None:
    location = Location(partition=partition, region=region, account="123456789012", dns_suffix="")
    assert (
        location.console("alarmsV2:") == f"https://{host}/cloudwatch/home?region={region}#alarmsV2:"
    )
