"""Which stack a command means: its outputs, and its channel in the AWS that holds it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from cloud.channel import Channel
from cloud.clients import CONFIG, Clients
from cloud.device_ties import DeviceTies
from cloud.serial_table import SerialTable
from ops import local_aws
from ops.errors import OpsError
from ops.paced import CONNECTIONS
from rollout.codec import DecodeError, camel_case, decode
from rollout.names import Names

PROGRAM_FOLDER = Path(__file__).resolve().parent.parent
"""The repository: where the Pulumi program lies."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the commands need of a stack. All but `option` are outputs, named as
    rollout.names.StackOutput names them."""

    option: str
    """How the stack was named, as it is typed: it stands in the commands that are shown."""
    fleet_name: str
    suffix: str
    region: str
    bucket_name: str
    channel_name: str
    fleet_group_name: str
    iot_endpoint: str
    signing_key_arns: tuple[str, ...]
    """The first signs."""
    alarm_names: dict[str, str]
    """By short name: the stack's own alarms."""
    ring_group_names: dict[str, str]
    """By ring: its thing group."""
    device_names: dict[str, str]
    """By serial: the declared devices' things."""
    image_key_arn: str | None = None
    """What signs images for agents that ask for it; None where nothing does."""
    device_rings: dict[str, str] = field(default_factory=dict)
    """By serial: the declared devices' rings."""
    device_certificates: dict[str, str] = field(default_factory=dict)
    """By serial: the declared devices' certificates, PEM."""
    thing_type_name: str | None = None
    """The devices' thing type."""
    serials_table_name: str | None = None
    """The registry of serials; this and the next only where devices are provisioned by claim."""
    provisioning_template_name: str | None = None

    @property
    def names(self) -> Names:
        return Names(fleet=self.fleet_name, suffix=self.suffix, channel=self.channel_name)

    @property
    def title(self) -> str:
        return f"channel {self.channel_name} of {self.fleet_group_name} ({self.region})"

    def command(self, words: str) -> str:
        """A command for this stack, to be copied."""
        return f"python -m ops {words} {self.option}"

    def ties(self, clients: Clients) -> DeviceTies:
        return DeviceTies(clients, self.names, self.serial_table(clients))

    def serial_table(self, clients: Clients, waits: Sequence[float] = ()) -> SerialTable | None:
        """The registry of serials, with SerialTable's `waits`; None where the stack has none."""
        table = self.serials_table_name
        return SerialTable(clients, table, waits=waits) if table else None

    def channel(self, clients: Clients) -> Channel:
        return Channel(
            clients, self.names, bucket=self.bucket_name, signing_keys=self.signing_key_arns
        )


@dataclass(frozen=True, kw_only=True)
class Access:
    """A stack's channel, and who reaches it."""

    stack: Stack
    channel: Channel
    caller: str
    """ARN."""


def add_stack_arguments(parser: argparse.ArgumentParser) -> None:
    """The three ways to name a stack. Each may stand before or after the command."""
    group = parser.add_argument_group("where (exactly one)")
    add = functools.partial(group.add_argument, default=argparse.SUPPRESS)
    add("--stack", "-s", metavar="NAME", help="a Pulumi stack: its outputs are asked of the CLI")
    add("--outputs", metavar="FILE", help="a saved `pulumi stack output --json`")
    add("--sandbox", action="store_true", help="the sandbox that `make up` built")


def open_access(args: argparse.Namespace) -> Access:
    """The channel of the stack that the arguments name. Raises OpsError when none or more than one
    is named, and when the credentials are another account's."""
    stack, clients = open_stack(args)
    identity = clients.sts.get_caller_identity()
    mine, account = identity["Account"], stack.signing_key_arns[0].split(":")[4]
    if mine != account:
        raise OpsError(
            f"you are signed in to account {mine}, the stack is in {account}: check AWS_PROFILE"
        )
    return Access(stack=stack, channel=stack.channel(clients), caller=str(identity["Arn"]))


def open_stack(args: argparse.Namespace) -> tuple[Stack, Clients]:
    """The stack that is named in exactly one way, and clients of the AWS that holds it."""
    named = {way: getattr(args, way, None) for way in ("stack", "outputs", "sandbox")}
    ways = [way for way, value in named.items() if value]
    if len(ways) != 1:
        both = f"; you named {' and '.join(ways)}" if ways else ""
        raise OpsError(
            "name exactly one stack: --stack NAME (asks the Pulumi CLI), --outputs FILE (a saved"
            f" `pulumi stack output --json`), or --sandbox{both}"
        )
    if named["sandbox"]:
        return _open_sandbox()
    [way] = ways
    name = str(named[way])
    option = f"--{way} {shlex.quote(name)}"
    try:
        outputs = json.loads(_ask_pulumi(name) if way == "stack" else Path(name).read_text())
    except OSError as error:
        raise OpsError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OpsError(f"what {option} gives is not JSON: {error}") from error
    stack = read_outputs(outputs, option)
    return stack, _connect(stack)


def read_outputs(outputs: object, option: str) -> Stack:
    """The stack in its outputs. Raises OpsError, naming every output that is missing or wrong."""
    found = outputs if isinstance(outputs, dict) else {}
    keys = [camel_case(field.name) for field in dataclasses.fields(Stack)]
    known = {key: found[key] for key in keys if found.get(key) not in (None, "", [])}
    try:
        return decode(Stack, {**known, "option": option})
    except DecodeError as error:
        raise OpsError(
            f"{option}: these are not the outputs of a deployed stack"
            f" ({'; '.join(error.mistakes)}): run `pulumi up`"
        ) from error


def _ask_pulumi(stack: str) -> str:
    """The stack's outputs, as the CLI prints them."""
    if shutil.which("pulumi") is None:
        raise OpsError(
            "--stack needs the Pulumi CLI (https://www.pulumi.com/docs/iac/download-install/); or"
            f" save `pulumi stack output --json -s {stack}` where it is installed and pass"
            " --outputs FILE"
        )
    asked = subprocess.run(
        ["pulumi", "stack", "output", "--json", "--non-interactive", "-s", stack],
        cwd=PROGRAM_FOLDER,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        why = (asked.stderr.strip() or "it said nothing").splitlines()[-1].strip()
        raise OpsError(f"`pulumi stack output -s {stack}` failed: {why}")
    return asked.stdout


def _connect(stack: Stack) -> Clients:
    session = boto3.Session(region_name=stack.region)
    config = CONFIG.merge(Config(max_pool_connections=CONNECTIONS))

    def connect(service: str) -> BaseClient:
        # the account's own endpoint: the one that boto3 would guess is not the same everywhere
        endpoint = f"https://{stack.iot_endpoint}" if service == "iot-data" else None
        return session.client(service, config=config, endpoint_url=endpoint)

    return Clients(connect)


def _open_sandbox() -> tuple[Stack, Clients]:
    """The stack that the sandbox's files describe, once something listens where they say."""
    folder = local_aws.sandbox_folder()
    try:
        outputs = json.loads((folder / local_aws.OUTPUTS_FILE).read_text())
        port = int(json.loads((folder / local_aws.PROCESS_FILE).read_text())["port"])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OpsError(f"no sandbox runs in {folder}: run `make up` first") from error
    stack = read_outputs(outputs, "--sandbox")
    return stack, Clients(lambda service: local_aws.client(service, port, stack.region))
