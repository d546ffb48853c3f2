"""What `status` tells: its keys, its exit code, and that a person sees what they need."""

from __future__ import annotations

import dataclasses
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

import ops.failures
import ops.main
import ops.report
import ops.stack
from ops.failures import MAX_SAMPLE, describe_failure
from ops.render import render_status
from ops.report import ENDS_WHEN, FINE, NEEDED, UNKNOWN, Report, Reporter
from rollout.codec import camel_case, encode
from rollout.names import ROLLBACK
from rollout.observed import Counts
from rollout.orders import ApprovalOrder, Orders, ResumeOrder
from rollout.state import NEEDS_A_PERSON, Event, Halt, Rollback, State, Waiting
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
    OpsAws,
    offer,
)

CANDIDATE_JOB = NAMES.job("canary", 200)
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
SOAKING = replace(
    PROVING,
    waiting=Waiting(kind="soak", text="soaks for 60 minutes", ring="canary", until=NOW + 1800),
    decisions=(
        Event(
            at=NOW - 600,
            what="started",
            why="10 % of the fleet",
            ring="canary",
            version=NEW.version,
        ),
    ),
)
IDLE = replace(
    PROVED, waiting=Waiting(kind="nothing", text="every ring runs the last good release")
)


@pytest.fixture
def aws() -> OpsAws:
    made = OpsAws()
    made.publish(MANIFEST)
    made.heartbeat = NOW - 40
    made.raise_alarms(no_heartbeat="OK", ring_failing="OK")
    return made


def text(found: Report, *, ascii_only: bool = False) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(render_status(found, ascii_only=ascii_only), soft_wrap=True)
    return captured.get()


def keys(kind: Any, at: str = "") -> set[str]:
    """The paths of the keys that a dataclass of the report has in JSON; a list's items are `[]`."""
    found = set()
    for name, hint in typing.get_type_hints(kind).items():
        path = f"{at}{camel_case(name)}"
        found.add(path)
        inside = f"{path}[]." if typing.get_origin(hint) is tuple else f"{path}."
        for part in (hint, *typing.get_args(hint)):
            if getattr(part, "__module__", "") in (ops.report.__name__, ops.failures.__name__):
                found |= keys(part, inside)
    return found


def test_the_documented_keys_are_the_keys() -> None:
    """docs/operations.md lists them: what scripts may rely on."""
    section = OPERATIONS.read_text().split("## `status --json`")[1].split("\n## ")[0]
    documented = {
        key
        for row in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
        for key in re.findall(r"`([^`]+)`", row)
    }
    assert documented == keys(Report)
    for field in (*dataclasses.fields(Counts), *dataclasses.fields(Event)):
        assert f"`{camel_case(field.name)}`" in section


def test_a_report_is_json_whatever_it_holds(aws: OpsAws) -> None:
    back = Rollback(
        offer=offer(300, GOOD), failed="2.2.5", reason="bad", exposing_jobs=(), started_at=NOW - 900
    )
    aws.remember(
        replace(
            SOAKING, sequence=300, rollback=back, halt=Halt(id="200-1", why="by hand", at=NOW - 5)
        )
    )
    aws.job(NAMES.job(ROLLBACK, 300), armed=False, Succeeded=1)
    aws.job(CANDIDATE_JOB, Failed=1)
    aws.executions[CANDIDATE_JOB, "FAILED"] = ["fleet-0123abcd-0001"]
    approval = ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON)
    orders = Orders(
        paused=PERSON, halted=PERSON, approvals=(approval,), resume=ResumeOrder(order=PERSON)
    )
    aws.order(orders)
    found = json.loads(json.dumps(encode(aws.report())))
    assert found["rings"][0]["deadlineAt"] == NOW - 600 + 1440 * 60
    assert found["lastGood"]["version"] == "2.2.0"
    assert found["orders"] == encode(orders)
    assert "until" not in found["controller"], "what is not known is left out"


def test_json_is_the_report(
    aws: OpsAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(IDLE)
    monkeypatch.setattr(ops.stack, "open_stack", aws.open)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert ops.main.main(["--stack", "prod", "status", "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == encode(aws.report())


def test_a_person_reads_what_is_proved_what_it_waits_for_and_until_when(aws: OpsAws) -> None:
    aws.remember(SOAKING)
    aws.job(CANDIDATE_JOB, Queued=1, InProgress=2, Succeeded=16, Failed=1)
    message = text(aws.report())
    assert "Channel stable of fleet-0123abcd (eu-west-1)" in message
    assert "Fine: nobody is needed." in message
    assert re.search(
        r"Release     2\.3\.0 \(sha256 \w{12}\.\.\.\), proving, sequence 200, since .+, 10 min ago",
        message,
    )
    assert re.search(
        r"Waits for   ring canary: soaks for 60 minutes \(until .+, in 30 min\)", message
    )
    assert re.search(r"Last good   2\.2\.0 \(sha256 \w{12}\.\.\.\); before it 2\.1\.0", message)
    assert re.search(
        r"canary +proving +2\.3\.0 +█+✗▒+· +16 succeeded, 1 failed, 2 in progress, 1 queued",
        message,
    )
    assert re.search(r"broad +waiting +2\.2\.0", message)
    assert (
        "finished 85 % of at least 90 %, succeeded 84.2 % of at least 95 % and 16 of at least 1"
        in message
    )
    assert (
        "fails above 10 % failed or timed out, once 3 have finished: now 5.9 %; the soak of 1 h has"
        " not begun" in message
    )
    assert "needs an approval: not given yet" in message
    assert re.search(r"OK +fleet-0123abcd-ring-failing since .+, a gate's: hold", message)
    assert re.search(r"started 2\.3\.0 canary: 10 % of the fleet", message)
    assert re.search(
        r"canary +proving +2\.3\.0 +#+x~+\. +16 succeeded", text(aws.report(), ascii_only=True)
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_times_are_told_in_local_time_and_in_utc(
    aws: OpsAws, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        aws.remember(IDLE)
        message = text(aws.report())
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert (
        "2026-11-24 06:00:00 UTC" if zone == "UTC" else "2026-11-24 07:00:00 CET (06:00:00 UTC)"
    ) in message


NEEDS: list[tuple[str, Callable[[OpsAws], object], str]] = [
    ("ordered halt", lambda aws: aws.order(Orders(halted=PERSON)), "halted by arn:aws:sts"),
    ("ordered pause", lambda aws: aws.order(Orders(paused=PERSON)), "paused by arn:aws:sts"),
    (
        "file pauses",
        lambda aws: aws.publish(replace(MANIFEST, paused=True)),
        "rollout.paused is true there",
    ),
    (
        "file halts",
        lambda aws: aws.publish(replace(MANIFEST, halted=True)),
        "rollout.halted is true there",
    ),
    (
        "orders",
        lambda aws: aws.objects.update({NAMES.keys.orders: b"{"}),
        "control.json is unreadable",
    ),
    (
        "lost",
        lambda aws: aws.objects.pop(NAMES.keys.state),
        "halted: state.json is missing although jobs",
    ),
    (
        "silent",
        lambda aws: setattr(aws, "heartbeat", NOW - 900),
        "the controller has not run for 15 min",
    ),
    (
        "long silent",
        lambda aws: setattr(aws, "heartbeat", None),
        "the controller has not run for an hour or more",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in NEEDS], ids=[case[0] for case in NEEDS]
)
def test_the_exit_code_says_that_a_person_is_needed(
    aws: OpsAws, change: Callable[[OpsAws], object], message: str
) -> None:
    aws.remember(IDLE)
    assert aws.report().code == FINE
    change(aws)
    found = aws.report()
    assert found.code == NEEDED
    assert [need for need in found.needs if message in need], found.needs
    assert f"A person is needed:\n  - {found.needs[0]}\n" in text(found)


def test_the_controllers_own_halt_comes_with_the_command_that_ends_it(aws: OpsAws) -> None:
    aws.remember(replace(IDLE, halt=Halt(id="9-9", why="job x was cancelled", at=NOW)))
    found = aws.report()
    assert (found.code, found.needs) == (
        NEEDED,
        ("halted: job x was cancelled; `python -m ops resume --stack prod` ends it",),
    )
    assert (
        "Halt        9-9: job x was cancelled. It ends with `python -m ops resume --stack prod`"
        in text(found)
    )


@pytest.mark.parametrize("kind", sorted(typing.get_args(typing.get_type_hints(Waiting)["kind"])))
def test_every_kind_of_waiting_says_what_ends_it_and_whether_a_person_does(
    aws: OpsAws, kind: Any
) -> None:
    aws.remember(replace(IDLE, waiting=Waiting(kind=kind, text="so it is", ring="canary")))
    found = aws.report()
    assert found.ends_when == ENDS_WHEN[kind]
    assert found.code == (NEEDED if kind in NEEDS_A_PERSON else FINE)
    assert f"| `{kind}` |" in OPERATIONS.read_text(), "docs/operations.md tells every kind"


def test_an_approval_that_is_waited_for_comes_with_its_command(aws: OpsAws) -> None:
    aws.remember(
        replace(
            PROVING,
            waiting=Waiting(
                kind="approval", text="a person must approve ring canary", ring="canary"
            ),
        )
    )
    assert list(aws.report().needs) == [
        "a person must approve ring canary: `python -m ops approve canary --stack prod`"
    ]


def test_before_the_first_run_nothing_can_be_told(aws: OpsAws) -> None:
    aws.heartbeat = None
    found = aws.report()
    assert (found.code, found.needs, found.release) == (UNKNOWN, (), None)
    assert "Cannot tell: the controller has not run yet." in text(found)


def test_a_failed_rollback_is_the_first_thing_said(aws: OpsAws) -> None:
    back = Rollback(
        offer=offer(300, GOOD),
        failed="2.3.0",
        reason="bad",
        exposing_jobs=(CANDIDATE_JOB,),
        started_at=NOW - 60,
    )
    aws.remember(
        replace(
            IDLE,
            sequence=300,
            rollback=back,
            stable={"canary": offer(300, GOOD), "broad": offer(100, GOOD)},
        )
    )
    own = NAMES.job(ROLLBACK, 300)
    aws.job(own, armed=False, Failed=1, Rejected=2, Succeeded=5)
    aws.job(NAMES.job("canary", 300), armed=False, Succeeded=4)
    aws.executions[own, "FAILED"] = ["fleet-0123abcd-0007"]
    aws.executions[own, "REJECTED"] = ["fleet-0123abcd-0008", "fleet-0123abcd-0009"]
    aws.details[own, "fleet-0123abcd-0007"] = {"reason": "flash write error"}
    found = aws.report()
    assert found.rollback
    assert found.needs[0].startswith("the rollback failed on 3 devices: see the reasons")
    assert (
        found.rollback.failing,
        found.rollback.returned,
        found.rollback.whole_rings,
    ) == (3, 9, ("canary",))
    assert [ring.phase for ring in found.rings] == ["going back", "last good"]
    message = text(found)
    assert "flash write error: fleet-0123abcd-0007" in message
    assert (
        "rejected, and the device gave no reason: fleet-0123abcd-0008, fleet-0123abcd-0009"
        in message
    )


def test_reasons_are_a_sample_of_at_most_fifty_and_asked_for_once(aws: OpsAws) -> None:
    aws.remember(SOAKING)
    aws.job(CANDIDATE_JOB, Failed=400, TimedOut=30)
    aws.executions[CANDIDATE_JOB, "FAILED"] = [f"t{n}" for n in range(400)]
    aws.executions[CANDIDATE_JOB, "TIMED_OUT"] = [f"u{n}" for n in range(30)]
    aws.details |= {(CANDIDATE_JOB, f"t{n}"): {"reason": "self-test failed"} for n in range(400)}
    aws.details |= {(CANDIDATE_JOB, f"u{n}"): {"step": "downloading"} for n in range(30)}
    reporter = Reporter(aws.channel(), STACK)
    found = reporter.report(NOW)
    assert aws.made.count("describe_job_execution") == MAX_SAMPLE
    assert (found.failures.devices, found.failures.sampled) == (430, 50)
    assert [line.reason for line in found.failures.reasons] == [
        "self-test failed",
        "timed out, last heard of at step downloading",
    ]
    assert len(found.failures.reasons[0].examples) == 3
    assert "a sample of 50 of 430 devices" in text(found)
    reporter.report(NOW + 5)
    assert aws.made.count("describe_job_execution") == MAX_SAMPLE, (
        "a finished execution does not change: `--watch` does not ask again"
    )


@pytest.mark.parametrize(
    ("status", "details", "message"),
    [
        ("FAILED", {"reason": "sha256 differs"}, "sha256 differs"),
        ("REJECTED", {"reason": "stale sequence"}, "rejected: stale sequence"),
        ("TIMED_OUT", {}, "timed out, and the device gave no reason"),
    ],
)
def test_a_reason_is_the_device_s_own_where_it_gave_one(
    status: str, details: dict[str, str], message: str
) -> None:
    assert describe_failure(status, details) == message


def test_what_a_device_says_cannot_steer_the_terminal(aws: OpsAws) -> None:
    aws.remember(SOAKING)
    aws.job(CANDIDATE_JOB, Failed=1)
    aws.executions[CANDIDATE_JOB, "FAILED"] = ["t1"]
    aws.details[CANDIDATE_JOB, "t1"] = {
        "reason": "\x1b]0;owned\x07[bold]no[/bold]\nA person\r" + "x" * 999
    }
    found = aws.report()
    said = found.failures.reasons[0].reason
    assert (len(said), said.isprintable()) == (300, True)
    assert "[bold]no[/bold] A person" in text(found), "shown as it is, on one line, not as markup"


def test_an_alarm_that_does_not_exist_is_listed_as_missing(aws: OpsAws) -> None:
    aws.remember(SOAKING)
    aws.raise_alarms(no_heartbeat="ALARM")
    assert [
        (alarm.name, alarm.alarm and alarm.alarm.state, alarm.gate_action)
        for alarm in aws.report().alarms
    ] == [
        ("fleet-0123abcd-no-heartbeat", "ALARM", None),
        ("fleet-0123abcd-ring-failing", None, "hold"),
    ]
    assert "MISSING           fleet-0123abcd-ring-failing, a gate's: hold" in text(aws.report())


def test_a_manifest_that_cannot_be_read_is_told(aws: OpsAws) -> None:
    aws.remember(replace(IDLE, stable={"canary": offer(100, GOOD)}))
    aws.objects["channels/stable/release.json"] = b"{}"
    found = aws.report()
    assert found.manifest_problem
    assert "missing" in found.manifest_problem
    assert [ring.name for ring in found.rings] == ["canary"]


def test_watch_goes_on_after_an_error_and_ends_with_the_last_code(
    aws: OpsAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(IDLE)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        aws.denied = {"ListJobs"} if len(slept) == 1 else set()
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ops.stack, "open_stack", aws.open)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert ops.main.main(["status", "--watch", "--sandbox"]) == FINE
    assert slept == [5, 5, 5]


def test_a_status_that_cannot_be_had_says_why(
    aws: OpsAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ops.stack, "open_stack", aws.open)
    aws.denied = {"GetObject"}
    assert ops.main.main(["status"]) == UNKNOWN
    message = capsys.readouterr().err
    assert (
        "you need the permission s3:GetObject (and s3:ListBucket: without it a missing object looks"
        " forbidden)" in message
    )
    assert "not authorized to perform GetObject" in message, "AWS's own words too"


def test_state_has_no_field_that_status_forgot() -> None:
    """A new field of the state is either shown or listed here."""
    shown = {
        "last_good",
        "previous_good",
        "candidate",
        "stable",
        "rollback",
        "halt",
        "waiting",
        "decisions",
        "exposing_jobs",
    }
    assert set(State.__dataclass_fields__) == shown | {
        "schema",
        "sequence",
        "refused",
        "versions",
        "halts",
    }
