"""Who may claim a serial: a serial is bound to one key, and nothing that a device says counts but
its serial."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from rollout.claim_rules import (
    ClaimRefusal,
    ClaimRefusedError,
    ClaimRequest,
    ClaimRules,
    choose_ring,
    fill_template,
    judge_claim,
    read_claim,
)
from rollout.der import DerError, public_key_digest
from rollout.names import FleetNames, TemplateParameter
from rollout.orders import Order
from rollout.rings import Share, ring_of
from rollout.serial import CLAIM_SECONDS, Claim, Serial, SerialStatus

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

NOW = 1_764_000_000.0
BY, OTHER_BY, CERTIFICATE, THING = "a" * 64, "b" * 64, "c" * 64, "iot-fleet-0a1b2c3d-0001"
NAMES = FleetNames(fleet="iot-fleet", suffix="0a1b2c3d")
RULES = ClaimRules(
    names=NAMES,
    rings=(Share(name="canary", percent=10), Share(name="broad", percent=90)),
    thing_type="iot-fleet-0a1b2c3d-gateway",
    hardware="gateway-a1",
    initial_version="1.0.0",
    attributes={"site": "lab", "line": "3"},
    claim_certificates=frozenset({BY}),
)
REQUEST = ClaimRequest(serial="0001", certificate=CERTIFICATE, key="d" * 64, by=BY)


@cache
def make_key(number: int = 0) -> Key:
    """Keys of the kinds that CreateCertificateFromCsr takes."""
    curves = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    if number < len(curves):
        return ec.generate_private_key(curves[number])
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_pem(key: Key, name: str = "AWS IoT Certificate", serial: int = 1) -> str:
    """A certificate, as AWS IoT makes one of a device's key."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=9000))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


def digest(key: Key) -> str:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def asks(**changes: Any) -> dict[str, Any]:
    """What AWS IoT hands to the hook."""
    event = {
        "claimCertificateId": BY,
        "certificateId": CERTIFICATE,
        "certificatePem": make_pem(make_key()),
        "templateArn": "arn:aws:iot:us-east-1:123456789012:provisioningtemplate/t",
        "clientId": "claim.0001",
        "parameters": {"SerialNumber": "0001"},
    }
    return {key: value for key, value in {**event, **changes}.items() if value is not None}


def refusal(event: Any) -> ClaimRefusal:
    with pytest.raises(ClaimRefusedError) as refused:
        read_claim(event, RULES.claim_certificates)
    return refused.value.reason


def judged(record: Serial | None, request: ClaimRequest = REQUEST, now: float = NOW) -> Any:
    """The record with the claim, or the reason against it."""
    try:
        return judge_claim(record, request, THING, now)
    except ClaimRefusedError as refused:
        return refused.reason


# The public key in a certificate


@pytest.mark.parametrize("number", range(4))
def test_the_digest_is_of_the_key_whatever_else_the_certificate_says(number: int) -> None:
    key = make_key(number)
    for pem in (make_pem(key), make_pem(key, name="another" * 8, serial=2**150)):
        assert public_key_digest(pem) == digest(key)


PEM = make_pem(make_key())
DER = base64.b64decode("".join(PEM.splitlines()[1:-1]))


def armour(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"


@given(st.data())
def test_a_certificate_that_was_tampered_with_is_an_error_or_a_key_of_its_own(
    data: st.DataObject,
) -> None:
    """Whatever the bytes, there is a digest or a DerError; the library and we agree on the key
    wherever it can read the certificate."""
    der = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 40]))
    pem = armour(bytes(der[: len(der) - cut]) + data.draw(st.sampled_from([b"", b"", b"\0"])))
    try:
        found = public_key_digest(pem)
    except DerError:
        return
    try:
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:
        return
    assert found == hashlib.sha256(spki).hexdigest()


@given(st.one_of(st.text(max_size=200), st.binary(max_size=400).map(armour)))
def test_what_is_no_certificate_is_a_der_error(text: str) -> None:
    with pytest.raises(DerError):
        public_key_digest(text)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        PEM + PEM,
        PEM.replace("CERTIFICATE", "PUBLIC KEY"),
        PEM.replace("M", "*", 1),
        PEM.strip().removesuffix("-"),
        armour(DER + b"\0"),
        armour(DER[:1] + b"\x80" + DER[2:]),  # an indefinite length
        armour(DER[:1] + b"\x83\0" + DER[2:]),  # not the shortest one
        armour(DER[:1] + b"\x84\xff\xff\xff\xff" + DER[4:]),
        armour(b"0\x80" * 4000),
        "A" * 1_000_000,
    ],
)
def test_only_one_strict_certificate_is_read(pem: str) -> None:
    with pytest.raises(DerError):
        public_key_digest(pem)


# What a device asks for


def test_a_request_is_its_serial_key_and_certificates() -> None:
    key = make_key()
    expected = ClaimRequest(serial="0001", certificate=CERTIFICATE, key=digest(key), by=BY)
    assert read_claim(asks(), {BY}) == expected
    own = {"SerialNumber": "0001", "AWS::IoT::Certificate::Id": CERTIFICATE}
    assert read_claim(asks(parameters=own), {BY}) == expected, "AWS may say which certificate it is"


@pytest.mark.parametrize("event", [None, [], "text", 7, {}, asks(claimCertificateId=None)])
def test_who_names_no_claim_certificate_of_the_stack_is_refused_first(event: Any) -> None:
    assert refusal(event) is ClaimRefusal.CLAIM_CERTIFICATE


def test_a_claim_certificate_that_is_out_of_use_is_refused() -> None:
    assert refusal(asks(claimCertificateId=OTHER_BY)) is ClaimRefusal.CLAIM_CERTIFICATE
    assert refusal(asks(claimCertificateId=BY.upper())) is ClaimRefusal.CLAIM_CERTIFICATE


@pytest.mark.parametrize("client", [None, "0001", "claim.", "claim.0002", "claim.0001 ", 7, THING])
def test_a_client_id_that_is_not_the_serials_is_refused(client: Any) -> None:
    assert refusal(asks(clientId=client)) is ClaimRefusal.CLIENT_ID


@pytest.mark.parametrize(
    "changes",
    [
        {"certificateId": None},
        {"certificateId": "C" * 64},
        {"certificateId": "../" + "c" * 61},
        {"certificatePem": None},
        {"certificatePem": {}},
        {"certificatePem": "no certificate"},
        {"certificatePem": "A" * 100_000},
        {"parameters": None},
        {"parameters": []},
        {"parameters": {}},
        {"parameters": {"SerialNumber": None}},
        {"parameters": {"SerialNumber": 1}},
        {"parameters": {"SerialNumber": ["0001"]}},
        {"parameters": {"SerialNumber": "0001\n"}},
        {"parameters": {"SerialNumber": "*"}},
        {"parameters": {"SerialNumber": "a/b"}},
        {"parameters": {"SerialNumber": "ï"}},
        {"parameters": {"SerialNumber": "0" * 99}, "clientId": "claim." + "0" * 99},
        {"parameters": {"serialNumber": "0001"}},
    ],
)
def test_what_is_no_request_is_refused_and_never_an_exception(changes: Mapping[str, Any]) -> None:
    assert refusal(asks(**changes)) is ClaimRefusal.MALFORMED


@pytest.mark.parametrize(
    "parameter",
    [each for each in TemplateParameter if each is not TemplateParameter.SERIAL]
    + [TemplateParameter.attribute("site"), "Other"],
)
def test_a_device_says_nothing_but_its_serial(parameter: str) -> None:
    """Not its ring, thing or attributes, and no other device's certificate."""
    parameters = {"SerialNumber": "0001", parameter: "0" * 64}
    assert refusal(asks(parameters=parameters)) is ClaimRefusal.MALFORMED


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(asks())), JSON))
def test_whatever_comes_is_a_request_or_refused(changes: dict[str, Any]) -> None:
    try:
        request = read_claim({**asks(), **changes}, RULES.claim_certificates)
    except ClaimRefusedError:
        return
    assert request.serial == "0001"


# Who may have a serial

UNCLAIMED = Serial(serial="0001")
CLAIM = Claim(thing=THING, certificate=CERTIFICATE, key=REQUEST.key, by=BY, at=NOW - 60)
CLAIMED = Serial(serial="0001", status=SerialStatus.CLAIMED, claim=CLAIM)


@pytest.mark.parametrize("status", [SerialStatus.UNCLAIMED, SerialStatus.RELEASED])
def test_a_free_serial_is_bound_to_the_key_that_claims_it(status: SerialStatus) -> None:
    before = replace(UNCLAIMED, status=status, claim=replace(CLAIM, key="0" * 64), ring="broad")
    after = judged(before)
    assert after.status is SerialStatus.CLAIMED
    assert after.claim == replace(CLAIM, at=NOW)
    assert (after.ring, after.attributes) == ("broad", {})
    [event] = after.events
    order = Order(by=f"claim certificate {BY}", at=NOW, why=CERTIFICATE)
    assert (event.what, event.order) == ("claimed", order)


def test_who_lost_the_answer_gets_the_same_again_and_writes_nothing() -> None:
    assert judged(CLAIMED) is CLAIMED


def test_who_lost_the_answer_and_asks_with_a_new_certificate_of_the_same_key_has_it() -> None:
    after = judged(CLAIMED, replace(REQUEST, certificate="e" * 64))
    assert after.claim == replace(CLAIM, certificate="e" * 64), "the time stays the first's"
    assert [event.what for event in after.events] == ["claimed again"]


@given(st.floats(0, CLAIM_SECONDS * 3))
def test_asking_again_ends_at_a_time_that_asking_does_not_move(waited: float) -> None:
    request = replace(REQUEST, certificate="e" * 64)
    record = CLAIMED
    for at in (waited / 3, waited * 2 / 3, waited):
        outcome = judged(record, request, CLAIM.at + at)
        if at > CLAIM_SECONDS:
            assert outcome is ClaimRefusal.TOO_LATE
            return
        record = outcome
    assert record.claim == replace(CLAIM, certificate="e" * 64)


@pytest.mark.parametrize("changes", [{"key": "0" * 64}, {"by": OTHER_BY}])
def test_a_claimed_serial_is_nobody_elses(changes: dict[str, str]) -> None:
    """Not another key's, and not the same key's by another claim certificate."""
    assert judged(CLAIMED, replace(REQUEST, **changes)) is ClaimRefusal.CLAIMED


def test_a_claimed_serial_whose_claim_nobody_knows_stays_closed() -> None:
    assert judged(replace(CLAIMED, claim=None)) is ClaimRefusal.CLAIMED


def test_an_unknown_and_a_blocked_serial_are_refused() -> None:
    assert judged(None) is ClaimRefusal.UNKNOWN
    blocked = replace(CLAIMED, status=SerialStatus.BLOCKED, before=SerialStatus.CLAIMED)
    assert judged(blocked) is ClaimRefusal.BLOCKED, "even to the key that had it"


@given(
    st.sampled_from([*SerialStatus, None]),
    st.lists(
        st.builds(
            ClaimRequest,
            serial=st.just("0001"),
            certificate=st.sampled_from(["1" * 64, "2" * 64]),
            key=st.sampled_from(["x", "y", "z"]),
            by=st.sampled_from([BY, OTHER_BY]),
        ),
        min_size=2,
    ),
)
def test_one_serial_is_one_keys_however_many_ask(
    status: SerialStatus | None, requests: list[ClaimRequest]
) -> None:
    record = None if status is None else Serial(serial="0001", status=status)
    owners = set()
    for number, request in enumerate(requests):
        outcome = judged(record, request, NOW + number)
        if isinstance(outcome, Serial):
            record = outcome
            owners.add(request.key)
    free = status in (SerialStatus.UNCLAIMED, SerialStatus.RELEASED)
    assert owners == ({requests[0].key} if free else set())


# What it gets


def test_the_ring_is_the_hash_s_unless_the_list_or_a_person_says_another() -> None:
    by_hash = NAMES.ring_group(ring_of("0001", RULES.rings))
    assert by_hash == "iot-fleet-0a1b2c3d-broad"
    assert choose_ring(UNCLAIMED, RULES, set()) == by_hash
    listed = replace(UNCLAIMED, ring="canary")
    assert choose_ring(listed, RULES, set()) == "iot-fleet-0a1b2c3d-canary"
    assert choose_ring(replace(UNCLAIMED, ring="gone"), RULES, set()) == by_hash
    moved = {"somebody-elses", "iot-fleet-0a1b2c3d-canary"}
    assert choose_ring(UNCLAIMED, RULES, moved) == "iot-fleet-0a1b2c3d-canary"
    assert choose_ring(listed, RULES, {by_hash}) == by_hash, "where it is counts"


def test_a_device_that_was_cut_off_does_not_come_in_again() -> None:
    with pytest.raises(ClaimRefusedError) as refused:
        choose_ring(UNCLAIMED, RULES, {NAMES.quarantine_group, NAMES.ring_group("canary")})
    assert refused.value.reason is ClaimRefusal.QUARANTINED


def test_rings_have_their_shares_of_ten_thousand_serials() -> None:
    groups = [choose_ring(Serial(serial=f"{n:06}"), RULES, set()) for n in range(10_000)]
    assert abs(groups.count("iot-fleet-0a1b2c3d-canary") / 100 - 10) < 1


def test_a_record_changes_values_of_the_fleets_attributes_and_nothing_else() -> None:
    own = {"site": "hall-4", "unknown": "x", "hardware": "other", "serial": "9"}
    record = replace(UNCLAIMED, attributes=own)
    assert fill_template(record, RULES, "group") == {
        "SerialNumber": "0001",
        "Hardware": "gateway-a1",
        "InitialVersion": "1.0.0",
        "RingGroup": "group",
        "ThingName": THING,
        "ThingType": "iot-fleet-0a1b2c3d-gateway",
        "Attribute::line": "3",
        "Attribute::site": "hall-4",
    }
