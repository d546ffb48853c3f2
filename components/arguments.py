"""The arguments of the components: plain values, checked as a stack file's are.

Arguments are text, numbers, lists, maps and small dataclasses of these, so that any Pulumi language
can say them; only what another resource could feed is a `pulumi.Input`. Their camelCase names are
the keys of a stack file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from components.checks import Mistake, MistakesError, Section
from rollout.codec import camel_case

R = TypeVar("R")


class Arguments:
    """A dataclass of arguments, or of a part of them."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **others: Any) -> Self:
        """The arguments among `values`: by camelCase keys, nested ones as maps; None is left out.
        The component checks all of them."""
        for each in dataclasses.fields(cls):  # type: ignore[arg-type]
            value = values.get(camel_case(each.name))
            if each.name not in others and (value is not None or is_required(each)):
                others[each.name] = value
        return cls(**others)


def is_required(each: dataclasses.Field[Any]) -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class CommonArgs(Arguments):
    """What a fleet and its channel have in common."""

    environment: str = "production"
    """What it is for: `dev`, `staging` or `production`; a tag. Only `dev` may do what is unsafe."""
    protect: bool = True
    """Whether what holds devices, their rights, keys, images, memory or evidence is protected from
    deletion and kept on destroy."""
    log_retention_days: int = 30
    """One of the values that PutRetentionPolicy takes.

    See https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
    """
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of every taggable resource, beside `project`, `environment` and `fleet`."""


class ArgumentsError(MistakesError):
    """A component's arguments have mistakes; it was not registered."""


def read_arguments(
    component: str, name: str, values: Mapping[str, Any], read: Callable[[Section], R]
) -> R:
    """What `read` makes of a component's arguments. Raises ArgumentsError with every mistake."""
    mistakes: list[Mistake] = []
    section = Section(name, dict(values), mistakes)
    made = read(section)
    section.refuse_unknown_keys()
    if mistakes:
        raise ArgumentsError(f"{component} {name}", "it was not registered", mistakes)
    return made
