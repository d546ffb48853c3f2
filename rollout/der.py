"""The public key in an X.509 certificate, without a library, for Lambda has none.

Reads DER (ITU-T X.690) strictly: whatever has two readings is refused. Nothing is verified: AWS IoT
made the certificate, and says which one it is.
"""

from __future__ import annotations

import base64
import hashlib
import re

MAX_PEM = 16_384
"""Characters of a certificate that are read: AWS IoT's own have some 1,200."""
PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n-----END CERTIFICATE-----\s*"
)

INTEGER, BIT_STRING, SEQUENCE, VERSION_TAG = 0x02, 0x03, 0x30, 0xA0


class DerError(ValueError):
    """The text is no certificate in PEM, or its DER is not strict."""


def public_key_digest(pem: str) -> str:
    """SHA-256, hexadecimal, of the certificate's SubjectPublicKeyInfo (RFC 5280, 4.1): the same for
    every certificate of one key. Raises DerError."""
    match = PEM.fullmatch(pem) if len(pem) <= MAX_PEM else None
    if match is None:
        raise DerError("it is not one certificate in PEM")
    try:
        data = base64.b64decode(re.sub(r"[\r\n]", "", match[1]), validate=True)
    except ValueError as error:
        raise DerError("its base64 is wrong") from error
    whole = DerReader(data)
    certificate = whole.enter(SEQUENCE)
    whole.end()
    signed = certificate.enter(SEQUENCE)
    certificate.enter(SEQUENCE)  # the algorithm of the signature
    certificate.enter(BIT_STRING)
    certificate.end()
    if signed.next_tag() == VERSION_TAG:
        signed.enter(VERSION_TAG)
    signed.enter(INTEGER)  # the serial number
    for _ in ("algorithm", "issuer", "validity", "subject"):
        signed.enter(SEQUENCE)
    start = signed.at
    key = signed.enter(SEQUENCE)
    key.enter(SEQUENCE)
    key.enter(BIT_STRING)
    key.end()
    return hashlib.sha256(data[start : signed.at]).hexdigest()


class DerReader:
    """The elements within one part of some DER, one after the other."""

    def __init__(self, data: bytes, at: int = 0, stop: int | None = None) -> None:
        self._data, self.at = data, at
        self._stop = len(data) if stop is None else stop

    def next_tag(self) -> int | None:
        """The tag of the next element; None after the last."""
        return self._data[self.at] if self.at < self._stop else None

    def enter(self, tag: int) -> DerReader:
        """What is in the next element, which must have this tag; it is passed over. Raises
        DerError."""
        if self.next_tag() != tag:
            raise DerError(f"there is no element {tag:#04x} at byte {self.at}")
        start, size = self._size(self.at + 1)
        if size > self._stop - start:
            raise DerError(f"the element at byte {self.at} is longer than what it is in")
        self.at = start + size
        return DerReader(self._data, start, self.at)

    def end(self) -> None:
        """Raises DerError where there are more elements."""
        if self.at != self._stop:
            raise DerError(f"something follows at byte {self.at}")

    def _size(self, at: int) -> tuple[int, int]:
        """Where an element's content begins, and its bytes; `at` is its length."""
        if at >= self._stop:
            raise DerError("it ends within an element")
        first = self._data[at]
        if first < 0x80:
            return at + 1, first
        digits = self._data[at + 1 : min(at + 1 + (first & 0x7F), self._stop)]
        size = int.from_bytes(digits, "big")
        # in its shortest form, and definite
        if len(digits) != first & 0x7F or not 1 <= len(digits) <= 3 or not digits[0] or size < 0x80:
            raise DerError(f"the length at byte {at} is not DER")
        return at + 1 + len(digits), size
