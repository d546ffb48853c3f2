"""Maintenance windows open when cron says, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.release import Window
from rollout.window import next_opening, parse_cron, parse_time

TUESDAY = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "minutes", "opens"),
    [
        ("0 2 * * *", 60, "2026-11-25T02:00:00Z"),
        ("0 2 * * *", 361, "2026-11-24T08:00:00Z"),
        ("0 2 * * *", 360, "2026-11-25T02:00:00Z"),
        ("0 2 * * 6,7", 60, "2026-11-28T02:00:00Z"),
        ("0 2 * * 0", 60, "2026-11-29T02:00:00Z"),
        ("*/15 8-17 * * 1-5", 5, "2026-11-24T08:00:00Z"),
        ("30 1 29 2 *", 60, None),
        ("0 0 1 * 1", 60, "2026-11-30T00:00:00Z"),  # day and weekday both given: either
        ("0 22 23 11 *", 601, "2026-11-24T08:00:00Z"),  # over midnight
    ],
)
def test_a_window_opens_when_cron_says(cron: str, minutes: int, opens: str | None) -> None:
    found = next_opening(TUESDAY, None, Window(cron=cron, minutes=minutes))
    assert found == (parse_time(opens) if opens else None)


def test_nothing_starts_before_the_start_time_even_in_a_window() -> None:
    window = Window(cron="0 * * * *", minutes=60)
    assert next_opening(TUESDAY, "2026-12-01T02:30:00Z", window) == datetime(
        2026, 12, 1, 2, 30, tzinfo=UTC
    )
    assert next_opening(TUESDAY, "2026-11-01T00:00:00Z", None) == TUESDAY


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 23), st.integers(1, 1430))
def test_a_window_is_open_at_the_time_it_names(
    later: int, minute: int, hour: int, minutes: int
) -> None:
    now, window = (
        TUESDAY + timedelta(seconds=later),
        Window(cron=f"{minute} {hour} * * *", minutes=minutes),
    )
    opens = next_opening(now, None, window)
    assert opens is not None
    assert next_opening(opens, None, window) == opens
    assert now <= opens <= now + timedelta(days=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "* * * * 8",
    ],
)
def test_a_bad_cron_line_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=r"cron has 5|is not"):
        parse_cron(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-01",
        "2026-12-01T02:00:00",
        "2026-12-01T02:00:00+01:00",
        "2026-13-01T02:00:00Z",
        "now",
    ],
)
def test_only_utc_times_are_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"UTC|month"):
        parse_time(text)
