"""What to do about a decision: the calls that are missing between what the state wants and what was
seen.

Safe to run twice, late, or after a run that was killed anywhere: an action that was already carried
out is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from rollout.names import ROLLBACK, Names
from rollout.observed import Observed
from rollout.state import Offer, State


@dataclass(frozen=True, kw_only=True)
class Create:
    """CreateJob for a ring, or for a rollback's group."""

    ring: str
    offer: Offer
    proving: bool
    """A candidate's job: it has the release's pace and abort criteria. Others have neither."""


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
    """Put exposed devices into the rollback's group, and make that group first."""

    sequence: int
    exposing_jobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RemoveGroup:
    """Delete the group of a rollback that is over."""

    sequence: int


Action = Create | Cancel | Disarm | Enroll | RemoveGroup


def list_actions(state: State, observed: Observed, names: Names) -> list[Action]:
    """The calls that bring AWS to what the state wants. Cancelling comes first: a bad release is
    stopped before all else."""
    jobs, desired = observed.jobs, desired_jobs(state, names)
    live = sorted(name for name, job in jobs.items() if job.is_live)
    found: list[Action] = [Cancel(job=name) for name in live if name not in desired]
    if state.rollback and state.rollback.done_at is None and not state.halt:
        found.append(
            Enroll(
                sequence=state.rollback.offer.sequence, exposing_jobs=state.rollback.exposing_jobs
            )
        )
    found += [
        c for name, c in desired.items() if name not in jobs and not c.offer.seen and not state.halt
    ]
    kept = state.rollback.offer.sequence if state.rollback else None
    found += [
        RemoveGroup(sequence=sequence) for sequence in sorted(observed.groups) if sequence != kept
    ]
    found += [
        Disarm(job=name)
        for name in live
        if name in desired and not desired[name].proving and jobs[name].armed
    ]
    return found


def desired_jobs(state: State, names: Names) -> dict[str, Create]:
    """By job id: every job that the state wants to be live."""
    found = [
        Create(ring=ring, offer=offer, proving=False)
        for ring, offer in sorted(state.stable.items())
    ]
    candidate = state.candidate
    for ring, progress in sorted(candidate.rings.items()) if candidate else []:
        if progress.passed_at is None and not progress.withdrawn:
            found.append(Create(ring=ring, offer=progress.offer, proving=True))
    if state.rollback:
        found.append(Create(ring=ROLLBACK, offer=state.rollback.offer, proving=False))
    return {names.job(create.ring, create.offer.sequence): create for create in found}
