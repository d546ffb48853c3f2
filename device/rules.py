"""Which job documents a device obeys: rules 1 to 10 of docs/device-contract.md, without network or
disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rollout.codec import DecodeError, decode_text
from rollout.job_document import OPERATION, ReleaseStatement
from rollout.jws import RELEASE_TYPE
from rollout.version import Version

COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
"""86 characters of base64url are the 64 bytes of R and S (RFC 7518, 3.4)."""
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)

BAD_DOCUMENT = "bad document"
BAD_SIGNATURE = "bad signature"
BAD_STATEMENT = "bad statement"
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
    installed: InstalledFirmware,
    keys: Sequence[EllipticCurvePublicKey],
    device: DeviceModel,
) -> Decision:
    """What to do with a job document, as parsed from JSON; the first rule that applies decides.

    Pure: the same arguments give the same decision, and no document raises an exception.
    """
    if not isinstance(document, dict) or document.get("operation") != OPERATION:
        return Fail(BAD_DOCUMENT, f"operation is not {OPERATION}")
    token, url = document.get("release"), document.get("url")
    if not isinstance(token, str) or not isinstance(url, str):
        return Fail(BAD_DOCUMENT, "release or url missing")
    if not is_fetchable(url):
        return Fail(BAD_DOCUMENT, "url is not https")
    statement = verify_release(token, keys)
    if isinstance(statement, Fail):
        return statement
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


def verify_release(token: str, keys: Sequence[EllipticCurvePublicKey]) -> ReleaseStatement | Fail:
    """The statement in a compact JWS that one of the keys signed. `kid` is only a name: every key
    is tried."""
    if not COMPACT_JWS.fullmatch(token):
        return Fail(BAD_SIGNATURE, "not a compact ES256 signature")
    detail = "no key"
    for key in keys:
        try:
            verified = jwt.PyJWS().decode_complete(token, key, algorithms=["ES256"])
        except jwt.InvalidTokenError as error:
            detail = str(error)
            continue
        if verified["header"].get("typ") != RELEASE_TYPE:
            return Fail(BAD_SIGNATURE, "signed as something else than a release")
        return _decode_statement(verified["payload"])
    return Fail(BAD_SIGNATURE, detail)


def _decode_statement(payload: bytes) -> ReleaseStatement | Fail:
    try:
        statement = decode_text(ReleaseStatement, payload)
    except DecodeError as error:
        return Fail(BAD_STATEMENT, error.mistakes[0])
    if (
        not SHA256_HEX.fullmatch(statement.sha256)
        or statement.size < 1
        or not 1 <= statement.sequence < 2**63
    ):
        return Fail(BAD_STATEMENT, "sha256, size or sequence out of range")
    return statement


def is_fetchable(url: str) -> bool:
    """HTTPS everywhere; plain HTTP on the loopback interface only, which is where the sandbox's S3
    is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return bool(host)
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
