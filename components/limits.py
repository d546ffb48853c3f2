"""What each key may hold: the limit, the reason, and a right value; messages show these texts.

A limit is AWS's, named with the API shape that has it; where one is ours, the text says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from components import tags
from components.checks import (
    Kind,
    boolean,
    checked,
    choice,
    number,
    one_of,
    parsed_text,
    text,
    version,
    whole_number,
)
from rollout.evidence import FALSE_STOPS, PERCENTS
from rollout.job_document import LONGEST_VERSION
from rollout.names import (
    ATTRIBUTE_VALUE,
    OWN_ATTRIBUTES,
    QUARANTINE,
    RING_NAME,
    ROLLBACK,
    SERIAL_NAME,
)
from rollout.release import Window
from rollout.window import next_opening, parse_cron, parse_time

Fields = Mapping[str, Kind[Any]]
"""What the fields of a dataclass may hold, by their names, for `Section.read_record`."""

MAX_EXTRA_TAGS = tags.MAX_TAGS - len(tags.OWN_TAGS)
"""Tags of the configuration; the program's own come on top."""
MAX_DEVICES = 100
"""Declared devices: each is five resources of the stack. Larger fleets are provisioned by claim."""
MAX_ATTRIBUTES = 50 - len(OWN_ATTRIBUTES)
"""A thing with a type takes 50 attributes (CreateThing); the fleet's own come on top."""
MAX_IMAGE = 5 * 1024**3
"""Bytes that one CopyObject copies."""
MAX_FILE = 5 * 1024**2
"""Bytes of an image that is a file: S3 has no SHA-256 of what the provider uploads in parts."""
MAX_SIGNING_KEYS = 3
"""Of a channel: the one that signs, and those still trusted during a rotation. Our own limit."""
MAX_CSR = 4096
"""Characters of a certificate signing request (CreateCertificateFromCsr)."""
MAX_CLAIMS = 10
"""Claim certificates at once: one a factory, and the next one beside it. Ours: the hook's
environment names them."""
MAX_DEVICE_POLICIES = 9
"""Policies beside ours: a certificate takes ten (AttachPolicy)."""
MAX_PROVISIONED_ATTRIBUTES = 1024
"""Characters of JSON of the attributes of a fleet that is provisioned by claim: the hook's
environment (4 KB: CreateFunction) holds them, and the template (10,240 characters:
CreateProvisioningTemplate) their keys."""
MAX_ALARMS = 10
"""In a gate: ten rings' alarms fit one DescribeAlarms (100 names)."""
MAX_COUNT = 1_000_000
"""Upper bound of every count of devices; ours, the largest fleet that the plan is made for."""

ENVIRONMENT: Kind[Literal["dev", "staging", "production"]] = choice(
    "dev",
    "staging",
    "production",
    why="what the stack is for; never inferred from its name",
    hints={"prod": "write production", "development": "write dev", "local": "write dev"},
)
RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545)
RETENTION_YEARS = (731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
RETENTION = one_of(RETENTION_DAYS + RETENTION_YEARS, "retentionInDays of PutRetentionPolicy", 30)
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
    SERIAL_NAME,
    "must be 1 to 98 letters, digits, - and _: with fleet name and suffix it is a thing's or thing"
    " type's name (128: CreateThing, CreateThingType), and a colon would break Pulumi's URNs",
    "gateway",
)
SERIAL = DEVICE_TYPE.with_example("0001")
ATTRIBUTE_KEY = text(
    r"[A-Za-z0-9_.,@/:#-]{1,128}",
    "a key is 1 to 128 letters, digits and _.,@/:#- (AttributeName of CreateThing)",
    "site",
)
ATTRIBUTE = text(
    ATTRIBUTE_VALUE,
    "must be 1 to 800 letters, digits and _.,@/:#=[]- without spaces (AttributeValue, CreateThing)",
    "lab",
)
INITIAL_VERSION = version(
    "1.0.0",
    r"[^+]*",
    "; without +build, for it is a thing's attribute (AttributeValue of CreateThing)",
)
HARDWARE = ATTRIBUTE.with_example("gateway-a1")
FLEET: Fields = {
    "name": FLEET_NAME,
    "hardware": HARDWARE,
    "device_type": DEVICE_TYPE,
    "initial_version": INITIAL_VERSION,
}
CSR_FOLDER = text(r"[A-Za-z0-9_./-]+", "must be a folder inside the repository", "csr")
CLAIM: Fields = {
    "name": text(
        r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?",
        "must be 1 to 32 lower-case letters, digits and hyphens, and neither begin nor end with a"
        " hyphen: it names the certificate in the stack and in its outputs",
        "factory-a",
    ),
    "csr": text(
        r"[\x20-\x7e\r\n]{1,4096}",
        "must be a certificate signing request: its file in the repository, or its PEM",
        "csr/claim-factory-a.csr",
    ),
    "active": boolean(True),
}
DEVICE_POLICY = text(
    r"[A-Za-z0-9_+=,.@-]{1,128}",
    "must be the name of an IoT policy: 1 to 128 letters, digits and _+=,.@- (PolicyName of"
    " AttachPolicy)",
    "telemetry",
)
JOB_ID = "a job id is suffix, channel, ring and sequence within 64 (CreateJob)"
RING = text(
    rf"(?!(?:{ROLLBACK}|{QUARANTINE})$){RING_NAME}",
    f"must be 1 to 20 lower-case letters, digits and hyphens, not {ROLLBACK} or {QUARANTINE},"
    f" which are groups of their own: {JOB_ID}",
    "canary",
)
SHARE: Fields = {
    "name": RING,
    "percent": number(
        0.01, 100, 2, "percent of the fleet; the hash that spreads devices has 10,000 places", 10
    ),
}
RING_SIZE = whole_number(0, MAX_COUNT, "declared devices of the ring", 1)
SUFFIX = text(
    r"[0-9a-f]{8}", "must be 8 lower-case hexadecimal digits, as a RandomId makes them", "0a1b2c3d"
)

# Firmware

SIGNING_KEY = text(r"[a-z0-9]{1,8}", "must be 1 to 8 lower-case letters or digits, in quotes", "2")
VERSION = version(
    "2.1.0",
    rf".{{1,{LONGEST_VERSION}}}",
    f"; of at most {LONGEST_VERSION} characters (ours: what a job document has room for)",
)
FIRMWARE: Fields = {
    "version": VERSION,
    "minimum_version": VERSION,
    "allow_downgrade": boolean(False),
}
DIGEST = text(
    r"[0-9a-f]{64}", "must be a SHA-256 as 64 lower-case hexadecimal digits, in quotes", "0" * 64
)
SIZE = whole_number(1, MAX_IMAGE, "bytes; CopyObject copies at most 5 GB at once", 1_048_576)
S3_IMAGE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9!_.*'()/-]{1,1024})")
IMAGE = checked(
    lambda value: (
        isinstance(value, str)
        and value
        and (not value.startswith("s3:") or S3_IMAGE.fullmatch(value))
    ),
    "must be a file of the repository, or s3://bucket/key (a key of at most 1024 letters, digits"
    " and !_.*'()/-)",
    "firmware/2.1.0.bin",
)

# Rollout

CHANNEL = text(
    r"[a-z0-9][a-z0-9-]{0,19}",
    f"must be 1 to 20 lower-case letters, digits and hyphens: {JOB_ID}",
    "stable",
)
RATE = whole_number(
    1, 1000, "devices a minute; maximumPerMinute and baseRatePerMinute of CreateJob", 100
)
PACE: Fields = {
    "factor": number(1.1, 5, 1, "incrementFactor of CreateJob", 2.0),
    "increase_after": whole_number(
        1, MAX_COUNT, "devices; numberOfNotifiedThings or numberOfSucceededThings of CreateJob", 100
    ),
    "increase_on": choice("succeeded", "notified", why="rateIncreaseCriteria of CreateJob"),
}
ABORT: Fields = {
    "on": choice(
        "FAILED",
        "TIMED_OUT",
        why="failureType of CreateJob's abortConfig",
        hints=dict.fromkeys(
            ("ALL", "REJECTED"),
            "REJECTED is a device's word for not-for-me and no failure, and ALL counts it too",
        ),
    ),
    "percent": number(0.01, 100, 2, "thresholdPercentage of CreateJob's abortConfig", 50),
    "minimum": whole_number(
        1, MAX_COUNT, "devices; minNumberOfExecutedThings of CreateJob's abortConfig", 20
    ),
}


def _check_cron(line: str) -> None:
    parse_cron(line)
    # a year with a 29th of February: what does not open in it never opens
    if next_opening(datetime(2028, 1, 1, tzinfo=UTC), None, Window(cron=line, minutes=1)) is None:
        raise ValueError(f"{line!r} never comes")


WINDOW: Fields = {
    "cron": parsed_text(
        _check_cron, "must be a cron line in UTC, minute hour day month weekday", "0 2 * * *"
    ),
    "minutes": whole_number(1, 1430, "durationInMinutes of CreateJob's maintenance windows", 240),
}
APPROVAL: Fields = {"ring": RING, "sha256": DIGEST}
MANIFEST: Fields = {
    "in_progress_timeout_minutes": whole_number(
        1, 10_080, "minutes, 7 days; inProgressTimeoutInMinutes of CreateJob", 30
    ),
    "presigned_url_seconds": whole_number(
        60, 3600, "seconds; expiresInSec of CreateJob's presignedUrlConfig", 3600
    ),
    "rollback": choice("automatic", "forbidden", why="what a failure does; forbidden halts"),
    "paused": boolean(False),
    "halted": boolean(False),
    "start_at": parsed_text(parse_time, "must be a UTC time", "2026-12-01T02:00:00Z"),
}

# Gates

PERCENT = number(0, 100, 2, "percent of the ring's devices", 90)
MINUTES = number(0, 525_600, 4, "minutes, at most a year", 60)
GATE: Fields = {
    "coverage_percent": PERCENT,
    "success_percent": PERCENT,
    "minimum_succeeded": whole_number(
        1, MAX_COUNT, "devices; a ring never passes for being empty", 1
    ),
    "soak_minutes": MINUTES,
    "approval": boolean(True),
    "deadline_minutes": MINUTES.with_example(1440),
    "on_deadline": choice(
        "hold",
        "advance",
        why="advance waives coverage only",
        hints={"rollback": "a deadline never rolls back: offline devices are no bad release"},
    ),
}
FAILURE_LIMIT: Fields = {
    "percent": number(
        *PERCENTS,
        2,
        "percent of the devices that begin; of more than half it would be no brake",
        10,
    ),
    "false_stop_percent": number(
        *FALSE_STOPS, 2, "chance in percent of stopping a release that keeps the limit", 1
    ),
    "devices": whole_number(1, MAX_COUNT, "failing devices that stop the ring by themselves", 2),
}
ALARM: Fields = {
    "name": text(
        r"[^\x00-\x1f\x7f]{1,255}",
        "must be an alarm's full name, 1 to 255 characters (PutMetricAlarm), or stack: and the"
        " short name of one of the stack's own",
        "stack:controller-errors",
    ),
    "action": choice("hold", "rollback", why="what the alarm does to the release"),
}
