"""Reports as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops.brake import NO_HALT
from ops.status import FINE, NEEDED
from ops.words import clean, devices, length, since, until, when

BAR = 20
"""Characters of a ring's bar."""
MARKS = {
    "succeeded": ("█", "#", "green"),
    "failed": ("✗", "x", "red"),
    "timedOut": ("!", "!", "magenta"),
    "inProgress": ("▒", "~", "yellow"),
    "queued": ("·", ".", "dim"),
    "rejected": ("r", "r", "blue"),
}
"""By count: its mark in a bar, the mark where the terminal has only ASCII, its colour."""
COUNTS = (
    ("queued", "queued"),
    ("inProgress", "in progress"),
    ("succeeded", "succeeded"),
    ("failed", "failed"),
    ("timedOut", "timed out"),
    ("rejected", "rejected"),
)
VERDICTS = {FINE: ("Fine: nobody is needed.", "green"), NEEDED: ("A person is needed:", "bold red")}
UNTOLD_VERDICT = ("Cannot tell: the controller has not run yet.", "yellow")


def status(report: Mapping[str, Any], *, ascii_only: bool) -> RenderableType:
    """The whole report, for a terminal."""
    now = report["at"]
    parts: list[RenderableType] = [
        _title(report),
        *_verdict(report),
        Text(),
        *_release(report, now),
        Text(),
    ]
    parts += [_rings(report, ascii_only), _legend(ascii_only)]
    for heading, lines in (
        ("Gates", _gates(report, now)),
        ("Rollback", _rollback(report, now)),
        ("Orders in control.json", _orders(report)),
        ("Why devices fail", _failures(report)),
        ("Alarms", _alarms(report)),
        ("Last decisions", _decisions(report)),
    ):
        found = list(lines)
        if found:
            parts += [Text(), Text(heading, style="bold"), *(Text(f"  {line}") for line in found)]
    return Group(*parts)


def _title(report: Mapping[str, Any]) -> Text:
    stack = report["stack"]
    title = f"Channel {stack['channel']} of {stack['fleet']} ({stack['region']})"
    return Text.assemble((title, "bold"), f", {when(report['at'])}")


def _verdict(report: Mapping[str, Any]) -> Iterator[Text]:
    text, style = VERDICTS.get(report["code"], UNTOLD_VERDICT)
    yield Text(text, style=style)
    for need in report["needs"]:
        yield Text(f"  - {need}", style=style)


def _release(report: Mapping[str, Any], now: float) -> Iterator[Text]:
    release, manifest, waiting = report["release"], report["manifest"], report["waiting"]
    if release:
        begun = f", since {since(release['since'], now)}" if release["since"] else ""
        yield Text(
            f"Release     {_named(release)}, {release['phase']}, sequence"
            f" {release['sequence']}{begun}"
        )
    else:
        yield Text("Release     none yet")
    if manifest["version"] and (release is None or manifest["sha256"] != release["sha256"]):
        yield Text(f"Stack file  names {_named(manifest)}")
    elif manifest["problem"]:
        yield Text(f"Stack file  its manifest cannot be read: {manifest['problem']}")
    where = f"ring {waiting['ring']}: " if waiting["ring"] else ""
    ends = f" ({until(waiting['until'], now)})" if waiting["until"] else ""
    yield Text(f"Waits for   {where}{waiting['text']}{ends}")
    yield Text(f"            ends when {waiting['endsWhen']}")
    back = report["previousGood"]
    yield Text(f"Last good   {_named(report['lastGood'])}; before it {_named(back)}")
    if report["halt"]:
        yield Text(
            f"Halt        {report['halt']['id']}: {report['halt']['why']}. It ends with"
            f" `{report['halt']['end']}`"
        )
    yield Text(f"Controller  {_controller(report['controller'], now)}")


def _controller(controller: Mapping[str, Any], now: float) -> str:
    last, changed = controller["lastRun"], controller["stateChanged"]
    ran = f"ran in the minute of {since(last, now)}" if last else "did not run in the last hour"
    return f"{ran}; its state last changed {since(changed, now)}" if changed else ran


def _named(firmware: Mapping[str, Any] | None) -> str:
    return f"{firmware['version']} (sha256 {firmware['sha256'][:12]}...)" if firmware else "none"


def _rings(report: Mapping[str, Any], ascii_only: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Ring", "Phase", "Version", "Devices"):
        table.add_column(column, no_wrap=True)
    table.add_column()
    for ring in report["rings"]:
        counts = ring["counts"]
        bar = _bar(counts or {}, ascii_only)
        table.add_row(
            Text(ring["name"]), ring["phase"], Text(ring["version"] or "-"), bar, _figures(counts)
        )
    return table


def _figures(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "no job"
    return (
        ", ".join(f"{counts[key]} {title}" for key, title in COUNTS if counts[key])
        or "no device yet"
    )


def _bar(counts: Mapping[str, int], ascii_only: bool) -> Text:
    """The ring as a bar: whatever is there at all has at least one mark."""
    sizes = {key: counts.get(key, 0) for key in MARKS}
    total, bar = sum(sizes.values()), Text()
    for key, size in sizes.items():
        mark, plain, style = MARKS[key]
        bar.append(
            (plain if ascii_only else mark) * (max(1, size * BAR // total) if size else 0),
            style=style,
        )
    bar.truncate(BAR + len(MARKS))
    return bar


def _legend(ascii_only: bool) -> Text:
    legend = Text("  ")
    for key, (mark, plain, style) in MARKS.items():
        legend.append(f"{plain if ascii_only else mark} ", style=style)
        legend.append(f"{dict(COUNTS)[key]}  ", style="dim")
    return legend


def _gates(report: Mapping[str, Any], now: float) -> Iterator[str]:
    """Thresholds beside the figures, for the rings that are measured now."""
    for ring in report["rings"]:
        gate = ring["gate"]
        if ring["phase"] != "proving":
            continue
        failing = gate["failing"]
        yield (
            f"{ring['name']}: finished {_share(gate['coverage']['percent'])} of at least"
            f" {gate['coverage']['wanted']:g} %, "
            + f"succeeded {_share(gate['success']['percent'])} of at least"
            f" {gate['success']['wanted']:g} % and {gate['succeeded']['devices']} of at least"
            f" {gate['succeeded']['wanted']}"
        )
        yield (
            f"  fails above {failing['limit']:g} % failed or timed out, once {failing['minimum']}"
            f" have finished: now {_share(failing['percent'])}; {_soak(gate['soak'], now)}"
        )
        if gate["approval"]["wanted"]:
            yield (
                f"  needs an approval: {'given' if gate['approval']['given'] else 'not given yet'}"
            )
        if gate["deadline"]:
            yield f"  deadline {when(gate['deadline'])}"


def _share(percent: float | None) -> str:
    return "nothing yet" if percent is None else f"{percent:g} %"


def _soak(soak: Mapping[str, Any], now: float) -> str:
    if soak["until"] is None:
        return f"the soak of {length(soak['minutes'] * 60)} has not begun"
    return f"soaks {until(soak['until'], now)}" if soak["until"] > now else "the soak is over"


def _rollback(report: Mapping[str, Any], now: float) -> Iterator[str]:
    back = report["rollback"]
    if back is None:
        return
    yield f"{back['from']} was taken back to {_named(back['to'])}: {back['why']}"
    yield f"began {since(back['startedAt'], now)}" + (
        f"; ended {since(back['doneAt'], now)}" if back["doneAt"] else "; runs"
    )
    yield f"exposed devices: {_figures(back['exposed'])}"
    if back["wholeRings"]:
        yield (
            f"whole rings that go back: {', '.join(back['wholeRings'])}; in all"
            f" {devices(back['back'])} are back"
        )
    if back["failing"]:
        yield f"FAILED on {devices(back['failing'])}"


def _orders(report: Mapping[str, Any]) -> Iterator[str]:
    orders = report["orders"]
    if orders["problem"]:
        yield f"unreadable: {orders['problem']}"
    for word in ("paused", "halted"):
        if orders.get(word):
            yield f"{word} {_given(orders[word])}"
    for approval in orders["approvals"]:
        yield (
            f"ring {approval['ring']} approved for {approval['sha256'][:12]}..."
            f" {_given(approval['order'])}"
        )
    if orders.get("resume"):
        halt = orders["resume"]["halt"]
        yield (
            f"resumed{f' halt {clean(halt)}' if halt != NO_HALT else ''}"
            f" {_given(orders['resume']['order'])}"
        )
    if orders.get("retry"):
        yield (
            f"retry of {clean(orders['retry']['ring'])} {orders['retry']['sequence']}"
            f" {_given(orders['retry']['order'])}"
        )
    if orders.get("rollback"):
        yield (
            f"rollback of {clean(orders['rollback']['sha256'])[:12]}..."
            f" {_given(orders['rollback']['order'])}"
        )


def _given(order: Mapping[str, Any]) -> str:
    return f"by {clean(order['by'])}, {when(order['at'])}: {clean(order['why'])}"


def _failures(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["failures"]
    if not found["devices"]:
        return
    if found["sampled"] < found["devices"]:
        yield f"a sample of {found['sampled']} of {devices(found['devices'])}"
    for line in found["reasons"]:
        yield f"{line['devices']:>4}  {line['reason']}: {', '.join(line['examples'])}"


def _alarms(report: Mapping[str, Any]) -> Iterator[str]:
    for alarm in report["alarms"]:
        gate = f", a gate's: {alarm['gateAction']}" if alarm["gateAction"] else ""
        at = f" since {when(alarm['since'])}" if alarm["since"] else ""
        yield f"{alarm['state']:<17} {alarm['name']}{at}{gate}"


def _decisions(report: Mapping[str, Any]) -> Iterator[str]:
    for event in report["decisions"]:
        about = " ".join(f"{word}" for word in (event.get("version"), event.get("ring")) if word)
        yield (
            f"{when(event['at'])}  {event['what']}{f' {about}' if about else ''}:"
            f" {clean(event['why'])}"
        )


def device(report: Mapping[str, Any], now: float) -> RenderableType:
    """One device, for a terminal."""
    runs, should = report["reported"], report["shouldRun"]
    lines = [
        Text(report["thing"], style="bold"),
        *(Text(f"  {sentence}") for sentence in report["why"]),
    ]
    lines.append(Text(f"Ring        {report['ring'] or 'none'}"))
    if runs:
        at = f", reported {since(runs['at'], now)}" if runs["at"] else ""
        lines.append(
            Text(
                f"Runs        {_named(runs)}, sequence {runs['sequence']}, hardware"
                f" {runs['hardware']}{at}"
            )
        )
    if should:
        lines.append(Text(f"Should run  {_named(should)}, sequence {should['sequence']}"))
    lines.append(
        Text("Jobs, the newest first" if report["jobs"] else "Jobs        none", style="bold")
    )
    lines += [Text(f"  {line}") for job in report["jobs"] for line in _job(job, now)]
    return Group(*lines)


def _job(job: Mapping[str, Any], now: float) -> Iterable[str]:
    yield (
        f"{job['job']}: {job['status']}, {since(job['lastUpdatedAt'] or now, now)};"
        f" {job['description']}"
    )
    if job["why"]:
        yield f"  {job['why']}"
