"""What the controller remembers: `state.json`, a ledger of releases, offers and ways back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from rollout.names import ROLLBACK
from rollout.observed import Counts, Source
from rollout.release import FailureLimit, Firmware, Manifest
from rollout.version import Version
from rollout.waiting import Waiting

FORMAT: Final = 3
"""Of state.json. It rises when an older controller could not read what a newer one writes."""
KEPT_DECISIONS = 10
KEPT_RELEASES = 2000
"""Releases that the ledger remembers; beyond it the oldest that were withdrawn are forgotten first,
then the oldest good ones. A refused one is never forgotten."""
KEPT_TEXT = 300
"""Characters that the state keeps of any sentence."""

STALE = 30.0
"""Seconds after which an offer whose job was never seen is made under a new sequence, so that a job
that somebody deleted is not made again. Until then every run asks for the same id."""


class Phase(StrEnum):
    """What an offer is in. docs/architecture.md draws the moves between them."""

    MAKING = "making"
    """It is stored; its job has not been seen yet."""
    PROVING = "proving"
    """The ring's devices prove the candidate, behind the ring's gate."""
    PASSED = "passed"
    """The ring has passed; the release is not the last good one yet."""
    KEEPING = "keeping"
    """It gives the ring's devices, later joiners too, the last good release."""
    RETURNING = "returning"
    """It brings exposed devices back to the last good release."""
    ENDING = "ending"
    """It is not wanted any more: its job is cancelled, executions may still run."""
    ENDED = "ended"
    """Its job is over and settled. It is kept until whoever it exposed is back."""


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.MAKING: frozenset({Phase.PROVING, Phase.KEEPING, Phase.RETURNING, Phase.ENDING}),
    Phase.PROVING: frozenset({Phase.PASSED, Phase.ENDING}),
    Phase.PASSED: frozenset({Phase.KEEPING, Phase.ENDING}),
    Phase.KEEPING: frozenset({Phase.ENDING}),
    Phase.RETURNING: frozenset({Phase.ENDING}),
    Phase.ENDING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}
"""The moves that an offer can make."""


class RingPhase(StrEnum):
    """What a ring is in, as its offers show it. docs/architecture.md draws the moves between
    them."""

    NO_JOB = "no job"
    """Nothing is offered to it: nothing was good yet, but for what was adopted, or its devices wait
    for what supersedes what they run."""
    WAITING = "waiting"
    """The candidate is not offered to it yet."""
    PROVING = "proving"
    """Its devices prove the candidate."""
    WITHDRAWN = "withdrawn"
    """The candidate was offered to it, and is not at the moment."""
    PASSED = "passed"
    """It has proved the candidate, which is not the last good release yet."""
    LAST_GOOD = "last good"
    """It is given the last good release."""
    GOING_BACK = "going back"
    """Devices of it that were exposed return to the last good release."""


RELEASE_OVER = frozenset({RingPhase.LAST_GOOD, RingPhase.GOING_BACK, RingPhase.NO_JOB})
"""What a ring is in once the candidate is good, taken back or superseded."""
RING_MOVES: dict[RingPhase, frozenset[RingPhase]] = {
    RingPhase.WAITING: RELEASE_OVER | {RingPhase.PROVING},
    RingPhase.PROVING: RELEASE_OVER | {RingPhase.PASSED, RingPhase.WITHDRAWN, RingPhase.WAITING},
    RingPhase.PASSED: RELEASE_OVER | {RingPhase.PROVING, RingPhase.WITHDRAWN, RingPhase.WAITING},
    RingPhase.WITHDRAWN: RELEASE_OVER | {RingPhase.PROVING, RingPhase.WAITING},
    RingPhase.LAST_GOOD: frozenset(
        {RingPhase.WAITING, RingPhase.PROVING, RingPhase.GOING_BACK, RingPhase.NO_JOB}
    ),
    RingPhase.GOING_BACK: frozenset(RingPhase) - {RingPhase.GOING_BACK, RingPhase.PASSED},
    RingPhase.NO_JOB: frozenset(
        {RingPhase.WAITING, RingPhase.PROVING, RingPhase.LAST_GOOD, RingPhase.GOING_BACK}
    ),
}
"""The moves that a ring can make from one run of the controller to the next."""


class ChannelPhase(StrEnum):
    """What a channel is in: of these, the last one that is so."""

    EMPTY = "empty"
    """Nothing was ever good, and nothing is being proved."""
    IDLE = "idle"
    """Every ring is given the last good release."""
    WAITING = "waiting"
    """The stack file's release has not started: it may not, or not yet."""
    PROVING = "proving"
    """A candidate is on its way through the rings."""
    HALTED = "halted"
    """Nothing starts or passes until a person resumes."""
    RETURNING = "returning"
    """Exposed devices go back to the last good release, whatever else is so."""


Aim = Literal["prove", "keep", "return"]
AT_WORK: dict[Aim, Phase] = {
    "prove": Phase.PROVING,
    "keep": Phase.KEEPING,
    "return": Phase.RETURNING,
}
"""What an offer is in once its job is there."""
WANTED = frozenset(Phase) - {Phase.ENDING, Phase.ENDED}
"""Phases of an offer whose job is to be live."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One job: a firmware offered to a ring, or to the group of a way back, under a sequence number
    of its own. Times are seconds since 1970."""

    ring: str
    """ROLLBACK for a way back's."""
    sequence: int
    firmware: Firmware
    aim: Aim
    phase: Phase = Phase.MAKING
    made_at: float
    seen: bool = False
    """Whether its job has been observed to exist."""
    downgrade: bool = False
    """Whether devices that run a newer version are to install it."""
    limit: FailureLimit = FailureLimit()
    """When its devices show that the release is bad."""
    image: str | None = None
    """The version of the S3 object that its job names."""
    healthy_since: float | None = None
    """Since when the ring's figures hold without a break: the soak runs from here."""
    passed_at: float | None = None
    failing_then: int = 0
    """Devices that had failed or timed out when the ring passed."""
    late_failing: int = 0
    """Devices that did so after that, as people were told last."""
    why: str = ""
    """Why it is not wanted any more."""
    is_excused: bool = False
    """Whether its failures say nothing of the release: the image was not there."""
    final: Counts | None = None
    """The counts of its job, once that was over and settled; None where the job was deleted."""

    @property
    def is_wanted(self) -> bool:
        return self.phase in WANTED

    @property
    def sha256(self) -> str:
        return self.firmware.sha256


Standing = Literal["candidate", "good", "refused", "withdrawn"]


@dataclass(frozen=True, kw_only=True)
class Release:
    """What has become of a firmware image that was ever offered, or refused before that."""

    version: Version | None = None
    standing: Standing
    why: str = ""
    at: float
    one_way: bool = False
    """Whether its devices must not go back to an older version (rollout.rollback is forbidden)."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The release being proved: the manifest that asks for it, as it was last acceptable."""

    manifest: Manifest
    downgrade: bool

    @property
    def firmware(self) -> Firmware:
        return self.manifest.firmware


@dataclass(frozen=True, kw_only=True)
class WayBack:
    """Bringing exposed devices back to the last good release through a group of their own. Its job
    is the wanted offer of ring ROLLBACK; a retry is another job for the same group."""

    group: int
    """The sequence in the group's name."""
    sources: tuple[Source, ...]
    """The jobs whose devices were exposed."""
    failed: str
    """The versions that failed, or were taken back."""
    reason: str
    started_at: float
    done_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self.done_at is None


@dataclass(frozen=True, kw_only=True)
class Halt:
    """A stop that only a person's `resume`, naming its id, ends."""

    id: str
    why: str
    at: float


EventType = Literal[
    "adopted",
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
    "pardoned",
    "order-refused",
    "foreign-job",
    "late-failures",
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

    format: Literal[2, 3] = 3
    suffix: str = ""
    channel: str = ""
    """Whose state it is, so that another channel's is not taken for it."""
    writes: int = 0
    """Every write has a number of its own."""
    after: str | None = None
    """The version of the S3 object that this state replaced."""
    sequence: int = 0
    """The highest sequence number given to any offer of the channel."""
    releases: dict[str, Release] = field(default_factory=dict)
    """By digest."""
    offers: tuple[Offer, ...] = ()
    """Every job of the channel that still matters, by sequence."""
    candidate: Candidate | None = None
    last_good: Firmware | None = None
    previous_good: Firmware | None = None
    """What was last good before; a manifest that names it again is a `git revert` and needs no
    allowDowngrade."""
    adopted: str | None = None
    """Digest of the firmware that was last good without a job, for devices ran it before the
    channel's first release. Only a way back offers it, until it is released like any other."""
    document_extra: dict[str, Any] | None = None
    """What the newest manifest that could be read adds to job documents. It says what the fleet's
    agents read, not what a release is: every offer has it, a way back's too."""
    way_back: WayBack | None = None
    """The one that is open, else the last one."""
    halt: Halt | None = None
    halts: int = 0
    """How many there have been: each has an id of its own, so that a `resume` ends the one it was
    meant for."""
    ended: bool = False
    """Whether the stack was destroyed: the controller itself ended every job."""
    obeyed: dict[str, str] = field(default_factory=dict)
    """The last order of each kind that was carried out or refused: it is never carried out
    later."""
    waiting: Waiting = Waiting(kind="nothing", text="no release yet")
    decisions: tuple[Event, ...] = ()

    # What the ledger says

    def standing(self, sha256: str) -> Standing | None:
        """None for an image that was never offered."""
        release = self.releases.get(sha256)
        return release.standing if release else None

    def can_return(self, firmware: Firmware) -> bool:
        """Whether devices that began this firmware may go back to the last good one."""
        good, release = self.last_good, self.releases.get(firmware.sha256)
        is_one_way = release is not None and release.one_way
        return good is not None and not (is_one_way and good.version < firmware.version)

    def is_good(self, sha256: str) -> bool:
        return self.last_good is not None and self.last_good.sha256 == sha256

    @property
    def is_adopted(self) -> bool:
        """Whether the last good release is the adopted one, which no ring was ever offered."""
        return self.adopted is not None and self.is_good(self.adopted)

    def wanted(self, *aims: Aim) -> tuple[Offer, ...]:
        """The offers whose jobs are to be live, of these aims (of all, without any)."""
        return tuple(o for o in self.offers if o.is_wanted and (not aims or o.aim in aims))

    def proof(self, ring: str) -> Offer | None:
        """The candidate's wanted offer in a ring."""
        return next((o for o in self.wanted("prove") if o.ring == ring and self._proves(o)), None)

    def _proves(self, offer: Offer) -> bool:
        return self.candidate is not None and offer.sha256 == self.candidate.firmware.sha256

    def kept(self, ring: str) -> Offer | None:
        """The wanted offer that gives a ring the last good release."""
        return next((o for o in self.wanted("keep") if o.ring == ring), None)

    def returning(self) -> Offer | None:
        """The wanted offer of the way back that is open."""
        return next((o for o in self.wanted("return") if o.ring == ROLLBACK), None)

    @property
    def open_way_back(self) -> WayBack | None:
        return self.way_back if self.way_back and self.way_back.is_open else None

    # What the ledger means

    def ring_phase(self, ring: str) -> RingPhase:
        proof, back, candidate = self.proof(ring), self.open_way_back, self.candidate
        if proof:
            return RingPhase.PASSED if proof.phase is Phase.PASSED else RingPhase.PROVING
        if back and any(source.ring == ring for source in back.sources):
            return RingPhase.GOING_BACK
        if candidate:
            return RingPhase.WITHDRAWN if self.withdrawn(ring) else RingPhase.WAITING
        return RingPhase.LAST_GOOD if self.kept(ring) else RingPhase.NO_JOB

    def withdrawn(self, ring: str) -> Offer | None:
        """The candidate's newest offer in a ring that is not wanted any more."""
        mine = (o for o in reversed(self.offers) if o.ring == ring and not o.is_wanted)
        return next((o for o in mine if o.aim == "prove" and self._proves(o)), None)

    @property
    def channel_phase(self) -> ChannelPhase:
        if self.open_way_back:
            return ChannelPhase.RETURNING
        if self.halt or self.waiting.kind == "halted":
            return ChannelPhase.HALTED
        if self.candidate:
            return ChannelPhase.PROVING
        if self.waiting.kind != "nothing":
            return ChannelPhase.WAITING
        return ChannelPhase.IDLE if self.last_good else ChannelPhase.EMPTY
