"""What others made on top of a stack goes before it does, whatever goes wrong in the middle; what
others own stays."""

from __future__ import annotations

import builtins
import io
import sys
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

import ops.drain
import ops.main
import ops.stack
from cloud.clients import Clients
from tests.histories.nasty_aws import AwsCall, CallEffect, Killed, Line, said_no
from tests.unit.leaving_aws import (
    BROAD,
    DECLARED,
    FOREIGN,
    NAMES,
    POLICY,
    THEIRS,
    THING,
    Certificate,
    LeavingAws,
    arn_of,
    certificate_id,
)

OLD_GROUP = NAMES.rollback_group(300)


class AwsClock:
    """AWS's own time: who waits lets it pass."""

    def __init__(self, aws: LeavingAws) -> None:
        self._aws = aws

    def time(self) -> float:
        return self._aws.now

    def sleep(self, seconds: float, /) -> None:
        self._aws.pass_time(seconds)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> LeavingAws:
    made = LeavingAws()
    made.add_device(NAMES.thing("b-8"), "b-8")
    made.make_group(OLD_GROUP)
    made.join(OLD_GROUP, THING)
    made.certificates[certificate_id("of nobody")] = Certificate(policies=[POLICY])
    monkeypatch.setattr(ops.drain, "time", AwsClock(made))
    monkeypatch.setattr(ops.drain, "THREADS", 1)
    return made


def drain(aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, *words: str, fault: Any = None) -> Line:
    line = Line(aws=aws, **({"fault": fault} if fault else {}))
    monkeypatch.setattr(ops.stack, "open_stack", lambda _: (aws.stack, Clients(line.connect)))
    said = words or ("--yes", "--why", "the pilot is over")
    line.was_harmed = ops.main.main(["drain", *said, "--stack", "prod"]) != 0
    return line


def assert_drained(aws: LeavingAws) -> None:
    assert set(aws.things) == {DECLARED, FOREIGN}
    assert set(aws.certificates) == set(map(certificate_id, (DECLARED, FOREIGN, "of nobody"))), (
        "the certificates of provisioned devices went with them, and no other did"
    )
    foreign = aws.certificates[certificate_id(FOREIGN)]
    assert (foreign.status, foreign.policies) == ("ACTIVE", [THEIRS])
    assert aws.things[FOREIGN] == set()
    assert FOREIGN not in aws.types
    assert aws.certificates[certificate_id("of nobody")].policies == []
    declared = aws.certificates[certificate_id(DECLARED)]
    assert (declared.status, declared.policies) == ("ACTIVE", [POLICY, THEIRS])
    assert aws.things[DECLARED] == {BROAD}
    assert OLD_GROUP not in aws.groups
    aws.pass_time(300)
    assert not aws.jobs


def test_what_others_made_goes_and_what_they_own_stays(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not drain(aws, monkeypatch).was_harmed
    assert_drained(aws)
    assert "REMOVES 2 devices" in capsys.readouterr().out
    assert not drain(aws, monkeypatch).was_harmed
    assert "Nothing uses the stack but what it made itself" in capsys.readouterr().out


def test_a_dry_run_says_numbers_and_changes_nothing(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = drain(aws, monkeypatch, "--dry-run")
    said = capsys.readouterr().out
    for words in ("2 devices that were prov", "Takes 1 device ", "its 4 other", "1 jobs", "1 gr"):
        assert words in said
    assert {call.operation[:3] for call in line.calls} <= {"Get", "Lis", "Des"}


@pytest.mark.parametrize(("typed", "is_done"), [("yes", False), (NAMES.fleet_group, True)])
def test_it_asks_for_the_stacks_name(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, typed: str, is_done: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", lambda _question: typed)
    assert drain(aws, monkeypatch, "--why", "over").was_harmed is not is_done
    assert (THING in aws.things) is not is_done


def test_the_channel_is_halted_before_its_jobs_go(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [
        c.operation for c in drain(aws, monkeypatch).calls if c.operation[:3] in ("Put", "Del")
    ]
    assert changes[:2] == ["PutObject", "DeleteJob"]


@pytest.mark.parametrize("harm", ["killed before", "killed after"])
def test_killed_at_any_call_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """In the nastiest moment: the certificate is detached, and nothing leads to it any more."""
    number, is_over = 0, False
    while not is_over:
        aws = LeavingAws()
        aws.make_group(OLD_GROUP)
        aws.certificates[certificate_id("of nobody")] = Certificate(policies=[POLICY])
        with monkeypatch.context() as patch:
            patch.setattr(ops.drain, "time", AwsClock(aws))
            patch.setattr(ops.drain, "THREADS", 1)

            def fault(call: AwsCall, effect: CallEffect, at: int = number) -> Any:
                if call.number == at:
                    if harm == "killed after":
                        effect()
                    raise Killed
                return effect()

            with suppress(Killed):
                is_over = len(drain(aws, patch, fault=fault).calls) <= number
            assert not drain(aws, patch).was_harmed, number
            assert_drained(aws)
        number += 1
    assert number > 40


def test_a_certificate_that_another_thing_has_stays(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = aws.certificates[certificate_id(THING)]
    shared.things.append(FOREIGN)
    assert not drain(aws, monkeypatch).was_harmed
    assert (shared.status, shared.things, shared.policies) == ("ACTIVE", [FOREIGN], [THEIRS])


def test_what_somebody_attached_to_a_declared_device_loses_the_policy(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the end of the stack would count it, and nothing would mend that."""
    extra = Certificate(policies=[POLICY], things=[DECLARED])
    aws.certificates[certificate_id("extra")] = extra
    assert not drain(aws, monkeypatch).was_harmed
    assert extra.policies == []
    own = arn_of(certificate_id(DECLARED))
    assert list(aws.stack.ties(aws.clients()).policy_targets()) == [own]


def test_what_aws_does_not_detach_is_told_and_found_again(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(call: AwsCall, effect: CallEffect) -> Any:
        return {} if call.operation == "DetachThingPrincipal" else effect()

    assert drain(aws, monkeypatch, fault=never).was_harmed
    assert "could not be let go" in capsys.readouterr().err
    assert not drain(aws, monkeypatch).was_harmed
    assert set(aws.things) == {DECLARED, FOREIGN}
    assert certificate_id(THING) not in aws.certificates


def test_many_devices_go_at_awss_pace(aws: LeavingAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.drain, "BATCH", 10)
    for number in range(30):
        aws.add_device(NAMES.thing(f"m-{number}"), f"m-{number}")
    times: dict[str, list[float]] = {}

    def note(call: AwsCall, effect: CallEffect) -> Any:
        times.setdefault(call.operation, []).append(aws.now)
        return effect()

    assert not drain(aws, monkeypatch, fault=note).was_harmed
    for operation in ("UpdateCertificate", "DeleteCertificate"):
        at = times[operation]
        assert all(late - early >= 0.99 for early, late in zip(at, at[10:], strict=False)), (
            operation
        )


def test_ten_deletions_of_jobs_at_a_time(aws: LeavingAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(101, 125):
        aws.create(NAMES.job("broad", number), BROAD, "{}", {}, mine=True)
    assert not drain(aws, monkeypatch).was_harmed
    aws.pass_time(300)
    assert not aws.jobs


def test_what_aws_refuses_is_told(
    aws: LeavingAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(call: AwsCall, effect: CallEffect) -> Any:
        if call.operation == "DeleteThing":
            raise said_no("ThrottlingException", call.operation)
        return effect()

    assert drain(aws, monkeypatch, fault=fault).was_harmed
    assert "ThrottlingException" in capsys.readouterr().err
    assert not drain(aws, monkeypatch).was_harmed
    assert set(aws.things) == {DECLARED, FOREIGN}


def test_who_may_not_ask_who_has_the_policy_counts_nobody(aws: LeavingAws) -> None:
    """A local AWS judges that call by another resource than AWS does."""
    ties = aws.stack.ties(aws.clients())
    assert ties.count_policy_targets(10) == 5
    assert ties.count_policy_targets(2) == 2
    aws.denied = {"ListTargetsForPolicy"}
    assert ties.count_policy_targets(10) == 0
    aws.denied, aws.policies = set(), set()
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        ties.count_policy_targets(10)
