"""Who is in quarantine, as data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from cloud.channel import Channel
from cloud.cut_off import CutOff, Quarantine
from rollout.codec import DecodeError

MAX_READ = 20
"""Records that are read for one report, a call each."""


@dataclass(frozen=True, kw_only=True)
class QuarantineReport:
    devices: int
    """How many are cut off, in part or whole."""
    named: tuple[CutOff, ...]
    """A few of them."""

    @property
    def unfinished(self) -> tuple[CutOff, ...]:
        """Those of the named that a command is at, or broke off in the middle."""
        return tuple(one for one in self.named if one.done_at is None)


def report_quarantine(channel: Channel) -> QuarantineReport | None:
    """None where nobody is."""
    records = Quarantine(channel.bucket, channel.names)
    things = list(records.things())
    named = []
    for thing in things[:MAX_READ]:
        with suppress(DecodeError):  # it counts, and nothing more can be told of it
            stored = records.get(thing)
            named += [stored.record] if stored else []
    return QuarantineReport(devices=len(things), named=tuple(named)) if things else None
