"""The channel's signing keys in KMS: the first signs, what any of them signed is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, error_code
from rollout.codec import sha256_hex
from rollout.jws import SignedType, compact_jws, signing_input


class Signer:
    def __init__(self, clients: Clients, key_arns: Sequence[str]) -> None:
        self.key_arns, self._clients = key_arns, clients

    def sign(self, kind: SignedType, payload: object) -> str:
        """The compact JWS over a payload, made with the first key. `kind` is its `typ`."""
        text = signing_input(kind, self.key_arns[0], payload)
        answer = self._clients.kms.sign(**_request(self.key_arns[0], text))
        return compact_jws(text, bytes(answer["Signature"]))

    def is_signed(self, key_arn: str, text: str, der_signature: bytes) -> bool:
        """Whether the key made this DER signature over this signing input (KMS Verify)."""
        try:
            self._clients.kms.verify(**_request(key_arn, text), Signature=der_signature)
        except ClientError as error:
            if error_code(error) != "KMSInvalidSignatureException":
                raise
            return False
        return True


def _request(key_arn: str, text: str) -> dict[str, Any]:
    return {
        "KeyId": key_arn,
        "Message": bytes.fromhex(sha256_hex(text)),
        "MessageType": "DIGEST",
        "SigningAlgorithm": "ECDSA_SHA_256",
    }
