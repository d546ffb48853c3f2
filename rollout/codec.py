"""JSON for frozen dataclasses: camelCase names, every key checked, every mistake reported at
once."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class DecodeError(ValueError):
    """A document does not have the shape it must have; `mistakes` lists all of them."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(mistakes))


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, tuple, mapping or plain value. Fields that are None are left
    out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {camel(name): encode(item) for name, item in fields if item is not None}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII. What is hashed and signed."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"))


def decode(kind: type[T], data: Any) -> T:
    """Reads `data` (parsed JSON) as the dataclass `kind`; raises DecodeError with every mistake
    found."""
    mistakes: list[str] = []
    value = _decode(kind, data, "", mistakes)
    if mistakes:
        raise DecodeError(mistakes)
    return typing.cast(T, value)


def decode_text(kind: type[T], text: str | bytes) -> T:
    """As `decode`, from JSON text; text that is not JSON is a DecodeError too."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DecodeError([f"is not JSON: {error}"]) from error
    return decode(kind, data)


def _decode(kind: Any, data: Any, where: str, mistakes: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where, mistakes)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where, mistakes)
    if origin is tuple:
        if not isinstance(data, list):
            mistakes.append(f"{where or 'document'}: expected a list, got {shown(data)}")
            return ()
        return tuple(
            _decode(args[0], item, f"{where}[{index}]", mistakes) for index, item in enumerate(data)
        )
    if origin is dict:
        if not isinstance(data, dict):
            mistakes.append(f"{where or 'document'}: expected an object, got {shown(data)}")
            return {}
        return {
            key: _decode(args[1], entry, f"{where}.{key}", mistakes) for key, entry in data.items()
        }
    if origin is typing.Literal:
        if not any(data == known and type(data) is type(known) for known in args):  # True == 1
            mistakes.append(
                f"{where}: must be one of {', '.join(map(str, args))}, got {shown(data)}"
            )
        return data
    return _scalar(kind, data, where, mistakes)


@functools.cache
def _shape(kind: Any) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    return {camel(f.name): f for f in dataclasses.fields(kind)}, typing.get_type_hints(kind)


def _decode_dataclass(kind: Any, data: Any, where: str, mistakes: list[str]) -> Any:
    if not isinstance(data, dict):
        mistakes.append(f"{where or 'document'}: expected an object, got {shown(data)}")
        return None
    fields, hints = _shape(kind)
    values: dict[str, Any] = {}
    before = len(mistakes)
    unknown, known = sorted(set(data) - set(fields)), ", ".join(sorted(fields))
    mistakes += [
        f"{where + '.' if where else ''}{key}: unknown; known are {known}" for key in unknown
    ]
    for key, field in fields.items():
        place = f"{where}.{key}" if where else key
        if key in data:
            values[field.name] = _decode(hints[field.name], data[key], place, mistakes)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            mistakes.append(f"{place}: missing")
    if len(mistakes) > before:
        return None
    try:
        return kind(**values)
    except DecodeError as error:
        mistakes += [f"{where + '.' if where else ''}{m}" for m in error.mistakes]
        return None


def _scalar(kind: Any, data: Any, where: str, mistakes: list[str]) -> Any:
    if kind is Any:
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        mistakes.append(f"{where}: expected {_words(kind)}, got {shown(data)}")
    return data


def _words(kind: type) -> str:
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(
        kind, kind.__name__
    )


def shown(data: Any) -> str:
    """A value as it is shown in a message: JSON on one line, at most 60 characters, ASCII."""
    text = json.dumps(data, default=str)
    return re.sub(r"\s+", " ", text if len(text) <= 60 else text[:57] + "...")
