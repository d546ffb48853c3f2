"""What a person sees and hears of: alarms, notifications, the dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pulumi
import pulumi_aws as aws

from components import policies
from components.context import Context
from components.dashboard import dashboard
from components.rollout_controller import RolloutController
from rollout.names import (
    ALARMS,
    METRIC_NAMESPACE,
    PROVISIONING_ALARMS,
    ChannelMetric,
    Names,
    ProvisioningMetric,
)


@dataclass(frozen=True, kw_only=True)
class AlarmRule:
    """Of a metric's last `periods`, a minute each, `datapoints` must be at or beyond 1.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    """

    description: str
    metric: str
    namespace: str = METRIC_NAMESPACE
    statistic: Literal["Maximum", "Sum"] = "Maximum"
    operator: Literal["GreaterThanOrEqualToThreshold", "LessThanThreshold"] = (
        "GreaterThanOrEqualToThreshold"
    )
    periods: int = 1
    datapoints: int = 1
    missing: Literal["breaching", "ignore", "notBreaching"] = "notBreaching"
    of: Literal["controller", "hook"] = "controller"
    """Whose metric it is: the channel's controller's, or the fleet's pre-provisioning hook's."""


ALARM_RULES = {
    # `ignore`: a failed release stays failed while the controller is silent, as the heartbeat says
    "ring-failing": AlarmRule(
        description="A release failed in a ring: it was rolled back, or it is halted",
        metric=ChannelMetric.RELEASE_FAILED,
        missing="ignore",
    ),
    "rollback-failed": AlarmRule(
        description="A rollback failed: devices are left on a bad release",
        metric=ChannelMetric.ROLLBACK_FAILED,
        missing="ignore",
    ),
    "person-needed": AlarmRule(
        description=(
            "A release waits for a person: an approval, a pause or halt to be ended, a release that"
            " cannot be taken"
        ),
        metric=ChannelMetric.HELD,
        missing="ignore",
    ),
    "forged": AlarmRule(
        description=(
            "Somebody made a job or a call in the controller's name: it had no effect, and the"
            " controller's log names it"
        ),
        metric=ChannelMetric.FORGED,
    ),
    "no-heartbeat": AlarmRule(
        description=(
            "The controller did not run for five minutes: no gate is kept, nothing is rolled back"
        ),
        metric=ChannelMetric.HEARTBEAT,
        statistic="Sum",
        operator="LessThanThreshold",
        periods=5,
        datapoints=5,
        missing="breaching",
    ),
    # one failed run is mended by the next tick
    "controller-errors": AlarmRule(
        description="The controller fails again and again: read its log",
        metric="Errors",
        namespace="AWS/Lambda",
        statistic="Sum",
        periods=5,
        datapoints=3,
    ),
    "dead-letters": AlarmRule(
        description="A run of the controller failed; the queue holds the event and the error",
        metric="ApproximateNumberOfMessagesVisible",
        namespace="AWS/SQS",
    ),
    # during a deployment, between the function's update and the object's, it is rightly refused
    "refused-manifest": AlarmRule(
        description=(
            "The manifest in the bucket is not the one that was deployed: nothing is released"
            " from it"
        ),
        metric=ChannelMetric.MANIFEST_REFUSED,
        periods=5,
        datapoints=5,
    ),
    # one is a device that was turned away for nothing, and nobody else would tell of it
    "provisioning-errors": AlarmRule(
        description=(
            "The pre-provisioning hook fails: devices cannot claim their serials, read its log"
        ),
        metric="Errors",
        namespace="AWS/Lambda",
        statistic="Sum",
        of="hook",
    ),
    "provisioning-refused": AlarmRule(
        description=(
            "A device was refused its serial: a wrong list, a device that comes twice, or a claim"
            " certificate in wrong hands; the pre-provisioning hook's log names serial, reason and"
            " claim certificate"
        ),
        metric=ProvisioningMetric.REFUSED,
        statistic="Sum",
        of="hook",
    ),
}


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    context: Context[Names]
    controller: RolloutController
    rings: Sequence[str]
    notifications: Sequence[str]
    """E-mail addresses; each must confirm before SNS writes to it."""
    provisioned: bool = False
    """Whether the fleet's devices come in by claim."""


class Monitoring(pulumi.ComponentResource):
    """Alarms on the controller's metrics, one SNS topic, one dashboard."""

    topic_arn: pulumi.Output[str]
    dashboard_url: pulumi.Output[str]
    alarm_names: dict[str, pulumi.Output[str]]
    """Short name to full name."""

    def __init__(
        self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:Monitoring", name, None, opts)
        self._name, self._args, self._context = name, args, args.context
        self._child = pulumi.ResourceOptions(parent=self)
        topic = self._make_topic()
        shorts = (*ALARMS, *(PROVISIONING_ALARMS if args.provisioned else ()))
        alarms = {short: self._make_alarm(short, topic) for short in shorts}
        body = pulumi.Output.all(
            names=self._context.names,
            location=self._context.location,
            function_name=args.controller.function_name,
            function_log=args.controller.log_group_name,
            dead_letters_name=args.controller.dead_letters_name,
            alarm_arns={short: alarm.arn for short, alarm in alarms.items()},
        ).apply(lambda values: json.dumps(dashboard(rings=args.rings, **values)))
        board = aws.cloudwatch.Dashboard(
            f"{name}-dashboard",
            dashboard_name=self._context.names.fleet_group,
            dashboard_body=body,
            opts=self._child,
        )
        self.topic_arn = topic.arn
        self.alarm_names = {short: alarm.name for short, alarm in alarms.items()}
        self.dashboard_url = pulumi.Output.all(
            location=self._context.location, name=board.dashboard_name
        ).apply(lambda values: values["location"].console(f"dashboards/dashboard/{values['name']}"))
        self.register_outputs({"topicArn": self.topic_arn, "dashboardUrl": self.dashboard_url})

    def _make_topic(self) -> aws.sns.Topic:
        name, context = f"{self._name}-notifications", self._context
        # no key: alarms cannot publish through the AWS managed one, and say nothing secret
        topic = aws.sns.Topic(
            name, name=context.names.notifications, tags=context.tags, opts=self._child
        )
        policy = policies.fill_in(
            policies.notifications_policy,
            topic_arn=topic.arn,
            location=context.location,
            names=context.names,
            tls_only=context.tls_only,
        )
        aws.sns.TopicPolicy(f"{name}-policy", arn=topic.arn, policy=policy, opts=self._child)
        for address in self._args.notifications:
            aws.sns.TopicSubscription(
                f"{self._name}-email-{address}",
                topic=topic.arn,
                protocol="email",
                endpoint=address,
                opts=self._child,
            )
        return topic

    def _make_alarm(self, short: str, topic: aws.sns.Topic) -> aws.cloudwatch.MetricAlarm:
        rule, names, controller = ALARM_RULES[short], self._context.names, self._args.controller
        dimensions = {
            ("controller", "AWS/Lambda"): {"FunctionName": controller.function_name},
            ("controller", "AWS/SQS"): {"QueueName": controller.dead_letters_name},
            ("controller", METRIC_NAMESPACE): {"Suffix": names.suffix, "Channel": names.channel},
            ("hook", "AWS/Lambda"): {"FunctionName": names.provisioning_hook},
            ("hook", METRIC_NAMESPACE): {"Suffix": names.suffix},
        }
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-{short}-alarm",
            name=names.apply(partial(Names.alarm, short=short)),
            alarm_description=rule.description,
            namespace=rule.namespace,
            metric_name=rule.metric,
            dimensions=dimensions[rule.of, rule.namespace],
            statistic=rule.statistic,
            comparison_operator=rule.operator,
            threshold=1,
            period=60,
            evaluation_periods=rule.periods,
            datapoints_to_alarm=rule.datapoints,
            treat_missing_data=rule.missing,
            alarm_actions=[topic.arn],
            ok_actions=[topic.arn],
            tags=self._context.tags,
            opts=self._child,
        )
