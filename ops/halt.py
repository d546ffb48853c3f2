"""`halt`: the release being proved is stopped, in control.json and, for when the controller is
down, by cancelling its jobs."""

from __future__ import annotations

from dataclasses import replace

from cloud.channel import Channel
from cloud.clients import AWS_ERRORS
from ops.command import Command, Subparsers, add_changing_command
from ops.errors import OpsError, explain
from ops.render import describe_order
from ops.snapshot import list_live_jobs
from ops.terminal import say
from ops.text import count_devices, one_line
from rollout.names import OPERATOR_HALT, ROLLBACK, Names
from rollout.observed import Job
from rollout.orders import Order
from rollout.state import Phase, State
from rollout.trust import UntrustedState


def add_parser(commands: Subparsers) -> None:
    text = "Stop the release being proved: also its jobs, also with the controller down"
    add_changing_command(commands, "halt", text, lambda command, _: halt(command))


def halt(command: Command) -> None:
    """Writes the order and cancels the jobs, each as far as it can be done: what fails is told at
    the end, and does not keep the rest from happening."""
    order = command.ask_order(_describe_halt(command))
    problems = []
    try:
        # what cannot be read is replaced: the brake must not wait for whoever mends it
        command.write_order(
            order,
            lambda now, new: replace(now, halted=now.halted or new),
            replace_unreadable=True,
        )
    except AWS_ERRORS as error:
        problems.append(f"control.json could not be written: {explain(error)}")
    except OpsError as error:
        problems.append(str(error))
    try:
        _cancel_unproved_jobs(command.channel, order)
    except AWS_ERRORS as error:
        problems.append(f"jobs may still be live: {explain(error)}")
    if problems:
        raise OpsError("; ".join(problems))
    say(f"Halted. `{command.stack.command('resume')}` ends it.")


def _describe_halt(command: Command) -> list[str]:
    """What a halt will do, as far as that can be told."""
    lines = [f"Halts: no ring starts and no ring passes until `{command.stack.command('resume')}`."]
    try:
        file = command.channel.orders()
        if file.problem:
            lines = [
                *lines,
                f"Replaces control.json, which is unreadable ({one_line(file.problem)}):",
                "every order in it is lost, approvals too (the bucket keeps the old version).",
            ]
        elif file.orders.halted:
            lines = [
                f"Already halted: {describe_order(file.orders.halted)}.",
                "That order stays; what is still live is cancelled.",
            ]
        return lines + _describe_cancels(command)
    except AWS_ERRORS as error:
        unknown = f"Which, cannot be told: {explain(error)}"
        return [*lines, f"Cancels the jobs of an unproved release. {unknown}"]


def _describe_cancels(command: Command) -> list[str]:
    live, lines = list_live_jobs(command.channel), []
    state, problem = _try_state(command.channel, live)
    if problem:
        lines += [
            f"The controller's state cannot be used: {problem}.",
            "So every job that may carry an unproved release is cancelled: those with abort",
            "criteria, and those of the newest offer unless it takes devices back.",
        ]
    cancelled = command.channel.jobs.get_all(choose_jobs_to_cancel(command.channel, live, state))
    for name, job in cancelled.items():
        queued, counts = count_devices(job.counts.queued), job.counts
        lines.append(
            f"Cancels {name} ({one_line(job.description)}): {queued} queued will not get it,"
            f" {counts.in_progress} in progress go on,"
            f" {counts.succeeded} run it already and stay on it."
        )
    if cancelled:
        back = command.stack.command("rollback")
        lines.append(f"A halt does not bring devices back: that is `{back}`.")
    else:
        lines.append("No live job carries an unproved release: there is none to cancel.")
    left = len(live) - len(cancelled)
    if left > 0:
        lines.append(f"Leaves {left} live job(s) that give what was proved, a rollback's too.")
    return lines


def _try_state(channel: Channel, live: list[str]) -> tuple[State | None, str | None]:
    """The state, or why it cannot be used: a halt needs no more than the list of jobs."""
    try:
        stored = channel.current_state(live)
    except UntrustedState as untrusted:
        return None, one_line(untrusted.why)
    except AWS_ERRORS as error:
        return None, explain(error)
    return stored.state if stored else None, None


def _cancel_unproved_jobs(channel: Channel, order: Order) -> None:
    """Looks again for the jobs: until the order stood the controller may have started a ring."""
    live = list_live_jobs(channel)
    for name in choose_jobs_to_cancel(channel, live, _try_state(channel, live)[0]):
        comment = one_line(f"halted by {order.by}: {order.why}")
        was_live = channel.jobs.cancel(name, OPERATOR_HALT, comment)
        say(f"Cancelled {name}." if was_live else f"{name} had ended already.")


def choose_jobs_to_cancel(channel: Channel, live: list[str], state: State | None) -> list[str]:
    """The live jobs that a halt ends: those known, or without a state suspected, to carry what
    nobody has proved, and those that others made under the channel's prefix."""
    foreign = channel.unknown_jobs(reversed(live), ()).foreign
    if state:
        unproved = list_unproved_jobs(state, channel.names)
    else:
        ours = [name for name in live if name not in foreign]
        unproved = guess_unproved_jobs(ours, channel.jobs.get_all(ours), channel.names)
    return [name for name in live if name in unproved | foreign]


def list_unproved_jobs(state: State, names: Names) -> set[str]:
    """Jobs that carry what nobody has proved: the candidate's in rings that have not passed, and
    those of releases that were dropped."""
    return {
        names.job(offer.ring, offer.sequence)
        for offer in state.offers
        if offer.aim == "prove" and offer.phase is not Phase.PASSED
    }


def guess_unproved_jobs(live: list[str], jobs: dict[str, Job], names: Names) -> set[str]:
    """Without the state: jobs with abort criteria, which only an unproved release has, and those of
    the newest offer.

    Where the newest offer is a rollback's, its jobs take devices back and are left alone.
    """
    armed = {name for name, job in jobs.items() if job.armed}
    newest = max((names.job_sequence(name) or 0 for name in live), default=0)
    if names.job(ROLLBACK, newest) in live:
        return armed
    return armed | {name for name in live if names.job_sequence(name) == newest}
