"""A registry of things as AWS's pages describe it, at its worst: pages of two, quotas a second,
lists that follow late, ten groups a thing, one group of a hierarchy, three attributes without a
type, ten policies a certificate, things that vanish."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud.clients import Clients
from ops.stack import Stack
from rollout.codec import sha256_hex
from rollout.job_document import CONTRACT
from tests.fake_aws import page, refusal
from tests.unit.ops_cloud import NOW, STACK, OpsAws

QUOTAS = {
    "add_thing_to_thing_group": 100,
    "attach_policy": 15,
    "describe_thing": 350,
    "describe_thing_group": 100,
    "list_thing_groups": 10,
    "list_thing_groups_for_thing": 100,
    "list_thing_principals": 10,
    "list_things": 10,
    "list_things_in_thing_group": 25,
    "remove_thing_from_thing_group": 100,
    "update_thing": 100,
}
"""Calls a second of the account (Service Quotas' defaults)."""
FLEET, CANARY, BROAD = "fleet-0123abcd", "fleet-0123abcd-canary", "fleet-0123abcd-broad"
DEVICE_POLICY = "fleet-0123abcd-device"
OTHER_RING = "other-89abcdef-canary"
"""Another stack's."""
PARENTS = {CANARY: FLEET, BROAD: FLEET, OTHER_RING: "other-89abcdef"}
ARN = "arn:aws:iot:eu-west-1:111122223333"


def certificate_id(name: str) -> str:
    """The id of one of a thing's certificates, by the thing's name and a number."""
    return sha256_hex(name)


class VirtualClock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now = max(self.now, self.now + seconds)


@dataclass(kw_only=True)
class Entry:
    """A thing."""

    groups: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    type_name: str | None = None
    principals: list[str] = field(default_factory=list)
    left: dict[str, float] = field(default_factory=dict)
    """By group: until when AWS still sees the thing in it."""


class RegistryAws(OpsAws):
    """`late`: for how many seconds AWS sees a thing in the group that it has left."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.things: dict[str, Entry] = {}
        self.parents = dict(PARENTS)
        self.policies: dict[str, list[str]] = {}
        """By certificate or group ARN."""
        self.inactive: set[str] = set()
        self.late = 3.0
        self.throttled = 0
        self.ringless: set[str] = set()
        """Things that were in no ring between two calls."""
        self._second = Counter[tuple[str, int]]()
        self.stack = STACK

    def open(self, _args: object) -> tuple[Stack, Clients]:
        return self.stack, Clients(self.connect)

    # What is there

    def put(
        self,
        name: str,
        *groups: str,
        policy: str | None = DEVICE_POLICY,
        certificates: int = 1,
        reports: bool = True,
        hardware: str = "gateway-a1",
        type_name: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """A thing whose device could update, unless it is said otherwise."""
        arns = [f"{ARN}:cert/{sha256_hex(f'{name}-{n}')}" for n in range(certificates)]
        self.things[name] = Entry(
            groups=list(groups),
            attributes=dict(attributes or {}),
            principals=arns,
            type_name=type_name,
        )
        for arn in arns:
            self.policies[arn] = [policy] if policy else []
        if reports:
            firmware = {"version": "2.2.0", "sha256": "0" * 64, "sequence": 0}
            said = {"firmware": firmware, "hardware": hardware, "contract": CONTRACT}
            self.shadows[name] = {"state": {"reported": said}}

    def rings(self) -> dict[str, str]:
        """By thing: its ring."""
        of = {CANARY: "canary", BROAD: "broad"}
        return {
            name: of[group] for name, one in self.things.items() for group in one.groups
            if group in of
        }  # fmt: skip

    def writes(self) -> list[str]:
        """Of the calls made: those that change the registry."""
        verbs = ("add_", "attach_", "remove_", "update_")
        return [name for name in self.made if name.startswith(verbs)]

    # The registry

    def _count(self, name: str) -> None:
        second = (name, int(self.clock.now))
        self._second[second] += 1
        if self._second[second] > QUOTAS.get(name, 10_000):
            self.throttled += 1
            raise refusal("ThrottlingException", name, "Rate exceeded")

    def _find(self, name: str, operation: str) -> Entry:
        if name not in self.things:
            raise refusal("ResourceNotFoundException", operation, f"Thing {name} not found")
        return self.things[name]

    def _seen(self, entry: Entry) -> list[str]:
        late = [group for group, until in entry.left.items() if until > self.clock.now]
        return [*entry.groups, *(group for group in late if group not in entry.groups)]

    def _root(self, group: str) -> str:
        return self.parents.get(group, group)

    def do_describe_thing(self, *, thingName: str) -> Any:
        self._count("describe_thing")
        return self._told(thingName, self._find(thingName, "DescribeThing"))

    def _told(self, name: str, entry: Entry) -> dict[str, Any]:
        told: dict[str, Any] = {"thingName": name, "attributes": dict(entry.attributes)}
        return told | ({"thingTypeName": entry.type_name} if entry.type_name else {})

    def do_list_things(
        self,
        *,
        maxResults: int,
        nextToken: str | None = None,
        thingTypeName: str | None = None,
        attributeName: str | None = None,
        attributeValue: str | None = None,
    ) -> Any:
        self._count("list_things")
        assert maxResults <= 250
        found = [
            self._told(name, entry)
            for name, entry in sorted(self.things.items())
            if thingTypeName in (None, entry.type_name)
            and (not attributeName or entry.attributes.get(attributeName) == attributeValue)
        ]
        return page(found, "things", nextToken)

    def do_search_index(
        self, *, queryString: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        assert maxResults <= 100
        prefix = queryString.removeprefix("thingName:").removesuffix("*")
        found = [self._told(n, e) for n, e in sorted(self.things.items()) if n.startswith(prefix)]
        return page(found, "things", nextToken)

    def do_list_thing_groups_for_thing(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        self._count("list_thing_groups_for_thing")
        entry = self._find(thingName, "ListThingGroupsForThing")
        groups = [
            {"groupName": group, "groupArn": f"{ARN}:thinggroup/{group}"}
            for group in self._seen(entry)
        ]
        return page(groups, "thingGroups", nextToken)

    def do_list_things_in_thing_group(
        self, *, thingGroupName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        self._count("list_things_in_thing_group")
        found = sorted(n for n, entry in self.things.items() if thingGroupName in entry.groups)
        return page(found, "things", nextToken)

    def do_list_thing_groups(
        self, *, parentGroup: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        self._count("list_thing_groups")
        children = sorted(group for group, parent in self.parents.items() if parent == parentGroup)
        return page([{"groupName": one} for one in children], "thingGroups", nextToken)

    def do_describe_thing_group(self, *, thingGroupName: str) -> Any:
        self._count("describe_thing_group")
        parent = self.parents.get(thingGroupName)
        attributes = {"hardware": "x", "percent": "1", "ring": "r"} if parent else {}
        metadata = {
            "parentGroupName": parent,
            "rootToParentThingGroups": [{"groupName": parent, "groupArn": f"{ARN}:x"}],
        }
        return {
            "thingGroupName": thingGroupName,
            "thingGroupProperties": {"attributePayload": {"attributes": attributes}},
            "thingGroupMetadata": metadata if parent else {"creationDate": NOW},
        }

    def do_add_thing_to_thing_group(self, *, thingGroupName: str, thingName: str) -> Any:
        self._count("add_thing_to_thing_group")
        entry = self._find(thingName, "AddThingToThingGroup")
        seen = self._seen(entry)
        if thingGroupName in entry.groups:
            return {}
        root = self._root(thingGroupName)
        if any(self._root(group) == root for group in seen):
            raise refusal("InvalidRequestException", "AddThingToThingGroup", "in the hierarchy")
        if len(seen) >= 10:
            raise refusal("InvalidRequestException", "AddThingToThingGroup", "ten groups")
        entry.groups.append(thingGroupName)
        entry.left.pop(thingGroupName, None)
        self.ringless.discard(thingName)
        return {}

    def do_remove_thing_from_thing_group(self, *, thingGroupName: str, thingName: str) -> Any:
        self._count("remove_thing_from_thing_group")
        entry = self._find(thingName, "RemoveThingFromThingGroup")
        if thingGroupName in entry.groups:
            entry.groups.remove(thingGroupName)
            entry.left[thingGroupName] = self.clock.now + self.late
            self.ringless.add(thingName)
        return {}

    def do_update_thing(self, *, thingName: str, attributePayload: dict[str, Any]) -> Any:
        self._count("update_thing")
        assert attributePayload["merge"] is True, "without it all other attributes are lost"
        entry = self._find(thingName, "UpdateThing")
        after = entry.attributes | attributePayload["attributes"]
        if len(after) > (50 if entry.type_name else 3):
            raise refusal("InvalidRequestException", "UpdateThing", "too many attributes")
        entry.attributes = after
        return {}

    def do_list_thing_principals(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        self._count("list_thing_principals")
        return {"principals": self._find(thingName, "ListThingPrincipals").principals}

    def do_list_attached_policies(
        self, *, target: str, pageSize: int, marker: str | None = None, recursive: bool = False
    ) -> Any:
        return {"policies": [{"policyName": name} for name in self.policies.get(target, ())]}

    def do_attach_policy(self, *, policyName: str, target: str) -> Any:
        self._count("attach_policy")
        if len(self.policies[target]) >= 10:
            raise refusal("LimitExceededException", "AttachPolicy")
        self.policies[target].append(policyName)
        return {}

    def do_describe_certificate(self, *, certificateId: str) -> Any:
        status = "INACTIVE" if certificateId in self.inactive else "ACTIVE"
        return {"certificateDescription": {"status": status}}

    def do_get_thing_shadow(self, *, thingName: str) -> Any:
        if thingName not in self.shadows:
            raise refusal("ResourceNotFoundException", "GetThingShadow")
        return {"payload": io.BytesIO(json.dumps(self.shadows[thingName]).encode())}
