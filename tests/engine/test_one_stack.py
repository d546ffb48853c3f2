"""The stack `local`, made by the Pulumi CLI where policies are enforced: the same as the sandbox
makes, a release that is good, one that is bad, and nothing left in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from components.stack_file import ROOT
from ops import local_aws
from ops.main import main as operate
from rollout.names import StackOutput
from rollout.observed import LIVE
from sandbox import ministack, session
from sandbox.deploy import STACK, deploy
from sandbox.factory import CLAIM, CLAIM_KEY, FLEET, override_claim
from sandbox.follow import ReleaseOutcome, follow
from sandbox.instance import Instance
from sandbox.session import Sandbox
from tests.engine.account import Holding, differences, holdings, named_alike
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

REGION = "us-east-1"
CANARIES = ["0001", "0002"]
FOLLOW_SECONDS = 120.0


def held(instance: Instance) -> Holding:
    return holdings(partial(local_aws.client, port=instance.port, region=REGION))


def names_of(holding: Holding) -> list[str]:
    """Of what is there. The account's settings always are, and no destroy takes them back: the
    account may rely on them."""
    return sorted(holding)


class EngineMade:
    """The stack, and the sandbox around it."""

    def __init__(self, folder: Path) -> None:
        self.instance = free_instance(folder / "sandbox")
        ministack.start(self.instance)
        self.before = held(self.instance)
        self.checkout = Checkout(folder, self.instance.port)
        self.checkout.add_stack(STACK)
        self.claim = override_claim(self.instance, ROOT)
        request = self.claim[FLEET]["provisioning"]["claims"][0]["csr"]
        claims = json.dumps([{"name": CLAIM, "csr": request}])  # which YAML reads, too
        self.checkout.edit(STACK, provisioning=f"{{claims: {claims}}}")
        self.checkout.up(STACK)
        self.outputs = self.checkout.outputs(STACK)
        self.made = held(self.instance)
        self.instance.write(local_aws.OUTPUTS_FILE, json.dumps(self.outputs))
        self.sandbox: Sandbox = session.connect(self.instance, root=self.checkout.folder)
        self.sandbox.add_serials()

    def release(self, version: str) -> ReleaseOutcome:
        """Changes the stack file, deploys, and follows the release with every device connected."""
        image, digest = session.find_sample(version)
        self.checkout.edit(STACK, version=f'"{version}"', image=image, sha256=f'"{digest}"')
        self.checkout.up(STACK)
        return self.follow()

    def operate(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """`python -m ops COMMAND --sandbox`, which must succeed."""
        for name, value in (
            ("SANDBOX_DIR", self.instance.folder),
            ("SANDBOX_PORT", self.instance.port),
            ("SANDBOX_MQTT_PORT", self.instance.mqtt_port),
        ):
            monkeypatch.setenv(name, str(value))
        assert operate([command, "--sandbox", "--yes", "--why", "a test"]) == 0

    def follow(self) -> ReleaseOutcome:
        with self.sandbox.devices():
            return follow(self.sandbox, limit=FOLLOW_SECONDS, show=lambda _report: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineMade]:
    folder = tmp_path_factory.mktemp("one")
    try:
        yield EngineMade(folder)
    finally:
        session.down(Instance(folder=folder / "sandbox"))


def test_both_deployers_make_the_same(
    made: EngineMade, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = free_instance(tmp_path_factory.mktemp("other") / "sandbox")
    try:
        deployed = deploy(other, overrides=made.claim, say=lambda _text: None)
        ours = named_alike(held(other), str(deployed.outputs[StackOutput.SUFFIX]))
    finally:
        session.down(other)
    theirs = named_alike(made.made, str(made.outputs[StackOutput.SUFFIX]))
    assert list(differences(ours, theirs)) == []


def test_a_good_release_reaches_every_device(made: EngineMade) -> None:
    outcome = made.follow()
    assert outcome.is_good, outcome.story
    assert len(outcome.versions) == 20
    assert set(outcome.versions.values()) == {"2.1.0"}


def test_a_bad_release_stops_in_canary_and_all_its_devices_come_back(made: EngineMade) -> None:
    outcome = made.release("2.3.0")
    assert outcome.story[0] == "2.3.0 was stopped and rolled back to 2.1.0"
    assert outcome.story[2] == f"brought back: {', '.join(CANARIES)}"
    assert len(outcome.versions) == 20
    assert set(outcome.versions.values()) == {"2.1.0"}


def test_what_the_controller_did_is_no_change_to_the_stack(made: EngineMade) -> None:
    """One look: what AWS holds is read anew, and compared with what the program says."""
    words = ("preview", "--refresh", "--diff", "--expect-no-changes")
    made.checkout.pulumi(*words, "--stack", STACK)


def test_secrets_are_only_where_they_are_asked_for(made: EngineMade) -> None:
    assert StackOutput.DEVICE_PRIVATE_KEYS not in made.outputs
    keys = {path.parent.name: path for path in made.instance.folder.glob("devices/*/device.key")}
    keys[CLAIM] = made.instance.folder / CLAIM_KEY
    assert len(keys) == 21
    secrets = {
        **{f"the key of {name}": path.read_text().splitlines()[1] for name, path in keys.items()},
        "the passphrase": made.checkout.passphrase,
    }
    written = {
        str(path.relative_to(made.checkout.state)): path.read_text()
        for path in made.checkout.state.rglob("*")
        if path.is_file()
    }
    assert any(StackOutput.CLAIM_CERTIFICATES in text for text in written.values())
    places = written | {f"output {n}": text for n, text in enumerate(made.checkout.said)}
    places["stack file"] = made.checkout.stack_file(STACK).read_text()
    found = {
        (what, where) for what, it in secrets.items() for where in places if it in places[where]
    }
    assert found == set()


def test_destroy_leaves_nothing(made: EngineMade, monkeypatch: pytest.MonkeyPatch) -> None:
    made.operate("drain", monkeypatch)
    made.checkout.pulumi("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert made.checkout.resources(STACK) == []
    assert names_of(held(made.instance)) == names_of(made.before)
    assert not [job for job in made.sandbox.channel.jobs.statuses().values() if job in LIVE]
