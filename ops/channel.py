"""A channel as the operator reaches it: its orders, the controller's memory, its jobs, alarms and
devices."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from ops.errors import OpsError, code
from ops.source import Connect, Stack
from ops.words import clean
from rollout.codec import DecodeError, decode_text, encode
from rollout.observed import LIVE, OPERATOR_HALT, Alarm, Job
from rollout.release import Manifest, control_key, manifest_key, sha256, state_key
from rollout.state import Control, State
from rollout.trust import Distrusted, believed, check_age

ATTEMPTS = 5
"""How often an order is written again over somebody else's who was faster."""
PAGE = 250
ALARMS_A_CALL = 100
HEARTBEAT_SECONDS = 3600
"""How far back the controller's last run is looked for."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """control.json and its ETag. With a `problem` it is unreadable, which the controller takes for
    a halt."""

    control: Control
    etag: str | None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """state.json as far as it can be believed, and when it last changed (seconds since 1970)."""

    state: State | None
    distrusted: Distrusted | None = None
    changed_at: float | None = None


class Channel:
    def __init__(self, stack: Stack, connect: Connect) -> None:
        self.stack, self.names = stack, stack.names
        self.client = functools.cache(connect)

    # What lies in the bucket

    def manifest(self) -> tuple[Manifest | None, str | None]:
        """What the stack file released last, or None and why."""
        found = self._object(manifest_key(self.stack.channel))
        if found is None:
            return None, "there is no manifest yet"
        try:
            return Manifest.parse(found[0]), None
        except DecodeError as error:
            return None, str(error)

    def orders(self) -> Orders:
        found = self._object(control_key(self.stack.channel))
        if found is None:
            return Orders(control=Control(), etag=None)
        body, etag, _ = found
        try:
            return Orders(control=decode_text(Control, body), etag=etag)
        except DecodeError as error:
            return Orders(control=Control(), etag=etag, problem=clean(str(error)))

    def change(
        self, change: Callable[[Control], Control], *, replace_unreadable: bool = False
    ) -> Control:
        """Applies the change to control.json, again where somebody else changed it meanwhile;
        raises OpsError in the end."""
        for _ in range(ATTEMPTS):
            orders = self.orders()
            if orders.problem and not replace_unreadable:
                raise OpsError(unreadable(self.stack, orders.problem))
            control = change(orders.control)
            if control == orders.control and not orders.problem:
                return control
            if self._write(control, orders.etag):
                return control
        raise OpsError(
            f"control.json was changed by others {ATTEMPTS} times while this was to be written: try"
            " again"
        )

    def _write(self, control: Control, etag: str | None) -> bool:
        text = json.dumps(encode(control), indent=1)
        decode_text(Control, text)
        try:
            self.client("s3").put_object(
                Bucket=self.stack.bucket,
                Key=control_key(self.stack.channel),
                Body=text.encode(),
                ContentType="application/json",
                **({"IfMatch": etag} if etag else {"IfNoneMatch": "*"}),
            )
        except ClientError as error:
            if code(error) in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
                "NoSuchKey",
                "412",
                "409",
            ):
                return False
            raise
        return True

    def memory(self, live: Sequence[str]) -> Memory:
        """The controller's memory, measured against the live jobs, which must have been read before
        it."""
        found = self._object(state_key(self.stack.channel))
        changed_at = found[2] if found else None
        try:
            state = believed(found[0], self.stack.signing_keys, self._verified) if found else None
            check_age(state, self._sequences(live if state else self._jobs()))
        except Distrusted as distrusted:
            return Memory(state=None, distrusted=distrusted, changed_at=changed_at)
        return Memory(state=state, changed_at=changed_at)

    def _verified(self, key: str, signed: str, der_signature: bytes) -> bool:
        try:
            self.client("kms").verify(
                KeyId=key,
                Message=bytes.fromhex(sha256(signed)),
                MessageType="DIGEST",
                SigningAlgorithm="ECDSA_SHA_256",
                Signature=der_signature,
            )
        except ClientError as error:
            if code(error) != "KMSInvalidSignatureException":
                raise
            return False
        return True

    def _object(self, key: str) -> tuple[bytes, str, float] | None:
        """An object's bytes, ETag and time; None where there is none."""
        try:
            answer = self.client("s3").get_object(Bucket=self.stack.bucket, Key=key)
        except ClientError as error:
            if code(error) in ("NoSuchKey", "404"):
                return None
            raise
        return answer["Body"].read(), answer["ETag"], answer["LastModified"].timestamp()

    # Jobs

    def live_jobs(self) -> list[str]:
        """The ids of the channel's jobs that are not over, the newest offer first."""
        found = [name for status in sorted(LIVE) for name in self._jobs(status=status)]
        return sorted(found, key=lambda name: (-(self.names.sequence(name) or 0), name))

    def _jobs(self, **only: str) -> Iterator[str]:
        jobs = self.pages(self.client("iot").list_jobs, "jobs", maxResults=PAGE, **only)
        return (item["jobId"] for item in jobs if self.names.sequence(item["jobId"]) is not None)

    def _sequences(self, jobs: Iterable[str]) -> list[int]:
        return [self.names.sequence(name) or 0 for name in jobs]

    def describe(self, name: str) -> dict[str, Any] | None:
        """DescribeJob's `job`; None where there is none."""
        try:
            job: dict[str, Any] = self.client("iot").describe_job(jobId=name)["job"]
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return None
            raise
        return job

    def jobs(self, names: Iterable[str]) -> dict[str, Job]:
        """The jobs of these ids that exist."""
        return {name: Job.of(job) for name in dict.fromkeys(names) if (job := self.describe(name))}

    def cancel(self, name: str, why: str) -> bool:
        """CancelJob, not forced: what a device has begun goes on. False when the job had ended
        already."""
        try:
            self.client("iot").cancel_job(jobId=name, reasonCode=OPERATOR_HALT, comment=why)
        except ClientError as error:
            if code(error) in (
                "InvalidRequestException",
                "ResourceNotFoundException",
                "InvalidStateTransitionException",
            ):
                return False
            raise
        return True

    def executions(self, job: str, status: str, limit: int) -> list[tuple[str, int]]:
        """Things, with the number of the execution, that are in this status of the job: at most
        `limit` (1 to 250) of them."""
        try:
            answer = self.client("iot").list_job_executions_for_job(
                jobId=job, status=status, maxResults=limit
            )
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return []
            raise
        found = answer["executionSummaries"][:limit]
        return [
            (item["thingArn"].rsplit("/", 1)[1], item["jobExecutionSummary"]["executionNumber"])
            for item in found
        ]

    def details(self, job: str, thing: str, number: int) -> dict[str, str]:
        """The statusDetails that the device gave; empty where it gave none."""
        try:
            answer = self.client("iot").describe_job_execution(
                jobId=job, thingName=thing, executionNumber=number
            )
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return {}
            raise
        found = (answer["execution"].get("statusDetails") or {}).get("detailsMap") or {}
        return {key: clean(str(value)) for key, value in found.items()}

    # Alarms, the controller's pulse, the caller

    def alarms(self, names: Iterable[str]) -> dict[str, Alarm]:
        """By full name: the CloudWatch alarms that exist."""
        wanted, found = sorted(set(names)), dict[str, Alarm]()
        for start in range(0, len(wanted), ALARMS_A_CALL):
            answer = self.client("cloudwatch").describe_alarms(
                AlarmNames=wanted[start : start + ALARMS_A_CALL],
                AlarmTypes=["MetricAlarm", "CompositeAlarm"],
                MaxRecords=ALARMS_A_CALL,
            )
            for alarm in [*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])]:
                at = alarm.get("StateTransitionedTimestamp") or alarm["StateUpdatedTimestamp"]
                found[alarm["AlarmName"]] = Alarm(state=alarm["StateValue"], since=at.timestamp())
        return found

    def heartbeat(self, now: float) -> float | None:
        """The minute of the controller's last run (seconds since 1970), if it ran in the last hour:
        its own metric."""
        answer = self.client("cloudwatch").get_metric_statistics(
            Namespace="IotOta",
            MetricName="Heartbeat",
            StartTime=int(now) - HEARTBEAT_SECONDS,
            EndTime=int(now) + 60,
            Period=60,
            Statistics=["Sum"],
            Dimensions=[
                {"Name": "Suffix", "Value": self.stack.suffix},
                {"Name": "Channel", "Value": self.stack.channel},
            ],
        )
        return max((point["Timestamp"].timestamp() for point in answer["Datapoints"]), default=None)

    def caller(self) -> str:
        """The caller's ARN. Raises OpsError when the credentials are another account's than the
        stack's."""
        answer = self.client("sts").get_caller_identity()
        account = self.stack.signing_keys[0].split(":")[4]
        if answer["Account"] != account:
            raise OpsError(
                f"you are signed in to account {answer['Account']}, the stack is in {account}:"
                " check AWS_PROFILE"
            )
        return str(answer["Arn"])

    def pages(self, call: Any, key: str, **parameters: Any) -> Iterator[Any]:
        token = None
        while True:
            answer = call(**parameters, **({"nextToken": token} if token else {}))
            yield from answer.get(key, [])
            token = answer.get("nextToken")
            if not token:
                return


def unreadable(stack: Stack, problem: str) -> str:
    return (
        f"control.json is unreadable ({problem}), which the controller takes for a halt; it was"
        f" left as it is. `{stack.command('resume --replace')}` writes a new one in its place (the"
        " bucket keeps the old version)"
    )
