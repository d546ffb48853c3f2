"""A fleet and AWS IoT Jobs, made of counts, minute by minute.

IoT's rules kept here: CONTINUOUS jobs, at most 1,000 devices a minute, constant and exponential
rates, whoever joins a group outside the rate, a cancel that takes time and ends what is queued
only, abort criteria, in-progress time-outs. Where AWS does not say, the course is the worse one: a
job that is being cancelled goes on reaching devices until the cancel is through.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from forecast.assumptions import DAY, Assumptions
from forecast.population import Result, Segment, add_to, apportion_next, populate_ring, ring_sizes
from forecast.simulated_job import Cohort, RollbackGroup, SimulatedJob
from rollout.names import PLACED_A_MINUTE, ROLLBACK
from rollout.observed import Returning, Source
from rollout.release import Manifest


class Point(NamedTuple):
    """The fleet after a minute: devices that run the new firmware, and that ever began it."""

    minute: int
    updated: int
    exposed: int


class SimulatedFleet:
    """Rings, jobs by id, groups of ways back by sequence, and what has been counted so far."""

    def __init__(self, manifest: Manifest, assumptions: Assumptions) -> None:
        self.manifest, self.assumptions = manifest, assumptions
        self.minute = 0
        self.rings = {
            name: populate_ring(name, size, assumptions)
            for name, size in ring_sizes(manifest, assumptions).items()
        }
        self.jobs: dict[str, SimulatedJob] = {}
        self.groups: dict[int, RollbackGroup] = {}
        self.points = [Point(0, 0, 0)]
        self.updated = self.exposed = self.silent = self.downloads = self.enrolled = 0
        self.creations = 0
        """Calls of CreateJob."""
        self.most_begun = 0
        """Devices that began an update in the busiest minute."""
        self.most_jobs = 0
        """Most live jobs at once."""
        self.first_installed: int | None = None
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._scheduled = self._rotation = self._begun = self._joined = 0
        self._join_remainders: dict[str, float] = {}

    @property
    def size(self) -> int:
        return sum(ring.size for ring in self.rings.values())

    # What the controller calls

    def create_candidate(self, job_id: str, ring: str) -> None:
        """CreateJob of the new firmware for a ring."""
        job = SimulatedJob(ring, carries_release=True, pace=self.manifest.pace)
        job.abort, job.unreached = self.manifest.abort, dict(self.rings[ring].population)
        self._create(job_id, job)

    def create_keeping(self, job_id: str, name: str) -> None:
        """CreateJob of the last good release for a whole ring. Whoever began the new firmware is on
        the way back, too, and is taken to install there: for this job, nothing is left to do."""
        job, ring = SimulatedJob(name), self.rings[name]
        cohorts = [c for other in self.jobs.values() if other.ring == name for c in other.cohorts]
        for cohort in cohorts:
            segment = self._returning(cohort)
            result: Result = "same" if segment.result == "install" else segment.result
            add_to(job.unreached, segment._replace(result=result), cohort.devices)
        exposed = sum(job.unreached.values())
        add_to(job.unreached, Segment("same"), ring.size - ring.offline - exposed)
        add_to(job.unreached, Segment("same", is_online=False), ring.offline)
        self._create(job_id, job)

    def create_way_back(self, job_id: str, group: int) -> None:
        """CreateJob of the last good release for the group of a way back, in which nobody is
        yet."""
        self.groups[group] = RollbackGroup()
        self._create(job_id, SimulatedJob(ROLLBACK))

    def _create(self, job_id: str, job: SimulatedJob) -> None:
        self.jobs[job_id], job.made_at = job, self.minute
        self.creations += 1
        self.most_jobs = max(self.most_jobs, sum(job.is_live for job in self.jobs.values()))

    def cancel(self, job: SimulatedJob) -> None:
        takes = self.assumptions.cancel_takes(job.queued)
        job.canceled_at, job.cancel_ends = self.minute, self.minute + takes
        job.phase = "canceling"
        if not takes:
            job.finish_cancel()

    def enroll(self, sequence: int, sources: tuple[Source, ...], job_id: str) -> bool:
        """Puts a run's devices into the group of a way back, and so into its job; whether there
        were any."""
        group, job = self.groups[sequence], self.jobs[job_id]
        room = PLACED_A_MINUTE
        for source in sources:
            cohorts = self.jobs[source.job].cohorts
            index, done = group.enrolled_until.get(source.job, (0, 0))
            while room and index < len(cohorts):
                number = min(cohorts[index].devices - done, room)
                job.joined += number
                self._reach(job, self._returning(cohorts[index]), number)
                room, done = room - number, done + number
                if done == cohorts[index].devices:
                    index, done = index + 1, 0
            group.enrolled_until[source.job] = index, done
        enrolled = PLACED_A_MINUTE - room
        group.members += enrolled
        self.enrolled += enrolled
        return enrolled > 0

    def returning(self, sequence: int, sources: tuple[Source, ...], job_id: str) -> Returning:
        """What is known of the devices that a way back must bring back."""
        jobs, placed = [self.jobs[source.job] for source in sources], self.groups[sequence].members
        exposed = sum(job.exposed for job in jobs)
        return Returning(
            exposed=exposed,
            placed=placed,
            back=self.jobs[job_id].counts().succeeded,
            is_complete=placed == exposed and all(job.describe().is_over for job in jobs),
        )

    def _returning(self, cohort: Cohort) -> Segment:
        """What devices that began the new firmware make of the last good one; a failed self-test
        has reverted by itself."""
        if cohort.result == "silent":
            return Segment("gone")
        return Segment(
            "same" if cohort.result == "fail" else "install",
            ready=cohort.end if cohort.end > self.minute else 0,
        )

    # IoT Jobs and the devices

    def roll_out(self) -> bool:
        """Reaches this minute's devices; whether there were any."""
        rolling = [job for job in self.jobs.values() if job.unreached and job.is_reaching]
        for job in rolling:
            for segment, number in job.reach_next().items():
                self._reach(job, segment, number)
        return bool(rolling)

    def _reach(self, job: SimulatedJob, segment: Segment, number: int) -> None:
        """An execution is queued for devices; those that can begin at once."""
        if segment.result != "gone" and segment.is_online and segment.ready <= self.minute:
            self._begin(job, segment.result, number)
            return
        job.queued += number
        if segment.result == "gone":
            return
        if segment.is_online:
            self._schedule(segment.ready, partial(self._dequeue, job, segment.result, number))
        else:
            add_to(job.queued_offline, segment, number)

    def _dequeue(self, job: SimulatedJob, result: Result, number: int) -> None:
        """Devices that were busy or offline begin what is queued for them."""
        if job.phase != "canceled":
            job.queued -= number
            self._begin(job, result, number)

    def _begin(self, job: SimulatedJob, result: Result, number: int) -> None:
        if result in ("reject", "same"):
            job.ended[result] += number
            return
        job.in_progress += number
        self.downloads += number
        self._begun += number
        if job.carries_release:
            job.exposed += number
            self.exposed += number
        timeout = self.manifest.in_progress_timeout_minutes
        durations = [(timeout, number)] if result == "silent" else self._spread_durations(number)
        self.silent += number if result == "silent" else 0
        for minutes, count in durations:
            if job.carries_release:
                job.cohorts.append(Cohort(self.minute + minutes, result, count))
            ending: Result = result
            if minutes > timeout:
                ending = "late" if result == "install" else "silent"
            end = self.minute + min(minutes, timeout)
            self._schedule(end, partial(self._end, job, ending, count))

    def _end(self, job: SimulatedJob, result: Result, number: int) -> None:
        job.in_progress -= number
        job.ended[result] += number
        if result in ("install", "late"):
            self.updated += number if job.carries_release else -number
            if self.first_installed is None:
                self.first_installed = self.minute

    def _spread_durations(self, number: int) -> Iterator[tuple[int, int]]:
        """Devices by the minutes that their update takes; who is left over goes round in turn."""
        low, high = self.assumptions.update_minutes
        width = high - low + 1
        each, more = divmod(number, width)
        first, self._rotation = self._rotation, (self._rotation + more) % width
        for index in range(width):
            count = each + ((index - first) % width < more)
            if count:
                yield low + index, count

    # Time

    def _schedule(self, minute: int, event: Callable[[], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._due, (minute, self._scheduled, event))

    def upcoming(self, *, has_joiners: bool) -> Iterator[int]:
        """Minutes in which something happens by itself."""
        if self._due:
            yield self._due[0][0]
        for job in self.jobs.values():
            if job.phase == "canceling":
                yield job.cancel_ends
        for ring in self.rings.values():
            reconnection = ring.next_reconnection(self.assumptions)
            if reconnection is not None:
                yield reconnection
        if has_joiners and self.assumptions.joins_per_day:
            yield -(-(self._joined + 1) * DAY // self.assumptions.joins_per_day)

    def advance(self, minute: int, *, has_joiners: bool) -> None:
        """Lets time pass until this minute, with or without devices that join meanwhile."""
        self.most_begun, self._begun = max(self.most_begun, self._begun), 0
        self.minute = minute
        while self._due and self._due[0][0] <= minute:
            heapq.heappop(self._due)[2]()
        for ring in self.rings.values():
            number = ring.reconnect(minute, self.assumptions)
            jobs = [job for job in self.jobs.values() if job.ring == ring.name and job.is_reaching]
            for job in jobs if number else ():
                for segment, count in job.reconnect(number).items():
                    self._dequeue(job, segment.result, count)
        self._join(has_joiners)
        for job in self.jobs.values():
            if job.is_live and job.abort and job.meets_abort_criteria(self.assumptions.executed):
                self.cancel(job)
            if job.phase == "canceling" and job.cancel_ends <= minute:
                job.finish_cancel()
        if (self.updated, self.exposed) != self.points[-1][1:]:
            self.points.append(Point(minute, self.updated, self.exposed))

    def _join(self, has_joiners: bool) -> None:
        """A joiner gets every live job of its ring, outside the rate; it comes with the last good
        release."""
        number = self.assumptions.joins_per_day * self.minute // DAY - self._joined
        self._joined += number
        if not number or not has_joiners:
            return
        percents = {ring.name: ring.percent for ring in self.manifest.rings}
        for name, count in apportion_next(number, percents, self._join_remainders).items():
            jobs = [job for job in self.jobs.values() if job.ring == name and job.is_live]
            for result, alike in self.rings[name].join(count).items():
                for job in jobs:
                    job.joined += alike
                    segment = Segment(result if job.carries_release else "same")
                    self._reach(job, segment, alike)
