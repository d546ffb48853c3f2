"""What a device is given: a release statement, signed with the channel's key, in a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rollout.codec import decode_text
from rollout.jws import b64url_decode
from rollout.release import Firmware
from rollout.version import Version

OPERATION = "install-firmware"
CONTRACT = 1
"""The version of docs/device-contract.md that statements are written in, and that the reference
device speaks. It rises only when a device that knows the version before would misread a statement;
a key that such a device may ignore leaves it as it is, one that it must obey goes into `crit`."""
MAX_DOCUMENT = 32_768
"""Characters in a job document (CreateJob)."""
MAX_REFUSES = 100
"""Digests in a statement's `refuses`: 9 KB of the document's 32 KB."""


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """What the signature covers: the release, as the device must check it."""

    contract: int
    """The lowest version of the contract that a device must speak to read this statement."""
    job: str
    """Id of the job that this document belongs to; in any other a device installs nothing."""
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
    crit: tuple[str, ...] = ()
    """Names of keys of this statement that a device must understand, as `crit` of RFC 7515, 4.1.11:
    one that does not answers REJECTED. Other keys that it does not know it ignores."""
    refuses: tuple[str, ...] = ()
    """SHA-256 of images that this way back takes back; for whoever has lost the controller's
    state. Devices ignore it."""


def release_statement(
    channel: str,
    firmware: Firmware,
    sequence: int,
    *,
    downgrade: bool,
    job: str,
    refuses: Sequence[str] = (),
) -> ReleaseStatement:
    """The statement of one offer. Of `refuses` it takes the first MAX_REFUSES, so that a way back
    always fits in its document."""
    return ReleaseStatement(
        contract=CONTRACT,
        job=job,
        channel=channel,
        hardware=firmware.hardware,
        version=firmware.version,
        sha256=firmware.sha256,
        size=firmware.size,
        sequence=sequence,
        minimum_version=firmware.minimum_version,
        downgrade=downgrade,
        refuses=tuple(refuses[:MAX_REFUSES]),
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


def artifact_url(
    bucket: str, region: str, dns_suffix: str, key: str, version: str | None = None
) -> str:
    """Virtual-hosted address of an object, or of one of its versions, as the s3-presigned-url-v2
    placeholder takes it: key and query encoded (`…/key%3FversionId%3D…`).

    See https://docs.aws.amazon.com/iot/latest/developerguide/create-manage-jobs.html
    """
    query = f"?versionId={version}" if version else ""
    return f"https://{bucket}.s3.{region}.{dns_suffix}/{quote(key + query, safe='/')}"


def parse_statement(token: str) -> ReleaseStatement:
    """The statement inside a compact JWS. It verifies nothing: the caller must, before it uses
    a word. Raises ValueError when there is no statement in it."""
    _, _, rest = token.partition(".")
    return decode_text(ReleaseStatement, b64url_decode(rest.partition(".")[0]))
