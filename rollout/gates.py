"""What a ring's gate says of what was seen: failed, waiting for something it names, or passed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rollout.names import ENROLLED_A_RUN, ROLLBACK, Names
from rollout.observed import Alarm, Counts, Job, Observed
from rollout.orders import is_approved
from rollout.release import AlarmGate, Gate, Manifest, RingPlan
from rollout.state import Offer, Progress, Rollback, State, Waiting

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


def find_failure(
    manifest: Manifest, ring: RingPlan, progress: Progress, job: Job, alarms: dict[str, Alarm]
) -> Failed | None:
    """Whether the ring has failed: IoT's own abort, too many failures, or an alarm that is set to
    roll back."""
    counts, limit = job.counts, ring.gate.failure_limit
    failures = (
        f"{counts.failed} failed and {counts.timed_out} timed out of {counts.finished} finished"
    )
    if job.is_aborted(manifest.abort):
        return Failed(f"IoT aborted the job of ring {ring.name}: {failures}")
    if counts.finished >= limit.minimum and counts.failing * 100 > limit.percent * counts.finished:
        return Failed(f"ring {ring.name}: {failures}, over the limit of {limit.percent:g} %")
    for gate in ring.gate.alarms:
        alarm = alarms.get(gate.name)
        if gate.action != "rollback" or alarm is None or alarm.state != "ALARM":
            continue
        if alarm.since > progress.started_at:
            return Failed(f"alarm {gate.name} went off after ring {ring.name} started")
    return None


def missing_evidence(
    gate: Gate, counts: Counts, *, is_settled: bool, is_overdue: bool, is_approved: bool
) -> Waiting | None:
    """What coverage, minimumSucceeded or success still lack; None when they hold. Decides where the
    soak begins.

    Past its deadline, onDeadline `advance` waives coverage. A named approval waives
    minimumSucceeded where the ring has fewer devices than that.
    """
    if not is_settled:
        return Waiting(kind="settling", text="the job is still rolling out")
    covered = counts.finished * 100 >= gate.coverage_percent * counts.size
    if not covered and not (is_overdue and gate.on_deadline == "advance"):
        text = f"{gate.coverage_percent:g} % of the ring's devices must have finished"
        return Waiting(kind="coverage", text=text)
    smallest = max(gate.minimum_succeeded, gate.failure_limit.minimum)
    is_small = counts.size < smallest
    if is_small and not is_approved:
        text = (
            f"the ring has fewer than {smallest} devices, too few to prove anything: it needs an"
            " approval"
        )
        return Waiting(kind="approval", text=text)
    if counts.succeeded < gate.minimum_succeeded and not is_small:
        text = f"at least {gate.minimum_succeeded} devices must have succeeded"
        return Waiting(kind="minimum-succeeded", text=text)
    if counts.succeeded * 100 < gate.success_percent * counts.began:
        text = f"{gate.success_percent:g} % of the devices that began must have succeeded"
        return Waiting(kind="success", text=text)
    return None


def find_alarm_not_ok(gates: Iterable[AlarmGate], alarms: dict[str, Alarm]) -> Waiting | None:
    """An alarm that is red, has no data, or cannot be read holds: silence is not health."""
    for gate in gates:
        alarm = alarms.get(gate.name)
        if alarm is None or alarm.state != "OK":
            state = f"is in {alarm.state}" if alarm else "is missing or unreadable"
            return Waiting(kind="alarms", text=f"alarm {gate.name} {state}")
    return None


def judge_ring(
    manifest: Manifest, ring: RingPlan, progress: Progress, job: Job, observed: Observed, now: float
) -> tuple[Progress, Failed | Passed | Waiting]:
    """The gate's word on a started ring, and the progress with its soak's beginning kept."""
    alarms = dict(observed.alarms)
    failed = find_failure(manifest, ring, progress, job, alarms)
    if failed:
        return progress, failed
    gate, has_approval = ring.gate, is_approved(manifest, observed.orders, ring.name)
    deadline = None
    if gate.deadline_minutes is not None:
        deadline = progress.started_at + gate.deadline_minutes * 60
    is_overdue = deadline is not None and now >= deadline
    lacking = missing_evidence(
        gate,
        job.counts,
        is_settled=job.settled,
        is_overdue=is_overdue,
        is_approved=has_approval,
    )
    if lacking:
        progress = replace(progress, healthy_since=None)
        if is_overdue and lacking.kind in ("coverage", "success", "minimum-succeeded", "settling"):
            text = f"the deadline has passed and still {lacking.text}"
            return progress, Waiting(kind="deadline", text=text, ring=ring.name, until=deadline)
        until = deadline if lacking.kind == "coverage" else None
        return progress, Waiting(kind=lacking.kind, text=lacking.text, ring=ring.name, until=until)
    since = now if progress.healthy_since is None else progress.healthy_since
    progress = replace(progress, healthy_since=since)
    soaked = since + gate.soak_minutes * 60
    if now < soaked:
        text = f"soaks for {gate.soak_minutes:g} minutes"
        return progress, Waiting(kind="soak", text=text, ring=ring.name, until=soaked)
    alarm_waiting = find_alarm_not_ok(gate.alarms, alarms)
    if alarm_waiting:
        return progress, replace(alarm_waiting, ring=ring.name)
    if gate.approval and not has_approval:
        text = f"a person must approve ring {ring.name}"
        return progress, Waiting(kind="approval", text=text, ring=ring.name)
    return progress, Passed()


def count_rollback_failures(state: State, observed: Observed, names: Names, now: float) -> int:
    """Devices that the rollback in progress could not bring back.

    In the rollback's own group a REJECTED counts too, unless the rollback was overtaken: whoever is
    in it was exposed and has to come back. So do, after ROLLBACK_PATIENCE, whoever has not
    answered (an exposed device was online when the release reached it), and whoever could not be
    put into the group.
    """
    if state.rollback is None or state.rollback.done_at is not None:
        return 0
    own = observed.jobs.get(names.job(ROLLBACK, state.rollback.offer.sequence))
    failing = sum(
        job.counts.failing for job in rollback_jobs(state.rollback, state.stable, observed, names)
    )
    since = state.rollback.started_at + ROLLBACK_PATIENCE
    # a run comes every minute, and places so many
    placed_by = since + 60 * (observed.enrolled + observed.unenrolled) / ENROLLED_A_RUN
    failing += observed.unenrolled if now >= placed_by else 0
    if own is None:
        return failing
    rejected = 0 if is_overtaken(state) else own.counts.rejected
    unanswered = own.counts.queued + own.counts.in_progress if now >= since else 0
    return failing + rejected + unanswered


def is_overtaken(state: State) -> bool:
    """Whether devices have been offered a release newer than the rollback: who took that first
    rightly rejects the rollback."""
    rings, rollback = state.candidate.rings if state.candidate else {}, state.rollback
    newer = rollback is not None and any(
        p.offer.sequence > rollback.offer.sequence for p in rings.values()
    )
    return bool(state.exposing_jobs) or newer


def rollback_jobs(
    rollback: Rollback, stable: dict[str, Offer], observed: Observed, names: Names
) -> list[Job]:
    """The jobs that carry the rollback: its own group's, and those of rings that go back whole."""
    sequence = rollback.offer.sequence
    rings = [ROLLBACK, *(ring for ring, offer in stable.items() if offer.sequence == sequence)]
    return [job for ring in rings if (job := observed.jobs.get(names.job(ring, sequence)))]
