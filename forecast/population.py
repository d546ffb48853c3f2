"""Devices counted by what they will do, so that a million cost what a thousand do.

Shares are spread evenly (every twentieth device, for 5 %): a simulation shows the expected course,
and `forecast.bounds` what limits bad luck.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from forecast.assumptions import Assumptions
from rollout.release import Manifest

Result = Literal["install", "fail", "silent", "reject", "same", "gone", "late"]
"""What a device makes of a job: it installs, fails its self-test, begins and is not heard of again
before IoT's time-out, rejects, runs that firmware already, does not answer any more, or installs
after IoT's time-out."""
K = TypeVar("K", bound=Hashable)


class Segment(NamedTuple):
    """Devices that a job has not reached yet and that will behave alike."""

    result: Result
    is_online: bool = True
    ready: int = 0
    """The minute from which they can take a job: until then they are busy with another."""


def apportion(total: int, weights: Iterable[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to `total` (largest remainders)."""
    shares = list(weights)
    whole = sum(shares) or 1.0
    exact = [total * share / whole for share in shares]
    found = [int(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda index: found[index] - exact[index])
    for index in order[: total - sum(found) if any(shares) else 0]:
        found[index] += 1
    return found


def apportion_next(
    number: int,
    weights: Mapping[K, float],
    remainders: dict[K, float],
    most: Mapping[K, int] | None = None,
) -> dict[K, int]:
    """`number` in proportion to the weights, at most `most` of each; `remainders` carries the
    fractions over to the next call."""
    whole = sum(weights.values())
    found: dict[K, int] = {}
    left = number
    for key, weight in weights.items():
        remainders[key] = remainders.get(key, 0.0) + number * weight / whole
        found[key] = max(0, min(int(remainders[key]), left, most[key] if most else left))
        left -= found[key]
    for _ in range(left):
        key = max(
            (key for key in found if most is None or found[key] < most[key]),
            key=lambda key: remainders[key] - found[key],
        )
        found[key] += 1
    for key, share in found.items():
        remainders[key] -= share
    return {key: share for key, share in found.items() if share}


def take_next(number: int, counts: dict[K, int], remainders: dict[K, float]) -> dict[K, int]:
    """Takes `number` devices, or all where there are fewer, out of `counts`, in proportion to what
    is left of each."""
    if number >= sum(counts.values()):
        found = dict(counts)
        counts.clear()
        return found
    found = apportion_next(number, counts, remainders, counts)
    for key, taken in found.items():
        add_to(counts, key, -taken)
    return found


def add_to(counts: dict[K, int], key: K, number: int) -> None:
    """Adds to a count, which is left out when it is 0."""
    counts[key] = counts.get(key, 0) + number
    if not counts[key]:
        del counts[key]


@dataclass(kw_only=True)
class SimulatedRing:
    """A ring's devices, and how the release went there; times in minutes."""

    name: str
    shares: dict[Result, float]
    """Of its devices, by what they make of the new firmware; joiners have the same."""
    offline_at_start: int
    population: dict[Segment, int] = field(default_factory=dict)
    reconnected: int = 0
    """Of `offline_at_start`, the devices that have reconnected."""
    reconnect_remainders: dict[Segment, float] = field(default_factory=dict)
    join_remainders: dict[Result, float] = field(default_factory=dict)
    started: int | None = None
    passed: int | None = None
    approval_asked: int | None = None
    """When its approval was first asked for."""

    @property
    def size(self) -> int:
        return sum(self.population.values())

    @property
    def offline(self) -> int:
        return self.offline_at_start - self.reconnected

    def next_reconnection(self, assumptions: Assumptions) -> int | None:
        """The minute in which the next device reconnects."""
        if not self.offline:
            return None
        span = assumptions.reconnect_until - assumptions.reconnect_from
        nth = self.reconnected + 1
        return assumptions.reconnect_from + -(-nth * span // self.offline_at_start)

    def reconnect(self, minute: int, assumptions: Assumptions) -> int:
        """Puts the devices online that reconnect until this minute; how many they are."""
        since = minute - assumptions.reconnect_from
        span = assumptions.reconnect_until - assumptions.reconnect_from
        if since < 0 or not self.offline:
            return 0
        whole = self.offline_at_start
        number = (whole if since >= span else whole * since // span) - self.reconnected
        self.reconnected += number
        offline = {key: count for key, count in self.population.items() if not key.is_online}
        taken = take_next(number, offline, self.reconnect_remainders) if number else {}
        for segment, count in taken.items():
            add_to(self.population, segment, -count)
            add_to(self.population, segment._replace(is_online=True), count)
        return number

    def join(self, number: int) -> dict[Result, int]:
        """Adds new devices; how many make what of the new firmware."""
        joiners = apportion_next(number, self.shares, self.join_remainders)
        for result, count in joiners.items():
            add_to(self.population, Segment(result), count)
        return joiners


def ring_sizes(manifest: Manifest, assumptions: Assumptions) -> dict[str, int]:
    """Devices by ring at the start."""
    if assumptions.ring_sizes is not None:
        return {ring.name: assumptions.ring_sizes.get(ring.name, 0) for ring in manifest.rings}
    numbers = apportion(assumptions.devices, (ring.percent for ring in manifest.rings))
    return {ring.name: number for ring, number in zip(manifest.rings, numbers, strict=True)}


def populate_ring(name: str, size: int, assumptions: Assumptions) -> SimulatedRing:
    is_bad = name not in assumptions.healthy_rings
    shares: dict[Result, float] = {
        "fail": assumptions.failing * is_bad,
        "silent": assumptions.silent * is_bad,
        "reject": assumptions.rejecting,
    }
    shares = {"install": 1.0 - sum(shares.values()), **shares}
    numbers = dict(zip(shares, apportion(size, shares.values()), strict=True))
    offline_at_start = round(size * assumptions.offline)
    offline = dict(zip(numbers, apportion(offline_at_start, numbers.values()), strict=True))
    ring = SimulatedRing(name=name, shares=shares, offline_at_start=offline_at_start)
    for result, number in numbers.items():
        add_to(ring.population, Segment(result, is_online=False), offline[result])
        add_to(ring.population, Segment(result), number - offline[result])
    return ring
