"""What the controller's modules share: where it works, its clients, and how AWS's answers are
read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

from rollout.document import rollback_group
from rollout.state import Names

RETRIES = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=20,
    max_pool_connections=16,
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where the controller works, from its environment."""

    bucket: str
    fleet_group: str
    ring_groups: Mapping[str, str]
    """By ring: the ARN of its thing group."""
    presign_role: str
    signing_keys: Sequence[str]
    """Key ARNs: the first signs, a state signed by any of them is believed."""
    manifest_sha256: str
    region: str
    dns_suffix: str
    names: Names

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Setup:
        return cls(
            bucket=env["BUCKET"],
            fleet_group=env["FLEET_GROUP"],
            ring_groups=json.loads(env["RING_GROUPS"]),
            presign_role=env["PRESIGN_ROLE_ARN"],
            signing_keys=json.loads(env["SIGNING_KEY_ARNS"]),
            manifest_sha256=env["MANIFEST_SHA256"],
            region=env["AWS_REGION"],
            dns_suffix=env["DNS_SUFFIX"],
            names=Names(suffix=env["SUFFIX"], channel=env["CHANNEL"]),
        )

    def rollback_group(self, sequence: int) -> str:
        return rollback_group(self.fleet_group, self.names.channel, sequence)


class Clients:
    """The AWS clients of one run."""

    def __init__(self, session: Any) -> None:
        self.s3, self.kms, self.iot, self.cloudwatch = (
            session.client(service, config=RETRIES)
            for service in ("s3", "kms", "iot", "cloudwatch")
        )


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def pages(call: Any, key: str, **parameters: Any) -> Iterator[Any]:
    """Every item under `key` of a call that answers in pages."""
    token = None
    while True:
        answer = call(**parameters, **({"nextToken": token} if token else {}))
        yield from answer.get(key, [])
        token = answer.get("nextToken")
        if not token:
            return


def get_object(clients: Clients, bucket: str, key: str) -> tuple[bytes, str] | None:
    """An object's bytes and ETag; None when there is none (the role may list the bucket, so AWS
    says 404, not 403)."""
    try:
        answer = clients.s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_code(error) in ("NoSuchKey", "404"):
            return None
        raise
    return answer["Body"].read(), answer["ETag"]


def tolerant(call: Any, **parameters: Any) -> None:
    """Makes a call whose aim may have been reached already: the job has ended, the thing or the
    group is gone."""
    try:
        call(**parameters)
    except ClientError as error:
        if error_code(error) not in (
            "InvalidRequestException",
            "ResourceNotFoundException",
            "InvalidStateTransitionException",
        ):
            raise
