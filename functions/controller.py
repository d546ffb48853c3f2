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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import ClientError

from functions.aws import Clients, Setup, error_code, tolerant
from functions.memory import Lost, Memory
from functions.view import View
from rollout import actions as act
from rollout.decide import decide
from rollout.document import RELEASE_TYPE, artifact_url, job_document, jws, signing_input, statement
from rollout.gates import rollback_failing
from rollout.observed import DISARMED, Counts, Job, Observed
from rollout.release import Manifest, Pace
from rollout.rings import RESERVED
from rollout.state import NEEDS_A_PERSON, Control, Event, Offer, State
from rollout.trust import Distrusted, check_age

NAMESPACE = "IotOta"
ENROLLED_A_RUN = 5000
"""Devices put into a rollback's group in one run: AddThingToThingGroup takes 100 a second, a run
comes every minute."""
NOT_WANTED = {"reasonCode": "NOT_WANTED", "comment": "ended by the rollout controller"}


def handler(event: Any, _context: Any) -> dict[str, Any]:
    """Lambda's entry. `{"tf": {"action": "delete"}}` comes from `pulumi destroy`; everything else
    is a reason to look."""
    controller = Controller(Setup.from_env(os.environ), clients())
    action = (event.get("tf") or {}).get("action") if isinstance(event, dict) else None
    if action == "delete":
        return controller.end()
    if action is not None:
        return {"outcome": "deployed"}
    answer = controller.run(time.time())
    print(json.dumps(answer))
    return answer


@cache
def clients() -> Clients:
    """Made once for as long as Lambda keeps the function warm: making them costs more than a run
    that finds nothing to do."""
    return Clients(boto3.Session())


class Controller:
    def __init__(self, setup: Setup, clients: Clients) -> None:
        self.setup, self.clients, self.names = setup, clients, setup.names
        self.view, self.memory = View(setup, clients), Memory(setup, clients)

    def run(self, now: float) -> dict[str, Any]:
        """Looks, decides, remembers, acts; returns what happened in a few words. The time is in
        seconds since 1970."""
        # Before the state is read: what a newer run makes after that is not mistaken for a stray of
        # an older state.
        live, groups = self.view.live_jobs(), self.view.rollback_groups()
        manifest, problem = self.view.manifest()
        control = self.view.control()
        try:
            before, etag = self._state(live, control, now)
        except Distrusted as distrusted:
            self._measure({"Heartbeat": 1, "ManifestRefused": 1, "Held": 1}, {})
            return {
                "outcome": "distrusted",
                "kind": "halted",
                "halt": distrusted.halt,
                "waiting": distrusted.why,
            }
        observed = self.view.observe(before, manifest, problem, control, live, groups)
        after = decide(manifest, before, observed, now, self.names)
        answer = {
            "sequence": after.sequence,
            "kind": after.waiting.kind,
            "waiting": after.waiting.text,
        }
        try:
            if after != before or etag is None:
                self.memory.save(after, etag)
            done = [
                self._do(action, after, manifest)
                for action in act.actions(after, observed, self.names)
            ]
        except Lost:
            return {"outcome": "lost", **answer}
        self._tell(after, observed, now)
        return {"outcome": "done", **answer, "did": [text for text in done if text]}

    def end(self) -> dict[str, Any]:
        """Ends every live job of the channel, running executions too, and its rollback groups: the
        stack is going away."""
        jobs = sorted(self.view.live_jobs())
        for job in jobs:
            tolerant(
                self.clients.iot.cancel_job, jobId=job, force=True, reasonCode="STACK_DESTROYED"
            )
        groups = [
            self.setup.rollback_group(sequence) for sequence in sorted(self.view.rollback_groups())
        ]
        for group in groups:
            self.clients.iot.delete_thing_group(thingGroupName=group)
        return {"outcome": "ended", "jobs": jobs, "groups": groups}

    def _state(
        self, live: Mapping[str, Job], control: Control, now: float
    ) -> tuple[State, str | None]:
        """The newest state that this controller signed, and its ETag. Raises Distrusted when that
        cannot be told."""
        try:
            state, etag = self.memory.load()
            sequences = (
                [self.names.sequence(job) or 0 for job in live] if state else self.view.sequences()
            )
            check_age(state, sequences)
        except Distrusted as distrusted:
            resume = control.resume
            if resume is None or resume.halt != distrusted.halt:
                raise
            why = f"{resume.order.by} started afresh ({distrusted.why}): {resume.order.why}"
            fresh = State(
                sequence=max(self.view.sequences(), default=0),
                decisions=(Event(at=now, what="recovered", why=why),),
            )
            return fresh, self.memory.etag()
        return state or State(), etag

    # Act

    def _do(self, action: act.Action, state: State, manifest: Manifest | None) -> str | None:
        match action:
            case act.Cancel():
                tolerant(self.clients.iot.cancel_job, jobId=action.job, **NOT_WANTED)
                return f"cancelled {action.job}"
            case act.Create():
                return self._create(
                    action, state.candidate.manifest if state.candidate else manifest
                )
            case act.Disarm():
                self._disarm(action.job)
                return f"disarmed {action.job}"
            case act.Enroll():
                return self._enroll(action)
            case act.RemoveGroup():
                group = self.setup.rollback_group(action.sequence)
                self.clients.iot.delete_thing_group(thingGroupName=group)
                return f"removed {group}"

    def _create(self, action: act.Create, manifest: Manifest | None) -> str:
        name = self.names.job(action.ring, action.offer.sequence)
        try:
            self.clients.iot.create_job(
                jobId=name, **self._job_request(action, manifest or Manifest)
            )
        except ClientError as error:
            if error_code(error) != "ResourceAlreadyExistsException":
                raise
            return f"found {name}"
        now_wanted, _ = self.memory.load()
        if now_wanted is None or name not in act.wanted(now_wanted, self.names):
            tolerant(self.clients.iot.cancel_job, jobId=name, **NOT_WANTED)
            raise Lost
        return f"created {name}"

    def _job_request(
        self, action: act.Create, settings: Manifest | type[Manifest]
    ) -> dict[str, Any]:
        setup, offer = self.setup, action.offer
        claims = statement(
            self.names.channel, offer.firmware, offer.sequence, downgrade=offer.downgrade
        )
        signed = signing_input(RELEASE_TYPE, setup.signing_keys[0], claims)
        url = artifact_url(setup.bucket, setup.region, setup.dns_suffix, offer.firmware.key)
        request = {
            "targets": [self._target(action)],
            "targetSelection": "CONTINUOUS",
            "document": job_document(jws(signed, self.memory.sign(signed)), url),
            "description": (
                f"{offer.firmware.version} for ring {action.ring} of channel {self.names.channel}"
            ),
            "presignedUrlConfig": {
                "roleArn": setup.presign_role,
                "expiresInSec": settings.presigned_url_seconds,
            },
            "timeoutConfig": {"inProgressTimeoutInMinutes": settings.in_progress_timeout_minutes},
        }
        if action.proving:
            request |= {
                "jobExecutionsRolloutConfig": _pace(settings.pace),
                "abortConfig": _abort(settings),
            }
        return request

    def _target(self, action: act.Create) -> str:
        return (
            self._rollback_target(action.offer.sequence)
            if action.ring == RESERVED
            else self.setup.ring_groups[action.ring]
        )

    def _rollback_target(self, sequence: int) -> str:
        """The ARN of the rollback's group, which is made where it is not there yet (the call may be
        repeated)."""
        properties = {
            "thingGroupDescription": (
                f"Devices that return to the last good release of {self.names.channel}"
            )
        }
        answer = self.clients.iot.create_thing_group(
            thingGroupName=self.setup.rollback_group(sequence), thingGroupProperties=properties
        )
        return str(answer["thingGroupArn"])

    def _enroll(self, action: act.Enroll) -> str | None:
        self._rollback_target(action.sequence)
        missing = sorted(self.view.exposed(action.exposing) - self.view.members(action.sequence))[
            :ENROLLED_A_RUN
        ]
        group = self.setup.rollback_group(action.sequence)

        def add(thing: str) -> None:
            tolerant(
                self.clients.iot.add_thing_to_thing_group, thingGroupName=group, thingName=thing
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, missing))
        return f"enrolled {len(missing)} devices in {group}" if missing else None

    def _disarm(self, job: str) -> None:
        criteria = [
            {
                "failureType": kind,
                "action": "CANCEL",
                "thresholdPercentage": 100.0,
                "minNumberOfExecutedThings": DISARMED,
            }
            for kind in ("FAILED", "TIMED_OUT")
        ]
        tolerant(self.clients.iot.update_job, jobId=job, abortConfig={"criteriaList": criteria})

    # Tell

    def _tell(self, state: State, observed: Observed, now: float) -> None:
        rolling = state.rollback is not None and state.rollback.done_at is None
        refused = observed.manifest_problem or observed.image_problem or observed.good_image_problem
        channel = {
            "Heartbeat": 1,
            "ReleaseFailed": int(rolling or state.halt is not None),
            "RollbackFailed": rollback_failing(state, observed, self.names, now),
            "ManifestRefused": int(bool(refused)),
            "Held": int(state.waiting.kind in NEEDS_A_PERSON),
        }
        offers: dict[str, Offer] = dict(state.stable)
        if state.candidate:
            offers |= {ring: progress.offer for ring, progress in state.candidate.rings.items()}
        jobs = {
            ring: observed.jobs.get(self.names.job(ring, offer.sequence))
            for ring, offer in offers.items()
        }
        self._measure(channel, {ring: job.counts for ring, job in jobs.items() if job})

    def _measure(self, channel: Mapping[str, float], rings: Mapping[str, Counts]) -> None:
        own = [
            {"Name": "Suffix", "Value": self.names.suffix},
            {"Name": "Channel", "Value": self.names.channel},
        ]
        data = [_datum(name, value, own) for name, value in channel.items()]
        for ring, counts in sorted(rings.items()):
            where = [*own, {"Name": "Ring", "Value": ring}]
            data += [_datum(name, value, where) for name, value in _ring_values(counts).items()]
        self.clients.cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)


def _datum(name: str, value: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {"MetricName": name, "Value": value, "Unit": "Count", "Dimensions": dimensions}


def _ring_values(counts: Counts) -> dict[str, int]:
    return {
        "DevicesQueued": counts.queued,
        "DevicesInProgress": counts.in_progress,
        "DevicesSucceeded": counts.succeeded,
        "DevicesFailed": counts.failed,
        "DevicesTimedOut": counts.timed_out,
        "DevicesRejected": counts.rejected,
    }


def _pace(pace: Pace) -> dict[str, Any]:
    if pace.base_per_minute is None:
        return {"maximumPerMinute": pace.maximum_per_minute}
    increase = {"notified": "numberOfNotifiedThings", "succeeded": "numberOfSucceededThings"}[
        pace.increase_on
    ]
    return {
        "maximumPerMinute": pace.maximum_per_minute,
        "exponentialRate": {
            "baseRatePerMinute": pace.base_per_minute,
            "incrementFactor": pace.factor,
            "rateIncreaseCriteria": {increase: pace.increase_after},
        },
    }


def _abort(manifest: Manifest | type[Manifest]) -> dict[str, Any]:
    return {
        "criteriaList": [
            {
                "failureType": abort.on,
                "action": "CANCEL",
                "thresholdPercentage": abort.percent,
                "minNumberOfExecutedThings": abort.minimum,
            }
            for abort in manifest.abort
        ]
    }
