"""One adapter a component: plain inputs of another language into arguments, and outputs back.

The SDK can derive a provider from annotations (`pulumi.provider.experimental`), but that one leaves
out keys that it does not know, tells of one missing input at a time, and has no word for a number
or a list. So schema and adapters are our own, on `pulumi.provider`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from pulumi.provider import ConstructResult, Provider

from components.account_settings import AccountSettings
from components.arguments import Arguments, ArgumentsError, read_arguments
from components.checks import Mistake, Section
from components.device_fleet import (
    DeviceFleet,
    DeviceFleetArgs,
    FleetReference,
    read_fleet_values,
)
from components.firmware_channel import (
    FirmwareChannel,
    FirmwareChannelArgs,
    read_channel_values,
)
from package.schema import PACKAGE, VERSION_OF_CHECKOUT, make_schema
from rollout.codec import encode

NOT_PLAIN = ("suffix", "fleet.suffix", "fleet.ringGroupArns")
"""Inputs that another resource may feed; what decides which resources there are is plain."""

Made = tuple[pulumi.ComponentResource, Mapping[str, Any]]
"""A component and its outputs."""


class Package(Provider):
    """What the Pulumi engine asks for the schema, and to make components."""

    def __init__(self) -> None:
        super().__init__(VERSION_OF_CHECKOUT, json.dumps(make_schema()))

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: pulumi.Inputs,
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Raises InputPropertiesError with every mistake in the inputs; nothing is registered
        then."""
        try:
            component, outputs = ADAPTERS[resource_type](name, read_plain(name, inputs), options)
        except ArgumentsError as error:
            # the engine shows these as its own, and any other with its class and no lines
            details: list[pulumi.InputPropertyErrorDetails] = [
                {"property_path": each.path.removeprefix(f"{name}."), "reason": each.reason}
                for each in error.found
            ]
            raise pulumi.InputPropertiesError("", details) from error
        return ConstructResult(component.urn, outputs)


def read_plain(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the component `name` as our readers take them: whole numbers are no floats, as
    every number is on the wire. Raises ArgumentsError where one that must be plain is an output."""
    mistakes: list[Mistake] = []

    def read(key: str, value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, dict):
            return {each: read(f"{key}.{each}", item) for each, item in value.items()}
        if isinstance(value, list):
            return [read(f"{key}[{index}]", item) for index, item in enumerate(value)]
        if not isinstance(value, str | int | float | None) and not key.startswith(NOT_PLAIN):
            why = "must be a plain value: a preview needs it to tell what will be made"
            fix = "write the value itself, or take it from a variable or the configuration"
            mistakes.append(Mistake(f"{name}.{key}", "is an output", why, fix))
        return value

    values = {key: read(key, value) for key, value in inputs.items()}
    if mistakes:
        raise ArgumentsError(name, "it was not registered", mistakes)
    return values


def check(
    component: str,
    name: str,
    args: Arguments,
    values: Mapping[str, Any],
    read: Callable[[Section], object],
) -> None:
    """Holds the values as they came against what the component takes: also keys that `args` has
    no place for. Raises ArgumentsError."""
    read_arguments(component, name, {**encode(args), **values}, read)


def make_account_settings(
    name: str, values: Mapping[str, Any], options: pulumi.ResourceOptions | None
) -> Made:
    read_arguments("AccountSettings", name, values, lambda _: None)
    return AccountSettings(name, options), {}


def make_fleet(
    name: str, values: Mapping[str, Any], options: pulumi.ResourceOptions | None
) -> Made:
    args = DeviceFleetArgs.from_values(values)
    check("DeviceFleet", name, args, {"name": name, **values}, read_fleet_values)
    fleet = DeviceFleet(name, args, options)
    return fleet, fleet.stack_outputs()


def make_channel(
    name: str, values: Mapping[str, Any], options: pulumi.ResourceOptions | None
) -> Made:
    told = values.get("fleet")
    fleet = FleetReference.from_values(told if isinstance(told, dict) else {})
    args = FirmwareChannelArgs.from_values(values, fleet=fleet)
    check("FirmwareChannel", name, args, {"channel": name, **values}, read_channel_values)
    channel = FirmwareChannel(name, args, options)
    return channel, channel.stack_outputs()


Adapter = Callable[[str, Mapping[str, Any], pulumi.ResourceOptions | None], Made]
ADAPTERS: Mapping[str, Adapter] = {
    f"{PACKAGE}:index:AccountSettings": make_account_settings,
    f"{PACKAGE}:index:DeviceFleet": make_fleet,
    f"{PACKAGE}:index:FirmwareChannel": make_channel,
}
"""By type token."""
