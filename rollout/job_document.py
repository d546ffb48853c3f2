"""What a device is given: a release statement, signed with the channel's key, in a document."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from rollout.codec import decode_text
from rollout.document_extra import IMAGE_SIGNATURE, fill_extra
from rollout.jws import RELEASE_TYPE, b64url_decode, compact_jws, signing_input
from rollout.names import LAST_SECOND
from rollout.release import Firmware
from rollout.version import Version

OPERATION = "install-firmware"
CONTRACT = 1
"""The version of docs/device-contract.md that statements are written in, and that the reference
device speaks. It rises only when a device that knows the version before would misread a statement;
a key that such a device may ignore leaves it as it is, one that it must obey goes into `crit`."""
MAX_DOCUMENT = 32_768
"""Characters in a job document (CreateJob)."""
SUBSTITUTED = "${aws:iot:"
"""What every text begins with that IoT Jobs replaces."""
PRESIGNED = f"{SUBSTITUTED}s3-presigned-url-v2:"
"""What an address begins with that IoT Jobs replaces by a presigned one each time that a device
asks for the document."""
LONGEST_VERSION = 64
"""Characters of a version: a document is reckoned with so many, and a stack file takes no more. Our
own number."""
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


def job_document(
    jws: str,
    url: str,
    firmware: Firmware | None = None,
    extra: Mapping[str, Any] | None = None,
    image_signature: str = "",
) -> str:
    """The document of an IoT job; `url` is the artifact's address, not yet presigned. At most
    32,768 characters. `extra` are keys beside ours (`rollout.document_extra`), filled with what is
    offered."""
    text = _to_text(jws, url, firmware, extra, image_signature)
    if len(text) > MAX_DOCUMENT:
        raise ValueError(f"the job document has {len(text)} characters, IoT takes {MAX_DOCUMENT}")
    return text


def _to_text(
    jws: str,
    url: str,
    firmware: Firmware | None,
    extra: Mapping[str, Any] | None,
    image_signature: str,
) -> str:
    own: dict[str, str | int] = {
        "operation": OPERATION,
        "release": jws,
        "url": f"{PRESIGNED}{url}}}",
    }
    filled = {}
    if firmware and extra:
        values: dict[str, str | int] = {
            "release": jws,
            "url": own["url"],
            "version": str(firmware.version),
            "sha256": firmware.sha256,
            "size": firmware.size,
            IMAGE_SIGNATURE: image_signature,
        }
        filled = fill_extra(extra, values)
    return json.dumps({**filled, **own}, separators=(",", ":"))


def longest_document(
    channel: str, firmware: Firmware, extra: Mapping[str, Any] | None = None
) -> str:
    """A job document as long as any of the channel's can be: a way back's that refuses as much as
    it may, for a version of LONGEST_VERSION characters or this one's, with names and addresses as
    long as AWS has them."""
    version = max(str(firmware.version), "1.0.0-" + "v" * (LONGEST_VERSION - 6), key=len)
    longest = replace(firmware, version=Version(version), size=10**10 - 1)
    refuses = ["f" * 64] * MAX_REFUSES
    job = "j" * 64
    statement = release_statement(
        channel, longest, LAST_SECOND, downgrade=True, job=job, refuses=refuses
    )
    signature = b"\x30\x46" + (b"\x02\x21\x00" + b"\xff" * 32) * 2
    key = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-" + "0" * 32
    jws = compact_jws(signing_input(RELEASE_TYPE, key, statement), signature)
    url = artifact_url("b" * 63, "us-gov-west-1", "amazonaws.com", longest.key, "v" * 1024)
    return _to_text(jws, url, longest, extra, base64.b64encode(signature).decode())


def count_substitutions(document: str) -> int:
    """Texts of a document that IoT Jobs replaces."""
    return document.count(SUBSTITUTED)


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
