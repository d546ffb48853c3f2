"""The rings' thing groups: where a thing stands among them, and moving it.

AWS refuses a thing a second group of one hierarchy, so a move takes the thing out of its ring and
then puts it into the next; in between no release reaches it. The moves that are about to be made
stand in `ring-moves.json` before the first of them: what a killed command leaves half done, the
next one ends.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import ClientError

from cloud.bucket import Bucket
from cloud.clients import AWS_ERRORS, error_code, is_missing
from cloud.iot_calls import WAITS, IotCalls, error_name
from rollout.codec import DecodeError, canonical_json, decode_text
from rollout.names import Names
from rollout.orders import Order
from rollout.rings import RING_ATTRIBUTE

RING_MOVES_BYTES = 1_048_576
"""The most that is read of a `ring-moves.json`; MOVES_A_BATCH of the longest names are 220 KB."""
GONE = "there is no such thing any more"
MOVES_A_BATCH = 500
"""Moves that stand in `ring-moves.json` at a time: some ten seconds of AWS's pace."""


@dataclass(frozen=True, kw_only=True)
class RingMove:
    """A thing, and the thing groups that it leaves and joins."""

    thing: str
    target: str
    source: str | None = None
    """None where it is in no group of a fleet."""


@dataclass(frozen=True, kw_only=True)
class RingMoves:
    """`ring-moves.json`: who put things into rings last, and what may be half done. Its earlier
    versions, which the bucket keeps, say who did before."""

    format: Literal[1] = 1
    order: Order | None = None
    done: int = 0
    """Things that this command had moved or placed when this was written."""
    pending: tuple[RingMove, ...] = ()
    """Moves that were about to be made."""


class RingMovesFile:
    """`ring-moves.json` of one channel, written only where nobody else did meanwhile."""

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self._bucket, self._key = bucket, names.keys.ring_moves
        self._etag: str | None = None

    def read(self) -> RingMoves:
        """As it lies there. Raises ValueError where it is unreadable: a move may be in it."""
        found = self._bucket.get(self._key, RING_MOVES_BYTES)
        if found is None:
            return RingMoves()
        self._etag = found.place.etag
        try:
            return decode_text(RingMoves, found.body)
        except DecodeError as error:
            raise ValueError(f"{self._key} is unreadable: {error}") from error

    def write(self, moves: RingMoves) -> None:
        """Raises Overtaken where somebody else wrote it since it was read."""
        self._etag = self._bucket.replace(self._key, canonical_json(moves), self._etag).etag


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a thing stands among the rings of this fleet and of others."""

    group_arns: tuple[str, ...] = ()
    """Of all thing groups that it is in."""
    ring: str | None = None
    """This fleet's ring."""
    group: str | None = None
    """The group of a fleet that it must leave to join a ring of this one: its ring's, the fleet's
    own, that of a ring which is gone, or another fleet's."""
    is_foreign: bool = False
    """Whether that group is another fleet's."""
    is_quarantined: bool = False


@dataclass(frozen=True, kw_only=True)
class MoveRefusal:
    """Why a thing was not moved."""

    why: str
    is_in_none: bool = False
    """Whether it left its ring, and neither that one nor the next took it."""


class RingGroups:
    """The thing groups of a fleet's rings."""

    def __init__(self, calls: IotCalls, names: Names, groups: Mapping[str, str]) -> None:
        """`groups`: by ring."""
        self._calls, self._names = calls, names
        self.groups = dict(groups)
        self._rings = {group: ring for ring, group in groups.items()}
        self._known: dict[str, Literal["ours", "foreign", "none"]] = {}
        self._lock = threading.Lock()

    def find(self, thing: str) -> Standing | None:
        """Where a thing stands; None where there is no such thing."""
        groups = self._calls.groups_of(thing)
        if groups is None:
            return None
        kinds = {group: self._kind(group) for group in sorted(groups)}
        ours = [group for group, kind in kinds.items() if kind == "ours"]
        foreign = [group for group, kind in kinds.items() if kind == "foreign"]
        group = next(iter((*ours, *foreign)), None)
        return Standing(
            group_arns=tuple(groups.values()),
            ring=self._rings.get(ours[0]) if ours else None,
            group=group,
            is_foreign=not ours and bool(foreign),
            is_quarantined=self._names.quarantine_group in groups,
        )

    def is_of_a_fleet(self, group: str) -> bool:
        """Whether this is a group of this fleet, or another's ring."""
        return self._kind(group) != "none"

    def leftovers(self) -> list[str]:
        """Groups of the fleet that are no ring's: its own, and those of rings that are gone."""
        fleet = self._names.fleet_group
        listed = self._calls.pages("list_thing_groups", "thingGroups", parentGroup=fleet)
        named = (one["groupName"] for one in listed)
        # a local AWS lists more than was asked for
        likely = (name for name in named if name.startswith(f"{fleet}-"))
        gone = (one for one in likely if one not in self._rings and self._kind(one) == "ours")
        return [fleet, *sorted(gone)]

    def _kind(self, group: str) -> Literal["ours", "foreign", "none"]:
        """Whose fleet's group this is, if a fleet's at all."""
        if group in self._rings or group == self._names.fleet_group:
            return "ours"
        with self._lock:
            known = self._known.get(group)
        if known is None:
            known = self._look_up(group)
            with self._lock:
                self._known[group] = known
        return known

    def _look_up(self, group: str) -> Literal["ours", "foreign", "none"]:
        try:
            answer = self._calls.call("describe_thing_group", thingGroupName=group)
        except ClientError as error:
            if not is_missing(error):
                raise
            return "none"
        metadata = answer.get("thingGroupMetadata") or {}
        above = {one["groupName"] for one in metadata.get("rootToParentThingGroups") or ()}
        if self._names.fleet_group in {metadata.get("parentGroupName"), *above}:
            return "ours"
        payload = (answer.get("thingGroupProperties") or {}).get("attributePayload") or {}
        # what components.device_fleet writes on the group of a ring
        is_ring = {"hardware", "percent", "ring"} <= set(payload.get("attributes") or {})
        return "foreign" if is_ring else "none"

    # Moving

    def name_ring(self, thing: str, ring: str) -> str | None:
        """Remembers on the thing that somebody named its ring; why not, where AWS refuses it."""
        attributes = {"attributes": {RING_ATTRIBUTE: ring}, "merge": True}
        try:
            self._calls.call("update_thing", thingName=thing, attributePayload=attributes)
        except AWS_ERRORS as error:
            return (
                f"AWS does not take its attribute {RING_ATTRIBUTE} ({error_name(error)}): a thing"
                " without a type has three at most"
            )
        return None

    def move(self, move: RingMove) -> MoveRefusal | None:
        """Puts a thing into a ring, out of the group that it is in; why not, where AWS refuses it:
        then it is back where it was, if AWS allows that."""
        try:
            if move.source:
                self._calls.call(
                    "remove_thing_from_thing_group",
                    thingGroupName=move.source,
                    thingName=move.thing,
                )
        except AWS_ERRORS as error:
            why = f"it stays in {move.source}: AWS does not take it out ({error_name(error)})"
            return MoveRefusal(why=why)
        problem = self._add(move.thing, move.target, is_moved=move.source is not None)
        if problem is None:
            return None
        if problem == GONE or move.source is None:
            return MoveRefusal(why=problem)
        if self._add(move.thing, move.source, is_moved=True) is None:
            return MoveRefusal(why=f"{problem}; it is back in {move.source}")
        return MoveRefusal(why=f"{problem}; IT IS IN NO RING NOW", is_in_none=True)

    def _add(self, thing: str, group: str, *, is_moved: bool) -> str | None:
        # AWS may see a thing in the group that it has just left for a while: it answers then as it
        # does for an eleventh group
        for wait in (*(WAITS if is_moved else ()), None):
            try:
                self._calls.call("add_thing_to_thing_group", thingGroupName=group, thingName=thing)
            except AWS_ERRORS as error:
                code = error_name(error)
                if code == "InvalidRequestException" and wait is not None:
                    self._calls.clock.sleep(wait)
                    continue
                if code == "ResourceNotFoundException" and self._is_gone(thing):
                    return GONE
                return f"AWS does not take it into {group} ({_explain(error)})"
            return None
        raise AssertionError

    def _is_gone(self, thing: str) -> bool:
        try:
            return self._calls.describe(thing) is None
        except AWS_ERRORS:
            return False


def _explain(error: Exception) -> str:
    if not isinstance(error, ClientError):
        return type(error).__name__
    said = error.response.get("Error", {}).get("Message", "")
    return f"{error_code(error)}: {said}" if said else error_code(error)
