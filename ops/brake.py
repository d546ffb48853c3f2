"""Pause, halt, resume: the commands for when something is, or may be, wrong."""

from __future__ import annotations

from dataclasses import replace

from botocore.exceptions import BotoCoreError, ClientError

from ops.channel import Channel, Memory, Orders, unreadable
from ops.desk import Desk, Seen, given, recorded, told
from ops.errors import OpsError, explain
from ops.words import clean, devices, named
from rollout.observed import OPERATOR_HALT, Counts, Job
from rollout.release import Manifest
from rollout.rings import RESERVED
from rollout.state import Candidate, Control, Names, Order, ResumeOrder, State

NO_HALT = "none"
"""What a resume names that only ends a pause, or a halt that stands in control.json: so it is
recorded all the same."""


def pause(desk: Desk) -> int:
    """No further ring starts, no ring passes; what is out goes on."""
    seen = desk.look()
    if seen.orders.problem:
        raise OpsError(unreadable(desk.stack, seen.orders.problem))
    if seen.orders.control.paused:
        desk.terminal.say(
            f"Already paused: {told(seen.orders.control.paused)}. Nothing was changed."
        )
        return 0
    lines = [
        (
            "Pauses: no release and no ring starts, and no ring passes, until"
            f" `{desk.stack.command('resume')}`."
        ),
        *_out(desk, seen),
        "A ring that fails is still stopped and rolled back.",
    ]
    desk.order(lines, lambda control, order: replace(control, paused=control.paused or order))
    return 0


def _out(desk: Desk, seen: Seen) -> list[str]:
    """What a pause does not stop: jobs that are out."""
    if seen.memory.distrusted:
        return [f"The controller stands still already: {clean(seen.memory.distrusted.why)}."]
    state = seen.memory.state
    jobs = desk.channel.jobs(
        name for name in seen.live if state and name in unproved(state, desk.channel.names)
    )
    lines = [
        f"Job {name} goes on: {devices(job.counts.queued)} queued, {job.counts.in_progress} in"
        f" progress; only `{desk.stack.command('halt')}` stops it."
        for name, job in jobs.items()
    ]
    return lines or ["No release is being proved at this moment."]


def halt(desk: Desk) -> int:
    """Stops the release being proved: in control.json, and, for when the controller is down, its
    jobs themselves.

    A brake works as far as it can: what fails is told at the end, and does not keep the rest from
    happening.
    """
    order = desk.agreed(_halting(desk))
    problems = [
        problem for problem in (_write_halt(desk, order), _cancel_unproved(desk, order)) if problem
    ]
    if problems:
        raise OpsError("; ".join(problems))
    desk.terminal.say(f"Halted. `{desk.stack.command('resume')}` ends it.")
    return 0


def _halting(desk: Desk) -> list[str]:
    """What a halt will do, as far as that can be told."""
    lines = [f"Halts: no ring starts and no ring passes until `{desk.stack.command('resume')}`."]
    try:
        orders = desk.channel.orders()
        if orders.problem:
            lines = [
                "control.json is unreadable, which the controller takes for a halt; it stays as it"
                f" is ({orders.problem})."
            ]
        elif orders.control.halted:
            lines = [
                f"Already halted: {told(orders.control.halted)}. That order stays; what is still"
                " live is cancelled."
            ]
        return lines + _cancelling(desk)
    except (ClientError, BotoCoreError) as error:
        return [
            *lines,
            f"Cancels the jobs of an unproved release. Which, cannot be told: {explain(error)}",
        ]


def _cancelling(desk: Desk) -> list[str]:
    live = desk.channel.live_jobs()
    state, problem = _memory_or_problem(desk, live)
    lines = []
    if problem:
        lines.append(
            f"The controller's memory cannot be used: {problem}. So every job that may carry an"
            " unproved release is"
        )
        lines.append(
            "cancelled: those with abort criteria, and those of the newest offer unless it takes"
            " devices back."
        )
    chosen = to_cancel(desk.channel, live, state)
    for name in chosen:
        job = desk.channel.describe(name) or {}
        counts = Counts.of(job.get("jobProcessDetails") or {})
        lines.append(
            f"Cancels {name} ({clean(job.get('description', ''))}): {devices(counts.queued)} queued"
            f" will not get it, {counts.in_progress} in progress go on, {counts.succeeded} run it"
            " already and stay on it."
        )
    if chosen:
        lines.append(
            f"A halt does not bring devices back: that is `{desk.stack.command('rollback')}`."
        )
    else:
        lines.append("No live job carries an unproved release: there is none to cancel.")
    if len(live) > len(chosen):
        lines.append(
            f"Leaves {len(live) - len(chosen)} live job(s) that give devices what was proved, a"
            " rollback's too."
        )
    return lines


def _memory_or_problem(desk: Desk, live: list[str]) -> tuple[State | None, str | None]:
    """The state, or why it cannot be used: a halt needs no more than the list of jobs."""
    try:
        memory = desk.channel.memory(live)
    except (ClientError, BotoCoreError) as error:
        return None, explain(error)
    return memory.state, clean(memory.distrusted.why) if memory.distrusted else None


def _write_halt(desk: Desk, order: Order) -> str | None:
    """Why control.json could not be written; None when the halt stands in it."""
    try:
        if desk.channel.orders().problem:
            return None
        control = desk.channel.change(
            lambda control: replace(control, halted=control.halted or order)
        )
    except (ClientError, BotoCoreError) as error:
        return f"control.json could not be written: {explain(error)}"
    except OpsError as error:
        return str(error)
    if order in given(control):
        desk.terminal.say(recorded(order))
    return None


def _cancel_unproved(desk: Desk, order: Order) -> str | None:
    """Cancels the jobs; looks again for them, since until the order stood the controller may have
    started another ring."""
    try:
        live = desk.channel.live_jobs()
        for name in to_cancel(desk.channel, live, _memory_or_problem(desk, live)[0]):
            ended = desk.channel.cancel(name, clean(f"halted by {order.by}: {order.why}"))
            desk.terminal.say(f"Cancelled {name}." if ended else f"{name} had ended already.")
    except (ClientError, BotoCoreError) as error:
        return f"jobs may still be live: {explain(error)}"
    return None


def to_cancel(channel: Channel, live: list[str], state: State | None) -> list[str]:
    """The live jobs that a halt ends."""
    if state:
        return [name for name in live if name in unproved(state, channel.names)]
    return [name for name in live if name in suspects(live, channel.jobs(live), channel.names)]


def unproved(state: State, names: Names) -> set[str]:
    """Jobs that carry what nobody has proved: the candidate's open rings', and those of releases
    that were dropped."""
    rings = state.candidate.rings if state.candidate else {}
    found = {
        names.job(ring, progress.offer.sequence)
        for ring, progress in rings.items()
        if progress.passed_at is None
    }
    return found | set(state.exposing) | set(state.rollback.exposing if state.rollback else ())


def suspects(live: list[str], jobs: dict[str, Job], names: Names) -> set[str]:
    """Without the state: jobs with abort criteria, which only an unproved release has, and those of
    the newest offer.

    Where the newest offer is a rollback's, its jobs take devices back and are left alone.
    """
    armed = {name for name, job in jobs.items() if job.armed}
    newest = max((names.sequence(name) or 0 for name in live), default=0)
    if names.job(RESERVED, newest) in live:
        return armed
    return armed | {name for name in live if names.sequence(name) == newest}


def resume(desk: Desk) -> int:
    """Clears pause and halt in control.json, and names the standing halt of the controller."""
    seen = desk.look()
    control, problem = seen.orders.control, seen.orders.problem
    if problem and not desk.args.replace:
        raise OpsError(unreadable(desk.stack, problem))
    halt_id = _standing(seen.memory)
    ordered = control.resume if control.resume and control.resume.halt == halt_id else None
    lines = _clearing(seen.orders)
    if ordered:
        lines.append(
            f"The end of halt {halt_id} is ordered already, {told(ordered.order)}; the controller"
            " has yet to run."
        )
    elif halt_id:
        lines += _ending(desk, seen, halt_id)
    notes = _file_notes(desk.channel.manifest()[0])
    if not (problem or control.paused or control.halted or (halt_id and not ordered)):
        nothing = (
            "There is nothing to resume: no pause and no halt in control.json, and no halt of the"
            " controller's own."
        )
        desk.terminal.say(*(lines or [nothing]), *notes)
        return 0
    if seen.memory.state and seen.memory.state.candidate:
        lines += _goes_on(desk, seen.memory.state.candidate)

    def change(now: Control, order: Order) -> Control:
        if (now.paused, now.halted) != (control.paused, control.halted):
            raise OpsError(
                "somebody else paused, halted or resumed meanwhile: look again with `status`;"
                " nothing was changed"
            )
        return replace(
            now, paused=None, halted=None, resume=ResumeOrder(halt=halt_id or NO_HALT, order=order)
        )

    desk.order([*lines, *notes], change, replace_unreadable=bool(problem))
    return 0


def _standing(memory: Memory) -> str | None:
    """The id of the halt that only a resume ends."""
    if memory.distrusted:
        return memory.distrusted.halt
    return memory.state.halt.id if memory.state and memory.state.halt else None


def _clearing(orders: Orders) -> list[str]:
    lines = []
    if orders.problem:
        lines.append(
            f"Replaces control.json, which is unreadable ({orders.problem}): every order in it is"
            " lost, approvals too."
        )
    if orders.control.paused:
        lines.append(f"Ends the pause: {told(orders.control.paused)}.")
    if orders.control.halted:
        lines.append(f"Ends the halt: {told(orders.control.halted)}.")
    return lines


def _ending(desk: Desk, seen: Seen, halt_id: str) -> list[str]:
    memory = seen.memory
    if memory.distrusted is None:
        why = memory.state.halt.why if memory.state and memory.state.halt else ""
        return [f"Ends the controller's halt {halt_id}: {clean(why)}."]
    manifest, problem = desk.channel.manifest()
    then = (
        f"{named(manifest.firmware)} starts as new at ring {manifest.rings[0].name}"
        if manifest
        else f"nothing starts: {problem}"
    )
    return [
        f"Starts afresh, {halt_id}: {clean(memory.distrusted.why)}.",
        (
            "The controller forgets what was last good, what it refused and which devices were"
            " exposed: it knows no way back."
        ),
        (
            f"Every live job of the channel is cancelled ({len(seen.live)}); what devices have"
            f" begun goes on. Then {then}."
        ),
    ]


def _goes_on(desk: Desk, candidate: Candidate) -> list[str]:
    unproved = {
        ring: progress for ring, progress in candidate.rings.items() if progress.passed_at is None
    }
    names = {
        ring: desk.channel.names.job(ring, progress.offer.sequence)
        for ring, progress in unproved.items()
    }
    jobs = desk.channel.jobs(names.values())
    stopped = {
        ring: job for ring, name in names.items() if (job := jobs.get(name)) and not job.live
    }
    again = [
        r
        for r, p in unproved.items()
        if p.withdrawn or (r in stopped and stopped[r].reason == OPERATOR_HALT)
    ]
    ended = [ring for ring in stopped if ring not in again]
    lines = [
        f"{named(candidate.firmware)} is offered to ring {ring} again, under a new sequence."
        for ring in again
    ]
    lines += [
        f"The job of ring {ring} was cancelled by hand, and the controller has not seen it yet: it"
        f" will halt, and `{desk.stack.command('resume')}` is needed once more."
        for ring in ended
    ]
    return lines or [f"{named(candidate.firmware)} goes on where it stands."]


def _file_notes(manifest: Manifest | None) -> list[str]:
    if manifest is None:
        return []
    words = {"paused": manifest.paused, "halted": manifest.halted}
    return [
        f"The stack file still holds it: rollout.{word} is true there; set it to false and deploy."
        for word, on in words.items()
        if on
    ]
