"""The firmware's settings: which version, and where its image is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from components import limits
from components.checks import Section
from components.settings.common import find_inside
from rollout.release import Firmware


@dataclass(frozen=True)
class FileImage:
    """An image that is a file of the repository."""

    path: Path


@dataclass(frozen=True)
class S3Image:
    """An image that is an object in S3: real ones are not in git."""

    source: str
    """`bucket/key`, as CopyObject's CopySource takes it."""


Image = FileImage | S3Image


@dataclass(frozen=True, kw_only=True)
class AdoptedImage:
    """What the fleet's devices ran before the channel's first release, and where it is."""

    firmware: Firmware
    image: Image


def read_firmware(firmware: Section, hardware: str, root: Path) -> tuple[Firmware, Image]:
    """`root` is the folder that an image's path is relative to."""
    digest, size, image = _read_image(firmware, root)
    own = {"sha256": digest, "size": size, "hardware": hardware}
    made = firmware.read_record(Firmware, limits.FIRMWARE, **own)
    are_right = firmware.has_no_mistakes_at("version", "minimumVersion")
    if are_right and made.minimum_version and made.minimum_version > made.version:
        allowed = f"must not be above version {made.version}: nothing could install it"
        firmware.add_mistake("minimumVersion", allowed, "lower it or leave it out")
    return made, image


def read_adopted(fleet: Section, released: Firmware, root: Path) -> AdoptedImage | None:
    """The way back of the channel's first release, where the settings of the fleet name one.
    `released` is what the stack file releases, on the same hardware."""
    if fleet.get("adopted") is None:
        return None
    example = f'{{version: "1.4.2", image: firmware/1.4.2.bin, sha256: "{"0" * 64}"}}'
    adopted = fleet.subsection("adopted", example)
    version = adopted.require("version", limits.VERSION)
    digest, size, image = _read_image(adopted, root)
    adopted.refuse_unknown_keys()
    is_right = adopted.has_no_mistakes_at("version", "sha256", "image")
    if is_right and version == released.version and digest != released.sha256:
        allowed = "is the version that is released, with another image: a version keeps its digest"
        fix = "write the version that devices run, or release a newer one"
        adopted.add_mistake("version", allowed, fix)
    made = Firmware(version=version, sha256=digest, size=size, hardware=released.hardware)
    return AdoptedImage(firmware=made, image=image)


def _read_image(firmware: Section, root: Path) -> tuple[str, int, Image]:
    """Digest, size and place of the image that a section names."""
    name = firmware.require("image", limits.IMAGE)
    if match := limits.S3_IMAGE.fullmatch(name):
        # only the configuration knows them before the preview
        digest = firmware.require("sha256", limits.DIGEST)
        return digest, firmware.require("size", limits.SIZE), S3Image(match.group(1))
    digest, size = _read_file(firmware, name, root)
    return digest, size, FileImage(find_inside(root, name) or root)


def _read_file(firmware: Section, name: str, root: Path) -> tuple[str, int]:
    """Digest and size of an image that is a file of the repository."""
    if firmware.get("size") is not None:
        allowed = "is for s3:// images only: a file has its own size"
        firmware.add_mistake("size", allowed, "remove size")
    measured = _measure(firmware, name, root) if firmware.has_no_mistakes_at("image") else None
    if measured is None:
        return firmware.require("sha256", limits.DIGEST), 1
    actual, size = measured
    digest = firmware.require("sha256", limits.DIGEST.with_example(actual))
    if digest != actual:
        allowed = f"is not the SHA-256 of {name}, which is {actual}"
        firmware.add_mistake("sha256", allowed, f'write sha256: "{actual}"')
    return digest, size


def _measure(firmware: Section, name: str, root: Path) -> tuple[str, int] | None:
    path = find_inside(root, name)
    if path is None:
        allowed = "must be inside the repository: what is released is what was reviewed"
        firmware.add_mistake("image", allowed, "copy it into firmware/")
        return None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (OSError, ValueError):
        fix = "put the image there, or write image: s3://bucket/key with its size"
        firmware.add_mistake("image", "there is no such file", fix)
        return None
    if size == 0:
        allowed = "has 0 bytes; a device cannot install nothing"
        firmware.add_mistake("image", allowed, "build the image again")
    if size > limits.MAX_FILE:
        larger = "larger ones are stored in parts, without a SHA-256"
        allowed = f"has {size} bytes; a file may have {limits.MAX_FILE} ({larger})"
        fix = "put it into a bucket, and write image: s3://bucket/key with its size"
        firmware.add_mistake("image", allowed, fix)
    return digest, size
