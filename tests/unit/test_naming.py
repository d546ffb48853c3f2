"""Names and tags stay within AWS's limits, whatever the configuration may hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import limits, naming
from components.naming import Location, Names
from rollout.document import alarm_name, job_id, rollback_group

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
    "dashboard (PutDashboard)": (LONGEST.prefix, r"[A-Za-z0-9_-]{1,255}"),
    "thing type (CreateThingType)": (LONGEST.thing_type("t" * 98), r"[a-zA-Z0-9:_-]{1,128}"),
    "thing (CreateThing)": (LONGEST.thing("s" * 98), r"[a-zA-Z0-9:_-]{1,128}"),
    "fleet group (CreateThingGroup)": (LONGEST.prefix, r"[a-zA-Z0-9:_-]{1,128}"),
    "ring group (CreateThingGroup)": (LONGEST.ring_group("r" * 20), r"[a-zA-Z0-9:_-]{1,128}"),
    "device policy (CreatePolicy)": (LONGEST.device_policy, r"[\w+=,.@-]{1,128}"),
    "function log (CreateLogGroup)": (LONGEST.controller_log, r"[.\-_/#A-Za-z0-9]{1,512}"),
    **{
        f"log {events} (CreateLogGroup)": (LONGEST.event_log(events), r"[.\-_/#A-Za-z0-9]{1,512}")
        for events in naming.EVENT_LOGS
    },
    **{
        f"alarm {short} (PutMetricAlarm)": (LONGEST.alarm(short), r"[ -~]{1,255}")
        for short in naming.ALARMS
    },
    "topic rule (CreateTopicRule)": (
        LONGEST.rule("thing_type_association_events"),
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
    assert job_id(suffix, channel, ring, sequence).startswith(names.jobs)
    assert rollback_group(names.prefix, channel, sequence).startswith(names.rollback_groups)


@pytest.mark.parametrize("short", naming.ALARMS)
def test_a_gate_finds_the_stacks_own_alarms(short: str) -> None:
    assert alarm_name(LONGEST.prefix, f"stack:{short}") == LONGEST.alarm(short)


@given(FLEETS)
def test_the_settings_take_the_fleet_names_these_tests_are_made_of(fleet: str) -> None:
    assert fleet.startswith(("sthree-", "amzn-s3-demo-")) or limits.FLEET_NAME.read(fleet) == fleet


def test_tags_are_the_programs_own_and_the_stacks() -> None:
    assert naming.tags("dev", "iot-fleet", {"team": "devices"}) == {
        "environment": "dev",
        "fleet": "iot-fleet",
        "project": "iot-ota",
        "team": "devices",
    }


def test_a_stack_cannot_change_the_programs_own_tags() -> None:
    assert naming.tags("dev", "iot-fleet", {"project": "other"})["project"] == "iot-ota"


def test_ten_tags_are_the_most() -> None:
    seven = {f"key{number}": "value" for number in range(7)}
    assert len(naming.tags("dev", "iot-fleet", seven)) == naming.MAX_TAGS == 10
    with pytest.raises(ValueError, match="an S3 object takes 10"):
        naming.tags("dev", "iot-fleet", seven | {"one": "more"})


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
