"""The devices over time, as an SVG picture: two diagrams, one above the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from forecast.forecast import Forecast
from forecast.simulation import Simulation

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 80, 980, 40, 340, 400
"""The frame of a diagram, and what it takes up, in pixels; the picture is 1,000 wide."""
BLUE, ORANGE, GREEN, RED, GREY = "#1f77b4", "#d95f02", "#2ca02c", "#d62728", "#888888"
UNIT_MINUTES = {"hours": 60, "minutes": 1}
BAD_TITLE = "if every device fails, from the first ring on"
Curve = tuple[str, str, Sequence[tuple[int, int]]]
"""Label, colour, and steps: from each minute on, so many devices."""
Mark = tuple[int, str, str]
"""Minute, colour and label of a vertical line."""


def draw_forecast(stack: str, forecast: Forecast, good: Simulation, bad: Simulation) -> str:
    """The release with its rings' starts and ends, and one that is bad from the first ring on."""
    installed, worst = f"running {forecast.version}", forecast.bad[0]
    rings, stopped = forecast.good.rings, worst.course.stopped
    stops = [] if stopped is None else [(stopped, GREY, "stopped")]
    marks = [(r.started, GREY, r.name) for r in rings if r.started is not None]
    marks += [(r.passed, GREEN, "") for r in rings if r.passed is not None]
    updated = (installed, BLUE, [(p.minute, p.updated) for p in good.fleet.points])
    exposed = ("exposed", ORANGE, [(p.minute, p.exposed) for p in bad.fleet.points])
    still = (installed, BLUE, [(p.minute, p.updated) for p in bad.fleet.points])
    bound = ("exposed at most", RED, [(0, worst.bound)])
    title = f"{forecast.version} on {stack}, {forecast.good.devices:,} devices"
    title += ": rings start (grey) and end (green)"
    diagrams = (
        _diagram(title, "hours", good, [updated], marks),
        _diagram(BAD_TITLE, "minutes", bad, [bound, exposed, still], stops),
    )
    size = f'viewBox="0 0 1000 {2 * HEIGHT}" font-family="sans-serif" font-size="13"'
    moved = (f'<g transform="translate(0 {HEIGHT * i})">{d}</g>' for i, d in enumerate(diagrams))
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{background}{"".join(moved)}</svg>\n'


def _diagram(
    title: str, unit: str, simulation: Simulation, curves: Sequence[Curve], marks: Iterable[Mark]
) -> str:
    end, unit_minutes = max(simulation.fleet.minute, 1), UNIT_MINUTES[unit]
    highest = 1.15 * max(1, *(devices for curve in curves for _, devices in curve[2]))

    def x(minute: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * minute / end, 1)

    def y(devices: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * devices / highest, 1)

    frame = f"M{LEFT},{TOP}V{BOTTOM}H{RIGHT}"
    parts = [_text(500, 24, title, "middle"), _text(500, BOTTOM + 40, unit, "middle")]
    parts += [_path(frame, "black"), _text(LEFT, TOP - 8, "devices", "end")]
    for number in _ticks(end / unit_minutes):
        parts.append(_text(x(number * unit_minutes), BOTTOM + 20, f"{number:,}", "middle"))
    for number in _ticks(highest):
        parts.append(_path(f"M{LEFT},{y(number)}H{RIGHT}", "#dddddd"))
        parts.append(_text(LEFT - 10, y(number) + 4, f"{number:,}", "end"))
    for minute, color, label in marks:
        parts.append(_path(f"M{x(minute)},{TOP}V{BOTTOM}", color))
        parts.append(_text(x(minute) + 5, TOP + 14, label, "start", color))
    for row, (label, color, steps) in enumerate(curves):
        path = "".join(f"H{x(minute)}V{y(devices)}" for minute, devices in steps)
        parts.append(_path(f"M{x(steps[0][0])},{y(steps[0][1])}{path}H{RIGHT}", color, 2))
        parts.append(_text(RIGHT - 10, BOTTOM - 40 - 20 * (len(curves) - row), label, "end", color))
    return "".join(parts)


def _path(steps: str, color: str, width: int = 1) -> str:
    return f'<path d="{steps}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str, color: str = "black") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _ticks(highest: float) -> range:
    """At most seven round numbers, from 0 on."""
    step = next(n * 10**e for e in range(12) for n in (1, 2, 5) if n * 10**e * 6 >= highest)
    return range(0, int(highest) + 1, step)
