"""An open sandbox: its channel, its devices, its controller. For the command line and the tests."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cloud.channel import Channel
from cloud.clients import Clients, list_all
from cloud.serial_table import SerialTable
from cloud.shadows import Reported, reported
from components.stack_file import ROOT, read_configuration
from ops import local_aws
from ops.command import Command
from ops.report import Report, Reporter
from ops.serial_import import import_serials
from ops.stack import Access, Stack
from ops.stack import read_outputs as read_stack
from rollout.names import ROLLBACK, Names, StackOutput
from rollout.release import Manifest
from rollout.serial import SerialStatus
from rollout.state import State
from rollout.version import Version
from sandbox import ministack
from sandbox.arrivals import Arrivals
from sandbox.deploy import RESOURCES, STACK_FILE, Say, deploy, read_outputs
from sandbox.factory import CLAIM, FLEET, SERIALS, DeviceFactory, override_claim
from sandbox.first_words import Engine
from sandbox.instance import Instance, SandboxError
from sandbox.pulumi_cli import check_cli, deploy_by_cli, end_left_cli, has_deployed

COMMAND = re.compile(r"python -m sandbox (?!down).*\(process (?P<pid>\d+)\)")
"""Who holds the lock, when it is this program and may be told to end."""
END_SECONDS = 60.0
PICKED = "release.json"
"""Which sample image `release` picked; `up` keeps it."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A MiniStack that runs, with the stack deployed in it."""

    instance: Instance
    process: ministack.MiniStackProcess
    outputs: dict[str, Any]
    """The stack's."""
    root: Path = ROOT

    @property
    def endpoint(self) -> str:
        return local_aws.endpoint(self.process.port)

    @cached_property
    def stack(self) -> Stack:
        """As operators' commands see it."""
        return read_stack(self.outputs, "--sandbox")

    @property
    def names(self) -> Names:
        return self.stack.names

    @cached_property
    def clients(self) -> Clients:
        return Clients(self.client)

    @cached_property
    def channel(self) -> Channel:
        stack = self.stack
        return Channel(
            self.clients, stack.names, bucket=stack.bucket_name, signing_keys=stack.signing_key_arns
        )

    @cached_property
    def _reporter(self) -> Reporter:
        return Reporter(self.channel, self.stack)

    def client(self, service: str) -> Any:
        """A boto3 client of the local AWS, as the account's root."""
        return local_aws.client(service, self.process.port, self.stack.region)

    def wake(self) -> dict[str, Any]:
        """Runs the controller once and waits for it; its answer. Raises SandboxError when it
        failed."""
        answer = self.client("lambda").invoke(
            FunctionName=self.outputs[StackOutput.CONTROLLER_NAME],
            Payload=json.dumps({"source": "sandbox"}),
        )
        result: dict[str, Any] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise SandboxError(f"the controller failed: {result.get('errorMessage', result)}")
        return result

    def report(self) -> Report:
        """What `python -m ops --sandbox status` shows."""
        return self._reporter.report(time.time())

    def manifest(self) -> Manifest:
        """What the channel releases. Raises SandboxError when it cannot be read."""
        manifest, problem = self.channel.manifest()
        if manifest is None:
            raise SandboxError(f"the manifest cannot be read: {problem}")
        return manifest

    def state(self) -> State | None:
        """The controller's state; None before its first run. Raises UntrustedState when somebody
        else wrote over it."""
        stored = self.channel.state()
        return stored.state if stored else None

    def reported(self) -> dict[str, Reported | None]:
        """By serial: what the device's shadow reports; None before its first report."""
        things = self.things()
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda name: name and reported(self.clients, name), things.values())
            return {serial: shadow or None for serial, shadow in zip(things, found, strict=True)}

    def list_rolled_back(self, group: int) -> list[str]:
        """The serials of the devices that the way back of this group, the last one, has brought
        back: the group itself is gone when it is done."""
        things = self.things().items()
        return [serial for serial, name in things if name and self._is_rolled_back(name, group)]

    def _is_rolled_back(self, thing: str, group: int) -> bool:
        for one in self.channel.jobs.of_thing(thing):
            ring, sequence = self.names.split_job(one.job) or ("", 0)
            if ring == ROLLBACK and sequence > group and one.status == "SUCCEEDED":
                return True
        return False

    @cached_property
    def registry(self) -> SerialTable:
        """Of the serials that may come in."""
        table = self.stack.serials_table_name
        if table is None:
            raise SandboxError(
                f"{STACK_FILE} must let devices come in: fleet.provisioning with a claim {CLAIM}"
            )
        return SerialTable(self.clients, table)

    def add_serials(self, path: Path = SERIALS) -> int:
        """Adds a list to the registry as `ops serials add` does; how many are new there."""
        before = self.things()
        access = Access(stack=self.stack, channel=self.channel, caller="the sandbox")
        command = Command(access, why="simulated devices", is_agreed=True)
        with contextlib.redirect_stdout(io.StringIO()):
            import_serials(command, self.registry, path, is_dry=False)
        return len(self.things()) - len(before)

    def things(self) -> dict[str, str | None]:
        """By serial of the registry, but for those that are blocked: the device's thing; None
        before it has come in."""
        records = [stored.record for stored in self.registry.list()]
        return {
            one.serial: one.claim.thing if one.claim else None
            for one in sorted(records, key=lambda one: one.serial)
            if one.status is not SerialStatus.BLOCKED
        }

    def rings(self) -> dict[str, str]:
        """By thing: the ring that it is in."""

        def members(group: str) -> list[str]:
            call = "list_things_in_thing_group"
            return list(list_all(self.clients.iot, call, "things", thingGroupName=group))

        groups = self.stack.ring_group_names.items()
        return {thing: ring for ring, group in groups for thing in members(group)}

    @cached_property
    def factory(self) -> DeviceFactory:
        """Of the simulated devices. Raises SandboxError where the stack file does not say what they
        are."""
        config = read_configuration(self.root / STACK_FILE, self.root)
        fleet = json.loads(config.get(FLEET, "{}"))
        if not {"hardware", "initialVersion"} <= set(fleet):
            raise SandboxError(
                f"{STACK_FILE} must name the fleet's hardware and initialVersion: the devices are"
                " made so"
            )
        version, outputs = Version(str(fleet["initialVersion"])), self.outputs
        return DeviceFactory(
            instance=self.instance,
            claim_pem=outputs[StackOutput.CLAIM_CERTIFICATES][CLAIM],
            template=outputs[StackOutput.PROVISIONING_TEMPLATE_NAME],
            endpoint={
                "ca_pem": self.process.certificate_authority(),
                "host": "localhost",
                "port": self.process.mqtt_port,
            },
            firmware={
                "public_key_pem": outputs[StackOutput.SIGNING_PUBLIC_KEY],
                "channel": self.stack.channel_name,
                "hardware": fleet["hardware"],
                "initial_version": version,
                "initial_sha256": find_sample(str(version), self.root)[1],
            },
        )

    def devices(self, **watch: Any) -> Arrivals:
        """Every device of the registry, connected until the block ends; those that have not come in
        do so first. `watch` as Arrivals takes it."""
        return Arrivals(self.factory, self.things(), **watch)


def build(
    instance: Instance,
    *,
    engine: Engine = Engine.IN_PROCESS,
    root: Path = ROOT,
    say: Say = print,
) -> Sandbox:
    """Starts MiniStack and deploys the stack by `engine`, with the release that was picked last;
    what is there already stays. Raises SandboxError as `check_engine` does."""
    check_engine(instance, engine)
    overrides, began = override_claim(instance, root), time.monotonic()
    overrides |= _override_firmware(instance, root)
    if engine is Engine.PULUMI:
        deploy_by_cli(instance, root=root, overrides=overrides, say=say)
        what = "by the Pulumi CLI"
    else:
        done = deploy(instance, root=root, overrides=overrides, say=say)
        what = (
            f"{done.created} resources created, {done.updated} updated, {done.unchanged} unchanged"
        )
    sandbox = connect(instance, root=root)
    seconds = time.monotonic() - began
    say(f"Deployed in {seconds:.1f} s: {what}. Local AWS: {sandbox.endpoint}")
    return sandbox


def check_engine(instance: Instance, engine: Engine) -> None:
    """Raises SandboxError where the other deployer made this sandbox, and where the CLI is to
    deploy and is not installed."""
    if engine is Engine.PULUMI:
        check_cli()
        if (instance.folder / RESOURCES).exists():
            raise SandboxError(
                "this sandbox was deployed without ENGINE=pulumi: go on without it, or `make down`"
                " first"
            )
    elif has_deployed(instance):
        raise SandboxError(
            "this sandbox was deployed with ENGINE=pulumi: set it again, or `make down` first"
        )


def connect(instance: Instance, *, root: Path = ROOT) -> Sandbox:
    """The sandbox that was built. Raises SandboxError, saying what to run, when there is none or
    its MiniStack died."""
    outputs = read_outputs(instance)
    process = ministack.find(instance)
    if process is None or not process.is_healthy():
        raise SandboxError("MiniStack has stopped: run `make up` to build the sandbox anew")
    return Sandbox(instance=instance, process=process, outputs=outputs, root=root)


def pick_version(instance: Instance, version: str, *, root: Path = ROOT) -> None:
    """Picks the sample image of this version for the next `build`; raises SandboxError when there
    is none."""
    image, digest = find_sample(version, root)
    picked = {"version": version.removeprefix("v"), "image": image, "sha256": digest}
    instance.write(PICKED, json.dumps(picked))


def picked_version(instance: Instance) -> str | None:
    picked = instance.read(PICKED)
    return picked["version"] if picked else None


def find_sample(version: str, root: Path = ROOT) -> tuple[str, str]:
    """The path under `root` of a sample image, and its SHA-256."""
    path = f"firmware/{version.removeprefix('v')}.bin"
    if not (root / path).is_file():
        known = sorted((p.stem for p in (root / "firmware").glob("*.bin")), key=Version)
        raise SandboxError(
            f"there is no sample image {path}; there are {', '.join(known) or 'none'}"
        )
    return path, hashlib.sha256((root / path).read_bytes()).hexdigest()


def _override_firmware(instance: Instance, root: Path) -> dict[str, Any]:
    """The `firmware` of the stack file with the picked image in it."""
    picked = instance.read(PICKED)
    if not picked:
        return {}
    config = read_configuration(root / STACK_FILE, root)
    firmware = {**json.loads(config.get("iot-ota:firmware", "{}")), **picked}
    firmware.pop("size", None)  # of the other image
    return {"iot-ota:firmware": firmware}


def down(instance: Instance) -> bool:
    """Ends a command that is at work, then MiniStack, and removes the folder, whatever state it is
    in; True if it was there."""
    folder = instance.folder
    if not folder.exists():
        return False
    _end_command(instance)
    with instance.locked("python -m sandbox down"):
        end_left_cli(instance)
        ministack.stop(instance)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != "lock":  # until the end, so that nothing new begins in between
                path.unlink()
        (folder / "lock").unlink()
    folder.rmdir()
    return True


def _end_command(instance: Instance) -> None:
    """Asks the sandbox's own command that holds the lock to end, and waits for it: it disconnects
    its devices first."""
    holder = COMMAND.match(instance.lock_holder())
    if holder is None or not instance.is_locked():
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(holder["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while instance.is_locked() and time.monotonic() < deadline:
        time.sleep(0.1)
