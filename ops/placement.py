"""`rings`: existing things come into rings, and things are moved between rings knowingly."""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud.channel import Channel
from cloud.iot_calls import CALLS_A_SECOND, IotCalls
from cloud.readiness import ReadinessCheck
from cloud.ring_groups import RingGroups, RingMovesFile
from cloud.serial_table import SerialTable
from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.ring_plan import FIXES, RingPlanner, ThingPlan, find_record, list_registered
from ops.ring_work import RingMover, describe_unfinished, list_unfinished, look_at
from ops.snapshot import Snapshot, take_snapshot
from ops.stack import Stack, add_stack_arguments, open_access
from ops.terminal import say
from ops.text import one_line
from ops.things_file import NamedThing, read_things_file
from rollout.release import Manifest, RingPlan
from rollout.rings import SERIAL_ATTRIBUTE, Thing, choose_ring, ring_of
from rollout.state import Phase

SHOWN = 5
"""Things of a kind that are named; --report names all."""


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "rings", help="Put existing things into rings; move things when percentages changed"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_place(actions)
    _add_spread(actions)
    of = actions.add_parser("of", help="Show which ring a serial belongs to, where it is, and why")
    add_stack_arguments(of)
    of.add_argument("serials", metavar="SERIAL", nargs="+", help="a serial, or a thing's name")
    of.set_defaults(run=show_rings)


def _add_place(actions: Subparsers) -> None:
    text = "Put things that exist into rings, as far as they can update"
    parser = add_changing_command(actions, "place", text, place)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--file", metavar="CSV", help="columns: thing, and ring if you name it")
    which.add_argument("--thing-type", metavar="TYPE", help="every thing of this type")
    which.add_argument("--query", help="what the fleet index finds: thingName:pump-*")
    mend = "attach the device policy to certificates that lack it"
    parser.add_argument("--mend", action="store_true", help=mend)
    _add_common(parser)


def _add_spread(actions: Subparsers) -> None:
    text = "Move the things whose ring by hash is another now; after percentages changed"
    _add_common(add_changing_command(actions, "spread", text, spread))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say it, and change nothing")
    parser.add_argument("--report", metavar="CSV", help="write what becomes of each thing")
    pace = "how often AWS's default quotas your account has; half of each is used (default 1)"
    parser.add_argument("--times", metavar="N", type=_read_times, default=1.0, help=pace)


def _read_times(text: str) -> float:
    times = float(text)
    if not 0.1 <= times <= 1000:
        raise argparse.ArgumentTypeError("must be 0.1 to 1000")
    return times


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What all of `rings` works with."""

    stack: Stack
    channel: Channel
    calls: IotCalls
    manifest: Manifest
    groups: RingGroups
    check: ReadinessCheck
    table: SerialTable | None
    declared: dict[str, str]
    """By thing: the ring that the stack gives it."""

    @property
    def rings(self) -> Sequence[RingPlan]:
        return self.manifest.rings

    def planner(self, *, mend: bool = False) -> RingPlanner:
        return RingPlanner(
            self.calls,
            self.groups,
            self.check,
            rings=self.rings,
            declared=self.declared,
            table=self.table,
            mend=mend,
        )


def open_workplace(stack: Stack, channel: Channel, times: float = 1.0) -> Workplace:
    """Raises OpsError where the stack's rings cannot be told."""
    manifest, problem = channel.manifest()
    if manifest is None:
        raise OpsError(f"the rings' percentages are in the manifest, and {problem}: `pulumi up`")
    if {ring.name for ring in manifest.rings} != set(stack.ring_group_names):
        raise OpsError(
            "the manifest's rings are not those of the stack's outputs: a deployment is half done,"
            " or the outputs are old; run `pulumi up`"
        )
    calls = IotCalls(channel.clients, times=times)
    device_policy, hardware = stack.names.device_policy, manifest.firmware.hardware
    rings = stack.device_rings
    return Workplace(
        stack=stack,
        channel=channel,
        calls=calls,
        manifest=manifest,
        groups=RingGroups(calls, stack.names, stack.ring_group_names),
        check=ReadinessCheck(calls, device_policy=device_policy, hardware=hardware),
        table=stack.serial_table(channel.clients),
        declared={thing: rings.get(serial, "") for serial, thing in stack.device_names.items()},
    )


# place


def place(command: Command, args: argparse.Namespace) -> None:
    """Puts things that exist into rings."""
    work = open_workplace(command.stack, command.channel, args.times)
    snapshot = _check_no_way_back(command)
    if args.file:
        listed = read_things_file(args.file, [ring.name for ring in work.rings])
        wanted: Iterable[NamedThing] = listed
        total: int | None = len(listed)
    elif args.thing_type is not None:
        found = work.calls.of_type(args.thing_type)
        wanted, total = (NamedThing(name=thing.name, known=thing) for thing in found), None
    else:
        # what the index says of a thing is late, and a page may name one again
        names = {thing.name for thing in work.calls.search(args.query)}
        wanted, total = (NamedThing(name=name) for name in sorted(names)), len(names)
    rate = CALLS_A_SECOND["list_thing_principals"] * args.times
    say(f"Looks at things, {rate:g} new ones a second at most.")
    planner = work.planner(mend=args.mend)
    plans = look_at(planner.place, wanted, lambda one: one.name, total)
    if not plans:
        raise OpsError("no thing was found")
    _carry_out(command, args, work, plans, snapshot)


# spread


def spread(command: Command, args: argparse.Namespace) -> None:
    """Moves the things whose ring is another now."""
    work = open_workplace(command.stack, command.channel, args.times)
    snapshot = _check_no_way_back(command)
    groups = [*work.groups.groups.values(), *work.groups.leftovers()]
    members = {thing: group for group in groups for thing in work.calls.members(group)}
    # a page tells of 250 things; of other types they are asked for one by one
    own_type = work.stack.thing_type_name
    known = {thing.name: thing for thing in work.calls.of_type(own_type)} if own_type else {}
    registered, planner = list_registered(work.table), work.planner()

    def plan(name: str) -> ThingPlan:
        thing = known.get(name) or work.calls.describe(name) or Thing(name=name)
        return planner.spread(thing, members[name], registered)

    plans = look_at(plan, sorted(members), lambda name: name, len(members))
    _carry_out(command, args, work, plans, snapshot)


def _check_no_way_back(command: Command) -> Snapshot:
    """What there is of the channel. Raises OpsError while devices are brought back."""
    snapshot = take_snapshot(command.channel)
    back = snapshot.state.open_way_back if snapshot.state else None
    if back:
        raise OpsError(
            f"devices are brought back from {back.failed}: they go first, and AWS's"
            f" AddThingToThingGroup is theirs. `{command.stack.command('status')}` shows how far"
        )
    return snapshot


# What both do


def _carry_out(
    command: Command,
    args: argparse.Namespace,
    work: Workplace,
    plans: Sequence[ThingPlan],
    snapshot: Snapshot,
) -> None:
    """Says what will happen, asks, and does it."""
    file = RingMovesFile(work.channel.bucket, work.channel.names)
    try:
        moves = file.read()
    except ValueError as error:
        raise OpsError(f"{error}: restore its last version, or delete it") from error
    unfinished = list_unfinished(moves, work.groups, work.declared)
    first = {plan.thing for plan in unfinished}
    plans = [*unfinished, *(plan for plan in plans if plan.thing not in first)]
    if args.report:
        _write_report(args.report, plans)
    todo = [plan for plan in plans if not plan.is_done and plan.left_out is None]
    lines = [describe_unfinished(moves, unfinished)] if unfinished else []
    lines += [*_describe(plans, work), *_describe_jobs(todo, work, snapshot)]
    if args.dry_run or not todo:
        say(work.stack.title, *(f"  {line}" for line in lines))
        say("Nothing was changed." if todo else "There is nothing to do.")
        return
    mover = RingMover(file, work.groups, work.check, work.table, command.ask_order(lines))
    mover.carry_out(todo)
    say(f"Done: {mover.done} of {len(todo)}. Recorded in {work.channel.names.keys.ring_moves}.")
    if mover.refused:
        names = [f"{thing}: {one_line(why)}" for thing, why in sorted(mover.refused.items())]
        more = [f"and {len(names) - 20} more"] if len(names) > 20 else []
        raise OpsError(
            "\n  ".join([f"{len(names)} could not be done; run it again:", *names[:20], *more])
        )


def _describe(plans: Sequence[ThingPlan], work: Workplace) -> Iterator[str]:
    """What becomes of the things, kind by kind."""
    left_out = [plan for plan in plans if plan.left_out]
    other = [plan for plan in plans if not plan.left_out]
    joining = [plan for plan in other if plan.move and not plan.came_from]
    moving = [plan for plan in other if plan.came_from]
    naming = [plan for plan in other if plan.is_named and not plan.move]
    staying = [plan for plan in other if plan.is_done]
    yield f"{_count(len(plans), 'thing')} looked at."
    if staying:
        yield f"STAY, {len(staying)}: {_sum(staying, work)}."
    if joining:
        yield f"JOIN, {len(joining)}: {_sum(joining, work)}."
    ways = sorted({(str(plan.came_from), str(plan.ring)) for plan in moving})
    for source, ring in ways:
        them = [plan for plan in moving if (plan.came_from, plan.ring) == (source, ring)]
        why = sorted({plan.reason.value for plan in them if plan.reason})
        because = f" ({'; '.join(why)})" if why else ""
        yield f"MOVE from {source} to {ring}, {len(them)}: {_names(them)}{because}."
    if naming:
        yield f"NAME, {len(naming)}: {_names(naming)}: that a person chose their ring is kept."
    mending = [plan for plan in other if plan.readiness]
    if mending:
        attached = f"{work.stack.names.device_policy} is attached to their certificates"
        yield f"MEND, {len(mending)}: {_names(mending)}: {attached}."
    for reason in sorted({plan.left_out for plan in left_out if plan.left_out}):
        them = [plan for plan in left_out if plan.left_out == reason]
        yield f"LEFT OUT, {len(them)}: {_names(them)}: {reason}."
    for gap, fix in FIXES.items():
        them = [plan for plan in other if gap in plan.gaps]
        if them:
            yield f"LACK, {len(them)}: {_names(them)}: {fix}."


def _describe_jobs(todo: Sequence[ThingPlan], work: Workplace, snapshot: Snapshot) -> Iterator[str]:
    """What AWS gives to those that join a ring, and takes from those that leave one."""
    state = snapshot.state
    if snapshot.untrusted and todo:
        why = one_line(snapshot.untrusted.why)
        yield f"WARNING: which jobs who joins is given, nobody can tell: {why}."
    joined = Counter(plan.ring for plan in todo if plan.move)
    left = Counter(plan.came_from for plan in todo if plan.came_from)
    for ring in (one.name for one in work.rings):
        proof, kept = (state.proof(ring), state.kept(ring)) if state else (None, None)
        is_proving = proof is not None and proof.phase is not Phase.PASSED
        given = [str(one.firmware.version) for one in (kept, proof) if one]
        if joined[ring] and given:
            yield (
                f"Ring {ring}: who joins it ({joined[ring]}) is given {' and '.join(given)} AT"
                " ONCE, without the rollout's rate."
            )
        if proof and is_proving and (joined[ring] or left[ring]):
            yield (
                f"WARNING: {proof.firmware.version} is being proved in ring {ring}. Its gate counts"
                " who joins; who leaves before it began loses the job, and is not counted. Wait for"
                " the last good release, if you can."
            )


def _sum(plans: Sequence[ThingPlan], work: Workplace) -> str:
    counts = Counter(plan.ring for plan in plans)
    parts = [f"{ring.name} {counts[ring.name]}" for ring in work.rings if counts[ring.name]]
    rest = len(plans) - sum(counts[ring.name] for ring in work.rings)
    return ", ".join([*parts, *([f"in no ring {rest}"] if rest else [])])


def _names(plans: Sequence[ThingPlan]) -> str:
    names = sorted(plan.thing for plan in plans)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _write_report(path: str, plans: Iterable[ThingPlan]) -> None:
    """A line a thing."""
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("thing", "becomes", "ring", "from", "why", "lacks"))
            for plan in plans:
                becomes = "left out" if plan.left_out else "stays"
                if plan.move:
                    becomes = "moves" if plan.came_from else "joins"
                why = plan.left_out or (plan.reason.value if plan.reason else "")
                lacks = " ".join(plan.gaps)
                writer.writerow(
                    (plan.thing, becomes, plan.ring or "", plan.came_from or "", why, lacks)
                )
    except OSError as error:
        raise OpsError(f"{path} cannot be written: {error.strerror}") from error


# of


def show_rings(args: argparse.Namespace) -> None:
    """Says of each serial which ring it belongs to, where its thing is, and why."""
    access = open_access(args)
    work = open_workplace(access.stack, access.channel)
    for serial in args.serials:
        say(*_describe_serial(work, serial))


def _describe_serial(work: Workplace, serial: str) -> Iterator[str]:
    yield f"{serial}: its hash says ring {ring_of(serial, work.rings)}"
    things = _find_things(work, serial)
    if not things:
        yield "  no thing has this name, or this serial"
    for thing in things:
        record = find_record(work.table, thing)
        named = record.record.ring if record else None
        choice = choose_ring(
            thing,
            work.rings,
            declared=work.declared,
            registered={thing.name: named} if named else {},
        )
        yield f"  thing {thing.name} belongs to ring {choice.ring}: {choice.reason.value}"
        standing = work.groups.find(thing.name)
        where = standing and (standing.ring or standing.group)
        if standing and standing.is_quarantined:
            yield "  it is cut off (quarantine)"
        elif standing and standing.ring == choice.ring:
            yield f"  it is in ring {standing.ring}"
        elif standing and standing.ring:
            moves = work.stack.command("rings spread")
            yield f"  it is in ring {standing.ring}: `{moves}` moves it"
        else:
            yield f"  it is in no ring of this fleet{f', but in {where}' if where else ''}"


def _find_things(work: Workplace, serial: str) -> list[Thing]:
    """Those that a serial can mean."""
    stored = work.table.get(serial) if work.table else None
    claim = stored.record.claim if stored else None
    names = [
        work.stack.device_names.get(serial),
        serial,
        work.stack.names.thing(serial),
        claim.thing if claim else None,
    ]
    found = [work.calls.describe(name) for name in dict.fromkeys(names) if name]
    found += list(work.calls.with_attribute(SERIAL_ATTRIBUTE, serial))
    return list({thing.name: thing for thing in found if thing}.values())
