"""Texts that others write: whatever bytes they are, reading them gives a value or a DecodeError."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cloud.bucket import Bucket
from cloud.channel import ORDERS
from ops.render import render_status
from rollout.codec import Bounds, DecodeError, canonical_json, decode_text, encode, read_json
from rollout.names import LAST_SECOND, MANIFEST_BYTES, ORDER_CHARACTERS, ORDERS_BYTES, STATE_BYTES
from rollout.orders import Order, Orders
from rollout.release import Manifest
from rollout.state import State
from rollout.trust import UntrustedState, verify_state
from tests.unit.ops_cloud import MANIFEST, NAMES, PERSON, PROVING, OpsAws

HOSTILE = {
    "a number of 5,000 digits": b"9" * 5_000,
    "one that JSON may not even begin": b"-" + b"0" * 400,
    "a great exponent": b"1e400",
    "one that no clock shows": b"1e300",
    "no number": b"NaN",
    "infinity": b"-Infinity",
    "brackets": b"[" * 100_000,
    "brackets that close": b"[" * 100_000 + b"]" * 100_000,
    "objects in one another": b'{"a":' * 100_000,
    "just too deep": b"[" * 33 + b"]" * 33,
    "a key twice": b'{"schema": 1, "schema": 1}',
    "half a character": b'"\\ud800"',
    "half a character as a key": b'{"\\udfff": 1}',
    "another encoding": "{}".encode("utf-16"),
    "a mark of the encoding": b"\xef\xbb\xbf{}",
    "no text at all": b"\xff\xfe\x00",
    "nothing": b"",
    "two megabytes of a word": b'"' + b"x" * 2_000_000 + b'"',
    "two million numbers": b"[" + b"1," * 999_999 + b"1]",
    "more than is read": b" " * (STATE_BYTES + 1),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
"""With numbers of any size, NaN and infinity, as Python writes them."""


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_a_decode_error(body: bytes) -> None:
    for kind in (Orders, Manifest, State):
        with pytest.raises(DecodeError):
            decode_text(kind, body, ORDERS)
    with pytest.raises(DecodeError):
        decode_text(Orders, b'{"schema": 1, "paused": ' + body + b"}", ORDERS)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_or_a_decode_error(body: bytes) -> None:
    for kind, bounds in ((Orders, ORDERS), (Manifest, Bounds()), (State, Bounds())):
        try:
            value = decode_text(kind, body, bounds)
        except DecodeError:
            continue
        assert decode_text(kind, canonical_json(value), bounds) == value


@given(st.text(max_size=20), st.floats(0, LAST_SECOND), st.text(max_size=20))
def test_what_is_written_is_read(by: str, at: float, why: str) -> None:
    orders = Orders(paused=Order(by=by, at=at, why=why))
    assert decode_text(Orders, json.dumps(encode(orders)), ORDERS) == orders


@pytest.mark.parametrize(
    "order",
    [
        replace(PERSON, why="x" * (ORDER_CHARACTERS + 1)),
        replace(PERSON, by="x" * (ORDER_CHARACTERS + 1)),
        replace(PERSON, at=-1.0),
        replace(PERSON, at=LAST_SECOND + 1.0),
    ],
)
def test_an_order_keeps_to_what_can_be_remembered_and_shown(order: Order) -> None:
    with pytest.raises(DecodeError):
        decode_text(Orders, json.dumps(encode(Orders(halted=order))), ORDERS)


def test_a_long_list_of_mistakes_is_a_short_text() -> None:
    with pytest.raises(DecodeError) as raised:
        decode_text(Orders, json.dumps({"k" * 400 + str(n): n for n in range(500)}), ORDERS)
    assert len(raised.value.mistakes) == 500
    assert "and 488 more" in str(raised.value)
    assert len(str(raised.value)) < 3_000


def test_a_text_within_every_bound_is_read() -> None:
    deep: Any = 1
    for _ in range(31):
        deep = [deep]
    assert read_json(json.dumps(deep)) == deep
    assert read_json(b'{"a": -0.5, "b": 9007199254740992, "c": "\xc3\xa9"}') == {
        "a": -0.5,
        "b": 2**53,
        "c": "\u00e9",
    }


# The three files, where they are read


def broken(key: str, body: bytes) -> OpsAws:
    aws = OpsAws()
    aws.publish(MANIFEST)
    aws.remember(PROVING)
    aws.objects[key] = body
    return aws


KEYS = (NAMES.keys.manifest, NAMES.keys.orders, NAMES.keys.state)


@pytest.mark.parametrize("key", KEYS)
@given(body=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_status_is_shown_whatever_lies_in_the_bucket(key: str, body: bytes) -> None:
    show_status(broken(key, body))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_status_is_shown_in_spite_of_a_hostile_text(key: str, body: bytes) -> None:
    show_status(broken(key, body))


def show_status(aws: OpsAws) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(render_status(aws.report(), ascii_only=True))


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_state_is_believed_or_distrusted(body: bytes) -> None:
    def nobody_signed(_key: str, _text: str, _signature: bytes) -> bool:
        return False

    with pytest.raises(UntrustedState):
        verify_state(body, NAMES, ["key"], nobody_signed)


@pytest.mark.parametrize("most", [MANIFEST_BYTES, ORDERS_BYTES])
def test_no_more_is_read_of_an_object_than_it_may_hold(most: int) -> None:
    aws = broken(NAMES.keys.orders, b"x" * 8_000_000)
    bucket: Callable[..., Any] = Bucket(aws.channel().clients, aws.bucket).get
    tracemalloc.start()
    found = bucket(NAMES.keys.orders, most)
    size, peak = len(found.body), tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == most + 1
    assert peak < 4 * most, "the rest stays where it is"
