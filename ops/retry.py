"""`retry`: a ring, or the rollback, is offered the same again."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.render import describe_counts
from ops.snapshot import take_snapshot
from ops.text import describe_firmware, format_time
from rollout.go_back import is_overtaken
from rollout.names import ROLLBACK
from rollout.orders import Order, Orders, RetryOrder
from rollout.state import Offer, Phase, State


def add_parser(commands: Subparsers) -> None:
    text = "Offer a ring, or the rollback, the same again"
    parser = add_changing_command(commands, "retry", text, lambda c, args: retry(c, args.ring))
    parser.add_argument("ring", metavar="RING|rollback")


def retry(command: Command, ring: str) -> None:
    """Offers the ring (or `rollback`) what it was offered, under a new sequence."""
    snapshot = take_snapshot(command.channel)
    state = command.require_state(snapshot, "retry")
    offer = _way_back_offer(state) if ring == ROLLBACK else _ring_offer(state, ring)
    firmware = describe_firmware(offer.firmware)
    so_far = describe_counts(command.count(offer))
    if ring == ROLLBACK:
        lines = [
            f"Offers the rollback to {firmware} to every exposed device again: a new sequence.",
            f"So far: {so_far}. A device that is back already answers SUCCEEDED at once.",
        ]
    elif offer.aim == "keep":
        lines = [
            f"Offers the last good {firmware} to ring {ring} again, under a new sequence;",
            f"the present job is cancelled. So far: {so_far}.",
            "Devices that failed try again, devices that run it already answer SUCCEEDED at once.",
        ]
    else:
        lines = [
            f"Offers {firmware} to ring {ring} again, under a new sequence;",
            f"the present job is cancelled. So far: {so_far}.",
            "Counts, soak and deadline begin anew; devices that failed try again,",
            "devices that run it already answer SUCCEEDED at once.",
        ]
    if ring != ROLLBACK and (snapshot.orders.halted or state.halt):
        resume = command.stack.command("resume")
        lines.append(f"The channel is halted: it happens after `{resume}`.")

    def change(now: Orders, order: Order) -> Orders:
        return replace(now, retry=RetryOrder(ring=ring, sequence=offer.sequence, order=order))

    command.give_order(lines, change)


def _way_back_offer(state: State) -> Offer:
    """The open way back's. Raises OpsError where there is none that can be offered again."""
    back, offer = state.way_back, state.returning()
    if back is None:
        raise OpsError("no rollback is running: there is nothing to retry")
    if back.done_at is not None:
        ended = format_time(back.done_at)
        raise OpsError(f"no rollback is running; the last one ended {ended}: nothing to retry")
    if offer is None:
        raise OpsError("the rollback's job is not there yet: look again in a minute")
    if is_overtaken(state, offer):
        raise OpsError(
            "a newer release than this rollback has been offered, and devices still to come back"
            " get that. To bring them back instead, name the last good release in the stack file"
            " again (git revert) and deploy"
        )
    return offer


def _ring_offer(state: State, ring: str) -> Offer:
    """The candidate's, else the last good release's. Raises OpsError where the ring has none that
    can be made again."""
    candidate, proof, kept = state.candidate, state.proof(ring), state.kept(ring)
    if proof is None and kept:
        return kept
    if candidate is None:
        raise OpsError(
            f"no release is being proved, and none is offered to a ring {ring!r}: there is nothing"
            " to retry (a rollback: `retry rollback`)"
        )
    if proof is None:
        version = candidate.firmware.version
        started = ", ".join(offer.ring for offer in state.wanted("prove")) or "none"
        raise OpsError(f"ring {ring!r} has not started {version}; started are: {started}")
    if proof.phase is Phase.PASSED:
        passed = f", {format_time(proof.passed_at)}" if proof.passed_at else ""
        raise OpsError(f"ring {ring} has passed already{passed}: there is nothing to retry")
    if proof.phase is Phase.MAKING:
        raise OpsError(f"the job of ring {ring} is being made: look again in a minute")
    return proof
