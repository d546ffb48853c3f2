"""When a ring's failures are evidence against its release, however often one looks.

For the limit p and fixed alternatives q above it, of n devices that began and f that fail, the
likelihood ratio of q against p is `(q/p)**f * ((1-q)/(1-p))**(n-f)`. Its mean over the
alternatives is an e-process: as long as a device fails with a chance of at most p, each further
device multiplies a ratio by 1 or less on average, so that the mean ever reaches 1/a with a chance
of at most a, at whatever times and however often it is looked at (Ville's inequality; Robbins 1970;
Johari, Koomen, Pekelis and Walsh 2022; Waudby-Smith and Ramdas 2024).

A device that is still under way counts among those that do not fail. The value is then never above
that of the same devices once all have reported, so failures that report faster than successes add
nothing.

What the chance does not cover is failures that come together, such as a site that loses power:
that is what people, and MINIMUM_FAILING, are for.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, log

from rollout.release import FailureLimit

MULTIPLES = (2, 4, 8, 16)
"""The alternatives, as multiples of the limit; beside them SHARES."""
SHARES = (0.5, 0.95)
"""Alternatives whatever the limit; the second is also the highest that a multiple may be."""
PERCENTS, FALSE_STOPS = (0.1, 50.0), (0.01, 50.0)
"""The least and the most that a limit's two percentages may be; whatever is outside is taken for
the nearest of them."""
MINIMUM_FAILING = 2
"""Devices: one that fails is no evidence, whatever the limit."""


@lru_cache(maxsize=4096)
def smallest_failing(limit: FailureLimit, began: int) -> int | None:
    """The fewest failing devices that fail a ring in which so many began; None where even all of
    them would not.

    With `limit.devices`, at most that many. Costs some 50 µs for a million devices.

    >>> smallest_failing(FailureLimit(percent=5), 100)
    15
    """
    found = _find_evidence(limit, began)
    if limit.devices is None:
        return found
    devices = max(1, limit.devices)
    return found if devices > began else min(found or devices, devices)


def is_failing(limit: FailureLimit, began: int, failing: int) -> bool:
    """Whether the ring has failed: on evidence, or on `limit.devices`."""
    needed = smallest_failing(limit, began)
    return needed is not None and failing >= needed


def _find_evidence(limit: FailureLimit, began: int) -> int | None:
    if not _is_evidence(limit, began, began):
        return None
    low, high = MINIMUM_FAILING, began
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_evidence(limit, began, middle) else (middle + 1, high)
    return low


def _is_evidence(limit: FailureLimit, began: int, failing: int) -> bool:
    if failing < MINIMUM_FAILING:
        return False
    weights = _log_ratios(_clamp(limit.percent, PERCENTS))
    ratios = [failing * fails + (began - failing) * works for fails, works in weights]
    highest = max(ratios)
    mean = highest + log(sum(exp(ratio - highest) for ratio in ratios) / len(ratios))
    return mean >= log(100 / _clamp(limit.false_stop_percent, FALSE_STOPS))


def _clamp(number: float, bounds: tuple[float, float]) -> float:
    return min(max(number, bounds[0]), bounds[1])


@lru_cache(maxsize=64)
def _log_ratios(percent: float) -> tuple[tuple[float, float], ...]:
    """By alternative, the logarithm of what a device that fails, and one that does not, multiplies
    its likelihood ratio by."""
    p, highest = percent / 100, max(SHARES)
    found = {*SHARES, *(min(times * p, highest) for times in MULTIPLES)}
    return tuple((log(q / p), log((1 - q) / (1 - p))) for q in sorted(found) if q > p)
