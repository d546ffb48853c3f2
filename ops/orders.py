"""Approve, roll back, retry: a person's word on the release that is out."""

from __future__ import annotations

import time
from dataclasses import replace

from ops.desk import Desk, counted, figures, told
from ops.errors import OpsError
from ops.words import clean, devices, named, when
from rollout.gates import overtaken, rollback_failing
from rollout.observed import Counts, Observed
from rollout.rings import RESERVED
from rollout.state import (
    ApprovalOrder,
    Candidate,
    Control,
    Offer,
    Order,
    RetryOrder,
    RollbackOrder,
    State,
    approved,
)


def approve(desk: Desk) -> int:
    """A person's word that a ring has proved the candidate."""
    seen = desk.look()
    state, ring = desk.state(seen, "approve"), str(desk.args.ring)
    candidate = state.candidate
    if candidate is None:
        raise OpsError(
            f"no release is being proved: there is nothing to approve ({clean(state.waiting.text)})"
        )
    plan, progress = candidate.manifest.ring(ring), candidate.rings.get(ring)
    if plan is None:
        rings = ", ".join(r.name for r in candidate.manifest.rings)
        raise OpsError(f"{candidate.firmware.version} has no ring {ring!r}; its rings are {rings}")
    if progress and progress.passed_at is not None:
        raise OpsError(
            f"ring {ring} has passed already, {when(progress.passed_at)}: there is nothing to"
            " approve"
        )
    if approved(candidate.manifest, seen.orders.control, ring):
        desk.terminal.say(
            f"Ring {ring} is approved for {named(candidate.firmware)} already. Nothing was changed."
        )
        return 0
    sha256 = candidate.firmware.sha256

    def change(control: Control, order: Order) -> Control:
        new = ApprovalOrder(ring=ring, sha256=sha256, order=order)
        others = tuple(a for a in control.approvals if (a.ring, a.sha256) != (ring, sha256))
        return replace(control, approvals=(*others, new))

    desk.order(_approving(desk, candidate, ring), change)
    return 0


def _approving(desk: Desk, candidate: Candidate, ring: str) -> list[str]:
    rings = [r.name for r in candidate.manifest.rings]
    plan, progress, following = (
        candidate.manifest.ring(ring),
        candidate.rings.get(ring),
        rings[rings.index(ring) + 1 :],
    )
    then = (
        f"ring {following[0]} may start"
        if following
        else f"{candidate.firmware.version} is the last good release"
    )
    lines = [
        f"Approves that ring {ring} has proved {named(candidate.firmware)},",
        f"sha256 {candidate.firmware.sha256}. Once the rest of its gate is met, {then}.",
    ]
    if progress:
        lines.append(f"Ring {ring} so far: {figures(counted(desk, [(ring, progress.offer)]))}.")
    else:
        lines.append(f"Ring {ring} has not started: the approval stands for when it has.")
    if plan and not plan.gate.approval:
        lines.append(
            "Its gate does not ask for an approval; one only waives the least number where the ring"
            " has too few devices."
        )
    return lines


def rollback(desk: Desk) -> int:
    """Takes the candidate back; where none is being proved, the last good release, to the one
    before it."""
    seen = desk.look()
    state = desk.state(seen, "rollback")
    firmware = state.candidate.firmware if state.candidate else state.last_good
    if desk.args.version and firmware and desk.args.version.removeprefix("v") != firmware.version:
        raise OpsError(f"what can be taken back is {named(firmware)}, not {desk.args.version}")
    lines, sha256 = _taking_back(desk, state)
    control = seen.orders.control
    if control.rollback and control.rollback.sha256 == sha256:
        desk.terminal.say(
            f"This rollback is ordered already: {told(control.rollback.order)}. Nothing was"
            " changed."
        )
        return 0
    if state.halt:
        lines.append(
            f"The controller is halted ({state.halt.id}): devices go back after"
            f" `{desk.stack.command('resume')}`."
        )

    def change(now: Control, order: Order) -> Control:
        return replace(now, rollback=RollbackOrder(sha256=sha256, order=order))

    desk.order(lines, change)
    return 0


def _taking_back(desk: Desk, state: State) -> tuple[list[str], str]:
    """What the rollback will do, and the digest to order it with. Raises OpsError where the
    controller could not obey."""
    candidate, good, previous = state.candidate, state.last_good, state.previous_good
    if candidate:
        open_rings = [(ring, p.offer) for ring, p in candidate.rings.items() if p.passed_at is None]
        passed = [ring for ring, p in candidate.rings.items() if p.passed_at is not None]
        return (
            _candidate_back(desk, state, candidate, counted(desk, open_rings), passed),
            candidate.firmware.sha256,
        )
    if good is None:
        raise OpsError(
            "no release is being proved and there is no last good one: there is nothing to take"
            " back"
        )
    running = state.rollback if state.rollback and state.rollback.done_at is None else None
    if running and not _failing(desk, state):
        raise OpsError(
            f"a rollback to {running.offer.firmware.version} is running already, since"
            f" {when(running.started_at)}"
        )
    if previous is None:
        raise OpsError(
            f"no release is being proved, and the one before {good.version} is not known, so there"
            " is nothing to go back to: name the version you want in the stack file, with"
            " firmware.allowDowngrade, and deploy"
        )
    if desk.args.yes and desk.args.version is None:
        raise OpsError(
            f"no release is being proved: this would take back {good.version}, the last good one."
            f" With --yes, name it: `{desk.stack.command(f'rollback {good.version} --yes')}`"
        )
    counts = counted(desk, state.stable.items())
    lines = [
        (
            f"Takes back the last good release {named(good)}: every ring, {devices(counts.size)},"
            f" returns to {named(previous)},"
        ),
        "all at once, without gates or rate.",
        f"{good.version} with this digest is refused from then on: it is never offered again.",
        f"The stack file still names {good.version}: revert it, or release a higher version.",
    ]
    return lines, good.sha256


def _failing(desk: Desk, state: State) -> int:
    """Devices that the running rollback could not bring back."""
    rollback, names = state.rollback, desk.channel.names
    if rollback is None:
        return 0
    jobs = desk.channel.jobs(
        names.job(ring, rollback.offer.sequence) for ring in (RESERVED, *state.stable)
    )
    return rollback_failing(state, Observed(jobs=jobs), names, time.time())


def _candidate_back(
    desk: Desk, state: State, candidate: Candidate, counts: Counts, passed: list[str]
) -> list[str]:
    version, good = candidate.firmware.version, state.last_good
    lines = [
        f"Takes back {named(candidate.firmware)}: {devices(counts.queued)} still queued will not"
        " get it."
    ]
    if good is None or candidate.manifest.rollback == "forbidden":
        why = (
            "its rollback is forbidden (rollout.rollback)"
            if good
            else "there is no last good release to go back to"
        )
        lines.append(
            f"DEVICES DO NOT GO BACK: {why}. {devices(counts.exposed)} that began it stay as they"
            " are, and the channel halts."
        )
    else:
        lines.append(
            f"{devices(counts.exposed)} that began it, and no other, return to {named(good)}, at"
            " once, without gates or rate."
        )
        if passed:
            whole = counted(desk, [(ring, candidate.rings[ring].offer) for ring in passed])
            lines.append(
                f"Rings that had passed return whole: {', '.join(passed)}, {devices(whole.size)}."
            )
    lines.append(f"{version} with this digest is refused from then on: it is never offered again.")
    return lines


def retry(desk: Desk) -> int:
    """Offers a ring, or the rollback, what it was offered, under a new sequence."""
    seen = desk.look()
    state, ring = desk.state(seen, "retry"), str(desk.args.ring)
    offer, lines = _retrying(desk, state, ring)
    if seen.orders.control.halted or state.halt:
        lines.append(f"The channel is halted: it happens after `{desk.stack.command('resume')}`.")

    def change(control: Control, order: Order) -> Control:
        return replace(control, retry=RetryOrder(ring=ring, sequence=offer.sequence, order=order))

    desk.order(lines, change)
    return 0


def _retrying(desk: Desk, state: State, ring: str) -> tuple[Offer, list[str]]:
    if ring == RESERVED:
        back = state.rollback
        if back is None or back.done_at is not None:
            over = f"; the last one ended {when(back.done_at)}" if back and back.done_at else ""
            raise OpsError(f"no rollback is running{over}: there is nothing to retry")
        if overtaken(state):
            raise OpsError(
                "a newer release than this rollback has been offered, and the devices that are"
                " still to come back get that: to bring them back instead, name the last good"
                " release in the stack file again (git revert) and deploy"
            )
        counts = counted(desk, [(RESERVED, back.offer)])
        return back.offer, [
            (
                f"Offers the rollback to {named(back.offer.firmware)} again, to every exposed"
                " device, under a new sequence."
            ),
            f"So far: {figures(counts)}. A device that is back already answers SUCCEEDED at once.",
        ]
    candidate = state.candidate
    if candidate is None:
        raise OpsError(
            "no release is being proved: there is no ring to retry (`retry rollback` is for a"
            " rollback)"
        )
    progress = candidate.rings.get(ring)
    if progress is None:
        started = ", ".join(candidate.rings) or "none"
        raise OpsError(
            f"ring {ring!r} has not started {candidate.firmware.version}; started are: {started}"
        )
    if progress.passed_at is not None:
        raise OpsError(
            f"ring {ring} has passed already, {when(progress.passed_at)}: there is nothing to retry"
        )
    return progress.offer, [
        (
            f"Offers {named(candidate.firmware)} to ring {ring} again, under a new sequence; the"
            " present job is cancelled."
        ),
        (
            f"So far: {figures(counted(desk, [(ring, progress.offer)]))}. Counts, soak and deadline"
            " begin anew;"
        ),
        "devices that failed try again, devices that run it already answer SUCCEEDED at once.",
    ]
