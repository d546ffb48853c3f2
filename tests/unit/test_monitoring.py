"""Monitoring: alarms, notifications, dashboard."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from components import policies
from components.dashboard import JOB_METRICS, dashboard, search_jobs
from components.monitoring import ALARM_RULES, Monitoring, MonitoringArgs
from rollout.names import (
    ALARMS,
    EVENT_LOGS,
    METRIC_NAMESPACE,
    PROVISIONING_ALARMS,
    RING_METRICS,
    ChannelMetric,
    ProvisioningMetric,
)
from tests.unit.examples import LOCATION, NAMES, TAGS, P, context, make_controller
from tests.unit.harness import Graph, build

TOPIC = f"arn:aws:sns:us-east-1:123456789012:{P}-notifications"
FUNCTION = f"{P}-stable-controller"
QUEUE = f"{FUNCTION}-dead-letters"


@cache
def made(
    *, preview: bool = False, notifications: tuple[str, ...] = (), provisioned: bool = False
) -> Graph:
    def program() -> object:
        args = MonitoringArgs(
            context=context(),
            controller=make_controller(),
            rings=("canary", "broad"),
            notifications=notifications,
            provisioned=provisioned,
        )
        return {"dashboardUrl": Monitoring("watch", args).dashboard_url}

    return build(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_it_is_alarms_a_topic_and_a_dashboard(preview: bool) -> None:
    alarms = [f"watch-{short}-alarm" for short in ALARMS]
    rest = ["watch-dashboard", "watch-notifications", "watch-notifications-policy"]
    assert made(preview=preview).children("watch") == sorted([*alarms, *rest])
    more = [f"watch-{short}-alarm" for short in PROVISIONING_ALARMS]
    provisioned = made(preview=preview, provisioned=True)
    assert provisioned.children("watch") == sorted([*alarms, *rest, *more])


CONTROLLER = {"Suffix": "0a1b2c3d", "Channel": "stable"}
ALARM_SHAPES: dict[str, dict[str, Any]] = {
    "ring-failing": {"metricName": "ReleaseFailed", "treatMissingData": "ignore"},
    "rollback-failed": {"metricName": "RollbackFailed", "treatMissingData": "ignore"},
    "person-needed": {"metricName": "Held", "treatMissingData": "ignore"},
    "forged": {"metricName": "Forged"},
    "no-heartbeat": {
        "metricName": "Heartbeat",
        "statistic": "Sum",
        "comparisonOperator": "LessThanThreshold",
        "evaluationPeriods": 5,
        "datapointsToAlarm": 5,
        "treatMissingData": "breaching",
    },
    "refused-manifest": {
        "metricName": "ManifestRefused",
        "evaluationPeriods": 5,
        "datapointsToAlarm": 5,
    },
    "controller-errors": {
        "namespace": "AWS/Lambda",
        "metricName": "Errors",
        "dimensions": {"FunctionName": FUNCTION},
        "statistic": "Sum",
        "evaluationPeriods": 5,
        "datapointsToAlarm": 3,
    },
    "dead-letters": {
        "namespace": "AWS/SQS",
        "metricName": "ApproximateNumberOfMessagesVisible",
        "dimensions": {"QueueName": QUEUE},
    },
    "provisioning-errors": {
        "namespace": "AWS/Lambda",
        "metricName": "Errors",
        "dimensions": {"FunctionName": f"{P}-provisioning-hook"},
        "statistic": "Sum",
    },
    "provisioning-refused": {
        "metricName": "ClaimsRefused",
        "dimensions": {"Suffix": "0a1b2c3d"},
        "statistic": "Sum",
    },
}


@pytest.mark.parametrize("short", [*ALARMS, *PROVISIONING_ALARMS])
def test_the_alarms(short: str) -> None:
    assert made(provisioned=True)[f"watch-{short}-alarm"].inputs == {
        "name": f"{P}-{short}",
        "alarmDescription": ALARM_RULES[short].description,
        "namespace": "IotOta",
        "dimensions": CONTROLLER,
        "statistic": "Maximum",
        "comparisonOperator": "GreaterThanOrEqualToThreshold",
        "threshold": 1,
        "period": 60,
        "evaluationPeriods": 1,
        "datapointsToAlarm": 1,
        "treatMissingData": "notBreaching",
        "alarmActions": [TOPIC],
        "okActions": [TOPIC],
        "tags": TAGS,
        **ALARM_SHAPES[short],
    }


def test_there_is_a_rule_for_every_alarm_that_a_gate_may_name() -> None:
    known = sorted([*ALARMS, *PROVISIONING_ALARMS])
    assert sorted(ALARM_RULES) == known == sorted(ALARM_SHAPES)


@pytest.mark.parametrize("preview", [False, True])
def test_each_address_is_subscribed(preview: bool) -> None:
    graph = made(preview=preview, notifications=("ops@example.com", "dev@example.com"))
    subscriptions = {
        item.name: (item.inputs["protocol"], item.inputs["endpoint"])
        for item in graph.of("TopicSubscription")
    }
    assert subscriptions == {
        "watch-email-dev@example.com": ("email", "dev@example.com"),
        "watch-email-ops@example.com": ("email", "ops@example.com"),
    }


def test_the_topic_takes_messages_from_alarms() -> None:
    graph = made()
    assert graph["watch-notifications"].inputs == {"name": f"{P}-notifications", "tags": TAGS}
    expected = policies.notifications_policy(TOPIC, LOCATION, NAMES, tls_only=True)
    assert graph["watch-notifications-policy"].inputs == {
        "arn": TOPIC,
        "policy": policies.to_json(expected),
    }


BODY = dashboard(
    names=NAMES,
    location=LOCATION,
    rings=("canary", "early", "broad"),
    function_name="the-function",
    function_log="/aws/lambda/the-function",
    dead_letters_name="the-queue",
    alarm_arns={short: f"arn:{short}" for short in ALARMS},
)
PROVISIONED = dashboard(
    names=NAMES,
    location=LOCATION,
    rings=("canary", "early", "broad"),
    function_name="the-function",
    function_log="/aws/lambda/the-function",
    dead_letters_name="the-queue",
    alarm_arns={short: f"arn:{short}" for short in (*ALARMS, *PROVISIONING_ALARMS)},
)
WIDGETS = {widget["properties"].get("title", "links"): widget for widget in BODY["widgets"]}


def test_the_dashboard_is_the_bodys_text() -> None:
    graph = made()
    arns = {
        short: f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{P}-{short}" for short in ALARMS
    }
    expected = dashboard(
        names=NAMES,
        location=LOCATION,
        rings=("canary", "broad"),
        function_name=FUNCTION,
        function_log=f"/aws/lambda/{FUNCTION}",
        dead_letters_name=QUEUE,
        alarm_arns=arns,
    )
    assert graph["watch-dashboard"].document("dashboardBody") == expected
    assert graph["watch-dashboard"].inputs["dashboardName"] == P


def test_the_dashboard_shows_rings_jobs_connections_controller_and_alarms() -> None:
    assert list(WIDGETS) == [
        "links",
        "Alarms",
        "Ring canary",
        "Ring early",
        "Ring broad",
        "Jobs",
        "Connections of the account",
        "Controller",
        "Controller function",
        "Event logs: failed writes",
        "Controller run time",
    ]
    assert WIDGETS["Alarms"]["properties"]["alarms"] == [f"arn:{short}" for short in ALARMS]


def test_where_devices_come_in_by_claim_the_dashboard_shows_that_too() -> None:
    widgets = {each["properties"].get("title", "links"): each for each in PROVISIONED["widgets"]}
    assert list(widgets) == [*WIDGETS, "Devices that come in", "Pre-provisioning hook"]
    assert widgets["Alarms"]["properties"]["alarms"][-2:] == [
        "arn:provisioning-errors",
        "arn:provisioning-refused",
    ]
    assert widgets["Devices that come in"]["properties"]["metrics"] == [
        ["IotOta", "ClaimsAllowed", "Suffix", "0a1b2c3d"],
        ["IotOta", "ClaimsRefused", "Suffix", "0a1b2c3d"],
        ["AWS/IoT", "RegisterThingFailed", "TemplateName", f"{P}-claim"],
    ]
    log = f"$252Faws$252Flambda$252F{P}-provisioning-hook)"
    assert log in widgets["links"]["properties"]["markdown"]
    assert log not in WIDGETS["links"]["properties"]["markdown"]


@pytest.mark.parametrize("body", [BODY, PROVISIONED])
def test_no_two_widgets_lie_on_one_another(body: dict[str, Any]) -> None:
    places = [(widget["x"], widget["y"]) for widget in body["widgets"]]
    assert len(set(places)) == len(places)
    assert all(widget["x"] + widget["width"] <= 24 for widget in body["widgets"])


def test_a_ring_stacks_its_devices_by_what_became_of_them() -> None:
    properties = WIDGETS["Ring canary"]["properties"]
    assert properties["stacked"] is True
    assert properties["metrics"] == [
        ["IotOta", f"Devices{what}", "Suffix", "0a1b2c3d", "Channel", "stable", "Ring", "canary"]
        for what in ("Queued", "InProgress", "Succeeded", "Failed", "TimedOut", "Rejected")
    ]


def test_the_dashboard_searches_the_stacks_jobs() -> None:
    expressions = [metric[0]["expression"] for metric in WIDGETS["Jobs"]["properties"]["metrics"]]
    assert expressions == [search_jobs(NAMES, metric) for metric in JOB_METRICS]
    assert (
        expressions[2]
        == "SEARCH('{AWS/IoT,JobId} MetricName=\"SuccededJobExecutionTotalCount\" JobId=0a1b2c3d',"
        " 'Maximum', 60)"
    )


AWS_METRICS = {
    # the names that AWS documents for these namespaces, of those used here
    "AWS/IoT": {
        *(
            f"{state}JobExecutionTotalCount"
            for state in ("Queued", "InProgress", "Succeded", "Failed", "Rejected", "Canceled")
        ),
        *(f"Connect.{result}" for result in ("Success", "AuthError", "ClientError", "Throttle")),
        "Failure",
        "RegisterThingFailed",
    },
    "AWS/Lambda": {"Invocations", "Errors", "Throttles", "Duration"},
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible"},
    METRIC_NAMESPACE: {*RING_METRICS, *ChannelMetric, *ProvisioningMetric},
}


def test_dashboard_and_alarms_name_only_metrics_that_exist() -> None:
    shown = {
        (metric[0], metric[1])
        for widget in PROVISIONED["widgets"]
        for metric in widget["properties"].get("metrics", [])
        if len(metric) > 1
    }
    watched = {(rule.namespace, rule.metric) for rule in ALARM_RULES.values()}
    searched = {("AWS/IoT", metric) for metric in JOB_METRICS}
    unknown = {
        (namespace, metric)
        for namespace, metric in shown | watched | searched
        if metric not in AWS_METRICS[namespace]
    }
    assert unknown == set()


def test_the_dashboard_links_to_every_log() -> None:
    markdown = WIDGETS["links"]["properties"]["markdown"]
    for group in (
        "aws$252Flambda$252Fthe-function",
        *(f"iot-ota$252F{P}$252F{events}" for events in EVENT_LOGS),
    ):
        assert f"region=us-east-1#logsV2:log-groups/log-group/$252F{group})" in markdown


def test_the_url_leads_to_the_dashboard() -> None:
    url = made().exports["dashboardUrl"].value
    assert (
        url
        == f"https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards/dashboard/{P}"
    )
