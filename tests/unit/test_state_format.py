"""The format of state.json: an earlier one is read as what it meant, a later one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.codec import decode, encode
from rollout.jws import STATE_TYPE, b64url_encode, signing_input
from rollout.names import Names
from rollout.observed import Counts, Source
from rollout.release import (
    Abort,
    AlarmGate,
    Approval,
    FailureLimit,
    Firmware,
    Gate,
    Manifest,
    Pace,
    RingPlan,
    Window,
)
from rollout.state import (
    FORMAT,
    Candidate,
    Event,
    Halt,
    Offer,
    Phase,
    Release,
    State,
    WayBack,
)
from rollout.trust import UntrustedState, verify_state
from rollout.version import Version
from rollout.waiting import Waiting

NAMES = Names(fleet="iot-fleet", suffix="0123abcd", channel="stable")
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
RECORDED = {
    number: Path(__file__).parent / f"state_format_{number}.json" for number in range(2, FORMAT + 1)
}
"""By format: as the first controller that wrote it did. It is never changed: what must change to
read it is the code."""


def firmware(version: str, digit: str, **more: Any) -> Firmware:
    return Firmware(
        version=Version(version), sha256=digit * 64, size=1843200, hardware="gateway-a1", **more
    )


GOOD, OLDER = firmware("2.1.0", "1"), firmware("2.0.0", "0")
BAD, DROPPED = firmware("2.2.0", "2"), firmware("2.2.1", "3")
NEW = firmware("2.3.0", "4", minimum_version=Version("2.0.0"), allow_downgrade=True)
LIMIT = FailureLimit(percent=2.5, false_stop_percent=0.5, devices=3)
MANIFEST = Manifest(
    schema=1,
    channel="stable",
    firmware=NEW,
    rings=(
        RingPlan(
            name="canary",
            percent=1.0,
            gate=Gate(
                coverage_percent=80.0,
                success_percent=96.5,
                minimum_succeeded=10,
                failure_limit=LIMIT,
                soak_minutes=360.0,
                alarms=(AlarmGate(name="stack:controller-errors", action="rollback"),),
                approval=True,
                deadline_minutes=2880.0,
                on_deadline="advance",
            ),
        ),
        RingPlan(name="early", percent=10.0),
        RingPlan(name="broad", percent=89.0),
    ),
    pace=Pace(
        maximum_per_minute=500,
        base_per_minute=10,
        factor=1.5,
        increase_after=50,
        increase_on="notified",
    ),
    abort=(Abort(on="TIMED_OUT", percent=60.0, minimum=30),),
    in_progress_timeout_minutes=60,
    presigned_url_seconds=600,
    rollback="forbidden",
    paused=True,
    halted=True,
    approvals=(Approval(ring="early", sha256="4" * 64),),
    start_at="2026-12-01T02:00:00Z",
    window=Window(cron="0 2 * * 6", minutes=240),
)
REMEMBERED = State(
    format=2,
    suffix="0123abcd",
    channel="stable",
    writes=1234,
    after="3sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHY",
    sequence=1790000900,
    releases={
        "0" * 64: Release(version=Version("2.0.0"), standing="good", at=1789000000.0),
        "1" * 64: Release(version=Version("2.1.0"), standing="good", at=1789500000.0),
        "2" * 64: Release(
            version=Version("2.2.0"), standing="refused", why="ring canary: 3 failed", at=1790000100
        ),
        "3" * 64: Release(
            version=Version("2.2.1"),
            standing="withdrawn",
            why="superseded",
            at=1790000200.5,
            one_way=True,
        ),
        "4" * 64: Release(version=Version("2.3.0"), standing="candidate", at=1790000300.0),
        "5" * 64: Release(standing="refused", why="a person ordered it", at=1790000000.0),
    },
    offers=(
        Offer(
            ring="broad",
            sequence=1789500002,
            firmware=GOOD,
            aim="keep",
            phase=Phase.KEEPING,
            made_at=1789500002.0,
            seen=True,
            downgrade=True,
            passed_at=1789600000.0,
            failing_then=2,
            late_failing=4,
            image="4sL4kqtJlcpXroDTDmJ-rmSpXd3dIbrHZ",
        ),
        Offer(
            ring="canary",
            sequence=1790000050,
            firmware=BAD,
            aim="prove",
            phase=Phase.ENDED,
            made_at=1790000050.0,
            seen=True,
            limit=LIMIT,
            why="ring canary: 3 failed",
            is_excused=True,
            final=Counts(
                queued=1,
                in_progress=2,
                succeeded=3,
                failed=4,
                timed_out=5,
                rejected=6,
                canceled=7,
                removed=8,
            ),
        ),
        Offer(
            ring="early",
            sequence=1790000150,
            firmware=DROPPED,
            aim="prove",
            phase=Phase.ENDING,
            made_at=1790000150.0,
            seen=True,
            why="the stack file names 2.3.0",
        ),
        Offer(
            ring="canary",
            sequence=1790000300,
            firmware=NEW,
            aim="prove",
            phase=Phase.PASSED,
            made_at=1790000300.0,
            seen=True,
            limit=LIMIT,
            healthy_since=1790000400.0,
            passed_at=1790000500.0,
        ),
        Offer(
            ring="early",
            sequence=1790000600,
            firmware=NEW,
            aim="prove",
            phase=Phase.PROVING,
            made_at=1790000600.0,
            seen=True,
        ),
        Offer(
            ring="rollback",
            sequence=1790000800,
            firmware=GOOD,
            aim="return",
            phase=Phase.RETURNING,
            made_at=1790000800.0,
            seen=True,
            downgrade=True,
        ),
        Offer(ring="broad", sequence=1790000900, firmware=NEW, aim="prove", made_at=1790000900.25),
    ),
    candidate=Candidate(manifest=MANIFEST, downgrade=True),
    last_good=GOOD,
    previous_good=OLDER,
    way_back=WayBack(
        group=1790000700,
        sources=(Source(job="0123abcd-stable-canary-1790000050", ring="canary"),),
        failed="2.2.0, 2.2.1",
        reason="ring canary: 3 failed",
        started_at=1790000700.0,
        done_at=1790000850.0,
    ),
    halt=Halt(id="halt-3", why="job 0123abcd-stable-broad-1790000650 was ended", at=1790000870.0),
    halts=3,
    ended=True,
    obeyed={"rollback": f"{'5' * 64} 1790000000.0 alice", "retry": "retry 1790000800"},
    waiting=Waiting(kind="soak", text="soaks for 360 minutes", ring="early", until=1790022000.0),
    decisions=(
        Event(at=1790000600.0, what="started", why="10 % of the fleet", ring="early"),
        Event(at=1790000700.0, what="failed", why="3 failed", version=Version("2.2.0")),
    ),
)


EXTRA = {"version": "1.0", "steps": [{"args": ["{url}", None, 1]}]}
ADOPTING = replace(
    REMEMBERED,
    format=3,
    adopted="0" * 64,
    document_extra=EXTRA,
    candidate=Candidate(
        manifest=replace(MANIFEST, adopted=OLDER, document_extra=EXTRA), downgrade=True
    ),
    decisions=(
        Event(at=1789000000.0, what="adopted", why="devices ran it", version=Version("2.0.0")),
    ),
)
"""What format 3 added: an adopted release, and keys beside ours in job documents."""
MEANT = {2: REMEMBERED, 3: ADOPTING}


def recorded(number: int) -> dict[str, Any]:
    return dict(json.loads(RECORDED[number].read_text()))


@pytest.mark.parametrize("number", RECORDED)
def test_a_state_of_an_earlier_format_is_read_as_what_it_meant(number: int) -> None:
    assert decode(State, recorded(number)) == MEANT[number]


@pytest.mark.parametrize("number", RECORDED)
def test_the_recorded_state_holds_whatever_a_release_and_an_offer_can_be_in(number: int) -> None:
    found = recorded(number)
    assert found["format"] == number
    assert {offer["phase"] for offer in found["offers"]} == {
        *("making", "proving", "passed", "keeping", "returning", "ending", "ended")
    }
    standings = {release["standing"] for release in found["releases"].values()}
    assert standings == {"candidate", "good", "refused", "withdrawn"}


def test_what_is_written_says_its_format() -> None:
    assert encode(State())["format"] == State().format == FORMAT


def signed(state: dict[str, Any]) -> bytes:
    """state.json with a signature that is taken for right."""
    header = signing_input(STATE_TYPE, KEY, state).split(".")[0]
    return json.dumps({"state": state, "jws": f"{header}..{b64url_encode(bytes(64))}"}).encode()


def believe(state: dict[str, Any]) -> State:
    return verify_state(signed(state), NAMES, [KEY], lambda *_: True)


@pytest.mark.parametrize("number", RECORDED)
def test_a_state_of_a_later_format_is_not_believed_and_says_so(number: int) -> None:
    assert believe(recorded(number)) == MEANT[number]
    for later in ({"format": FORMAT + 1}, {"format": FORMAT + 1, "shards": []}):
        with pytest.raises(UntrustedState, match="format: must be one of 2, 3, got 4") as untrusted:
            believe(recorded(number) | later)
        assert untrusted.value.halt.startswith("invalid-")


def test_a_key_that_this_controller_does_not_know_is_not_believed_either() -> None:
    with pytest.raises(UntrustedState, match="shards: unknown"):
        believe(recorded(FORMAT) | {"shards": []})
