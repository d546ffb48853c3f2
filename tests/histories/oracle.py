"""An oracle that judges histories. It was written from the design, the device contract and AWS's
pages, not from the controller: it looks at jobs, groups, devices, alarms and objects, and reads
state.json only for what the controller says of itself.

It judges after every run, and more once everything is quiet. What a disturbed run did is judged by
what the next undisturbed one makes of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from rollout.codec import DecodeError, decode, sha256_hex
from rollout.names import ROLLBACK
from rollout.release import Gate, Manifest
from tests.histories.field_devices import FieldDevice, fetch
from tests.histories.nasty_iot import IotJob
from tests.histories.stage import STACK, ControllerRun, Stage, claims_of, read_object

STATE_BYTES = 200_000
"""Most that state.json of such a small fleet may come to."""
CALLS = 60
"""Calls of any run that finds little to do, beside those that follow from jobs and devices."""
IDLE_CALLS = 30
"""Calls of a run that finds nothing to do, beside two a live job and one a page."""
PREFLIGHT = ("ListThingGroupsForThing", "ListThingPrincipals", "ListAttachedPolicies")
PREFLIGHT_CALLS = 40
"""Calls of one run that look at devices before they need a way back."""
LISTED = 6
"""Statuses of a job's executions that a run may list, one call each, where a page holds all."""
FINAL = ("SUCCEEDED", "FAILED", "TIMED_OUT")
LISTING = 10.0
"""Seconds by which listings may be late: what is younger is not held against anybody."""


class Broken(AssertionError):
    """The promise does not hold."""


@dataclass(frozen=True)
class Passing:
    """One ring that the controller let pass."""

    ring: str
    digest: str


@dataclass
class Oracle:
    stage: Stage
    passed: set[Passing] = field(default_factory=set)
    events: set[tuple[Any, ...]] = field(default_factory=set)
    healthy: dict[str, float] = field(default_factory=dict)
    """By job: since when its counts met its gate at every look."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Live jobs that the last clean run should have ended, and why."""
    unproved: int = 0
    """Rings that the last clean run left unproved with a live job."""
    convicted: dict[str, str] = field(default_factory=dict)
    """By digest: the evidence against it that the last clean run could see."""
    sequences: dict[str, int] = field(default_factory=dict)
    """By ring: the highest sequence of the controller's jobs."""
    judged_ids: set[str] = field(default_factory=set)
    was_out: dict[str, float] = field(default_factory=dict)
    """By digest: when a job first offered it to a ring."""
    reddened: dict[str, float] = field(default_factory=dict)
    were_good: set[str] = field(default_factory=set)
    """Digests that were last good once."""
    outgrown: dict[str, float] = field(default_factory=dict)
    """By digest: when it was last good no more."""
    settled: set[str] = field(default_factory=set)
    """Jobs that had ended when everybody whom they had exposed was back."""
    distrust: int = 0

    # What is seen of the world

    def facts(self) -> dict[str, Any]:
        """What must hold all through a run for its starts to be judged by it."""
        stage = self.stage
        digests = {m.firmware.sha256 for m in stage.published[-1:]}
        return {
            "paused": bool(stage.control.get("paused") or stage.control.get("halted"))
            or any(m.paused or m.halted for m in stage.published[-1:]),
            "unfinished": not stage.is_announced,
            "missing": {d for d in digests if not stage.is_image_there(d)},
            "red": {name for name, (state, _) in stage.iot.alarms.items() if state != "OK"},
            "last_good": stage.last_good_digest,
        }

    def after_run(self, run: ControllerRun) -> None:
        for name, (state, since) in self.stage.iot.alarms.items():
            if state == "ALARM":
                self.reddened[name] = since
        if run.after.get("lastGood"):
            self.were_good.add(run.after["lastGood"]["sha256"])
        before = (run.before.get("lastGood") or {}).get("sha256")
        if before and before != self.stage.last_good_digest:
            self.outgrown[before] = self.stage.now
        self._judge_error(run)
        self._watch_health(run)
        self._judge_events(run)
        self._judge_new_jobs(run)
        if self.stage.distrust != self.distrust and not self.stage.is_distrusted:
            # it was recovered from what signed documents prove: what the lost memory held of
            # passings and evidence is not asked of it
            self.distrust = self.stage.distrust
            self.passed.clear()
            self.convicted.clear()
        if run.is_clean and not self.stage.is_distrusted:
            self._judge_live_jobs()
            self._judge_unproved_rings()
            self._judge_evidence()
            self._judge_refusals(run)
            self._judge_calls(run)
        body = self.stage.iot.body(STACK.keys.state)
        if body and not self.stage.is_distrusted and len(body) > STATE_BYTES:
            self.breaks(f"state.json has {len(body)} bytes")

    def breaks(self, what: str) -> None:
        raise Broken(f"{what}; {self.stage.show()}")

    # A run

    def _judge_error(self, run: ControllerRun) -> None:
        if run.error is not None and not (run.line.was_harmed or run.line.was_killed):
            raise Broken(f"a run raised {run.error!r}; {self.stage.show()}") from run.error

    def _judge_calls(self, run: ControllerRun) -> None:
        counted = Counter(call.operation for call in run.line.calls)
        has_pages = self.stage.iot.weather.page < 250
        pages = sum(
            counted[name]
            for name in counted
            if name.startswith("List") and name not in PREFLIGHT and has_pages
        )
        jobs = len(self.stage.jobs())
        devices = counted["AddThingToThingGroup"] + counted["DescribeThing"]
        records = sum("/ways-back/" in call.parameters.get("Key", "") for call in run.line.calls)
        looked_at = sum(counted[name] for name in PREFLIGHT)
        listed = 0 if has_pages else counted["ListJobExecutionsForJob"]
        total = sum(counted.values()) - pages - devices - records - looked_at - listed
        if listed > LISTED * jobs:
            self.breaks(f"{listed} lists of executions in one run with {jobs} jobs")
        if looked_at > PREFLIGHT_CALLS:
            self.breaks(f"{looked_at} calls to look at devices that are well: {dict(counted)}")
        if total > CALLS + 8 * jobs:
            self.breaks(f"{total} calls in one run with {jobs} jobs: {dict(counted)}")
        if records > 4 * len(self.stage.devices) + 20:
            self.breaks(f"{records} reads and writes for {len(self.stage.devices)} devices")
        if devices > 4 * len(self.stage.devices) + 10:
            self.breaks(f"{devices} calls for {len(self.stage.devices)} devices")
        is_idle = self.stage.waiting == "nothing" and run.before == run.after
        live = len(self.stage.jobs(live=True))
        if is_idle and total + devices > IDLE_CALLS + 2 * live:
            self.breaks(f"{total + devices} calls to do nothing: {dict(counted)}")

    def _judge_new_jobs(self, run: ControllerRun) -> None:
        for job in self.stage.jobs():
            if job.id in self.judged_ids:
                continue
            self.judged_ids.add(job.id)
            ring, sequence = STACK.split_job(job.id) or ("", 0)
            claims = claims_of(job)
            if self.stage.iot.ids_ever[job.id] > 1:
                self.breaks(f"the id {job.id} was used twice")
            if claims.get("sequence") != sequence or claims.get("job", job.id) != job.id:
                self.breaks(f"{job.id} bears a statement that is not its own: {claims}")
            if sequence <= self.sequences.get(ring, 0) and run.was_alone:
                self.breaks(f"{job.id} is not above {self.sequences[ring]}")
            self.sequences[ring] = max(sequence, self.sequences.get(ring, 0))
            released = {m.firmware.sha256 for m in self.stage.published}
            if ring != ROLLBACK and claims["sha256"] not in released:
                self.breaks(f"{job.id} offers a ring what was never released")
            self.was_out.setdefault(claims["sha256"], self.stage.now)
            expected = STACK.ring_group(ring)
            if ring == ROLLBACK:
                if not job.group.startswith(STACK.rollback_group_prefix):
                    self.breaks(f"{job.id} is a way back for {job.group}")
            elif job.group != expected:
                self.breaks(f"{job.id} is for {job.group}")
            if run.is_clean and run.facts_before:
                self._judge_start(run, ring, claims["sha256"], job)

    def _judge_start(self, run: ControllerRun, ring: str, digest: str, job: IotJob) -> None:
        """The door that every start of a candidate goes through."""
        after, before = self.facts(), run.facts_before
        if digest in self.stage.refused(run.before) and digest in self.stage.refused(run.after):
            self.breaks(f"{job.id} offers a refused image")
        good = {before["last_good"], after["last_good"]}
        is_way_back = ring == ROLLBACK or digest in good
        if is_way_back or not self.stage.published:
            return
        if before["paused"] and after["paused"]:
            self.breaks(f"{job.id} started while paused or halted")
        if before["unfinished"] and after["unfinished"]:
            self.breaks(f"{job.id} started behind a manifest that was not announced")
        image = fetch(self.stage.iot, read_object(job.document.encode())["url"])
        if digest in before["missing"] & after["missing"] and sha256_hex(image or b"") != digest:
            self.breaks(f"{job.id} started though its image is missing or differs")
        manifest = self.stage.manifest
        plan = manifest.ring(ring)
        if plan is None or manifest.firmware.sha256 != digest:
            return
        red = before["red"] & after["red"]
        if any(STACK.gate_alarm(alarm.name) in red for alarm in plan.gate.alarms):
            self.breaks(f"{job.id} started though an alarm of its gate was red")
        names = [one.name for one in manifest.rings]
        waiting = [
            name for name in names[: names.index(ring)] if Passing(name, digest) not in self.passed
        ]
        if waiting:
            self.breaks(f"{job.id} started before {waiting} had passed")

    # What the controller says it did

    def _judge_events(self, run: ControllerRun) -> None:
        for event in run.after.get("decisions", []):
            key = (event["at"], event["what"], event.get("ring"), event.get("version"))
            if key in self.events:
                continue
            self.events.add(key)
            ring, version = event.get("ring"), event.get("version")
            if event["what"] == "passed" and ring and not self.stage.is_distrusted:
                offers = [
                    job for job in self.stage.jobs(ring) if claims_of(job).get("version") == version
                ]
                if not offers:
                    self.breaks(f"ring {ring} passed {version} without a job")
                self._judge_passing(run, ring, offers[-1])
                self.passed.add(Passing(ring, claims_of(offers[-1])["sha256"]))
            if event["what"] == "rolled-back":
                self._settle_jobs()
            if event["what"] in ("refused", "failed", "superseded", "withdrawn", "recovered"):
                lost = {
                    one
                    for one in self.passed
                    if one.digest not in (self.stage.candidate_digest, self.stage.last_good_digest)
                }
                self.passed -= lost

    def _settle_jobs(self) -> None:
        """A renewed offer starts from zero: what an ended job showed, whose devices are back, was
        judged by the limit that held while they were not."""
        running = {device.digest for device in self.stage.present()}
        for job in self.stage.jobs():
            if not job.is_live and claims_of(job)["sha256"] not in running:
                self.settled.add(job.id)

    def _gates(self, run: ControllerRun, ring: str) -> list[Gate]:
        """The gate may be the one that the candidate came with, or the one that stands now."""
        manifests = list(self.stage.published[-1:])
        for state in (run.before, run.after):
            if state.get("candidate"):
                manifests += read_manifest(json.dumps(state["candidate"]["manifest"]))
        plans = [plan for manifest in manifests if (plan := manifest.ring(ring))]
        return [plan.gate for plan in plans]

    def _judge_passing(self, run: ControllerRun, ring: str, job: IotJob) -> None:
        if not run.is_clean:
            return
        gates = self._gates(run, ring)
        problems = [self._unmet(run, gate, ring, job) for gate in gates]
        if gates and all(problems):
            self.breaks(f"{job.id} passed: {problems[0]}")

    def _approvals(self, ring: str, digest: str) -> list[int | None]:
        """The sizes of the ring that people saw when they approved this image."""
        filed = [
            None
            for manifest in self.stage.published[-1:]
            for approval in manifest.approvals
            if (approval.ring, approval.sha256) == (ring, digest)
        ]
        ordered = [
            approval.get("size")
            for approval in self.stage.control.get("approvals", [])
            if (approval["ring"], approval["sha256"]) == (ring, digest)
        ]
        return filed + ordered

    def _unmet(self, run: ControllerRun, gate: Gate, ring: str, job: IotJob) -> str | None:
        """Why a ring should not have passed; None where it may."""
        counts, digest = job.counts, claims_of(job)["sha256"]
        approvals = self._approvals(ring, digest)
        ended = sum(counts[status] for status in FINAL)
        for_whom = ended + counts["QUEUED"] + counts["IN_PROGRESS"] + len(job.to_notify)
        is_late = gate.deadline_minutes is not None and gate.on_deadline == "advance"
        red = [a.name for a in gate.alarms if not self._is_quiet(STACK.gate_alarm(a.name))]
        if red:
            return f"alarms {red} were not quiet"
        if gate.approval and not approvals:
            return "nobody approved it"
        if run.facts_before.get("paused") and self.facts()["paused"]:
            return "the channel was paused"
        if ended == 0:
            here = len(self.stage.iot.groups.get(job.group, {}))
            if any(size in (for_whom, here) for size in approvals):
                return None
            return "nobody was in it"
        if counts["SUCCEEDED"] < gate.minimum_succeeded and not approvals:
            return f"only {counts['SUCCEEDED']} succeeded"
        if 100 * ended < gate.coverage_percent * for_whom and not (is_late or approvals):
            return f"only {ended} of {for_whom} have finished"
        began = ended + counts["IN_PROGRESS"]
        if 100 * counts["SUCCEEDED"] < gate.success_percent * began and not approvals:
            return f"only {counts['SUCCEEDED']} of {began} succeeded"
        since = self.healthy.get(job.id)
        if not approvals and (since is None or run.at - since < gate.soak_minutes * 60 - 1):
            soaked = None if since is None else run.at - since
            return f"it soaked for {soaked} of {gate.soak_minutes * 60} s"
        return None

    def _is_quiet(self, alarm: str) -> bool:
        return self.stage.iot.alarms.get(alarm, ("MISSING", 0.0))[0] == "OK"

    def _watch_health(self, run: ControllerRun) -> None:
        """Since when each job's counts meet its gate, as every look saw them: also of one that the
        run let pass and cancelled, where a way back was opened in the same run."""
        cancels = {c.parameters["jobId"] for c in run.line.calls if c.operation == "CancelJob"}
        for job in self.stage.jobs():
            if not job.is_live and job.id not in cancels:
                continue
            ring = (STACK.split_job(job.id) or ("",))[0]
            counts = job.counts
            ended = sum(counts[status] for status in FINAL)
            total = ended + counts["QUEUED"] + counts["IN_PROGRESS"] + len(job.to_notify)
            began = ended + counts["IN_PROGRESS"]
            is_met = any(
                counts["SUCCEEDED"] >= gate.minimum_succeeded
                and (100 * ended >= gate.coverage_percent * total or _is_waived(gate, job, run.at))
                and 100 * counts["SUCCEEDED"] >= gate.success_percent * began
                for gate in self._gates(run, ring)
            )
            if is_met:
                self.healthy.setdefault(job.id, run.at)
            elif run.is_clean:
                self.healthy.pop(job.id, None)

    # What is offered

    def _judge_live_jobs(self) -> None:
        stage, unfit = self.stage, {}
        fit = {stage.last_good_digest, stage.candidate_digest}
        for job in stage.jobs(live=True):
            digest = claims_of(job)["sha256"]
            if stage.now - job.created_at < LISTING:
                continue
            if digest in stage.refused():
                unfit[job.id] = "is refused"
            elif digest not in fit:
                unfit[job.id] = "is neither last good nor the candidate"
            if job.id in unfit and self.unfit.get(job.id) == unfit[job.id]:
                self.breaks(f"{job.id} is live though its image {unfit[job.id]}")
        for job in stage.iot.jobs.values():
            if job.id in stage.forged and job.is_live and stage.now - job.created_at > LISTING:
                unfit[job.id] = "was forged"
                if self.unfit.get(job.id) == "was forged":
                    self.breaks(f"{job.id} is live though somebody forged it")
        self.unfit = unfit

    def _judge_unproved_rings(self) -> None:
        good, unproved = self.stage.last_good_digest, set()
        for job in self.stage.jobs(live=True):
            ring, digest = (STACK.split_job(job.id) or ("",))[0], claims_of(job)["sha256"]
            if ring != ROLLBACK and digest != good and Passing(ring, digest) not in self.passed:
                unproved.add(ring)
        if len(unproved) > 1 and self.unproved > 1:
            self.breaks(f"rings {sorted(unproved)} are unproved at once")
        self.unproved = len(unproved)

    # Evidence

    def _judge_evidence(self) -> None:
        """Who is convicted by what a clean run could see is refused after the next one."""
        stage, convicted = self.stage, {}
        for job in stage.jobs():
            digest = claims_of(job)["sha256"]
            ring = (STACK.split_job(job.id) or ("",))[0]
            was_good = digest in self.were_good and digest != stage.candidate_digest
            if ring == ROLLBACK or was_good:  # from then on, failures alarm
                continue
            if job.id in self.settled:
                continue
            if digest in stage.image_troubles | stage.pardoned:
                continue
            if digest not in (stage.candidate_digest, *self._ledger()):
                continue
            evidence = self._evidence(job)
            if evidence and stage.now - job.counted_from > 0:
                convicted[digest] = evidence
        for digest, evidence in convicted.items():
            if digest not in stage.refused() and self.convicted.get(digest) == evidence:
                self.breaks(f"a bad release was not stopped: {evidence}")
        self.convicted = convicted

    def _ledger(self) -> set[str]:
        return set(self.stage.state.get("releases", {}))

    def _evidence(self, job: IotJob, *, newest: bool = True) -> str | None:
        """By the limit that was published last for this release; else by any that was: one that no
        run has read says nothing yet."""
        ring = (STACK.split_job(job.id) or ("",))[0]
        counts = job.counts
        failing = counts["FAILED"] + counts["TIMED_OUT"]
        began = counts["SUCCEEDED"] + failing + counts["IN_PROGRESS"]
        began += len([t for t in job.ever_began if job.executions[t].status == "CANCELED"])
        plans = [
            plan
            for manifest in reversed(self.stage.published)
            if (plan := manifest.ring(ring))
            and manifest.firmware.sha256 == claims_of(job)["sha256"]
        ][: 1 if newest else None]
        if not any(is_evidence(plan.gate.failure_limit, began, failing) for plan in plans):
            return None
        return f"{failing} of {began} failed in {job.id}"

    def _judge_refusals(self, run: ControllerRun) -> None:
        """A good release is not refused."""
        stage = self.stage
        for digest in stage.refused(run.after) - stage.refused(run.before):
            jobs = [job for job in stage.jobs() if claims_of(job).get("sha256") == digest]
            ordered = stage.ordered_back
            since = self.was_out.get(digest, stage.now)
            rings = [ring for m in stage.published for ring in m.rings]
            stoppers = {
                STACK.gate_alarm(alarm.name)
                for ring in rings
                for alarm in ring.gate.alarms
                if alarm.action == "rollback"
            }
            is_red = any(self.reddened.get(name, 0.0) >= since for name in stoppers)
            if digest in ordered or is_red or self.distrust:
                continue
            if not any(self._evidence(job, newest=False) for job in jobs):
                self.breaks(f"{digest[:8]} was refused without evidence")

    # When everything is quiet

    def at_rest(self) -> None:
        """Nothing has happened for hours, and nothing will unless somebody acts."""
        stage = self.stage
        if stage.is_distrusted:
            if not stage.is_loud:
                self.breaks("nobody is told that state.json cannot be believed")
            return
        self._judge_devices_left_behind()
        waiting = stage.state.get("waiting", {})
        kind, is_loud = waiting.get("kind"), stage.is_loud
        if kind == "nothing":
            wanted = stage.manifest.firmware.sha256
            if stage.is_announced and wanted != stage.last_good_digest and not is_loud:
                self.breaks("there is nothing to do, though another release was merged")
            return
        if kind in ("window", "alarms") or is_loud:
            return
        ring = waiting.get("ring")
        left = [job for job in stage.jobs(ring, live=True) if self._is_open(job)]
        if kind == "coverage" and left:
            return
        if kind == "success" and any(self._can_still_succeed(job) for job in left):
            return
        if kind == "no-devices" and not stage.present():
            return
        self.breaks(f"it waits for {waiting} in silence, and nothing will come")

    def _is_open(self, job: IotJob) -> bool:
        """Whether somebody who is merely offline could still answer."""
        return bool(job.queued or job.in_progress or job.to_notify)

    def _can_still_succeed(self, job: IotJob) -> bool:
        """Whether enough would have succeeded if all who have yet to answer did."""
        counts = job.counts
        plan = self.stage.manifest.ring((STACK.split_job(job.id) or ("",))[0])
        ended = sum(counts[status] for status in FINAL)
        open_ones = counts["QUEUED"] + counts["IN_PROGRESS"] + len(job.to_notify)
        best, size = counts["SUCCEEDED"] + open_ones, ended + open_ones
        return plan is not None and 100 * best >= plan.gate.success_percent * size

    def _judge_devices_left_behind(self) -> None:
        stage = self.stage
        fine = {stage.candidate_digest} | (self.were_good - stage.refused())
        is_next = stage.state.get("waiting", {}).get("until") is not None
        if stage.candidate_digest or is_next:  # a newer release is on its way to them
            fine |= set(self.was_out) - stage.refused()
        waived = {one["thing"] for one in stage.control.get("waived", [])}
        asked = self._asked_again() if stage.iot.metric("ReleaseFailed") else set()
        left = [
            device.name
            for device in stage.present()
            if device.digest in self.was_out
            and device.digest not in fine
            and device.name not in waived | asked
            and not self._is_outgrown(device)
        ]
        if left and not stage.is_loud:
            self.breaks(f"{len(left)} devices were left behind in silence: {left[:3]}")
        self._judge_halted_way_back(left)

    def _is_outgrown(self, device: FieldDevice) -> bool:
        """A person's order against what was good before the last good release refuses it from then
        on. Whoever still runs it has been offered the newer one, and people were told who failed
        that: the order sends nobody back."""
        stage, since = self.stage, self.outgrown.get(device.digest, math.inf)
        shas = {job.id: claims_of(job)["sha256"] for job in stage.jobs()}
        is_offered_anew = any(
            shas[job.id] == device.digest and job.created_at >= since for job in stage.jobs()
        )
        has_newer = any(
            shas[job.id] == stage.last_good_digest and device.name in job.executions
            for job in stage.jobs(live=True)
        )
        is_ordered = since < math.inf and device.digest in stage.ordered_back
        return is_ordered and has_newer and not is_offered_anew

    def _judge_halted_way_back(self, left: list[str]) -> None:
        """A halt stops no way back: that it calls for a person does not tell of those who should
        have gone back, though there is something good to go back to."""
        stage = self.stage
        returning = [
            name
            for name in left
            if stage.devices[name].digest in stage.refused() - self._one_way() and stage.last_good
        ]
        is_told = stage.iot.metric("RollbackFailed") or self.distrust
        if returning and stage.waiting == "halted" and not is_told:
            self.breaks(f"under a halt {len(returning)} devices do not go back: {returning[:3]}")

    def _one_way(self) -> set[str]:
        """Digests that were released without a way back."""
        published = self.stage.published
        return {m.firmware.sha256 for m in published if m.rollback == "forbidden"}

    def _asked_again(self) -> set[str]:
        """Devices that the candidate is offered to, though what they run was refused: it proves
        itself there, or brings them back when it fails. And those without a way back, whom only a
        newer release can mend, while there is one on its way. Until then the alarm on failed
        releases is to be red."""
        stage = self.stage
        offered = {
            thing
            for ring, _ in stage.rings
            for job in stage.jobs(ring, live=True)
            if claims_of(job)["sha256"] == stage.candidate_digest
            for thing in job.executions
        }
        one_way = self._one_way() if stage.candidate_digest else set()
        return offered | {d.name for d in stage.present() if d.digest in one_way}


@lru_cache(maxsize=64)
def read_manifest(text: str) -> tuple[Manifest, ...]:
    """The manifest that a state holds; none where it cannot be read."""
    try:
        return (decode(Manifest, json.loads(text)),)
    except DecodeError:
        return ()


def is_evidence(limit: Any, began: int, failing: int) -> bool:
    """The mean likelihood ratio against a failure share of at most the limit's reaches 1/alpha."""
    devices = getattr(limit, "devices", None)
    if devices is not None and failing >= devices:
        return True
    if failing < 2:
        return False
    p = limit.percent / 100
    alpha = getattr(limit, "false_stop_percent", 1.0) / 100
    others = {min(p * factor, 0.95) for factor in (2, 4, 8, 16)} | {0.5, 0.95}
    above = [q for q in others if q > p]
    ratios = [
        math.exp(failing * math.log(q / p) + (began - failing) * math.log((1 - q) / (1 - p)))
        for q in above
    ]
    return sum(ratios) / len(ratios) >= 1 / alpha


def _is_waived(gate: Gate, job: IotJob, now: float) -> bool:
    """Whether the deadline has passed that waives coverage."""
    if gate.deadline_minutes is None or gate.on_deadline != "advance":
        return False
    return now - job.created_at >= gate.deadline_minutes * 60
