"""Which job documents the device obeys: the rules in their order, the signature, the addresses."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given
from hypothesis import strategies as st

from device.flash import DeviceMemory
from device.rules import Accept, AlreadyInstalled, Fail, Reject, evaluate_document, load_keys
from rollout.codec import canonical_json
from rollout.document_extra import OWN_KEYS
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


def decide(document: object, memory: DeviceMemory = MEMORY, keys: Any = KEYS) -> Any:
    """What the device does with a document that came in job `job`."""
    return evaluate_document(document, "job", memory, keys, Model())


def evaluate(statement: ReleaseStatement = STATEMENT, memory: DeviceMemory = MEMORY) -> Any:
    return decide(document(statement), memory)


def test_a_genuine_newer_release_is_accepted() -> None:
    assert evaluate() == Accept(STATEMENT, URL)


@pytest.mark.parametrize(
    ("statement", "memory", "expected"),
    [
        (replace(STATEMENT, job="another"), MEMORY, (Fail, "other job")),
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
        (replace(STATEMENT, size=2**63), MEMORY, (Fail, "bad statement")),
        # what several rules refuse, the first one names
        (replace(STATEMENT, job="another", channel="beta"), MEMORY, (Fail, "other job")),
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
    "change",
    [
        {"version": "2.1"},
        {"version": "2.1.0-"},
        {"version": "2.1\u0661.0"},
        {"version": "1" * 5000 + ".0.0"},
        {"minimumVersion": "two"},
    ],
)
def test_a_statement_whose_version_is_none_fails(change: dict[str, str]) -> None:
    payload = json.loads(canonical_json(STATEMENT)) | change
    decision = decide(document(payload))
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
    contract=st.just(1),
    job=st.sampled_from(["job", "job", "another"]),
    channel=st.sampled_from(["stable", "beta"]),
    hardware=st.sampled_from(["gateway-a1", "gateway-b2"]),
    version=VERSIONS,
    sha256=DIGESTS,
    size=st.integers(1, 100),
    sequence=st.integers(1, 10),
    minimum_version=st.none() | VERSIONS,
    downgrade=st.booleans(),
    refuses=st.lists(DIGESTS, max_size=2).map(tuple),
)
MEMORIES = st.builds(DeviceMemory, version=VERSIONS, sha256=DIGESTS, sequence=st.integers(0, 10))
UNSIGNED_KEYS = st.sampled_from(
    ["version", "sha256", "size", "hardware", "sequence", "downgrade", "job", "crit", "contract"]
) | st.text(max_size=5).filter(lambda key: key not in OWN_KEYS)
UNSIGNED_VALUES = st.sampled_from(["9.9.9", "b" * 64, 1, True, None, ["x"], {"url": URL}])


@given(STATEMENTS, MEMORIES, st.dictionaries(UNSIGNED_KEYS, UNSIGNED_VALUES))
def test_keys_beside_ours_are_for_others_and_change_nothing(
    statement: ReleaseStatement, memory: DeviceMemory, extra: dict[str, Any]
) -> None:
    made = document(statement)
    assert decide({**extra, **made}, memory) == decide(made, memory)


@given(STATEMENTS, MEMORIES)
def test_nothing_is_accepted_that_breaks_a_rule(
    statement: ReleaseStatement, memory: DeviceMemory
) -> None:
    decision = evaluate(statement, memory)
    genuine = (statement.job, statement.channel) == ("job", "stable")
    for_us = genuine and statement.hardware == "gateway-a1"
    may_install = (
        statement.sequence >= memory.sequence
        and not memory.version < (statement.minimum_version or Version("0.0.0-0"))
        and (statement.downgrade or not memory.version > statement.version)
    )
    same = (statement.version, statement.sha256) == (memory.version, memory.sha256)
    assert isinstance(decision, AlreadyInstalled) == (for_us and same)
    assert isinstance(decision, Accept) == (for_us and not same and may_install)
    assert isinstance(decision, Fail) == (not genuine)


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
    st.none() | st.booleans() | st.integers(-(10**19) + 1, 10**19 - 1) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=10,
)


@given(JSON)
def test_any_document_of_others_fails_and_breaks_nothing(anything: object) -> None:
    assert isinstance(decide(anything), Fail)


@given(
    st.fixed_dictionaries(
        {"operation": st.just(OPERATION), "release": st.text(), "url": st.just(URL)}
    )
)
def test_any_token_of_others_fails(anything: object) -> None:
    assert isinstance(decide(anything), Fail)


@given(JSON)
def test_a_signed_payload_that_is_no_statement_fails(payload: object) -> None:
    decision = decide(document(payload))
    assert isinstance(decision, Fail)
    assert decision.reason == "bad statement"


# What grows


def payload_with(**more: Any) -> dict[str, Any]:
    return {**json.loads(canonical_json(STATEMENT)), **more}


NEWER_KEYS = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key not in payload_with()), JSON, max_size=4
)


@given(NEWER_KEYS)
def test_keys_that_the_device_need_not_understand_change_nothing(newer: dict[str, Any]) -> None:
    assert decide(document(payload_with(**newer))) == Accept(STATEMENT, URL)


@given(NEWER_KEYS.filter(bool), st.randoms())
def test_a_key_that_it_must_understand_and_does_not_is_rejected(
    newer: dict[str, Any], random: Random
) -> None:
    crit = [random.choice(sorted(newer)), "channel"]
    decision = decide(document(payload_with(**newer, crit=crit)))
    assert (type(decision), decision.reason) == (Reject, "contract not understood")


def test_keys_that_it_understands_may_be_critical() -> None:
    crit = ("contract", "job", "channel", "hardware", "version", "sha256", "size", "sequence")
    assert isinstance(evaluate(replace(STATEMENT, crit=crit)), Accept)
    decision = evaluate(replace(STATEMENT, crit=("refuses",)))
    assert (type(decision), decision.reason) == (Reject, "contract not understood")


@pytest.mark.parametrize("rest", [{}, {"version": 7, "sha256": [], "job": None, "crit": 5}])
def test_a_statement_of_a_newer_contract_is_rejected_whatever_else_it_says(
    rest: dict[str, Any],
) -> None:
    decision = decide(document(payload_with(**rest, contract=2)))
    assert (type(decision), decision.reason) == (Reject, "contract not understood")


@pytest.mark.parametrize(
    "change",
    [
        {"contract": 0},
        {"contract": "1"},
        {"contract": True},
        {"contract": 1.0},
        {"crit": "channel"},
        {"crit": [1]},
        {"crit": [[]]},
        {"crit": ["channel", "channel"]},
        {"crit": ["notThere"]},
    ],
)
def test_what_makes_no_sense_about_the_contract_fails(change: dict[str, Any]) -> None:
    decision = decide(document(payload_with(**change)))
    assert (type(decision), decision.reason) == (Fail, "bad statement")


@pytest.mark.parametrize("key", ["contract", "job", "channel", "hardware", "version", "sequence"])
def test_a_statement_that_lacks_a_key_fails(key: str) -> None:
    payload = payload_with()
    del payload[key]
    decision = decide(document(payload))
    assert (type(decision), decision.reason) == (Fail, "bad statement")


@given(JSON)
def test_what_a_way_back_refuses_is_nothing_to_a_device(refuses: object) -> None:
    assert decide(document(payload_with(refuses=refuses))) == Accept(STATEMENT, URL)


@pytest.mark.parametrize(
    "payload",
    [
        canonical_json(STATEMENT)[:-1] + ',"sequence":200}',
        canonical_json(STATEMENT).replace('"size":10', '"size":1e400'),
        canonical_json(STATEMENT).replace('"size":10', '"size":' + "9" * 5000),
        canonical_json(STATEMENT).replace('"size":10', '"size":NaN'),
        canonical_json(STATEMENT).replace('"gateway-a1"', '"\\ud800"'),
        "[" * 9000 + "]" * 9000,
        canonical_json(STATEMENT).encode("utf-16"),
        b"\xff" + canonical_json(STATEMENT).encode(),
    ],
)
def test_a_payload_that_two_readers_could_read_differently_fails(payload: str | bytes) -> None:
    data = payload.encode() if isinstance(payload, str) else payload
    decision = decide(document(STATEMENT, release=signed_bytes(data)))
    assert (type(decision), decision.reason) == (Fail, "bad statement")


def signed_bytes(payload: bytes) -> str:
    header = b64url_encode(b'{"alg":"ES256","kid":"key","typ":"iotota-release+jws"}')
    text = f"{header}.{b64url_encode(payload)}"
    return compact_jws(text, KEY.sign(text.encode(), ec.ECDSA(hashes.SHA256())))


TOKEN = signed(STATEMENT)
"""Signed once: ECDSA signs otherwise each time, and an example must be the same when it is drawn
again."""


@given(st.integers(0, len(TOKEN) - 2), st.sampled_from("Aa0-_."))
def test_one_changed_character_of_the_token_is_refused(index: int, letter: str) -> None:
    # the last character is not drawn: its low bits are padding, and decode to the same signature
    assume(letter != TOKEN[index])
    changed = TOKEN[:index] + letter + TOKEN[index + 1 :]
    decision = decide(document(STATEMENT, release=changed))
    assert isinstance(decision, Fail)


def forge(header: object, sign: Callable[[bytes], bytes]) -> str:
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
        forge({"alg": "ES256", "typ": "iotota-release+jws", "crit": []}, sign_raw(KEY)),
        forge(["ES256", "iotota-release+jws"], sign_raw(KEY)),
        forge({"alg": "ES256", "typ": "iotota-release+jws"}, sign_raw(OTHER_KEY)),
        forge({"alg": "ES256", "typ": "iotota-release+jws"}, lambda _: b"\0" * 64),
        b64url_encode(b"[" * 9_000) + ".AA." + "A" * 86,
    ],
)
def test_forgeries_are_refused(token: str) -> None:
    decision = decide(document(STATEMENT, release=token))
    assert isinstance(decision, Fail)
    assert decision.reason == "bad signature"


def test_the_forger_of_these_tests_makes_good_tokens_when_it_wants_to() -> None:
    token = forge({"alg": "ES256", "typ": "iotota-release+jws"}, sign_raw(KEY))
    assert isinstance(decide(document(STATEMENT, release=token)), Accept)


def test_while_a_key_is_rotated_both_are_accepted() -> None:
    both = load_keys(pem(OTHER_KEY) + pem(KEY))
    for key in (KEY, OTHER_KEY):
        assert isinstance(
            decide(document(STATEMENT, release=signed(STATEMENT, key)), keys=both),
            Accept,
        )
    after = load_keys(pem(OTHER_KEY))
    assert isinstance(decide(document(STATEMENT), keys=after), Fail)


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
        "https://user@firmware.example/i",
        "https://firmware.example:0/i",
        "https://firmware.example:65536/i",
        "https://firmware.example:99999999/i",
        "https://firmware.example",
        "https://firmware.example/i#part",
        "https://firmware.example/i j",
        "https://firmware.example/i\n",
        "https://firm\tware.example/i",
        "https://firmware.example/\u00fc",
        "https://b\u00fccher.example/i",
        f"https://{'a' * 64}.example/i",
        "https://firmware..example/i",
        "https://-firmware.example/i",
        "https://[firmware.example]/i",
        "https://[::g]/i",
        "https://firmware.example/" + "i" * 8192,
    ],
)
def test_addresses_that_are_not_fetched(url: str) -> None:
    assert decide(document(STATEMENT, url=url)) == Fail(
        "bad document", "url is none that is fetched"
    )


PRESIGNED = (
    "https://bucket-1.s3.eu-central-1.amazonaws.com/firmware/2.1.0%2B7/a.bin?X-Amz-Algorithm="
    "AWS4-HMAC-SHA256&X-Amz-Credential=ASIA%2F20261127%2Feu-central-1%2Fs3%2Faws4_request"
    "&X-Amz-Security-Token=" + "IQoJb3JpZ2luX2VjE%2F" * 80 + "&X-Amz-Signature=" + "0" * 64
)


@given(st.text())
def test_no_url_breaks_anything(text: str) -> None:
    for url in (
        text,
        f"https://{text}/i",
        f"https://firmware.example/{text}",
        f"https://[{text}]/",
    ):
        assert isinstance(decide(document(STATEMENT, url=url)), Fail | Accept)


@pytest.mark.parametrize(
    "url", ["http://localhost:4566/b/k", "http://127.0.0.1/k", "http://[::1]:80/k", URL, PRESIGNED]
)
def test_addresses_that_are_fetched(url: str) -> None:
    assert decide(document(STATEMENT, url=url)) == Accept(STATEMENT, url)
