"""What one run of the controller saw in AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rollout.orders import Orders
from rollout.release import Abort

LIVE = frozenset({"IN_PROGRESS", "SCHEDULED"})
ABORT_CANCEL = "ABORT_CANCEL"
"""reasonCode of a job that IoT cancelled because its abort criteria were met."""


DISARMED = 1_000_000_000
"""minNumberOfExecutedThings that no ring reaches: UpdateJob cannot take abort criteria away."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """A job's executions by status (DescribeJob jobProcessDetails)."""

    queued: int = 0
    in_progress: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    rejected: int = 0
    canceled: int = 0
    removed: int = 0

    @classmethod
    def from_details(cls, details: Mapping[str, int]) -> Counts:
        """From jobProcessDetails of a DescribeJob answer."""
        return cls(
            queued=details.get("numberOfQueuedThings", 0),
            in_progress=details.get("numberOfInProgressThings", 0),
            succeeded=details.get("numberOfSucceededThings", 0),
            failed=details.get("numberOfFailedThings", 0),
            timed_out=details.get("numberOfTimedOutThings", 0),
            rejected=details.get("numberOfRejectedThings", 0),
            canceled=details.get("numberOfCanceledThings", 0),
            removed=details.get("numberOfRemovedThings", 0),
        )

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed + self.timed_out

    @property
    def failing(self) -> int:
        return self.failed + self.timed_out

    @property
    def size(self) -> int:
        """Devices the job is for. REJECTED means "not for me" and counts neither way."""
        return self.queued + self.in_progress + self.finished

    @property
    def began(self) -> int:
        return self.in_progress + self.finished


@dataclass(frozen=True, kw_only=True)
class Job:
    """One IoT job as DescribeJob or ListJobs shows it."""

    status: Literal["IN_PROGRESS", "SCHEDULED", "CANCELED", "COMPLETED", "DELETION_IN_PROGRESS"]
    counts: Counts = Counts()
    settled: bool = True
    """isConcurrent is false: everything is rolled out, the counts add up to the ring."""
    armed: bool = False
    """It has abort criteria that can still fire."""
    reason: str | None = None
    """reasonCode of the cancellation."""
    description: str = ""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Job:
        """From the `job` of a DescribeJob answer."""
        criteria = (answer.get("abortConfig") or {}).get("criteriaList") or []
        return cls(
            status=answer["status"],
            counts=Counts.from_details(answer.get("jobProcessDetails") or {}),
            settled=not answer.get("isConcurrent", False),
            armed=any(criterion["minNumberOfExecutedThings"] < DISARMED for criterion in criteria),
            reason=answer.get("reasonCode"),
            description=answer.get("description", ""),
        )

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    def is_aborted(self, criteria: tuple[Abort, ...]) -> bool:
        """Whether IoT itself cancelled it. Told by its reason code or, where that is missing, by
        its own criteria.

        AWS does not say whether "executed" counts cancelled and rejected executions, so either
        reading is enough: both answers stop the ring, one rolls back and the other waits for a
        person.
        """
        if self.status != "CANCELED":
            return False
        return self.reason == ABORT_CANCEL or (
            self.reason is None and any(is_met(self.counts, c) for c in criteria)
        )


def is_met(counts: Counts, criterion: Abort) -> bool:
    failed = counts.failed if criterion.on == "FAILED" else counts.timed_out
    executed = (
        counts.finished,
        counts.finished + counts.rejected + counts.canceled + counts.removed,
    )
    return any(n >= criterion.minimum and failed * 100 >= criterion.percent * n for n in executed)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A CloudWatch alarm: its state, and since when (seconds since 1970)."""

    state: Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
    since: float


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything `decide` may look at besides manifest, state and time."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    """By job id: the jobs that the state names, and every live job of the channel."""
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    """By the name the gate uses. One that is missing could not be read."""
    orders: Orders = field(default_factory=Orders)
    manifest_problem: str | None = None
    """Why the manifest was refused; then there is none."""
    image_problem: str | None = None
    """Why the manifest's image cannot be released."""
    good_image_problem: str | None = None
    """Why the last good image could not be installed again."""
    groups: frozenset[int] = frozenset()
    """Sequences of the rollback groups that exist."""
    enrolled: int = 0
    """Devices in the group of the state's rollback."""
    unenrolled: int = 0
    """Exposed devices that are not yet in it."""
