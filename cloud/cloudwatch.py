"""CloudWatch: the alarms that gates and people watch, and the controller's own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloud.clients import Clients
from rollout.names import METRIC_NAMESPACE, RING_METRICS, ChannelMetric, Names
from rollout.observed import Alarm, Counts

ALARMS_A_CALL = 100
"""AlarmNames of one DescribeAlarms."""
HEARTBEAT_SECONDS = 3600
"""How far back the controller's last run is looked for."""


class CloudWatch:
    def __init__(self, clients: Clients, names: Names) -> None:
        self._clients, self._names = clients, names

    def alarms(self, names: Iterable[str]) -> dict[str, Alarm]:
        """By full name: those of the alarms that exist."""
        wanted, found = sorted(set(names)), dict[str, Alarm]()
        for start in range(0, len(wanted), ALARMS_A_CALL):
            answer = self._clients.cloudwatch.describe_alarms(
                AlarmNames=wanted[start : start + ALARMS_A_CALL],
                AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                MaxRecords=ALARMS_A_CALL,
            )
            for alarm in [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]:
                since = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
                found[alarm["AlarmName"]] = Alarm(
                    state=alarm["StateValue"], since=since.timestamp()
                )
        return found

    def put(self, channel: Mapping[ChannelMetric, float], rings: Mapping[str, Counts]) -> None:
        """Sends the channel's metrics, and by ring the counts of its job."""
        data = [_datum(metric, value, self._dimensions()) for metric, value in channel.items()]
        for ring, counts in sorted(rings.items()):
            where = self._dimensions(Ring=ring)
            data += [
                _datum(metric, getattr(counts, field), where)
                for metric, field in RING_METRICS.items()
            ]
        self._clients.cloudwatch.put_metric_data(Namespace=METRIC_NAMESPACE, MetricData=data)

    def last_run(self, now: float) -> float | None:
        """The minute of the controller's last run (seconds since 1970), if it ran in the last
        hour: its heartbeat."""
        answer = self._clients.cloudwatch.get_metric_statistics(
            Namespace=METRIC_NAMESPACE,
            MetricName=ChannelMetric.HEARTBEAT,
            StartTime=int(now) - HEARTBEAT_SECONDS,
            EndTime=int(now) + 60,
            Period=60,
            Statistics=["Sum"],
            Dimensions=self._dimensions(),
        )
        return max((point["Timestamp"].timestamp() for point in answer["Datapoints"]), default=None)

    def _dimensions(self, **more: str) -> list[dict[str, str]]:
        own = {"Suffix": self._names.suffix, "Channel": self._names.channel, **more}
        return [{"Name": name, "Value": value} for name, value in own.items()]


def _datum(metric: str, value: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {"MetricName": metric, "Value": value, "Unit": "Count", "Dimensions": dimensions}
