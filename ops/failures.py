"""Why devices fail: their own reasons, from a sample of the executions that failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloud.channel import Channel
from cloud.jobs import Execution
from ops.text import one_line

MAX_SAMPLE = 50
"""Executions that are looked into for one report (DescribeJobExecution)."""
MAX_EXAMPLES = 3
"""Things that are named for a reason."""


@dataclass(frozen=True, kw_only=True)
class FailureReason:
    reason: str
    devices: int
    """Of the sample."""
    examples: tuple[str, ...]
    """At most three of their things."""


@dataclass(frozen=True, kw_only=True)
class FailureReport:
    devices: int
    """That failed, timed out, or rejected a rollback."""
    sampled: int
    """Of these, looked into."""
    reasons: tuple[FailureReason, ...]
    """The most frequent first."""


class FailureSampler:
    """Asks devices' executions for their reasons, and keeps the answers: they do not change."""

    def __init__(self, channel: Channel) -> None:
        self._jobs = channel.jobs
        self._reasons: dict[Execution, str] = {}

    def report(self, failed: Iterable[tuple[str, str, int]]) -> FailureReport:
        """`failed` says where devices failed: job, status of the execution, and how many."""
        places = [place for place in failed if place[2]]
        each = max(MAX_SAMPLE // max(len(places), 1), 1)
        sample = [
            execution
            for job, status, _ in places[:MAX_SAMPLE]
            for execution in self._jobs.sample(job, status, each)
        ]
        things: dict[str, list[str]] = defaultdict(list)
        with ThreadPoolExecutor(8) as pool:
            for execution, reason in zip(sample, pool.map(self._reason, sample), strict=True):
                things[reason].append(execution.thing)
        reasons = [
            FailureReason(
                reason=reason, devices=len(those), examples=tuple(sorted({*those})[:MAX_EXAMPLES])
            )
            for reason, those in sorted(things.items(), key=lambda item: -len(item[1]))
        ]
        devices = sum(count for _, _, count in places)
        return FailureReport(devices=devices, sampled=len(sample), reasons=tuple(reasons))

    def _reason(self, execution: Execution) -> str:
        if execution not in self._reasons:
            details = self._jobs.status_details(execution)
            self._reasons[execution] = describe_failure(execution.status, details)
        return self._reasons[execution]


def describe_failure(status: str, details: Mapping[str, str]) -> str:
    """Why an execution ended with this status, in the device's own words where it said any."""
    ending = status.lower().replace("_", " ")
    said, step = one_line(details.get("reason", "")), one_line(details.get("step", ""))
    if said:
        return said if status in ("FAILED", "SUCCEEDED") else f"{ending}: {said}"
    if step:
        return f"{ending}, last heard of at step {step}"
    return f"{ending}, and the device gave no reason"
