"""The pre-provisioning hook: what AWS IoT is told, what is written, counted and logged."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from cloud.bucket import Overtaken
from cloud.clients import QUICK_CONFIG, Clients
from cloud.serial_table import SerialTable
from components.claim_provisioning import HOOK_SECONDS
from functions import provisioning
from functions.provisioning import CLAIM_WRITES, ProvisioningHook, read_rules
from rollout.claim_rules import ClaimRefusal
from rollout.codec import DecodeError
from rollout.names import HookVariable
from rollout.serial import CLAIM_SECONDS, Serial, SerialStatus
from tests.unit.test_claim_rules import BY, CERTIFICATE, NOW, RULES, THING, asks, make_key, make_pem

ENVIRONMENT: dict[str, str] = {
    HookVariable.ATTRIBUTES: '{"site": "lab", "line": "3"}',
    HookVariable.CLAIM_CERTIFICATES: json.dumps([BY]),
    HookVariable.FLEET: "iot-fleet",
    HookVariable.HARDWARE: "gateway-a1",
    HookVariable.INITIAL_VERSION: "1.0.0",
    HookVariable.RINGS: ('[{"name": "canary", "percent": 10}, {"name": "broad", "percent": 90.0}]'),
    HookVariable.SUFFIX: "0a1b2c3d",
    HookVariable.THING_TYPE: "iot-fleet-0a1b2c3d-gateway",
}


def refuse(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


class Table:
    """DynamoDB as the hook sees it: consistent reads, conditional writes, each at once or not at
    all."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.reads, self.writes = 0, 0
        self.before_put: list[Any] = []
        """What happens before the next writes, one after the other: a call, or an error."""
        self.after_put: Exception | None = None
        """What is lost is the answer."""
        self._lock = threading.Lock()

    def get_item(self, TableName: str, Key: Any, ConsistentRead: bool) -> dict[str, Any]:
        assert (TableName, ConsistentRead) == ("iot-fleet-0a1b2c3d-serials", True)
        self.reads += 1
        item = self.items.get(Key["serial"]["S"])
        return {"Item": dict(item)} if item else {}

    def put_item(
        self,
        TableName: str,
        Item: dict[str, Any],
        ConditionExpression: str,
        ExpressionAttributeValues: dict[str, Any] | None = None,
    ) -> None:
        if self.before_put:
            step = self.before_put.pop(0)
            if isinstance(step, Exception):
                raise step
            step()
        with self._lock:
            old = self.items.get(Item["serial"]["S"])
            wanted = (ExpressionAttributeValues or {}).get(":revision")
            if (old and old["revision"]) != wanted:
                raise refuse("ConditionalCheckFailedException", "PutItem")
            self.items[Item["serial"]["S"]] = Item
            self.writes += 1
        if self.after_put:
            raise self.after_put


class Groups:
    """The groups that things are in."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}
        self.asked = 0

    def get_paginator(self, operation: str) -> Groups:
        assert operation == "list_thing_groups_for_thing"
        return self

    def paginate(self, thingName: str, PaginationConfig: Any) -> Any:
        self.asked += 1
        if thingName not in self.of:
            raise refuse("ResourceNotFoundException", "ListThingGroupsForThing")
        for group in self.of[thingName]:
            yield {"thingGroups": [{"groupName": group}]}


class World:
    def __init__(self) -> None:
        self.table, self.iot = Table(), Groups()
        self.clients = Clients({"dynamodb": self.table, "iot": self.iot}.__getitem__)
        self.serials = SerialTable(self.clients, "iot-fleet-0a1b2c3d-serials")
        self.hook = ProvisioningHook(RULES, self.clients)

    def add(self, serial: str = "0001", **fields: Any) -> None:
        self.serials.put(Serial(serial=serial, **fields), None)
        self.table.writes = 0

    def record(self) -> Serial:
        stored = self.serials.get("0001")
        assert stored is not None
        return stored.record


@pytest.fixture
def world() -> World:
    return World()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_environment_says_what_a_device_gets() -> None:
    assert read_rules(ENVIRONMENT) == RULES


def test_a_serial_of_the_list_comes_in(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.add(attributes={"site": "hall-4"})
    assert world.hook.answer(asks(), NOW) == {
        "allowProvisioning": True,
        "parameterOverrides": {
            "SerialNumber": "0001",
            "Hardware": "gateway-a1",
            "InitialVersion": "1.0.0",
            "RingGroup": "iot-fleet-0a1b2c3d-broad",
            "ThingName": THING,
            "ThingType": "iot-fleet-0a1b2c3d-gateway",
            "Attribute::line": "3",
            "Attribute::site": "hall-4",
        },
    }
    assert world.record().status is SerialStatus.CLAIMED
    assert world.iot.asked == 0, "a thing that nobody had is in no group: one call less"
    assert (world.table.reads - 1, world.table.writes) == (1, 1)
    assert lines(capsys) == [
        {
            "_aws": {
                "Timestamp": int(NOW * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": "IotOta",
                        "Dimensions": [["Suffix"]],
                        "Metrics": [
                            {"Name": "ClaimsAllowed", "Unit": "Count"},
                            {"Name": "ClaimsRefused", "Unit": "Count"},
                        ],
                    }
                ],
            },
            "Suffix": "0a1b2c3d",
            "ClaimsAllowed": 1,
            "ClaimsRefused": 0,
            "outcome": "allowed",
            "reason": "",
            "serial": "0001",
            "claimCertificate": BY,
            "certificate": CERTIFICATE,
        }
    ]


def test_a_device_that_lost_the_answer_gets_the_same_again(world: World) -> None:
    world.add()
    first = world.hook.answer(asks(), NOW)
    world.iot.of[THING] = []  # the registration broke off before it was in its ring
    assert world.hook.answer(asks(), NOW + 5) == first
    assert world.table.writes == 1
    again = asks(certificateId="e" * 64, certificatePem=make_pem(make_key(), serial=7))
    assert world.hook.answer(again, NOW + 9) == first
    claim = world.record().claim
    assert claim is not None
    assert (claim.certificate, claim.at) == ("e" * 64, NOW)
    late = world.hook.answer(again, NOW + CLAIM_SECONDS + 1)
    assert late == {"allowProvisioning": False}


def test_another_key_never_gets_a_claimed_serial(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.add()
    world.hook.answer(asks(), NOW)
    before = world.record()
    thief = asks(certificateId="f" * 64, certificatePem=make_pem(make_key(1)))
    assert world.hook.answer(thief, NOW + 1) == {"allowProvisioning": False}
    assert world.record() == before
    assert lines(capsys)[-1]["reason"] == "claimed"


def test_a_released_serial_is_another_keys_and_its_thing_stays_in_its_ring(world: World) -> None:
    world.add(status=SerialStatus.RELEASED)
    world.iot.of[THING] = ["a-group-of-theirs", "iot-fleet-0a1b2c3d-canary"]
    answer = world.hook.answer(asks(certificatePem=make_pem(make_key(1))), NOW)
    assert answer["parameterOverrides"]["RingGroup"] == "iot-fleet-0a1b2c3d-canary"


def test_a_thing_in_quarantine_stays_there(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.add(status=SerialStatus.RELEASED)
    world.iot.of[THING] = ["iot-fleet-0a1b2c3d-quarantine"]
    assert world.hook.answer(asks(), NOW) == {"allowProvisioning": False}
    assert world.record().status is SerialStatus.RELEASED, "a refused claim writes nothing"
    assert lines(capsys)[-1]["reason"] == "quarantined"


def test_twenty_at_once_and_one_has_it(world: World) -> None:
    world.add()
    pems = [make_pem(make_key(number)) for number in range(4)]
    events = [
        asks(certificateId=f"{number:064x}", certificatePem=pems[number % 4])
        for number in range(20)
    ]
    barrier = threading.Barrier(len(events))

    def ask(event: dict[str, Any]) -> bool:
        barrier.wait()
        while True:
            try:
                return bool(world.hook.answer(event, NOW)["allowProvisioning"])
            except Overtaken:
                continue  # to the device it is a refusal, and it asks again

    with ThreadPoolExecutor(len(events)) as pool:
        allowed = [event for event, ok in zip(events, pool.map(ask, events), strict=True) if ok]
    assert len({event["certificatePem"] for event in allowed}) == 1, "one key, and no other"
    claim = world.record().claim
    assert claim is not None
    assert claim.certificate in {event["certificateId"] for event in allowed}


def test_a_claim_that_is_overtaken_is_judged_anew(world: World) -> None:
    world.add()
    thief = asks(certificateId="f" * 64, certificatePem=make_pem(make_key(1)))
    world.table.before_put = [lambda: world.hook.answer(thief, NOW)]
    assert world.hook.answer(asks(), NOW) == {"allowProvisioning": False}
    claim = world.record().claim
    assert claim is not None
    assert claim.certificate == "f" * 64


def test_a_record_that_is_written_again_and_again_is_an_error_in_the_end(world: World) -> None:
    world.add()

    def touch() -> None:
        item = world.table.items["0001"]
        world.table.items["0001"] = {
            **item,
            "revision": {"N": str(int(item["revision"]["N"]) + 1)},
        }

    world.table.before_put = [touch] * CLAIM_WRITES
    with pytest.raises(Overtaken):
        world.hook.answer(asks(), NOW)
    assert world.record().status is SerialStatus.UNCLAIMED


def test_a_hook_that_broke_off_after_its_write_answers_the_next_time(world: World) -> None:
    """DynamoDB wrote, and its answer was lost."""
    world.add()
    world.table.after_put = ReadTimeoutError(endpoint_url="https://dynamodb")
    with pytest.raises(ReadTimeoutError):
        world.hook.answer(asks(), NOW)
    world.table.after_put = None
    assert world.hook.answer(asks(), NOW + 3)["allowProvisioning"]


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "AccessDeniedException"]
)
def test_what_aws_refuses_is_an_error_for_the_alarm(world: World, code: str) -> None:
    world.add()
    world.table.before_put = [refuse(code, "PutItem")]
    with pytest.raises(ClientError, match=code):
        world.hook.answer(asks(), NOW)
    assert world.record().status is SerialStatus.UNCLAIMED


def test_a_record_that_is_none_is_an_error_and_no_permission(world: World) -> None:
    world.add()
    world.table.items["0001"]["record"] = {"S": '{"serial": "0001", "status": "open"}'}
    with pytest.raises(DecodeError):
        world.hook.answer(asks(), NOW)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (None, ClaimRefusal.CLAIM_CERTIFICATE),
        (asks(claimCertificateId="b" * 64), ClaimRefusal.CLAIM_CERTIFICATE),
        (asks(clientId="0001"), ClaimRefusal.CLIENT_ID),
        (asks(parameters={"SerialNumber": "9999"}, clientId="claim.9999"), ClaimRefusal.UNKNOWN),
        (asks(certificatePem="-----BEGIN"), ClaimRefusal.MALFORMED),
        (asks(parameters={"SerialNumber": "\x1b[31m" + "x" * 9999}), ClaimRefusal.MALFORMED),
        (asks(parameters={"SerialNumber": "0001", "RingGroup": "x"}), ClaimRefusal.MALFORMED),
    ],
)
def test_a_refusal_is_counted_and_told_by_a_fixed_reason(
    world: World, capsys: pytest.CaptureFixture[str], event: Any, reason: ClaimRefusal
) -> None:
    world.add()
    assert world.hook.answer(event, NOW) == {"allowProvisioning": False}
    text = capsys.readouterr().out
    [line] = [json.loads(each) for each in text.splitlines()]
    assert (line["ClaimsRefused"], line["ClaimsAllowed"], line["reason"]) == (1, 0, reason)
    assert len(text) < 1000
    assert text.strip().isprintable()
    assert text.isascii()
    assert "BEGIN" not in text, "no certificate is logged"
    assert world.table.writes == 0


def test_no_certificate_is_logged_nor_what_poses_as_an_id(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.add()
    secret = "a token, or worse"
    for event in (asks(), asks(certificateId=secret), asks(claimCertificateId=secret)):
        world.hook.answer({**event, "certificateOwnershipToken": secret}, NOW)
    text = capsys.readouterr().out
    assert secret not in text
    assert "BEGIN" not in text


def test_every_call_gives_up_within_the_time_that_aws_iot_waits() -> None:
    attempts = QUICK_CONFIG.retries["total_max_attempts"]
    assert (QUICK_CONFIG.connect_timeout, QUICK_CONFIG.read_timeout, attempts) == (1, 1, 2)
    assert HOOK_SECONDS < 5


def test_lambda_s_entry_reads_its_environment_and_the_clock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add()
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(provisioning, "clients", lambda: world.clients)
    assert provisioning.handler(asks(), None)["allowProvisioning"]
    assert world.record().status is SerialStatus.CLAIMED
