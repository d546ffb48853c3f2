"""One IoT job and one rollback group, made of counts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from forecast.assumptions import Executed
from forecast.population import Result, Segment, add_to, take_next
from rollout.observed import Counts, Job
from rollout.release import Abort, Pace


class Cohort(NamedTuple):
    """Devices that began the new firmware together and end alike, at this minute."""

    end: int
    result: Result
    devices: int


def devices_per_minute(pace: Pace, grown_by: int) -> int:
    """The rate of a job when so many devices were notified, or succeeded, as `increase_on` says
    (CreateJob exponentialRate)."""
    if pace.base_per_minute is None:
        return pace.maximum_per_minute
    steps = min(grown_by // pace.increase_after, 80)  # 1.1 ** 80 is above 1,000 times the base
    return min(pace.maximum_per_minute, int(pace.base_per_minute * pace.factor**steps))


@dataclass(eq=False)
class SimulatedJob:
    """One IoT job."""

    ring: str
    carries_release: bool = False
    """It carries the new firmware, not the last good one."""
    made_at: int = 0
    """The minute in which it was created; 0 also for those from before."""
    pace: Pace = field(default_factory=Pace)
    abort: tuple[Abort, ...] = ()
    unreached: dict[Segment, int] = field(default_factory=dict)
    """Devices that the rollout has not reached."""
    queued_offline: dict[Segment, int] = field(default_factory=dict)
    """Devices with a queued execution that are offline."""
    cohorts: list[Cohort] = field(default_factory=list)
    phase: Literal["live", "canceling", "canceled"] = "live"
    canceled_at: int | None = None
    """The minute in which the controller, or IoT's brake, cancelled it."""
    cancel_ends: int = 0
    """The minute from which it is canceled."""
    notified: int = 0
    """Devices that the rollout has reached."""
    joined: int = 0
    """Devices that came into its group later."""
    queued: int = 0
    in_progress: int = 0
    exposed: int = 0
    ended: dict[Result | Literal["canceled"], int] = field(default_factory=lambda: defaultdict(int))
    reach_remainders: dict[Segment, float] = field(default_factory=dict)
    reconnect_remainders: dict[tuple[bool, Segment], float] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.phase == "live"

    @property
    def is_reaching(self) -> bool:
        """Whether devices still get it: the new firmware also until a cancel is through, since AWS
        does not say that it stops before."""
        return self.is_live or (self.carries_release and self.phase == "canceling")

    @property
    def executions(self) -> int:
        return self.notified + self.joined

    def counts(self) -> Counts:
        ended = self.ended
        return Counts(
            queued=self.queued,
            in_progress=self.in_progress,
            succeeded=ended["install"] + ended["same"],
            failed=ended["fail"],
            timed_out=ended["silent"] + ended["late"],
            rejected=ended["reject"],
            canceled=ended["canceled"],
        )

    def describe(self) -> Job:
        """The job as DescribeJob shows it."""
        return Job(
            status="IN_PROGRESS" if self.is_live else "CANCELED",
            counts=self.counts(),
            settled=not self.unreached and self.phase != "canceling",
            armed=bool(self.abort),
        )

    def reach_next(self) -> dict[Segment, int]:
        """The devices that the rollout reaches this minute."""
        succeeded = self.ended["install"] + self.ended["same"]
        grown_by = self.notified if self.pace.increase_on == "notified" else succeeded
        rate = devices_per_minute(self.pace, grown_by)
        found = take_next(rate, self.unreached, self.reach_remainders)
        self.notified += sum(found.values())
        return found

    def reconnect(self, number: int) -> dict[Segment, int]:
        """Devices of its ring reconnect: those with a queued execution, which can begin now; the
        rest waits for the rollout."""
        unreached = {key: count for key, count in self.unreached.items() if not key.is_online}
        offline = {(False, key): count for key, count in unreached.items()}
        offline |= {(True, key): count for key, count in self.queued_offline.items()}
        beginning: dict[Segment, int] = {}
        taken = take_next(number, offline, self.reconnect_remainders)
        for (is_queued, segment), count in taken.items():
            if is_queued:
                add_to(self.queued_offline, segment, -count)
                beginning[segment] = count
            else:
                add_to(self.unreached, segment, -count)
                add_to(self.unreached, segment._replace(is_online=True), count)
        return beginning

    def meets_abort_criteria(self, executed: Executed) -> bool:
        counts = self.counts()
        number = counts.finished + (counts.rejected + counts.canceled if executed == "ended" else 0)
        failed = {"FAILED": counts.failed, "TIMED_OUT": counts.timed_out}
        return any(
            number >= c.minimum and failed[c.on] * 100 >= c.percent * number for c in self.abort
        )

    def finish_cancel(self) -> None:
        """Ends what is queued only: what a device has begun goes on."""
        self.phase, self.ended["canceled"], self.queued = "canceled", self.queued, 0
        self.unreached.clear()
        self.queued_offline.clear()


@dataclass
class RollbackGroup:
    """The thing group of a way back."""

    members: int = 0
    enrolled_until: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By exposing job: its first cohort that is not enrolled whole, and how many of that are."""
