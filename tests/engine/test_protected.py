"""A protected stack, where policies are enforced: its destroy leaves to devices that people
registered what they need, and the next `up` goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloud.shadows import reported
from device.agent import Device, DeviceConfig
from ops import local_aws
from rollout.names import StackOutput
from rollout.state import RingPhase, State
from rollout.version import Version
from sandbox import ministack, session
from sandbox.deploy import STACK
from sandbox.instance import Instance
from sandbox.session import Sandbox
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long
REGION = "us-east-1"
HARDWARE, FACTORY = "gateway-a1", "2.0.0"
RING_OF = {"older-than-the-stack-1": "canary", "older-than-the-stack-2": "canary", "third": "broad"}
"""By name: what AWS knows of these devices was not made by the stack, nor named by it."""
SETTINGS = {
    "iot-ota:protect": "true",
    "iot-ota:fleet.devices": "0",
    "iot-ota:rollout.gates.broad.minimumSucceeded": "1",
}
WAIT_SECONDS = 90.0


class Site:
    """The stack, up and protected, and three devices that a person registered in its rings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.instance = folder, free_instance(folder / "sandbox")
        ministack.start(self.instance)
        self.client: Callable[[str], Any] = partial(
            local_aws.client, port=self.instance.port, region=REGION
        )
        self.checkout = Checkout(folder, self.instance.port)
        self.checkout.add_stack(STACK)
        for key, value in SETTINGS.items():
            self.checkout.pulumi("config", "set", "--path", key, value, "--stack", STACK)
        self.up()
        self.configs = [self.register(name, ring) for name, ring in RING_OF.items()]

    def up(self) -> None:
        self.checkout.up(STACK)
        outputs = self.checkout.outputs(STACK)
        self.instance.write(local_aws.OUTPUTS_FILE, json.dumps(outputs))
        self.sandbox: Sandbox = session.connect(self.instance, root=self.checkout.folder)

    def release(self, version: str) -> None:
        image, digest = session.find_sample(version)
        self.checkout.edit(STACK, version=f'"{version}"', image=image, sha256=f'"{digest}"')
        self.up()

    def register(self, thing: str, ring: str) -> DeviceConfig:
        """As people register devices: README and docs/limits.md say what each needs."""
        iot, outputs = self.client("iot"), self.sandbox.outputs
        iot.create_thing(thingName=thing, thingTypeName=outputs[StackOutput.THING_TYPE_NAME])
        made = iot.create_keys_and_certificate(setAsActive=True)
        policy = outputs[StackOutput.DEVICE_POLICY_NAME]
        iot.attach_policy(policyName=policy, target=made["certificateArn"])
        iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
        group = outputs[StackOutput.RING_GROUP_NAMES][ring]
        iot.add_thing_to_thing_group(thingName=thing, thingGroupName=group)
        return DeviceConfig(
            thing=thing,
            serial=thing,
            certificate_pem=made["certificatePem"],
            private_key_pem=made["keyPair"]["PrivateKey"],
            ca_pem=self.sandbox.process.certificate_authority(),
            host="localhost",
            port=self.instance.mqtt_port,
            public_key_pem=outputs[StackOutput.SIGNING_PUBLIC_KEY],
            channel=self.sandbox.stack.channel_name,
            hardware=HARDWARE,
            initial_version=Version(FACTORY),
            initial_sha256=session.find_sample(FACTORY)[1],
            folder=self.folder / thing,
        )

    @contextmanager
    def online(self) -> Iterator[None]:
        devices = [Device(config) for config in self.configs]
        for device in devices:
            device.start()
        try:
            yield
        finally:
            for device in devices:
                device.stop()

    def until(self, what: str, true: Callable[[State], bool]) -> State:
        """Wakes the controller until `true(state)`; the state."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            answer, state = self.sandbox.wake(), self.sandbox.state()
            if state is not None and true(state):
                return state
            assert time.monotonic() < end, f"waited for {what}; the controller: {answer}"
            time.sleep(0.5)

    def proved(self, version: str) -> State:
        return self.until(
            f"{version} to be good",
            lambda state: (
                not state.candidate
                and state.last_good is not None
                and str(state.last_good.version) == version
            ),
        )

    def runs(self) -> dict[str, str]:
        """By thing: the version that it reports."""
        found = {thing: reported(self.sandbox.clients, thing) for thing in RING_OF}
        return {thing: shadow.version for thing, shadow in found.items() if shadow}

    def reports(self) -> dict[str, int]:
        """By thing: how often its shadow was written."""
        shadows = self.client("iot-data")
        answers = {thing: shadows.get_thing_shadow(thingName=thing) for thing in RING_OF}
        return {
            thing: json.loads(one["payload"].read())["version"] for thing, one in answers.items()
        }

    def rings(self) -> dict[str, list[str]]:
        """By thing: the groups that it is in."""
        iot = self.client("iot")
        answers = {thing: iot.list_thing_groups_for_thing(thingName=thing) for thing in RING_OF}
        return {
            thing: sorted(group["groupName"] for group in answer["thingGroups"])
            for thing, answer in answers.items()
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("protected")
    try:
        yield Site(folder)
    finally:
        session.down(Instance(folder=folder / "sandbox"))


def test_devices_outlive_a_protected_stack_and_up_goes_on_where_it_was(site: Site) -> None:
    with site.online():
        site.proved("2.1.0")
        site.release("2.3.0")
        before = site.until(
            "2.3.0 to be refused and taken back",
            lambda state: state.waiting.kind == "refused" and state.open_way_back is None,
        )
    rings, reports = site.rings(), site.reports()
    assert site.runs() == dict.fromkeys(RING_OF, "2.1.0")
    assert all(RING_OF[thing] in "".join(groups) for thing, groups in rings.items())

    words = ("destroy", "--yes", "--skip-preview", "--exclude-protected", "--stack")
    site.checkout.pulumi(*words, STACK)
    assert site.client("lambda").list_functions()["Functions"] == []
    with site.online():
        connected_again(site, reports)
    assert site.rings() == rings

    site.up()
    with site.online():
        after = site.until("it to wait", lambda state: state.waiting.kind == "refused")
        for fact in ("last_good", "previous_good", "releases", "candidate", "halt", "way_back"):
            assert getattr(after, fact) == getattr(before, fact), fact
        assert {after.ring_phase(ring) for ring in RING_OF.values()} == {RingPhase.LAST_GOOD}
        assert after.sequence > before.sequence, "an offer is never made twice under one number"
        site.release("2.2.0")
        site.proved("2.2.0")
    assert site.runs() == dict.fromkeys(RING_OF, "2.2.0")


def connected_again(site: Site, reports: dict[str, int]) -> None:
    """A device that boots connects, and reports what it runs."""
    end = time.monotonic() + WAIT_SECONDS
    while not all(count > reports[thing] for thing, count in site.reports().items()):
        assert time.monotonic() < end, "waited for each device to report"
        time.sleep(0.5)
