"""The operator's orders: what is said, asked, written; and that the controller obeys what was
written."""

from __future__ import annotations

import builtins
import getpass
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ops.__main__
from ops.channel import ATTEMPTS
from rollout.decide import decide
from rollout.observed import Job, Observed
from rollout.release import Approval, control_key, state_key
from rollout.rings import RESERVED
from rollout.state import (
    ApprovalOrder,
    Control,
    Halt,
    Progress,
    ResumeOrder,
    RetryOrder,
    Rollback,
    RollbackOrder,
    State,
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
    firmware,
    offer,
    started,
)

Ops = Callable[..., int]
CHANGES = (["pause"], ["halt"], ["approve", "canary"], ["rollback"], ["retry", "canary"])
CANDIDATE_JOB = NAMES.job("canary", 200)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud()
    made.release(MANIFEST)
    made.remember(PROVING)
    monkeypatch.setattr(ops.__main__, "open_source", lambda _args: (STACK, made.connect))
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")
    made.puts = 0
    return made


@pytest.fixture
def run(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Ops:
    """Runs a command; with `answers`, at a terminal where a person gives them."""

    def run(*words: str, answers: list[str] | None = None) -> int:
        class Stdin(io.StringIO):
            def isatty(self) -> bool:
                return answers is not None

        left = list(answers or [])
        monkeypatch.setattr(sys, "stdin", Stdin())
        monkeypatch.setattr(builtins, "input", lambda _question: left.pop(0))
        code = ops.__main__.main([*words, "--stack", "prod"])
        assert not left, f"nobody asked for {left}"
        return code

    return run


def yes(run: Ops, *words: str) -> int:
    return run(*words, "--yes", "--why", "crash reports from site 7")


def decided(cloud: Cloud, state: State) -> State:
    """What the controller makes of the orders in control.json and of the jobs."""
    jobs = {
        name: Job.of(job) for name, job in cloud.jobs.items() if NAMES.sequence(name) is not None
    }
    manifest = state.candidate.manifest if state.candidate else MANIFEST
    return decide(manifest, state, Observed(control=cloud.control(), jobs=jobs), NOW, NAMES)


# Asking


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: words[0])
def test_without_a_terminal_nothing_happens_that_was_not_agreed_to(
    cloud: Cloud, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for said in ([], ["--yes"], ["--why", "x"]):
        assert run(*words, *said) == 1
        assert (
            "nobody is there to be asked (no terminal): say --yes and --why TEXT"
            in capsys.readouterr().err
        )
    assert (cloud.puts, cloud.live()) == (
        0,
        {CANDIDATE_JOB, NAMES.job("canary", 100), NAMES.job("broad", 100)},
    )


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: words[0])
def test_a_no_changes_nothing(
    cloud: Cloud, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, answers=["because", "n"]) == 1
    assert "not confirmed: nothing was changed" in capsys.readouterr().err
    assert (cloud.puts, CANDIDATE_JOB in cloud.live()) == (0, True)


def test_a_person_is_told_asked_why_and_asked_to_agree(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.job(CANDIDATE_JOB, Queued=16, InProgress=2)
    assert run("pause", answers=["  the radio\n drops\x1b[31m ", "yes"]) == 0
    said = capsys.readouterr().out
    assert "channel stable of fleet-0123abcd (eu-west-1)" in said
    assert (
        "no release and no ring starts, and no ring passes, until `python -m ops resume --stack"
        " prod`" in said
    )
    assert (
        f"Job {CANDIDATE_JOB} goes on: 16 devices queued, 2 in progress; only `python -m ops halt"
        " --stack prod` stops it" in said
    )
    order = cloud.control().paused
    assert order
    assert (order.by, order.why) == (
        "arn:aws:iam::111122223333:user/olga (olga)",
        "the radio drops[31m",
    )


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("  ", "a reason is needed"),
        ("x" * 501, "the reason has 501 characters, at most 500 are recorded"),
    ],
)
def test_a_reason_is_needed(
    cloud: Cloud, run: Ops, why: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pause", "--yes", "--why", why) == 1
    assert told in capsys.readouterr().err
    assert cloud.puts == 0


def test_another_account_is_noticed_before_anything_else(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.account = "999900009999"
    assert yes(run, "halt") == 1
    assert (
        "you are signed in to account 999900009999, the stack is in 111122223333"
        in capsys.readouterr().err
    )
    assert (cloud.puts, CANDIDATE_JOB in cloud.live()) == (0, True)


# Writing


def test_orders_of_two_people_at_once_both_stand(cloud: Cloud, run: Ops) -> None:
    def somebody_approves() -> None:
        cloud.meanwhile = lambda: None
        cloud.order(
            Control(approvals=(ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON),))
        )

    cloud.meanwhile = somebody_approves
    assert yes(run, "pause") == 0
    control = cloud.control()
    assert (control.paused is not None, len(control.approvals), cloud.puts) == (True, 1, 2)


def test_a_write_that_always_comes_second_ends(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    def somebody_approves() -> None:
        given = ApprovalOrder(ring=f"ring-{cloud.puts}", sha256=NEW.sha256, order=PERSON)
        cloud.order(replace(cloud.control(), approvals=(*cloud.control().approvals, given)))

    cloud.meanwhile = somebody_approves
    assert yes(run, "pause") == 1
    assert f"control.json was changed by others {ATTEMPTS} times" in capsys.readouterr().err
    assert (cloud.puts, cloud.control().paused) == (ATTEMPTS, None)


def test_the_same_order_of_somebody_faster_stands(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.meanwhile = lambda: cloud.order(Control(paused=PERSON))
    assert yes(run, "pause") == 0
    assert "Somebody else gave the same order meanwhile: theirs stands." in capsys.readouterr().out
    assert cloud.control().paused == PERSON


@pytest.mark.parametrize(
    "words", [*CHANGES[:1], *CHANGES[2:], ["resume"]], ids=lambda words: words[0]
)
def test_an_unreadable_control_json_is_told_and_left_alone(
    cloud: Cloud, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.objects[control_key("stable")] = b'{"schema": 1, "pawsed": {}}'
    assert yes(run, *words) == 1
    told = capsys.readouterr().err
    assert "control.json is unreadable (pawsed: unknown; known are" in told
    assert "`python -m ops resume --replace --stack prod`" in told
    assert cloud.objects[control_key("stable")] == b'{"schema": 1, "pawsed": {}}'


def test_resume_replaces_an_unreadable_control_json_when_told_to(cloud: Cloud, run: Ops) -> None:
    cloud.objects[control_key("stable")] = b"not json"
    assert yes(run, "resume", "--replace") == 0
    resume = cloud.control().resume
    assert resume
    assert cloud.control() == Control(resume=ResumeOrder(halt="none", order=resume.order))


def test_pausing_twice_changes_nothing(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.order(Control(paused=PERSON))
    assert yes(run, "pause") == 0
    assert f"Already paused: by {PERSON.by}" in capsys.readouterr().out
    assert cloud.puts == 0


# Halt


def test_halt_orders_it_and_cancels_the_candidate_alone(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.job(CANDIDATE_JOB, Queued=16, InProgress=2, Succeeded=7)
    cloud.job("ffffffff-stable-canary-999")  # another stack's
    assert yes(run, "halt") == 0
    said = capsys.readouterr().out
    assert (
        f"Cancels {CANDIDATE_JOB} (firmware for {CANDIDATE_JOB}): 16 devices queued will not get"
        " it, 2 in progress go on, 7 run it already and stay on it." in said
    )
    assert "Leaves 2 live job(s)" in said
    assert cloud.live() == {
        NAMES.job("canary", 100),
        NAMES.job("broad", 100),
        "ffffffff-stable-canary-999",
    }
    assert cloud.jobs[CANDIDATE_JOB]["comment"].endswith("(olga): crash reports from site 7")
    after = decided(cloud, PROVING)
    assert (after.waiting.kind, after.halt) == (
        "halted",
        None,
    ), "the controller takes it for the order, not for a stray hand"


def test_halt_also_ends_the_jobs_of_releases_that_were_dropped(cloud: Cloud, run: Ops) -> None:
    stray, older = NAMES.job("canary", 150), NAMES.job("broad", 140)
    back = Rollback(
        offer=offer(160, GOOD),
        failed="2.2.5",
        reason="bad",
        exposing=(older,),
        started_at=NOW - 900,
    )
    going = NAMES.job(RESERVED, 160)
    cloud.remember(replace(PROVED, exposing=(stray,), rollback=back), stray, older, going)
    cloud.jobs.pop(CANDIDATE_JOB)
    assert yes(run, "halt") == 0
    assert cloud.live() == {NAMES.job("canary", 100), NAMES.job("broad", 100), going}


def test_halting_again_cancels_what_is_still_live(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.order(Control(halted=PERSON))
    assert yes(run, "halt") == 0
    assert f"Already halted: by {PERSON.by}" in capsys.readouterr().out
    assert (cloud.control().halted, CANDIDATE_JOB in cloud.live()) == (PERSON, False)


def test_halt_catches_a_ring_that_started_while_the_person_read(cloud: Cloud, run: Ops) -> None:
    late = NAMES.job("broad", 200)

    def the_controller_starts_another_ring() -> None:
        cloud.meanwhile = lambda: None
        cloud.remember(started(PROVING, broad=Progress(offer=offer(200), started_at=NOW)))

    cloud.meanwhile = the_controller_starts_another_ring
    assert yes(run, "halt") == 0
    assert not {late, CANDIDATE_JOB} & cloud.live()


def test_halt_leaves_an_unreadable_control_json_and_still_cancels(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.objects[control_key("stable")] = b"not json"
    assert yes(run, "halt") == 0
    assert "which the controller takes for a halt; it stays as it is" in capsys.readouterr().out
    assert (cloud.objects[control_key("stable")], CANDIDATE_JOB in cloud.live()) == (
        b"not json",
        False,
    )


@pytest.mark.parametrize("lost", ["missing", "forged", "unverifiable"])
def test_halt_without_the_memory_cancels_what_may_be_unproved(
    cloud: Cloud, run: Ops, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = NAMES.job("broad", 210)
    cloud.job(newest, armed=False)
    if lost == "missing":
        del cloud.objects[state_key("stable")]
    elif lost == "forged":
        cloud.objects[state_key("stable")] = cloud.objects[state_key("stable")].replace(
            b"2.2.0", b"2.2.9"
        )
    else:
        cloud.denied.add("Verify")
    assert yes(run, "halt") == 0
    said = capsys.readouterr().out
    assert "The controller's memory cannot be used: " in said
    assert cloud.live() == {
        NAMES.job("canary", 100),
        NAMES.job("broad", 100),
    }, "the armed and the newest are gone, no other"


def test_halt_without_the_memory_leaves_the_way_back_alone(cloud: Cloud, run: Ops) -> None:
    del cloud.objects[state_key("stable")]
    back, whole = NAMES.job(RESERVED, 300), NAMES.job("canary", 300)
    cloud.job(back, armed=False)
    cloud.job(whole, armed=False)
    assert yes(run, "halt") == 0
    assert cloud.live() == {NAMES.job("canary", 100), NAMES.job("broad", 100), back, whole}


def test_halt_brakes_with_what_still_works(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.denied.add("PutObject")
    assert yes(run, "halt") == 1
    assert (
        "control.json could not be written: AWS does not allow it: you need the permission"
        " s3:PutObject" in capsys.readouterr().err
    )
    assert CANDIDATE_JOB not in cloud.live()

    cloud.denied = {"ListJobs"}
    assert yes(run, "halt") == 1
    assert (
        "jobs may still be live: AWS does not allow it: you need the permission iot:ListJobs"
        in capsys.readouterr().err
    )
    assert cloud.control().halted


# Resume


def test_resume_clears_both_and_names_the_standing_halt(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    state = replace(PROVING, halt=Halt(id="200-1", why="job x was cancelled by hand", at=NOW - 60))
    cloud.remember(state)
    cloud.order(Control(paused=PERSON, halted=PERSON))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert "Ends the pause: by " in said
    assert "Ends the halt: by " in said
    assert "Ends the controller's halt 200-1: job x was cancelled by hand." in said
    control = cloud.control()
    assert (control.paused, control.halted, control.resume and control.resume.halt) == (
        None,
        None,
        "200-1",
    )
    assert decided(cloud, state).halt is None


def test_resume_does_not_end_a_halt_that_nobody_showed(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.order(Control(paused=PERSON))
    cloud.meanwhile = lambda: cloud.order(Control(paused=PERSON, halted=PERSON))
    assert yes(run, "resume") == 1
    assert "somebody else paused, halted or resumed meanwhile" in capsys.readouterr().err
    assert cloud.control().halted == PERSON


def test_resume_says_when_the_stack_file_still_holds(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.release(replace(MANIFEST, paused=True, halted=True))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert "There is nothing to resume" in said
    for word in ("paused", "halted"):
        assert (
            f"The stack file still holds it: rollout.{word} is true there; set it to false and"
            " deploy." in said
        )
    assert cloud.puts == 0


def test_resume_says_what_is_offered_again(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(offer=offer(200), started_at=NOW - 600, withdrawn=True)
    cloud.remember(started(PROVING, canary=progress))
    cloud.order(Control(halted=PERSON))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert (
        f"2.3.0 (sha256 {NEW.sha256[:12]}...) is offered to ring canary again, under a new"
        " sequence." in said
    )


def test_a_halt_and_resume_that_the_controller_never_saw_need_nothing_more(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    yes(run, "halt")
    assert yes(run, "resume") == 0
    assert "is offered to ring canary again, under a new sequence" in capsys.readouterr().out
    after = decided(cloud, PROVING)
    assert after.halt is None
    assert after.sequence > PROVING.sequence


def test_resume_foretells_that_a_job_cancelled_by_hand_will_halt(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    yes(run, "halt")
    name = next(
        name for name, job in cloud.jobs.items() if job.get("reasonCode") == "OPERATOR_HALT"
    )
    cloud.jobs[name]["reasonCode"] = "BY_HAND"
    assert yes(run, "resume") == 0
    assert (
        "it will halt, and `python -m ops resume --stack prod` is needed once more"
        in capsys.readouterr().out
    )
    assert decided(cloud, PROVING).waiting.kind == "halted"


@pytest.mark.parametrize(
    ("break_it", "halt", "why"),
    [
        (
            lambda cloud: cloud.objects.pop(state_key("stable")),
            "lost-200",
            "state.json is missing although jobs of the channel exist",
        ),
        (
            lambda cloud: cloud.job(NAMES.job("broad", 777)),
            "older-777",
            "state.json is older than the jobs it made",
        ),
        (
            lambda cloud: cloud.objects.update({state_key("stable"): b"{}"}),
            "invalid-44136fa355b3",
            "state.json is unreadable",
        ),
    ],
    ids=["lost", "older", "invalid"],
)
def test_resume_says_what_starting_afresh_means(
    cloud: Cloud,
    run: Ops,
    break_it: Callable[[Cloud], Any],
    halt: str,
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it(cloud)
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert f"Starts afresh, {halt}: {why}" in said
    assert f"Every live job of the channel is cancelled ({len(cloud.live())})" in said
    assert f"Then 2.3.0 (sha256 {NEW.sha256[:12]}...) starts as new at ring canary" in said
    resume = cloud.control().resume
    assert resume
    assert resume.halt == halt

    assert yes(run, "resume") == 0
    assert f"The end of halt {halt} is ordered already" in capsys.readouterr().out
    assert cloud.puts == 1


@pytest.mark.parametrize("words", CHANGES[2:], ids=lambda words: words[0])
def test_orders_about_a_release_need_the_memory(
    cloud: Cloud, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    del cloud.objects[state_key("stable")]
    assert yes(run, *words) == 1
    told = capsys.readouterr().err
    assert "needs the controller's memory, and state.json is missing" in told
    cloud.jobs.clear()
    assert yes(run, *words) == 1
    assert "the controller has not run yet" in capsys.readouterr().err
    assert cloud.puts == 0


# Approve


def test_approve_names_ring_and_digest(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.job(CANDIDATE_JOB, Succeeded=9, Failed=1)
    assert yes(run, "approve", "canary") == 0
    said = capsys.readouterr().out
    assert f"sha256 {NEW.sha256}. Once the rest of its gate is met, ring broad may start." in said
    assert "Ring canary so far: 9 succeeded, 1 failed" in said
    [given] = cloud.control().approvals
    assert (given.ring, given.sha256) == ("canary", NEW.sha256)

    assert yes(run, "approve", "canary") == 0
    assert "is approved for 2.3.0" in capsys.readouterr().out
    assert cloud.puts == 1


def test_approve_says_when_the_gate_asks_for_none(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "approve", "broad") == 0
    said = capsys.readouterr().out
    assert "Ring broad has not started: the approval stands for when it has." in said
    assert "Its gate does not ask for an approval" in said
    assert "2.3.0 is the last good release" in said


def test_an_approval_of_the_stack_file_counts(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PROVING.candidate
    manifest = replace(MANIFEST, approvals=(Approval(ring="canary", sha256=NEW.sha256),))
    cloud.remember(replace(PROVING, candidate=replace(PROVING.candidate, manifest=manifest)))
    cloud.puts = 0
    assert yes(run, "approve", "canary") == 0
    assert (cloud.puts, "already" in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(
    ("state", "ring", "told"),
    [
        (PROVED, "canary", "no release is being proved: there is nothing to approve"),
        (PROVING, "canry", "2.3.0 has no ring 'canry'; its rings are canary, broad"),
        (
            started(PROVING, canary=Progress(offer=offer(200), started_at=NOW, passed_at=NOW)),
            "canary",
            "ring canary has passed already",
        ),
    ],
)
def test_what_cannot_be_approved_is_refused(
    cloud: Cloud, run: Ops, state: State, ring: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(state)
    cloud.puts = 0
    assert yes(run, "approve", ring) == 1
    assert told in capsys.readouterr().err
    assert cloud.puts == 0


# Roll back


def test_rollback_takes_the_candidate_back(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    state = started(
        PROVING,
        canary=Progress(offer=offer(200), started_at=NOW - 600, passed_at=NOW - 300),
        broad=Progress(offer=offer(200), started_at=NOW - 200),
    )
    cloud.remember(state)
    cloud.job(CANDIDATE_JOB, armed=False, Succeeded=10)
    cloud.job(NAMES.job("broad", 200), Queued=80, InProgress=4, Succeeded=5, Failed=1)
    assert yes(run, "rollback") == 0
    said = capsys.readouterr().out
    assert (
        f"Takes back 2.3.0 (sha256 {NEW.sha256[:12]}...): 80 devices still queued will not get it."
        in said
    )
    assert "10 devices that began it, and no other, return to 2.2.0" in said
    assert "Rings that had passed return whole: canary, 10 devices." in said
    after = decided(cloud, state)
    assert after.rollback
    assert (after.candidate, after.rollback.offer.firmware, NEW.sha256 in after.refused) == (
        None,
        GOOD,
        True,
    )

    assert yes(run, "rollback") == 0
    assert "This rollback is ordered already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda state: replace(state, last_good=None),
            "there is no last good release to go back to",
        ),
        (
            lambda state: replace(
                state,
                candidate=replace(
                    state.candidate, manifest=replace(MANIFEST, rollback="forbidden")
                ),
            ),
            "its rollback is forbidden (rollout.rollback)",
        ),
    ],
    ids=["no last good", "forbidden"],
)
def test_rollback_says_when_devices_will_not_go_back(
    cloud: Cloud,
    run: Ops,
    change: Callable[[State], State],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = change(PROVING)
    cloud.remember(state)
    assert yes(run, "rollback") == 0
    assert f"DEVICES DO NOT GO BACK: {why}." in capsys.readouterr().out
    after = decided(cloud, state)
    assert (after.rollback, after.halt is not None) == (None, True)


def test_rollback_of_the_last_good_release_must_be_meant(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(PROVED)
    cloud.job(NAMES.job("broad", 100), armed=False, Succeeded=90)
    assert yes(run, "rollback") == 1
    assert (
        "With --yes, name it: `python -m ops rollback 2.2.0 --yes --stack prod`"
        in capsys.readouterr().err
    )
    assert yes(run, "rollback", "2.3.0") == 1
    assert (
        f"what can be taken back is 2.2.0 (sha256 {GOOD.sha256[:12]}...), not 2.3.0"
        in capsys.readouterr().err
    )

    assert yes(run, "rollback", "v2.2.0") == 0
    said = capsys.readouterr().out
    assert "every ring, 90 devices, returns to 2.1.0" in said
    assert "The stack file still names 2.2.0: revert it, or release a higher version." in said
    after = decided(cloud, PROVED)
    assert after.last_good == firmware("2.1.0")
    assert {one.firmware for one in after.stable.values()} == {firmware("2.1.0")}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (replace(PROVED, last_good=None), "there is nothing to take back"),
        (
            replace(PROVED, previous_good=None),
            "the one before 2.2.0 is not known, so there is nothing to go back to",
        ),
    ],
)
def test_an_impossible_rollback_says_why(
    cloud: Cloud, run: Ops, state: State, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(state)
    cloud.puts = 0
    assert yes(run, "rollback") == 1
    assert told in capsys.readouterr().err
    assert cloud.puts == 0


BACK = Rollback(
    offer=offer(300, GOOD),
    failed="2.3.0",
    reason="bad",
    exposing=(CANDIDATE_JOB,),
    started_at=NOW - 60,
)
GOING_BACK = replace(PROVED, sequence=300, rollback=BACK)


def test_a_rollback_that_runs_is_not_taken_for_a_reason_to_go_further_back(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(replace(GOING_BACK, rollback=replace(BACK, started_at=time.time() - 60)))
    cloud.job(NAMES.job(RESERVED, 300), armed=False, InProgress=3)
    assert yes(run, "rollback", "2.2.0") == 1
    assert "a rollback to 2.2.0 is running already" in capsys.readouterr().err
    cloud.job(NAMES.job(RESERVED, 300), armed=False, Failed=3)
    assert yes(run, "rollback", "2.2.0") == 0, "but where it fails, further back may be the way"


def test_a_rollback_that_a_newer_release_overtook_is_not_retried(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take the newer release from the devices that have it."""
    newer = started(PROVING, canary=Progress(offer=offer(400), started_at=NOW))
    cloud.remember(replace(newer, rollback=BACK, sequence=400))
    cloud.job(NAMES.job(RESERVED, 300), armed=False, Failed=3)
    cloud.job(NAMES.job("canary", 400), InProgress=1)
    assert yes(run, "retry", "rollback") == 1
    assert "a newer release than this rollback has been offered" in capsys.readouterr().err
    assert cloud.puts == 1, "the memory that the test wrote, and no order"


def test_a_rollback_under_a_halt_says_that_it_waits(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(replace(PROVING, halt=Halt(id="200-1", why="by hand", at=NOW)))
    assert yes(run, "rollback") == 0
    assert (
        "The controller is halted (200-1): devices go back after `python -m ops resume --stack"
        " prod`." in capsys.readouterr().out
    )
    order = cloud.control().rollback
    assert order
    assert order == RollbackOrder(sha256=NEW.sha256, order=order.order)


# Retry


def test_retry_names_the_standing_offer(
    cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "retry", "canary") == 0
    assert "Counts, soak and deadline begin anew" in capsys.readouterr().out
    order = cloud.control().retry
    assert order
    assert order == RetryOrder(ring="canary", sequence=200, order=order.order)
    after = decided(cloud, PROVING)
    assert after.candidate
    assert after.candidate.rings["canary"].offer.sequence > 200


def test_retry_of_the_rollback(cloud: Cloud, run: Ops, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.remember(GOING_BACK)
    cloud.job(NAMES.job(RESERVED, 300), armed=False, Failed=2, Succeeded=1)
    cloud.order(Control(halted=PERSON))
    assert yes(run, "retry", "rollback") == 0
    said = capsys.readouterr().out
    assert "So far: 1 succeeded, 2 failed" in said
    assert "The channel is halted: it happens after `python -m ops resume --stack prod`." in said
    cloud.order(replace(cloud.control(), halted=None))
    after = decided(cloud, GOING_BACK)
    assert after.rollback
    assert after.rollback.offer.sequence > 300


@pytest.mark.parametrize(
    ("state", "ring", "told"),
    [
        (PROVED, "canary", "no release is being proved: there is no ring to retry"),
        (PROVING, "broad", "ring 'broad' has not started 2.3.0; started are: canary"),
        (PROVING, "rollback", "no rollback is running: there is nothing to retry"),
        (
            replace(PROVED, rollback=replace(BACK, done_at=NOW)),
            "rollback",
            "no rollback is running; the last one ended",
        ),
        (
            started(PROVING, canary=Progress(offer=offer(200), started_at=NOW, passed_at=NOW)),
            "canary",
            "ring canary has passed already",
        ),
    ],
)
def test_what_cannot_be_retried_is_refused(
    cloud: Cloud, run: Ops, state: State, ring: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.remember(replace(state, sequence=300))
    cloud.puts = 0
    assert yes(run, "retry", ring) == 1
    assert told in capsys.readouterr().err
    assert cloud.puts == 0


def test_what_is_written_is_what_the_controller_reads(cloud: Cloud, run: Ops) -> None:
    for words in CHANGES:
        assert yes(run, *words) == 0
    written = json.loads(cloud.objects[control_key("stable")])
    assert {"schema", "paused", "halted", "approvals", "rollback", "retry"} == set(written)
    assert {"by", "at", "why"} == set(written["paused"])
