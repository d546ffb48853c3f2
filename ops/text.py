"""Times, durations, digests and other people's text, as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime

from cloud.shadows import Reported
from rollout.release import Firmware

MAX_SHOWN = 300
"""Characters of somebody else's text that are shown."""


def format_time(seconds: float) -> str:
    """A moment in local time and in UTC: `2026-11-24 09:03:10 CET (08:03:10 UTC)`."""
    at = datetime.fromtimestamp(seconds, UTC)
    local = at.astimezone()
    if local.utcoffset() == at.utcoffset():
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"
    day = "" if local.date() == at.date() else f"{at:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({day}{at:%H:%M:%S} UTC)"


def format_duration(seconds: float) -> str:
    """A length of time in its two greatest units: `2 d 3 h`, `4 min 10 s`."""
    rest, parts = round(max(seconds, 0)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def format_since(at: float, now: float) -> str:
    return f"{format_time(at)}, {format_duration(now - at)} ago"


def format_until(at: float, now: float) -> str:
    if at > now:
        return f"until {format_time(at)}, in {format_duration(at - now)}"
    return f"until {format_since(at, now)}"


def describe_firmware(firmware: Firmware | Reported | None) -> str:
    """A firmware's version and the beginning of its digest."""
    return f"{firmware.version} (sha256 {firmware.sha256[:12]}...)" if firmware else "none"


def count_devices(number: int) -> str:
    return f"{number} device" if number == 1 else f"{number} devices"


def one_line(text: str) -> str:
    """Somebody else's text on one line, without control characters: what a device reports must not
    steer a terminal."""
    shown = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."
