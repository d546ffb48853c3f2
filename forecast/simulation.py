"""One release on one simulated fleet, driven minute by minute by the `decide` and `list_actions`
that run in AWS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from forecast.assumptions import DAY, START, Assumptions
from forecast.simulated_fleet import SimulatedFleet
from forecast.simulated_job import SimulatedJob
from rollout import actions as act
from rollout.decide import decide
from rollout.gates import find_deadline, find_patience_end
from rollout.ledger import mark_made
from rollout.names import Names
from rollout.observed import Alarm, Observed, Returning
from rollout.orders import ApprovalOrder, Order, Orders, RollbackOrder, is_approved
from rollout.release import Firmware, Manifest
from rollout.state import Event, Offer, Phase, Release, State
from rollout.version import Version
from rollout.waiting import needs_a_person

HORIZON = 120 * DAY
"""Minutes after which a simulation ends, whatever still goes on."""
NAMES = Names(fleet="forecast", suffix="00000000", channel="forecast")


class Simulation:
    """The controller, people and alarms around a simulated fleet. Times are in minutes.

    `has_last_good=False` is a channel's first release. `skip=False` goes through every minute,
    also those in which nothing can change; the course is the same.

    >>> Simulation(manifest, Assumptions(devices=10_000, failing=1.0)).run().fleet.exposed
    60
    """

    def __init__(
        self,
        manifest: Manifest,
        assumptions: Assumptions,
        *,
        start: int = START,
        has_last_good: bool = True,
        skip: bool = True,
    ) -> None:
        self.manifest, self.assumptions = manifest, assumptions
        self.start, self.skip = start, skip
        self.fleet = SimulatedFleet(manifest, assumptions)
        self.state, self.orders = State(), Orders()
        self.events: list[Event] = []
        self.writes = 0
        """Runs of the controller that wrote the state."""
        self.released: int | None = None
        """When the last ring passed."""
        if has_last_good:
            self._settle_last_good()

    def run(self, horizon: int = HORIZON) -> Simulation:
        """Runs until nothing can change any more, or for `horizon` minutes."""
        while self.fleet.minute < horizon:
            has_acted = self._control()
            is_rolling = self.fleet.roll_out()
            minute = self._next_minute(is_busy=has_acted or is_rolling)
            if minute is None:
                break
            self.fleet.advance(min(minute, horizon), has_joiners=self._has_joiners)
        return self

    def _settle_last_good(self) -> None:
        """A channel that has released before: every ring runs the last good release, and has its
        job."""
        size, hardware = self.manifest.firmware.size, self.manifest.firmware.hardware
        version, made_at = Version("0.0.0-0"), float(self.start - 60 * DAY)
        good = Firmware(version=version, sha256="0" * 64, size=size, hardware=hardware)
        offers = tuple(
            Offer(
                ring=ring,
                sequence=int(made_at) + index,
                firmware=good,
                aim="keep",
                phase=Phase.KEEPING,
                made_at=made_at,
                seen=True,
            )
            for index, ring in enumerate(self.fleet.rings)
        )
        self.state = State(
            sequence=offers[-1].sequence,
            last_good=good,
            releases={good.sha256: Release(version=version, standing="good", at=made_at)},
            offers=offers,
        )
        for offer in offers:
            job = self.fleet.jobs[self._job_id(offer)] = SimulatedJob(offer.ring)
            job.ended["same"] = self.fleet.rings[offer.ring].size

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return float(self.start + 60 * self.fleet.minute)

    # The controller

    def _control(self) -> bool:
        """One run of the controller; whether it did anything. If not, neither will the next, until
        something happens."""
        before, orders = self.state, self.orders
        self._approve()
        self._order_rollback()
        observed = self._observe()
        self.state = decide(self.manifest, before, observed, self.now, NAMES)
        if self.state != before:
            self._record()
        actions = act.list_actions(self.state, observed, NAMES)
        is_changed = [self._apply(action) for action in actions]
        made = [self._job_id(one.offer) for one in actions if isinstance(one, act.Create)]
        if made:
            self.state = mark_made(self.state, made, NAMES)
            self.writes += 1
        return self.state != before or self.orders is not orders or any(is_changed)

    def _record(self) -> None:
        self.writes += 1
        for event in self.state.decisions:
            if event.at != self.now:
                continue
            self.events.append(event)
            if event.ring and event.what == "started":
                self.fleet.rings[event.ring].started = self.fleet.minute
            if event.ring and event.what == "passed":
                self.fleet.rings[event.ring].passed = self.fleet.minute
            if event.what == "last-good":
                self.released = self.fleet.minute

    def _observe(self) -> Observed:
        jobs = self.fleet.jobs
        followed = [self._job_id(offer) for offer in self.state.offers]
        return Observed(
            jobs={name: jobs[name].describe() for name in followed},
            alarms=self._alarms(),
            orders=self.orders,
            groups=frozenset(self.fleet.groups),
            returning=self._look_at_way_back(),
        )

    def _look_at_way_back(self) -> Returning:
        back, offer = self.state.way_back, self.state.returning()
        if back is None or offer is None:
            return Returning()
        return self.fleet.returning(back.group, back.sources, self._job_id(offer))

    def _job_id(self, offer: Offer) -> str:
        return NAMES.job(offer.ring, offer.sequence)

    def _apply(self, action: act.Action) -> bool:
        """Carries an action out; whether it changed anything."""
        fleet = self.fleet
        match action:
            case act.Create():
                job_id, ring = self._job_id(action.offer), action.offer.ring
                if action.offer.aim == "prove":
                    fleet.create_candidate(job_id, ring)
                elif action.group is not None:
                    fleet.create_way_back(job_id, action.group)
                else:
                    fleet.create_keeping(job_id, ring)
            case act.Cancel():
                fleet.cancel(fleet.jobs[action.job])
            case act.Disarm():
                fleet.jobs[action.job].abort = ()
            case act.Enroll():
                offer = self.state.returning()
                return offer is not None and fleet.enroll(
                    action.group, action.sources, self._job_id(offer)
                )
            case act.RemoveGroup():
                del fleet.groups[action.sequence]
        return True

    # People and alarms

    def _approve(self) -> None:
        waiting, delay = self.state.waiting, self.assumptions.approval_minutes
        if waiting.kind != "approval" or waiting.ring is None:
            return
        ring, minute = self.fleet.rings[waiting.ring], self.fleet.minute
        ring.approval_asked = minute if ring.approval_asked is None else ring.approval_asked
        offer = self.state.proof(ring.name)
        if offer is None or delay is None or minute < ring.approval_asked + delay:
            return
        size, sha256 = self.fleet.jobs[self._job_id(offer)].counts().size, offer.sha256
        if not is_approved(self.manifest, self.orders, ring.name, size=size):
            approval = ApprovalOrder(ring=ring.name, sha256=sha256, order=self._order(), size=size)
            self.orders = replace(self.orders, approvals=(*self.orders.approvals, approval))

    def _order_rollback(self) -> None:
        at = self._rollback_ordered_at()
        if at is not None and self.fleet.minute >= at and self.orders.rollback is None:
            order = RollbackOrder(sha256=self.manifest.firmware.sha256, order=self._order())
            self.orders = replace(self.orders, rollback=order)

    def _order(self) -> Order:
        return Order(by="forecast", at=self.now, why="assumed")

    def _rollback_ordered_at(self) -> int | None:
        after = self.assumptions.rollback_ordered_after
        return None if after is None or self.released is None else self.released + after

    def _alarms(self) -> dict[str, Alarm]:
        names = {gate.name for ring in self.manifest.rings for gate in ring.gate.alarms}
        alarms = {name: Alarm(state="OK", since=0.0) for name in sorted(names)}
        red, name = self._alarm_at(), self.assumptions.alarm
        if name in alarms and red is not None and red <= self.fleet.minute:
            alarms[name] = Alarm(state="ALARM", since=float(self.start + 60 * red))
        return alarms

    def _alarm_at(self) -> int | None:
        after, installed = self.assumptions.alarm_after, self.fleet.first_installed
        return None if after is None or installed is None else installed + after

    # Time

    def _next_minute(self, *, is_busy: bool) -> int | None:
        """The next minute in which something can change; None where nothing can any more."""
        minute = self.fleet.minute
        if is_busy:
            return minute + 1
        coming = [*self.fleet.upcoming(has_joiners=self._has_joiners), *self._upcoming()]
        if not coming:
            return None
        return max(min(coming), minute + 1) if self.skip else minute + 1

    @property
    def _has_joiners(self) -> bool:
        """Joiners are counted while the release moves on by itself."""
        return self.state.candidate is not None and not needs_a_person(self.state.waiting.kind)

    def _upcoming(self) -> Iterator[int]:
        """Minutes in which the controller, a person or an alarm acts."""
        state, minute = self.state, self.fleet.minute
        times = [state.waiting.until]
        if state.open_way_back:
            exposed = self._look_at_way_back().exposed
            times.append(find_patience_end(state.open_way_back.started_at, exposed))
        for offer in state.wanted("prove"):
            ring = self.manifest.ring(offer.ring)
            if ring and offer.phase is Phase.PROVING:
                times.append(find_deadline(ring.gate, offer))
        # the first run of the controller at or after each of them
        yield from (ceil((at - self.start) / 60) for at in times if at and at > self.now)
        for at in (self._alarm_at(), self._rollback_ordered_at()):
            if at is not None and at > minute:
                yield at
        waiting, delay = state.waiting, self.assumptions.approval_minutes
        if waiting.kind == "approval" and waiting.ring and delay is not None:
            asked = self.fleet.rings[waiting.ring].approval_asked
            if asked is None:
                yield minute + 1
            elif asked + delay > minute:
                yield asked + delay
