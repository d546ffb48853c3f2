"""The rollout controller: the function that rolls releases out, its rights, and what wakes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import policies
from components.context import Context, after, keep
from components.function_code import function_code
from rollout.codec import sha256_hex
from rollout.names import CONTROLLER_MEGABYTES, CONTROLLER_SECONDS, ChannelKeys, Names, Variable
from rollout.release import Manifest

EVENT_AGE_SECONDS = 300
"""A wake that waited longer is dropped (60 to 21,600): the tick has long done its work."""
LETTERS_KEPT_SECONDS = 86_400
"""A dead letter is evidence of a failed run, not work: what it asked for, the next tick did."""
TICK = "rate(1 minute)"


@dataclass(frozen=True, kw_only=True)
class RolloutControllerArgs:
    context: Context[Names]
    manifest: Manifest
    """It is written after the function is updated, which refuses any other."""
    artifact: pulumi.Resource
    """The image: it is in place before the function hears of a new manifest."""
    bucket: aws.s3.Bucket
    role: aws.iam.Role
    """The function's role: made before, because the bucket's and the key's policies name it."""
    presign_role: aws.iam.Role
    signing_keys: Sequence[aws.kms.Key]
    """The first signs, the others are still trusted."""
    image_key: aws.kms.Key | None = None
    """What signs images, where job documents hold their signatures."""
    ring_group_arns: pulumi.Input[Mapping[str, pulumi.Input[str]]]
    fleet: pulumi.Resource | None
    """What must outlive the jobs on destroy, where it is of this stack: the rings' groups are."""
    devices: Sequence[pulumi.Resource]
    """Things and certificates of devices that go with the stack."""
    declared_devices: int
    """Of the fleet. Where others use it, too, it goes only if it is protected, and so kept, or of
    another stack."""


class RolloutController(pulumi.ComponentResource):
    """A Lambda function, woken by manifest and orders, by a stopped job, and every minute."""

    function_name: pulumi.Output[str]
    log_group_name: pulumi.Output[str]
    dead_letters_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: RolloutControllerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:RolloutController", name, None, opts)
        self._name, self._args, self._context = name, args, args.context
        self._child = pulumi.ResourceOptions(parent=self)
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-log",
            name=self._context.names.controller_log,
            retention_in_days=self._context.log_retention_days,
            tags=self._context.tags,
            opts=keep(self._child, self._context.protect),  # who was offered what, when and why
        )
        dead_letters, letters_policy = self._make_dead_letters()
        rights = aws.iam.RolePolicy(
            f"{name}-rights",
            name="controller",
            role=args.role.name,
            policy=policies.fill_in(
                policies.controller_policy,
                location=self._context.location,
                names=self._context.names,
                bucket_arn=args.bucket.arn,
                log_group_arn=log_group.arn,
                dead_letters_arn=dead_letters.arn,
                presign_role_arn=args.presign_role.arn,
                signing_key_arns=[key.arn for key in args.signing_keys],
                image_key_arn=args.image_key.arn if args.image_key else None,
                ring_groups=args.ring_group_arns,
            ),
            opts=self._child,
        )
        self._function = self._make_function(log_group, rights)
        failures = aws.lambda_.FunctionEventInvokeConfig(
            f"{name}-failures",
            function_name=self._function.name,
            maximum_event_age_in_seconds=EVENT_AGE_SECONDS,
            maximum_retry_attempts=0,  # the next tick is the retry, and it looks at the world anew
            destination_config={"on_failure": {"destination": dead_letters.arn}},
            opts=self._child,
        )
        ready = [rights, failures, letters_policy, *([args.fleet] if args.fleet else [])]
        for ring in args.manifest.rings if args.fleet else ():
            self._guard_ring(ring.name, ready)
        # on destroy it goes first: the controller ends the stack's jobs while it has all it needs
        jobs_end = aws.lambda_.Invocation(
            f"{name}-jobs-end",
            function_name=self._function.name,
            lifecycle_scope="CRUD",  # the provider adds {"tf": {"action": "delete", …}} to it
            # never changes: another input would be an update, and a call, of its own
            input=json.dumps({}),
            opts=after(self._child, *ready),
        )
        # after it, so that on destroy nothing wakes the controller any more when it ends its jobs:
        # by the tick's rule, which is gone then, it knows that the call comes from a destroy
        self._wakes = after(self._child, jobs_end)
        self._wake_on_files()
        self._wake_on_stopped_jobs()
        self._wake_every_minute()
        self.function_name, self.log_group_name = self._function.name, log_group.name
        self.dead_letters_name = dead_letters.name
        self.register_outputs(
            {"functionName": self.function_name, "logGroupName": self.log_group_name}
        )

    def _guard_ring(self, ring: str, ready: Sequence[pulumi.Resource]) -> None:
        """Goes before the ring's thing group, and asks the controller, who refuses while devices
        are in it: AWS deletes a group whoever is in it, and no ring has them any more."""
        aws.lambda_.Invocation(
            f"{self._name}-ring-{ring}",
            function_name=self._function.name,
            lifecycle_scope="CRUD",
            input=json.dumps({"ring": ring}),
            opts=after(self._child, *ready),
        )

    def _make_dead_letters(self) -> tuple[aws.sqs.Queue, aws.sqs.QueuePolicy]:
        queue = aws.sqs.Queue(
            f"{self._name}-dead-letters",
            name=self._context.names.dead_letters,
            message_retention_seconds=LETTERS_KEPT_SECONDS,
            sqs_managed_sse_enabled=True,
            tags=self._context.tags,
            opts=self._child,
        )
        policy = aws.sqs.QueuePolicy(
            f"{self._name}-dead-letters-policy",
            queue_url=queue.url,
            policy=policies.fill_in(
                policies.dead_letters_policy,
                queue_arn=queue.arn,
                controller_role_arn=self._args.role.arn,
                tls_only=self._context.tls_only,
            ),
            # On destroy it goes after the jobs' end, when the devices are detached, and before
            # they are deleted: until then AWS has detached them, which takes it seconds
            # (DetachThingPrincipal), for which the provider does not wait. For this it does: it
            # looks until the policy has been gone for 25 s.
            opts=after(self._child, *self._args.devices),
        )
        return queue, policy

    def _make_function(
        self, log_group: aws.cloudwatch.LogGroup, rights: aws.iam.RolePolicy
    ) -> aws.lambda_.Function:
        args, context = self._args, self._context
        key_arns = pulumi.Output.json_dumps([key.arn for key in args.signing_keys])
        groups = pulumi.Output.json_dumps(args.ring_group_arns, sort_keys=True)
        variables: dict[str, pulumi.Input[str]] = {
            Variable.BUCKET: args.bucket.bucket,
            Variable.CHANNEL: args.manifest.channel,
            Variable.DNS_SUFFIX: context.location.dns_suffix,
            Variable.FLEET: context.names.fleet,
            Variable.MANIFEST_SHA256: sha256_hex(args.manifest.text()),
            Variable.PRESIGN_ROLE_ARN: args.presign_role.arn,
            Variable.RING_GROUP_ARNS: groups,
            Variable.SIGNING_KEY_ARNS: key_arns,
            Variable.SUFFIX: context.names.suffix,
        }
        if args.fleet and not context.protect:
            variables[Variable.DECLARED_DEVICES] = str(args.declared_devices)
        if args.image_key:
            variables[Variable.IMAGE_KEY_ARN] = args.image_key.arn
        return aws.lambda_.Function(
            f"{self._name}-function",
            name=context.names.controller,
            description=f"Rolls firmware out to the rings of the channel {args.manifest.channel}",
            role=args.role.arn,
            runtime="python3.13",
            handler="functions.controller.handler",
            architectures=["arm64"],
            code=function_code(),
            timeout=CONTROLLER_SECONDS,
            memory_size=CONTROLLER_MEGABYTES,
            environment={"variables": variables},
            tags=context.tags,
            opts=after(self._child, log_group, rights, args.artifact),
        )

    def _wake_on_files(self) -> None:
        bucket, keys = self._args.bucket, ChannelKeys(self._args.manifest.channel)
        permission = self._permit("files", "s3.amazonaws.com", bucket.arn)
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
                for what, key in (("manifest", keys.manifest), ("orders", keys.orders))
            ],
            # S3 tries the permission when the notification is made
            opts=after(self._wakes, permission),
        )

    def _wake_on_stopped_jobs(self) -> None:
        rule = aws.iot.TopicRule(
            f"{self._name}-stopped-jobs",
            name=self._context.names.apply(lambda names: names.topic_rule("job_cancelled")),
            description="A job of the channel was cancelled or deleted",
            enabled=True,
            sql_version="2016-03-23",
            sql=self._context.names.apply(lambda names: stopped_jobs_sql(names.job_prefix)),
            lambdas=[{"function_arn": self._function.arn}],
            tags=self._context.tags,
            opts=self._wakes,
        )
        self._permit("stopped-jobs", "iot.amazonaws.com", rule.arn)

    def _wake_every_minute(self) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{self._name}-tick",
            name=self._context.names.tick,
            description=f"Wakes the controller of the channel {self._args.manifest.channel}",
            schedule_expression=TICK,
            tags=self._context.tags,
            opts=self._wakes,
        )
        self._permit("tick", "events.amazonaws.com", rule.arn)
        aws.cloudwatch.EventTarget(
            f"{self._name}-tick-target",
            rule=rule.name,
            target_id="controller",
            arn=self._function.arn,
            # EventBridge's least age: the next tick is a better retry
            retry_policy={"maximum_event_age_in_seconds": 60, "maximum_retry_attempts": 0},
            opts=self._wakes,
        )

    def _permit(
        self, what: str, service: str, source_arn: pulumi.Input[str]
    ) -> aws.lambda_.Permission:
        """Lets `service` wake the function, for one resource of this account."""
        return aws.lambda_.Permission(
            f"{self._name}-{what}-permission",
            statement_id=what,
            action="lambda:InvokeFunction",
            function=self._function.name,
            principal=service,
            source_arn=source_arn,
            source_account=self._context.location.account,
            opts=self._wakes,
        )


def stopped_jobs_sql(jobs: str) -> str:
    """Selects events of cancelled and deleted jobs whose ids begin with `jobs`, by topic(5)."""
    stopped = "(topic(5) = 'canceled' OR topic(5) = 'deleted')"
    return (
        f"SELECT * FROM '$aws/events/job/+/+' WHERE regexp_matches(jobId, '^{jobs}') AND {stopped}"  # noqa: S608 - checked names
    )
