"""Watches a release until it ends: live progress, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rollout.observed import Counts
from rollout.release import Firmware
from rollout.state import NEEDS_A_PERSON, Event, State
from sandbox.place import SandboxError
from sandbox.session import Sandbox, shown_offers

TICK_SECONDS = 1.0
"""On AWS the controller's tick is a minute; in the sandbox this program wakes it."""
SETTLED_TICKS = 2
"""So often in a row an end must be seen: a run of the controller may be answered by what another
just decided."""
BAR = 30
"""Characters of a ring's bar."""
SHARES = (
    ("succeeded", "green"),
    ("failing", "red"),
    ("in_progress", "yellow"),
    ("queued", "bright_black"),
)


@dataclass(frozen=True, kw_only=True)
class View:
    """What one tick saw."""

    state: State | None
    rings: Mapping[str, tuple[str, Counts]] = field(default_factory=dict)
    """By ring: the version its job installs, and the job's counts."""
    trouble: str | None = None
    """What the controller itself failed on, or does not trust."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a release."""

    good: bool
    story: tuple[str, ...]
    """In sentences, the outcome first."""
    versions: Mapping[str, str]
    """By serial: what the device runs; empty where it has not said."""


def follow(sandbox: Sandbox, *, limit: float, show: Callable[[View], None]) -> Verdict:
    """Wakes the controller every second until the release ended well, ended badly, or `limit`
    seconds have passed.

    The devices must be connected meanwhile. `show` is given what each tick saw.
    """
    target = sandbox.manifest().firmware
    deadline = time.monotonic() + limit
    ends: Counter[str] = Counter()
    while True:
        view = look(sandbox)
        show(view)
        end = ending(view, target)
        reported = sandbox.reported() if end == "good" else {}
        if reported and all(
            firmware.get("sha256") == target.sha256 for firmware in reported.values()
        ):
            versions = dict.fromkeys(reported, target.version)
            return Verdict(
                good=True,
                story=(f"every device runs {target.version}, and it is the last good release",),
                versions=versions,
            )
        ends = Counter({end: ends[end] + 1}) if end else Counter()
        if end not in ("", "good") and ends[end] > SETTLED_TICKS:
            return Verdict(good=False, story=told(sandbox, view, target), versions=runs(sandbox))
        if time.monotonic() > deadline:
            late = (
                f"{target.version} is not on every device after {limit:.0f} seconds; `make up`"
                " goes on"
            )
            return Verdict(
                good=False, story=(late, *told(sandbox, view, target)), versions=runs(sandbox)
            )
        time.sleep(TICK_SECONDS)


def look(sandbox: Sandbox) -> View:
    """Wakes the controller and reads what came of it."""
    trouble = None
    try:
        answer = sandbox.wake()
        if answer.get("outcome") == "distrusted":
            trouble = str(answer["waiting"])
    except SandboxError as error:
        trouble = str(error)
    state = sandbox.state()
    rings = {}
    for ring, offer in shown_offers(state, sandbox.rings).items() if state else ():
        if counts := sandbox.counts(ring, offer):
            rings[ring] = (offer.firmware.version, counts)
    return View(state=state, rings=rings, trouble=trouble)


def ending(view: View, target: Firmware) -> str:
    """In a word, how the release ended; empty while it goes on."""
    if view.trouble:
        return "trouble"
    state = view.state
    if state is None or (
        state.rollback
        and state.rollback.done_at is None
        and state.waiting.kind != "rollback-failed"
    ):
        return ""
    if state.last_good and state.last_good.sha256 == target.sha256 and state.candidate is None:
        return "good"
    if target.sha256 in state.refused:
        return "refused"
    return state.waiting.kind if state.waiting.kind in NEEDS_A_PERSON else ""


def told(sandbox: Sandbox, view: View, target: Firmware) -> tuple[str, ...]:
    """The story of a release that did not end well."""
    if view.trouble or view.state is None:
        return (
            f"{target.version} is not released: {view.trouble or 'the controller has not run'}",
        )
    state, lines = view.state, []
    if target.sha256 in state.refused:
        rollback = state.rollback
        back = (
            state.last_good.version if state.last_good else "nothing: there is no last good release"
        )
        lines.append(
            f"{target.version} was stopped" + (f" and rolled back to {back}" if rollback else "")
        )
        lines.append(f"why: {state.refused[target.sha256]}")
        if rollback:
            returned = ", ".join(sandbox.rolled_back(rollback.offer.sequence))
            lines.append(f"brought back: {returned or 'the devices that had it'}")
    else:
        lines.append(f"{target.version} waits: {state.waiting.text}")
    lines += [event_line(event) for event in state.decisions[-5:]]
    return tuple(lines)


def runs(sandbox: Sandbox) -> dict[str, str]:
    """By serial: the version that the device reports."""
    return {
        serial: str(firmware.get("version", "")) for serial, firmware in sandbox.reported().items()
    }


def event_line(event: Event) -> str:
    where = f" {event.ring}" if event.ring else ""
    version = f" {event.version}" if event.version else ""
    clock = datetime.fromtimestamp(event.at).astimezone().strftime("%H:%M:%S")
    return f"{clock} {event.what}{version}{where}: {event.why}"


class Screen:
    """Shows a release while it goes on: bars on a terminal, lines elsewhere. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._told: set[tuple[float, str, str | None]] = set()
        self._last = ""

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def known(self, state: State | None) -> None:
        """Decisions made before are not told again."""
        self._told |= {
            (event.at, event.what, event.ring) for event in (state.decisions if state else ())
        }

    def show(self, view: View) -> None:
        """One tick: new decisions as lines, the rings as they are."""
        for event in view.state.decisions if view.state else ():
            if (key := (event.at, event.what, event.ring)) not in self._told:
                self._told.add(key)
                self.console.print(event_line(event), highlight=False, markup=False, soft_wrap=True)
        if self._live:
            self._live.update(picture(view))
            return
        line = "  ".join(
            [*(ring_line(ring, *shown) for ring, shown in view.rings.items()), waiting_line(view)]
        )
        if line != self._last:
            self._last = line
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def ring_line(ring: str, version: str, counts: Counts) -> str:
    numbers = (
        (counts.succeeded, "succeeded"),
        (counts.failing, "failed"),
        (counts.in_progress, "in progress"),
        (counts.queued, "queued"),
    )
    return (
        f"{ring} {version}:"
        f" {', '.join(f'{count} {word}' for count, word in numbers if count) or 'no devices yet'}."
    )


def waiting_line(view: View) -> str:
    if view.trouble:
        return view.trouble
    return view.state.waiting.text if view.state else "waiting for the controller"


def picture(view: View) -> RenderableType:
    """The rings' bars, and what the controller waits for."""
    table = Table.grid(padding=(0, 2))
    for ring, (version, counts) in view.rings.items():
        table.add_row(ring, version, bar(counts), f"{counts.succeeded}/{counts.size}", note(counts))
    return Group(table, Text(waiting_line(view), style="dim"))


def bar(counts: Counts) -> Text:
    """Succeeded, failed, in progress and queued as their parts of one bar."""
    text, begin, total = Text(), 0, max(counts.size, 1)
    done = 0
    for name, style in SHARES:
        done += getattr(counts, name)
        end = round(BAR * done / total)
        text.append("━" * (end - begin), style=style)
        begin = end
    return text


def note(counts: Counts) -> str:
    parts = (
        (counts.failing, "failed"),
        (counts.in_progress, "in progress"),
        (counts.rejected, "rejected"),
    )
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def summary(sandbox: Sandbox, versions: Mapping[str, str]) -> Table:
    """Ring by ring: how many devices run what."""
    table = Table(
        "ring",
        "devices",
        "run",
        title=f"channel {sandbox.channel}, fleet {sandbox.outputs['fleetGroupName']}",
    )
    for ring in sandbox.rings:
        mine = [
            versions.get(serial, "")
            for serial, where in sandbox.outputs["deviceRings"].items()
            if where == ring
        ]
        table.add_row(ring, str(len(mine)), shares(mine))
    return table


def shares(versions: list[str]) -> str:
    counted = sorted(Counter(versions).items(), key=lambda item: -item[1])
    return ", ".join(f"{version or 'not heard of'} ({count})" for version, count in counted)


def device_rows(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Each device: serial, thing, ring and what it reports."""
    reported = sandbox.reported()
    return [
        {
            "serial": serial,
            "thing": thing,
            "ring": sandbox.outputs["deviceRings"][serial],
            **reported[serial],
        }
        for serial, thing in sorted(sandbox.outputs["deviceNames"].items())
    ]
