"""What a device reports that it runs: the classic shadow, as docs/device-contract.md has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, is_missing


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A device's word on what it runs: its own text, checked by nobody."""

    version: str
    sha256: str
    sequence: int
    """The highest it has accepted; -1 where it says no number."""
    hardware: str
    at: float | None
    """When it reported the version (seconds since 1970)."""
    contract: int | None = None
    """The version of the contract that it speaks; None where it says no number."""


def reported(clients: Clients, thing: str) -> Reported | None:
    """What the thing's shadow reports; None before the device's first report."""
    try:
        answer = clients.iot_data.get_thing_shadow(thingName=thing)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return read_reported(answer["payload"].read())


def read_reported(payload: bytes) -> Reported | None:
    """What a shadow's document reports; None where that is no firmware."""
    document = json.loads(payload)
    state = _at(document, "state", "reported")
    firmware = _at(state, "firmware")
    if not firmware:
        return None
    sequence, contract = firmware.get("sequence"), state.get("contract")
    at = _at(document, "metadata", "reported", "firmware", "version").get("timestamp")
    return Reported(
        version=str(firmware.get("version")),
        sha256=str(firmware.get("sha256")),
        sequence=sequence if isinstance(sequence, int) else -1,
        hardware=str(state.get("hardware")),
        at=at,
        contract=contract if isinstance(contract, int) else None,
    )


def _at(document: Any, *keys: str) -> dict[str, Any]:
    """The object at a path of keys; an empty one where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}
