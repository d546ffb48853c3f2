"""A device is cut off at once, whatever goes wrong in the middle, and gets back what it had."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

import ops.main
import ops.stack
from cloud.clients import Clients
from rollout.serial import SerialStatus
from tests.histories.nasty_aws import AwsCall, CallEffect, Killed, Line, said_no
from tests.unit.leaving_aws import (
    BROAD,
    CANARY,
    DECLARED,
    FOREIGN,
    JOB,
    NAMES,
    POLICY,
    THEIRS,
    THING,
    Certificate,
    LeavingAws,
    arn_of,
    certificate_id,
)

Fault = Callable[[AwsCall, CallEffect], Any]
READS = ("Get", "List", "Describe")
CERTIFICATE = certificate_id(THING)
ROLLBACK_GROUP = NAMES.rollback_group(300)


def no_harm(_call: AwsCall, effect: CallEffect) -> Any:
    return effect()


class Desk:
    """An operator at a terminal before one account."""

    def __init__(self, aws: LeavingAws, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aws, self.last = aws, aws.line()
        self.fault: Fault = no_harm
        monkeypatch.setattr(ops.stack, "open_stack", self._open)

    def _open(self, _args: object) -> tuple[Any, Clients]:
        self.last = Line(aws=self.aws, fault=self.fault)
        return self.aws.stack, Clients(self.last.connect)

    def run(self, *words: str) -> int:
        why = [] if words[0] in ("device", "status") else ["--yes", "--why", "stolen in Graz"]
        return ops.main.main([*words, *why, "--stack", "prod"])

    def changes(self) -> list[str]:
        """What the last command changed, call by call."""
        return [c.operation for c in self.last.calls if not c.operation.startswith(READS)]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    aws = LeavingAws()
    aws.register("a-7", THING)
    aws.make_group(ROLLBACK_GROUP)
    aws.join(ROLLBACK_GROUP, THING)
    aws.certificates[certificate_id("old")] = Certificate(
        status="REVOKED", policies=[POLICY], things=[THING]
    )
    aws.start_next(THING)
    return Desk(aws, monkeypatch)


def is_cut_off(aws: LeavingAws) -> bool:
    mine = [one for one in aws.certificates.values() if THING in one.things]
    stored = aws.table().get("a-7")
    return (
        not any(one.status == "ACTIVE" or one.policies for one in mine)
        and aws.things[THING] == {NAMES.quarantine_group}
        and THING not in aws.connected
        and not list(aws.open_executions(THING))
        and stored is not None
        and stored.record.status is SerialStatus.BLOCKED
    )


def test_a_device_is_cut_off_and_gets_back_what_it_had(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = desk.aws.ties_of(THING)
    assert desk.run("quarantine", THING) == 0
    assert is_cut_off(desk.aws)
    assert desk.aws.certificates[certificate_id("old")].status == "REVOKED", "never made better"
    assert "restore" in capsys.readouterr().out
    assert desk.run("restore", THING) == 0
    assert desk.aws.ties_of(THING) == before
    assert list(desk.aws.quarantine().things()) == []
    [evidence] = [key for key in desk.aws.objects if "/restored/" in key]
    assert b"stolen in Graz" in (desk.aws.body(evidence) or b"")


def test_what_protects_most_comes_first(desk: Desk) -> None:
    desk.run("quarantine", THING)
    assert desk.changes() == [
        "PutObject",
        "UpdateCertificate",
        "DeleteConnection",
        "PutItem",
        *["DetachPolicy"] * 3,
        *["RemoveThingFromThingGroup"] * 2,
        "AddThingToThingGroup",
        "CancelJobExecution",
        "DeleteConnection",
        "PutObject",
    ]


def test_it_is_let_in_last(desk: Desk) -> None:
    desk.run("quarantine", THING)
    desk.run("restore", THING)
    acts = [one for one in desk.changes() if not one.endswith("Object")]
    assert acts[-1] == "UpdateCertificate"
    assert acts.count("UpdateCertificate") == 1, "only what was active becomes active"


@pytest.mark.parametrize(
    "name", ["a-7", THING, "0001", "P12", FOREIGN], ids=lambda name: f"named-{name}"
)
def test_a_device_is_named_by_thing_or_serial(desk: Desk, name: str) -> None:
    assert desk.run("quarantine", name) == 0
    thing = {"a-7": THING, "0001": DECLARED, "P12": FOREIGN}.get(name, name)
    assert list(desk.aws.quarantine().things()) == [thing]
    assert desk.run("restore", name) == 0


def test_who_is_nobody_and_who_is_several_is_said(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.run("quarantine", "nobody") == 1
    assert "there is no thing nobody" in capsys.readouterr().err
    desk.aws.attributes[FOREIGN]["serial"] = desk.aws.attributes[THING]["serial"] = "twice"
    assert desk.run("quarantine", "twice") == 1
    assert f"2 things have the serial twice: name one of {FOREIGN}" in capsys.readouterr().err
    assert desk.changes() == []


def test_who_is_not_in_quarantine_gets_nothing_back(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.run("restore", THING) == 1
    assert "not in quarantine" in capsys.readouterr().err
    assert desk.changes() == []


def test_of_a_declared_device_and_a_shared_certificate_is_said_what_comes_of_it(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.aws.certificates[certificate_id(DECLARED)].things.append(FOREIGN)
    assert desk.run("quarantine", DECLARED) == 0
    said = capsys.readouterr().out
    assert f"ALSO THE CERTIFICATE OF {FOREIGN}" in said
    assert "Take its serial out of `fleet.devices`" in said


def numbers(desk: Desk, *words: str) -> int:
    """How many calls a whole run makes."""
    assert desk.run(*words) == 0
    return len(desk.last.calls)


@pytest.mark.parametrize("harm", ["killed before", "killed after", "refused", "answer lost"])
def test_whatever_call_breaks_a_second_run_completes_and_restore_gives_all_back(
    desk: Desk, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of both commands breaks once."""
    before = desk.aws.ties_of(THING)
    cut, mend = numbers(desk, "quarantine", THING), numbers(desk, "restore", THING)

    def breaks(number: int) -> Fault:
        def fault(call: AwsCall, effect: CallEffect) -> Any:
            if call.number != number:
                return effect()
            if harm == "refused":
                raise said_no("InternalFailureException", call.operation)
            if harm in ("killed after", "answer lost"):
                effect()
            if harm == "answer lost":
                raise EndpointConnectionError(endpoint_url="https://aws.example")
            raise Killed

        return fault

    def break_once(number: int, *words: str) -> None:
        desk.fault = breaks(number)
        with contextlib.suppress(Killed):
            desk.run(*words)
        desk.fault = no_harm

    for number in range(max(cut, mend)):
        break_once(number, "quarantine", THING)
        assert desk.run("quarantine", THING) == 0, number
        assert is_cut_off(desk.aws), number
        break_once(number, "restore", THING)
        if list(desk.aws.quarantine().things()):
            assert desk.run("restore", THING) == 0, number
        assert desk.aws.ties_of(THING) == before, number
        desk.aws.connected.add(THING)
        assert desk.aws.denied == set()


def test_what_aws_refuses_keeps_the_rest_from_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.aws.denied = {"DeleteConnection", "PutItem"}
    assert desk.run("quarantine", THING) == 1
    said = capsys.readouterr().err
    assert "cut off in part" in said
    assert "iot:DeleteConnection" in said
    assert "dynamodb:PutItem" in said
    assert desk.aws.things[THING] == {NAMES.quarantine_group}
    assert desk.aws.certificates[CERTIFICATE].status == "INACTIVE"
    stored = desk.aws.quarantine().get(THING)
    assert stored
    assert stored.record.done_at is None
    desk.aws.denied = set()
    assert desk.run("quarantine", THING) == 0
    assert is_cut_off(desk.aws)


def test_an_aws_that_ends_no_connection_is_told_and_no_failure(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(call: AwsCall, effect: CallEffect) -> Any:
        if call.operation == "DeleteConnection":
            raise said_no("InvalidRequestException", call.operation, "Unsupported path")
        return effect()

    desk.fault = fault
    assert desk.run("quarantine", THING) == 0
    assert "does not end connections (Unsupported path)" in capsys.readouterr().out


def test_a_certificate_that_came_meanwhile_is_cut_off_too(desk: Desk) -> None:
    before = desk.aws.ties_of(THING)
    desk.run("quarantine", THING)
    new = certificate_id("new")
    desk.aws.certificates[new] = Certificate(policies=[POLICY], things=[THING])
    desk.aws.certificates[CERTIFICATE].status = "ACTIVE"
    desk.aws.join(BROAD, THING)
    assert desk.run("quarantine", THING) == 0
    assert is_cut_off(desk.aws)
    assert desk.run("restore", THING) == 0
    after = desk.aws.ties_of(THING)
    assert after["certificates"].pop(new) == ("ACTIVE", [POLICY])
    assert after == before


def test_a_blocked_serial_stays_blocked(desk: Desk) -> None:
    desk.run("quarantine", THING)
    desk.run("restore", THING)
    ties = desk.aws.stack.ties(desk.aws.clients())
    stored = desk.aws.table().get("a-7")
    assert stored
    assert stored.record.status is SerialStatus.CLAIMED
    ties.block("a-7", stored.record.events[-1].order)
    desk.run("quarantine", THING)
    desk.run("restore", THING)
    stored = desk.aws.table().get("a-7")
    assert stored
    assert stored.record.status is SerialStatus.BLOCKED, "by whom, is another matter"


def test_a_group_or_policy_that_is_gone_is_told_when_it_should_come_back(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.run("quarantine", THING)
    desk.aws.delete_group(ROLLBACK_GROUP)
    desk.aws.policies.discard(THEIRS)
    assert desk.run("restore", THING) == 1
    said = capsys.readouterr()
    assert "that way back is over" in said.out
    assert f"{THEIRS} is attached to" in said.err
    desk.aws.policies.add(THEIRS)
    assert desk.run("restore", THING) == 0
    assert desk.aws.things[THING] == {BROAD}


def test_a_deleted_things_certificates_are_cut_off_by_its_record(desk: Desk) -> None:
    desk.fault = lambda call, effect: (
        (_ for _ in ()).throw(Killed()) if call.operation == "UpdateCertificate" else effect()
    )
    with pytest.raises(Killed):
        desk.run("quarantine", THING)
    desk.fault = no_harm
    for one in desk.aws.certificates.values():
        one.things = [thing for thing in one.things if thing != THING]
    desk.aws.delete_thing(THING)
    assert desk.run("quarantine", THING) == 0
    found = desk.aws.certificates[CERTIFICATE]
    assert (found.status, found.policies) == ("INACTIVE", [])


def test_nothing_is_taken_that_was_not_written_down(desk: Desk) -> None:
    before = desk.aws.ties_of(THING)
    desk.aws.denied = {"PutObject"}
    assert desk.run("quarantine", THING) == 1
    assert desk.aws.ties_of(THING) == before


def test_a_device_leaves_its_own_ring_only(desk: Desk) -> None:
    """A group of the customer's is theirs; and who was moved while in quarantine is said."""
    desk.aws.make_group("their-group")
    desk.aws.join("their-group", THING)
    desk.run("quarantine", THING)
    assert desk.aws.things[THING] == {"their-group", NAMES.quarantine_group}
    desk.aws.leave("their-group", THING)
    assert desk.run("restore", THING) == 0
    assert desk.aws.things[THING] == {BROAD, ROLLBACK_GROUP}
    assert CANARY not in desk.aws.things[THING]


def test_the_record_names_the_jobs_that_it_began(desk: Desk) -> None:
    desk.run("quarantine", THING)
    stored = desk.aws.quarantine().get(THING)
    assert stored
    assert stored.record.held.began == (JOB,)
    assert stored.record.order.why == "stolen in Graz"
    assert stored.record.held.principals[0].arn == arn_of(CERTIFICATE)


def test_who_was_placed_in_another_ring_meanwhile_returns_to_its_own(desk: Desk) -> None:
    """AWS refuses a thing in two groups of one hierarchy: both would never be given back."""
    desk.run("quarantine", THING)
    desk.aws.join(CANARY, THING)
    assert desk.run("quarantine", THING) == 0
    assert desk.aws.things[THING] == {NAMES.quarantine_group}
    assert desk.run("restore", THING) == 0
    assert desk.aws.things[THING] == {BROAD, ROLLBACK_GROUP}
