"""Failure, and the way back: whoever began firmware that is not good returns to what is."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from rollout import gates
from rollout.ledger import (
    Run,
    change_offer,
    end_offer,
    end_offers,
    halt,
    halt_reason,
    make_offer,
    next_sequence,
    open_exposures,
    plan_of,
    refuse_digest,
    set_standing,
    source_of,
)
from rollout.names import ROLLBACK, Names
from rollout.observed import Counts, Observed
from rollout.orders import waived_things
from rollout.release import Firmware
from rollout.state import KEPT_TEXT, Candidate, Offer, Phase, State, WayBack
from rollout.waiting import Waiting

QUIET = frozenset({"nothing", "refused"})
"""Kinds of waiting that tell less than a way back under way."""


def fail_candidate(run: Run, candidate: Candidate, why: str, *, refuse: bool) -> None:
    """The candidate is taken back, in every ring; refused means for ever."""
    firmware = candidate.firmware
    run.tell("failed" if refuse else "rollback", why, version=firmware.version)
    withdraw_candidate(run, candidate, why)
    if refuse:
        refuse_digest(run, firmware.sha256, why)
    if not run.state.can_return(firmware):
        no_way = "there is no last good release to go back to"
        back = "its rollback is forbidden" if run.state.last_good else no_way
        halt(run, f"{firmware.version} was stopped ({why}) and {back}")
        run.waiting = halt_reason(run) or run.waiting


def withdraw_candidate(run: Run, candidate: Candidate, why: str) -> None:
    """Ends the candidate's jobs; whom they exposed is not forgotten."""
    sha256 = candidate.firmware.sha256
    end_offers(run, [o for o in run.state.wanted("prove") if o.sha256 == sha256], why)
    set_standing(run, candidate.firmware, "withdrawn", why)
    run.update(candidate=None)


def take_back_good(run: Run, good: Firmware, previous: Firmware, why: str) -> None:
    """The last good release turned out bad: it is refused, and the one before is good again."""
    run.tell("rollback", why, version=good.version)
    end_offers(run, [o for o in run.state.wanted() if o.sha256 == good.sha256], why)
    refuse_digest(run, good.sha256, why)
    set_standing(run, previous, "good")
    run.update(last_good=previous, previous_good=None)


def follow_way_back(run: Run) -> None:
    """Opens a way back for whoever must return, says how it goes, and when everybody is back."""
    _waive_sources(run)
    state, good = run.state, run.state.last_good
    back = state.open_way_back
    known = set(back.sources) if back else set()
    exposing = [o for o in open_exposures(state) if source_of(run, o) not in known]
    new = [o for o in exposing if find_fate(run, o) is Fate.RETURNS]
    if good and new:
        back = _open_or_extend(run, back, new)
        _renew(run, good)
    elif good and back:
        offer = state.returning()
        if offer is None or offer.sha256 != good.sha256:
            _renew(run, good)
    if back is None:
        _tell_no_way_back(run, exposing)
        return
    offer = run.state.returning()
    if offer:
        _follow(run, back, offer, is_new=bool(new))


def _waive_sources(run: Run) -> None:
    """A person said that whom a job exposed need not come back: nobody can list them any more."""
    back = run.state.open_way_back
    if back is None:
        return
    waived = set(waived_things(run.observed.orders, back.group))
    sources = tuple(source for source in back.sources if source.job not in waived)
    if sources != back.sources:
        offers = tuple(o for o in run.state.offers if run.job_id(o) not in waived)
        run.update(way_back=replace(back, sources=sources), offers=offers)


class Fate(StrEnum):
    """What becomes of the devices of an exposure."""

    RETURNS = "returns"
    """They go back to the last good release."""
    OVERTAKEN = "overtaken"
    """The candidate is offered in their ring after it: that one proves itself there, or brings them
    back when it fails."""
    WAITS = "waits"
    """The release that supersedes what they run has yet to reach them."""
    STAYS = "stays"
    """There is no way back: nothing was good before, or going back to an older version is
    forbidden."""


def find_fate(run: Run, offer: Offer) -> Fate:
    state = run.state
    proof = state.proof(offer.ring)
    if proof and proof.sequence > offer.sequence:
        return Fate.OVERTAKEN
    if not state.can_return(offer.firmware):
        return Fate.STAYS
    is_read = run.manifest is not None
    is_coming = state.candidate is not None or run.is_awaited
    if state.standing(offer.sha256) == "refused" or (is_read and not is_coming):
        return Fate.RETURNS
    return Fate.WAITS


def _open_or_extend(run: Run, back: WayBack | None, new: list[Offer]) -> WayBack:
    sources = tuple(source_of(run, o) for o in new)
    versions = list(dict.fromkeys(str(o.firmware.version) for o in new))
    if back:
        failed = list(dict.fromkeys([*back.failed.split(", "), *versions]))
        back = replace(
            back,
            sources=(*back.sources, *sources),
            failed=", ".join(failed)[:KEPT_TEXT],
            started_at=run.now,
        )
    else:
        back = WayBack(
            group=next_sequence(run),
            sources=sources,
            failed=", ".join(versions)[:KEPT_TEXT],
            reason=new[-1].why,
            started_at=run.now,
        )
    run.update(way_back=back)
    good = run.state.last_good
    if good:
        why = f"devices exposed to {back.failed} return to {good.version}"
        run.tell("rollback", why, version=good.version)
    return back


def _renew(run: Run, good: Firmware) -> None:
    """A new job for the group. What is being proved starts anew after it: its offers would be older
    than the way back, which would take it from its devices."""
    why = "a way back was offered after it"
    end_offers(run, run.state.wanted("prove"), why)
    end_offers(run, run.state.wanted("return"), "the way back is offered anew")
    make_offer(run, ROLLBACK, good, "return", downgrade=True)


def retry_way_back(run: Run, offer: Offer) -> None:
    """Offers the way back again to everybody in its group: who is back says so at once."""
    back = run.state.way_back
    if back is None:
        return
    end_offer(run, offer, "it was retried")
    make_offer(run, ROLLBACK, offer.firmware, "return", downgrade=True)
    run.update(way_back=replace(back, started_at=run.now))
    run.tell("retried", "the way back is offered again", version=offer.firmware.version)


def _follow(run: Run, back: WayBack, offer: Offer, *, is_new: bool) -> None:
    returning = run.observed.returning
    failing = count_left_behind(run.state, run.observed, run.names, run.now)
    version = offer.firmware.version
    if failing:
        text = (
            f"{failing} devices did not return to {version}: see `python -m ops status`, then"
            " `python -m ops retry rollback`"
        )
        if returning.is_unknown:
            text = (
                f"who must return to {version} is not known whole ({returning.problems[0]}): mend"
                " that, or `python -m ops waive JOB`"
            )
        run.waiting = Waiting(kind="rollback-failed", text=text)
    elif not is_new and offer.seen and returning.is_complete and not returning.remaining:
        change_offer(run, offer, phase=Phase.ENDING, why="every exposed device is back")
        back_from = set(back.sources)
        offers = tuple(o for o in run.state.offers if source_of(run, o) not in back_from)
        run.update(way_back=replace(back, done_at=run.now), offers=offers)
        run.tell("rolled-back", "every exposed device reported back", version=version)
    elif run.waiting.kind in QUIET and run.state.candidate is None:
        # what holds a candidate is not hidden: only a person may be able to end it
        text = (
            f"exposed devices return to {version}: {returning.back} of {returning.exposed} are back"
        )
        run.waiting = Waiting(kind="rollback", text=text)


def count_left_behind(state: State, observed: Observed, names: Names, now: float) -> int:
    """Devices that the way back could not bring back so far."""
    back, offer = state.open_way_back, state.returning()
    if back is None or offer is None:
        return 0
    job = observed.jobs.get(names.job(offer.ring, offer.sequence))
    return gates.count_not_back(
        observed.returning,
        job.counts if job else Counts(),
        started_at=back.started_at,
        is_overtaken=is_overtaken(state, offer),
        now=now,
    )


def has_failed(state: State, names: Names) -> bool:
    """Whether devices are on their way back, or should be, from a release that was refused."""
    back = state.open_way_back
    jobs = {source.job for source in back.sources} if back else set()
    returning = [o for o in state.offers if names.job(o.ring, o.sequence) in jobs]
    return any(_is_refused(state, o) for o in (*returning, *open_exposures(state)))


def is_overtaken(state: State, offer: Offer) -> bool:
    """Whether devices have been offered a release newer than the way back: who took that first
    rightly rejects the way back. When that release ends, they are asked again."""
    return any(o.sequence > offer.sequence for o in state.wanted("prove"))


def _tell_no_way_back(run: Run, exposing: list[Offer]) -> None:
    stuck = [o for o in exposing if find_fate(run, o) is Fate.STAYS]
    if stuck and run.waiting.kind in QUIET:
        versions = ", ".join(dict.fromkeys(str(o.firmware.version) for o in stuck))
        text = f"devices run {versions}, which was taken back, and there is no way back"
        run.waiting = Waiting(kind="no-way-back", text=text)


def provide_rings(run: Run) -> None:
    """Gives every ring the last good release, for whoever joins it. Not where the candidate is
    being proved, or where devices wait for the release that supersedes what they run; nor, while
    everything is halted, but as part of a way back. An adopted release is given to none."""
    state, good = run.state, run.state.last_good
    rings = [ring.name for ring in plan_of(run)]
    if good is None or not rings:
        return
    kept = state.wanted("keep")
    end_offers(run, [o for o in kept if o.sha256 != good.sha256], "a newer release is good")
    if run.manifest:
        gone = [o for o in kept if o.ring not in rings]
        end_offers(run, gone, "the stack file has no such ring any more")
    if state.is_adopted:
        return  # who never was exposed keeps what it runs
    if halt_reason(run) and state.open_way_back is None:
        return
    for ring in rings:
        if run.has_group(ring) and not _is_served(run, ring):
            make_offer(run, ring, good, "keep", downgrade=True)


def _is_served(run: Run, ring: str) -> bool:
    state = run.state
    if state.kept(ring):
        return True
    is_coming = state.candidate is not None or run.is_awaited
    mine = [o for o in open_exposures(state) if o.ring == ring]
    if any(find_fate(run, o) is Fate.STAYS for o in mine):
        return True  # an older release would be a way back
    proved = state.candidate and any(
        o.ring == ring and o.sha256 == state.candidate.firmware.sha256 for o in state.offers
    )
    return bool(proved) or (is_coming and any(not _is_refused(state, o) for o in mine))


def _is_refused(state: State, offer: Offer) -> bool:
    return state.standing(offer.sha256) == "refused"
