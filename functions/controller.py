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
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from typing import Any

import boto3

from cloud.bucket import ImageCheck, Overtaken
from cloud.channel import Channel
from cloud.clients import AWS_ERRORS, CONFIG, Clients
from cloud.cut_off import Quarantine
from cloud.device_ties import DeviceTies
from cloud.groups import group_things, some_things
from cloud.preflight import Inspector
from cloud.signer import NoImageKey
from cloud.wakes import is_tick_gone
from cloud.way_back import Clock, WayBackWorker
from rollout import actions as act
from rollout.decide import decide
from rollout.document_extra import needs_image_signature
from rollout.go_back import count_left_behind, has_failed
from rollout.job_document import artifact_url, job_document, release_statement
from rollout.jws import RELEASE_TYPE
from rollout.ledger import mark_made
from rollout.names import (
    CONTROLLER_SECONDS,
    NOT_WANTED,
    ROLLBACK,
    STACK_DESTROYED,
    ChannelMetric,
    Names,
    Variable,
)
from rollout.observed import Alarm, Job, Observed, Returning
from rollout.orders import Order, Orders, waived_things
from rollout.prove import find_adopted, find_failing_kept
from rollout.release import Abort, Firmware, Manifest, Pace
from rollout.state import Phase, State
from rollout.trust import NOWHERE, Place, UntrustedState, recover_state
from rollout.waiting import needs_a_person

COMMENT = "ended by the rollout controller"
"""In the jobs that it cancels."""
LAST_SECONDS = 10
"""How long before its time-out a run takes up no more work."""
MOVING_SECONDS = 20
"""How long AWS may list a device in the group that it was just taken out of."""
END_WRITES = 3
"""How often the end of the stack is written again over another run's state."""
MAX_COUNTED = 10_000
"""Devices that are counted before a stack goes: 40 pages."""
MAX_NAMED = 20
"""Foreign jobs, or devices in the way, that a run names in its log."""


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
    declared_devices: int | None = None
    """Devices that the stack itself declares; None where whoever uses it does not keep it."""
    image_key: str | None = None
    """ARN of the key that signs images; None where no job document holds such a signature."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Setup:
        declared = environment.get(Variable.DECLARED_DEVICES)
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
            declared_devices=int(declared) if declared else None,
            image_key=environment.get(Variable.IMAGE_KEY_ARN),
        )


def handler(event: Any, _context: Any) -> dict[str, Any]:
    """Lambda's entry."""
    return respond(event, Controller(Setup.from_environment(os.environ), clients()))


def respond(event: Any, controller: Controller) -> dict[str, Any]:
    """What an event asks for. `{"tf": {"action": …}}` comes from the stack when it is made, changed
    or destroyed; everything else is a reason to look."""
    if isinstance(event, dict) and "tf" in event:
        answer = _answer_stack(event, controller)
    else:
        answer = controller.run(time.time())
    print(json.dumps(answer))
    if answer.get("failed"):  # so that Lambda counts it, and the alarm on errors sees it
        raise RuntimeError(f"not everything could be done: {'; '.join(answer['failed'])}")
    return answer


def _answer_stack(event: dict[str, Any], controller: Controller) -> dict[str, Any]:
    """Does nothing but on destroy. The provider puts `prev_input` beside the action."""
    change, ring = event["tf"], event.get("ring")
    if not isinstance(change, dict) or change.get("action") != "delete":
        return {"outcome": "deployed"}
    return controller.leave(ring) if isinstance(ring, str) else controller.destroy()


@cache
def clients() -> Clients:
    """Made once for as long as Lambda keeps the function warm: making them costs more than a run
    that finds nothing to do."""
    session = boto3.Session()
    return Clients(lambda service: session.client(service, config=CONFIG))


class Controller:
    """One run of the controller."""

    def __init__(self, setup: Setup, clients: Clients, *, clock: Clock = time) -> None:
        self.setup, self.names, self._clock = setup, setup.names, clock
        self.channel = Channel(
            clients,
            setup.names,
            bucket=setup.bucket,
            signing_keys=setup.signing_keys,
            image_key=setup.image_key,
        )
        self._unread: list[str] = []
        """Jobs that AWS would not show to this run, and why."""
        self.way_back = WayBackWorker(
            clients,
            setup.names,
            self.channel.bucket,
            ring_groups=setup.ring_groups,
            clock=clock,
        )
        self.quarantine = Quarantine(self.channel.bucket, setup.names)
        self.inspector = Inspector(
            clients,
            setup.names,
            self.channel.bucket,
            ring_groups=setup.ring_groups,
            clock=clock,
        )

    def run(self, now: float) -> dict[str, Any]:
        """Looks, decides, remembers, acts; returns what happened in a few words. The time is in
        seconds since 1970."""
        # In this order. What is listed before the state is read was made by runs whose state was
        # written before that: what this state does not name is a stray. A manifest or an order that
        # is read after it is not older than it, or the write is lost.
        live, groups = self.channel.jobs.live(), self.channel.rollback_groups.sequences()
        try:
            stored, untrusted = self.channel.current_state(live), None
        except UntrustedState as error:
            stored, untrusted = None, error
        except Overtaken:  # others write it again and again: theirs is the newer look
            return {"outcome": "lost", "kind": "settling", "waiting": "other runs are at work"}
        manifest, problem = self.channel.manifest(self.setup.manifest_sha256)
        orders = self._orders()
        if untrusted and not _is_resumed(untrusted, orders):
            return self._tell_untrusted(untrusted)
        before = stored.state if stored else State()
        place = stored.place if stored else NOWHERE
        if untrusted:
            before, place = self._recover(untrusted, orders, now), untrusted.place
        observed = self._observe(before, manifest, problem, orders, live, groups)
        after = decide(manifest, before, observed, now, self.names)
        answer: dict[str, Any] = {
            "sequence": after.sequence,
            "kind": after.waiting.kind,
            "waiting": after.waiting.text,
        }
        try:
            if after != before or stored is None:
                after, place = self.channel.write_state(after, place)
            actions = act.list_actions(after, observed, self.names)
            done, failed = self._act_all(actions, after, place, manifest)
        except Overtaken:
            return {"outcome": "lost", **answer}
        self._put_metrics(after, observed, now)
        preflight = self._look_ahead(after, manifest)
        returning, problems = self._bring_back(actions, after, observed, now)
        return {
            "outcome": "failed" if self._unread or failed or problems else "done",
            **answer,
            "did": done,
            "foreign": sorted(observed.foreign)[:MAX_NAMED],
            "unplaced": dict(returning.refusals),
            "preflight": preflight,
            "failed": [*self._unread, *failed, *problems],
        }

    def destroy(self) -> dict[str, Any]:
        """Ends the jobs if the stack is being destroyed. Whoever may call the function can say so,
        but cannot delete the tick's rule, which a destroy deletes first; a call while the rule is
        there ends nothing, and is told."""
        if not is_tick_gone(self.channel.clients, self.names, self._clock):
            self.channel.cloudwatch.put({ChannelMetric.FORGED: 1}, {})
            return {"outcome": "forged", "why": f"the rule {self.names.tick} still wakes it"}
        in_use = self._find_users()
        return {"outcome": "refused", "failed": [in_use]} if in_use else self.end()

    def _find_users(self) -> str | None:
        """What is said where devices that the stack did not create still use it: AWS would keep the
        device policy and the thing type, and the stack would be half gone."""
        declared = self.setup.declared_devices
        if declared is None:
            return None
        clients, names = self.channel.clients, self.names
        rings = map(names.ring_group, self.setup.ring_groups)
        members = (group_things(clients, group) for group in (*rings, names.quarantine_group))
        things = sum(1 for _ in islice(chain.from_iterable(members), MAX_COUNTED))
        certificates = DeviceTies(clients, names, None).count_policy_targets(MAX_COUNTED)
        others, holders = max(0, things - declared), max(0, certificates - declared)
        if not others and not holders:
            return None
        least = "at least " if MAX_COUNTED in (things, certificates) else ""
        return (
            f"devices that the stack did not create still use it: {least}{others} in its thing"
            f" groups, and {least}{holders} certificates have the policy {names.device_policy}."
            " `python -m ops drain` ends that; then destroy it again. Until then nothing wakes"
            " the controller: `pulumi up` would mend that"
        )

    def end(self) -> dict[str, Any]:
        """Ends every live job of the channel, running executions too, and its rollback groups: the
        stack is going away. The state says so first, so that a stack that is made again over what
        was kept takes it for the controller's own act; where that cannot be, they end all the
        same."""
        jobs = sorted(live := self.channel.jobs.live())
        problem = self._remember_end(live)
        failed: list[str] = []
        for job in jobs:
            try:
                self.channel.jobs.cancel(job, STACK_DESTROYED, COMMENT, force=True)
            except AWS_ERRORS as error:
                failed.append(f"{job}: {error}")
        sequences = sorted(self.channel.rollback_groups.sequences())
        for sequence in sequences:
            self.channel.rollback_groups.delete(sequence)
        groups = [self.names.rollback_group(sequence) for sequence in sequences]
        forgotten = {"forgotten": problem} if problem else {}
        return {"outcome": "ended", "jobs": jobs, "groups": groups, "failed": failed} | forgotten

    def leave(self, ring: str) -> dict[str, Any]:
        """Lets the thing group of a ring that has left the settings go only when nobody is in it
        any more; whom the stack has just moved, AWS may list a few seconds longer. A ring that is
        still in the settings leaves with the whole stack."""
        group, until = self.names.ring_group(ring), self._clock.time() + MOVING_SECONDS
        while ring not in self.setup.ring_groups:
            things = some_things(self.channel.clients, group, MAX_NAMED + 1)
            if not things:
                break
            if self._clock.time() >= until:
                named = ", ".join(things[:MAX_NAMED]) + " and others" * (len(things) > MAX_NAMED)
                why = (
                    f"the ring {ring} has left the stack, and in its thing group {group} there are"
                    f" still {named}: put them into another ring's group, or delete them, and"
                    " deploy again"
                )
                return {"outcome": "refused", "failed": [why]}
            self._clock.sleep(2)
        return {"outcome": "left"}

    def _remember_end(self, live: Iterable[str]) -> str | None:
        """Writes into the state that the stack ends; why that was not possible."""
        for _ in range(END_WRITES):
            try:
                stored = self.channel.current_state(live)
                if stored and not stored.state.ended:
                    ended = replace(stored.state, ended=True)
                    self.channel.write_state(ended, stored.place)
            except Overtaken:
                continue
            except (UntrustedState, ValueError, *AWS_ERRORS) as error:
                return str(error)
            return None
        return "others wrote the state"

    # Look

    def _orders(self) -> Orders:
        """What people ordered. A control.json that cannot be read is a halt: an operator's word is
        in there."""
        file = self.channel.orders()
        if file.problem is None:
            return file.orders
        why = f"control.json is unreadable: {file.problem}"
        return Orders(halted=Order(by="the controller", at=0.0, why=why))

    def _recover(self, untrusted: UntrustedState, orders: Orders, now: float) -> State:
        """What can be proved, in place of a state that cannot be believed."""
        order = orders.resume.order if orders.resume else None
        said = f"{order.by} started afresh ({untrusted.why}): {order.why}" if order else ""
        return recover_state(self.channel.prove(), self.names, said, now)

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
        names = {self.names.job(o.ring, o.sequence): o for o in state.offers}
        # what is over stays as it was: a thousand superseded releases cost nothing
        followed = [name for name, o in names.items() if o.phase is not Phase.ENDED]
        unknown = self.channel.unknown_jobs(live, names)
        images = self._look_at_images(state, manifest)
        jobs, unread = self.channel.jobs.get_each(followed)
        self._unread = [f"DescribeJob of {name}: {why}" for name, why in unread.items()]
        return Observed(
            jobs=jobs,
            unread=frozenset(unread),
            strays=unknown.strays,
            foreign=unknown.foreign,
            alarms=self._gate_alarms(state, manifest),
            orders=orders,
            manifest_problem=problem,
            image_problems={key: one.problem for key, one in images.items() if one.problem},
            images={key: one.version for key, one in images.items() if one.version},
            ring_groups=frozenset(self.setup.ring_groups),
            is_fleet_empty=(state.last_good is None or state.is_adopted)
            and not self._has_devices(),
            groups=groups,
            returning=self._returning(state),
        )

    def _has_devices(self) -> bool:
        """Whether any ring has a device; a call a ring until one has."""
        names = (self.names.ring_group(ring) for ring in self.setup.ring_groups)
        return any(some_things(self.channel.clients, group, 1) for group in names)

    def _returning(self, state: State) -> Returning:
        back, offer = state.open_way_back, state.returning()
        if back is None:
            return Returning()
        own = self.names.job(ROLLBACK, offer.sequence) if offer else ""
        return self.way_back.look(back.group, back.sources, own)

    def _look_at_images(self, state: State, manifest: Manifest | None) -> dict[str, ImageCheck]:
        """By key: the images that are out, wanted, or the way back of these. Where nothing is
        out or wanted, nothing is looked at."""
        good, candidate = state.last_good or find_adopted(manifest, state), state.candidate
        wanted = manifest.firmware if manifest and manifest.firmware != good else None
        out = candidate.firmware if candidate else None
        if not (wanted or out or state.open_way_back):
            return {}
        found = {}
        for firmware in (wanted, out, good):
            if firmware and firmware.key not in found:
                pinned = [o.image for o in state.wanted() if o.firmware.key == firmware.key]
                found[firmware.key] = self._look_at_image(firmware, pinned)
        return found

    def _look_at_image(self, firmware: Firmware, pinned: list[str | None]) -> ImageCheck:
        """The version of the object that jobs name already, while it is there; else what lies
        there now."""
        versions = dict.fromkeys(version for version in reversed(pinned) if version)
        for version in [*versions][:1]:
            check = self.channel.bucket.check_image(firmware, version)
            if check.problem is None:
                return check
        return self.channel.bucket.check_image(firmware)

    def _gate_alarms(self, state: State, manifest: Manifest | None) -> dict[str, Alarm]:
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

    # Act

    def _act_all(
        self, actions: Iterable[act.Action], state: State, place: Place, manifest: Manifest | None
    ) -> tuple[list[str], list[str]]:
        """What was done, and what failed: each action by itself, so that one that AWS refuses does
        not keep the others from being done. Raises Overtaken.

        What was made is remembered at once, in a second write: a job that is missing later was
        ended by somebody.
        """
        done: list[str] = []
        failed: list[str] = []
        made: list[str] = []
        for action in actions:
            try:
                done += filter(None, [self._act(action, state, manifest)])
                if isinstance(action, act.Create):
                    made.append(self.names.job(action.offer.ring, action.offer.sequence))
            except (*AWS_ERRORS, NoImageKey) as error:
                failed.append(f"{type(action).__name__}: {error}")
        if made:
            self.channel.write_state(mark_made(state, made, self.names), place)
        return done, failed

    def _act(self, action: act.Action, state: State, manifest: Manifest | None) -> str | None:
        match action:
            case act.Cancel():
                self.channel.jobs.cancel(action.job, NOT_WANTED, COMMENT)
                return f"cancelled {action.job}"
            case act.Create():
                current = state.candidate.manifest if state.candidate else manifest
                return self._create(action, state, current)
            case act.Disarm():
                self.channel.jobs.disarm(action.job)
                return f"disarmed {action.job}"
            case act.RemoveGroup():
                problem = self.channel.rollback_groups.delete(action.sequence)
                return problem or f"removed {self.names.rollback_group(action.sequence)}"
            case act.Enroll():
                return None  # last of all: see _bring_back

    def _create(self, action: act.Create, state: State, manifest: Manifest | None) -> str:
        """Makes the job, and ends it again where by now no state wants it, whatever CreateJob
        said."""
        name = self.names.job(action.offer.ring, action.offer.sequence)
        is_new = self.channel.jobs.create(name, self._job_request(name, action, state, manifest))
        now_stored = self.channel.state()
        if now_stored is None or name not in act.wanted_jobs(now_stored.state, self.names):
            self.channel.jobs.cancel(name, NOT_WANTED, COMMENT)
            raise Overtaken(name)
        return f"{'created' if is_new else 'found'} {name}"

    def _job_request(
        self, name: str, action: act.Create, state: State, manifest: Manifest | None
    ) -> dict[str, Any]:
        """CreateJob's parameters. Where the manifest was refused, the manifest's defaults hold."""
        setup, offer = self.setup, action.offer
        statement = release_statement(
            self.names.channel,
            offer.firmware,
            offer.sequence,
            downgrade=offer.downgrade,
            job=name,
            refuses=_refused_digests(state) if offer.aim == "return" else (),
        )
        url = artifact_url(
            setup.bucket, setup.region, setup.dns_suffix, offer.firmware.key, offer.image
        )
        seconds = manifest.presigned_url_seconds if manifest else Manifest.presigned_url_seconds
        timeout = (
            manifest.in_progress_timeout_minutes
            if manifest
            else Manifest.in_progress_timeout_minutes
        )
        extra = state.document_extra
        image_signature = (
            self.channel.signer.sign_image(offer.firmware.sha256)
            if needs_image_signature(extra)
            else ""
        )
        jws = self.channel.signer.sign(RELEASE_TYPE, statement)
        request = {
            "targets": [self._target(action)],
            "targetSelection": "CONTINUOUS",
            "document": job_document(jws, url, offer.firmware, extra, image_signature),
            "description": (
                f"{offer.firmware.version} for ring {offer.ring} of channel {self.names.channel}"
            ),
            "presignedUrlConfig": {"roleArn": setup.presign_role, "expiresInSec": seconds},
            "timeoutConfig": {"inProgressTimeoutInMinutes": timeout},
        }
        if offer.aim == "prove" and manifest:
            request |= {
                "jobExecutionsRolloutConfig": _rollout_config(manifest.pace),
                "abortConfig": _abort_config(manifest.abort),
            }
        return request

    def _target(self, action: act.Create) -> str:
        if action.group is not None:
            return self.channel.rollback_groups.create(action.group)
        return self.setup.ring_groups[action.offer.ring]

    def _look_ahead(self, state: State, manifest: Manifest | None) -> dict[str, Any]:
        """Looks at a few devices, whether they could go back; at none while devices do, whose calls
        come first. What it meets fails no run: a release does not wait for it."""
        if state.open_way_back:
            return {}
        current = state.candidate.manifest if state.candidate else manifest
        try:
            rings = [ring.name for ring in current.rings] if current else []
            return self.inspector.work(rings).describe()
        except AWS_ERRORS as error:
            return {"problems": [str(error)]}

    def _bring_back(
        self, actions: Iterable[act.Action], state: State, observed: Observed, now: float
    ) -> tuple[Returning, list[str]]:
        """Puts exposed devices into the way back's group for as long as the run may last: last of
        all, and one run at a time. The rest of what the controller does waits for no device."""
        offer = state.returning()
        for action in actions:
            if isinstance(action, act.Enroll) and offer:
                try:
                    self.channel.rollback_groups.create(action.group)
                    returning = self.way_back.work(
                        action.group,
                        action.sources,
                        self.names.job(ROLLBACK, offer.sequence),
                        observed.jobs,
                        waived=waived_things(observed.orders, action.group),
                        cut_off=self.quarantine.followed(),
                        until=now + CONTROLLER_SECONDS - LAST_SECONDS,
                    )
                except AWS_ERRORS as error:
                    return observed.returning, [f"bringing devices back: {error}"]
                return returning, []
        return Returning(), []

    # Tell

    def _tell_untrusted(self, untrusted: UntrustedState) -> dict[str, Any]:
        metrics = (ChannelMetric.HEARTBEAT, ChannelMetric.MANIFEST_REFUSED, ChannelMetric.HELD)
        self.channel.cloudwatch.put(dict.fromkeys(metrics, 1), {})
        return {
            "outcome": "distrusted",
            "kind": "halted",
            "halt": untrusted.halt,
            "waiting": untrusted.why,
        }

    def _put_metrics(self, state: State, observed: Observed, now: float) -> None:
        refused = observed.manifest_problem or observed.image_problems
        is_failing = find_failing_kept(state, observed.jobs, self.names) is not None
        is_failing = is_failing or has_failed(state, self.names) or state.halt is not None
        is_failing = is_failing or any(
            event.what == "late-failures" and event.at == now for event in state.decisions
        )
        jobs = {
            offer.ring: observed.jobs.get(self.names.job(offer.ring, offer.sequence))
            for offer in state.wanted("keep", "prove")
        }
        self.channel.cloudwatch.put(
            {
                ChannelMetric.HEARTBEAT: 1,
                ChannelMetric.RELEASE_FAILED: int(is_failing),
                ChannelMetric.ROLLBACK_FAILED: count_left_behind(state, observed, self.names, now),
                ChannelMetric.MANIFEST_REFUSED: int(bool(refused)),
                ChannelMetric.HELD: int(needs_a_person(state.waiting.kind)),
                ChannelMetric.FORGED: len(observed.foreign),
            },
            {ring: job.counts for ring, job in jobs.items() if job},
        )


def _is_resumed(untrusted: UntrustedState, orders: Orders) -> bool:
    return orders.resume is not None and orders.resume.halt == untrusted.halt


def _refused_digests(state: State) -> tuple[str, ...]:
    """The newest digests that are refused: a way back's statement names them, so that they are
    known although the state were lost."""
    refused = [(r.at, sha256) for sha256, r in state.releases.items() if r.standing == "refused"]
    return tuple(sha256 for _, sha256 in sorted(refused, reverse=True))


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
