"""An open sandbox: its clients, its devices, its controller. For the command line, the operator's
and the tests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from rollout.codec import DecodeError, decode
from rollout.document import rollback_group
from rollout.observed import Counts
from rollout.release import Manifest, Version, manifest_key, state_key
from rollout.rings import RESERVED
from rollout.state import Names, Offer, State
from sandbox import clients, ministack
from sandbox.deploy import DEVICES, Deployment, Say, configuration, deploy, outputs
from sandbox.device import Device, DeviceConfig
from sandbox.place import ROOT, Place, SandboxError

COMMAND = re.compile(r"python -m sandbox (?!down).*\(process (?P<pid>\d+)\)")
"""Who holds the lock, when it is this program and may be told to end."""
END_SECONDS = 60.0
CHOSEN = "release.json"
"""Which sample image `release` picked; `up` keeps it."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A MiniStack that runs, with the stack deployed in it."""

    place: Place
    running: ministack.Running
    outputs: dict[str, Any]
    """The stack's."""
    root: Path = ROOT

    @property
    def endpoint(self) -> str:
        return clients.endpoint(self.running.port)

    @property
    def channel(self) -> str:
        return str(self.outputs["channelName"])

    @property
    def rings(self) -> list[str]:
        """In the order in which a release reaches them."""
        return list(self.outputs["release"]["rings"])

    @property
    def names(self) -> Names:
        return Names(suffix=self.outputs["suffix"], channel=self.channel)

    def client(self, service: str) -> Any:
        """A boto3 client of the local AWS, as the account's root."""
        return clients.client(service, self.running.port, self.outputs["region"])

    def wake(self) -> dict[str, Any]:
        """Runs the controller once and waits for it; its answer. Raises SandboxError when it
        failed."""
        answer = self.client("lambda").invoke(
            FunctionName=self.outputs["controllerName"], Payload=json.dumps({"source": "sandbox"})
        )
        result: dict[str, Any] = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise SandboxError(f"the controller failed: {result.get('errorMessage', result)}")
        return result

    def manifest(self) -> Manifest:
        """What the channel releases."""
        return Manifest.parse(self._object(manifest_key(self.channel)) or b"")

    def state(self) -> State | None:
        """The controller's word; None before its first run, and when somebody else wrote over
        it."""
        body = self._object(state_key(self.channel))
        try:
            return decode(State, json.loads(body)["state"]) if body else None
        except (DecodeError, ValueError, KeyError, TypeError):
            return None

    def counts(self, ring: str, offer: Offer) -> Counts | None:
        """A job's devices by status; None when there is no such job."""
        try:
            job = self.client("iot").describe_job(jobId=self.names.job(ring, offer.sequence))["job"]
        except ClientError:
            return None
        return Counts.of(job.get("jobProcessDetails", {}))

    def jobs(self) -> dict[str, str]:
        """By id: the status of every job of the channel, the newest first."""
        pages = self.client("iot").get_paginator("list_jobs").paginate()
        jobs = {job["jobId"]: job["status"] for page in pages for job in page["jobs"]}
        mine = [job for job in jobs if self.names.sequence(job) is not None]
        return {
            job: jobs[job]
            for job in sorted(mine, key=lambda job: self.names.sequence(job) or 0, reverse=True)
        }

    def reported(self) -> dict[str, dict[str, Any]]:
        """By serial: the firmware that the device's shadow reports (version, sha256, sequence);
        empty before its first report."""
        with ThreadPoolExecutor(8) as pool:
            serials = sorted(self.outputs["deviceNames"])
            return dict(zip(serials, pool.map(self._reported, serials), strict=True))

    def rolled_back(self, sequence: int) -> list[str]:
        """The serials of the devices that a rollback brings back."""
        group = rollback_group(self.outputs["fleetGroupName"], self.channel, sequence)
        try:
            things = self.client("iot").list_things_in_thing_group(thingGroupName=group)["things"]
        except ClientError:
            return []
        return sorted(
            serial for serial, thing in self.outputs["deviceNames"].items() if thing in things
        )

    def device_configs(self) -> list[DeviceConfig]:
        """What each declared device is born with. Raises SandboxError when the stack does not hold
        the devices' keys."""
        keys = self.outputs.get("devicePrivateKeys")
        if not keys:
            raise SandboxError(
                "the local stack must make the devices' keys: set keysInState: true in"
                " Pulumi.local.yaml"
            )
        fleet = self._fleet()
        version, authority = (
            str(fleet["initialVersion"]),
            ministack.certificate_authority(self.running),
        )
        digest = sample(version, self.root)[1]
        return [
            DeviceConfig(
                thing=thing,
                serial=serial,
                certificate_pem=self.outputs["deviceCertificates"][serial],
                private_key_pem=keys[serial],
                ca_pem=authority,
                host="localhost",
                port=self.running.mqtt_port,
                public_key_pem=self.outputs["signingPublicKey"],
                channel=self.channel,
                hardware=fleet["hardware"],
                initial_version=version,
                initial_sha256=digest,
                folder=self.place.folder / DEVICES / serial,
            )
            for serial, thing in sorted(self.outputs["deviceNames"].items())
        ]

    @contextmanager
    def devices(
        self, on_progress: Callable[[str, str], None] | None = None
    ) -> Iterator[list[Device]]:
        """Every declared device, connected, until the block ends. `on_progress(serial, text)` is
        called on their threads."""
        made = [Device(config, on_progress) for config in self.device_configs()]
        try:
            for device in made:
                device.start()
            yield made
        finally:
            with ThreadPoolExecutor(max(len(made), 1)) as pool:
                list(pool.map(Device.stop, made))

    def _fleet(self) -> dict[str, Any]:
        _, config = configuration(self.root, {})
        fleet: dict[str, Any] = json.loads(config.get("iot-ota:fleet", "{}"))
        if not {"hardware", "initialVersion"} <= set(fleet):
            raise SandboxError(
                "Pulumi.local.yaml must name the fleet's hardware and initialVersion: the devices"
                " are made so"
            )
        return fleet

    def _reported(self, serial: str) -> dict[str, Any]:
        try:
            shadow = self.client("iot-data").get_thing_shadow(
                thingName=self.outputs["deviceNames"][serial]
            )
        except ClientError:
            return {}
        firmware: dict[str, Any] = (
            json.loads(shadow["payload"].read())["state"].get("reported", {}).get("firmware", {})
        )
        return firmware

    def _object(self, key: str) -> bytes | None:
        try:
            body: bytes = (
                self.client("s3")
                .get_object(Bucket=self.outputs["bucketName"], Key=key)["Body"]
                .read()
            )
        except ClientError:
            return None
        return body


def build(place: Place, *, root: Path = ROOT, say: Say = print) -> tuple[Sandbox, Deployment]:
    """Starts MiniStack and deploys the stack, with the release that was chosen last; what is there
    already stays."""
    made = deploy(place, root=root, overrides=_overrides(place, root), say=say)
    return connect(place, root=root), made


def connect(place: Place, *, root: Path = ROOT) -> Sandbox:
    """The sandbox that was built. Raises SandboxError, saying what to run, when there is none or
    its MiniStack died."""
    found = outputs(place)
    running = ministack.running(place)
    if running is None or not ministack.healthy(running):
        raise SandboxError("MiniStack has stopped: run `make up` to build the sandbox anew")
    return Sandbox(place=place, running=running, outputs=found, root=root)


def choose(place: Place, version: str, *, root: Path = ROOT) -> None:
    """Picks the sample image of this version for the next `build`; raises SandboxError when there
    is none."""
    image, digest = sample(version, root)
    place.write(
        CHOSEN, json.dumps({"version": version.removeprefix("v"), "image": image, "sha256": digest})
    )


def chosen(place: Place) -> str | None:
    """The version that `choose` picked."""
    data = place.read(CHOSEN)
    return data["version"] if data else None


def sample(version: str, root: Path = ROOT) -> tuple[str, str]:
    """The path under `root` of a sample image, and its SHA-256."""
    path = f"firmware/{version.removeprefix('v')}.bin"
    if not (root / path).is_file():
        known = sorted((p.stem for p in (root / "firmware").glob("*.bin")), key=Version)
        raise SandboxError(
            f"there is no sample image {path}; there are {', '.join(known) or 'none'}"
        )
    return path, hashlib.sha256((root / path).read_bytes()).hexdigest()


def down(place: Place) -> bool:
    """Ends a command that is at work, then MiniStack, and removes the folder, whatever state it is
    in; True if it was there."""
    if not place.folder.exists():
        return False
    _end_command(place)
    with place.locked("python -m sandbox down"):
        ministack.stop(place)
        for path in place.folder.iterdir():
            if path.name != "lock":  # until the end, so that nothing new begins in between
                _remove(path)
        (place.folder / "lock").unlink()
    place.folder.rmdir()
    return True


def shown_offers(state: State, rings: Sequence[str]) -> dict[str, Offer]:
    """By ring: the job that matters now, the candidate's where there is one; the rollback's under
    its own name."""
    offers = {ring: state.stable[ring] for ring in rings if ring in state.stable}
    if state.candidate:
        offers |= {ring: progress.offer for ring, progress in state.candidate.rings.items()}
    if state.rollback:
        offers[RESERVED] = state.rollback.offer
    return offers


def _overrides(place: Place, root: Path) -> dict[str, Any]:
    """The `firmware` of the stack file with another image in it."""
    picked = place.read(CHOSEN)
    if not picked:
        return {}
    _, config = configuration(root, {})
    firmware = json.loads(config.get("iot-ota:firmware", "{}"))
    return {
        "iot-ota:firmware": {
            key: value for key, value in {**firmware, **picked}.items() if key != "size"
        }
    }


def _end_command(place: Place) -> None:
    """Asks the sandbox's own command that holds the lock to end, and waits for it: it disconnects
    its devices first."""
    holder = COMMAND.match(place.holder())
    if holder is None or not place.in_use():
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(holder["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while place.in_use() and time.monotonic() < deadline:
        time.sleep(0.1)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
