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
from rollout.names import ROLLBACK, Names
from rollout.observed import ABORT_CANCEL, Alarm, Counts, Job, Observed, is_met
from rollout.orders import Orders
from rollout.release import Firmware, Manifest
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
    create: act.Create
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
        rollback = self.state.rollback
        rolling = rollback if rollback and rollback.done_at is None else None
        members = self.groups.get(rolling.offer.sequence, set()) if rolling else set()
        exposed = self.exposed(rolling.exposing_jobs) if rolling else set()
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
        return Observed(
            jobs=jobs,
            orders=self.orders,
            alarms=self.alarms,
            groups=frozenset(self.groups),
            enrolled=len(members),
            unenrolled=len(exposed - members),
            manifest_problem=None if self.manifest else "refused by the test",
        )

    def exposed(self, jobs: tuple[str, ...]) -> set[str]:
        begun = {"IN_PROGRESS", "SUCCEEDED", "FAILED", "TIMED_OUT"}
        return {
            thing
            for name in jobs
            if name in self.jobs
            for thing, status in self.jobs[name].executions.items()
            if status in begun
        }

    def control_run(self, *, acts: int | None = None) -> None:
        """One run of the controller; `acts` kills it after that many calls, 0 right after the state
        was written."""
        observed = self.observe()
        self.state = decide(self.manifest, self.state, observed, self.now, NAMES)
        for action in act.list_actions(self.state, observed, NAMES)[:acts]:
            self.apply(action)

    def apply(self, action: act.Action) -> None:
        match action:
            case act.Create():
                name = NAMES.job(action.ring, action.offer.sequence)
                armed = (
                    self.state.candidate.manifest
                    if action.proving and self.state.candidate
                    else None
                )
                if name in self.deleted:  # its id is free again
                    self.deleted.discard(name)
                    del self.jobs[name]
                self.jobs.setdefault(name, SimJob(action, armed))
            case act.Cancel():
                self.cancel(action.job, "NOT_WANTED")
            case act.Disarm():
                self.jobs[action.job].manifest = None
            case act.Enroll():
                group = self.groups.setdefault(action.sequence, set())
                group.update(
                    sorted(self.exposed(action.exposing_jobs) - group)[: self.enrolled_a_run]
                )
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
                self.cancel(name, ABORT_CANCEL)

    def targets(self, job: SimJob) -> set[str]:
        if job.create.ring == ROLLBACK:
            return self.groups.get(job.create.offer.sequence, set())
        return {device.name for device in self.devices.values() if device.ring == job.create.ring}

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
            verdict = self.verdict(device, job.create.offer)
            job.executions[device.name] = verdict
            job.began[device.name] = self.now
            if verdict != "REJECTED":
                device.sequence = max(device.sequence, job.create.offer.sequence)

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
        new = job.create.offer.firmware
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
        offers = [job.create for job in self.jobs.values() if job.status == "IN_PROGRESS"]
        return any(
            create.ring == ring and str(create.offer.firmware.version) == version
            for create in offers
        )

    def in_ring(self, ring: str) -> list[Device]:
        return [d for d in self.devices.values() if d.ring == ring]
