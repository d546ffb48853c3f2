"""EventLogs: log groups of the fleet's events, and the topic rules that fill them."""

from __future__ import annotations

from functools import cache

import pytest

from components import policies
from components.event_logs import EVENT_ROUTES, EventLogs, event_sql
from rollout.names import EVENT_LOGS
from tests.unit.examples import LOCATION, NAMES, TAGS, P, context
from tests.unit.harness import Graph, build

RULE = "iot_fleet_0a1b2c3d"


@cache
def made(*, preview: bool = False) -> Graph:
    return build(
        lambda: {"groups": EventLogs("logs", context()).group_names["job-events"]}, preview=preview
    )


@pytest.mark.parametrize("preview", [False, True])
def test_it_is_log_groups_rules_and_a_role(preview: bool) -> None:
    routes = [f"logs-{rule.replace('_', '-')}-rule" for rule in EVENT_ROUTES]
    logs = [f"logs-{events}-log" for events in EVENT_LOGS]
    assert made(preview=preview).children("logs") == sorted(
        [*routes, *logs, "logs-rights", "logs-role"]
    )


def test_each_kind_of_event_has_a_log_group_named_with_fleet_and_suffix() -> None:
    assert {group.name: group.inputs for group in made().of("LogGroup")} == {
        f"logs-{events}-log": {
            "name": f"/iot-ota/{P}/{events}",
            "retentionInDays": 7,
            "tags": TAGS,
        }
        for events in EVENT_LOGS
    }


@pytest.mark.parametrize("protect", [False, True])
def test_evidence_is_kept_where_the_stack_is_protected(protect: bool) -> None:
    graph = build(
        lambda: {"groups": EventLogs("logs", context(protect=protect)).group_names["job-events"]}
    )
    kept = sorted(f"logs-{events}-log" for events in EVENT_LOGS) * protect
    assert sorted(r.name for r in graph if r.protect) == kept
    assert sorted(r.name for r in graph if r.retain_on_delete) == kept


def test_the_routes_fill_the_log_groups() -> None:
    role = f"arn:aws:iam::123456789012:role/{P}-event-logs"
    assert {rule.name: rule.inputs for rule in made().of("TopicRule")} == {
        f"logs-{rule.replace('_', '-')}-rule": {
            "name": f"{RULE}_{rule}",
            "description": (
                f"Writes this stack's {rule.replace('_', ' ')} to the log group {route.log}"
            ),
            "enabled": True,
            "sqlVersion": "2016-03-23",
            "sql": event_sql(NAMES, route),
            "cloudwatchLogs": [{"logGroupName": f"/iot-ota/{P}/{route.log}", "roleArn": role}],
            "tags": TAGS,
        }
        for rule, route in EVENT_ROUTES.items()
    }


def test_every_log_group_is_filled() -> None:
    assert {route.log for route in EVENT_ROUTES.values()} == set(EVENT_LOGS)


def test_the_routes_take_this_stacks_events_only() -> None:
    assert {rule: event_sql(NAMES, route) for rule, route in EVENT_ROUTES.items()} == {
        "job_events": (
            "SELECT * FROM '$aws/events/job/+/+' WHERE regexp_matches(jobId, '^0a1b2c3d-')"
        ),
        "job_execution_events": (
            "SELECT * FROM '$aws/events/jobExecution/+/+' WHERE regexp_matches(jobId, '^0a1b2c3d-')"
        ),
        "thing_events": (
            f"SELECT * FROM '$aws/events/thing/+/+' WHERE regexp_matches(thingName, '^{P}-')"
        ),
        "thing_type_events": (
            "SELECT * FROM '$aws/events/thingType/+/+' WHERE regexp_matches(thingTypeName,"
            f" '^{P}-')"
        ),
        "thing_type_association_events": (
            "SELECT * FROM '$aws/events/thingTypeAssociation/thing/+/thingType/+/+' WHERE"
            f" regexp_matches(thingName, '^{P}-')"
        ),
        "thing_group_events": (
            "SELECT * FROM '$aws/events/thingGroup/+/+' WHERE regexp_matches(thingGroupName,"
            f" '^{P}(-|$)')"
        ),
        "thing_group_membership_events": (
            "SELECT * FROM '$aws/events/thingGroupMembership/thingGroup/+/thing/+/+' WHERE"
            f" regexp_matches(topic(5), '^{P}(-|$)')"
        ),
        "thing_group_hierarchy_events": (
            "SELECT * FROM '$aws/events/thingGroupHierarchy/thingGroup/+/childThingGroup/+/+' "
            f"WHERE regexp_matches(topic(5), '^{P}(-|$)')"
        ),
    }


def test_the_rules_write_into_these_log_groups_only() -> None:
    graph = made()
    assert graph["logs-role"].inputs == {
        "name": f"{P}-event-logs",
        "description": "Topic rules write events into log groups",
        "assumeRolePolicy": policies.to_json(policies.event_log_trust(LOCATION, NAMES)),
        "tags": TAGS,
    }
    arns = [
        f"arn:aws:logs:us-east-1:123456789012:log-group:/iot-ota/{P}/{events}"
        for events in EVENT_LOGS
    ]
    assert graph["logs-rights"].inputs == {
        "name": "event-logs",
        "role": f"{P}-event-logs",
        "policy": policies.to_json(policies.log_writing_policy(arns)),
    }
    for rule in graph.of("TopicRule"):
        assert "logs-rights" in graph.before(rule.name), "IoT drops what the role may not write"
