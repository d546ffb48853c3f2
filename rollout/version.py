"""Semantic versions (semver.org): parsed once, at the edge, and compared as versions after that."""

from __future__ import annotations

import re

SEMVER = re.compile(  # semver.org, with the leading v that many teams write
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)


class Version:
    """A semantic version. A leading `v` is taken off; the rest of the text is kept as it stands.

    `<` and `>` compare precedence (semver.org, section 11), which leaves out `+build`; `==`
    compares the text: `1.0.0+a` and `1.0.0+b` are two versions, and neither is above the other.

    >>> Version("v2.10.0") > Version("2.9.0-rc.1")
    True
    """

    __slots__ = ("_precedence", "_text")

    def __init__(self, text: str) -> None:
        """Raises ValueError when the text is not a semantic version."""
        match = SEMVER.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a semantic version such as 2.1.0 or 2.1.0-rc.1")
        self._text = text.removeprefix("v")
        core = tuple(int(part) for part in match.group(1, 2, 3))
        before = match.group(4)
        # a release comes after its pre-releases; numbers come before words
        parts = before.split(".") if before else []
        rest = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)
        self._precedence = (core, before is None, rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __lt__(self, other: Version) -> bool:
        return self._precedence < other._precedence

    def __gt__(self, other: Version) -> bool:
        return self._precedence > other._precedence

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Version({self._text!r})"
