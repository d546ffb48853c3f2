"""What a person needs to know of a channel, as data: the report that `status --json` prints and
`ops.show` draws.

Times are seconds since 1970. docs/operations.md lists the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ops.channel import Channel, Memory, Orders
from ops.source import Stack
from ops.words import clean, length
from rollout.codec import encode
from rollout.document import alarm_name
from rollout.gates import rollback_failing, way_back
from rollout.observed import Alarm, Counts, Job, Observed
from rollout.release import Firmware, Gate, Manifest, RingPlan
from rollout.rings import RESERVED
from rollout.state import NEEDS_A_PERSON, Offer, Progress, State, approved

SAMPLE = 50
"""Executions of failed devices that are looked into for one report (DescribeJobExecution)."""
EXAMPLES = 3
SILENT_SECONDS = 300.0
"""A controller that did not run for so long is down: the alarm on its heartbeat says the same."""

FINE, NEEDED, UNTOLD = 0, 1, 2
"""Exit codes of `status`: fine, a person is needed, could not tell."""

ENDS_WHEN = {
    "nothing": "a new release is deployed",
    "settling": "AWS has created the job and told every device of it; by itself",
    "coverage": (
        "enough devices have finished; offline ones come back, or the gate's deadline comes"
    ),
    "success": "enough of the devices that began have succeeded, or the ring fails",
    "least-number": "enough devices have succeeded",
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
class Failure:
    """One execution that did not succeed."""

    job: str
    thing: str
    reason: str


class Reporter:
    """Makes reports; keeps what cannot change between two of them."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.stack, self.names = channel, channel.stack, channel.names
        self._reasons: dict[tuple[str, str, int, str], str] = {}

    def report(self, now: float) -> dict[str, Any]:
        """The channel at this moment (seconds since 1970)."""
        live = self.channel.live_jobs()
        memory, orders = self.channel.memory(live), self.channel.orders()
        manifest, problem = self.channel.manifest()
        state = memory.state or State()
        plans = _plans(state, manifest)
        alarms = self._alarms(plans)
        jobs = self.channel.jobs(self._named(state))
        heartbeat = self.channel.heartbeat(now)
        report: dict[str, Any] = {
            "at": now,
            "stack": {
                "channel": self.stack.channel,
                "fleet": self.stack.fleet_group,
                "region": self.stack.region,
            },
            "release": _release(state),
            "manifest": _manifest(manifest, problem),
            "waiting": _waiting(memory),
            "rings": [self._ring(plan, state, orders, jobs) for plan in plans],
            "liveJobs": live,
            "alarms": alarms,
            "lastGood": _firmware(state.last_good),
            "previousGood": _firmware(state.previous_good),
            "rollback": self._rollback(state, jobs, now),
            "halt": self._halt(memory, state),
            "orders": {**encode(orders.control), "problem": orders.problem},
            "failures": self._failures(state, jobs),
            "decisions": [encode(event) for event in reversed(state.decisions)],
            "controller": {
                "lastRun": heartbeat,
                "silent": heartbeat is None or now - heartbeat > SILENT_SECONDS,
                "stateChanged": memory.changed_at,
            },
        }
        needs = _needs(report, self.stack)
        told = bool(needs) or memory.state is not None
        return {**report, "needs": needs, "code": NEEDED if needs else FINE if told else UNTOLD}

    def _named(self, state: State) -> list[str]:
        """The jobs that the state names and that matter to the report."""
        offers = list(state.stable.items())
        offers += (
            [(ring, progress.offer) for ring, progress in state.candidate.rings.items()]
            if state.candidate
            else []
        )
        offers += [(RESERVED, state.rollback.offer)] if state.rollback else []
        failed = state.rollback.exposing if state.rollback else ()
        return [
            *(self.names.job(ring, offer.sequence) for ring, offer in offers),
            *state.exposing,
            *failed,
        ]

    def _ring(
        self, plan: RingPlan, state: State, orders: Orders, jobs: Mapping[str, Job]
    ) -> dict[str, Any]:
        progress = state.candidate.rings.get(plan.name) if state.candidate else None
        offer = progress.offer if progress else state.stable.get(plan.name)
        name = self.names.job(plan.name, offer.sequence) if offer else None
        job = jobs.get(name) if name else None
        granted = bool(
            state.candidate and approved(state.candidate.manifest, orders.control, plan.name)
        )
        return {
            "name": plan.name,
            "percent": plan.percent,
            "phase": _phase(state, progress, offer),
            "version": offer.firmware.version if offer else None,
            "job": name,
            "jobStatus": job.status if job else None,
            "counts": encode(job.counts) if job else None,
            "gate": _gate(plan.gate, progress, job.counts if job else Counts(), granted),
        }

    def _alarms(self, plans: tuple[RingPlan, ...]) -> list[dict[str, Any]]:
        """The stack's own alarms and those that gates name; a missing one holds a ring, so it is
        listed."""
        gates = {
            alarm_name(self.stack.fleet_group, gate.name): gate
            for plan in plans
            for gate in plan.gate.alarms
        }
        wanted = sorted({*self.stack.alarms.values(), *gates})
        found = self.channel.alarms(wanted)
        return [
            _alarm(name, found.get(name), gates[name].action if name in gates else None)
            for name in wanted
        ]

    def _rollback(self, state: State, jobs: Mapping[str, Job], now: float) -> dict[str, Any] | None:
        rollback = state.rollback
        if rollback is None:
            return None
        observed = Observed(jobs=jobs)
        own = jobs.get(self.names.job(RESERVED, rollback.offer.sequence))
        whole = [
            ring
            for ring, offer in state.stable.items()
            if offer.sequence == rollback.offer.sequence
        ]
        carrying = way_back(rollback, state.stable, observed, self.names)
        return {
            "from": rollback.failed,
            "to": _firmware(rollback.offer.firmware),
            "sequence": rollback.offer.sequence,
            "why": clean(rollback.reason),
            "startedAt": rollback.started_at,
            "doneAt": rollback.done_at,
            "wholeRings": whole,
            "exposed": encode(own.counts) if own else None,
            "back": sum(job.counts.succeeded for job in carrying),
            "failing": rollback_failing(state, observed, self.names, now),
        }

    def _halt(self, memory: Memory, state: State) -> dict[str, Any] | None:
        """The halt of the controller's own that only a resume ends."""
        end = self.stack.command("resume")
        if memory.distrusted:
            return {
                "id": memory.distrusted.halt,
                "why": clean(memory.distrusted.why),
                "at": None,
                "end": end,
            }
        halt = state.halt
        return {"id": halt.id, "why": clean(halt.why), "at": halt.at, "end": end} if halt else None

    # Why devices fail

    def _failures(self, state: State, jobs: Mapping[str, Job]) -> dict[str, Any]:
        """The reasons that failed devices gave, most frequent first, from a sample."""
        places = self._places(state, jobs)
        each = max(SAMPLE // len(places), 1) if places else 0
        sample = [
            (job, thing, number, status)
            for job, status, _ in places[:SAMPLE]
            for thing, number in self.channel.executions(job, status, each)
        ]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(self._failure, sample))
        reasons = Counter(failure.reason for failure in found)
        return {
            "devices": sum(count for _, _, count in places),
            "sampled": len(found),
            "reasons": [
                {"reason": why, "devices": count, "examples": _examples(found, why)}
                for why, count in reasons.most_common()
            ],
        }

    def _places(self, state: State, jobs: Mapping[str, Job]) -> list[tuple[str, str, int]]:
        """Where devices failed: job, status and number, of the candidate and of the last rollback
        with what it took back."""
        names = (
            [self.names.job(r, p.offer.sequence) for r, p in state.candidate.rings.items()]
            if state.candidate
            else []
        )
        rejected = None
        if state.rollback:
            rejected = self.names.job(RESERVED, state.rollback.offer.sequence)
            names += [rejected, *state.rollback.exposing]
        found = []
        for name in dict.fromkeys([*names, *state.exposing]):
            counts = jobs[name].counts if name in jobs else Counts()
            found += [(name, "FAILED", counts.failed), (name, "TIMED_OUT", counts.timed_out)]
            if name == rejected:  # whoever is in a rollback's group has to come back
                found.append((name, "REJECTED", counts.rejected))
        return [place for place in found if place[2]]

    def _failure(self, execution: tuple[str, str, int, str]) -> Failure:
        job, thing, number, status = execution
        if execution not in self._reasons:
            self._reasons[execution] = reason(status, self.channel.details(job, thing, number))
        return Failure(job=job, thing=thing, reason=self._reasons[execution])


def reason(status: str, details: Mapping[str, str]) -> str:
    """Why an execution ended as it did, in the device's own words where it said any."""
    word = status.lower().replace("_", " ")
    said = details.get("reason")
    if said:
        return said if status in ("FAILED", "SUCCEEDED") else f"{word}: {said}"
    step = details.get("step")
    return (
        f"{word}, last heard of at step {step}"
        if step
        else f"{word}, and the device gave no reason"
    )


def _examples(found: list[Failure], why: str) -> list[str]:
    return sorted({failure.thing for failure in found if failure.reason == why})[:EXAMPLES]


def _plans(state: State, manifest: Manifest | None) -> tuple[RingPlan, ...]:
    current = state.candidate.manifest if state.candidate else manifest
    return (
        current.rings
        if current
        else tuple(RingPlan(name=ring, percent=0.0) for ring in state.stable)
    )


def _phase(state: State, progress: Progress | None, offer: Offer | None) -> str:
    if progress:
        return (
            "passed"
            if progress.passed_at is not None
            else "withdrawn"
            if progress.withdrawn
            else "proving"
        )
    if state.candidate:
        return "waiting"
    if offer is None:
        return "no job"
    rollback = state.rollback
    back = (
        rollback is not None
        and rollback.done_at is None
        and rollback.offer.sequence == offer.sequence
    )
    return "going back" if back else "last good"


def _gate(gate: Gate, progress: Progress | None, counts: Counts, granted: bool) -> dict[str, Any]:
    """The gate's thresholds beside the figures that they are measured against."""
    healthy, started = (progress.healthy_since, progress.started_at) if progress else (None, None)
    limit = gate.failure_limit
    return {
        "coverage": {
            "percent": _percent(counts.finished, counts.size),
            "wanted": gate.coverage_percent,
        },
        "success": {
            "percent": _percent(counts.succeeded, counts.exposed),
            "wanted": gate.success_percent,
        },
        "succeeded": {"devices": counts.succeeded, "wanted": gate.minimum_succeeded},
        "failing": {
            "percent": _percent(counts.failing, counts.finished),
            "limit": limit.percent,
            "minimum": limit.minimum,
        },
        "soak": {
            "minutes": gate.soak_minutes,
            "until": None if healthy is None else healthy + gate.soak_minutes * 60,
        },
        "alarms": [{"name": alarm.name, "action": alarm.action} for alarm in gate.alarms],
        "approval": {"wanted": gate.approval, "given": granted},
        "deadline": (
            None
            if started is None or gate.deadline_minutes is None
            else started + gate.deadline_minutes * 60
        ),
        "startedAt": started,
        "passedAt": progress.passed_at if progress else None,
    }


def _percent(part: int, whole: int) -> float | None:
    return round(part * 100 / whole, 1) if whole else None


def _release(state: State) -> dict[str, Any] | None:
    """What is being proved, else what every ring runs."""
    if state.candidate:
        offers = [progress.offer.sequence for progress in state.candidate.rings.values()]
        started = [progress.started_at for progress in state.candidate.rings.values()]
        extra = {
            "phase": "proving",
            "sequence": max(offers, default=None),
            "since": min(started, default=None),
        }
        return {**(_firmware(state.candidate.firmware) or {}), **extra}
    good = state.last_good
    if good is None:
        return None
    passed = [
        event.at
        for event in state.decisions
        if event.what == "last-good" and event.version == good.version
    ]
    sequences = [
        offer.sequence for offer in state.stable.values() if offer.firmware.sha256 == good.sha256
    ]
    extra = {
        "phase": "last good",
        "sequence": max(sequences, default=None),
        "since": max(passed, default=None),
    }
    return {**(_firmware(good) or {}), **extra}


def _firmware(firmware: Firmware | None) -> dict[str, Any] | None:
    return {"version": firmware.version, "sha256": firmware.sha256} if firmware else None


def _manifest(manifest: Manifest | None, problem: str | None) -> dict[str, Any]:
    """What the stack file asks for."""
    if manifest is None:
        return {
            "version": None,
            "sha256": None,
            "paused": None,
            "halted": None,
            "problem": clean(problem or ""),
        }
    asked = {"paused": manifest.paused, "halted": manifest.halted, "problem": None}
    return {**(_firmware(manifest.firmware) or {}), **asked}


def _waiting(memory: Memory) -> dict[str, Any]:
    """What the controller said that it waits for."""
    if memory.state is None:
        if memory.distrusted is None:
            text, ends = (
                "the controller's first run",
                "the controller has run: within a minute of the deployment",
            )
            return {"kind": "nothing", "text": text, "ring": None, "until": None, "endsWhen": ends}
        text = f"{clean(memory.distrusted.why)}; waits for `resume`"
        return {
            "kind": "halted",
            "text": text,
            "ring": None,
            "until": None,
            "endsWhen": ENDS_WHEN["halted"],
        }
    waiting = memory.state.waiting
    return {
        "kind": waiting.kind,
        "text": clean(waiting.text),
        "ring": waiting.ring,
        "until": waiting.until,
        "endsWhen": ENDS_WHEN[waiting.kind],
    }


def _alarm(name: str, alarm: Alarm | None, action: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "state": alarm.state if alarm else "MISSING",
        "since": alarm.since if alarm else None,
        "gateAction": action,
    }


def _needs(report: Mapping[str, Any], stack: Stack) -> list[str]:
    """Why a person is needed, and what they can do; empty when nobody is."""
    waiting, manifest, orders, rollback = (
        report["waiting"],
        report["manifest"],
        report["orders"],
        report["rollback"],
    )
    resume = f"`{stack.command('resume')}`"
    needs = []
    if rollback and rollback["failing"]:
        retry = stack.command("retry rollback")
        needs.append(
            f"the rollback failed on {rollback['failing']} devices: see the reasons, mend them,"
            f" then `{retry}`"
        )
    if report["halt"]:
        needs.append(f"halted: {report['halt']['why']}; {resume} ends it")
    if orders["problem"]:
        replace = stack.command("resume --replace")
        needs.append(
            f"control.json is unreadable, which the controller takes for a halt: `{replace}` writes"
            " a new one"
        )
    for word, what in (("halted", "halt"), ("paused", "pause")):
        if orders.get(word):
            needs.append(
                f"{word} by {clean(orders[word]['by'])}: {clean(orders[word]['why'])}; {resume}"
                f" ends the {what}"
            )
        if manifest[word]:
            needs.append(
                f"the stack file holds the rollout: rollout.{word} is true there; set it to false"
                " and deploy"
            )
    if waiting["kind"] in NEEDS_A_PERSON - {"halted", "paused", "rollback-failed"}:
        needs.append(_need(waiting, stack))
    controller = report["controller"]
    if controller["silent"] and (report["liveJobs"] or controller["stateChanged"]):
        last = controller["lastRun"]
        heard = f"for {length(report['at'] - last)}" if last else "for an hour or more"
        works = stack.command("halt")
        needs.append(
            f"the controller has not run {heard}, so no gate is kept: read its log; `{works}` works"
            " all the same"
        )
    if (
        not needs and waiting["kind"] in NEEDS_A_PERSON
    ):  # the order is gone, the controller has yet to notice
        needs.append(f"at the controller's last run: {waiting['text']}")
    return needs


def _need(waiting: Mapping[str, Any], stack: Stack) -> str:
    if waiting["kind"] == "approval":
        approve = stack.command(f"approve {waiting['ring']}")
        return f"{waiting['text']}: `{approve}`"
    return f"{waiting['text']}; it ends when {waiting['endsWhen']}"
