"""Which device a person means: by its thing's name, or by its serial number."""

from __future__ import annotations

from collections.abc import Iterator

from cloud.clients import Clients
from cloud.groups import is_thing
from ops.errors import OpsError
from ops.stack import Stack


def find_thing(clients: Clients, stack: Stack, name: str) -> str:
    """As `search_thing`; raises OpsError where there is none, too."""
    thing = search_thing(clients, stack, name)
    if thing is None:
        raise OpsError(f"there is no thing {name} in {stack.region}, and none with this serial")
    return thing


def search_thing(clients: Clients, stack: Stack, name: str) -> str | None:
    """The thing of this name, else of the device with this serial: a declared one, one that was
    provisioned, or one whose thing says so. Raises OpsError where there are several."""
    for candidate in _candidates(clients, stack, name):
        if is_thing(clients, candidate):
            return candidate
    found = stack.ties(clients).find_things(name)
    if len(found) > 1:
        some = ", ".join(sorted(found)[:10])
        raise OpsError(f"{len(found)} things have the serial {name}: name one of {some}")
    return found[0] if found else None


def _candidates(clients: Clients, stack: Stack, name: str) -> Iterator[str]:
    yield stack.device_names.get(name, name)
    yield stack.names.thing(name)
    table = stack.serial_table(clients)
    stored = table.get(name) if table else None
    if stored and stored.record.claim:
        yield stored.record.claim.thing
