"""The fleet's event logs: topic rules write IoT's events of jobs, things and groups into logs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_aws as aws

from components import policies
from components.context import Context, after, keep
from rollout.names import EVENT_LOGS, FleetNames


@dataclass(frozen=True)
class EventRoute:
    """Which events a topic rule writes into which log group.

    See https://docs.aws.amazon.com/iot/latest/developerguide/registry-events.html and
    https://docs.aws.amazon.com/iot/latest/developerguide/events-jobs.html
    """

    log: str
    """One of EVENT_LOGS."""
    topic: str
    """Below `$aws/events/`."""
    name: str
    """Where an event says whose it is."""


EVENT_ROUTES = {
    "job_events": EventRoute("job-events", "job/+/+", "jobId"),
    "job_execution_events": EventRoute("job-events", "jobExecution/+/+", "jobId"),
    "thing_events": EventRoute("device-registry-events", "thing/+/+", "thingName"),
    "thing_type_events": EventRoute("device-registry-events", "thingType/+/+", "thingTypeName"),
    "thing_type_association_events": EventRoute(
        "device-registry-events", "thingTypeAssociation/thing/+/thingType/+/+", "thingName"
    ),
    "thing_group_events": EventRoute("thing-group-events", "thingGroup/+/+", "thingGroupName"),
    # for these two the names are in the topic; where in the payload is not documented for both
    "thing_group_membership_events": EventRoute(
        "thing-group-events", "thingGroupMembership/thingGroup/+/thing/+/+", "topic(5)"
    ),
    "thing_group_hierarchy_events": EventRoute(
        "thing-group-events", "thingGroupHierarchy/thingGroup/+/childThingGroup/+/+", "topic(5)"
    ),
}
"""By the name of the topic rule."""
OURS = {
    "job-events": "^{suffix}-",
    "device-registry-events": "^{prefix}-",
    "thing-group-events": "^{prefix}(-|$)",
}
"""What the names in a log's events match, of this fleet's."""


class EventLogs(pulumi.ComponentResource):
    """A log group for each kind of events, filled by topic rules. That IoT publishes events at all
    is the account's setting (AccountSettings)."""

    group_names: dict[str, pulumi.Output[str]]
    """Kind of events to log group name."""

    def __init__(
        self, name: str, args: Context[FleetNames], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("iotota:index:EventLogs", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        groups = {
            events: aws.cloudwatch.LogGroup(
                f"{name}-{events}-log",
                name=args.names.apply(partial(FleetNames.event_log, events=events)),
                retention_in_days=args.log_retention_days,
                tags=args.tags,
                opts=keep(child, args.protect),
            )
            for events in EVENT_LOGS
        }
        trust = policies.fill_in(policies.event_log_trust, location=args.location, names=args.names)
        role = aws.iam.Role(
            f"{name}-role",
            name=args.names.event_log_role,
            description="Topic rules write events into log groups",
            assume_role_policy=trust,
            tags=args.tags,
            opts=child,
        )
        rights = aws.iam.RolePolicy(
            f"{name}-rights",
            name="event-logs",
            role=role.name,
            policy=policies.fill_in(
                policies.log_writing_policy, log_group_arns=[group.arn for group in groups.values()]
            ),
            opts=child,
        )
        for rule, route in EVENT_ROUTES.items():
            events = rule.replace("_", " ")
            aws.iot.TopicRule(
                f"{name}-{rule.replace('_', '-')}-rule",
                name=args.names.apply(partial(FleetNames.topic_rule, what=rule)),
                description=f"Writes this stack's {events} to the log group {route.log}",
                enabled=True,
                sql_version="2016-03-23",
                sql=args.names.apply(partial(event_sql, route=route)),
                # a failed write shows in the rule's metric Failure; an error action would lose more
                cloudwatch_logs=[{"log_group_name": groups[route.log].name, "role_arn": role.arn}],
                tags=args.tags,
                opts=after(child, rights),  # IoT drops what the role may not write
            )
        self.group_names = {events: group.name for events, group in groups.items()}
        self.register_outputs({"groupNames": self.group_names})


def event_sql(names: FleetNames, route: EventRoute) -> str:
    """Selects the events of one kind that are this fleet's."""
    pattern = OURS[route.log].format(suffix=names.suffix, prefix=names.fleet_group)
    return (
        f"SELECT * FROM '$aws/events/{route.topic}' WHERE regexp_matches({route.name}, '{pattern}')"  # noqa: S608 - a topic rule's, of checked names
    )
