"""The operator's command line against a real controller, real jobs and real devices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ops.main
from components.stack_file import ROOT
from ops.report import FINE, NEEDED
from rollout.state import State
from sandbox import deploy, session
from sandbox.factory import override_claim
from sandbox.instance import Instance, SandboxError
from sandbox.session import Sandbox
from tests.sandbox.conftest import free_instance

ROLLOUT: dict[str, Any] = {
    "devicesPerMinute": 1000,
    "inProgressTimeoutMinutes": 1,
    "gates": {
        "canary": {
            "minimumSucceeded": 2,
            "failureLimit": {"percent": 10, "devices": 2},
            "approval": True,
        },
        "broad": {"minimumSucceeded": 15, "failureLimit": {"percent": 10, "devices": 3}},
    },
}


@pytest.fixture(scope="module")
def own_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A sandbox of this file's own: its orders and releases are no other test's business."""
    instance = free_instance(tmp_path_factory.mktemp("operated") / "sandbox")
    yield instance
    session.down(instance)


@pytest.fixture
def release(own_instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Sandbox]:
    """Deploys a version with an approval between the rings, and points `--sandbox` at it."""
    monkeypatch.setenv("SANDBOX_DIR", str(own_instance.folder))
    monkeypatch.setenv("SANDBOX_PORT", str(own_instance.port))
    monkeypatch.setenv("SANDBOX_MQTT_PORT", str(own_instance.mqtt_port))

    def release(version: str) -> Sandbox:
        image, digest = session.find_sample(version)
        firmware = {"version": version, "image": image, "sha256": digest, "minimumVersion": "2.0.0"}
        overrides = {"iot-ota:rollout": ROLLOUT, "iot-ota:firmware": firmware}
        overrides |= override_claim(own_instance, ROOT)
        deploy.deploy(own_instance, overrides=overrides, say=lambda _text: None)
        sandbox = session.connect(own_instance)
        sandbox.add_serials()
        return sandbox

    return release


@pytest.fixture
def order(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Gives an order, and returns what was said."""

    def order(*words: str) -> str:
        assert ops.main.main([*words, "--sandbox", "--yes", "--why", "the test says so"]) == 0
        return capsys.readouterr().out

    return order


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, Any]]:
    def status() -> dict[str, Any]:
        code = ops.main.main(["status", "--json", "--sandbox"])
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert report["code"] == code
        return report

    return status


def state(sandbox: Sandbox) -> State:
    found = sandbox.state()
    assert found is not None
    return found


def wake_until(
    sandbox: Sandbox, what: str, true: Callable[[State], object], seconds: float = 40.0
) -> State:
    """Wakes the controller until its state is so."""
    end = time.monotonic() + seconds
    while True:
        answer = sandbox.wake()
        found = sandbox.state()
        if found is not None and true(found):
            return found
        assert time.monotonic() < end, (
            f"waited {seconds:.0f} s for {what}; the controller said {answer}"
        )
        time.sleep(0.2)


def prove(sandbox: Sandbox, order: Callable[..., str]) -> None:
    """Brings what the stack releases through all rings, unless that has been done."""
    good = state(sandbox).last_good if sandbox.state() else None
    if good and good.sha256 == sandbox.manifest().firmware.sha256:
        return
    with sandbox.devices() as devices:
        devices.wait()
        wake_until(sandbox, "the approval to be waited for", lambda s: s.waiting.kind == "approval")
        order("approve", "canary")
        wake_until(sandbox, "the release to pass", lambda s: s.last_good and s.candidate is None)


def rings(found: State) -> list[str]:
    """The rings that were offered the candidate."""
    return [offer.ring for offer in found.wanted("prove")]


def test_pause_and_approval_hold_the_next_ring(
    release: Callable[[str], Sandbox],
    order: Callable[..., str],
    status: Callable[[], dict[str, Any]],
) -> None:
    prove(release("2.1.0"), order)
    order("pause")
    sandbox = release("2.2.0")
    assert (
        wake_until(sandbox, "the pause", lambda s: s.waiting.kind == "paused").candidate is None
    ), "no release starts"
    order("resume")
    with sandbox.devices():
        wake_until(sandbox, "the approval to be waited for", lambda s: s.waiting.kind == "approval")
        report = status()
        assert report["needs"] == [
            "a person must approve ring canary: `python -m ops approve canary --sandbox`"
        ]
        assert report["rings"][0]["counts"]["succeeded"] == 2

        order("pause")
        order("approve", "canary")
        wake_until(sandbox, "the pause", lambda s: s.waiting.kind == "paused")
        for _ in range(3):
            sandbox.wake()
        assert rings(state(sandbox)) == ["canary"], "approved, and still held by the pause"

        order("resume")
        wake_until(sandbox, "the release to pass", lambda s: s.last_good and s.candidate is None)
    report = status()
    assert (report["code"], report["needs"], report["release"]["phase"]) == (FINE, [], "last good")
    assert {shadow and shadow.version for shadow in sandbox.reported().values()} == {"2.2.0"}


def test_halt_stops_a_release_while_the_controller_is_down(
    release: Callable[[str], Sandbox],
    order: Callable[..., str],
    status: Callable[[], dict[str, Any]],
) -> None:
    prove(release("2.2.0"), order)
    sandbox = release("2.3.0")
    before = wake_until(
        sandbox,
        "canary to start",
        lambda s: rings(s) == ["canary"] and sandbox.channel.jobs.statuses(),
    )
    offer = before.proof("canary")
    assert offer
    job = sandbox.names.job("canary", offer.sequence)
    wake_until(
        sandbox, "canary's job", lambda _: sandbox.channel.jobs.statuses().get(job) == "IN_PROGRESS"
    )
    function = sandbox.client("lambda")
    name = sandbox.outputs["controllerName"]
    function.update_function_configuration(FunctionName=name, Handler="functions.nothing.handler")
    with pytest.raises(SandboxError):
        sandbox.wake()

    assert (
        f"Cancels {job} (2.3.0 for ring canary of channel stable): 2 devices queued will not get it"
        in order("halt")
    )
    assert sandbox.channel.jobs.statuses()[job] == "CANCELED"
    live = {
        name
        for name, job_status in sandbox.channel.jobs.statuses().items()
        if job_status == "IN_PROGRESS"
    }
    assert live == {
        sandbox.names.job(kept.ring, kept.sequence) for kept in before.wanted("keep")
    }, "what was proved stays"
    with sandbox.devices():
        time.sleep(1)  # they are connected and ask for work: there is none
        assert {shadow and shadow.version for shadow in sandbox.reported().values()} == {"2.2.0"}

    function.update_function_configuration(
        FunctionName=name, Handler="functions.controller.handler"
    )
    halted = wake_until(sandbox, "the halt", lambda s: s.waiting.kind == "halted")
    assert halted.halt is None, (
        "it found the order, and so does not take the cancelled job for a stray hand"
    )
    assert status()["code"] == NEEDED

    assert "is offered to ring canary again, under a new sequence" in order("resume")
    again = wake_until(sandbox, "canary's new job", lambda s: s.proof("canary")).proof("canary")
    assert again
    assert again.sequence > offer.sequence


def test_a_forged_state_is_resumed_by_the_id_that_the_controller_wants(
    release: Callable[[str], Sandbox],
    order: Callable[..., str],
    status: Callable[[], dict[str, Any]],
) -> None:
    sandbox = release("2.1.0")
    wake_until(sandbox, "a state", lambda _: True)
    key = {"Bucket": sandbox.outputs["bucketName"], "Key": sandbox.names.keys.state}
    s3 = sandbox.client("s3")
    s3.put_object(**key, Body=s3.get_object(**key)["Body"].read().replace(b'"2.1.0"', b'"9.1.0"'))
    answer = sandbox.wake()
    assert answer["outcome"] == "distrusted"
    assert status()["halt"]["id"] == answer["halt"]

    assert f"Starts afresh, {answer['halt']}" in order("resume")
    fresh = wake_until(
        sandbox, "a fresh state", lambda s: any(d.what == "recovered" for d in s.decisions)
    )
    assert str(fresh.last_good and fresh.last_good.version) == "2.2.0", "what was signed is kept"
    assert fresh.candidate
    assert str(fresh.candidate.firmware.version) == "2.1.0"
