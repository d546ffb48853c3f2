"""What a person needs to know of a channel, as data: what `status` shows, and prints as JSON.

In JSON the fields are in camelCase and those that are None are left out (rollout.codec.encode).
Times are seconds since 1970. docs/operations.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloud.channel import Channel
from ops.exposures import (
    ExposureReport,
    WayBackReport,
    own_job,
    report_exposures,
    report_way_back,
)
from ops.failures import FailureReport, FailureSampler
from ops.preflight_report import PreflightReport, report_preflight
from ops.quarantine_report import QuarantineReport, report_quarantine
from ops.rehearsal import begin_run
from ops.snapshot import Snapshot, take_snapshot
from ops.stack import Stack
from ops.text import count_devices, format_duration, one_line
from rollout.gates import Measure, find_deadline, find_soak_end, measure
from rollout.go_back import Fate
from rollout.names import SILENT_MINUTES
from rollout.observed import Alarm, Counts, Job
from rollout.orders import Orders, is_approved
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import ChannelPhase, Event, Offer, Phase, RingPhase, State
from rollout.version import Version
from rollout.waiting import WAITS, Urgency, Waiting, needs_a_person

FINE, NEEDED, UNKNOWN = 0, 1, 2
"""Exit codes of `status`: fine, a person is needed, cannot be told."""
URGENCIES: tuple[Urgency, ...] = ("now", "today", "none")
"""The order in which needs are told."""


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """What is being proved, else the last good release."""

    firmware: Firmware
    phase: Literal["proving", "last good"]
    sequence: int | None = None
    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class RingReport(RingPlan):
    """A ring and its gate, as released, beside what has come of it. A time is None before it has
    come about."""

    phase: RingPhase
    version: Version | None = None
    job: str | None = None
    job_status: str | None = None
    counts: Counts | None = None
    """Devices of the ring's job; None where there is none."""
    measures: tuple[Measure, ...] = ()
    """Where the candidate is or was offered: the ring's figures beside what its gate asks of
    them."""
    is_approved: bool
    started_at: float | None = None
    soak_ends_at: float | None = None
    deadline_at: float | None = None
    passed_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class AlarmReport:
    name: str
    alarm: Alarm | None = None
    """Its state and since when; None where there is no such alarm, which holds a ring, too."""
    gate_action: Literal["hold", "rollback"] | None = None
    """What it does where a gate watches it."""


@dataclass(frozen=True, kw_only=True)
class HaltReport:
    """The controller's own halt, which only a resume ends."""

    id: str
    why: str
    at: float | None = None
    end: str
    """The command that ends it."""


@dataclass(frozen=True, kw_only=True)
class ControllerReport:
    last_run: float | None = None
    """The minute of its last run, if that was within the last hour."""
    is_silent: bool
    """Whether it has not run for over SILENT_MINUTES."""
    state_changed: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One channel at one moment."""

    at: float
    code: int = UNKNOWN
    """The exit code of `status`."""
    needs: tuple[str, ...] = ()
    """Why a person is needed, and what they can do; the most urgent first. With the urgency `none`
    it is what to mend before the next release."""
    urgency: Urgency = "none"
    """How urgently: `today` the release stands still, `now` devices run firmware that is not
    good."""
    channel: str
    fleet: str
    """The fleet's thing group."""
    region: str
    phase: ChannelPhase
    release: ReleaseReport | None = None
    manifest: Manifest | None = None
    """release.json as it stands: what the stack file released last."""
    manifest_problem: str | None = None
    """Why there is no manifest."""
    waiting: Waiting
    ends_when: str
    """What ends the waiting."""
    rings: tuple[RingReport, ...]
    """In the order in which a release reaches them."""
    live_jobs: tuple[str, ...]
    """Those that are not over, the newest offer first."""
    alarms: tuple[AlarmReport, ...]
    """The stack's own, and those that gates name."""
    last_good: Firmware | None = None
    previous_good: Firmware | None = None
    is_adopted: bool = False
    """Whether the last good release is what devices ran before the channel's first one."""
    unused_adopted: Firmware | None = None
    """What the stack file adopts without effect, for the channel has offered firmware before."""
    way_back: WayBackReport | None = None
    exposures: tuple[ExposureReport, ...] = ()
    """Devices on firmware that is neither good nor being proved."""
    preflight: PreflightReport | None = None
    """Devices that could not go back; None where nothing was looked at yet."""
    quarantine: QuarantineReport | None = None
    """Devices that were cut off; None where there are none."""
    halt: HaltReport | None = None
    orders: Orders
    """control.json as it stands."""
    orders_problem: str | None = None
    """Why control.json cannot be read."""
    failures: FailureReport
    decisions: tuple[Event, ...]
    """The last ten, the newest first."""
    controller: ControllerReport


class Reporter:
    """Makes reports; keeps what cannot change between two of them."""

    def __init__(self, channel: Channel, stack: Stack) -> None:
        self._channel, self._stack, self._names = channel, stack, channel.names
        self._sampler = FailureSampler(channel)

    def report(self, now: float) -> Report:
        """The channel at this moment (seconds since 1970)."""
        seen = take_snapshot(self._channel)
        manifest, problem = self._channel.manifest()
        state, orders_problem = seen.state or State(), seen.orders_file.problem
        jobs = self._channel.jobs.get_all(self._list_jobs(state))
        current = state.candidate.manifest if state.candidate else manifest
        kept = dict.fromkeys(offer.ring for offer in state.wanted("keep"))
        plans = current.rings if current else tuple(RingPlan(name=r, percent=0.0) for r in kept)
        last_run = self._channel.cloudwatch.last_run(now)
        waiting, ends_when = _find_waiting(seen)
        run = begin_run(seen, state, manifest, self._names)
        quarantine = report_quarantine(self._channel)
        cut_off = quarantine.named if quarantine else ()
        report = Report(
            at=now,
            channel=self._stack.channel_name,
            fleet=self._stack.fleet_group_name,
            region=self._stack.region,
            phase=ChannelPhase.HALTED if seen.untrusted else state.channel_phase,
            release=_report_release(state),
            manifest=manifest,
            manifest_problem=one_line(problem) if problem else None,
            waiting=waiting,
            ends_when=ends_when,
            rings=tuple(self._report_ring(plan, state, seen.orders, jobs) for plan in plans),
            live_jobs=tuple(seen.live_jobs),
            alarms=self._report_alarms(plans),
            last_good=state.last_good,
            previous_good=state.previous_good,
            way_back=report_way_back(self._channel, state, jobs, now, cut_off),
            is_adopted=state.is_adopted,
            unused_adopted=_find_unused_adopted(state, manifest),
            exposures=tuple(report_exposures(run, jobs)),
            preflight=report_preflight(self._channel),
            quarantine=quarantine,
            halt=self._report_halt(seen),
            orders=seen.orders,
            orders_problem=one_line(orders_problem) if orders_problem else None,
            failures=self._sampler.report(self._list_failed(state, jobs)),
            decisions=tuple(reversed(state.decisions)),
            controller=ControllerReport(
                last_run=last_run,
                is_silent=last_run is None or now - last_run > SILENT_MINUTES * 60,
                state_changed=seen.changed_at,
            ),
        )
        needs = sorted(_list_needs(report, self._stack), key=lambda need: URGENCIES.index(need[0]))
        urgency: Urgency = needs[0][0] if needs else "none"
        code = NEEDED if urgency != "none" else FINE if seen.state else UNKNOWN
        return replace(report, needs=tuple(text for _, text in needs), urgency=urgency, code=code)

    def _job(self, offer: Offer) -> str:
        return self._names.job(offer.ring, offer.sequence)

    def _list_jobs(self, state: State) -> list[str]:
        """The jobs whose counts the state does not know for good."""
        is_known = {o.sequence for o in state.offers if o.phase is Phase.ENDED and o.final}
        return [self._job(o) for o in state.offers if o.sequence not in is_known]

    def _report_ring(
        self, plan: RingPlan, state: State, orders: Orders, jobs: Mapping[str, Job]
    ) -> RingReport:
        candidate, gate = state.candidate, plan.gate
        proof = state.proof(plan.name) or state.withdrawn(plan.name)
        offer = proof or state.kept(plan.name)
        name = self._job(offer) if offer else None
        job = jobs.get(name) if name else None
        counts = job.counts if job else offer.final if offer else None
        report = RingReport(
            **vars(plan),
            phase=state.ring_phase(plan.name),
            version=offer.firmware.version if offer else None,
            job=name,
            job_status=job.status if job else None,
            counts=counts,
            is_approved=bool(candidate and is_approved(candidate.manifest, orders, plan.name)),
        )
        if proof is None:
            return report
        healthy = proof.healthy_since
        return replace(
            report,
            measures=tuple(measure(gate, counts or Counts(), limit=proof.limit)),
            started_at=proof.made_at,
            soak_ends_at=None if healthy is None else find_soak_end(gate, healthy),
            deadline_at=find_deadline(gate, proof),
            passed_at=proof.passed_at,
        )

    def _report_alarms(self, plans: tuple[RingPlan, ...]) -> tuple[AlarmReport, ...]:
        alarms = [alarm for plan in plans for alarm in plan.gate.alarms]
        actions = {self._names.gate_alarm(alarm.name): alarm.action for alarm in alarms}
        names = sorted({*self._stack.alarm_names.values(), *actions})
        found = self._channel.cloudwatch.alarms(names)
        return tuple(
            AlarmReport(name=name, alarm=found.get(name), gate_action=actions.get(name))
            for name in names
        )

    def _report_halt(self, seen: Snapshot) -> HaltReport | None:
        end, halt = self._stack.command("resume"), seen.state.halt if seen.state else None
        if seen.untrusted:
            return HaltReport(id=seen.untrusted.halt, why=one_line(seen.untrusted.why), end=end)
        return HaltReport(id=halt.id, why=one_line(halt.why), at=halt.at, end=end) if halt else None

    def _list_failed(self, state: State, jobs: Mapping[str, Job]) -> Iterator[tuple[str, str, int]]:
        """Where devices failed: job, status and number, of every offer that still matters."""
        back = own_job(self._channel, state)
        for offer in state.offers:
            name = self._job(offer)
            counts = (jobs[name].counts if name in jobs else offer.final) or Counts()
            yield name, "FAILED", counts.failed
            yield name, "TIMED_OUT", counts.timed_out
            if name == back:  # whoever is in a way back's group has to come back
                yield name, "REJECTED", counts.rejected


def _report_release(state: State) -> ReleaseReport | None:
    if state.candidate:
        firmware = state.candidate.firmware
        offers = [o for o in state.offers if o.aim == "prove" and o.sha256 == firmware.sha256]
        return ReleaseReport(
            firmware=firmware,
            phase="proving",
            sequence=max((offer.sequence for offer in offers), default=None),
            since=min((offer.made_at for offer in offers), default=None),
        )
    good = state.last_good
    if good is None:
        return None
    events = (event for event in state.decisions if event.what == "last-good")
    passed = [event.at for event in events if event.version == good.version]
    offers = [offer for offer in state.wanted("keep") if offer.sha256 == good.sha256]
    return ReleaseReport(
        firmware=good,
        phase="last good",
        sequence=max((offer.sequence for offer in offers), default=None),
        since=max(passed, default=None),
    )


def _find_unused_adopted(state: State, manifest: Manifest | None) -> Firmware | None:
    adopted = manifest.adopted if manifest else None
    if adopted is None or state.standing(adopted.sha256) == "good":
        return None
    return adopted if state.sequence or state.last_good else None


def _find_waiting(seen: Snapshot) -> tuple[Waiting, str]:
    """What the controller said that it waits for, and what ends that."""
    if seen.state:
        waiting = replace(seen.state.waiting, text=one_line(seen.state.waiting.text))
    elif seen.untrusted:
        waiting = Waiting(kind="halted", text=f"{one_line(seen.untrusted.why)}; waits for `resume`")
    else:
        first_run = Waiting(kind="nothing", text="the controller's first run")
        return first_run, "the controller has run: within a minute of the deployment"
    return waiting, WAITS[waiting.kind].ends_when


def _list_needs(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    """Why a person is needed, how urgently, and what they can do; nothing when nobody is."""
    needs = [
        *_list_stranded(report, stack),
        *_list_holds(report, stack),
        *_list_half_cut_off(report, stack),
        *_list_waits(report, stack),
        *_list_silence(report, stack),
    ]
    waiting = report.waiting
    if not needs and needs_a_person(waiting.kind):
        # the order is gone, the controller has yet to notice
        text = f"at the controller's last run: {waiting.text}"
        needs.append((WAITS[waiting.kind].urgency, text))
    yield from needs
    yield from _list_unreturnable(report)


def _list_unreturnable(report: Report) -> Iterator[tuple[Urgency, str]]:
    """Devices that could not go back: to be mended while a release is out, else before the next."""
    if report.preflight and report.preflight.devices:
        is_out = report.release is not None and report.release.phase == "proving"
        what = f"{count_devices(report.preflight.devices)} could not go back if a release failed"
        if is_out:
            yield "today", f"{what}, and one is out: mend what stands below"
        else:
            yield "none", f"{what}: mend what stands below before the next one"


def _list_stranded(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    """Devices that run firmware that is not good, and do not come back by themselves."""
    back = report.way_back
    if back and back.left_behind:
        retry, waive = stack.command("retry rollback"), stack.command("waive THING")
        yield (
            "now",
            f"the rollback failed on {count_devices(back.left_behind)}: see the reasons, mend them,"
            f" then `{retry}`; `{waive}` for one that is lost",
        )
    for one in report.exposures:
        if one.fate is Fate.STAYS and one.standing == "refused":
            devices = "devices" if one.devices is None else count_devices(one.devices)
            what = f"{devices} of {', '.join(one.rings)} began {one.version}, which is refused"
            yield "now", f"{what}, and there is no way back: release a newer version"


def _list_holds(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    """What a person holds, or what stands still until one looks."""
    resume = f"`{stack.command('resume')}`"
    if report.halt:
        yield "today", f"halted: {report.halt.why}; {resume} ends it"
    if report.orders_problem:
        renew = f"`{stack.command('resume --replace')}` writes a new one"
        yield "today", f"control.json is unreadable, which counts as a halt: {renew}"
    orders, manifest = report.orders, report.manifest
    for word, what, order, is_in_file in (
        ("halted", "halt", orders.halted, manifest and manifest.halted),
        ("paused", "pause", orders.paused, manifest and manifest.paused),
    ):
        if order:
            given = f"by {one_line(order.by)}: {one_line(order.why)}"
            yield "today", f"{word} {given}; {resume} ends the {what}"
        if is_in_file:
            change = f"rollout.{word} is true there; set it to false and deploy"
            yield "today", f"the stack file holds the rollout: {change}"


def _list_half_cut_off(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    """Devices that `quarantine` or `restore` broke off at, as far as they are named."""
    for one in report.quarantine.unfinished if report.quarantine else ():
        what = "restored" if one.restoring else "cut off"
        verb = "restore" if one.restoring else "quarantine"
        thing = one_line(one.thing)
        yield "today", f"{thing} is {what} in part: `{stack.command(f'{verb} {thing}')}` goes on"


TOLD_OTHERWISE = frozenset({"halted", "paused", "rollback-failed", "no-way-back"})
"""Kinds of waiting for which more is known than what the controller last said."""


def _list_waits(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    waiting = report.waiting
    urgency = WAITS[waiting.kind].urgency
    if waiting.kind == "approval":
        yield urgency, f"{waiting.text}: `{stack.command(f'approve {waiting.ring}')}`"
    elif needs_a_person(waiting.kind) and waiting.kind not in TOLD_OTHERWISE:
        yield urgency, f"{waiting.text}; it ends when {report.ends_when}"


def _list_silence(report: Report, stack: Stack) -> Iterator[tuple[Urgency, str]]:
    controller = report.controller
    if controller.is_silent and (report.live_jobs or controller.state_changed):
        last = controller.last_run
        silence = format_duration(report.at - last) if last else "an hour or more"
        yield (
            "today",
            f"the controller has not run for {silence}, so no gate is kept: read its log;"
            f" `{stack.command('halt')}` works",
        )
