"""What a device is given: a signed release statement in a job document. Also the ids of jobs and
groups.

The statement is a JSON Web Signature (RFC 7515, compact, ES256), signed by the channel's KMS key.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from rollout.codec import canonical, decode_text
from rollout.release import Firmware

OPERATION = "install-firmware"
MAX_DOCUMENT = 32_768
"""Characters in a job document (CreateJob)."""
RELEASE_TYPE: Final = "iotota-release+jws"
STATE_TYPE: Final = "iotota-state+jws"
"""`typ` headers keep a signature over one kind of statement from being taken for another."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What the signature covers: the release, as the device must check it."""

    channel: str
    hardware: str
    version: str
    sha256: str
    size: int
    sequence: int
    """Higher than every earlier offer's of the channel; a device refuses one lower than the highest
    it accepted."""
    minimum_version: str | None = None
    downgrade: bool = False
    """Whether a device that runs a newer version is to install this one: rollbacks and allowed
    downgrades."""


def statement(channel: str, firmware: Firmware, sequence: int, *, downgrade: bool) -> Statement:
    return Statement(
        channel=channel,
        hardware=firmware.hardware,
        version=firmware.version,
        sha256=firmware.sha256,
        size=firmware.size,
        sequence=sequence,
        minimum_version=firmware.minimum_version,
        downgrade=downgrade,
    )


def job_document(jws: str, url: str) -> str:
    """The document of an IoT job; `url` is the artifact's address, not yet presigned. At most
    32,768 characters."""
    placeholder = f"${{aws:iot:s3-presigned-url-v2:{url}}}"
    text = json.dumps(
        {"operation": OPERATION, "release": jws, "url": placeholder}, separators=(",", ":")
    )
    if len(text) > MAX_DOCUMENT:
        raise ValueError(f"the job document has {len(text)} characters, IoT takes {MAX_DOCUMENT}")
    return text


def artifact_url(bucket: str, region: str, dns_suffix: str, key: str) -> str:
    """Virtual-hosted address with the key encoded, as the s3-presigned-url-v2 placeholder takes
    it."""
    return f"https://{bucket}.s3.{region}.{dns_suffix}/{quote(key, safe='/')}"


def job_id(suffix: str, channel: str, ring: str, sequence: int) -> str:
    """`<suffix>-<channel>-<ring>-<sequence>`, at most 64 characters (CreateJob)."""
    return f"{suffix}-{channel}-{ring}-{sequence}"


def rollback_group(fleet_group: str, channel: str, sequence: int) -> str:
    """The thing group of the devices that one rollback brings back; outside the fleet's tree."""
    return f"{fleet_group}-{channel}-rollback-{sequence}"


def alarm_name(fleet_group: str, name: str) -> str:
    """The CloudWatch name of an alarm that a gate watches: `stack:x` is the stack's own alarm x."""
    own = name.removeprefix("stack:")
    return name if own == name else f"{fleet_group}-{own}"


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signing_input(
    kind: Literal["iotota-release+jws", "iotota-state+jws"], key_id: str, payload: object
) -> str:
    """The bytes that ES256 signs: header and payload, base64url, joined by a dot (RFC 7515,
    5.1)."""
    header = canonical({"alg": "ES256", "kid": key_id, "typ": kind})
    return f"{b64url(header.encode())}.{b64url(canonical(payload).encode())}"


def jws(signed: str, der_signature: bytes) -> str:
    """The compact JWS from a signing input and KMS's DER signature."""
    return f"{signed}.{b64url(raw_signature(der_signature))}"


def read_statement(token: str) -> Statement:
    """The statement inside a compact JWS. It verifies nothing: the caller does, before it believes
    a word."""
    return decode_text(Statement, unb64url(token.split(".")[1]))


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
