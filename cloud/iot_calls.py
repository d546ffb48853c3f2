"""Calls to the registry of AWS IoT for many things: at AWS's pace, and again where AWS has enough
to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import AWS_ERRORS, PAGE, Clients, error_code, is_missing
from cloud.pace import CallPace
from cloud.roster import LASTING
from cloud.way_back import Clock
from rollout.rings import Thing

CALLS_A_SECOND = {
    "add_thing_to_thing_group": 50,
    "attach_policy": 7,
    "describe_certificate": 5,
    "describe_thing": 175,
    "describe_thing_group": 50,
    "get_thing_shadow": 100,
    "list_attached_policies": 8,
    "list_thing_groups": 5,
    "list_thing_groups_for_thing": 50,
    "list_thing_principals": 8,
    "list_things": 5,
    "list_things_in_thing_group": 12,
    "remove_thing_from_thing_group": 50,
    "search_index": 8,
    "update_thing": 50,
}
"""Half of what AWS allows a whole account and region (Service Quotas: AddThingToThingGroup 100,
AttachPolicy 15, DescribeThing 350, ListThings 10 and so on): the other half is the controller's, a
way back must not wait for an operator. Of ListThingPrincipals, 10, the controller needs ten a
minute. For ListAttachedPolicies, DescribeCertificate and SearchIndex no quota is told: as slow."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before a call that AWS refused for now is made again, beside boto3's own tries."""
HOPELESS = LASTING | {"InvalidQueryException", "LimitExceededException", "VersionConflictException"}
"""Error codes that another try will not change."""
SEARCH_PAGE = 100
"""Most things in a page of SearchIndex."""


class IotCalls:
    """IoT's calls by their name in boto3, from however many threads.

    IotCalls(clients).call("describe_thing", thingName="pump-7")
    """

    def __init__(self, clients: Clients, *, times: float = 1.0, clock: Clock = time) -> None:
        """`times`: how often the default quotas the account has, where AWS raised them."""
        self.clients, self.clock = clients, clock
        self._paces = {name: CallPace(rate * times, clock) for name, rate in CALLS_A_SECOND.items()}

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """The answer. Raises AWS_ERRORS where AWS refuses for good, or all the time."""
        client = self.clients.iot_data if operation == "get_thing_shadow" else self.clients.iot
        for wait in (*WAITS, None):
            self._paces[operation].wait()
            try:
                answer: dict[str, Any] = getattr(client, operation)(**parameters)
            except AWS_ERRORS as error:
                if wait is None or error_name(error) in HOPELESS:
                    raise
                self.clock.sleep(wait)
            else:
                return answer
        raise AssertionError

    def pages(
        self, operation: str, key: str, *, size: int = PAGE, **parameters: Any
    ) -> Iterator[Any]:
        """Every item under `key`, page after page."""
        token: dict[str, str] = {}
        while True:
            answer = self.call(operation, maxResults=size, **parameters, **token)
            yield from answer.get(key, ())
            if not answer.get("nextToken"):
                return
            token = {"nextToken": answer["nextToken"]}

    # Things

    def describe(self, thing: str) -> Thing | None:
        """None where there is no such thing."""
        try:
            return _read_thing(self.call("describe_thing", thingName=thing))
        except ClientError as error:
            if not is_missing(error):
                raise
            return None

    def of_type(self, type_name: str) -> Iterator[Thing]:
        """Every thing of a thing type."""
        return map(_read_thing, self.pages("list_things", "things", thingTypeName=type_name))

    def with_attribute(self, name: str, value: str) -> Iterator[Thing]:
        """Every thing with this value of an attribute."""
        found = self.pages("list_things", "things", attributeName=name, attributeValue=value)
        return map(_read_thing, found)

    def search(self, query: str) -> Iterator[Thing]:
        """Every thing that the fleet index finds. The index follows the registry late."""
        found = self.pages("search_index", "things", size=SEARCH_PAGE, queryString=query)
        return map(_read_thing, found)

    def groups_of(self, thing: str) -> dict[str, str] | None:
        """The groups that a thing is in, by name their ARNs; None where there is no such thing."""
        try:
            found = self.pages("list_thing_groups_for_thing", "thingGroups", thingName=thing)
            return {group["groupName"]: group["groupArn"] for group in found}
        except ClientError as error:
            if not is_missing(error):
                raise
            return None

    def members(self, group: str) -> Iterator[str]:
        """The things in a group, not in its children."""
        return self.pages("list_things_in_thing_group", "things", thingGroupName=group)


def error_name(error: Exception) -> str:
    """AWS's code, or what went wrong on the way to it."""
    return error_code(error) if isinstance(error, ClientError) else type(error).__name__


def _read_thing(answer: dict[str, Any]) -> Thing:
    return Thing(
        name=answer["thingName"],
        attributes=dict(answer.get("attributes") or {}),
        type_name=answer.get("thingTypeName"),
    )
