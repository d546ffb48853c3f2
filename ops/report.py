"""What a person needs to know of a channel, as data: what `status` shows, and prints as JSON.

In JSON the fields are in camelCase and those that are None are left out (rollout.codec.encode).
Times are seconds since 1970. docs/operations.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cloud.channel import Channel
from ops.failures import FailureReport, FailureSampler
from ops.snapshot import Snapshot, take_snapshot
from ops.stack import Stack
from ops.text import format_duration, one_line
from rollout.gates import count_rollback_failures, rollback_jobs
from rollout.names import ROLLBACK, SILENT_MINUTES
from rollout.observed import Alarm, Counts, Job, Observed
from rollout.orders import Orders, is_approved
from rollout.release import Firmware, Manifest, RingPlan
from rollout.state import NEEDS_A_PERSON, Event, Offer, Progress, Rollback, State, Waiting
from rollout.version import Version

FINE, NEEDED, UNKNOWN = 0, 1, 2
"""Exit codes of `status`: fine, a person is needed, cannot be told."""

Phase = Literal["waiting", "proving", "withdrawn", "passed", "last good", "going back", "no job"]
"""Of a ring."""
ENDS_WHEN = {
    "nothing": "a new release is deployed",
    "settling": "AWS has created the job and told every device of it; by itself",
    "coverage": "enough devices have finished: offline ones come back, or the deadline comes",
    "success": "enough of the devices that began have succeeded, or the ring fails",
    "minimum-succeeded": "enough devices have succeeded",
    "soak": "the soak is over and the ring has stayed healthy; by itself",
    "alarms": "the alarm is OK again; see why it is not",
    "approval": "a person approves: `approve RING`",
    "deadline": "the ring meets its gate after all; or `retry RING`, `rollback`, or a new release",
    "paused": "a person resumes: `resume`, or rollout.paused in the stack file",
    "halted": "a person resumes: `resume`, or rollout.halted in the stack file",
    "window": "the window opens; by itself",
    "refused": "the stack file names a release that is acceptable",
    "image": "the image is in the bucket again: deploy it anew",
    "rollback": "every exposed device has reported back; by itself",
    "rollback-failed": "the devices are mended; then `retry rollback`",
}
"""By the kind of waiting: what ends it."""


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """What is being proved, else the last good release."""

    firmware: Firmware
    phase: Literal["proving", "last good"]
    sequence: int | None = None
    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class RingReport(RingPlan):
    """A ring and its gate, as released, beside what has come of it. A percentage is None as long as
    there are no devices, a time before it has come about."""

    phase: Phase
    version: Version | None = None
    job: str | None = None
    job_status: str | None = None
    counts: Counts | None = None
    """Devices of the ring's job; None where there is none."""
    finished_percent: float | None = None
    """Of the ring's devices."""
    succeeded_percent: float | None = None
    """Of those that began."""
    failing_percent: float | None = None
    """Failed or timed out, of those that finished."""
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
class RollbackReport(Rollback):
    """The last rollback, and how far it has come."""

    whole_rings: tuple[str, ...]
    """Rings that had passed: they go back as a whole."""
    exposed: Counts | None = None
    """Counts of the job that brings exposed devices back."""
    returned: int
    """Devices that are back, those of whole rings too."""
    failing: int
    """Devices that could not go back."""


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
    """Why a person is needed, and what they can do."""
    channel: str
    fleet: str
    """The fleet's thing group."""
    region: str
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
    rollback: RollbackReport | None = None
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
        unknown = tuple(RingPlan(name=ring, percent=0.0) for ring in state.stable)
        plans = current.rings if current else unknown
        last_run = self._channel.cloudwatch.last_run(now)
        waiting, ends_when = _find_waiting(seen)
        report = Report(
            at=now,
            channel=self._stack.channel_name,
            fleet=self._stack.fleet_group_name,
            region=self._stack.region,
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
            rollback=self._report_rollback(state, jobs, now),
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
        needs = tuple(_list_needs(report, self._stack))
        code = NEEDED if needs else FINE if seen.state else UNKNOWN
        return replace(report, needs=needs, code=code)

    def _list_jobs(self, state: State) -> list[str]:
        """The jobs that the state names and that matter to the report."""
        offers = list(state.stable.items())
        if state.candidate:
            offers += [(ring, progress.offer) for ring, progress in state.candidate.rings.items()]
        exposing = list(state.exposing_jobs)
        if state.rollback:
            offers.append((ROLLBACK, state.rollback.offer))
            exposing += state.rollback.exposing_jobs
        return [*(self._names.job(ring, offer.sequence) for ring, offer in offers), *exposing]

    def _report_ring(
        self, plan: RingPlan, state: State, orders: Orders, jobs: Mapping[str, Job]
    ) -> RingReport:
        candidate = state.candidate
        progress = candidate.rings.get(plan.name) if candidate else None
        offer = progress.offer if progress else state.stable.get(plan.name)
        name = self._names.job(plan.name, offer.sequence) if offer else None
        job = jobs.get(name) if name else None
        counts = job.counts if job else Counts()
        report = RingReport(
            **vars(plan),
            phase=_find_phase(state, progress, offer),
            version=offer.firmware.version if offer else None,
            job=name,
            job_status=job.status if job else None,
            counts=job.counts if job else None,
            finished_percent=_percent(counts.finished, counts.size),
            succeeded_percent=_percent(counts.succeeded, counts.began),
            failing_percent=_percent(counts.failing, counts.finished),
            is_approved=bool(candidate and is_approved(candidate.manifest, orders, plan.name)),
        )
        if progress is None:
            return report
        healthy, deadline = progress.healthy_since, plan.gate.deadline_minutes
        return replace(
            report,
            started_at=progress.started_at,
            soak_ends_at=None if healthy is None else healthy + plan.gate.soak_minutes * 60,
            deadline_at=None if deadline is None else progress.started_at + deadline * 60,
            passed_at=progress.passed_at,
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

    def _report_rollback(
        self, state: State, jobs: Mapping[str, Job], now: float
    ) -> RollbackReport | None:
        rollback, observed = state.rollback, Observed(jobs=jobs)
        if rollback is None:
            return None
        sequence = rollback.offer.sequence
        own = jobs.get(self._names.job(ROLLBACK, sequence))
        carrying = rollback_jobs(rollback, state.stable, observed, self._names)
        return RollbackReport(
            **vars(rollback),
            whole_rings=tuple(r for r, one in state.stable.items() if one.sequence == sequence),
            exposed=own.counts if own else None,
            returned=sum(job.counts.succeeded for job in carrying),
            failing=count_rollback_failures(state, observed, self._names, now),
        )

    def _report_halt(self, seen: Snapshot) -> HaltReport | None:
        end, halt = self._stack.command("resume"), seen.state.halt if seen.state else None
        if seen.untrusted:
            return HaltReport(id=seen.untrusted.halt, why=one_line(seen.untrusted.why), end=end)
        return HaltReport(id=halt.id, why=one_line(halt.why), at=halt.at, end=end) if halt else None

    def _list_failed(self, state: State, jobs: Mapping[str, Job]) -> Iterator[tuple[str, str, int]]:
        """Where devices failed: job, status and number, of the candidate and of the last rollback
        with what it took back."""
        rings = state.candidate.rings if state.candidate else {}
        names = [self._names.job(ring, progress.offer.sequence) for ring, progress in rings.items()]
        back = state.rollback and self._names.job(ROLLBACK, state.rollback.offer.sequence)
        if state.rollback and back:
            names += [back, *state.rollback.exposing_jobs]
        for name in dict.fromkeys([*names, *state.exposing_jobs]):
            counts = jobs[name].counts if name in jobs else Counts()
            yield name, "FAILED", counts.failed
            yield name, "TIMED_OUT", counts.timed_out
            if name == back:  # whoever is in a rollback's group has to come back
                yield name, "REJECTED", counts.rejected


def _find_phase(state: State, progress: Progress | None, offer: Offer | None) -> Phase:
    if progress:
        if progress.passed_at is not None:
            return "passed"
        return "withdrawn" if progress.withdrawn else "proving"
    if state.candidate:
        return "waiting"
    if offer is None:
        return "no job"
    rollback = state.rollback
    if rollback and rollback.done_at is None and rollback.offer.sequence == offer.sequence:
        return "going back"
    return "last good"


def _percent(part: int, whole: int) -> float | None:
    return round(part * 100 / whole, 1) if whole else None


def _report_release(state: State) -> ReleaseReport | None:
    if state.candidate:
        rings = state.candidate.rings.values()
        return ReleaseReport(
            firmware=state.candidate.firmware,
            phase="proving",
            sequence=max((progress.offer.sequence for progress in rings), default=None),
            since=min((progress.started_at for progress in rings), default=None),
        )
    good = state.last_good
    if good is None:
        return None
    events = (event for event in state.decisions if event.what == "last-good")
    passed = [event.at for event in events if event.version == good.version]
    offers = [one for one in state.stable.values() if one.firmware.sha256 == good.sha256]
    return ReleaseReport(
        firmware=good,
        phase="last good",
        sequence=max((offer.sequence for offer in offers), default=None),
        since=max(passed, default=None),
    )


def _find_waiting(seen: Snapshot) -> tuple[Waiting, str]:
    """What the controller said that it waits for, and what ends that."""
    if seen.state:
        waiting = replace(seen.state.waiting, text=one_line(seen.state.waiting.text))
    elif seen.untrusted:
        waiting = Waiting(kind="halted", text=f"{one_line(seen.untrusted.why)}; waits for `resume`")
    else:
        first_run = Waiting(kind="nothing", text="the controller's first run")
        return first_run, "the controller has run: within a minute of the deployment"
    return waiting, ENDS_WHEN[waiting.kind]


def _list_needs(report: Report, stack: Stack) -> list[str]:
    """Why a person is needed, and what they can do; empty when nobody is."""
    waiting, controller, needs = report.waiting, report.controller, []
    resume = f"`{stack.command('resume')}`"
    if report.rollback and report.rollback.failing:
        retry = stack.command("retry rollback")
        failed = f"the rollback failed on {report.rollback.failing} devices"
        needs.append(f"{failed}: see the reasons, mend them, then `{retry}`")
    if report.halt:
        needs.append(f"halted: {report.halt.why}; {resume} ends it")
    if report.orders_problem:
        renew = f"`{stack.command('resume --replace')}` writes a new one"
        needs.append(f"control.json is unreadable, which counts as a halt: {renew}")
    orders, manifest = report.orders, report.manifest
    for word, what, order, is_in_file in (
        ("halted", "halt", orders.halted, manifest and manifest.halted),
        ("paused", "pause", orders.paused, manifest and manifest.paused),
    ):
        if order:
            given = f"by {one_line(order.by)}: {one_line(order.why)}"
            needs.append(f"{word} {given}; {resume} ends the {what}")
        if is_in_file:
            change = f"rollout.{word} is true there; set it to false and deploy"
            needs.append(f"the stack file holds the rollout: {change}")
    if waiting.kind == "approval":
        needs.append(f"{waiting.text}: `{stack.command(f'approve {waiting.ring}')}`")
    elif waiting.kind in NEEDS_A_PERSON - {"halted", "paused", "rollback-failed"}:
        needs.append(f"{waiting.text}; it ends when {report.ends_when}")
    if controller.is_silent and (report.live_jobs or controller.state_changed):
        last = controller.last_run
        silence = format_duration(report.at - last) if last else "an hour or more"
        needs.append(
            f"the controller has not run for {silence}, so no gate is kept: read its log;"
            f" `{stack.command('halt')}` works"
        )
    if not needs and waiting.kind in NEEDS_A_PERSON:
        # the order is gone, the controller has yet to notice
        needs.append(f"at the controller's last run: {waiting.text}")
    return needs
