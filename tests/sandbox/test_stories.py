"""Whole stories on the deployed stack: what releases, people and alarms lead to, as devices and
jobs show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from device.agent import Device, DeviceConfig
from ops.local_aws import ACCOUNT
from rollout.job_document import parse_statement
from rollout.names import Variable
from rollout.state import State
from tests.sandbox.fleet import (
    BROAD,
    CANARY,
    Fleet,
    everybody,
    is_back_from,
    refused,
    ring_of,
    wait_for,
)


@pytest.fixture(autouse=True)
def quiet(fleet: Fleet) -> None:
    """Each story begins and ends with nothing on its way: the next one can build on that."""
    assert fleet.state.waiting.kind in (
        "nothing",
        "refused",
    ), f"an earlier story left: {fleet.state.waiting.text}"
    fleet.connect()


def sequence_of(job: str) -> str:
    return job.rsplit("-", 1)[1]


def rings_offered(fleet: Fleet, version: str) -> set[str]:
    """The rings that were offered this version, the rollback's too."""
    jobs = fleet.sandbox.channel.jobs.get_all(fleet.jobs())
    about = f"{version} for ring "
    return {ring_of(fleet, name) for name, job in jobs.items() if job.description.startswith(about)}


def good_version(state: State) -> str:
    assert state.last_good is not None
    return str(state.last_good.version)


# Releases


def test_a_release_reaches_every_device_ring_by_ring(fleet: Fleet) -> None:
    before = fleet.live_jobs()
    state = fleet.release("2.2.0")
    canary, broad = fleet.job("canary"), fleet.job("broad")
    assert fleet.executions(canary) == dict.fromkeys(CANARY, "SUCCEEDED")
    assert fleet.executions(broad) == dict.fromkeys(BROAD, "SUCCEEDED")
    assert fleet.live_jobs() == sorted([canary, broad]), "what later joiners get"
    assert {fleet.jobs()[job] for job in before} == {"CANCELED"}, (
        "what was proved before has been replaced"
    )
    reported = fleet.reported()
    assert {firmware.version for firmware in reported.values()} == {"2.2.0"}
    for ring, job in ((CANARY, canary), (BROAD, broad)):
        assert {str(reported[serial].sequence) for serial in ring} == {sequence_of(job)}
    story = [(event.what, event.ring) for event in state.decisions][-5:]
    assert story == [
        ("started", "canary"),
        ("passed", "canary"),
        ("started", "broad"),
        ("passed", "broad"),
        ("last-good", None),
    ]


def test_a_bad_release_is_stopped_in_canary_and_who_had_it_is_brought_back(fleet: Fleet) -> None:
    good = good_version(fleet.state)
    before, live = fleet.reported(), fleet.live_jobs()
    digest = fleet.ship("2.3.0", bad=True)
    state = fleet.went_back("2.3.0")
    assert state.way_back is not None
    (source,) = state.way_back.sources
    bad = source.job
    assert fleet.executions(bad) == dict.fromkeys(CANARY, "FAILED")
    assert fleet.details(bad, "0001")["reason"] == "self-test failed"
    assert rings_offered(fleet, "2.3.0") == {"canary"}, "the next ring was never offered it"
    assert fleet.jobs()[bad] == "CANCELED"

    way_back = fleet.job("rollback")
    assert fleet.brought_back(state) == CANARY, "who was exposed, and nobody else"
    assert fleet.executions(way_back) == dict.fromkeys(CANARY, "SUCCEEDED")
    fleet.wake()
    assert fleet.live_jobs() == live, "a way back that is over leaves nothing"
    assert fleet.sandbox.channel.rollback_groups.sequences() == frozenset()
    after = fleet.reported()
    assert {firmware.version for firmware in after.values()} == {good}
    assert {serial: after[serial] for serial in BROAD} == {
        serial: before[serial] for serial in BROAD
    }, "never touched"
    assert {str(after[serial].sequence) for serial in CANARY} == {sequence_of(way_back)}
    assert digest in refused(state)
    assert good_version(state) == good


def test_a_refused_image_is_never_offered_again(fleet: Fleet) -> None:
    jobs = fleet.jobs()
    answer = fleet.wake()
    assert (answer["kind"], answer["did"]) == ("refused", [])
    assert "2.3.0 with this digest is refused" in answer["waiting"]
    assert fleet.jobs() == jobs


def test_an_old_rollbacks_document_is_refused_when_it_is_replayed(fleet: Fleet) -> None:
    assert fleet.state.way_back is not None, "the bad release's"
    iot, old = fleet.client("iot"), fleet.job("rollback")
    fleet.release("2.4.0")
    document = iot.get_job_document(jobId=old)["document"]
    assert parse_statement(json.loads(document)["release"]).downgrade
    role = fleet.sandbox.names.presign_role
    iot.create_job(
        jobId="replay",
        targets=[f"arn:aws:iot:{fleet.region}:{ACCOUNT}:thing/{fleet.thing('0001')}"],
        document=document,
        presignedUrlConfig={"roleArn": f"arn:aws:iam::{ACCOUNT}:role/{role}", "expiresInSec": 60},
    )
    wait_for(
        "the answer", lambda: fleet.executions("replay")["0001"] not in ("QUEUED", "IN_PROGRESS")
    )
    assert (fleet.executions("replay")["0001"], fleet.details("replay", "0001")["reason"]) == (
        "FAILED",
        "other job",
    )
    assert fleet.runs() == everybody("2.4.0")


# git revert


def test_the_revert_of_a_good_release_brings_the_old_one_back(fleet: Fleet) -> None:
    good = good_version(fleet.state)
    fleet.release("2.5.0")
    assert fleet.runs() == everybody("2.5.0")
    state = fleet.release(good)
    assert fleet.runs() == everybody(good)
    assert fleet.executions(fleet.job("canary")) == dict.fromkeys(CANARY, "SUCCEEDED"), (
        "ring by ring, as any release"
    )
    assert state.previous_good is not None
    assert state.previous_good.sha256 not in refused(state), "it was not bad"
    fleet.no_ring_has_two_jobs()


def test_the_revert_of_a_release_that_is_out_takes_it_back_from_who_has_it_and_nobody_else(
    fleet: Fleet,
) -> None:
    good = good_version(fleet.state)
    fleet.disconnect("0002")
    digest = fleet.ship("2.6.0")
    fleet.until(
        "0001 to have it",
        lambda s: s.candidate and fleet.executions(fleet.job("canary"))["0001"] == "SUCCEEDED",
    )
    assert fleet.waits("coverage").waiting.ring == "canary"
    assert fleet.runs() == everybody(good) | {"0001": "2.6.0"}
    fleet.ship(good)
    state = fleet.went_back("2.6.0")
    assert fleet.brought_back(state) == ("0001",), "0002 was offered it and never began"
    assert fleet.runs() == everybody(good)
    assert (state.candidate, digest in refused(state)) == (None, False), "taken back, not refused"
    fleet.connect("0002")
    fleet.release("2.6.0")
    assert fleet.runs() == everybody("2.6.0"), "so it may be released again"
    assert fleet.executions(fleet.job("canary")) == dict.fromkeys(CANARY, "SUCCEEDED")


# Alarms


def set_alarm(fleet: Fleet, name: str, state: str) -> None:
    fleet.client("cloudwatch").set_alarm_state(
        AlarmName=name, StateValue=state, StateReason="a test"
    )


def watched_by(name: str, action: str) -> dict[str, Any]:
    return {"canary": {"alarms": [{"name": name, "action": action}]}}


def test_an_alarm_of_another_team_holds_the_next_ring_while_it_is_red(fleet: Fleet) -> None:
    good = good_version(fleet.state)
    fleet.client("cloudwatch").put_metric_alarm(
        AlarmName="shop-errors",
        Namespace="Shop",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    set_alarm(fleet, "shop-errors", "ALARM")
    watched = watched_by("shop-errors", "hold")
    watched["canary"]["soakMinutes"] = 0.2  # so that it is red again before the canary could pass
    fleet.ship("2.7.0", gates=watched)
    assert "was red before ring canary started" in fleet.waits("alarms").waiting.text
    assert fleet.state.candidate is None
    set_alarm(fleet, "shop-errors", "OK")
    fleet.until("canary to start", lambda s: s.candidate)
    set_alarm(fleet, "shop-errors", "ALARM")
    state = fleet.waits("alarms")
    assert (state.waiting.text, state.waiting.ring) == ("alarm shop-errors is in ALARM", "canary")
    assert fleet.runs() == everybody(good) | dict.fromkeys(CANARY, "2.7.0"), "held, not taken back"
    set_alarm(fleet, "shop-errors", "OK")
    fleet.proved("2.7.0")
    assert fleet.runs() == everybody("2.7.0")


def test_an_alarm_of_the_stack_that_is_set_to_roll_back_rolls_back(fleet: Fleet) -> None:
    good, alarm = (
        good_version(fleet.state),
        fleet.sandbox.outputs["alarmNames"]["controller-errors"],
    )
    set_alarm(fleet, alarm, "OK")
    gates = watched_by("stack:controller-errors", "rollback")
    fleet.ship("2.8.0", gates={"canary": {**gates["canary"], "approval": True}})
    fleet.waits("approval")

    def went_back(state: State) -> bool:
        set_alarm(
            fleet, alarm, "ALARM"
        )  # again and again: MiniStack looks at its alarms whenever a metric comes in
        return is_back_from(state, "2.8.0")

    state = fleet.until("the way back", went_back)
    why = "ring canary: alarm stack:controller-errors went off after ring canary started"
    assert why in refused(state).values()
    assert fleet.brought_back(state) == CANARY
    assert fleet.runs() == everybody(good)


# People


def test_the_stack_file_pauses_halts_and_approves(fleet: Fleet) -> None:
    good, approval = good_version(fleet.state), {"canary": {"approval": True}}
    fleet.ship("2.9.0", gates=approval, paused=True)
    assert fleet.waits("paused").candidate is None
    digest = fleet.ship("2.9.0", gates=approval)
    fleet.waits("approval")
    job = fleet.job("canary")
    fleet.ship("2.9.0", gates=approval, halted=True)
    fleet.waits("halted")
    assert fleet.jobs()[job] == "CANCELED"
    assert fleet.runs() == everybody(good) | dict.fromkeys(CANARY, "2.9.0"), (
        "a halt brings nobody back"
    )
    fleet.ship("2.9.0", gates=approval, approvals=[{"ring": "canary", "sha256": digest}])
    fleet.proved("2.9.0")
    assert fleet.job("canary") != job, "offered anew"
    assert fleet.runs() == everybody("2.9.0")


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_a_job_that_was_ended_by_hand_stays_so_until_resume(fleet: Fleet, how: str) -> None:
    good = good_version(fleet.state)
    version = {"cancelled": "2.10.0", "deleted": "2.11.0"}[how]
    iot = fleet.client("iot")
    fleet.ship(version, gates={"canary": {"approval": True}})
    fleet.waits("approval")
    job, proved = fleet.job("canary"), fleet.job_of_last_good("broad")
    if how == "cancelled":
        iot.cancel_job(jobId=job)
    else:
        iot.delete_job(jobId=job, force=True)
        iot.delete_job(jobId=proved, force=True)
    state = fleet.waits("halted")
    assert "a person" in state.waiting.text
    jobs = fleet.jobs()
    for _ in range(3):
        assert fleet.wake()["did"] == []
    assert fleet.jobs() == jobs, "people win"
    assert fleet.runs() == everybody(good) | dict.fromkeys(CANARY, version)
    assert "offered to ring canary again" in fleet.ops("resume")
    fleet.waits("approval")
    fleet.ops("approve", "canary")
    fleet.proved(version)
    assert fleet.runs() == everybody(version)
    fleet.no_ring_has_two_jobs()


# Later


@pytest.fixture
def newcomer(fleet: Fleet) -> Iterator[DeviceConfig]:
    """A device that no stack declared, with the stack's policy, on its factory image."""
    iot, outputs, thing = (
        fleet.client("iot"),
        fleet.sandbox.outputs,
        fleet.sandbox.names.thing("9999"),
    )
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName=thing, thingTypeName=outputs["thingTypeName"])
    iot.attach_policy(policyName=outputs["devicePolicyName"], target=made["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    born = {
        **vars(fleet.configs["0005"]),
        "thing": thing,
        "serial": "9999",
        "folder": fleet.instance.folder / "devices" / "9999",
    }
    config = DeviceConfig(
        **{
            **born,
            "certificate_pem": made["certificatePem"],
            "private_key_pem": made["keyPair"]["PrivateKey"],
        }
    )
    device = Device(config)
    device.start()
    yield config
    device.stop()


def test_a_thing_that_joins_a_ring_later_gets_what_the_ring_runs(
    fleet: Fleet, newcomer: DeviceConfig
) -> None:
    good, jobs = good_version(fleet.state), fleet.jobs()
    group = fleet.sandbox.outputs["ringGroupNames"]["broad"]
    fleet.client("iot").add_thing_to_thing_group(thingGroupName=group, thingName=newcomer.thing)
    executions = wait_for(
        "its execution",
        lambda: (e := fleet.executions(fleet.job("broad"))).get("9999") == "SUCCEEDED" and e,
    )
    assert executions == dict.fromkeys((*BROAD, "9999"), "SUCCEEDED")
    shadow = json.load(
        fleet.client("iot-data").get_thing_shadow(thingName=newcomer.thing)["payload"]
    )
    assert shadow["state"]["reported"]["firmware"]["version"] == good
    assert fleet.jobs() == jobs, "through the ring's own job, without the controller"
    fleet.client("iot").remove_thing_from_thing_group(
        thingGroupName=group, thingName=newcomer.thing
    )


def test_no_ring_waits_for_a_window_that_nobody_set(fleet: Fleet) -> None:
    """A ring whose gate is open starts in the very run that sees it: on AWS each further run is a
    minute."""
    assert [answer["waiting"] for answer in fleet.answers if answer.get("kind") == "window"] == []


def test_destroying_the_stack_ends_its_jobs_and_groups(fleet: Fleet) -> None:
    fleet.disconnect()
    fleet.ship("2.12.0", bad=True)
    fleet.until("canary's job", lambda s: (p := s.proof("canary")) and p.seen)
    job = fleet.job("canary")
    fleet.connect()
    wait_for("the failures", lambda: fleet.executions(job) == dict.fromkeys(CANARY, "FAILED"))
    fleet.disconnect()
    fleet.until("the way back", lambda s: (o := s.returning()) and o.seen)
    iot, outputs = fleet.client("iot"), fleet.sandbox.outputs
    prefix = fleet.sandbox.names.rollback_group_prefix

    def groups() -> list[str]:  # MiniStack does not filter them
        return [
            g["groupName"]
            for g in iot.list_thing_groups()["thingGroups"]
            if g["groupName"].startswith(prefix)
        ]

    before = groups()
    assert len(before) == 1, "of the way back that is open; those of earlier ones are removed"
    live = fleet.live_jobs()
    assert len(live) == 3, "two rings' and the rollback's"
    events, tick = fleet.client("events"), fleet.sandbox.names.tick
    events.remove_targets(Rule=tick, Ids=["controller"])
    events.delete_rule(Name=tick)  # as the provider does, before it calls
    destroy = json.dumps({"tf": {"action": "delete", "prev_input": {}}})
    function = {"FunctionName": outputs["controllerName"]}
    answer = fleet.client("lambda").invoke(**function, Payload=destroy)
    said = json.load(answer["Payload"])["errorMessage"]
    assert "5 in its thing groups" in said, "they came by claim, and nobody has let them go"
    assert fleet.live_jobs() == live
    declare(fleet, 5)
    answer = fleet.client("lambda").invoke(**function, Payload=destroy)
    assert json.load(answer["Payload"]) == {
        "outcome": "ended",
        "jobs": live,
        "groups": before,
        "failed": [],
    }
    assert fleet.state.ended, "a stack made again over what was kept knows who ended its jobs"
    assert fleet.live_jobs() == []
    assert groups() == []


def declare(fleet: Fleet, devices: int) -> None:
    """The stack has declared so many of its devices."""
    aws, name = fleet.client("lambda"), fleet.sandbox.outputs["controllerName"]
    variables = aws.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    changed = {"Variables": {**variables, Variable.DECLARED_DEVICES: str(devices)}}
    aws.update_function_configuration(FunctionName=name, Environment=changed)
