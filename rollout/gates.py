"""What a ring's gate says of what was seen: failed, waiting for something it names, or passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Literal

from rollout.evidence import is_failing, smallest_failing
from rollout.names import PLACED_A_MINUTE
from rollout.observed import Alarm, Counts, Job, Returning
from rollout.release import FailureLimit, Gate, RingPlan
from rollout.state import Offer
from rollout.waiting import Waiting

ROLLBACK_PATIENCE = 3600.0
"""Seconds after which an exposed device that does not take the way back is said to be lost, not
late."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a ring beside what its gate asks of it. All are numbers of devices."""

    name: Literal["failing", "coverage", "minimum-succeeded", "success"]
    have: int
    out_of: int
    needed: int | None
    """The least number at which the rule bites: for `failing` the ring fails, for the others it
    holds. None where no number would be enough."""

    @property
    def is_reached(self) -> bool:
        return self.needed is not None and self.have >= self.needed


@dataclass(frozen=True)
class Passed:
    """The ring has proved the release."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a ring's gate looks at besides the counts of its job."""

    alarms: Mapping[str, Alarm]
    is_approved: bool
    """A person's word on this image in this ring."""
    is_approved_empty: bool
    """Their word on the ring without devices."""
    is_fleet_empty: bool
    """No ring has a device yet."""
    now: float


def measure(gate: Gate, counts: Counts, *, limit: FailureLimit | None = None) -> list[Measure]:
    """The ring's figures beside what its gate asks of them. Shares are compared exactly."""
    return [
        Measure(
            name="failing",
            have=counts.failing,
            out_of=counts.began,
            needed=smallest_failing(limit or gate.failure_limit, counts.began),
        ),
        Measure(
            name="coverage",
            have=counts.finished,
            out_of=counts.size,
            needed=_share(gate.coverage_percent, counts.size),
        ),
        Measure(
            name="minimum-succeeded",
            have=counts.succeeded,
            out_of=counts.size,
            needed=gate.minimum_succeeded,
        ),
        Measure(
            name="success",
            have=counts.succeeded,
            out_of=counts.began,
            needed=_share(gate.success_percent, counts.began),
        ),
    ]


def _share(percent: float, whole: int) -> int:
    """The least number that is at least so many percent of the whole; 2.3 % of 3,000 is 69."""
    return ceil(Fraction(str(percent)) * whole / 100)


def is_out_of_reach(gate: Gate, counts: Counts) -> bool:
    """Whether the ring cannot pass any more, even if every device that has yet to answer
    succeeds."""
    best = counts.succeeded + counts.open
    is_small = counts.size < gate.minimum_succeeded
    return best < _share(gate.success_percent, counts.size) or (
        best < gate.minimum_succeeded and not is_small
    )


def find_failure(limit: FailureLimit, counts: Counts, *, is_abrupt: bool = False) -> str | None:
    """What shows that a release is bad: that so many of the devices that began failed or timed out
    is evidence against every share up to the limit.

    A job that ended abruptly counts what had begun among its CANCELED, so all of these count as
    devices that did not fail.
    """
    began = counts.began + (counts.canceled if is_abrupt else 0)
    if not is_failing(limit, began, counts.failing):
        return None
    found = f"{counts.failed} failed and {counts.timed_out} timed out of {began} that began"
    if is_failing(replace(limit, devices=None), began, counts.failing):
        return f"{found}, more than a limit of {limit.percent:g} % explains"
    return f"{found}, and it stops at {limit.devices}"


def find_red_alarm(ring: RingPlan, alarms: Mapping[str, Alarm], since: float) -> str | None:
    """An alarm that is set to roll back, and that went off after the ring had started."""
    for gate in ring.gate.alarms:
        alarm = alarms.get(gate.name)
        is_red = gate.action == "rollback" and alarm is not None and alarm.state == "ALARM"
        if is_red and alarm is not None and alarm.since > since:
            return f"alarm {gate.name} went off after ring {ring.name} started"
    return None


def missing_evidence(
    gate: Gate, counts: Counts, seen: Seen, *, is_settled: bool, is_overdue: bool
) -> Waiting | None:
    """What the ring's devices still lack; None when they hold. Decides where the soak begins.

    Past its deadline, onDeadline `advance` waives coverage. A named approval waives
    minimumSucceeded where the ring has fewer devices than that; a ring without devices needs a word
    on just that.
    """
    if not is_settled:
        return Waiting(kind="settling", text="the job is still rolling out")
    if not counts.size:
        return None if seen.is_approved_empty else _empty_ring(seen)
    if is_out_of_reach(gate, counts):
        text = (
            f"the ring cannot pass any more: {counts.succeeded} devices succeeded,"
            f" {counts.failing} failed or timed out and {counts.open} have yet to answer"
        )
        return Waiting(kind="stuck", text=text)
    lacking = {one.name: one for one in measure(gate, counts) if not one.is_reached}
    if "coverage" in lacking and not (is_overdue and gate.on_deadline == "advance"):
        text = (
            f"{lacking['coverage'].needed} of the ring's {counts.size} devices"
            f" ({gate.coverage_percent:g} %) must have finished, {counts.finished} have"
        )
        return Waiting(kind="coverage", text=text)
    is_small = counts.size < gate.minimum_succeeded
    if is_small and not seen.is_approved:
        text = (
            f"the ring has fewer than {gate.minimum_succeeded} devices, too few to prove anything:"
            " it needs an approval"
        )
        return Waiting(kind="approval", text=text)
    if "minimum-succeeded" in lacking and not is_small:
        text = f"at least {gate.minimum_succeeded} devices must have succeeded"
        return Waiting(kind="minimum-succeeded", text=text)
    if "success" in lacking:
        text = (
            f"{lacking['success'].needed} of the {counts.began} devices that began"
            f" ({gate.success_percent:g} %) must have succeeded, {counts.succeeded} have"
        )
        return Waiting(kind="success", text=text)
    return None


def _empty_ring(seen: Seen) -> Waiting:
    if seen.is_fleet_empty:
        return Waiting(kind="no-devices", text="the ring has no devices yet")
    text = "the ring has no devices, so it cannot prove anything: it needs an approval"
    return Waiting(kind="approval", text=text)


def find_alarm_not_ok(ring: RingPlan, alarms: Mapping[str, Alarm]) -> Waiting | None:
    """An alarm that is red, has no data, or cannot be read holds: silence is not health."""
    for gate in ring.gate.alarms:
        alarm = alarms.get(gate.name)
        if alarm is None or alarm.state != "OK":
            state = f"is in {alarm.state}" if alarm else "is missing or unreadable"
            return Waiting(kind="alarms", text=f"alarm {gate.name} {state}", ring=ring.name)
    return None


def find_deadline(gate: Gate, offer: Offer) -> float | None:
    """When a ring's deadline comes (seconds since 1970); None where its gate has none."""
    if gate.deadline_minutes is None:
        return None
    return offer.made_at + gate.deadline_minutes * 60


def find_soak_end(gate: Gate, healthy_since: float) -> float:
    """When a ring has stayed healthy for long enough (seconds since 1970)."""
    return healthy_since + gate.soak_minutes * 60


def judge_ring(
    ring: RingPlan, offer: Offer, job: Job, seen: Seen
) -> tuple[float | None, Passed | Waiting]:
    """Whether a ring that has not failed has proved the release, and since when its figures
    hold."""
    gate, now = ring.gate, seen.now
    deadline = find_deadline(gate, offer)
    is_overdue = deadline is not None and now >= deadline
    lacking = missing_evidence(
        gate, job.counts, seen, is_settled=job.settled, is_overdue=is_overdue
    )
    if lacking:
        if is_overdue and lacking.kind in ("coverage", "success", "minimum-succeeded", "settling"):
            text = f"the deadline has passed and still {lacking.text}"
            return None, Waiting(kind="deadline", text=text, ring=ring.name, until=deadline)
        until = deadline if lacking.kind == "coverage" else None
        return None, Waiting(kind=lacking.kind, text=lacking.text, ring=ring.name, until=until)
    since = now if offer.healthy_since is None else offer.healthy_since
    soaked = find_soak_end(gate, since)
    if now < soaked:
        text = f"soaks for {gate.soak_minutes:g} minutes"
        return since, Waiting(kind="soak", text=text, ring=ring.name, until=soaked)
    alarm_waiting = find_alarm_not_ok(ring, seen.alarms)
    if alarm_waiting:
        return since, alarm_waiting
    if gate.approval and not seen.is_approved:
        text = f"a person must approve ring {ring.name}"
        return since, Waiting(kind="approval", text=text, ring=ring.name)
    return since, Passed()


# The way back


def find_patience_end(started_at: float, exposed: int) -> float:
    """When whoever of so many devices has not returned is lost, not late (seconds since 1970):
    PLACED_A_MINUTE are put into the group at a time."""
    return started_at + ROLLBACK_PATIENCE + 60 * exposed / PLACED_A_MINUTE


def count_not_back(
    returning: Returning, counts: Counts, *, started_at: float, is_overtaken: bool, now: float
) -> int:
    """Devices that a way back could not bring back so far.

    Those that AWS would not have in its group, and whoever failed, timed out or answered REJECTED
    (unless a newer release overtook it): whoever is in the group was exposed and has to come back.
    After `find_patience_end` also whoever has not answered (an exposed device was online when the
    release reached it), or is not in the group yet; and one for those whom nobody can name.
    """
    answered_badly = counts.failing + (0 if is_overtaken else counts.rejected)
    found = returning.refused + max(0, answered_badly - returning.open_waived)
    if now >= find_patience_end(started_at, returning.exposed):
        found += max(0, counts.open - max(0, returning.open_waived - answered_badly))
        found += returning.unplaced + (1 if returning.is_unknown else 0)
    return found
