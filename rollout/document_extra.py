"""What a stack file adds to every job document (`rollout.documentExtra`), for agents that are there
already and read keys of their own.

Whoever reads only these keys checks nothing of what the signature covers: the signed `release`
beside them is for devices that keep the contract, and these ignore the extra keys.

>>> fill_extra({"steps": ["{version}", "{size}"], "at": "{url}?"}, values)
{'steps': ['2.1.0', 65536], 'at': 'https://…?'}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OWN_KEYS = ("operation", "release", "url")
"""Keys of a job document that are ours."""
IMAGE_SIGNATURE = "imageSignature"
EXTRA_PLACEHOLDERS = ("release", "url", "version", "sha256", "size", IMAGE_SIGNATURE)
"""What may stand in braces."""
MAX_EXTRA_DEPTH = 8
"""Objects and lists within one another; our own limit. A device of ours reads 16, with all that the
document comes in."""
MAX_EXTRA_KEY = 128
"""Characters of a key; our own limit."""
MAX_SUBSTITUTIONS = 10
"""Texts in a document that IoT Jobs replaces by a presigned URL, our own `url` among them (AWS IoT
limits of 2020; not in the API's model)."""
BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
"""A brace as it is written, a placeholder, or a brace that stands alone."""
WHOLE_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9]+)\}")


@dataclass(frozen=True)
class ExtraText:
    """A text of the extra keys, and where it stands, such as `steps[0].action.input.args[1]`."""

    place: str
    text: str


def list_texts(value: Any, place: str = "") -> Iterator[ExtraText]:
    """Every value that is a text; keys are taken as they stand."""
    if isinstance(value, str):
        yield ExtraText(place, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from list_texts(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from list_texts(item, f"{place}[{index}]")


def find_wrong_brace(text: str) -> str | None:
    """The first placeholder that is none, or a brace that stands alone."""
    for found in BRACES.finditer(text):
        if found[0] not in ("{{", "}}") and found[1] not in EXTRA_PLACEHOLDERS:
            return found[0]
    return None


def needs_image_signature(extra: Mapping[str, Any] | None) -> bool:
    """Whether `{imageSignature}` stands anywhere in it."""
    return any(
        found[1] == IMAGE_SIGNATURE
        for one in list_texts(dict(extra or {}))
        for found in BRACES.finditer(one.text)
    )


def fill_extra(value: Any, values: Mapping[str, str | int]) -> Any:
    """The same with every placeholder replaced. A value that is one placeholder and nothing else
    becomes what that stands for: `"{size}"` a number."""
    if isinstance(value, Mapping):
        return {key: fill_extra(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_extra(item, values) for item in value]
    if not isinstance(value, str):
        return value
    if whole := WHOLE_PLACEHOLDER.fullmatch(value):
        return values[whole[1]]
    return BRACES.sub(lambda found: _replace(found, values), value)


def _replace(found: re.Match[str], values: Mapping[str, str | int]) -> str:
    name = found[1]
    return found[0][0] if name is None else str(values[name])
