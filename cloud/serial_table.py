"""The registry of serial numbers, a DynamoDB table: read, and changed only where nobody else
did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from cloud.bucket import Overtaken
from cloud.clients import Clients, error_code
from rollout.codec import Bounds, DecodeError, decode_text, encode
from rollout.serial import Serial

RECORD = Bounds(size=393_216, items=1_000)
"""What one serial's record may hold: MAX_EVENTS with the longest texts, and 47 attributes, take
less (an item of DynamoDB holds 400 KB)."""
KEYS_A_CALL = 100
"""Items that one BatchGetItem reads."""
THROTTLED = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"}
)
"""DynamoDB's answers to who asks faster than it allows."""
THROTTLE_WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of a throttled call, after boto3's own, for who has time."""
KEY = "serial"
"""The table's key."""
CHANGES = 5
"""How often a record is changed anew because somebody else was faster."""


@dataclass(frozen=True, kw_only=True)
class StoredSerial:
    """A record, and the revision under which it lies."""

    record: Serial
    revision: int


class StillThrottled(Exception):
    """BatchGetItem went on reading nothing, whatever the waits."""


class SerialTable:
    """A table with an item per serial: `serial`, `status` (for a person who looks), `revision`,
    which each write raises by one, and `record` as JSON. A call that is throttled is made again
    after each of `waits`, in seconds; by default it is not, who has little time asks once."""

    def __init__(
        self,
        clients: Clients,
        table: str,
        *,
        waits: Sequence[float] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clients, self.table = clients, table
        self._waits, self._sleep = tuple(waits), sleep

    def get(self, serial: str) -> StoredSerial | None:
        """As the last write left it. Raises DecodeError where the item is no record."""
        answer = self._patiently(
            self._clients.dynamodb.get_item,
            TableName=self.table,
            Key={KEY: {"S": serial}},
            ConsistentRead=True,
        )
        item = answer.get("Item")
        return _read(item) if item else None

    def get_all(self, serials: Iterable[str]) -> dict[str, StoredSerial]:
        """The records of those of the serials that have one, as the last writes left them."""
        found: dict[str, StoredSerial] = {}
        left = iter(dict.fromkeys(serials))
        while keys := [{KEY: {"S": serial}} for serial in islice(left, KEYS_A_CALL)]:
            for item in self._get_batch(keys):
                stored = _read(item)
                found[stored.record.serial] = stored
        return found

    def _get_batch(self, keys: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """What is there of up to KEYS_A_CALL keys: DynamoDB answers with what it had time for."""
        waits = iter(self._waits)
        while keys:
            answer = self._patiently(
                self._clients.dynamodb.batch_get_item,
                RequestItems={self.table: {"Keys": keys, "ConsistentRead": True}},
            )
            yield from answer["Responses"].get(self.table, ())
            before, rest = len(keys), answer.get("UnprocessedKeys", {}).get(self.table, {})
            keys = rest.get("Keys", [])
            if keys and len(keys) == before:
                wait = next(waits, None)
                if wait is None:
                    raise StillThrottled(f"BatchGetItem of {self.table} reads nothing any more")
                self._sleep(wait)

    def list(self) -> Iterator[StoredSerial]:
        """Every record, page after page, in no order. One that is written meanwhile is told as it
        was, or as it is."""
        token: dict[str, Any] = {}
        while True:
            page = self._patiently(self._clients.dynamodb.scan, TableName=self.table, **token)
            yield from map(_read, page.get("Items", ()))
            if "LastEvaluatedKey" not in page:
                return
            token = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def put(self, record: Serial, revision: int | None) -> None:
        """Writes a record over that revision, None where there was no record. Raises Overtaken
        where somebody else wrote it meanwhile."""
        item = {
            KEY: {"S": record.serial},
            "status": {"S": record.status.value},
            "revision": {"N": str((revision or 0) + 1)},
            "record": {"S": json.dumps(encode(record), separators=(",", ":"))},
        }
        self._write("put_item", record.serial, revision, Item=item)

    def change(self, serial: str, change: Callable[[Serial], Serial]) -> StoredSerial | None:
        """Writes the changed record, and again over whoever was faster; what lies there then, None
        where there is no record. What `change` leaves as it is is not written. Raises Overtaken
        after CHANGES tries."""
        for _ in range(CHANGES):
            stored = self.get(serial)
            if stored is None or (record := change(stored.record)) == stored.record:
                return stored
            with suppress(Overtaken):
                self.put(record, stored.revision)
                return StoredSerial(record=record, revision=stored.revision + 1)
        raise Overtaken(serial)

    def remove(self, serial: str, revision: int) -> None:
        """Raises Overtaken where somebody else wrote the record meanwhile."""
        self._write("delete_item", serial, revision, Key={KEY: {"S": serial}})

    def _write(self, call: str, serial: str, revision: int | None, **what: Any) -> None:
        condition: dict[str, Any] = {"ConditionExpression": f"attribute_not_exists({KEY})"}
        if revision is not None:
            condition = {
                "ConditionExpression": "revision = :revision",
                "ExpressionAttributeValues": {":revision": {"N": str(revision)}},
            }
        try:
            act = getattr(self._clients.dynamodb, call)
            self._patiently(act, TableName=self.table, **what, **condition)
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            raise Overtaken(serial) from error

    def _patiently(self, call: Callable[..., Any], **parameters: Any) -> Any:
        for wait in self._waits:
            try:
                return call(**parameters)
            except ClientError as error:
                if error_code(error) not in THROTTLED:
                    raise
            self._sleep(wait)
        return call(**parameters)


def _read(item: dict[str, Any]) -> StoredSerial:
    """Raises DecodeError, which names the serial, where somebody else wrote the item."""
    serial = item[KEY]["S"]
    try:
        record = decode_text(Serial, item["record"]["S"], RECORD)
        return StoredSerial(record=record, revision=int(item["revision"]["N"]))
    except (KeyError, DecodeError) as error:
        raise DecodeError([f"the record of serial {serial}: {error}"]) from error
