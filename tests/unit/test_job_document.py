"""The job document: a signature that a standard JWS library accepts, an address that IoT can
presign, names that fit."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from rollout.job_document import (
    MAX_DOCUMENT,
    artifact_url,
    job_document,
    parse_statement,
    release_statement,
)
from rollout.jws import RELEASE_TYPE, compact_jws, der_signature, raw_signature, signing_input
from rollout.release import Firmware
from rollout.version import Version

FIRMWARE = Firmware(
    version=Version("2.1.0"),
    sha256="ab" * 32,
    size=65_536,
    hardware="gateway-a1",
    minimum_version=Version("1.0.0"),
)
numbers = st.integers(1, 2**256 - 1)


@given(numbers, numbers)
def test_raw_and_der_signatures_are_two_forms_of_one(r: int, s: int) -> None:
    der = encode_dss_signature(r, s)
    raw = raw_signature(der)
    assert raw == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert der_signature(raw) == der


@given(st.binary(max_size=80))
def test_bytes_that_are_no_signature_are_a_value_error(data: bytes) -> None:
    try:
        raw = raw_signature(data)
    except ValueError:
        return
    assert len(raw) == 64


def test_a_standard_library_verifies_what_kms_signs() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = release_statement("stable", FIRMWARE, 1_790_000_000, downgrade=False, job="j-1")
    signed = signing_input(RELEASE_TYPE, "arn:aws:kms:us-east-1:123456789012:key/1", claims)
    token = compact_jws(signed, key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    assert jwt.decode(token, key.public_key(), algorithms=["ES256"]) == {
        "contract": 1,
        "crit": [],
        "job": "j-1",
        "refuses": [],
        "channel": "stable",
        "hardware": "gateway-a1",
        "version": "2.1.0",
        "sha256": "ab" * 32,
        "size": 65_536,
        "sequence": 1_790_000_000,
        "minimumVersion": "1.0.0",
        "downgrade": False,
    }
    assert jwt.get_unverified_header(token)["typ"] == RELEASE_TYPE
    assert parse_statement(token) == claims


def test_a_changed_statement_is_not_verified() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signed = signing_input(
        RELEASE_TYPE, "k", release_statement("stable", FIRMWARE, 1, downgrade=False, job="j-1")
    )
    other = signing_input(
        RELEASE_TYPE, "k", release_statement("stable", FIRMWARE, 2, downgrade=False, job="j-2")
    )
    token = compact_jws(other, key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, key.public_key(), algorithms=["ES256"])


def test_the_document_asks_iot_for_a_presigned_address_of_the_artifact() -> None:
    url = artifact_url(
        "fleet-firmware", "eu-central-1", "amazonaws.com", "firmware/2.1.0-rc.1+7/ab.bin"
    )
    document = json.loads(job_document("a.b.c", url))
    assert document == {
        "operation": "install-firmware",
        "release": "a.b.c",
        "url": (
            "${aws:iot:s3-presigned-url-v2:https://fleet-firmware.s3.eu-central-1.amazonaws.com/firmware/2.1.0-rc.1%2B7/ab.bin}"
        ),
    }


def test_a_way_back_fits_in_its_document_however_much_it_refuses() -> None:
    digests = [f"{number:064x}" for number in range(1000)]
    statement = release_statement(
        "c" * 20, FIRMWARE, 2**63 - 1, downgrade=True, job="j" * 64, refuses=digests
    )
    assert list(statement.refuses) == digests[:100], "the first ones"
    signed = signing_input(RELEASE_TYPE, "k" * 100, statement)
    url = artifact_url("b" * 63, "us-gov-west-1", "amazonaws.com", "k" * 1024)
    assert len(job_document(f"{signed}.{'A' * 86}", url)) < MAX_DOCUMENT / 2


@pytest.mark.parametrize(
    "token", ["", "a", "a.", "a.b.c", "a.e30.c", "a.W10.c", "a.é.c", "..", "a.A"]
)
def test_a_token_without_a_statement_is_a_value_error(token: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_statement(token)


def test_the_address_names_a_version_of_the_artifact_encoded() -> None:
    url = artifact_url("b", "us-east-1", "amazonaws.com", "firmware/2.1.0+7/ab.bin", "3/L4k.qt_J-8")
    assert url == (
        "https://b.s3.us-east-1.amazonaws.com/firmware/2.1.0%2B7/ab.bin%3FversionId%3D3/L4k.qt_J-8"
    )


def test_a_document_over_iots_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="IoT takes 32768"):
        job_document("x" * MAX_DOCUMENT, "https://b/k")
