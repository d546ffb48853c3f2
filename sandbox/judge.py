"""What a device makes of a job document: the rules, without network or disk.
docs/device-contract.md tells them in words."""

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
from rollout.document import OPERATION, RELEASE_TYPE, Statement
from rollout.release import Version

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


class Running(Protocol):
    """What the rules need of a device's memory."""

    @property
    def version(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def sequence(self) -> int:
        """The highest sequence accepted so far; 0 before the first."""


class Identity(Protocol):
    """What the rules need of a device's build."""

    @property
    def channel(self) -> str: ...

    @property
    def hardware(self) -> str: ...


@dataclass(frozen=True)
class Accept:
    """Download and install it; `statement` is verified, `url` is not (the digest covers what it
    brings)."""

    statement: Statement
    url: str


@dataclass(frozen=True)
class AlreadyThere:
    """The device runs it: SUCCEEDED, with no download."""

    statement: Statement


@dataclass(frozen=True)
class Reject:
    """Genuine, but not for this device: REJECTED."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Fail:
    """Not to be trusted or not to be understood: FAILED."""

    reason: str
    detail: str


Verdict = Accept | AlreadyThere | Reject | Fail


def load_keys(pem: str) -> tuple[EllipticCurvePublicKey, ...]:
    """The P-256 public keys in a text of one or more PEM blocks (more than one while a key is
    rotated)."""
    keys = tuple(load_pem_public_key(block.encode()) for block in PEM_BLOCK.findall(pem))
    if not keys:
        raise ValueError("no public key in the PEM text")
    p256 = tuple(
        key
        for key in keys
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    )
    if len(p256) < len(keys):
        raise ValueError(
            "a release is signed with ECDSA on P-256; the PEM text holds another kind of key"
        )
    return p256


def judge(
    document: object, memory: Running, keys: Sequence[EllipticCurvePublicKey], config: Identity
) -> Verdict:
    """The verdict on a job document, as parsed from JSON. Pure: the same arguments give the same
    verdict."""
    parts = _parts(document)
    if isinstance(parts, Fail):
        return parts
    token, url = parts
    statement = verify(token, keys)
    if isinstance(statement, Fail):
        return statement
    if statement.channel != config.channel:
        return Fail(OTHER_CHANNEL, f"for {statement.channel}, this device follows {config.channel}")
    if statement.hardware != config.hardware:
        return Reject(OTHER_HARDWARE, f"for {statement.hardware}, this is {config.hardware}")
    return _by_version(statement, url, memory)


def verify(token: str, keys: Sequence[EllipticCurvePublicKey]) -> Statement | Fail:
    """The statement in a compact JWS that one of the keys signed. `kid` is only a name: every key
    is tried."""
    if not COMPACT_JWS.fullmatch(token):
        return Fail(BAD_SIGNATURE, "not a compact ES256 signature")
    why = "no key"
    for key in keys:
        try:
            read = jwt.PyJWS().decode_complete(token, key, algorithms=["ES256"])
        except jwt.InvalidTokenError as error:
            why = str(error)
            continue
        if read["header"].get("typ") != RELEASE_TYPE:
            return Fail(BAD_SIGNATURE, "signed as something else than a release")
        return _statement(read["payload"])
    return Fail(BAD_SIGNATURE, why)


def _parts(document: object) -> tuple[str, str] | Fail:
    if not isinstance(document, dict) or document.get("operation") != OPERATION:
        return Fail(BAD_DOCUMENT, f"operation is not {OPERATION}")
    token, url = document.get("release"), document.get("url")
    if not isinstance(token, str) or not isinstance(url, str):
        return Fail(BAD_DOCUMENT, "release or url missing")
    if not may_fetch(url):
        return Fail(BAD_DOCUMENT, "url is not https")
    return token, url


def may_fetch(url: str) -> bool:
    """HTTPS everywhere; plain HTTP on the loopback interface only, which is where the sandbox's S3
    is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _loopback(host)))


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _statement(payload: bytes) -> Statement | Fail:
    try:
        statement = decode_text(Statement, payload)
        Version(statement.version)
        Version(statement.minimum_version or statement.version)
    except DecodeError as error:
        return Fail(BAD_STATEMENT, error.mistakes[0])
    except ValueError as error:
        return Fail(BAD_STATEMENT, str(error))
    if (
        not SHA256_HEX.fullmatch(statement.sha256)
        or statement.size < 1
        or not 1 <= statement.sequence < 2**63
    ):
        return Fail(BAD_STATEMENT, "sha256, size or sequence out of range")
    return statement


def _by_version(statement: Statement, url: str, memory: Running) -> Verdict:
    if (statement.version, statement.sha256) == (memory.version, memory.sha256):
        return AlreadyThere(statement)
    if statement.sequence < memory.sequence:
        return Reject(STALE_SEQUENCE, f"{statement.sequence}, accepted was {memory.sequence}")
    running = Version(memory.version)
    if statement.minimum_version is not None and running < Version(statement.minimum_version):
        return Reject(
            BELOW_MINIMUM,
            f"installs over {statement.minimum_version} or newer, running is {running}",
        )
    if running > Version(statement.version) and not statement.downgrade:
        return Reject(NEWER_RUNNING, f"{statement.version} offered, running is {running}")
    return Accept(statement, url)
