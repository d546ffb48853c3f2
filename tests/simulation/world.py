"""A small fleet and an AWS IoT Jobs of our own, driven by the real `decide` and `actions`; one
device at a time, exact.

It keeps IoT's rules that matter to the controller: CONTINUOUS jobs, executions by device, cancel of
what is queued only, abort criteria, time-outs, several jobs on a device in no promised order,
sequence rules on the device.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from rollout import actions as act
from rollout.codec import sha256_hex
from rollout.decide import decide
from rollout.ledger import mark_made
from rollout.names import Names
from rollout.observed import Alarm, Counts, Job, Observed, Returning, SignedOffer, Source
from rollout.orders import Orders
from rollout.release import Abort, Firmware, Manifest
from rollout.rings import ring_of
from rollout.state import Offer, State
from rollout.version import Version

NAMES = Names(fleet="iot-fleet", suffix="0123abcd", channel="stable")
TERMINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED", "REMOVED"}


def firmware(version: str, **changes: object) -> Firmware:
    """A firmware whose digest follows from its version."""
    made = Firmware(
        version=Version(version), sha256=sha256_hex(version), size=1000, hardware="gateway-a1"
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Device:
    name: str
    ring: str
    runs: Firmware
    sequence: int = 0
    online: bool = True
    hardware: str = "gateway-a1"
    history: list[str] = field(default_factory=list)


@dataclass
class SimJob:
    offer: Offer
    group: int | None
    """Of a way back; None for a ring's."""
    manifest: Manifest | None
    """Its abort criteria, while it has any."""
    status: str = "IN_PROGRESS"
    reason: str | None = None
    executions: dict[str, str] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def counts(self) -> Counts:
        found = list(self.executions.values())
        return Counts(
            queued=found.count("QUEUED"),
            in_progress=found.count("IN_PROGRESS"),
            succeeded=found.count("SUCCEEDED"),
            failed=found.count("FAILED"),
            timed_out=found.count("TIMED_OUT"),
            rejected=found.count("REJECTED"),
            canceled=found.count("CANCELED"),
            removed=found.count("REMOVED"),
        )


def is_met(counts: Counts, criterion: Abort) -> bool:
    """Whether IoT aborts by this criterion."""
    failed = counts.failed if criterion.on == "FAILED" else counts.timed_out
    executed = counts.finished + counts.rejected
    return executed >= criterion.minimum and failed * 100 >= criterion.percent * executed


class World:
    """`bad` are versions whose self-test fails everywhere, `bricks` those that never answer once
    begun."""

    def __init__(
        self, manifest: Manifest, devices: int, *, start: str = "1.0.0", seed: int = 1
    ) -> None:
        self.manifest: Manifest | None = manifest
        self.random = random.Random(seed)
        self.now = 1_790_000_000.0
        runs = firmware(start)
        self.devices = {
            f"d{n:04}": Device(f"d{n:04}", ring_of(f"d{n:04}", manifest.rings), runs)
            for n in range(devices)
        }
        self.state = State()
        self.jobs: dict[str, SimJob] = {}
        self.groups: dict[int, set[str]] = {}
        self.orders = Orders()
        self.alarms: dict[str, Alarm] = {}
        self.bad: set[str] = set()
        self.bad_on: dict[str, set[str]] = {}
        self.bricks: set[str] = set()
        self.timeout = 30 * 60.0
        self.deleted: set[str] = set()
        self.enrolled_a_run = 5000

    # The controller

    def observe(self) -> Observed:
        back = self.state.way_back
        jobs = {
            name: Job(
                status=job.status,  # type: ignore[arg-type]
                counts=job.counts(),
                reason=job.reason,
                armed=job.manifest is not None,
            )
            for name, job in self.jobs.items()
            if name not in self.deleted
        }
        known = {NAMES.job(offer.ring, offer.sequence) for offer in self.state.offers}
        strays = tuple(
            SignedOffer(
                job=name,
                ring=self.jobs[name].offer.ring,
                sequence=self.jobs[name].offer.sequence,
                firmware=self.jobs[name].offer.firmware,
            )
            for name in jobs.keys() - known
            if jobs[name].is_live
        )
        return Observed(
            jobs={name: job for name, job in jobs.items() if name in known},
            strays=strays,
            orders=self.orders,
            alarms=self.alarms,
            is_fleet_empty=not self.devices,
            groups=frozenset(self.groups),
            returning=self.returning(jobs) if back and back.is_open else Returning(),
            manifest_problem=None if self.manifest else "refused by the test",
        )

    def returning(self, jobs: dict[str, Job]) -> Returning:
        back = self.state.way_back
        assert back is not None
        members, exposed = self.groups.get(back.group, set()), self.exposed(back.sources)
        is_over = all(
            source.job in self.deleted or source.job not in jobs or jobs[source.job].is_over
            for source in back.sources
        )
        offer = self.state.returning()
        own = self.jobs.get(NAMES.job(offer.ring, offer.sequence)) if offer else None
        executions = own.executions if own else {}
        returned = {thing for thing in exposed & members if executions.get(thing) == "SUCCEEDED"}
        return Returning(
            exposed=len(exposed),
            placed=len(exposed & members),
            back=len(returned),
            is_complete=is_over and exposed <= members,
        )

    def exposed(self, sources: tuple[Source, ...]) -> set[str]:
        """Everybody who began a source's job; where that was deleted, its whole ring."""
        begun = {"IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT"}
        found: set[str] = set()
        for source in sources:
            if source.job in self.deleted:
                found |= {d.name for d in self.in_ring(source.ring)}
            elif source.job in self.jobs:
                executions = self.jobs[source.job].executions
                found |= {thing for thing, status in executions.items() if status in begun}
        return found

    def control_run(self, *, acts: int | None = None) -> None:
        """One run of the controller; `acts` kills it after that many calls, 0 right after the state
        was written."""
        observed = self.observe()
        self.state = decide(self.manifest, self.state, observed, self.now, NAMES)
        made = []
        for action in act.list_actions(self.state, observed, NAMES)[:acts]:
            self.apply(action)
            if isinstance(action, act.Create):
                made.append(NAMES.job(action.offer.ring, action.offer.sequence))
        if acts is None:
            self.state = mark_made(self.state, made, NAMES)

    def apply(self, action: act.Action) -> None:
        match action:
            case act.Create():
                name = NAMES.job(action.offer.ring, action.offer.sequence)
                is_proving = action.offer.aim == "prove" and self.state.candidate
                armed = self.state.candidate.manifest if is_proving else None  # type: ignore[union-attr]
                assert name not in self.deleted, "an id is never used twice"
                if action.group is not None:
                    self.groups.setdefault(action.group, set())
                self.jobs.setdefault(name, SimJob(action.offer, action.group, armed))
            case act.Cancel():
                self.cancel(action.job, "NOT_WANTED")
            case act.Disarm():
                self.jobs[action.job].manifest = None
            case act.Enroll():
                group = self.groups.setdefault(action.group, set())
                group.update(sorted(self.exposed(action.sources) - group)[: self.enrolled_a_run])
            case act.RemoveGroup():
                self.groups.pop(action.sequence, None)

    def cancel(self, name: str, reason: str | None) -> None:
        job = self.jobs[name]
        if job.status != "IN_PROGRESS":
            return
        job.status, job.reason = "CANCELED", reason
        for thing, status in job.executions.items():
            if status == "QUEUED":
                job.executions[thing] = "CANCELED"

    # IoT Jobs and the devices

    def tick(self, seconds: float = 60.0) -> None:
        """Time passes: executions are queued for every member, devices work, executions time out,
        jobs abort."""
        self.now += seconds
        for job in self.jobs.values():
            if job.status == "IN_PROGRESS":
                for thing in self.targets(job):
                    job.executions.setdefault(thing, "QUEUED")
        for device in self.devices.values():
            if device.online:
                self.work(device)
        for name, job in self.jobs.items():
            for thing, status in job.executions.items():
                if status == "IN_PROGRESS" and self.now - job.began[thing] > self.timeout:
                    job.executions[thing] = "TIMED_OUT"
            if (
                job.manifest
                and job.status == "IN_PROGRESS"
                and any(is_met(job.counts(), c) for c in job.manifest.abort)
            ):
                self.cancel(name, "AWS does not say which")

    def targets(self, job: SimJob) -> set[str]:
        if job.group is not None:
            return self.groups.get(job.group, set())
        return {device.name for device in self.devices.values() if device.ring == job.offer.ring}

    def work(self, device: Device) -> None:
        """The device ends what it began before, else takes one of its jobs, in no promised
        order."""
        mine = [job for job in self.jobs.values() if device.name in job.executions]
        begun = [job for job in mine if job.executions[device.name] == "IN_PROGRESS"]
        if begun:
            self.finish(device, begun[0])
            return
        queued = [
            job
            for job in mine
            if job.executions[device.name] == "QUEUED" and job.status == "IN_PROGRESS"
        ]
        if queued:
            job = self.random.choice(queued)
            verdict = self.verdict(device, job.offer)
            job.executions[device.name] = verdict
            job.began[device.name] = self.now
            if verdict != "REJECTED":
                device.sequence = max(device.sequence, job.offer.sequence)

    def verdict(self, device: Device, offer: Offer) -> str:
        if offer.firmware.hardware != device.hardware:
            return "REJECTED"
        if offer.firmware.sha256 == device.runs.sha256:
            return "SUCCEEDED"
        newer = device.runs.version > offer.firmware.version
        if offer.sequence < device.sequence or (newer and not offer.downgrade):
            return "REJECTED"
        return "IN_PROGRESS"

    def finish(self, device: Device, job: SimJob) -> None:
        new = job.offer.firmware
        version = str(new.version)
        if version in self.bricks:
            return
        if version in self.bad or device.name in self.bad_on.get(version, ()):
            job.executions[device.name] = "FAILED"
            return
        job.executions[device.name] = "SUCCEEDED"
        device.runs = new
        device.history.append(version)

    # What a test asks

    def run(self, minutes: int, *, seconds: float = 60.0) -> None:
        for _ in range(minutes):
            self.control_run()
            self.tick(seconds)
        self.control_run()

    def versions(self, ring: str | None = None) -> set[str]:
        return {str(d.runs.version) for d in self.devices.values() if ring in (None, d.ring)}

    def live(self, ring: str, version: str) -> bool:
        """Whether a job offers this version to the ring now."""
        live = [job.offer for job in self.jobs.values() if job.status == "IN_PROGRESS"]
        return any(o.ring == ring and str(o.firmware.version) == version for o in live)

    def refused(self) -> set[str]:
        """Digests that are refused."""
        return {sha for sha, r in self.state.releases.items() if r.standing == "refused"}

    def in_ring(self, ring: str) -> list[Device]:
        return [d for d in self.devices.values() if d.ring == ring]
