"""The command line: its commands, and how their failures are shown."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import forecast.cli
from cloud.clients import AWS_ERRORS
from ops import (
    approve,
    device,
    drain,
    halt,
    image_certificate,
    pardon,
    pause,
    placement,
    quarantine,
    resume,
    retry,
    rollback,
    serials,
    status,
    waive,
)
from ops.errors import OpsError, explain
from ops.stack import add_stack_arguments
from rollout.codec import DecodeError

REFUSED, INTERRUPTED = 1, 130
"""Exit codes: what was asked for could not be done; ended by the keyboard."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal that lacks a letter of somebody's reason still gets the rest
            stream.reconfigure(errors="replace")
    args = make_parser().parse_args(arguments)
    try:
        code = int(args.run(args) or 0)
        sys.stdout.flush()
        return code
    except (OpsError, forecast.cli.ForecastError) as error:
        print(f"{args.command}: {error}", file=sys.stderr)
    except DecodeError as error:  # of what only the project writes
        print(f"{args.command}: somebody else wrote {error}", file=sys.stderr)
    except AWS_ERRORS as error:
        print(f"{args.command}: {explain(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `status | head`
        # else Python complains when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    return int(args.error_code)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops", description="See and steer the rollout of a stack's channel."
    )
    parser.set_defaults(error_code=REFUSED)
    add_stack_arguments(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    changing = (pause, resume, approve, halt, rollback, retry, pardon, waive)
    fleet = (placement, serials, quarantine, drain)
    inspecting = (status, device, image_certificate, forecast.cli)
    for command in (*changing, *fleet, *inspecting):
        command.add_parser(commands)
    return parser
