"""What the controller remembers (`state.json`) and what people tell it (`control.json`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rollout.document import job_id
from rollout.release import Approval, Firmware, Manifest

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
    """Since when coverage, least number and success hold without a break: the soak runs from
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
    exposing: tuple[str, ...]
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
        "least-number",
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


Deed = Literal[
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
    what: Deed
    why: str
    ring: str | None = None
    version: str | None = None


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
    exposing: tuple[str, ...] = ()
    """Jobs, other than the candidate's own, whose devices run firmware that was never proved."""
    rollback: Rollback | None = None
    halt: Halt | None = None
    halts: int = 0
    """How many there have been: each has an id of its own, so that a `resume` ends the one it was
    meant for."""
    refused: dict[str, str] = field(default_factory=dict)
    """Digests that are never offered again, with the reason."""
    versions: dict[str, str] = field(default_factory=dict)
    """The digest of every version ever offered: a version keeps its digest for ever."""
    waiting: Waiting = Waiting(kind="nothing", text="no release yet")
    decisions: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Order:
    """A person's word: who, when (seconds since 1970) and why."""

    by: str
    at: float
    why: str


@dataclass(frozen=True, kw_only=True)
class ApprovalOrder:
    ring: str
    sha256: str
    order: Order


@dataclass(frozen=True, kw_only=True)
class ResumeOrder:
    halt: str
    """The id of the halt that it ends."""
    order: Order


@dataclass(frozen=True, kw_only=True)
class RetryOrder:
    ring: str
    """A ring's name, or `rollback`."""
    sequence: int
    """The sequence of the offer to be made anew; an order for an earlier one is spent."""
    order: Order


@dataclass(frozen=True, kw_only=True)
class RollbackOrder:
    sha256: str
    """The digest to be rolled back and refused from then on."""
    order: Order


@dataclass(frozen=True, kw_only=True)
class Control:
    """`control.json`, written by `python -m ops` in an emergency."""

    schema: Literal[1] = 1
    paused: Order | None = None
    halted: Order | None = None
    approvals: tuple[ApprovalOrder, ...] = ()
    resume: ResumeOrder | None = None
    retry: RetryOrder | None = None
    rollback: RollbackOrder | None = None


@dataclass(frozen=True, kw_only=True)
class Names:
    """What job ids are made of."""

    suffix: str
    channel: str

    def job(self, ring: str, sequence: int) -> str:
        return job_id(self.suffix, self.channel, ring, sequence)

    @property
    def prefix(self) -> str:
        return f"{self.suffix}-{self.channel}-"

    def sequence(self, job: str) -> int | None:
        """The sequence in one of this channel's job ids; None for any other job."""
        tail = job.removeprefix(self.prefix).rsplit("-", 1)
        return (
            int(tail[1])
            if job.startswith(self.prefix) and len(tail) == 2 and tail[1].isdigit()
            else None
        )


def approved(manifest: Manifest, control: Control, ring: str) -> bool:
    """Whether a person approved, in the stack file or in control.json, that `ring` has proved this
    very image."""
    wanted = Approval(ring=ring, sha256=manifest.firmware.sha256)
    given = (
        *manifest.approvals,
        *(Approval(ring=a.ring, sha256=a.sha256) for a in control.approvals),
    )
    return wanted in given
