"""`status`: what a person needs to know of the channel."""

from __future__ import annotations

import json
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cloud.clients import AWS_ERRORS
from ops.command import Subparsers
from ops.errors import explain
from ops.render import is_ascii_only, render_status
from ops.report import UNKNOWN, Reporter
from ops.stack import Access, add_stack_arguments, open_access
from rollout.codec import encode

REFRESH_SECONDS = 5.0


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "status", help="Show what a person needs to know; exit 0: fine, 1: needed, 2: cannot tell"
    )
    add_stack_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--watch", action="store_true", help=f"again every {REFRESH_SECONDS:g} s, until interrupted"
    )
    parser.set_defaults(
        run=lambda args: status(open_access(args), as_json=args.json, watch=args.watch),
        error_code=UNKNOWN,
    )


def status(access: Access, *, as_json: bool, watch: bool) -> int:
    """Shows the report, once or until interrupted; returns its exit code."""
    reporter = Reporter(access.channel, access.stack)
    if watch:
        return _watch_json(reporter) if as_json else _watch(reporter)
    report = reporter.report(time.time())
    if as_json:
        print(json.dumps(encode(report), indent=1))
    else:
        console = Console()
        console.print(render_status(report, ascii_only=is_ascii_only(console)), soft_wrap=True)
    return report.code


def _watch_json(reporter: Reporter) -> int:
    """A report a line. An error of AWS ends it."""
    code = UNKNOWN
    try:
        while True:
            report = reporter.report(time.time())
            code = report.code
            print(json.dumps(encode(report)), flush=True)
            time.sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return code


def _watch(reporter: Reporter) -> int:
    """A report in place of the one before. One that cannot be had says why, and the next one is
    tried."""
    console, code = Console(), UNKNOWN
    screen = Live(
        console=console, screen=console.is_terminal, auto_refresh=False, vertical_overflow="crop"
    )
    try:
        with screen:
            while True:
                try:
                    report = reporter.report(time.time())
                    code = report.code
                    shown = render_status(report, ascii_only=is_ascii_only(console))
                except AWS_ERRORS as error:
                    code = UNKNOWN
                    shown = Text(f"cannot tell, trying again: {explain(error)}")
                screen.update(shown, refresh=True)
                time.sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return code
