"""What `device` tells of one device."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

import ops.main
import ops.stack
from ops.device_report import DeviceReport, ExecutionReport, report_device
from ops.render import render_device
from ops.text import format_time
from rollout.codec import encode
from rollout.orders import Orders, WaiverOrder
from rollout.release import Firmware
from rollout.serial import Serial
from tests.unit.ops_cloud import (
    BACK_JOB,
    CANDIDATE_JOB,
    GOING_BACK,
    GOOD,
    NAMES,
    NEW,
    NOW,
    PERSON,
    PROVED,
    PROVING,
    STACK,
    WAY_BACK,
    OpsAws,
    offer,
)
from tests.unit.serials_cloud import SerialsAws, certificate_of, claimed

THING = "fleet-0123abcd-0001"
OLD_JOB = NAMES.job("canary", 100)
CERTIFICATE = "c1" * 32


@pytest.fixture
def aws() -> OpsAws:
    made = OpsAws()
    made.remember(PROVING)
    made.groups[THING] = ["fleet-0123abcd-canary", "somebody-elses-group"]
    made.certificates[THING] = [CERTIFICATE]
    runs(made, GOOD, 100)
    made.executions[OLD_JOB, "SUCCEEDED"] = [THING]
    return made


def runs(aws: OpsAws, firmware: Firmware, sequence: int) -> None:
    reported = {"version": str(firmware.version), "sha256": firmware.sha256, "sequence": sequence}
    aws.shadows[THING] = {
        "state": {"reported": {"contract": 1, "firmware": reported, "hardware": "gateway-a1"}},
        "metadata": {"reported": {"firmware": {"version": {"timestamp": NOW - 30}}}},
    }


def report(aws: OpsAws, name: str = THING) -> DeviceReport:
    return report_device(aws.channel(), STACK, name)


def test_a_device_that_has_not_taken_its_job(aws: OpsAws) -> None:
    aws.executions[CANDIDATE_JOB, "QUEUED"] = [THING]
    found = report(aws, "0001")
    assert (found.thing, found.ring) == (THING, "canary")
    assert found.should_run == offer("canary", 200)
    assert [job.job for job in found.jobs] == [CANDIDATE_JOB, OLD_JOB], "the newest first"
    assert found.jobs[0] == ExecutionReport(
        job=CANDIDATE_JOB,
        thing=THING,
        number=1,
        ring="canary",
        sequence=200,
        description=f"firmware for {CANDIDATE_JOB}",
        status="QUEUED",
        queued_at=NOW - 90,
        started_at=None,
        last_updated_at=NOW - 90,
        details={},
    )
    assert list(found.why) == [
        "it runs 2.2.0, it should run 2.3.0: it has not taken the job: it is offline, or busy with"
        " another"
    ]


@pytest.mark.parametrize(
    ("status", "details", "why"),
    [
        ("IN_PROGRESS", {"step": "downloading"}, "it is at it (step downloading)"),
        ("FAILED", {"reason": "self-test failed"}, "self-test failed"),
        ("REJECTED", {"reason": "hardware differs"}, "rejected: hardware differs"),
        ("CANCELED", {}, "its job was cancelled before it began"),
        ("REMOVED", {}, "removed"),
    ],
)
def test_why_a_device_does_not_run_what_it_should(
    aws: OpsAws, status: str, details: dict[str, str], why: str
) -> None:
    aws.executions[CANDIDATE_JOB, status] = [THING]
    aws.details[CANDIDATE_JOB, THING] = details
    assert list(report(aws).why) == [f"it runs 2.2.0, it should run 2.3.0: {why}"]


def test_a_device_without_the_job_and_one_that_is_up_to_date(aws: OpsAws) -> None:
    assert list(report(aws).why) == [
        "it runs 2.2.0, it should run 2.3.0; AWS has not given it that job"
    ]
    runs(aws, NEW, 200)
    assert list(report(aws).why) == ["it runs 2.3.0, as it should"]


@pytest.mark.parametrize(("done_at", "does"), [(None, "brings"), (NOW, "brought")])
def test_an_exposed_device_names_the_rollback(
    aws: OpsAws, done_at: float | None, does: str
) -> None:
    offers = GOING_BACK.offers if done_at is None else GOING_BACK.offers[:2]
    back = replace(WAY_BACK, done_at=done_at)
    aws.remember(replace(GOING_BACK, way_back=back, offers=offers))
    aws.groups[THING].append(NAMES.rollback_group(300))
    aws.executions[BACK_JOB, "SUCCEEDED"] = [THING]
    runs(aws, GOOD, 301)
    waived = WaiverOrder(thing=THING, order=PERSON, group=300)
    aws.order(Orders(waived=(waived,)))
    found = report(aws)
    assert found.should_run
    sequence = 301 if done_at is None else 100
    assert (found.rollbacks, found.should_run.sequence) == ((300,), sequence)
    waiver = f"it need not come back, says {PERSON.by}: the radio drops"
    assert list(found.why) == [
        "it runs 2.2.0, as it should",
        (
            f"it was exposed to a release that was taken back; rollback-300 {does} it back to"
            " 2.2.0, from 2.3.0"
        ),
        *([waiver] if done_at is None else []),
    ]


def test_a_device_of_no_ring_that_never_reported(aws: OpsAws) -> None:
    aws.groups[THING], aws.shadows = [], {}
    found = report(aws)
    assert (found.reported, found.should_run) == (None, None)
    assert list(found.why) == [
        "it is in no ring of this stack, so no release reaches it",
        "it has never reported what it runs",
    ]
    aws.shadows[THING] = {"state": {"reported": {"firmware": "none of your business"}}}
    assert report(aws).reported is None


def test_without_the_controllers_state_the_rest_is_told(aws: OpsAws) -> None:
    del aws.objects[NAMES.keys.state]
    found = report(aws)
    assert found.reported
    assert found.reported.version == "2.2.0"
    assert list(found.why) == [
        "what it should run cannot be told: state.json is missing although it was there"
    ]


def test_a_person_reads_it(aws: OpsAws) -> None:
    aws.executions[CANDIDATE_JOB, "FAILED"] = [THING]
    aws.details[CANDIDATE_JOB, THING] = {"reason": "self-test failed"}
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(render_device(report(aws), NOW), soft_wrap=True)
    message = captured.get()
    assert "  it runs 2.2.0, it should run 2.3.0: self-test failed\nRing        canary\n" in message
    assert (
        f"Runs        2.2.0 (sha256 {GOOD.sha256[:12]}...), sequence 100, hardware gateway-a1,"
        " contract 1, reported " in message
    )
    assert f"  {CANDIDATE_JOB}: FAILED, " in message
    assert "\n    self-test failed\n" in message


def test_json_is_the_report_and_an_unknown_thing_one_line(
    aws: OpsAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ops.stack, "open_stack", aws.open)
    assert ops.main.main(["device", "0001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == encode(report(aws))
    assert ops.main.main(["device", "0002"]) == 1
    assert (
        capsys.readouterr().err
        == "device: there is no thing 0002 in eu-west-1, none with this serial; the stack's"
        " declared devices are 0001\n"
    )


# Serials and certificates


@pytest.fixture
def provisioned(monkeypatch: pytest.MonkeyPatch) -> SerialsAws:
    """A stack whose devices come by claim; the device of 7 has come."""
    made = SerialsAws()
    made.remember(PROVED)
    record = claimed("7", ring="canary", attributes={"site": "lab"}).note("added", PERSON)
    made.register(record)
    thing = NAMES.thing("7")
    made.groups[thing] = ["fleet-0123abcd-canary"]
    made.attributes[thing] = {"serial": "7"}
    made.certificates[thing] = [certificate_of("7"), CERTIFICATE]
    made.statuses[CERTIFICATE] = "INACTIVE"
    made.policies[certificate_of("7")] = ["telemetry", "fleet-0123abcd-device"]
    monkeypatch.setattr(ops.stack, "open_stack", made.open)
    return made


def story(aws: SerialsAws, name: str) -> DeviceReport:
    return report_device(aws.channel(), aws.stack, name)


def shown(report: DeviceReport) -> list[str]:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(render_device(report, NOW), soft_wrap=True)
    return captured.get().splitlines()


def test_a_serial_s_whole_story(provisioned: SerialsAws) -> None:
    found = story(provisioned, "7")
    assert found == story(provisioned, NAMES.thing("7")), "by its serial as by its thing"
    assert (found.thing, found.serial, found.ring) == (NAMES.thing("7"), "7", "canary")
    assert found.registered == provisioned.record("7")
    assert {(one.status, one.policies) for one in found.certificates} == {
        ("ACTIVE", ("telemetry", "fleet-0123abcd-device")),
        ("INACTIVE", ()),
    }
    assert list(found.why) == ["it has never reported what it runs"]
    lines = shown(found)
    own, at = certificate_of("7")[:12], format_time(NOW - 600)
    assert [line for line in lines if line.startswith(("Serial", "Claimed", "Cert", "    "))] == [
        "Serial      7: claimed (ring canary, site lab)",
        f"Claimed     {at}, by claim certificate {'b' * 12}..., for key {'a' * 12}...",
        f"            added by {PERSON.by}, {format_time(PERSON.at)}: the radio drops",
        *sorted(
            [
                f"Certificate {own}... ACTIVE (of the claim), telemetry, fleet-0123abcd-device",
                f"Certificate {CERTIFICATE[:12]}... INACTIVE, no policy",
            ]
        ),
    ]


def test_a_serial_that_no_device_has(provisioned: SerialsAws) -> None:
    provisioned.register(Serial(serial="8").block(PERSON))
    found = story(provisioned, "8")
    assert (found.thing, found.serial) == (None, "8")
    assert list(found.why) == ["its serial is blocked: nobody may claim it"]
    assert shown(found)[:3] == [
        "8: no thing",
        "  its serial is blocked: nobody may claim it",
        "Serial      8: blocked",
    ]
    assert not [line for line in shown(found) if line.startswith(("Ring", "Jobs"))]
    provisioned.register(Serial(serial="9"))
    assert list(story(provisioned, "9").why) == ["no device has claimed its serial yet"]


def test_a_claimed_serial_whose_thing_is_gone(provisioned: SerialsAws) -> None:
    del provisioned.groups[NAMES.thing("7")], provisioned.attributes[NAMES.thing("7")]
    assert list(story(provisioned, "7").why) == [
        f"its thing {NAMES.thing('7')} is not there (any more)"
    ]


@pytest.mark.parametrize(
    ("statuses", "why"),
    [
        (["ACTIVE", "REVOKED"], []),
        (["INACTIVE", "REVOKED"], ["none of its certificates is active, so it cannot connect"]),
        (["DELETED"], ["its thing has no certificate, so it cannot connect"]),
    ],
)
def test_why_a_device_cannot_connect(
    provisioned: SerialsAws, statuses: list[str], why: list[str]
) -> None:
    thing = NAMES.thing("7")
    provisioned.certificates[thing] = [f"{n}" * 64 for n in range(len(statuses))]
    for certificate, status in zip(provisioned.certificates[thing], statuses, strict=True):
        provisioned.statuses[certificate] = status
    assert list(story(provisioned, "7").why) == ["it has never reported what it runs", *why]


def test_a_thing_of_another_origin_is_found_in_the_registry_by_its_attribute(
    provisioned: SerialsAws,
) -> None:
    provisioned.groups["truck-12"], provisioned.attributes["truck-12"] = [], {"serial": "7"}
    provisioned.certificates["truck-12"] = [CERTIFICATE]
    provisioned.statuses.clear()
    found = story(provisioned, "truck-12")
    assert found.registered == provisioned.record("7")
    assert found.why[-1] == f"its serial is claimed by another thing, {NAMES.thing('7')}"
    provisioned.attributes["truck-12"] = {"serial": "T-12"}
    assert "Serial      T-12, in no registry of this stack" in shown(story(provisioned, "T-12"))
    provisioned.attributes["truck-12"] = {}
    assert not [line for line in shown(story(provisioned, "truck-12")) if "Serial" in line]


def test_what_is_neither_thing_nor_serial(
    provisioned: SerialsAws, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ops.main.main(["device", "nobody"]) == 1
    assert capsys.readouterr().err == (
        "device: there is no thing nobody in eu-west-1, none with this serial, and none in the"
        " registry fleet-0123abcd-serials; the stack's declared devices are 0001\n"
    )
    provisioned.denied = {"GetItem"}
    assert ops.main.main(["device", "7"]) == 1
    assert "you need the permission dynamodb:GetItem" in capsys.readouterr().err
