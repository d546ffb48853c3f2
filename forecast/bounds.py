"""The most devices that a bad release can reach, whatever the luck."""

from __future__ import annotations

from forecast.assumptions import DAY, Assumptions
from forecast.simulated_job import devices_per_minute
from forecast.simulation import Simulation
from rollout.evidence import is_failing
from rollout.release import RingPlan

MANY = 10**9
"""Devices: more than any rate needs to reach its maximum."""


def bound_exposure(simulation: Simulation, ring: str) -> int:
    """The most devices that a release which turns out bad in `ring` can have reached before it is
    stopped; raises KeyError for a ring that is not there.

    Where every device there fails or falls silent: the ones needed for a verdict, and all that the
    rate allows until their results are in, the controller has looked (every minute) and the cancel
    is through. Where only some do, or where devices are offline and take up what is queued all at
    once: the ring. Rings before it had passed, whole.
    """
    assumptions, before = simulation.assumptions, 0
    for plan in simulation.manifest.rings:
        size = simulation.fleet.rings[plan.name].size
        if plan.name != ring:
            before += size
            continue
        is_bad_everywhere = (
            assumptions.failing + assumptions.silent + assumptions.rejecting >= 1 - 1e-9
            and not assumptions.offline
            and ring not in assumptions.healthy_rings
        )
        return before + (min(size, _until_verdict(simulation, plan)) if is_bad_everywhere else size)
    raise KeyError(ring)


def _until_verdict(simulation: Simulation, ring: RingPlan) -> int:
    """Devices reached when none succeeds, from the ring's start until the cancel is through."""
    manifest, assumptions = simulation.manifest, simulation.assumptions
    pace, timeout = manifest.pace, manifest.in_progress_timeout_minutes
    result_in = timeout if assumptions.silent else min(assumptions.update_minutes[1], timeout)
    fastest = devices_per_minute(pace, MANY if pace.increase_on == "notified" else 0)
    under_way = result_in * fastest + _most_joiners(assumptions, result_in)
    reached = _needed_for_verdict(ring, simulation.fleet.rings[ring.name].size, under_way) - 1
    minutes = result_in + assumptions.cancel_takes(queued=0)
    for _ in range(minutes):
        # whoever rejects was notified, too, and nobody knows how many did
        notified = MANY if assumptions.rejecting else reached
        reached += devices_per_minute(pace, notified if pace.increase_on == "notified" else 0)
    return reached + _most_joiners(assumptions, minutes)


def _needed_for_verdict(ring: RingPlan, size: int, under_way: int) -> int:
    """How many failing devices are a verdict although so many more have begun; more than `size`
    where the ring is too small for one."""
    low, high = 1, size + 1
    while low < high:
        middle = (low + high) // 2
        is_verdict = is_failing(ring.gate.failure_limit, middle + under_way, middle)
        low, high = (low, middle) if is_verdict else (middle + 1, high)
    return low


def _most_joiners(assumptions: Assumptions, minutes: int) -> int:
    joins = assumptions.joins_per_day
    return joins * (minutes + 1) // DAY + 1 if joins else 0
