"""`python -m sandbox up|status|release VERSION|down`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

from rich.console import Console

from rollout.codec import encode
from sandbox import engine_pulumi, session, watch
from sandbox.place import Place, SandboxError
from sandbox.session import Sandbox

LIMIT_SECONDS = 180.0
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it is as it was asked to be. 1: it is not, and why has been said. 2: wrong usage."""
    options = _parser().parse_args(arguments)
    _loopback_only()
    signal.signal(signal.SIGTERM, _ended)
    console = Console()
    try:
        return int(options.run(options, Place.from_environment(), console))
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; the sandbox stays: `make up` goes on, `make down` ends it",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nobody reads: no second error at exit
        return 1


def _parser() -> argparse.ArgumentParser:
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
    up = commands.add_parser("up", parents=[limit], help="start it, deploy, update the devices")
    up.set_defaults(run=_up)
    status = commands.add_parser("status", help="show endpoints, outputs, jobs and devices")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    release = commands.add_parser(
        "release", parents=[limit], help="ship another sample image from firmware/"
    )
    release.add_argument("version", metavar="VERSION", help="e.g. 2.2.0")
    release.set_defaults(run=_release)
    down = commands.add_parser("down", help="stop it and remove all it left")
    down.set_defaults(run=_down)
    return parser


def _up(options: argparse.Namespace, place: Place, console: Console) -> int:
    with place.locked("python -m sandbox up"):
        if version := session.chosen(place):
            _say(console, f"Keeping {version}, which `release` chose; `make down` forgets it.")
        return _deploy_and_follow(options.limit, place, console)


def _release(options: argparse.Namespace, place: Place, console: Console) -> int:
    session.connect(place)
    with place.locked(f"python -m sandbox release {options.version}"):
        session.choose(place, options.version)
        return _deploy_and_follow(options.limit, place, console)


def _deploy_and_follow(limit: float, place: Place, console: Console) -> int:
    sandbox = _deployed(place, console)
    firmware = sandbox.manifest().firmware
    _say(
        console,
        f"Releasing {firmware.version} ({firmware.sha256[:12]}) to"
        f" {len(sandbox.outputs['deviceNames'])} devices.",
    )
    with watch.Screen(console) as screen, sandbox.devices():
        screen.known(sandbox.state())
        verdict = watch.follow(sandbox, limit=limit, show=screen.show)
    console.print(watch.summary(sandbox, verdict.versions))
    for line in verdict.story:
        _say(console, line)
    return 0 if verdict.good else 1


def _deployed(place: Place, console: Console) -> Sandbox:
    engine = os.environ.get("ENGINE", "")
    if engine == "pulumi":
        return engine_pulumi.build(place)
    if engine:
        raise SandboxError(f"ENGINE is {engine!r}: it can be `pulumi`, or unset")
    if (place.folder / engine_pulumi.BACKEND).exists():
        raise SandboxError(
            "this sandbox was deployed with ENGINE=pulumi: set it again, or `make down` first"
        )
    sandbox, made = session.build(place, say=lambda text: _say(console, text))
    what = f"{made.created} resources created, {made.updated} updated, {made.unchanged} unchanged"
    _say(console, f"Deployed in {made.seconds:.1f} s: {what}. Local AWS: {sandbox.endpoint}")
    return sandbox


def _status(options: argparse.Namespace, place: Place, console: Console) -> int:
    sandbox = session.connect(place)
    if options.json:
        print(json.dumps(_report(sandbox), indent=1))
        return 0
    running, state, rows = sandbox.running, sandbox.state(), watch.device_rows(sandbox)
    _say(
        console,
        f"Local AWS {sandbox.endpoint}, MQTT localhost:{running.mqtt_port} (MiniStack, process"
        f" {running.pid})",
    )
    _say(console, "outputs (all of them, and what is in them: --json):")
    for name, value in _shown_outputs(sandbox).items():
        if isinstance(value, str) and "\n" not in value:
            _say(console, f"  {name}: {value}")
    _say(console, "jobs:")
    for job, status in sandbox.jobs().items():
        _say(console, f"  {job}: {status}")
    _say(console, "devices:")
    for row in rows:
        _say(console, f"  {row['serial']} {row['ring']}: {row.get('version', 'not heard of')}")
    console.print(watch.summary(sandbox, {row["serial"]: row.get("version", "") for row in rows}))
    good = state.last_good.version if state and state.last_good else "none"
    _say(console, f"last good release: {good}; {watch.waiting_line(watch.View(state=state))}")
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _report(sandbox: Sandbox) -> dict[str, object]:
    return {
        "endpoint": sandbox.endpoint,
        "ministack": asdict(sandbox.running),
        "outputs": _shown_outputs(sandbox),
        "jobs": sandbox.jobs(),
        "state": encode(sandbox.state()),
        "devices": watch.device_rows(sandbox),
    }


def _shown_outputs(sandbox: Sandbox) -> dict[str, object]:
    """The outputs without certificates and keys."""
    return {
        name: value
        for name, value in sandbox.outputs.items()
        if name not in ("deviceCertificates", "devicePrivateKeys")
    }


def _down(_options: argparse.Namespace, place: Place, console: Console) -> int:
    console.print("The sandbox is gone." if session.down(place) else "There is no sandbox.")
    return 0


def _loopback_only() -> None:
    """Nothing of the caller's AWS or proxy settings is meant for the sandbox: the devices'
    downloads honour proxies too."""
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            del os.environ[name]


def _ended(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
