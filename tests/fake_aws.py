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
from collections import UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.channel import Channel
from cloud.clients import Clients
from rollout.codec import decode_text, encode
from rollout.job_document import job_document
from rollout.jws import RELEASE_TYPE
from rollout.names import METRIC_NAMESPACE, Names
from rollout.observed import Alarm
from rollout.orders import Orders
from rollout.release import Firmware, Manifest
from rollout.state import State
from rollout.trust import Place

Effect = Callable[[], Any]
NEVER = datetime(2026, 1, 1, tzinfo=UTC)


def refusal(code: str, operation: str, message: str = "made to fail") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def no_fault(_number: int, _name: str, effect: Effect) -> Any:
    return effect()


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class VersionedObjects(UserDict[str, bytes]):
    """A bucket's objects by key; every write and delete is a version of its own, as in S3."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.versions: dict[str, list[tuple[str, bytes | None]]] = {}
        """By key, the oldest first: version id, and body; None for a delete marker."""

    def __setitem__(self, key: str, body: bytes) -> None:
        super().__setitem__(key, body)
        self._keep(key, body)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._keep(key, None)

    def _keep(self, key: str, body: bytes | None) -> None:
        self.number += 1
        self.versions.setdefault(key, []).append((f"v{self.number}", body))

    def lose(self, key: str) -> None:
        """The object and all its versions are gone, as if it had never been."""
        super().__delitem__(key)
        del self.versions[key]

    def version(self, key: str) -> str | None:
        """Of the current object, or delete marker."""
        return self.versions[key][-1][0] if self.versions.get(key) else None


class FakeAws:
    """All services of one account in one object. `fault(number, name, effect)` stands around the
    effect of every call; `denied` are operations, by their API's names, that AWS refuses."""

    def __init__(self, names: Names, keys: list[str], *, now: float) -> None:
        self.names, self.keys, self.now = names, keys, now
        self.bucket = names.bucket
        self.private_keys = {key: ec.generate_private_key(ec.SECP256R1()) for key in keys}
        self.image_key: str | None = None
        """What signs images, where one does."""
        self.objects = VersionedObjects()
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
        key = self.names.keys.state
        there, version = self.objects.get(key), self.objects.version(key)
        place = Place(etag=etag(there) if there else None, version=version)
        self.channel().write_state(state, place)

    def sign_document(self, job: str, /, **claims: Any) -> str:
        """The document of one of the channel's jobs, as the controller makes it."""
        parts = self.names.split_job(job)
        assert parts, f"{job} is no job of the channel"
        said = {
            "channel": self.names.channel,
            "sequence": parts[1],
            "job": job,
            "version": "1.0.0",
            "sha256": "0" * 64,
            "size": 1000,
            "hardware": "gateway-a1",
        }
        token = self.channel().signer.sign(RELEASE_TYPE, said | claims)
        return job_document(token, "https://b.s3.us-east-1.amazonaws.com/k")

    def order(self, orders: Orders) -> None:
        self.objects[self.names.keys.orders] = json.dumps(encode(orders)).encode()

    def orders(self) -> Orders:
        return decode_text(Orders, self.objects.get(self.names.keys.orders, b"{}"))

    # S3

    def do_get_object(self, *, Bucket: str, Key: str, VersionId: str | None = None) -> Any:
        assert Bucket == self.bucket
        body, version = self.objects.get(Key), self.objects.version(Key)
        if VersionId is not None:
            versions = dict(self.objects.versions.get(Key, ()))
            if VersionId not in versions:
                raise refusal("NoSuchVersion", "GetObject")
            body, version = versions[VersionId], VersionId
            if body is None:
                raise refusal("MethodNotAllowed", "GetObject", "a delete marker")
        if body is None:
            raise refusal("NoSuchKey", "GetObject")
        return {
            "Body": io.BytesIO(body),
            "ETag": etag(body),
            "LastModified": moment(self.now - 30),
            "VersionId": version,
        }

    def do_list_object_versions(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> Any:
        """In one second, so that who goes by time alone is found out."""
        assert Bucket == self.bucket
        found = [
            (body, {"Key": key, "VersionId": version, "IsLatest": one == 0, "LastModified": NEVER})
            for key in sorted(self.objects.versions)
            if key.startswith(Prefix)
            for one, (version, body) in enumerate(reversed(self.objects.versions[key]))
        ]
        answer: dict[str, list[Any]] = {}
        for body, item in found[:MaxKeys]:
            kind = "DeleteMarkers" if body is None else "Versions"
            answer.setdefault(kind, []).append(item)
        return answer

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
        kind = "application/gzip" if Key.endswith(".gz") else "application/json"
        assert (Bucket, ContentType) == (self.bucket, kind)
        keys = self.names.keys
        written = (keys.state, keys.orders, keys.preflight, keys.ring_moves)
        assert Key in written or Key.startswith(keys.ways_back), f"nobody here writes {Key}"
        assert (IfMatch is None) != (IfNoneMatch is None), "a write without a condition loses words"
        assert IfNoneMatch in (None, "*")
        there = self.objects.get(Key)
        if (etag(there) if there is not None else None) != IfMatch:
            raise refusal("PreconditionFailed", "PutObject")
        self.objects[Key] = Body
        return {"ETag": etag(Body), "VersionId": self.objects.version(Key)}

    def do_list_objects_v2(
        self, *, Bucket: str, Prefix: str, ContinuationToken: str | None = None
    ) -> Any:
        """A page of two, so that who reads only the first page is found out."""
        assert Bucket == self.bucket
        start = int(ContinuationToken or 0)
        found = sorted(key for key in self.objects if key.startswith(Prefix))[start:]
        more = {"NextContinuationToken": str(start + 2)} if len(found) > 2 else {}
        contents = [{"Key": key} for key in found[:2]]
        return {**({"Contents": contents} if contents else {}), **more}

    def do_head_object(
        self,
        *,
        Bucket: str,
        Key: str,
        ChecksumMode: str | None = None,
        VersionId: str | None = None,
    ) -> Any:
        versions = dict(self.objects.versions.get(Key, ()))
        version = VersionId or self.objects.version(Key)
        body = versions.get(version) if version else None
        if body is None:
            raise refusal("404", "HeadObject")
        answer = {"ContentLength": 1000, "ETag": etag(body), "VersionId": version}
        if ChecksumMode:
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            answer |= {"ChecksumSHA256": digest, "ChecksumType": "FULL_OBJECT"}
        return answer

    # KMS

    def do_sign(
        self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str
    ) -> Any:
        assert KeyId in (self.keys[0], self.image_key), f"{KeyId} signs nothing"
        assert (len(Message), MessageType, SigningAlgorithm) == (32, "DIGEST", "ECDSA_SHA_256")
        return {
            "Signature": self.private_keys[KeyId].sign(
                Message, ec.ECDSA(Prehashed(hashes.SHA256()))
            )
        }

    def do_get_public_key(self, *, KeyId: str) -> Any:
        public = self.private_keys[KeyId].public_key()
        return {"PublicKey": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}

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
