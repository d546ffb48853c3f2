"""Each change that people make to a stack that is up: what the preview says, then that it is so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox import ministack, session
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long
STACK = "dev"
HOLDS = (
    "aws:iot/policy:Policy",
    "aws:iot/thingGroup:ThingGroup",
    "aws:iot/thingType:ThingType",
    "aws:kms/key:Key",
    "aws:s3/bucket:Bucket",
    "random:index/randomId:RandomId",
)
"""Types of what holds devices, their rights, keys, images or memory."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """An edit of the stack file, and what its preview says. Of what is created, updated, replaced
    and deleted: a pattern of the names."""

    name: str
    edits: Mapping[str, str]
    create: str = ""
    update: str = ""
    replace: str = ""
    delete: str = ""


OLD, NEW = (
    f"""version: "{version}"
    image: {session.find_sample(version)[0]}
    sha256: "{session.find_sample(version)[1]}"
"""
    for version in ("2.1.0", "2.2.0")
)
RINGS = r"fleet-ring-.+|channel-(controller-(function|rights)|manifest|monitoring-dashboard)"
CHANGES: tuple[Change, ...] = (
    Change(
        name="a release",
        edits={OLD: NEW},
        update=r"channel-(controller-function|manifest)",
        replace="channel-artifact",
    ),
    Change(
        name="its revert",
        edits={NEW: OLD},
        update=r"channel-(controller-function|manifest)",
        replace="channel-artifact",
    ),
    Change(
        name="a device more",
        edits={"devices: 3": "devices: 4"},
        create=r"fleet-device-0004(-(certificate|policy|principal|ring))?",
    ),
    Change(
        name="a device fewer",
        edits={"devices: 4": "devices: 3"},
        delete=r"fleet-device-0004(-(certificate|policy|principal|ring))?",
    ),
    Change(
        name="a ring more",
        edits={
            "devices: 3": 'devices: [{serial: "0001", ring: first}, "0002", "0003"]',
            "[{name: all, percent: 100}]": "[{name: first, percent: 1}, {name: all, percent: 99}]",
            "gates:": "gates:\n      first: {failureLimit: {devices: 1}, soakMinutes: 7}",
        },
        create=r"fleet-ring-first|channel-controller-ring-first",
        update=RINGS,
        replace="fleet-device-0001-ring",
    ),
    Change(
        name="percentages",
        edits={"percent: 1}": "percent: 2}", "percent: 99}": "percent: 98}"},
        update=RINGS,
    ),
    Change(
        name="a ring renamed",
        edits={"ring: first}": "ring: early}", "name: first": "name: early", "first:": "early:"},
        create=r"fleet-ring-early|channel-controller-ring-early",
        update=RINGS,
        replace="fleet-device-0001-ring",
        delete=r"fleet-ring-first|channel-controller-ring-first",
    ),
    Change(
        name="a ring fewer",
        edits={
            'devices: [{serial: "0001", ring: early}, "0002", "0003"]': "devices: 3",
            "[{name: early, percent: 2}, {name: all, percent: 98}]": "[{name: all, percent: 100}]",
            "\n      early: {failureLimit: {devices: 1}, soakMinutes: 7}": "",
        },
        update=RINGS,
        replace="fleet-device-0001-ring",
        delete=r"fleet-ring-early|channel-controller-ring-early",
    ),
    Change(
        name="a gate",
        edits={"soakMinutes: 5": "soakMinutes: 6"},
        update=r"channel-(controller-function|manifest)",
    ),
    Change(name="tags", edits={"team: devices": "team: gateways"}, update=r"(channel|fleet)-.+"),
    Change(
        name="log retention",
        edits={'logRetentionDays: "7"': 'logRetentionDays: "14"'},
        update=r"channel-controller-log|fleet-logs-.+-log",
    ),
    Change(
        name="a second signing key",
        edits={"  iot-ota:tags": '  iot-ota:signingKeys: ["2", "1"]\n  iot-ota:tags'},
        create=r"channel-signing-(alias|key)-2",
        update=r"channel-controller-(function|rights)",
    ),
    Change(
        name="protection",
        edits={'protect: "false"': 'protect: "true"'},
        update=r"channel-bucket(-policy)?",
    ),
    Change(
        name="no protection",
        edits={'protect: "true"': 'protect: "false"'},
        update=r"channel-bucket(-policy)?",
    ),
    Change(
        name="no account settings",
        edits={'Settings: "true"': 'Settings: "false"'},
        delete=r"account(-events|-indexing)?",
    ),
    Change(
        name="account settings",
        edits={'Settings: "false"': 'Settings: "true"'},
        create=r"account(-events|-indexing)?",
    ),
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder = tmp_path_factory.mktemp("changes")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        checkout = Checkout(folder, instance.port)
        checkout.add_stack(STACK)
        checkout.up(STACK)
        yield checkout
    finally:
        session.down(instance)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_change_does_what_its_preview_says_and_no_more(
    checkout: Checkout, change: Change
) -> None:
    edit(checkout.stack_file(STACK), change)
    steps = preview(checkout)
    lost = [step["urn"] for step in steps if step["op"] == "replace" and type_of(step) in HOLDS]
    assert lost == [], "what holds something is never replaced"
    for op in ("create", "update", "replace", "delete"):
        names = [step["urn"].rpartition("::")[2] for step in steps if step["op"] == op]
        pattern = getattr(change, op)
        assert bool(names) == bool(pattern), f"{op}: {names}"
        assert [name for name in names if not re.fullmatch(pattern, name)] == [], op
    checkout.up(STACK)
    checkout.pulumi("preview", "--diff", "--expect-no-changes", "--stack", STACK)


def edit(file: Path, change: Change) -> None:
    text = file.read_text()
    for before, after in change.edits.items():
        assert before in text, f"{before} is not in the stack file"
        text = text.replace(before, after)
    file.write_text(text)


def preview(checkout: Checkout) -> list[dict[str, Any]]:
    printed = checkout.pulumi("preview", "--json", "--stack", STACK, unsaid=True)
    steps: list[dict[str, Any]] = json.loads(printed)["steps"]
    return steps


def type_of(step: dict[str, Any]) -> str:
    return str(step["urn"].split("::")[2].rpartition("$")[2])
