"""A small fleet for end-to-end tests: the `local` stack with five devices, and what people, devices
and AWS do to it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import boto3
from botocore.config import Config

from cloud.shadows import Reported
from components.stack_file import ROOT, read_configuration
from device.agent import Device, DeviceConfig, Faults
from firmware.make_sample import image
from ops import local_aws
from ops.main import main as operate
from rollout.codec import sha256_hex
from rollout.names import ROLLBACK, StackOutput
from rollout.observed import LIVE
from rollout.state import State
from sandbox import ministack, session
from sandbox.deploy import STACK_FILE, deploy
from sandbox.factory import override_claim
from sandbox.instance import Instance
from sandbox.session import Sandbox

HARDWARE, FACTORY = "gateway-a1", "2.0.0"
CANARY, BROAD = ("0001", "0002"), ("0003", "0004", "0005")
EVERYBODY = CANARY + BROAD
IMAGES = "images"
"""The bucket that a build puts its images into."""
GATES: dict[str, dict[str, Any]] = {
    "canary": {
        "coveragePercent": 100,
        "minimumSucceeded": 2,
        "failureLimit": {"percent": 10, "devices": 2},
    },
    "broad": {
        "coveragePercent": 100,
        "minimumSucceeded": 3,
        "failureLimit": {"percent": 10, "devices": 3},
    },
}
Clients = Callable[[str], Any]
"""The boto3 client of a service."""
NO_FAULTS = Faults()
WAIT_SECONDS = 30.0


def wait_for(what: str, true: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """The first value of `true()` that holds."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return value


class Fleet:
    """The stack in a sandbox of its own. Its first release is offered to nobody: no device is
    connected yet."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.region = read_configuration(ROOT / STACK_FILE)["aws:region"]
        self.answers: list[dict[str, Any]] = []
        """Of every run of the controller that a test waited for."""
        self._images: dict[str, bytes] = {}
        self._online: dict[str, Device] = {}
        ministack.start(instance)
        self.client("s3").create_bucket(Bucket=IMAGES)
        self.ship("2.1.0")
        self.sandbox: Sandbox = session.connect(instance)
        self.add_serials(canary=CANARY, broad=BROAD)
        self.configs = {serial: self.claim(serial) for serial in EVERYBODY}

    def client(self, service: str) -> Any:
        """A client of the account's root."""
        return local_aws.client(service, self.instance.port, self.region)

    def client_as(self, key: str, secret: str, token: str | None = None) -> Clients:
        """Clients with credentials that policies are held against."""
        made = boto3.session.Session(key, secret, token, self.region)
        config = Config(
            proxies={},
            s3={"addressing_style": "path"},
            read_timeout=120,  # a call of the controller may take it a minute
            retries={"total_max_attempts": 1},
        )
        presigning = config.merge(
            Config(signature_version="s3v4")
        )  # as IoT presigns; boto3 by itself still uses version 2
        return lambda service: made.client(
            service,
            endpoint_url=self.sandbox.endpoint,
            config=presigning if service == "s3" else config,
        )

    def role(self, name: str) -> Clients:
        """A session of one of the stack's roles, which an administrator lets the account assume for
        a moment."""
        iam, arn = self.client("iam"), f"arn:aws:iam::{local_aws.ACCOUNT}:role/{name}"
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        account = {
            "Effect": "Allow",
            "Principal": {"AWS": local_aws.ACCOUNT},
            "Action": "sts:AssumeRole",
        }
        iam.update_assume_role_policy(
            RoleName=name,
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [account]}),
        )
        made = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        return self.client_as(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])

    # Releases

    def ship(
        self,
        version: str,
        *,
        bad: bool = False,
        gates: Mapping[str, Any] | None = None,
        **rollout: Any,
    ) -> str:
        """`pulumi up` with this version; the SHA-256 of its image. `gates` changes fields of the
        rings' gates."""
        content = self._images.setdefault(
            version, image(version, HARDWARE, "fail" if bad else "pass")
        )
        # with its checksum, which MiniStack copies and AWS would work out anew
        self.client("s3").put_object(
            Bucket=IMAGES, Key=version, Body=content, ChecksumAlgorithm="SHA256"
        )
        deploy(
            self.instance,
            overrides=self._overrides(version, content, gates or {}, rollout),
            say=_no_rebuild,
        )
        return sha256_hex(content)

    def _overrides(
        self, version: str, content: bytes, gates: Mapping[str, Any], rollout: dict[str, Any]
    ) -> dict[str, Any]:
        firmware = {
            "version": version,
            "image": f"s3://{IMAGES}/{version}",
            "sha256": sha256_hex(content),
            "size": len(content),
        }
        changed = {ring: {**GATES[ring], **gates.get(ring, {})} for ring in GATES}
        return override_claim(self.instance, ROOT) | {
            "iot-ota:firmware": firmware,
            "iot-ota:rollout": {
                "devicesPerMinute": 1000,
                "inProgressTimeoutMinutes": 1,
                "gates": changed,
                **rollout,
            },
        }

    def release(self, version: str, **settings: Any) -> State:
        """Ships a good version and follows it until it is the last good one."""
        self.ship(version, **settings)
        return self.proved(version)

    def proved(self, version: str) -> State:
        return self.until(
            f"{version} to be the last good release",
            lambda s: (
                s.candidate is None
                and s.last_good is not None
                and str(s.last_good.version) == version
            ),
        )

    def went_back(self, version: str) -> State:
        return self.until(
            f"everybody to be back from {version}", lambda s: is_back_from(s, version)
        )

    # The controller

    def wake(self) -> dict[str, Any]:
        """Runs the controller, again where another run, which S3 or a job's end had woken, was
        faster; its answer."""
        answer = wait_for(
            "a run that is not overtaken",
            lambda: (a := self.sandbox.wake())["outcome"] != "lost" and a,
        )
        self.answers.append(answer)
        return dict(answer)

    @property
    def state(self) -> State:
        state = self.sandbox.state()
        assert state is not None, "the controller has no state"
        return state

    def until(
        self, what: str, true: Callable[[State], Any], seconds: float = WAIT_SECONDS
    ) -> State:
        """Wakes the controller until `true(state)`; the state."""
        end = time.monotonic() + seconds
        while True:
            answer = self.wake()
            state = self.sandbox.state()
            if state is not None and true(state):
                return state
            assert time.monotonic() < end, (
                f"waited {seconds:.0f} s for {what}; the controller: {answer}"
            )
            time.sleep(0.1)

    def waits(self, kind: str) -> State:
        return self.until(
            f"the controller to wait for {kind}", lambda state: state.waiting.kind == kind
        )

    @contextlib.contextmanager
    def controller_down(self) -> Iterator[None]:
        """Whoever calls the function meanwhile is refused."""
        function = {"FunctionName": self.sandbox.outputs[StackOutput.CONTROLLER_NAME]}
        self.client("lambda").put_function_concurrency(**function, ReservedConcurrentExecutions=0)
        try:
            yield
        finally:
            self.client("lambda").delete_function_concurrency(**function)

    def ops(self, *words: str) -> str:
        """`python -m ops WORDS --sandbox`, which must succeed; what it printed."""
        variables = {
            "SANDBOX_DIR": self.instance.folder,
            "SANDBOX_PORT": self.instance.port,
            "SANDBOX_MQTT_PORT": self.instance.mqtt_port,
        }
        printed = io.StringIO()
        with (
            mock.patch.dict(os.environ, {name: str(value) for name, value in variables.items()}),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            code = operate([*words, "--sandbox", "--yes", "--why", "a test"])
        assert code == 0, printed.getvalue()
        return printed.getvalue()

    # Jobs

    def job(self, ring: str) -> str:
        """The id of the job that the candidate, or else the last good release, has in this ring; or
        of the rollback's, the last one."""
        state = self.state
        wanted = state.returning() if ring == ROLLBACK else state.proof(ring) or state.kept(ring)
        known = [one.sequence for one in state.offers if one.ring == ring]
        if wanted:
            return self.sandbox.names.job(ring, wanted.sequence)
        if not known:  # it is over and forgotten: IoT still knows it
            split = map(self.sandbox.names.split_job, self.jobs())
            known = [parts[1] for parts in split if parts and parts[0] == ring]
        return self.sandbox.names.job(ring, max(known))

    def job_of_last_good(self, ring: str) -> str:
        """The id of the job that gives the ring what it has proved."""
        kept = self.state.kept(ring)
        assert kept is not None, f"ring {ring} has no job of the last good release"
        return self.sandbox.names.job(ring, kept.sequence)

    def jobs(self) -> dict[str, str]:
        """By id: the status of every job of the channel, ended ones too."""
        return self.sandbox.channel.jobs.statuses()

    def live_jobs(self) -> list[str]:
        return sorted(job for job, status in self.jobs().items() if status in LIVE)

    def no_ring_has_two_jobs(self) -> None:
        """So it is in quiet: what the ring proved, and nothing beside it."""
        rings = Counter(ring_of(self, job) for job in self.live_jobs())
        assert set(rings.values()) == {1}, rings

    def executions(self, job: str) -> dict[str, str]:
        """By serial: the status of the job's execution."""
        pages = self.client("iot").get_paginator("list_job_executions_for_job").paginate(jobId=job)
        found = [
            (e["thingArn"].rsplit("-", 1)[1], e["jobExecutionSummary"]["status"])
            for p in pages
            for e in p["executionSummaries"]
        ]
        return dict(sorted(found))

    def details(self, job: str, serial: str) -> dict[str, str]:
        """What the device said about its execution."""
        execution = self.client("iot").describe_job_execution(
            jobId=job, thingName=self.thing(serial)
        )["execution"]
        return dict(execution["statusDetails"]["detailsMap"])

    def brought_back(self, state: State) -> tuple[str, ...]:
        """The serials of the devices that the state's way back has brought back."""
        assert state.way_back is not None, "there was no rollback"
        return tuple(self.sandbox.list_rolled_back(state.way_back.group))

    # Devices

    def thing(self, serial: str) -> str:
        return self.configs[serial].thing

    def add_serials(self, **rings: Iterable[str]) -> None:
        """By ring: serials that are new in the registry."""
        lines = [f"{serial},{ring}" for ring, serials in rings.items() for serial in serials]
        path = self.instance.folder / "serials.csv"
        path.write_text("\n".join(["serial,ring", *lines]) + "\n")
        self.sandbox.add_serials(path)

    def claim(self, serial: str) -> DeviceConfig:
        """A device of the factory, which comes in by claim."""
        told: list[str] = []
        claiming = self.sandbox.factory.build(serial, told.append, told.append)
        return self.sandbox.factory.configure(serial, claiming.run())

    def connect(self, *serials: str, faults: Faults = NO_FAULTS) -> list[Device]:
        """Switches devices on: these, or all that are off."""
        off = [serial for serial in EVERYBODY if serial not in self._online]
        devices = {serial: Device(self.configs[serial], faults=faults) for serial in serials or off}
        self._online |= devices
        for device in devices.values():
            device.start()
        return list(devices.values())

    def disconnect(self, *serials: str) -> None:
        """Switches devices off: these, or all."""
        devices = [self._online.pop(serial) for serial in serials or tuple(self._online)]
        with ThreadPoolExecutor(max(len(devices), 1)) as pool:
            list(pool.map(Device.stop, devices))

    def runs(self) -> dict[str, str]:
        """By serial: the version that the device's shadow reports."""
        return {serial: shadow.version for serial, shadow in self.reported().items()}

    def reported(self) -> dict[str, Reported]:
        """By serial: what the device's shadow reports; every device has reported."""
        shadows = self.sandbox.reported()
        return {serial: shadow for serial, shadow in shadows.items() if shadow}


def ring_of(fleet: Fleet, job: str) -> str:
    """The ring in the id of one of the channel's jobs."""
    parts = fleet.sandbox.names.split_job(job)
    assert parts is not None, f"{job} is no job of the channel"
    return parts[0]


def is_back_from(state: State, version: str) -> bool:
    """Whether the last way back was from this version, and is over."""
    back = state.way_back
    return back is not None and not back.is_open and version in back.failed.split(", ")


def refused(state: State) -> dict[str, str]:
    """By digest that is refused: why."""
    releases = state.releases.items()
    return {sha256: one.why for sha256, one in releases if one.standing == "refused"}


def everybody(version: str) -> dict[str, str]:
    return dict.fromkeys(EVERYBODY, version)


def _no_rebuild(text: str) -> None:
    raise AssertionError(f"a release must not replace the stack: {text}")
