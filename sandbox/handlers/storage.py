"""S3: buckets, what is set on them, objects."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pulumi

from sandbox.handlers.registry import Made, Resource, handles, pairs, pascal, text


@handles("aws:s3/bucket:Bucket", "bucket")
def bucket(r: Resource) -> Made:
    s3, name = r.aws.client("s3"), r.called("bucket")
    r.inputs.ignore("forceDestroy")
    if not r.old:
        # us-east-1 is the one region that CreateBucket does not take as a location
        elsewhere = (
            {}
            if r.aws.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": r.aws.region}}
        )
        s3.create_bucket(Bucket=name, **elsewhere)
    if tags := r.inputs.get("tags"):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs(tags)})
    return name, {
        "bucket": name,
        "arn": f"arn:{r.aws.partition}:s3:::{name}",
        "bucketRegion": r.aws.region,
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{name}.s3.{r.aws.region}.amazonaws.com",
    }


@handles("aws:s3/bucketVersioning:BucketVersioning", "bucket")
def versioning(r: Resource) -> Made:
    return put(
        r,
        "put_bucket_versioning",
        VersioningConfiguration=pascal(r.inputs["versioningConfiguration"]),
    )


@handles(
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "bucket",
)
def encryption(r: Resource) -> Made:
    names = {"sseAlgorithm": "SSEAlgorithm", "kmsMasterKeyId": "KMSMasterKeyID"}
    return put(
        r,
        "put_bucket_encryption",
        ServerSideEncryptionConfiguration={"Rules": pascal(r.inputs["rules"], names)},
    )


@handles("aws:s3/bucketOwnershipControls:BucketOwnershipControls", "bucket")
def ownership(r: Resource) -> Made:
    return put(
        r, "put_bucket_ownership_controls", OwnershipControls={"Rules": [pascal(r.inputs["rule"])]}
    )


@handles("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "bucket")
def public_access_block(r: Resource) -> Made:
    r.inputs.ignore("skipDestroy")
    blocks = r.inputs.pick(
        "blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"
    )
    return put(r, "put_public_access_block", PublicAccessBlockConfiguration=pascal(blocks))


@handles("aws:s3/bucketPolicy:BucketPolicy", "bucket")
def bucket_policy(r: Resource) -> Made:
    return put(r, "put_bucket_policy", Policy=text(r.inputs["policy"]))


@handles("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", "bucket")
def lifecycle(r: Resource) -> Made:
    return put(
        r,
        "put_bucket_lifecycle_configuration",
        LifecycleConfiguration={"Rules": pascal(r.inputs["rules"], {"id": "ID"})},
    )


@handles("aws:s3/bucketNotification:BucketNotification", "bucket")
def notification(r: Resource) -> Made:
    functions = [
        {
            **({"Id": item["id"]} if item.get("id") else {}),
            "LambdaFunctionArn": item["lambdaFunctionArn"],
            "Events": item["events"],
            "Filter": {"Key": {"FilterRules": key_filters(item)}},
        }
        for item in r.inputs["lambdaFunctions"]
    ]
    return put(
        r,
        "put_bucket_notification_configuration",
        NotificationConfiguration={"LambdaFunctionConfigurations": functions},
    )


@handles("aws:s3/bucketObjectv2:BucketObjectv2")
def bucket_object(r: Resource) -> Made:
    """An object under another key is another object: the one before stays, as the program's
    artifacts are to."""
    name, key = r.inputs["bucket"], r.inputs["key"]
    r.inputs.ignore("forceDestroy", "sourceHash", "etag")
    how = pascal(
        r.inputs.pick("contentType", "cacheControl", "checksumAlgorithm", "serverSideEncryption")
    )
    made = r.aws.client("s3").put_object(Bucket=name, Key=key, Body=body(r), **user_data(r), **how)
    return f"{name}/{key}", object_outputs(r, name, key, made)


@handles("aws:s3/objectCopy:ObjectCopy")
def object_copy(r: Resource) -> Made:
    name, key = r.inputs["bucket"], r.inputs["key"]
    r.inputs.ignore("forceDestroy")
    directives = r.inputs.pick("metadataDirective", "taggingDirective")
    how = pascal(
        {
            **directives,
            **r.inputs.pick(
                "contentType", "cacheControl", "checksumAlgorithm", "serverSideEncryption"
            ),
        }
    )
    made = r.aws.client("s3").copy_object(
        Bucket=name, Key=key, CopySource=r.inputs["source"], **user_data(r), **how
    )
    return f"{name}/{key}", object_outputs(r, name, key, {**made, **made["CopyObjectResult"]})


def put(r: Resource, call: str, **arguments: Any) -> Made:
    """One thing that is set on a bucket; setting it again updates it."""
    name = r.inputs["bucket"]
    getattr(r.aws.client("s3"), call)(Bucket=name, **arguments)
    return str(name), {}


def body(r: Resource) -> bytes:
    if (source := r.inputs.get("source")) is not None:
        return asset_bytes(source)
    if (encoded := r.inputs.get("contentBase64")) is not None:
        return base64.b64decode(encoded)
    return str(r.inputs.get("content") or "").encode()


def asset_bytes(asset: Any) -> bytes:
    """The bytes of a file or string asset; raises ValueError for a remote one, which the sandbox
    does not fetch."""
    if isinstance(asset, pulumi.StringAsset):
        return str(asset.text).encode()
    if isinstance(asset, pulumi.FileAsset):
        return Path(asset.path).read_bytes()
    raise ValueError(f"{type(asset).__name__} is not supported in the sandbox")


def user_data(r: Resource) -> dict[str, Any]:
    data: dict[str, Any] = {"Metadata": r.inputs["metadata"]} if r.inputs.get("metadata") else {}
    if tags := r.inputs.get("tags"):
        data["Tagging"] = "&".join(f"{name}={value}" for name, value in sorted(tags.items()))
    return data


def object_outputs(r: Resource, name: str, key: str, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "arn": f"arn:{r.aws.partition}:s3:::{name}/{key}",
        "etag": made["ETag"].strip('"'),
        "versionId": made.get("VersionId", ""),
        "checksumSha256": made.get("ChecksumSHA256", ""),
    }


def key_filters(item: dict[str, Any]) -> list[dict[str, str]]:
    named = (("prefix", item.get("filterPrefix")), ("suffix", item.get("filterSuffix")))
    return [{"Name": name, "Value": value} for name, value in named if value]
