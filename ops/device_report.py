"""One device, as data: what it runs, what it should run, its jobs, and why.

In JSON the fields are in camelCase and those that are None are left out (rollout.codec.encode).
Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cloud import shadows
from cloud.channel import Channel
from cloud.cut_off import CutOff, HeldPrincipal, Quarantine
from cloud.device_ties import ACTIVE
from cloud.groups import attributes_of, groups_of_thing
from cloud.jobs import Execution
from cloud.shadows import Reported
from ops.errors import OpsError
from ops.failures import describe_failure
from ops.snapshot import Snapshot, take_snapshot
from ops.stack import Stack
from ops.text import one_line
from ops.which_device import search_thing
from rollout.codec import DecodeError
from rollout.names import ROLLBACK
from rollout.orders import Orders
from rollout.rings import SERIAL_ATTRIBUTE
from rollout.serial import Serial, SerialStatus
from rollout.state import Offer, State

MAX_JOBS = 10
"""Executions that are shown, the newest ones."""


@dataclass(frozen=True, kw_only=True)
class ExecutionReport(Execution):
    """One job of the channel on the device."""

    ring: str
    sequence: int
    description: str
    details: dict[str, str]
    """What the device said of it."""
    why: str | None = None
    """Why it ended as it did."""


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    thing: str | None
    """None for a serial that no device has claimed yet."""
    serial: str | None = None
    """The thing's attribute `serial`; of a device that no registry knows, too."""
    registered: Serial | None = None
    """What the registry has of the serial."""
    certificates: tuple[HeldPrincipal, ...] = ()
    ring: str | None = None
    cut_off: CutOff | None = None
    """What it had, where it is in quarantine."""
    reported: Reported | None = None
    """What the device says that it runs."""
    should_run: Offer | None = None
    """The newest offer that is meant for the device."""
    rollbacks: tuple[int, ...] = ()
    """Sequences in the names of the rollbacks' groups that it is in."""
    jobs: tuple[ExecutionReport, ...] = ()
    """The newest offer first."""
    why: tuple[str, ...] = ()
    """What all this means, in sentences."""


def report_device(channel: Channel, stack: Stack, name: str) -> DeviceReport:
    """What is known of a thing, or of the device with this serial: declared, in the registry, or of
    a thing that says so. Raises OpsError when there is none."""
    thing = search_thing(channel.clients, stack, name)
    attributes = attributes_of(channel.clients, thing) if thing else None
    if thing and attributes is not None:
        return _report_thing(channel, stack, thing, attributes)
    registered = _find_registered(channel, stack, name)
    if registered is None:
        raise OpsError(_describe_unknown(stack, name))
    report = DeviceReport(thing=None, serial=name, registered=registered)
    return replace(report, why=tuple(_explain_registered(report)))


def _find_registered(channel: Channel, stack: Stack, serial: str) -> Serial | None:
    table = stack.serial_table(channel.clients)
    stored = table.get(serial) if table else None
    return stored.record if stored else None


def _describe_unknown(stack: Stack, name: str) -> str:
    declared = ", ".join(sorted(stack.device_names))
    known = f"; the stack's declared devices are {declared}" if declared else ""
    table = stack.serials_table_name
    registry = f", and none in the registry {table}" if table else ""
    return f"there is no thing {name} in {stack.region}, none with this serial{registry}{known}"


def _report_thing(
    channel: Channel, stack: Stack, thing: str, attributes: dict[str, str]
) -> DeviceReport:
    serial = attributes.get(SERIAL_ATTRIBUTE)
    groups = groups_of_thing(channel.clients, thing) or set()
    ring = next((r for r, group in stack.ring_group_names.items() if group in groups), None)
    sequences = (channel.names.rollback_sequence(group) for group in groups)
    rollbacks = tuple(sorted(sequence for sequence in sequences if sequence is not None))
    seen, reported = take_snapshot(channel), shadows.reported(channel.clients, thing)
    if reported:
        version, hardware = one_line(reported.version), one_line(reported.hardware)
        sha256 = one_line(reported.sha256)
        reported = replace(reported, version=version, sha256=sha256, hardware=hardware)
    report = DeviceReport(
        thing=thing,
        serial=serial,
        registered=_find_registered(channel, stack, serial) if serial else None,
        certificates=stack.ties(channel.clients).certificates(thing),
        ring=ring,
        cut_off=_read_cut_off(channel, thing),
        reported=reported,
        should_run=_find_offer(seen.state, ring, rollbacks),
        rollbacks=rollbacks,
        jobs=_list_executions(channel, thing),
    )
    return replace(report, why=tuple(_explain(report, seen)))


def _read_cut_off(channel: Channel, thing: str) -> CutOff | None:
    try:
        stored = Quarantine(channel.bucket, channel.names).get(thing)
    except DecodeError as error:
        raise OpsError(f"the record of what {thing} had cannot be read: {error}") from error
    return stored.record if stored else None


def _find_offer(state: State | None, ring: str | None, rollbacks: tuple[int, ...]) -> Offer | None:
    """The newest offer that is meant for the device."""
    if state is None or ring is None:
        return None
    offer = state.proof(ring) or state.kept(ring)
    back, way = state.returning(), state.way_back
    is_in_group = way is not None and way.group in rollbacks
    if back and is_in_group and (offer is None or back.sequence > offer.sequence):
        return back
    return offer


def _list_executions(channel: Channel, thing: str) -> tuple[ExecutionReport, ...]:
    """The channel's jobs of the device, the newest offer first."""
    names, executions = channel.names, channel.jobs.of_thing(thing)
    executions.sort(key=lambda one: (names.job_sequence(one.job) or 0, one.number), reverse=True)
    return tuple(_report_execution(channel, one) for one in executions[:MAX_JOBS])


def _report_execution(channel: Channel, execution: Execution) -> ExecutionReport:
    ring, sequence = channel.names.split_job(execution.job) or ("", 0)
    said = channel.jobs.status_details(execution).items()
    details = {key: one_line(value) for key, value in said}
    job, status = channel.jobs.get(execution.job), execution.status
    is_explained = status in ("FAILED", "TIMED_OUT", "REJECTED") or (
        status == "SUCCEEDED" and "reason" in details
    )
    return ExecutionReport(
        **vars(execution),
        ring=ring,
        sequence=sequence,
        description=one_line(job.description) if job else "",
        details=details,
        why=describe_failure(status, details) if is_explained else None,
    )


def _explain(report: DeviceReport, seen: Snapshot) -> Iterator[str]:
    """What the report means, in sentences."""
    runs, should = report.reported, report.should_run
    if not report.ring and not report.cut_off:
        yield "it is in no ring of this stack, so no release reaches it"
    if runs is None:
        yield "it has never reported what it runs"
    if seen.untrusted:
        yield f"what it should run cannot be told: {one_line(seen.untrusted.why)}"
    elif should and runs and should.firmware.sha256 == runs.sha256:
        yield f"it runs {runs.version}, as it should"
    elif should and runs:
        why = _explain_difference(report.jobs, should)
        yield f"it runs {runs.version}, it should run {should.firmware.version}{why}"
    if seen.state:
        yield from _explain_way_back(report, seen.state, seen.orders)
    yield from _explain_certificates(report)
    yield from _explain_registered(report)


def _explain_certificates(report: DeviceReport) -> Iterator[str]:
    """What keeps the device from connecting."""
    active = [one for one in report.certificates if one.status == ACTIVE]
    if not report.certificates:
        yield "its thing has no certificate, so it cannot connect"
    elif not active:
        yield "none of its certificates is active, so it cannot connect"


def _explain_registered(report: DeviceReport) -> Iterator[str]:
    """What the registry means for the device, where that is worth a word."""
    record = report.registered
    if record is None:
        return
    claim = record.claim
    match record.status:
        case SerialStatus.UNCLAIMED:
            yield "no device has claimed its serial yet"
        case SerialStatus.RELEASED:
            yield "its serial is released: another key may claim it"
        case SerialStatus.BLOCKED:
            yield "its serial is blocked: nobody may claim it"
    if claim and report.thing is None:
        yield f"its thing {one_line(claim.thing)} is not there (any more)"
    elif claim and claim.thing != report.thing:
        yield f"its serial is claimed by another thing, {one_line(claim.thing)}"


def _explain_way_back(report: DeviceReport, state: State, orders: Orders) -> Iterator[str]:
    back, good = state.way_back, state.last_good
    for group in report.rollbacks:
        does = f"{ROLLBACK}-{group} brings it back"
        if back and good and back.group == group:
            verb = "brings" if back.is_open else "brought"
            does = f"{ROLLBACK}-{group} {verb} it back to {good.version}, from {back.failed}"
        yield f"it was exposed to a release that was taken back; {does}"
    if back and back.is_open:
        for waiver in orders.waived:
            if waiver.thing == report.thing and waiver.group in (None, back.group):
                by, why = one_line(waiver.order.by), one_line(waiver.order.why)
                yield f"it need not come back, says {by}: {why}"


def _explain_difference(jobs: tuple[ExecutionReport, ...], should: Offer) -> str:
    """Why a device does not run what it should, to follow that it does not."""
    job = next((job for job in jobs if job.sequence == should.sequence), None)
    if job is None:
        return "; AWS has not given it that job"
    match job.status:
        case "QUEUED":
            return ": it has not taken the job: it is offline, or busy with another"
        case "IN_PROGRESS":
            return f": it is at it (step {job.details.get('step', 'unknown')})"
        case "CANCELED":
            return ": its job was cancelled before it began"
    return f": {job.why or job.status.lower()}"
