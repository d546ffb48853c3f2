"""The decision: what each ring should run, and why.

`decide` is pure and level-triggered: it takes the manifest, what the controller remembers, what it
saw in AWS and the time, and returns what to remember next. `rollout.actions` says which calls
follow from that.
"""

from __future__ import annotations

from dataclasses import replace

from rollout import gates
from rollout.names import OPERATOR_HALT, ROLLBACK, Names
from rollout.observed import Job, Observed
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import (
    KEPT_DECISIONS,
    Candidate,
    Event,
    EventType,
    Halt,
    Offer,
    Progress,
    Rollback,
    State,
    Waiting,
)
from rollout.version import Version
from rollout.window import next_opening, to_datetime

IDLE = Waiting(kind="nothing", text="every ring runs the last good release")
REVERTED = "the stack file names the last good release again"


def decide(
    manifest: Manifest | None, state: State, observed: Observed, now: float, names: Names
) -> State:
    """The state after this run. The manifest is None when it was refused: then nothing starts or
    passes.

    The time is in seconds since 1970.
    """
    run = _Run(manifest, state, observed, now, names)
    run.remember_seen_jobs()
    run.obey()
    run.detect_foreign_ends()
    if run.halt_reason():
        run.withdraw_candidate()
    elif run.state.candidate is None or not run.prove_candidate():
        run.consider_release()
    run.follow_rollback()
    return run.final_state()


class _Run:
    """One run: the state as it grows, step by step."""

    def __init__(
        self, manifest: Manifest | None, state: State, observed: Observed, now: float, names: Names
    ) -> None:
        self.manifest, self.before, self.state, self.observed = manifest, state, state, observed
        self.now, self.names = now, names
        self.waiting: Waiting = IDLE
        self.events: list[Event] = []

    # What people and AWS did

    def remember_seen_jobs(self) -> None:
        """Remembers that a job exists, so that its absence later on is somebody's act."""
        state = self.state
        stable = {ring: self._mark_seen(ring, offer) for ring, offer in state.stable.items()}
        candidate = state.candidate
        if candidate:
            rings = {
                r: replace(p, offer=self._mark_seen(r, p.offer)) for r, p in candidate.rings.items()
            }
            candidate = replace(candidate, rings=rings)
        rollback = state.rollback and replace(
            state.rollback, offer=self._mark_seen(ROLLBACK, state.rollback.offer)
        )
        self.state = replace(state, stable=stable, candidate=candidate, rollback=rollback)

    def _mark_seen(self, ring: str, offer: Offer) -> Offer:
        return replace(offer, seen=True) if self._job(ring, offer) and not offer.seen else offer

    def _job_id(self, ring: str, offer: Offer) -> str:
        return self.names.job(ring, offer.sequence)

    def _job(self, ring: str, offer: Offer) -> Job | None:
        return self.observed.jobs.get(self._job_id(ring, offer))

    def _update(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def obey(self) -> None:
        """Carries out the orders in control.json that name something still standing."""
        orders, halt = self.observed.orders, self.state.halt
        if halt and orders.resume and orders.resume.halt == halt.id:
            self._update(halt=None)
            self._event("resumed", f"{orders.resume.order.by}: {orders.resume.order.why}")
        order = orders.rollback
        if order and order.sha256 not in self.state.refused:
            self._rollback_ordered(order.sha256, f"{order.order.by} ordered it: {order.order.why}")
        if orders.retry and not self.halt_reason():
            self._retry(orders.retry.ring, orders.retry.sequence)

    def _rollback_ordered(self, sha256: str, why: str) -> None:
        state, good = self.state, self.state.last_good
        if state.candidate and state.candidate.firmware.sha256 == sha256:
            self._fail_candidate(state.candidate, why, refuse=True)
        elif good is None or good.sha256 != sha256:
            # gone already, or not yet here: it must not start to be stopped
            self._refuse(sha256, why)
        elif state.candidate is None and state.previous_good:
            self.state = replace(state, last_good=state.previous_good, previous_good=None)
            self._refuse(sha256, why)
            self._roll_back(state.previous_good, good.version, why)

    def _retry(self, ring: str, sequence: int) -> None:
        rollback, candidate = self.state.rollback, self.state.candidate
        is_meant = rollback is not None and rollback.offer.sequence == sequence
        if ring == ROLLBACK and rollback and is_meant and not gates.is_overtaken(self.state):
            self._renew_rollback(rollback)
            version = rollback.offer.firmware.version
            self._event("retried", "the rollback is offered again", version=version)
        progress = candidate.rings.get(ring) if candidate else None
        if candidate is None or progress is None or progress.passed_at is not None:
            return
        if progress.offer.sequence == sequence:
            self._offer_again(candidate, ring)
            self._event("retried", "the ring is offered the release again", ring)

    def detect_foreign_ends(self) -> None:
        """A job that somebody cancelled or deleted is a halt until `resume`; what it was for is
        offered anew after that.

        `python -m ops halt` cancels jobs itself. Its order stands in control.json; where that was
        taken back before the controller ran, the ring is offered the release anew at once. What is
        ended while a halt stands is covered by it.
        """
        halted = self.halt_reason()
        for ring, offer in list(self.state.stable.items()):
            if not self._has_ended(ring, offer):
                continue
            if self._was_ended_by_hand(ring, offer) and not halted:
                self._halt(f"job {self._job_id(ring, offer)} was cancelled or deleted by hand")
            stable = {name: kept for name, kept in self.state.stable.items() if name != ring}
            self._update(stable=stable)
        if halted:
            return
        rollback = self.state.rollback
        if rollback and self._was_ended_by_hand(ROLLBACK, rollback.offer):
            job = self._job_id(ROLLBACK, rollback.offer)
            self._halt(f"the rollback's job {job} was ended by hand")
            self._renew_rollback(rollback)
        if self.state.candidate:
            self._detect_candidate_ends(self.state.candidate)

    def _detect_candidate_ends(self, candidate: Candidate) -> None:
        for ring, progress in candidate.rings.items():
            if progress.passed_at is not None or progress.withdrawn:
                continue
            if not self._was_ended_by_hand(ring, progress.offer):
                continue
            job = self._job(ring, progress.offer)
            if job and job.reason == OPERATOR_HALT:  # one ring at a time is unproved
                self._keep_progress(candidate, ring, replace(progress, withdrawn=True))
            else:
                name = self._job_id(ring, progress.offer)
                self._halt(f"job {name} was cancelled or deleted by hand")

    def _has_ended(self, ring: str, offer: Offer) -> bool:
        job = self._job(ring, offer)
        return offer.seen if job is None else not job.is_live

    def _was_ended_by_hand(self, ring: str, offer: Offer) -> bool:
        job = self._job(ring, offer)
        abort = self.state.candidate.manifest.abort if self.state.candidate else ()
        return self._has_ended(ring, offer) and not (job and job.is_aborted(abort))

    def _halt(self, why: str) -> None:
        if self.state.halt is None:
            halt = Halt(id=f"halt-{self.state.halts + 1}", why=why, at=self.now)
            self._update(halt=halt, halts=self.state.halts + 1)
            self._event("halted", why)

    def halt_reason(self) -> Waiting | None:
        """Why everything stands still: the controller's own halt, the stack file's, or
        control.json's."""
        if self.state.halt:
            return Waiting(kind="halted", text=f"{self.state.halt.why}; waits for `resume`")
        if self.observed.orders.halted:
            order = self.observed.orders.halted
            return Waiting(kind="halted", text=f"halted by {order.by}: {order.why}")
        if self.manifest and self.manifest.halted:
            return Waiting(kind="halted", text="rollout.halted is true in the stack file")
        return None

    def withdraw_candidate(self) -> None:
        """Takes back what the candidate's unproved rings were offered, until somebody resumes."""
        self.waiting = self.halt_reason() or IDLE
        candidate = self.state.candidate
        if candidate:
            rings = {
                r: replace(p, withdrawn=p.passed_at is None) for r, p in candidate.rings.items()
            }
            self._update(candidate=replace(candidate, rings=rings))

    # The candidate

    def prove_candidate(self) -> bool:
        """Moves the candidate on. False when it is gone and the manifest's firmware may be
        considered."""
        candidate = self._current_candidate()
        if candidate is None:
            return False
        for ring in candidate.manifest.rings:
            progress = candidate.rings.get(ring.name)
            if progress is None:
                blocker = self._start_blocker(candidate.manifest, ring)
                self.waiting = blocker or self._start_ring(candidate, ring)
                return True
            if progress.passed_at is not None:
                continue
            if progress.withdrawn:
                self._restart_or_wait(candidate, ring)
                return True
            if not self._judge_ring(candidate, ring, progress) or self.state.candidate is None:
                return True
            candidate = self.state.candidate
        self._complete_release(candidate)
        return True

    def _current_candidate(self) -> Candidate | None:
        """The candidate as the manifest has it now; None when the manifest takes it back."""
        candidate, manifest, good = self.state.candidate, self.manifest, self.state.last_good
        if candidate is None or manifest is None:
            return candidate
        if manifest.firmware == candidate.firmware:
            return self._update_manifest(candidate, manifest)
        if good and manifest.firmware.sha256 == good.sha256:
            self._fail_candidate(candidate, REVERTED, refuse=False)
            return None
        if self._refusal(manifest):
            return candidate
        why = f"the stack file names {manifest.firmware.version}"
        self._event("superseded", why, version=candidate.firmware.version)
        self._drop_candidate(candidate)
        return None

    def _update_manifest(self, candidate: Candidate, manifest: Manifest) -> Candidate:
        """The candidate under new settings; a ring that these no longer have is left, but not whom
        it exposed."""
        gone = {r: p for r, p in candidate.rings.items() if manifest.ring(r) is None}
        rings = {r: p for r, p in candidate.rings.items() if r not in gone}
        candidate = replace(candidate, manifest=manifest, rings=rings)
        self._update(candidate=candidate, exposing_jobs=self._unproved_jobs(gone))
        return candidate

    def _drop_candidate(self, candidate: Candidate) -> None:
        """Forgets the candidate, but not whom it exposed."""
        self._update(candidate=None, exposing_jobs=self._unproved_jobs(candidate.rings))

    def _unproved_jobs(self, rings: dict[str, Progress]) -> tuple[str, ...]:
        unproved = [self._job_id(r, p.offer) for r, p in rings.items() if p.passed_at is None]
        return _merge_jobs(self.state.exposing_jobs, unproved)

    def _judge_ring(self, candidate: Candidate, ring: RingPlan, progress: Progress) -> bool:
        """Follows the ring's gate; whether the ring passed."""
        job = self._job(ring.name, progress.offer)
        if job is None:  # its CreateJob has not been seen to work yet
            self.waiting = _waiting_for_job(ring)
            return False
        progress, verdict = gates.judge_ring(
            candidate.manifest, ring, progress, job, self.observed, self.now
        )
        self._keep_progress(candidate, ring.name, progress)
        if isinstance(verdict, gates.Failed):
            self._fail_candidate(candidate, verdict.why, refuse=True)
            return False
        waiting = verdict if isinstance(verdict, Waiting) else self._hold_reason(candidate.manifest)
        if waiting:
            self.waiting = waiting
            return False
        why = f"it met its gate with {job.counts.succeeded} devices"
        self._pass_ring(candidate, ring.name, progress, why)
        return True

    def _hold_reason(self, manifest: Manifest) -> Waiting | None:
        """What keeps a ring from passing and the next from starting, apart from the gate."""
        if self.manifest is None:
            return self._manifest_refused()
        if self.manifest.firmware != manifest.firmware:
            return Waiting(kind="refused", text=self._refusal(self.manifest) or "")
        if self.observed.orders.paused:
            order = self.observed.orders.paused
            return Waiting(kind="paused", text=f"paused by {order.by}: {order.why}")
        if self.manifest.paused:
            return Waiting(kind="paused", text="rollout.paused is true in the stack file")
        return None

    def _manifest_refused(self) -> Waiting:
        text = f"the manifest was refused: {self.observed.manifest_problem}"
        return Waiting(kind="refused", text=text)

    def _start_blocker(self, manifest: Manifest, ring: RingPlan) -> Waiting | None:
        held = self._hold_reason(manifest)
        if held:
            return held
        if self.observed.image_problem:
            return Waiting(kind="image", text=self.observed.image_problem)
        if self.state.last_good and self.observed.good_image_problem:
            text = f"there is no way back: {self.observed.good_image_problem}"
            return Waiting(kind="image", text=text)
        for gate in ring.gate.alarms:
            alarm = self.observed.alarms.get(gate.name)
            if alarm and alarm.state == "ALARM":
                text = f"alarm {gate.name} was red before ring {ring.name} started"
                return Waiting(kind="alarms", text=text, ring=ring.name)
        now = to_datetime(self.now)  # compared as times: they keep microseconds only
        opens = next_opening(now, manifest.start_at, manifest.window)
        if opens is None or opens > now:
            text = f"ring {ring.name} starts in its window"
            until = opens.timestamp() if opens else None
            return Waiting(kind="window", text=text, ring=ring.name, until=until)
        return None

    def _restart_or_wait(self, candidate: Candidate, ring: RingPlan) -> None:
        held = self._start_blocker(candidate.manifest, ring)
        if held is None:
            self._offer_again(candidate, ring.name)
            self._event("started", "offered again after the halt", ring.name)
        self.waiting = held or _waiting_for_job(ring)

    def _start_ring(self, candidate: Candidate, ring: RingPlan) -> Waiting:
        sequences = [p.offer.sequence for p in candidate.rings.values()]
        sequence = max(sequences) if sequences else self._next_sequence()
        offer = Offer(sequence=sequence, firmware=candidate.firmware, downgrade=candidate.downgrade)
        self._keep_progress(candidate, ring.name, Progress(offer=offer, started_at=self.now))
        self._event("started", f"{ring.percent:g} % of the fleet", ring.name)
        return _waiting_for_job(ring)

    def _offer_again(self, candidate: Candidate, ring: str) -> None:
        """The same release for the ring under a new sequence; whom the old job exposed stays
        exposed."""
        old = candidate.rings[ring]
        self._update(exposing_jobs=self._unproved_jobs({ring: old}))
        self._keep_progress(
            candidate, ring, Progress(offer=self._renew_offer(old.offer), started_at=self.now)
        )

    def _keep_progress(self, candidate: Candidate, ring: str, progress: Progress) -> None:
        rings = {**candidate.rings, ring: progress}
        self._update(candidate=replace(candidate, rings=rings))

    def _pass_ring(self, candidate: Candidate, ring: str, progress: Progress, why: str) -> None:
        """The ring has proved the release: it is what later joiners get, and the job before it
        ends."""
        self._keep_progress(candidate, ring, replace(progress, passed_at=self.now))
        self._update(stable={**self.state.stable, ring: progress.offer})
        self._event("passed", why, ring)

    def _complete_release(self, candidate: Candidate) -> None:
        good = self.state.last_good
        self._update(
            candidate=None,
            exposing_jobs=(),
            rollback=None,
            last_good=candidate.firmware,
            previous_good=good or self.state.previous_good,
        )
        self._event("last-good", "it passed its last ring", version=candidate.firmware.version)
        self._provide_new_rings(candidate.manifest)

    # Failure and the way back

    def _fail_candidate(self, candidate: Candidate, why: str, *, refuse: bool) -> None:
        version, good = candidate.firmware.version, self.state.last_good
        self._event("failed" if refuse else "rollback", why)
        self._drop_candidate(candidate)
        if refuse:
            self._refuse(candidate.firmware.sha256, why)
        if good is None or (refuse and candidate.manifest.rollback == "forbidden"):
            no_way = "there is no last good release to go back to"
            back = "its rollback is forbidden" if good else no_way
            self._halt(f"{version} was stopped ({why}) and {back}")
            self.waiting = self.halt_reason() or IDLE
        else:
            self._roll_back(good, version, why)

    def _refuse(self, sha256: str, why: str) -> None:
        self._update(refused={**self.state.refused, sha256: why})

    def _roll_back(self, good: Firmware, failed: Version | str, why: str) -> None:
        """Exposed devices, and only they, go back; rings that had passed go back whole. A new,
        higher sequence for all."""
        earlier, exposing = self.state.rollback, self.state.exposing_jobs
        if earlier and earlier.done_at is None:
            exposing = _merge_jobs(earlier.exposing_jobs, exposing)
        offer = Offer(sequence=self._next_sequence(), firmware=good, downgrade=True)
        stable = {
            r: o if o.firmware.sha256 == good.sha256 else offer
            for r, o in self.state.stable.items()
        }
        rollback = Rollback(
            offer=offer, failed=str(failed), reason=why, exposing_jobs=exposing, started_at=self.now
        )
        self._update(stable=stable, rollback=rollback, exposing_jobs=())
        self._event("rollback", f"exposed devices return to {good.version}", version=good.version)

    def _renew_rollback(self, rollback: Rollback) -> None:
        """Offers the way back again. Not over a newer release, which it would take from its
        devices: that one's own failure would bring back whom this rollback did not."""
        if gates.is_overtaken(self.state):
            self._update(
                rollback=None,
                exposing_jobs=_merge_jobs(rollback.exposing_jobs, self.state.exposing_jobs),
            )
            return
        again = replace(
            rollback, offer=self._renew_offer(rollback.offer), started_at=self.now, done_at=None
        )
        self._update(rollback=again)

    def follow_rollback(self) -> None:
        """Says how the way back goes, and when everybody exposed has come back."""
        rollback = self.state.rollback
        if rollback is None or rollback.done_at is not None:
            return
        failing = gates.count_rollback_failures(self.state, self.observed, self.names, self.now)
        if failing:
            text = (
                f"ROLLBACK FAILED on {failing} devices: see `python -m ops status`, then `python -m"
                " ops retry rollback`"
            )
            self.waiting = Waiting(kind="rollback-failed", text=text)
        elif self._is_everybody_back(rollback):
            self._update(rollback=replace(rollback, done_at=self.now))
            version = rollback.offer.firmware.version
            self._event("rolled-back", "every exposed device reported back", version=version)
        elif self.waiting.kind in ("nothing", "refused"):
            text = f"exposed devices return to {rollback.offer.firmware.version}"
            self.waiting = Waiting(kind="rollback", text=text)

    def _is_everybody_back(self, rollback: Rollback) -> bool:
        before, observed = self.before.rollback, self.observed
        if before is None or before.offer.sequence != rollback.offer.sequence:
            return False
        busy = any(
            observed.jobs[name].counts.in_progress
            for name in rollback.exposing_jobs
            if name in observed.jobs
        )
        own = self._job(ROLLBACK, rollback.offer)
        answered = own.counts.finished + own.counts.rejected if own else 0
        if own is None or busy or observed.unenrolled or answered < observed.enrolled:
            return False
        ways = gates.rollback_jobs(rollback, self.state.stable, observed, self.names)
        sequence = rollback.offer.sequence
        whole = [ring for ring, o in self.state.stable.items() if o.sequence == sequence]
        if len(ways) < 1 + len(whole):  # a job of the way back is not made yet
            return False
        return all(job.settled and not job.counts.queued + job.counts.in_progress for job in ways)

    # A new release

    def consider_release(self) -> None:
        """Takes up the manifest's firmware, where that may be released, and starts its first ring
        when it may start."""
        manifest, good = self.manifest, self.state.last_good
        if manifest is None:
            self.waiting = self._manifest_refused()
        elif self.halt_reason():
            self.waiting = self.halt_reason() or IDLE
        elif good and (manifest.firmware.sha256, manifest.firmware.version) == (
            good.sha256,
            good.version,
        ):
            if self.state.exposing_jobs:
                self._roll_back(good, "an unproved release", REVERTED)
        else:
            problem = self._refusal(manifest)
            refused = Waiting(kind="refused", text=problem) if problem else None
            blocker = refused or self._start_blocker(manifest, manifest.rings[0])
            self.waiting = blocker or self._begin_candidate(manifest)
        if manifest and not self.halt_reason() and self.state.candidate is None:
            self._provide_new_rings(manifest)

    def _begin_candidate(self, manifest: Manifest) -> Waiting:
        firmware = manifest.firmware
        candidate = Candidate(manifest=manifest, downgrade=self._is_downgrade(firmware))
        self._update(versions={**self.state.versions, firmware.version: firmware.sha256})
        return self._start_ring(candidate, manifest.rings[0])

    def _is_downgrade(self, firmware: Firmware) -> bool:
        """Whether devices must be told that an older version is meant: also after a release that
        was superseded or halted."""
        return any(firmware.version < version for version in self.state.versions)

    def _refusal(self, manifest: Manifest) -> str | None:
        """Why this firmware may not be released at all; None when it may."""
        firmware, state = manifest.firmware, self.state
        if firmware.sha256 in state.refused:
            return (
                f"{firmware.version} with this digest is refused: {state.refused[firmware.sha256]};"
                " release a new version"
            )
        known = state.versions.get(firmware.version)
        if known and known != firmware.sha256:
            return (
                f"{firmware.version} was released with digest {known[:12]}...; a version keeps its"
                " digest: raise the version"
            )
        good, previous = state.last_good, state.previous_good
        if good is None or firmware.allow_downgrade or firmware.version > good.version:
            return None
        if previous and firmware.sha256 == previous.sha256:
            return None
        return (
            f"{firmware.version} is not above the last good {good.version}: set"
            " firmware.allowDowngrade to release it"
        )

    def _provide_new_rings(self, manifest: Manifest) -> None:
        """A ring without a job gets the last good release; a ring that the configuration dropped is
        forgotten."""
        good = self.state.last_good
        if good is None:
            return
        names = [ring.name for ring in manifest.rings]
        stable = {ring: offer for ring, offer in self.state.stable.items() if ring in names}
        missing = [name for name in names if name not in stable]
        if missing:
            offer = Offer(sequence=self._next_sequence(), firmware=good, downgrade=True)
            stable |= dict.fromkeys(missing, offer)
        self._update(stable=stable)

    # Small things

    def _next_sequence(self) -> int:
        self._update(sequence=max(self.state.sequence + 1, int(self.now)))
        return self.state.sequence

    def _renew_offer(self, offer: Offer) -> Offer:
        return replace(offer, sequence=self._next_sequence(), seen=False)

    def _event(
        self, what: EventType, why: str, ring: str | None = None, version: Version | None = None
    ) -> None:
        candidate = self.state.candidate
        version = version or (candidate.firmware.version if candidate else None)
        self.events.append(Event(at=self.now, what=what, why=why, ring=ring, version=version))

    def final_state(self) -> State:
        decisions = (*self.state.decisions, *self.events)[-KEPT_DECISIONS:]
        return replace(self.state, waiting=self.waiting, decisions=decisions)


def _waiting_for_job(ring: RingPlan) -> Waiting:
    return Waiting(kind="settling", text="the ring's job is being created", ring=ring.name)


def _merge_jobs(some: tuple[str, ...], more: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *more)))
