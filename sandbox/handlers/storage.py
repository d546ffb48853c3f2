"""S3: buckets, what is set on them, objects. DynamoDB: tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from sandbox.handlers.registry import (
    IdAndOutputs,
    Resource,
    join_tags,
    makes_and_updates,
    pairs,
    pascal,
)


@makes_and_updates("aws:s3/bucket:Bucket", "bucket")
def bucket(r: Resource) -> IdAndOutputs:
    s3, name, region = r.aws.client("s3"), r.inputs["bucket"], r.aws.region
    r.inputs.ignore("forceDestroy")
    if not r.old:
        # us-east-1 is the one region that CreateBucket does not take as a location
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **({} if region == "us-east-1" else where))
    if tags := r.inputs.get("tags"):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs(tags)})
    return name, {"arn": f"arn:{r.aws.partition}:s3:::{name}"}


@makes_and_updates("aws:s3/bucketVersioning:BucketVersioning", "bucket")
def versioning(r: Resource) -> IdAndOutputs:
    settings = pascal(r.inputs["versioningConfiguration"])
    return put(r, "put_bucket_versioning", VersioningConfiguration=settings)


@makes_and_updates(
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "bucket",
)
def encryption(r: Resource) -> IdAndOutputs:
    rules = {"Rules": pascal(r.inputs["rules"], {"sseAlgorithm": "SSEAlgorithm"})}
    return put(r, "put_bucket_encryption", ServerSideEncryptionConfiguration=rules)


@makes_and_updates("aws:s3/bucketOwnershipControls:BucketOwnershipControls", "bucket")
def ownership(r: Resource) -> IdAndOutputs:
    rules = {"Rules": [pascal(r.inputs["rule"])]}
    return put(r, "put_bucket_ownership_controls", OwnershipControls=rules)


@makes_and_updates("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "bucket")
def public_access_block(r: Resource) -> IdAndOutputs:
    keys = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    blocks = pascal(r.inputs.pick(*keys))
    return put(r, "put_public_access_block", PublicAccessBlockConfiguration=blocks)


@makes_and_updates("aws:s3/bucketPolicy:BucketPolicy", "bucket")
def bucket_policy(r: Resource) -> IdAndOutputs:
    return put(r, "put_bucket_policy", Policy=r.inputs["policy"])


@makes_and_updates("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", "bucket")
def lifecycle(r: Resource) -> IdAndOutputs:
    rules = {"Rules": pascal(r.inputs["rules"], {"id": "ID"})}
    return put(r, "put_bucket_lifecycle_configuration", LifecycleConfiguration=rules)


@makes_and_updates("aws:s3/bucketNotification:BucketNotification", "bucket")
def notification(r: Resource) -> IdAndOutputs:
    functions = []
    for item in r.inputs["lambdaFunctions"]:
        filters = {"prefix": item["filterPrefix"], "suffix": item["filterSuffix"]}
        function = pascal({key: item[key] for key in ("id", "lambdaFunctionArn", "events")})
        functions.append({**function, "Filter": {"Key": {"FilterRules": pairs(filters, "Name")}}})
    settings = {"LambdaFunctionConfigurations": functions}
    return put(r, "put_bucket_notification_configuration", NotificationConfiguration=settings)


@makes_and_updates("aws:s3/bucketObjectv2:BucketObjectv2")
def bucket_object(r: Resource) -> IdAndOutputs:
    """An object under another key is another object: the one before stays, as the program's
    artifacts are to."""
    source = r.inputs.get("source")
    body = asset_bytes(source) if source else r.inputs["content"].encode()
    r.aws.client("s3").put_object(Body=body, **object_arguments(r))
    return f"{r.inputs['bucket']}/{r.inputs['key']}", {}


@makes_and_updates("aws:s3/objectCopy:ObjectCopy")
def object_copy(r: Resource) -> IdAndOutputs:
    r.aws.client("s3").copy_object(CopySource=r.inputs["source"], **object_arguments(r))
    return f"{r.inputs['bucket']}/{r.inputs['key']}", {}


def object_arguments(r: Resource) -> dict[str, Any]:
    """What PutObject and CopyObject take, besides where the bytes are from."""
    keys = ("bucket", "key", "checksumAlgorithm", "contentType", "taggingDirective")
    tags = {"Tagging": join_tags(r.inputs["tags"])} if r.inputs.get("tags") else {}
    return {**pascal(r.inputs.pick(*keys)), **tags}


def put(r: Resource, call: str, **arguments: Any) -> IdAndOutputs:
    """One thing that is set on a bucket; setting it again updates it."""
    name = r.inputs["bucket"]
    getattr(r.aws.client("s3"), call)(Bucket=name, **arguments)
    return str(name), {}


def asset_bytes(asset: Any) -> bytes:
    """The bytes of a file or string asset; raises ValueError for a remote one, which the sandbox
    does not fetch."""
    if isinstance(asset, pulumi.StringAsset):
        return str(asset.text).encode()
    if isinstance(asset, pulumi.FileAsset):
        return Path(asset.path).read_bytes()
    raise ValueError(f"{type(asset).__name__} is not supported in the sandbox")


@makes_and_updates(
    "aws:dynamodb/table:Table",
    *("name", "attributes", "hashKey", "billingMode", "serverSideEncryption", "tags"),
)
def table(r: Resource) -> IdAndOutputs:
    dynamodb, name = r.aws.client("dynamodb"), r.inputs["name"]
    protection = {"DeletionProtectionEnabled": r.inputs["deletionProtectionEnabled"]}
    recovery = {"PointInTimeRecoveryEnabled": r.inputs["pointInTimeRecovery"]["enabled"]}
    keys = [(each["name"], each["type"]) for each in r.inputs["attributes"]]
    fixed = {
        "AttributeDefinitions": [{"AttributeName": n, "AttributeType": t} for n, t in keys],
        "KeySchema": [{"AttributeName": r.inputs["hashKey"], "KeyType": "HASH"}],
        "BillingMode": r.inputs["billingMode"],
        "SSESpecification": pascal(r.inputs["serverSideEncryption"]),
        "Tags": pairs(r.inputs["tags"]),
    }
    if r.old:
        dynamodb.update_table(TableName=name, **protection)
    else:
        dynamodb.create_table(TableName=name, **fixed, **protection)
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
    return name, {"arn": r.aws.arn("dynamodb", f"table/{name}")}
