"""Which job documents the device obeys: the rules in their order, the signature, the addresses."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given
from hypothesis import strategies as st

from device.flash import DeviceMemory
from device.rules import Accept, AlreadyInstalled, Fail, Reject, evaluate_document, load_keys
from rollout.codec import canonical_json
from rollout.job_document import OPERATION, ReleaseStatement
from rollout.jws import b64url_encode, compact_jws
from rollout.version import Version
from tests.unit.device_fakes import KEY, STATEMENT, URL, document, pem, signed

OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
MEMORY = DeviceMemory(version=Version("2.0.0"), sha256="0" * 64, sequence=50)
KEYS = load_keys(pem(KEY))


@dataclass(frozen=True)
class Model:
    channel: str = "stable"
    hardware: str = "gateway-a1"


def evaluate(statement: ReleaseStatement = STATEMENT, memory: DeviceMemory = MEMORY) -> Any:
    return evaluate_document(document(statement), memory, KEYS, Model())


def test_a_genuine_newer_release_is_accepted() -> None:
    assert evaluate() == Accept(STATEMENT, URL)


@pytest.mark.parametrize(
    ("statement", "memory", "expected"),
    [
        (replace(STATEMENT, channel="beta"), MEMORY, (Fail, "other channel")),
        (replace(STATEMENT, hardware="gateway-b2"), MEMORY, (Reject, "other hardware")),
        (replace(STATEMENT, sequence=49), MEMORY, (Reject, "stale sequence")),
        (
            replace(STATEMENT, minimum_version=Version("2.0.1")),
            MEMORY,
            (Reject, "below minimum version"),
        ),
        (STATEMENT, replace(MEMORY, version=Version("2.2.0")), (Reject, "newer version running")),
        (replace(STATEMENT, sha256="A" * 64), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, size=0), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, sequence=0), MEMORY, (Fail, "bad statement")),
        (replace(STATEMENT, sequence=2**63), MEMORY, (Fail, "bad statement")),
        # what several rules refuse, the first one names
        (replace(STATEMENT, hardware="gateway-b2", sequence=1), MEMORY, (Reject, "other hardware")),
        (
            replace(STATEMENT, sequence=1, minimum_version=Version("9.0.0")),
            MEMORY,
            (Reject, "stale sequence"),
        ),
    ],
)
def test_what_is_refused_and_why(
    statement: ReleaseStatement, memory: DeviceMemory, expected: tuple[type, str]
) -> None:
    decision = evaluate(statement, memory)
    assert (type(decision), decision.reason) == expected


@pytest.mark.parametrize(
    "change", [{"version": "2.1"}, {"version": "2.1.0-"}, {"minimumVersion": "two"}]
)
def test_a_statement_whose_version_is_none_fails(change: dict[str, str]) -> None:
    payload = json.loads(canonical_json(STATEMENT)) | change
    decision = evaluate_document(document(payload), MEMORY, KEYS, Model())
    assert isinstance(decision, Fail)
    assert decision.reason == "bad statement"


def test_what_already_runs_has_succeeded_even_under_an_old_sequence() -> None:
    running = replace(MEMORY, version=Version("2.1.0"), sha256="a" * 64, sequence=200)
    assert evaluate(memory=running) == AlreadyInstalled(STATEMENT)


def test_the_same_sequence_is_accepted_again_so_that_an_update_can_be_resumed() -> None:
    assert evaluate(memory=replace(MEMORY, sequence=100)) == Accept(STATEMENT, URL)


def test_the_same_version_with_another_digest_is_another_image() -> None:
    assert isinstance(evaluate(memory=replace(MEMORY, version=Version("2.1.0"))), Accept)


def test_a_rollback_installs_an_older_version() -> None:
    back = replace(STATEMENT, downgrade=True)
    assert evaluate(back, replace(MEMORY, version=Version("3.0.0"))) == Accept(back, URL)


VERSIONS = st.sampled_from(["1.0.0", "2.0.0", "2.1.0-rc.1", "2.1.0", "2.1.0+build", "3.0.0"]).map(
    Version
)
DIGESTS = st.sampled_from(["0" * 64, "a" * 64, "b" * 64])
STATEMENTS = st.builds(
    ReleaseStatement,
    channel=st.sampled_from(["stable", "beta"]),
    hardware=st.sampled_from(["gateway-a1", "gateway-b2"]),
    version=VERSIONS,
    sha256=DIGESTS,
    size=st.integers(1, 100),
    sequence=st.integers(1, 10),
    minimum_version=st.none() | VERSIONS,
    downgrade=st.booleans(),
)
MEMORIES = st.builds(DeviceMemory, version=VERSIONS, sha256=DIGESTS, sequence=st.integers(0, 10))


@given(STATEMENTS, MEMORIES)
def test_nothing_is_accepted_that_breaks_a_rule(
    statement: ReleaseStatement, memory: DeviceMemory
) -> None:
    decision = evaluate(statement, memory)
    for_us = (statement.channel, statement.hardware) == ("stable", "gateway-a1")
    may_install = (
        statement.sequence >= memory.sequence
        and not memory.version < (statement.minimum_version or Version("0.0.0-0"))
        and (statement.downgrade or not memory.version > statement.version)
    )
    same = (statement.version, statement.sha256) == (memory.version, memory.sha256)
    assert isinstance(decision, AlreadyInstalled) == (for_us and same)
    assert isinstance(decision, Accept) == (for_us and not same and may_install)
    assert isinstance(decision, Fail) == (statement.channel != "stable")


@given(st.lists(STATEMENTS, min_size=2, max_size=6), MEMORIES)
def test_a_replayed_document_never_installs_again_after_a_higher_sequence(
    offers: list[ReleaseStatement], memory: DeviceMemory
) -> None:
    for offer in offers:
        if isinstance(evaluate(offer, memory), Accept):
            memory = replace(
                memory,
                version=offer.version,
                sha256=offer.sha256,
                sequence=max(memory.sequence, offer.sequence),
            )
    for offer in offers:
        if offer.sequence < memory.sequence:
            assert not isinstance(evaluate(offer, memory), Accept)


# The signature


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(JSON)
def test_any_document_of_others_fails_and_breaks_nothing(anything: object) -> None:
    assert isinstance(evaluate_document(anything, MEMORY, KEYS, Model()), Fail)


@given(
    st.fixed_dictionaries(
        {"operation": st.just(OPERATION), "release": st.text(), "url": st.just(URL)}
    )
)
def test_any_token_of_others_fails(anything: object) -> None:
    assert isinstance(evaluate_document(anything, MEMORY, KEYS, Model()), Fail)


@given(JSON)
def test_a_signed_payload_that_is_no_statement_fails(payload: object) -> None:
    decision = evaluate_document(document(payload), MEMORY, KEYS, Model())
    assert isinstance(decision, Fail)
    assert decision.reason == "bad statement"


def test_a_statement_with_a_key_the_device_does_not_know_is_refused() -> None:
    more = json.loads(canonical_json(STATEMENT)) | {"onlyOnSundays": True}
    assert evaluate_document(document(more), MEMORY, KEYS, Model()) == Fail(
        "bad statement", _unknown("onlyOnSundays")
    )


def _unknown(key: str) -> str:
    known = "channel, downgrade, hardware, minimumVersion, sequence, sha256, size, version"
    return f"{key}: unknown; known are {known}"


TOKEN = signed(STATEMENT)
"""Signed once: ECDSA signs otherwise each time, and an example must be the same when it is drawn
again."""


@given(st.integers(0, len(TOKEN) - 2), st.sampled_from("Aa0-_."))
def test_one_changed_character_of_the_token_is_refused(index: int, letter: str) -> None:
    # the last character is not drawn: its low bits are padding, and decode to the same signature
    assume(letter != TOKEN[index])
    changed = TOKEN[:index] + letter + TOKEN[index + 1 :]
    decision = evaluate_document(document(STATEMENT, release=changed), MEMORY, KEYS, Model())
    assert isinstance(decision, Fail)


def forge(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    parts = (b64url_encode(canonical_json(part).encode()) for part in (header, STATEMENT))
    text = ".".join(parts)
    return f"{text}.{b64url_encode(sign(text.encode()))}"


def sign_raw(key: ec.EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        token = compact_jws("", key.sign(data, ec.ECDSA(hashes.SHA256())))
        return base64.urlsafe_b64decode(token[1:] + "==")

    return sign


@pytest.mark.parametrize(
    "token",
    [
        forge({"alg": "none", "typ": "iotota-release+jws"}, lambda _: b""),
        forge({"alg": "none", "typ": "iotota-release+jws"}, lambda _: b"\0" * 64),
        forge(
            {"alg": "HS256", "typ": "iotota-release+jws"},
            lambda data: hmac.digest(pem(KEY).encode(), data, "sha256"),
        ),
        forge(
            {"alg": "HS256", "typ": "iotota-release+jws"},
            lambda data: 2 * hmac.digest(pem(KEY).encode(), data, "sha256"),
        ),
        forge({"alg": "ES384", "typ": "iotota-release+jws"}, sign_raw(KEY)),
        forge({"typ": "iotota-release+jws"}, sign_raw(KEY)),
        forge({"alg": "ES256"}, sign_raw(KEY)),
        forge({"alg": "ES256", "typ": "JWT"}, sign_raw(KEY)),
        forge({"alg": "ES256", "typ": "iotota-state+jws"}, sign_raw(KEY)),
        forge({"alg": "ES256", "typ": "iotota-release+jws", "crit": ["exp"]}, sign_raw(KEY)),
        forge({"alg": "ES256", "typ": "iotota-release+jws"}, sign_raw(OTHER_KEY)),
        forge({"alg": "ES256", "typ": "iotota-release+jws"}, lambda _: b"\0" * 64),
        b64url_encode(b"[" * 9_000) + ".AA." + "A" * 86,
    ],
)
def test_forgeries_are_refused(token: str) -> None:
    decision = evaluate_document(document(STATEMENT, release=token), MEMORY, KEYS, Model())
    assert isinstance(decision, Fail)
    assert decision.reason == "bad signature"


def test_the_forger_of_these_tests_makes_good_tokens_when_it_wants_to() -> None:
    token = forge({"alg": "ES256", "typ": "iotota-release+jws"}, sign_raw(KEY))
    assert isinstance(
        evaluate_document(document(STATEMENT, release=token), MEMORY, KEYS, Model()), Accept
    )


def test_while_a_key_is_rotated_both_are_accepted() -> None:
    both = load_keys(pem(OTHER_KEY) + pem(KEY))
    for key in (KEY, OTHER_KEY):
        assert isinstance(
            evaluate_document(
                document(STATEMENT, release=signed(STATEMENT, key)), MEMORY, both, Model()
            ),
            Accept,
        )
    after = load_keys(pem(OTHER_KEY))
    assert isinstance(evaluate_document(document(STATEMENT), MEMORY, after, Model()), Fail)


def test_only_p256_keys_are_taken() -> None:
    with pytest.raises(ValueError, match="P-256"):
        load_keys(pem(ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(ValueError, match="no public key"):
        load_keys("")


@pytest.mark.parametrize(
    "url",
    [
        "http://firmware.example/i",
        "file:///etc/passwd",
        "ftp://localhost/i",
        "https://",
        "http://[::1",
        "",
        "${aws:iot:s3-presigned-url-v2:https://b.s3.us-east-1.amazonaws.com/k}",
        "http://localhost.example/i",
    ],
)
def test_addresses_that_are_not_fetched(url: str) -> None:
    assert evaluate_document(document(STATEMENT, url=url), MEMORY, KEYS, Model()) == Fail(
        "bad document", "url is not https"
    )


@pytest.mark.parametrize(
    "url", ["http://localhost:4566/b/k", "http://127.0.0.1/k", "http://[::1]:80/k", URL]
)
def test_addresses_that_are_fetched(url: str) -> None:
    assert evaluate_document(document(STATEMENT, url=url), MEMORY, KEYS, Model()) == Accept(
        STATEMENT, url
    )
