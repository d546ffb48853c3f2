"""The channel's dashboard. Pure: the body as CloudWatch takes it.

See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.event_logs import EVENT_ROUTES
from components.location import Location
from rollout.names import (
    ALARMS,
    EVENT_LOGS,
    METRIC_NAMESPACE,
    PROVISIONING_ALARMS,
    RING_METRICS,
    ChannelMetric,
    Names,
    ProvisioningMetric,
)

JOB_METRICS = (
    "QueuedJobExecutionTotalCount",
    "InProgressJobExecutionTotalCount",
    "SuccededJobExecutionTotalCount",  # as AWS spells it
    "FailedJobExecutionTotalCount",
    "RejectedJobExecutionTotalCount",
    "CanceledJobExecutionTotalCount",
)
"""See https://docs.aws.amazon.com/iot/latest/developerguide/metrics_dimensions.html"""
CONNECTION_METRICS = (
    "Connect.Success",
    "Connect.AuthError",
    "Connect.ClientError",
    "Connect.Throttle",
)


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
    """A grid 24 wide, read from top to bottom. Provisioning is shown where it has alarms."""
    channel = ["Suffix", names.suffix, "Channel", names.channel]
    function, queue = ["FunctionName", function_name], ["QueueName", dead_letters_name]
    letters = ["AWS/SQS", "ApproximateNumberOfMessagesVisible", *queue]
    is_provisioned = PROVISIONING_ALARMS[0] in alarm_arns
    shorts = (*ALARMS, *(PROVISIONING_ALARMS if is_provisioned else ()))
    alarms = {"title": "Alarms", "alarms": [alarm_arns[short] for short in shorts]}
    hook_log = names.provisioning_hook_log if is_provisioned else None
    markdown = {"markdown": format_links(names, location, function_log, hook_log)}

    def graph(title: str, metrics: Iterable[list[Any]], stat: str = "Maximum") -> dict[str, Any]:
        properties = {
            "title": title,
            "region": location.region,
            "view": "timeSeries",
            "stacked": title.startswith("Ring "),
            "period": 60,
            "stat": stat,
            "metrics": list(metrics),
        }
        return {"type": "metric", "properties": properties}

    widgets = [
        {"type": "text", "properties": markdown},
        {"type": "alarm", "properties": alarms},
        *(
            graph(
                f"Ring {ring}",
                ([METRIC_NAMESPACE, metric, *channel, "Ring", ring] for metric in RING_METRICS),
            )
            for ring in rings
        ),
    ]
    # the rings may be an odd number, and what follows begins a row
    row = (len(widgets) + 1) // 2
    below = [
        graph(
            "Jobs",
            ([{"expression": search_jobs(names, each), "label": each}] for each in JOB_METRICS),
        ),
        graph(
            "Connections of the account",
            (["AWS/IoT", metric, "Protocol", "MQTT"] for metric in CONNECTION_METRICS),
            "Sum",
        ),
        graph("Controller", ([METRIC_NAMESPACE, metric, *channel] for metric in ChannelMetric)),
        graph(
            "Controller function",
            [
                *(["AWS/Lambda", m, *function] for m in ("Invocations", "Errors", "Throttles")),
                letters,
            ],
            "Sum",
        ),
        graph(
            "Event logs: failed writes",
            (
                ["AWS/IoT", "Failure", "RuleName", name, "ActionType", "CloudwatchLogs"]
                for name in map(names.topic_rule, EVENT_ROUTES)
            ),
            "Sum",
        ),
        graph("Controller run time", [["AWS/Lambda", "Duration", *function]]),
    ]
    hook = ["FunctionName", names.provisioning_hook]
    provisioning = [
        graph(
            "Devices that come in",
            [
                *(
                    [METRIC_NAMESPACE, metric, "Suffix", names.suffix]
                    for metric in ProvisioningMetric
                ),
                ["AWS/IoT", "RegisterThingFailed", "TemplateName", names.provisioning_template],
            ],
            "Sum",
        ),
        graph(
            "Pre-provisioning hook",
            [
                *(["AWS/Lambda", m, *hook] for m in ("Errors", "Throttles")),
                ["AWS/Lambda", "Duration", *hook, {"stat": "Maximum", "yAxis": "right"}],
            ],
            "Sum",
        ),
    ]
    below += provisioning if is_provisioned else []
    return {"widgets": [*_lay_out(widgets, 0), *_lay_out(below, row)]}


def _lay_out(widgets: Iterable[dict[str, Any]], row: int) -> list[dict[str, Any]]:
    """Two widgets a row."""
    return [
        {**widget, "x": 12 * (index % 2), "y": 6 * (row + index // 2), "width": 12, "height": 6}
        for index, widget in enumerate(widgets)
    ]


def search_jobs(names: Names, metric: str) -> str:
    """IoT counts per job, and jobs come and go: this finds those of the stack's suffix."""
    found = f'{{AWS/IoT,JobId}} MetricName="{metric}" JobId={names.suffix}'
    return f"SEARCH('{found}', 'Maximum', 60)"


def format_links(
    names: Names, location: Location, function_log: str, hook_log: str | None = None
) -> str:
    """Markdown: where the logs are."""
    groups = {"controller": function_log} | {
        events.replace("-", " "): names.event_log(events) for events in EVENT_LOGS
    }
    groups |= {"pre-provisioning hook": hook_log} if hook_log else {}
    lines = [f"# {names.fleet} {names.suffix}, channel {names.channel}", "", "Logs:"]
    for title, group in groups.items():
        path = group.replace("/", "$252F")  # `/`, encoded twice, `%` written as `$`
        lines.append(f"- [{title}]({location.console(f'logsV2:log-groups/log-group/{path}')})")
    return "\n".join(lines)
