"""`rollback`: the release is taken back; exposed devices return to the last good one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command, open_offers
from ops.errors import OpsError
from ops.exposures import began, look_back, own_job, report_exposures
from ops.rehearsal import begin_run, rehearse
from ops.render import describe_exposure
from ops.snapshot import Snapshot, take_snapshot
from ops.text import count_devices, describe_firmware, format_time
from rollout.go_back import count_left_behind
from rollout.ledger import known_versions
from rollout.orders import Order, Orders, RollbackOrder
from rollout.release import Firmware, Manifest
from rollout.state import Candidate, Offer, Phase, State
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
    before it. With a `version`, only that: also one that was dropped, or has yet to start."""
    snapshot = take_snapshot(command.channel)
    state = command.require_state(snapshot, "rollback")
    manifest, _ = command.channel.manifest()
    sha256, known = _choose_release(state, manifest, version)
    standing = snapshot.orders.rollback
    is_same = standing is not None and standing.sha256 == sha256
    if (
        standing
        and is_same
        and command.is_pending(state, Orders(rollback=standing), standing.order)
    ):
        return
    _check_obeyed(command, state, manifest, sha256)
    candidate, good = state.candidate, state.last_good
    if candidate and candidate.firmware.sha256 == sha256:
        lines = list(_describe_candidate_return(command, state, candidate))
    elif good and good.sha256 == sha256:
        lines = _describe_last_good_return(command, state, good, is_named=version is not None)
    else:
        lines = list(_describe_refusal(command, snapshot, state, manifest, sha256))
    lines.append(f"{known} with this digest is never offered again.")
    if state.halt:
        resume = command.stack.command("resume")
        lines.append(f"The controller is halted ({state.halt.id}), and stays so until `{resume}`;")
        lines.append("devices go back all the same.")

    def change(now: Orders, order: Order) -> Orders:
        return replace(now, rollback=RollbackOrder(sha256=sha256, order=order))

    command.give_order(lines, change)


def _choose_release(
    state: State, manifest: Manifest | None, version: Version | None
) -> tuple[str, Version]:
    """Digest and version of what is to go. Raises OpsError where it cannot."""
    firmware = state.candidate.firmware if state.candidate else state.last_good
    named = version or (firmware.version if firmware else None)
    if named is None:
        raise OpsError("no release is proved, nor being proved: there is nothing to take back")
    out = [f for f in (firmware, state.last_good, manifest and manifest.firmware) if f]
    found = {f.version: f.sha256 for f in reversed(out)}
    sha256 = found.get(named) or known_versions(state.releases).get(named)
    release = state.releases.get(sha256) if sha256 else None
    if release and release.standing == "refused":
        raise OpsError(f"{named} is refused already, since {format_time(release.at)}")
    is_old = release and release.standing == "good" and named not in found
    if sha256 is None or is_old:
        what = describe_firmware(firmware) if firmware else "nothing"
        raise OpsError(f"what can be taken back is {what}, not {named}")
    return sha256, named


def _check_obeyed(command: Command, state: State, manifest: Manifest | None, sha256: str) -> None:
    """Raises OpsError where the controller would refuse the order."""
    order = Order(by="", at=time.time(), why="")
    orders = Orders(rollback=RollbackOrder(sha256=sha256, order=order))
    refusal = rehearse(state, orders, manifest, command.channel.names)[1]
    if refusal and state.candidate:
        raise OpsError(f"the controller would refuse it: {refusal}")
    if refusal:
        raise OpsError(
            f"the controller would refuse it: {refusal}. Name the version you want in the stack"
            " file, with firmware.allowDowngrade, and deploy"
        )


def _describe_candidate_return(
    command: Command, state: State, candidate: Candidate
) -> Iterator[str]:
    good, is_forbidden = state.last_good, candidate.manifest.rollback == "forbidden"
    queued = count_devices(command.sum_counts(open_offers(state)).queued)
    offers = [o for o in state.offers if o.aim == "prove" and o.sha256 == candidate.firmware.sha256]
    exposed = count_devices(_count_began(command, offers))
    release = describe_firmware(candidate.firmware)
    yield f"Takes back {release}: {queued} still queued will not get it."
    if good is None or is_forbidden:
        forbidden = "its rollback is forbidden (rollout.rollback)"
        why = forbidden if good else "there is no last good release to go back to"
        yield f"DEVICES DO NOT GO BACK: {why}."
        yield f"{exposed} that began it stay as they are, and the channel halts."
        return
    yield f"{exposed} that began it, and no other, return to {describe_firmware(good)},"
    yield "at once, without gates or rate."
    passed = [offer.ring for offer in offers if offer.phase is Phase.PASSED]
    if passed:
        yield f"Rings that had passed are given {good.version} again: {', '.join(passed)}."


def _count_began(command: Command, offers: list[Offer]) -> int:
    jobs, names = command.channel.jobs, command.channel.names
    numbers = (began(o, jobs.get(names.job(o.ring, o.sequence))) for o in offers)
    return sum(number or 0 for number in numbers)


def _describe_last_good_return(
    command: Command, state: State, good: Firmware, *, is_named: bool
) -> list[str]:
    """What taking back the last good release will do. Raises OpsError where it may not be meant."""
    _check_no_way_back(command, state)
    if command.is_agreed and not is_named:
        raise OpsError(
            f"no release is being proved: this would take back {good.version}, the last good one."
            f" With --yes, name it: `{command.stack.command(f'rollback {good.version} --yes')}`"
        )
    kept = [offer for offer in state.wanted("keep") if offer.sha256 == good.sha256]
    size = count_devices(command.sum_counts(kept).size)
    return [
        f"Takes back the last good release {describe_firmware(good)}:",
        f"every ring, {size}, returns to {describe_firmware(state.previous_good)}, all at once,",
        "without gates or rate.",
        f"The stack file still names {good.version}: revert it, or release a higher version.",
    ]


def _check_no_way_back(command: Command, state: State) -> None:
    """Raises OpsError while devices are on their way back, and none has failed to."""
    back, channel = state.open_way_back, command.channel
    if back is None:
        return
    own = own_job(channel, state)
    observed = look_back(channel, state, channel.jobs.get_all([own] if own else []))
    if not count_left_behind(state, observed, channel.names, time.time()):
        to, since = state.last_good, format_time(back.started_at)
        raise OpsError(
            f"a rollback to {to.version if to else 'nothing'} is running already, since {since}"
        )


def _describe_refusal(
    command: Command, snapshot: Snapshot, state: State, manifest: Manifest | None, sha256: str
) -> Iterator[str]:
    """Of a release that was dropped, or has yet to start."""
    names = command.channel.names
    orders = Orders(rollback=RollbackOrder(sha256=sha256, order=Order(by="", at=0.0, why="")))
    after = rehearse(state, orders, manifest, names)[0]
    yield "Refuses a release that is not being proved:"
    jobs = command.channel.jobs.get_all(names.job(o.ring, o.sequence) for o in state.offers)
    found = report_exposures(begin_run(snapshot, after, manifest, names), jobs)
    told = [describe_exposure(one) for one in found if one.sha256 == sha256]
    yield from told or ["no device is known to have begun it."]
