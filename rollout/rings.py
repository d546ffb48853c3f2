"""Rings: ordered slices of a fleet, and the rules that say which ring a device is in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

MAX_RINGS = 10


class RingShare(Protocol):
    """Anything with a ring's name and its share of the fleet."""

    @property
    def name(self) -> str: ...

    @property
    def percent(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Share:
    """A ring's name and its percentage of the fleet (up to two decimals)."""

    name: str
    percent: float


def ring_of(serial: str, rings: Sequence[RingShare]) -> str:
    """The ring of the device with this serial number.

    The first eight bytes of the serial's SHA-256, taken modulo 10,000, fall into the rings'
    percentages in order. The same serial is in the same ring for ever, on every machine; growing
    the first ring only moves devices towards it.
    """
    place = int.from_bytes(hashlib.sha256(serial.encode()).digest()[:8], "big") % 10_000
    end = 0
    for ring in rings:
        end += round(ring.percent * 100)
        if place < end:
            return ring.name
    return rings[-1].name


RING_ATTRIBUTE = "ota-ring"
"""The attribute of a thing that somebody put into a ring by name: the ring's name. No hash moves
it. Things of other makers have attributes of their own, so its name is not simply `ring`."""
SERIAL_ATTRIBUTE = "serial"
"""The attribute of a thing whose hash says its ring; without it the thing's name does."""


class RingReason(StrEnum):
    """Why a thing belongs to a ring: the first of these that says something."""

    STACK = "the stack declares it"
    REGISTRY = "its serial's record names the ring"
    NAME = f"its attribute {RING_ATTRIBUTE} names the ring"
    SERIAL = f"the hash of its attribute {SERIAL_ATTRIBUTE}"
    THING = "the hash of its name"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A thing, as the registry has it."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    type_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class RingChoice:
    """The ring that a thing belongs to, and why."""

    ring: str
    reason: RingReason


def choose_ring(
    thing: Thing,
    rings: Sequence[RingShare],
    *,
    declared: Mapping[str, str],
    registered: Mapping[str, str],
) -> RingChoice:
    """The ring that a thing belongs to. `declared` and `registered` are rings by thing: of the
    stack's own devices, and of those whose serial's record names one. A name that is no ring's any
    more says nothing.

    >>> rings = [Share(name="canary", percent=10), Share(name="broad", percent=90)]
    >>> choose_ring(Thing(name="pump-7"), rings, declared={}, registered={})
    RingChoice(ring='broad', reason=<RingReason.THING: 'the hash of its name'>)
    """
    said = (
        (RingReason.STACK, declared.get(thing.name)),
        (RingReason.REGISTRY, registered.get(thing.name)),
        (RingReason.NAME, thing.attributes.get(RING_ATTRIBUTE)),
    )
    known = {ring.name for ring in rings}
    for reason, named in said:
        if named in known:
            return RingChoice(ring=str(named), reason=reason)
    serial = thing.attributes.get(SERIAL_ATTRIBUTE)
    reason = RingReason.SERIAL if serial else RingReason.THING
    return RingChoice(ring=ring_of(serial or thing.name, rings), reason=reason)
