"""The decision: what each ring should run, and why.

`decide` is pure and level-triggered: it takes the manifest, what the controller remembers, what it
saw in AWS and the time, and returns what to remember next. `rollout.actions` says which calls
follow from that.
"""

from __future__ import annotations

from dataclasses import replace

from rollout import gates
from rollout.observed import OPERATOR_HALT, Job, Observed
from rollout.release import Firmware, Manifest, RingPlan, Version
from rollout.rings import RESERVED
from rollout.state import (
    KEPT_DECISIONS,
    Candidate,
    Deed,
    Event,
    Halt,
    Names,
    Offer,
    Progress,
    Rollback,
    State,
    Waiting,
)
from rollout.window import opens_at, utc

IDLE = Waiting(kind="nothing", text="every ring runs the last good release")


def decide(
    manifest: Manifest | None, state: State, observed: Observed, now: float, names: Names
) -> State:
    """The state after this run. The manifest is None when it was refused: then nothing starts or
    passes.

    The time is in seconds since 1970.
    """
    run = _Run(manifest, state, observed, now, names)
    run.mark_seen()
    run.obey()
    run.notice_other_hands()
    if run.halted():
        run.withdraw()
    elif run.state.candidate is None or not run.prove():
        run.consider()
    run.follow_rollback()
    return run.result()


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

    def mark_seen(self) -> None:
        """Remembers that a job exists, so that its absence later on is somebody's act."""
        state = self.state
        stable = {ring: self._seen(ring, offer) for ring, offer in state.stable.items()}
        candidate = state.candidate
        if candidate:
            rings = {
                r: replace(p, offer=self._seen(r, p.offer)) for r, p in candidate.rings.items()
            }
            candidate = replace(candidate, rings=rings)
        rollback = state.rollback and replace(
            state.rollback, offer=self._seen(RESERVED, state.rollback.offer)
        )
        self.state = replace(state, stable=stable, candidate=candidate, rollback=rollback)

    def _seen(self, ring: str, offer: Offer) -> Offer:
        return replace(offer, seen=True) if self._job(ring, offer) and not offer.seen else offer

    def _job(self, ring: str, offer: Offer) -> Job | None:
        return self.observed.jobs.get(self.names.job(ring, offer.sequence))

    def obey(self) -> None:
        """Carries out the orders in control.json that name something still standing."""
        control, halt = self.observed.control, self.state.halt
        if halt and control.resume and control.resume.halt == halt.id:
            self.state = replace(self.state, halt=None)
            self._event("resumed", f"{control.resume.order.by}: {control.resume.order.why}")
        order = control.rollback
        if order and order.sha256 not in self.state.refused:
            self._rollback_ordered(order.sha256, f"{order.order.by} ordered it: {order.order.why}")
        if control.retry and not self.halted():
            self._retry(control.retry.ring, control.retry.sequence)

    def _rollback_ordered(self, sha256: str, why: str) -> None:
        state, good = self.state, self.state.last_good
        if state.candidate and state.candidate.firmware.sha256 == sha256:
            self._fail(state.candidate, why, refuse=True)
        elif (
            good is None or good.sha256 != sha256
        ):  # gone already, or not yet here: it must not start to be stopped
            self._refuse(sha256, why)
        elif state.candidate is None and state.previous_good:
            self.state = replace(state, last_good=state.previous_good, previous_good=None)
            self._refuse(sha256, why)
            self._roll_back(state.previous_good, good.version, why)

    def _retry(self, ring: str, sequence: int) -> None:
        rollback, candidate = self.state.rollback, self.state.candidate
        if (
            ring == RESERVED
            and rollback
            and rollback.offer.sequence == sequence
            and not gates.overtaken(self.state)
        ):
            self._renew_rollback(rollback)
            self._event(
                "retried", "the rollback is offered again", version=rollback.offer.firmware.version
            )
        progress = candidate.rings.get(ring) if candidate else None
        if (
            candidate
            and progress
            and progress.offer.sequence == sequence
            and progress.passed_at is None
        ):
            self._offer_again(candidate, ring)
            self._event("retried", "the ring is offered the release again", ring)

    def notice_other_hands(self) -> None:
        """A job that somebody cancelled or deleted is a halt until `resume`; what it was for is
        offered anew after that.

        `python -m ops halt` cancels jobs itself. Its order stands in control.json; where that was
        taken back before the controller ran, the ring is offered the release anew at once. What is
        ended while a halt stands is covered by it.
        """
        halted = self.halted()
        for ring, offer in list(self.state.stable.items()):
            if not self._ended(ring, offer):
                continue
            if self._ended_by_hand(ring, offer) and not halted:
                self._halt(
                    f"job {self.names.job(ring, offer.sequence)} was cancelled or deleted by hand"
                )
            stable = {name: kept for name, kept in self.state.stable.items() if name != ring}
            self.state = replace(self.state, stable=stable)
        if halted:
            return
        rollback = self.state.rollback
        if rollback and self._ended_by_hand(RESERVED, rollback.offer):
            self._halt(
                f"the rollback's job {self.names.job(RESERVED, rollback.offer.sequence)} was ended"
                " by hand"
            )
            self._renew_rollback(rollback)
        if self.state.candidate:
            self._notice_candidate(self.state.candidate)

    def _notice_candidate(self, candidate: Candidate) -> None:
        for ring, progress in candidate.rings.items():
            if (
                progress.passed_at is not None
                or progress.withdrawn
                or not self._ended_by_hand(ring, progress.offer)
            ):
                continue
            job = self._job(ring, progress.offer)
            if job and job.reason == OPERATOR_HALT:
                self._keep(
                    candidate, ring, replace(progress, withdrawn=True)
                )  # one ring at a time is unproved
            else:
                self._halt(
                    f"job {self.names.job(ring, progress.offer.sequence)} was cancelled or deleted"
                    " by hand"
                )

    def _ended(self, ring: str, offer: Offer) -> bool:
        job = self._job(ring, offer)
        return offer.seen if job is None else not job.live

    def _ended_by_hand(self, ring: str, offer: Offer) -> bool:
        job = self._job(ring, offer)
        abort = self.state.candidate.manifest.abort if self.state.candidate else ()
        return self._ended(ring, offer) and not (job and job.aborted(abort))

    def _halt(self, why: str) -> None:
        if self.state.halt is None:
            halt = Halt(id=f"halt-{self.state.halts + 1}", why=why, at=self.now)
            self.state = replace(self.state, halt=halt, halts=self.state.halts + 1)
            self._event("halted", why)

    def halted(self) -> Waiting | None:
        """Why everything stands still: the controller's own halt, the stack file's, or
        control.json's."""
        if self.state.halt:
            return Waiting(kind="halted", text=f"{self.state.halt.why}; waits for `resume`")
        if self.observed.control.halted:
            order = self.observed.control.halted
            return Waiting(kind="halted", text=f"halted by {order.by}: {order.why}")
        if self.manifest and self.manifest.halted:
            return Waiting(kind="halted", text="rollout.halted is true in the stack file")
        return None

    def withdraw(self) -> None:
        """Takes back what the candidate's unproved rings were offered, until somebody resumes."""
        self.waiting = self.halted() or IDLE
        candidate = self.state.candidate
        if candidate:
            rings = {
                r: replace(p, withdrawn=p.passed_at is None) for r, p in candidate.rings.items()
            }
            self.state = replace(self.state, candidate=replace(candidate, rings=rings))

    # The candidate

    def prove(self) -> bool:
        """Moves the candidate on. False when it is gone and the manifest's firmware may be
        considered."""
        candidate = self._current()
        if candidate is None:
            return False
        for ring in candidate.manifest.rings:
            progress = candidate.rings.get(ring.name)
            if progress is None:
                self._start_or_wait(candidate, ring)
                return True
            if progress.passed_at is not None:
                continue
            if progress.withdrawn:
                self._restart_or_wait(candidate, ring)
                return True
            if not self._judge(candidate, ring, progress) or self.state.candidate is None:
                return True
            candidate = self.state.candidate
        self._succeed(candidate)
        return True

    def _current(self) -> Candidate | None:
        """The candidate as the manifest has it now; None when the manifest takes it back."""
        candidate, manifest, good = self.state.candidate, self.manifest, self.state.last_good
        if candidate is None or manifest is None:
            return candidate
        if manifest.firmware == candidate.firmware:
            return self._with_manifest(candidate, manifest)
        if good and manifest.firmware.sha256 == good.sha256:
            self._fail(candidate, "the stack file names the last good release again", refuse=False)
            return None
        if self._unacceptable(manifest):
            return candidate
        self._event(
            "superseded",
            f"the stack file names {manifest.firmware.version}",
            version=candidate.firmware.version,
        )
        self._drop_candidate(candidate)
        return None

    def _with_manifest(self, candidate: Candidate, manifest: Manifest) -> Candidate:
        """The candidate under new settings; a ring that these no longer have is left, but not whom
        it exposed."""
        gone = {r: p for r, p in candidate.rings.items() if manifest.ring(r) is None}
        rings = {r: p for r, p in candidate.rings.items() if r not in gone}
        candidate = replace(candidate, manifest=manifest, rings=rings)
        self.state = replace(self.state, candidate=candidate, exposing=self._exposing(gone))
        return candidate

    def _drop_candidate(self, candidate: Candidate) -> None:
        """Forgets the candidate, but not whom it exposed."""
        self.state = replace(self.state, candidate=None, exposing=self._exposing(candidate.rings))

    def _exposing(self, rings: dict[str, Progress]) -> tuple[str, ...]:
        unproved = [
            self.names.job(r, p.offer.sequence) for r, p in rings.items() if p.passed_at is None
        ]
        return _joined(self.state.exposing, unproved)

    def _judge(self, candidate: Candidate, ring: RingPlan, progress: Progress) -> bool:
        """Follows the ring's gate; whether the ring passed."""
        job = self._job(ring.name, progress.offer)
        if job is None:  # its CreateJob has not been seen to work yet
            self.waiting = _creating(ring)
            return False
        progress, verdict = gates.judge(
            candidate.manifest, ring, progress, job, self.observed, self.now
        )
        self._keep(candidate, ring.name, progress)
        if isinstance(verdict, gates.Failed):
            self._fail(candidate, verdict.why, refuse=True)
            return False
        waiting = verdict if isinstance(verdict, Waiting) else self._held(candidate.manifest)
        if waiting:
            self.waiting = waiting
            return False
        self._pass(
            candidate, ring.name, progress, f"it met its gate with {job.counts.succeeded} devices"
        )
        return True

    def _held(self, manifest: Manifest) -> Waiting | None:
        """What keeps a ring from passing and the next from starting, apart from the gate."""
        if self.manifest is None:
            return Waiting(
                kind="refused", text=f"the manifest was refused: {self.observed.manifest_problem}"
            )
        if self.manifest.firmware != manifest.firmware:
            return Waiting(kind="refused", text=self._unacceptable(self.manifest) or "")
        if self.observed.control.paused:
            order = self.observed.control.paused
            return Waiting(kind="paused", text=f"paused by {order.by}: {order.why}")
        if self.manifest.paused:
            return Waiting(kind="paused", text="rollout.paused is true in the stack file")
        return None

    def _may_start(self, manifest: Manifest, ring: RingPlan) -> Waiting | None:
        held = self._held(manifest)
        if held:
            return held
        if self.observed.image_problem:
            return Waiting(kind="image", text=self.observed.image_problem)
        if self.state.last_good and self.observed.good_image_problem:
            return Waiting(
                kind="image", text=f"there is no way back: {self.observed.good_image_problem}"
            )
        red = [
            a.name
            for a in ring.gate.alarms
            if (seen := self.observed.alarms.get(a.name)) and seen.state == "ALARM"
        ]
        if red:
            return Waiting(
                kind="alarms",
                text=f"alarm {red[0]} was red before ring {ring.name} started",
                ring=ring.name,
            )
        opens = opens_at(utc(self.now), manifest.start_at, manifest.window)
        if opens is None or opens > utc(self.now):  # as times: utc() keeps microseconds only
            until = opens.timestamp() if opens else None
            return Waiting(
                kind="window",
                text=f"ring {ring.name} starts in its window",
                ring=ring.name,
                until=until,
            )
        return None

    def _start_or_wait(self, candidate: Candidate, ring: RingPlan) -> None:
        self.waiting = self._may_start(candidate.manifest, ring) or self._start(candidate, ring)

    def _restart_or_wait(self, candidate: Candidate, ring: RingPlan) -> None:
        held = self._may_start(candidate.manifest, ring)
        if held is None:
            self._offer_again(candidate, ring.name)
            self._event("started", "offered again after the halt", ring.name)
        self.waiting = held or _creating(ring)

    def _start(self, candidate: Candidate, ring: RingPlan) -> Waiting:
        sequences = [p.offer.sequence for p in candidate.rings.values()]
        sequence = max(sequences) if sequences else self._next_sequence()
        offer = Offer(sequence=sequence, firmware=candidate.firmware, downgrade=candidate.downgrade)
        self._keep(candidate, ring.name, Progress(offer=offer, started_at=self.now))
        self._event("started", f"{ring.percent:g} % of the fleet", ring.name)
        return _creating(ring)

    def _offer_again(self, candidate: Candidate, ring: str) -> None:
        """The same release for the ring under a new sequence; whom the old job exposed stays
        exposed."""
        old = candidate.rings[ring]
        self.state = replace(self.state, exposing=self._exposing({ring: old}))
        self._keep(candidate, ring, Progress(offer=self._renewed(old.offer), started_at=self.now))

    def _keep(self, candidate: Candidate, ring: str, progress: Progress) -> None:
        rings = {**candidate.rings, ring: progress}
        self.state = replace(self.state, candidate=replace(candidate, rings=rings))

    def _pass(self, candidate: Candidate, ring: str, progress: Progress, why: str) -> None:
        """The ring has proved the release: it is what later joiners get, and the job before it
        ends."""
        self._keep(candidate, ring, replace(progress, passed_at=self.now))
        self.state = replace(self.state, stable={**self.state.stable, ring: progress.offer})
        self._event("passed", why, ring)

    def _succeed(self, candidate: Candidate) -> None:
        good = self.state.last_good
        self.state = replace(
            self.state,
            candidate=None,
            exposing=(),
            rollback=None,
            last_good=candidate.firmware,
            previous_good=good or self.state.previous_good,
        )
        self._event("last-good", "it passed its last ring", version=candidate.firmware.version)
        self._provide_new_rings(candidate.manifest)

    # Failure and the way back

    def _fail(self, candidate: Candidate, why: str, *, refuse: bool) -> None:
        version, good = candidate.firmware.version, self.state.last_good
        self._event("failed" if refuse else "rollback", why)
        self._drop_candidate(candidate)
        if refuse:
            self._refuse(candidate.firmware.sha256, why)
        if good is None or (refuse and candidate.manifest.rollback == "forbidden"):
            back = (
                "its rollback is forbidden"
                if good
                else "there is no last good release to go back to"
            )
            self._halt(f"{version} was stopped ({why}) and {back}")
            self.waiting = self.halted() or IDLE
        else:
            self._roll_back(good, version, why)

    def _refuse(self, sha256: str, why: str) -> None:
        self.state = replace(self.state, refused={**self.state.refused, sha256: why})

    def _roll_back(self, good: Firmware, failed: str, why: str) -> None:
        """Exposed devices, and only they, go back; rings that had passed go back whole. A new,
        higher sequence for all."""
        earlier, exposing = self.state.rollback, self.state.exposing
        if earlier and earlier.done_at is None:
            exposing = _joined(earlier.exposing, exposing)
        offer = Offer(sequence=self._next_sequence(), firmware=good, downgrade=True)
        stable = {
            r: o if o.firmware.sha256 == good.sha256 else offer
            for r, o in self.state.stable.items()
        }
        rollback = Rollback(
            offer=offer, failed=failed, reason=why, exposing=exposing, started_at=self.now
        )
        self.state = replace(self.state, stable=stable, rollback=rollback, exposing=())
        self._event("rollback", f"exposed devices return to {good.version}", version=good.version)

    def _renew_rollback(self, rollback: Rollback) -> None:
        """Offers the way back again. Not over a newer release, which it would take from its
        devices: that one's own failure would bring back whom this rollback did not."""
        if gates.overtaken(self.state):
            self.state = replace(
                self.state, rollback=None, exposing=_joined(rollback.exposing, self.state.exposing)
            )
            return
        again = replace(
            rollback, offer=self._renewed(rollback.offer), started_at=self.now, done_at=None
        )
        self.state = replace(self.state, rollback=again)

    def follow_rollback(self) -> None:
        """Says how the way back goes, and when everybody exposed has come back."""
        rollback = self.state.rollback
        if rollback is None or rollback.done_at is not None:
            return
        failing = gates.rollback_failing(self.state, self.observed, self.names, self.now)
        if failing:
            text = (
                f"ROLLBACK FAILED on {failing} devices: see `python -m ops status`, then `python -m"
                " ops retry rollback`"
            )
            self.waiting = Waiting(kind="rollback-failed", text=text)
        elif self._everybody_back(rollback):
            self.state = replace(self.state, rollback=replace(rollback, done_at=self.now))
            self._event(
                "rolled-back",
                "every exposed device reported back",
                version=rollback.offer.firmware.version,
            )
        elif self.waiting.kind in ("nothing", "refused"):
            text = f"exposed devices return to {rollback.offer.firmware.version}"
            self.waiting = Waiting(kind="rollback", text=text)

    def _everybody_back(self, rollback: Rollback) -> bool:
        before, observed = self.before.rollback, self.observed
        if (
            before is None
            or before.offer.sequence != rollback.offer.sequence
            or observed.unenrolled
        ):
            return False
        busy = any(
            observed.jobs[name].counts.in_progress
            for name in rollback.exposing
            if name in observed.jobs
        )
        own = self._job(RESERVED, rollback.offer)
        answered = own.counts.finished + own.counts.rejected if own else 0
        if own is None or busy or answered < observed.enrolled:
            return False
        ways = gates.way_back(rollback, self.state.stable, observed, self.names)
        return all(job.settled and not job.counts.queued + job.counts.in_progress for job in ways)

    # A new release

    def consider(self) -> None:
        """Takes up the manifest's firmware, where that may be released, and starts its first ring
        when it may start."""
        manifest, good = self.manifest, self.state.last_good
        if manifest is None:
            self.waiting = Waiting(
                kind="refused", text=f"the manifest was refused: {self.observed.manifest_problem}"
            )
        elif self.halted():
            self.waiting = self.halted() or IDLE
        elif (
            good
            and manifest.firmware.sha256 == good.sha256
            and manifest.firmware.version == good.version
        ):
            if self.state.exposing:
                self._roll_back(
                    good, "an unproved release", "the stack file names the last good release again"
                )
        else:
            self.waiting = self._cannot_start(manifest) or self._begin(manifest)
        if manifest and not self.halted() and self.state.candidate is None:
            self._provide_new_rings(manifest)

    def _cannot_start(self, manifest: Manifest) -> Waiting | None:
        problem = self._unacceptable(manifest)
        return (
            Waiting(kind="refused", text=problem)
            if problem
            else self._may_start(manifest, manifest.rings[0])
        )

    def _begin(self, manifest: Manifest) -> Waiting:
        firmware = manifest.firmware
        candidate = Candidate(manifest=manifest, downgrade=self._goes_down(firmware))
        self.state = replace(
            self.state, versions={**self.state.versions, firmware.version: firmware.sha256}
        )
        return self._start(candidate, manifest.rings[0])

    def _goes_down(self, firmware: Firmware) -> bool:
        """Whether devices must be told that an older version is meant: also after a release that
        was superseded or halted."""
        known = [Version(v) for v in self.state.versions]
        return any(Version(firmware.version) < version for version in known)

    def _unacceptable(self, manifest: Manifest) -> str | None:
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
        if (
            good is None
            or firmware.allow_downgrade
            or Version(firmware.version) > Version(good.version)
        ):
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
        self.state = replace(self.state, stable=stable)

    # Small things

    def _next_sequence(self) -> int:
        self.state = replace(self.state, sequence=max(self.state.sequence + 1, int(self.now)))
        return self.state.sequence

    def _renewed(self, offer: Offer) -> Offer:
        return replace(offer, sequence=self._next_sequence(), seen=False)

    def _event(
        self, what: Deed, why: str, ring: str | None = None, version: str | None = None
    ) -> None:
        candidate = self.state.candidate
        version = version or (candidate.firmware.version if candidate else None)
        self.events.append(Event(at=self.now, what=what, why=why, ring=ring, version=version))

    def result(self) -> State:
        decisions = (*self.state.decisions, *self.events)[-KEPT_DECISIONS:]
        return replace(self.state, waiting=self.waiting, decisions=decisions)


def _creating(ring: RingPlan) -> Waiting:
    return Waiting(kind="settling", text="the ring's job is being created", ring=ring.name)


def _joined(some: tuple[str, ...], more: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *more)))
