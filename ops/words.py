"""Times, lengths of time, digests and other people's text, as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime

from rollout.release import Firmware

SHOWN = 300
"""Characters of somebody else's text that are shown."""


def when(seconds: float) -> str:
    """A moment in local time and in UTC: `2026-11-24 09:03:10 CET (08:03:10 UTC)`."""
    at = datetime.fromtimestamp(seconds, UTC)
    local = at.astimezone()
    if local.utcoffset() == at.utcoffset():
        return f"{at:%Y-%m-%d %H:%M:%S} UTC"
    day = "" if local.date() == at.date() else f"{at:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({day}{at:%H:%M:%S} UTC)"


def length(seconds: float) -> str:
    """A length of time in its two greatest units: `2 d 3 h`, `4 min 10 s`."""
    rest, parts = round(max(seconds, 0)), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def since(at: float, now: float) -> str:
    return f"{when(at)}, {length(now - at)} ago"


def until(at: float, now: float) -> str:
    return (
        f"until {when(at)}, in {length(at - now)}"
        if at > now
        else f"until {when(at)}, {length(now - at)} ago"
    )


def named(firmware: Firmware) -> str:
    """A firmware's version and the beginning of its digest."""
    return f"{firmware.version} (sha256 {firmware.sha256[:12]}...)"


def devices(number: int) -> str:
    return f"{number} device" if number == 1 else f"{number} devices"


def clean(text: str) -> str:
    """Somebody else's text on one line, without control characters: what a device reports must not
    steer a terminal."""
    shown = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."
