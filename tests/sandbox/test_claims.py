"""Devices come in by claim where policies are enforced, and whoever has a claim certificate tries
what it does not give."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest

from components.function_code import function_code
from device.agent import PowerCut
from device.claiming import (
    ClaimConnection,
    Claiming,
    ClaimRefused,
    ClaimStep,
    Identity,
    IssuedCertificate,
    make_csr,
    make_key,
)
from device.mqtt import Stopped, Unreachable
from rollout.names import StackOutput
from rollout.serial import Serial, SerialStatus
from sandbox import session
from sandbox.factory import CLAIM, CLAIM_KEY
from sandbox.handlers.serverless import archive
from tests.sandbox.conftest import free_instance
from tests.sandbox.fleet import CANARY, EVERYBODY, Fleet, wait_for
from tests.sandbox.intruder import Intruder

AT_ONCE = 20
SOON = 0.2
"""Seconds, the longest wait of a device in these tests."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The stack with five devices that came in, and were switched off."""
    instance = free_instance(tmp_path_factory.mktemp("claims") / "sandbox")
    try:
        yield Fleet(instance)
    finally:
        session.down(instance)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that try again at once."""
    monkeypatch.setattr("device.claiming.draw_wait", lambda bound: min(bound, SOON))


@pytest.fixture
def serial(fleet: Fleet, request: pytest.FixtureRequest) -> str:
    """One that is in the registry, and no other test's."""
    name = re.sub(r"[^a-z]+", "-", request.node.name)[-40:]
    fleet.add_serials(broad=[name])
    return name


def claim_identity(fleet: Fleet) -> tuple[str, str]:
    """What an attacker takes out of one device in its box."""
    certificates = fleet.sandbox.outputs[StackOutput.CLAIM_CERTIFICATES]
    return certificates[CLAIM], (fleet.instance.folder / CLAIM_KEY).read_text()


def intruder(fleet: Fleet, client_id: str) -> Intruder:
    """A client with the claim certificate."""
    authority = fleet.sandbox.process.certificate_authority()
    return Intruder(fleet.instance.mqtt_port, authority, client_id, claim_identity(fleet))


@dataclass(frozen=True)
class Newcomer:
    """A connection with the claim certificate, and a key."""

    iot: ClaimConnection
    serial: str
    key: str

    def certificate(self) -> IssuedCertificate:
        return self.iot.request_certificate(make_csr(self.key, self.serial))

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to any request for registration."""
        topic = f"$aws/provisioning-templates/{self.iot._config.template}/provision/json"
        return self.iot.ask(topic, request).body


@contextmanager
def newcomer(
    fleet: Fleet, serial: str, key: str | None = None, client_id: str | None = None
) -> Iterator[Newcomer]:
    config = fleet.sandbox.factory.build(serial, print, print)._config
    name = client_id or f"claim.{serial}"
    iot = ClaimConnection(config, name, *claim_identity(fleet), lambda _: None)
    iot.start()
    try:
        yield Newcomer(iot, serial, key or make_key())
    finally:
        iot.close()


def record(fleet: Fleet, serial: str) -> Serial | None:
    stored = fleet.sandbox.registry.get(serial)
    return stored.record if stored else None


def story(fleet: Fleet, serial: str) -> list[str]:
    found = record(fleet, serial)
    return [event.what for event in found.events] if found else []


def things(fleet: Fleet) -> set[str]:
    pages = fleet.client("iot").get_paginator("list_things").paginate()
    return {thing["thingName"] for page in pages for thing in page["things"]}


def principals(fleet: Fleet, thing: str) -> list[str]:
    """The ids of a thing's certificates."""
    found = fleet.client("iot").list_thing_principals(thingName=thing)["principals"]
    return [arn.rpartition("/")[2] for arn in found]


def certificate_of(fleet: Fleet, certificate_id: str) -> dict[str, Any]:
    answer = fleet.client("iot").describe_certificate(certificateId=certificate_id)
    return dict(answer["certificateDescription"])


def log_tells(fleet: Fleet, serial: str, outcome: str) -> bool:
    """Whether the hook's log comes to tell this of a serial. MiniStack may keep a line until the
    process that wrote it is called again, one of as many as there were calls at once."""

    def told() -> bool:
        if outcome in read_log(fleet, serial):
            return True
        name, lambda_ = fleet.sandbox.names.provisioning_hook, fleet.client("lambda")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in range(AT_ONCE):
                pool.submit(lambda_.invoke, FunctionName=name, Payload=b"{}")
        return False

    wait_for(f"{outcome} in the log", told)
    return True


def read_log(fleet: Fleet, serial: str) -> list[str]:
    """The outcomes of a serial's claims, or why they were refused."""
    group = fleet.sandbox.names.provisioning_hook_log
    logs, found = fleet.client("logs"), []
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        words = {"logGroupName": group, "logStreamName": stream["logStreamName"]}
        for event in logs.get_log_events(**words, startFromHead=True)["events"]:
            assert "CERTIFICATE" not in event["message"], "no certificate is logged"
            lines = [line for line in event["message"].splitlines() if line.startswith("{")]
            told = [one for one in map(json.loads, lines) if one.get("serial") == serial]
            found += [one["reason"] or one["outcome"] for one in told]
    return found


# Who may come in


def test_a_device_that_came_in_is_a_whole_one(fleet: Fleet, serial: str) -> None:
    device, iot, names = fleet.claim(serial), fleet.client("iot"), fleet.sandbox.names
    thing = iot.describe_thing(thingName=device.thing)
    assert (device.thing, thing["thingTypeName"]) == (
        names.thing(serial),
        fleet.sandbox.outputs[StackOutput.THING_TYPE_NAME],
    )
    assert thing["attributes"] == {
        "hardware": "gateway-a1",
        "initialVersion": "2.0.0",
        "serial": serial,
        "site": "sandbox",
    }
    groups = iot.list_thing_groups_for_thing(thingName=device.thing)["thingGroups"]
    assert [group["groupName"] for group in groups] == [names.ring_group("broad")]
    [certificate] = principals(fleet, device.thing)
    described = certificate_of(fleet, certificate)
    assert (described["status"], described["certificatePem"]) == (
        "ACTIVE",
        device.certificate_pem,
    )
    policies = iot.list_attached_policies(target=described["certificateArn"])["policies"]
    assert [policy["policyName"] for policy in policies] == [names.device_policy]
    claimed = record(fleet, serial)
    assert claimed
    assert claimed.claim
    assert (claimed.status, claimed.claim.thing, claimed.claim.certificate) == (
        SerialStatus.CLAIMED,
        device.thing,
        certificate,
    )
    assert log_tells(fleet, serial, "allowed")
    assert sorted(path.name for path in device.folder.iterdir()) == ["device.key", "identity.json"]


@pytest.mark.parametrize("step", get_args(ClaimStep))
def test_a_power_cut_at_each_step_costs_nothing(fleet: Fleet, serial: str, step: ClaimStep) -> None:
    built = fleet.sandbox.factory.build(serial, print, print)
    with pytest.raises(PowerCut):
        Claiming(built._config, die_at=step).run()
    device = fleet.claim(serial)
    mine = {certificate_of(fleet, one)["certificatePem"] for one in principals(fleet, device.thing)}
    assert mine == {device.certificate_pem}
    with Intruder(
        fleet.instance.mqtt_port,
        device.ca_pem,
        device.thing,
        (device.certificate_pem, device.private_key_pem),
    ) as own:
        assert own.connected()


def test_an_unknown_a_blocked_and_a_claimed_serial_are_refused(fleet: Fleet, serial: str) -> None:
    fleet.add_serials(broad=["to-be-blocked"])
    fleet.ops("serials", "block", "to-be-blocked")
    taken, before = CANARY[0], things(fleet)
    held = record(fleet, taken)
    for name, reason in (
        ("nobody-knows-me", "unknown"),
        ("to-be-blocked", "blocked"),
        (taken, "claimed"),
    ):
        with newcomer(fleet, name) as thief:
            issued = thief.certificate()
            with pytest.raises(ClaimRefused, match="AccessDenied"):
                thief.iot.register(issued.token)
            with pytest.raises(ClaimRefused, match="AccessDenied"):
                thief.iot.register(issued.token)
        assert log_tells(fleet, name, reason)
    assert things(fleet) == before
    assert record(fleet, taken) == held
    assert principals(fleet, fleet.thing(taken)) == [held.claim.certificate]  # type: ignore[union-attr]
    fleet.ops("serials", "unblock", "to-be-blocked")
    assert fleet.claim("to-be-blocked").thing == fleet.sandbox.names.thing("to-be-blocked")


def test_of_twenty_that_claim_one_serial_at_once_one_has_it(
    fleet: Fleet, serial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a key of its own, and all under the one client id that the hook takes: AWS IoT lets
    one connection have it at a time, and the others come again."""
    monkeypatch.setattr("device.mqtt.REQUEST_TIMEOUT_SECONDS", 2)
    monkeypatch.setattr("device.mqtt.RECONNECT_MILLISECONDS", (100, 2_000))
    won, refused = list[Identity](), set[int]()

    def try_it(number: int) -> None:
        """Until it has the serial, or is refused."""
        copy = replace(fleet.instance, folder=fleet.instance.folder / f"thief-{number}")
        copy.create()
        copy.write(CLAIM_KEY, claim_identity(fleet)[1])

        def on_trouble(text: str) -> None:
            if "AccessDenied" in text:
                refused.add(number)
                thief.stop()

        factory = replace(fleet.sandbox.factory, instance=copy)
        thief = factory.build(serial, lambda _: None, on_trouble)
        with suppress(Stopped):
            won.append(thief.run())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(try_it, range(AT_ONCE)))
    assert (len(won), len(refused)) == (1, AT_ONCE - 1)
    [winner] = won
    claimed = record(fleet, serial)
    assert claimed
    assert claimed.claim
    [certificate] = principals(fleet, winner.thing)
    assert claimed.claim.certificate == certificate
    assert certificate_of(fleet, certificate)["certificatePem"] == winner.certificate_pem


def test_a_device_that_lost_its_certificate_gets_the_same_thing_with_the_same_key_only(
    fleet: Fleet, serial: str
) -> None:
    key = make_key()
    with newcomer(fleet, serial, key) as device:
        first = device.iot.register(device.certificate().token)
    with newcomer(fleet, serial, key) as device:
        assert device.iot.register(device.certificate().token) == first
    with newcomer(fleet, serial) as thief, pytest.raises(ClaimRefused, match="AccessDenied"):
        thief.iot.register(thief.certificate().token)
    assert story(fleet, serial) == ["added", "claimed", "claimed again"]
    assert len(principals(fleet, first)) == 2
    fleet.ops("serials", "release", serial)
    with newcomer(fleet, serial) as other:
        assert other.iot.register(other.certificate().token) == first
    states = [certificate_of(fleet, one)["status"] for one in principals(fleet, first)]
    assert states.count("ACTIVE") == 1, "the released device's certificates are out of use"


# What a claim certificate does not open


def test_a_claim_certificate_connects_as_no_device(fleet: Fleet) -> None:
    names = fleet.sandbox.names
    for client_id in (
        *(fleet.thing(serial) for serial in EVERYBODY),
        names.thing("nobody"),
        "anything",
        "claim",
        "claim-0001",
        "+",
        "#",
    ):
        with intruder(fleet, client_id) as me:
            assert not me.connected(), client_id
    with intruder(fleet, "claim.anything") as me:
        assert me.connected(), "as one that claims it may"


def test_a_claim_certificate_opens_the_way_in_and_nothing_else(fleet: Fleet) -> None:
    victim, template = fleet.thing(CANARY[0]), fleet.sandbox.names.provisioning_template
    mine = "claim.anything"
    publish = [
        "$aws/certificates/create/json",
        "$aws/certificates/create/cbor",
        "$aws/certificates/create-from-csr/json/accepted",
        f"$aws/provisioning-templates/{template}/provision/json/accepted",
        f"$aws/provisioning-templates/{template}x/provision/json",
        "$aws/provisioning-templates/any/provision/json",
        *(
            f"$aws/things/{thing}/{tail}"
            for thing in (victim, mine)
            for tail in (
                "jobs/$next/get",
                "jobs/start-next",
                "jobs/some-job/update",
                "shadow/get",
                "shadow/update",
            )
        ),
        "$aws/events/job/some-job/canceled",
        "$aws/rules/any",
        "fleet/all",
    ]
    listen = [
        "#",
        "$aws/#",
        "$aws/certificates/#",
        "$aws/certificates/create/json/accepted",
        "$aws/provisioning-templates/#",
        "$aws/provisioning-templates/+/provision/json/accepted",
        f"$aws/things/{victim}/jobs/notify-next",
        f"$aws/things/{victim}/shadow/#",
        f"$aws/things/{mine}/jobs/notify-next",
        "$aws/things/#",
        "$aws/events/#",
        "fleet/all",
    ]
    with intruder(fleet, mine) as me:
        assert me.connected()
        assert me.may_subscribe("$aws/certificates/create-from-csr/json/accepted")
        assert me.may_subscribe(
            f"$aws/provisioning-templates/{template}/provision/json/rejected"
        ), "this it may"
        assert [topic for topic in publish if me.may_publish(topic)] == []
        assert [topic_filter for topic_filter in listen if me.may_subscribe(topic_filter)] == []


def test_no_other_template_takes_a_device_by_this_claim(fleet: Fleet, serial: str) -> None:
    """Not even one that asks nobody."""
    iot, names = fleet.client("iot"), fleet.sandbox.names
    ours = iot.describe_provisioning_template(templateName=names.provisioning_template)
    iot.create_provisioning_template(
        templateName="another",
        templateBody=ours["templateBody"],
        enabled=True,
        provisioningRoleArn=ours["provisioningRoleArn"],
    )
    with newcomer(fleet, serial) as thief:
        token = thief.certificate().token
        topic = "$aws/provisioning-templates/another/provision/json"
        with pytest.raises(Unreachable):
            thief.iot.ask(topic, {"certificateOwnershipToken": token, "parameters": {}})
    iot.delete_provisioning_template(templateName="another")
    assert record(fleet, serial).status is SerialStatus.UNCLAIMED  # type: ignore[union-attr]


def test_a_claim_certificate_that_was_retired_opens_nothing(fleet: Fleet, serial: str) -> None:
    iot, certificate = fleet.client("iot"), claim_identity(fleet)[0]
    [own] = [
        one["certificateId"]
        for one in iot.list_certificates(pageSize=100)["certificates"]
        if certificate_of(fleet, one["certificateId"])["certificatePem"] == certificate
    ]
    iot.update_certificate(certificateId=own, newStatus="INACTIVE")
    try:
        with intruder(fleet, f"claim.{serial}") as me:
            assert not me.connected()
    finally:
        iot.update_certificate(certificateId=own, newStatus="ACTIVE")
    assert fleet.claim(serial).thing == fleet.sandbox.names.thing(serial)


# What is asked is no request


def test_malformed_oversized_and_repeated_requests_change_nothing(
    fleet: Fleet, serial: str
) -> None:
    names, before = fleet.sandbox.names, things(fleet)
    template = f"$aws/provisioning-templates/{names.provisioning_template}/provision/json"
    with newcomer(fleet, serial) as thief:
        token = thief.certificate().token
        for parameters in (
            {},
            {"SerialNumber": ""},
            {"SerialNumber": "two words"},
            {"SerialNumber": "../" + serial},
            {"SerialNumber": "x" * 5_000},
            {"SerialNumber": [serial]},
            {"SerialNumber": {"S": serial}},
            {"SerialNumber": CANARY[0]},
            {"SerialNumber": serial, "ThingName": fleet.thing(CANARY[0])},
            {"SerialNumber": serial, "RingGroup": names.ring_group("canary")},
            {"SerialNumber": serial, "AWS::IoT::Certificate::Id": "0" * 64},
            [serial],
            serial,
            None,
        ):
            answer = thief.ask(certificateOwnershipToken=token, parameters=parameters)
            assert "errorCode" in answer, parameters
        for wrong in (None, "", "x", "x" * 100_000, 7, [token], token + "x"):
            answer = thief.ask(certificateOwnershipToken=wrong, parameters={"SerialNumber": serial})
            assert answer["errorCode"] == "InvalidCertificateOwnershipToken", wrong
        for csr in ("", "x", "x" * 100_000, make_csr(thief.key, serial)[:-100], 7, None):
            topic = "$aws/certificates/create-from-csr/json"
            assert not thief.iot.ask(topic, {"certificateSigningRequest": csr}).is_accepted, csr
    with intruder(fleet, f"claim.{serial}") as me:
        assert me.connected()
        for payload in (b"", b"\0", b"{", b"[" * 50_000, b'{"a":' * 20_000, b"x" * 131_072):
            for topic in (template, "$aws/certificates/create-from-csr/json"):
                me.may_publish(topic, payload)
    assert things(fleet) == before
    assert record(fleet, serial).status is SerialStatus.UNCLAIMED  # type: ignore[union-attr]
    assert fleet.claim(serial).thing == names.thing(serial), "the device itself comes in"


def test_a_client_that_claims_under_anothers_client_id_is_refused(
    fleet: Fleet, serial: str
) -> None:
    with newcomer(fleet, serial, client_id="claim.somebody") as thief:

        def told() -> bool:
            with pytest.raises(ClaimRefused, match="AccessDenied"):
                thief.iot.register(thief.certificate().token)
            return "client-id" in read_log(fleet, serial)

        wait_for("client-id in the log", told)


def test_keys_that_aws_makes_reach_no_device(fleet: Fleet, serial: str) -> None:
    """The way where AWS IoT makes the key is shut: a key stays where it was made."""
    with newcomer(fleet, serial) as thief, pytest.raises(Unreachable):
        thief.iot.ask("$aws/certificates/create/json", {})


# What fails halfway


@contextmanager
def broken_hook(fleet: Fleet, what: str) -> Iterator[None]:
    """The hook, which does something else after its work."""
    name = fleet.sandbox.names.provisioning_hook
    lambda_, real = fleet.client("lambda"), archive(function_code())
    changed = io.BytesIO(real)
    with zipfile.ZipFile(changed, "a") as package:
        package.writestr(
            "broken.py",
            "from functions.provisioning import handler as real\n\n\n"
            f"def handler(event, context):\n    real(event, context)\n    {what}\n",
        )
    lambda_.update_function_code(FunctionName=name, ZipFile=changed.getvalue())
    lambda_.update_function_configuration(FunctionName=name, Handler="broken.handler")
    try:
        yield
    finally:
        lambda_.update_function_code(FunctionName=name, ZipFile=real)
        lambda_.update_function_configuration(
            FunctionName=name, Handler="functions.provisioning.handler"
        )


@pytest.mark.parametrize(
    "what", ["raise RuntimeError('halfway')", "__import__('time').sleep(8)", "return None"]
)
def test_a_hook_that_fails_after_its_write_costs_the_device_another_try(
    fleet: Fleet, serial: str, what: str
) -> None:
    key = make_key()
    with broken_hook(fleet, what), newcomer(fleet, serial, key) as device:
        issued = device.certificate()
        with pytest.raises((ClaimRefused, Unreachable)):
            device.iot.register(issued.token)
    held = record(fleet, serial)
    assert held
    assert (held.status, fleet.sandbox.names.thing(serial) in things(fleet)) == (
        SerialStatus.CLAIMED,
        False,
    )
    with newcomer(fleet, serial) as thief, pytest.raises(ClaimRefused):
        thief.iot.register(thief.certificate().token)
    with newcomer(fleet, serial, key) as device:
        assert device.iot.register(issued.token) == fleet.sandbox.names.thing(serial)
    again = record(fleet, serial)
    assert again
    assert again.claim == held.claim


def test_a_registration_that_fails_after_the_hook_costs_the_device_another_try(
    fleet: Fleet, serial: str
) -> None:
    iam, name = fleet.client("iam"), fleet.sandbox.names.provisioning_role
    [policy] = iam.list_role_policies(RoleName=name)["PolicyNames"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    told: list[str] = []

    def on_trouble(text: str) -> None:
        told.append(text)
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))

    iam.delete_role_policy(RoleName=name, PolicyName=policy)
    built = fleet.sandbox.factory.build(serial, lambda _: None, on_trouble)
    identity = built.run()
    assert told == ["refused: AccessDenied: Access Denied"]
    assert identity.thing == fleet.sandbox.names.thing(serial)
    assert story(fleet, serial) == ["added", "claimed"]


def test_a_device_waits_for_its_serial_and_comes_in_when_it_is_added(fleet: Fleet) -> None:
    told: list[str] = []
    built = fleet.sandbox.factory.build("late", lambda _: None, told.append)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(built.run)
        wait_for("a refusal", lambda: told)
        fleet.add_serials(canary=["late"])
        identity = coming.result(60)
    assert told == ["refused: AccessDenied: Access Denied"]
    assert fleet.sandbox.rings()[identity.thing] == "canary"
