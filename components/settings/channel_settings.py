"""The channel's settings: what it releases, its signing keys, whom it notifies."""

from __future__ import annotations

from dataclasses import dataclass

from components import limits
from components.checks import Section, boolean
from components.settings.firmware import AdoptedImage, Image
from rollout.release import Manifest

CHANNEL_KEYS = ("tlsOnly", "signingKeys", "notifications")
"""Those at the top of a stack file."""


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    manifest: Manifest
    image: Image
    adopted: AdoptedImage | None
    tls_only: bool
    """Whether bucket, queue and topic refuse requests without TLS."""
    signing_keys: tuple[str, ...]
    """Names of the signing keys: the first signs, devices and controller still trust the others."""
    notifications: tuple[str, ...]
    """E-mail addresses."""


def read_channel(
    top: Section,
    environment: str,
    manifest: Manifest,
    image: Image,
    adopted: AdoptedImage | None,
) -> ChannelSettings:
    tls_only = top.read("tlsOnly", boolean(True), True)
    if not tls_only and environment != "dev":
        allowed = "must be true except in environment dev, for a local AWS that has no TLS"
        top.add_mistake("tlsOnly", allowed, "write tlsOnly: true")
    allowed, example = "must be a list of e-mail addresses", '["ops@example.com"]'
    addresses = top.read_list("notifications", limits.EMAIL, allowed, example)
    why = "SNS keeps one subscription of it"
    top.refuse_repeated("notifications", addresses, why, "remove one")
    return ChannelSettings(
        manifest=manifest,
        image=image,
        adopted=adopted,
        tls_only=tls_only,
        signing_keys=_read_signing_keys(top),
        notifications=addresses,
    )


def _read_signing_keys(top: Section) -> tuple[str, ...]:
    fix = 'signingKeys: ["1"]; for a rotation ["1", "2"], then ["2", "1"], then ["2"]'
    allowed = "must be a list of the signing keys' names, the one that signs first"
    names = top.read_list("signingKeys", limits.SIGNING_KEY, allowed, fix) or ("1",)
    if len(set(names)) != len(names) or len(names) > limits.MAX_SIGNING_KEYS:
        count = f"one to {limits.MAX_SIGNING_KEYS} different names"
        allowed = f"must be {count}: devices and controller hold each of them"
        top.add_mistake("signingKeys", allowed, f"write {fix}")
    return names
