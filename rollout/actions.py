"""What to do about a decision: the calls that are missing between what the state wants and what was
seen.

Safe to run twice, late, or after a run that was killed anywhere: an action that was already carried
out is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from rollout.names import ROLLBACK, Names
from rollout.observed import Observed, Source
from rollout.state import Offer, Phase, State


@dataclass(frozen=True, kw_only=True)
class Create:
    """CreateJob for a ring, or for the group of a way back."""

    offer: Offer
    group: int | None = None
    """Of the way back; None for a ring's."""


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """CancelJob, not forced: what is queued ends, what a device has begun goes on."""

    job: str


@dataclass(frozen=True, kw_only=True)
class Disarm:
    """UpdateJob: the ring has passed; later failures only alarm."""

    job: str


@dataclass(frozen=True, kw_only=True)
class Enroll:
    """Put exposed devices into the group of the way back, whose job is there."""

    group: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class RemoveGroup:
    """Delete the group of a way back that is over."""

    sequence: int


Action = Create | Cancel | Disarm | Enroll | RemoveGroup


def list_actions(state: State, observed: Observed, names: Names) -> list[Action]:
    """The calls that bring AWS to what the state wants. Cancelling comes first: a bad release is
    stopped before all else."""
    jobs, wanted, groups = observed.jobs, wanted_jobs(state, names), observed.ring_groups
    live = sorted(name for name, job in jobs.items() if job.is_live)
    strays = [names.job(stray.ring, stray.sequence) for stray in observed.strays]
    unwanted = [*live, *strays, *sorted(observed.foreign)]
    found: list[Action] = [Cancel(job=name) for name in unwanted if name not in wanted]
    back = state.open_way_back
    for name, offer in wanted.items():
        has_group = groups is None or offer.ring in groups or offer.ring == ROLLBACK
        is_made = name in jobs or name in observed.unread
        if offer.phase is Phase.MAKING and has_group and not is_made:
            is_back = offer.ring == ROLLBACK
            found.append(Create(offer=offer, group=back.group if back and is_back else None))
    if back:
        found.append(Enroll(group=back.group, sources=back.sources))
    kept = back.group if back else None
    found += [
        RemoveGroup(sequence=sequence) for sequence in sorted(observed.groups) if sequence != kept
    ]
    found += [
        Disarm(job=name)
        for name in live
        if name in wanted and wanted[name].phase is not Phase.PROVING and jobs[name].armed
    ]
    return found


def wanted_jobs(state: State, names: Names) -> dict[str, Offer]:
    """By job id: every offer whose job is to be live, the way back's first."""
    offers = sorted(state.wanted(), key=lambda o: (o.ring != ROLLBACK, o.sequence))
    return {names.job(offer.ring, offer.sequence): offer for offer in offers}
