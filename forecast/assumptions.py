"""What a forecast takes for granted of devices, of people, and of AWS where it does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

DAY = 24 * 60
"""Minutes."""
START = 1_767_600_000
"""Monday, 2026-01-05 08:00 UTC, in seconds since 1970: when a simulated release begins unless its
manifest names a later time."""
CANCELED_A_MINUTE = 1000
"""Queued executions that IoT cancels, while isConcurrent is true and devices still get the others.

See https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html
"""
Executed = Literal["finished", "ended"]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Shares are from 0 to 1, times in minutes from the first run of the controller."""

    devices: int = 10_000
    ring_sizes: Mapping[str, int] | None = None
    """Devices by ring where they are known; else the rings' percentages of `devices`."""
    failing: float = 0.0
    """Share whose self-test fails on the new firmware."""
    silent: float = 0.0
    """Share that the new firmware bricks: they begin and are never heard of again."""
    rejecting: float = 0.0
    """Share that answers REJECTED."""
    healthy_rings: tuple[str, ...] = ()
    """Rings in which none fails or falls silent."""
    offline: float = 0.0
    """Share that is offline at the start."""
    reconnect_from: int = 0
    reconnect_until: int = 3 * DAY
    """Offline devices reconnect evenly between these minutes, none before the first."""
    joins_per_day: int = 0
    update_minutes: tuple[int, int] = (4, 6)
    """The shortest and longest update, from its beginning to its result, at least 1; all between
    are equally frequent."""
    cancel_minutes: int | None = None
    """How long IoT takes to cancel a job; None: CANCELED_A_MINUTE of what is queued, and a minute
    at least."""
    executed: Executed = "finished"
    """What IoT's abort criteria count as executed: what finished, or also what was rejected and
    cancelled. AWS does not say."""
    approval_minutes: int | None = 0
    """How long a person takes to approve when asked; None: nobody does."""
    alarm: str | None = None
    """The alarm, by the name that gates use, that sees what devices do not report themselves."""
    alarm_after: int | None = None
    """Minutes from the first installed device until `alarm` goes to ALARM."""
    rollback_ordered_after: int | None = None
    """Minutes from the end of the last ring until a person orders a rollback; None: nobody does."""

    def cancel_takes(self, queued: int) -> int:
        """Minutes until a job with so many queued executions is cancelled."""
        if self.cancel_minutes is not None:
            return self.cancel_minutes
        return max(1, ceil(queued / CANCELED_A_MINUTE))
