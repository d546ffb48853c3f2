"""`approve`: a person's word that a ring has proved the release."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.render import describe_counts
from ops.snapshot import take_snapshot
from ops.terminal import say
from ops.text import describe_firmware, format_time, one_line
from rollout.orders import ApprovalOrder, Order, Orders, is_approved
from rollout.release import RingPlan
from rollout.state import Candidate


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
    firmware = candidate.firmware
    plan, progress = candidate.manifest.ring(ring), candidate.rings.get(ring)
    if plan is None:
        rings = ", ".join(r.name for r in candidate.manifest.rings)
        raise OpsError(f"{firmware.version} has no ring {ring!r}; its rings are {rings}")
    if progress and progress.passed_at is not None:
        passed = format_time(progress.passed_at)
        raise OpsError(f"ring {ring} has passed already, {passed}: there is nothing to approve")
    if is_approved(candidate.manifest, snapshot.orders, ring):
        release = describe_firmware(firmware)
        say(f"Ring {ring} is approved for {release} already. Nothing was changed.")
        return

    def change(now: Orders, order: Order) -> Orders:
        new = ApprovalOrder(ring=ring, sha256=firmware.sha256, order=order)
        others = (a for a in now.approvals if (a.ring, a.sha256) != (ring, firmware.sha256))
        return replace(now, approvals=(*others, new))

    command.give_order(_describe_approval(command, candidate, plan), change)


def _describe_approval(command: Command, candidate: Candidate, plan: RingPlan) -> list[str]:
    rings, ring, firmware = candidate.manifest.rings, plan.name, candidate.firmware
    after = rings[rings.index(plan) + 1 :]
    last = f"{firmware.version} is the last good release"
    then = f"ring {after[0].name} may start" if after else last
    lines = [
        f"Approves that ring {ring} has proved {describe_firmware(firmware)},",
        f"sha256 {firmware.sha256}. Once the rest of its gate is met, {then}.",
    ]
    progress = candidate.rings.get(ring)
    if progress:
        counts = command.sum_counts([(ring, progress.offer)])
        lines.append(f"Ring {ring} so far: {describe_counts(counts)}.")
    else:
        lines.append(f"Ring {ring} has not started: the approval stands for when it has.")
    if not plan.gate.approval:
        waives = "one only waives minimumSucceeded where the ring has too few devices"
        lines.append(f"Its gate does not ask for an approval; {waives}.")
    return lines
