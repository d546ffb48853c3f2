"""CloudWatch: log groups, alarms, dashboards; EventBridge rules."""

from __future__ import annotations

from typing import Any

from sandbox.handlers.registry import Made, Resource, handles, pairs, pascal, text


@handles("aws:cloudwatch/logGroup:LogGroup", "name", "kmsKeyId", "logGroupClass", "tags")
def log_group(r: Resource) -> Made:
    logs, name = r.aws.client("logs"), r.called()
    r.inputs.ignore("skipDestroy")
    if not r.old:
        tags = {"tags": r.inputs["tags"]} if r.inputs.get("tags") else {}
        logs.create_log_group(
            logGroupName=name, **r.inputs.pick("kmsKeyId", "logGroupClass"), **tags
        )
    if days := r.inputs.get("retentionInDays"):
        logs.put_retention_policy(logGroupName=name, retentionInDays=days)
    return name, {"name": name, "arn": r.aws.arn("logs", f"log-group:{name}")}


@handles("aws:cloudwatch/eventRule:EventRule", "name", "eventBusName", "tags")
def event_rule(r: Resource) -> Made:
    name = r.called()
    rule = pascal(
        r.inputs.pick("scheduleExpression", "description", "state", "roleArn", "eventBusName")
    )
    if pattern := r.inputs.get("eventPattern"):
        rule["EventPattern"] = text(pattern)
    if not r.old:
        rule["Tags"] = pairs(r.inputs.get("tags"))
    return name, {
        "name": name,
        "arn": r.aws.client("events").put_rule(Name=name, **rule)["RuleArn"],
    }


@handles("aws:cloudwatch/eventTarget:EventTarget", "rule", "targetId", "eventBusName")
def event_target(r: Resource) -> Made:
    rule, name = r.inputs["rule"], r.called("targetId")
    target = pascal(r.inputs.pick("arn", "input", "roleArn", "deadLetterConfig", "retryPolicy"))
    bus = pascal(r.inputs.pick("eventBusName"))
    answer = r.aws.client("events").put_targets(Rule=rule, Targets=[{"Id": name, **target}], **bus)
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"target of rule {rule} refused: {answer['FailedEntries']}")
    return f"{rule}-{name}", {"targetId": name}


ALARM = (
    "actionsEnabled",
    "alarmActions",
    "alarmDescription",
    "comparisonOperator",
    "datapointsToAlarm",
    "evaluationPeriods",
    "extendedStatistic",
    "insufficientDataActions",
    "metricName",
    "namespace",
    "period",
    "statistic",
    "threshold",
    "thresholdMetricId",
    "treatMissingData",
    "unit",
)


@handles("aws:cloudwatch/metricAlarm:MetricAlarm", "name", "tags")
def metric_alarm(r: Resource) -> Made:
    name = r.called()
    alarm = {key[:1].upper() + key[1:]: value for key, value in r.inputs.pick(*ALARM).items()}
    alarm |= {"OKActions": r.inputs["okActions"]} if r.inputs.get("okActions") else {}
    alarm |= (
        {"Dimensions": pairs(r.inputs["dimensions"], "Name")} if r.inputs.get("dimensions") else {}
    )
    alarm |= (
        {"Metrics": [query(item) for item in r.inputs["metricQueries"]]}
        if r.inputs.get("metricQueries")
        else {}
    )
    r.aws.client("cloudwatch").put_metric_alarm(
        AlarmName=name, Tags=pairs(r.inputs.get("tags")), **alarm
    )
    return name, {"name": name, "arn": r.aws.arn("cloudwatch", f"alarm:{name}")}


def query(item: dict[str, Any]) -> dict[str, Any]:
    """One metric query of an alarm, as PutMetricAlarm takes it."""
    wanted: dict[str, Any] = pascal({key: value for key, value in item.items() if key != "metric"})
    if metric := item.get("metric"):
        named = {"MetricName": metric["metricName"], "Namespace": metric["namespace"]}
        rest = pascal(
            {key: metric[key] for key in ("period", "stat", "unit") if metric.get(key) is not None}
        )
        wanted["MetricStat"] = {
            "Metric": {**named, "Dimensions": pairs(metric.get("dimensions"), "Name")},
            **rest,
        }
    return wanted


@handles("aws:cloudwatch/dashboard:Dashboard", "dashboardName")
def dashboard(r: Resource) -> Made:
    name = r.called("dashboardName")
    r.aws.client("cloudwatch").put_dashboard(
        DashboardName=name, DashboardBody=text(r.inputs["dashboardBody"])
    )
    return name, {
        "dashboardArn": f"arn:{r.aws.partition}:cloudwatch::{r.aws.account}:dashboard/{name}"
    }
