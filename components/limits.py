"""What each key of the configuration may hold: the limit, the reason, and a right value to show.

A limit is AWS's, named with the API shape that has it; where one is ours, the text says why.
Messages show these texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from components import naming
from components.checks import Kind, choice, number, one_of, parsed, text, version, whole
from rollout.release import Window
from rollout.rings import RESERVED, RING_NAME
from rollout.window import opens_at, parse_cron, parse_time

MAX_TAGS = naming.MAX_TAGS - len(naming.OWN_TAGS)
"""Tags of the configuration; the program's own come on top."""
MAX_DEVICES = 100
"""Declared devices: each is five resources of the stack. Larger fleets are provisioned by claim."""
OWN_ATTRIBUTES = ("hardware", "initialVersion", "serial")
"""Attributes that the fleet itself gives each declared device."""
MAX_ATTRIBUTES = 50 - len(OWN_ATTRIBUTES)
"""A thing with a type takes 50 attributes (CreateThing); the fleet's own come on top."""
MAX_IMAGE = 5 * 1024**3
"""Bytes that one CopyObject copies."""
MAX_FILE = 5 * 1024**2
"""Bytes of an image that is a file: the provider uploads what is larger in parts, and S3 then has
no SHA-256 of the whole."""
MAX_SIGNING_KEYS = 3
"""Of a channel: the one that signs, and those that a rotation leaves believed for a while. Our own
limit."""
MAX_CSR = 4096
"""Characters of a certificate signing request (CreateCertificateFromCsr)."""
MAX_ALARMS = 10
"""In a gate: ten rings' alarms fit one DescribeAlarms (100 names)."""
MAX_COUNT = 1_000_000
"""Devices a least number may ask for; ours, the largest fleet that the plan is made for."""

ENVIRONMENT: Kind[Literal["dev", "staging", "production"]] = choice(
    "dev",
    "staging",
    "production",
    why="what the stack is for; never inferred from its name",
    hints={"prod": "write production", "development": "write dev", "local": "write dev"},
)
RETENTION = one_of(
    (
        1,
        3,
        5,
        7,
        14,
        30,
        60,
        90,
        120,
        150,
        180,
        365,
        400,
        545,
        731,
        1096,
        1827,
        2192,
        2557,
        2922,
        3288,
        3653,
    ),
    "retentionInDays of PutRetentionPolicy",
    30,
)
EMAIL = text(
    r"[^\s@,;<>\"]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    "must be an e-mail address (an SNS subscription)",
    "ops@example.com",
)
TAG_KEY = text(
    r"(?!(?i:aws:))[A-Za-z0-9 _.:/=+@-]{1,128}",
    "a key is 1 to 128 letters, digits, spaces and _.:/=+-@ and does not begin with aws: (TagKey of"
    " IAM, S3, Lambda, IoT)",
    "team",
)
TAG_VALUE = text(
    r"[A-Za-z0-9 _.:/=+@-]{0,256}",
    "a value is 0 to 256 letters, digits, spaces and _.:/=+-@ (TagValue of IAM, S3, Lambda, IoT)",
    "devices",
)

# Fleet

FLEET_NAME = text(
    r"(?!sthree-|amzn-s3-demo-)(?!.*--)[a-z][a-z0-9-]{0,18}[a-z0-9]",
    "must be 2 to 20 lower-case letters, digits and single hyphens, begin with a letter and not end"
    " with a hyphen: with a suffix of 8 and a channel of 20 it becomes IAM role and Lambda names"
    " (64: CreateRole, CreateFunction) and a bucket name (63: CreateBucket, which also keeps"
    " sthree- and amzn-s3-demo- for itself)",
    "iot-fleet",
)
DEVICE_TYPE = text(
    r"[A-Za-z0-9_-]{1,98}",
    "must be 1 to 98 letters, digits, - and _: with fleet name and suffix it is a thing's or thing"
    " type's name (128: CreateThing, CreateThingType), and a colon would break Pulumi's URNs",
    "gateway",
)
SERIAL = DEVICE_TYPE.instead("0001")
ATTRIBUTE_KEY = text(
    r"[A-Za-z0-9_.,@/:#-]{1,128}",
    "a key is 1 to 128 letters, digits and _.,@/:#- (AttributeName of CreateThing)",
    "site",
)
ATTRIBUTE = text(
    r"[A-Za-z0-9_.,@/:#=\[\]-]{1,800}",
    "must be 1 to 800 letters, digits and _.,@/:#=[]- without spaces (AttributeValue of"
    " CreateThing)",
    "lab",
)
INITIAL_VERSION = version(
    "1.0.0",
    r"[^+]*",
    "; without +build, for it is a thing's attribute (AttributeValue of CreateThing)",
)
HARDWARE = ATTRIBUTE.instead("gateway-a1")
CSR_FOLDER = text(r"[A-Za-z0-9_./-]+", "must be a folder inside the repository", "csr")
JOB_ID = "a job id is suffix, channel, ring and sequence within 64 (CreateJob)"
RING = text(
    rf"(?!{RESERVED}$){RING_NAME}",
    f"must be 1 to 20 lower-case letters, digits and hyphens, not {RESERVED} (the groups of"
    f" rollbacks): {JOB_ID}",
    "canary",
)
SHARE = number(
    0.01, 100, 2, "percent of the fleet; the hash that spreads devices has 10,000 places", 10
)

# Firmware

SIGNING_KEY = text(r"[a-z0-9]{1,8}", "must be 1 to 8 lower-case letters or digits, in quotes", "2")
VERSION = version("2.1.0")
DIGEST = text(
    r"[0-9a-f]{64}", "must be a SHA-256 as 64 lower-case hexadecimal digits, in quotes", "0" * 64
)
SIZE = whole(1, MAX_IMAGE, "bytes; CopyObject copies at most 5 GB at once", 1_048_576)
S3_IMAGE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9!_.*'()/-]{1,1024})")


def _image(allowed: str) -> Kind[str]:
    def read(value: Any) -> str:
        if (
            isinstance(value, str)
            and value
            and (not value.startswith("s3:") or S3_IMAGE.fullmatch(value))
        ):
            return value
        raise ValueError(allowed)

    return Kind(read, "firmware/2.1.0.bin", allowed)


IMAGE = _image(
    "must be a file of the repository, or s3://bucket/key (a key of at most 1024 letters, digits"
    " and !_.*'()/-)"
)

# Rollout

CHANNEL = text(
    r"[a-z0-9][a-z0-9-]{0,19}",
    f"must be 1 to 20 lower-case letters, digits and hyphens: {JOB_ID}",
    "stable",
)
RATE = whole(1, 1000, "devices a minute; maximumPerMinute and baseRatePerMinute of CreateJob", 100)
FACTOR = number(1.1, 5, 1, "incrementFactor of CreateJob", 2.0)
INCREASE_AFTER = whole(
    1, MAX_COUNT, "devices; numberOfNotifiedThings or numberOfSucceededThings of CreateJob", 100
)
INCREASE_ON: Kind[Literal["succeeded", "notified"]] = choice(
    "succeeded", "notified", why="rateIncreaseCriteria of CreateJob"
)
ABORT_ON: Kind[Literal["FAILED", "TIMED_OUT"]] = choice(
    "FAILED",
    "TIMED_OUT",
    why="failureType of CreateJob's abortConfig",
    hints=dict.fromkeys(
        ("ALL", "REJECTED"),
        "REJECTED is a device's word for not-for-me and no failure, and ALL counts it too",
    ),
)
ABORT_PERCENT = number(0.01, 100, 2, "thresholdPercentage of CreateJob's abortConfig", 20)
ABORT_MINIMUM = whole(
    1, MAX_COUNT, "devices; minNumberOfExecutedThings of CreateJob's abortConfig", 5
)
TIMEOUT = whole(1, 10_080, "minutes, 7 days; inProgressTimeoutInMinutes of CreateJob", 30)
URL_LIFE = whole(60, 3600, "seconds; expiresInSec of CreateJob's presignedUrlConfig", 3600)
ROLLBACK: Kind[Literal["automatic", "forbidden"]] = choice(
    "automatic", "forbidden", why="what a failure does; forbidden halts"
)
TIME = parsed(parse_time, "must be a UTC time", "2026-12-01T02:00:00Z")
WINDOW_MINUTES = whole(1, 1430, "durationInMinutes of CreateJob's maintenance windows", 240)


def _cron(line: str) -> None:
    parse_cron(line)
    # a year with a 29th of February: what does not open in it never opens
    if opens_at(datetime(2028, 1, 1, tzinfo=UTC), None, Window(cron=line, minutes=1)) is None:
        raise ValueError(f"{line!r} never comes")


CRON = parsed(_cron, "must be a cron line in UTC, minute hour day month weekday", "0 2 * * *")

# Gates

PERCENT = number(0, 100, 2, "percent of the ring's devices", 90)
LEAST = whole(1, MAX_COUNT, "devices; a ring never passes for being empty", 1)
FAILURE_PERCENT = number(
    0,
    99.99,
    2,
    "percent of the finished devices; more than 100 cannot fail, so 100 would be no brake",
    10,
)
FAILURE_MINIMUM = whole(1, MAX_COUNT, "finished devices before the ring can fail", 3)
MINUTES = number(0, 525_600, 4, "minutes, at most a year", 60)
DEADLINE = MINUTES.instead(1440)
ON_DEADLINE: Kind[Literal["hold", "advance"]] = choice(
    "hold",
    "advance",
    why="advance waives coverage only",
    hints={
        "rollback": (
            "a deadline never rolls back, for a weekend of offline devices is not a bad release"
        )
    },
)
ALARM_NAME = text(
    r"[^\x00-\x1f\x7f]{1,255}",
    "must be an alarm's full name, 1 to 255 characters (PutMetricAlarm), or stack: and the short"
    " name of one of the stack's own",
    "stack:controller-errors",
)
ALARM_ACTION: Kind[Literal["hold", "rollback"]] = choice(
    "hold", "rollback", why="what the alarm does to the release"
)
