"""What a device is given: a release statement, signed with the channel's key, in a document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

from rollout.codec import decode_text
from rollout.jws import b64url_decode
from rollout.release import Firmware
from rollout.version import Version

OPERATION = "install-firmware"
MAX_DOCUMENT = 32_768
"""Characters in a job document (CreateJob)."""


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """What the signature covers: the release, as the device must check it."""

    channel: str
    hardware: str
    version: Version
    sha256: str
    size: int
    sequence: int
    """Higher than every earlier offer's of the channel; a device refuses one lower than the highest
    it accepted."""
    minimum_version: Version | None = None
    downgrade: bool = False
    """Whether a device that runs a newer version is to install this one: rollbacks and allowed
    downgrades."""


def release_statement(
    channel: str, firmware: Firmware, sequence: int, *, downgrade: bool
) -> ReleaseStatement:
    return ReleaseStatement(
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


def parse_statement(token: str) -> ReleaseStatement:
    """The statement inside a compact JWS. It verifies nothing: the caller must, before it uses
    a word."""
    return decode_text(ReleaseStatement, b64url_decode(token.split(".")[1]))
