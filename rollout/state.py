"""What the controller remembers (`state.json`) and what people tell it (`control.json`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rollout.release import Firmware, Manifest
from rollout.version import Version

KEPT_DECISIONS = 10


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One job: a firmware offered to a ring under a sequence number.

    `seen` says that the job has been observed to exist. A job that is missing is created while it
    was never seen; once seen, a job that is missing or cancelled was ended by somebody else.
    """

    sequence: int
    firmware: Firmware
    downgrade: bool = False
    seen: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the candidate has come in one ring. Times are seconds since 1970."""

    offer: Offer
    started_at: float
    healthy_since: float | None = None
    """Since when coverage, minimumSucceeded and success hold without a break: the soak runs from
    here."""
    passed_at: float | None = None
    withdrawn: bool = False
    """Whether the controller cancelled the job for a halt; it is offered anew, with a new sequence,
    after `resume`."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The release being proved: the manifest that asked for it, and the rings that have started."""

    manifest: Manifest
    downgrade: bool
    rings: dict[str, Progress] = field(default_factory=dict)

    @property
    def firmware(self) -> Firmware:
        return self.manifest.firmware


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Bringing exposed devices back to the last good release through a group of their own."""

    offer: Offer
    failed: str
    """The version that failed, or was taken back."""
    reason: str
    exposing_jobs: tuple[str, ...]
    """The jobs whose devices were exposed."""
    started_at: float
    done_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Halt:
    """A stop that only a person's `resume`, naming its id, ends."""

    id: str
    why: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What the channel waits for, in words, and until when (seconds since 1970) where that is
    known."""

    kind: Literal[
        "nothing",
        "coverage",
        "success",
        "minimum-succeeded",
        "soak",
        "alarms",
        "approval",
        "deadline",
        "paused",
        "halted",
        "window",
        "refused",
        "image",
        "rollback",
        "rollback-failed",
        "settling",
    ]
    text: str
    ring: str | None = None
    until: float | None = None


NEEDS_A_PERSON = frozenset(
    {"approval", "paused", "halted", "refused", "image", "deadline", "rollback-failed"}
)
"""Kinds of waiting that end only when a person acts."""


EventType = Literal[
    "started",
    "passed",
    "last-good",
    "failed",
    "rollback",
    "rolled-back",
    "halted",
    "resumed",
    "superseded",
    "retried",
    "recovered",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One decision: what was done, to which ring, and why."""

    at: float
    what: EventType
    why: str
    ring: str | None = None
    version: Version | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """`state.json`. Only the controller writes it, signed with the channel's key."""

    schema: Literal[1] = 1
    sequence: int = 0
    """The highest sequence number given to any offer of the channel."""
    last_good: Firmware | None = None
    previous_good: Firmware | None = None
    """What was last good before; a manifest that names it again is a `git revert` and needs no
    allowDowngrade."""
    candidate: Candidate | None = None
    stable: dict[str, Offer] = field(default_factory=dict)
    """By ring: the job that gives the ring's devices, later joiners too, what the ring has
    proved."""
    exposing_jobs: tuple[str, ...] = ()
    """Jobs, other than the candidate's own, whose devices run firmware that was never proved."""
    rollback: Rollback | None = None
    halt: Halt | None = None
    halts: int = 0
    """How many there have been: each has an id of its own, so that a `resume` ends the one it was
    meant for."""
    refused: dict[str, str] = field(default_factory=dict)
    """Digests that are never offered again, with the reason."""
    versions: dict[Version, str] = field(default_factory=dict)
    """The digest of every version ever offered: a version keeps its digest for ever."""
    waiting: Waiting = Waiting(kind="nothing", text="no release yet")
    decisions: tuple[Event, ...] = ()
