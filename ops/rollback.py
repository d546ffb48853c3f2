"""`rollback`: the release is taken back; exposed devices return to the last good one."""

from __future__ import annotations

import time
from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command, open_rings
from ops.errors import OpsError
from ops.render import describe_order
from ops.snapshot import take_snapshot
from ops.terminal import say
from ops.text import count_devices, describe_firmware, format_time
from rollout.gates import count_rollback_failures
from rollout.names import ROLLBACK
from rollout.observed import Observed
from rollout.orders import Order, Orders, RollbackOrder
from rollout.release import Firmware
from rollout.state import Candidate, State
from rollout.version import Version


def add_parser(commands: Subparsers) -> None:
    text = "Take the release back: exposed devices return to the last good one"
    parser = add_changing_command(
        commands, "rollback", text, lambda command, args: rollback(command, args.version)
    )
    only = "refuse unless it is this version that goes back"
    parser.add_argument("version", metavar="VERSION", nargs="?", type=Version, help=only)


def rollback(command: Command, version: Version | None) -> None:
    """Takes the candidate back; where none is being proved, the last good release, to the one
    before it. With a `version`, only if that is what goes back."""
    snapshot = take_snapshot(command.channel)
    state = command.require_state(snapshot, "rollback")
    firmware = state.candidate.firmware if state.candidate else state.last_good
    if firmware is None:
        raise OpsError("no release is proved, nor being proved: there is nothing to take back")
    if version and version != firmware.version:
        raise OpsError(f"what can be taken back is {describe_firmware(firmware)}, not {version}")
    if state.candidate:
        lines = _describe_candidate_return(command, state, state.candidate)
    else:
        lines = _describe_last_good_return(command, state, firmware, is_named=version is not None)
    lines.append(f"{firmware.version} with this digest is never offered again.")
    standing, sha256 = snapshot.orders.rollback, firmware.sha256
    if standing and standing.sha256 == sha256:
        order = describe_order(standing.order)
        say(f"This rollback is ordered already: {order}. Nothing was changed.")
        return
    if state.halt:
        halt, resume = state.halt.id, command.stack.command("resume")
        lines.append(f"The controller is halted ({halt}): devices go back after `{resume}`.")

    def change(now: Orders, order: Order) -> Orders:
        return replace(now, rollback=RollbackOrder(sha256=sha256, order=order))

    command.give_order(lines, change)


def _describe_candidate_return(command: Command, state: State, candidate: Candidate) -> list[str]:
    good, is_forbidden = state.last_good, candidate.manifest.rollback == "forbidden"
    open_offers = {ring: progress.offer for ring, progress in open_rings(candidate).items()}
    passed = {r: p.offer for r, p in candidate.rings.items() if r not in open_offers}
    counts = command.sum_counts(open_offers.items())
    queued, began = count_devices(counts.queued), count_devices(counts.began)
    release = describe_firmware(candidate.firmware)
    lines = [f"Takes back {release}: {queued} still queued will not get it."]
    if good is None or is_forbidden:
        forbidden = "its rollback is forbidden (rollout.rollback)"
        why = forbidden if good else "there is no last good release to go back to"
        lines += [
            f"DEVICES DO NOT GO BACK: {why}.",
            f"{began} that began it stay as they are, and the channel halts.",
        ]
        return lines
    lines += [
        f"{began} that began it, and no other, return to {describe_firmware(good)},",
        "at once, without gates or rate.",
    ]
    if passed:
        size = count_devices(command.sum_counts(passed.items()).size)
        lines.append(f"Rings that had passed return whole: {', '.join(passed)}, {size}.")
    return lines


def _describe_last_good_return(
    command: Command, state: State, good: Firmware, *, is_named: bool
) -> list[str]:
    """What taking back the last good release will do. Raises OpsError where the controller could
    not obey, or where it may not be meant."""
    running, previous, channel = state.rollback, state.previous_good, command.channel
    if running and running.done_at is None:
        rings = (ROLLBACK, *state.stable)
        jobs = channel.jobs.get_all(channel.names.job(r, running.offer.sequence) for r in rings)
        observed = Observed(jobs=jobs)
        if not count_rollback_failures(state, observed, channel.names, time.time()):
            to, since = running.offer.firmware.version, format_time(running.started_at)
            raise OpsError(f"a rollback to {to} is running already, since {since}")
    if previous is None:
        raise OpsError(
            f"no release is being proved, and the one before {good.version} is not known, so there"
            " is nothing to go back to: name the version you want in the stack file, with"
            " firmware.allowDowngrade, and deploy"
        )
    if command.is_agreed and not is_named:
        raise OpsError(
            f"no release is being proved: this would take back {good.version}, the last good one."
            f" With --yes, name it: `{command.stack.command(f'rollback {good.version} --yes')}`"
        )
    size = count_devices(command.sum_counts(state.stable.items()).size)
    return [
        f"Takes back the last good release {describe_firmware(good)}:",
        f"every ring, {size}, returns to {describe_firmware(previous)}, all at once,",
        "without gates or rate.",
        f"The stack file still names {good.version}: revert it, or release a higher version.",
    ]
