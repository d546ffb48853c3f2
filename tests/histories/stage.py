"""The stage on which histories are played: a fleet, its stack, people, an adversary, and the real
controller in between. Each method is one step of a history, with plain arguments, so that a history
can be printed as a script and played again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from botocore.exceptions import ReadTimeoutError

from cloud.channel import Channel
from cloud.clients import Clients
from functions.controller import Controller, Setup
from rollout.codec import sha256_hex
from rollout.jws import STATE_TYPE, b64url_encode, signing_input
from rollout.names import Names, Variable
from rollout.orders import ApprovalOrder, Orders
from rollout.release import Firmware, Gate, Manifest, Pace, RingPlan
from rollout.rings import ring_of
from rollout.trust import UntrustedState
from rollout.version import Version
from tests.histories.field_devices import (
    CHANNEL,
    HARDWARE,
    Ailment,
    FieldDevice,
    verified_claims,
)
from tests.histories.nasty_aws import (
    AwsCall,
    CallEffect,
    Killed,
    Line,
    Turns,
    denial,
    no_harm,
    said_no,
)
from tests.histories.nasty_iot import IotJob, NastyIot, Weather, group_arn

STACK = Names(fleet="iot-fleet", suffix="0123abcd", channel=CHANNEL)
RINGS = (("canary", 20.0), ("early", 30.0), ("broad", 50.0))
FIELD_ALARM = "field-errors"
FACTORY = "0.9.0"
"""What devices run before anything is released."""
START = 1_790_000_000.0
TROUBLES = (
    "throttled",
    "refused",
    "broken",
    "killed before",
    "killed after",
    "answer lost",
    "time passes",
    "another run",
    "a deployment",
)
STEP = 20.0
"""Seconds of the world between two looks at its devices."""


@dataclass(kw_only=True)
class ControllerRun:
    """One run of the controller, as the oracle judges it."""

    line: Line
    at: float
    before: dict[str, Any]
    """The state that lay there when it began."""
    jobs_before: frozenset[str]
    control_before: dict[str, Any]
    facts_before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] | None = None
    error: BaseException | None = None
    was_alone: bool = True

    @property
    def is_clean(self) -> bool:
        """It ran to its end, undisturbed, and believed the state."""
        done = self.answer is not None and self.answer.get("outcome") in ("done", "failed")
        line = self.line
        was_disturbed = line.was_harmed or line.was_killed or line.was_overtaken
        return done and self.error is None and not was_disturbed and self.was_alone


@dataclass
class RunClock:
    """The time of the world, as a run of the controller reads it."""

    iot: NastyIot
    slept: float = 0.0

    def time(self) -> float:
        return self.iot.now + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


class OneAfterAnother(Executor):
    """Threads that are none, so that a history is the same whenever it is played."""

    def submit(self, call: Any, /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*args, **more))
        except Exception as error:
            done.set_exception(error)
        return done


class Stage:
    def __init__(
        self,
        seed: int = 0,
        devices: int = 24,
        *,
        rings: Sequence[tuple[str, float]] = RINGS,
        weather: Weather | None = None,
        gate: Gate | None = None,
        first: str | None = "1.0.0",
        adopts: bool = False,
        watch: Callable[[Stage], Any] | None = None,
        **options: Any,
    ) -> None:
        """A fleet on factory firmware; `first` is released and brought to its end (None: nothing
        is). With `adopts` the factory firmware is the way back of the first release. `options` are
        those of a Manifest."""
        self.random = random.Random(seed)
        self.iot = NastyIot(bucket=STACK.bucket, now=START, seed=seed, weather=weather or Weather())
        self.rings = tuple(rings)
        self.gate = gate or Gate(soak_minutes=2.0, success_percent=90.0)
        self.options: dict[str, Any] = {"pace": Pace(maximum_per_minute=1000), **options}
        self.ailments: dict[str, Ailment] = {}
        self.devices: dict[str, FieldDevice] = {}
        self.published: list[Manifest] = []
        self.images: dict[str, bytes] = {}
        """By key: the images that `pulumi up` put into the bucket."""
        self.environment: dict[str, str] = {}
        self.unfinished: Manifest | None = None
        """The manifest of a deployment that stopped before it was written."""
        self.state_written: str | None = None
        """Id of the newest version of state.json that the controller itself wrote."""
        self.runs = 0
        self.is_up = False
        self.orders_given = 0
        self.image_troubles: set[str] = set()
        """Digests whose image was once gone or changed: their failures may be ours."""
        self.pardoned: set[str] = set()
        self.ordered_back: set[str] = set()
        """Digests that people ordered to be rolled back."""
        self.forged: set[str] = set()
        """Ids of jobs that the adversary made."""
        self.distrust = 0
        """How often somebody tampered with state.json."""
        self.iot.alarms[FIELD_ALARM] = ("OK", START)
        self.answers: list[dict[str, Any]] = []
        for number in range(devices):
            self._make_device(f"{number:05}", self.random.choice((30.0, 60.0, 90.0, 240.0)))
        self.oracle = watch(self) if watch else None
        if adopts:
            self.options["adopted"] = self._put_factory_image()
        if first:
            self.release(first)
            self.until(lambda: self.last_good == first or self._approve_small_rings(), 120)

    def _put_factory_image(self) -> Firmware:
        body = image_bytes(FACTORY)
        made = Firmware(
            version=Version(FACTORY), sha256=sha256_hex(body), size=len(body), hardware=HARDWARE
        )
        self.images[made.key] = body
        self.iot.put(made.key, body)
        return made

    def _approve_small_rings(self) -> bool:
        """A person lets pass whatever ring is too small to prove anything."""
        if self.waiting in ("approval", "no-devices", "minimum-succeeded"):
            self.approve(self.state["waiting"]["ring"])
        return False

    def _make_device(self, serial: str, seconds: float) -> FieldDevice:
        name = STACK.thing(serial)
        device = FieldDevice(
            name=name,
            serial=serial,
            version=FACTORY,
            digest=image_digest(FACTORY),
            seconds=seconds,
        )
        self.devices[name] = device
        self.iot.make_thing(name)
        return device

    # What can be seen

    @property
    def now(self) -> float:
        return self.iot.now

    @property
    def state(self) -> dict[str, Any]:
        """state.json as it lies there; empty where it is missing or no JSON."""
        return dict(read_object(self.iot.body(STACK.keys.state)).get("state") or {})

    @property
    def control(self) -> dict[str, Any]:
        return read_object(self.iot.body(STACK.keys.orders))

    @property
    def manifest(self) -> Manifest:
        return self.published[-1]

    @property
    def is_announced(self) -> bool:
        """Whether the manifest that lies there is the one that the function was told of."""
        told = self.environment.get(Variable.MANIFEST_SHA256)
        return told == sha256_hex(self.iot.body(STACK.keys.manifest) or b"")

    @property
    def last_good(self) -> str | None:
        return (self.state.get("lastGood") or {}).get("version")

    @property
    def last_good_digest(self) -> str | None:
        return (self.state.get("lastGood") or {}).get("sha256")

    @property
    def waiting(self) -> str:
        return str(self.state.get("waiting", {}).get("kind"))

    @property
    def candidate_digest(self) -> str | None:
        candidate = self.state.get("candidate")
        return candidate["manifest"]["firmware"]["sha256"] if candidate else None

    @property
    def is_loud(self) -> bool:
        """Whether an alarm is red that says that a person is needed."""
        names = ("Held", "RollbackFailed", "ManifestRefused")
        return any(self.iot.metric(name) for name in names)

    @property
    def is_distrusted(self) -> bool:
        """Whether what lies there is not what the controller wrote last."""
        found = self.iot.get(STACK.keys.state)
        return (found.id if found else None) != self.state_written

    def versions(self, ring: str | None = None) -> set[str]:
        return {d.version for d in self.present() if ring is None or self.ring(d) == ring}

    def present(self) -> list[FieldDevice]:
        """The devices whose thing exists."""
        return [device for name, device in self.devices.items() if name in self.iot.things]

    def ring(self, device: FieldDevice) -> str:
        return self.ring_of_serial(device.serial)

    def ring_of_serial(self, serial: str) -> str:
        plans = [RingPlan(name=name, percent=percent) for name, percent in self.rings]
        return ring_of(serial, plans)

    @property
    def is_busy(self) -> bool:
        """Whether a device or a job has anything left to do."""
        busy = any(job.is_busy or job.in_progress or job.queued for job in self.iot.jobs.values())
        return busy or any(device.errand for device in self.devices.values())

    def in_ring(self, ring: str) -> list[FieldDevice]:
        return [device for device in self.present() if self.ring(device) == ring]

    def jobs(self, ring: str | None = None, *, live: bool = False) -> list[IotJob]:
        """The controller's jobs, the newest offer last."""
        found = []
        for job in self.iot.jobs.values():
            parts = STACK.split_job(job.id)
            is_asked_for = parts and ring in (None, parts[0]) and (job.is_live or not live)
            if job.by_controller and parts and is_asked_for:
                found.append((parts[1], job.created_at, job.id, job))
        return [entry[-1] for entry in sorted(found, key=lambda entry: entry[:3])]

    def live(self, ring: str) -> set[str]:
        """The versions that jobs offer to a ring now."""
        return {str(claims_of(job).get("version")) for job in self.jobs(ring, live=True)}

    def refused(self, state: dict[str, Any] | None = None) -> set[str]:
        """Digests that the controller says it refuses."""
        state = self.state if state is None else state
        ledger = state.get("releases", {})
        return {d for d, r in ledger.items() if r.get("standing") == "refused"} | set(
            state.get("refused", ())
        )

    def find_alarm_names(self) -> list[str]:
        return sorted(self.iot.alarms)

    # The stack

    def build(
        self,
        version: str,
        *,
        image: str | None = None,
        ail: str | None = None,
        share: float = 1.0,
        on: str | None = None,
        downgrade: bool = False,
        hardware: str = HARDWARE,
        **options: Any,
    ) -> Manifest:
        """A manifest for this version; its image is made of the text `image` (its version, if
        None), and `ail` is what is wrong with it on `share` of the devices, of the ring `on` if
        that is said."""
        body = image_bytes(image or version)
        digest = sha256_hex(body)
        if ail:
            only = frozenset(device.name for device in self.in_ring(on)) if on else None
            self.ailments[digest] = Ailment(kind=ail, share=share, only=only)
        gate = options.pop("gate", self.gate)
        gates = options.pop("gates", {})
        rings = options.pop("rings", self.rings)
        self.rings = tuple(rings)
        return Manifest(
            schema=1,
            channel=CHANNEL,
            firmware=Firmware(
                version=Version(version),
                sha256=digest,
                size=len(body),
                hardware=hardware,
                allow_downgrade=downgrade,
            ),
            rings=tuple(
                RingPlan(name=name, percent=percent, gate=gates.get(name, gate))
                for name, percent in self.rings
            ),
            **{**self.options, **options},
        )

    def release(self, version: str, *, stop_early: bool = False, **how: Any) -> None:
        """`pulumi up` with another release. `stop_early`: it stops after the function was
        updated, before the manifest is written."""
        self.deploy(self.build(version, **how), image=how.get("image"), stop_early=stop_early)

    def deploy(
        self, manifest: Manifest, *, image: str | None = None, stop_early: bool = False
    ) -> None:
        """`pulumi up`, in its order: groups and members, the image, the function, the manifest."""
        self.rings = tuple((ring.name, ring.percent) for ring in manifest.rings)
        self._settle_members()
        key = manifest.firmware.key
        self.images.setdefault(key, image_bytes(image or str(manifest.firmware.version)))
        if self.iot.get(key) is None:
            self.iot.put(key, self.images[key])
        self.environment = self._environment(manifest)
        self.unfinished = manifest if stop_early else None
        self.is_up = True
        if not stop_early:
            self.iot.put(STACK.keys.manifest, manifest.text().encode())
            self.published.append(manifest)

    def finish_deployment(self) -> None:
        """`pulumi up` again, after one that stopped."""
        if self.unfinished:
            self.deploy(self.unfinished)

    def revert(self, back: int = 1) -> None:
        """`git revert` of the last `back` manifests, and `pulumi up`."""
        if len(self.published) > back:
            self.deploy(self.published[-1 - back])

    def change(self, **options: Any) -> None:
        """The same release with other settings: `gate`, `gates` by ring, `rings`, or options of
        a Manifest."""
        manifest = self.unfinished or self.manifest
        gate, gates = options.pop("gate", None), options.pop("gates", {})
        old = {ring.name: ring.gate for ring in manifest.rings}
        rings = options.pop("rings", tuple((ring.name, ring.percent) for ring in manifest.rings))
        plans = tuple(
            RingPlan(
                name=name,
                percent=percent,
                gate=gates.get(name) or gate or old.get(name, self.gate),
            )
            for name, percent in rings
        )
        stop_early = bool(options.pop("stop_early", False))
        self.deploy(dataclasses.replace(manifest, rings=plans, **options), stop_early=stop_early)

    def _environment(self, manifest: Manifest) -> dict[str, str]:
        known = {
            Variable.BUCKET: STACK.bucket,
            Variable.CHANNEL: CHANNEL,
            Variable.DNS_SUFFIX: "amazonaws.com",
            Variable.FLEET: STACK.fleet,
            Variable.MANIFEST_SHA256: sha256_hex(manifest.text()),
            Variable.PRESIGN_ROLE_ARN: "arn:aws:iam::123456789012:role/presign",
            Variable.REGION: "us-east-1",
            Variable.RING_GROUP_ARNS: json.dumps(
                {ring.name: group_arn(STACK.ring_group(ring.name)) for ring in manifest.rings}
            ),
            Variable.SIGNING_KEY_ARNS: json.dumps(self.iot.keys),
            Variable.SUFFIX: STACK.suffix,
        }
        return {variable: known.get(variable, "0" * 64) for variable in Variable}

    def _settle_members(self) -> None:
        """The ring groups of the stack, each device in the one of its ring."""
        fleet = STACK.fleet_group
        self.iot.make_group(fleet)
        wanted = {STACK.ring_group(name) for name, _ in self.rings}
        for group in wanted:
            self.iot.make_group(group, fleet)
        for device in self.present():
            home = STACK.ring_group(self.ring(device))
            for group in self.iot.things[device.name] - {home}:
                if self.iot.parents.get(group) == fleet:
                    self.iot.leave(group, device.name)
            self.iot.join(home, device.name)
        for group in [one for one, parent in self.iot.parents.items() if parent == fleet]:
            if group not in wanted:
                self.iot.delete_group(group)

    def destroy(self) -> dict[str, Any] | None:
        """`pulumi destroy --exclude-protected`: the end-of-stack run, then the groups go."""
        run = self._begin()
        controller = self._controller(run.line)
        try:
            run.answer = controller.end()
        except Exception as error:  # the oracle judges it
            run.error = error
        self._ended(run)
        self.is_up = False
        for group in [one for one, p in self.iot.parents.items() if p == STACK.fleet_group]:
            self.iot.delete_group(group)
        return run.answer

    def up(self) -> None:
        """`pulumi up` after a destroy, of what was released last."""
        self.deploy(self.unfinished or self.manifest)

    # The controller

    def _controller(self, line: Line) -> Controller:
        setup = Setup.from_environment(self.environment)
        controller = Controller(setup, Clients(line.connect), clock=RunClock(self.iot))
        controller.way_back.pool = OneAfterAnother
        return controller

    def _begin(self, fault: Callable[[AwsCall, CallEffect], Any] = no_harm) -> ControllerRun:
        return ControllerRun(
            line=Line(self.iot, fault),
            at=self.now,
            before=self.state,
            jobs_before=frozenset(self.iot.jobs),
            control_before=self.control,
            facts_before=self.oracle.facts() if self.oracle else {},
        )

    def _ended(self, run: ControllerRun) -> None:
        self.runs += 1
        run.after = self.state
        if run.answer is not None:
            self.answers.append(run.answer)
            del self.answers[:-5]
        if self.oracle:
            self.oracle.after_run(run)
        elif run.error and not (run.line.was_harmed or run.line.was_killed):
            raise AssertionError(f"a run raised {run.error!r}") from run.error

    def run(self, fault: Callable[[AwsCall, CallEffect], Any] | None = None) -> ControllerRun:
        """One run of the controller. What it raises is kept in what is returned; the oracle
        judges it."""
        run = self._begin(fault or no_harm)
        if not self.is_up:
            return run
        self._note_writes(run.line)
        try:
            run.answer = self._controller(run.line).run(self.now)
        except (Exception, Killed) as error:
            run.error = error
        self._ended(run)
        return run

    def _note_writes(self, line: Line) -> None:
        inner = line.fault

        def noted(call: AwsCall, effect: CallEffect) -> Any:
            try:
                return inner(call, effect)
            finally:
                if call.operation == "PutObject" and call.parameters["Key"] == STACK.keys.state:
                    body = call.parameters["Body"]
                    body = body.encode() if isinstance(body, str) else body
                    found = self.iot.get(STACK.keys.state)
                    if found and found.body == body:
                        self.state_written = found.id

        line.fault = noted

    def overlap(self, seed: int, *, later: float = 0.0) -> list[ControllerRun]:
        """Two runs at once, call by call in an order that `seed` draws."""
        if not self.is_up:
            return []
        runs = [self._begin(), self._begin()]
        turns = Turns([run.line for run in runs], seed)
        self.iot.turns = turns

        def play(run: ControllerRun, at: float) -> None:
            try:
                run.answer = self._controller(run.line).run(at)
            except Exception as error:  # the oracle judges it
                run.error = error
            finally:
                turns.give(ended=run.line)

        threads = []
        for number, run in enumerate(runs):
            run.was_alone = False
            self._note_writes(run.line)
            threads.append(threading.Thread(target=play, args=(run, self.now + number * later)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.iot.turns = None
        for run in runs:
            self._ended(run)
        return runs

    def trouble(self, kind: str, at: int) -> ControllerRun:
        """A run in which something goes wrong with the call of this number: one of TROUBLES."""

        def fault(call: AwsCall, effect: CallEffect) -> Any:
            if call.number != at:
                return effect()
            if kind in ("throttled", "refused", "broken"):
                call.line.was_harmed = True
            call.line.was_overtaken = True
            if kind == "throttled":
                raise said_no("ThrottlingException", call.operation)
            if kind == "refused":
                raise denial(call)
            if kind == "broken":
                effect()
                raise ReadTimeoutError(endpoint_url=call.service)
            if kind == "killed before":
                raise Killed
            if kind == "killed after":
                effect()
                raise Killed
            if kind == "answer lost":  # botocore asks again
                effect()
            if kind == "time passes":
                self.tick(STEP)
            if kind == "another run":
                self.iot.now += 1
                self.run()
            if kind == "a deployment":
                self.revert()
            return effect()

        return self.run(fault)

    # Time

    def tick(self, seconds: float = 60.0) -> None:
        """IoT and the devices go on; nobody runs the controller."""
        end = self.now + seconds
        while self.now < end:
            self.iot.pass_time(min(STEP, end - self.now))
            self.act()

    def act(self) -> None:
        """Every device does what it can do by now."""
        waiting = [name for name, jobs in self.iot.pending.items() if jobs]
        busy = [name for name, device in self.devices.items() if device.errand]
        for name in dict.fromkeys(waiting + busy):
            if name in self.devices:
                self.devices[name].act(self.iot, self.ailments)

    def minutes(self, count: int, every: float = 60.0) -> None:
        """So many minutes, a run of the controller `every` seconds."""
        for _ in range(round(count * 60 / every)):
            self.tick(every)
            self.run()

    def until(self, is_so: Callable[[], bool], most: int, every: float = 60.0) -> None:
        """Minutes pass until something is so; an AssertionError after `most` of them."""
        for _ in range(round(most * 60 / every)):
            if is_so():
                return
            self.minutes(round(every / 60), every)
        assert is_so(), f"not so within {most} minutes; {self.show()}"

    def show(self) -> str:
        """Where the channel stands, for whoever reads a failure."""
        jobs = [
            f"{job.id} {claims_of(job).get('version')} {job.status}"
            f"{'*' if job.is_busy else ''} {dict(+job.counts)}"
            for job in self.jobs()[-6:]
        ]
        runs: dict[str, int] = {}
        for device in self.present():
            runs[device.version] = runs.get(device.version, 0) + 1
        state = self.state
        metrics = {str(name): value for (name, ring), value in self.iot.metrics.items() if not ring}
        decisions = [
            (event["what"], event.get("ring"), event["why"][:90])
            for event in state.get("decisions", [])
        ]
        return (
            f"waiting {state.get('waiting')}, last good {self.last_good}, devices run {runs},"
            f" jobs {jobs}, metrics {metrics}, decisions {decisions[-5:]},"
            f" last answer {self.answers[-1:]}"
        )

    # People

    def order(self, **orders: Any) -> None:
        """control.json as `ops` writes it, beside what stands there."""
        self.iot.put(
            STACK.keys.orders, json.dumps({"schema": 1, **self.control, **orders}).encode()
        )

    def _word(self, why: str = "a test") -> dict[str, Any]:
        self.orders_given += 1
        return {"by": "olga", "at": self.now + self.orders_given / 1000, "why": why}

    def pause(self) -> None:
        self.order(paused=self._word())

    def halt(self, *, cancel: bool = True) -> None:
        """`ops halt`: the order, and the candidate's jobs cancelled by hand."""
        self.order(halted=self._word())
        for job in self.jobs(live=True) if cancel else ():
            if claims_of(job).get("sha256") == self.candidate_digest != self.last_good_digest:
                self.iot.cancel(job, "OPERATOR_HALT")

    def resume(self) -> None:
        """`ops resume`: ends pause, halt, and the halt of the controller that stands now."""
        control = {k: v for k, v in self.control.items() if k not in ("paused", "halted")}
        halt = self.find_halt()
        control["resume"] = {"order": self._word(), **({"halt": halt} if halt else {})}
        self.iot.put(STACK.keys.orders, json.dumps({"schema": 1, **control}).encode())

    def find_halt(self) -> str | None:
        """The id of the controller's halt, as `ops status` finds it."""
        if self.answers and self.answers[-1].get("outcome") == "distrusted":
            channel = Channel(
                Clients(Line(self.iot).connect),
                STACK,
                bucket=STACK.bucket,
                signing_keys=self.iot.keys,
            )
            try:
                channel.current_state(*self._live_argument(channel))
            except UntrustedState as error:
                return error.halt
        halt = self.state.get("halt")
        return halt["id"] if halt else None

    @staticmethod
    def _live_argument(channel: Channel) -> tuple[Any, ...]:
        takes = channel.current_state.__code__.co_argcount > 1
        return (channel.jobs.live(),) if takes else ()

    def approve(self, ring: str) -> None:
        """`ops approve`, which names the image and the ring's size as the person saw it."""
        approval: dict[str, Any] = {
            "ring": ring,
            "sha256": self.manifest.firmware.sha256,
            "order": self._word(),
        }
        if "size" in {known.name for known in dataclasses.fields(ApprovalOrder)}:
            newest = self.jobs(ring)[-1:]
            counts = newest[0].counts if newest else Counter[str]()
            gone = counts["REJECTED"] + counts["REMOVED"] + counts["CANCELED"]
            approval["size"] = counts.total() - gone
        self.order(approvals=[*self.control.get("approvals", []), approval])

    def retry(self, ring: str) -> None:
        """`ops retry`, of the newest offer of the ring, or of the way back."""
        newest = self.jobs(ring)[-1:]
        if newest:
            sequence = (STACK.split_job(newest[0].id) or ("", 0))[1]
            self.order(retry={"ring": ring, "sequence": sequence, "order": self._word()})

    def roll_back(self, digest: str | None = None) -> None:
        """`ops rollback`: of the candidate, else of the last good release."""
        named = digest or self.candidate_digest or self.last_good_digest
        if named:
            self.ordered_back.add(named)
            self.order(rollback={"sha256": named, "order": self._word()})

    def roll_back_earlier(self, back: int) -> None:
        """An order against what was released `back` manifests ago."""
        if len(self.published) > back:
            self.roll_back(self.published[-1 - back].firmware.sha256)

    def pardon_something(self) -> None:
        for digest in sorted(self.refused())[:1]:
            self.pardon(digest)

    def waive_someone(self, which: int) -> None:
        self.waive(self.present()[which % len(self.present())].name)

    def pardon(self, digest: str) -> None:
        self.pardoned.add(digest)
        self.order(pardon={"sha256": digest, "order": self._word()})

    def waive(self, thing: str) -> None:
        self.order(
            waived=[*self.control.get("waived", []), {"thing": thing, "order": self._word()}]
        )

    def cancel_by_hand(
        self, which: int = -1, *, reason: str | None = None, force: bool = False
    ) -> None:
        """Somebody cancels one of the live jobs in the console."""
        found = self.jobs(live=True)
        if found:
            self.iot.cancel(found[which % len(found)], reason, force=force)

    def delete_by_hand(self, which: int = -1) -> None:
        """Somebody deletes a job in the console, live or over."""
        found = self.jobs()
        if found and found[which % len(found)].gone_at is None:
            self.iot.do_delete_job(jobId=found[which % len(found)].id, force=True)

    # Adversaries and mishaps

    def strike(self, digest: str, kind: str, devices: frozenset[str]) -> None:
        """From now on something is wrong with an image on these devices."""
        self.ailments[digest] = Ailment(kind=kind, share=1.0, only=devices)

    def lose_state(self) -> None:
        if self.iot.get(STACK.keys.state):
            self.iot.put(STACK.keys.state, None)
            self.distrust += 1

    def replay_state(self, back: int = 1) -> None:
        """An older state.json, signed as it was, is put back."""
        bodies = [one.body for one in self.iot.objects.get(STACK.keys.state, []) if one.body]
        if len(bodies) > back:
            self.iot.put(STACK.keys.state, bodies[-1 - back])
            self.distrust += 1

    def forge_state(self) -> None:
        """state.json as somebody without the key would write it: nothing refused, no halt."""
        state = {**self.state, "releases": {}, "halt": None}
        head = signing_input(STATE_TYPE, self.iot.keys[0], state).split(".")[0]
        forged = {"state": state, "jws": f"{head}..{b64url_encode(b'0' * 64)}"}
        self.iot.put(STACK.keys.state, json.dumps(forged).encode())
        self.distrust += 1

    def forge_job(self, ring: str, sequence: int, *, of: int | None = None) -> None:
        """A job under the channel's prefix; its document is one of an earlier job (`of`), or
        rubbish."""
        job = STACK.job(ring, sequence)
        group = STACK.ring_group(ring)
        if job in self.iot.jobs or len(job) > 64:
            return
        documents = [one.document for one in self.jobs()]
        document = "{}"
        if of is not None and documents:
            document = documents[of % len(documents)]
        target = group if group in self.iot.groups else STACK.fleet_group
        self.forged.add(job)
        self.iot.create(job, target, document, {"targetSelection": "CONTINUOUS"}, False)

    def lose_image(self, digest: str | None = None, *, for_good: bool = False) -> None:
        """Somebody deletes an image; `for_good`: every version of it, too."""
        for key in self._spoil(digest):
            if for_good:
                del self.iot.objects[key]
            else:
                self.iot.put(key, None)

    def overwrite_image(self, digest: str | None = None) -> None:
        for key in self._spoil(digest):
            self.iot.put(key, b"something else")

    def _spoil(self, digest: str | None) -> list[str]:
        digest = digest or self.manifest.firmware.sha256
        self.image_troubles.add(digest)
        return [key for key in self.images if digest in key and self.iot.get(key)]

    def is_image_there(self, digest: str) -> bool:
        """Whether the newest version is the image, as `pulumi up` put it there."""
        return any(
            digest in key and self.iot.body(key) == body for key, body in self.images.items()
        )

    def restore_images(self) -> None:
        """`pulumi up` puts back what is not there or differs."""
        for key, body in self.images.items():
            if self.iot.body(key) != body:
                self.iot.put(key, body)

    def redden(self, name: str = FIELD_ALARM) -> None:
        self.iot.alarms[name] = ("ALARM", self.now)

    def calm(self, name: str = FIELD_ALARM) -> None:
        self.iot.alarms[name] = ("OK", self.now)

    def go_offline(self, share: float, seed: int = 0) -> None:
        for device in self._some(share, seed):
            device.is_online = False

    def come_online(self) -> None:
        for device in self.present():
            device.is_online = True

    def slow_down(self, seconds: float) -> None:
        for device in self.present():
            device.seconds = seconds

    def repair(self) -> None:
        for device in self.present():
            if device.is_bricked:
                device.repair()

    def _some(self, share: float, seed: int) -> Iterator[FieldDevice]:
        drawn = random.Random(seed)
        return (device for device in self.present() if drawn.random() < share)

    def kill_device(self, which: int) -> None:
        """A device dies, and its thing is deleted."""
        found = self.present()
        if len(found) > 4:
            self.iot.delete_thing(found[which % len(found)].name)

    def join_device(self, serial: str, seconds: float = 60.0) -> None:
        """A device is made, and registered into its ring."""
        if STACK.thing(serial) in self.devices:
            return
        device = self._make_device(serial, seconds)
        group = STACK.ring_group(self.ring(device))
        if group in self.iot.groups:
            self.iot.join(group, device.name)

    def rename_hardware(self, which: int) -> None:
        """A device that says of every offer that it is not for it."""
        found = self.present()
        found[which % len(found)].hardware = "other"

    def fill_groups(self, which: int) -> str:
        """A thing that is in ten groups already; its name."""
        device = self.present()[which % len(self.present())]
        for number in range(10 - len(self.iot.things[device.name])):
            self.iot.make_group(f"others-{number}")
            self.iot.join(f"others-{number}", device.name)
        return device.name

    def empty_groups(self) -> None:
        for device in self.present():
            for group in [g for g in self.iot.things[device.name] if g.startswith("others-")]:
                self.iot.leave(group, device.name)

    def deny(self, operation: str) -> None:
        self.iot.denied.add(operation)

    def allow(self) -> None:
        self.iot.denied.clear()


def image_bytes(text: str) -> bytes:
    return f"image {text}".encode()


def image_digest(text: str) -> str:
    return hashlib.sha256(image_bytes(text)).hexdigest()


@lru_cache(maxsize=256)
def read_object(body: bytes | None) -> dict[str, Any]:
    """A JSON object; empty where it is none. Whoever asks again is given the same one: it is only
    to be read."""
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def claims_of(job: IotJob) -> dict[str, Any]:
    """What the signed statement of a job says; empty where none of the channel's keys signed."""
    token = read_object(job.document.encode()).get("release", "")
    claims = verified_claims(token) if isinstance(token, str) else None
    return dict(claims or {})


def has_order(name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(Orders)}
