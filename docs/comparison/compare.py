"""The stack `prod` beside the public recipe that this project replaces: the table in README.md.

>>> python -m docs.comparison.compare
"""

from __future__ import annotations

from dataclasses import replace

from components.stack_file import ROOT
from forecast.assumptions import Assumptions
from forecast.cli import UNDECLARED, read_settings
from forecast.course import find_rolled_back
from forecast.scenarios import Scenario, list_scenarios, run_scenario
from forecast.simulated_fleet import SimulatedFleet
from forecast.tables import SCENARIO_COLUMNS, Table, format_markdown, format_minutes, scenario_cells
from rollout.release import Abort, Manifest, Pace, RingPlan

JOB = "unattended"


def main() -> None:
    manifest = read_settings(ROOT / "Pulumi.prod.yaml").manifest
    rows = []
    for scenario in list_scenarios(manifest, Assumptions(devices=UNDECLARED)):
        rows.append([scenario.name, "prod", *scenario_cells(run_scenario(manifest, scenario))])
        rows.append(["", "recipe", *recipe_cells(recipe(manifest), scenario)])
    columns = [SCENARIO_COLUMNS[0], "settings", *SCENARIO_COLUMNS[1:]]
    print(format_markdown(Table(f"{UNDECLARED:,} devices", columns, rows)))


def recipe(manifest: Manifest) -> Manifest:
    """The recipe's settings: one job for all devices, 10 a minute, stopped by IoT at 25 % FAILED of
    at least 3. Firmware and time-out are the manifest's."""
    return replace(
        manifest,
        rings=(RingPlan(name="all", percent=100.0),),
        pace=Pace(maximum_per_minute=10),
        abort=(Abort(on="FAILED", percent=25.0, minimum=3),),
        start_at=None,
        window=None,
    )


def run_unattended(manifest: Manifest, assumptions: Assumptions) -> SimulatedFleet:
    """IoT alone: one job for the first ring, no controller, nobody who watches it."""
    fleet = SimulatedFleet(manifest, assumptions)
    fleet.create_candidate(JOB, manifest.rings[0].name)
    while True:
        is_rolling = fleet.roll_out()
        upcoming = [fleet.minute + 1] if is_rolling else [*fleet.upcoming(has_joiners=False)]
        if not upcoming:
            return fleet
        fleet.advance(max(min(upcoming), fleet.minute + 1), has_joiners=False)


def stop_minute(fleet: SimulatedFleet) -> int | None:
    """When IoT's abort criteria stopped the job; None where they did not."""
    return fleet.jobs[JOB].canceled_at


def recipe_cells(manifest: Manifest, scenario: Scenario) -> list[str]:
    """As `scenario_cells`. Nothing rolls back: only a device whose self-test fails goes back, by
    itself."""
    fleet = run_unattended(manifest, scenario.assumptions)
    stopped = stop_minute(fleet)
    outcome, back = f"released after {format_minutes(fleet.minute)}", "-"
    if stopped is not None:
        rolled_back = find_rolled_back(fleet, stopped)
        outcome = f"stopped after {format_minutes(stopped)}"
        back = "never" if rolled_back is None else format_minutes(rolled_back - stopped)
    left = fleet.updated + fleet.silent if scenario.is_bad else 0
    executions = fleet.jobs[JOB].executions
    return [outcome, f"{fleet.exposed:,}", back, f"{left:,}", f"{executions:,}"]


if __name__ == "__main__":
    main()
