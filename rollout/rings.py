"""Rings: ordered slices of a fleet, and the rule that says which ring a device is in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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
