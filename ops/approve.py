"""`approve`: a person's word that a ring has proved the release."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.render import describe_counts
from ops.snapshot import take_snapshot
from ops.terminal import say
from ops.text import count_devices, describe_firmware, format_time, one_line
from rollout.names import KEPT_APPROVALS
from rollout.observed import Job
from rollout.orders import ApprovalOrder, Order, Orders, is_approved
from rollout.release import RingPlan
from rollout.state import Candidate, Phase


def add_parser(commands: Subparsers) -> None:
    text = "Say that a ring has proved the release"
    parser = add_changing_command(commands, "approve", text, lambda c, args: approve(c, args.ring))
    parser.add_argument("ring", metavar="RING")


def approve(command: Command, ring: str) -> None:
    """Orders that the ring has proved the candidate's very image."""
    snapshot = take_snapshot(command.channel)
    state = command.require_state(snapshot, "approve")
    candidate = state.candidate
    if candidate is None:
        why = one_line(state.waiting.text)
        raise OpsError(f"no release is being proved: there is nothing to approve ({why})")
    firmware, plan = candidate.firmware, candidate.manifest.ring(ring)
    if plan is None:
        rings = ", ".join(r.name for r in candidate.manifest.rings)
        raise OpsError(f"{firmware.version} has no ring {ring!r}; its rings are {rings}")
    offer = state.proof(ring)
    if offer and offer.phase is Phase.PASSED:
        at = f", {format_time(offer.passed_at)}" if offer.passed_at else ""
        raise OpsError(f"ring {ring} has passed already{at}: there is nothing to approve")
    job = (
        command.channel.jobs.get(command.channel.names.job(ring, offer.sequence)) if offer else None
    )
    size = job.counts.size if job and job.settled else None
    is_given = is_approved(candidate.manifest, snapshot.orders, ring)
    # a ring without devices needs a word on just that
    if is_given and (size or is_approved(candidate.manifest, snapshot.orders, ring, size=size)):
        release = describe_firmware(firmware)
        say(f"Ring {ring} is approved for {release} already. Nothing was changed.")
        return

    def change(now: Orders, order: Order) -> Orders:
        new = ApprovalOrder(ring=ring, sha256=firmware.sha256, order=order, size=size)
        others = (a for a in now.approvals if (a.ring, a.sha256) != (ring, firmware.sha256))
        return replace(now, approvals=(*others, new)[-KEPT_APPROVALS:])

    command.give_order(_describe_approval(candidate, plan, job), change)


def _describe_approval(candidate: Candidate, plan: RingPlan, job: Job | None) -> list[str]:
    rings, ring, firmware = candidate.manifest.rings, plan.name, candidate.firmware
    after = rings[rings.index(plan) + 1 :]
    last = f"{firmware.version} is the last good release"
    then = f"ring {after[0].name} may start" if after else last
    lines = [
        f"Approves that ring {ring} has proved {describe_firmware(firmware)},",
        f"sha256 {firmware.sha256}. Once the rest of its gate is met, {then}.",
    ]
    if job is None:
        lines.append(f"Ring {ring} has not started: the approval stands for when it has.")
    elif job.settled and not job.counts.size:
        lines.append(f"RING {ring} HAS NO DEVICES: it proves nothing but your word.")
    else:
        size = count_devices(job.counts.size)
        lines.append(f"Ring {ring} so far: {describe_counts(job.counts)}; {size} in all.")
    if not plan.gate.approval:
        waives = "one only waives minimumSucceeded where the ring has too few devices"
        lines.append(f"Its gate does not ask for an approval; {waives}.")
    return lines
