"""CloudWatch: log groups, alarms, dashboards; EventBridge rules."""

from __future__ import annotations

from sandbox.handlers.registry import IdAndOutputs, Resource, makes_and_updates, pairs, pascal


@makes_and_updates("aws:cloudwatch/logGroup:LogGroup", "name", "tags")
def log_group(r: Resource) -> IdAndOutputs:
    logs, name = r.aws.client("logs"), r.inputs["name"]
    if not r.old:
        logs.create_log_group(logGroupName=name, tags=r.inputs["tags"])
    logs.put_retention_policy(logGroupName=name, retentionInDays=r.inputs["retentionInDays"])
    return name, {"arn": r.aws.arn("logs", f"log-group:{name}")}


@makes_and_updates("aws:cloudwatch/eventRule:EventRule", "name", "tags")
def event_rule(r: Resource) -> IdAndOutputs:
    name, tags = r.inputs["name"], pairs(r.inputs["tags"])
    rule = pascal(r.inputs.pick_rest())
    return name, {"arn": r.aws.client("events").put_rule(Name=name, Tags=tags, **rule)["RuleArn"]}


@makes_and_updates("aws:cloudwatch/eventTarget:EventTarget", "rule", "targetId")
def event_target(r: Resource) -> IdAndOutputs:
    rule, name = r.inputs["rule"], r.inputs["targetId"]
    target = {"Id": name, **pascal(r.inputs.pick_rest())}
    answer = r.aws.client("events").put_targets(Rule=rule, Targets=[target])
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"target of rule {rule} refused: {answer['FailedEntries']}")
    return f"{rule}-{name}", {}


@makes_and_updates("aws:cloudwatch/metricAlarm:MetricAlarm", "name", "tags")
def metric_alarm(r: Resource) -> IdAndOutputs:
    name, tags = r.inputs["name"], pairs(r.inputs["tags"])
    dimensions = pairs(r.inputs["dimensions"], "Name")
    alarm = pascal(r.inputs.pick_rest(), {"okActions": "OKActions"})
    r.aws.client("cloudwatch").put_metric_alarm(
        AlarmName=name, Tags=tags, Dimensions=dimensions, **alarm
    )
    return name, {"arn": r.aws.arn("cloudwatch", f"alarm:{name}")}


@makes_and_updates("aws:cloudwatch/dashboard:Dashboard", "dashboardName")
def dashboard(r: Resource) -> IdAndOutputs:
    name, body = r.inputs["dashboardName"], r.inputs["dashboardBody"]
    r.aws.client("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=body)
    return name, {}
