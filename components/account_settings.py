"""What an account has once per region. One stack owns it; two would overwrite one another."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

EVENT_TYPES = {
    "CA_CERTIFICATE": False,
    "CERTIFICATE": False,
    "JOB": True,
    "JOB_EXECUTION": True,
    "POLICY": False,
    "THING": True,
    "THING_GROUP": True,
    "THING_GROUP_HIERARCHY": True,
    "THING_GROUP_MEMBERSHIP": True,
    "THING_TYPE": True,
    "THING_TYPE_ASSOCIATION": True,
}
"""Event type of UpdateEventConfigurations to whether it is on: where a topic rule reads it."""


class AccountSettings(pulumi.ComponentResource):
    """Fleet indexing (registry, classic shadow, connectivity) and the events that IoT publishes.

    Destroying it changes nothing in AWS: neither can be deleted, and other stacks rely on them.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("iotota:index:AccountSettings", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        aws.iot.IndexingConfiguration(
            f"{name}-indexing",
            thing_indexing_configuration={
                "thing_indexing_mode": "REGISTRY_AND_SHADOW",
                "thing_connectivity_indexing_mode": "STATUS",
                "device_defender_indexing_mode": "OFF",
                "named_shadow_indexing_mode": "OFF",
            },
            thing_group_indexing_configuration={"thing_group_indexing_mode": "ON"},
            opts=child,
        )
        aws.iot.EventConfigurations(f"{name}-events", event_configurations=EVENT_TYPES, opts=child)
        self.register_outputs({})
