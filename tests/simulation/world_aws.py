"""AWS as the controller meets it: a `World` of jobs, groups and devices behind the fake calls."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from cloud.clients import Clients
from functions.controller import Controller, Setup
from rollout.codec import sha256_hex
from rollout.job_document import parse_statement
from rollout.observed import DISARMED
from rollout.release import Firmware, Manifest
from rollout.state import Offer
from tests.fake_aws import FakeAws, page, refusal
from tests.simulation.world import NAMES, SimJob, World

KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/2"
IMAGE_KEY = "arn:aws:kms:us-east-1:123456789012:key/3"
IOT = "arn:aws:iot:us-east-1:123456789012"


class WorldClock:
    """A run's clock: it starts at the world's time, and whoever waits moves it on."""

    def __init__(self, world: World) -> None:
        self._now = world.now

    def time(self) -> float:
        return self._now

    def sleep(self, seconds: float, /) -> None:
        self._now += seconds


class WorldAws(FakeAws):
    def __init__(self, world: World) -> None:
        super().__init__(NAMES, [KEY, OTHER_KEY], now=world.now)
        self.private_keys[IMAGE_KEY] = ec.generate_private_key(ec.SECP256R1())
        self.keys = [KEY]
        self.world = world
        self.documents: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self.declared: int | None = None
        """Devices that the stack declares; None where it is protected."""
        self.policy_targets: list[str] = []
        """What has the stack's device policy."""
        self.rules = {NAMES.tick}
        """EventBridge's rules, by name."""
        if world.manifest:
            self.publish(world.manifest)

    def publish(self, manifest: Manifest) -> None:
        """The digest goes into the controller's environment."""
        super().publish(manifest)
        self.digest = sha256_hex(manifest.text())

    def controller(self) -> Controller:
        """The controller, as Lambda starts it for one run."""
        return Controller(self.setup(), Clients(self.connect), clock=WorldClock(self.world))

    def setup(self) -> Setup:
        rings = self.world.manifest.rings if self.world.manifest else ()
        return Setup(
            names=NAMES,
            bucket=self.bucket,
            signing_keys=self.keys,
            ring_groups={
                ring.name: f"{IOT}:thinggroup/{NAMES.ring_group(ring.name)}" for ring in rings
            },
            presign_role="arn:aws:iam::123456789012:role/presign",
            manifest_sha256=self.digest,
            region="us-east-1",
            dns_suffix="amazonaws.com",
            declared_devices=self.declared,
            image_key=self.image_key,
        )

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.objects[NAMES.keys.state])["state"])

    def write_orders(self, **orders: Any) -> None:
        """Writes control.json as JSON has it."""
        self.objects[NAMES.keys.orders] = json.dumps({"schema": 1, **orders}).encode()

    def jobs(self) -> dict[str, SimJob]:
        return {n: job for n, job in self.world.jobs.items() if n not in self.world.deleted}

    # The calls

    def do_describe_rule(self, *, Name: str) -> Any:
        if Name not in self.rules:
            raise refusal("ResourceNotFoundException", "DescribeRule")
        return {"Name": Name, "State": "ENABLED", "ScheduleExpression": "rate(1 minute)"}

    def do_describe_alarms(self, **parameters: Any) -> Any:
        self.alarms = self.world.alarms
        return super().do_describe_alarms(**parameters)

    def do_list_jobs(
        self, *, maxResults: int, status: str | None = None, nextToken: str | None = None
    ) -> Any:
        """Another stack's job is among them."""
        found = [{"jobId": "ffffffff-stable-canary-1999999999", "status": "IN_PROGRESS"}]
        found += [
            {"jobId": name, "status": job.status}
            for name, job in self.jobs().items()
            if status in (None, job.status)
        ]
        return page(found, "jobs", nextToken)

    def do_get_job_document(self, *, jobId: str) -> Any:
        if jobId not in self.jobs():
            raise refusal("ResourceNotFoundException", "GetJobDocument")
        return {"document": json.dumps(self.documents.get(jobId, {}))}

    def do_describe_job(self, *, jobId: str) -> Any:
        job = self.jobs().get(jobId)
        if job is None:
            raise refusal("ResourceNotFoundException", "DescribeJob")
        counts = job.counts()
        minimum = 5 if job.manifest else DISARMED
        return {
            "job": {
                "status": job.status,
                "isConcurrent": False,
                **({"reasonCode": job.reason} if job.reason else {}),
                "abortConfig": {"criteriaList": [{"minNumberOfExecutedThings": minimum}]},
                "jobProcessDetails": {
                    "numberOfQueuedThings": counts.queued,
                    "numberOfInProgressThings": counts.in_progress,
                    "numberOfSucceededThings": counts.succeeded,
                    "numberOfFailedThings": counts.failed,
                    "numberOfTimedOutThings": counts.timed_out,
                    "numberOfRejectedThings": counts.rejected,
                    "numberOfCanceledThings": counts.canceled,
                    "numberOfRemovedThings": counts.removed,
                },
            }
        }

    def do_create_job(self, *, jobId: str, targets: list[str], document: str, **rest: Any) -> Any:
        if jobId in self.world.jobs:
            raise refusal("ResourceAlreadyExistsException", "CreateJob")
        (target,) = targets
        claims = parse_statement(json.loads(document)["release"])
        self.documents[jobId] = json.loads(document)
        group = NAMES.rollback_sequence(target.removeprefix(f"{IOT}:thinggroup/"))
        ring, sequence = NAMES.split_job(jobId) or ("", 0)
        firmware = Firmware(
            version=claims.version, sha256=claims.sha256, size=claims.size, hardware=claims.hardware
        )
        assert (claims.job, claims.sequence) == (jobId, sequence), "signed for this very job"
        offer = Offer(
            ring=ring,
            sequence=sequence,
            firmware=firmware,
            aim="prove",  # nobody but the controller knows what for
            made_at=self.world.now,
            downgrade=claims.downgrade,
        )
        armed = self.world.manifest if "abortConfig" in rest else None
        self.world.jobs[jobId] = SimJob(offer, group, armed)
        return {}

    def do_cancel_job(
        self, *, jobId: str, reasonCode: str, comment: str, force: bool = False
    ) -> Any:
        if self.jobs()[jobId].status != "IN_PROGRESS":
            raise refusal("InvalidRequestException", "CancelJob")
        self.world.cancel(jobId, reasonCode)
        return {}

    def do_update_job(self, *, jobId: str, abortConfig: Any) -> Any:
        self.world.jobs[jobId].manifest = None
        return {}

    def do_list_thing_groups(
        self, *, namePrefixFilter: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        names = [NAMES.rollback_group(sequence) for sequence in self.world.groups]
        found = [{"groupName": name} for name in names if name.startswith(namePrefixFilter)]
        return page(found, "thingGroups", nextToken)

    def group(self, name: str) -> set[str]:
        sequence = NAMES.rollback_sequence(name)
        assert sequence is not None, f"{name} is no group of a rollback"
        return self.world.groups[sequence]

    def do_create_thing_group(self, *, thingGroupName: str, thingGroupProperties: Any) -> Any:
        self.world.groups.setdefault(NAMES.rollback_sequence(thingGroupName) or 0, set())
        return {"thingGroupArn": f"{IOT}:thinggroup/{thingGroupName}"}

    def do_delete_thing_group(self, *, thingGroupName: str) -> Any:
        self.world.groups.pop(NAMES.rollback_sequence(thingGroupName) or 0, None)
        return {}

    def do_add_thing_to_thing_group(self, *, thingGroupName: str, thingName: str) -> Any:
        """`refused` are things that AWS will not have in one more group, with its error."""
        if thingName not in self.world.devices:
            raise refusal("ResourceNotFoundException", "AddThingToThingGroup")
        if thingName in self.refused:
            raise refusal(self.refused[thingName], "AddThingToThingGroup")
        self.group(thingGroupName).add(thingName)
        return {}

    def do_describe_thing(self, *, thingName: str) -> Any:
        if thingName not in self.world.devices:
            raise refusal("ResourceNotFoundException", "DescribeThing")
        return {"thingName": thingName}

    def do_list_things_in_thing_group(
        self, *, thingGroupName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        rings = {
            NAMES.ring_group(ring): {device.name for device in self.world.in_ring(ring)}
            for ring in {device.ring for device in self.world.devices.values()}
        }
        if thingGroupName in rings:
            return page(sorted(rings[thingGroupName]), "things", nextToken)
        if NAMES.rollback_sequence(thingGroupName) is None:
            raise refusal("ResourceNotFoundException", "ListThingsInThingGroup")
        return page(sorted(self.group(thingGroupName)), "things", nextToken)

    def do_list_targets_for_policy(
        self, *, policyName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        assert policyName == NAMES.device_policy
        return page(self.policy_targets, "targets", nextToken)

    def do_list_thing_groups_for_thing(
        self, *, thingName: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        """Those that AWS will not have in one more group are in nine others."""
        device = self.world.devices.get(thingName)
        if device is None:
            raise refusal("ResourceNotFoundException", "ListThingGroupsForThing")
        others = [f"other-{n}" for n in range(9)] if thingName in self.refused else []
        names = [NAMES.ring_group(device.ring), *others]
        return page([{"groupName": name} for name in names], "thingGroups", nextToken)

    def do_list_thing_principals(self, *, thingName: str, maxResults: int) -> Any:
        """A certificate each, which bears its thing's name."""
        return {"principals": [f"{IOT}:cert/{thingName}"]}

    def do_list_attached_policies(self, *, target: str, recursive: bool, pageSize: int) -> Any:
        return {"policies": [{"policyName": NAMES.device_policy}]}

    def do_list_job_executions_for_job(
        self, *, jobId: str, status: str, maxResults: int, nextToken: str | None = None
    ) -> Any:
        job = self.jobs().get(jobId)
        if job is None:
            raise refusal("ResourceNotFoundException", "ListJobExecutionsForJob")
        found = [
            {
                "thingArn": f"{IOT}:thing/{thing}",
                "jobExecutionSummary": {"status": status, "executionNumber": 1},
            }
            for thing, now in job.executions.items()
            if now == status
        ]
        return page(found, "executionSummaries", nextToken)
