"""The rollout controller, an AWS Lambda function: looks, decides, remembers, acts.

Each run reads the jobs, the manifest, `control.json` and `state.json`, lets `rollout.decide` say
what should be, writes that with If-Match, and only if that write won makes the calls that are
missing. A run that is killed, late, or not alone is safe: the next one sees what is there and goes
on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

import boto3

from cloud.bucket import Overtaken
from cloud.channel import Channel
from cloud.clients import AWS_ERRORS, CONFIG, Clients
from cloud.groups import is_thing
from rollout import actions as act
from rollout.decide import decide
from rollout.gates import count_rollback_failures
from rollout.job_document import artifact_url, job_document, release_statement
from rollout.jws import RELEASE_TYPE
from rollout.names import (
    ENROLLED_A_RUN,
    NOT_WANTED,
    ROLLBACK,
    STACK_DESTROYED,
    ChannelMetric,
    Names,
    Variable,
)
from rollout.observed import Job, Observed
from rollout.orders import Order, Orders
from rollout.release import Abort, Manifest, Pace
from rollout.state import NEEDS_A_PERSON, Event, Offer, State
from rollout.trust import UntrustedState

COMMENT = "ended by the rollout controller"
"""In the jobs that it cancels."""
MAX_LOOKED_FOR = 200
"""Exposed devices, missing in a rollback's group, that a run looks for in the registry."""
MAX_NAMED = 20
"""Devices that a run names in its log."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where the controller works, from its environment."""

    names: Names
    bucket: str
    signing_keys: list[str]
    """ARNs: the first signs, a state signed by any of them is believed."""
    ring_groups: Mapping[str, str]
    """By ring: the ARN of its thing group."""
    presign_role: str
    manifest_sha256: str
    region: str
    dns_suffix: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Setup:
        return cls(
            names=Names(
                fleet=environment[Variable.FLEET],
                suffix=environment[Variable.SUFFIX],
                channel=environment[Variable.CHANNEL],
            ),
            bucket=environment[Variable.BUCKET],
            signing_keys=json.loads(environment[Variable.SIGNING_KEY_ARNS]),
            ring_groups=json.loads(environment[Variable.RING_GROUP_ARNS]),
            presign_role=environment[Variable.PRESIGN_ROLE_ARN],
            manifest_sha256=environment[Variable.MANIFEST_SHA256],
            region=environment[Variable.REGION],
            dns_suffix=environment[Variable.DNS_SUFFIX],
        )


def handler(event: Any, _context: Any) -> dict[str, Any]:
    """Lambda's entry. `{"tf": {"action": "delete"}}` comes from `pulumi destroy`; everything else
    is a reason to look."""
    controller = Controller(Setup.from_environment(os.environ), clients())
    action = (event.get("tf") or {}).get("action") if isinstance(event, dict) else None
    if action == "delete":
        return controller.end()
    if action is not None:
        return {"outcome": "deployed"}
    answer = controller.run(time.time())
    print(json.dumps(answer))
    if answer["outcome"] == "failed":  # so that Lambda counts it, and the alarm on errors sees it
        raise RuntimeError(f"not everything could be done: {'; '.join(answer['failed'])}")
    return answer


@cache
def clients() -> Clients:
    """Made once for as long as Lambda keeps the function warm: making them costs more than a run
    that finds nothing to do."""
    session = boto3.Session()
    return Clients(lambda service: session.client(service, config=CONFIG))


class Controller:
    """One run of the controller."""

    def __init__(self, setup: Setup, clients: Clients) -> None:
        self.setup, self.names = setup, setup.names
        self.channel = Channel(
            clients, setup.names, bucket=setup.bucket, signing_keys=setup.signing_keys
        )
        self._exposed: dict[str, set[str]] = {}
        """By job: the things that it exposed; each job is listed once a run."""
        self._members: set[str] = set()
        """The things in the group of the rollback that was under way when the run began."""
        self._gone: set[str] = set()
        """Exposed things that do not exist any more."""
        self._unplaced: dict[str, str] = {}
        """Exposed things that AWS would not have in the rollback's group, and why."""

    def run(self, now: float) -> dict[str, Any]:
        """Looks, decides, remembers, acts; returns what happened in a few words. The time is in
        seconds since 1970."""
        # Before the state is read: what a newer run makes after that is not mistaken for a stray
        # of an older state.
        live, groups = self.channel.jobs.live(), self.channel.rollback_groups.sequences()
        manifest, problem = self.channel.manifest(self.setup.manifest_sha256)
        orders = self._orders()
        try:
            before, etag = self._state(live, orders, now)
        except UntrustedState as untrusted:
            self.channel.cloudwatch.put(
                {
                    ChannelMetric.HEARTBEAT: 1,
                    ChannelMetric.MANIFEST_REFUSED: 1,
                    ChannelMetric.HELD: 1,
                },
                {},
            )
            return {
                "outcome": "distrusted",
                "kind": "halted",
                "halt": untrusted.halt,
                "waiting": untrusted.why,
            }
        observed = self._observe(before, manifest, problem, orders, live, groups)
        after = decide(manifest, before, observed, now, self.names)
        answer: dict[str, Any] = {
            "sequence": after.sequence,
            "kind": after.waiting.kind,
            "waiting": after.waiting.text,
        }
        try:
            if after != before or etag is None:
                self.channel.write_state(after, etag)
            done, failed = self._act_all(after, observed, manifest)
        except Overtaken:
            return {"outcome": "lost", **answer}
        self._put_metrics(after, observed, now)
        answer |= {"did": done, "unplaced": dict(sorted(self._unplaced.items())[:MAX_NAMED])}
        return {"outcome": "failed" if failed else "done", **answer, "failed": failed}

    def end(self) -> dict[str, Any]:
        """Ends every live job of the channel, running executions too, and its rollback groups: the
        stack is going away."""
        jobs = sorted(self.channel.jobs.live())
        for job in jobs:
            self.channel.jobs.cancel(job, STACK_DESTROYED, COMMENT, force=True)
        sequences = sorted(self.channel.rollback_groups.sequences())
        for sequence in sequences:
            self.channel.rollback_groups.delete(sequence)
        groups = [self.names.rollback_group(sequence) for sequence in sequences]
        return {"outcome": "ended", "jobs": jobs, "groups": groups}

    # Look

    def _orders(self) -> Orders:
        """What people ordered. A control.json that cannot be read is a halt: an operator's word is
        in there."""
        file = self.channel.orders()
        if file.problem is None:
            return file.orders
        why = f"control.json is unreadable: {file.problem}"
        return Orders(halted=Order(by="the controller", at=0.0, why=why))

    def _state(
        self, live: Mapping[str, Job], orders: Orders, now: float
    ) -> tuple[State, str | None]:
        """The newest state that this controller signed, and its ETag. Raises UntrustedState when
        that cannot be told."""
        try:
            stored = self.channel.current_state(live)
        except UntrustedState as untrusted:
            resume = orders.resume
            if resume is None or resume.halt != untrusted.halt:
                raise
            why = f"{resume.order.by} started afresh ({untrusted.why}): {resume.order.why}"
            sequences = (self.names.job_sequence(job) or 0 for job in self.channel.jobs.statuses())
            fresh = State(
                sequence=max(sequences, default=0),
                decisions=(Event(at=now, what="recovered", why=why),),
            )
            there = self.channel.state_object()
            return fresh, there.etag if there else None
        return (stored.state, stored.etag) if stored else (State(), None)

    def _observe(
        self,
        state: State,
        manifest: Manifest | None,
        problem: str | None,
        orders: Orders,
        live: Mapping[str, Job],
        groups: frozenset[int],
    ) -> Observed:
        """Everything that the decision needs, for this state."""
        good, rollback = state.last_good, state.rollback
        wanted = manifest.firmware if manifest and manifest.firmware != good else None
        exposed = set[str]()
        if rollback and rollback.done_at is None:
            exposed = self._exposed_things(rollback.exposing_jobs)
            if rollback.offer.sequence in groups:
                self._members = self.channel.rollback_groups.members(rollback.offer.sequence)
                self._gone = self._find_gone(exposed - self._members)
        return Observed(
            jobs={**live, **self.channel.jobs.get_all(self._remembered_jobs(state))},
            alarms=self._gate_alarms(state, manifest),
            orders=orders,
            manifest_problem=problem,
            image_problem=self.channel.bucket.image_problem(wanted) if wanted else None,
            good_image_problem=(
                self.channel.bucket.image_problem(good) if good and wanted else None
            ),
            groups=groups,
            enrolled=len(self._members),
            unenrolled=len(exposed - self._members - self._gone),
        )

    def _remembered_jobs(self, state: State) -> list[str]:
        """The jobs that the state names, whatever has become of them."""
        found = [self.names.job(ring, offer.sequence) for ring, offer in _offers(state)]
        if state.rollback:
            found += [
                self.names.job(ROLLBACK, state.rollback.offer.sequence),
                *state.rollback.exposing_jobs,
            ]
        return found

    def _gate_alarms(self, state: State, manifest: Manifest | None) -> dict[str, Any]:
        """By the name that the gates use: the alarms that they watch, and that exist."""
        manifests = (manifest, state.candidate and state.candidate.manifest)
        names = {
            self.names.gate_alarm(gate.name): gate.name
            for each in manifests
            if each
            for ring in each.rings
            for gate in ring.gate.alarms
        }
        found = self.channel.cloudwatch.alarms(names) if names else {}
        return {names[full]: alarm for full, alarm in found.items()}

    def _find_gone(self, things: set[str]) -> set[str]:
        """Those of the things that do not exist any more: nothing is left to be brought back. They
        are looked for once most are placed; one that cannot be asked for counts as there."""

        def is_gone(thing: str) -> bool:
            try:
                return not is_thing(self.channel.clients, thing)
            except AWS_ERRORS:
                return False

        names = sorted(things) if len(things) <= MAX_LOOKED_FOR else []
        with ThreadPoolExecutor(8) as pool:
            return set(compress(names, pool.map(is_gone, names)))

    def _exposed_things(self, jobs: Iterable[str]) -> set[str]:
        for job in jobs:
            if job not in self._exposed:
                self._exposed[job] = self.channel.jobs.exposed_things([job])
        return set().union(*(self._exposed[job] for job in jobs))

    # Act

    def _act_all(
        self, state: State, observed: Observed, manifest: Manifest | None
    ) -> tuple[list[str], list[str]]:
        """What was done, and what failed: each action by itself, so that one that AWS refuses does
        not keep the others from being done. Raises Overtaken."""
        done: list[str] = []
        failed: list[str] = []
        for action in act.list_actions(state, observed, self.names):
            try:
                done += filter(None, [self._act(action, state, manifest)])
            except AWS_ERRORS as error:
                failed.append(f"{type(action).__name__}: {error}")
        return done, failed

    def _act(self, action: act.Action, state: State, manifest: Manifest | None) -> str | None:
        match action:
            case act.Cancel():
                self.channel.jobs.cancel(action.job, NOT_WANTED, COMMENT)
                return f"cancelled {action.job}"
            case act.Create():
                return self._create(
                    action, state.candidate.manifest if state.candidate else manifest
                )
            case act.Disarm():
                self.channel.jobs.disarm(action.job)
                return f"disarmed {action.job}"
            case act.Enroll():
                return self._enroll(action)
            case act.RemoveGroup():
                self.channel.rollback_groups.delete(action.sequence)
                return f"removed {self.names.rollback_group(action.sequence)}"

    def _create(self, action: act.Create, manifest: Manifest | None) -> str:
        name = self.names.job(action.ring, action.offer.sequence)
        if not self.channel.jobs.create(name, self._job_request(action, manifest)):
            return f"found {name}"
        now_wanted = self.channel.state()
        if now_wanted is None or name not in act.desired_jobs(now_wanted.state, self.names):
            self.channel.jobs.cancel(name, NOT_WANTED, COMMENT)
            raise Overtaken(name)
        return f"created {name}"

    def _job_request(self, action: act.Create, manifest: Manifest | None) -> dict[str, Any]:
        """CreateJob's parameters. Where the manifest was refused, the manifest's defaults hold."""
        setup, offer = self.setup, action.offer
        statement = release_statement(
            self.names.channel, offer.firmware, offer.sequence, downgrade=offer.downgrade
        )
        url = artifact_url(setup.bucket, setup.region, setup.dns_suffix, offer.firmware.key)
        seconds = manifest.presigned_url_seconds if manifest else Manifest.presigned_url_seconds
        timeout = (
            manifest.in_progress_timeout_minutes
            if manifest
            else Manifest.in_progress_timeout_minutes
        )
        request = {
            "targets": [self._target(action)],
            "targetSelection": "CONTINUOUS",
            "document": job_document(self.channel.signer.sign(RELEASE_TYPE, statement), url),
            "description": (
                f"{offer.firmware.version} for ring {action.ring} of channel {self.names.channel}"
            ),
            "presignedUrlConfig": {"roleArn": setup.presign_role, "expiresInSec": seconds},
            "timeoutConfig": {"inProgressTimeoutInMinutes": timeout},
        }
        if action.proving and manifest:
            request |= {
                "jobExecutionsRolloutConfig": _rollout_config(manifest.pace),
                "abortConfig": _abort_config(manifest.abort),
            }
        return request

    def _target(self, action: act.Create) -> str:
        if action.ring == ROLLBACK:
            return self.channel.rollback_groups.create(action.offer.sequence)
        return self.setup.ring_groups[action.ring]

    def _enroll(self, action: act.Enroll) -> str | None:
        groups = self.channel.rollback_groups
        groups.create(action.sequence)
        exposed = self._exposed_things(action.exposing_jobs)
        missing = sorted(exposed - self._members - self._gone)[:ENROLLED_A_RUN]
        with ThreadPoolExecutor(8) as pool:
            refusals = list(pool.map(lambda thing: groups.add(action.sequence, thing), missing))
        self._unplaced = {
            thing: why for thing, why in zip(missing, refusals, strict=True) if why is not None
        }
        placed = len(missing) - len(self._unplaced)
        group = self.names.rollback_group(action.sequence)
        return f"enrolled {placed} devices in {group}" if placed else None

    # Tell

    def _put_metrics(self, state: State, observed: Observed, now: float) -> None:
        rolling = state.rollback is not None and state.rollback.done_at is None
        refused = observed.manifest_problem or observed.image_problem or observed.good_image_problem
        jobs = {
            ring: observed.jobs.get(self.names.job(ring, offer.sequence))
            for ring, offer in _offers(state)
        }
        self.channel.cloudwatch.put(
            {
                ChannelMetric.HEARTBEAT: 1,
                ChannelMetric.RELEASE_FAILED: int(rolling or state.halt is not None),
                ChannelMetric.ROLLBACK_FAILED: len(self._unplaced)
                + count_rollback_failures(state, observed, self.names, now),
                ChannelMetric.MANIFEST_REFUSED: int(bool(refused)),
                ChannelMetric.HELD: int(state.waiting.kind in NEEDS_A_PERSON),
            },
            {ring: job.counts for ring, job in jobs.items() if job},
        )


def _offers(state: State) -> list[tuple[str, Offer]]:
    """The jobs of rings that the state names; the candidate's after the standing ones."""
    candidate = state.candidate.rings.items() if state.candidate else ()
    return [*state.stable.items(), *((ring, progress.offer) for ring, progress in candidate)]


def _rollout_config(pace: Pace) -> dict[str, Any]:
    if pace.base_per_minute is None:
        return {"maximumPerMinute": pace.maximum_per_minute}
    criteria = {"notified": "numberOfNotifiedThings", "succeeded": "numberOfSucceededThings"}
    return {
        "maximumPerMinute": pace.maximum_per_minute,
        "exponentialRate": {
            "baseRatePerMinute": pace.base_per_minute,
            "incrementFactor": pace.factor,
            "rateIncreaseCriteria": {criteria[pace.increase_on]: pace.increase_after},
        },
    }


def _abort_config(criteria: Iterable[Abort]) -> dict[str, Any]:
    return {
        "criteriaList": [
            {
                "failureType": abort.on,
                "action": "CANCEL",
                "thresholdPercentage": abort.percent,
                "minNumberOfExecutedThings": abort.minimum,
            }
            for abort in criteria
        ]
    }
