"""How a release fares by chance: each device fails with the same chance, independently of others.

Exact for the pace of the expected course: the chances of every number of failures are carried from
one look of the controller to the next, and whoever is stopped, held or let pass there is counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, lgamma, log, sqrt
from operator import mul
from typing import NamedTuple

from forecast.assumptions import Assumptions
from forecast.population import ring_sizes
from forecast.simulated_job import devices_per_minute
from rollout.evidence import smallest_failing
from rollout.gates import Seen, missing_evidence
from rollout.observed import Counts
from rollout.release import FailureLimit, Gate, Manifest, Pace, RingPlan

FAILING_SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""True shares of failing devices for which luck is told."""
NEGLIGIBLE = 1e-10
"""A chance that is left out."""
RARE = 0.001
"""Of stops rarer than this nobody asks whom they reach."""
STEP = 1.01
"""Where a look would add less than a hundredth to what has begun and reported, it is left out: at
most about a thousand looks a ring, and a stop is told late by no more than that."""
WILLING = Seen(alarms={}, is_approved=True, is_approved_empty=True, is_fleet_empty=False, now=0.0)
"""What a gate asks for besides numbers of devices is there."""


class Look(NamedTuple):
    """What the controller sees of a ring, at a minute since its start."""

    minute: int
    began: int
    reported: int
    """Of those that began, succeeded or failed."""
    exposed: int
    """Devices that have begun once the cancel is through, if the release is stopped here."""


class Failures(NamedTuple):
    """The chances of `low`, `low + 1`, … failures among the devices that have reported. They add up
    to the chance of having come here."""

    low: int
    chances: Sequence[float]

    @property
    def chance(self) -> float:
        return sum(self.chances)

    def split(self, at: int) -> tuple[Failures, Failures]:
        """Fewer failures than `at`, and the rest."""
        index = max(0, at - self.low)
        high = Failures(self.low + index, self.chances[index:])
        return Failures(self.low, self.chances[:index]), high


NONE_YET = Failures(0, (1.0,))


@dataclass(frozen=True, kw_only=True)
class Luck:
    """How a release goes in one ring that it has come to, or in all of them, by its true share of
    failing devices. Shares and chances are from 0 to 1."""

    ring: str | None
    """None: all of them, one after the other."""
    failing: float
    stopped: float
    held: float
    """The chance that it is neither stopped nor let pass: a person decides."""
    passed: float
    exposed: int | None
    """The median of the devices that began until it is stopped, rings before included; None where
    stops are RARE."""
    exposed_most: int | None
    """As `exposed`, the number that is not passed in 95 % of the stops."""


def list_luck(manifest: Manifest, assumptions: Assumptions) -> Iterator[Luck]:
    """By share of failing devices: each ring, then all.

    Approvals are taken to be given and alarms to be quiet, and every device to be online.
    """
    for failing in FAILING_SHARES:
        before, reaches = 0, 1.0
        all_stops: dict[int, float] = defaultdict(float)
        for ring in manifest.rings:
            size = ring_sizes(manifest, assumptions)[ring.name]
            stops, passed = follow_ring(manifest, ring, size, failing, assumptions)
            stops = {before + exposed: chance for exposed, chance in stops.items()}
            yield _summarize(ring.name, failing, stops, passed)
            for exposed, chance in stops.items():
                all_stops[exposed] += reaches * chance
            before, reaches = before + size, reaches * passed
        yield _summarize(None, failing, all_stops, reaches)


def _summarize(ring: str | None, failing: float, stops: Mapping[int, float], passed: float) -> Luck:
    stopped = min(1.0, sum(stops.values()))
    told = stops if stopped >= RARE else {}
    return Luck(
        ring=ring,
        failing=failing,
        stopped=stopped,
        held=max(0.0, 1 - stopped - passed),
        passed=passed,
        exposed=find_quantile(told, 0.5),
        exposed_most=find_quantile(told, 0.95),
    )


def find_quantile(chances: Mapping[int, float], part: float) -> int | None:
    """The least number that at least this part of the chances does not pass."""
    whole, reached = sum(chances.values()), 0.0
    for number in sorted(chances):
        reached += chances[number]
        if reached >= part * whole:
            return number
    return None


def follow_ring(
    manifest: Manifest, ring: RingPlan, size: int, failing: float, assumptions: Assumptions
) -> tuple[dict[int, float], float]:
    """The chances of being stopped, by the devices exposed then, and of passing.

    The ring passes when the controller has seen its gate hold for the soak.
    """
    low, high = assumptions.update_minutes
    late = sum(m > manifest.in_progress_timeout_minutes for m in range(low, high + 1))
    share = 1 - (1 - failing) * (1 - late / (high - low + 1))
    looks, limit = list_looks(manifest.pace, size, share, assumptions), ring.gate.failure_limit
    stops: dict[int, float] = defaultdict(float)
    passed, soaking = 0.0, list[tuple[float, Failures]]()
    waiting, reported, checks_at, is_safe = NONE_YET, 0, 1, False
    for number, look in enumerate(looks):
        if number == checks_at:
            is_safe = is_safe or is_past_stops(waiting, looks[number - 1 :], share, limit)
            checks_at *= 2
        if is_safe and look.began < looks[-1].began:
            continue
        passed += sum(found.chance for until, found in soaking if ceil(until) < look.minute)
        soaking = [(until, found) for until, found in soaking if ceil(until) >= look.minute]
        groups = []
        for until, found in [(None, waiting), *soaking]:
            left, stopped = look_again(found, look, reported, share, limit)
            stops[look.exposed] += stopped
            groups.append((until, left))
        (_, waiting), *rest = groups
        soaking = [(until, found) for until, found in rest if until is not None]
        reported = look.reported
        if look.began == looks[-1].began:
            healthy, waiting = waiting.split(_count_bearable(ring.gate, look) + 1)
            if is_past_stops(healthy, looks[number:], share, limit):
                passed += healthy.chance
            else:
                soaking.append((look.minute + ring.gate.soak_minutes, healthy))
    return dict(stops), passed + sum(found.chance for _, found in soaking)


def look_again(
    failures: Failures, look: Look, reported: int, share: float, limit: FailureLimit
) -> tuple[Failures, float]:
    """After a look: the failures of a ring that goes on, and the chance that it is stopped here.

    `failures` are of the `reported` devices of the look before; `share` of the others fail.
    """
    found = _add(failures, draw_failures(look.reported - reported, share))
    needed = smallest_failing(limit, look.began)
    if needed is None:
        return found, 0.0
    left, stopped = found.split(needed)
    return left, stopped.chance


def is_past_stops(
    failures: Failures, looks: Sequence[Look], share: float, limit: FailureLimit
) -> bool:
    """Whether the chance of a stop is negligible after the first of these looks, at which so many
    have failed: at every later look, by Bernstein's inequality."""
    first, *later = looks
    most, third = failures.low + len(failures.chances) - 1, -log(NEGLIGIBLE) / 3
    for look in later:
        needed, devices = smallest_failing(limit, look.began), look.reported - first.reported
        variance = devices * share * (1 - share)
        likely = devices * share + third + sqrt(third**2 + 6 * third * variance)
        if needed is not None and most + likely >= needed:
            return False
    return True


def _count_bearable(gate: Gate, look: Look) -> int:
    """The most failures of those that have reported with which the gate still holds; -1 where it
    does not even without any."""
    low, high = -1, look.reported
    while low < high:
        middle = (low + high + 1) // 2
        counts = Counts(
            in_progress=look.began - look.reported,
            succeeded=look.reported - middle,
            failed=middle,
        )
        lacks = missing_evidence(gate, counts, WILLING, is_settled=True, is_overdue=False)
        low, high = (middle, high) if lacks is None else (low, middle - 1)
    return low


def list_looks(pace: Pace, size: int, share: float, assumptions: Assumptions) -> list[Look]:
    """What the controller sees, minute by minute, of a ring in which this share fails, until all
    have reported."""
    low, high = assumptions.update_minutes
    notified = began = minute = 0
    sums = [0]  # by minute: of what had begun after each minute before it
    seen: list[tuple[int, int, int]] = []
    while True:
        # every duration from low to high is equally frequent
        ended = sums[max(0, minute - low + 1)] - sums[max(0, minute - high)]
        reported = ended // (high - low + 1)
        seen.append((minute, began, reported))
        if notified == size and reported == began:
            break
        grown_by = notified if pace.increase_on == "notified" else int(reported * (1 - share))
        notified = min(size, notified + devices_per_minute(pace, grown_by))
        began = round(notified * (1 - assumptions.rejecting))
        sums.append(sums[-1] + began)
        minute += 1
    cancel = assumptions.cancel_takes(queued=0)
    looks, last = [], 0
    for minute, began, reported in seen:
        if began + reported > last * STEP or (minute == len(seen) - 1):
            exposed = seen[min(minute + cancel, len(seen) - 1)][1]
            looks.append(Look(minute, began, reported, exposed))
            last = began + reported
    return looks


# Chances


@lru_cache(maxsize=1024)
def draw_failures(devices: int, share: float) -> Failures:
    """The failures of so many devices that fail with this chance: a binomial distribution, without
    its negligible ends."""
    if share <= 0 or not devices:
        return NONE_YET
    if share >= 1:
        return Failures(devices, (1.0,))
    mode = min(devices, int((devices + 1) * share))
    places = lgamma(devices + 1) - lgamma(mode + 1) - lgamma(devices - mode + 1)
    top = exp(places + mode * log(share) + (devices - mode) * log(1 - share))
    odds = share / (1 - share)
    above, chance = [], top
    for number in range(mode + 1, devices + 1):
        chance *= (devices - number + 1) / number * odds
        if chance < NEGLIGIBLE:
            break
        above.append(chance)
    below, chance = [], top
    for number in range(mode, 0, -1):
        chance *= number / (devices - number + 1) / odds
        if chance < NEGLIGIBLE:
            break
        below.append(chance)
    return Failures(mode - len(below), (*reversed(below), top, *above))


def _add(one: Failures, other: Failures) -> Failures:
    """The failures of both together."""
    if not one.chances or other is NONE_YET:
        return one
    few, many = sorted((one.chances, other.chances), key=len)
    backwards, width = few[::-1], len(few)
    padding = [0.0] * (width - 1)
    padded = [*padding, *many, *padding]
    found = [
        sum(map(mul, backwards, padded[start : start + width]))
        for start in range(len(many) + width - 1)
    ]
    return _trim(Failures(one.low + other.low, found))


def _trim(failures: Failures) -> Failures:
    """Without its negligible ends."""
    chances = failures.chances
    start, end = 0, len(chances)
    while start < end and chances[start] < NEGLIGIBLE:
        start += 1
    while end > start and chances[end - 1] < NEGLIGIBLE:
        end -= 1
    return Failures(failures.low + start, chances[start:end])
