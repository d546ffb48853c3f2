"""Where a stack is in AWS: what ARNs and console addresses are made of."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


@dataclass(frozen=True, kw_only=True)
class Location:
    """Partition (`aws`, `aws-cn`, …), region, 12-digit account, DNS suffix of the endpoints."""

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


def begin_registrations() -> None:
    """Waits for one answer of the provider; meanwhile what the program made begins to be
    registered. To be called once, when the program has made everything.

    At a program's end the SDK awaits registrations that have begun, each once. Where it finds none,
    it awaits the outputs, and goes through all that are pending at every answer: thousands with 100
    declared devices, and more than half of a preview's processor time.
    """
    aws.get_region()


def find_location(parent: pulumi.Resource) -> pulumi.Output[Location]:
    """Where the provider of `parent` works."""
    options = pulumi.InvokeOutputOptions(parent=parent)
    partition = aws.get_partition_output(opts=options)
    return pulumi.Output.all(
        partition=partition.partition,
        dns_suffix=partition.dns_suffix,
        region=aws.get_region_output(opts=options).region,
        account=aws.get_caller_identity_output(opts=options).account_id,
    ).apply(lambda values: Location(**values))
