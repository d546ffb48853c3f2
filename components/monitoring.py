"""What a person sees and is told: event logs, alarms, notifications, the dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pulumi
import pulumi_aws as aws

from components import documents
from components.documents import METRIC_NAMESPACE
from components.naming import ALARMS, EVENT_LOGS, Location, Names

EVENT_ROUTES = {
    "job_events": ("job-events", "job/+/+", "regexp_matches(jobId, '^{suffix}-')"),
    "job_execution_events": (
        "job-events",
        "jobExecution/+/+",
        "regexp_matches(jobId, '^{suffix}-')",
    ),
    "thing_events": (
        "device-registry-events",
        "thing/+/+",
        "regexp_matches(thingName, '^{prefix}-')",
    ),
    "thing_type_events": (
        "device-registry-events",
        "thingType/+/+",
        "regexp_matches(thingTypeName, '^{prefix}-')",
    ),
    "thing_type_association_events": (
        "device-registry-events",
        "thingTypeAssociation/thing/+/thingType/+/+",
        "regexp_matches(thingName, '^{prefix}-')",
    ),
    "thing_group_events": (
        "thing-group-events",
        "thingGroup/+/+",
        "regexp_matches(thingGroupName, '^{prefix}(-|$)')",
    ),
    # for these two the names are in the topic; where in the payload is not documented for both
    "thing_group_membership_events": (
        "thing-group-events",
        "thingGroupMembership/thingGroup/+/thing/+/+",
        "regexp_matches(topic(5), '^{prefix}(-|$)')",
    ),
    "thing_group_hierarchy_events": (
        "thing-group-events",
        "thingGroupHierarchy/thingGroup/+/childThingGroup/+/+",
        "regexp_matches(topic(5), '^{prefix}(-|$)')",
    ),
}
"""Topic rule: the log group it fills, the event topic below `$aws/events/`, and the filter to this
stack's events."""

RING_METRICS = (
    "DevicesQueued",
    "DevicesInProgress",
    "DevicesSucceeded",
    "DevicesFailed",
    "DevicesTimedOut",
    "DevicesRejected",
)
CONTROLLER_METRICS = ("Heartbeat", "Held", "ReleaseFailed", "RollbackFailed", "ManifestRefused")

JOB_METRICS = (
    "QueuedJobExecutionTotalCount",
    "InProgressJobExecutionTotalCount",
    "SuccededJobExecutionTotalCount",  # as AWS spells it
    "FailedJobExecutionTotalCount",
    "RejectedJobExecutionTotalCount",
    "CanceledJobExecutionTotalCount",
)
CONNECTION_METRICS = (
    "Connect.Success",
    "Connect.AuthError",
    "Connect.ClientError",
    "Connect.Throttle",
)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A metric over one-minute periods: `datapoints` of the last `periods` must be at or beyond the
    threshold of 1."""

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


ALARM_RULES = {
    # `ignore`: a failed release stays failed while the controller says nothing; its silence is the
    # heartbeat's alarm
    "ring-failing": Alarm(
        description="A release failed in a ring: it was rolled back, or it is halted",
        metric="ReleaseFailed",
        missing="ignore",
    ),
    "rollback-failed": Alarm(
        description="A rollback failed: devices are left on a bad release",
        metric="RollbackFailed",
        missing="ignore",
    ),
    "person-needed": Alarm(
        description=(
            "A release waits for a person: an approval, a pause or halt to be ended, a release that"
            " cannot be taken"
        ),
        metric="Held",
        missing="ignore",
    ),
    "no-heartbeat": Alarm(
        description=(
            "The controller did not run for five minutes: no gate is kept, nothing is rolled back"
        ),
        metric="Heartbeat",
        statistic="Sum",
        operator="LessThanThreshold",
        periods=5,
        datapoints=5,
        missing="breaching",
    ),
    # one failed run is mended by the next tick
    "controller-errors": Alarm(
        description="The controller fails again and again: read its log",
        metric="Errors",
        namespace="AWS/Lambda",
        statistic="Sum",
        periods=5,
        datapoints=3,
    ),
    "dead-letters": Alarm(
        description="A run of the controller failed; the queue holds the event and the error",
        metric="ApproximateNumberOfMessagesVisible",
        namespace="AWS/SQS",
    ),
    # between the function's update and the object's, both in one deployment, the manifest is
    # rightly refused
    "refused-manifest": Alarm(
        description=(
            "The manifest in the bucket is not the one that was deployed: nothing is released"
            " from it"
        ),
        metric="ManifestRefused",
        periods=5,
        datapoints=5,
    ),
}


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    names: pulumi.Input[Names]
    location: pulumi.Input[Location]
    rings: Sequence[str]
    function_name: pulumi.Input[str]
    function_log: pulumi.Input[str]
    dead_letters_name: pulumi.Input[str]
    log_retention_days: int
    notifications: Sequence[str]
    """E-mail addresses; each must confirm before SNS writes to it."""
    tags: Mapping[str, str]
    tls_only: bool = True


class Monitoring(pulumi.ComponentResource):
    """Event log groups filled by topic rules, alarms on the controller's metrics, one SNS topic,
    one dashboard."""

    topic_arn: pulumi.Output[str]
    dashboard_url: pulumi.Output[str]
    alarm_names: dict[str, pulumi.Output[str]]
    """Short name to full name."""
    event_log_groups: dict[str, pulumi.Output[str]]
    """Kind of events to log group name."""

    def __init__(
        self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:Monitoring", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._names = pulumi.Output.from_input(args.names)
        self._location = pulumi.Output.from_input(args.location)
        logs = self._event_logs()
        topic = self._topic()
        alarms = {short: self._alarm(short, topic) for short in ALARMS}
        self.topic_arn = topic.arn
        self.alarm_names = {short: alarm.name for short, alarm in alarms.items()}
        self.event_log_groups = {events: group.name for events, group in logs.items()}
        dashboard = self._dashboard({short: alarm.arn for short, alarm in alarms.items()})
        self.dashboard_url = pulumi.Output.all(
            location=self._location, name=dashboard.dashboard_name
        ).apply(lambda values: values["location"].console(f"dashboards/dashboard/{values['name']}"))
        self.register_outputs({"topicArn": self.topic_arn, "dashboardUrl": self.dashboard_url})

    def _event_logs(self) -> dict[str, aws.cloudwatch.LogGroup]:
        groups = {
            events: aws.cloudwatch.LogGroup(
                f"{self._name}-{events}-log",
                name=self._names.apply(partial(Names.event_log, events=events)),
                retention_in_days=self._args.log_retention_days,
                tags=self._args.tags,
                opts=self._child,
            )
            for events in EVENT_LOGS
        }
        role, rights = self._event_log_role(groups)
        # IoT drops what the role may not write
        after = pulumi.ResourceOptions.merge(
            self._child, pulumi.ResourceOptions(depends_on=[rights])
        )
        for rule, (events, topic, where) in EVENT_ROUTES.items():
            aws.iot.TopicRule(
                f"{self._name}-{rule.replace('_', '-')}-rule",
                name=self._names.apply(partial(Names.rule, what=rule)),
                description=(
                    f"Writes this stack's {rule.replace('_', ' ')} to the log group {events}"
                ),
                enabled=True,
                sql_version="2016-03-23",
                sql=self._names.apply(partial(event_sql, topic=topic, where=where)),
                # a failed write shows in the AWS/IoT metric Failure of the rule: an error action
                # would only lose more
                cloudwatch_logs=[{"log_group_name": groups[events].name, "role_arn": role.arn}],
                tags=self._args.tags,
                opts=after,
            )
        return groups

    def _event_log_role(
        self, groups: Mapping[str, aws.cloudwatch.LogGroup]
    ) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
        trust = documents.filled(
            documents.event_log_trust, location=self._location, names=self._names
        )
        role = aws.iam.Role(
            f"{self._name}-event-log-role",
            name=self._names.apply(lambda names: names.event_log_role),
            description="Topic rules write events into log groups",
            assume_role_policy=trust,
            tags=self._args.tags,
            opts=self._child,
        )
        policy = documents.filled(
            documents.log_writing_policy, log_group_arns=[group.arn for group in groups.values()]
        )
        rights = aws.iam.RolePolicy(
            f"{self._name}-event-log-rights",
            name="event-logs",
            role=role.name,
            policy=policy,
            opts=self._child,
        )
        return role, rights

    def _topic(self) -> aws.sns.Topic:
        topic = aws.sns.Topic(
            f"{self._name}-notifications",
            name=self._names.apply(lambda names: names.notifications),
            # not encrypted by a key: alarms cannot publish through the AWS managed one, and they
            # say nothing secret
            tags=self._args.tags,
            opts=self._child,
        )
        policy = documents.filled(
            documents.notifications_policy,
            topic_arn=topic.arn,
            location=self._location,
            names=self._names,
            tls_only=self._args.tls_only,
        )
        aws.sns.TopicPolicy(
            f"{self._name}-notifications-policy", arn=topic.arn, policy=policy, opts=self._child
        )
        for address in self._args.notifications:
            aws.sns.TopicSubscription(
                f"{self._name}-email-{address}",
                topic=topic.arn,
                protocol="email",
                endpoint=address,
                opts=self._child,
            )
        return topic

    def _alarm(self, short: str, topic: aws.sns.Topic) -> aws.cloudwatch.MetricAlarm:
        rule = ALARM_RULES[short]
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-{short}-alarm",
            name=self._names.apply(lambda names: names.alarm(short)),
            alarm_description=rule.description,
            namespace=rule.namespace,
            metric_name=rule.metric,
            dimensions=self._dimensions(rule.namespace),
            statistic=rule.statistic,
            comparison_operator=rule.operator,
            threshold=1,
            period=60,
            evaluation_periods=rule.periods,
            datapoints_to_alarm=rule.datapoints,
            treat_missing_data=rule.missing,
            alarm_actions=[topic.arn],
            ok_actions=[topic.arn],
            tags=self._args.tags,
            opts=self._child,
        )

    def _dimensions(self, namespace: str) -> dict[str, pulumi.Input[str]]:
        if namespace == "AWS/Lambda":
            return {"FunctionName": self._args.function_name}
        if namespace == "AWS/SQS":
            return {"QueueName": self._args.dead_letters_name}
        names = self._names
        return {
            "Suffix": names.apply(lambda names: names.suffix),
            "Channel": names.apply(lambda names: names.channel),
        }

    def _dashboard(self, alarm_arns: Mapping[str, pulumi.Output[str]]) -> aws.cloudwatch.Dashboard:
        body = pulumi.Output.all(
            names=self._names,
            location=self._location,
            function_name=self._args.function_name,
            function_log=self._args.function_log,
            dead_letters_name=self._args.dead_letters_name,
            alarm_arns=alarm_arns,
        ).apply(lambda values: json.dumps(dashboard(rings=self._args.rings, **values)))
        return aws.cloudwatch.Dashboard(
            f"{self._name}-dashboard",
            dashboard_name=self._names.apply(lambda names: names.prefix),
            dashboard_body=body,
            opts=self._child,
        )


def event_sql(names: Names, topic: str, where: str) -> str:
    """Selects the events of one kind that are this stack's."""
    ours = where.format(suffix=names.suffix, prefix=names.prefix)
    return f"SELECT * FROM '$aws/events/{topic}' WHERE {ours}"  # noqa: S608 - a topic rule's, of checked names


def dashboard(
    *,
    names: Names,
    location: Location,
    rings: Sequence[str],
    function_name: str,
    function_log: str,
    dead_letters_name: str,
    alarm_arns: Mapping[str, str],
) -> dict[str, Any]:
    """The dashboard's body (CloudWatch dashboard body structure): a grid 24 wide, read from top to
    bottom."""
    channel = ["Suffix", names.suffix, "Channel", names.channel]
    rows = [
        [
            _text(links(names, location, function_log)),
            {
                "type": "alarm",
                "properties": {
                    "title": "Alarms",
                    "alarms": [alarm_arns[short] for short in ALARMS],
                },
            },
        ],
        *_pairs(
            _metrics(
                f"Ring {ring}",
                location,
                [[METRIC_NAMESPACE, name, *channel, "Ring", ring] for name in RING_METRICS],
                stacked=True,
            )
            for ring in rings
        ),
        [
            _metrics(
                "Jobs",
                location,
                [
                    [{"expression": job_search(names, metric), "label": metric}]
                    for metric in JOB_METRICS
                ],
            ),
            _metrics(
                "Connections of the account",
                location,
                [["AWS/IoT", m, "Protocol", "MQTT"] for m in CONNECTION_METRICS],
                "Sum",
            ),
        ],
        [
            _metrics(
                "Controller",
                location,
                [[METRIC_NAMESPACE, metric, *channel] for metric in CONTROLLER_METRICS],
            ),
            _metrics(
                "Controller function",
                location,
                [
                    ["AWS/Lambda", m, "FunctionName", function_name]
                    for m in ("Invocations", "Errors", "Throttles")
                ]
                + [
                    [
                        "AWS/SQS",
                        "ApproximateNumberOfMessagesVisible",
                        "QueueName",
                        dead_letters_name,
                    ]
                ],
                "Sum",
            ),
        ],
        [
            _metrics(
                "Event logs: failed writes",
                location,
                [
                    [
                        "AWS/IoT",
                        "Failure",
                        "RuleName",
                        names.rule(r),
                        "ActionType",
                        "CloudwatchLogs",
                    ]
                    for r in EVENT_ROUTES
                ],
                "Sum",
            ),
            _metrics(
                "Controller run time",
                location,
                [["AWS/Lambda", "Duration", "FunctionName", function_name]],
            ),
        ],
    ]
    return {"widgets": [widget for y, row in enumerate(rows) for widget in _placed(row, y)]}


def job_search(names: Names, metric: str) -> str:
    """IoT counts per job, and jobs come and go: a search finds those whose ids hold the stack's
    suffix."""
    return (
        f"SEARCH('{{AWS/IoT,JobId}} MetricName=\"{metric}\" JobId={names.suffix}', 'Maximum', 60)"
    )


def links(names: Names, location: Location, function_log: str) -> str:
    """Markdown: where the logs are."""
    groups = {"controller": function_log} | {
        events.replace("-", " "): names.event_log(events) for events in EVENT_LOGS
    }
    lines = [
        f"- [{title}]({location.console(_log_path(group))})" for title, group in groups.items()
    ]
    return "\n".join(
        [f"# {names.fleet} {names.suffix}, channel {names.channel}", "", "Logs:", *lines]
    )


def _log_path(group: str) -> str:
    return "logsV2:log-groups/log-group/" + group.replace(
        "/", "$252F"
    )  # `/`, encoded twice, `%` written as `$`


def _text(markdown: str) -> dict[str, Any]:
    return {"type": "text", "properties": {"markdown": markdown}}


def _metrics(
    title: str,
    location: Location,
    metrics: Sequence[Sequence[object]],
    stat: str = "Maximum",
    stacked: bool = False,
) -> dict[str, Any]:
    properties = {
        "title": title,
        "region": location.region,
        "view": "timeSeries",
        "stacked": stacked,
        "period": 60,
        "stat": stat,
        "metrics": [list(metric) for metric in metrics],
    }
    return {"type": "metric", "properties": properties}


def _pairs(widgets: Any) -> list[list[dict[str, Any]]]:
    flat = list(widgets)
    return [flat[start : start + 2] for start in range(0, len(flat), 2)]


def _placed(row: Sequence[dict[str, Any]], y: int) -> list[dict[str, Any]]:
    return [
        {**widget, "x": 12 * column, "y": 6 * y, "width": 12, "height": 6}
        for column, widget in enumerate(row)
    ]
