"""The provider's functions that read."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping
from typing import Any

from sandbox.handlers.registry import Aws, looks_up


@looks_up("aws:index/getCallerIdentity:getCallerIdentity")
def caller_identity(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    who = aws.client("sts").get_caller_identity()
    return {
        "id": who["Account"],
        "accountId": who["Account"],
        "arn": who["Arn"],
        "userId": who["UserId"],
    }


@looks_up("aws:index/getRegion:getRegion")
def region(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    name = aws.region
    return {
        "id": name,
        "name": name,
        "region": name,
        "endpoint": f"ec2.{name}.amazonaws.com",
        "description": name,
    }


@looks_up("aws:index/getPartition:getPartition")
def partition(_arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    return {
        "id": aws.partition,
        "partition": aws.partition,
        "dnsSuffix": "amazonaws.com",
        "reverseDnsPrefix": "com.amazonaws",
    }


@looks_up("aws:iot/getEndpoint:getEndpoint")
def endpoint(arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    kind = {"endpointType": arguments["endpointType"]} if arguments.get("endpointType") else {}
    address = aws.client("iot").describe_endpoint(**kind)["endpointAddress"]
    return {"id": aws.region, "region": aws.region, "endpointAddress": address, **kind}


@looks_up("aws:kms/getPublicKey:getPublicKey")
def public_key(arguments: Mapping[str, Any], aws: Aws) -> dict[str, Any]:
    key = aws.client("kms").get_public_key(KeyId=arguments["keyId"])
    encoded = base64.b64encode(key["PublicKey"]).decode()
    lines = "\n".join(textwrap.wrap(encoded, 64))
    return {
        "id": key["KeyId"],
        "arn": key["KeyId"],
        "keyId": arguments["keyId"],
        "keyUsage": key["KeyUsage"],
        "customerMasterKeySpec": key["KeySpec"],
        "signingAlgorithms": key.get("SigningAlgorithms", []),
        "encryptionAlgorithms": key.get("EncryptionAlgorithms", []),
        "publicKey": encoded,
        "publicKeyPem": f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n",
        "region": aws.region,
    }
