"""When rings may start: a start time and a recurring maintenance window, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rollout.release import Window

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
MINUTE = timedelta(minutes=1)
LOOK_AHEAD = timedelta(days=366)


@dataclass(frozen=True)
class Cron:
    """A cron line: the values each field allows; day and weekday as cron joins them (either, when
    both are given)."""

    minute: frozenset[int]
    hour: frozenset[int]
    day: frozenset[int]
    month: frozenset[int]
    weekday: frozenset[int]
    either_day: bool

    def on_day(self, at: datetime) -> bool:
        day, weekday = at.day in self.day, at.isoweekday() % 7 in self.weekday
        return at.month in self.month and (
            (day or weekday) if self.either_day else (day and weekday)
        )

    def matches(self, at: datetime) -> bool:
        return at.minute in self.minute and at.hour in self.hour and self.on_day(at)


def parse_cron(text: str) -> Cron:
    """Reads `minute hour day month weekday` with `*`, lists, ranges and steps; raises ValueError
    that says what is wrong."""
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise ValueError(
            f"{text!r} has {len(parts)} fields; cron has 5: minute hour day month weekday, such as"
            " '0 2 * * 1-5'"
        )
    minute, hour, day, month, weekday = (
        _field(part, *field) for part, field in zip(parts, FIELDS, strict=True)
    )
    weekday = frozenset(number % 7 for number in weekday)
    return Cron(
        minute,
        hour,
        day,
        month,
        weekday,
        not parts[2].startswith("*") and not parts[4].startswith("*"),
    )


def _field(text: str, name: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if match is None:
            raise ValueError(f"{name} {part!r} is not a number, a range 1-5, a step */15 or *")
        first, last, step = match.groups()
        start = int(first) if first else low
        end = int(last) if last else (high if not first or step else start)
        if not low <= start <= end <= high or step == "0":
            raise ValueError(f"{name} {part!r} is not within {low} to {high}")
        values.update(range(start, end + 1, int(step or 1)))
    return frozenset(values)


def parse_time(text: str) -> datetime:
    """A UTC time such as 2026-12-01T02:00:00Z; raises ValueError for any other form."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text):
        raise ValueError(f"{text!r} is not a UTC time such as 2026-12-01T02:00:00Z")
    return datetime.fromisoformat(text)


def next_opening(now: datetime, start_at: str | None, window: Window | None) -> datetime | None:
    """When a ring may start: `now` where it may at once, else the next opening; None where none
    comes within a year."""
    at = max(now, parse_time(start_at)) if start_at else now
    if window is None:
        return at
    cron = parse_cron(window.cron)
    minute = at.replace(second=0, microsecond=0)
    if any(cron.matches(minute - MINUTE * back) for back in range(window.minutes)):
        return at
    return _next_match(cron, minute + MINUTE, minute + LOOK_AHEAD)


def _next_match(cron: Cron, at: datetime, end: datetime) -> datetime | None:
    while at <= end:
        if not cron.on_day(at):
            at = at.replace(hour=0, minute=0) + timedelta(days=1)
        elif at.hour not in cron.hour:
            at = at.replace(minute=0) + timedelta(hours=1)
        elif at.minute not in cron.minute:
            at += MINUTE
        else:
            return at
    return None


def to_datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def show(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
