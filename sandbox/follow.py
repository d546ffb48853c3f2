"""Follows a release until it ends: wakes the controller, looks, and tells what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rich.console import Console
from rich.live import Live

from ops.render import describe_event, is_ascii_only, progress_line, render_progress
from ops.report import Report
from rollout.release import Firmware
from rollout.state import Event
from rollout.waiting import Waiting, needs_a_person
from sandbox.instance import SandboxError
from sandbox.session import Sandbox

TICK_SECONDS = 1.0
"""On AWS the controller's tick is a minute; in the sandbox this program wakes it."""
SETTLED_TICKS = 2
"""So often in a row an end must be seen: a run of the controller may be answered by what another
just decided."""
STORY_EVENTS = 5
"""Decisions, the last ones, in the story of a release that did not end well."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one look at the sandbox saw."""

    report: Report
    trouble: str | None = None
    """What the controller itself failed on, or does not trust."""


@dataclass(frozen=True, kw_only=True)
class ReleaseOutcome:
    """What came of a release."""

    is_good: bool
    story: tuple[str, ...]
    """In sentences, the outcome first."""
    versions: Mapping[str, str]
    """By serial: what the device runs; empty where it has not said."""


def follow(sandbox: Sandbox, *, limit: float, show: Callable[[Report], None]) -> ReleaseOutcome:
    """Wakes the controller every second until the release ended well, ended badly, or `limit`
    seconds have passed.

    The devices must be connected meanwhile. `show` gets what each tick saw.
    """
    target = sandbox.manifest().firmware
    deadline = time.monotonic() + limit
    last_end, ticks = "", 0
    while True:
        tick = look(sandbox)
        show(tick.report)
        end = find_end(tick, target)
        shadows = sandbox.reported() if end == "good" else {}
        if shadows and all(s and s.sha256 == target.sha256 for s in shadows.values()):
            good = f"every device runs {target.version}, and it is the last good release"
            versions = dict.fromkeys(shadows, str(target.version))
            return ReleaseOutcome(is_good=True, story=(good,), versions=versions)
        last_end, ticks = end, ticks + 1 if end == last_end else 1
        is_over = end not in ("", "good") and ticks > SETTLED_TICKS
        if is_over or time.monotonic() > deadline:
            late = f"{target.version} is not on every device after {limit:.0f} seconds"
            story = [] if is_over else [f"{late}; `make up` goes on"]
            story += tell_story(sandbox, tick, target)
            return ReleaseOutcome(
                is_good=False, story=tuple(story), versions=list_versions(sandbox)
            )
        time.sleep(TICK_SECONDS)


def look(sandbox: Sandbox) -> Tick:
    """Wakes the controller and reads what came of it."""
    trouble = None
    try:
        answer = sandbox.wake()
        if answer.get("outcome") == "distrusted":
            trouble = str(answer["waiting"])
    except SandboxError as error:
        trouble = str(error)
    report = sandbox.report()
    if trouble:
        report = replace(report, waiting=Waiting(kind="halted", text=trouble))
    return Tick(report=report, trouble=trouble)


def find_end(tick: Tick, target: Firmware) -> str:
    """In a word, how the release ended; empty while it goes on."""
    report, back, kind = tick.report, tick.report.way_back, tick.report.waiting.kind
    if tick.trouble:
        return "trouble"
    if back and back.done_at is None and kind != "rollback-failed":
        return ""
    good = report.last_good
    if good and good.sha256 == target.sha256 and not is_proving(report):
        return "good"
    return kind if needs_a_person(kind) else ""


def is_proving(report: Report) -> bool:
    return report.release is not None and report.release.phase == "proving"


def tell_story(sandbox: Sandbox, tick: Tick, target: Firmware) -> list[str]:
    """Of a release that did not end well."""
    if tick.trouble:
        return [f"{target.version} is not released: {tick.trouble}"]
    report, back = tick.report, tick.report.way_back
    is_back = back is not None and str(target.version) in back.failed.split(", ")
    if back and back.to and is_back and not is_proving(report):
        devices = ", ".join(sandbox.list_rolled_back(back.group))
        lines = [
            f"{target.version} was stopped and rolled back to {back.to.version}",
            f"why: {back.reason}",
            f"brought back: {devices or 'the devices that had it'}",
        ]
    else:
        lines = [f"{target.version} waits: {report.waiting.text}"]
    events = reversed(report.decisions[:STORY_EVENTS])
    return lines + [describe_with_time(event) for event in events]


def list_versions(sandbox: Sandbox) -> dict[str, str]:
    """By serial: the version that the device reports; empty before its first report."""
    return {
        serial: shadow.version if shadow else "" for serial, shadow in sandbox.reported().items()
    }


def describe_with_time(event: Event) -> str:
    return f"{format_clock(event.at)} {describe_event(event)}"


def format_clock(at: float) -> str:
    """The story of a release in the sandbox is told in minutes: it needs no date."""
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


class Screen:
    """Shows a release while it goes on: bars on a terminal, lines elsewhere. A context manager."""

    def __init__(self, console: Console, known: Iterable[Event] = ()) -> None:
        """The decisions `known` were made before, and are not told again."""
        self.console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._known = set(known)
        self._last: object = None

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, report: Report) -> None:
        """One tick: new decisions as lines, the rings as they are."""
        for event in reversed(report.decisions):
            if event not in self._known:
                self._known.add(event)
                say(self.console, describe_with_time(event))
        if self._live:
            self._live.update(render_progress(report, ascii_only=is_ascii_only(self.console)))
            return
        seen = ([(ring.name, ring.version, ring.counts) for ring in report.rings], report.waiting)
        if seen != self._last:
            self._last = seen
            say(self.console, progress_line(report))


def say(console: Console, text: str) -> None:
    """Prints text as it stands."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
