"""The names and tags of everything in AWS, and the places ARNs are made of. Pure: no cloud call, no
Pulumi.

Every name holds the fleet's name and the stack's random suffix, so that two stacks share an account
and a person sees what belongs together. The limits: a fleet's name has at most 20 characters, a
channel's 20, a ring's 20, a suffix 8. The longest names made of them stay below what AWS takes (a
bucket 63, a role or function 64, a job id 64, a topic rule 128).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALARMS = (
    "ring-failing",
    "no-heartbeat",
    "controller-errors",
    "dead-letters",
    "refused-manifest",
    "rollback-failed",
    "person-needed",
)
"""The stack's own alarms; a gate names them `stack:<name>`."""
GATE_ALARMS = tuple(short for short in ALARMS if short != "person-needed")
"""Those that a gate may watch: a gate that waits for a person would wait for itself."""

EVENT_LOGS = ("job-events", "device-registry-events", "thing-group-events")

OWN_TAGS = ("project", "environment", "fleet")
"""Tag keys that the program sets itself."""

MAX_TAGS = 10
"""What an S3 object takes, the least of all taggable resources here (S3 PutObjectTagging); most
others take 50."""

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


def tags(environment: str, fleet: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The tags of every taggable resource. Raises ValueError when `extra` brings them above
    MAX_TAGS."""
    merged = {**extra, **dict(zip(OWN_TAGS, ("iot-ota", environment, fleet), strict=True))}
    if len(merged) > MAX_TAGS:
        raise ValueError(
            f"{len(merged)} tags: an S3 object takes {MAX_TAGS}, {len(OWN_TAGS)} of them are the"
            " program's"
        )
    return dict(sorted(merged.items()))


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a stack is: partition (`aws`, `aws-cn`, …), region, 12-digit account, and the DNS
    suffix of its endpoints."""

    partition: str
    region: str
    account: str
    dns_suffix: str

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a regional resource."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    @property
    def account_root(self) -> str:
        """The account as a principal: whom the account's own IAM policies allow."""
        return f"arn:{self.partition}:iam::{self.account}:root"

    def console(self, path: str) -> str:
        """The address of a CloudWatch console page; `path` begins after the `#`."""
        host = CONSOLES.get(self.partition, CONSOLES["aws"])
        return f"https://{self.region}.{host}/cloudwatch/home?region={self.region}#{path}"


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of one stack. A channel's names also hold the channel."""

    fleet: str
    suffix: str
    channel: str

    @property
    def prefix(self) -> str:
        """What nearly every name begins with; alone, it is the fleet's thing group and its
        dashboard."""
        return f"{self.fleet}-{self.suffix}"

    def thing_type(self, device_type: str) -> str:
        return f"{self.prefix}-{device_type}"

    def ring_group(self, ring: str) -> str:
        return f"{self.prefix}-{ring}"

    def thing(self, serial: str) -> str:
        return f"{self.prefix}-{serial}"

    @property
    def device_policy(self) -> str:
        return f"{self.prefix}-device"

    @property
    def bucket(self) -> str:
        return f"{self.prefix}-firmware"

    @property
    def controller(self) -> str:
        """The controller's function, and its role."""
        return f"{self.prefix}-{self.channel}-controller"

    @property
    def controller_log(self) -> str:
        """The log group that Lambda writes to."""
        return f"/aws/lambda/{self.controller}"

    @property
    def dead_letters(self) -> str:
        return f"{self.controller}-dead-letters"

    @property
    def tick(self) -> str:
        return f"{self.prefix}-{self.channel}-tick"

    @property
    def presign_role(self) -> str:
        return f"{self.prefix}-{self.channel}-presign"

    def signing_alias(self, key: str) -> str:
        return f"alias/{self.prefix}-{self.channel}-signing-{key}"

    @property
    def jobs(self) -> str:
        """What the ids of the channel's jobs begin with (rollout.document.job_id)."""
        return f"{self.suffix}-{self.channel}-"

    @property
    def rollback_groups(self) -> str:
        """What the names of the channel's rollback groups begin with
        (rollout.document.rollback_group)."""
        return f"{self.prefix}-{self.channel}-rollback-"

    def event_log(self, events: str) -> str:
        """The log group of one of EVENT_LOGS."""
        return f"/iot-ota/{self.prefix}/{events}"

    @property
    def event_log_role(self) -> str:
        return f"{self.prefix}-event-logs"

    def alarm(self, short: str) -> str:
        """The full name of one of ALARMS."""
        return f"{self.prefix}-{short}"

    @property
    def notifications(self) -> str:
        return f"{self.prefix}-notifications"

    @property
    def rules(self) -> str:
        """What the names of the stack's topic rules begin with: a topic rule's name takes no hyphen
        (CreateTopicRule)."""
        return self.prefix.replace("-", "_") + "_"

    def rule(self, what: str) -> str:
        return self.rules + what
