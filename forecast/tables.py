"""A forecast as tables: for a terminal, and in Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from forecast.assumptions import CANCELED_A_MINUTE, DAY, Assumptions
from forecast.aws_limits import Limit, ProvisioningStep
from forecast.costs import PRICES, RUN_SECONDS, total
from forecast.course import Course
from forecast.forecast import BadCourse, Forecast
from forecast.luck import Luck
from forecast.scenarios import ScenarioCourse
from rollout.release import Manifest

WIDTH = 150
"""Characters of a line where no terminal says how wide it is."""


@dataclass(frozen=True)
class Table:
    """What is shown, whatever shows it; `**` around text makes it bold."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def forecast_tables(
    stack: str, manifest: Manifest, forecast: Forecast, risks: Sequence[str] = ()
) -> list[Table]:
    """`risks` are what a person should know before the merge, in sentences."""
    return [
        _ring_table(stack, manifest, forecast, risks),
        _bad_table(forecast.bad),
        _luck_table(forecast.luck),
        _cost_table(forecast),
        _limit_table(forecast.limits),
    ]


def _ring_table(stack: str, manifest: Manifest, forecast: Forecast, risks: Sequence[str]) -> Table:
    good, rows = forecast.good, []
    for ring in good.rings:
        takes = _between(ring.started, ring.passed)
        rows.append([ring.name, f"{ring.size:,}", _at(ring.started), _at(ring.passed), takes])
    passed = f"Every ring has passed after {_at(good.released)}."
    notes = [passed if good.end == "good" else f"**It does not pass**: {good.waiting}."]
    approved = " and ".join(ring.name for ring in manifest.rings if ring.gate.approval)
    if approved:
        delay = forecast.assumptions.approval_minutes
        when = f"after {format_minutes(delay)}" if delay else "at once"
        notes.append(f"A person must approve {approved}: taken to happen {when}.")
    return Table(
        f"{forecast.version} on {stack}, channel {forecast.channel}, {good.devices:,} devices",
        ("ring", "devices", "starts after", "ends after", "takes"),
        rows,
        [
            *notes,
            *(f"**Before you merge**: {risk}." for risk in risks),
            _describe_assumptions(forecast.assumptions),
        ],
    )


def _describe_assumptions(assumed: Assumptions) -> str:
    low, high = assumed.update_minutes
    queued = f"a minute for every {CANCELED_A_MINUTE:,} queued"
    cancel = queued if assumed.cancel_minutes is None else f"{assumed.cancel_minutes} min"
    parts = [f"an update takes {low} to {high} min", f"a cancel {cancel}"]
    if assumed.failing:
        parts.append(f"{assumed.failing:.1%} fail their self-test")
    if assumed.rejecting:
        parts.append(f"{assumed.rejecting:.1%} reject it")
    if assumed.offline:
        until = format_minutes(assumed.reconnect_until)
        parts.append(f"{assumed.offline:.0%} are offline and reconnect over {until}")
    if assumed.joins_per_day:
        parts.append(f"{assumed.joins_per_day:,} join a day")
    return f"Assumed: {', '.join(parts)}."


def _bad_table(bad: Iterable[BadCourse]) -> Table:
    rows = []
    for one in bad:
        course = one.course
        started = next((ring.started for ring in course.rings if ring.name == one.ring), None)
        reached = [f"{number:,}" for number in (course.exposed, one.bound)]
        ended = [_between(started, course.stopped), _back(course)]
        back = [f"{number:,}" for number in (course.silent, course.rollback_executions)]
        rows.append([one.ring or "-", one.how, *reached, *ended, *back])
    times = ("stopped after", "back after")
    return Table(
        "If it turns out bad",
        ("bad from", "every device", "exposed", "at most", *times, "silent", "executions back"),
        rows,
        [
            "Every device from that ring on fails its self-test, or begins and falls silent: no"
            " rollback reaches a silent one.",
            "The last line: nothing was seen, every ring passed, and a person orders the release"
            " back.",
            "Exposed: began the new firmware, rings before included. At most: whatever the luck,"
            " if all are bad and online.",
            "Stopped: from the ring's start, the controller's minute counted in; exposed counts"
            " the cancel's time too. Back: from the stop, of those who answer.",
        ],
    )


def _luck_table(luck: Sequence[Luck]) -> Table:
    rings = dict.fromkeys(one.ring for one in luck)
    rows = [
        [ring or "all, in turn", *luck_cells(one)]
        for ring in rings
        for one in luck
        if one.ring == ring
    ]
    return Table(
        "If it is bad on some devices, at random",
        ("ring", "fails on", "stopped", "held", "passes", "exposed", "in 95 % at most"),
        rows,
        [
            "Each device fails with that chance, independently of the others. Of a ring: what"
            " becomes of a release that has come to it.",
            "Held: neither stopped nor let pass, a person decides. Exposed: devices that have begun"
            " once it is stopped, rings before included, in half of the stops at most; - where"
            " stops are rarer than 1 in 1,000.",
            "Every device is taken to be online, every alarm quiet, every approval given.",
        ],
    )


def luck_cells(one: Luck) -> list[str]:
    """Luck in all columns of its table but the first."""
    chances = [_format_chance(chance) for chance in (one.stopped, one.held, one.passed)]
    exposed = ["-" if n is None else f"{n:,}" for n in (one.exposed, one.exposed_most)]
    return [f"{100 * one.failing:g} %", *chances, *exposed]


def _format_chance(chance: float) -> str:
    """In percent, to a tenth; what is not quite none or all is told from none and all."""
    if 1e-6 < chance < 5e-4:
        return "<0.1 %"
    if 1 - 5e-4 < chance < 1 - 1e-6:
        return ">99.9 %"
    return f"{100 * chance:.1f} %".replace(".0 %", " %")


def _cost_table(forecast: Forecast) -> Table:
    rows = []
    bills = (
        ("this release", "", forecast.good.bill),
        ("the stack, a month", ", a month", forecast.monthly),
    )
    for name, suffix, lines in bills:
        for line in lines:
            quantity = f"{line.quantity:,.0f} {line.unit}{'s' * (line.quantity != 1)}"
            usd = "no price" if line.usd is None else f"{line.usd:,.2f}"
            rows.append([line.what + suffix, quantity, usd])
        rest = " without what has no price" if any(line.usd is None for line in lines) else ""
        rows.append([f"**{name}{rest}**", "", f"**{total(lines):,.2f}**"])
    pages: dict[str, list[str]] = {}
    for price in PRICES.values():
        if price.usd is None:
            pages.setdefault(price.source, []).append(price.what)
    unpriced = [f"{' and '.join(items)}: look it up at {page}" for page, items in pages.items()]
    sources = {
        f"{p.source}{', by its price feed' * bool(p.feed)} ({p.region}; {p.read})"
        for p in PRICES.values()
        if p.usd is not None
    }
    return Table(
        "Cost",
        ("item", "quantity", "US dollars"),
        rows,
        [
            f"**No price** is known of {'; of '.join(unpriced)}. The sums do not hold them.",
            "List prices, without free tiers and volume discounts: check them against the"
            " account's own. Not in it: log ingestion, topic rules, storage, the dashboard. A run"
            f" of the controller is taken to last {RUN_SECONDS:g} s.",
            f"Read from: {'; '.join(sorted(sources))}.",
        ],
    )


def _limit_table(limits: Sequence[Limit]) -> Table:
    rows = []
    for limit in limits:
        kept = "yes" if limit.kept else "**no**"
        rows.append([limit.what, f"{limit.value:,g}", f"{limit.limit:,g}", kept, limit.source])
    notes = ["Not kept: AWS throttles or refuses; devices and the controller try again."]
    return Table(
        "Limits, in this release and in the bad ones",
        ("what", "here", "limit", "kept", "whose"),
        rows,
        () if all(limit.kept for limit in limits) else notes,
    )


def provisioning_table(devices: int, steps: Sequence[ProvisioningStep]) -> Table:
    """How long AWS takes to take in so many devices that come by claim."""
    rows = [
        [
            one.what,
            f"{one.calls}",
            f"{one.calls_a_second:,}",
            format_minutes(one.minutes),
            one.quota,
        ]
        for one in steps
    ]
    slowest = max(steps, key=lambda one: one.minutes)
    return Table(
        f"Taking in {devices:,} devices by claim",
        ("what", "a device", "a second", "takes", "quota of the account"),
        rows,
        [
            f"Together they take {format_minutes(slowest.minutes)}, as long as the slowest step."
            " Whom AWS throttles waits and asks again.",
            "Faster: have the last quota raised (Service Quotas, AWS IoT Core), then the one above."
            " AWS does not say whether what RegisterThing does inside counts, too: AttachPolicy 15"
            " a second, UpdateCertificate 10.",
        ],
    )


SCENARIO_COLUMNS = ("scenario", "outcome", "exposed", "back after", "left", "executions")


def scenario_table(
    stack: str, assumptions: Assumptions, courses: Sequence[ScenarioCourse]
) -> Table:
    rows = [[one.name, *scenario_cells(one)] for one in courses]
    return Table(
        f"Scenarios on {stack}, {courses[0].course.devices:,} devices",
        SCENARIO_COLUMNS,
        rows,
        [
            "Exposed: began the release. Back: from the stop until the last exposed device that"
            " answers ran the old one again. Left: run a release that should have been stopped, or"
            " fell silent.",
            _describe_assumptions(assumptions),
        ],
    )


def scenario_cells(one: ScenarioCourse) -> list[str]:
    """How a scenario went, in all SCENARIO_COLUMNS but the first."""
    course = one.course
    outcomes = {
        "good": f"released after {_at(course.released)}",
        "stopped": f"stopped after {_at(course.stopped)}",
        "waiting": f"waits: {course.waiting}",
    }
    left = course.updated + course.silent if one.is_bad else 0
    back, executions = _back(course), f"{course.executions:,}"
    return [outcomes[course.end], f"{course.exposed:,}", back, f"{left:,}", executions]


def _back(course: Course) -> str:
    if course.stopped is None:
        return "-"
    if course.rolled_back is None or (course.silent and course.silent == course.exposed):
        return "never"
    return format_minutes(course.rolled_back - course.stopped)


def format_minutes(minutes: int) -> str:
    """In the two greatest units: `1 d 19 h`, `6 h 14 min`."""
    days, hours, rest = minutes // DAY, minutes % DAY // 60, minutes % 60
    units = [(days, "d"), (hours, "h")] if days else [(hours, "h"), (rest, "min")]
    return " ".join(f"{number} {unit}" for number, unit in units if number) or "0 min"


def _at(minute: int | None) -> str:
    return "never" if minute is None else format_minutes(minute)


def _between(start: int | None, end: int | None) -> str:
    return "-" if start is None or end is None else format_minutes(end - start)


def format_markdown(table: Table) -> str:
    """A table for a pull request, as GitHub renders it."""
    rows = (table.columns, ["---"] * len(table.columns), *table.rows)
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"### {table.title}", "", *(f"| {line} |" for line in lines), *notes])


def print_tables(tables: Iterable[Table]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        for index, column in enumerate(table.columns):
            cells = [row[index].strip("*") for row in table.rows]
            is_numeric = all(
                c[:1].isdigit() or c[:1] in ("<", ">") or c in ("", "-", "never", "no price")
                for c in cells
            )
            drawn.add_column(column, justify="right" if index and is_numeric else "left")
        for row in table.rows:
            style = "bold" if row[0].startswith("**") else None
            drawn.add_row(*(cell.replace("**", "") for cell in row), style=style)
        console.print(drawn)
        for note in table.notes:
            console.print(note.replace("**", ""), markup=False, highlight=False)
        console.print()
