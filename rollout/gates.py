"""What a ring's gate says of what was seen: failed, waiting for something it names, or passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rollout.observed import Alarm, Counts, Job, Observed
from rollout.release import AlarmGate, Gate, Manifest, RingPlan
from rollout.rings import RESERVED
from rollout.state import Names, Offer, Progress, Rollback, State, Waiting, approved

ROLLBACK_PATIENCE = 3600.0
"""Seconds after which an exposed device that does not take the way back is said to be lost, not
late."""


@dataclass(frozen=True)
class Failed:
    """The ring shows that the release is bad."""

    why: str


@dataclass(frozen=True)
class Passed:
    """The ring has proved the release."""


def failure(
    manifest: Manifest, ring: RingPlan, progress: Progress, job: Job, alarms: dict[str, Alarm]
) -> Failed | None:
    """Whether the ring has failed: IoT's own abort, too many failures, or an alarm that is set to
    roll back."""
    counts, limit = job.counts, ring.gate.failure_limit
    if job.aborted(manifest.abort):
        return Failed(f"IoT aborted the job of ring {ring.name}: {_failing(counts)}")
    if counts.finished >= limit.minimum and counts.failing * 100 > limit.percent * counts.finished:
        return Failed(
            f"ring {ring.name}: {_failing(counts)}, over the limit of {limit.percent:g} %"
        )
    for gate in ring.gate.alarms:
        alarm = alarms.get(gate.name)
        if (
            gate.action == "rollback"
            and alarm
            and alarm.state == "ALARM"
            and alarm.since > progress.started_at
        ):
            return Failed(f"alarm {gate.name} went off after ring {ring.name} started")
    return None


def _failing(counts: Counts) -> str:
    return f"{counts.failed} failed and {counts.timed_out} timed out of {counts.finished} finished"


def healthy(
    gate: Gate, counts: Counts, settled: bool, overdue: bool, waived: bool
) -> Waiting | None:
    """What coverage, least number or success still lack; None when they hold. Decides where the
    soak begins.

    `overdue` with on_deadline `advance` waives coverage; `waived` (a named approval) waives the
    least number.
    """
    if not settled:
        return Waiting(kind="settling", text="the job is still rolling out")
    if counts.finished * 100 < gate.coverage_percent * counts.size and not (
        overdue and gate.on_deadline == "advance"
    ):
        return Waiting(
            kind="coverage",
            text=f"{gate.coverage_percent:g} % of the ring's devices must have finished",
        )
    if counts.size < _least(gate) and not waived:
        text = (
            f"the ring has fewer than {_least(gate)} devices, too few to prove anything: it needs"
            " an approval"
        )
        return Waiting(kind="approval", text=text)
    if counts.succeeded < gate.minimum_succeeded and not (waived and counts.size < _least(gate)):
        return Waiting(
            kind="least-number",
            text=f"at least {gate.minimum_succeeded} devices must have succeeded",
        )
    if counts.succeeded * 100 < gate.success_percent * counts.exposed:
        return Waiting(
            kind="success",
            text=f"{gate.success_percent:g} % of the devices that began must have succeeded",
        )
    return None


def _least(gate: Gate) -> int:
    return max(gate.minimum_succeeded, gate.failure_limit.minimum)


def alarms_quiet(gates: Iterable[AlarmGate], alarms: dict[str, Alarm]) -> Waiting | None:
    """An alarm that is red, has no data, or cannot be read holds: silence is not health."""
    for gate in gates:
        alarm = alarms.get(gate.name)
        if alarm is None or alarm.state != "OK":
            state = f"is in {alarm.state}" if alarm else "is missing or unreadable"
            return Waiting(kind="alarms", text=f"alarm {gate.name} {state}")
    return None


def judge(
    manifest: Manifest, ring: RingPlan, progress: Progress, job: Job, observed: Observed, now: float
) -> tuple[Progress, Failed | Passed | Waiting]:
    """The gate's word on a started ring, and the progress with its soak's beginning kept."""
    alarms = dict(observed.alarms)
    failed = failure(manifest, ring, progress, job, alarms)
    if failed:
        return progress, failed
    gate, granted = ring.gate, approved(manifest, observed.control, ring.name)
    deadline = (
        None if gate.deadline_minutes is None else progress.started_at + gate.deadline_minutes * 60
    )
    overdue = deadline is not None and now >= deadline
    lacking = healthy(gate, job.counts, job.settled, overdue, granted)
    if lacking:
        progress = replace(progress, healthy_since=None)
        if overdue and lacking.kind in ("coverage", "success", "least-number", "settling"):
            text = f"the deadline has passed and still {lacking.text}"
            return progress, Waiting(kind="deadline", text=text, ring=ring.name, until=deadline)
        until = deadline if lacking.kind == "coverage" else None
        return progress, Waiting(kind=lacking.kind, text=lacking.text, ring=ring.name, until=until)
    progress = replace(
        progress, healthy_since=now if progress.healthy_since is None else progress.healthy_since
    )
    return progress, _last_words(ring, progress, granted, alarms, now)


def _last_words(
    ring: RingPlan, progress: Progress, granted: bool, alarms: dict[str, Alarm], now: float
) -> Passed | Waiting:
    gate = ring.gate
    soaked = (progress.healthy_since or now) + gate.soak_minutes * 60
    if now < soaked:
        return Waiting(
            kind="soak",
            text=f"soaks for {gate.soak_minutes:g} minutes",
            ring=ring.name,
            until=soaked,
        )
    loud = alarms_quiet(gate.alarms, alarms)
    if loud:
        return Waiting(kind="alarms", text=loud.text, ring=ring.name)
    if gate.approval and not granted:
        return Waiting(
            kind="approval", text=f"a person must approve ring {ring.name}", ring=ring.name
        )
    return Passed()


def rollback_failing(state: State, observed: Observed, names: Names, now: float) -> int:
    """Devices that the rollback in progress could not bring back.

    In the rollback's own group a REJECTED counts too, unless the rollback was overtaken: whoever is
    in it was exposed and has to come back. So does, after ROLLBACK_PATIENCE, whoever has not
    answered: an exposed device was online when the release reached it.
    """
    if state.rollback is None or state.rollback.done_at is not None:
        return 0
    own = observed.jobs.get(names.job(RESERVED, state.rollback.offer.sequence))
    failing = sum(
        job.counts.failing for job in way_back(state.rollback, state.stable, observed, names)
    )
    if own is None:
        return failing
    overdue = now >= state.rollback.started_at + ROLLBACK_PATIENCE
    rejected = 0 if overtaken(state) else own.counts.rejected
    return failing + rejected + (own.counts.queued + own.counts.in_progress if overdue else 0)


def overtaken(state: State) -> bool:
    """Whether devices have been offered a release newer than the rollback: who took that first
    rightly rejects the rollback."""
    rings, rollback = state.candidate.rings if state.candidate else {}, state.rollback
    newer = rollback is not None and any(
        p.offer.sequence > rollback.offer.sequence for p in rings.values()
    )
    return bool(state.exposing) or newer


def way_back(
    rollback: Rollback, stable: dict[str, Offer], observed: Observed, names: Names
) -> list[Job]:
    """The jobs that carry the rollback: its own group's, and those of rings that go back whole."""
    sequence = rollback.offer.sequence
    rings = [RESERVED, *(ring for ring, offer in stable.items() if offer.sequence == sequence)]
    return [job for ring in rings if (job := observed.jobs.get(names.job(ring, sequence)))]
