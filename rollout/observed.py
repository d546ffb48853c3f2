"""What one run of the controller saw in AWS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rollout.orders import Orders
from rollout.release import Firmware

LIVE = frozenset({"IN_PROGRESS", "SCHEDULED"})
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

    @property
    def open(self) -> int:
        """Devices that have not answered yet."""
        return self.queued + self.in_progress


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
    forced: bool = False
    """It was cancelled by force (forceCanceled)."""
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
            forced=bool(answer.get("forceCanceled")),
            description=answer.get("description", ""),
        )

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def is_leaving(self) -> bool:
        """Whether somebody deletes it (DeleteJob): AWS takes its time for that."""
        return self.status == "DELETION_IN_PROGRESS"

    @property
    def is_abrupt(self) -> bool:
        """Whether what devices had begun was ended, too, and counts as CANCELED: the job was
        cancelled by force, or is being deleted."""
        return self.forced or self.is_leaving

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen in it any more: it ended, AWS has cancelled what was queued,
        and whoever had begun has answered."""
        return not self.is_live and self.settled and not self.counts.open


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A CloudWatch alarm: its state, and since when (seconds since 1970)."""

    state: Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
    since: float


@dataclass(frozen=True, kw_only=True)
class Source:
    """A job whose devices were exposed, and the ring it was for."""

    job: str
    ring: str


@dataclass(frozen=True, kw_only=True)
class Returning:
    """What is known of the devices that a way back must bring back."""

    exposed: int = 0
    """Devices known by name so far."""
    placed: int = 0
    """Of them, in the group; those that are back, too."""
    back: int = 0
    """Of them, the way back's present job has succeeded on."""
    refused: int = 0
    """Of them, AWS would not have in the group."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Of these, a few by name, with AWS's error code."""
    gone: int = 0
    """Of them, there is no such thing any more."""
    waived: int = 0
    """Of them, not in the group, because a person said that they need not come back."""
    open_waived: int = 0
    """Of them, in the group and not back, and a person said that they need not come back."""
    problems: tuple[str, ...] = ()
    """What keeps the names from being known or placed, in words."""
    is_complete: bool = False
    """Every source is over and was listed after that, and nobody is left to be placed."""

    @property
    def is_unknown(self) -> bool:
        """Whether it cannot be told who must come back."""
        return bool(self.problems) and not self.is_complete

    @property
    def unplaced(self) -> int:
        """Devices that are still to be placed."""
        return self.exposed - self.placed - self.refused - self.gone - self.waived

    @property
    def remaining(self) -> int:
        """Devices that are not proved back, gone or waived."""
        return self.exposed - self.back - self.gone - self.waived - self.open_waived


@dataclass(frozen=True, kw_only=True)
class SignedOffer:
    """What the document of a job offers that a key of the channel signed for that very job."""

    job: str
    ring: str
    sequence: int
    firmware: Firmware
    refuses: tuple[str, ...] = ()
    """Digests that were refused when it was signed."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything `decide` may look at besides manifest, state and time."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    """By job id: the jobs of the state's offers, as far as IoT knows them."""
    unread: frozenset[str] = frozenset()
    """Those of them that AWS would not show now."""
    strays: tuple[SignedOffer, ...] = ()
    """Live jobs of the channel that the state does not name."""
    foreign: frozenset[str] = frozenset()
    """Ids of live jobs under the channel's prefix that nobody of the channel signed."""
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    """By the name the gate uses. One that is missing could not be read."""
    orders: Orders = field(default_factory=Orders)
    manifest_problem: str | None = None
    """Why the manifest was refused; then there is none."""
    image_problems: Mapping[str, str] = field(default_factory=dict)
    """By the image's key in the bucket: why one that is out, wanted, or the last good one's cannot
    be installed."""
    images: Mapping[str, str] = field(default_factory=dict)
    """By the image's key: the version of the S3 object that holds it."""
    ring_groups: frozenset[str] | None = None
    """Rings that have a thing group; None where that need not be looked at."""
    is_fleet_empty: bool = False
    """No ring has a device; looked at before the first release has passed only."""
    groups: frozenset[int] = frozenset()
    """Sequences of the rollback groups that exist."""
    returning: Returning = Returning()
    """Of the way back that is open."""
