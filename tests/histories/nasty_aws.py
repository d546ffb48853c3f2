"""AWS as its pages and models describe it, at its worst: who calls, what may go wrong around a
call, and the services beside IoT.

Every request is checked against botocore's own service models. A `Line` is what one run of the
controller holds: through its `fault` a test makes a call fail, lose its answer, kill the run, or
lets something else happen first.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.paginate import Paginator as BotocorePaginator
from botocore.response import StreamingBody
from botocore.validate import ParamValidator
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

KEYS = {
    arn: ec.generate_private_key(ec.SECP256R1())
    for arn in (
        "arn:aws:kms:us-east-1:123456789012:key/1",
        "arn:aws:kms:us-east-1:123456789012:key/2",
    )
}
"""Signing keys by ARN; made once, a key is what costs time."""
DENIED = {"s3": "AccessDenied", "cloudwatch": "AccessDenied"}
"""Error code of a refused call by service; AccessDeniedException in all others."""

SENT: set[str] = set()
"""Calls that botocore would send, as text."""
MOST_SENT, LONGEST_SENT = 20_000, 5_000

CallEffect = Callable[[], Any]


class Killed(BaseException):
    """The run is at its end in the middle: time-out, crash, lost network. No `except Exception`
    may hear of it."""


@dataclass(frozen=True, kw_only=True)
class AwsCall:
    """One call that a run made."""

    line: Line
    number: int
    service: str
    operation: str
    parameters: dict[str, Any]


def said_no(code: str, operation: str, message: str = "made by the test") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def denial(call: AwsCall) -> ClientError:
    code = DENIED.get(call.service, "AccessDeniedException")
    return said_no(code, call.operation, "not authorized")


def no_harm(_call: AwsCall, effect: CallEffect) -> Any:
    return effect()


@dataclass(eq=False)
class Line:
    """The connection of one run of the controller."""

    aws: NastyAws
    fault: Callable[[AwsCall, CallEffect], Any] = no_harm
    calls: list[AwsCall] = field(default_factory=list)
    was_killed: bool = False
    was_harmed: bool = False
    """Whether AWS refused a call: what such a run raises is not held against it."""
    was_overtaken: bool = False
    """Whether something else happened in its midst."""

    def connect(self, service: str) -> ServiceClient:
        return ServiceClient(self, service)

    def perform(self, service: str, operation: str, parameters: dict[str, Any]) -> Any:
        with self.aws.turn(self):
            if self.was_killed:
                raise Killed
            call = AwsCall(
                line=self,
                number=len(self.calls),
                service=service,
                operation=operation,
                parameters=parameters,
            )
            self.calls.append(call)
            check_request(service, operation, parameters)
            if operation in self.aws.denied:
                self.was_harmed = True
                raise denial(call)
            try:
                return self.fault(call, lambda: self.aws.answer(call))
            except Killed:
                self.was_killed = True
                raise


class ServiceClient:
    """What boto3 would give: methods by their snake case names, and botocore's own paginators."""

    def __init__(self, line: Line, service: str) -> None:
        self._line, self._service = line, service

    def __getattr__(self, method: str) -> Callable[..., Any]:
        operation = methods(self._service).get(method)
        if operation is None:
            raise AttributeError(f"{self._service} has no {method}")
        return lambda **parameters: self._line.perform(self._service, operation, parameters)

    def get_paginator(self, method: str) -> Any:
        operation = methods(self._service)[method]
        return BotocorePaginator(
            getattr(self, method),
            paginators(self._service)[operation],
            model(self._service).operation_model(operation),
        )


@cache
def model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


@cache
def methods(service: str) -> dict[str, str]:
    return {xform_name(name): name for name in model(service).operation_names}


@cache
def paginators(service: str) -> Any:
    loader = botocore.session.get_session().get_component("data_loader")
    return loader.load_service_model(service, "paginators-1")["pagination"]


def check_request(service: str, operation: str, parameters: dict[str, Any]) -> None:
    """Raises AssertionError where botocore would not send it. What it would send is remembered: a
    history makes the same calls again and again."""
    told = f"{service} {operation} {parameters}"
    if told in SENT:
        return
    validate(service, operation, parameters)
    if len(told) < LONGEST_SENT:
        if len(SENT) == MOST_SENT:
            SENT.clear()
        SENT.add(told)


def validate(service: str, operation: str, parameters: dict[str, Any]) -> None:
    shape = model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), f"{operation}: {report.generate_report()}"


@dataclass(frozen=True, kw_only=True)
class ObjectVersion:
    """One version of an object in a versioned bucket; `body` None is a delete marker."""

    id: str
    body: bytes | None
    at: float

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.body or b"", usedforsecurity=False).hexdigest()}"'


class NastyAws:
    """S3, KMS and CloudWatch of one account; IoT is built on it."""

    def __init__(self, *, bucket: str, now: float, seed: int) -> None:
        self.bucket, self.now = bucket, now
        self.random = random.Random(seed)
        self.keys = list(KEYS)[:1]
        self.objects: dict[str, list[ObjectVersion]] = {}
        """By key: its versions, the newest last."""
        self.alarms: dict[str, tuple[str, float]] = {}
        """By name: state and since when."""
        self.metrics: dict[tuple[str, str | None], float] = {}
        """The newest value of each metric, by name and ring."""
        self.rung: set[str] = set()
        """Names of the metrics that were ever above nothing; an alarm rings from one such value."""
        self.denied: set[str] = set()
        self.versions = 0
        self.turns: Turns | None = None
        self._lock = threading.RLock()

    def turn(self, line: Line) -> Any:
        """Whose call it is, where two runs go on at once."""
        return self.turns.of(line) if self.turns else nullcontext()

    def answer(self, call: AwsCall) -> Any:
        effect = getattr(self, f"do_{xform_name(call.operation)}", None)
        assert effect is not None, f"the project makes a call that nobody described: {call}"
        with self._lock:  # a run may make calls in several threads
            return effect(**call.parameters)

    # S3

    def put(self, key: str, body: bytes | None) -> str:
        """Somebody writes an object, or deletes it (None); the id of the new version."""
        self.versions += 1
        version = ObjectVersion(id=f"v{self.versions:07}", body=body, at=self.now)
        self.objects.setdefault(key, []).append(version)
        return version.id

    def get(self, key: str, version: str | None = None) -> ObjectVersion | None:
        found = self.objects.get(key, [])
        if version is not None:
            return next((one for one in found if one.id == version and one.body is not None), None)
        return found[-1] if found and found[-1].body is not None else None

    def body(self, key: str) -> bytes | None:
        found = self.get(key)
        return found.body if found else None

    def do_get_object(self, *, Bucket: str, Key: str, VersionId: str | None = None) -> Any:
        found = self._found("GetObject", Bucket, Key, VersionId)
        body = found.body or b""
        return {
            "Body": StreamingBody(io.BytesIO(body), len(body)),
            "ContentLength": len(body),
            "ETag": found.etag,
            "VersionId": found.id,
            "LastModified": moment_of(found.at),
        }

    def do_head_object(
        self, *, Bucket: str, Key: str, ChecksumMode: str = "", VersionId: str | None = None
    ) -> Any:
        found = self._found("HeadObject", Bucket, Key, VersionId)
        answer = {
            "ContentLength": len(found.body or b""),
            "ETag": found.etag,
            "VersionId": found.id,
            "LastModified": moment_of(found.at),
        }
        if ChecksumMode == "ENABLED":
            digest = hashlib.sha256(found.body or b"").digest()
            answer |= {
                "ChecksumSHA256": base64.b64encode(digest).decode(),
                "ChecksumType": "FULL_OBJECT",
            }
        return answer

    def _found(self, operation: str, bucket: str, key: str, version: str | None) -> ObjectVersion:
        assert bucket == self.bucket
        found = self.get(key, version)
        if found is None and any(one.id == version for one in self.objects.get(key, [])):
            raise said_no("MethodNotAllowed" if operation == "GetObject" else "405", operation)
        if found is None:
            missing = "NoSuchVersion" if version else "NoSuchKey"
            raise said_no("404" if operation == "HeadObject" else missing, operation)
        return found

    def do_put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentType: str = "",
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
        **_more: Any,
    ) -> Any:
        assert (IfMatch is None) != (IfNoneMatch is None), "a write without a condition loses words"
        found = self.get(Key)
        if IfMatch is not None and found is None:
            raise said_no("NoSuchKey", "PutObject")
        if (found.etag if found else None) != IfMatch:
            raise said_no("PreconditionFailed", "PutObject")
        version = self.put(Key, Body)
        written = self.get(Key)
        assert written is not None
        return {"ETag": written.etag, "VersionId": version}

    def do_delete_object(self, *, Bucket: str, Key: str, **_more: Any) -> Any:
        return {"DeleteMarker": True, "VersionId": self.put(Key, None)}

    def do_list_object_versions(
        self, *, Bucket: str, Prefix: str = "", MaxKeys: int = 1000, **more: Any
    ) -> Any:
        """Newest first within a key, as S3 lists them; MaxKeys counts delete markers, too."""
        found = [
            (key, one, one is versions[-1])
            for key, versions in sorted(self.objects.items())
            if key.startswith(Prefix)
            for one in reversed(versions)
        ]
        after = (more.get("KeyMarker"), more.get("VersionIdMarker"))
        places = [n for n, (key, one, _) in enumerate(found) if (key, one.id) == after]
        start = places[0] + 1 if places else 0
        page, rest = found[start : start + MaxKeys], found[start + MaxKeys :]
        answer: dict[str, Any] = {"IsTruncated": bool(rest), "Versions": [], "DeleteMarkers": []}
        for key, one, is_latest in page:
            kind = "DeleteMarkers" if one.body is None else "Versions"
            shown = {
                "Key": key,
                "VersionId": one.id,
                "IsLatest": is_latest,
                "LastModified": moment_of(int(one.at)),  # listings have whole seconds
            }
            answer[kind].append(shown | ({} if one.body is None else {"ETag": one.etag}))
        if rest:
            answer |= {"NextKeyMarker": page[-1][0], "NextVersionIdMarker": page[-1][1].id}
        return {key: value for key, value in answer.items() if value or key == "IsTruncated"}

    def do_list_objects_v2(self, *, Bucket: str, Prefix: str = "", **_more: Any) -> Any:
        found = [key for key in sorted(self.objects) if key.startswith(Prefix) and self.get(key)]
        return {"Contents": [{"Key": key} for key in found], "IsTruncated": False}

    # KMS

    def do_sign(self, *, KeyId: str, Message: bytes, **_how: Any) -> Any:
        assert KeyId == self.keys[0]
        return {"Signature": KEYS[KeyId].sign(Message, ec.ECDSA(Prehashed(hashes.SHA256())))}

    def do_verify(self, *, KeyId: str, Message: bytes, Signature: bytes, **_how: Any) -> Any:
        if KeyId not in KEYS:
            raise said_no("NotFoundException", "Verify")
        try:
            digest = ec.ECDSA(Prehashed(hashes.SHA256()))
            KEYS[KeyId].public_key().verify(Signature, Message, digest)
        except InvalidSignature as error:
            raise said_no("KMSInvalidSignatureException", "Verify") from error
        return {"SignatureValid": True}

    # CloudWatch

    def do_put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> Any:
        assert len(MetricData) <= 1000
        for datum in MetricData:
            dimensions = {one["Name"]: one["Value"] for one in datum["Dimensions"]}
            self.metrics[datum["MetricName"], dimensions.get("Ring")] = float(datum["Value"])
            if datum["Value"]:
                self.rung.add(str(datum["MetricName"]))
        return {}

    def metric(self, name: str) -> float:
        """The newest value of one of the channel's own metrics."""
        return self.metrics.get((name, None), 0.0)

    def do_describe_alarms(self, *, AlarmNames: list[str], **_which: Any) -> Any:
        found = [
            {
                "AlarmName": name,
                "StateValue": self.alarms[name][0],
                "StateUpdatedTimestamp": moment_of(self.alarms[name][1]),
                "StateTransitionedTimestamp": moment_of(self.alarms[name][1]),
            }
            for name in AlarmNames
            if name in self.alarms
        ]
        return {"MetricAlarms": found[::2], "CompositeAlarms": found[1::2]}


def moment_of(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Turns:
    """Two runs at once, a call at a time: whose call is next is drawn, so that each seed is one
    interleaving and always the same one."""

    def __init__(self, lines: list[Line], seed: int) -> None:
        self._random, self._lines = random.Random(seed), list(lines)
        self._next = self._random.choice(self._lines)
        self._condition = threading.Condition(threading.RLock())

    def of(self, line: Line) -> Any:
        return _Turn(self, line)

    def take(self, line: Line) -> None:
        self._condition.acquire()
        self._condition.wait_for(lambda: self._next is line or line not in self._lines, timeout=60)

    def give(self, *, ended: Line | None = None) -> None:
        if ended is not None:
            self._condition.acquire()
            self._lines.remove(ended)
        if self._lines:
            self._next = self._random.choice(self._lines)
        self._condition.notify_all()
        self._condition.release()


@dataclass(frozen=True)
class _Turn:
    turns: Turns
    line: Line

    def __enter__(self) -> None:
        self.turns.take(self.line)

    def __exit__(self, *_error: object) -> None:
        self.turns.give()
