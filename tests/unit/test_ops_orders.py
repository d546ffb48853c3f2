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
from rollout.names import KEPT_APPROVALS, ORDER_ITEMS
from rollout.observed import Counts, Job, Observed
from rollout.orders import (
    ApprovalOrder,
    Orders,
    PardonOrder,
    ResumeOrder,
    RetryOrder,
    RollbackOrder,
    WaiverOrder,
    waived_things,
)
from rollout.release import Approval, Manifest
from rollout.state import Candidate, Halt, Phase, State
from tests.unit.ops_cloud import (
    BACK_JOB,
    BAD,
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
    WAY_BACK,
    OpsAws,
    firmware,
    offer,
    release,
    with_offers,
)

Ops = Callable[..., int]
CHANGES = (
    ["pause"],
    ["halt"],
    ["approve", "canary"],
    ["rollback"],
    ["retry", "canary"],
    ["pardon", "2.2.5"],
)
KEPT_JOBS = {NAMES.job("canary", 100), NAMES.job("broad", 101)}
THING = "fleet-0123abcd-0001"


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


def decided(aws: OpsAws, state: State, filed: Manifest = MANIFEST) -> State:
    """What the controller makes of the orders in orders.json and of the jobs."""
    known = [NAMES.job(one.ring, one.sequence) for one in state.offers]
    jobs = {name: Job.from_answer(aws.jobs[name]) for name in known if name in aws.jobs}
    manifest = state.candidate.manifest if state.candidate else filed
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
        {CANDIDATE_JOB, *KEPT_JOBS},
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
    assert aws.live_jobs() == {*KEPT_JOBS, "ffffffff-stable-canary-999"}
    assert aws.jobs[CANDIDATE_JOB]["comment"].endswith("(olga): crash reports from site 7")
    after = decided(aws, PROVING)
    assert (after.waiting.kind, after.halt) == (
        "halted",
        None,
    ), "the controller takes it for the order, not for a stray hand"


def test_halt_also_ends_the_jobs_of_releases_that_were_dropped(aws: OpsAws, run: Ops) -> None:
    ending = [offer("canary", 140, phase=Phase.ENDING), offer("broad", 145, phase=Phase.ENDING)]
    aws.remember(with_offers(GOING_BACK, *ending))
    stray, older = (NAMES.job(one.ring, one.sequence) for one in ending)
    aws.job(stray)
    aws.job(older)
    assert {stray, older} <= aws.live_jobs()
    assert yes(run, "halt") == 0
    assert aws.live_jobs() == {*KEPT_JOBS, BACK_JOB}


def test_halting_again_cancels_what_is_still_live(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.order(Orders(halted=PERSON))
    assert yes(run, "halt") == 0
    assert f"Already halted: by {PERSON.by}" in capsys.readouterr().out
    assert (aws.orders().halted, CANDIDATE_JOB in aws.live_jobs()) == (PERSON, False)


def test_halt_catches_a_ring_that_started_while_the_person_read(aws: OpsAws, run: Ops) -> None:
    late = NAMES.job("broad", 201)

    def the_controller_starts_another_ring() -> None:
        aws.meanwhile = lambda: None
        aws.remember(with_offers(PROVING, offer("broad", 201)))

    aws.meanwhile = the_controller_starts_another_ring
    assert yes(run, "halt") == 0
    assert not {late, CANDIDATE_JOB} & aws.live_jobs()


def test_halt_replaces_an_unreadable_control_json_and_cancels(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.objects[NAMES.keys.orders] = b"not json"
    assert yes(run, "halt") == 0
    assert "Replaces control.json, which is unreadable (is not JSON" in capsys.readouterr().out
    assert aws.orders() == Orders(halted=aws.orders().halted)
    assert aws.orders().halted
    assert CANDIDATE_JOB not in aws.live_jobs()


def test_a_control_json_that_takes_no_more_still_takes_a_halt(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    full = {
        "schema": 1,
        "approvals": [
            {"ring": "canary", "sha256": "0" * 64, "order": {"by": "x", "at": 0, "why": "y" * 120}}
        ]
        * ORDER_ITEMS,
    }
    aws.objects[NAMES.keys.orders] = json.dumps(full, separators=(",", ":")).encode()
    assert aws.channel().orders().problem is None
    assert yes(run, "pause") == 1
    assert "control.json takes no more" in capsys.readouterr().err
    assert yes(run, "halt") == 0
    assert aws.channel().orders().orders.halted


def test_approvals_do_not_pile_up(aws: OpsAws, run: Ops) -> None:
    old = ApprovalOrder(ring="canary", sha256="0" * 64, order=PERSON)
    aws.order(Orders(approvals=(old,) * KEPT_APPROVALS))
    assert yes(run, "approve", "canary") == 0
    assert len(aws.orders().approvals) == KEPT_APPROVALS
    assert aws.orders().approvals[-1].sha256 == NEW.sha256


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_forged_job_neither_escapes_a_halt_nor_hides_another(
    aws: OpsAws, run: Ops, is_lost: bool
) -> None:
    forged, newest = NAMES.job("canary", 2**63), NAMES.job("broad", 210)
    aws.job(forged, armed=False)
    aws.documents[forged] = "{}"
    if is_lost:
        aws.job(newest, armed=False)
        aws.objects[NAMES.keys.state] = b"{}"
    assert yes(run, "halt") == 0
    assert not {forged, newest, CANDIDATE_JOB} & aws.live_jobs()
    assert NAMES.job("canary", 100) in aws.live_jobs(), "what was proved stays"


def test_a_halt_works_where_documents_cannot_be_read(aws: OpsAws, run: Ops) -> None:
    aws.denied.add("GetJobDocument")
    assert yes(run, "halt") == 0
    assert CANDIDATE_JOB not in aws.live_jobs()


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
    assert aws.live_jobs() == KEPT_JOBS, "the armed and the newest are gone, no other"


def test_halt_without_the_state_leaves_the_way_back_alone(aws: OpsAws, run: Ops) -> None:
    del aws.objects[NAMES.keys.state]
    aws.job(BACK_JOB, armed=False)
    assert yes(run, "halt") == 0
    assert aws.live_jobs() == {*KEPT_JOBS, BACK_JOB}


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
    aws.remember(with_offers(PROVING, offer("canary", 200, phase=Phase.ENDING)))
    aws.order(Orders(halted=PERSON))
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert (
        f"2.3.0 (sha256 {NEW.sha256[:12]}...) is offered to ring canary again, under a new"
        " sequence." in said
    )


def test_a_halt_and_resume_that_the_controller_never_saw_end_in_its_own_halt(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds a job that somebody ended, and no order: that is for a person to look at."""
    yes(run, "halt")
    assert yes(run, "resume") == 0
    said = capsys.readouterr().out
    assert "The job of ring canary was cancelled by `ops halt`" in said
    assert "it will halt, and `python -m ops resume --stack prod` is needed once more" in said
    after = decided(aws, PROVING)
    assert after.halt
    assert "`ops halt`" in after.halt.why


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


def put_state_back(aws: OpsAws) -> None:
    old = aws.objects[NAMES.keys.state]
    aws.write_state(replace(PROVING, halts=1))
    aws.made.clear()
    aws.objects[NAMES.keys.state] = old


@pytest.mark.parametrize(
    ("break_it", "halt", "why"),
    [
        (
            lambda aws: aws.objects.lose(NAMES.keys.state),
            "lost-200",
            "state.json is missing although jobs of the channel exist",
        ),
        (
            lambda aws: aws.objects.pop(NAMES.keys.state),
            "lost-v4",
            "state.json is missing although it was there",
        ),
        (
            put_state_back,
            "replayed-v5",
            "state.json is an older one that somebody put back",
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
    ids=["lost", "deleted", "replayed", "older", "invalid"],
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
    assert f"Of the {len(aws.live_jobs())} live job(s) of the channel those that this" in said
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
    aws.objects.lose(NAMES.keys.state)
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
    assert "Ring canary so far: 9 succeeded, 1 failed; 10 devices in all." in said
    [given] = aws.orders().approvals
    assert (given.ring, given.sha256, given.size) == ("canary", NEW.sha256, 10)

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
    aws.job(CANDIDATE_JOB, Succeeded=9)
    assert yes(run, "approve", "canary") == 0
    assert (aws.puts, "already" in capsys.readouterr().out) == (0, True)


@pytest.mark.parametrize(
    ("state", "ring", "message"),
    [
        (PROVED, "canary", "no release is being proved: there is nothing to approve"),
        (PROVING, "canry", "2.3.0 has no ring 'canry'; its rings are canary, broad"),
        (
            with_offers(PROVING, offer("canary", 200, phase=Phase.PASSED, passed_at=NOW)),
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


def test_a_ring_without_devices_is_approved_as_such(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that was given on a ring with devices does not let an empty one pass."""
    given = ApprovalOrder(ring="canary", sha256=NEW.sha256, order=PERSON, size=12)
    aws.order(Orders(approvals=(given,)))
    assert yes(run, "approve", "canary") == 0
    assert "RING canary HAS NO DEVICES" in capsys.readouterr().out
    assert [one.size for one in aws.orders().approvals] == [0]
    assert yes(run, "approve", "canary") == 0
    assert (aws.puts, "already" in capsys.readouterr().out) == (1, True)


def test_a_ring_that_aws_still_fills_is_not_taken_for_an_empty_one(aws: OpsAws, run: Ops) -> None:
    aws.jobs[CANDIDATE_JOB]["isConcurrent"] = True
    assert yes(run, "approve", "canary") == 0
    assert [one.size for one in aws.orders().approvals] == [None]


def test_the_oldest_approvals_make_room(aws: OpsAws, run: Ops) -> None:
    given = [
        ApprovalOrder(ring=f"ring-{n}", sha256=NEW.sha256, order=PERSON)
        for n in range(KEPT_APPROVALS)
    ]
    aws.order(Orders(approvals=tuple(given)))
    assert yes(run, "approve", "canary") == 0
    rings = [one.ring for one in aws.orders().approvals]
    assert rings == [*(one.ring for one in given[1:]), "canary"]


# Roll back


def test_rollback_takes_the_candidate_back(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    state = with_offers(
        PROVING,
        offer("canary", 200, phase=Phase.PASSED, passed_at=NOW - 300),
        offer("broad", 201),
    )
    aws.remember(state)
    aws.job(CANDIDATE_JOB, armed=False, Succeeded=10)
    aws.job(NAMES.job("broad", 201), Queued=80, InProgress=4, Succeeded=5, Failed=1)
    assert yes(run, "rollback") == 0
    said = capsys.readouterr().out
    assert (
        f"Takes back 2.3.0 (sha256 {NEW.sha256[:12]}...): 80 devices still queued will not get it."
        in said
    )
    assert "20 devices that began it, and no other, return to 2.2.0" in said
    assert "Rings that had passed are given 2.2.0 again: canary." in said
    after = decided(aws, state)
    back = after.returning()
    assert back
    assert (after.candidate, back.firmware) == (None, GOOD)
    assert after.standing(NEW.sha256) == "refused"

    assert yes(run, "rollback") == 0
    assert "This is ordered already" in capsys.readouterr().out
    assert aws.puts == 1


def test_a_release_that_was_pardoned_can_be_rolled_back_again(aws: OpsAws, run: Ops) -> None:
    assert yes(run, "rollback") == 0
    order = aws.orders().rollback
    assert order
    obeyed = decided(aws, PROVING).obeyed
    aws.remember(replace(PROVING, obeyed=obeyed))
    assert yes(run, "rollback") == 0
    assert aws.orders().rollback != order


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
                releases={
                    **state.releases,
                    NEW.sha256: replace(state.releases[NEW.sha256], one_way=True),
                },
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
    assert (after.way_back, after.halt is not None) == (None, True)


def test_rollback_of_the_last_good_release_must_be_meant(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(PROVED)
    aws.job(NAMES.job("broad", 101), armed=False, Succeeded=90)
    assert yes(run, "rollback") == 1
    assert (
        "With --yes, name it: `python -m ops rollback 2.2.0 --yes --stack prod`"
        in capsys.readouterr().err
    )
    assert yes(run, "rollback", "2.1.0") == 1
    assert (
        f"what can be taken back is 2.2.0 (sha256 {GOOD.sha256[:12]}...), not 2.1.0"
        in capsys.readouterr().err
    )

    assert yes(run, "rollback", "v2.2.0") == 0
    said = capsys.readouterr().out
    assert "every ring, 90 devices, returns to 2.1.0" in said
    assert "The stack file still names 2.2.0: revert it, or release a higher version." in said
    after = decided(aws, PROVED)
    assert after.last_good == BEFORE
    assert {one.firmware for one in after.wanted()} == {BEFORE}


def test_a_release_that_has_yet_to_start_or_was_dropped_can_be_refused(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped = firmware("2.2.7")
    left = offer("broad", 120, dropped, phase=Phase.ENDED, final=Counts(succeeded=2))
    state = with_offers(PROVED, left)
    state = replace(state, releases={**state.releases, **release(dropped, "withdrawn")})
    aws.remember(state)
    aws.jobs.pop(NAMES.job("broad", 120))
    assert yes(run, "rollback", "2.3.0") == 0, "the stack file names it"
    assert "no device is known to have begun it" in capsys.readouterr().out
    assert yes(run, "rollback", "2.2.7") == 0
    said = capsys.readouterr().out
    assert "2.2.7 (refused): 2 devices of broad began it; they return to 2.2.0" in said
    back = decided(aws, state).way_back
    assert back
    assert (back.failed, back.is_open) == ("2.2.7", True)
    assert yes(run, "rollback", "2.2.5") == 1
    assert "2.2.5 is refused already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (replace(PROVED, last_good=None), "there is nothing to take back"),
        (
            replace(PROVED, previous_good=None),
            "the controller would refuse it: rollback of the last good 2.2.0: no release was good"
            " before it. Name the version you want",
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


def test_the_last_good_release_stays_while_another_is_being_proved(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "rollback", "2.2.0") == 1
    assert (
        "the controller would refuse it: rollback of the last good 2.2.0: 2.3.0 is being proved;"
        " roll that back first, or let it pass" in capsys.readouterr().err
    )
    assert aws.puts == 0


def test_a_rollback_that_runs_is_not_taken_for_a_reason_to_go_further_back(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(replace(GOING_BACK, way_back=replace(WAY_BACK, started_at=time.time() - 60)))
    aws.job(BACK_JOB, armed=False, InProgress=3)
    aws.enlist(exposed=3, placed=3)
    assert yes(run, "rollback", "2.2.0") == 1
    assert "a rollback to 2.2.0 is running already" in capsys.readouterr().err
    aws.job(BACK_JOB, armed=False, Failed=3)
    assert yes(run, "rollback", "2.2.0") == 0, "but where it fails, further back may be the way"


def test_a_rollback_that_a_newer_release_overtook_is_not_retried(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take the newer release from the devices that have it."""
    newer = replace(MANIFEST, firmware=firmware("2.4.0"))
    candidate = Candidate(manifest=newer, downgrade=False)
    state = with_offers(GOING_BACK, offer("canary", 400, newer.firmware))
    aws.remember(replace(state, candidate=candidate))
    assert yes(run, "retry", "rollback") == 1
    assert "a newer release than this rollback has been offered" in capsys.readouterr().err
    assert aws.puts == 0


def test_a_rollback_under_a_halt_says_that_it_happens_all_the_same(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(replace(PROVING, halt=Halt(id="200-1", why="by hand", at=NOW)))
    assert yes(run, "rollback") == 0
    said = capsys.readouterr().out
    assert "The controller is halted (200-1), and stays so until `python -m ops resume" in said
    assert "devices go back all the same." in said
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
    again = decided(aws, PROVING).proof("canary")
    assert again
    assert again.sequence > 200


def test_retry_of_a_ring_that_keeps_the_last_good_release(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who joined it later and failed gets it anew."""
    aws.remember(PROVED)
    aws.publish(replace(MANIFEST, firmware=GOOD))
    aws.job(NAMES.job("broad", 101), armed=False, Succeeded=90, Failed=2)
    assert yes(run, "retry", "broad") == 0
    said = capsys.readouterr().out
    assert "Offers the last good 2.2.0" in said
    assert "So far: 90 succeeded, 2 failed." in said
    state = PROVED
    observed = Observed(
        orders=aws.orders(), jobs={n: Job.from_answer(j) for n, j in aws.jobs.items()}
    )
    after = decide(replace(MANIFEST, firmware=GOOD), state, observed, NOW, NAMES)
    kept = after.kept("broad")
    assert kept
    assert (kept.firmware, kept.sequence > 101) == (GOOD, True)


def test_retry_of_the_rollback(aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]) -> None:
    aws.remember(GOING_BACK)
    aws.job(BACK_JOB, armed=False, Failed=2, Succeeded=1)
    aws.order(Orders(halted=PERSON))
    assert yes(run, "retry", "rollback") == 0
    said = capsys.readouterr().out
    assert "So far: 1 succeeded, 2 failed" in said
    assert "The channel is halted" not in said, "a way back goes on in a halt"
    again = decided(aws, GOING_BACK).returning()
    assert again
    assert again.sequence > 301


@pytest.mark.parametrize(
    ("state", "ring", "message"),
    [
        (PROVED, "canry", "no release is being proved, and none is offered to a ring 'canry'"),
        (PROVING, "canry", "ring 'canry' has not started 2.3.0; started are: canary"),
        (PROVING, "rollback", "no rollback is running: there is nothing to retry"),
        (
            replace(PROVED, way_back=replace(WAY_BACK, done_at=NOW)),
            "rollback",
            "no rollback is running; the last one ended",
        ),
        (
            with_offers(PROVING, offer("canary", 200, phase=Phase.PASSED, passed_at=NOW)),
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


# Pardon


def test_pardon_takes_a_digest_off_the_refused_list(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "pardon", "v2.2.5") == 0
    said = capsys.readouterr().out
    assert f"Takes 2.2.5, sha256 {BAD.sha256}, off the refused list." in said
    assert "ring canary: 3 failed" in said
    assert "Nothing starts by this: the stack file may name it again." in said
    order = aws.orders().pardon
    assert order
    assert order == PardonOrder(sha256=BAD.sha256, order=order.order)
    assert decided(aws, PROVING).standing(BAD.sha256) == "withdrawn"

    assert yes(run, "pardon", "2.2.5") == 0
    assert "This is ordered already" in capsys.readouterr().out
    assert aws.puts == 1


def test_pardon_says_when_the_stack_file_names_it(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(GOING_BACK)
    assert yes(run, "pardon", NEW.sha256) == 0
    said = capsys.readouterr().out
    assert "The stack file names it: ring canary starts it as soon as that may start." in said
    assert "Devices that are on their way back still go back." in said


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2.2.0", "2.2.0 is not refused, it is good: nothing to pardon"),
        ("9.9.9", "9.9.9 is not refused; refused are: 2.2.5"),
    ],
)
def test_what_is_not_refused_cannot_be_pardoned(
    aws: OpsAws, run: Ops, version: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yes(run, "pardon", version) == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


# Waive


def test_waive_names_the_device_and_the_way_back(
    aws: OpsAws, run: Ops, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.remember(GOING_BACK)
    aws.groups[THING] = []
    aws.executions[CANDIDATE_JOB, "FAILED"] = [THING]
    earlier = WaiverOrder(thing="another", order=PERSON, group=200)
    aws.order(Orders(waived=(earlier,)))
    assert yes(run, "waive", "0001") == 0
    assert "IT MAY GO ON RUNNING FIRMWARE THAT IS NOT GOOD" in capsys.readouterr().out
    [given] = aws.orders().waived
    assert (given.thing, given.group) == (THING, WAY_BACK.group)
    assert waived_things(aws.orders(), WAY_BACK.group) == (THING,)
    assert waived_things(aws.orders(), 999) == (), "the next way back brings it back"

    assert yes(run, "waive", THING) == 0
    assert "ordered already" in capsys.readouterr().out
    assert aws.puts == 1


@pytest.mark.parametrize(
    ("state", "thing", "message"),
    [
        (PROVING, THING, "no rollback is running: there is nobody to waive"),
        (GOING_BACK, "elsewhere", "there is no thing elsewhere"),
        (GOING_BACK, THING, f"{THING} began none of {CANDIDATE_JOB}: it is not waited for"),
    ],
)
def test_who_is_not_waited_for_cannot_be_waived(
    aws: OpsAws,
    run: Ops,
    state: State,
    thing: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws.remember(state)
    aws.groups[THING] = []
    aws.executions[CANDIDATE_JOB, "QUEUED"] = [THING]
    assert yes(run, "waive", thing) == 1
    assert message in capsys.readouterr().err
    assert aws.puts == 0


def test_whoever_is_in_the_ring_of_a_deleted_job_may_be_waived(aws: OpsAws, run: Ops) -> None:
    """Who began it, nobody can tell any more: the rollback waits for the whole ring."""
    aws.remember(GOING_BACK)
    aws.jobs.pop(CANDIDATE_JOB)
    aws.groups[THING] = []
    assert yes(run, "waive", THING) == 0


def test_what_is_written_is_what_the_controller_reads(aws: OpsAws, run: Ops) -> None:
    for words in CHANGES:
        assert yes(run, *words) == 0
    written = json.loads(aws.objects[NAMES.keys.orders])
    assert {
        *("schema", "paused", "halted", "approvals"),
        *("rollback", "retry", "pardon", "waived"),
    } == set(written)
    assert {"by", "at", "why"} == set(written["paused"])
