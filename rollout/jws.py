"""JSON Web Signatures (RFC 7515, compact, ES256) over what a KMS key signs: releases, the state."""

from __future__ import annotations

import base64
from typing import Final, Literal

from rollout.codec import canonical_json

SignedType = Literal["iotota-release+jws", "iotota-state+jws"]
RELEASE_TYPE: Final = "iotota-release+jws"
STATE_TYPE: Final = "iotota-state+jws"
"""`typ` headers keep a signature over one kind of statement from being taken for another."""


def b64url_encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signing_input(kind: SignedType, key_id: str, payload: object) -> str:
    """The bytes that ES256 signs: header and payload, base64url, joined by a dot (RFC 7515,
    5.1)."""
    header = canonical_json({"alg": "ES256", "kid": key_id, "typ": kind})
    return f"{b64url_encode(header.encode())}.{b64url_encode(canonical_json(payload).encode())}"


def compact_jws(signed: str, der_signature: bytes) -> str:
    """The compact JWS from a signing input and KMS's DER signature."""
    return f"{signed}.{b64url_encode(raw_signature(der_signature))}"


def raw_signature(der: bytes) -> bytes:
    """R and S, 32 bytes each, as ES256 wants them (RFC 7518, 3.4), from the ASN.1 DER that KMS
    returns."""
    if len(der) < 8 or der[0] != 0x30 or der[1] != len(der) - 2:
        raise ValueError("not a DER signature of P-256")
    r, rest = _integer(der[2:])
    s, rest = _integer(rest)
    if rest or r >> 256 or s >> 256:
        raise ValueError("not a DER signature of P-256: bytes after S, or numbers over 256 bits")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def der_signature(raw: bytes) -> bytes:
    """The DER form of a raw ES256 signature, as KMS Verify wants it."""
    if len(raw) != 64:
        raise ValueError("an ES256 signature has 64 bytes")
    body = b"".join(_der_integer(int.from_bytes(part, "big")) for part in (raw[:32], raw[32:]))
    return bytes([0x30, len(body)]) + body


def _integer(data: bytes) -> tuple[int, bytes]:
    if len(data) < 3 or data[0] != 0x02 or data[1] > 33 or len(data) < 2 + data[1]:
        raise ValueError("not a DER signature: no integer")
    return int.from_bytes(data[2 : 2 + data[1]], "big"), data[2 + data[1] :]


def _der_integer(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes([0x02, len(data)]) + data
