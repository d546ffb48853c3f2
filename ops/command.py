"""What the changing commands share: each looks, says what will happen, asks, and writes
control.json.

The controller obeys within its next run: control.json wakes it at once, its tick within a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TypeAlias

from cloud.bucket import Overtaken
from cloud.channel import OrdersFile
from ops.errors import OpsError
from ops.rehearsal import is_spent
from ops.render import describe_order
from ops.snapshot import Snapshot
from ops.stack import Access, add_stack_arguments, open_access
from ops.terminal import ask_consent, say, user_name
from ops.text import format_time, one_line
from rollout.codec import DecodeError
from rollout.names import ORDER_CHARACTERS
from rollout.observed import Counts
from rollout.orders import Order, Orders
from rollout.state import Offer, Phase, State

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = "Callable[[Command, argparse.Namespace], None]"
Change = Callable[[Orders, Order], Orders]
"""The orders with a new one in them."""

MAX_WRITES = 5
"""How often an order is written again over somebody else's who was faster."""


def add_changing_command(
    commands: Subparsers, name: str, text: str, run: Run
) -> argparse.ArgumentParser:
    """Registers a command that changes something."""
    description = f"{text}. Says what will happen, and asks."
    parser = commands.add_parser(name, help=text, description=description)
    add_stack_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    why = "the reason, which is recorded; asked for when missing"
    parser.add_argument("--why", metavar="TEXT", help=why)

    def run_command(args: argparse.Namespace) -> None:
        run(Command(open_access(args), why=args.why, is_agreed=bool(args.yes)), args)

    parser.set_defaults(run=run_command)
    return parser


class Command:
    """One changing command: where it works, who gives it, and what they said in advance."""

    def __init__(self, access: Access, *, why: str | None, is_agreed: bool) -> None:
        self.channel, self.stack, self.is_agreed = access.channel, access.stack, is_agreed
        self._why = why
        self._by = f"{access.caller} ({user_name()})"[:ORDER_CHARACTERS]

    def check_readable(self, file: OrdersFile) -> None:
        """Raises OpsError when control.json is unreadable: somebody's order may be in it."""
        if file.problem:
            raise OpsError(
                f"control.json is unreadable ({one_line(file.problem)}), which counts as a halt; it"
                f" was left as it is. `{self.stack.command('resume --replace')}` writes a new one"
                " (the bucket keeps the old version)"
            )

    def require_state(self, snapshot: Snapshot, verb: str) -> State:
        """The controller's state. Raises OpsError without one that can be trusted, or a readable
        control.json."""
        self.check_readable(snapshot.orders_file)
        if snapshot.untrusted:
            raise OpsError(
                f"`{verb}` needs the controller's state, and {one_line(snapshot.untrusted.why)}:"
                f" `{self.stack.command('resume')}` says what starting afresh means; `halt` works"
            )
        if snapshot.state is None:
            raise OpsError(f"the controller has not run yet: `{verb}` has nothing to work on")
        return snapshot.state

    def sum_counts(self, offers: Iterable[Offer]) -> Counts:
        """The devices of the jobs of these offers, added up."""
        counts = [counts for offer in offers if (counts := self.count(offer))]
        sums = {one.name: sum(getattr(c, one.name) for c in counts) for one in fields(Counts)}
        return Counts(**sums)

    def count(self, offer: Offer) -> Counts | None:
        """The devices of an offer's job; None where nobody knows them: it is deleted."""
        job = self.channel.jobs.get(self.channel.names.job(offer.ring, offer.sequence))
        return job.counts if job else offer.final

    def is_pending(self, state: State, orders: Orders, order: Order) -> bool:
        """Whether this order, the only one of these, stands and the controller has yet to obey it;
        says so."""
        if is_spent(state, orders, self.channel.manifest()[0], self.channel.names):
            return False
        say(f"This is ordered already: {describe_order(order)}. Nothing was changed.")
        return True

    def give_order(
        self, lines: Iterable[str], change: Change, *, replace_unreadable: bool = False
    ) -> None:
        """Says what will happen, asks, and writes the order."""
        order = self.ask_order(lines)
        if not self.write_order(order, change, replace_unreadable=replace_unreadable):
            say("Somebody else gave the same order meanwhile: theirs stands.")

    def ask_order(self, lines: Iterable[str], word: str | None = None) -> Order:
        """Says what will happen; the order of the person who agreed, by typing `word` where there
        is one. Raises OpsError when they did not."""
        lines = [self.stack.title, *(f"  {line}" for line in lines)]
        why = ask_consent(lines, why=self._why, yes=self.is_agreed, word=word)
        return Order(by=self._by, at=time.time(), why=why)

    def write_order(
        self, order: Order, change: Change, *, replace_unreadable: bool = False
    ) -> bool:
        """Changes control.json, and again where somebody else changed it meanwhile; whether the
        order stands in it then. Raises OpsError in the end.

        With `replace_unreadable`, a file that cannot be read, or has no room for the order, is
        replaced by one that holds this order alone.
        """
        for _ in range(MAX_WRITES):
            file = self.channel.orders()
            if not replace_unreadable:
                self.check_readable(file)
            now = change(file.orders, order)
            try:
                if now != file.orders or file.problem:
                    now = self._write(now, order, change, file.etag, replace_unreadable)
            except Overtaken:
                continue
            single = (now.resume, now.retry, now.rollback, now.pardon)
            orders = [
                *(now.paused, now.halted),
                *(one.order for one in single if one),
                *(one.order for one in now.approvals),
                *(one.order for one in now.waived),
            ]
            stands = order in orders
            if stands:
                say(f"Recorded in control.json: {order.by}, {format_time(order.at)}: {order.why}")
            return stands
        raise OpsError(f"control.json was changed by others {MAX_WRITES} times: try again")

    def _write(
        self, orders: Orders, order: Order, change: Change, etag: str | None, may_replace: bool
    ) -> Orders:
        """Writes `orders`, or where they do not fit the order alone; what was written."""
        try:
            self.channel.write_orders(orders, etag)
        except DecodeError as error:
            if not may_replace:
                raise OpsError(
                    f"control.json takes no more ({one_line(str(error))}):"
                    f" `{self.stack.command('halt')}` writes a new one"
                ) from error
            orders = change(Orders(), order)
            self.channel.write_orders(orders, etag)
        return orders


def open_offers(state: State) -> list[Offer]:
    """The candidate's offers to rings that have not passed."""
    return [offer for offer in state.wanted("prove") if offer.phase is not Phase.PASSED]
