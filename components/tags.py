"""The tags of everything that takes tags."""

from __future__ import annotations

from collections.abc import Mapping

OWN_TAGS = ("project", "environment", "fleet")
"""Tag keys that the program sets itself."""

MAX_TAGS = 10
"""What an S3 object takes (PutObjectTagging), the least of all resources; most take 50."""


def tags(environment: str, fleet: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The tags of every taggable resource. Raises ValueError above MAX_TAGS."""
    merged = {**extra, **dict(zip(OWN_TAGS, ("iot-ota", environment, fleet), strict=True))}
    if len(merged) > MAX_TAGS:
        own = f"{len(OWN_TAGS)} of them are the program's"
        raise ValueError(f"{len(merged)} tags: an S3 object takes {MAX_TAGS}, {own}")
    return dict(sorted(merged.items()))
