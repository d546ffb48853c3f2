"""SQS queues, SNS topics."""

from __future__ import annotations

from typing import Any

from sandbox.handlers.registry import Made, Resource, handles, makes, pairs, text

QUEUE = {
    "contentBasedDeduplication": "ContentBasedDeduplication",
    "delaySeconds": "DelaySeconds",
    "fifoQueue": "FifoQueue",
    "kmsMasterKeyId": "KmsMasterKeyId",
    "maxMessageSize": "MaximumMessageSize",
    "messageRetentionSeconds": "MessageRetentionPeriod",
    "policy": "Policy",
    "receiveWaitTimeSeconds": "ReceiveMessageWaitTimeSeconds",
    "redrivePolicy": "RedrivePolicy",
    "sqsManagedSseEnabled": "SqsManagedSseEnabled",
    "visibilityTimeoutSeconds": "VisibilityTimeout",
}
"""Inputs of a queue by their attribute names (CreateQueue)."""
TOPIC = {"displayName": "DisplayName", "kmsMasterKeyId": "KmsMasterKeyId", "policy": "Policy"}
SUBSCRIPTION = {
    "filterPolicy": "FilterPolicy",
    "rawMessageDelivery": "RawMessageDelivery",
    "redrivePolicy": "RedrivePolicy",
}


@handles("aws:sqs/queue:Queue", "name", "fifoQueue", "tags")
def queue(r: Resource) -> Made:
    sqs, name = r.aws.client("sqs"), r.called()
    wanted = attributes(r, QUEUE)
    if r.old:
        sqs.set_queue_attributes(QueueUrl=r.old["url"], Attributes=wanted)
        return r.old["url"], dict(r.old)
    url = sqs.create_queue(QueueName=name, Attributes=wanted, tags=r.inputs.get("tags") or {})[
        "QueueUrl"
    ]
    return url, {"name": name, "url": url, "arn": r.aws.arn("sqs", name)}


@handles("aws:sqs/queuePolicy:QueuePolicy", "queueUrl")
def queue_policy(r: Resource) -> Made:
    url = r.inputs["queueUrl"]
    r.aws.client("sqs").set_queue_attributes(
        QueueUrl=url, Attributes={"Policy": text(r.inputs["policy"])}
    )
    return url, {}


@handles("aws:sns/topic:Topic", "name", "tags")
def topic(r: Resource) -> Made:
    sns, name = r.aws.client("sns"), r.called()
    wanted = attributes(r, TOPIC)
    if r.old:
        for attribute, value in wanted.items():
            sns.set_topic_attributes(
                TopicArn=r.old["arn"], AttributeName=attribute, AttributeValue=value
            )
        return r.old["arn"], dict(r.old)
    arn = sns.create_topic(Name=name, Attributes=wanted, Tags=pairs(r.inputs.get("tags")))[
        "TopicArn"
    ]
    return arn, {"name": name, "arn": arn, "owner": r.aws.account}


@handles("aws:sns/topicPolicy:TopicPolicy", "arn")
def topic_policy(r: Resource) -> Made:
    arn = r.inputs["arn"]
    document = text(r.inputs["policy"])
    r.aws.client("sns").set_topic_attributes(
        TopicArn=arn, AttributeName="Policy", AttributeValue=document
    )
    return arn, {"owner": r.aws.account}


@makes("aws:sns/topicSubscription:TopicSubscription")
def topic_subscription(r: Resource) -> Made:
    made = r.aws.client("sns").subscribe(
        TopicArn=r.inputs["topic"],
        Protocol=r.inputs["protocol"],
        Endpoint=r.inputs["endpoint"],
        Attributes=attributes(r, SUBSCRIPTION),
        ReturnSubscriptionArn=True,
    )
    return made["SubscriptionArn"], {"arn": made["SubscriptionArn"], "ownerId": r.aws.account}


def attributes(r: Resource, names: dict[str, str]) -> dict[str, str]:
    return {names[key]: attribute(value) for key, value in r.inputs.pick(*names).items()}


def attribute(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else text(value)
