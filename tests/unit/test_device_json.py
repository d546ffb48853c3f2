"""JSON as a device reads it: what it takes has one meaning, and nothing makes it fall."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.strict_json import MAX_JSON_BYTES, MAX_JSON_DEPTH, StrictJsonError, read_strict_json

NUMBERS = st.integers(-(10**19) + 1, 10**19 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=MAX_JSON_DEPTH,
)


@given(VALUES, st.booleans())
def test_what_is_written_is_read(value: Any, ascii_only: bool) -> None:
    assert read_strict_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary() | st.text('[]{}",:\\u0019eE-.ntfNIa \n').map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        value = read_strict_json(data)
    except StrictJsonError:
        return
    assert json.loads(data) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"b": {"a": 1, "\\u0061": 2}}',
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e400",
        "9" * 20,
        "-" + "9" * 5000,
        '"\\ud800"',
        '{"\\udfff": 1}',
        "\ufeff{}",
        "'a'",
        "01",
        "[1,]",
        "{} {}",
        "",
        '"\n"',
    ],
)
def test_what_readers_read_differently_is_refused(text: str) -> None:
    with pytest.raises(StrictJsonError):
        read_strict_json(text.encode())


@pytest.mark.parametrize("data", ['{"a": 1}'.encode("utf-16"), b'"\xed\xa0\x80"', b'"\xc0\x80"'])
def test_only_utf_8_is_read(data: bytes) -> None:
    with pytest.raises(StrictJsonError):
        read_strict_json(data)


def test_nesting_has_an_end() -> None:
    assert read_strict_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)
    assert read_strict_json(b'["' + b"[" * 5000 + b'"]'), "brackets in a text nest nothing"
    assert read_strict_json(b'["\\"' + b"[" * 5000 + b'"]')
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (MAX_JSON_DEPTH + 1, 20_000):
            with pytest.raises(StrictJsonError):
                read_strict_json(opening * depth + b"1" + closing * depth)


@pytest.mark.parametrize("filling", [b'"', b"\\", b'\\"', b"[", b"{", b"9", b'{"', b'",'])
def test_the_longest_bytes_are_read_in_no_time(filling: bytes) -> None:
    started = time.monotonic()
    for data in (filling, b'["' + filling):
        with pytest.raises(StrictJsonError):
            read_strict_json(data * (MAX_JSON_BYTES // len(data)))
        with pytest.raises(StrictJsonError, match="over 131072"):
            read_strict_json(filling * MAX_JSON_BYTES + b" ")
    assert time.monotonic() - started < 2
