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

import ops.main
import ops.stack
from ops.command import MAX_WRITES
from rollout.decide import decide
from rollout.names import ROLLBACK
from rollout.observed import Job, Observed
from rollout.orders import ApprovalOrder, Orders, ResumeOrder, RetryOrder, RollbackOrder
from rollout.release import Approval
from rollout.state import Halt, Progress, Rollback, State
from tests.unit.ops_cloud import (
    GOOD,
    MANIFEST,
    NAMES,
    NEW,
    NOW,
    PERSON,
    PROVED,
    PROVING,
    OpsAws,
    firmware,
    offer,
    started,
)

Ops = Callable[..., int]
CHANGES = (["pause"], ["halt"], ["approve", "canary"], ["rollback"], ["retry", "canary"])
CANDIDATE_JOB = NAMES.job("canary", 200)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> OpsAws:
    made = OpsAws()
    made.publish(MANIFEST)
    made.remember(PROVING)
    monkeypatch.setattr(ops.stack, "open_stack", made.open)
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")
    return made


@pytest.fixture
def run(aws: OpsAws, monkeypatch: pytest.MonkeyPatch) -> Ops:
    """Runs a command; with `answers`, at a terminal where a person gives them."""

    def run(*words: str, answers: list[str] | None = None) -> int:
        class Stdin(io.StringIO):
            def isatty(self) -> bool:
                return answers is not None

        left = list(answers or [])
        monkeypatch.setattr(sys, "stdin", Stdin())
        monkeypatch.setattr(builtins, "input", lambda _question: left.pop(0))
        code = ops.main.main([*words, "--stack", "prod"])
        assert not left, f"nobody asked for {left}"
        return code

    return run


def yes(run: Ops, *words: str) -> int:
    return run(*words, "--yes", "--why", "crash reports from site 7")


def decided(aws: OpsAws, state: State) -> State:
    """What the controller makes of the orders in orders.json and of the jobs."""
    jobs = {
        name: Job.from_answer(job)
        for name, job in aws.jobs.items()
        if NAMES.job_sequence(name) is not None
    }
    manifest = state.candidate.manifest if state.candidate else MANIFEST
    return decide(manifest, state, Observed(orders=aws.orders(), jobs=jobs), NOW, NAMES)


# Asking


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: words[0])
def test_without_a_terminal_nothing_happens_that_was_not_agreed_to(
    aws: OpsAws, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for said in ([], ["--yes"], ["--why", "x"]):
        assert run(*words, *said) == 1
        assert (
            "nobody is there to ask (no terminal): say --yes and --why TEXT"
            in capsys.readouterr().err
        )
    assert (aws.puts, aws.live_jobs()) == (
        0,
        {CANDIDATE_JOB, NAMES.job("canary", 100), NAMES.job("broad", 100)},
    )


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: words[0])
def test_a_no_changes_nothing(
    aws: OpsAws, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, answers=["because", "n"]) == 1
    assert "not confirmed: nothing was changed" in capsys.readouterr().err
    assert (aws.puts, CANDIDATE_JOB in aws.live_jobs()) == (0, True)


def test_a_person_is_told_asked_why_and_asked_to_agree(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.job(CANDIDATE_JOB, Queued=16, InProgress=2)
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
    order = aws.orders().paused
    assert order
    assert (order.by, order.why) == (
        "arn:aws:iam::111122223333:user/olga (olga)",
        "the radio drops[31m",
    )


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ("  ", "a reason is needed"),
        ("x" * 501, "the reason has 501 characters, at most 500"),
    ],
)
def test_a_reason_is_needed(
    aws: OpsAws, run: Ops, why: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pause", "--yes", "--why", why) == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


def test_another_account_is_noticed_before_anything_else(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.account = "999900009999"
    assert yes(run, "halt") == 1
    assert (
        "you are signed in to account 999900009999, the stack is in 111122223333"
        in capsys.readouterr().err
    )
    assert (aws.puts, CANDIDATE_JOB in aws.live_jobs()) == (0, True)


# Writing


def test_orders_of_two_people_at_once_both_stand(aws: OpsAws, run: Ops) -> None:
    def somebody_approves() -> None:
        aws.meanwhile = lambda: None
        aws.order(
            Orders(approvals=(ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON),))
        )

    aws.meanwhile = somebody_approves
    assert yes(run, "pause") == 0
    orders = aws.orders()
    assert (orders.paused is not None, len(orders.approvals), aws.puts) == (True, 1, 2)


def test_a_write_that_always_comes_second_ends(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    def somebody_approves() -> None:
        given = ApprovalOrder(ring=f"ring-{aws.puts}", sha256=NEW.sha256, order=PERSON)
        aws.order(replace(aws.orders(), approvals=(*aws.orders().approvals, given)))

    aws.meanwhile = somebody_approves
    assert yes(run, "pause") == 1
    assert f"control.json was changed by others {MAX_WRITES} times" in capsys.readouterr().err
    assert (aws.puts, aws.orders().paused) == (MAX_WRITES, None)


def test_the_same_order_of_somebody_faster_stands(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.meanwhile = lambda: aws.order(Orders(paused=PERSON))
    assert yes(run, "pause") == 0
    assert "Somebody else gave the same order meanwhile: theirs stands." in capsys.readouterr().out
    assert aws.orders().paused == PERSON


@pytest.mark.parametrize(
    "words", [*CHANGES[:1], *CHANGES[2:], ["resume"]], ids=lambda words: words[0]
)
def test_an_unreadable_control_json_is_told_and_left_alone(
    aws: OpsAws, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    aws.objects[NAMES.keys.orders] = b'{"schema": 1, "pawsed": {}}'
    assert yes(run, *words) == 1
    message = capsys.readouterr().err
    assert "control.json is unreadable (pawsed: unknown; known are" in message
    assert "`python -m ops resume --replace --stack prod`" in message
    assert aws.objects[NAMES.keys.orders] == b'{"schema": 1, "pawsed": {}}'


def test_resume_replaces_an_unreadable_control_json_when_told_to(aws: OpsAws, run: Ops) -> None:
    aws.objects[NAMES.keys.orders] = b"not json"
    assert yes(run, "resume", "--replace") == 0
    resume = aws.orders().resume
    assert resume
    assert aws.orders() == Orders(resume=ResumeOrder(order=resume.order))


def test_pausing_twice_changes_nothing(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.order(Orders(paused=PERSON))
    assert yes(run, "pause") == 0
    assert f"Already paused: by {PERSON.by}" in capsys.readouterr().out
    assert aws.puts == 0


# Halt


def test_halt_orders_it_and_cancels_the_candidate_alone(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.job(CANDIDATE_JOB, Queued=16, InProgress=2, Succeeded=7)
    aws.job("ffffffff-stable-canary-999")  # another stack's
    assert yes(run, "halt") == 0
    said = capsys.readouterr().out
    assert (
        f"Cancels {CANDIDATE_JOB} (firmware for {CANDIDATE_JOB}): 16 devices queued will not get"
        " it, 2 in progress go on, 7 run it already and stay on it." in said
    )
    assert "Leaves 2 live job(s)" in said
    assert aws.live_jobs() == {
        NAMES.job("canary", 100),
        NAMES.job("broad", 100),
        "ffffffff-stable-canary-999",
    }
    assert aws.jobs[CANDIDATE_JOB]["comment"].endswith("(olga): crash reports from site 7")
    after = decided(aws, PROVING)
    assert (after.waiting.kind, after.halt) == (
        "halted",
        None,
    ), "the controller takes it for the order, not for a stray hand"


def test_halt_also_ends_the_jobs_of_releases_that_were_dropped(aws: OpsAws, run: Ops) -> None:
    stray, older = NAMES.job("canary", 150), NAMES.job("broad", 140)
    back = Rollback(
        offer=offer(160, GOOD),
        failed="2.2.5",
        reason="bad",
        exposing_jobs=(older,),
        started_at=NOW - 900,
    )
    going = NAMES.job(ROLLBACK, 160)
    aws.remember(replace(PROVED, exposing_jobs=(stray,), rollback=back), stray, older, going)
    aws.jobs.pop(CANDIDATE_JOB)
    assert yes(run, "halt") == 0
    assert aws.live_jobs() == {NAMES.job("canary", 100), NAMES.job("broad", 100), going}


def test_halting_again_cancels_what_is_still_live(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.order(Orders(halted=PERSON))
    assert yes(run, "halt") == 0
    assert f"Already halted: by {PERSON.by}" in capsys.readouterr().out
    assert (aws.orders().halted, CANDIDATE_JOB in aws.live_jobs()) == (PERSON, False)


def test_halt_catches_a_ring_that_started_while_the_person_read(aws: OpsAws, run: Ops) -> None:
    late = NAMES.job("broad", 200)

    def the_controller_starts_another_ring() -> None:
        aws.meanwhile = lambda: None
        aws.remember(started(PROVING, broad=Progress(offer=offer(200), started_at=NOW)))

    aws.meanwhile = the_controller_starts_another_ring
    assert yes(run, "halt") == 0
    assert not {late, CANDIDATE_JOB} & aws.live_jobs()


def test_halt_leaves_an_unreadable_control_json_and_still_cancels(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.objects[NAMES.keys.orders] = b"not json"
    assert yes(run, "halt") == 0
    assert "which the controller takes for a halt; it stays as it is" in capsys.readouterr().out
    assert (aws.objects[NAMES.keys.orders], CANDIDATE_JOB in aws.live_jobs()) == (
        b"not json",
        False,
    )


@pytest.mark.parametrize("lost", ["missing", "forged", "unverifiable"])
def test_halt_without_the_state_cancels_what_may_be_unproved(
    aws: OpsAws, run: Ops, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = NAMES.job("broad", 210)
    aws.job(newest, armed=False)
    if lost == "missing":
        del aws.objects[NAMES.keys.state]
    elif lost == "forged":
        aws.objects[NAMES.keys.state] = aws.objects[NAMES.keys.state].replace(b"2.2.0", b"2.2.9")
    else:
        aws.denied.add("Verify")
    assert yes(run, "halt") == 0
    said = capsys.readouterr().out
    assert "The controller's state cannot be used: " in said
    assert aws.live_jobs() == {
        NAMES.job("canary", 100),
        NAMES.job("broad", 100),
    }, "the armed and the newest are gone, no other"


def test_halt_without_the_state_leaves_the_way_back_alone(aws: OpsAws, run: Ops) -> None:
    del aws.objects[NAMES.keys.state]
    back, whole = NAMES.job(ROLLBACK, 300), NAMES.job("canary", 300)
    aws.job(back, armed=False)
    aws.job(whole, armed=False)
    assert yes(run, "halt") == 0
    assert aws.live_jobs() == {NAMES.job("canary", 100), NAMES.job("broad", 100), back, whole}


def test_halt_brakes_with_what_still_works(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.denied.add("PutObject")
    assert yes(run, "halt") == 1
    assert (
        "control.json could not be written: AWS does not allow it: you need the permission"
        " s3:PutObject" in capsys.readouterr().err
    )
    assert CANDIDATE_JOB not in aws.live_jobs()

    aws.denied = {"ListJobs"}
    assert yes(run, "halt") == 1
    assert (
        "jobs may still be live: AWS does not allow it: you need the permission iot:ListJobs"
        in capsys.readouterr().err
    )
    assert aws.orders().halted


# Resume


def test_resume_clears_both_and_names_the_standing_halt(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    state = replace(PROVING, halt=Halt(id="200-1", why="job x was cancelled by hand", at=NOW - 60))
    aws.remember(state)
    aws.order(Orders(paused=PERSON, halted=PERSON))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert "Ends the pause: by " in said
    assert "Ends the halt: by " in said
    assert "Ends the controller's halt 200-1: job x was cancelled by hand." in said
    orders = aws.orders()
    assert (orders.paused, orders.halted, orders.resume and orders.resume.halt) == (
        None,
        None,
        "200-1",
    )
    assert decided(aws, state).halt is None


def test_resume_does_not_end_a_halt_that_nobody_showed(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.order(Orders(paused=PERSON))
    aws.meanwhile = lambda: aws.order(Orders(paused=PERSON, halted=PERSON))
    assert yes(run, "resume") == 1
    assert "somebody else paused, halted or resumed meanwhile" in capsys.readouterr().err
    assert aws.orders().halted == PERSON


def test_resume_says_when_the_stack_file_still_holds(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.publish(replace(MANIFEST, paused=True, halted=True))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert "There is nothing to resume" in said
    for word in ("paused", "halted"):
        assert (
            f"The stack file still holds it: rollout.{word} is true there; set it to false and"
            " deploy." in said
        )
    assert aws.puts == 0


def test_resume_says_what_is_offered_again(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(offer=offer(200), started_at=NOW - 600, withdrawn=True)
    aws.remember(started(PROVING, canary=progress))
    aws.order(Orders(halted=PERSON))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert (
        f"2.3.0 (sha256 {NEW.sha256[:12]}...) is offered to ring canary again, under a new"
        " sequence." in said
    )


def test_a_halt_and_resume_that_the_controller_never_saw_need_nothing_more(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    yes(run, "halt")
    assert yes(run, "resume") == 0
    assert "is offered to ring canary again, under a new sequence" in capsys.readouterr().out
    after = decided(aws, PROVING)
    assert after.halt is None
    assert after.sequence > PROVING.sequence


def test_resume_says_that_a_job_cancelled_by_hand_will_halt(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    yes(run, "halt")
    name = next(name for name, job in aws.jobs.items() if job.get("reasonCode") == "OPERATOR_HALT")
    aws.jobs[name]["reasonCode"] = "BY_HAND"
    assert yes(run, "resume") == 0
    assert (
        "it will halt, and `python -m ops resume --stack prod` is needed once more"
        in capsys.readouterr().out
    )
    assert decided(aws, PROVING).waiting.kind == "halted"


@pytest.mark.parametrize(
    ("break_it", "halt", "why"),
    [
        (
            lambda aws: aws.objects.pop(NAMES.keys.state),
            "lost-200",
            "state.json is missing although jobs of the channel exist",
        ),
        (
            lambda aws: aws.job(NAMES.job("broad", 777)),
            "older-777",
            "state.json is older than the jobs it made",
        ),
        (
            lambda aws: aws.objects.update({NAMES.keys.state: b"{}"}),
            "invalid-44136fa355b3",
            "state.json is unreadable",
        ),
    ],
    ids=["lost", "older", "invalid"],
)
def test_resume_says_what_starting_afresh_means(
    aws: OpsAws,
    run: Ops,
    break_it: Callable[[OpsAws], Any],
    halt: str,
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it(aws)
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert f"Starts afresh, {halt}: {why}" in said
    assert f"Every live job of the channel is cancelled ({len(aws.live_jobs())})" in said
    assert f"Then 2.3.0 (sha256 {NEW.sha256[:12]}...) starts as new at ring canary" in said
    resume = aws.orders().resume
    assert resume
    assert resume.halt == halt

    assert yes(run, "resume") == 0
    assert f"The end of halt {halt} is ordered already" in capsys.readouterr().out
    assert aws.puts == 1


@pytest.mark.parametrize("words", CHANGES[2:], ids=lambda words: words[0])
def test_orders_about_a_release_need_the_state(
    aws: OpsAws, run: Ops, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    del aws.objects[NAMES.keys.state]
    assert yes(run, *words) == 1
    message = capsys.readouterr().err
    assert "needs the controller's state, and state.json is missing" in message
    aws.jobs.clear()
    assert yes(run, *words) == 1
    assert "the controller has not run yet" in capsys.readouterr().err
    assert aws.puts == 0


# Approve


def test_approve_names_ring_and_digest(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.job(CANDIDATE_JOB, Succeeded=9, Failed=1)
    assert yes(run, "approve", "canary") == 0
    said = capsys.readouterr().out
    assert f"sha256 {NEW.sha256}. Once the rest of its gate is met, ring broad may start." in said
    assert "Ring canary so far: 9 succeeded, 1 failed" in said
    [given] = aws.orders().approvals
    assert (given.ring, given.sha256) == ("canary", NEW.sha256)

    assert yes(run, "approve", "canary") == 0
    assert "is approved for 2.3.0" in capsys.readouterr().out
    assert aws.puts == 1


def test_approve_says_when_the_gate_asks_for_none(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "approve", "broad") == 0
    said = capsys.readouterr().out
    assert "Ring broad has not started: the approval stands for when it has." in said
    assert "Its gate does not ask for an approval" in said
    assert "2.3.0 is the last good release" in said


def test_an_approval_of_the_stack_file_counts(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PROVING.candidate
    manifest = replace(MANIFEST, approvals=(Approval(ring="canary", sha256=NEW.sha256),))
    aws.remember(replace(PROVING, candidate=replace(PROVING.candidate, manifest=manifest)))
    assert yes(run, "approve", "canary") == 0
    assert (aws.puts, "already" in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(
    ("state", "ring", "message"),
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
    aws: OpsAws, run: Ops, state: State, ring: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(state)
    assert yes(run, "approve", ring) == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


# Roll back


def test_rollback_takes_the_candidate_back(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    state = started(
        PROVING,
        canary=Progress(offer=offer(200), started_at=NOW - 600, passed_at=NOW - 300),
        broad=Progress(offer=offer(200), started_at=NOW - 200),
    )
    aws.remember(state)
    aws.job(CANDIDATE_JOB, armed=False, Succeeded=10)
    aws.job(NAMES.job("broad", 200), Queued=80, InProgress=4, Succeeded=5, Failed=1)
    assert yes(run, "rollback") == 0
    said = capsys.readouterr().out
    assert (
        f"Takes back 2.3.0 (sha256 {NEW.sha256[:12]}...): 80 devices still queued will not get it."
        in said
    )
    assert "10 devices that began it, and no other, return to 2.2.0" in said
    assert "Rings that had passed return whole: canary, 10 devices." in said
    after = decided(aws, state)
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
    aws: OpsAws,
    run: Ops,
    change: Callable[[State], State],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = change(PROVING)
    aws.remember(state)
    assert yes(run, "rollback") == 0
    assert f"DEVICES DO NOT GO BACK: {why}." in capsys.readouterr().out
    after = decided(aws, state)
    assert (after.rollback, after.halt is not None) == (None, True)


def test_rollback_of_the_last_good_release_must_be_meant(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(PROVED)
    aws.job(NAMES.job("broad", 100), armed=False, Succeeded=90)
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
    after = decided(aws, PROVED)
    assert after.last_good == firmware("2.1.0")
    assert {one.firmware for one in after.stable.values()} == {firmware("2.1.0")}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (replace(PROVED, last_good=None), "there is nothing to take back"),
        (
            replace(PROVED, previous_good=None),
            "the one before 2.2.0 is not known, so there is nothing to go back to",
        ),
    ],
)
def test_an_impossible_rollback_says_why(
    aws: OpsAws, run: Ops, state: State, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(state)
    assert yes(run, "rollback") == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


BACK = Rollback(
    offer=offer(300, GOOD),
    failed="2.3.0",
    reason="bad",
    exposing_jobs=(CANDIDATE_JOB,),
    started_at=NOW - 60,
)
GOING_BACK = replace(PROVED, sequence=300, rollback=BACK)


def test_a_rollback_that_runs_is_not_taken_for_a_reason_to_go_further_back(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(replace(GOING_BACK, rollback=replace(BACK, started_at=time.time() - 60)))
    aws.job(NAMES.job(ROLLBACK, 300), armed=False, InProgress=3)
    assert yes(run, "rollback", "2.2.0") == 1
    assert "a rollback to 2.2.0 is running already" in capsys.readouterr().err
    aws.job(NAMES.job(ROLLBACK, 300), armed=False, Failed=3)
    assert yes(run, "rollback", "2.2.0") == 0, "but where it fails, further back may be the way"


def test_a_rollback_that_a_newer_release_overtook_is_not_retried(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take the newer release from the devices that have it."""
    newer = started(PROVING, canary=Progress(offer=offer(400), started_at=NOW))
    aws.remember(replace(newer, rollback=BACK, sequence=400))
    aws.job(NAMES.job(ROLLBACK, 300), armed=False, Failed=3)
    aws.job(NAMES.job("canary", 400), InProgress=1)
    assert yes(run, "retry", "rollback") == 1
    assert "a newer release than this rollback has been offered" in capsys.readouterr().err
    assert aws.puts == 0


def test_a_rollback_under_a_halt_says_that_it_waits(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(replace(PROVING, halt=Halt(id="200-1", why="by hand", at=NOW)))
    assert yes(run, "rollback") == 0
    assert (
        "The controller is halted (200-1): devices go back after `python -m ops resume --stack"
        " prod`." in capsys.readouterr().out
    )
    order = aws.orders().rollback
    assert order
    assert order == RollbackOrder(sha256=NEW.sha256, order=order.order)


# Retry


def test_retry_names_the_standing_offer(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "retry", "canary") == 0
    assert "Counts, soak and deadline begin anew" in capsys.readouterr().out
    order = aws.orders().retry
    assert order
    assert order == RetryOrder(ring="canary", sequence=200, order=order.order)
    after = decided(aws, PROVING)
    assert after.candidate
    assert after.candidate.rings["canary"].offer.sequence > 200


def test_retry_of_the_rollback(aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]) -> None:
    aws.remember(GOING_BACK)
    aws.job(NAMES.job(ROLLBACK, 300), armed=False, Failed=2, Succeeded=1)
    aws.order(Orders(halted=PERSON))
    assert yes(run, "retry", "rollback") == 0
    said = capsys.readouterr().out
    assert "So far: 1 succeeded, 2 failed" in said
    assert "The channel is halted: it happens after `python -m ops resume --stack prod`." in said
    aws.order(replace(aws.orders(), halted=None))
    after = decided(aws, GOING_BACK)
    assert after.rollback
    assert after.rollback.offer.sequence > 300


@pytest.mark.parametrize(
    ("state", "ring", "message"),
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
    aws: OpsAws, run: Ops, state: State, ring: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(replace(state, sequence=300))
    assert yes(run, "retry", ring) == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


def test_what_is_written_is_what_the_controller_reads(aws: OpsAws, run: Ops) -> None:
    for words in CHANGES:
        assert yes(run, *words) == 0
    written = json.loads(aws.objects[NAMES.keys.orders])
    assert {"schema", "paused", "halted", "approvals", "rollback", "retry"} == set(written)
    assert {"by", "at", "why"} == set(written["paused"])
