"""Reports, and parts of them, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cloud.cut_off import CutOff
from cloud.preflight import Obstacle
from ops.device_report import DeviceReport, ExecutionReport
from ops.exposures import ExposureReport, WayBackReport
from ops.failures import FailureReport
from ops.preflight_report import PreflightReport, RingCheckReport
from ops.quarantine_report import QuarantineReport
from ops.report import UNKNOWN, AlarmReport, ControllerReport, Report, RingReport
from ops.text import (
    count_devices,
    describe_firmware,
    format_duration,
    format_since,
    format_time,
    format_until,
    one_line,
)
from rollout.observed import Counts, Returning
from rollout.orders import Order, Orders
from rollout.state import Event, RingPhase
from rollout.waiting import Urgency, Waiting

BAR = 20
"""Characters of a ring's bar, and up to one more for each kind of which there are few."""
STATUSES = (
    ("succeeded", "succeeded", "█", "#", "green"),
    ("failed", "failed", "✗", "x", "red"),
    ("timed_out", "timed out", "!", "!", "magenta"),
    ("in_progress", "in progress", "▒", "~", "yellow"),
    ("queued", "queued", "·", ".", "dim"),
    ("rejected", "rejected", "r", "r", "blue"),
)
"""Field of Counts, its name, its mark in a bar, the mark where the terminal has only ASCII, its
colour."""
VERDICTS: dict[Urgency, tuple[str, str]] = {
    "none": ("Fine: nobody is needed.", "green"),
    "today": ("A person is needed:", "bold red"),
    "now": ("A person is needed NOW, devices run firmware that is not good:", "bold red"),
}
UNKNOWN_VERDICT = ("Cannot tell: the controller has not run yet.", "yellow")
MEASURES = {
    "failing": "{have} of {out_of} that began failed or timed out, the ring fails at {needed}",
    "coverage": "{have} of {out_of} have finished, it needs {needed}",
    "minimum-succeeded": "{have} of {out_of} have succeeded, it needs {needed}",
    "success": "{have} of {out_of} that began have succeeded, it needs {needed}",
}
"""A ring's figure beside what its gate asks of it, by the name of the measure."""

OBSTACLES = {
    Obstacle.GROUPS: "it is in ten thing groups already: take it out of one",
    Obstacle.CERTIFICATE: "its thing has no certificate: attach one",
    Obstacle.POLICY: "no certificate of it has a policy: attach the device policy",
}
"""Why a device could not go back, and what mends it."""


def is_ascii_only(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


# The channel


def render_status(report: Report, *, ascii_only: bool) -> RenderableType:
    """The whole report."""
    title = f"Channel {report.channel} of {report.fleet} ({report.region}): {report.phase}"
    is_told = report.code != UNKNOWN
    verdict, style = VERDICTS[report.urgency] if is_told else UNKNOWN_VERDICT
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), f", {format_time(report.at)}"),
        Text(verdict, style=style),
        *(Text(f"  - {need}", style=style) for need in report.needs),
        Text(),
        *map(Text, _describe_release(report)),
        Text(),
        render_rings(report.rings, ascii_only=ascii_only),
    ]
    for heading, lines in (
        ("Gates", _describe_gates(report)),
        ("Rollback", _describe_way_back(report.way_back, report.at)),
        (
            "Devices on firmware that is neither good nor being proved",
            map(describe_exposure, report.exposures),
        ),
        ("Devices that could not go back", _describe_preflight(report.preflight, report.at)),
        ("Devices in quarantine", _describe_quarantine(report.quarantine)),
        ("Orders in control.json", _describe_orders(report.orders, report.orders_problem)),
        ("Why devices fail", _describe_failures(report.failures)),
        ("Alarms", map(_describe_alarm, report.alarms)),
        ("Last decisions", (f"{format_time(e.at)}  {describe_event(e)}" for e in report.decisions)),
    ):
        if texts := [Text(f"  {line}") for line in lines]:
            parts += [Text(), Text(heading, style="bold"), *texts]
    return Group(*parts)


def render_progress(report: Report, *, ascii_only: bool) -> RenderableType:
    """The rings and what they wait for: what changes while a release goes on."""
    waiting = Text(waiting_line(report.waiting, report.at), style="dim")
    return Group(render_rings(report.rings, ascii_only=ascii_only), waiting)


def progress_line(report: Report) -> str:
    """As `render_progress`, in one line, for where there is no terminal."""
    rings = (
        f"{ring.name} {ring.version}: {describe_counts(ring.counts)}."
        for ring in report.rings
        if ring.counts
    )
    return "  ".join([*rings, waiting_line(report.waiting, report.at)])


def render_rings(rings: Iterable[RingReport], *, ascii_only: bool) -> RenderableType:
    """The rings' devices as bars, and what their marks mean."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Ring", "Phase", "Version", "Devices"):
        table.add_column(column, no_wrap=True)
    table.add_column()
    for ring in rings:
        table.add_row(
            Text(ring.name),
            ring.phase,
            Text(str(ring.version or "-")),
            ring_bar(ring.counts or Counts(), ascii_only=ascii_only),
            describe_counts(ring.counts),
        )
    legend = Text("  ")
    for _, name, mark, ascii_mark, style in STATUSES:
        legend.append(f"{ascii_mark if ascii_only else mark} ", style=style)
        legend.append(f"{name}  ", style="dim")
    return Group(table, legend)


def ring_bar(counts: Counts, *, ascii_only: bool) -> Text:
    """Devices by status as their parts of one bar: whatever is there at all has a mark."""
    sizes = [(getattr(counts, field), *marks) for field, _, *marks in STATUSES]
    total, bar, begin, seen = sum(size for size, *_ in sizes) or 1, Text(), 0, 0
    for size, mark, ascii_mark, style in sizes:
        seen += size
        end = round(BAR * seen / total)
        length = max(end - begin, 1 if size else 0)
        bar.append((ascii_mark if ascii_only else mark) * length, style=style)
        begin = end
    return bar


def describe_counts(counts: Counts | None) -> str:
    """Devices by status, those of which there are any."""
    if counts is None:
        return "no job"
    numbers = [(getattr(counts, field), name) for field, name, *_ in STATUSES]
    return ", ".join(f"{number} {name}" for number, name in numbers if number) or "no device yet"


def waiting_line(waiting: Waiting, now: float) -> str:
    """What the controller waits for, and until when."""
    ring = f"ring {waiting.ring}: " if waiting.ring else ""
    until = f" ({format_until(waiting.until, now)})" if waiting.until else ""
    return f"{ring}{waiting.text}{until}"


def describe_event(event: Event) -> str:
    """One decision of the controller: what, of which version, in which ring, and why."""
    about = "".join(f" {part}" for part in (event.version, event.ring) if part)
    return f"{event.what}{about}: {one_line(event.why)}"


def describe_order(order: Order) -> str:
    return f"by {one_line(order.by)}, {format_time(order.at)}: {one_line(order.why)}"


def _describe_release(report: Report) -> Iterator[str]:
    release, manifest, now = report.release, report.manifest, report.at
    if release:
        since = f", since {format_since(release.since, now)}" if release.since else ""
        sequence = "" if release.sequence is None else f", sequence {release.sequence}"
        firmware = describe_firmware(release.firmware)
        yield f"Release     {firmware}, {release.phase}{sequence}{since}"
    else:
        yield "Release     none yet"
    if manifest is None:
        yield f"Stack file  its manifest cannot be read: {report.manifest_problem}"
    elif release is None or manifest.firmware.sha256 != release.firmware.sha256:
        yield f"Stack file  names {describe_firmware(manifest.firmware)}"
    yield f"Waits for   {waiting_line(report.waiting, now)}"
    yield f"            ends when {report.ends_when}"
    previous = describe_firmware(report.previous_good)
    adopted = ", adopted: no ring is offered it" if report.is_adopted else ""
    yield f"Last good   {describe_firmware(report.last_good)}{adopted}; before it {previous}"
    if unused := report.unused_adopted:
        why = "has no effect any more: the channel has offered firmware before"
        yield f"            fleet.adopted, {describe_firmware(unused)}, {why}"
    if report.halt:
        yield f"Halt        {report.halt.id}: {report.halt.why}. It ends with `{report.halt.end}`"
    yield f"Controller  {_describe_controller(report.controller, now)}"


def _describe_controller(controller: ControllerReport, now: float) -> str:
    ran = "did not run in the last hour"
    if controller.last_run:
        ran = f"ran in the minute of {format_since(controller.last_run, now)}"
    changed = controller.state_changed
    return f"{ran}; its state last changed {format_since(changed, now)}" if changed else ran


def _describe_gates(report: Report) -> Iterator[str]:
    """Of the rings that are measured now."""
    for ring in report.rings:
        if ring.phase is RingPhase.PROVING:
            yield from _describe_gate(ring, report.at)


def _describe_gate(ring: RingReport, now: float) -> Iterator[str]:
    gate = ring.gate
    yield f"{ring.name}:"
    for one in ring.measures:
        needed = "no number of these" if one.needed is None else one.needed
        yield "  " + MEASURES[one.name].format(have=one.have, out_of=one.out_of, needed=needed)
    if ring.soak_ends_at is None:
        yield f"  the soak of {format_duration(gate.soak_minutes * 60)} has not begun"
    elif ring.soak_ends_at > now:
        yield f"  soaks {format_until(ring.soak_ends_at, now)}"
    else:
        yield "  the soak is over"
    if gate.approval:
        yield f"  needs an approval: {'given' if ring.is_approved else 'not given yet'}"
    if ring.deadline_at:
        yield f"  deadline {format_time(ring.deadline_at)}"


def _describe_way_back(back: WayBackReport | None, now: float) -> Iterator[str]:
    if back is None:
        return
    yield f"{back.failed} was taken back to {describe_firmware(back.to)}: {one_line(back.reason)}"
    ended = f"ended {format_since(back.done_at, now)}" if back.done_at else "runs"
    yield f"began {format_since(back.started_at, now)}; {ended}"
    if back.returning is None:
        return
    yield f"group {back.group_name}, from {', '.join(one.job for one in back.sources)}"
    yield _describe_returning(back.returning)
    if back.job:
        yield f"job {back.job}: {describe_counts(back.counts)}"
    for thing in back.cut_off:
        yield f"cut off: {one_line(thing)}, in quarantine: nobody waits for it"
    for thing, code in back.returning.refusals.items():
        yield f"AWS would not have {one_line(thing)} in the group: {one_line(code)}"
    for problem in back.returning.problems:
        yield f"problem: {one_line(problem)}"
    if back.left_behind:
        yield f"FAILED on {count_devices(back.left_behind)}"


def _describe_returning(returning: Returning) -> str:
    """How far a way back has come."""
    numbers = (
        (returning.exposed, "exposed"),
        (returning.placed, "placed in the group"),
        (returning.back, "back"),
        (returning.refused, "refused by AWS"),
        (returning.gone, "gone"),
        (returning.waived + returning.open_waived, "waived"),
    )
    words = ", ".join(f"{number} {name}" for number, name in numbers if number)
    rest = "" if returning.is_complete else "; not everybody is known or placed yet"
    return f"devices: {words or 'none known yet'}{rest}"


def describe_exposure(one: ExposureReport) -> str:
    devices = "an unknown number of devices" if one.devices is None else count_devices(one.devices)
    standing = f" ({one.standing})" if one.standing else ""
    return f"{one.version}{standing}: {devices} of {', '.join(one.rings)} began it; {one.then}"


def _describe_preflight(preflight: PreflightReport | None, now: float) -> Iterator[str]:
    if preflight is None:
        return
    for ring in preflight.rings:
        yield _describe_ring_check(ring, now)
    for one in preflight.named:
        looked = f"looked at {format_since(one.at, now)}"
        yield f"{one_line(one.thing)} ({one.ring}): {OBSTACLES[one.why]}; {looked}"
    if more := preflight.devices - len(preflight.named):
        yield f"and {more} more"


def _describe_ring_check(ring: RingCheckReport, now: float) -> str:
    """How many were found, of how many, and when."""
    ended = f"ended {format_since(ring.ended_at, now)}" if ring.ended_at else "goes on"
    skipped = f", {ring.skipped} of these could not be looked at" if ring.skipped else ""
    problem = f"; {one_line(ring.problem)}" if ring.problem else ""
    began = f"the look at {count_devices(ring.looked)} began {format_since(ring.began_at, now)}"
    return f"{ring.ring}: {ring.devices} known; {began}, {ended}{skipped}{problem}"


def _describe_quarantine(quarantine: QuarantineReport | None) -> Iterator[str]:
    if quarantine is None:
        return
    yield f"{count_devices(quarantine.devices)} cut off"
    for one in quarantine.named:
        yield f"{one_line(one.thing)}: {describe_cut_off(one)}"
    if more := quarantine.devices - len(quarantine.named):
        yield f"and {more} more"


def describe_cut_off(record: CutOff) -> str:
    """Since when, by whom and why; and what is not finished."""
    if record.restoring:
        rest = f"; being restored {describe_order(record.restoring)}, not finished"
    else:
        rest = "" if record.done_at else "; NOT FINISHED: `quarantine` it again"
    return f"cut off {describe_order(record.order)}{rest}"


def _describe_orders(orders: Orders, problem: str | None) -> Iterator[str]:
    if problem:
        yield f"unreadable: {problem}"
    if orders.paused:
        yield f"paused {describe_order(orders.paused)}"
    if orders.halted:
        yield f"halted {describe_order(orders.halted)}"
    for approval in orders.approvals:
        digest = approval.sha256[:12]
        yield f"ring {approval.ring} approved for {digest}... {describe_order(approval.order)}"
    if orders.resume:
        halt = f" halt {one_line(orders.resume.halt)}" if orders.resume.halt else ""
        yield f"resumed{halt} {describe_order(orders.resume.order)}"
    if orders.retry:
        ring, sequence = one_line(orders.retry.ring), orders.retry.sequence
        yield f"retry of {ring} {sequence} {describe_order(orders.retry.order)}"
    if orders.rollback:
        digest = one_line(orders.rollback.sha256)[:12]
        yield f"rollback of {digest}... {describe_order(orders.rollback.order)}"
    if orders.pardon:
        digest = one_line(orders.pardon.sha256)[:12]
        yield f"pardon of {digest}... {describe_order(orders.pardon.order)}"
    for waiver in orders.waived:
        yield f"{one_line(waiver.thing)} need not come back {describe_order(waiver.order)}"


def _describe_failures(failures: FailureReport) -> Iterator[str]:
    if failures.sampled < failures.devices:
        yield f"a sample of {failures.sampled} of {count_devices(failures.devices)}"
    for one in failures.reasons:
        yield f"{one.devices:>4}  {one.reason}: {', '.join(one.examples)}"


def _describe_alarm(one: AlarmReport) -> str:
    state = one.alarm.state if one.alarm else "MISSING"
    since = f" since {format_time(one.alarm.since)}" if one.alarm else ""
    gate = f", a gate's: {one.gate_action}" if one.gate_action else ""
    return f"{state:<17} {one.name}{since}{gate}"


# One device


def render_device(report: DeviceReport, now: float) -> RenderableType:
    runs, should = report.reported, report.should_run
    lines = [
        Text(report.thing or f"{report.serial}: no thing", style="bold"),
        *(
            [Text(f"  {describe_cut_off(report.cut_off)}", style="bold red")]
            if report.cut_off
            else []
        ),
        *(Text(f"  {sentence}") for sentence in report.why),
    ]
    if report.thing:
        lines.append(Text(f"Ring        {report.ring or 'none'}"))
    lines += map(Text, _describe_registered(report))
    lines += map(Text, _describe_certificates(report))
    if runs:
        at = f", reported {format_since(runs.at, now)}" if runs.at else ""
        contract = f", contract {runs.contract}" if runs.contract else ""
        about = f"sequence {runs.sequence}, hardware {runs.hardware}{contract}{at}"
        lines.append(Text(f"Runs        {describe_firmware(runs)}, {about}"))
    if should:
        lines.append(
            Text(f"Should run  {describe_firmware(should.firmware)}, sequence {should.sequence}")
        )
    if report.thing is None:
        return Group(*lines)
    heading = "Jobs, the newest first" if report.jobs else "Jobs        none"
    lines.append(Text(heading, style="bold"))
    lines += [Text(f"  {line}") for job in report.jobs for line in _describe_execution(job, now)]
    return Group(*lines)


def _describe_registered(report: DeviceReport) -> Iterator[str]:
    """The serial's record in the registry, and what happened to it."""
    record = report.registered
    if record is None:
        if report.serial:
            yield f"Serial      {one_line(report.serial)}, in no registry of this stack"
        return
    ring = [f"ring {record.ring}"] if record.ring else []
    listed = [*ring, *(f"{key} {value}" for key, value in record.attributes.items())]
    about = f" ({', '.join(listed)})" if listed else ""
    yield f"Serial      {record.serial}: {record.status}{about}"
    if claim := record.claim:
        key, by = f"{claim.key[:12]}...", f"{claim.by[:12]}..."
        yield f"Claimed     {format_time(claim.at)}, by claim certificate {by}, for key {key}"
    for event in record.events:
        yield f"            {one_line(event.what)} {describe_order(event.order)}"


def _describe_certificates(report: DeviceReport) -> Iterator[str]:
    claim = report.registered.claim if report.registered else None
    for one in report.certificates:
        policies = ", ".join(map(one_line, one.policies)) or "no policy"
        is_claimed = " (of the claim)" if claim and claim.certificate == one.certificate else ""
        yield f"Certificate {(one.certificate or '')[:12]}... {one.status}{is_claimed}, {policies}"


def _describe_execution(job: ExecutionReport, now: float) -> Iterator[str]:
    since = format_since(job.last_updated_at or now, now)
    yield f"{job.job}: {job.status}, {since}; {job.description}"
    if job.why:
        yield f"  {job.why}"
