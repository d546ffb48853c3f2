"""A stack with a registry of serials, and DynamoDB as nasty as its model allows: small pages, empty
ones among them, batches that are answered in part, throttling, and answers that are lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloud.clients import Clients
from cloud.serial_table import SerialTable
from ops.stack import Stack
from rollout.codec import encode, sha256_hex
from rollout.serial import Claim, Serial, SerialStatus
from tests.fake_aws import refusal
from tests.unit.ops_cloud import NAMES, NOW, STACK, OpsAws

TABLE, TEMPLATE = NAMES.serials_table, NAMES.provisioning_template
PROVISIONED = replace(STACK, serials_table_name=TABLE, provisioning_template_name=TEMPLATE)
BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "ThingName"},
                "AttributePayload": {
                    key: {"Ref": f"Attribute::{key}"}
                    for key in ("hardware", "initialVersion", "serial", "site", "line")
                },
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
        },
    },
}
"""A provisioning template of a fleet with the attributes site and line."""


def certificate_of(serial: str) -> str:
    """The id of a device's certificate."""
    return sha256_hex(serial)


def claim(serial: str, **changes: Any) -> Claim:
    given = {
        "thing": NAMES.thing(serial),
        "certificate": certificate_of(serial),
        "key": "a" * 64,
        "by": "b" * 64,
        "at": NOW - 600,
    }
    return Claim(**{**given, **changes})


def claimed(serial: str, **changes: Any) -> Serial:
    """The record of a serial that a device has."""
    return Serial(serial=serial, status=SerialStatus.CLAIMED, claim=claim(serial), **changes)


class SerialsAws(OpsAws):
    """`before_write` runs before each write, as somebody who is faster would."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: Stack = PROVISIONED
        self.items: dict[str, dict[str, Any]] = {}
        self.ended: list[str] = []
        """Client ids whose connections were ended."""
        self.throttles = 0
        """Calls to DynamoDB that are refused from now on."""
        self.lost = 0
        """Writes that take place and whose answer is lost, from now on."""
        self.unread = 0
        """Calls of BatchGetItem that read nothing, from now on."""
        self.before_write: Callable[[str], None] = lambda _serial: None
        self.writes = 0
        self._lock = threading.RLock()

    def open(self, _args: object) -> tuple[Stack, Clients]:
        return self.stack, Clients(self.connect)

    def register(self, *records: Serial) -> None:
        """Writes records as somebody else would, over what is there."""
        for record in records:
            there = self.items.get(record.serial, {"revision": {"N": "0"}})
            self.items[record.serial] = {
                "serial": {"S": record.serial},
                "status": {"S": record.status.value},
                "revision": {"N": str(int(there["revision"]["N"]) + 1)},
                "record": {"S": json.dumps(encode(record))},
            }

    def record(self, serial: str) -> Serial:
        stored = SerialTable(Clients(self.connect), TABLE).get(serial)
        assert stored
        return stored.record

    # IoT

    def do_describe_provisioning_template(self, *, templateName: str) -> Any:
        assert templateName == TEMPLATE
        return {"templateName": templateName, "templateBody": json.dumps(BODY)}

    def do_delete_connection(self, *, clientId: str, cleanSession: bool) -> Any:
        assert cleanSession
        self.ended.append(clientId)
        return {}

    # DynamoDB

    def _admit(self, operation: str) -> None:
        with self._lock:
            if self.throttles:
                self.throttles -= 1
                raise refusal("ProvisionedThroughputExceededException", operation, "too fast")

    def do_get_item(self, *, TableName: str, Key: dict[str, Any], ConsistentRead: bool) -> Any:
        assert (TableName, ConsistentRead) == (TABLE, True)
        self._admit("GetItem")
        item = self.items.get(Key["serial"]["S"])
        return {"Item": item} if item else {}

    def do_batch_get_item(self, *, RequestItems: dict[str, Any]) -> Any:
        """At most 100 keys, none twice (ValidationException); of more than two, one is left."""
        asked = RequestItems[TABLE]
        keys = [key["serial"]["S"] for key in asked["Keys"]]
        assert list(RequestItems) == [TABLE]
        assert asked["ConsistentRead"]
        assert 1 <= len(set(keys)) == len(keys) <= 100
        self._admit("BatchGetItem")
        done = keys if len(keys) < 3 else keys[:-1]
        if self.unread:
            self.unread, done = self.unread - 1, []
        left = {**asked, "Keys": asked["Keys"][len(done) :]}
        return {
            "Responses": {TABLE: [self.items[key] for key in done if key in self.items]},
            "UnprocessedKeys": {TABLE: left} if left["Keys"] else {},
        }

    def do_scan(self, *, TableName: str, ExclusiveStartKey: dict[str, Any] | None = None) -> Any:
        """One item a page, every other page empty, and the last one, too."""
        assert TableName == TABLE
        self._admit("Scan")
        serials = sorted(self.items, reverse=True)
        position = int(ExclusiveStartKey["serial"]["S"]) if ExclusiveStartKey else 0
        at, is_empty = divmod(position, 2)
        if at >= len(serials):
            return {"Items": []}
        found = [] if is_empty else [self.items[serials[at]]]
        return {"Items": found, "LastEvaluatedKey": {"serial": {"S": str(position + 1)}}}

    def do_put_item(self, *, TableName: str, Item: dict[str, Any], **condition: Any) -> Any:
        assert TableName == TABLE
        serial = Item["serial"]["S"]

        def put() -> None:
            self.items[serial] = Item

        return self._write("PutItem", serial, condition, put)

    def do_delete_item(self, *, TableName: str, Key: dict[str, Any], **condition: Any) -> Any:
        assert TableName == TABLE
        serial = Key["serial"]["S"]
        return self._write("DeleteItem", serial, condition, lambda: self.items.pop(serial))

    def _write(
        self, operation: str, serial: str, condition: dict[str, Any], act: Callable[[], object]
    ) -> Any:
        self._admit(operation)
        with self._lock:
            self.before_write(serial)
            if not self._holds(serial, **condition):
                raise refusal("ConditionalCheckFailedException", operation, "The condition failed")
            act()
            self.writes += 1
            if self.lost:
                # boto3 makes it again by itself, and its condition does not hold any more
                self.lost -= 1
                raise refusal("ConditionalCheckFailedException", operation, "The condition failed")
        return {}

    def _holds(
        self,
        serial: str,
        *,
        ConditionExpression: str,
        ExpressionAttributeValues: dict[str, Any] | None = None,
    ) -> bool:
        there = self.items.get(serial)
        if ExpressionAttributeValues is None:
            assert ConditionExpression == "attribute_not_exists(serial)"
            return there is None
        assert ConditionExpression == "revision = :revision"
        return there is not None and there["revision"] == ExpressionAttributeValues[":revision"]
