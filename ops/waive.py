"""`waive`: an exposed device need not come back."""

from __future__ import annotations

from dataclasses import replace

from cloud.groups import is_thing
from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError
from ops.render import describe_order
from ops.snapshot import take_snapshot
from ops.terminal import say
from ops.text import one_line
from rollout.orders import Order, Orders, WaiverOrder
from rollout.state import State, WayBack


def add_parser(commands: Subparsers) -> None:
    text = "Say that an exposed device need not come back: it is lost, or scrapped"
    parser = add_changing_command(commands, "waive", text, lambda c, args: waive(c, args.thing))
    what = "a thing's name, or a declared device's serial; or the job whose devices nobody can list"
    parser.add_argument("thing", metavar="THING", help=what)


def waive(command: Command, name: str) -> None:
    """Orders that the way back which is open does not wait for this device."""
    snapshot = take_snapshot(command.channel)
    back = _open_way_back(command.require_state(snapshot, "waive"))
    thing = command.stack.device_names.get(name, name)
    given = [o for o in snapshot.orders.waived if (o.thing, o.group) == (thing, back.group)]
    if given:
        order = describe_order(given[0].order)
        say(f"{one_line(thing)} need not come back, that is ordered already: {order}.")
        return
    _check_exposed(command, back, thing)

    def change(now: Orders, order: Order) -> Orders:
        new = WaiverOrder(thing=thing, order=order, group=back.group)
        # a word on an earlier way back has no meaning any more
        here = (o for o in now.waived if o.group == back.group and o.thing != thing)
        return replace(now, waived=(*here, new))

    lines = [
        f"The rollback from {back.failed} does not wait for {thing} any more: it counts neither as",
        "back nor as failed. IT MAY GO ON RUNNING FIRMWARE THAT IS NOT GOOD. If it is in the",
        "rollback's group already, it still goes back when it comes online.",
    ]
    command.give_order(lines, change)


def _open_way_back(state: State) -> WayBack:
    back = state.open_way_back
    if back is None:
        raise OpsError("no rollback is running: there is nobody to waive")
    return back


def _check_exposed(command: Command, back: WayBack, thing: str) -> None:
    """Raises OpsError for a thing that no rollback waits for: its name is a slip, or it is gone."""
    channel = command.channel
    if thing in {source.job for source in back.sources}:
        if channel.jobs.get(thing):
            raise OpsError(f"job {thing} is there: its devices are listed, waive them by name")
        return
    if not is_thing(channel.clients, thing):
        gone = "a device that is gone from the registry is not waited for"
        raise OpsError(f"there is no thing {thing}: {gone}")
    sources = {source.job for source in back.sources}
    has_begun = any(
        one.job in sources and one.status not in ("QUEUED", "REJECTED")
        for one in channel.jobs.of_thing(thing)
    )
    is_listed = all(channel.jobs.get(job) for job in sources)
    if is_listed and not has_begun:
        raise OpsError(f"{thing} began none of {', '.join(sorted(sources))}: it is not waited for")
