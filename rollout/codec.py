"""JSON for frozen dataclasses: camelCase names, every key checked, every mistake reported at
once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import types
import typing
from typing import Any, TypeVar

from rollout.version import Version

T = TypeVar("T")


class DecodeError(ValueError):
    """A document does not have the shape it must have; `mistakes` lists all of them."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(mistakes))


def camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, tuple, mapping or plain value. Fields that are None are left
    out."""
    if isinstance(value, str | int | float | None):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((key, getattr(value, field.name)) for key, field in _fields(type(value)).items())
        return {key: encode(item) for key, item in fields if item is not None}
    if isinstance(value, dict):
        return {str(key): encode(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Version):
        return str(value)
    return value


def canonical_json(value: Any) -> str:
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
    origin, args = _parts(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where, mistakes)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where, mistakes)
    if origin is tuple:
        if not isinstance(data, list):
            mistakes.append(f"{where or 'document'}: expected a list, got {show_value(data)}")
            return ()
        return tuple(
            _decode(args[0], item, f"{where}[{index}]", mistakes) for index, item in enumerate(data)
        )
    if origin is dict:
        if not isinstance(data, dict):
            mistakes.append(f"{where or 'document'}: expected an object, got {show_value(data)}")
            return {}
        return {
            _decode(args[0], key, f"{where}.{key}", mistakes): _decode(
                args[1], entry, f"{where}.{key}", mistakes
            )
            for key, entry in data.items()
        }
    if origin is typing.Literal:
        if not any(data == known and type(data) is type(known) for known in args):  # True == 1
            mistakes.append(
                f"{where}: must be one of {', '.join(map(str, args))}, got {show_value(data)}"
            )
        return data
    return _scalar(kind, data, where, mistakes)


# A state is decoded and encoded in every run of the controller: what follows from a type alone is
# found out once.


@functools.cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(kind), typing.get_args(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    return {camel_case(field.name): field for field in dataclasses.fields(kind)}


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode_dataclass(kind: Any, data: Any, where: str, mistakes: list[str]) -> Any:
    if not isinstance(data, dict):
        mistakes.append(f"{where or 'document'}: expected an object, got {show_value(data)}")
        return None
    fields, hints = _fields(kind), _hints(kind)
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
    if kind is Version and isinstance(data, str):
        try:
            return Version(data)
        except ValueError as error:
            mistakes.append(f"{where}: {error}")
            return None
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        mistakes.append(f"{where}: expected {_kind_name(kind)}, got {show_value(data)}")
    return data


def _kind_name(kind: type) -> str:
    return {
        str: "text",
        Version: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
    }.get(kind, kind.__name__)


def show_value(data: Any) -> str:
    """A value as it is shown in a message: JSON on one line, at most 60 characters, ASCII."""
    text = json.dumps(data, default=str)
    return re.sub(r"\s+", " ", text if len(text) <= 60 else text[:57] + "...")


def sha256_hex(content: str | bytes) -> str:
    """64 lower-case hexadecimal digits; text is taken as UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
