"""What a fleet and its channel have in common: environment, protection, log retention, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components import limits
from components import tags as tagging
from components.checks import Section, boolean
from rollout.codec import show_value


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    environment: str
    protect: bool
    log_retention_days: int
    tags: Mapping[str, str]
    """Beside the program's own."""


COMMON_KEYS = ("environment", "protect", "logRetentionDays", "tags")


def read_common(section: Section) -> CommonSettings:
    return CommonSettings(
        environment=section.require("environment", limits.ENVIRONMENT),
        protect=section.read("protect", boolean(True), True),
        log_retention_days=section.read("logRetentionDays", limits.RETENTION, 30),
        tags=_read_tags(section),
    )


def _read_tags(section: Section) -> dict[str, str]:
    tags = section.subsection("tags")
    own = ", ".join(tagging.OWN_TAGS)
    if len(tags.data) > limits.MAX_EXTRA_TAGS:
        total = f"an S3 object takes {tagging.MAX_TAGS} (PutObjectTagging)"
        allowed = f"at most {limits.MAX_EXTRA_TAGS}: {total} and {own} are added"
        section.add_mistake("tags", allowed, "remove some", f"{len(tags.data)} tags")
    taken = {key.lower(): key for key in tagging.OWN_TAGS}
    for key in tags.data:
        other = taken.setdefault(key.lower(), key)
        if other != key or key in tagging.OWN_TAGS:
            allowed = f"{other} is there already: to IAM upper and lower case are one key (TagRole)"
            tags.add_mistake(key, allowed, f"remove or rename {show_value(key)}")
    return tags.read_map(limits.TAG_KEY, limits.TAG_VALUE)


def find_inside(root: Path, name: str) -> Path | None:
    """The path of a file inside `root`; None where the name leads out of it or is no file's."""
    try:
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return path if path.is_relative_to(root.resolve()) else None
