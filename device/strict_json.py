"""JSON as a device reads it: one meaning or none, in bounded time and memory.

What two readers could read differently is refused (RFC 8259 leaves them open): a key that stands
twice in an object, bytes that are not UTF-8, half a surrogate pair, NaN and Infinity, numbers that
need more than 64 bits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_JSON_BYTES = 131_072
"""The longest payload of AWS IoT's MQTT."""
MAX_JSON_DEPTH = 16
"""Brackets within brackets; IoT's answers and the statement need 4."""
MAX_DIGITS = 19
"""Of a whole number: 2**63 has as many."""
STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)
"""Takes a string that never ends, too: else a text of quotes takes the square of its length."""


class StrictJsonError(ValueError):
    """The bytes are not JSON, or more than one reading of them is possible."""


def read_strict_json(data: bytes) -> Any:
    """The value that the bytes say; raises StrictJsonError, and nothing else."""
    if len(data) > MAX_JSON_BYTES:
        raise StrictJsonError(f"{len(data)} bytes, over {MAX_JSON_BYTES}")
    try:
        text = data.decode("utf-8")
        if _depth(text) > MAX_JSON_DEPTH:
            raise StrictJsonError(f"nested deeper than {MAX_JSON_DEPTH}")
        value = json.loads(
            text,
            object_pairs_hook=_to_object,
            parse_int=_to_int,
            parse_float=_to_float,
            parse_constant=_refuse_constant,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair has no UTF-8
    except UnicodeError as error:
        raise StrictJsonError("not UTF-8") from error
    except StrictJsonError:
        raise
    except ValueError as error:
        raise StrictJsonError(str(error)) from error
    return value


def _depth(text: str) -> int:
    """How deep brackets stand in brackets, outside of strings."""
    depth = deepest = 0
    for found in STRING_OR_BRACKET.finditer(text):
        letter = text[found.start()]
        if letter != '"':
            depth += 1 if letter in "[{" else -1
            deepest = max(deepest, depth)
    return deepest


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise StrictJsonError("a key stands twice in an object")
    return found


def _to_int(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise StrictJsonError(f"a number of more than {MAX_DIGITS} digits")
    return int(text)


def _to_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError("a number without end")
    return number


def _refuse_constant(text: str) -> None:
    raise StrictJsonError(f"{text} is not JSON")
