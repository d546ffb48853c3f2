"""Each change that people make to a stack that is up: what the preview says, then that it is so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.stack_file import ROOT
from ops import local_aws
from rollout.names import FIRMWARE_PREFIX, ChannelKeys
from sandbox import ministack, session
from sandbox.instance import Instance
from tests.engine.account import pages
from tests.engine.cli import Checkout
from tests.sandbox.conftest import free_instance

pytestmark = pytest.mark.long
STACK, REGION = "dev", "us-east-1"
HOLDS = (
    "aws:dynamodb/table:Table",
    "aws:iot/policy:Policy",
    "aws:iot/thingGroup:ThingGroup",
    "aws:iot/thingType:ThingType",
    "aws:kms/key:Key",
    "aws:s3/bucket:Bucket",
    "random:index/randomId:RandomId",
)
"""Types of what holds devices, their rights, keys, images or memory."""
OPS = {"create": "created", "update": "updated", "replace": "replaced", "delete": "deleted"}
"""What a preview calls it, and how the CLI says that it is done."""
DONE = re.compile(rf"(\d+) ({'|'.join(OPS.values())})$", re.MULTILINE)
MEMORY = ChannelKeys("stable").state


@dataclass(frozen=True)
class Change:
    """An edit of the stack file."""

    row: str
    """Of the table in docs/operations.md, which says what its preview shows."""
    edits: Mapping[str, str]
    lost: str = ""
    """A pattern of what holds something, and is gone from AWS after it."""


def read_table() -> dict[str, dict[str, list[str]]]:
    """By change and operation: patterns of the resources' names."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## What a change does\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row: dict(zip(OPS, map(read_names, cells), strict=True)) for row, *cells in rows}


def read_names(cell: str) -> list[str]:
    """What stands for a serial, a ring or a kind is in capitals."""
    return [re.sub("[A-Z]+", "*", name) for name in re.findall("`(.+?)`", cell)]


OLD, NEW = (
    f"""version: "{version}"
    image: {session.find_sample(version)[0]}
    sha256: "{session.find_sample(version)[1]}"
"""
    for version in ("2.1.0", "2.2.0")
)
THREE, FIRST, EARLY = (
    "devices: 3",
    'devices: [{serial: "0001", ring: first}, "0002", "0003"]',
    'devices: [{serial: "0001", ring: early}, "0002", "0003"]',
)
ONE_RING, TWO_RINGS = (
    "[{name: all, percent: 100}]",
    "[{name: first, percent: 1}, {name: all, percent: 99}]",
)
GATE = "\n      first: {failureLimit: {devices: 1}, soakMinutes: 7}"
CLAIMS = [f"{{name: {name}, csr: csr/claim-example.csr}}" for name in ("a", "b")]
OFF = CLAIMS[1].replace("}", ", active: false}")
KEYS = '  iot-ota:signingKeys: ["2", "1"]\n'
CHANGES = (
    Change("a release, or its revert", {OLD: NEW}),
    Change("a release, or its revert", {NEW: OLD}),
    Change("a declared device more", {"devices: 3": "devices: 4"}),
    Change("a declared device fewer", {"devices: 4": "devices: 3"}),
    Change("a ring more", {THREE: FIRST, ONE_RING: TWO_RINGS, "gates:": f"gates:{GATE}"}),
    Change("rings' percentages", {"percent: 1}": "percent: 2}", "percent: 99}": "percent: 98}"}),
    Change(
        "a ring renamed",
        {"ring: first}": "ring: early}", "name: first": "name: early", "first:": "early:"},
        lost="group .+-first",
    ),
    Change(
        "a ring fewer",
        {
            EARLY: THREE,
            "[{name: early, percent: 2}, {name: all, percent: 98}]": ONE_RING,
            GATE.replace("first", "early"): "",
        },
        lost="group .+-early",
    ),
    Change("a gate", {"soakMinutes: 5": "soakMinutes: 6"}),
    Change("tags", {"team: devices": "team: gateways"}),
    Change("log retention", {'logRetentionDays: "7"': 'logRetentionDays: "14"'}),
    Change("a signing key more", {"  iot-ota:tags": f"{KEYS}  iot-ota:tags"}),
    Change("`protect` on or off", {'protect: "false"': 'protect: "true"'}),
    Change("`protect` on or off", {'protect: "true"': 'protect: "false"'}),
    Change("account settings given up", {'Settings: "true"': 'Settings: "false"'}),
    Change("account settings taken over", {'Settings: "false"': 'Settings: "true"'}),
    Change(
        "provisioning by claim begun",
        {THREE: f"{THREE}\n    provisioning: {{claims: [{CLAIMS[0]}]}}"},
    ),
    Change("a claim certificate more", {CLAIMS[0]: ", ".join(CLAIMS)}),
    Change("a claim certificate no longer active", {CLAIMS[1]: OFF}),
    Change("a claim certificate fewer", {f", {OFF}": ""}),
)


class Desk:
    """The stack, up."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.client: Callable[[str], Any] = partial(
            local_aws.client, port=instance.port, region=REGION
        )
        self.checkout = Checkout(folder, instance.port)
        self.checkout.add_stack(STACK)
        self.checkout.up(STACK)

    def preview(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The steps, and how many there are of each kind."""
        words = ("preview", "--json", "--stack", STACK)
        said = json.loads(self.checkout.pulumi(*words, unsaid=True))
        return said["steps"], said["changeSummary"]

    def holds(self) -> dict[str, str]:
        """By kind and name, of what holds devices, their rights, keys, images or memory: what AWS
        gives to no other one, not of the same name either. (A policy has nothing such.)"""
        iot, kms, s3, dynamodb = map(self.client, ("iot", "kms", "s3", "dynamodb"))
        found = {}
        for group in pages(iot, "list_thing_groups", "thingGroups"):
            about = iot.describe_thing_group(thingGroupName=group["groupName"])
            found[f"group {group['groupName']}"] = about["thingGroupId"]
        for kind in pages(iot, "list_thing_types", "thingTypes"):
            made = iot.describe_thing_type(thingTypeName=kind["thingTypeName"])
            found[f"type {kind['thingTypeName']}"] = made["thingTypeId"]
        for policy in pages(iot, "list_policies", "policies"):
            found[f"policy {policy['policyName']}"] = policy["policyArn"]
        for key in pages(kms, "list_keys", "Keys"):
            state = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"]
            found[f"key {key['KeyId']}"] = state
        for name in pages(dynamodb, "list_tables", "TableNames"):
            found[f"table {name}"] = dynamodb.describe_table(TableName=name)["Table"]["TableId"]
        for bucket in s3.list_buckets()["Buckets"]:
            found[f"bucket {bucket['Name']}"] = str(bucket["CreationDate"])
            for item in pages(s3, "list_object_versions", "Versions", Bucket=bucket["Name"]):
                if item["Key"].startswith(FIRMWARE_PREFIX) or item["Key"] == MEMORY:
                    found[f"object {item['Key']} {item['VersionId']}"] = item["ETag"]
        return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("changes")
    instance = free_instance(folder / "sandbox", auth=False)
    ministack.start(instance)
    try:
        yield Desk(instance, folder)
    finally:
        session.down(instance)


def test_every_row_of_the_table_is_tried() -> None:
    assert list(read_table()) == list(dict.fromkeys(change.row for change in CHANGES))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.row)
def test_a_change_does_what_its_preview_says_and_no_more(desk: Desk, change: Change) -> None:
    """What one deployment leaves undone is in the next one's preview, where nobody expects it."""
    edit(desk.checkout.stack_file(STACK), change)
    steps, said, before = *desk.preview(), desk.holds()
    printed, after = desk.checkout.up(STACK), desk.holds()

    replaced = {step["urn"] for step in steps if step["op"] == "replace" and type_of(step) in HOLDS}
    assert replaced == set(), "what holds something is never replaced"
    for op, patterns in read_table()[change.row].items():
        names = [step["urn"].rpartition("::")[2] for step in steps if step["op"] == op]
        unforeseen = [n for n in names if not any(fnmatchcase(n, p) for p in patterns)]
        missing = [p for p in patterns if not any(fnmatchcase(n, p) for n in names)]
        assert (unforeseen, missing) == ([], []), op
    done = {what: int(count) for count, what in DONE.findall(printed.partition("Resources:")[2])}
    assert done == {OPS[op]: count for op, count in said.items() if op in OPS}
    gone = [name for name, known_by in before.items() if after.get(name) != known_by]
    assert bool(gone) == bool(change.lost), gone
    assert [name for name in gone if not re.fullmatch(change.lost, name)] == []


def test_after_all_changes_nothing_differs(desk: Desk) -> None:
    desk.checkout.changes_nothing(STACK)


def edit(file: Path, change: Change) -> None:
    text = file.read_text()
    for before, after in change.edits.items():
        assert before in text, f"{before} is not in the stack file"
        text = text.replace(before, after)
    file.write_text(text)


def type_of(step: dict[str, Any]) -> str:
    return str(step["urn"].split("::")[2].rpartition("$")[2])
