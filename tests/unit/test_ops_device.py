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
from rollout.codec import encode
from rollout.orders import Orders, WaiverOrder
from rollout.release import Firmware
from tests.unit.ops_cloud import (
    BACK_JOB,
    CANDIDATE_JOB,
    GOING_BACK,
    GOOD,
    NAMES,
    NEW,
    NOW,
    PERSON,
    PROVING,
    STACK,
    WAY_BACK,
    OpsAws,
    offer,
)

THING = "fleet-0123abcd-0001"
OLD_JOB = NAMES.job("canary", 100)


@pytest.fixture
def aws() -> OpsAws:
    made = OpsAws()
    made.remember(PROVING)
    made.groups[THING] = ["fleet-0123abcd-canary", "somebody-elses-group"]
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
        == "device: there is no thing 0002 in eu-west-1; the stack's declared devices are 0001\n"
    )
