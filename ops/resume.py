"""`resume`: ends a pause, a halt in control.json, and the controller's own halt."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command, open_offers
from ops.errors import OpsError
from ops.render import describe_order
from ops.snapshot import Snapshot, take_snapshot
from ops.terminal import say
from ops.text import describe_firmware, one_line
from rollout.names import OPERATOR_HALT
from rollout.orders import Order, Orders, ResumeOrder
from rollout.release import Manifest
from rollout.state import Candidate, RingPhase, State


def add_parser(commands: Subparsers) -> None:
    parser = add_changing_command(
        commands,
        "resume",
        "End a pause or a halt",
        lambda command, args: resume(command, replace_unreadable=args.replace),
    )
    text = "replace a control.json that cannot be read"
    parser.add_argument("--replace", action="store_true", help=text)


def resume(command: Command, *, replace_unreadable: bool) -> None:
    """Clears pause and halt in control.json, and names the controller's own halt."""
    snapshot = take_snapshot(command.channel)
    seen, problem, halt_id = snapshot.orders, snapshot.orders_file.problem, snapshot.halt_id
    if not replace_unreadable:
        command.check_readable(snapshot.orders_file)
    manifest, no_manifest = command.channel.manifest()
    notes = [
        f"The stack file still holds it: rollout.{name} is true there; set it to false and deploy."
        for name in ("paused", "halted")
        if manifest and getattr(manifest, name)
    ]
    lines = []
    if problem:
        lines += [
            f"Replaces control.json, which is unreadable ({one_line(problem)}):",
            "every order in it is lost, approvals too.",
        ]
    if seen.paused:
        lines.append(f"Ends the pause: {describe_order(seen.paused)}.")
    if seen.halted:
        lines.append(f"Ends the halt: {describe_order(seen.halted)}.")
    is_needed = bool(lines)
    if halt_id and seen.resume and seen.resume.halt == halt_id:
        order = describe_order(seen.resume.order)
        lines += [
            f"The end of halt {halt_id} is ordered already, {order};",
            "the controller has yet to run.",
        ]
    elif halt_id:
        is_needed = True
        lines += _describe_halt_end(snapshot, halt_id, manifest, no_manifest)
    if not is_needed:
        nothing = "There is nothing to resume: no pause, and no halt, the controller's own neither."
        say(*(lines or [nothing]), *notes)
        return
    if snapshot.state and snapshot.state.candidate:
        lines += _describe_going_on(command, snapshot.state, snapshot.state.candidate)

    def change(now: Orders, order: Order) -> Orders:
        if (now.paused, now.halted) != (seen.paused, seen.halted):
            raise OpsError(
                "somebody else paused, halted or resumed meanwhile: look again with `status`;"
                " nothing was changed"
            )
        ended = ResumeOrder(halt=halt_id, order=order)
        return replace(now, paused=None, halted=None, resume=ended)

    command.give_order([*lines, *notes], change, replace_unreadable=bool(problem))


def _describe_halt_end(
    snapshot: Snapshot, halt_id: str, manifest: Manifest | None, no_manifest: str | None
) -> list[str]:
    state, untrusted = snapshot.state, snapshot.untrusted
    if untrusted is None:
        why = one_line(state.halt.why) if state and state.halt else ""
        return [f"Ends the controller's halt {halt_id}: {why}."]
    then = f"nothing starts: {no_manifest}"
    if manifest:
        firmware, first = describe_firmware(manifest.firmware), manifest.rings[0].name
        then = f"{firmware} starts as new at ring {first}"
    return [
        f"Starts afresh, {halt_id}: {one_line(untrusted.why)}.",
        "The controller keeps what signed documents prove: the newest earlier state.json that can",
        "be believed, and the digests that ways back refuse. What it did after that it forgets.",
        f"Of the {len(snapshot.live_jobs)} live job(s) of the channel those that this does not",
        f"know are cancelled; what devices have begun goes on. Then {then}.",
    ]


def _describe_going_on(command: Command, state: State, candidate: Candidate) -> list[str]:
    """What happens to the candidate, ring by ring."""
    names, firmware = command.channel.names, describe_firmware(candidate.firmware)
    lines = [
        f"{firmware} is offered to ring {ring.name} again, under a new sequence."
        for ring in candidate.manifest.rings
        if state.ring_phase(ring.name) is RingPhase.WITHDRAWN
    ]
    for offer in open_offers(state):
        job = command.channel.jobs.get(names.job(offer.ring, offer.sequence))
        if job and not job.is_live:
            by = "by `ops halt`" if job.reason == OPERATOR_HALT else "by hand"
            resume = command.stack.command("resume")
            lines += [
                f"The job of ring {offer.ring} was cancelled {by}, which the controller has yet to",
                f"see: it will halt, and `{resume}` is needed once more.",
            ]
    return lines or [f"{firmware} goes on where it stands."]
