"""JSON for frozen dataclasses: camelCase names, every key checked, every mistake reported at
once.

Texts that others write are read within `Bounds`: whatever bytes lie in an object, reading them
gives a value or a DecodeError, in bounded time and memory, and never another exception.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections import Counter
from enum import StrEnum
from typing import Any, TypeVar

from rollout.version import Version

T = TypeVar("T")


EXACT_NUMBER = 2**53
"""The greatest whole number that every reader of JSON takes for the same one (RFC 8259, 6)."""
SHOWN_MISTAKES, SHOWN_CHARACTERS = 12, 200
"""How many mistakes the text of a DecodeError tells, and how much of each: it is shown, logged and
remembered, and others wrote what is wrong."""


class DecodeError(ValueError):
    """A document does not have the shape it must have; `mistakes` lists all of them, the text the
    first few."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        shown = [m[:SHOWN_CHARACTERS] for m in mistakes[:SHOWN_MISTAKES]]
        if more := len(mistakes) - len(shown):
            shown.append(f"and {more} more")
        super().__init__("; ".join(shown))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a JSON text may hold at most."""

    size: int = 4_194_304
    """Bytes of the text."""
    depth: int = 32
    """Objects and lists within one another."""
    items: int = 100_000
    """Of one object or list."""
    characters: int = 65_536
    """Of one text or key."""
    lowest: float = -EXACT_NUMBER
    highest: float = EXACT_NUMBER
    """Of every number."""


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


def decode_text(kind: type[T], text: str | bytes, bounds: Bounds = Bounds()) -> T:
    """As `decode`, from JSON text; what `read_json` refuses is a DecodeError too."""
    return decode(kind, read_json(text, bounds))


def read_json(text: str | bytes, bounds: Bounds = Bounds()) -> Any:
    """The value of a JSON text (RFC 8259): UTF-8, no key twice in an object, no NaN or infinity,
    nothing beyond the bounds. Raises DecodeError for any other."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > bounds.size:
            raise DecodeError([f"is larger than {bounds.size} bytes"])
        data = json.loads(
            raw.decode(),
            object_pairs_hook=_unite_pairs,
            parse_int=_read_number,
            parse_float=_read_number,
            parse_constant=_refuse_constant,
        )
        _check_bounds(data, bounds)
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError([f"is nested more than {bounds.depth} deep"]) from None
    except ValueError as error:
        raise DecodeError([f"is not JSON: {error}"]) from error
    return data


def _unite_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise DecodeError([f"{show_value(twice)} stands in one object more than once"])
    return data


def _read_number(digits: str) -> int | float:
    """Python reads whole numbers of at most 4,300 digits, and takes its time with them."""
    if len(digits) <= 32:
        number = int(digits) if digits.lstrip("-").isdigit() else float(digits)
        if math.isfinite(number):
            return number
    raise DecodeError([f"{show_value(digits)} is not a number within bounds"])


def _refuse_constant(name: str) -> None:
    raise DecodeError([f"{name} is not JSON"])


def _check_bounds(data: Any, bounds: Bounds) -> None:
    todo: list[tuple[int, Any]] = [(1, data)]
    while todo:
        level, item = todo.pop()
        if isinstance(item, str):
            item.encode()  # a surrogate that stands alone has no UTF-8
            if len(item) > bounds.characters:
                raise DecodeError([f"{show_value(item)} has over {bounds.characters} characters"])
        elif isinstance(item, list | dict):
            if level > bounds.depth:
                raise DecodeError([f"is nested more than {bounds.depth} deep"])
            if len(item) > bounds.items:
                raise DecodeError([f"a list or an object has over {bounds.items} entries"])
            if isinstance(item, dict):
                todo += ((level + 1, key) for key in item)
                item = item.values()
            todo += ((level + 1, entry) for entry in item)
        elif isinstance(item, int | float) and not bounds.lowest <= item <= bounds.highest:
            raise DecodeError([f"{item} is not from {bounds.lowest} to {bounds.highest}"])


def _decode(kind: Any, data: Any, where: str, mistakes: list[str]) -> Any:
    origin, args = _parts(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where, mistakes)
    if _is_record(kind):
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
def _is_record(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


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
    if unknown := data.keys() - fields.keys():
        known, here = ", ".join(sorted(fields)), f"{where}." if where else ""
        mistakes += [f"{here}{key}: unknown; known are {known}" for key in sorted(unknown)]
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
    if issubclass(kind, StrEnum):
        if data in kind.__members__.values():
            return kind(data)
        known = ", ".join(kind)
        mistakes.append(f"{where}: must be one of {known}, got {show_value(data)}")
        return None
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
