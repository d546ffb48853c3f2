"""The calls to AWS that the project makes, answered from memory; strict: a call or a parameter that
it does not know is an error, and a write without a condition, too.

Every call passes through `calls`, where a test can make it fail, lose its answer, or let something
happen first. What IoT answers is left to the fakes that are built on this one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from cloud.channel import Channel
from cloud.clients import Clients
from rollout.codec import decode_text, encode
from rollout.names import METRIC_NAMESPACE, Names
from rollout.observed import Alarm
from rollout.orders import Orders
from rollout.release import Firmware, Manifest
from rollout.state import State

Effect = Callable[[], Any]


def refusal(code: str, operation: str, message: str = "made to fail") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def no_fault(_number: int, _name: str, effect: Effect) -> Any:
    return effect()


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class FakeAws:
    """All services of one account in one object. `fault(number, name, effect)` stands around the
    effect of every call; `denied` are operations, by their API's names, that AWS refuses."""

    def __init__(self, names: Names, keys: list[str], *, now: float) -> None:
        self.names, self.keys, self.now = names, keys, now
        self.bucket = names.bucket
        self.private_keys = {key: ec.generate_private_key(ec.SECP256R1()) for key in keys}
        self.objects: dict[str, bytes] = {}
        self.alarms: dict[str, Alarm] = {}
        self.heartbeat: float | None = None
        self.metrics: list[dict[str, Any]] = []
        self.account = keys[0].split(":")[4]
        self.made: list[str] = []
        """Names of the calls, in order."""
        self.denied: set[str] = set()
        self.fault: Callable[[int, str, Effect], Any] = no_fault

    def connect(self, _service: str) -> Any:
        return self

    def channel(self) -> Channel:
        """The channel as the project reads it."""
        clients = Clients(self.connect)
        return Channel(clients, self.names, bucket=self.bucket, signing_keys=self.keys)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith(("__", "do_")):  # copy asks
            raise AttributeError(name)
        effect = getattr(type(self), f"do_{name}", None)
        if effect is None:
            raise AssertionError(f"a call to AWS that nobody here has a right to: {name}")
        operation = "".join(word.title() for word in name.split("_"))

        def call(**parameters: Any) -> Any:
            self.made.append(name)
            if operation in self.denied:
                raise refusal("AccessDenied", operation, f"not authorized to perform {operation}")
            return self.fault(len(self.made) - 1, name, lambda: effect(self, **parameters))

        return call

    def get_paginator(self, name: str) -> Paginator:
        return Paginator(getattr(self, name))

    # What others put there

    def publish(self, manifest: Manifest) -> None:
        """What `pulumi up` does: artifact and manifest in the bucket."""
        self.objects[self.names.keys.manifest] = manifest.text().encode()
        self.put_image(manifest.firmware)

    def put_image(self, firmware: Firmware) -> None:
        """An image whose digest is that of its version's text."""
        self.objects[firmware.key] = str(firmware.version).encode()

    def write_state(self, state: State) -> None:
        """Writes state.json as the controller does."""
        there = self.objects.get(self.names.keys.state)
        self.channel().write_state(state, etag(there) if there else None)

    def order(self, orders: Orders) -> None:
        self.objects[self.names.keys.orders] = json.dumps(encode(orders)).encode()

    def orders(self) -> Orders:
        return decode_text(Orders, self.objects.get(self.names.keys.orders, b"{}"))

    # S3

    def do_get_object(self, *, Bucket: str, Key: str) -> Any:
        assert Bucket == self.bucket
        if Key not in self.objects:
            raise refusal("NoSuchKey", "GetObject")
        body = self.objects[Key]
        return {"Body": io.BytesIO(body), "ETag": etag(body), "LastModified": moment(self.now - 30)}

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
        assert (Bucket, ContentType) == (self.bucket, "application/json")
        assert Key in (self.names.keys.state, self.names.keys.orders), f"nobody here writes {Key}"
        assert (IfMatch is None) != (IfNoneMatch is None), "a write without a condition loses words"
        assert IfNoneMatch in (None, "*")
        there = self.objects.get(Key)
        if (etag(there) if there is not None else None) != IfMatch:
            raise refusal("PreconditionFailed", "PutObject")
        self.objects[Key] = Body
        return {"ETag": etag(Body)}

    def do_head_object(self, *, Bucket: str, Key: str, ChecksumMode: str) -> Any:
        if Key not in self.objects:
            raise refusal("404", "HeadObject")
        digest = hashlib.sha256(self.objects[Key]).digest()
        return {
            "ContentLength": 1000,
            "ChecksumSHA256": base64.b64encode(digest).decode(),
            "ChecksumType": "FULL_OBJECT",
        }

    # KMS

    def do_sign(
        self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str
    ) -> Any:
        assert (KeyId, MessageType, SigningAlgorithm) == (self.keys[0], "DIGEST", "ECDSA_SHA_256")
        return {
            "Signature": self.private_keys[KeyId].sign(
                Message, ec.ECDSA(Prehashed(hashes.SHA256()))
            )
        }

    def do_verify(
        self,
        *,
        KeyId: str,
        Message: bytes,
        MessageType: str,
        SigningAlgorithm: str,
        Signature: bytes,
    ) -> Any:
        assert (MessageType, SigningAlgorithm) == ("DIGEST", "ECDSA_SHA_256")
        public = self.private_keys[KeyId].public_key()
        try:
            public.verify(Signature, Message, ec.ECDSA(Prehashed(hashes.SHA256())))
        except InvalidSignature as error:
            raise refusal("KMSInvalidSignatureException", "Verify") from error
        return {"SignatureValid": True}

    # CloudWatch

    def do_put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> Any:
        assert Namespace == METRIC_NAMESPACE
        self.metrics = MetricData
        return {}

    def do_describe_alarms(
        self, *, AlarmNames: list[str], AlarmTypes: list[str], MaxRecords: int
    ) -> Any:
        """Every other one as a composite alarm, of which CloudWatch says less."""
        found = [
            {
                "AlarmName": name,
                "StateValue": self.alarms[name].state,
                "StateUpdatedTimestamp": moment(self.alarms[name].since),
            }
            for name in AlarmNames
            if name in self.alarms
        ]
        return {"MetricAlarms": found[::2], "CompositeAlarms": found[1::2]}

    def do_get_metric_statistics(
        self,
        *,
        Namespace: str,
        MetricName: str,
        StartTime: int,
        EndTime: int,
        Period: int,
        Statistics: list[str],
        Dimensions: list[dict[str, str]],
    ) -> Any:
        assert (Namespace, MetricName, Statistics) == (METRIC_NAMESPACE, "Heartbeat", ["Sum"])
        assert [one["Value"] for one in Dimensions] == [self.names.suffix, self.names.channel]
        beats = [self.heartbeat] if self.heartbeat else []
        return {
            "Datapoints": [{"Timestamp": moment(at)} for at in beats if StartTime <= at < EndTime]
        }

    def metric(self, name: str) -> float:
        """The channel's metric of the controller's last run."""
        return float(next(d["Value"] for d in self.metrics if d["MetricName"] == name))

    # STS

    def do_get_caller_identity(self) -> Any:
        return {"Account": self.account, "Arn": f"arn:aws:iam::{self.account}:user/olga"}


class Paginator:
    """boto3's: page after page, each one call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def paginate(self, *, PaginationConfig: dict[str, int], **parameters: Any) -> Iterator[Any]:
        assert set(PaginationConfig) == {"PageSize"}
        size = PaginationConfig["PageSize"]
        assert 1 <= size <= 250
        token: dict[str, str] = {}
        while True:
            answer = self._call(maxResults=size, **parameters, **token)
            yield answer
            if "nextToken" not in answer:
                return
            token = {"nextToken": answer["nextToken"]}


def page(items: list[Any], key: str, next_token: str | None, size: int = 2) -> dict[str, Any]:
    """A page of two, so that who reads only the first page is found out."""
    start = int(next_token or 0)
    more = {"nextToken": str(start + size)} if start + size < len(items) else {}
    return {key: items[start : start + size], **more}
