"""What a release will do, from its manifest alone: when rings start, whom a bad one reaches, costs,
limits. Times are in minutes from the first run of the controller, money in US dollars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from forecast.assumptions import START, Assumptions
from forecast.aws_limits import Limit, check_limits
from forecast.bounds import bound_exposure
from forecast.costs import BillLine, bill_month
from forecast.course import Course, summarize
from forecast.luck import Luck, list_luck
from forecast.simulation import Simulation
from rollout.release import Manifest
from rollout.version import Version
from rollout.window import parse_time

How = Literal["fails", "falls silent", "is ordered back"]


@dataclass(frozen=True, kw_only=True)
class BadCourse:
    """A release that turns out bad in one ring: every device there and after it that takes it
    fails, or falls silent.

    Or, without a ring, one that was released and that a person orders back.
    """

    ring: str | None
    how: How
    bound: int
    """The most devices that it can reach, whatever the luck."""
    course: Course


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a release will do."""

    version: Version
    channel: str
    assumptions: Assumptions
    good: Course
    bad: tuple[BadCourse, ...]
    luck: tuple[Luck, ...]
    limits: tuple[Limit, ...]
    monthly: tuple[BillLine, ...]
    """What the stack costs a month while nothing is released."""


def forecast_release(
    manifest: Manifest, assumptions: Assumptions, *, is_provisioned: bool = False
) -> tuple[Forecast, Simulation, Simulation]:
    """The forecast, and the simulations that its plot shows: good, and bad from the first ring on.
    `is_provisioned`: whether devices come in by claim, which costs alarms of its own.

    >>> forecast, _, _ = forecast_release(settings.manifest, Assumptions(devices=250_000))
    >>> forecast.good.end, forecast.bad[0].course.exposed
    ('good', 60)
    """
    good_simulation = simulate(manifest, assumptions)
    good = summarize(good_simulation)
    bad, bad_simulations = [], []
    for ring, how, assumed in _list_bad(manifest, assumptions):
        simulation = simulate_worse(manifest, assumed)
        bound, course = bound_exposure(simulation, ring), summarize(simulation)
        bad.append(BadCourse(ring=ring, how=how, bound=bound, course=course))
        bad_simulations.append(simulation)
    if good.end == "good":
        late = summarize(simulate(manifest, replace(assumptions, rollback_ordered_after=0)))
        bad.append(BadCourse(ring=None, how="is ordered back", bound=late.devices, course=late))
    made = Forecast(
        version=manifest.firmware.version,
        channel=manifest.channel,
        assumptions=assumptions,
        good=good,
        bad=tuple(bad),
        luck=tuple(list_luck(manifest, assumptions)),
        limits=check_limits(manifest, assumptions, [good, *(one.course for one in bad)]),
        monthly=bill_month(len(manifest.rings), is_provisioned=is_provisioned),
    )
    return made, good_simulation, bad_simulations[0]


def _list_bad(
    manifest: Manifest, assumptions: Assumptions
) -> Iterator[tuple[str, How, Assumptions]]:
    """Every ring that a release can turn out bad in, and both ways."""
    share = 1.0 - assumptions.rejecting
    healthy: tuple[str, ...] = ()
    for ring in manifest.rings:
        bad = replace(assumptions, healthy_rings=healthy, failing=0.0, silent=0.0)
        yield ring.name, "fails", replace(bad, failing=share)
        yield ring.name, "falls silent", replace(bad, silent=share)
        healthy = (*healthy, ring.name)


def simulate(manifest: Manifest, assumptions: Assumptions, start: int | None = None) -> Simulation:
    """Begins at `start`, in seconds since 1970; else at the manifest's start time, where that is
    later than START."""
    if start is None:
        start_at = int(parse_time(manifest.start_at).timestamp()) if manifest.start_at else START
        start = max(START, start_at)
    return Simulation(manifest, assumptions, start=start).run()


def simulate_worse(
    manifest: Manifest, assumptions: Assumptions, start: int | None = None
) -> Simulation:
    """Under both readings of what IoT counts as executed: the course that exposes more."""
    finished = simulate(manifest, replace(assumptions, executed="finished"), start)
    if not assumptions.rejecting:
        return finished  # both come to the same
    ended = simulate(manifest, replace(assumptions, executed="ended"), start)
    return max(finished, ended, key=lambda simulation: simulation.fleet.exposed)
