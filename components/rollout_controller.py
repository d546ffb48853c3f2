"""The rollout controller: the function that decides when a ring may start, its rights, and what
wakes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import documents
from components.naming import Location, Names
from components.settings import ROOT
from rollout.release import control_key, manifest_key

TIMEOUT_SECONDS = 300
MEMORY_MB = 256
EVENT_AGE_SECONDS = 300
"""An asynchronous wake that waited longer is dropped (60 to 21,600): the tick has long done its
work."""
LETTERS_KEPT_SECONDS = 86_400
"""A dead letter is evidence of a failed run, not work: what it asked for, the next tick did."""
TICK = "rate(1 minute)"


FORETELLING = {"rollout/plan.py", "rollout/simulation.py"}
"""What the controller does without: a change of it is no reason to update the function."""


def controller_code() -> pulumi.AssetArchive:
    """The controller's package: its own files one by one, sorted, so that a `__pycache__` cannot
    change it."""
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("functions", "rollout")
        for path in (ROOT / folder).glob("*.py")
    }
    files = sorted(found - FORETELLING)
    return pulumi.AssetArchive({name: pulumi.FileAsset(str(ROOT / name)) for name in files})


@dataclass(frozen=True, kw_only=True)
class RolloutControllerArgs:
    names: pulumi.Input[Names]
    location: pulumi.Input[Location]
    channel: str
    manifest_sha256: str
    """The digest of the manifest that is written after the function is updated; it refuses any
    other."""
    role: aws.iam.Role
    """The function's role: made before, because the bucket's and the key's policies name it."""
    bucket: aws.s3.Bucket
    presign_role_arn: pulumi.Input[str]
    signing_key_arns: Sequence[pulumi.Input[str]]
    """The first signs, the others are still believed."""
    ring_groups: pulumi.Input[Mapping[str, pulumi.Input[str]]]
    """Ring to thing group ARN."""
    artifact: pulumi.Resource
    """The image: the function hears of a new manifest when its image is in place, right before the
    manifest."""
    devices: Sequence[pulumi.Resource]
    """What must outlive the jobs on destroy."""
    log_retention_days: int
    tags: Mapping[str, str]
    tls_only: bool = True


class RolloutController(pulumi.ComponentResource):
    """A Lambda function that is woken by the manifest, by `control.json`, by a stopped job, and
    every minute."""

    function_name: pulumi.Output[str]
    log_group_name: pulumi.Output[str]
    dead_letters_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: RolloutControllerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:RolloutController", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._names = pulumi.Output.from_input(args.names)
        self._location = pulumi.Output.from_input(args.location)
        log_group = self._log_group()
        dead_letters = self._dead_letters()
        rights = self._rights(log_group, dead_letters)
        self._function = self._make_function([log_group, rights, args.artifact])
        failures = self._failures(dead_letters)
        jobs_end = self._jobs_end([rights, failures, *args.devices])
        # after it, so that on destroy nothing wakes the controller any more when it ends its jobs
        wakes = pulumi.ResourceOptions.merge(
            self._child, pulumi.ResourceOptions(depends_on=[jobs_end])
        )
        self._wake_on_files(wakes)
        self._wake_on_stopped_jobs(wakes)
        self._wake_every_minute(wakes)
        self.function_name, self.log_group_name = self._function.name, log_group.name
        self.dead_letters_name = dead_letters.name
        self.register_outputs(
            {"functionName": self.function_name, "logGroupName": self.log_group_name}
        )

    def _log_group(self) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            f"{self._name}-log",
            name=self._names.apply(lambda names: names.controller_log),
            retention_in_days=self._args.log_retention_days,
            tags=self._args.tags,
            opts=self._child,
        )

    def _dead_letters(self) -> aws.sqs.Queue:
        queue = aws.sqs.Queue(
            f"{self._name}-dead-letters",
            name=self._names.apply(lambda names: names.dead_letters),
            message_retention_seconds=LETTERS_KEPT_SECONDS,
            sqs_managed_sse_enabled=True,
            tags=self._args.tags,
            opts=self._child,
        )
        policy = documents.filled(
            documents.dead_letters_policy,
            queue_arn=queue.arn,
            controller_role_arn=self._args.role.arn,
            tls_only=self._args.tls_only,
        )
        aws.sqs.QueuePolicy(
            f"{self._name}-dead-letters-policy",
            queue_url=queue.url,
            policy=policy,
            opts=self._child,
        )
        return queue

    def _rights(
        self, log_group: aws.cloudwatch.LogGroup, dead_letters: aws.sqs.Queue
    ) -> aws.iam.RolePolicy:
        args = self._args
        policy = documents.filled(
            documents.controller_policy,
            location=self._location,
            names=self._names,
            bucket_arn=args.bucket.arn,
            log_group_arn=log_group.arn,
            dead_letters_arn=dead_letters.arn,
            presign_role_arn=args.presign_role_arn,
            signing_key_arns=list(args.signing_key_arns),
            ring_groups=args.ring_groups,
        )
        return aws.iam.RolePolicy(
            f"{self._name}-rights",
            name="controller",
            role=args.role.name,
            policy=policy,
            opts=self._child,
        )

    def _make_function(self, after: Sequence[pulumi.Resource]) -> aws.lambda_.Function:
        args = self._args
        return aws.lambda_.Function(
            f"{self._name}-function",
            name=self._names.apply(lambda names: names.controller),
            description=f"Rolls firmware out to the rings of the channel {args.channel}",
            role=args.role.arn,
            runtime="python3.13",
            handler="functions.controller.handler",
            architectures=["arm64"],
            code=controller_code(),
            timeout=TIMEOUT_SECONDS,
            memory_size=MEMORY_MB,
            environment={
                "variables": {
                    "BUCKET": args.bucket.bucket,
                    "CHANNEL": args.channel,
                    "DNS_SUFFIX": self._location.apply(lambda location: location.dns_suffix),
                    "FLEET_GROUP": self._names.apply(lambda names: names.prefix),
                    "MANIFEST_SHA256": args.manifest_sha256,
                    "PRESIGN_ROLE_ARN": args.presign_role_arn,
                    "RING_GROUPS": pulumi.Output.json_dumps(args.ring_groups, sort_keys=True),
                    "SIGNING_KEY_ARNS": pulumi.Output.json_dumps(list(args.signing_key_arns)),
                    "SUFFIX": self._names.apply(lambda names: names.suffix),
                }
            },
            tags=args.tags,
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=list(after))
            ),
        )

    def _failures(self, dead_letters: aws.sqs.Queue) -> aws.lambda_.FunctionEventInvokeConfig:
        return aws.lambda_.FunctionEventInvokeConfig(
            f"{self._name}-failures",
            function_name=self._function.name,
            maximum_event_age_in_seconds=EVENT_AGE_SECONDS,
            maximum_retry_attempts=0,  # the next tick is the retry, and it looks at the world anew
            destination_config={"on_failure": {"destination": dead_letters.arn}},
            opts=self._child,
        )

    def _jobs_end(self, after: Sequence[pulumi.Resource]) -> aws.lambda_.Invocation:
        """On destroy it is deleted before all that the controller needs, and has the controller end
        the stack's jobs."""
        return aws.lambda_.Invocation(
            f"{self._name}-jobs-end",
            function_name=self._function.name,
            lifecycle_scope="CRUD",  # the provider adds {"tf": {"action": "delete"}} to the input
            input=json.dumps(
                {}
            ),  # never changes: another input would be an update, and a call, of its own
            opts=pulumi.ResourceOptions.merge(
                self._child, pulumi.ResourceOptions(depends_on=list(after))
            ),
        )

    def _wake_on_files(self, wakes: pulumi.ResourceOptions) -> None:
        bucket = self._args.bucket
        permission = self._permission("files", "s3.amazonaws.com", bucket.arn, wakes)
        keys = {
            "manifest": manifest_key(self._args.channel),
            "control": control_key(self._args.channel),
        }
        aws.s3.BucketNotification(
            f"{self._name}-files",
            bucket=bucket.bucket,
            lambda_functions=[
                {
                    "id": what,
                    "events": ["s3:ObjectCreated:*"],
                    "filter_prefix": key,
                    "filter_suffix": key.rsplit("/", 1)[1],
                    "lambda_function_arn": self._function.arn,
                }
                for what, key in keys.items()
            ],
            # S3 tries the permission when the notification is made
            opts=pulumi.ResourceOptions.merge(
                wakes, pulumi.ResourceOptions(depends_on=[permission])
            ),
        )

    def _wake_on_stopped_jobs(self, wakes: pulumi.ResourceOptions) -> None:
        rule = aws.iot.TopicRule(
            f"{self._name}-stopped-jobs",
            name=self._names.apply(lambda names: names.rule("job_cancelled")),
            description="A job of the channel was cancelled or deleted",
            enabled=True,
            sql_version="2016-03-23",
            sql=self._names.apply(lambda names: stopped_jobs_sql(names.jobs)),
            lambdas=[{"function_arn": self._function.arn}],
            tags=self._args.tags,
            opts=wakes,
        )
        self._permission("stopped-jobs", "iot.amazonaws.com", rule.arn, wakes)

    def _wake_every_minute(self, wakes: pulumi.ResourceOptions) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-tick",
            name=self._names.apply(lambda names: names.tick),
            description=f"Wakes the controller of the channel {self._args.channel}",
            schedule_expression=TICK,
            tags=self._args.tags,
            opts=wakes,
        )
        self._permission("tick", "events.amazonaws.com", rule.arn, wakes)
        aws.cloudwatch.EventTarget(
            f"{self._name}-tick-target",
            rule=rule.name,
            target_id="controller",
            arn=self._function.arn,
            # EventBridge's least age: the next tick is a better retry
            retry_policy={"maximum_event_age_in_seconds": 60, "maximum_retry_attempts": 0},
            opts=wakes,
        )

    def _permission(
        self, what: str, service: str, source_arn: pulumi.Input[str], wakes: pulumi.ResourceOptions
    ) -> aws.lambda_.Permission:
        return aws.lambda_.Permission(
            f"{self._name}-{what}-permission",
            statement_id=what,
            action="lambda:InvokeFunction",
            function=self._function.name,
            principal=service,
            source_arn=source_arn,
            source_account=self._location.apply(lambda location: location.account),
            opts=wakes,
        )


def stopped_jobs_sql(jobs: str) -> str:
    """Selects the events of cancelled and deleted jobs whose ids begin with `jobs`; topic(5) is
    what happened."""
    stopped = "(topic(5) = 'canceled' OR topic(5) = 'deleted')"
    return (
        f"SELECT * FROM '$aws/events/job/+/+' WHERE regexp_matches(jobId, '^{jobs}') AND {stopped}"  # noqa: S608 - checked names
    )
