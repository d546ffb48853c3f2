"""A manufacturer's list against the registry of a deployed stack, in the local AWS's DynamoDB."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import ops.main
from cloud.clients import Clients
from cloud.serial_table import SerialTable
from components.stack_file import ROOT, read_configuration
from ops import local_aws
from rollout.names import Names
from rollout.rings import Share, ring_of
from rollout.serial import Claim, SerialStatus
from sandbox import session
from sandbox.deploy import STACK_FILE, deploy
from sandbox.instance import Instance
from tests.sandbox.conftest import free_instance
from tests.sandbox.fleet import wait_for

SERIALS = 2_000
MANY_SERIALS = 5_000
"""A list that takes longer than a person needs for Ctrl-C."""
RINGS = [Share(name="canary", percent=10), Share(name="broad", percent=90)]
SAID = ["--yes", "--why", "the lot of May", "--sandbox"]
CLAIMS = {"claims": [{"name": "example", "csr": "csr/claim-example.csr"}]}
Ops = Callable[..., str]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Any]]:
    """The `local` stack, whose devices come by claim and of which none has come: its outputs."""
    instance = free_instance(tmp_path_factory.mktemp("serials") / "sandbox")
    fleet = json.loads(read_configuration(ROOT / STACK_FILE)["iot-ota:fleet"])
    provisioned = {**fleet, "devices": 0, "keysInState": False, "provisioning": CLAIMS}
    try:
        overrides = {"iot-ota:fleet": provisioned}
        made = deploy(instance, overrides=overrides, say=lambda _text: None)
        yield instance, made.outputs
    finally:
        session.down(instance)


@pytest.fixture
def run(
    stack: tuple[Instance, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ops:
    """Runs a command, which must end with `code`; what it said."""
    monkeypatch.setenv(local_aws.FOLDER_VARIABLE, str(stack[0].folder))

    def run(*words: str, code: int = 0) -> str:
        assert ops.main.main(words) == code
        told = capsys.readouterr()
        return told.out + told.err

    return run


def registry(stack: tuple[Instance, Any]) -> SerialTable:
    instance, outputs = stack
    clients = Clients(lambda name: local_aws.client(name, instance.port, outputs["region"]))
    return SerialTable(clients, outputs["serialsTableName"])


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["serial,ring,site", *rows]) + "\n")
    return path


def test_a_list_is_added_resumed_and_changed(
    stack: tuple[Instance, Any], run: Ops, tmp_path: Path
) -> None:
    numbers = [f"{n:05}" for n in range(SERIALS)]
    half = write(tmp_path / "half.csv", *(f"{one},," for one in numbers[::2]))
    whole = write(tmp_path / "whole.csv", *(f"{one},," for one in numbers))

    dry = run("serials", "add", "--file", str(whole), "--dry-run", "--sandbox")
    assert "    2,000 new        00000, 00001" in dry
    assert list(registry(stack).list()) == []

    run("serials", "add", "--file", str(half), *SAID)
    resumed = run("serials", "add", "--file", str(whole), *SAID)
    assert "    1,000 new        00001, 00003" in resumed
    assert "    1,000 as the list has them\n" in resumed
    assert "1,000 serials were written.\n" in resumed
    again = run("serials", "add", "--file", str(whole), *SAID)
    assert "    2,000 as the list has them\nNothing was changed.\n" in again

    changed = write(
        tmp_path / "changed.csv", "00007,canary,", "00008,,plant", *(f"{n}," + "," for n in "ab")
    )
    said = run("serials", "add", "--file", str(changed), *SAID)
    assert "line 2, 00007: ring canary, was -" in said
    assert "line 3, 00008: site plant, was -" in said
    records = {stored.record.serial: stored.record for stored in registry(stack).list()}
    assert len(records) == SERIALS + 2
    assert (records["00007"].ring, records["00008"].attributes) == ("canary", {"site": "plant"})
    assert {len(record.events) for record in records.values()} == {1, 2}

    hashed = Counter(ring_of(one, RINGS) for one in records if one != "00007")
    counted = run("serials", "list", "--ring", "canary", "--most", "0", "--sandbox")
    assert f"{hashed['canary'] + 1:,} serials: " in counted


def test_ctrl_c_ends_a_list_and_the_same_command_goes_on(
    stack: tuple[Instance, Any], run: Ops, tmp_path: Path
) -> None:
    table = registry(stack)
    path = write(tmp_path / "broken.csv", *(f"c{n:04},," for n in range(MANY_SERIALS)))
    words = ["serials", "add", "--file", str(path), *SAID]
    child = subprocess.Popen(
        [sys.executable, "-m", "ops", *words],
        cwd=ROOT,
        env={**os.environ, local_aws.FOLDER_VARIABLE: str(stack[0].folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for("the first serial", lambda: table.get("c0000"))
    child.send_signal(signal.SIGINT)
    said, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "interrupted\n")
    told = re.search(r"^([\d,]+) of 5,000 are written; the same command again goes on", said, re.M)
    assert told, said
    done = int(told[1].replace(",", ""))
    assert 1 <= done < MANY_SERIALS
    assert len([one for one in table.list() if one.record.serial.startswith("c")]) == done
    again = run(*words)
    assert f"{MANY_SERIALS - done:,} serials were written.\n" in again
    assert f"{done:>9,} as the list has them\n" in again


def test_what_the_stack_does_not_have_is_a_mistake(run: Ops, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("serial,ring,colour\nx1,early,red\n")
    said = run("serials", "add", "--file", str(bad), *SAID, code=1)
    assert 'column "colour" is no attribute of the fleet, which are site' in said
    assert 'ring "early" is none of the fleet\'s: broad, canary' in said


def test_the_story_of_a_serial_from_its_list_to_its_end(
    stack: tuple[Instance, Any], run: Ops, tmp_path: Path
) -> None:
    instance, outputs = stack
    names = Names(fleet=outputs["fleetName"], suffix=outputs["suffix"], channel="stable")
    run("serials", "add", "--file", str(write(tmp_path / "one.csv", "s1,,")), *SAID)
    told = run("device", "s1", "--sandbox")
    assert "s1: no thing\n  no device has claimed its serial yet\n" in told

    # what registering leaves behind: thing, ring, certificate, policy, and the claim in the record
    iot, thing = local_aws.client("iot", instance.port, outputs["region"]), names.thing("s1")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName=thing, attributePayload={"attributes": {"serial": "s1"}})
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    iot.attach_policy(policyName=outputs["devicePolicyName"], target=made["certificateArn"])
    group = outputs["ringGroupNames"]["broad"]
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)
    table, now = registry(stack), time.time()
    stored = table.get("s1")
    assert stored
    claim = Claim(thing=thing, certificate=made["certificateId"], key="a" * 64, by="b" * 64, at=now)
    claimed = replace(stored.record, status=SerialStatus.CLAIMED, claim=claim)
    table.put(claimed, stored.revision)

    for name in ("s1", thing):
        report = json.loads(run("device", name, "--json", "--sandbox"))
        assert (report["thing"], report["serial"], report["ring"]) == (thing, "s1", "broad")
        assert report["registered"]["claim"] == asdict(claim)
        assert report["certificates"] == [
            {
                "arn": made["certificateArn"],
                "status": "ACTIVE",
                "policies": [outputs["devicePolicyName"]],
            }
        ]
    assert "is claimed, its thing is" in run("serials", "remove", "s1", *SAID, code=1)
    said = run("serials", "release", "s1", *SAID)
    assert f"certificate {made['certificateId']} is inactive\n" in said
    told = run("device", "s1", "--sandbox")
    assert "none of its certificates is active, so it cannot connect" in told
    assert "its serial is released: another key may claim it" in told
    assert "released by arn:aws:iam::000000000000:root" in told
    run("serials", "remove", "s1", *SAID)
    assert "in no registry of this stack" in run("device", thing, "--sandbox")
