"""The provider's functions that read: of their answers, what the program uses."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping
from typing import Any

from sandbox.handlers.registry import Aws, reads


@reads("aws:index/getCallerIdentity:getCallerIdentity")
def caller_identity(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    return {"accountId": aws.client("sts").get_caller_identity()["Account"]}


@reads("aws:index/getRegion:getRegion")
def region(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    return {"region": aws.region}


@reads("aws:index/getPartition:getPartition")
def partition(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    return {"partition": aws.partition, "dnsSuffix": "amazonaws.com"}


@reads("aws:iot/getEndpoint:getEndpoint")
def endpoint(arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    answer = aws.client("iot").describe_endpoint(endpointType=arguments["endpointType"])
    return {"endpointAddress": answer["endpointAddress"]}


@reads("aws:kms/getPublicKey:getPublicKey")
def public_key(arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    key = aws.client("kms").get_public_key(KeyId=arguments["keyId"])["PublicKey"]
    lines = "\n".join(textwrap.wrap(base64.b64encode(key).decode(), 64))
    return {"publicKeyPem": f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"}
