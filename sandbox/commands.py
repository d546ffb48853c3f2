"""The command line: the sandbox is started, shown, sent another release, and ended."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from cloud.clients import AWS_ERRORS
from components.stack_file import StackFileError
from ops.errors import OpsError, explain
from ops.render import is_ascii_only, render_status
from rollout.codec import encode
from rollout.names import StackOutput
from sandbox import session
from sandbox.first_words import ENGINE_VARIABLE, Engine
from sandbox.follow import Screen, follow, format_clock, say
from sandbox.instance import Instance, SandboxError
from sandbox.session import Sandbox

LIMIT_SECONDS = 180.0
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it is as it was asked to be. 1: it is not, and why has been said. 2: wrong usage."""
    options = _make_parser().parse_args(arguments)
    # Nothing of the caller's AWS or proxy settings is meant for the sandbox: the devices' downloads
    # honour proxies too.
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            del os.environ[name]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options, Instance.from_environment(), Console()))
    except (SandboxError, StackFileError, OpsError) as error:
        print(error, file=sys.stderr)
        return 1
    except AWS_ERRORS as error:
        print(explain(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; the sandbox stays: `make up` goes on, `make down` ends it",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        # nobody reads: no second error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="The local stack on a local AWS, with simulated devices.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    limit = argparse.ArgumentParser(add_help=False)
    limit.add_argument(
        "--limit",
        type=float,
        default=LIMIT_SECONDS,
        help="seconds until it gives up (default %(default)g)",
    )
    command = commands.add_parser(
        "up", parents=[limit], help="start it, deploy, update the devices"
    )
    command.set_defaults(run=_up)
    command = commands.add_parser("status", help="show it: endpoints, release, devices")
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=_status)
    command = commands.add_parser(
        "release", parents=[limit], help="ship another sample image from firmware/"
    )
    command.add_argument("version", metavar="VERSION", help="e.g. 2.2.0")
    command.set_defaults(run=_release)
    command = commands.add_parser("down", help="stop it and remove all it left")
    command.set_defaults(run=_down)
    return parser


def _up(options: argparse.Namespace, instance: Instance, console: Console) -> int:
    engine = _read_engine()
    with instance.locked("python -m sandbox up"):
        if version := session.picked_version(instance):
            say(console, f"Keeping {version}, which `release` chose; `make down` forgets it.")
        return _deploy_and_follow(engine, options.limit, instance, console)


def _release(options: argparse.Namespace, instance: Instance, console: Console) -> int:
    engine = _read_engine()
    session.connect(instance)
    with instance.locked(f"python -m sandbox release {options.version}"):
        session.check_engine(instance, engine)
        session.pick_version(instance, options.version)
        say(console, f"Deploying {options.version.removeprefix('v')} as the next release.")
        return _deploy_and_follow(engine, options.limit, instance, console)


def _read_engine() -> Engine:
    engine = os.environ.get(ENGINE_VARIABLE, "")
    try:
        return Engine(engine)
    except ValueError:
        raise SandboxError(f"ENGINE is {engine!r}: it can be `pulumi`, or unset") from None


def _deploy_and_follow(engine: Engine, limit: float, instance: Instance, console: Console) -> int:
    sandbox = session.build(instance, engine=engine, say=lambda text: say(console, text))
    if added := sandbox.add_serials():
        say(console, f"{added} serials are new in the registry {sandbox.registry.table}.")
    firmware, things = sandbox.manifest().firmware, sandbox.things()
    digest = firmware.sha256[:12]
    say(console, f"Releasing {firmware.version} ({digest}) to {len(things)} devices.")
    known = sandbox.report().decisions
    with Screen(console, known=known) as screen, sandbox.devices(**watch(things, console)):
        outcome = follow(sandbox, limit=limit, show=screen.show)
    console.print(tabulate_versions(sandbox, outcome.versions))
    for line in outcome.story:
        say(console, line)
    return 0 if outcome.is_good else 1


def watch(things: Mapping[str, str | None], console: Console) -> dict[str, Any]:
    """Tells how devices come in: of the first one every step, of each one what goes wrong, and when
    all are in."""
    new = [serial for serial, thing in things.items() if thing is None]
    began = time.monotonic()

    def on_progress(serial: str, text: str) -> None:
        if serial in new[:1]:
            on_trouble(serial, text)

    def on_trouble(serial: str, text: str) -> None:
        say(console, f"{format_clock(time.time())} {serial} {text}")

    def on_all() -> None:
        if new:
            told = f"{len(new)} devices have come in by claim, each with a key of its own"
            seconds = f"in {time.monotonic() - began:.1f} s"
            say(console, f"{format_clock(time.time())} {told}, {seconds}")

    return {"on_progress": on_progress, "on_trouble": on_trouble, "on_all": on_all}


def tabulate_versions(sandbox: Sandbox, versions: Mapping[str, str]) -> Table:
    """Ring by ring: how many devices run what, by their serials."""
    stack, rings, things = sandbox.stack, sandbox.rings(), sandbox.things()
    title = f"channel {stack.channel_name}, fleet {stack.fleet_group_name}"
    table = Table("ring", "devices", "run", title=title)
    for ring in sandbox.outputs[StackOutput.RELEASE]["rings"]:
        own = [serial for serial, thing in things.items() if rings.get(thing or "") == ring]
        of_ring = [versions.get(serial, "") for serial in own]
        table.add_row(ring, str(len(of_ring)), count_versions(of_ring))
    return table


def count_versions(versions: Sequence[str]) -> str:
    """Each version and how many have it, the most common first."""
    counts = Counter(versions).most_common()
    return ", ".join(f"{version or 'not heard of'} ({count})" for version, count in counts)


def _status(options: argparse.Namespace, instance: Instance, console: Console) -> int:
    sandbox = session.connect(instance)
    process, report, devices = sandbox.process, sandbox.report(), _describe_devices(sandbox)
    if options.json:
        # everything but certificates and keys
        hidden = (
            StackOutput.CLAIM_CERTIFICATES,
            StackOutput.DEVICE_CERTIFICATES,
            StackOutput.DEVICE_PRIVATE_KEYS,
        )
        status = {
            "endpoint": sandbox.endpoint,
            "ministack": asdict(process),
            "outputs": {key: value for key, value in sandbox.outputs.items() if key not in hidden},
            "status": encode(report),
            "devices": devices,
        }
        print(json.dumps(status, indent=1))
        return 0
    where = f"Local AWS {sandbox.endpoint}, MQTT localhost:{process.mqtt_port}"
    say(console, f"{where} (MiniStack, process {process.pid})")
    console.print(render_status(report, ascii_only=is_ascii_only(console)), soft_wrap=True)
    console.print("\nDevices", style="bold")
    for device in devices:
        version = device.get("version", "not heard of")
        say(console, f"  {device['serial']} {device['ring']}: {version}")
    return 0


def _describe_devices(sandbox: Sandbox) -> list[dict[str, object]]:
    """Each device: serial, thing, ring, and what it reports."""
    rings, things = sandbox.rings(), sandbox.things()
    return [
        {
            "serial": serial,
            "thing": things[serial] or "",
            "ring": rings.get(things[serial] or "", ""),
            **(encode(shadow) if shadow else {}),
        }
        for serial, shadow in sandbox.reported().items()
    ]


def _down(_options: argparse.Namespace, instance: Instance, console: Console) -> int:
    console.print("The sandbox is gone." if session.down(instance) else "There is no sandbox.")
    return 0
