"""MiniStack with its doors closed: it listens on loopback only, and its MQTT demands a client
certificate, as AWS's does. And it presigns one version of an object in a job's document, issues a
certificate over MQTT for a key that a device made, and tells every device of a job that goes out in
batches.

By itself it offers MQTT on every interface, and a client without a certificate may do everything
there. A version in an address (`…/key%3FversionId%3D…`) it takes for a part of the key. Of
fleet provisioning's ways to a certificate it knows only the one where AWS makes the key. Of a
job's second batch it tells one device. The head and the body of an answer go out in two writes. It
has no setting for any of this, so this program, which `sandbox.ministack` runs in its place,
changes what it is told by the standard library, how it presigns, what it answers, whom it tells,
and how it writes.
"""

from __future__ import annotations

import json
import re
import secrets
import ssl
import time
from asyncio import BaseEventLoop, Server
from collections.abc import Mapping
from typing import Any

import h11
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol
from ministack.app import main
from ministack.core import sigv4
from ministack.services import iot

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
listen = BaseEventLoop.create_server


async def listen_on_loopback(
    loop: BaseEventLoop, protocol: Any, host: Any = None, *rest: Any, **options: Any
) -> Server:
    return await listen(loop, protocol, LOOPBACK if host == EVERYWHERE else host, *rest, **options)


IN_ADDRESS = "?versionId="
PRESIGNED_IN_KEY = re.compile(r"%3FversionId%3D([\w.-]+)\?")
canonical_request, presigned_document = sigv4.build_canonical_request, iot._jobs_presigned_document


def sign_version(
    method: str,
    path: str,
    headers: Mapping[str, Any],
    query: Mapping[str, Any],
    *rest: Any,
    **more: Any,
) -> str:
    """What is signed of an address: a version at the end of the key belongs to the query."""
    path, _, version = path.partition(IN_ADDRESS)
    query = {**query, "versionId": version} if version else query
    return str(canonical_request(method, path, headers, query, *rest, **more))


def move_versions(job: dict[str, Any]) -> str:
    """The job's document with presigned addresses, whose versions stand in the query."""
    return PRESIGNED_IN_KEY.sub(r"?versionId=\1&", str(presigned_document(job)))


CSR_TOPIC = "$aws/certificates/create-from-csr/json"
parse_topic, fleet_reply = iot._parse_fleet_provisioning_topic, iot._fleet_provisioning_reply


def parse_csr_topic(topic: str) -> tuple[str, str | None] | None:
    return (CSR_TOPIC, None) if topic == CSR_TOPIC else parse_topic(topic)


async def reply_to_csr(
    account: str, region: str, operation: str, template: str | None, payload: bytes, connection: Any
) -> tuple[str, dict[str, Any]]:
    """CreateCertificateFromCsr over MQTT: as CreateKeysAndCertificate there, for the device's own
    key."""
    if operation != CSR_TOPIC:
        answer: tuple[str, dict[str, Any]] = await fleet_reply(
            account, region, operation, template, payload, connection
        )
        return answer
    try:
        request = json.loads(payload)
    except ValueError:
        request = None
    csr = request.get("certificateSigningRequest") if isinstance(request, dict) else None
    if not isinstance(csr, str):
        return "rejected", refusal("InvalidPayload", "Message cannot be parsed")
    with iot.request_scope(account, region):
        status, _, body = iot._create_certificate_from_csr({"certificateSigningRequest": csr}, {})
        if status != 200:
            return "rejected", refusal(
                "InvalidCertificateSigningRequest", "CSR violates constraints"
            )
        made = json.loads(body)
        iot._certificates[made["certificateId"]]["status"] = "PENDING_ACTIVATION"
        token = secrets.token_urlsafe(48)
        iot._drop_expired(iot._ownership_tokens)
        iot._ownership_tokens[token] = {
            "certificateId": made["certificateId"],
            "expiration": time.time() + iot._OWNERSHIP_TOKEN_SECONDS,
        }
    return "accepted", {
        "certificateId": made["certificateId"],
        "certificatePem": made["certificatePem"],
        "certificateOwnershipToken": token,
    }


def refusal(code: str, message: str) -> dict[str, Any]:
    return {"statusCode": 400, "errorCode": code, "errorMessage": message}


release_next = iot._jobs_rollout_release


def release_batch(job: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The devices of a job's next batch, each with the job that was its next one before.

    Looking for that makes the executions of all who do not wait any more, and who has one is not
    told of it. So it is looked for while they wait.
    """
    waiting = job["rolloutQueue"]
    batch = waiting[: iot._jobs_rollout_batch_size(job, len(waiting))]
    fronts = {thing: iot.jobs_first_pending_job_id(thing) for thing in batch}
    known = {thing for thing in batch if (thing, job["jobId"]) in iot._job_executions}
    release_next(job)
    made = {thing for thing in batch if (thing, job["jobId"]) in iot._job_executions}
    return [(thing, fronts[thing]) for thing in batch if thing in made - known]


HEAD = "held_head"


async def send_in_one_write(protocol: H11Protocol, event: Any) -> None:
    """Writes the head of an answer with what follows it.

    A client in Go (the AWS provider is one) closes a connection, when many are open, as soon as it
    has read the head; finds the body missing; asks again, and hears that what it makes exists.
    """
    try:
        data = protocol.connection.send(event) or b""
    except h11.LocalProtocolError:
        if protocol.connection.their_state != h11.ERROR:
            raise
        return
    data = vars(protocol).pop(HEAD, b"") + data
    if isinstance(event, h11.Response):
        setattr(protocol, HEAD, data)
    else:
        await protocol.send(RawData(data=data))


if __name__ == "__main__":
    H11Protocol._send_h11_event = send_in_one_write  # type: ignore[assignment,method-assign]
    sigv4.build_canonical_request = sign_version
    iot._jobs_presigned_document = move_versions
    iot._parse_fleet_provisioning_topic = parse_csr_topic
    iot._fleet_provisioning_reply = reply_to_csr
    iot._jobs_rollout_release = release_batch
    BaseEventLoop.create_server = listen_on_loopback  # type: ignore[assignment,method-assign]
    ssl.CERT_OPTIONAL = ssl.CERT_REQUIRED  # type: ignore[misc]
    main()
