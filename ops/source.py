"""Where a command works: a stack's outputs, and clients of the AWS that holds the stack."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ops.errors import OpsError
from rollout.state import Names

ROOT = Path(__file__).resolve().parent.parent
"""The repository: where the Pulumi program lies."""
CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 4},
    connect_timeout=5,
    read_timeout=20,
    max_pool_connections=16,
)
TEXTS = ("suffix", "region", "bucketName", "channelName", "fleetGroupName", "iotEndpoint")
LISTS = ("signingKeyArns",)
MAPS = ("alarmNames", "ringGroupNames", "deviceNames")

Connect = Callable[[str], Any]
"""The boto3 client of a service."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the commands need of a stack's outputs."""

    option: str
    """How the stack was named, as it is typed: it stands in the commands that are shown."""
    suffix: str
    region: str
    bucket: str
    channel: str
    fleet_group: str
    signing_keys: Sequence[str]
    """Key ARNs: the first signs."""
    iot_endpoint: str
    alarms: Mapping[str, str]
    """By short name: the stack's own alarms."""
    ring_groups: Mapping[str, str]
    """By ring: its thing group."""
    devices: Mapping[str, str]
    """By serial: the declared devices' things."""

    @property
    def names(self) -> Names:
        return Names(suffix=self.suffix, channel=self.channel)

    @property
    def title(self) -> str:
        return f"channel {self.channel} of {self.fleet_group} ({self.region})"

    def command(self, words: str) -> str:
        """A command for this stack, to be copied."""
        return f"python -m ops {words} {self.option}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three ways to name a stack. Each may stand before or after the command."""
    group = parser.add_argument_group("where (exactly one)")
    for names, metavar, text in (
        (
            ("--stack", "-s"),
            "NAME",
            "the Pulumi stack NAME: its outputs are asked of the Pulumi CLI",
        ),
        (("--outputs",), "FILE", "a saved `pulumi stack output --json`"),
    ):
        group.add_argument(*names, metavar=metavar, default=argparse.SUPPRESS, help=text)
    group.add_argument(
        "--sandbox",
        action="store_true",
        default=argparse.SUPPRESS,
        help="the sandbox that `make up` built",
    )


def open_source(args: argparse.Namespace) -> tuple[Stack, Connect]:
    """The stack that the arguments name, and clients for it. Raises OpsError when none or more than
    one is named."""
    given = [name for name in ("stack", "outputs", "sandbox") if getattr(args, name, None)]
    if len(given) != 1:
        ways = (
            "--stack NAME (asks the Pulumi CLI), --outputs FILE (a saved `pulumi stack output"
            " --json`), or --sandbox"
        )
        raise OpsError(
            f"name exactly one stack: {ways}"
            + (f"; you named {' and '.join(given)}" if given else "")
        )
    if given == ["sandbox"]:
        return _sandbox()
    if given == ["stack"]:
        option, outputs = f"--stack {shlex.quote(args.stack)}", _asked(args.stack)
    else:
        option, outputs = f"--outputs {shlex.quote(args.outputs)}", _saved(Path(args.outputs))
    stack = read_outputs(outputs, option)
    return stack, _aws(stack)


def read_outputs(outputs: Any, option: str) -> Stack:
    """The stack in its outputs. Raises OpsError, naming every output that is missing or of another
    kind."""
    found = outputs if isinstance(outputs, dict) else {}
    wrong = [name for name in TEXTS if not isinstance(found.get(name), str) or not found[name]]
    wrong += [name for name in LISTS if not isinstance(found.get(name), list) or not found[name]]
    wrong += [name for name in MAPS if not isinstance(found.get(name), dict)]
    if wrong:
        raise OpsError(
            f"{option}: these are not the outputs of a deployed stack, they lack"
            f" {', '.join(wrong)}: run `pulumi up`"
        )
    return Stack(
        option=option,
        suffix=found["suffix"],
        region=found["region"],
        bucket=found["bucketName"],
        channel=found["channelName"],
        fleet_group=found["fleetGroupName"],
        signing_keys=found["signingKeyArns"],
        iot_endpoint=found["iotEndpoint"],
        alarms=found["alarmNames"],
        ring_groups=found["ringGroupNames"],
        devices=found["deviceNames"],
    )


def _asked(stack: str) -> Any:
    if shutil.which("pulumi") is None:
        save = (
            f"save `pulumi stack output --json -s {stack}` where it is installed and pass --outputs"
            " FILE"
        )
        raise OpsError(
            "--stack needs the Pulumi CLI (https://www.pulumi.com/docs/iac/download-install/); or"
            f" {save}"
        )
    asked = subprocess.run(
        ["pulumi", "stack", "output", "--json", "--non-interactive", "-s", stack],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        said = [line.strip() for line in asked.stderr.splitlines() if line.strip()] or [
            "it said nothing"
        ]
        raise OpsError(f"`pulumi stack output -s {stack}` failed: {said[-1]}")
    return _json(asked.stdout, f"what `pulumi stack output -s {stack}` printed")


def _saved(path: Path) -> Any:
    try:
        return _json(path.read_text(), str(path))
    except OSError as error:
        raise OpsError(f"{path} cannot be read: {error.strerror}") from error


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OpsError(f"{what} is not JSON: {error}") from error


def _aws(stack: Stack) -> Connect:
    session = boto3.Session(region_name=stack.region)

    def connect(service: str) -> Any:
        # the endpoint of the account: the one that boto3 would guess is not the same in every
        # region
        own = {"endpoint_url": f"https://{stack.iot_endpoint}"} if service == "iot-data" else {}
        return session.client(service, config=CONFIG, **own)

    return connect


def _sandbox() -> tuple[Stack, Connect]:
    from sandbox import clients, ministack  # here: who operates a real stack needs no sandbox
    from sandbox.place import Place, SandboxError

    try:
        place = Place.from_environment()
    except SandboxError as error:
        raise OpsError(str(error)) from error
    outputs, running = place.read("outputs.json"), ministack.running(place)
    if outputs is None or running is None:
        raise OpsError(f"no sandbox runs in {place.folder}: run `make up` first")
    stack = read_outputs(outputs, "--sandbox")
    return stack, lambda service: clients.client(service, running.port, stack.region)
