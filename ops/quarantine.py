"""`quarantine` and `restore`: a device is cut off at once, and gets back what it had.

What the device had is written down before anything is taken from it. What fails is told at the
end, keeps nothing else from being done, and the same command again does what is left.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from cloud.bucket import Overtaken
from cloud.clients import AWS_ERRORS
from cloud.cut_off import CutOff, HeldPrincipal, Holding, Quarantine, StoredCutOff
from cloud.device_ties import ACTIVE, INACTIVE, DeviceTies
from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError, explain
from ops.render import describe_order
from ops.terminal import say
from ops.text import one_line
from ops.which_device import find_thing
from rollout.codec import DecodeError
from rollout.orders import Order
from rollout.serial import SerialStatus

WHO = "a thing's name, or a device's serial"
OFF = frozenset({INACTIVE, "REVOKED", None})
"""Statuses of certificates that let nobody in; None of one that is gone."""


def add_parser(commands: Subparsers) -> None:
    for name, text, run in (
        ("quarantine", "Cut a device off, now: it is stolen, or not trusted any more", quarantine),
        ("restore", "Give a device that was cut off back what it had", restore),
    ):
        parser = add_changing_command(commands, name, text, partial(_run, run))
        parser.add_argument("thing", metavar="THING", help=WHO)


def _run(run: Callable[[Cutter, str], None], command: Command, args: argparse.Namespace) -> None:
    run(Cutter.of(command), args.thing)


@dataclass(frozen=True, kw_only=True)
class Cutter:
    """Who cuts devices off, and gives back what they had."""

    command: Command
    ties: DeviceTies
    records: Quarantine

    @classmethod
    def of(cls, command: Command) -> Cutter:
        channel = command.channel
        return cls(
            command=command,
            ties=command.stack.ties(channel.clients),
            records=Quarantine(channel.bucket, channel.names),
        )

    def find(self, name: str) -> tuple[str, StoredCutOff | None]:
        """The thing, and its record. One that was cut off may have been deleted since."""
        try:
            stored = self.records.get(name)
            if stored:
                return name, stored
            thing = find_thing(self.command.channel.clients, self.command.stack, name)
            return thing, self.records.get(thing)
        except DecodeError as error:
            raise OpsError(
                f"the record of {name} cannot be read: {one_line(str(error))}"
            ) from error


def quarantine(cutter: Cutter, name: str) -> None:
    thing, stored = cutter.find(name)
    seen = cutter.ties.look(thing)
    lines = _describe_cut(cutter, thing, seen or Holding(), stored)
    order = cutter.command.ask_order(lines)
    held = (stored.record.held if stored else Holding()).add(seen or Holding())
    is_cut = stored is not None and stored.record.restoring is None
    first = stored.record.order if stored and is_cut else order
    stored = _write(cutter, CutOff(thing=thing, order=first, held=held), stored)
    say(f"Written down what {thing} has: {cutter.records.key(thing)}.")
    problems = _take(_cuts(cutter, thing, held, seen or Holding(), order))
    if problems:
        again = cutter.command.stack.command(f"quarantine {thing}")
        raise OpsError(f"{thing} is cut off in part: {'; '.join(problems)}: `{again}` goes on")
    _write(cutter, replace(stored.record, done_at=time.time()), stored)
    undo = cutter.command.stack.command(f"restore {thing}")
    say(f"{thing} is cut off. `{undo}` gives back what it had.")


def restore(cutter: Cutter, name: str) -> None:
    thing, stored = cutter.find(name)
    if stored is None:
        raise OpsError(f"{thing} is not in quarantine: there is nothing to give back")
    held = stored.record.held
    order = cutter.command.ask_order(_describe_restore(stored.record))
    first = stored.record.restoring or order
    stored = _write(cutter, replace(stored.record, restoring=first, done_at=None), stored)
    problems = _take(_mends(cutter, thing, held, order))
    if problems:
        again = cutter.command.stack.command(f"restore {thing}")
        said = f"{thing} has not got back all that it had: {'; '.join(problems)}"
        raise OpsError(f"{said}: mend that, then `{again}` goes on")
    try:
        cutter.records.close(stored, first)
    except Overtaken as error:
        raise OpsError(f"somebody else has just changed the record of {thing}") from error
    say(f"{thing} has back what it had.")


def _write(cutter: Cutter, record: CutOff, stored: StoredCutOff | None) -> StoredCutOff:
    try:
        return cutter.records.put(record, stored.etag if stored else None)
    except Overtaken as error:
        raise OpsError(
            f"somebody else has just changed the record of {record.thing}: look, and try again"
        ) from error


# What is said before


def _describe_cut(
    cutter: Cutter, thing: str, seen: Holding, stored: StoredCutOff | None
) -> Iterator[str]:
    """What a quarantine takes from the device."""
    if stored and not stored.record.restoring:
        state = "cut off" if stored.record.done_at else "cut off in part"
        yield f"{thing} is {state} already, {describe_order(stored.record.order)}."
        yield "What is left of it is taken, too:"
    else:
        yield f"Cuts {thing} off, at once:"
    for principal in seen.principals:
        status = "" if principal.status in OFF else f", {principal.status}, becomes INACTIVE"
        policies = ", ".join(principal.policies) or "no policy"
        yield f"  certificate {_short(principal)}{status}; loses {policies}"
        others = [one for one in cutter.ties.holders(principal.arn) if one != thing]
        if others:
            yield f"    IT IS ALSO THE CERTIFICATE OF {', '.join(others[:10])}: they lose it, too"
    if not seen.principals:
        yield "  it has no certificate"
    yield f"  leaves {', '.join(seen.groups) or 'no group'}; joins the quarantine group"
    yield "  its open jobs are cancelled, and its connection is ended"
    if seen.serial_status:
        yield f"  its serial {seen.serial} ({seen.serial_status}) is blocked"
    if thing in cutter.command.stack.device_names.values():
        yield "The stack declares this device: a `pulumi up --refresh` gives back what is taken."
        yield "Take its serial out of `fleet.devices` and deploy: that removes it for good."


def _describe_restore(record: CutOff) -> Iterator[str]:
    held = record.held
    yield f"Gives {record.thing} back what it had when it was cut off,"
    yield f"{describe_order(record.order)}:"
    for principal in held.principals:
        status = "becomes ACTIVE" if principal.status == ACTIVE else f"stays {principal.status}"
        policies = ", ".join(principal.policies) or "no policy"
        yield f"  certificate {_short(principal)} {status}, gets {policies}"
    yield f"  joins {', '.join(held.groups) or 'no group'}; leaves the quarantine group"
    if held.serial_status:
        yield f"  its serial {held.serial} is {held.serial_status} again"


# What is done

Step = tuple[str, Callable[[], str | None]]
"""What it does, in words, and the call, which may have something to say."""


class Incomplete(Exception):
    """Something that it had cannot be given back: it is not there any more."""


def _take(steps: Iterator[Step]) -> list[str]:
    """Takes each step; what failed."""
    problems = []
    for what, act in steps:
        try:
            note = act()
            say(f"  {what}: {note or 'done'}")
        except AWS_ERRORS as error:
            problems.append(f"{what}: {explain(error)}")
        except (DecodeError, Incomplete, Overtaken) as error:
            problems.append(f"{what}: {one_line(str(error))}")
    return problems


def _cuts(cutter: Cutter, thing: str, held: Holding, seen: Holding, order: Order) -> Iterator[Step]:
    """What protects most comes first."""
    ties = cutter.ties
    statuses = {one.arn: one.status for one in (*held.principals, *seen.principals)}
    for principal in held.principals:
        if principal.certificate and statuses[principal.arn] not in OFF:
            what = f"certificate {_short(principal)} becomes inactive"
            yield what, partial(_set_status, ties, principal, INACTIVE)
    yield "connection", partial(ties.end_connection, thing)
    if held.serial and held.serial_status:
        yield f"serial {held.serial} is blocked", partial(ties.block, held.serial, order)
    for principal in held.principals:
        what = f"policies of {_short(principal)} are detached"
        yield what, partial(ties.detach_policies, principal.arn)
    yield "leaves its ring for the quarantine group", partial(_isolate, cutter, thing)
    yield "open jobs are cancelled", partial(_cancel, ties, thing)
    # it may have come in again before every part of AWS had heard of its certificate
    yield "connection, again", partial(ties.end_connection, thing)


def _mends(cutter: Cutter, thing: str, held: Holding, order: Order) -> Iterator[Step]:
    """It is let in last, when all the rest is as it was."""
    ties, group = cutter.ties, cutter.command.channel.names.quarantine_group
    if held.serial and held.serial_status not in (None, SerialStatus.BLOCKED):
        yield f"serial {held.serial} is unblocked", partial(ties.unblock, held.serial, order)
    yield "leaves the quarantine group", partial(ties.leave, group, thing)
    for one in held.groups:
        yield f"joins {one}", partial(_rejoin, cutter, one, thing)
    for principal in held.principals:
        for policy in principal.policies:
            what = f"{policy} is attached to {_short(principal)}"
            yield what, partial(_attach, ties, policy, principal)
    for principal in held.principals:
        if principal.status == ACTIVE:
            what = f"certificate {_short(principal)} becomes active"
            yield what, partial(_activate, ties, principal)


def _set_status(ties: DeviceTies, principal: HeldPrincipal, status: str) -> str | None:
    is_there = ties.set_status(principal.certificate or "", status)
    return None if is_there else "it is gone"


def _activate(ties: DeviceTies, principal: HeldPrincipal) -> None:
    if _set_status(ties, principal, ACTIVE):
        raise Incomplete("the certificate was deleted: the device needs a new one")


def _attach(ties: DeviceTies, policy: str, principal: HeldPrincipal) -> None:
    if not ties.attach_policy(policy, principal.arn):
        raise Incomplete("the policy or the certificate was deleted")


def _isolate(cutter: Cutter, thing: str) -> None:
    ties, group = cutter.ties, cutter.command.channel.names.quarantine_group
    # first out: a thing is in at most ten groups
    for one in sorted(filter(ties.is_of_stack, ties.groups(thing))):
        ties.leave(one, thing)
    if ties.describe(thing) and not ties.join(group, thing):
        raise Incomplete(f"there is no thing group {group}: run `pulumi up`")


def _rejoin(cutter: Cutter, group: str, thing: str) -> str | None:
    """The group of a way back that is over is gone, and nobody needs it."""
    if cutter.ties.join(group, thing):
        return None
    if cutter.command.channel.names.rollback_sequence(group) is not None:
        return "that way back is over"
    raise Incomplete("there is no such thing group, or thing, any more: place it in another ring")


def _cancel(ties: DeviceTies, thing: str) -> str:
    return ", ".join(ties.cancel_executions(thing)) or "there were none"


def _short(principal: HeldPrincipal) -> str:
    """The beginning of a certificate's id, or another principal's name."""
    return f"{principal.arn.rpartition('/')[2][:12]}..."
