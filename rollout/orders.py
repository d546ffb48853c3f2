"""What people order: `control.json`, and who may let a ring pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rollout.release import Manifest


@dataclass(frozen=True, kw_only=True)
class Order:
    """Who ordered it, when (seconds since 1970) and why."""

    by: str
    at: float
    why: str


@dataclass(frozen=True, kw_only=True)
class ApprovalOrder:
    ring: str
    sha256: str
    order: Order
    size: int | None = None
    """How many devices the ring had when it was approved: a ring without devices passes only where
    this is 0."""


@dataclass(frozen=True, kw_only=True)
class ResumeOrder:
    order: Order
    halt: str | None = None
    """The id of the controller's halt that it ends; None where there was none, only a pause or a
    halt in control.json."""


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
class PardonOrder:
    sha256: str
    """The digest to be taken off the refused list."""
    order: Order


@dataclass(frozen=True, kw_only=True)
class WaiverOrder:
    thing: str
    """An exposed device that need not come back."""
    order: Order
    group: int | None = None
    """The way back that it is said of, by the sequence in its group's name: a word on one does not
    count for the next. None says it of whichever is open."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """`control.json`, written by `python -m ops` in an emergency."""

    schema: Literal[1] = 1
    paused: Order | None = None
    halted: Order | None = None
    approvals: tuple[ApprovalOrder, ...] = ()
    resume: ResumeOrder | None = None
    retry: RetryOrder | None = None
    rollback: RollbackOrder | None = None
    pardon: PardonOrder | None = None
    waived: tuple[WaiverOrder, ...] = ()


def is_approved(manifest: Manifest, orders: Orders, ring: str, *, size: int | None = None) -> bool:
    """Whether a person approved, in the stack file or in control.json, that `ring` has proved this
    very image. With a size, only by a word on a ring of that very size."""
    sha256 = manifest.firmware.sha256
    ordered = [a for a in orders.approvals if (a.ring, a.sha256) == (ring, sha256)]
    if size is not None:
        return any(approval.size == size for approval in ordered)
    filed = [a for a in manifest.approvals if (a.ring, a.sha256) == (ring, sha256)]
    return bool(ordered or filed)


def waived_things(orders: Orders, group: int) -> tuple[str, ...]:
    """The things that need not come back by the way back with this group."""
    return tuple(one.thing for one in orders.waived if one.group in (None, group))
