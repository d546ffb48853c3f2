"""A fleet and an AWS IoT Jobs made of counts, driven minute by minute by the `decide` and `actions`
that run in AWS.

Devices that behave alike are counted together, so that a million cost what a thousand do. Shares
are spread evenly (every twentieth device, for 5 %): a simulation shows the expected course, and
`rollout.plan.bound` what limits bad luck.

IoT's rules kept here: CONTINUOUS jobs, at most 1,000 devices a minute, constant and exponential
rates, joiners outside the rate, a cancel that takes time and ends what is queued only, abort
criteria, in-progress time-outs. Where AWS does not say, the course is the worse one: a job that is
being cancelled goes on reaching devices until the cancel is through.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal, NamedTuple, TypeVar

from rollout import actions as act
from rollout.decide import decide
from rollout.gates import ROLLBACK_PATIENCE
from rollout.observed import ABORTED, Alarm, Counts, Job, Observed
from rollout.release import Abort, Firmware, Manifest, Pace
from rollout.rings import RESERVED
from rollout.state import (
    NEEDS_A_PERSON,
    ApprovalOrder,
    Control,
    Event,
    Names,
    Offer,
    Order,
    RollbackOrder,
    State,
    Waiting,
)

ENROLLED_A_RUN = 5000
"""Devices that the controller puts into a rollback's group in one run."""
START = 1_767_600_000
"""Monday, 2026-01-05 08:00 UTC, in seconds since 1970: when a simulated release begins unless told
otherwise."""
HORIZON = 120 * 24 * 60
"""Minutes after which a simulation ends, whatever still goes on."""
DAY = 24 * 60
NAMES = Names(suffix="00000000", channel="plan")
Result = Literal["install", "fail", "silent", "reject", "same", "gone", "late"]
"""What a device makes of a job: it installs, fails its self-test, begins and is never heard of
again, rejects, runs that firmware already, does not answer any more, or installs after IoT has
given up on it."""
Executed = Literal["finished", "ended"]
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is assumed of devices, of people, and of AWS where it does not say. Shares are from 0 to
    1."""

    devices: int = 10_000
    sizes: Mapping[str, int] | None = None
    """Devices by ring where they are known; else the rings' percentages of `devices`."""
    failing: float = 0.0
    """Share whose self-test fails on the new firmware."""
    silent: float = 0.0
    """Share that the new firmware bricks: they begin and are never heard of again."""
    rejecting: float = 0.0
    """Share that answers REJECTED."""
    spared: tuple[str, ...] = ()
    """Rings in which none fails or falls silent."""
    offline: float = 0.0
    """Share that is offline at the beginning."""
    back_from: int = 0
    back_until: int = 3 * DAY
    """Offline devices come back evenly between these minutes, none of them before the first
    minute."""
    joins_per_day: int = 0
    update_minutes: tuple[int, int] = (4, 6)
    """The shortest and longest update, from its beginning to its result, at least 1; all between
    are equally frequent."""
    cancel_minutes: int = 2
    """How long IoT takes to cancel a job; AWS publishes no figure."""
    executed: Executed = "finished"
    """What IoT's abort criteria count as executed: what finished, or also what was rejected and
    cancelled. AWS does not say."""
    approval_minutes: int | None = 0
    """How long a person takes to approve when asked; None: nobody does."""
    alarm: str | None = None
    """The alarm, by the name that gates use, that sees what devices do not report themselves."""
    alarm_after: int | None = None
    """Minutes from the first installed device until `alarm` goes to ALARM."""
    taken_back_after: int | None = None
    """Minutes from the end of the last ring until a person orders the release back; None: nobody
    does."""


class Cohort(NamedTuple):
    """Devices that began the new firmware together and end alike, at this minute."""

    end: int
    result: Result
    devices: int


class Part(NamedTuple):
    """Devices that a job has not reached yet and that will behave alike."""

    result: Result
    online: bool = True
    ready: int = 0
    """The minute from which they can take a job: until then they are busy with another."""


class Point(NamedTuple):
    """The fleet after a minute: devices that run the new firmware, and devices that ever began
    it."""

    minute: int
    updated: int
    exposed: int


def apportion(total: int, weights: Iterable[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to `total` (largest remainders)."""
    shares = list(weights)
    whole = sum(shares) or 1.0
    exact = [total * share / whole for share in shares]
    found = [int(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda place: found[place] - exact[place])
    for place in order[: total - sum(found) if any(shares) else 0]:
        found[place] += 1
    return found


def deal(
    number: int,
    weights: Mapping[K, float],
    credit: dict[K, float],
    most: Mapping[K, int] | None = None,
) -> dict[K, int]:
    """`number` in proportion to the weights, at most `most` of each; `credit` carries the fractions
    over to the next deal."""
    whole = sum(weights.values())
    found: dict[K, int] = {}
    left = number
    for key, weight in weights.items():
        credit[key] = credit.get(key, 0.0) + number * weight / whole
        found[key] = max(0, min(int(credit[key]), left, most[key] if most else left))
        left -= found[key]
    for _ in range(left):
        key = max(
            (key for key in found if most is None or found[key] < most[key]),
            key=lambda key: credit[key] - found[key],
        )
        found[key] += 1
    for key, dealt in found.items():
        credit[key] -= dealt
    return {key: dealt for key, dealt in found.items() if dealt}


def draw(number: int, parts: dict[K, int], credit: dict[K, float]) -> dict[K, int]:
    """Takes `number` devices, or all where there are fewer, out of `parts`, in proportion to what
    is left of each."""
    if number >= sum(parts.values()):
        found = dict(parts)
        parts.clear()
        return found
    found = deal(number, parts, credit, parts)
    for key, taken in found.items():
        parts[key] -= taken
        if not parts[key]:
            del parts[key]
    return found


@dataclass(eq=False)
class SimJob:
    """One IoT job."""

    ring: str
    new: bool = False
    """It carries the new firmware."""
    proving: bool = False
    """Its ring has not passed."""
    pace: Pace = field(default_factory=Pace)
    abort: tuple[Abort, ...] = ()
    ahead: dict[Part, int] = field(default_factory=dict)
    """Devices that the rollout has not reached."""
    waiting: dict[Part, int] = field(default_factory=lambda: defaultdict(int))
    """Devices with a queued execution that are offline."""
    cohorts: list[Cohort] = field(default_factory=list)
    canceled_at: int | None = None
    closed: bool = False
    """The cancel is through."""
    reason: str | None = None
    notified: int = 0
    """Devices that the rollout has reached."""
    joined: int = 0
    """Devices that came into its group later."""
    queued: int = 0
    running: int = 0
    exposed: int = 0
    ended: dict[Result | Literal["canceled"], int] = field(default_factory=lambda: defaultdict(int))
    rolled: dict[Part, float] = field(default_factory=dict)
    returned: dict[tuple[bool, Part], float] = field(default_factory=dict)
    """What drawing from its parts carries over."""

    @property
    def live(self) -> bool:
        return self.canceled_at is None

    @property
    def reaches(self) -> bool:
        """Whether devices still get it. While it proves, also until a cancel is through; see the
        module's first words."""
        return self.live or (self.proving and not self.closed)

    @property
    def executions(self) -> int:
        return self.notified + self.joined

    def counts(self) -> Counts:
        ended = self.ended
        return Counts(
            queued=self.queued,
            in_progress=self.running,
            succeeded=ended["install"] + ended["same"],
            failed=ended["fail"],
            timed_out=ended["silent"] + ended["late"],
            rejected=ended["reject"],
            canceled=ended["canceled"],
        )

    def seen(self) -> Job:
        """The job as DescribeJob shows it."""
        settled = not self.ahead and (self.live or self.closed)
        status: Literal["IN_PROGRESS", "CANCELED"] = "IN_PROGRESS" if self.live else "CANCELED"
        return Job(
            status=status,
            counts=self.counts(),
            settled=settled,
            armed=bool(self.abort),
            reason=self.reason,
        )

    def rate(self) -> int:
        """Devices that the rollout reaches this minute."""
        pace = self.pace
        if pace.base_per_minute is None:
            return pace.maximum_per_minute
        grown = (
            self.notified
            if pace.increase_on == "notified"
            else self.ended["install"] + self.ended["same"]
        )
        steps = min(grown // pace.increase_after, 80)  # 1.1 ** 80 is above 1,000 times the base
        return min(pace.maximum_per_minute, int(pace.base_per_minute * pace.factor**steps))

    def aborts(self, executed: Executed) -> bool:
        counts = self.counts()
        number = counts.finished + (counts.rejected + counts.canceled if executed == "ended" else 0)
        failed = {"FAILED": counts.failed, "TIMED_OUT": counts.timed_out}
        return any(
            number >= c.minimum and failed[c.on] * 100 >= c.percent * number for c in self.abort
        )


@dataclass
class Group:
    """A rollback's thing group: how far each exposing job's cohorts are in it, and who waits for
    its job."""

    members: int = 0
    place: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By job: its next cohort, and how many of that are in already."""
    waiting: dict[Part, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(kw_only=True)
class Ring:
    """A ring's devices, and how the release went there; times in minutes."""

    name: str
    shares: dict[Result, float]
    """Of its devices, by what they make of the new firmware; joiners have the same."""
    people: dict[Part, int]
    away: int
    """Devices offline at the beginning."""
    back: int = 0
    """Of these, came back."""
    returned: dict[Part, float] = field(default_factory=dict)
    joined: dict[Result, float] = field(default_factory=dict)
    started: int | None = None
    passed: int | None = None
    asked: int | None = None
    """When its approval was first asked for."""

    @property
    def size(self) -> int:
        return sum(self.people.values())


def sizes(manifest: Manifest, fleet: Fleet) -> dict[str, int]:
    """Devices by ring at the beginning."""
    if fleet.sizes is not None:
        return {ring.name: fleet.sizes.get(ring.name, 0) for ring in manifest.rings}
    numbers = apportion(fleet.devices, (ring.percent for ring in manifest.rings))
    return {ring.name: number for ring, number in zip(manifest.rings, numbers, strict=True)}


def ring_of_devices(name: str, size: int, fleet: Fleet) -> Ring:
    bad = name not in fleet.spared
    shares: dict[Result, float] = {
        "fail": fleet.failing * bad,
        "silent": fleet.silent * bad,
        "reject": fleet.rejecting,
    }
    shares = {"install": 1.0 - sum(shares.values()), **shares}
    numbers = dict(zip(shares, apportion(size, shares.values()), strict=True))
    away = round(size * fleet.offline)
    offline = dict(zip(numbers, apportion(away, numbers.values()), strict=True))
    people = {Part(result, online=False): number for result, number in offline.items() if number}
    people |= {
        Part(result): number - offline[result]
        for result, number in numbers.items()
        if number > offline[result]
    }
    return Ring(name=name, shares=shares, people=people, away=away)


class Simulation:
    """One release on one fleet, by the minute.

    `controller=False` is IoT alone: one job for the first ring, and nobody who watches it.
    `skip=False` goes through every minute, also those in which nothing can change; the course is
    the same.
    """

    def __init__(
        self,
        manifest: Manifest,
        fleet: Fleet,
        *,
        start: int = START,
        last_good: bool = True,
        controller: bool = True,
        skip: bool = True,
    ) -> None:
        self.manifest, self.fleet, self.start, self.controller, self.skip = (
            manifest,
            fleet,
            start,
            controller,
            skip,
        )
        self.minute = 0
        self.rings = {
            name: ring_of_devices(name, size, fleet)
            for name, size in sizes(manifest, fleet).items()
        }
        self.jobs: dict[str, SimJob] = {}
        self.groups: dict[int, Group] = {}
        self.state, self.control = State(), Control()
        self.events: list[Event] = []
        self.waits: list[tuple[int, Waiting]] = []
        """What the channel waited for, each with the minute from which it did."""
        self.points = [Point(0, 0, 0)]
        self.updated = 0
        self.exposed = 0
        self.downloads = 0
        self.enrolled = 0
        self.creations = 0
        self.writes = 0
        """Runs of the controller that wrote the state."""
        self.most_begun = 0
        """Devices that began an update in the busiest minute."""
        self.most_jobs = 0
        """Most jobs of the channel at once."""
        self.first_installed: int | None = None
        self.first_abort: int | None = None
        self.released: int | None = None
        """When the last ring passed."""
        self._due: list[tuple[int, int, SimJob, Result, int, bool]] = []
        self._pushed = self._turn = self._begun = self._joined = 0
        self._joining: dict[str, float] = {}
        self._changed = False
        if last_good:
            self._settle_last_good()

    def run(self, horizon: int = HORIZON) -> Simulation:
        """Runs until nothing can change any more, or for `horizon` minutes."""
        if not self.controller:
            self._create("alone", self._proving_job(self.manifest.rings[0].name))
        while self.minute < horizon:
            still = self._control() if self.controller else True
            still = not self._roll_out() and still
            following = self._following(still)
            if following is None:
                break
            self._pass_time(min(following, horizon))
        return self

    def _settle_last_good(self) -> None:
        """A channel that has released before: every ring runs the last good release, and has its
        job."""
        wanted = self.manifest.firmware
        good = Firmware(
            version="0.0.0-0", sha256="0" * 64, size=wanted.size, hardware=wanted.hardware
        )
        offer = Offer(sequence=self.start - 1, firmware=good, seen=True)
        stable = dict.fromkeys(self.rings, offer)
        self.state = State(
            sequence=offer.sequence,
            last_good=good,
            stable=stable,
            versions={good.version: good.sha256},
        )
        for ring in self.rings.values():
            job = self.jobs[NAMES.job(ring.name, offer.sequence)] = SimJob(ring.name)
            job.ended["same"] = ring.size

    # The controller and people

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return float(self.start + 60 * self.minute)

    def _control(self) -> bool:
        """One run of the controller; whether it found nothing to do, and will find nothing until
        something happens."""
        before, self._changed = self.state, False
        self._approve()
        self._take_back()
        observed = self._observe()
        self.state = decide(self.manifest, before, observed, self.now, NAMES)
        if self.state != before:
            self._note()
        for action in act.actions(self.state, observed, NAMES):
            self._apply(action)
        return self.state == before and not self._changed

    def _note(self) -> None:
        self.writes += 1
        for event in self.state.decisions:
            if event.at == self.now:
                self._note_event(event)
        waiting = self.state.waiting
        if not self.waits or (self.waits[-1][1].kind, self.waits[-1][1].ring) != (
            waiting.kind,
            waiting.ring,
        ):
            self.waits.append((self.minute, waiting))

    def _note_event(self, event: Event) -> None:
        self.events.append(event)
        if event.ring and event.what == "started":
            self.rings[event.ring].started = self.minute
        if event.ring and event.what == "passed":
            self.rings[event.ring].passed = self.minute
        if event.what == "last-good":
            self.released = self.minute

    def _approve(self) -> None:
        waiting, delay = self.state.waiting, self.fleet.approval_minutes
        if waiting.kind != "approval" or waiting.ring is None:
            return
        ring = self.rings[waiting.ring]
        ring.asked = self.minute if ring.asked is None else ring.asked
        if delay is not None and self.minute >= ring.asked + delay:
            order = Order(by="plan", at=self.now, why="assumed")
            approval = ApprovalOrder(
                ring=ring.name, sha256=self.manifest.firmware.sha256, order=order
            )
            self.control = replace(self.control, approvals=(*self.control.approvals, approval))
            self._changed = True

    def _take_back(self) -> None:
        at = self._taken_back_at()
        if at is not None and self.minute >= at and self.control.rollback is None:
            order = Order(by="plan", at=self.now, why="assumed")
            self.control = replace(
                self.control,
                rollback=RollbackOrder(sha256=self.manifest.firmware.sha256, order=order),
            )
            self._changed = True

    def _taken_back_at(self) -> int | None:
        after = self.fleet.taken_back_after
        return None if after is None or self.released is None else self.released + after

    def _observe(self) -> Observed:
        rollback = self.state.rollback
        enrolled = unenrolled = 0
        if rollback and rollback.done_at is None:
            group = self.groups.get(rollback.offer.sequence)
            enrolled = group.members if group else 0
            unenrolled = (
                sum(self.jobs[name].exposed for name in rollback.exposing if name in self.jobs)
                - enrolled
            )
        return Observed(
            jobs={name: job.seen() for name, job in self.jobs.items()},
            alarms=self._alarms(),
            control=self.control,
            groups=frozenset(self.groups),
            enrolled=enrolled,
            unenrolled=unenrolled,
        )

    def _alarms(self) -> dict[str, Alarm]:
        names = {gate.name for ring in self.manifest.rings for gate in ring.gate.alarms}
        alarms = {name: Alarm(state="OK", since=0.0) for name in sorted(names)}
        red = self._alarm_at()
        if red is not None and red <= self.minute and self.fleet.alarm in alarms:
            alarms[self.fleet.alarm] = Alarm(state="ALARM", since=float(self.start + 60 * red))
        return alarms

    def _alarm_at(self) -> int | None:
        after = self.fleet.alarm_after
        return (
            None if after is None or self.first_installed is None else self.first_installed + after
        )

    def _apply(self, action: act.Action) -> None:
        match action:
            case act.Create():
                self._create(NAMES.job(action.ring, action.offer.sequence), self._job(action))
            case act.Cancel():
                self._cancel(self.jobs[action.job], None)
            case act.Disarm():
                job = self.jobs[action.job]
                job.abort, job.proving, self._changed = (), False, True
            case act.Enroll():
                self._enroll(action)
            case act.RemoveGroup():
                del self.groups[action.sequence]
                self._changed = True

    def _create(self, name: str, job: SimJob) -> None:
        self.jobs[name] = job
        self.creations += 1
        self.most_jobs = max(self.most_jobs, sum(job.live for job in self.jobs.values()))
        self._changed = True

    def _job(self, create: act.Create) -> SimJob:
        if create.proving:
            return self._proving_job(create.ring)
        if create.ring != RESERVED:
            return SimJob(create.ring, ahead=self._whole_ring_back(create.ring))
        waiting = self.groups[create.offer.sequence].waiting
        job = SimJob(RESERVED, ahead=dict(waiting))
        waiting.clear()
        return job

    def _proving_job(self, ring: str) -> SimJob:
        manifest, people = self.manifest, dict(self.rings[ring].people)
        return SimJob(
            ring, new=True, proving=True, pace=manifest.pace, abort=manifest.abort, ahead=people
        )

    def _whole_ring_back(self, name: str) -> dict[Part, int]:
        """A ring as a job of the last good release finds it: who began the new firmware, and the
        rest."""
        parts: dict[Part, int] = defaultdict(int)
        for job in self.jobs.values():
            for cohort in job.cohorts if job.ring == name else ():
                parts[self._going_back(cohort)] += cohort.devices
        ring = self.rings[name]
        away = ring.away - ring.back
        parts[Part("same")] += ring.size - away - sum(parts.values())
        parts[Part("same", online=False)] += away
        return {part: number for part, number in parts.items() if number}

    def _going_back(self, cohort: Cohort) -> Part:
        """What devices that began the new firmware make of the last good one; a failed self-test
        has reverted by itself."""
        if cohort.result == "silent":
            return Part("gone")
        return Part(
            "same" if cohort.result == "fail" else "install",
            ready=cohort.end if cohort.end > self.minute else 0,
        )

    def _enroll(self, action: act.Enroll) -> None:
        if action.sequence not in self.groups:
            self.groups[action.sequence] = Group()
            self._changed = True
        group, job = (
            self.groups[action.sequence],
            self.jobs.get(NAMES.job(RESERVED, action.sequence)),
        )
        room = ENROLLED_A_RUN
        for name in action.exposing:
            cohorts = self.jobs[name].cohorts if name in self.jobs else []
            index, done = group.place.get(name, (0, 0))
            while room and index < len(cohorts):
                number = min(cohorts[index].devices - done, room)
                self._join_group(group, job, self._going_back(cohorts[index]), number)
                room, done = room - number, done + number
                if done == cohorts[index].devices:
                    index, done = index + 1, 0
            group.place[name] = index, done

    def _join_group(self, group: Group, job: SimJob | None, part: Part, number: int) -> None:
        group.members += number
        self.enrolled += number
        self._changed = True
        if job is None:
            group.waiting[part] += number
            return
        job.joined += number
        self._reach(job, part, number)

    def _cancel(self, job: SimJob, reason: str | None) -> None:
        job.canceled_at, job.reason, self._changed = self.minute, reason, True
        if not self.fleet.cancel_minutes:
            self._close(job)

    def _close(self, job: SimJob) -> None:
        job.closed, job.ended["canceled"], job.queued = True, job.queued, 0
        job.ahead.clear()
        job.waiting.clear()

    # IoT Jobs and the devices

    def _roll_out(self) -> bool:
        """Reaches this minute's devices; whether there were any."""
        rolling = [job for job in self.jobs.values() if job.ahead and job.reaches]
        for job in rolling:
            for part, number in draw(job.rate(), job.ahead, job.rolled).items():
                job.notified += number
                self._reach(job, part, number)
        return bool(rolling)

    def _reach(self, job: SimJob, part: Part, number: int) -> None:
        """An execution is queued for devices; those that can begin at once."""
        if part.result != "gone" and part.online and part.ready <= self.minute:
            self._begin(job, part.result, number)
            return
        job.queued += number
        if part.result == "gone":
            return
        if part.online:
            self._later(part.ready, job, part.result, number, begins=True)
        else:
            job.waiting[part] += number

    def _begin(self, job: SimJob, result: Result, number: int) -> None:
        if result in ("reject", "same"):
            job.ended[result] += number
            return
        job.running += number
        self.downloads += number
        self._begun += number
        if job.new:
            job.exposed += number
            self.exposed += number
        patience = self.manifest.in_progress_timeout_minutes
        if result == "silent":
            self._follow(job, patience, result, number)
            return
        for minutes, count in self._spread(number):
            self._follow(job, minutes, result, count)

    def _follow(self, job: SimJob, minutes: int, result: Result, number: int) -> None:
        if job.new:
            job.cohorts.append(Cohort(self.minute + minutes, result, number))
        patience = self.manifest.in_progress_timeout_minutes
        if minutes > patience:
            minutes, result = patience, ("late" if result == "install" else "silent")
        self._later(self.minute + minutes, job, result, number, begins=False)

    def _spread(self, number: int) -> Iterator[tuple[int, int]]:
        """Devices by the minutes that their update takes."""
        low, high = self.fleet.update_minutes
        width = high - low + 1
        each, more = divmod(number, width)
        turn, self._turn = self._turn, (self._turn + more) % width
        for place in range(width):
            count = each + ((place - turn) % width < more)
            if count:
                yield low + place, count

    def _later(
        self, minute: int, job: SimJob, result: Result, number: int, *, begins: bool
    ) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (minute, self._pushed, job, result, number, begins))

    def _following(self, still: bool) -> int | None:
        """The next minute in which something can change; None where nothing can any more."""
        if not still:
            return self.minute + 1
        coming = [minute for minute in self._coming() if minute is not None]
        if self.fleet.joins_per_day and self._joinable:
            coming.append(-(-(self._joined + 1) * DAY // self.fleet.joins_per_day))
        if not coming:
            return None
        return max(min(coming), self.minute + 1) if self.skip else self.minute + 1

    @property
    def _joinable(self) -> bool:
        """Joiners are counted while the release moves on by itself."""
        return self.state.candidate is not None and self.state.waiting.kind not in NEEDS_A_PERSON

    def _coming(self) -> Iterator[int | None]:
        yield self._due[0][0] if self._due else None
        for job in self.jobs.values():
            if job.canceled_at is not None and not job.closed:
                yield job.canceled_at + self.fleet.cancel_minutes
        for ring in self.rings.values():
            yield self._next_return(ring)
            yield self._deadline(ring)
        if self.controller:
            yield self._tick_at(self.state.waiting.until)
            yield self._tick_at(
                self.state.rollback.started_at + ROLLBACK_PATIENCE if self.state.rollback else None
            )
            yield from self._people_and_alarms()

    def _people_and_alarms(self) -> Iterator[int | None]:
        for at in (self._alarm_at(), self._taken_back_at()):
            if at is not None and at > self.minute:
                yield at
        waiting, delay = self.state.waiting, self.fleet.approval_minutes
        if waiting.kind == "approval" and waiting.ring and delay is not None:
            asked = self.rings[waiting.ring].asked
            at = self.minute + 1 if asked is None else asked + delay
            if asked is None or at > self.minute:
                yield at

    def _tick_at(self, seconds: float | None) -> int | None:
        """The first run of the controller at or after a time that is still to come."""
        if seconds is None or seconds <= self.now:
            return None
        return ceil((seconds - self.start) / 60)

    def _deadline(self, ring: Ring) -> int | None:
        plan, candidate = self.manifest.ring(ring.name), self.state.candidate
        progress = candidate.rings.get(ring.name) if candidate else None
        if (
            plan is None
            or plan.gate.deadline_minutes is None
            or progress is None
            or progress.passed_at is not None
        ):
            return None
        return self._tick_at(progress.started_at + plan.gate.deadline_minutes * 60)

    def _next_return(self, ring: Ring) -> int | None:
        if ring.back == ring.away:
            return None
        span = self.fleet.back_until - self.fleet.back_from
        return self.fleet.back_from + -(-(ring.back + 1) * span // ring.away)

    def _pass_time(self, minute: int) -> None:
        self.most_begun, self._begun = max(self.most_begun, self._begun), 0
        self.minute = minute
        while self._due and self._due[0][0] <= minute:
            _, _, job, result, number, begins = heapq.heappop(self._due)
            self._carry_on(job, result, number, begins)
        for ring in self.rings.values():
            self._come_back(ring)
        self._join()
        for job in self.jobs.values():
            if job.live and job.abort and job.aborts(self.fleet.executed):
                self.first_abort = minute if self.first_abort is None else self.first_abort
                self._cancel(job, ABORTED)
            if (
                job.canceled_at is not None
                and not job.closed
                and job.canceled_at + self.fleet.cancel_minutes <= minute
            ):
                self._close(job)
        if (self.updated, self.exposed) != self.points[-1][1:]:
            self.points.append(Point(minute, self.updated, self.exposed))

    def _carry_on(self, job: SimJob, result: Result, number: int, begins: bool) -> None:
        """Devices that were busy begin, or devices that had begun end."""
        if begins:
            if not job.closed:
                job.queued -= number
                self._begin(job, result, number)
            return
        job.running -= number
        job.ended[result] += number
        if result in ("install", "late"):
            self.updated += number if job.new else -number
            if self.first_installed is None:
                self.first_installed = self.minute

    def _come_back(self, ring: Ring) -> None:
        span, since = (
            self.fleet.back_until - self.fleet.back_from,
            self.minute - self.fleet.back_from,
        )
        if since < 0 or ring.back == ring.away:
            return
        number = (ring.away if since >= span else ring.away * since // span) - ring.back
        if not number:
            return
        ring.back += number
        offline = {part: count for part, count in ring.people.items() if not part.online}
        for part, count in draw(number, offline, ring.returned).items():
            ring.people[part] -= count
            ring.people[part._replace(online=True)] = (
                ring.people.get(part._replace(online=True), 0) + count
            )
        for job in self.jobs.values():
            if job.ring == ring.name and job.reaches:
                self._take_up(job, number)

    def _take_up(self, job: SimJob, number: int) -> None:
        """Devices of the job's ring come back: what is queued for them begins, the rest waits for
        the rollout."""
        away = {(False, part): count for part, count in job.ahead.items() if not part.online}
        away |= {(True, part): count for part, count in job.waiting.items()}
        for (queued, part), count in draw(number, away, job.returned).items():
            held = job.waiting if queued else job.ahead
            held[part] -= count
            if not held[part]:
                del held[part]
            if queued:
                job.queued -= count
                self._begin(job, part.result, count)
            else:
                online = part._replace(online=True)
                job.ahead[online] = job.ahead.get(online, 0) + count

    def _join(self) -> None:
        number = self.fleet.joins_per_day * self.minute // DAY - self._joined
        if number <= 0:
            return
        self._joined += number
        if not self._joinable:
            return
        percents = {ring.name: ring.percent for ring in self.manifest.rings}
        for name, count in deal(number, percents, self._joining).items():
            ring = self.rings[name]
            for result, alike in deal(count, ring.shares, ring.joined).items():
                ring.people[Part(result)] = ring.people.get(Part(result), 0) + alike
                self._give_joiners(name, result, alike)

    def _give_joiners(self, ring: str, result: Result, number: int) -> None:
        """A joiner gets every live job of its ring, outside the rate; it comes with the last good
        release."""
        for job in self.jobs.values():
            if job.ring == ring and job.live:
                job.joined += number
                self._reach(job, Part(result if job.new else "same"), number)
