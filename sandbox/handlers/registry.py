"""What handlers work with, how they register, and the small conversions they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops import local_aws

IdAndOutputs = tuple[str, dict[str, Any]]
"""A resource's id, and its outputs besides its inputs, named as the provider names them."""


@dataclass(frozen=True, kw_only=True)
class Aws:
    """The local AWS as one deployment sees it."""

    port: int
    region: str
    account: str = local_aws.ACCOUNT
    partition: str = "aws"

    def client(self, service: str) -> Any:
        return local_aws.client(service, self.port, self.region)

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

    def pick_rest(self) -> dict[str, Any]:
        """Those that were not read before: what the API takes under the same names. It refuses what
        it does not know."""
        return self.pick(*sorted(self.unread))

    def ignore(self, *keys: str) -> None:
        """Inputs that say how the provider behaves and change nothing in AWS."""
        self.unread -= set(keys)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource to be made, or to be updated where `old` holds its outputs."""

    name: str
    """Its name in the program."""
    inputs: Inputs
    aws: Aws
    old: dict[str, Any] | None = None
    changed: frozenset[str] = frozenset()
    """The inputs that differ from those it was made with; empty for a new resource."""


Make = Callable[[Resource], IdAndOutputs]
Read = Callable[[Mapping[str, Any], Aws], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Handler:
    make: Make
    replacing: frozenset[str] | None
    """Inputs whose change is a replacement; None: all of them."""

    def find_replacing(self, changed: frozenset[str]) -> frozenset[str]:
        """Those of the changed inputs that mean a replacement."""
        return changed if self.replacing is None else changed & self.replacing


HANDLERS: dict[str, Handler] = {}
FUNCTIONS: dict[str, Read] = {}
"""The provider's functions that read."""


def makes_and_updates(token: str, *replacing: str) -> Callable[[Make], Make]:
    """Registers a handler that both makes and updates; a change of the inputs `replacing` is a
    replacement."""
    return _register(token, frozenset(replacing))


def makes(token: str) -> Callable[[Make], Make]:
    """Registers a handler that only makes: any changed input is a replacement."""
    return _register(token, None)


def _register(token: str, replacing: frozenset[str] | None) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        HANDLERS[token] = Handler(make=make, replacing=replacing)
        return make

    return register


def reads(token: str) -> Callable[[Read], Read]:
    """Registers a function of the provider that reads."""

    def register(read: Read) -> Read:
        FUNCTIONS[token] = read
        return read

    return register


def pascal(value: Any, names: Mapping[str, str] | None = None) -> Any:
    """The provider's camelCase keys as most AWS APIs spell them; `names` holds the exceptions. Not
    for keys of the user's."""
    if isinstance(value, dict):
        names = names or {}
        return {
            names.get(k, k[:1].upper() + k[1:]): pascal(v, names)
            for k, v in value.items()
            if v is not None
        }
    return [pascal(item, names) for item in value] if isinstance(value, list) else value


def pairs(
    values: Mapping[str, str] | None, key: str = "Key", value: str = "Value"
) -> list[dict[str, str]]:
    """Tags, or dimensions, as a list, as most AWS APIs take them."""
    return [{key: name, value: text} for name, text in sorted((values or {}).items())]


def join_tags(tags: Mapping[str, str]) -> str:
    """Tags as the APIs of S3 and of topic rules take them."""
    return "&".join(f"{name}={value}" for name, value in sorted(tags.items()))
