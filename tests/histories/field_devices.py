"""Devices as the device contract has them: they check signature, job, sequence and digest, and some
of them are bad, slow, offline, or dead."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from rollout.jws import b64url_decode, der_signature
from rollout.version import Version
from tests.histories.nasty_aws import KEYS
from tests.histories.nasty_iot import IotExecution, NastyIot

HARDWARE = "gateway-a1"
CHANNEL = "stable"


@dataclass(frozen=True, kw_only=True)
class Ailment:
    """What is wrong with an image: `kind` of trouble on `share` of the devices."""

    kind: str
    """`bad`: its self-test fails and the old image boots. `brick`: it never answers again.
    `silent`: it installs, and does harm that only an alarm sees."""
    share: float
    only: frozenset[str] | None = None
    """The devices that it can strike; None means all."""

    def strikes(self, device: str, digest: str) -> bool:
        if self.only is not None and device not in self.only:
            return False
        drawn = int.from_bytes(hashlib.sha256(f"{device}{digest}".encode()).digest()[:4], "big")
        return drawn < self.share * 2**32


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a device is doing: one execution of one job."""

    job: str
    execution: IotExecution
    claims: Mapping[str, Any]
    url: str
    ends_at: float


@dataclass(eq=False)
class FieldDevice:
    name: str
    serial: str
    version: str
    digest: str
    sequence: int = 0
    hardware: str = HARDWARE
    is_online: bool = True
    is_bricked: bool = False
    seconds: float = 90.0
    """How long an installation takes."""
    errand: Errand | None = None

    def act(self, iot: NastyIot, ailments: Mapping[str, Ailment]) -> None:
        """Everything that it can do by now."""
        if not self.is_online or self.is_bricked or self.name not in iot.things:
            return
        while True:
            if self.errand is None:
                self._take(iot)
                if self.errand is None:
                    return
            if iot.now < self.errand.ends_at:
                return
            errand, self.errand = self.errand, None
            end = self._install(iot, errand, ailments)
            if end is None:
                return
            iot.report(errand.job, errand.execution, end)

    def _take(self, iot: NastyIot) -> None:
        while found := iot.start_next(self.name):
            job, execution = found
            end, claims, url = self.judge(job.id, job.document)
            if end is None:
                self.sequence = claims["sequence"]
                ends_at = iot.now + self.seconds
                self.errand = Errand(
                    job=job.id, execution=execution, claims=claims, url=url, ends_at=ends_at
                )
                return
            iot.report(job.id, execution, end)

    def judge(self, job: str, document: str) -> tuple[str | None, Mapping[str, Any], str]:
        """How the execution ends at once, or None where it is accepted: the rules in order."""
        try:
            read = json.loads(document)
            operation, token, url = read["operation"], read["release"], read["url"]
        except (ValueError, KeyError, TypeError):
            return "FAILED", {}, ""
        claims = verified_claims(token) if operation == "install-firmware" else None
        if claims is None or claims["channel"] != CHANNEL or claims.get("job", job) != job:
            return "FAILED", {}, ""
        offered, running = Version(claims["version"]), Version(self.version)
        if claims["hardware"] != self.hardware:
            return "REJECTED", claims, url
        if (claims["version"], claims["sha256"]) == (self.version, self.digest):
            self.sequence = max(self.sequence, claims["sequence"])
            return "SUCCEEDED", claims, url
        if claims["sequence"] < self.sequence:
            return "REJECTED", claims, url
        if claims.get("minimumVersion") and running < Version(claims["minimumVersion"]):
            return "REJECTED", claims, url
        if running > offered and not claims.get("downgrade"):
            return "REJECTED", claims, url
        return None, claims, url

    def _install(
        self, iot: NastyIot, errand: Errand, ailments: Mapping[str, Ailment]
    ) -> str | None:
        """The end that it reports; None where it never answers again."""
        image = fetch(iot, errand.url)
        digest = errand.claims["sha256"]
        if image is None or hashlib.sha256(image).hexdigest() != digest:
            return "FAILED"
        ailment = ailments.get(digest)
        if ailment and ailment.strikes(self.name, digest):
            if ailment.kind == "bad":
                return "FAILED"
            if ailment.kind == "brick":
                self.is_bricked = True
                return None
        self.version, self.digest = errand.claims["version"], digest
        return "SUCCEEDED"

    def repair(self) -> None:
        """A technician was there: it boots what it ran before."""
        self.is_bricked, self.is_online, self.errand = False, True, None


@lru_cache(maxsize=4096)
def verified_claims(token: str) -> Mapping[str, Any] | None:
    """The statement in a compact JWS that one of the channel's keys signed; None for any other."""
    try:
        head, body, signature = token.split(".")
        header = json.loads(b64url_decode(head))
        if (header["alg"], header["typ"]) != ("ES256", "iotota-release+jws"):
            return None
        raw = der_signature(b64url_decode(signature))
        claims = json.loads(b64url_decode(body))
    except (ValueError, KeyError, TypeError):
        return None
    for key in KEYS.values():
        try:
            key.public_key().verify(raw, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return claims if isinstance(claims, dict) else None
    return None


def fetch(iot: NastyIot, url: str) -> bytes | None:
    """What S3 gives for the placeholder in a document: the version that it names, else the
    newest."""
    match = re.fullmatch(r"\$\{aws:iot:s3-presigned-url-v2:(https://[^}]+)\}", url)
    if match is None:
        return None
    parts = urlsplit(match[1])
    key, _, query = unquote(parts.path).removeprefix("/").partition("?")
    query = query or parts.query
    version = query.removeprefix("versionId=") if query else None
    found = iot.get(key, version)
    return found.body if found else None
