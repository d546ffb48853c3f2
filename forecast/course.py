"""What a simulated release came to: times, devices, executions. Times are in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from forecast.costs import MESSAGES_AN_UPDATE, MESSAGES_OTHERWISE, BillLine, bill
from forecast.simulated_fleet import SimulatedFleet
from forecast.simulated_job import SimulatedJob
from forecast.simulation import Simulation


@dataclass(frozen=True)
class RingCourse:
    """A ring in one release."""

    name: str
    size: int
    started: int | None
    passed: int | None
    exposed: int
    """Devices that began the new firmware."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one simulated release went."""

    end: Literal["good", "stopped", "waiting"]
    released: int | None
    """When the last ring passed."""
    waiting: str
    """What the channel waits for at the end."""
    rings: tuple[RingCourse, ...]
    devices: int
    exposed: int
    stopped: int | None
    """When it was stopped."""
    stopped_why: str | None
    rolled_back: int | None
    """When the last exposed device that answers ran the last good release again; None where some
    never do."""
    rollback_confirmed: int | None
    """When the controller had seen every exposed device on the last good release."""
    silent: int
    """Devices that do not answer any more: only hands bring them back."""
    updated: int
    """Devices that run the new firmware at the end."""
    executions: int
    rollback_executions: int
    """Of `executions`, for the rollback: one for every exposed device, and the jobs of the last
    good release in rings that had passed."""
    bill: tuple[BillLine, ...]
    """What the release costs beside the stack, its rollback included."""
    most_begun: int
    """Devices that began in the busiest minute."""
    most_jobs: int
    """Most live jobs at once."""


def summarize(simulation: Simulation) -> Course:
    """What a simulation that has run came to."""
    fleet, jobs = simulation.fleet, list(simulation.fleet.jobs.values())
    stops = [event for event in simulation.events if event.what in ("failed", "rollback")]
    confirmed = [event.at for event in simulation.events if event.what == "rolled-back"]
    stopped = _minute(simulation, stops[0].at) if stops else None
    returning = [job for job in jobs if not job.carries_release and _is_after(job, stopped)]
    executions = sum(job.executions for job in jobs)
    installs, idle = fleet.downloads, max(executions - fleet.downloads, 0)
    quantities = {
        "action": executions,
        "message": installs * MESSAGES_AN_UPDATE + idle * MESSAGES_OTHERWISE,
        "registry": installs + fleet.enrolled,
        "get": installs,
        "transfer": installs * simulation.manifest.firmware.size,
        "sign": fleet.creations + simulation.writes,
    }
    rings = []
    for name, ring in fleet.rings.items():
        exposed = sum(job.exposed for job in jobs if job.ring == name and job.carries_release)
        rings.append(RingCourse(name, ring.size, ring.started, ring.passed, exposed))
    unfinished: Literal["good", "waiting"] = "waiting" if simulation.released is None else "good"
    return Course(
        end="stopped" if stops else unfinished,
        released=simulation.released,
        waiting=simulation.state.waiting.text,
        rings=tuple(rings),
        devices=fleet.size,
        exposed=fleet.exposed,
        stopped=stopped,
        stopped_why=stops[0].why if stops else None,
        rolled_back=find_rolled_back(fleet, stopped),
        rollback_confirmed=_minute(simulation, confirmed[0]) if confirmed else None,
        silent=fleet.silent,
        updated=fleet.updated,
        executions=executions,
        rollback_executions=sum(job.executions for job in returning),
        bill=bill(quantities),
        most_begun=fleet.most_begun,
        most_jobs=fleet.most_jobs,
    )


def _is_after(job: SimulatedJob, stopped: int | None) -> bool:
    return stopped is not None and job.made_at >= stopped


def _minute(simulation: Simulation, at: float) -> int:
    return int(at - simulation.start) // 60


def find_rolled_back(fleet: SimulatedFleet, stopped: int | None) -> int | None:
    """When the last exposed device that answers ran the last good release again. Devices whose
    self-test fails go back by themselves."""
    if stopped is None or fleet.updated:
        return None
    pairs = pairwise(fleet.points)
    changes = [later.minute for earlier, later in pairs if earlier.updated != later.updated]
    reverts = [c.end for job in fleet.jobs.values() for c in job.cohorts if c.result == "fail"]
    return max([stopped, *changes, *reverts])
