"""What people order: `control.json`, and who may let a ring pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rollout.release import Approval, Manifest


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
class Orders:
    """`control.json`, written by `python -m ops` in an emergency."""

    schema: Literal[1] = 1
    paused: Order | None = None
    halted: Order | None = None
    approvals: tuple[ApprovalOrder, ...] = ()
    resume: ResumeOrder | None = None
    retry: RetryOrder | None = None
    rollback: RollbackOrder | None = None


def is_approved(manifest: Manifest, orders: Orders, ring: str) -> bool:
    """Whether a person approved, in the stack file or in control.json, that `ring` has proved this
    very image."""
    needed = Approval(ring=ring, sha256=manifest.firmware.sha256)
    ordered = (Approval(ring=a.ring, sha256=a.sha256) for a in orders.approvals)
    return needed in (*manifest.approvals, *ordered)
