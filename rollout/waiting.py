"""What a channel waits for: one table, which the decision, the report, the alarms and the documents
read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WaitKind = Literal[
    "nothing",
    "settling",
    "coverage",
    "success",
    "minimum-succeeded",
    "soak",
    "window",
    "alarms",
    "rollback",
    "no-devices",
    "approval",
    "paused",
    "deadline",
    "stuck",
    "refused",
    "image",
    "halted",
    "no-way-back",
    "rollback-failed",
]
Urgency = Literal["none", "today", "now"]
"""`today`: the release stands still. `now`: devices run firmware that is not good."""


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One kind of waiting: what ends it, and how urgently a person is needed for that."""

    ends_when: str
    urgency: Urgency = "none"


WAITS: dict[WaitKind, Wait] = {
    "nothing": Wait(ends_when="a new release is deployed"),
    "settling": Wait(ends_when="AWS has created the job and told every device of it; by itself"),
    "coverage": Wait(
        ends_when="enough devices have finished: offline ones come back, or the deadline comes"
    ),
    "success": Wait(ends_when="enough of the devices that began have succeeded, or the ring fails"),
    "minimum-succeeded": Wait(ends_when="enough devices have succeeded"),
    "soak": Wait(ends_when="the soak is over and the ring has stayed healthy; by itself"),
    "window": Wait(ends_when="the window opens; by itself"),
    "alarms": Wait(ends_when="the alarm is OK again; see why it is not"),
    "rollback": Wait(ends_when="every exposed device has reported back; by itself"),
    "no-devices": Wait(ends_when="the first device is registered in the ring"),
    "approval": Wait(ends_when="a person approves: `approve RING`", urgency="today"),
    "paused": Wait(
        ends_when="a person resumes: `resume`, or rollout.paused in the stack file",
        urgency="today",
    ),
    "deadline": Wait(
        ends_when="the ring meets its gate after all; or `retry RING`, `rollback`, or a new"
        " release",
        urgency="today",
    ),
    "stuck": Wait(
        ends_when="`retry RING` once the devices are mended, `rollback`, or a new release",
        urgency="today",
    ),
    "refused": Wait(
        ends_when="the stack file names a release that is acceptable; or `pardon VERSION`",
        urgency="today",
    ),
    "image": Wait(ends_when="the image is in the bucket again: deploy it anew", urgency="today"),
    "halted": Wait(
        ends_when="a person resumes: `resume`, or rollout.halted in the stack file",
        urgency="today",
    ),
    "no-way-back": Wait(ends_when="a newer release is deployed and becomes good", urgency="now"),
    "rollback-failed": Wait(
        ends_when="the devices are mended, then `retry rollback`; or `waive THING` for one that is"
        " lost",
        urgency="now",
    ),
}
"""By kind, from what ends by itself to what is urgent."""


def needs_a_person(kind: WaitKind) -> bool:
    """Whether only a person can end it."""
    return WAITS[kind].urgency != "none"


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What the channel waits for, in words, and until when (seconds since 1970) where that is
    known."""

    kind: WaitKind
    text: str
    ring: str | None = None
    until: float | None = None
