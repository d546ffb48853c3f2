"""`python -m forecast`, which is also `python -m ops plan`: what a release will do, from the stack
file alone; no AWS, no Pulumi CLI. docs/planning.md explains it.

>>> python -m forecast --stack prod --devices 250000 --offline 30% --markdown
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.stack_file import ROOT, StackFileError, read_configuration
from forecast.assumptions import Assumptions
from forecast.aws_limits import list_provisioning
from forecast.forecast import forecast_release
from forecast.plot import draw_forecast
from forecast.scenarios import list_scenarios, run_scenario
from forecast.tables import (
    Table,
    forecast_tables,
    format_markdown,
    print_tables,
    provisioning_table,
    scenario_table,
)
from rollout.codec import encode
from rollout.release import Manifest

if TYPE_CHECKING:
    from components.settings import Settings

UNDECLARED = 10_000
"""Devices of a stack that declares none, unless --devices says how many."""
DESCRIPTION = "Forecast a rollout from its stack file: times, exposure, rollback, cost, limits"


class ForecastError(Exception):
    """Something the user can act on; its text is all that is shown."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command `plan`; `run` is its function, which raises ForecastError."""
    add_arguments(subparsers.add_parser("plan", help=DESCRIPTION))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{DESCRIPTION}. Exit 1: the release would not pass its last ring."
    source = parser.add_mutually_exclusive_group()
    # `ops` has --stack, too: a default here would hide what stands before the command
    left_out, text = argparse.SUPPRESS, "reads Pulumi.NAME.yaml"
    source.add_argument("--stack", "-s", metavar="NAME", default=left_out, help=text)
    text = "another stack file, such as docs/examples/canary.yaml"
    source.add_argument("--file", type=Path, metavar="FILE", help=text)
    span = Assumptions.update_minutes
    numbers: tuple[tuple[str, Callable[[str], object], str, object, str], ...] = (
        ("--devices", _parse_count, "N", None, f"fleet size (declared devices, or {UNDECLARED:,})"),
        ("--failure-rate", _parse_share, "P", 0.0, "share that fails though the release is good"),
        ("--rejects", _parse_share, "P", 0.0, "share that answers REJECTED: not for me"),
        ("--offline", _parse_share, "P", 0.0, "share that is offline, back over three days"),
        ("--joins-per-day", _parse_count, "N", 0, "new devices a day"),
        ("--update-minutes", _parse_span, "N-M", span, "an update takes (4-6)"),
        ("--approval-minutes", _parse_count, "N", 0, "a person takes to approve (0)"),
    )
    for option, parse, metavar, default, text in numbers:
        parser.add_argument(option, type=parse, metavar=metavar, default=default, help=text)
    parser.add_argument("--scenarios", action="store_true", help="ten scenarios, not this release")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draws devices over time")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--markdown", action="store_true", help="for a pull request")
    output.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def _parse_count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _parse_share(text: str) -> float:
    """`5%` or `0.05`."""
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: write 5% or 0.05")
    return share


def _parse_span(text: str) -> tuple[int, int]:
    """`4-6`, or `5`."""
    low, _, high = text.partition("-")
    span = int(low), int(high or low)
    if not 1 <= span[0] <= span[1]:
        raise argparse.ArgumentTypeError(f"{text} is not minutes from 1 on, such as 5 or 4-6")
    return span


def run(args: argparse.Namespace) -> int:
    """Returns 0 where the release would pass its last ring, else 1."""
    stack = args.file.stem if args.file else getattr(args, "stack", None)
    if not stack:
        raise ForecastError("which stack? --stack prod reads Pulumi.prod.yaml, --file any other")
    if args.plot and args.plot.suffix != ".svg":
        raise ForecastError(f"{args.plot}: a plot is an SVG picture, such as plan.svg")
    settings = read_settings(args.file or ROOT / f"Pulumi.{stack}.yaml")
    manifest, assumptions = settings.manifest, _assume(args, settings)
    if args.scenarios:
        courses = [run_scenario(manifest, one) for one in list_scenarios(manifest, assumptions)]
        data = {"stack": stack, "scenarios": encode(courses)}
        _show(args, data, [scenario_table(stack, assumptions, courses)])
        return 0
    is_provisioned = settings.fleet.is_provisioned
    forecast, good, bad = forecast_release(manifest, assumptions, is_provisioned=is_provisioned)
    risks = _list_risks(manifest)
    data = {"stack": stack, "forecast": encode(forecast), "risks": risks}
    tables = forecast_tables(stack, manifest, forecast, risks)
    if is_provisioned:
        steps = list_provisioning(assumptions.devices)
        data["provisioning"] = encode(steps)
        tables.append(provisioning_table(assumptions.devices, steps))
    _show(args, data, tables)
    if args.plot:
        try:
            args.plot.write_text(draw_forecast(stack, forecast, good, bad))
        except OSError as error:
            raise ForecastError(f"{args.plot} cannot be written: {error.strerror}") from error
    return 0 if forecast.good.end == "good" else 1


def read_settings(path: Path, root: Path = ROOT) -> Settings:
    """The settings in a stack file, read as the program reads them; raises ForecastError with every
    mistake.

    `root` is the folder that image and CSR paths are relative to.
    """
    # loads Pulumi, for which no other command of `ops` should have to wait
    from components.settings import SettingsError, read

    try:
        return read(read_configuration(path, root), root)
    except (StackFileError, SettingsError) as error:
        raise ForecastError(str(error)) from error


def _list_risks(manifest: Manifest) -> list[str]:
    """What a preview warns of, too."""
    from components.settings.agents import list_agent_risks
    from components.settings.rollout import list_abort_risks

    return [*list_abort_risks(manifest), *list_agent_risks(manifest)]


def _assume(args: argparse.Namespace, settings: Settings) -> Assumptions:
    declared = Counter(device.ring for device in settings.fleet.devices)
    if args.failure_rate + args.rejects > 1:
        raise ForecastError("--failure-rate and --rejects together are more than the fleet")
    return Assumptions(
        devices=args.devices if args.devices is not None else (declared.total() or UNDECLARED),
        ring_sizes=dict(declared) if declared and args.devices is None else None,
        failing=args.failure_rate,
        rejecting=args.rejects,
        offline=args.offline,
        joins_per_day=args.joins_per_day,
        update_minutes=args.update_minutes,
        approval_minutes=args.approval_minutes,
    )


def _show(args: argparse.Namespace, data: dict[str, Any], tables: Sequence[Table]) -> None:
    if args.json:
        print(json.dumps(data, indent=1))
    elif args.markdown:
        print("\n\n".join(format_markdown(table) for table in tables))
    else:
        print_tables(tables)
