"""What `status` tells: its keys, its exit code, and that a person sees what they need."""

from __future__ import annotations

import json
import re
import time
import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ops.__main__
from ops import show
from ops.channel import Channel
from ops.status import ENDS_WHEN, FINE, NEEDED, SAMPLE, UNTOLD, Reporter, reason
from rollout.release import control_key, state_key
from rollout.rings import RESERVED
from rollout.state import (
    NEEDS_A_PERSON,
    ApprovalOrder,
    Control,
    Event,
    Halt,
    ResumeOrder,
    Rollback,
    State,
    Waiting,
)
from tests.unit.ops_cloud import (
    GOOD,
    MANIFEST,
    NAMES,
    NEW,
    NOW,
    PERSON,
    PROVED,
    PROVING,
    STACK,
    Cloud,
    offer,
)

CANDIDATE_JOB = NAMES.job("canary", 200)
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
SOAKING = replace(
    PROVING,
    waiting=Waiting(kind="soak", text="soaks for 60 minutes", ring="canary", until=NOW + 1800),
    decisions=(
        Event(
            at=NOW - 600, what="started", why="10 % of the fleet", ring="canary", version="2.3.0"
        ),
    ),
)
IDLE = replace(
    PROVED, waiting=Waiting(kind="nothing", text="every ring runs the last good release")
)


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.release(MANIFEST)
    made.heartbeat = NOW - 40
    made.alarms = {"fleet-0123abcd-no-heartbeat": "OK", "fleet-0123abcd-ring-failing": "OK"}
    return made


def report(cloud: Cloud) -> dict[str, Any]:
    return Reporter(Channel(STACK, cloud.connect)).report(NOW)


def text(found: dict[str, Any], *, ascii_only: bool = False) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(show.status(found, ascii_only=ascii_only), soft_wrap=True)
    return captured.get()


def keys(value: Any, at: str = "") -> set[str]:
    """The paths of a JSON value's keys; a list's items are `[]`."""
    if isinstance(value, dict):
        return {
            path
            for key, item in value.items()
            for path in {f"{at}{key}", *keys(item, f"{at}{key}.")}
        }
    if isinstance(value, list):
        return {path for item in value for path in keys(item, f"{at[:-1]}[].")}
    return set()


def full(cloud: Cloud) -> dict[str, Any]:
    """A report in which every key has a value."""
    back = Rollback(
        offer=offer(300, GOOD), failed="2.2.5", reason="bad", exposing=(), started_at=NOW - 900
    )
    cloud.remember(
        replace(
            SOAKING, sequence=300, rollback=back, halt=Halt(id="200-1", why="by hand", at=NOW - 5)
        )
    )
    cloud.job(NAMES.job(RESERVED, 300), armed=False, Succeeded=1)
    cloud.job(CANDIDATE_JOB, Failed=1)
    cloud.executions[CANDIDATE_JOB, "FAILED"] = ["fleet-0123abcd-0001"]
    cloud.order(
        Control(
            paused=PERSON,
            halted=PERSON,
            approvals=(ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON),),
            resume=ResumeOrder(halt="100-1", order=PERSON),
        )
    )
    return report(cloud)


def test_the_documented_keys_are_the_keys(cloud: Cloud) -> None:
    """docs/operations.md lists them, one a row: the golden list of what scripts may rely on."""
    section = OPERATIONS.read_text().split("## `status --json`")[1].split("\n## ")[0]
    documented = {
        key
        for row in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
        for key in re.findall(r"`([^`]+)`", row)
    }
    found = keys(full(cloud))
    deeper = re.compile(
        r"(orders\.\w+|orders\.approvals\[\]|rollback\.(to|exposed)|rings\[\]\.gate\.\w+(\[\])?)\."
    )
    assert documented == {path for path in found if not deeper.match(path)} | {
        "orders.retry",
        "orders.rollback",
    }


def test_json_is_the_report(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(IDLE)
    monkeypatch.setattr(ops.__main__, "open_source", lambda _args: (STACK, cloud.connect))
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert ops.__main__.main(["--stack", "prod", "status", "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == report(cloud)


def test_a_person_reads_what_is_proved_what_it_waits_for_and_until_when(cloud: Cloud) -> None:
    cloud.remember(SOAKING)
    cloud.job(CANDIDATE_JOB, Queued=1, InProgress=2, Succeeded=16, Failed=1)
    told = text(report(cloud))
    assert "Channel stable of fleet-0123abcd (eu-west-1)" in told
    assert "Fine: nobody is needed." in told
    assert re.search(
        r"Release     2\.3\.0 \(sha256 \w{12}\.\.\.\), proving, sequence 200, since .+, 10 min ago",
        told,
    )
    assert re.search(r"Waits for   ring canary: soaks for 60 minutes \(until .+, in 30 min\)", told)
    assert re.search(r"Last good   2\.2\.0 \(sha256 \w{12}\.\.\.\); before it 2\.1\.0", told)
    assert re.search(
        r"canary +proving +2\.3\.0 +█+✗▒+· +1 queued, 2 in progress, 16 succeeded, 1 failed", told
    )
    assert re.search(r"broad +waiting +2\.2\.0", told)
    assert (
        "finished 85 % of at least 90 %, succeeded 84.2 % of at least 95 % and 16 of at least 1"
        in told
    )
    assert (
        "fails above 10 % failed or timed out, once 3 have finished: now 5.9 %; the soak of 1 h has"
        " not begun" in told
    )
    assert "needs an approval: not given yet" in told
    assert re.search(r"OK +fleet-0123abcd-ring-failing since .+, a gate's: hold", told)
    assert re.search(r"started 2\.3\.0 canary: 10 % of the fleet", told)
    assert re.search(
        r"canary +proving +2\.3\.0 +#+x~+\. +1 queued", text(report(cloud), ascii_only=True)
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_times_are_told_in_local_time_and_in_utc(
    cloud: Cloud, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        cloud.remember(IDLE)
        told = text(report(cloud))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert (
        "2026-11-24 06:00:00 UTC" if zone == "UTC" else "2026-11-24 07:00:00 CET (06:00:00 UTC)"
    ) in told


NEEDS: list[tuple[str, Callable[[Cloud], object], str]] = [
    ("ordered halt", lambda cloud: cloud.order(Control(halted=PERSON)), "halted by arn:aws:sts"),
    ("ordered pause", lambda cloud: cloud.order(Control(paused=PERSON)), "paused by arn:aws:sts"),
    (
        "file pauses",
        lambda cloud: cloud.release(replace(MANIFEST, paused=True)),
        "rollout.paused is true there",
    ),
    (
        "file halts",
        lambda cloud: cloud.release(replace(MANIFEST, halted=True)),
        "rollout.halted is true there",
    ),
    (
        "orders",
        lambda cloud: cloud.objects.update({control_key("stable"): b"{"}),
        "control.json is unreadable",
    ),
    (
        "lost",
        lambda cloud: cloud.objects.pop(state_key("stable")),
        "halted: state.json is missing although jobs",
    ),
    (
        "silent",
        lambda cloud: setattr(cloud, "heartbeat", NOW - 900),
        "the controller has not run for 15 min",
    ),
    (
        "long silent",
        lambda cloud: setattr(cloud, "heartbeat", None),
        "the controller has not run for an hour or more",
    ),
]


@pytest.mark.parametrize(
    ("change", "told"), [case[1:] for case in NEEDS], ids=[case[0] for case in NEEDS]
)
def test_the_exit_code_says_that_a_person_is_needed(
    cloud: Cloud, change: Callable[[Cloud], object], told: str
) -> None:
    cloud.remember(IDLE)
    assert report(cloud)["code"] == FINE
    change(cloud)
    found = report(cloud)
    assert found["code"] == NEEDED
    assert [need for need in found["needs"] if told in need], found["needs"]
    assert f"A person is needed:\n  - {found['needs'][0]}\n" in text(found)


def test_the_controllers_own_halt_comes_with_the_command_that_ends_it(cloud: Cloud) -> None:
    cloud.remember(replace(IDLE, halt=Halt(id="9-9", why="job x was cancelled", at=NOW)))
    found = report(cloud)
    assert (found["code"], found["needs"]) == (
        NEEDED,
        ["halted: job x was cancelled; `python -m ops resume --stack prod` ends it"],
    )
    assert (
        "Halt        9-9: job x was cancelled. It ends with `python -m ops resume --stack prod`"
        in text(found)
    )


@pytest.mark.parametrize("kind", sorted(typing.get_args(typing.get_type_hints(Waiting)["kind"])))
def test_every_kind_of_waiting_says_what_ends_it_and_whether_a_person_does(
    cloud: Cloud, kind: Any
) -> None:
    cloud.remember(replace(IDLE, waiting=Waiting(kind=kind, text="so it is", ring="canary")))
    found = report(cloud)
    assert found["waiting"]["endsWhen"] == ENDS_WHEN[kind]
    assert found["code"] == (NEEDED if kind in NEEDS_A_PERSON else FINE)
    assert f"| `{kind}` |" in OPERATIONS.read_text(), "docs/operations.md tells every kind"


def test_an_approval_that_is_waited_for_comes_with_its_command(cloud: Cloud) -> None:
    cloud.remember(
        replace(
            PROVING,
            waiting=Waiting(
                kind="approval", text="a person must approve ring canary", ring="canary"
            ),
        )
    )
    assert report(cloud)["needs"] == [
        "a person must approve ring canary: `python -m ops approve canary --stack prod`"
    ]


def test_before_the_first_run_nothing_can_be_told(cloud: Cloud) -> None:
    cloud.heartbeat = None
    found = report(cloud)
    assert (found["code"], found["needs"], found["release"]) == (UNTOLD, [], None)
    assert "Cannot tell: the controller has not run yet." in text(found)


def test_a_failed_rollback_is_the_first_thing_said(cloud: Cloud) -> None:
    back = Rollback(
        offer=offer(300, GOOD),
        failed="2.3.0",
        reason="bad",
        exposing=(CANDIDATE_JOB,),
        started_at=NOW - 60,
    )
    cloud.remember(
        replace(
            IDLE,
            sequence=300,
            rollback=back,
            stable={"canary": offer(300, GOOD), "broad": offer(100, GOOD)},
        )
    )
    own = NAMES.job(RESERVED, 300)
    cloud.job(own, armed=False, Failed=1, Rejected=2, Succeeded=5)
    cloud.job(NAMES.job("canary", 300), armed=False, Succeeded=4)
    cloud.executions[own, "FAILED"] = ["fleet-0123abcd-0007"]
    cloud.executions[own, "REJECTED"] = ["fleet-0123abcd-0008", "fleet-0123abcd-0009"]
    cloud.details[own, "fleet-0123abcd-0007"] = {"reason": "flash write error"}
    found = report(cloud)
    assert found["needs"][0].startswith("the rollback failed on 3 devices: see the reasons")
    assert (
        found["rollback"]["failing"],
        found["rollback"]["back"],
        found["rollback"]["wholeRings"],
    ) == (3, 9, ["canary"])
    assert [ring["phase"] for ring in found["rings"]] == ["going back", "last good"]
    told = text(found)
    assert "flash write error: fleet-0123abcd-0007" in told
    assert (
        "rejected, and the device gave no reason: fleet-0123abcd-0008, fleet-0123abcd-0009" in told
    )


def test_reasons_are_a_sample_of_at_most_fifty_and_asked_for_once(cloud: Cloud) -> None:
    cloud.remember(SOAKING)
    cloud.job(CANDIDATE_JOB, Failed=400, TimedOut=30)
    cloud.executions[CANDIDATE_JOB, "FAILED"] = [f"t{n}" for n in range(400)]
    cloud.executions[CANDIDATE_JOB, "TIMED_OUT"] = [f"u{n}" for n in range(30)]
    cloud.details |= {(CANDIDATE_JOB, f"t{n}"): {"reason": "self-test failed"} for n in range(400)}
    cloud.details |= {(CANDIDATE_JOB, f"u{n}"): {"step": "downloading"} for n in range(30)}
    reporter = Reporter(Channel(STACK, cloud.connect))
    found = reporter.report(NOW)
    assert cloud.described == SAMPLE
    assert (found["failures"]["devices"], found["failures"]["sampled"]) == (430, 50)
    assert [line["reason"] for line in found["failures"]["reasons"]] == [
        "self-test failed",
        "timed out, last heard of at step downloading",
    ]
    assert len(found["failures"]["reasons"][0]["examples"]) == 3
    assert "a sample of 50 of 430 devices" in text(found)
    reporter.report(NOW + 5)
    assert cloud.described == SAMPLE, (
        "a finished execution does not change: `--watch` does not ask again"
    )


@pytest.mark.parametrize(
    ("status", "details", "told"),
    [
        ("FAILED", {"reason": "sha256 differs"}, "sha256 differs"),
        ("REJECTED", {"reason": "stale sequence"}, "rejected: stale sequence"),
        ("TIMED_OUT", {}, "timed out, and the device gave no reason"),
    ],
)
def test_a_reason_is_the_device_s_own_where_it_gave_one(
    status: str, details: dict[str, str], told: str
) -> None:
    assert reason(status, details) == told


def test_what_a_device_says_cannot_steer_the_terminal(cloud: Cloud) -> None:
    cloud.remember(SOAKING)
    cloud.job(CANDIDATE_JOB, Failed=1)
    cloud.executions[CANDIDATE_JOB, "FAILED"] = ["t1"]
    cloud.details[CANDIDATE_JOB, "t1"] = {
        "reason": "\x1b]0;owned\x07[bold]no[/bold]\nA person\r" + "x" * 999
    }
    found = report(cloud)
    said = found["failures"]["reasons"][0]["reason"]
    assert (len(said), said.isprintable()) == (300, True)
    assert "[bold]no[/bold] A person" in text(found), "shown as it is, on one line, not as markup"


def test_an_alarm_that_does_not_exist_is_listed_as_missing(cloud: Cloud) -> None:
    cloud.remember(SOAKING)
    cloud.alarms = {"fleet-0123abcd-no-heartbeat": "ALARM"}
    assert [
        (alarm["name"], alarm["state"], alarm["gateAction"]) for alarm in report(cloud)["alarms"]
    ] == [
        ("fleet-0123abcd-no-heartbeat", "ALARM", None),
        ("fleet-0123abcd-ring-failing", "MISSING", "hold"),
    ]


def test_a_manifest_that_cannot_be_read_is_told(cloud: Cloud) -> None:
    cloud.remember(replace(IDLE, stable={"canary": offer(100, GOOD)}))
    cloud.objects["channels/stable/release.json"] = b"{}"
    found = report(cloud)
    assert "missing" in found["manifest"]["problem"]
    assert [ring["name"] for ring in found["rings"]] == ["canary"]


def test_watch_goes_on_after_an_error_and_ends_with_the_last_code(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(IDLE)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        cloud.denied = {"ListJobs"} if len(slept) == 1 else set()
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ops.__main__, "open_source", lambda _args: (STACK, cloud.connect))
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert ops.__main__.main(["status", "--watch", "--sandbox"]) == FINE
    assert slept == [5, 5, 5]


def test_a_status_that_cannot_be_had_says_why(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ops.__main__, "open_source", lambda _args: (STACK, cloud.connect))
    cloud.denied = {"GetObject"}
    assert ops.__main__.main(["status"]) == UNTOLD
    told = capsys.readouterr().err
    assert (
        "you need the permission s3:GetObject (and s3:ListBucket: without it a missing object looks"
        " forbidden)" in told
    )
    assert "not authorized to perform GetObject" in told, "AWS's own words too"


def test_state_has_no_field_that_status_forgot() -> None:
    """A new field of the state is either told or listed here."""
    told = {
        "last_good",
        "previous_good",
        "candidate",
        "stable",
        "rollback",
        "halt",
        "waiting",
        "decisions",
        "exposing",
    }
    assert set(State.__dataclass_fields__) == told | {
        "schema",
        "sequence",
        "refused",
        "versions",
        "halts",
    }
