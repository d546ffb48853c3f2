"""The AWS calls that the controller makes, answered by a `World`; strict: a call it does not know
is an error.

Every call passes through `Fake.calls`, where a test can make it fail, lose its answer, or let
something happen first.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from functions.aws import Setup
from rollout.actions import Create
from rollout.document import read_statement
from rollout.observed import DISARMED
from rollout.release import Firmware, Manifest, control_key, manifest_key, sha256, state_key
from rollout.rings import RESERVED
from rollout.state import Offer
from tests.simulation.world import NAMES, SimJob, World

KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/2"
GROUP = "arn:aws:iot:us-east-1:123456789012:thinggroup"
FLEET = "iot-fleet-0123abcd"


def refusal(code: str, call: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"{call} was made to fail"}}, call)


def no_fault(_number: int, _name: str, effect: Callable[[], Any]) -> Any:
    return effect()


class Fake:
    """The clients of one controller. `fault(number, name, effect)` stands around the effect of
    every call."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys = [KEY]
        self.private_keys = {
            key: ec.generate_private_key(ec.SECP256R1()) for key in (KEY, OTHER_KEY)
        }
        self.objects: dict[str, bytes] = {}
        self.metrics: list[dict[str, Any]] = []
        self.made: list[str] = []
        """Names of the calls, in order."""
        self.documents: dict[str, dict[str, Any]] = {}
        self.fault: Callable[[int, str, Callable[[], Any]], Any] = no_fault
        self.s3 = self.kms = self.iot = self.cloudwatch = self
        self.publish(world.manifest)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # copy asks
            raise AttributeError(name)
        effect = getattr(type(self), f"do_{name}", None)
        if effect is None:
            raise AssertionError(f"the controller makes a call it has no right to: {name}")

        def call(**parameters: Any) -> Any:
            self.made.append(name)
            return self.fault(len(self.made) - 1, name, lambda: effect(self, **parameters))

        return call

    def publish(self, manifest: Manifest | None) -> None:
        """What `pulumi up` does: artifact and manifest in the bucket, the digest in the
        controller's environment."""
        if manifest:
            self.objects[manifest_key("stable")] = manifest.text().encode()
            self.put_image(manifest.firmware)
            self.digest = sha256(manifest.text())

    def put_image(self, firmware: Firmware) -> None:
        self.objects[firmware.key] = (
            firmware.version.encode()
        )  # a world's digests are those of the version's text

    def setup(self) -> Setup:
        rings = self.world.manifest.rings if self.world.manifest else ()
        return Setup(
            bucket="bucket",
            fleet_group=FLEET,
            presign_role="arn:aws:iam::123456789012:role/presign",
            signing_keys=self.keys,
            ring_groups={ring.name: f"{GROUP}/{FLEET}-{ring.name}" for ring in rings},
            manifest_sha256=self.digest,
            region="us-east-1",
            dns_suffix="amazonaws.com",
            names=NAMES,
        )

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.objects[state_key("stable")])["state"])

    def order(self, **orders: Any) -> None:
        """Writes control.json."""
        self.objects[control_key("stable")] = json.dumps({"schema": 1, **orders}).encode()

    # S3

    def do_get_object(self, Bucket: str, Key: str) -> Any:
        if Key not in self.objects:
            raise refusal("NoSuchKey", "GetObject")
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": etag(self.objects[Key])}

    def do_put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentType: str,
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> Any:
        assert Key == state_key("stable"), "the controller writes its state and nothing else"
        assert (IfMatch is None) != (IfNoneMatch is None), "never without a condition"
        there = self.objects.get(Key)
        if (IfNoneMatch and there is not None) or (
            IfMatch and (there is None or etag(there) != IfMatch)
        ):
            raise refusal("PreconditionFailed", "PutObject")
        self.objects[Key] = Body
        return {"ETag": etag(Body)}

    def do_head_object(self, Bucket: str, Key: str, ChecksumMode: str) -> Any:
        if Key not in self.objects:
            raise refusal("404", "HeadObject")
        digest = hashlib.sha256(self.objects[Key]).digest()
        return {
            "ContentLength": 1000,
            "ChecksumSHA256": base64.b64encode(digest).decode(),
            "ChecksumType": "FULL_OBJECT",
        }

    # KMS

    def do_sign(self, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> Any:
        assert (KeyId, MessageType, SigningAlgorithm) == (self.keys[0], "DIGEST", "ECDSA_SHA_256")
        return {
            "Signature": (
                self.private_keys[KeyId].sign(Message, ec.ECDSA(Prehashed(hashes.SHA256())))
            )
        }

    def do_verify(
        self, KeyId: str, Message: bytes, MessageType: str, Signature: bytes, SigningAlgorithm: str
    ) -> Any:
        try:
            self.private_keys[KeyId].public_key().verify(
                Signature, Message, ec.ECDSA(Prehashed(hashes.SHA256()))
            )
        except InvalidSignature as error:
            raise refusal("KMSInvalidSignatureException", "Verify") from error
        return {"SignatureValid": True}

    # IoT

    def do_list_jobs(
        self, maxResults: int, status: str | None = None, nextToken: str | None = None
    ) -> Any:
        """In pages of two, so that reading only the first page is noticed."""
        found = [
            {"jobId": n, "status": j.status} for n, j in self.jobs() if status in (None, j.status)
        ]
        found.insert(
            0, {"jobId": "ffffffff-stable-canary-1999999999", "status": "IN_PROGRESS"}
        )  # another stack's
        start = int(nextToken or 0)
        more = {"nextToken": str(start + 2)} if start + 2 < len(found) else {}
        return {"jobs": found[start : start + 2], **more}

    def jobs(self) -> list[tuple[str, SimJob]]:
        return [
            (name, job) for name, job in self.world.jobs.items() if name not in self.world.deleted
        ]

    def do_describe_job(self, jobId: str) -> Any:
        job = dict(self.jobs()).get(jobId)
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

    def do_create_job(self, jobId: str, targets: list[str], document: str, **rest: Any) -> Any:
        if jobId in self.world.jobs:
            raise refusal("ResourceAlreadyExistsException", "CreateJob")
        (target,) = targets
        claims = read_statement(json.loads(document)["release"])
        self.documents[jobId] = json.loads(document)
        ring = RESERVED if "-rollback-" in target else target.removeprefix(f"{GROUP}/{FLEET}-")
        firmware = Firmware(
            version=claims.version, sha256=claims.sha256, size=claims.size, hardware=claims.hardware
        )
        offer = Offer(sequence=claims.sequence, firmware=firmware, downgrade=claims.downgrade)
        armed = self.world.manifest if "abortConfig" in rest else None
        self.world.jobs[jobId] = SimJob(
            Create(ring=ring, offer=offer, proving=armed is not None), armed
        )
        return {}

    def do_cancel_job(
        self, jobId: str, reasonCode: str, comment: str = "", force: bool = False
    ) -> Any:
        if dict(self.jobs())[jobId].status != "IN_PROGRESS":
            raise refusal("InvalidRequestException", "CancelJob")
        self.world.cancel(jobId, reasonCode)
        return {}

    def do_update_job(self, jobId: str, abortConfig: Any) -> Any:
        self.world.jobs[jobId].manifest = None
        return {}

    def do_list_thing_groups(self, namePrefixFilter: str, maxResults: int) -> Any:
        names = [f"{FLEET}-stable-rollback-{sequence}" for sequence in self.world.groups]
        return {
            "thingGroups": [
                {"groupName": name} for name in names if name.startswith(namePrefixFilter)
            ]
        }

    def do_create_thing_group(self, thingGroupName: str, thingGroupProperties: Any) -> Any:
        self.world.groups.setdefault(int(thingGroupName.rsplit("-", 1)[1]), set())
        return {"thingGroupArn": f"{GROUP}/{thingGroupName}"}

    def do_delete_thing_group(self, thingGroupName: str) -> Any:
        self.world.groups.pop(int(thingGroupName.rsplit("-", 1)[1]), None)
        return {}

    def do_add_thing_to_thing_group(self, thingGroupName: str, thingName: str) -> Any:
        self.world.groups[int(thingGroupName.rsplit("-", 1)[1])].add(thingName)
        return {}

    def do_list_things_in_thing_group(self, thingGroupName: str, maxResults: int) -> Any:
        return {"things": sorted(self.world.groups[int(thingGroupName.rsplit("-", 1)[1])])}

    def do_list_job_executions_for_job(self, jobId: str, status: str, maxResults: int) -> Any:
        job = dict(self.jobs()).get(jobId)
        if job is None:
            raise refusal("ResourceNotFoundException", "ListJobExecutionsForJob")
        things = [thing for thing, found in job.executions.items() if found == status]
        return {
            "executionSummaries": [
                {"thingArn": f"arn:aws:iot:us-east-1:123456789012:thing/{thing}"}
                for thing in things
            ]
        }

    # CloudWatch

    def do_put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> Any:
        assert Namespace == "IotOta"
        self.metrics = MetricData
        return {}

    def do_describe_alarms(
        self, AlarmNames: list[str], AlarmTypes: list[str], MaxRecords: int
    ) -> Any:
        found = [
            {
                "AlarmName": name,
                "StateValue": alarm.state,
                "StateTransitionedTimestamp": datetime.fromtimestamp(alarm.since, UTC),
            }
            for name, alarm in self.world.alarms.items()
            if name in AlarmNames
        ]
        return {"MetricAlarms": found, "CompositeAlarms": []}

    def metric(self, name: str) -> float:
        """The channel's metric of the last run."""
        return float(next(d["Value"] for d in self.metrics if d["MetricName"] == name))


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
