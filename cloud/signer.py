"""The channel's signing keys in KMS: the first signs, what any of them signed is believed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from cloud.clients import Clients, error_code
from rollout.codec import sha256_hex
from rollout.jws import SignedType, compact_jws, signing_input


class NoImageKey(Exception):
    """An image is to be signed, and this deployment has no key for it."""


class Signer:
    def __init__(
        self, clients: Clients, key_arns: Sequence[str], image_key: str | None = None
    ) -> None:
        self.key_arns, self._clients, self._image_key = key_arns, clients, image_key

    def sign(self, kind: SignedType, payload: object) -> str:
        """The compact JWS over a payload, made with the first key. `kind` is its `typ`."""
        text = signing_input(kind, self.key_arns[0], payload)
        answer = self._clients.kms.sign(**_request(self.key_arns[0], text))
        return compact_jws(text, bytes(answer["Signature"]))

    def sign_image(self, sha256: str) -> str:
        """Base64 of the DER signature (ECDSA P-256) over an image's SHA-256, by the image key. It
        says that the image is the maker's, not that it is meant: no version, device or number is in
        it. Raises NoImageKey."""
        if self._image_key is None:
            raise NoImageKey(
                "documentExtra has {imageSignature}, and there is no key: deploy again"
            )
        answer = self._clients.kms.sign(**_request_digest(self._image_key, bytes.fromhex(sha256)))
        return base64.b64encode(bytes(answer["Signature"])).decode()

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
    return _request_digest(key_arn, bytes.fromhex(sha256_hex(text)))


def _request_digest(key_arn: str, digest: bytes) -> dict[str, Any]:
    return {
        "KeyId": key_arn,
        "Message": digest,
        "MessageType": "DIGEST",
        "SigningAlgorithm": "ECDSA_SHA_256",
    }
