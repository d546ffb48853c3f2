"""The registry of serial numbers: who may claim a certificate, and who has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from rollout.orders import Order

CLAIM_SECONDS = 86_400.0
"""How long after its claim a device may ask again, with the same key by the same claim certificate:
the answer was lost, or its power. Ours: a day of a factory."""
MAX_EVENTS = 20
"""Events that a serial's record keeps, the newest ones."""


class SerialStatus(StrEnum):
    UNCLAIMED = "unclaimed"
    """It may be claimed."""
    CLAIMED = "claimed"
    """A device has it."""
    RELEASED = "released"
    """A device had it, and another key may claim it: the same thing gets a new certificate."""
    BLOCKED = "blocked"
    """Nobody may claim it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A registration that the hook allowed."""

    thing: str
    certificate: str
    """Id of the device's own certificate."""
    key: str
    """SHA-256 of the device's public key (SubjectPublicKeyInfo), hexadecimal."""
    by: str
    """Id of the claim certificate."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class SerialEvent:
    """Something that happened to a serial."""

    what: str
    order: Order


@dataclass(frozen=True, kw_only=True)
class Serial:
    """A serial number as the registry has it."""

    serial: str
    status: SerialStatus = SerialStatus.UNCLAIMED
    ring: str | None = None
    """Where the list named one; by default the one that the serial's hash says."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Of its thing, over the fleet's."""
    claim: Claim | None = None
    """The newest."""
    before: SerialStatus | None = None
    """Of a blocked one: what it was, and is again when the block ends."""
    events: tuple[SerialEvent, ...] = ()
    """The oldest first."""

    def release(self, order: Order) -> Serial:
        """As another key may claim it."""
        return replace(self, status=SerialStatus.RELEASED).note("released", order)

    def block(self, order: Order) -> Serial:
        """As nobody may claim it, until the block ends."""
        return replace(self, status=SerialStatus.BLOCKED, before=self.status).note("blocked", order)

    def unblock(self, order: Order) -> Serial:
        """As it was before it was blocked."""
        status = self.before or SerialStatus.UNCLAIMED
        return replace(self, status=status, before=None).note("unblocked", order)

    def note(self, what: str, order: Order) -> Serial:
        """With an event more; the oldest beyond MAX_EVENTS goes."""
        event = SerialEvent(what=what, order=order)
        return replace(self, events=(*self.events, event)[-MAX_EVENTS:])
