"""What handlers are given, how they register, and the small conversions they share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox import clients

Made = tuple[str, dict[str, Any]]
"""A resource's id, and its outputs besides its inputs, named as the provider names them."""


@dataclass(frozen=True, kw_only=True)
class Aws:
    """The local AWS as one deployment sees it."""

    port: int
    region: str
    account: str = clients.ACCOUNT
    partition: str = "aws"

    def client(self, service: str) -> Any:
        return clients.client(service, self.port, self.region)

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


class Inputs(Mapping[str, Any]):
    """A resource's inputs, which remember what was read: an input that a handler does not know must
    not be lost."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.unread = {key for key, value in values.items() if value is not None}

    def __getitem__(self, key: str) -> Any:
        self.unread.discard(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def pick(self, *keys: str) -> dict[str, Any]:
        """Those of the keys that have a value."""
        return {key: value for key in keys if (value := self.get(key)) is not None}

    def ignore(self, *keys: str) -> None:
        """Inputs that say how the provider behaves and change nothing in AWS."""
        self.unread -= set(keys)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource to be made, or to be updated where `old` holds its outputs."""

    name: str
    """Its name in the program: what AWS calls it where the program gives no other name."""
    inputs: Inputs
    aws: Aws
    old: Mapping[str, Any] | None = None
    changed: frozenset[str] = field(default=frozenset())
    """The inputs that differ from those it was made with; empty for a new resource."""

    def called(self, key: str = "name") -> str:
        return str(self.inputs.get(key) or self.name)


@dataclass(frozen=True, kw_only=True)
class Handler:
    make: Callable[[Resource], Made]
    fixed: frozenset[str] | None
    """Inputs whose change is a replacement; None: all of them."""

    def replaces(self, changed: frozenset[str]) -> frozenset[str]:
        return changed if self.fixed is None else changed & self.fixed


HANDLERS: dict[str, Handler] = {}
LOOKUPS: dict[str, Callable[[Mapping[str, Any], Aws], dict[str, Any]]] = {}


def handles(
    token: str, *fixed: str
) -> Callable[[Callable[[Resource], Made]], Callable[[Resource], Made]]:
    """Registers a handler that both makes and updates; a change of the inputs `fixed` is a
    replacement."""

    def register(make: Callable[[Resource], Made]) -> Callable[[Resource], Made]:
        HANDLERS[token] = Handler(make=make, fixed=frozenset(fixed))
        return make

    return register


def makes(token: str) -> Callable[[Callable[[Resource], Made]], Callable[[Resource], Made]]:
    """Registers a handler that only makes: any changed input is a replacement."""

    def register(make: Callable[[Resource], Made]) -> Callable[[Resource], Made]:
        HANDLERS[token] = Handler(make=make, fixed=None)
        return make

    return register


def looks_up(token: str) -> Callable[..., Callable[[Mapping[str, Any], Aws], dict[str, Any]]]:
    """Registers a function of the provider that reads."""

    def register(
        look: Callable[[Mapping[str, Any], Aws], dict[str, Any]],
    ) -> Callable[[Mapping[str, Any], Aws], dict[str, Any]]:
        LOOKUPS[token] = look
        return look

    return register


def pascal(value: Any, names: Mapping[str, str] | None = None) -> Any:
    """The provider's camelCase keys as most AWS APIs spell them; `names` holds the exceptions. Not
    for keys of the user's."""
    if isinstance(value, dict):
        known = names or {}
        return {
            known.get(k, k[:1].upper() + k[1:]): pascal(v, names)
            for k, v in value.items()
            if v is not None
        }
    return [pascal(item, names) for item in value] if isinstance(value, list) else value


def pairs(
    tags: Mapping[str, str] | None, key: str = "Key", value: str = "Value"
) -> list[dict[str, str]]:
    """Tags as a list, as IoT, IAM and S3 want them."""
    return [{key: name, value: text} for name, text in sorted((tags or {}).items())]


def text(document: Any) -> str:
    """A policy or other document as JSON text, whichever way the program wrote it."""
    return document if isinstance(document, str) else json.dumps(document)
