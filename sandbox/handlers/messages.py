"""SQS queues, SNS topics."""

from __future__ import annotations

from sandbox.handlers.registry import IdAndOutputs, Resource, makes, makes_and_updates, pairs

QUEUE = {
    "messageRetentionSeconds": "MessageRetentionPeriod",
    "sqsManagedSseEnabled": "SqsManagedSseEnabled",
}
"""Inputs of a queue by their attribute names (CreateQueue)."""


@makes_and_updates("aws:sqs/queue:Queue", "name", "tags")
def queue(r: Resource) -> IdAndOutputs:
    sqs, name, inputs = r.aws.client("sqs"), r.inputs["name"], r.inputs.pick(*QUEUE)
    # every attribute is text: "true", "86400"
    attributes = {QUEUE[key]: str(value).lower() for key, value in inputs.items()}
    if r.old:
        sqs.set_queue_attributes(QueueUrl=r.old["url"], Attributes=attributes)
        return r.old["url"], r.old
    tags = r.inputs.get("tags") or {}
    url = sqs.create_queue(QueueName=name, Attributes=attributes, tags=tags)["QueueUrl"]
    return url, {"url": url, "arn": r.aws.arn("sqs", name)}


@makes_and_updates("aws:sqs/queuePolicy:QueuePolicy", "queueUrl")
def queue_policy(r: Resource) -> IdAndOutputs:
    url, attributes = r.inputs["queueUrl"], {"Policy": r.inputs["policy"]}
    r.aws.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return url, {}


@makes("aws:sns/topic:Topic")
def topic(r: Resource) -> IdAndOutputs:
    name, tags = r.inputs["name"], pairs(r.inputs["tags"])
    arn = r.aws.client("sns").create_topic(Name=name, Tags=tags)["TopicArn"]
    return arn, {"arn": arn}


@makes_and_updates("aws:sns/topicPolicy:TopicPolicy", "arn")
def topic_policy(r: Resource) -> IdAndOutputs:
    arn, policy = r.inputs["arn"], r.inputs["policy"]
    r.aws.client("sns").set_topic_attributes(
        TopicArn=arn, AttributeName="Policy", AttributeValue=policy
    )
    return arn, {}


@makes("aws:sns/topicSubscription:TopicSubscription")
def topic_subscription(r: Resource) -> IdAndOutputs:
    arn = r.aws.client("sns").subscribe(
        TopicArn=r.inputs["topic"],
        Protocol=r.inputs["protocol"],
        Endpoint=r.inputs["endpoint"],
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    return arn, {}
