"""Ten releases and fleets that show what a stack's settings do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forecast.assumptions import START, Assumptions
from forecast.course import Course, summarize
from forecast.forecast import simulate_worse
from rollout.release import AlarmGate, Manifest

FRIDAY_EVENING = START + 4 * 86_400 + 10 * 3600
"""Friday, 18:00 UTC, in seconds since 1970."""
HEALTH = "device-health"
"""An alarm of the user's own on what devices do after an update."""


@dataclass(frozen=True)
class Scenario:
    """A release on a fleet."""

    name: str
    assumptions: Assumptions
    start: int = START
    has_health_alarm: bool = False
    """Every ring's gate has the alarm HEALTH, set to roll back."""

    @property
    def is_bad(self) -> bool:
        """Whether this release should not be on any device."""
        assumed = self.assumptions
        return bool(assumed.failing or assumed.silent) or assumed.alarm_after is not None


@dataclass(frozen=True, kw_only=True)
class ScenarioCourse:
    """How a scenario went."""

    name: str
    is_bad: bool
    course: Course


def list_scenarios(manifest: Manifest, assumptions: Assumptions) -> tuple[Scenario, ...]:
    first = (manifest.rings[0].name,)
    fails, silent = replace(assumptions, failing=1.0), replace(assumptions, silent=1.0)
    partly = replace(assumptions, failing=0.2, healthy_rings=first)
    late = replace(assumptions, alarm=HEALTH, alarm_after=8 * 60)
    weekend = replace(assumptions, offline=0.8, reconnect_from=62 * 60, reconnect_until=63 * 60)
    weekend_bad = replace(weekend, failing=1.0)
    return (
        Scenario("good", assumptions),
        Scenario("bad from the start: every self-test fails", fails),
        Scenario("bad in 5 % of the devices", replace(assumptions, failing=0.05)),
        Scenario("bad in 20 %, none of them in the first ring", partly),
        Scenario("every device begins and falls silent", silent),
        Scenario("good, 30 % offline, back over three days", replace(assumptions, offline=0.3)),
        Scenario("defect shows 8 h after installing, no alarm sees it", late),
        Scenario("the same, an alarm sees it and rolls back", late, has_health_alarm=True),
        Scenario("good, on Friday, 80 % offline until Monday", weekend, FRIDAY_EVENING),
        Scenario(
            "bad from the start, on Friday, 80 % offline until Monday", weekend_bad, FRIDAY_EVENING
        ),
    )


def run_scenario(manifest: Manifest, scenario: Scenario) -> ScenarioCourse:
    if scenario.has_health_alarm:
        alarm = AlarmGate(name=HEALTH, action="rollback")
        rings = tuple(
            replace(ring, gate=replace(ring.gate, alarms=(*ring.gate.alarms, alarm)))
            for ring in manifest.rings
        )
        manifest = replace(manifest, rings=rings)
    course = summarize(simulate_worse(manifest, scenario.assumptions, scenario.start))
    return ScenarioCourse(name=scenario.name, is_bad=scenario.is_bad, course=course)
