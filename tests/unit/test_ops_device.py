"""What `device` tells of one device."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

import ops.__main__
from ops import show
from ops.channel import Channel
from ops.device import device_report
from rollout.release import Firmware, state_key
from rollout.rings import RESERVED
from rollout.state import Rollback
from tests.unit.ops_cloud import GOOD, NAMES, NEW, NOW, PROVED, PROVING, STACK, Cloud, offer

THING = "fleet-0123abcd-0001"
CANDIDATE_JOB, OLD_JOB, BACK_JOB = (
    NAMES.job("canary", 200),
    NAMES.job("canary", 100),
    NAMES.job(RESERVED, 300),
)
BACK = Rollback(
    offer=offer(300, GOOD),
    failed="2.3.0",
    reason="bad",
    exposing=(CANDIDATE_JOB,),
    started_at=NOW - 60,
)


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.remember(PROVING)
    made.groups[THING] = ["fleet-0123abcd-canary", "somebody-elses-group"]
    runs(made, GOOD, 100)
    made.executions[OLD_JOB, "SUCCEEDED"] = [THING]
    return made


def runs(cloud: Cloud, firmware: Firmware, sequence: int) -> None:
    reported = {"version": firmware.version, "sha256": firmware.sha256, "sequence": sequence}
    cloud.shadows[THING] = {
        "state": {"reported": {"firmware": reported, "hardware": "gateway-a1"}},
        "metadata": {"reported": {"firmware": {"version": {"timestamp": NOW - 30}}}},
    }


def report(cloud: Cloud, name: str = THING) -> dict[str, Any]:
    return device_report(Channel(STACK, cloud.connect), name)


def test_a_device_that_has_not_taken_its_job(cloud: Cloud) -> None:
    cloud.executions[CANDIDATE_JOB, "QUEUED"] = [THING]
    found = report(cloud, "0001")
    assert set(found) == {"thing", "ring", "reported", "shouldRun", "rollbacks", "jobs", "why"}
    assert (found["thing"], found["ring"]) == (THING, "canary")
    assert found["shouldRun"] == {"version": "2.3.0", "sha256": NEW.sha256, "sequence": 200}
    assert [job["job"] for job in found["jobs"]] == [CANDIDATE_JOB, OLD_JOB], "the newest first"
    assert set(found["jobs"][0]) == {
        "job",
        "ring",
        "sequence",
        "description",
        "status",
        "queuedAt",
        "startedAt",
        "lastUpdatedAt",
        "details",
        "why",
    }
    assert found["why"] == [
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
    cloud: Cloud, status: str, details: dict[str, str], why: str
) -> None:
    cloud.executions[CANDIDATE_JOB, status] = [THING]
    cloud.details[CANDIDATE_JOB, THING] = details
    assert report(cloud)["why"] == [f"it runs 2.2.0, it should run 2.3.0: {why}"]


def test_a_device_without_the_job_and_one_that_is_up_to_date(cloud: Cloud) -> None:
    assert report(cloud)["why"] == [
        "it runs 2.2.0, it should run 2.3.0; AWS has not given it that job"
    ]
    runs(cloud, NEW, 200)
    assert report(cloud)["why"] == ["it runs 2.3.0, as it should"]


@pytest.mark.parametrize(("done_at", "does"), [(None, "brings"), (NOW, "brought")])
def test_an_exposed_device_names_the_rollback(
    cloud: Cloud, done_at: float | None, does: str
) -> None:
    cloud.remember(replace(PROVED, sequence=300, rollback=replace(BACK, done_at=done_at)), BACK_JOB)
    cloud.groups[THING].append("fleet-0123abcd-stable-rollback-300")
    cloud.executions[BACK_JOB, "SUCCEEDED"] = [THING]
    runs(cloud, GOOD, 300)
    found = report(cloud)
    assert (found["rollbacks"], found["shouldRun"]["sequence"]) == ([300], 300)
    assert found["why"] == [
        "it runs 2.2.0, as it should",
        (
            f"it was exposed to a release that was taken back; rollback-300 {does} it back to"
            " 2.2.0, after 2.3.0 failed"
        ),
    ]


def test_a_device_of_no_ring_that_never_reported(cloud: Cloud) -> None:
    cloud.groups[THING], cloud.shadows = [], {}
    found = report(cloud)
    assert (found["reported"], found["shouldRun"]) == (None, None)
    assert found["why"] == [
        "it is in no ring of this stack, so no release reaches it",
        "it has never reported what it runs",
    ]
    cloud.shadows[THING] = {"state": {"reported": {"firmware": "none of your business"}}}
    assert report(cloud)["reported"] is None


def test_without_the_controllers_memory_the_rest_is_told(cloud: Cloud) -> None:
    del cloud.objects[state_key("stable")]
    found = report(cloud)
    assert found["reported"]["version"] == "2.2.0"
    assert found["why"] == [
        "what it should run cannot be told: state.json is missing although jobs of the channel"
        " exist"
    ]


def test_a_person_reads_it(cloud: Cloud) -> None:
    cloud.executions[CANDIDATE_JOB, "FAILED"] = [THING]
    cloud.details[CANDIDATE_JOB, THING] = {"reason": "self-test failed"}
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(show.device(report(cloud), NOW), soft_wrap=True)
    told = captured.get()
    assert "  it runs 2.2.0, it should run 2.3.0: self-test failed\nRing        canary\n" in told
    assert (
        f"Runs        2.2.0 (sha256 {GOOD.sha256[:12]}...), sequence 100, hardware gateway-a1,"
        " reported " in told
    )
    assert f"  {CANDIDATE_JOB}: FAILED, " in told
    assert "\n    self-test failed\n" in told


def test_json_is_the_report_and_an_unknown_thing_one_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ops.__main__, "open_source", lambda _args: (STACK, cloud.connect))
    assert ops.__main__.main(["device", "0001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report(cloud)
    assert ops.__main__.main(["device", "0002"]) == 1
    assert (
        capsys.readouterr().err
        == "device: there is no thing 0002 in eu-west-1; the stack's declared devices are 0001\n"
    )
