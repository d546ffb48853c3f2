"""`python -m ops plan`: what a release will do, from the stack file alone; no AWS, no Pulumi CLI.
docs/planning.md explains it.

The one command here that reads the stack's configuration, and so the only one that imports
`components`.
"""

from __future__ import annotations

import argparse
import contextvars
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.errors import OpsError
from ops.words import length
from rollout.codec import encode
from rollout.plan import (
    PRICES,
    RUN_SECONDS,
    Bad,
    Comparison,
    Course,
    Line,
    Plan,
    compare,
    plan,
    total,
)
from rollout.release import Manifest
from rollout.simulation import Fleet, Point, Simulation, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from components.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
UNDECLARED = 10_000
"""Devices of a stack that declares none, unless --devices says how many."""
WIDTH = 150
"""Characters of a line where no terminal says how wide it is."""
PLOTS = (".png", ".svg", ".pdf")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command; `run` is its function, which returns 0 where the release would pass
    its last ring, else 1."""
    text = "Foretell a rollout from its stack file: times, exposure, rollback, cost, limits"
    command = subparsers.add_parser(
        "plan", help=text, description=f"{text}. Exit 1: the release would not pass its last ring."
    )
    source = command.add_mutually_exclusive_group()
    source.add_argument(
        "--stack", "-s", metavar="NAME", default=argparse.SUPPRESS, help="reads Pulumi.NAME.yaml"
    )
    source.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="another stack file, such as docs/examples/canary.yaml",
    )
    command.add_argument(
        "--devices",
        type=_count,
        metavar="N",
        help=f"fleet size (the declared devices, or {UNDECLARED:,})",
    )
    command.add_argument(
        "--failure-rate",
        type=_share,
        metavar="P",
        default=0.0,
        help="share that fails though the release is good",
    )
    command.add_argument(
        "--offline",
        type=_share,
        metavar="P",
        default=0.0,
        help="share that is offline, back over three days",
    )
    command.add_argument(
        "--rejects",
        type=_share,
        metavar="P",
        default=0.0,
        help="share that answers REJECTED: not for me",
    )
    command.add_argument(
        "--joins-per-day", type=_count, metavar="N", default=0, help="new devices a day"
    )
    command.add_argument(
        "--update-minutes",
        type=_span,
        metavar="N-M",
        default=Fleet.update_minutes,
        help="an update takes (4-6)",
    )
    command.add_argument(
        "--approval-minutes",
        type=_count,
        metavar="N",
        default=0,
        help="a person takes to approve (0)",
    )
    command.add_argument(
        "--scenarios",
        action="store_true",
        help="ten scenarios under these settings and the public recipe's",
    )
    command.add_argument(
        "--plot", type=Path, metavar="FILE", help="draws the devices over time: .png, .svg or .pdf"
    )
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true", help="for a pull request")
    shape.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _share(text: str) -> float:
    """`5%` or `0.05`."""
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: write 5% or 0.05")
    return share


def _span(text: str) -> tuple[int, int]:
    """`4-6`, or `5`."""
    low, _, high = text.partition("-")
    span = int(low), int(high or low)
    if not 1 <= span[0] <= span[1]:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number of minutes from 1, or two such as 4-6"
        )
    return span


def run(args: argparse.Namespace) -> int:
    name, path = _stack_file(args)
    if args.plot and args.plot.suffix not in PLOTS:
        raise OpsError(f"{args.plot}: a plot is one of {', '.join(PLOTS)}")
    settings = read_stack(path)
    fleet = _fleet(args, settings)
    if args.scenarios:
        found = compare(settings.manifest, fleet)
        _show(
            args,
            {"stack": name, "scenarios": encode(found)},
            lambda: scenario_tables(name, settings.manifest, fleet, found),
        )
        return 0
    made, good, bad = plan(settings.manifest, fleet)
    _show(
        args, {"stack": name, "plan": encode(made)}, lambda: tables(name, settings.manifest, made)
    )
    if args.plot:
        draw(args.plot, f"{made.version} on {name}, {made.good.devices:,} devices", good, bad, made)
    return 0 if made.good.end == "good" else 1


# The stack file


def _stack_file(args: argparse.Namespace) -> tuple[str, Path]:
    if args.file:
        return args.file.stem, args.file
    name = getattr(args, "stack", None)
    if not name:
        raise OpsError(
            "which stack? --stack prod reads Pulumi.prod.yaml, --file docs/examples/canary.yaml"
            " another file"
        )
    return name, ROOT / f"Pulumi.{name}.yaml"


def read_stack(path: Path, root: Path = ROOT) -> Settings:
    """The settings in a stack file, read as the program reads them. Raises OpsError with every
    mistake.

    `root` is the folder that image and CSR paths are relative to.
    """
    import yaml

    try:
        config = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise OpsError(f"{path.name} cannot be read: {error}") from error
    text = {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in config.items()
    }
    return contextvars.copy_context().run(_load, text, root)


def _load(config: dict[str, str], root: Path) -> Settings:
    import pulumi

    from components.settings import SettingsError, load

    pulumi.runtime.set_all_config(config)
    try:
        return load(root)
    except SettingsError as error:
        raise OpsError(str(error)) from error


def _fleet(args: argparse.Namespace, settings: Settings) -> Fleet:
    declared = Counter(device.ring for device in settings.fleet.devices)
    known = dict(declared) if declared and args.devices is None else None
    if args.failure_rate + args.rejects > 1:
        raise OpsError("--failure-rate and --rejects together are more than the fleet")
    return Fleet(
        devices=args.devices if args.devices is not None else (declared.total() or UNDECLARED),
        sizes=known,
        failing=args.failure_rate,
        rejecting=args.rejects,
        offline=args.offline,
        joins_per_day=args.joins_per_day,
        update_minutes=args.update_minutes,
        approval_minutes=args.approval_minutes,
    )


# Tables


@dataclass(frozen=True)
class Table:
    """What is shown, whatever shows it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def tables(name: str, manifest: Manifest, made: Plan) -> list[Table]:
    return [_rings(name, manifest, made), _bad(made.bad), _costs(made), _limits(made)]


def _rings(name: str, manifest: Manifest, made: Plan) -> Table:
    good = made.good
    rows = [
        [
            ring.name,
            f"{ring.size:,}",
            _at(ring.started),
            _at(ring.passed),
            _between(ring.started, ring.passed),
        ]
        for ring in good.rings
    ]
    end = (
        f"Every ring has passed after {_at(good.released)}."
        if good.end == "good"
        else f"**It does not pass**: {good.waiting}."
    )
    asked = [ring.name for ring in manifest.rings if ring.gate.approval]
    wait = made.assumed.approval_minutes
    when = f"after {_time(wait)}" if wait else "at once"
    approvals = (
        [f"A person must approve {' and '.join(asked)}: taken to happen {when}."] if asked else []
    )
    title = f"{made.version} on {name}, channel {made.channel}, {good.devices:,} devices"
    return Table(
        title,
        ("ring", "devices", "starts after", "ends after", "takes"),
        rows,
        [end, *approvals, _assumed(made.assumed)],
    )


def _assumed(fleet: Fleet) -> str:
    low, high = fleet.update_minutes
    said = [f"an update takes {low} to {high} min", f"a cancel {fleet.cancel_minutes} min"]
    said += [f"{fleet.failing:.1%} fail their self-test"] if fleet.failing else []
    said += [f"{fleet.rejecting:.1%} reject it"] if fleet.rejecting else []
    said += (
        [f"{fleet.offline:.0%} are offline and come back over {_time(fleet.back_until)}"]
        if fleet.offline
        else []
    )
    said += [f"{fleet.joins_per_day:,} join a day"] if fleet.joins_per_day else []
    return f"Assumed: {', '.join(said)}."


def _bad(bad: Iterable[Bad]) -> Table:
    columns = (
        "bad from",
        "every device",
        "exposed",
        "at most",
        "stopped after",
        "back after",
        "dead",
        "executions back",
        "US dollars back",
    )
    notes = [
        (
            "Every device from that ring on fails its self-test, or begins and falls silent: dead,"
            " no rollback reaches it."
        ),
        "The last line: nothing was seen, every ring passed, and a person orders the release back.",
        (
            "Exposed: began the new firmware, rings before included. At most: whatever the luck, if"
            " all are bad and online."
        ),
        (
            "Stopped: from the ring's start, the controller's minute counted in; exposed counts the"
            " cancel's time too. Back: from the stop, of those who answer."
        ),
    ]
    return Table("If it turns out bad", columns, [_bad_row(one) for one in bad], notes)


def _bad_row(one: Bad) -> list[str]:
    course = one.course
    started = next((ring.started for ring in course.rings if ring.name == one.ring), None)
    return [
        one.ring or "-",
        one.how,
        f"{course.exposed:,}",
        f"{one.bound:,}",
        _between(started, course.stopped),
        _back(course),
        f"{course.bricked:,}",
        f"{course.returns:,}",
        _usd(course.returns_usd),
    ]


def _costs(made: Plan) -> Table:
    rows = [[line.what, _quantity(line), _usd(line.usd)] for line in made.good.bill]
    rows.append(["**this release**", "", f"**{_usd(made.good.usd)}**"])
    rows += [[f"{line.what}, a month", _quantity(line), _usd(line.usd)] for line in made.standing]
    rows.append(["**the stack, a month**", "", f"**{_usd(total(made.standing))}**"])
    sources = sorted({price.source for price in PRICES.values()})
    notes = [
        (
            "List prices, without free tiers and volume discounts: check them against the"
            " account's own. Not in it: log ingestion, topic rules, storage. A run of the"
            f" controller is taken to last {RUN_SECONDS:g} s."
        ),
        f"Read from: {'; '.join(sources)}.",
    ]
    return Table("Cost", ("item", "quantity", "US dollars"), rows, notes)


def _quantity(line: Line) -> str:
    return f"{line.quantity:,.0f} {line.unit}{'s' * (line.quantity != 1)}"


def _limits(made: Plan) -> Table:
    rows = [
        [
            limit.what,
            f"{limit.value:,g}",
            f"{limit.limit:,g}",
            "yes" if limit.kept else "**no**",
            limit.source,
        ]
        for limit in made.limits
    ]
    over = (
        ["Not kept: AWS throttles or refuses; devices and the controller try again."]
        if any(not x.kept for x in made.limits)
        else []
    )
    return Table(
        "Limits, in this release and in the bad ones",
        ("what", "here", "limit", "kept", "whose"),
        rows,
        over,
    )


def scenario_tables(
    name: str, manifest: Manifest, fleet: Fleet, found: Iterable[Comparison]
) -> list[Table]:
    columns = (
        "scenario",
        "settings",
        "outcome",
        "exposed",
        "back after",
        "left bad or dead",
        "US dollars",
    )
    rows = []
    for one in found:
        rows.append([one.name, name, *_scenario_cells(one.ours, one.bad)])
        rows.append(["", "recipe", *_scenario_cells(one.recipe, one.bad)])
    notes = [
        (
            f"{name}: this stack's settings and its controller. recipe: one job, 10 devices a"
            " minute, stopped by IoT at 25 % FAILED of at least 3, nobody who watches, nothing"
            " that rolls back; with this stack's time-out."
        ),
        (
            "Exposed: began the release. Back: from the stop until the last exposed device that"
            " answers ran the old one again. Left: run a release that should have been stopped, or"
            " died of it."
        ),
        _assumed(fleet),
    ]
    return [
        Table(f"Scenarios, {sum(sizes(manifest, fleet).values()):,} devices", columns, rows, notes)
    ]


def _scenario_cells(course: Course, bad: bool) -> list[str]:
    outcomes = {
        "good": f"released after {_at(course.released)}",
        "stopped": f"stopped after {_at(course.stopped)}",
        "waiting": f"waits: {course.waiting}",
    }
    left = course.left + course.bricked if bad else 0
    return [
        outcomes[course.end],
        f"{course.exposed:,}",
        _back(course),
        f"{left:,}",
        _usd(course.usd),
    ]


def _back(course: Course) -> str:
    if course.stopped is None:
        return "-"
    if course.back is None or (course.bricked and course.bricked == course.exposed):
        return "never"
    return _time(course.back - course.stopped)


def _time(minutes: int) -> str:
    return length(minutes * 60) if minutes else "0 min"


def _at(minute: int | None) -> str:
    return "never" if minute is None else _time(minute)


def _between(start: int | None, end: int | None) -> str:
    return "-" if start is None or end is None else _time(end - start)


def _usd(amount: float) -> str:
    return f"{amount:,.2f}"


# Output


def _show(args: argparse.Namespace, data: Any, made: Any) -> None:
    if args.json:
        print(json.dumps(data, indent=1))
    elif args.markdown:
        print("\n\n".join(markdown(table) for table in made()))
    else:
        _print(made())


def markdown(table: Table) -> str:
    """A table for a pull request, as GitHub renders it."""
    lines = [
        f"### {table.title}",
        "",
        *(_row(row) for row in (table.columns, ["---"] * len(table.columns), *table.rows)),
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _print(shown: Iterable[Table]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for table in shown:
        drawn = Drawn(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        for index, column in enumerate(table.columns):
            drawn.add_column(
                column, justify="right" if index and _numbers(table, index) else "left"
            )
        for row in table.rows:
            drawn.add_row(
                *(cell.replace("**", "") for cell in row),
                style="bold" if row[0].startswith("**") else None,
            )
        console.print(drawn)
        for note in table.notes:
            console.print(note.replace("**", ""), markup=False, highlight=False)
        console.print()


def _numbers(table: Table, index: int) -> bool:
    return all(
        row[index].strip("*")[:1].isdigit() or row[index] in ("", "-", "never")
        for row in table.rows
    )


def draw(path: Path, title: str, good: Simulation, bad: Simulation, made: Plan) -> None:
    """The devices over time: the release with its rings' starts and ends, and one that is bad from
    the first ring on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    above, below = figure.subplots(2, 1)
    _curve(above, good.points, good.minute, 60, "updated", f"run {made.version}", "tab:blue")
    for ring in good.rings.values():
        if ring.started is not None:
            above.axvline(ring.started / 60, color="tab:grey", linestyle=":")
            above.annotate(
                f" {ring.name}",
                (ring.started / 60, 1),
                xycoords=("data", "axes fraction"),
                va="top",
            )
        if ring.passed is not None:
            above.axvline(ring.passed / 60, color="tab:green", linewidth=0.8)
    above.set(
        title=f"{title}: rings start (dotted) and end (green)", xlabel="hours", ylabel="devices"
    )
    _curve(below, bad.points, bad.minute, 1, "exposed", "exposed", "tab:orange")
    _curve(below, bad.points, bad.minute, 1, "updated", f"run {made.version}", "tab:blue")
    worst = made.bad[0]
    below.axhline(worst.bound, color="tab:red", linestyle="--", label="exposed at most")
    if worst.course.stopped is not None:
        below.axvline(worst.course.stopped, color="tab:red", linewidth=0.8, label="stopped")
    below.set(
        title="if every device fails, from the first ring on", xlabel="minutes", ylabel="devices"
    )
    for axes in (above, below):
        axes.legend(loc="lower right")
        axes.set_ylim(bottom=0)
    try:
        figure.savefig(path)
    except OSError as error:
        raise OpsError(f"{path} cannot be written: {error.strerror}") from error


def _curve(
    axes: Axes, points: Sequence[Point], end: int, unit: int, what: str, label: str, color: str
) -> None:
    minutes = [*(point.minute / unit for point in points), end / unit]
    heights = [getattr(point, what) for point in points]
    axes.step(minutes, [*heights, heights[-1]], where="post", label=label, color=color)
