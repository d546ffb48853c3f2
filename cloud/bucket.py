"""The channel's bucket: objects, and replacing one only where nobody else did."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, error_code, is_missing
from rollout.release import Firmware
from rollout.trust import UNVERSIONED, Place

CONDITION_FAILED = frozenset(
    {
        "PreconditionFailed",
        "ConditionalRequestConflict",
        "NoSuchKey",
        "412",
        "409",
    }
)


class Overtaken(Exception):
    """Somebody else wrote the object since it was read; the write was not made."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object's first bytes, where it lies, and when it was written (seconds since 1970)."""

    body: bytes
    """All of it; of one that is larger than was asked for, a byte more than that."""
    place: Place
    modified_at: float


@dataclass(frozen=True, kw_only=True)
class ImageCheck:
    """What HeadObject says of an image."""

    problem: str | None
    """Why it cannot be installed."""
    version: str | None = None
    """The version of the S3 object that was looked at: a job that names it gives this very image,
    whatever is put under the key later. None where the image is missing, or the bucket keeps no
    versions."""


class Bucket:
    def __init__(self, clients: Clients, name: str) -> None:
        self.name, self._clients = name, clients

    def get(self, key: str, most: int, version: str | None = None) -> StoredObject | None:
        """The object, or one of its versions, of which `most` bytes and one are read: who parses
        it refuses more. None where there is none (the caller may list the bucket, so AWS says 404,
        not 403)."""
        which = {"VersionId": version} if version else {}
        try:
            answer = self._clients.s3.get_object(Bucket=self.name, Key=key, **which)
        except ClientError as error:
            # S3 answers so to the version of a delete marker
            if is_missing(error) or error_code(error) == "MethodNotAllowed":
                return None
            raise
        with closing(answer["Body"]) as stream:
            body = stream.read(most + 1)
        return StoredObject(
            body=body,
            place=Place(etag=answer["ETag"], version=answer.get("VersionId", UNVERSIONED)),
            modified_at=answer["LastModified"].timestamp(),
        )

    def versions(self, key: str, most: int) -> list[str]:
        """The newest `most` (1 to 1000) versions of the object, the current one first, which may
        be a delete marker. Needs s3:ListBucketVersions."""
        answer = self._clients.s3.list_object_versions(Bucket=self.name, Prefix=key, MaxKeys=most)
        found = [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]
        # a listing has whole seconds: of one second, the current one comes first by its mark
        found.sort(key=lambda one: (one["IsLatest"], one["LastModified"]), reverse=True)
        return [str(one["VersionId"]) for one in found if one["Key"] == key]

    def replace(self, key: str, content: str | bytes, etag: str | None) -> Place:
        """Writes JSON text, or gzip's bytes, in place of the object with this ETag; with None,
        where there is none. Returns where it lies now.

        Raises Overtaken where the bucket holds something else by now.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        kind = "application/json" if isinstance(content, str) else "application/gzip"
        try:
            answer = self._clients.s3.put_object(
                Bucket=self.name,
                Key=key,
                Body=content.encode() if isinstance(content, str) else content,
                ContentType=kind,
                **condition,
            )
        except ClientError as error:
            if error_code(error) in CONDITION_FAILED:
                raise Overtaken(key) from error
            raise
        return Place(etag=str(answer["ETag"]), version=answer.get("VersionId", UNVERSIONED))

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins so, in their order; a call for each thousand."""
        more: dict[str, str] = {}
        while True:
            page = self._clients.s3.list_objects_v2(Bucket=self.name, Prefix=prefix, **more)
            yield from (str(item["Key"]) for item in page.get("Contents", ()))
            if not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def remove(self, key: str, etag: str) -> None:
        """Raises Overtaken where the bucket holds something else by now."""
        try:
            self._clients.s3.delete_object(Bucket=self.name, Key=key, IfMatch=etag)
        except ClientError as error:
            if error_code(error) in CONDITION_FAILED:
                raise Overtaken(key) from error
            raise

    def check_image(self, firmware: Firmware, version: str | None = None) -> ImageCheck:
        """Whether the image can be installed: it lies there, or did as this version, with the size
        and SHA-256 that the release promises (S3 keeps the checksum of the object)."""
        which = {"VersionId": version} if version else {}
        place = f"s3://{self.name}/{firmware.key}" + (f" (version {version})" if version else "")
        try:
            head: dict[str, Any] = self._clients.s3.head_object(
                Bucket=self.name, Key=firmware.key, ChecksumMode="ENABLED", **which
            )
        except ClientError as error:
            if is_missing(error):
                return ImageCheck(problem=f"the image {place} is missing")
            raise
        found = head.get("VersionId", UNVERSIONED)
        problem = _find_difference(firmware, head)
        return ImageCheck(
            problem=f"the image {place} {problem}" if problem else None,
            version=None if found == UNVERSIONED else found,
        )


def _find_difference(firmware: Firmware, head: dict[str, Any]) -> str | None:
    """What is wrong with an object (HeadObject) that is to be this firmware's image."""
    checksum = head.get("ChecksumSHA256")
    if head["ContentLength"] != firmware.size:
        return f"has {head['ContentLength']} bytes, not {firmware.size}"
    if checksum is None or head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return "was stored without a SHA-256 of the whole object"
    if base64.b64decode(checksum).hex() != firmware.sha256:
        return "has another SHA-256 than the release"
    return None
