"""The package's schema: what programs in other languages know of the components.

Inputs come from the components' arguments: names, types, defaults, descriptions and limits are
written there, and once.

See https://www.pulumi.com/docs/iac/guides/building-extending/packages/schema/
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Awaitable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pulumi

from components import limits
from components.account_settings import AccountSettings
from components.arguments import CommonArgs, is_required
from components.device_fleet import DeclaredDevice, DeviceFleet, DeviceFleetArgs
from components.firmware_channel import FirmwareChannel, FirmwareChannelArgs
from components.settings.fleet import ClaimCertificate
from rollout.codec import camel_case, encode
from rollout.names import StackOutput
from rollout.release import (
    Abort,
    AlarmGate,
    Approval,
    FailureLimit,
    Gate,
    Pace,
    RolloutOptions,
    Window,
)
from rollout.rings import Share
from rollout.version import Version

Schema = dict[str, Any]

PACKAGE = "iotota"
"""The first word of the components' type tokens."""
VERSION_OF_CHECKOUT = "0.0.0"
"""Git says which one it is; the schema must have some."""
SCALARS: Mapping[object, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    Version: "string",
}
LIMITS: Mapping[type, limits.Fields] = {
    Abort: limits.ABORT,
    AlarmGate: limits.ALARM,
    Approval: limits.APPROVAL,
    ClaimCertificate: limits.CLAIM,
    CommonArgs: {"environment": limits.ENVIRONMENT},
    DeclaredDevice: {"serial": limits.SERIAL, "ring": limits.RING},
    DeviceFleetArgs: limits.FLEET,
    FailureLimit: limits.FAILURE_LIMIT,
    FirmwareChannelArgs: {**limits.FIRMWARE, "channel": limits.CHANNEL, "sha256": limits.DIGEST},
    Gate: limits.GATE,
    Pace: {"base_per_minute": limits.RATE, "maximum_per_minute": limits.RATE, **limits.PACE},
    RolloutOptions: limits.MANIFEST,
    Share: limits.SHARE,
    Window: limits.WINDOW,
}
"""What fields may hold, where the arguments' checks say it for one field."""
PACE_KEYS = {"basePerMinute": "base", "maximumPerMinute": "maximum"}
"""What `devicesPerMinute` calls them, whose name says what they count."""

TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
TEXT_BY_NAME = {"type": "object", "additionalProperties": TEXT}
RELEASE_TYPE = f"{PACKAGE}:index:Release"
RELEASE_PROPERTIES: Mapping[str, Schema] = {
    "version": TEXT,
    "sha256": TEXT,
    "size": {"type": "integer", "description": "Bytes."},
    "rings": TEXTS,
    "manifestSha256": TEXT,
}
OUTPUTS: Mapping[type, Mapping[StackOutput, tuple[Schema, str]]] = {
    AccountSettings: {},
    DeviceFleet: {
        StackOutput.SUFFIX: (TEXT, "Eight hexadecimal digits in every name of the fleet."),
        StackOutput.REGION: (TEXT, "Where the fleet is."),
        StackOutput.IOT_ENDPOINT: (TEXT, "Where devices connect to."),
        StackOutput.FLEET_NAME: (TEXT, "The fleet's name."),
        StackOutput.THING_TYPE_NAME: (TEXT, "The thing type of its devices."),
        StackOutput.FLEET_GROUP_NAME: (TEXT, "The thing group of all its devices."),
        StackOutput.RING_GROUP_NAMES: (TEXT_BY_NAME, "Ring to the thing group of its devices."),
        StackOutput.QUARANTINE_GROUP_NAME: (TEXT, "The thing group of devices that were cut off."),
        StackOutput.DEVICE_POLICY_NAME: (TEXT, "The IoT policy of every device."),
        StackOutput.DEVICE_NAMES: (TEXT_BY_NAME, "Serial to thing, of declared devices."),
        StackOutput.DEVICE_RINGS: (TEXT_BY_NAME, "Serial to ring, of declared devices."),
        StackOutput.DEVICE_CERTIFICATES: (
            TEXT_BY_NAME,
            "Serial to certificate (PEM), of declared devices.",
        ),
        StackOutput.DEVICE_PRIVATE_KEYS: (
            {**TEXT_BY_NAME, "secret": True},
            "Serial to private key (PEM), with `keysInState` only.",
        ),
        StackOutput.EVENT_LOG_GROUPS: (TEXT_BY_NAME, "Kind of events to log group."),
        StackOutput.SERIALS_TABLE_NAME: (
            TEXT,
            "The DynamoDB table of serials that may be claimed, with `provisioning` only.",
        ),
        StackOutput.PROVISIONING_TEMPLATE_NAME: (
            TEXT,
            "The provisioning template, with `provisioning` only.",
        ),
        StackOutput.CLAIM_CERTIFICATES: (
            TEXT_BY_NAME,
            "Claim to claim certificate (PEM), with `provisioning` only.",
        ),
    },
    FirmwareChannel: {
        StackOutput.BUCKET_NAME: (TEXT, "The bucket of images and manifests."),
        StackOutput.CHANNEL_NAME: (TEXT, "The channel's name."),
        StackOutput.CONTROLLER_NAME: (TEXT, "The controller's Lambda function."),
        StackOutput.SIGNING_KEY_ARNS: (TEXTS, "The signing keys; the first signs."),
        StackOutput.SIGNING_PUBLIC_KEY: (
            TEXT,
            "What devices verify releases with: a PEM block for each signing key.",
        ),
        StackOutput.IMAGE_KEY_ARN: (
            TEXT,
            "The key that signs images, where `documentExtra` has `{imageSignature}`.",
        ),
        StackOutput.DASHBOARD_URL: (TEXT, "The channel's dashboard."),
        StackOutput.NOTIFICATIONS_TOPIC_ARN: (TEXT, "The SNS topic of its alarms."),
        StackOutput.ALARM_NAMES: (TEXT_BY_NAME, "Short name to CloudWatch alarm."),
        StackOutput.RELEASE: (
            {"$ref": f"#/types/{RELEASE_TYPE}"},
            "What was released last, as the manifest says it.",
        ),
    },
}
"""Names and values are those of `stack_outputs()`."""
SOMETIMES = (
    StackOutput.CLAIM_CERTIFICATES,
    StackOutput.DEVICE_PRIVATE_KEYS,
    StackOutput.IMAGE_KEY_ARN,
    StackOutput.PROVISIONING_TEMPLATE_NAME,
    StackOutput.SERIALS_TABLE_NAME,
)
"""Outputs that are not always there."""
ARGUMENTS: Mapping[type, type | None] = {
    AccountSettings: None,
    DeviceFleet: DeviceFleetArgs,
    FirmwareChannel: FirmwareChannelArgs,
}


def make_schema() -> Schema:
    """The schema as JSON values. Whatever a dataclass among the inputs holds is a type of it."""
    nested: dict[str, Schema] = {
        RELEASE_TYPE: {
            "type": "object",
            "description": "A release, as the manifest says it.",
            "properties": RELEASE_PROPERTIES,
            "required": sorted(RELEASE_PROPERTIES),
        }
    }
    resources = {}
    for component, args in ARGUMENTS.items():
        inputs = _object(args, nested) if args else {"properties": {}, "required": []}
        outputs = OUTPUTS[component]
        resources[f"{PACKAGE}:index:{component.__name__}"] = {
            "isComponent": True,
            "description": _describe(component),
            "inputProperties": inputs["properties"],
            "requiredInputs": inputs["required"],
            "properties": {
                name: {**kind, "description": text} for name, (kind, text) in outputs.items()
            },
            "required": sorted(set(outputs) - set(SOMETIMES)),
        }
    return {
        "name": PACKAGE,
        "displayName": "iot-ota",
        "version": VERSION_OF_CHECKOUT,
        "description": "Over-the-air firmware updates for IoT fleets on AWS.",
        "license": "Apache-2.0",
        "language": {
            name: {"respectSchemaVersion": True}
            for name in ("csharp", "go", "java", "nodejs", "python")
        },
        "resources": resources,
        "types": nested,
    }


def _object(record: type, nested: dict[str, Schema]) -> Schema:
    """A dataclass's fields as properties; types that they need come into `nested`."""
    names = {"Output": pulumi.Output, "T": Any}  # what pulumi.Input refers to by name
    hints = typing.get_type_hints(record, localns=names)
    said = _field_docs(record)
    properties, required = {}, []
    for each in dataclasses.fields(record):
        kind, is_plain = _kind(hints[each.name], nested)
        text = _describe_field(record, each, hints[each.name], said.get(each.name, ""))
        key = camel_case(each.name)
        key = PACE_KEYS.get(key, key) if record is Pace else key
        properties[key] = {**kind, "description": text, **_plain(is_plain)}
        if is_required(each) or (record is Pace and key == "base"):
            required.append(key)
    return {"type": "object", "properties": properties, "required": sorted(required)}


def _plain(is_plain: bool) -> Schema:
    return {"plain": True} if is_plain else {}


def _kind(hint: Any, nested: dict[str, Schema]) -> tuple[Schema, bool]:
    """A type as its schema, and whether its value must be plain: no output of a resource."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fed = [part for part in parts if typing.get_origin(part) in (Awaitable, pulumi.Output)]
        # None is another word for absent, and a component is told by a reference to it
        left_out = (*fed, type(None), DeviceFleet)
        kinds = [_kind(part, nested)[0] for part in parts if part not in left_out]
        different = [kind for place, kind in enumerate(kinds) if kind not in kinds[:place]]
        return (different[0] if len(different) == 1 else {"oneOf": different}), not fed
    if origin is typing.Literal:
        return {"type": "string"}, True
    if origin in (tuple, Sequence):
        kind, is_plain = _kind(parts[0], nested)
        return {"type": "array", "items": {**kind, **_plain(is_plain)}}, True
    if hint in (dict[str, Any], Any):
        return {"$ref": "pulumi.json#/Any"}, True
    if origin is Mapping:
        kind, is_plain = _kind(parts[1], nested)
        return {"type": "object", "additionalProperties": {**kind, **_plain(is_plain)}}, True
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        token = f"{PACKAGE}:index:{hint.__name__}"
        if token not in nested:
            nested[token] = {}  # a place of its own before those that it needs
            nested[token] = {**_object(hint, nested), "description": _describe(hint)}
        return {"$ref": f"#/types/{token}"}, True
    return {"type": SCALARS[hint]}, True


def _describe(kind: type) -> str:
    """The first paragraph of its docstring: what follows is for Python."""
    return _reword((inspect.getdoc(kind) or "").split("\n\n")[0])


def _describe_field(record: type, each: dataclasses.Field[Any], hint: Any, said: str) -> str:
    """What the docstring says, what the checks allow, and the default."""
    paragraphs = [_reword(paragraph) for paragraph in said.split("\n\n") if paragraph.strip()]
    owner = next(base for base in record.__mro__ if each.name in inspect.get_annotations(base))
    kind = LIMITS.get(owner, {}).get(each.name)
    if kind is not None and hint is not bool:
        paragraphs.append(f"It {kind.allowed}.")
    default = None if each.default is dataclasses.MISSING else encode(each.default)
    if default not in (None, []):
        paragraphs.append(f"Default: `{json.dumps(default).replace('.0', '')}`.")
    return "\n\n".join(paragraphs)


def _reword(text: str) -> str:
    """One line, names as the schema has them, no module's."""
    line = re.sub(r" \(`rollout\.\w+`\)", "", " ".join(text.split()))
    return re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda name: f"`{camel_case(name[1])}`", line)


def _field_docs(record: type) -> dict[str, str]:
    """The docstrings under a class's fields, its bases' too: at run time only the source has
    them."""
    said = {}
    for base in reversed(record.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for pair in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    said[name] = inspect.cleandoc(words)
    return said
