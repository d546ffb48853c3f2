"""Devices that a way back could not bring back, as far as the controller has looked."""

from __future__ import annotations

from dataclasses import dataclass

from cloud.channel import Channel
from cloud.preflight import Obstacle, RingCheck, read_preflight


@dataclass(frozen=True, kw_only=True)
class UnreturnableReport:
    """A device that could not go back."""

    thing: str
    ring: str
    why: Obstacle
    at: float
    """When it was looked at."""


@dataclass(frozen=True, kw_only=True)
class RingCheckReport:
    """How far the look at one ring has come: the pass under way, else the last one."""

    ring: str
    devices: int
    """That could not go back, at least so many."""
    looked: int
    """Devices that the pass has come to."""
    skipped: int
    """Of these, those that AWS would not tell about."""
    began_at: float
    ended_at: float | None = None
    """None while the pass is under way."""
    last_ended_at: float | None = None
    """When the ring was last gone through; None before that."""
    problem: str | None = None
    """What AWS refused, the last time."""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What the controller found, before a way back needs it."""

    devices: int
    """That could not go back, at least so many."""
    named: tuple[UnreturnableReport, ...]
    """A few of them."""
    rings: tuple[RingCheckReport, ...]
    """Those that were looked at."""


def report_preflight(channel: Channel) -> PreflightReport | None:
    """None where nothing was looked at yet. One call."""
    known, _ = read_preflight(channel.bucket, channel.names)
    checks = [_report_ring(ring, check) for ring, check in known.rings.items()]
    rings = tuple(check for check in checks if check)
    named = tuple(
        UnreturnableReport(thing=one.thing, ring=ring, why=one.why, at=one.at)
        for ring, check in known.rings.items()
        for one in check.named
    )
    devices = sum(ring.devices for ring in rings)
    return PreflightReport(devices=devices, named=named, rings=rings) if rings else None


def _report_ring(ring: str, check: RingCheck) -> RingCheckReport | None:
    inspection = check.current or check.finished
    if inspection is None:
        return None
    return RingCheckReport(
        ring=ring,
        devices=check.found,
        looked=inspection.looked,
        skipped=inspection.skipped,
        began_at=inspection.began_at,
        ended_at=inspection.ended_at,
        last_ended_at=check.finished.ended_at if check.finished else None,
        problem=inspection.problem,
    )
