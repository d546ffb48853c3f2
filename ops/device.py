"""`device`: one device, by thing or serial: what it runs, its jobs, its certificates, why."""

from __future__ import annotations

import json
import time

from rich.console import Console

from ops.command import Subparsers
from ops.device_report import report_device
from ops.render import render_device
from ops.stack import Access, add_stack_arguments, open_access
from rollout.codec import encode


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "device", help="Show one device: what it runs, its jobs, its serial, why"
    )
    add_stack_arguments(parser)
    parser.add_argument(
        "thing",
        metavar="THING",
        help="a thing's name, or a device's serial",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=lambda args: device(open_access(args), args.thing, as_json=args.json))


def device(access: Access, name: str, *, as_json: bool) -> None:
    report = report_device(access.channel, access.stack, name)
    if as_json:
        print(json.dumps(encode(report), indent=1))
    else:
        Console().print(render_device(report, time.time()), soft_wrap=True)
