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

import ops.exposures
import ops.failures
import ops.main
import ops.preflight_report
import ops.quarantine_report
import ops.report
import ops.stack
from cloud.cut_off import CutOff, Holding
from cloud.preflight import Inspection, Obstacle, RingCheck, Unreturnable
from ops.failures import MAX_SAMPLE, describe_failure
from ops.render import render_status
from ops.report import FINE, NEEDED, UNKNOWN, Report, Reporter
from rollout.codec import camel_case, canonical_json, encode
from rollout.gates import Measure
from rollout.observed import Counts, Returning, Source
from rollout.orders import ApprovalOrder, Orders, ResumeOrder
from rollout.state import ChannelPhase, Event, Halt, Offer, Phase, RingPhase, State
from rollout.waiting import WAITS, Waiting, needs_a_person
from tests.unit.ops_cloud import (
    BACK_JOB,
    BEFORE,
    CANDIDATE_JOB,
    GOING_BACK,
    GOOD,
    MANIFEST,
    NAMES,
    NEW,
    NOW,
    PERSON,
    PROVED,
    PROVING,
    STACK,
    WAY_BACK,
    OpsAws,
    firmware,
    offer,
    release,
    with_offers,
)

MODULES = (
    ops.report,
    ops.failures,
    ops.exposures,
    ops.preflight_report,
    ops.quarantine_report,
)
REPORTS = {module.__name__ for module in MODULES}
"""The modules whose dataclasses are documented key by key."""
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
            if getattr(part, "__module__", "") in REPORTS:
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
    parts = (Counts, Event, Measure, Returning, Source)
    for field in (field for part in parts for field in dataclasses.fields(part)):
        assert f"`{camel_case(field.name)}`" in section


def test_a_report_is_json_whatever_it_holds(aws: OpsAws) -> None:
    state = with_offers(SOAKING, *GOING_BACK.offers[3:], offer("canary", 400))
    halt = Halt(id="200-1", why="by hand", at=NOW - 5)
    aws.remember(replace(state, way_back=WAY_BACK, halt=halt))
    aws.enlist(exposed=10, placed=4, back=3, refused=3, refusals={"t1": "AccessDenied"})
    aws.job(CANDIDATE_JOB, Failed=1)
    aws.executions[CANDIDATE_JOB, "FAILED"] = ["fleet-0123abcd-0001"]
    approval = ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON)
    orders = Orders(
        paused=PERSON, halted=PERSON, approvals=(approval,), resume=ResumeOrder(order=PERSON)
    )
    aws.order(orders)
    found = json.loads(json.dumps(encode(aws.report())))
    assert found["rings"][0]["deadlineAt"] == NOW - 600 + 1440 * 60
    assert found["wayBack"]["returning"]["refusals"] == {"t1": "AccessDenied"}
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
    assert "1 of 19 that began failed or timed out, the ring fails at " in message
    assert "17 of 20 have finished, it needs 18" in message
    assert "16 of 20 have succeeded, it needs 1" in message
    assert "16 of 19 that began have succeeded, it needs 19" in message
    assert "the soak of 1 h has not begun" in message
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
        "halted: state.json is missing although it was there",
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


@pytest.mark.parametrize("kind", sorted(WAITS))
def test_every_kind_of_waiting_says_what_ends_it_and_whether_a_person_does(
    aws: OpsAws, kind: Any
) -> None:
    aws.remember(replace(IDLE, waiting=Waiting(kind=kind, text="so it is", ring="canary")))
    found = aws.report()
    assert found.ends_when == WAITS[kind].ends_when
    assert found.code == (NEEDED if needs_a_person(kind) else FINE)
    assert found.urgency == WAITS[kind].urgency


def test_the_papers_table_of_waits_is_the_code_s() -> None:
    """docs/operations.md tells every kind, when it ends, and how urgently a person is needed."""
    section = OPERATIONS.read_text().split("## What the controller waits for")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \| (\w+) \|$", section, re.MULTILINE)
    told = [(kind, ends_when, urgency) for kind, _, ends_when, urgency in rows]
    there = [
        (kind, wait.ends_when, "no" if wait.urgency == "none" else wait.urgency)
        for kind, wait in WAITS.items()
    ]
    assert told == there


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
    aws.remember(replace(GOING_BACK, halt=Halt(id="9-9", why="job x was cancelled", at=NOW)))
    aws.job(BACK_JOB, armed=False, Failed=1, Rejected=2, Succeeded=5)
    aws.executions[BACK_JOB, "FAILED"] = ["fleet-0123abcd-0007"]
    aws.executions[BACK_JOB, "REJECTED"] = ["fleet-0123abcd-0008", "fleet-0123abcd-0009"]
    aws.details[BACK_JOB, "fleet-0123abcd-0007"] = {"reason": "flash write error"}
    refused = {"fleet-0123abcd-0003": "InvalidRequestException"}
    aws.enlist(exposed=10, placed=3, back=5, refused=1, gone=1, refusals=refused)
    found = aws.report()
    assert found.way_back
    assert found.way_back.returning
    assert (found.way_back.left_behind, found.way_back.to, found.urgency) == (4, GOOD, "now")
    assert found.way_back.returning.exposed == 10
    assert found.needs[0].startswith("the rollback failed on 4 devices: see the reasons")
    assert "`python -m ops waive THING --stack prod` for one that is lost" in found.needs[0]
    assert found.needs[1].startswith("halted: ")
    assert [ring.phase for ring in found.rings] == ["going back", "last good"]
    message = text(found)
    assert "A person is needed NOW, devices run firmware that is not good:" in message
    assert f"group {NAMES.rollback_group(300)}, from {CANDIDATE_JOB}" in message
    assert "devices: 10 exposed, 8 placed in the group, 5 back, 1 refused by AWS, 1 gone" in message
    assert "AWS would not have fleet-0123abcd-0003 in the group: InvalidRequestException" in message
    assert "flash write error: fleet-0123abcd-0007" in message
    assert (
        "rejected, and the device gave no reason: fleet-0123abcd-0008, fleet-0123abcd-0009"
        in message
    )


def test_a_way_back_that_is_over_is_told_without_asking_for_its_devices(aws: OpsAws) -> None:
    aws.remember(replace(IDLE, way_back=replace(WAY_BACK, done_at=NOW - 5)))
    found = aws.report()
    assert (found.code, found.phase) == (FINE, ChannelPhase.IDLE)
    assert found.way_back
    assert found.way_back.returning is None
    assert "2.3.0 was taken back to 2.2.0" in text(found)


# Devices on firmware that is neither good nor being proved

LEFT = offer(
    "broad", 120, firmware("2.2.7"), phase=Phase.ENDED, final=Counts(succeeded=5, failed=1)
)


def left_on(state: State, standing: str, *offers: Offer) -> State:
    """The state with devices left on 2.2.7."""
    left = with_offers(state, *(offers or (LEFT,)))
    return replace(left, releases={**state.releases, **release(firmware("2.2.7"), standing)})


def exposures(aws: OpsAws, state: State) -> list[tuple[int | None, str, str]]:
    aws.remember(state)
    for one in state.offers:
        if one.phase is Phase.ENDED:
            aws.jobs.pop(NAMES.job(one.ring, one.sequence))
    found = aws.report()
    message = text(found)
    assert all(exposure.then in message for exposure in found.exposures)
    return [(exposure.devices, exposure.fate, exposure.then) for exposure in found.exposures]


def test_who_was_left_on_a_release_that_was_superseded_is_told(aws: OpsAws) -> None:
    assert exposures(aws, left_on(PROVING, "withdrawn")) == [(6, "waits", "they wait for 2.3.0")]
    found = aws.report()
    assert (found.code, found.needs) == (FINE, ()), "nobody is needed for that"
    assert "2.2.7 (withdrawn): 6 devices of broad began it; they wait for 2.3.0" in text(found)


def test_who_was_offered_the_next_release_is_proved_by_that(aws: OpsAws) -> None:
    newer = replace(LEFT, ring="canary")
    [(devices, fate, then)] = exposures(aws, left_on(PROVING, "withdrawn", newer))
    assert (devices, fate) == (6, "overtaken")
    assert then == "2.3.0 was offered to them since: it stays, or takes them back when it fails"


def test_who_returns_is_told(aws: OpsAws) -> None:
    aws.publish(replace(MANIFEST, firmware=GOOD))
    assert exposures(aws, left_on(PROVED, "withdrawn")) == [(6, "returns", "they return to 2.2.0")]
    assert exposures(aws, GOING_BACK) == [(10, "returns", "they return to 2.2.0")]


def test_devices_of_a_deleted_job_are_an_unknown_number(aws: OpsAws) -> None:
    deleted = replace(LEFT, final=None)
    assert exposures(aws, left_on(PROVING, "withdrawn", deleted))[0][0] is None
    assert "an unknown number of devices of broad began it" in text(aws.report())


def test_devices_without_a_way_back_need_a_person_now(aws: OpsAws) -> None:
    state = left_on(IDLE, "refused")
    one_way = replace(state.releases[LEFT.sha256], one_way=True)
    stuck = replace(state, releases={**state.releases, LEFT.sha256: one_way})
    [(_, fate, then)] = exposures(aws, stuck)
    assert fate == "stays"
    assert then.startswith("THEY STAY")
    found = aws.report()
    assert (found.code, found.urgency) == (NEEDED, "now")
    assert found.needs == (
        "6 devices of broad began 2.2.7, which is refused, and there is no way back: release a"
        " newer version",
    )


# What rings and channel are in


def test_what_a_ring_is_in_has_a_name() -> None:
    withdrawn = with_offers(PROVING, offer("canary", 200, phase=Phase.ENDING))
    passed = with_offers(PROVING, offer("canary", 200, phase=Phase.PASSED))
    assert [PROVING.ring_phase(ring) for ring in ("canary", "broad")] == ["proving", "waiting"]
    assert withdrawn.ring_phase("canary") is RingPhase.WITHDRAWN
    assert passed.ring_phase("canary") is RingPhase.PASSED
    assert PROVED.ring_phase("canary") is RingPhase.LAST_GOOD
    assert GOING_BACK.ring_phase("canary") is RingPhase.GOING_BACK
    assert State().ring_phase("canary") is RingPhase.NO_JOB


def test_what_a_channel_is_in_has_a_name() -> None:
    idle = replace(PROVED, waiting=Waiting(kind="nothing", text="every ring runs it"))
    refused = replace(PROVED, waiting=Waiting(kind="refused", text="it was refused"))
    halted = replace(PROVING, halt=Halt(id="1", why="by hand", at=NOW))
    phases = [s.channel_phase for s in (State(), idle, refused, PROVING, halted, GOING_BACK)]
    assert phases == list(ChannelPhase)


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
    aws.remember(replace(IDLE, offers=IDLE.offers[:1]))
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


STUCK = RingCheck(
    finished=Inspection(
        began_at=NOW - 7200,
        ended_at=NOW - 3600,
        looked=300,
        skipped=1,
        found=22,
        named=(
            Unreturnable(thing="gw-7", why=Obstacle.GROUPS, at=NOW - 3700),
            Unreturnable(thing="gw-9", why=Obstacle.POLICY, at=NOW - 60),
        ),
        problem="gw-8 cannot be looked at (ThrottlingException)",
    )
)
UNDER_WAY = RingCheck(current=Inspection(began_at=NOW - 120, looked=20))


def test_devices_that_could_not_go_back_are_told_before_a_release_is_out(aws: OpsAws) -> None:
    aws.remember(IDLE)
    assert aws.report().preflight is None
    aws.look_ahead(canary=STUCK, broad=UNDER_WAY)
    found = aws.report()
    assert (found.code, found.urgency) == (FINE, "none")
    assert found.needs == (
        "22 devices could not go back if a release failed: mend what stands below before the next"
        " one",
    )
    assert found.preflight
    assert [(one.thing, one.ring) for one in found.preflight.named] == [
        ("gw-7", "canary"),
        ("gw-9", "canary"),
    ]
    assert encode(found)["preflight"]["rings"][0] == {
        "ring": "broad",
        "devices": 0,
        "looked": 20,
        "skipped": 0,
        "beganAt": NOW - 120,
    }
    message = text(found)
    assert "Fine: nobody is needed.\n  - 22 devices could not go back" in message
    assert "gw-7 (canary): it is in ten thing groups already: take it out of one" in message
    assert "gw-9 (canary): no certificate of it has a policy" in message
    assert "canary: 22 known; the look at 300 devices began" in message
    assert "1 of these could not be looked at; gw-8 cannot be looked at (Thr" in message
    assert "and 20 more" in message


def test_while_a_release_is_out_a_person_is_needed_for_them(aws: OpsAws) -> None:
    aws.remember(SOAKING)
    aws.look_ahead(canary=UNDER_WAY)
    assert aws.report().code == FINE, "nothing was found"
    aws.look_ahead(canary=STUCK)
    found = aws.report()
    assert (found.code, found.urgency) == (NEEDED, "today")
    assert found.needs[0].startswith("22 devices could not go back if a release failed, and one is")


def test_a_person_who_is_needed_otherwise_is_told_so_first(aws: OpsAws) -> None:
    aws.remember(replace(IDLE, waiting=Waiting(kind="refused", text="so it is")))
    aws.look_ahead(canary=STUCK)
    found = aws.report()
    assert (found.code, found.urgency, len(found.needs)) == (NEEDED, "today", 2)
    assert found.needs[0].startswith("so it is")


def test_state_has_no_field_that_status_forgot() -> None:
    """A new field of the state is either shown or listed here."""
    shown = {
        *("last_good", "previous_good", "candidate", "offers", "releases", "way_back", "halt"),
        *("waiting", "decisions", "adopted"),
    }
    kept_for_itself = {
        *("format", "suffix", "channel", "writes", "after", "sequence", "halts", "ended", "obeyed"),
        "document_extra",  # release.json has it
    }
    assert set(State.__dataclass_fields__) == shown | kept_for_itself


def cut_off(aws: OpsAws, thing: str, **more: Any) -> None:
    """Writes the record of a device in quarantine."""
    held = Holding(began=(CANDIDATE_JOB,))
    record = CutOff(thing=thing, order=PERSON, held=held, **more)
    aws.objects[NAMES.keys.quarantined(thing)] = canonical_json(record).encode()


def test_who_is_in_quarantine_is_counted_and_a_few_are_named(aws: OpsAws) -> None:
    aws.remember(IDLE)
    for number in range(25):
        cut_off(aws, f"pump-{number:02}", done_at=NOW)
    found = aws.report()
    assert found.code == FINE
    said = text(found)
    assert "25 devices cut off" in said
    assert f"pump-00: cut off by {PERSON.by}" in said
    assert "and 5 more" in said


def test_a_device_that_is_cut_off_in_part_needs_a_person(aws: OpsAws) -> None:
    aws.remember(IDLE)
    cut_off(aws, "pump-1")
    cut_off(aws, "pump-2", restoring=PERSON)
    found = aws.report()
    assert found.code == NEEDED
    assert found.needs == (
        "pump-1 is cut off in part: `python -m ops quarantine pump-1 --stack prod` goes on",
        "pump-2 is restored in part: `python -m ops restore pump-2 --stack prod` goes on",
    )


def test_an_exposed_device_that_is_cut_off_is_named_at_the_way_back(aws: OpsAws) -> None:
    aws.remember(GOING_BACK)
    aws.enlist(exposed=10, placed=9, back=9, waived=1)
    cut_off(aws, "pump-1", done_at=NOW)
    found = aws.report()
    assert found.way_back
    assert found.way_back.cut_off == ("pump-1",)
    assert "cut off: pump-1, in quarantine: nobody waits for it" in text(found)


def test_an_adopted_release_is_told_and_one_that_has_no_effect(aws: OpsAws) -> None:
    adopted = replace(PROVED, last_good=GOOD, previous_good=None, adopted=GOOD.sha256, offers=())
    aws.remember(replace(adopted, sequence=0))
    aws.publish(replace(MANIFEST, adopted=GOOD))
    report = aws.report()
    assert (report.is_adopted, report.unused_adopted) == (True, None)
    shown = text(report)
    assert "Last good   2.2.0" in shown
    assert "adopted: no ring is offered it" in shown
    aws.publish(replace(MANIFEST, adopted=firmware("1.4.2")))
    assert aws.report().unused_adopted == firmware("1.4.2")
    shown = text(aws.report())
    assert "fleet.adopted, 1.4.2" in shown
    assert "has no effect any more" in shown
    aws.publish(replace(MANIFEST, adopted=BEFORE))
    aws.remember(PROVED)
    assert aws.report().unused_adopted is None, "it was good once"
