"""`pause`: no further ring starts, and none passes."""

from __future__ import annotations

from dataclasses import replace

from ops.command import Command, Subparsers, add_changing_command
from ops.halt import list_unproved_jobs
from ops.render import describe_order
from ops.snapshot import Snapshot, take_snapshot
from ops.terminal import say
from ops.text import count_devices, one_line


def add_parser(commands: Subparsers) -> None:
    text = "Hold the next ring; what is out goes on"
    add_changing_command(commands, "pause", text, lambda command, _: pause(command))


def pause(command: Command) -> None:
    """No further ring starts, no ring passes; what is out goes on."""
    snapshot = take_snapshot(command.channel)
    command.check_readable(snapshot.orders_file)
    paused = snapshot.orders.paused
    if paused:
        say(f"Already paused: {describe_order(paused)}. Nothing was changed.")
        return
    resume = command.stack.command("resume")
    lines = [
        f"Pauses: no release and no ring starts, and no ring passes, until `{resume}`.",
        *_describe_running(command, snapshot),
        "A ring that fails is still stopped and rolled back.",
    ]
    command.give_order(lines, lambda now, order: replace(now, paused=now.paused or order))


def _describe_running(command: Command, snapshot: Snapshot) -> list[str]:
    """What a pause does not stop: jobs that are out."""
    if snapshot.untrusted:
        return [f"The controller stands still already: {one_line(snapshot.untrusted.why)}."]
    unproved = list_unproved_jobs(snapshot.state, command.channel.names) if snapshot.state else ()
    jobs = command.channel.jobs.get_all(job for job in snapshot.live_jobs if job in unproved)
    halt = command.stack.command("halt")
    lines = [
        f"Job {name} goes on: {count_devices(job.counts.queued)} queued,"
        f" {job.counts.in_progress} in progress; only `{halt}` stops it."
        for name, job in jobs.items()
    ]
    return lines or ["No release is being proved at this moment."]
