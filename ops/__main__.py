"""`python -m ops`: what an operator can see and do. docs/operations.md tells when to do what."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ops import brake, orders, plan, show
from ops.channel import Channel
from ops.desk import Desk
from ops.device import device_report
from ops.errors import OpsError, explain
from ops.source import add_arguments, open_source
from ops.status import UNTOLD, Reporter
from ops.terminal import Terminal

REFRESH_SECONDS = 5.0
REFUSED, INTERRUPTED = 1, 130
"""Exit codes: what was asked for could not be done (`status`: 2); ended by the keyboard."""

CHANGES: dict[str, tuple[Callable[[Desk], int], str]] = {
    "pause": (brake.pause, "Hold the next ring; what is out goes on"),
    "resume": (brake.resume, "End a pause or a halt"),
    "approve": (orders.approve, "Say that a ring has proved the release"),
    "halt": (
        brake.halt,
        "Stop the release being proved: also its jobs, also with the controller down",
    ),
    "rollback": (
        orders.rollback,
        "Take the release back: exposed devices return to the last good one",
    ),
    "retry": (orders.retry, "Offer a ring, or the rollback, the same again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal that lacks a letter of somebody's reason still gets the rest
    args = parser().parse_args(arguments)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except (OpsError, ClientError, BotoCoreError) as error:
        print(
            f"{args.command}: {error if isinstance(error, OpsError) else explain(error)}",
            file=sys.stderr,
        )
        return UNTOLD if args.command == "status" else REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `status | head`
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python complains when it flushes at exit
        return REFUSED


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m ops", description="See and steer the rollout of a stack's channel."
    )
    add_arguments(made)
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (change, text) in CHANGES.items():
        command = commands.add_parser(
            name, help=text, description=f"{text}. Says what will happen, and asks."
        )
        _add_change_arguments(command, name)
        command.set_defaults(run=_change, change=change)
    status = commands.add_parser(
        "status", help="Show what a person needs to know; exit 0: fine, 1: needed, 2: cannot tell"
    )
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument(
        "--watch", action="store_true", help=f"again every {REFRESH_SECONDS:g} s, until interrupted"
    )
    status.set_defaults(run=_status)
    device = commands.add_parser("device", help="Show one device: what it runs, its jobs, why")
    device.add_argument(
        "thing", metavar="THING", help="a thing's name, or a declared device's serial"
    )
    device.add_argument("--json", action="store_true", help="as JSON")
    device.set_defaults(run=_device)
    for command in (status, device):
        add_arguments(command)
    plan.add_parser(commands)
    return made


def _add_change_arguments(command: argparse.ArgumentParser, name: str) -> None:
    add_arguments(command)
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--why", metavar="TEXT", help="the reason, which is recorded; asked for when missing"
    )
    if name == "approve":
        command.add_argument("ring", metavar="RING")
    if name == "retry":
        command.add_argument("ring", metavar="RING|rollback")
    if name == "rollback":
        command.add_argument(
            "version",
            metavar="VERSION",
            nargs="?",
            help="refuse unless it is this version that goes back",
        )
    if name == "resume":
        command.add_argument(
            "--replace", action="store_true", help="replace a control.json that cannot be read"
        )


def _open(args: argparse.Namespace) -> tuple[Channel, str]:
    channel = Channel(*open_source(args))
    return channel, channel.caller()


def _change(args: argparse.Namespace) -> int:
    channel, caller = _open(args)
    return int(args.change(Desk(channel, Terminal(), args, caller)))


def _status(args: argparse.Namespace) -> int:
    reporter = Reporter(_open(args)[0])
    if args.watch:
        return _watch(reporter, args.json)
    report = reporter.report(time.time())
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        console = Console()
        console.print(show.status(report, ascii_only=_ascii_only(console)), soft_wrap=True)
    return int(report["code"])


def _watch(reporter: Reporter, as_json: bool) -> int:
    """Shows the report again and again; one that cannot be had says why, and the next one is
    tried."""
    console, code = Console(), UNTOLD
    try:
        if as_json:
            while True:
                print(json.dumps(report := reporter.report(time.time())), flush=True)
                code = int(report["code"])
                time.sleep(REFRESH_SECONDS)
        with Live(
            console=console,
            screen=console.is_terminal,
            auto_refresh=False,
            vertical_overflow="crop",
        ) as live:
            while True:
                try:
                    report = reporter.report(time.time())
                    code = int(report["code"])
                    live.update(show.status(report, ascii_only=_ascii_only(console)), refresh=True)
                except (ClientError, BotoCoreError) as error:
                    code = UNTOLD
                    live.update(Text(f"cannot tell, trying again: {explain(error)}"), refresh=True)
                time.sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return code


def _device(args: argparse.Namespace) -> int:
    report = device_report(_open(args)[0], args.thing)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        Console().print(show.device(report, time.time()), soft_wrap=True)
    return 0


def _ascii_only(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


if __name__ == "__main__":
    sys.exit(main())
