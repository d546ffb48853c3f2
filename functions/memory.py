"""The controller's memory: `state.json`, signed with the channel's key, written only with
If-Match."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from functions.aws import Clients, Setup, error_code, get_object
from rollout.codec import encode
from rollout.document import STATE_TYPE, jws, signing_input
from rollout.release import sha256, state_key
from rollout.state import State
from rollout.trust import believed


class Lost(Exception):
    """Another run wrote the state first; this one has nothing more to say."""


class Memory:
    def __init__(self, setup: Setup, clients: Clients) -> None:
        self.setup, self.clients = setup, clients
        self.key = state_key(setup.names.channel)

    def load(self) -> tuple[State | None, str | None]:
        """The state and its ETag; none where there is no object. Raises Distrusted unless this
        controller signed it."""
        found = get_object(self.clients, self.setup.bucket, self.key)
        if found is None:
            return None, None
        return believed(found[0], self.setup.signing_keys, self._verified), found[1]

    def etag(self) -> str | None:
        found = get_object(self.clients, self.setup.bucket, self.key)
        return found[1] if found else None

    def save(self, state: State, etag: str | None) -> None:
        """Writes the state in place of the one with this ETag. Raises Lost when that is no longer
        there."""
        body = encode(state)
        signed = signing_input(STATE_TYPE, self.setup.signing_keys[0], body)
        header, _, signature = jws(signed, self.sign(signed)).split(".")
        text = json.dumps(
            {"state": body, "jws": f"{header}..{signature}"}, indent=1
        )  # detached: RFC 7515, appendix F
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            self.clients.s3.put_object(
                Bucket=self.setup.bucket,
                Key=self.key,
                Body=text.encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error_code(error) in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
                "NoSuchKey",
                "412",
                "409",
            ):
                raise Lost from error
            raise

    def sign(self, signed: str) -> bytes:
        """KMS's DER signature over a JWS signing input, made with the first of the channel's
        keys."""
        answer = self.clients.kms.sign(**_kms(self.setup.signing_keys[0], signed))
        return bytes(answer["Signature"])

    def _verified(self, key: str, signed: str, der_signature: bytes) -> bool:
        try:
            self.clients.kms.verify(**_kms(key, signed), Signature=der_signature)
        except ClientError as error:
            if error_code(error) != "KMSInvalidSignatureException":
                raise
            return False
        return True


def _kms(key: str, signed: str) -> dict[str, Any]:
    digest = bytes.fromhex(sha256(signed))
    return {
        "KeyId": key,
        "Message": digest,
        "MessageType": "DIGEST",
        "SigningAlgorithm": "ECDSA_SHA_256",
    }
