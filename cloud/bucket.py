"""The channel's bucket: objects, and replacing one only where nobody else did."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, error_code, is_missing
from rollout.release import Firmware

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
    """An object's bytes, its ETag, and when it was written (seconds since 1970)."""

    body: bytes
    etag: str
    modified_at: float


class Bucket:
    def __init__(self, clients: Clients, name: str) -> None:
        self.name, self._clients = name, clients

    def get(self, key: str) -> StoredObject | None:
        """The object; None where there is none (the caller may list the bucket, so AWS says 404,
        not 403)."""
        try:
            answer = self._clients.s3.get_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return StoredObject(
            body=answer["Body"].read(),
            etag=answer["ETag"],
            modified_at=answer["LastModified"].timestamp(),
        )

    def replace(self, key: str, text: str, etag: str | None) -> None:
        """Writes JSON text in place of the object with this ETag; with None, where there is none.

        Raises Overtaken where the bucket holds something else by now.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            self._clients.s3.put_object(
                Bucket=self.name,
                Key=key,
                Body=text.encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error_code(error) in CONDITION_FAILED:
                raise Overtaken(key) from error
            raise

    def image_problem(self, firmware: Firmware) -> str | None:
        """Why the image cannot be installed; None where it lies there with the size and SHA-256
        that the release promises (S3 keeps the checksum of the object)."""
        place = f"s3://{self.name}/{firmware.key}"
        try:
            head: dict[str, Any] = self._clients.s3.head_object(
                Bucket=self.name, Key=firmware.key, ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if is_missing(error):
                return f"the image {place} is missing"
            raise
        checksum = head.get("ChecksumSHA256")
        if head["ContentLength"] != firmware.size:
            return f"the image {place} has {head['ContentLength']} bytes, not {firmware.size}"
        if checksum is None or head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
            return f"the image {place} was stored without a SHA-256 of the whole object"
        if base64.b64decode(checksum).hex() != firmware.sha256:
            return f"the image {place} has another SHA-256 than the release"
        return None
