"""A small AWS for the operator's command line: strict, so that a call or a parameter that is not
meant fails."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from functions.aws import Setup
from functions.memory import Memory
from ops.source import Stack
from rollout.codec import decode_text, encode
from rollout.observed import DISARMED
from rollout.release import (
    AlarmGate,
    Firmware,
    Gate,
    Manifest,
    RingPlan,
    control_key,
    manifest_key,
    sha256,
    state_key,
)
from rollout.state import Candidate, Control, Names, Offer, Order, Progress, State

NOW = 1_795_500_000.0
NAMES = Names(suffix="0123abcd", channel="stable")
STACK = Stack(
    option="--stack prod",
    suffix="0123abcd",
    region="eu-west-1",
    bucket="fleet-0123abcd-firmware",
    channel="stable",
    fleet_group="fleet-0123abcd",
    signing_keys=["arn:aws:kms:eu-west-1:111122223333:key/abc"],
    iot_endpoint="iot.example",
    alarms={
        "no-heartbeat": "fleet-0123abcd-no-heartbeat",
        "ring-failing": "fleet-0123abcd-ring-failing",
    },
    ring_groups={"canary": "fleet-0123abcd-canary", "broad": "fleet-0123abcd-broad"},
    devices={"0001": "fleet-0123abcd-0001"},
)
PERSON = Order(
    by="arn:aws:sts::111122223333:assumed-role/ops/erik (erik)", at=NOW - 60, why="the radio drops"
)


def firmware(version: str) -> Firmware:
    return Firmware(version=version, sha256=sha256(version), size=1000, hardware="gateway-a1")


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


def offer(sequence: int, what: Firmware = NEW, **changes: Any) -> Offer:
    return Offer(sequence=sequence, firmware=what, seen=True, **changes)


PROVING = State(
    sequence=200,
    last_good=GOOD,
    previous_good=firmware("2.1.0"),
    stable={"canary": offer(100, GOOD), "broad": offer(100, GOOD)},
    candidate=Candidate(
        manifest=MANIFEST,
        downgrade=False,
        rings={"canary": Progress(offer=offer(200), started_at=NOW - 600)},
    ),
)
"""2.3.0 is being proved in canary; broad runs 2.2.0."""
PROVED = replace(PROVING, candidate=None)
"""2.2.0 is the last good release, and nothing is being proved."""


def started(state: State, **rings: Progress) -> State:
    """The state with more rings of its candidate."""
    assert state.candidate
    return replace(
        state, candidate=replace(state.candidate, rings={**state.candidate.rings, **rings})
    )


class Cloud:
    """What the fake clients share. `denied` are operations that AWS refuses; `meanwhile` runs
    before each PutObject."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.executions: dict[tuple[str, str], list[str]] = {}
        self.details: dict[tuple[str, str], dict[str, str]] = {}
        self.groups: dict[str, list[str]] = {}
        self.shadows: dict[str, dict[str, Any]] = {}
        self.alarms: dict[str, str] = {}
        self.heartbeat: float | None = None
        self.account = "111122223333"
        self.denied: set[str] = set()
        self.meanwhile: Callable[[], None] = lambda: None
        self.puts = 0
        self.described = 0
        self.key = ec.generate_private_key(ec.SECP256R1())

    def connect(self, service: str) -> Any:
        return {
            "s3": S3,
            "iot": Iot,
            "kms": Kms,
            "cloudwatch": CloudWatch,
            "sts": Sts,
            "iot-data": IotData,
        }[service](self)

    def allow(self, operation: str) -> None:
        if operation in self.denied:
            raise error("AccessDenied", operation, f"not authorized to perform {operation}")

    # What is there

    def remember(self, state: State, *jobs: str) -> None:
        """Writes state.json as the controller does, and makes the jobs that the state names, and
        some more."""
        names = [NAMES.job(ring, one.sequence) for ring, one in state.stable.items()]
        Memory(self.setup(), self).save(state, self.etag(state_key("stable")))  # type: ignore[arg-type]
        for name in (*names, *jobs):
            self.job(name, armed=False)
        for ring, progress in state.candidate.rings.items() if state.candidate else []:
            self.job(NAMES.job(ring, progress.offer.sequence), armed=progress.passed_at is None)

    def setup(self) -> Setup:
        return Setup(
            bucket=STACK.bucket,
            fleet_group=STACK.fleet_group,
            ring_groups={},
            presign_role="",
            signing_keys=STACK.signing_keys,
            manifest_sha256="",
            region=STACK.region,
            dns_suffix="",
            names=NAMES,
        )

    @property
    def s3(self) -> Any:
        return self.connect("s3")

    @property
    def kms(self) -> Any:
        return self.connect("kms")

    def job(
        self, name: str, *, status: str = "IN_PROGRESS", armed: bool = True, **counts: int
    ) -> None:
        least = 5 if armed else DISARMED
        self.jobs[name] = {
            "jobId": name,
            "status": status,
            "description": f"firmware for {name}",
            "isConcurrent": False,
            "jobProcessDetails": {f"numberOf{key}Things": value for key, value in counts.items()},
            "abortConfig": {"criteriaList": [{"minNumberOfExecutedThings": least}]},
        }

    def release(self, manifest: Manifest) -> None:
        self.objects[manifest_key("stable")] = manifest.text().encode()

    def order(self, control: Control) -> None:
        self.objects[control_key("stable")] = json.dumps(encode(control)).encode()

    def control(self) -> Control:
        return decode_text(Control, self.objects.get(control_key("stable"), b'{"schema": 1}'))

    def etag(self, key: str) -> str | None:
        return f'"{hashlib.md5(self.objects[key]).hexdigest()}"' if key in self.objects else None

    def live(self) -> set[str]:
        return {name for name, job in self.jobs.items() if job["status"] == "IN_PROGRESS"}


def error(code: str, operation: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Client:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud


class S3(Client):
    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        self.cloud.allow("GetObject")
        assert Bucket == STACK.bucket
        if Key not in self.cloud.objects:
            raise error("NoSuchKey", "GetObject")
        body = self.cloud.objects[Key]
        return {
            "Body": io.BytesIO(body),
            "ETag": self.cloud.etag(Key),
            "LastModified": datetime.fromtimestamp(NOW - 30, UTC),
        }

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentType: str,
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> dict[str, Any]:
        self.cloud.allow("PutObject")
        self.cloud.puts += 1
        self.cloud.meanwhile()
        assert (IfMatch is None) != (IfNoneMatch is None), (
            "a write without a condition loses somebody's word"
        )
        assert IfNoneMatch in (None, "*")
        if self.cloud.etag(Key) != IfMatch:
            raise error("PreconditionFailed", "PutObject")
        self.cloud.objects[Key] = Body
        return {}


class Kms(Client):
    def sign(
        self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str
    ) -> dict[str, Any]:
        return {
            "Signature": self.cloud.key.sign(Message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        }

    def verify(
        self,
        *,
        KeyId: str,
        Message: bytes,
        MessageType: str,
        SigningAlgorithm: str,
        Signature: bytes,
    ) -> dict[str, Any]:
        self.cloud.allow("Verify")
        assert (KeyId, MessageType, SigningAlgorithm) == (
            STACK.signing_keys[0],
            "DIGEST",
            "ECDSA_SHA_256",
        )
        try:
            self.cloud.key.public_key().verify(
                Signature, Message, ec.ECDSA(utils.Prehashed(hashes.SHA256()))
            )
        except InvalidSignature:
            raise error("KMSInvalidSignatureException", "Verify") from None
        return {"SignatureValid": True}


class Iot(Client):
    def list_jobs(
        self, *, maxResults: int, status: str | None = None, nextToken: str | None = None
    ) -> dict[str, Any]:
        """One job a page, so that a command that forgets the next page is found out."""
        self.cloud.allow("ListJobs")
        known = sorted(
            name for name, job in self.cloud.jobs.items() if status in (None, job["status"])
        )
        at = int(nextToken or 0)
        more = {"nextToken": str(at + 1)} if at + 1 < len(known) else {}
        return {"jobs": [{"jobId": name} for name in known[at : at + 1]], **more}

    def describe_job(self, *, jobId: str) -> dict[str, Any]:
        self.cloud.allow("DescribeJob")
        if jobId not in self.cloud.jobs:
            raise error("ResourceNotFoundException", "DescribeJob")
        return {"job": self.cloud.jobs[jobId]}

    def cancel_job(self, *, jobId: str, reasonCode: str, comment: str) -> dict[str, Any]:
        self.cloud.allow("CancelJob")
        assert reasonCode == "OPERATOR_HALT"
        assert comment.isprintable()
        if self.cloud.jobs[jobId]["status"] != "IN_PROGRESS":
            raise error("InvalidStateTransitionException", "CancelJob")
        self.cloud.jobs[jobId] |= {
            "status": "CANCELED",
            "reasonCode": reasonCode,
            "comment": comment,
        }
        return {}

    def list_job_executions_for_job(
        self, *, jobId: str, status: str, maxResults: int
    ) -> dict[str, Any]:
        assert 1 <= maxResults <= 250
        things = self.cloud.executions.get((jobId, status), [])
        return {
            "executionSummaries": [
                {
                    "thingArn": f"arn:aws:iot:eu-west-1:1:thing/{thing}",
                    "jobExecutionSummary": {"executionNumber": 1},
                }
                for thing in things[:maxResults]
            ]
        }

    def list_job_executions_for_thing(self, *, thingName: str, maxResults: int) -> dict[str, Any]:
        at = datetime.fromtimestamp(NOW - 90, UTC)
        return {
            "executionSummaries": [
                {
                    "jobId": job,
                    "jobExecutionSummary": {
                        "status": status,
                        "executionNumber": 1,
                        "queuedAt": at,
                        "lastUpdatedAt": at,
                    },
                }
                for (job, status), things in self.cloud.executions.items()
                if thingName in things
            ]
        }

    def describe_job_execution(
        self, *, jobId: str, thingName: str, executionNumber: int
    ) -> dict[str, Any]:
        self.cloud.allow("DescribeJobExecution")
        self.cloud.described += 1
        details = self.cloud.details.get((jobId, thingName))
        return {"execution": {"statusDetails": {"detailsMap": details}} if details else {}}

    def list_thing_groups_for_thing(self, *, thingName: str, maxResults: int) -> dict[str, Any]:
        if thingName not in self.cloud.groups:
            raise error("ResourceNotFoundException", "ListThingGroupsForThing")
        return {"thingGroups": [{"groupName": group} for group in self.cloud.groups[thingName]]}


class IotData(Client):
    def get_thing_shadow(self, *, thingName: str) -> dict[str, Any]:
        if thingName not in self.cloud.shadows:
            raise error("ResourceNotFoundException", "GetThingShadow")
        return {"payload": io.BytesIO(json.dumps(self.cloud.shadows[thingName]).encode())}


class CloudWatch(Client):
    def describe_alarms(
        self, *, AlarmNames: list[str], AlarmTypes: list[str], MaxRecords: int
    ) -> dict[str, Any]:
        at = datetime.fromtimestamp(NOW - 300, UTC)
        found = [name for name in AlarmNames if name in self.cloud.alarms]
        alarms = [
            {"AlarmName": n, "StateValue": self.cloud.alarms[n], "StateUpdatedTimestamp": at}
            for n in found
        ]
        return {"MetricAlarms": alarms[:1], "CompositeAlarms": alarms[1:]}

    def get_metric_statistics(
        self,
        *,
        Namespace: str,
        MetricName: str,
        StartTime: int,
        EndTime: int,
        Period: int,
        Statistics: list[str],
        Dimensions: list[dict[str, str]],
    ) -> dict[str, Any]:
        assert (Namespace, MetricName, Statistics) == ("IotOta", "Heartbeat", ["Sum"])
        assert [one["Value"] for one in Dimensions] == ["0123abcd", "stable"]
        beats = [self.cloud.heartbeat] if self.cloud.heartbeat else []
        return {
            "Datapoints": [
                {"Timestamp": datetime.fromtimestamp(at, UTC)}
                for at in beats
                if StartTime <= at < EndTime
            ]
        }


class Sts(Client):
    def get_caller_identity(self) -> dict[str, str]:
        return {
            "Account": self.cloud.account,
            "Arn": f"arn:aws:iam::{self.cloud.account}:user/olga",
        }
