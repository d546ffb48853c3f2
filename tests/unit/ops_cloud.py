"""A small AWS for the operator's command line: jobs, groups and shadows as IoT would answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloud.clients import Clients
from cloud.preflight import Preflight, RingCheck
from cloud.roster import Reading, Roster, Tally
from ops.report import Report, Reporter
from ops.stack import Stack
from rollout.codec import canonical_json, sha256_hex
from rollout.names import ROLLBACK, Names
from rollout.observed import DISARMED, Alarm, Counts, Source
from rollout.orders import Order
from rollout.release import AlarmGate, Firmware, Gate, Manifest, RingPlan
from rollout.state import AT_WORK, Aim, Candidate, Offer, Phase, Release, State, WayBack
from rollout.version import Version
from tests.fake_aws import Effect, FakeAws, moment, page, refusal
from tests.unit.model_client import ModelClient

NOW = 1_795_500_000.0
NAMES = Names(fleet="fleet", suffix="0123abcd", channel="stable")
STACK = Stack(
    option="--stack prod",
    fleet_name="fleet",
    suffix="0123abcd",
    region="eu-west-1",
    bucket_name="fleet-0123abcd-firmware",
    channel_name="stable",
    fleet_group_name="fleet-0123abcd",
    signing_key_arns=("arn:aws:kms:eu-west-1:111122223333:key/abc",),
    iot_endpoint="iot.example",
    alarm_names={
        "no-heartbeat": "fleet-0123abcd-no-heartbeat",
        "ring-failing": "fleet-0123abcd-ring-failing",
    },
    ring_group_names={"canary": "fleet-0123abcd-canary", "broad": "fleet-0123abcd-broad"},
    device_names={"0001": "fleet-0123abcd-0001"},
)
CERTIFICATE_ARN = "arn:aws:iot:eu-west-1:111122223333:cert/"
PERSON = Order(
    by="arn:aws:sts::111122223333:assumed-role/ops/erik (erik)", at=NOW - 60, why="the radio drops"
)


def firmware(version: str) -> Firmware:
    return Firmware(
        version=Version(version), sha256=sha256_hex(version), size=1000, hardware="gateway-a1"
    )


GOOD, NEW = firmware("2.2.0"), firmware("2.3.0")
CANARY = RingPlan(
    name="canary",
    percent=10,
    gate=Gate(
        approval=True,
        soak_minutes=60,
        deadline_minutes=1440,
        alarms=(AlarmGate(name="stack:ring-failing"),),
    ),
)
MANIFEST = Manifest(
    schema=1, channel="stable", firmware=NEW, rings=(CANARY, RingPlan(name="broad", percent=90))
)


def offer(
    ring: str, sequence: int, what: Firmware = NEW, *, aim: Aim = "prove", **changes: Any
) -> Offer:
    """An offer whose job is there."""
    given = {"phase": AT_WORK[aim], "made_at": NOW - 600, **changes}
    return Offer(ring=ring, sequence=sequence, firmware=what, aim=aim, seen=True, **given)


def release(what: Firmware, standing: Any, why: str = "") -> dict[str, Release]:
    return {what.sha256: Release(version=what.version, standing=standing, why=why, at=NOW - 900)}


BEFORE, BAD = firmware("2.1.0"), firmware("2.2.5")
"""What was good before, and what was refused."""
KEPT = (
    offer("canary", 100, GOOD, aim="keep"),
    offer("broad", 101, GOOD, aim="keep"),
)
PROVED = State(
    suffix=NAMES.suffix,
    channel=NAMES.channel,
    sequence=200,
    last_good=GOOD,
    previous_good=BEFORE,
    releases={
        **release(BEFORE, "good"),
        **release(BAD, "refused", "ring canary: 3 failed"),
        **release(GOOD, "good"),
    },
    offers=KEPT,
)
"""2.2.0 is the last good release, and nothing is being proved."""
PROVING = replace(
    PROVED,
    offers=(*KEPT, offer("canary", 200)),
    candidate=Candidate(manifest=MANIFEST, downgrade=False),
    releases={**PROVED.releases, **release(NEW, "candidate")},
)
"""2.3.0 is being proved in canary; broad runs 2.2.0."""
CANDIDATE_JOB = NAMES.job("canary", 200)
WAY_BACK = WayBack(
    group=300,
    sources=(Source(job=CANDIDATE_JOB, ring="canary"),),
    failed="2.3.0",
    reason="ring canary: bad",
    started_at=NOW - 60,
)
BACK_JOB = NAMES.job(ROLLBACK, 301)
GOING_BACK = replace(
    PROVED,
    sequence=301,
    way_back=WAY_BACK,
    releases={**PROVED.releases, **release(NEW, "refused", "ring canary: bad")},
    offers=(
        *KEPT,
        offer("canary", 200, phase=Phase.ENDED, final=Counts(succeeded=6, failed=4)),
        offer(ROLLBACK, 301, GOOD, aim="return"),
    ),
)
"""2.3.0 failed in canary, and 10 devices return to 2.2.0."""


def with_offers(state: State, *offers: Offer) -> State:
    """The state with these offers, in place of those of the same sequence."""
    new = {one.sequence for one in offers}
    kept = (one for one in state.offers if one.sequence not in new)
    return replace(state, offers=(*kept, *offers), sequence=max(state.sequence, *new))


class OpsAws(FakeAws):
    """`meanwhile` runs before each PutObject."""

    def __init__(self) -> None:
        super().__init__(NAMES, list(STACK.signing_key_arns), now=NOW)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, str] = {}
        """By job: of those that the controller did not make."""
        self.executions: dict[tuple[str, str], list[str]] = {}
        """By job and status: things."""
        self.details: dict[tuple[str, str], dict[str, str]] = {}
        """By job and thing: what the device said."""
        self.groups: dict[str, list[str]] = {}
        """By thing."""
        self.shadows: dict[str, dict[str, Any]] = {}
        self.attributes: dict[str, dict[str, str]] = {}
        """By thing."""
        self.certificates: dict[str, list[str]] = {}
        """By thing: ids."""
        self.statuses: dict[str, str] = {}
        """By certificate; of the others ACTIVE."""
        self.policies: dict[str, list[str]] = {}
        """By certificate."""
        self.meanwhile: Callable[[], None] = lambda: None
        self.fault = self._let_others_write

    def _let_others_write(self, _number: int, name: str, effect: Effect) -> Any:
        if name == "put_object":
            self.meanwhile()
        return effect()

    def connect(self, service: str) -> Any:
        modelled = ("iot", "iot-data", "dynamodb")
        return ModelClient(self, service) if service in modelled else self

    def open(self, _args: object) -> tuple[Stack, Clients]:
        """In place of ops.stack.open_stack."""
        return STACK, Clients(self.connect)

    def report(self, now: float = NOW) -> Report:
        return Reporter(self.channel(), STACK).report(now)

    @property
    def puts(self) -> int:
        return self.made.count("put_object")

    # What is there

    def remember(self, state: State, *jobs: str) -> None:
        """Writes state.json as the controller does, and makes the jobs that the state names, and
        some more. None of this counts as a call."""
        made, meanwhile = list(self.made), self.meanwhile
        self.meanwhile = lambda: None
        self.write_state(state)
        self.made, self.meanwhile = made, meanwhile
        for name in jobs:
            self.job(name, armed=False)
        for one in state.offers:
            is_armed = one.aim == "prove" and one.phase is Phase.PROVING
            status = "IN_PROGRESS" if one.is_wanted else "CANCELED"
            self.job(NAMES.job(one.ring, one.sequence), armed=is_armed, status=status)

    def enlist(self, job: str = BACK_JOB, **counts: Any) -> None:
        """Writes the roster of WAY_BACK: its counts, as Tally names them."""
        read = {source.job: Reading(is_final=True) for source in WAY_BACK.sources}
        roster = Roster(job=job, readings=read, tallies={"0": Tally(**counts)})
        self.objects[NAMES.keys.roster(WAY_BACK.group)] = canonical_json(roster).encode()

    def look_ahead(self, **checks: RingCheck) -> None:
        """Writes preflight.json, by ring."""
        self.objects[NAMES.keys.preflight] = canonical_json(Preflight(rings=checks)).encode()

    def job(
        self, name: str, *, status: str = "IN_PROGRESS", armed: bool = True, **counts: int
    ) -> None:
        minimum = 5 if armed else DISARMED
        self.jobs[name] = {
            "jobId": name,
            "status": status,
            "description": f"firmware for {name}",
            "isConcurrent": False,
            "jobProcessDetails": {f"numberOf{key}Things": value for key, value in counts.items()},
            "abortConfig": {"criteriaList": [{"minNumberOfExecutedThings": minimum}]},
        }

    def raise_alarms(self, **states: Any) -> None:
        """By the short name of a stack's alarm, with underscores: its state."""
        self.alarms = {
            NAMES.alarm(short.replace("_", "-")): Alarm(state=state, since=NOW - 300)
            for short, state in states.items()
        }

    def live_jobs(self) -> set[str]:
        return {name for name, job in self.jobs.items() if job["status"] == "IN_PROGRESS"}

    # IoT

    def do_list_jobs(
        self, *, maxResults: int, status: str | None = None, nextToken: str | None = None
    ) -> Any:
        """One job a page, so that a command that forgets the next page is found out."""
        found = sorted(name for name, job in self.jobs.items() if status in (None, job["status"]))
        jobs = [{"jobId": name, "status": self.jobs[name]["status"]} for name in found]
        return page(jobs, "jobs", nextToken, size=1)

    def do_get_job_document(self, *, jobId: str) -> Any:
        if jobId not in self.jobs:
            raise refusal("ResourceNotFoundException", "GetJobDocument")
        made = list(self.made)
        document = self.documents.get(jobId) or self.sign_document(jobId)
        self.made = made
        return {"document": document}

    def do_describe_job(self, *, jobId: str) -> Any:
        if jobId not in self.jobs:
            raise refusal("ResourceNotFoundException", "DescribeJob")
        return {"job": self.jobs[jobId]}

    def do_cancel_job(self, *, jobId: str, reasonCode: str, comment: str) -> Any:
        assert reasonCode == "OPERATOR_HALT"
        assert comment.isprintable()
        if self.jobs[jobId]["status"] != "IN_PROGRESS":
            raise refusal("InvalidStateTransitionException", "CancelJob")
        self.jobs[jobId] |= {"status": "CANCELED", "reasonCode": reasonCode, "comment": comment}
        return {}

    def do_list_job_executions_for_job(
        self, *, jobId: str, status: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        things = [
            {
                "thingArn": f"arn:aws:iot:eu-west-1:1:thing/{thing}",
                "jobExecutionSummary": {"executionNumber": 1, "status": status},
            }
            for thing in self.executions.get((jobId, status), [])
        ]
        return page(things, "executionSummaries", nextToken)

    def do_list_job_executions_for_thing(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        at = moment(NOW - 90)
        found = [
            {
                "jobId": job,
                "jobExecutionSummary": {
                    "status": status,
                    "executionNumber": 1,
                    "queuedAt": at,
                    "lastUpdatedAt": at,
                },
            }
            for (job, status), things in self.executions.items()
            if thingName in things
        ]
        return page(found, "executionSummaries", nextToken)

    def do_describe_job_execution(self, *, jobId: str, thingName: str, executionNumber: int) -> Any:
        details = self.details.get((jobId, thingName))
        return {"execution": {"statusDetails": {"detailsMap": details}} if details else {}}

    def do_list_thing_groups_for_thing(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        if thingName not in self.groups:
            raise refusal("ResourceNotFoundException", "ListThingGroupsForThing")
        groups = [{"groupName": group} for group in self.groups[thingName]]
        return page(groups, "thingGroups", nextToken)

    def do_describe_thing(self, *, thingName: str) -> Any:
        if thingName not in self.groups:
            raise refusal("ResourceNotFoundException", "DescribeThing")
        return {"thingName": thingName, "attributes": self.attributes.get(thingName, {})}

    def do_list_things(
        self,
        *,
        attributeName: str,
        attributeValue: str,
        maxResults: int,
        nextToken: str | None = None,
    ) -> Any:
        """One a page."""
        found = [
            {"thingName": thing, "attributes": attributes}
            for thing, attributes in self.attributes.items()
            if attributes.get(attributeName) == attributeValue
        ]
        return page(found, "things", nextToken, size=1)

    def do_list_thing_principals(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        """One a page; a person of Cognito is among them."""
        if thingName not in self.groups:
            raise refusal("ResourceNotFoundException", "ListThingPrincipals")
        found = [CERTIFICATE_ARN + one for one in self.certificates.get(thingName, ())]
        person = "eu-west-1:7b7d1a4e-0d53-4f0a-8c1d-7b2d4b7c9c11"
        return page([person, *found], "principals", nextToken, size=1)

    def do_describe_certificate(self, *, certificateId: str) -> Any:
        status = self.statuses.get(certificateId, "ACTIVE")
        if status == "DELETED":
            raise refusal("ResourceNotFoundException", "DescribeCertificate")
        return {"certificateDescription": {"certificateId": certificateId, "status": status}}

    def do_update_certificate(self, *, certificateId: str, newStatus: str) -> Any:
        assert newStatus == "INACTIVE", "nobody here makes a certificate valid"
        self.statuses[certificateId] = newStatus
        return {}

    def do_list_attached_policies(
        self, *, target: str, pageSize: int, marker: str | None = None, recursive: bool = False
    ) -> Any:
        """One a page."""
        names = self.policies.get(target.removeprefix(CERTIFICATE_ARN), [])
        start = int(marker or 0)
        more = {"nextMarker": str(start + 1)} if start + 1 < len(names) else {}
        return {"policies": [{"policyName": one} for one in names[start : start + 1]], **more}

    def do_get_thing_shadow(self, *, thingName: str) -> Any:
        if thingName not in self.shadows:
            raise refusal("ResourceNotFoundException", "GetThingShadow")
        return {"payload": io.BytesIO(json.dumps(self.shadows[thingName]).encode())}
