"""What an AWS account holds, as AWS answers: to compare two deployments, and to see what a destroy
leaves."""

from __future__ import annotations

import hashlib
import io
import json
import re
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

Clients = Callable[[str], Any]
"""The boto3 client of a service, as the account's root."""
Holding = dict[str, dict[str, Any]]
"""By `service kind name`: what AWS says about it."""

NOISE = re.compile(
    r"ResponseMetadata|[cC]reat(?:ion|e)Date|lastModifiedDate|LastModified|createdAt|creationTime|"
    r"(?:Created|LastModified|AlarmConfigurationUpdated|State\w+)Timestamp|StateReason\w*|StateValue|"
    r"RoleLastUsed|RoleId|thingId|thingGroupId|version|VersionId|RevisionId|CodeSha256|CodeSize|"
    r"\w+DateTime|ItemCount|TableSizeBytes|MaximumMessageSize|storedBytes|ApproximateNumber\w+|STACK_TOKEN_SHA256|MANIFEST_SHA256"
)
"""Names of fields that hold ids, times, counts, and digests of what holds an id: no two deployments
share them. The default of a queue's MaximumMessageSize is not the same in each provider."""
MEMORY = re.compile(r"s3 object .*/channels/\w+/(?!release\.json).*")
"""What the controller writes, not the deployer."""
DEFAULTS = {
    "batchMode": False,
    "BucketKeyEnabled": False,
    **{
        f"{by}SuccessFeedbackSampleRate": "0"
        for by in ("Application", "Firehose", "HTTP", "Lambda", "SQS")
    },
}
"""What the provider writes out, and the sandbox leaves to AWS, which fills in the same."""
LOOSE_CERTIFICATE = re.compile(r"iot certificate of (?:\S+ )?(?P<id>[0-9a-f]{64})")
"""Of no thing: a claim's, which goes by its policy; a stack here has one."""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def holdings(client: Clients) -> Holding:
    """Everything of the services that the program uses, but jobs and shadows."""
    found: Holding = {}
    for reader in READERS:
        for name, facts in reader(client):
            assert name not in found, f"{name} is there twice"
            found[name] = cleaned(facts)
    return found


def named_alike(holding: Holding, suffix: str) -> Holding:
    """What the deployer made, with SUFFIX for the stack's suffix, so that two stacks compare."""
    mine = {name: facts for name, facts in holding.items() if not MEMORY.fullmatch(name)}
    text = json.dumps(mine).replace(suffix, "SUFFIX")
    for name in mine:
        if owner := LOOSE_CERTIFICATE.fullmatch(name):
            text = text.replace(owner["id"], "CERTIFICATE")
    alike: Holding = cleaned(json.loads(text))
    return alike


def cleaned(value: Any) -> Any:
    """`value` without ids and times; lists in an order of their own; policies as JSON."""
    if isinstance(value, dict):
        return {
            key: cleaned(item)
            for key, item in sorted(value.items())
            if not NOISE.fullmatch(key)
            and item not in (None, "", [], {})
            and (key, item) not in DEFAULTS.items()
        }
    if isinstance(value, list | tuple):
        return sorted(
            (cleaned(item) for item in value),
            key=lambda item: json.dumps(item, sort_keys=True, default=str),
        )
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            return cleaned(json.loads(value))
    return UUID.sub("UUID", value) if isinstance(value, str) else value


def pages(client: Any, operation: str, key: str, **words: Any) -> list[Any]:
    if client.can_paginate(operation):
        return [
            item
            for page in client.get_paginator(operation).paginate(**words)
            for item in page.get(key) or []
        ]
    return list(getattr(client, operation)(**words).get(key) or [])


def answer(call: Callable[..., Any], **words: Any) -> Any:
    """AWS's answer; the error's code where there is none."""
    try:
        return call(**words)
    except ClientError as error:
        return error.response["Error"]["Code"]


Found = Iterator[tuple[str, Any]]


def read_registry(client: Clients) -> Found:
    iot = client("iot")
    for thing in pages(iot, "list_things", "things"):
        name = thing["thingName"]
        groups = pages(iot, "list_thing_groups_for_thing", "thingGroups", thingName=name)
        yield (
            f"iot thing {name}",
            {
                **thing,
                "groups": [group["groupName"] for group in groups],
                "certificates": len(
                    pages(iot, "list_thing_principals", "principals", thingName=name)
                ),
            },
        )
    for group in pages(iot, "list_thing_groups", "thingGroups"):
        name = group["groupName"]
        about = iot.describe_thing_group(thingGroupName=name)
        tags = pages(iot, "list_tags_for_resource", "tags", resourceArn=about["thingGroupArn"])
        yield f"iot group {name}", {**about, "tags": tags}
    for kind in pages(iot, "list_thing_types", "thingTypes"):
        tags = pages(iot, "list_tags_for_resource", "tags", resourceArn=kind["thingTypeArn"])
        yield f"iot type {kind['thingTypeName']}", {**kind, "tags": tags}


def read_rights_of_devices(client: Clients) -> Found:
    iot = client("iot")
    certificates = pages(iot, "list_certificates", "certificates")
    things = {
        one["certificateArn"]: pages(
            iot, "list_principal_things", "things", principal=one["certificateArn"]
        )
        for one in certificates
    }
    for one in certificates:
        arn = one["certificateArn"]
        policies = pages(iot, "list_attached_policies", "policies", target=arn)
        names = [policy["policyName"] for policy in policies]
        owner = ", ".join(things[arn]) or " ".join([*names, one["certificateId"]])
        yield f"iot certificate of {owner}", {"status": one["status"], "policies": names}
    for policy in pages(iot, "list_policies", "policies"):
        name = policy["policyName"]
        targets = pages(iot, "list_targets_for_policy", "targets", policyName=name)
        document = iot.get_policy(policyName=name)["policyDocument"]
        owners = [things.get(target, target) for target in targets]
        yield f"iot policy {name}", {"document": document, "targets": owners}


def read_provisioning(client: Clients) -> Found:
    iot, dynamodb = client("iot"), client("dynamodb")
    for template in pages(iot, "list_provisioning_templates", "templates"):
        name, arn = template["templateName"], template["templateArn"]
        tags = pages(iot, "list_tags_for_resource", "tags", resourceArn=arn)
        about = iot.describe_provisioning_template(templateName=name)
        yield f"iot provisioning template {name}", {**about, "tags": tags}
    for name in pages(dynamodb, "list_tables", "TableNames"):
        table = dynamodb.describe_table(TableName=name)["Table"]
        tags = pages(dynamodb, "list_tags_of_resource", "Tags", ResourceArn=table["TableArn"])
        backups = dynamodb.describe_continuous_backups(TableName=name)
        yield f"dynamodb table {name}", {**table, "tags": tags, "backups": backups}


def read_iot_settings(client: Clients) -> Found:
    iot = client("iot")
    yield "iot events", iot.describe_event_configurations()
    yield "iot indexing", iot.get_indexing_configuration()
    for rule in pages(iot, "list_topic_rules", "rules"):
        yield f"iot rule {rule['ruleName']}", iot.get_topic_rule(ruleName=rule["ruleName"])


def read_buckets(client: Clients) -> Found:
    s3 = client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        name = bucket["Name"]
        asked = {
            "location": s3.get_bucket_location,
            "versioning": s3.get_bucket_versioning,
            "encryption": s3.get_bucket_encryption,
            "public": s3.get_public_access_block,
            "ownership": s3.get_bucket_ownership_controls,
            "policy": s3.get_bucket_policy,
            "lifecycle": s3.get_bucket_lifecycle_configuration,
            "notification": s3.get_bucket_notification_configuration,
            "tags": s3.get_bucket_tagging,
        }
        yield f"s3 bucket {name}", {what: answer(call, Bucket=name) for what, call in asked.items()}
        for item in pages(s3, "list_objects_v2", "Contents", Bucket=name):
            found = s3.get_object(Bucket=name, Key=item["Key"], ChecksumMode="ENABLED")
            body = found.pop("Body").read()
            if item["Key"].endswith(".json"):
                found = {"ContentType": found["ContentType"], "body": body.decode()}
            tags = s3.get_object_tagging(Bucket=name, Key=item["Key"])["TagSet"]
            yield f"s3 object {name}/{item['Key']}", {**found, "tags": tags}


def read_keys(client: Clients) -> Found:
    kms = client("kms")
    names = {a.get("TargetKeyId"): a["AliasName"] for a in pages(kms, "list_aliases", "Aliases")}
    for key in pages(kms, "list_keys", "Keys"):
        about = kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]
        if about["KeyState"] == "PendingDeletion":
            continue
        yield (
            f"kms key {names.get(key['KeyId'], key['KeyId'])}",
            {
                **about,
                "policy": kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"],
                "tags": pages(kms, "list_resource_tags", "Tags", KeyId=key["KeyId"]),
            },
        )


def read_roles(client: Clients) -> Found:
    iam = client("iam")
    for role in pages(iam, "list_roles", "Roles"):
        name = {"RoleName": role["RoleName"]}
        inline = pages(iam, "list_role_policies", "PolicyNames", **name)
        yield (
            f"iam role {role['RoleName']}",
            {
                **iam.get_role(**name)["Role"],
                "inline": {
                    one: iam.get_role_policy(**name, PolicyName=one)["PolicyDocument"]
                    for one in inline
                },
                "attached": pages(iam, "list_attached_role_policies", "AttachedPolicies", **name),
            },
        )


def read_functions(client: Clients) -> Found:
    functions = client("lambda")
    for function in pages(functions, "list_functions", "Functions"):
        name = {"FunctionName": function["FunctionName"]}
        found = functions.get_function(**name)
        with urllib.request.urlopen(found.pop("Code")["Location"]) as code:
            archive = zipfile.ZipFile(io.BytesIO(code.read()))
        policy = answer(functions.get_policy, **name)
        yield (
            f"lambda function {function['FunctionName']}",
            {
                **found,
                "code": {
                    item: hashlib.sha256(archive.read(item)).hexdigest()
                    for item in archive.namelist()
                },
                "permissions": policy if isinstance(policy, str) else policy["Policy"],
                "failures": answer(functions.get_function_event_invoke_config, **name),
                "concurrency": answer(functions.get_function_concurrency, **name),
            },
        )


def read_schedules(client: Clients) -> Found:
    events = client("events")
    for rule in pages(events, "list_rules", "Rules"):
        tags = events.list_tags_for_resource(ResourceARN=rule["Arn"]).get("Tags")
        targets = pages(events, "list_targets_by_rule", "Targets", Rule=rule["Name"])
        yield f"events rule {rule['Name']}", {**rule, "tags": tags, "targets": targets}


def read_messages(client: Clients) -> Found:
    sqs, sns = client("sqs"), client("sns")
    for url in pages(sqs, "list_queues", "QueueUrls"):
        about = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        tags = sqs.list_queue_tags(QueueUrl=url).get("Tags")
        yield f"sqs queue {url.rpartition('/')[2]}", {**about, "tags": tags}
    for topic in pages(sns, "list_topics", "Topics"):
        arn = topic["TopicArn"]
        subscriptions = pages(sns, "list_subscriptions_by_topic", "Subscriptions", TopicArn=arn)
        yield (
            f"sns topic {arn.rpartition(':')[2]}",
            {
                **sns.get_topic_attributes(TopicArn=arn),
                "tags": sns.list_tags_for_resource(ResourceArn=arn).get("Tags"),
                "subscriptions": [[one["Protocol"], one["Endpoint"]] for one in subscriptions],
            },
        )


def read_watching(client: Clients) -> Found:
    logs, cloudwatch = client("logs"), client("cloudwatch")
    for group in pages(logs, "describe_log_groups", "logGroups"):
        tags = logs.list_tags_log_group(logGroupName=group["logGroupName"]).get("tags")
        yield f"logs group {group['logGroupName']}", {**group, "tags": tags}
    for kind in ("MetricAlarms", "CompositeAlarms"):
        for alarm in pages(cloudwatch, "describe_alarms", kind):
            tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"]).get("Tags")
            yield f"cloudwatch alarm {alarm['AlarmName']}", {**alarm, "tags": tags}
    for board in pages(cloudwatch, "list_dashboards", "DashboardEntries"):
        name = board["DashboardName"]
        body = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
        yield f"cloudwatch dashboard {name}", {"body": body}


READERS = (
    read_registry,
    read_rights_of_devices,
    read_provisioning,
    read_iot_settings,
    read_buckets,
    read_keys,
    read_roles,
    read_functions,
    read_schedules,
    read_messages,
    read_watching,
)


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Each place where two answers differ, with what stands there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path} > {key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, yours) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, yours, f"{path} > {number}")
    elif one != other:
        yield f"{path.removeprefix(' > ')}: {one!r} and {other!r}"
