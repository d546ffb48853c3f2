"""The candidate: every ring that is out is judged in every run, and moves on where it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rollout import gates
from rollout.go_back import fail_candidate, withdraw_candidate
from rollout.ledger import (
    IDLE,
    Run,
    change_offer,
    end_offer,
    end_offers,
    halt,
    halt_reason,
    keep_offer,
    known_versions,
    make_offer,
    pass_offer,
    refuse_digest,
    set_one_way,
    set_standing,
)
from rollout.names import OPERATOR_HALT, Names
from rollout.observed import Job
from rollout.orders import is_approved
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import Candidate, Offer, Phase, State
from rollout.waiting import Waiting
from rollout.window import next_opening, to_datetime

UNPROVED = frozenset({Phase.MAKING, Phase.PROVING})
REVERTED = "the stack file names the last good release again"


# Judging, whatever state the channel is in


def judge_offers(run: Run) -> None:
    """Every offer of a release that is not good yet is judged by its own counts, wanted or not:
    what a job shows counts."""
    _follow_limits(run)
    for offer in run.state.offers:
        is_judged = offer.aim == "prove" and offer.seen and not offer.is_excused
        if is_judged and run.state.standing(offer.sha256) in ("candidate", "withdrawn"):
            why = _find_failure(run, offer)
            if why:
                _fail(run, offer, f"ring {offer.ring}: {why}")


def _follow_limits(run: Run) -> None:
    """What the stack file says now of its image in a ring holds for whatever was offered there, out
    or not, and under whatever version."""
    for offer in run.state.offers if run.manifest else ():
        ring = run.manifest.ring(offer.ring) if run.manifest else None
        is_named = run.manifest is not None and run.manifest.firmware.sha256 == offer.sha256
        if ring and is_named and offer.aim == "prove" and offer.limit != ring.gate.failure_limit:
            change_offer(run, offer, limit=ring.gate.failure_limit)


def _find_failure(run: Run, offer: Offer) -> str | None:
    job = run.job(offer)
    counts = job.counts if job else offer.final
    if counts is None:
        return None
    # of an offer that is over, only those are kept as CANCELED that may have begun
    is_abrupt = job.is_abrupt if job else True
    why = gates.find_failure(offer.limit, counts, is_abrupt=is_abrupt)
    candidate = run.state.candidate
    if why or candidate is None or offer.phase is not Phase.PROVING:
        return why
    ring = candidate.manifest.ring(offer.ring)
    return gates.find_red_alarm(ring, run.observed.alarms, offer.made_at) if ring else None


def tell_late_failures(run: Run) -> None:
    """Devices that fail after their ring has passed: people are told of the first, and each time
    that they are twice as many."""
    for offer in run.state.wanted("prove", "keep"):
        job = run.job(offer)
        if job is None or offer.phase not in (Phase.PASSED, Phase.KEEPING):
            continue
        late = job.counts.failing - offer.failing_then
        if late > 0 and late >= 2 * offer.late_failing:
            change_offer(run, offer, late_failing=late)
            why = f"{late} devices of ring {offer.ring} failed or timed out after it had passed"
            run.tell("late-failures", why, offer.ring, offer.firmware.version)


def find_failing_kept(state: State, jobs: Mapping[str, Job], names: Names) -> str | None:
    """The ring whose devices show that even the last good release fails on them: that alarms, and
    nothing is taken back by itself."""
    for offer in state.wanted("keep"):
        job = jobs.get(names.job(offer.ring, offer.sequence))
        if job and gates.find_failure(offer.limit, job.counts):
            return offer.ring
    return None


def _fail(run: Run, offer: Offer, why: str) -> None:
    candidate, problem = run.state.candidate, run.observed.image_problems.get(offer.firmware.key)
    if problem:
        _excuse(run, offer.sha256)
        halt(run, f"devices failed while their image was not there ({problem})")
    elif candidate and candidate.firmware.sha256 == offer.sha256:
        fail_candidate(run, candidate, why, refuse=True)
    else:
        run.tell("failed", why, version=offer.firmware.version)
        refuse_digest(run, offer.sha256, why)


def _excuse(run: Run, sha256: str) -> None:
    """Ends what was offered while the image was not there: its failures refuse nothing."""
    for offer in run.state.offers:
        if offer.aim == "prove" and offer.sha256 == sha256:
            end_offer(run, change_offer(run, offer, is_excused=True), "its image was not there")


def halt_for_ended(run: Run) -> None:
    """A job that ended otherwise than the state intended, without evidence against its release, is
    a halt until `resume`: nobody but a person knows why."""
    for offer in run.ended:
        is_refused = run.state.standing(offer.sha256) == "refused"
        if halt_reason(run) is None and not (is_refused and offer.aim == "prove"):
            halt(run, f"job {run.job_id(offer)} {_how_ended(run.job(offer))}")


def _how_ended(job: Job | None) -> str:
    if job is None or job.is_leaving:
        return "was deleted by a person"
    if job.reason == OPERATOR_HALT:
        return "was ended by `ops halt`"
    code = f" (reason code {job.reason[:40]})" if job.reason else ""
    return f"was ended by IoT's brake or a person{code}"


def stand_still(run: Run, why: Waiting) -> None:
    """Takes back what unproved rings were offered, until somebody resumes."""
    run.waiting = why
    unproved = [o for o in run.state.wanted("prove") if o.phase in UNPROVED]
    end_offers(run, unproved, f"halted: {why.text}")


# What the fleet is before the first release


def learn_documents(run: Run) -> None:
    """What the fleet's agents read in a job document; kept while a manifest is refused."""
    if run.manifest and run.manifest.document_extra != run.state.document_extra:
        run.update(document_extra=run.manifest.document_extra)


def find_adopted(manifest: Manifest | None, state: State) -> Firmware | None:
    """What becomes the last good release without a job: the manifest's `adopted`, as long as
    nothing was ever offered. A state that was lost after that is none that begins."""
    adopted = manifest.adopted if manifest else None
    has_begun = state.sequence > 0 or state.last_good is not None
    is_new = adopted is not None and not has_begun and state.standing(adopted.sha256) is None
    return adopted if is_new else None


def adopt_release(run: Run) -> None:
    """Takes what devices run already for the last good release, so that the first one has a way
    back."""
    adopted = find_adopted(run.manifest, run.state)
    if adopted is None:
        return
    why = "devices ran it before the channel's first release"
    set_standing(run, adopted, "good", why)
    run.update(last_good=adopted, adopted=adopted.sha256)
    run.tell("adopted", why, version=adopted.version)


# The candidate's rings


def move_on(run: Run) -> None:
    """Moves the candidate on, else takes up the manifest's release where it may be released."""
    candidate = _current_candidate(run)
    if candidate is None:
        _consider_release(run)
        return
    if run.observed.image_problems.get(candidate.firmware.key):
        _excuse(run, candidate.firmware.sha256)
    unproved = [o for o in run.state.wanted("prove") if o.phase in UNPROVED]
    waits = [waiting for offer in unproved if (waiting := _prove_ring(run, candidate, offer))]
    if waits:
        run.waiting = waits[0]
        return
    for ring in candidate.manifest.rings:
        if run.state.proof(ring.name) is None:
            run.waiting = close_door(run, candidate.manifest, ring) or _start_ring(
                run, candidate, ring
            )
            return
    _complete_release(run, candidate)


def _current_candidate(run: Run) -> Candidate | None:
    """The candidate as the manifest has it now; None when the manifest takes it back."""
    candidate, manifest, good = run.state.candidate, run.manifest, run.state.last_good
    if candidate is None or manifest is None:
        return candidate
    if manifest.firmware == candidate.firmware:
        return _update_manifest(run, candidate, manifest)
    if good and manifest.firmware.sha256 == good.sha256:
        fail_candidate(run, candidate, REVERTED, refuse=False)
        return None
    if refusal(run, manifest):
        return candidate
    why = f"the stack file names {manifest.firmware.version}"
    run.tell("superseded", why, version=candidate.firmware.version)
    withdraw_candidate(run, candidate, why)
    return None


def _update_manifest(run: Run, candidate: Candidate, manifest: Manifest) -> Candidate:
    """The candidate under new settings. A ring that these no longer have is left."""
    candidate = replace(candidate, manifest=manifest)
    run.update(candidate=candidate)
    set_one_way(run, candidate.firmware, one_way=manifest.rollback == "forbidden")
    for offer in run.state.wanted("prove"):
        if manifest.ring(offer.ring) is None:
            end_offer(run, offer, f"the stack file has no ring {offer.ring} any more")
    return candidate


def _prove_ring(run: Run, candidate: Candidate, offer: Offer) -> Waiting | None:
    """Follows the ring's gate: what it waits for; None once it has passed."""
    ring, job = candidate.manifest.ring(offer.ring), run.job(offer)
    if not run.has_group(offer.ring):
        return _no_group(offer.ring)
    if ring is None or job is None or offer.phase is Phase.MAKING:
        return _waiting_for_job(offer.ring)
    manifest, orders = candidate.manifest, run.observed.orders
    seen = gates.Seen(
        alarms=run.observed.alarms,
        is_approved=is_approved(manifest, orders, ring.name),
        is_approved_empty=is_approved(manifest, orders, ring.name, size=0),
        is_fleet_empty=run.observed.is_fleet_empty,
        now=run.now,
    )
    since, verdict = gates.judge_ring(ring, offer, job, seen)
    if since != offer.healthy_since:
        offer = change_offer(run, offer, healthy_since=since)
    waiting = verdict if isinstance(verdict, Waiting) else _hold_reason(run, manifest)
    if waiting:
        return waiting
    pass_offer(run, offer, job.counts)
    run.tell("passed", f"it met its gate with {job.counts.succeeded} devices", ring.name)
    return None


def _waiting_for_job(ring: str) -> Waiting:
    return Waiting(kind="settling", text="the ring's job is being created", ring=ring)


def _no_group(ring: str) -> Waiting:
    text = f"ring {ring} has no thing group: deploy the stack again"
    return Waiting(kind="refused", text=text, ring=ring)


def _start_ring(run: Run, candidate: Candidate, ring: RingPlan) -> Waiting:
    is_again = any(
        o.ring == ring.name and o.sha256 == candidate.firmware.sha256 for o in run.state.offers
    )
    make_offer(
        run,
        ring.name,
        candidate.firmware,
        "prove",
        downgrade=candidate.downgrade,
        limit=ring.gate.failure_limit,
    )
    again = ", again" if is_again else ""
    run.tell("started", f"{ring.percent:g} % of the fleet{again}", ring.name)
    return _waiting_for_job(ring.name)


def _complete_release(run: Run, candidate: Candidate) -> None:
    good = run.state.last_good
    for offer in run.state.wanted("prove"):
        keep_offer(run, offer)
    set_standing(run, candidate.firmware, "good")
    adopted = run.state.adopted
    run.update(
        candidate=None,
        last_good=candidate.firmware,
        previous_good=good or run.state.previous_good,
        adopted=None if adopted == candidate.firmware.sha256 else adopted,
    )
    run.tell("last-good", "it passed its last ring", version=candidate.firmware.version)


# The one door


def close_door(run: Run, manifest: Manifest, ring: RingPlan) -> Waiting | None:
    """Why a ring may not start now; None when it may. Every start goes through here."""
    held = halt_reason(run) or _hold_reason(run, manifest)
    if held:
        return held
    problems, good = run.observed.image_problems, run.state.last_good
    problem = problems.get(manifest.firmware.key)
    if problem:
        return Waiting(kind="image", text=problem)
    no_way_back = problems.get(good.key) if good else None
    if no_way_back:
        return Waiting(kind="image", text=f"there is no way back: {no_way_back}")
    if not run.has_group(ring.name):
        return _no_group(ring.name)
    for gate in ring.gate.alarms:
        alarm = run.observed.alarms.get(gate.name)
        if alarm and alarm.state == "ALARM":
            text = f"alarm {gate.name} was red before ring {ring.name} started"
            return Waiting(kind="alarms", text=text, ring=ring.name)
    now = to_datetime(run.now)  # compared as times: they keep microseconds only
    opens = next_opening(now, manifest.start_at, manifest.window)
    if opens is None or opens > now:
        text = f"ring {ring.name} starts in its window"
        until = opens.timestamp() if opens else None
        return Waiting(kind="window", text=text, ring=ring.name, until=until)
    return None


def _hold_reason(run: Run, manifest: Manifest) -> Waiting | None:
    """What keeps a ring from passing and the next from starting, apart from the gate."""
    if run.manifest is None:
        return _manifest_refused(run)
    if run.manifest.firmware != manifest.firmware:
        return Waiting(kind="refused", text=refusal(run, run.manifest) or "")
    order = run.observed.orders.paused
    if order:
        return Waiting(kind="paused", text=f"paused by {order.by}: {order.why}")
    if run.manifest.paused:
        return Waiting(kind="paused", text="rollout.paused is true in the stack file")
    return None


def _manifest_refused(run: Run) -> Waiting:
    text = f"the manifest was refused: {run.observed.manifest_problem}"
    return Waiting(kind="refused", text=text)


# A new release


def is_awaited(run: Run) -> bool:
    """Whether the manifest's release may be released, and has yet to start."""
    manifest, state = run.manifest, run.state
    return (
        manifest is not None
        and state.candidate is None
        and not state.is_good(manifest.firmware.sha256)
        and refusal(run, manifest) is None
    )


def _consider_release(run: Run) -> None:
    """Takes up the manifest's release, where that may be released, and starts its first ring when
    it may start."""
    manifest, good = run.manifest, run.state.last_good
    if manifest is None:
        run.waiting = _manifest_refused(run)
        return
    firmware = manifest.firmware
    if good and firmware.sha256 == good.sha256:
        if str(firmware.version) != str(good.version):
            text = f"{firmware.version} is byte for byte the last good {good.version}"
            run.waiting = replace(IDLE, text=f"{text}: there is nothing to install")
        elif run.state.is_adopted:
            text = f"{good.version} was adopted: devices run it already, and no ring is offered it"
            run.waiting = replace(IDLE, text=text)
        return
    why = refusal(run, manifest)
    if why:
        run.waiting = Waiting(kind="refused", text=why)
        return
    closed = close_door(run, manifest, manifest.rings[0])
    run.waiting = closed or _begin_candidate(run, manifest)


def _begin_candidate(run: Run, manifest: Manifest) -> Waiting:
    candidate = Candidate(manifest=manifest, downgrade=_is_downgrade(run, manifest.firmware))
    set_standing(run, manifest.firmware, "candidate")
    set_one_way(run, manifest.firmware, one_way=manifest.rollback == "forbidden")
    run.update(candidate=candidate)
    return _start_ring(run, candidate, manifest.rings[0])


def _is_downgrade(run: Run, firmware: Firmware) -> bool:
    """Whether devices must be told that an older version is meant: also after a release that was
    superseded or halted."""
    return any(firmware.version < version for version in known_versions(run.state.releases))


def refusal(run: Run, manifest: Manifest) -> str | None:
    """Why this firmware may not be released at all; None when it may."""
    firmware, state = manifest.firmware, run.state
    release = state.releases.get(firmware.sha256)
    if release and release.standing == "refused":
        return (
            f"{firmware.version} with this digest is refused: {release.why}; release a new version"
        )
    known = known_versions(state.releases).get(firmware.version)
    if known and known != firmware.sha256:
        return (
            f"{firmware.version} was released with digest {known[:12]}...; a version keeps its"
            " digest: raise the version"
        )
    good, previous = state.last_good, state.previous_good
    if good is None or firmware.allow_downgrade or firmware.version > good.version:
        return None
    if previous and firmware.sha256 == previous.sha256:
        return None
    return (
        f"{firmware.version} is not above the last good {good.version}: set"
        " firmware.allowDowngrade to release it"
    )
