"""Which job documents a device obeys: rules 1 to 12 of docs/device-contract.md, without network or
disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from device.strict_json import StrictJsonError, read_strict_json
from device.transfer import parse_url
from rollout.codec import DecodeError, camel_case, decode
from rollout.job_document import CONTRACT, OPERATION, ReleaseStatement
from rollout.jws import RELEASE_TYPE, b64url_decode, der_signature
from rollout.version import Version

COMPACT_JWS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
"""86 characters of base64url are the 64 bytes of R and S (RFC 7518, 3.4)."""
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
MAX_64 = 2**63 - 1
"""The largest sequence and size: both fit a signed 64-bit number."""
UNDERSTOOD = {camel_case(field.name) for field in fields(ReleaseStatement)} - {"refuses"}
"""Keys of a statement that this device obeys; it reads no others."""

BAD_DOCUMENT = "bad document"
BAD_SIGNATURE = "bad signature"
BAD_STATEMENT = "bad statement"
NOT_UNDERSTOOD = "contract not understood"
OTHER_JOB = "other job"
OTHER_CHANNEL = "other channel"
OTHER_HARDWARE = "other hardware"
STALE_SEQUENCE = "stale sequence"
BELOW_MINIMUM = "below minimum version"
NEWER_RUNNING = "newer version running"
"""Reasons are few and fixed, so that a fleet's can be counted; what varies stands in `detail`."""


class InstalledFirmware(Protocol):
    """What the rules ask about the firmware on the device."""

    @property
    def version(self) -> Version: ...

    @property
    def sha256(self) -> str: ...

    @property
    def sequence(self) -> int:
        """The highest sequence accepted so far; 0 before the first."""


class DeviceModel(Protocol):
    """What the rules ask about the device itself."""

    @property
    def channel(self) -> str: ...

    @property
    def hardware(self) -> str: ...


@dataclass(frozen=True)
class Accept:
    """Download and install it. `statement` is verified, `url` is not: the statement's size and
    SHA-256 say whether what it brings is right."""

    statement: ReleaseStatement
    url: str


@dataclass(frozen=True)
class AlreadyInstalled:
    """The device runs it: SUCCEEDED, with no download."""

    statement: ReleaseStatement


@dataclass(frozen=True)
class Reject:
    """Genuine, but not for this device: REJECTED, which counts neither for the release nor against
    it."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Fail:
    """Not to be trusted or not to be understood: FAILED, which counts against the release."""

    reason: str
    detail: str


Decision = Accept | AlreadyInstalled | Reject | Fail


def load_keys(pem: str) -> tuple[EllipticCurvePublicKey, ...]:
    """The P-256 public keys in a text of one or more PEM blocks (two while a key is rotated).

    Raises ValueError when there is none, or one of another kind.
    """
    blocks = PEM_BLOCK.findall(pem)
    if not blocks:
        raise ValueError("no public key in the PEM text")
    keys = []
    for block in blocks:
        key = load_pem_public_key(block.encode())
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError(
                "a release is signed with ECDSA on P-256; the PEM text holds another kind of key"
            )
        keys.append(key)
    return tuple(keys)


def evaluate_document(
    document: object,
    job: str,
    installed: InstalledFirmware,
    keys: Sequence[EllipticCurvePublicKey],
    device: DeviceModel,
) -> Decision:
    """What to do with the document of a job, as parsed from JSON; the first rule that applies
    decides.

    Pure: the same arguments give the same decision, and no document raises an exception.
    """
    if not isinstance(document, dict) or document.get("operation") != OPERATION:
        return Fail(BAD_DOCUMENT, f"operation is not {OPERATION}")
    token, url = document.get("release"), document.get("url")
    if not isinstance(token, str) or not isinstance(url, str):
        return Fail(BAD_DOCUMENT, "release or url missing")
    if parse_url(url) is None:
        return Fail(BAD_DOCUMENT, "url is none that is fetched")
    payload = verify_signature(token, keys)
    if isinstance(payload, Fail):
        return payload
    statement = read_statement(payload)
    if not isinstance(statement, ReleaseStatement):
        return statement
    if statement.job != job:
        return Fail(OTHER_JOB, f"signed for {statement.job}, came in {job}")
    if statement.channel != device.channel:
        return Fail(OTHER_CHANNEL, f"for {statement.channel}, this device follows {device.channel}")
    if statement.hardware != device.hardware:
        return Reject(OTHER_HARDWARE, f"for {statement.hardware}, this is {device.hardware}")
    if (statement.version, statement.sha256) == (installed.version, installed.sha256):
        return AlreadyInstalled(statement)
    if statement.sequence < installed.sequence:
        return Reject(STALE_SEQUENCE, f"{statement.sequence}, accepted was {installed.sequence}")
    minimum, running = statement.minimum_version, installed.version
    if minimum is not None and running < minimum:
        return Reject(BELOW_MINIMUM, f"installs over {minimum} or newer, running is {running}")
    if running > statement.version and not statement.downgrade:
        return Reject(NEWER_RUNNING, f"{statement.version} offered, running is {running}")
    return Accept(statement, url)


def verify_signature(token: str, keys: Sequence[EllipticCurvePublicKey]) -> bytes | Fail:
    """The payload of a compact JWS that one of the keys signed as a release. `kid` is only a name:
    every key is tried."""
    parts = COMPACT_JWS.fullmatch(token)
    if parts is None:
        return Fail(BAD_SIGNATURE, "not a compact ES256 signature")
    try:
        header, payload = (read_part(part) for part in parts.group(1, 2))
        known = read_strict_json(header)
    except ValueError as error:
        return Fail(BAD_SIGNATURE, f"unreadable: {error}")
    if not isinstance(known, dict) or known.get("alg") != "ES256":
        return Fail(BAD_SIGNATURE, "alg is not ES256")
    if known.get("typ") != RELEASE_TYPE:
        return Fail(BAD_SIGNATURE, "signed as something else than a release")
    if "crit" in known:
        return Fail(BAD_SIGNATURE, "the header has crit")
    signed, signature = f"{parts[1]}.{parts[2]}".encode(), der_signature(b64url_decode(parts[3]))
    for key in keys:
        try:
            key.verify(signature, signed, ECDSA(SHA256()))
        except InvalidSignature:
            continue
        return payload
    return Fail(BAD_SIGNATURE, "no release public key fits")


def read_part(part: str) -> bytes:
    """The bytes of a part of a JWS; raises ValueError where no number of bytes has such a part."""
    if len(part) % 4 == 1:
        raise ValueError("not base64url")
    return b64url_decode(part)


def read_statement(payload: bytes) -> ReleaseStatement | Reject | Fail:
    """The statement in a payload whose signature was verified. One that asks for more than this
    device understands is rejected, not failed; keys that it need not understand are left out."""
    try:
        said = read_strict_json(payload)
        if not isinstance(said, dict):
            return Fail(BAD_STATEMENT, "not an object")
        if (not_read := _find_unreadable(said)) is not None:
            return not_read
        statement = decode(
            ReleaseStatement, {key: value for key, value in said.items() if key in UNDERSTOOD}
        )
    except StrictJsonError as error:
        return Fail(BAD_STATEMENT, str(error))
    except DecodeError as error:
        return Fail(BAD_STATEMENT, error.mistakes[0])
    if (
        not SHA256_HEX.fullmatch(statement.sha256)
        or not 1 <= statement.size <= MAX_64
        or not 1 <= statement.sequence <= MAX_64
    ):
        return Fail(BAD_STATEMENT, "sha256, size or sequence out of range")
    return statement


def _find_unreadable(said: dict[str, Any]) -> Reject | Fail | None:
    """What keeps this device from reading the statement at all; None where nothing does."""
    contract, crit = said.get("contract"), said.get("crit", [])
    if type(contract) is not int or contract < 1:
        return Fail(BAD_STATEMENT, "contract is not a whole number from 1")
    if contract > CONTRACT:
        detail = f"the statement needs contract {contract}, this device speaks {CONTRACT}"
        return Reject(NOT_UNDERSTOOD, detail)
    if not isinstance(crit, list) or any(not isinstance(key, str) for key in crit):
        return Fail(BAD_STATEMENT, "crit is not a list of keys")
    if len(set(crit)) < len(crit) or not set(crit) <= set(said):
        return Fail(BAD_STATEMENT, "crit names a key twice, or one that is not there")
    if unknown := sorted(set(crit) - UNDERSTOOD):
        return Reject(NOT_UNDERSTOOD, f"must understand {', '.join(unknown)}")
    return None
