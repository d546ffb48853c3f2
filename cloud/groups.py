"""Thing groups: those that a rollback makes, and those that a device is in."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from cloud.clients import ALREADY_SO, PAGE, Clients, error_code, is_missing, list_all
from rollout.names import Names


class RollbackGroups:
    """The thing groups of devices that return to the last good release, by the rollback's
    sequence."""

    def __init__(self, clients: Clients, names: Names) -> None:
        self._clients, self._names = clients, names

    def sequences(self) -> frozenset[int]:
        """Of the groups that exist."""
        groups = list_all(
            self._clients.iot,
            "list_thing_groups",
            "thingGroups",
            namePrefixFilter=self._names.rollback_group_prefix,
        )
        found = (self._names.rollback_sequence(group["groupName"]) for group in groups)
        return frozenset(sequence for sequence in found if sequence is not None)

    def create(self, sequence: int) -> str:
        """The group's ARN; it is made where it is not there (the call may be repeated)."""
        about = f"Devices that return to the last good release of {self._names.channel}"
        answer = self._clients.iot.create_thing_group(
            thingGroupName=self._names.rollback_group(sequence),
            thingGroupProperties={"thingGroupDescription": about},
        )
        return str(answer["thingGroupArn"])

    def delete(self, sequence: int) -> str | None:
        """Why not, where AWS refuses it: somebody gave the group a child, or took it away between
        two calls."""
        name = self._names.rollback_group(sequence)
        try:
            self._clients.iot.delete_thing_group(thingGroupName=name)
        except ClientError as error:
            if error_code(error) not in ALREADY_SO:
                raise
            return f"{name} cannot be removed: {error.response['Error'].get('Message')}"
        return None

    def add(self, sequence: int, thing: str) -> str | None:
        """Puts a thing into the group (the call may be repeated); why not, where AWS refuses it: a
        thing that is in ten groups already comes as InvalidRequestException."""
        try:
            self._clients.iot.add_thing_to_thing_group(
                thingGroupName=self._names.rollback_group(sequence), thingName=thing
            )
        except ClientError as error:
            return error_code(error)
        except BotoCoreError as error:
            return type(error).__name__
        return None


def member_page(clients: Clients, group: str, token: str | None) -> tuple[list[str], str | None]:
    """One page of the things in a group, not in its children, and the token of the next page."""
    answer = clients.iot.list_things_in_thing_group(
        thingGroupName=group, maxResults=PAGE, **({"nextToken": token} if token else {})
    )
    return list(answer["things"]), answer.get("nextToken")


def some_things(clients: Clients, group: str, most: int) -> list[str]:
    """Up to so many of a group's own things; one that does not exist has none."""
    try:
        answer = clients.iot.list_things_in_thing_group(thingGroupName=group, maxResults=most)
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return list(answer["things"])


def group_things(clients: Clients, group: str) -> Iterator[str]:
    """A group's own things, page after page; one that does not exist has none."""
    try:
        yield from list_all(
            clients.iot, "list_things_in_thing_group", "things", thingGroupName=group
        )
    except ClientError as error:
        if not is_missing(error):
            raise


def is_thing(clients: Clients, thing: str) -> bool:
    """Whether there is such a thing."""
    return attributes_of(clients, thing) is not None


def attributes_of(clients: Clients, thing: str) -> dict[str, str] | None:
    """A thing's attributes; None where there is no such thing."""
    try:
        answer = clients.iot.describe_thing(thingName=thing)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return dict(answer.get("attributes", {}))


def groups_of_thing(clients: Clients, thing: str) -> set[str] | None:
    """The names of the groups that a thing is in; None where there is no such thing."""
    groups = list_all(clients.iot, "list_thing_groups_for_thing", "thingGroups", thingName=thing)
    try:
        return {group["groupName"] for group in groups}
    except ClientError as error:
        if is_missing(error):
            return None
        raise
