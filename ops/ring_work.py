"""Looking at many things, and moving them, several at once: with progress, and in a state that the
next command can go on from whenever it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from cloud.bucket import Overtaken
from cloud.clients import AWS_ERRORS
from cloud.iot_calls import error_name
from cloud.readiness import ReadinessCheck
from cloud.ring_groups import (
    MOVES_A_BATCH,
    MoveRefusal,
    RingGroups,
    RingMove,
    RingMoves,
    RingMovesFile,
)
from cloud.serial_table import SerialTable
from ops.errors import ACCESS_DENIED, OpsError
from ops.paced import TOLD_EVERY
from ops.ring_plan import ThingPlan
from ops.terminal import say
from ops.text import format_time, one_line
from rollout.orders import Order
from rollout.serial import Serial

THREADS = 8
"""Calls at once: AWS answers one in some 50 ms, and the pace is 50 a second."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Progress:
    """Says how far something has come, every few seconds."""

    def __init__(self, verb: str, total: int | None) -> None:
        self._verb, self._total = verb, total
        self.done, self._next_at = 0, time.monotonic() + TOLD_EVERY

    def __str__(self) -> str:
        return f"{self._verb} {self.done}" + (f" of {self._total}" if self._total else "")

    def advance(self) -> None:
        self.done += 1
        if time.monotonic() >= self._next_at:
            say(f"  {self} ...")
            self._next_at = time.monotonic() + TOLD_EVERY


def look_at(
    plan: Callable[[Item], ThingPlan],
    wanted: Iterable[Item],
    name: Callable[[Item], str],
    total: int | None,
) -> list[ThingPlan]:
    """What becomes of each. A thing that AWS would not tell about is left out; raises AWS_ERRORS
    where nothing may be asked."""

    def look(one: Item) -> ThingPlan:
        try:
            return plan(one)
        except AWS_ERRORS as error:
            code = error_name(error)
            if code in ACCESS_DENIED:
                raise
            return ThingPlan(thing=name(one), left_out=f"AWS does not tell about it ({code})")

    progress, found, left = Progress("looked at", total), [], iter(wanted)
    try:
        while batch := list(islice(left, MOVES_A_BATCH)):
            with closing(work_at_once(look, batch)) as looks:
                for done in looks:
                    found.append(done.result())
                    progress.advance()
    except KeyboardInterrupt:
        say(f"Interrupted: {progress}. Nothing was changed.")
        raise
    return found


def work_at_once(
    do: Callable[[Item], Answer], items: Sequence[Item]
) -> Generator[Future[Answer], None, None]:
    """Each item's future, done, in their order. Who is interrupted waits for those that have begun;
    the others never begin."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        futures = [pool.submit(do, item) for item in items]
        for future in futures:
            future.exception()
            yield future
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class RingMover:
    """Carries plans out, once."""

    def __init__(
        self,
        file: RingMovesFile,
        groups: RingGroups,
        check: ReadinessCheck,
        table: SerialTable | None,
        order: Order,
    ) -> None:
        self._file, self._groups, self._check, self._table = file, groups, check, table
        self._order, self._lock = order, threading.Lock()
        self.done = 0
        """Things that are where they should be."""
        self.refused: dict[str, str] = {}
        """By thing: why it is not."""
        self._open: dict[str, RingMove] = {}
        """By thing: moves that have begun and not ended, or ended in no ring."""

    def carry_out(self, plans: Sequence[ThingPlan]) -> None:
        """Batch by batch: what is about to be moved is written down first. Raises OpsError where
        somebody else moves things meanwhile."""
        progress, left = Progress("done", len(plans)), iter(plans)
        try:
            while batch := list(islice(left, MOVES_A_BATCH)):
                moves = (plan.move for plan in batch)
                self._write([*self._open.values(), *(m for m in moves if m and m.source)])
                with closing(work_at_once(self._act, batch)) as acts:
                    for done in acts:
                        done.result()
                        progress.advance()
        except KeyboardInterrupt:
            say(
                f"Interrupted: {self.done} of {len(plans)} done, what had begun was ended. Run it"
                " again for the rest."
            )
            self._write(self._open.values())
            raise
        self._write(self._open.values())

    def _act(self, plan: ThingPlan) -> None:
        move = plan.move if plan.move and plan.move.source else None
        if move:
            self._open[plan.thing] = move
        refusal = self._try(plan)
        with self._lock:
            if refusal is None:
                self.done += 1
            else:
                self.refused[plan.thing] = refusal.why
            if move and not (refusal and refusal.is_in_none):
                del self._open[plan.thing]

    def _try(self, plan: ThingPlan) -> MoveRefusal | None:
        """Why a thing is not where it should be. What is remembered of it comes before the move: so
        what breaks off is done again."""
        if plan.readiness and (why := self._check.mend(plan.readiness)):
            return MoveRefusal(why=why)
        if plan.is_named and plan.ring and (why := self._remember(plan, plan.ring)):
            return MoveRefusal(why=why)
        return self._groups.move(plan.move) if plan.move else None

    def _remember(self, plan: ThingPlan, ring: str) -> str | None:
        """That somebody named the thing's ring: in its serial's record, else on the thing."""
        if not (plan.serial and self._table):
            return self._groups.name_ring(plan.thing, ring)

        def name(record: Serial) -> Serial:
            if record.ring == ring:
                return record
            return replace(record, ring=ring).note(f"put into ring {ring}", self._order)

        try:
            stored = self._table.change(plan.serial, name)
        except Overtaken:
            return f"the record of serial {plan.serial} was changed by others"
        except AWS_ERRORS as error:
            return f"the record of serial {plan.serial} is not written ({error_name(error)})"
        return None if stored else f"the record of serial {plan.serial} is gone"

    def _write(self, pending: Iterable[RingMove]) -> None:
        try:
            self._file.write(RingMoves(order=self._order, done=self.done, pending=tuple(pending)))
        except Overtaken as error:
            raise OpsError(
                "somebody else moves things of this channel just now: look who"
                " (channels/*/ring-moves.json), and run it again when they are done"
            ) from error


def list_unfinished(
    moves: RingMoves, groups: RingGroups, declared: Collection[str]
) -> list[ThingPlan]:
    """The moves that an earlier command was about to make, and that are not made. What AWS lists
    may be late, so a thing that is seen in its old ring may be in none: it is taken out again,
    which harms nobody. Raises AWS_ERRORS.

    Whoever may write the file moves things within the fleet by it, and nothing else: no thing
    leaves a group that is no fleet's, and no declared one is moved.
    """
    rings = {group: ring for ring, group in groups.groups.items()}
    pending = [
        move
        for move in moves.pending
        if move.thing not in declared
        and move.target in rings
        and move.source
        and groups.is_of_a_fleet(move.source)
    ]
    found = [done.result() for done in work_at_once(groups.find, [move.thing for move in pending])]
    return [
        ThingPlan(thing=move.thing, ring=rings[move.target], came_from=move.source, move=move)
        for move, standing in zip(pending, found, strict=True)
        if standing and not standing.is_quarantined and standing.group in (None, move.source)
    ]


def describe_unfinished(moves: RingMoves, plans: Sequence[ThingPlan]) -> str:
    """Whose moves those are."""
    order = moves.order
    who = f"{one_line(order.by)} began {format_time(order.at)}" if order else "somebody began"
    return (
        f"FIRST ends what {who} and did not end: {len(plans)} that may be in no ring. If that"
        " command still runs, this one ends it."
    )
