"""Every name, key and number that two parts of the project agree on. Pure.

Every name in AWS holds the fleet's name and the stack's random suffix, so that two stacks share an
account and a person sees what belongs together. A fleet's name has at most 20 characters, a
channel's 20, a ring's 20, a suffix 8: the longest names made of them stay below what AWS takes (a
bucket 63, a role or function 64, a job id 64, a topic rule 128).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

RING_NAME = r"[a-z0-9][a-z0-9-]{0,19}"
"""At most 20 characters: a job id is `<8>-<channel, 20>-<ring, 20>-<10 digits>` and IoT allows 64
(CreateJob)."""
SERIAL_NAME = r"[A-Za-z0-9_-]{1,98}"
"""A serial number: with fleet name and suffix it is a thing's name, of which IoT takes 128
characters (CreateThing), and a colon would break Pulumi's URNs."""
ROLLBACK = "rollback"
"""Ring name of the group that a rollback makes for exposed devices; no ring of a fleet has it."""

QUARANTINE = "quarantine"
"""What the name of the group of devices that were cut off ends with; no ring of a fleet has it."""
CLAIM_CLIENT = "claim."
"""What the client id of a device that has only a claim certificate begins with; its serial follows.
A thing's name holds no dot, so no such client is a thing."""

ATTRIBUTE_VALUE = r"[A-Za-z0-9_.,@/:#=\[\]-]{1,800}"
"""What an attribute of a thing may hold (AttributeValue of CreateThing)."""
OWN_ATTRIBUTES = ("hardware", "initialVersion", "serial")
"""Attributes that the fleet itself gives each device."""

FIRMWARE_PREFIX = "firmware/"
"""Where images lie in the channel's bucket."""
CHANNELS_PREFIX = "channels/"
"""Where manifests, orders and states lie in the channel's bucket."""

MANIFEST_BYTES = 262_144
"""The most that is read of a `release.json`: ten rings with all they can have take a tenth of it.
Whoever may write an object must not be able to stop who reads it."""
ORDERS_BYTES = 262_144
"""The most that is read of a `control.json`: some 250 orders."""
STATE_BYTES = 4_194_304
"""The most that is read of a `state.json`, and the most that is written."""
ORDER_CHARACTERS = 500
"""The longest text in `control.json`. A reason also stands in the controller's decisions and in a
job's comment (CancelJob: 2028)."""
ORDER_ITEMS = 1_000
"""The longest list in `control.json`."""
STATE_VERSIONS = 20
"""Earlier versions of `state.json` that are looked through for one that can be believed."""
FOREIGN_A_RUN = 50
"""Jobs that the state does not know whose documents are looked at in one run, the oldest first:
GetJobDocument takes 10 a second, and who floods the prefix with jobs of theirs can neither hide an
older one nor hold a run up."""
PROOFS = 500
"""Jobs whose documents are looked at when a lost state is recovered."""
KEPT_APPROVALS = 50
"""Approvals in `control.json`; a new one takes the place of the oldest."""
LAST_SECOND = 253_402_214_399
"""In seconds since 1970: the last moment but a day that datetime can say, in any time zone. No
time in `control.json` is later, and no sequence greater, as they are times too."""

CONTROLLER_SECONDS = 300
"""The controller function's time-out."""
CONTROLLER_MEGABYTES = 1024
"""The controller function's memory. A way back of 900,000 devices takes 240, with the longest names
350 (`make bench`); and Lambda gives processor time by memory: 98 calls and 8 pages of lists a
second need a quarter of a processor, this is a little over half of one."""
PLACED_A_MINUTE = 5000
"""Devices that a way back is taken to put into its group in a minute. AddThingToThingGroup takes
100 a second, of which it uses nine tenths."""
PLACED_A_SECOND = 98
"""Devices put into a way back's group: AddThingToThingGroup takes 100 a second of the whole account
(Service Quotas), and at all 100 the waits for those it refuses cost more than two."""
SILENT_MINUTES = 5
"""A controller that did not run for so long is down: its heartbeat alarm and `ops` say so."""

STACK_DESTROYED = "STACK_DESTROYED"
"""reasonCode of a job that the controller cancelled because its stack is destroyed."""
NOT_WANTED = "NOT_WANTED"
"""reasonCode of a job that the controller cancelled."""
OPERATOR_HALT = "OPERATOR_HALT"
"""reasonCode of a job that `python -m ops halt` cancelled."""

METRIC_NAMESPACE = "IotOta"
"""The CloudWatch namespace of the controller's metrics."""


class ChannelMetric(StrEnum):
    """The controller's own metrics, by the dimensions Suffix and Channel."""

    HEARTBEAT = "Heartbeat"
    HELD = "Held"
    RELEASE_FAILED = "ReleaseFailed"
    ROLLBACK_FAILED = "RollbackFailed"
    MANIFEST_REFUSED = "ManifestRefused"
    FORGED = "Forged"


class ProvisioningMetric(StrEnum):
    """What the pre-provisioning hook counts, by the dimension Suffix."""

    ALLOWED = "ClaimsAllowed"
    REFUSED = "ClaimsRefused"


RING_METRICS = {
    "DevicesQueued": "queued",
    "DevicesInProgress": "in_progress",
    "DevicesSucceeded": "succeeded",
    "DevicesFailed": "failed",
    "DevicesTimedOut": "timed_out",
    "DevicesRejected": "rejected",
}
"""Metric of a ring (dimensions Suffix, Channel, Ring), and the field of Counts that it shows."""

ALARMS = (
    "ring-failing",
    "no-heartbeat",
    "controller-errors",
    "dead-letters",
    "refused-manifest",
    "rollback-failed",
    "person-needed",
    "forged",
)
"""The stack's own alarms; a gate names them `stack:<name>`."""
NO_GATE_ALARMS = frozenset({"forged", "person-needed", "ring-failing", "rollback-failed"})
"""A gate that waits for a person would wait for itself, and one that waits for a way back would
keep the release out that mends the fleet; who forges jobs or calls must not hold a release by
it."""
GATE_ALARMS = tuple(short for short in ALARMS if short not in NO_GATE_ALARMS)
"""Those that a gate may watch."""

PROVISIONING_ALARMS = ("provisioning-errors", "provisioning-refused")
"""The stack's own alarms on its pre-provisioning hook, where it has one; no gate watches them."""

EVENT_LOGS = ("job-events", "device-registry-events", "thing-group-events")
"""Log groups of the fleet's events."""


class Variable(StrEnum):
    """Environment variables of the controller function."""

    BUCKET = "BUCKET"
    CHANNEL = "CHANNEL"
    DECLARED_DEVICES = "DECLARED_DEVICES"
    """How many devices the stack itself declares; only where it may go although devices use it."""
    DNS_SUFFIX = "DNS_SUFFIX"
    FLEET = "FLEET"
    IMAGE_KEY_ARN = "IMAGE_KEY_ARN"
    """Only where job documents hold signatures of images."""
    MANIFEST_SHA256 = "MANIFEST_SHA256"
    PRESIGN_ROLE_ARN = "PRESIGN_ROLE_ARN"
    REGION = "AWS_REGION"
    """Lambda sets it itself."""
    RING_GROUP_ARNS = "RING_GROUP_ARNS"
    """JSON: ring to thing group ARN."""
    SIGNING_KEY_ARNS = "SIGNING_KEY_ARNS"
    """JSON: a list; the first signs."""
    SUFFIX = "SUFFIX"


class HookVariable(StrEnum):
    """Environment variables of the pre-provisioning hook; Lambda takes 4 KB of them all
    (CreateFunction)."""

    ATTRIBUTES = "ATTRIBUTES"
    """JSON: the fleet's own attributes, which every provisioned device gets."""
    CLAIM_CERTIFICATES = "CLAIM_CERTIFICATES"
    """JSON: ids of the claim certificates in use."""
    FLEET = "FLEET"
    HARDWARE = "HARDWARE"
    INITIAL_VERSION = "INITIAL_VERSION"
    RINGS = "RINGS"
    """JSON: a list of names and percentages, in their order."""
    SUFFIX = "SUFFIX"
    THING_TYPE = "THING_TYPE"
    """Its full name."""


class TemplateParameter(StrEnum):
    """Parameters of the provisioning template. A device says the first, the hook all others."""

    SERIAL = "SerialNumber"
    HARDWARE = "Hardware"
    INITIAL_VERSION = "InitialVersion"
    RING_GROUP = "RingGroup"
    THING = "ThingName"
    THING_TYPE = "ThingType"
    CERTIFICATE = "AWS::IoT::Certificate::Id"
    """AWS IoT's own."""

    @staticmethod
    def attribute(key: str) -> str:
        """The parameter of one of the fleet's own attributes."""
        return f"Attribute::{key}"


class StackOutput(StrEnum):
    """The outputs of a stack: the interface of operators' commands and of other programs."""

    SUFFIX = "suffix"
    REGION = "region"
    IOT_ENDPOINT = "iotEndpoint"
    FLEET_NAME = "fleetName"
    FLEET_GROUP_NAME = "fleetGroupName"
    THING_TYPE_NAME = "thingTypeName"
    RING_GROUP_NAMES = "ringGroupNames"
    DEVICE_POLICY_NAME = "devicePolicyName"
    DEVICE_NAMES = "deviceNames"
    DEVICE_RINGS = "deviceRings"
    DEVICE_CERTIFICATES = "deviceCertificates"
    DEVICE_PRIVATE_KEYS = "devicePrivateKeys"
    BUCKET_NAME = "bucketName"
    CHANNEL_NAME = "channelName"
    CONTROLLER_NAME = "controllerName"
    SIGNING_KEY_ARNS = "signingKeyArns"
    SIGNING_PUBLIC_KEY = "signingPublicKey"
    IMAGE_KEY_ARN = "imageKeyArn"
    """Only where `rollout.documentExtra` holds `{imageSignature}`."""
    DASHBOARD_URL = "dashboardUrl"
    NOTIFICATIONS_TOPIC_ARN = "notificationsTopicArn"
    ALARM_NAMES = "alarmNames"
    EVENT_LOG_GROUPS = "eventLogGroups"
    RELEASE = "release"
    QUARANTINE_GROUP_NAME = "quarantineGroupName"
    SERIALS_TABLE_NAME = "serialsTableName"
    """Only where devices are provisioned by claim; so are the next two."""
    PROVISIONING_TEMPLATE_NAME = "provisioningTemplateName"
    CLAIM_CERTIFICATES = "claimCertificates"
    """Claim to certificate, PEM."""


def image_key(version: object, sha256: str) -> str:
    """Where an image lies in the channel's bucket."""
    return f"{FIRMWARE_PREFIX}{version}/{sha256}.bin"


@dataclass(frozen=True)
class ChannelKeys:
    """Keys of one channel in its bucket. They hold no suffix: a preview knows them."""

    channel: str

    @property
    def manifest(self) -> str:
        """What `pulumi up` releases."""
        return f"{CHANNELS_PREFIX}{self.channel}/release.json"

    @property
    def orders(self) -> str:
        """What people ordered."""
        return f"{CHANNELS_PREFIX}{self.channel}/control.json"

    @property
    def state(self) -> str:
        """What the controller remembers."""
        return f"{CHANNELS_PREFIX}{self.channel}/state.json"

    @property
    def preflight(self) -> str:
        """Which devices could not go back, as far as the controller has looked."""
        return f"{CHANNELS_PREFIX}{self.channel}/preflight.json"

    @property
    def ways_back(self) -> str:
        """What the keys of all rosters begin with: whom each way back must bring back."""
        return f"{CHANNELS_PREFIX}{self.channel}/ways-back/"

    @property
    def ring_moves(self) -> str:
        """Who moved things between rings last, why, and which may be in no ring meanwhile."""
        return f"{CHANNELS_PREFIX}{self.channel}/ring-moves.json"

    @property
    def quarantine(self) -> str:
        """What the keys of all records of cut-off devices begin with."""
        return f"{CHANNELS_PREFIX}{self.channel}/quarantine/"

    def quarantined(self, thing: str) -> str:
        """What a device had when it was cut off, so that it can be given back."""
        return f"{self.quarantine}{thing}.json"

    def restored(self, thing: str, at: float) -> str:
        """Where such a record goes when the device gets back what it had (seconds since 1970)."""
        return f"{CHANNELS_PREFIX}{self.channel}/restored/{thing}/{int(at)}.json"

    @property
    def drain(self) -> str:
        """The certificates that a drain is removing."""
        return f"{CHANNELS_PREFIX}{self.channel}/drain.json"

    def roster(self, group: int) -> str:
        """The roster of the way back whose group has this sequence."""
        return f"{self.ways_back}{group}/roster.json"

    def roster_sheet(self, group: int, sheet: int) -> str:
        """The names on one sheet of a roster."""
        return f"{self.ways_back}{group}/things-{sheet:02}.json.gz"


@dataclass(frozen=True, kw_only=True)
class FleetNames:
    """The names of one fleet."""

    fleet: str
    suffix: str

    @property
    def fleet_group(self) -> str:
        """The thing group of all devices. Nearly every name begins with it."""
        return f"{self.fleet}-{self.suffix}"

    def thing_type(self, device_type: str) -> str:
        return f"{self.fleet_group}-{device_type}"

    def ring_group(self, ring: str) -> str:
        return f"{self.fleet_group}-{ring}"

    def thing(self, serial: str) -> str:
        return f"{self.fleet_group}-{serial}"

    @property
    def quarantine_group(self) -> str:
        """The thing group of devices that were cut off; outside the fleet's tree."""
        return f"{self.fleet_group}-{QUARANTINE}"

    @property
    def serials_table(self) -> str:
        """The registry of serial numbers that may claim a certificate."""
        return f"{self.fleet_group}-serials"

    @property
    def provisioning_template(self) -> str:
        """At most 36 characters (CreateProvisioningTemplate)."""
        return f"{self.fleet_group}-claim"

    @property
    def claim_policy(self) -> str:
        """What a claim certificate may do."""
        return f"{self.fleet_group}-claim"

    @property
    def provisioning_role(self) -> str:
        """What IoT assumes to register a device."""
        return f"{self.fleet_group}-provisioning"

    @property
    def provisioning_hook(self) -> str:
        """The function that allows a registration or not, and its role."""
        return f"{self.fleet_group}-provisioning-hook"

    @property
    def provisioning_hook_log(self) -> str:
        """The log group that Lambda writes to."""
        return f"/aws/lambda/{self.provisioning_hook}"

    @property
    def device_policy(self) -> str:
        return f"{self.fleet_group}-device"

    def event_log(self, events: str) -> str:
        """The log group of one of EVENT_LOGS."""
        return f"/iot-ota/{self.fleet_group}/{events}"

    @property
    def event_log_role(self) -> str:
        return f"{self.fleet_group}-event-logs"

    @property
    def topic_rule_prefix(self) -> str:
        """What the names of the stack's topic rules begin with; they take no hyphen
        (CreateTopicRule)."""
        return self.fleet_group.replace("-", "_") + "_"

    def topic_rule(self, what: str) -> str:
        return self.topic_rule_prefix + what


@dataclass(frozen=True, kw_only=True)
class Names(FleetNames):
    """The names of one stack's fleet and channel.

    >>> Names(fleet="gateways", suffix="0a1b2c3d", channel="stable").job("canary", 1764000000)
    '0a1b2c3d-stable-canary-1764000000'
    """

    channel: str

    # The channel's bucket

    @property
    def bucket(self) -> str:
        return f"{self.fleet_group}-firmware"

    @property
    def keys(self) -> ChannelKeys:
        return ChannelKeys(self.channel)

    # The channel's controller

    @property
    def controller(self) -> str:
        """The controller's function, and its role."""
        return f"{self.fleet_group}-{self.channel}-controller"

    @property
    def controller_log(self) -> str:
        """The log group that Lambda writes to."""
        return f"/aws/lambda/{self.controller}"

    @property
    def dead_letters(self) -> str:
        return f"{self.controller}-dead-letters"

    @property
    def tick(self) -> str:
        return f"{self.fleet_group}-{self.channel}-tick"

    @property
    def presign_role(self) -> str:
        return f"{self.fleet_group}-{self.channel}-presign"

    def signing_alias(self, key: str) -> str:
        return f"alias/{self.fleet_group}-{self.channel}-signing-{key}"

    @property
    def image_alias(self) -> str:
        """Of the key that signs images, which is none of the signing keys."""
        return f"alias/{self.fleet_group}-{self.channel}-image"

    # Jobs and rollback groups

    @property
    def job_prefix(self) -> str:
        """What the ids of the channel's jobs begin with."""
        return f"{self.suffix}-{self.channel}-"

    def job(self, ring: str, sequence: int) -> str:
        """`<suffix>-<channel>-<ring>-<sequence>`, at most 64 characters (CreateJob)."""
        return f"{self.job_prefix}{ring}-{sequence}"

    def split_job(self, job: str) -> tuple[str, int] | None:
        """Ring and sequence in one of this channel's job ids; None for any other job, also for one
        that writes its number otherwise than `job` does."""
        ring, _, digits = job.removeprefix(self.job_prefix).rpartition("-")
        if not ring or not digits.isdecimal() or self.job(ring, int(digits)) != job:
            return None
        return ring, int(digits)

    def job_sequence(self, job: str) -> int | None:
        """The sequence in one of this channel's job ids; None for any other job."""
        parts = self.split_job(job)
        return parts[1] if parts else None

    @property
    def rollback_group_prefix(self) -> str:
        """What the names of the channel's rollback groups begin with."""
        return f"{self.fleet_group}-{self.channel}-{ROLLBACK}-"

    def rollback_group(self, sequence: int) -> str:
        """The thing group of the devices that one rollback brings back; outside the fleet's
        tree."""
        return f"{self.rollback_group_prefix}{sequence}"

    def rollback_sequence(self, group: str) -> int | None:
        """The sequence in the name of one of this channel's rollback groups; None for any other
        group."""
        digits = group.removeprefix(self.rollback_group_prefix)
        is_ours = digits != group and re.fullmatch(r"[1-9][0-9]{0,18}", digits)
        return int(digits) if is_ours else None

    # Alarms

    def alarm(self, short: str) -> str:
        """The full name of one of ALARMS."""
        return f"{self.fleet_group}-{short}"

    def gate_alarm(self, name: str) -> str:
        """The full name of an alarm as a gate names it: `stack:x` is the stack's own alarm x."""
        short = name.removeprefix("stack:")
        return name if short == name else self.alarm(short)

    @property
    def notifications(self) -> str:
        return f"{self.fleet_group}-notifications"
