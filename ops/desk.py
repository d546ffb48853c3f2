"""Where a changing command is given: it looks, says what will happen, asks, and writes
control.json.

The controller obeys within its next run: control.json wakes it at once, its tick within a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ops.channel import Channel, Memory, Orders, unreadable
from ops.errors import OpsError
from ops.terminal import Terminal, consent
from ops.words import clean, when
from rollout.observed import Counts
from rollout.state import Control, Offer, Order, State

Change = Callable[[Control, Order], Control]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a command looked at before it said what it would do."""

    live: list[str]
    memory: Memory
    orders: Orders


class Desk:
    """Where one command is given: the channel, the person, and what they said in advance."""

    def __init__(
        self, channel: Channel, terminal: Terminal, args: argparse.Namespace, caller: str
    ) -> None:
        self.channel, self.stack, self.terminal, self.args = channel, channel.stack, terminal, args
        self.by = f"{caller} ({terminal.user()})"

    def look(self) -> Seen:
        live = self.channel.live_jobs()
        return Seen(live=live, memory=self.channel.memory(live), orders=self.channel.orders())

    def order(
        self, lines: Iterable[str], change: Change, *, replace_unreadable: bool = False
    ) -> None:
        """Tells, asks, and writes."""
        order = self.agreed(lines)
        control = self.channel.change(
            lambda control: change(control, order), replace_unreadable=replace_unreadable
        )
        faster = "Somebody else gave the same order meanwhile: theirs stands."
        self.terminal.say(recorded(order) if order in given(control) else faster)

    def agreed(self, lines: Iterable[str]) -> Order:
        lines = [self.stack.title, *(f"  {line}" for line in lines)]
        why = consent(self.terminal, lines, why=self.args.why, yes=self.args.yes)
        return Order(by=self.by, at=time.time(), why=why)

    def state(self, seen: Seen, what: str) -> State:
        """The controller's memory. Raises OpsError when there is none to be believed, or the orders
        are unreadable."""
        if seen.orders.problem:
            raise OpsError(unreadable(self.stack, seen.orders.problem))
        if seen.memory.distrusted:
            fresh = (
                f"`{self.stack.command('resume')}` says what starting afresh means; `halt` works"
                " all the same"
            )
            raise OpsError(
                f"`{what}` needs the controller's memory, and {clean(seen.memory.distrusted.why)}:"
                f" {fresh}"
            )
        if seen.memory.state is None:
            raise OpsError(f"the controller has not run yet: `{what}` has nothing to work on")
        return seen.memory.state


def given(control: Control) -> list[Order]:
    """Every order in control.json."""
    more = (control.resume, control.retry, control.rollback, *control.approvals)
    return [order for order in (control.paused, control.halted) if order] + [
        one.order for one in more if one
    ]


def recorded(order: Order) -> str:
    return f"Recorded in control.json: {order.by}, {when(order.at)}: {order.why}"


def counted(desk: Desk, offers: Iterable[tuple[str, Offer]]) -> Counts:
    """The devices of these offers' jobs, added up."""
    jobs = desk.channel.jobs(desk.channel.names.job(ring, offer.sequence) for ring, offer in offers)
    fields = Counts.__dataclass_fields__
    return Counts(
        **{name: sum(getattr(job.counts, name) for job in jobs.values()) for name in fields}
    )


def figures(counts: Counts) -> str:
    return (
        f"{counts.succeeded} succeeded, {counts.failed} failed, {counts.timed_out} timed out,"
        f" {counts.rejected} rejected, {counts.in_progress} in progress, {counts.queued} queued"
    )


def told(order: Order) -> str:
    return f"by {clean(order.by)}, {when(order.at)}: {clean(order.why)}"
