"""One run of the controller, and the moves of its ledger: each is one function, with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rollout.names import ROLLBACK, Names
from rollout.observed import Counts, Job, Observed, Source
from rollout.release import FailureLimit, Firmware, Manifest, RingPlan
from rollout.state import (
    AT_WORK,
    KEPT_DECISIONS,
    KEPT_RELEASES,
    KEPT_TEXT,
    STALE,
    Aim,
    Event,
    EventType,
    Halt,
    Offer,
    Phase,
    Release,
    Standing,
    State,
)
from rollout.trust import adopt_offer
from rollout.version import Version
from rollout.waiting import Waiting

IDLE = Waiting(kind="nothing", text="every ring runs the last good release")


@dataclass(kw_only=True)
class Run:
    """One run: what it looks at, and the state as it grows, step by step."""

    manifest: Manifest | None
    """None when it was refused: then nothing starts or passes."""
    state: State
    observed: Observed
    now: float
    """Seconds since 1970."""
    names: Names
    waiting: Waiting = IDLE
    events: list[Event] = field(default_factory=list)
    ended: list[Offer] = field(default_factory=list)
    """Offers that were wanted and whose job somebody else ended."""
    is_awaited: bool = False
    """Whether the manifest's release may be released, and has yet to start."""

    def update(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def job_id(self, offer: Offer) -> str:
        return self.names.job(offer.ring, offer.sequence)

    def job(self, offer: Offer) -> Job | None:
        return self.observed.jobs.get(self.job_id(offer))

    def has_group(self, ring: str) -> bool:
        """Whether the ring has a thing group that a job can be for; a way back makes its own."""
        groups = self.observed.ring_groups
        return groups is None or ring in groups or ring == ROLLBACK

    def tell(
        self, what: EventType, why: str, ring: str | None = None, version: Version | None = None
    ) -> None:
        """Keeps a decision for people to read."""
        candidate = self.state.candidate
        version = version or (candidate.firmware.version if candidate else None)
        why = why[:KEPT_TEXT]
        self.events.append(Event(at=self.now, what=what, why=why, ring=ring, version=version))

    def final_state(self) -> State:
        decisions = (*self.state.decisions, *self.events)[-KEPT_DECISIONS:]
        waiting = replace(self.waiting, text=self.waiting.text[:KEPT_TEXT])
        return replace(self.state, waiting=waiting, decisions=decisions)


# Offers


def make_offer(
    run: Run,
    ring: str,
    firmware: Firmware,
    aim: Aim,
    *,
    downgrade: bool,
    limit: FailureLimit | None = None,
) -> Offer:
    """Stores a new offer, under a sequence of its own; its job is made after that."""
    sequence = next_sequence(run)
    offer = Offer(
        ring=ring,
        sequence=sequence,
        firmware=firmware,
        aim=aim,
        made_at=run.now,
        downgrade=downgrade,
        limit=limit or FailureLimit(),
        image=run.observed.images.get(firmware.key),
    )
    run.update(offers=(*run.state.offers, offer))
    return offer


def next_sequence(run: Run) -> int:
    """A number higher than every earlier one of the channel; it is given."""
    run.update(sequence=max(run.state.sequence + 1, int(run.now)))
    return run.state.sequence


def change_offer(run: Run, offer: Offer, **changes: object) -> Offer:
    """The same offer (told by its sequence), changed."""
    changed = replace(offer, **changes)  # type: ignore[arg-type]
    same = (o if o.sequence != offer.sequence else changed for o in run.state.offers)
    run.update(offers=tuple(same))
    return changed


def end_offer(run: Run, offer: Offer, why: str) -> None:
    """It is not wanted any more: its job is cancelled, and whom it exposed is remembered."""
    if offer.is_wanted:
        change_offer(run, offer, phase=Phase.ENDING, why=why[:KEPT_TEXT])


def end_offers(run: Run, offers: Iterable[Offer], why: str) -> None:
    for offer in offers:
        end_offer(run, offer, why)


def pass_offer(run: Run, offer: Offer, counts: Counts) -> None:
    """The ring has proved the release: the job before it, with the last good one, ends."""
    kept = run.state.kept(offer.ring)
    change_offer(run, offer, phase=Phase.PASSED, passed_at=run.now, failing_then=counts.failing)
    if kept:
        end_offer(run, kept, "the ring has passed a newer release")


def keep_offer(run: Run, offer: Offer) -> None:
    """The release is the last good one: what proved it in a ring goes on for later joiners."""
    change_offer(run, offer, phase=Phase.KEEPING, aim="keep")


def mark_made(state: State, jobs: Iterable[str], names: Names) -> State:
    """The state after these jobs were made, or found."""
    made = set(jobs)
    offers = tuple(
        _seen(o) if names.job(o.ring, o.sequence) in made and not o.seen else o
        for o in state.offers
    )
    return replace(state, offers=offers)


def _seen(offer: Offer) -> Offer:
    phase = AT_WORK[offer.aim] if offer.phase is Phase.MAKING else offer.phase
    return replace(offer, seen=True, phase=phase)


def follow_jobs(run: Run) -> None:
    """Classifies every offer by its job: made, ended as intended, or ended by somebody else."""
    _adopt_strays(run)
    _tell_foreign(run)
    run.update(offers=mark_made(run.state, run.observed.jobs, run.names).offers)
    for offer in run.state.offers:
        job = run.job(offer)
        if run.job_id(offer) in run.observed.unread:
            continue  # nothing can be said of it now
        if offer.phase is Phase.ENDING:
            _follow_end(run, offer, job)
        elif offer.is_wanted and not offer.seen:
            if run.now - offer.made_at >= STALE and run.has_group(offer.ring):
                _make_anew(run, offer)
        elif offer.is_wanted and (job is None or not job.is_live):
            why = "the stack was destroyed" if run.state.ended else "its job was ended by hand"
            end_offer(run, offer, why)
            if not run.state.ended:
                run.ended.append(offer)
    run.update(ended=False)


def _follow_end(run: Run, offer: Offer, job: Job | None) -> None:
    if job is None:
        if offer.seen or run.now - offer.made_at >= STALE:
            # never seen: there was no job, and nobody was exposed
            change_offer(run, offer, phase=Phase.ENDED, final=None)
    elif job.is_over:
        # else what was cancelled had not begun
        counts = job.counts if job.is_abrupt else replace(job.counts, canceled=0)
        change_offer(run, offer, phase=Phase.ENDED, final=counts)


def _make_anew(run: Run, offer: Offer) -> None:
    """Its job was never seen: it was never made, or somebody deleted it. An id is never asked for
    twice."""
    others = (o for o in run.state.offers if o.sequence != offer.sequence)
    again = replace(offer, sequence=next_sequence(run), made_at=run.now)
    run.update(offers=(*others, again))


def _adopt_strays(run: Run) -> None:
    """Jobs that the channel's key signed and the state does not name: a run made them that was
    overtaken, or the state is younger than they are. They end, and whom they exposed counts."""
    known = {o.sequence for o in run.state.offers}
    for stray in run.observed.strays:
        if stray.sequence in known:
            continue
        offer = adopt_offer(stray, "nobody remembers why it was made", run.now)
        run.update(
            offers=(*run.state.offers, offer), sequence=max(run.state.sequence, stray.sequence)
        )
        if run.state.standing(stray.firmware.sha256) is None:
            set_standing(run, stray.firmware, "withdrawn", offer.why)


def _tell_foreign(run: Run) -> None:
    told = {event.why for event in run.state.decisions}
    for job in sorted(run.observed.foreign)[:KEPT_DECISIONS]:
        why = f"job {job} was not made by the controller: it is cancelled"[:KEPT_TEXT]
        if why not in told:
            run.tell("foreign-job", why)


# Releases


def set_standing(run: Run, firmware: Firmware, standing: Standing, why: str = "") -> None:
    _stand(run, firmware.sha256, standing, why, firmware.version)


def set_one_way(run: Run, firmware: Firmware, *, one_way: bool) -> None:
    """Whether there is a way back from a release to an older version, as its manifest says."""
    release = run.state.releases[firmware.sha256]
    if release.one_way != one_way:
        changed = replace(release, one_way=one_way)
        run.update(releases={**run.state.releases, firmware.sha256: changed})


def refuse_digest(run: Run, sha256: str, why: str) -> None:
    """From now on this image is never offered, whatever it is called."""
    _stand(run, sha256, "refused", why)


def _stand(
    run: Run, sha256: str, standing: Standing, why: str, version: Version | None = None
) -> None:
    """What else is known of the release stays."""
    known = run.state.releases.get(sha256) or Release(standing=standing, at=run.now)
    version = version or known.version
    release = replace(known, version=version, standing=standing, why=why[:KEPT_TEXT], at=run.now)
    run.update(releases={**run.state.releases, sha256: release})


def pardon_digest(run: Run, sha256: str, why: str) -> None:
    """A person takes an image off the refused list. One that was never offered is forgotten."""
    releases = {**run.state.releases}
    release = releases.pop(sha256)
    if release.version is not None:
        pardoned = replace(release, standing="withdrawn", why=why[:KEPT_TEXT], at=run.now)
        releases[sha256] = pardoned
    run.update(releases=releases)


def known_versions(releases: Mapping[str, Release]) -> dict[Version, str]:
    """The digest of every version ever offered: a version keeps its digest for ever."""
    return {r.version: sha256 for sha256, r in releases.items() if r.version is not None}


# Halts


def halt(run: Run, why: str) -> None:
    """Nothing starts or passes until a person resumes; a way back goes on."""
    if run.state.halt is None:
        why = why[:KEPT_TEXT]
        new = Halt(id=f"halt-{run.state.halts + 1}", why=why, at=run.now)
        run.update(halt=new, halts=run.state.halts + 1)
        run.tell("halted", why)


def halt_reason(run: Run) -> Waiting | None:
    """Why everything stands still: the controller's own halt, control.json's, or the stack
    file's."""
    if run.state.halt:
        return Waiting(kind="halted", text=f"{run.state.halt.why}; waits for `resume`")
    order = run.observed.orders.halted
    if order:
        return Waiting(kind="halted", text=f"halted by {order.by}: {order.why}")
    if run.manifest and run.manifest.halted:
        return Waiting(kind="halted", text="rollout.halted is true in the stack file")
    return None


# Exposures


def exposes(offer: Offer) -> bool:
    """Whether an offer that is over, or ending, may have devices that began it."""
    if offer.is_wanted or not offer.seen:
        return False
    final = offer.final
    if offer.phase is Phase.ENDING or final is None:  # not known yet, or the job was deleted
        return True
    return bool(final.began or final.canceled)


def open_exposures(state: State) -> list[Offer]:
    """Offers whose devices run, or may run, firmware that is neither good nor being proved."""
    acceptable = {f.sha256 for f in (state.last_good, _firmware(state)) if f}
    return [o for o in state.offers if exposes(o) and not _is_harmless(state, o, acceptable)]


def _firmware(state: State) -> Firmware | None:
    return state.candidate.firmware if state.candidate else None


def _is_harmless(state: State, offer: Offer, acceptable: set[str]) -> bool:
    return offer.sha256 in acceptable or state.standing(offer.sha256) == "good"


def source_of(run: Run, offer: Offer) -> Source:
    return Source(job=run.job_id(offer), ring=offer.ring)


def trim(run: Run) -> None:
    """Forgets what cannot matter any more: offers that are over and exposed nobody who is still
    out, and releases beyond KEPT_RELEASES. Of the last good release each ring's newest offer stays:
    if its job was ended and the release is taken back, under a halt, that is whom it exposed."""
    state = run.state
    back = state.open_way_back
    tracked = {source.job for source in back.sources} if back else set()
    exposing = {o.sequence for o in open_exposures(state)}
    acceptable, good = _firmware(state), state.last_good
    newest = {
        o.ring: o.sequence
        for o in sorted(state.offers, key=lambda o: o.sequence)
        if good is not None and o.sha256 == good.sha256 and o.aim != "return"
    }
    offers = tuple(
        o
        for o in state.offers
        if o.phase is not Phase.ENDED
        or run.job_id(o) in tracked
        or o.sequence in exposing
        or (newest.get(o.ring) == o.sequence and exposes(o))
        or (acceptable is not None and o.sha256 == acceptable.sha256 and exposes(o))
    )
    run.update(offers=offers)
    excess = len(state.releases) - KEPT_RELEASES
    if excess > 0:
        kept = {o.sha256 for o in offers} | {
            f.sha256 for f in (state.last_good, state.previous_good, _firmware(state)) if f
        }
        order: dict[Standing, int] = {"withdrawn": 0, "good": 1}
        forgettable = sorted(
            (order[r.standing], r.at, sha256)
            for sha256, r in state.releases.items()
            if r.standing in order and sha256 not in kept
        )
        gone = {sha256 for _, _, sha256 in forgettable[:excess]}
        run.update(releases={s: r for s, r in state.releases.items() if s not in gone})


def plan_of(run: Run) -> tuple[RingPlan, ...]:
    """The rings as the release that is out has them; without one, as the manifest has them."""
    if run.state.candidate:
        return run.state.candidate.manifest.rings
    return run.manifest.rings if run.manifest else ()
