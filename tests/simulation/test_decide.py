"""What the decision keeps true, whatever happens: random histories, and the stories a person would
tell of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout import actions as act
from rollout.decide import decide
from rollout.gates import Seen, missing_evidence
from rollout.ledger import known_versions
from rollout.names import OPERATOR_HALT
from rollout.observed import Alarm, Counts, SignedOffer
from rollout.orders import ApprovalOrder, Order, Orders, ResumeOrder, RetryOrder, RollbackOrder
from rollout.release import AlarmGate, Approval, FailureLimit, Firmware, Gate, Manifest, RingPlan
from rollout.state import MOVES, STALE, Phase, State
from rollout.trust import Proof, recover_state
from rollout.version import Version
from rollout.waiting import WAITS, Waiting, needs_a_person
from rollout.window import show, to_datetime
from tests.simulation.world import NAMES, Device, World, firmware

ORDER = Order(by="alice", at=0.0, why="a test")
GATE = Gate(
    coverage_percent=80,
    success_percent=80,
    failure_limit=FailureLimit(percent=10, devices=2),
    soak_minutes=2,
)


def manifest(
    version: str, gate: Gate = GATE, rings: str = "canary:20 early:30 broad:50", **changes: Any
) -> Manifest:
    plans = tuple(
        RingPlan(name=name, percent=float(percent), gate=gate)
        for name, percent in (r.split(":") for r in rings.split())
    )
    return Manifest(schema=1, channel="stable", firmware=firmware(version), rings=plans, **changes)


def world(devices: int = 60, version: str = "1.1.0", **changes: Any) -> World:
    """A fleet on which `version` has become the last good release."""
    found = World(manifest(version, **changes), devices)
    found.run(30)
    assert found.state.last_good == firmware(version)
    assert found.versions() == {version}
    return found


def rolled_back(fleet: World) -> bool:
    """Whether the last way back has brought everybody back."""
    return fleet.state.way_back is not None and fleet.state.way_back.done_at is not None


def rings_out(state: State) -> list[str] | None:
    """The rings that the candidate was offered to; None without one."""
    if state.candidate is None:
        return None
    return sorted(o.ring for o in state.wanted("prove"))


# Stories


def test_a_good_release_passes_ring_by_ring_and_becomes_the_last_good_one() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    seen = []
    for _ in range(30):
        fleet.run(1)
        seen.append(rings_out(fleet.state))
    assert [s for n, s in enumerate(seen) if n == 0 or s != seen[n - 1]] == [
        ["canary"],
        ["canary", "early"],
        ["broad", "canary", "early"],
        None,
    ]
    assert fleet.versions() == {"1.2.0"}
    assert fleet.state.last_good == firmware("1.2.0")
    assert fleet.state.previous_good == firmware("1.1.0")


def test_the_first_release_needs_no_last_good_one_but_has_no_way_back() -> None:
    fleet = World(manifest("1.1.0"), 60)
    fleet.bad = {"1.1.0"}
    fleet.run(10)
    assert fleet.state.halt is not None
    assert "no last good release to go back to" in fleet.state.halt.why
    assert fleet.versions() == {"1.0.0"}


def test_a_bad_release_is_stopped_in_the_first_ring_and_only_the_exposed_return() -> None:
    fleet = world()
    fleet.bad_on = {"1.2.0": {d.name for d in fleet.in_ring("canary")[::2]}}
    fleet.manifest = manifest("1.2.0")
    fleet.run(20)
    assert fleet.versions() == {"1.1.0"}
    assert firmware("1.2.0").sha256 in fleet.refused()
    begun = {d.name for d in fleet.devices.values() if "1.2.0" in d.history} | fleet.bad_on["1.2.0"]
    assert rolled_back(fleet)
    assert begun <= brought_back(fleet) <= {d.name for d in fleet.in_ring("canary")}
    assert not fleet.groups, "its group is gone with it"
    assert not any("1.2.0" in d.history for ring in ("early", "broad") for d in fleet.in_ring(ring))


def brought_back(fleet: World) -> set[str]:
    """Devices that a way back asked to return."""
    jobs = [job for job in fleet.jobs.values() if job.group is not None]
    return {thing for job in jobs for thing in job.executions}


def test_rings_that_had_passed_go_back_with_whoever_joins_them() -> None:
    fleet = world()
    fleet.bad_on = {"1.2.0": {d.name for d in fleet.in_ring("early")}}
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    assert fleet.versions() == {"1.1.0"}
    assert all("1.2.0" in d.history for d in fleet.in_ring("canary"))
    assert not any("1.2.0" in d.history for d in fleet.in_ring("broad"))
    assert {d.name for d in fleet.in_ring("canary")} <= brought_back(fleet)
    assert fleet.live("canary", "1.1.0")


def test_silent_bricks_fail_the_ring_when_they_time_out() -> None:
    fleet = world()
    fleet.bricks = {"1.2.0"}
    fleet.manifest = manifest("1.2.0")
    fleet.run(60)
    assert firmware("1.2.0").sha256 in fleet.refused()
    assert fleet.versions() == {"1.1.0"}


def test_git_revert_of_a_running_release_brings_the_exposed_back_and_refuses_nothing() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(6)
    assert "1.2.0" in fleet.versions()
    fleet.manifest = manifest("1.1.0")
    fleet.run(20)
    assert fleet.versions() == {"1.1.0"}
    assert not fleet.refused()
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    assert fleet.versions() == {"1.2.0"}


def test_git_revert_of_a_good_release_brings_the_one_before_back_without_allow_downgrade() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    fleet.manifest = manifest("1.1.0")
    fleet.run(30)
    assert fleet.versions() == {"1.1.0"}
    assert fleet.state.last_good == firmware("1.1.0")


def test_an_older_version_needs_allow_downgrade() -> None:
    fleet = world()
    fleet.manifest = manifest("1.0.5")
    fleet.run(5)
    assert fleet.state.waiting.kind == "refused"
    assert "allowDowngrade" in fleet.state.waiting.text
    allowed = manifest("1.0.5")
    fleet.manifest = replace(allowed, firmware=replace(allowed.firmware, allow_downgrade=True))
    fleet.run(30)
    assert fleet.versions() == {"1.0.5"}


def test_a_version_keeps_its_digest() -> None:
    fleet = world()
    other = manifest("1.1.0")
    fleet.manifest = replace(other, firmware=replace(other.firmware, sha256="f" * 64))
    fleet.run(5)
    assert "keeps its digest" in fleet.state.waiting.text
    assert fleet.versions() == {"1.1.0"}


def test_a_newer_release_supersedes_a_running_one_and_what_that_exposed_still_counts() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, approval=True))
    fleet.run(8)
    exposed = {d.name for d in fleet.devices.values() if str(d.runs.version) == "1.2.0"}
    assert exposed
    fleet.bad = {"1.3.0"}
    fleet.manifest = manifest("1.3.0")
    fleet.run(30)
    assert fleet.versions() == {"1.1.0"}, "devices on the superseded release come back too"


@pytest.mark.parametrize("how", ["halted", "another version"])
def test_the_limit_that_stands_now_judges_what_was_offered_before(how: str) -> None:
    lenient, strict = (
        replace(GATE, failure_limit=FailureLimit(percent=percent)) for percent in (20, 2)
    )
    fleet = world()
    fleet.bad_on = {"1.2.0": {d.name for d in fleet.in_ring("canary")[:4]}}
    fleet.manifest = manifest("1.2.0", gate=lenient)
    fleet.run(5)
    fleet.orders = Orders(halted=ORDER if how == "halted" else None)
    fleet.run(2)
    assert not fleet.refused()
    changed = manifest("1.2.0", gate=strict)
    if how == "another version":
        changed = replace(changed, firmware=replace(changed.firmware, version=Version("1.3.0")))
    fleet.manifest = changed
    fleet.run(2)
    assert fleet.refused() == {firmware("1.2.0").sha256}
    assert not any(job.offer.firmware.version == Version("1.3.0") for job in fleet.jobs.values())


def test_forbidden_rollback_halts() -> None:
    fleet = world()
    fleet.bad = {"1.2.0"}
    fleet.manifest = manifest("1.2.0", rollback="forbidden")
    fleet.run(20)
    assert fleet.state.halt is not None
    assert "rollback is forbidden" in fleet.state.halt.why
    assert fleet.state.way_back is None
    assert not fleet.live("canary", "1.2.0")


def test_a_one_way_release_that_git_took_back_leaves_nobody_in_silence() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, approval=True), rollback="forbidden")
    fleet.run(8)
    assert "1.2.0" in fleet.versions()
    fleet.manifest = manifest("1.1.0")
    fleet.run(3)
    assert fleet.state.halt is not None
    fleet.orders = Orders(resume=ResumeOrder(halt=fleet.state.halt.id, order=ORDER))
    fleet.run(5)
    assert "1.2.0" in fleet.versions(), "there is no way back"
    assert fleet.state.waiting.kind == "no-way-back"


def test_a_failed_rollback_is_said_aloud_until_somebody_retries() -> None:
    fleet = world()
    victim = fleet.in_ring("canary")[0]
    victim.runs = firmware("1.2.0")
    fleet.bad = {"1.2.0"}
    fleet.bad_on = {"1.1.0": {victim.name}}
    fleet.manifest = manifest("1.2.0")
    fleet.run(10)
    assert fleet.state.waiting.kind == "rollback-failed"
    assert "1 devices" in fleet.state.waiting.text
    fleet.bad_on = {}
    sequence = offered_back(fleet)
    fleet.orders = Orders(retry=RetryOrder(ring="rollback", sequence=sequence, order=ORDER))
    fleet.run(10)
    assert fleet.versions() == {"1.1.0"}
    assert rolled_back(fleet)


def test_an_exposed_device_that_never_answers_is_lost_after_an_hour_and_may_still_return() -> None:
    fleet = world()
    fleet.bad_on = {"1.2.0": {d.name for d in fleet.in_ring("canary")[1:]}}
    lost = fleet.in_ring("canary")[0]
    fleet.manifest = manifest("1.2.0")
    fleet.run(2)
    lost.online = False
    fleet.run(50)
    early = fleet.state.waiting.kind
    fleet.run(20)
    assert (early, fleet.state.waiting.kind) == ("rollback", "rollback-failed")
    lost.online = True
    fleet.run(5)
    assert rolled_back(fleet)
    assert fleet.versions() == {"1.1.0"}


def away_on_a_bad_release() -> tuple[World, set[str]]:
    """A canary that went offline with 1.2.0, which was stopped, and its devices."""
    fleet = world()
    victims = {d.name for d in fleet.in_ring("canary")}
    fleet.bad_on = {"1.2.0": victims}
    fleet.manifest = manifest("1.2.0")
    fleet.run(2)
    for name in victims:
        fleet.devices[name].online = False
    fleet.run(3)
    return fleet, victims


def return_on_the_newer(fleet: World, victims: set[str]) -> None:
    """They come back, and took 1.3.0 before the way back."""
    for name in victims:
        fleet.devices[name].online = True
        fleet.devices[name].sequence = fleet.state.sequence
        fleet.devices[name].runs = firmware("1.3.0")


def test_a_newer_release_overtakes_a_rollback_and_is_not_taken_back_by_its_retry() -> None:
    fleet, victims = away_on_a_bad_release()
    sequence = offered_back(fleet)
    fleet.manifest = manifest("1.3.0", gate=replace(GATE, soak_minutes=10))
    fleet.run(2)
    return_on_the_newer(fleet, victims)
    fleet.run(3)
    assert fleet.state.waiting.kind != "rollback-failed", (
        "who runs the newer release rightly rejects the way back"
    )
    fleet.orders = Orders(retry=RetryOrder(ring="rollback", sequence=sequence, order=ORDER))
    fleet.run(60)
    assert fleet.versions() == {"1.3.0"}


def test_a_way_back_does_not_hide_that_the_stack_file_names_what_is_refused() -> None:
    fleet, victims = away_on_a_bad_release()
    assert offered_back(fleet)
    fleet.manifest = manifest("1.3.0")
    fleet.run(2)
    fleet.manifest = manifest("1.2.0")
    fleet.run(5)
    assert fleet.state.candidate is not None
    assert (fleet.state.candidate.firmware, fleet.state.waiting.kind) == (
        firmware("1.3.0"),
        "coverage",
    )
    return_on_the_newer(fleet, victims)
    fleet.run(10)
    assert fleet.state.waiting.kind == "refused", "1.3.0 passes no ring while that stands there"
    assert needs_a_person(fleet.state.waiting.kind)


def offered_back(fleet: World) -> int:
    offer = fleet.state.returning()
    assert offer is not None
    return offer.sequence


def test_a_large_rollback_is_over_only_when_everybody_was_enrolled_and_is_back() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, approval=True))
    fleet.run(8)
    fleet.enrolled_a_run = 1
    fleet.manifest = manifest("1.1.0")
    exposed = [d for d in fleet.devices.values() if str(d.runs.version) == "1.2.0"]
    assert len(exposed) > 5
    fleet.run(len(exposed) - 2)
    fleet.enrolled_a_run = 0
    fleet.run(5)
    assert not rolled_back(fleet)
    assert fleet.state.waiting.kind == "rollback"
    fleet.enrolled_a_run = 1
    fleet.run(10)
    assert rolled_back(fleet)
    assert fleet.versions() == {"1.1.0"}


def test_a_release_taken_back_while_its_successor_waits_still_brings_the_exposed_back() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, approval=True))
    fleet.run(8)
    fleet.manifest = manifest("1.3.0", start_at=show(to_datetime(fleet.now + 86_400)))
    fleet.run(3)
    assert fleet.state.waiting.kind == "window"
    fleet.manifest = manifest("1.1.0")
    fleet.run(10)
    assert fleet.versions() == {"1.1.0"}


def test_offers_in_the_same_second_have_different_sequences() -> None:
    fleet = world()
    for version in ("1.2.0", "1.3.0", "1.4.0"):
        fleet.manifest = manifest(version)
        fleet.control_run()
    made = [NAMES.job_sequence(name) for name in fleet.jobs if "canary" in name]
    assert len(set(made)) == len(made) == 4


# Gates


def lacking(gate: Gate, counts: Counts, *, is_settled: bool = True) -> Waiting | None:
    seen = Seen(
        alarms={}, is_approved=False, is_approved_empty=False, is_fleet_empty=False, now=0.0
    )
    return missing_evidence(gate, counts, seen, is_settled=is_settled, is_overdue=False)


def test_what_is_still_in_progress_counts_against_the_release() -> None:
    gate = Gate(coverage_percent=50, success_percent=90)
    assert lacking(gate, Counts(succeeded=9, in_progress=1)) is None
    waiting = lacking(gate, Counts(succeeded=8, in_progress=2))
    assert waiting is not None
    assert waiting.kind == "success"


def test_rejected_devices_count_neither_for_nor_against() -> None:
    gate = Gate(coverage_percent=90, success_percent=90)
    assert lacking(gate, Counts(succeeded=9, failed=1, rejected=500)) is None


def test_counts_are_not_believed_while_the_job_still_rolls_out() -> None:
    waiting = lacking(Gate(), Counts(succeeded=10), is_settled=False)
    assert waiting is not None
    assert waiting.kind == "settling"


def test_a_ring_waits_for_its_soak() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, soak_minutes=60))
    fleet.run(30)
    assert fleet.state.waiting.kind == "soak"
    assert fleet.state.waiting.until is not None
    assert fleet.versions("early") == {"1.1.0"}
    fleet.run(40)
    assert "1.2.0" in fleet.versions("early")


@pytest.mark.parametrize("state", ["ALARM", "INSUFFICIENT_DATA", None])
def test_an_alarm_that_is_not_ok_holds(state: Any) -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, alarms=(AlarmGate(name="latency"),)))
    fleet.run(1)
    fleet.alarms = {"latency": Alarm(state=state, since=fleet.now)} if state else {}
    fleet.run(15)
    assert (fleet.state.waiting.kind, fleet.state.waiting.ring) == ("alarms", "canary")
    fleet.alarms = {"latency": Alarm(state="OK", since=fleet.now)}
    fleet.run(30)
    assert fleet.versions() == {"1.2.0"}


def test_an_alarm_set_to_roll_back_does_so_only_when_it_goes_off_after_the_ring_started() -> None:
    gate = replace(GATE, alarms=(AlarmGate(name="latency", action="rollback"),))
    fleet = world()
    fleet.alarms = {"latency": Alarm(state="ALARM", since=fleet.now)}
    fleet.manifest = manifest("1.2.0", gate=gate)
    fleet.run(10)
    assert fleet.state.candidate is None, "red before the ring started: it does not start"
    fleet.alarms = {"latency": Alarm(state="OK", since=fleet.now)}
    fleet.run(2)
    fleet.alarms = {"latency": Alarm(state="ALARM", since=fleet.now)}
    fleet.run(10)
    assert firmware("1.2.0").sha256 in fleet.refused()
    assert fleet.versions() == {"1.1.0"}


def test_an_approval_names_ring_and_digest() -> None:
    gate = replace(GATE, approval=True)
    fleet = world()
    wrong = (
        Approval(ring="canary", sha256=firmware("1.3.0").sha256),
        Approval(ring="early", sha256=firmware("1.2.0").sha256),
    )
    fleet.manifest = manifest("1.2.0", gate=gate, approvals=wrong)
    fleet.run(15)
    assert (fleet.state.waiting.kind, fleet.state.waiting.ring) == ("approval", "canary")
    right = ApprovalOrder(ring="canary", sha256=firmware("1.2.0").sha256, order=ORDER)
    fleet.orders = Orders(approvals=(right,))
    fleet.run(15)
    assert (fleet.state.waiting.kind, fleet.state.waiting.ring) == (
        "nothing",
        None,
    ) or fleet.state.waiting.ring == "broad"
    assert fleet.versions("canary") == fleet.versions("early") == {"1.2.0"}


def test_a_fleet_without_devices_waits_for_its_first_one_and_nobody_is_needed() -> None:
    fleet = World(manifest("1.1.0"), 0)
    fleet.run(30)
    assert (fleet.state.waiting.kind, fleet.state.waiting.ring) == ("no-devices", "canary")
    assert not needs_a_person(fleet.state.waiting.kind)
    fleet.devices["d1"] = Device("d1", "broad", firmware("1.0.0"))
    fleet.run(2)
    assert needs_a_person(fleet.state.waiting.kind), "the canary will stay empty"


def test_an_empty_ring_never_passes_for_being_empty() -> None:
    fleet = World(manifest("1.1.0"), 60)
    for device in fleet.in_ring("canary"):
        device.ring = "broad"
    fleet.run(30)
    assert fleet.versions() == {"1.0.0"}
    assert (fleet.state.waiting.kind, fleet.state.waiting.ring) == ("approval", "canary")
    approval = ApprovalOrder(ring="canary", sha256=firmware("1.1.0").sha256, order=ORDER)
    fleet.orders = Orders(approvals=(approval,))
    fleet.run(10)
    assert fleet.versions() == {"1.0.0"}, "a word given before anybody saw that it is empty"
    fleet.orders = Orders(approvals=(replace(approval, size=0),))
    fleet.run(30)
    assert fleet.versions() == {"1.1.0"}


@pytest.mark.parametrize(("on_deadline", "passes"), [("hold", False), ("advance", True)])
def test_a_deadline_holds_or_advances_and_never_rolls_back(on_deadline: Any, passes: bool) -> None:
    fleet = world()
    for device in fleet.in_ring("canary")[3:]:
        device.online = False
    gate = replace(GATE, coverage_percent=90, deadline_minutes=20, on_deadline=on_deadline)
    fleet.manifest = manifest("1.2.0", gate=gate)
    fleet.run(40)
    assert not fleet.refused()
    assert ("1.2.0" in fleet.versions("early")) is passes
    assert passes or fleet.state.waiting.kind == "deadline"


def test_a_ring_starts_only_in_its_window() -> None:
    fleet = world()
    opens = to_datetime(fleet.now + 7200).replace(minute=0, second=0)
    fleet.manifest = manifest("1.2.0", start_at=show(opens))
    fleet.run(20)
    assert fleet.state.waiting.kind == "window"
    assert fleet.state.waiting.until == opens.timestamp()
    assert fleet.versions() == {"1.1.0"}
    fleet.run(150)
    assert fleet.versions() == {"1.2.0"}


@given(st.floats(1_700_000_000, 1_900_000_000))
def test_without_a_window_a_release_starts_at_whatever_fraction_of_a_second_it_is(
    now: float,
) -> None:
    fleet = World(manifest("1.1.0"), 5)
    fleet.now = now
    fleet.control_run()
    assert fleet.state.candidate is not None


def test_rollbacks_ignore_the_window() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, approval=True))
    fleet.run(5)
    later = show(to_datetime(fleet.now + 86_400))
    fleet.manifest = manifest("1.1.0", start_at=later)
    fleet.run(10)
    assert fleet.versions() == {"1.1.0"}


# People


def test_pause_holds_the_next_ring_and_lets_the_running_one_go_on() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(1)
    fleet.orders = Orders(paused=ORDER)
    fleet.run(30)
    assert fleet.versions("canary") == {"1.2.0"}
    assert fleet.versions("early") == {"1.1.0"}
    assert fleet.state.waiting.kind == "paused"
    fleet.orders = Orders()
    fleet.run(30)
    assert fleet.versions() == {"1.2.0"}


def test_halt_cancels_the_candidate_and_resume_offers_it_anew() -> None:
    fleet = world()
    for device in fleet.in_ring("canary"):
        device.online = False
    fleet.manifest = manifest("1.2.0")
    fleet.run(2)
    fleet.orders = Orders(halted=ORDER)
    fleet.run(2)
    assert not fleet.live("canary", "1.2.0")
    for device in fleet.in_ring("canary"):
        device.online = True
    fleet.run(10)
    assert fleet.versions() == {"1.1.0"}
    fleet.orders = Orders()
    fleet.run(30)
    assert fleet.versions() == {"1.2.0"}


def job_name(fleet: World, ring: str) -> str:
    """The job that gives a ring what it is to run: the candidate's, else the last good one's."""
    offer = fleet.state.proof(ring) or fleet.state.kept(ring)
    assert offer is not None
    return NAMES.job(ring, offer.sequence)


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
@pytest.mark.parametrize("which", ["candidate", "stable"])
def test_a_job_ended_by_hand_is_a_halt_until_resume(how: str, which: str) -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, soak_minutes=30))
    fleet.run(3)
    name = job_name(fleet, "canary" if which == "candidate" else "broad")
    if how == "cancelled":
        fleet.cancel(name, "TOO_RISKY")
    else:
        fleet.cancel(name, None)
        fleet.deleted.add(name)
    fleet.run(10)
    assert fleet.state.halt is not None
    assert name in fleet.state.halt.why
    assert not fleet.live("canary", "1.2.0")
    fleet.orders = Orders(resume=ResumeOrder(halt="some other halt", order=ORDER))
    fleet.run(5)
    assert fleet.state.halt is not None
    fleet.orders = Orders(resume=ResumeOrder(halt=fleet.state.halt.id, order=ORDER))
    fleet.run(120)
    assert fleet.versions() == {"1.2.0"}


@pytest.mark.parametrize("halt", ["by the controller", "by a person"])
def test_one_resume_covers_every_job_that_was_ended_while_the_halt_stood(halt: str) -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, soak_minutes=30))
    fleet.run(3)
    names = [job_name(fleet, ring) for ring in ("canary", "broad")]
    if halt == "by a person":
        fleet.orders = Orders(halted=ORDER)
    for name in names:
        fleet.cancel(name, "BY_HAND")
        fleet.run(2)
    assert not fleet.live("broad", "1.1.0")
    ended = ResumeOrder(halt=fleet.state.halt.id, order=ORDER) if fleet.state.halt else None
    fleet.orders = Orders(resume=ended)
    fleet.run(120)
    assert fleet.versions() == {"1.2.0"}


def test_a_job_that_ops_halt_ended_is_a_halt_although_its_order_is_gone() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, soak_minutes=30))
    fleet.run(3)
    fleet.cancel(job_name(fleet, "canary"), OPERATOR_HALT)
    fleet.run(10)
    assert fleet.state.halt is not None
    assert "ops halt" in fleet.state.halt.why
    fleet.orders = Orders(resume=ResumeOrder(halt=fleet.state.halt.id, order=ORDER))
    fleet.run(150)
    assert fleet.versions() == {"1.2.0"}


def test_an_operator_rolls_back_a_release_that_had_become_the_last_good_one() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    fleet.orders = Orders(rollback=RollbackOrder(sha256=firmware("1.2.0").sha256, order=ORDER))
    fleet.run(10)
    assert fleet.versions() == {"1.1.0"}
    assert fleet.state.waiting.kind == "refused"


def test_the_last_good_release_is_not_taken_back_to_one_that_is_refused() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    for at, version in enumerate(("1.1.0", "1.2.0")):
        order = replace(ORDER, at=float(at))
        fleet.orders = Orders(rollback=RollbackOrder(sha256=firmware(version).sha256, order=order))
        fleet.run(10)
    assert fleet.state.last_good == firmware("1.2.0")
    assert fleet.refused() == {firmware("1.1.0").sha256}
    assert fleet.versions() == {"1.2.0"}
    assert any("1.1.0" in e.why for e in fleet.state.decisions if e.what == "order-refused")


def test_what_the_last_good_release_was_taken_back_to_is_good_whatever_it_was_before() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(30)
    fleet.manifest = manifest("1.1.0")  # by git, and that is superseded while devices begin it
    fleet.bad = {"1.1.0"}
    fleet.run(1)
    fleet.manifest = manifest("1.3.0", paused=True)
    fleet.control_run()
    fleet.orders = Orders(rollback=RollbackOrder(sha256=firmware("1.2.0").sha256, order=ORDER))
    fleet.run(10)
    assert fleet.state.last_good == firmware("1.1.0")
    assert fleet.refused() == {firmware("1.2.0").sha256}


def test_a_state_that_is_recovered_does_not_hold_for_good_what_a_signed_way_back_refuses() -> None:
    good, previous = firmware("1.2.0"), firmware("1.1.0")
    back = SignedOffer(
        job=NAMES.job("rollback", 7),
        ring="rollback",
        sequence=7,
        firmware=previous,
        refuses=(good.sha256,),
    )
    old = State(last_good=good, previous_good=previous)
    proof = Proof(state=old, offers={back.job: back}, live=frozenset())
    recovered = recover_state(proof, NAMES, "a test", 0.0)
    assert (recovered.last_good, recovered.previous_good) == (previous, None)


def test_a_release_that_was_ordered_back_before_it_began_never_begins() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.orders = Orders(rollback=RollbackOrder(sha256=firmware("1.2.0").sha256, order=ORDER))
    fleet.run(10)
    assert not any(str(job.offer.firmware.version) == "1.2.0" for job in fleet.jobs.values())
    assert fleet.state.waiting.kind == "refused"


def test_a_refused_manifest_starts_nothing_but_a_running_bad_release_is_still_stopped() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0")
    fleet.run(1)
    fleet.bad = {"1.2.0"}
    fleet.manifest = None
    fleet.run(20)
    assert firmware("1.2.0").sha256 in fleet.refused()
    assert fleet.versions() == {"1.1.0"}


def test_a_ring_that_the_configuration_adds_gets_the_last_good_release() -> None:
    fleet = world(rings="canary:20 broad:80")
    fleet.manifest = manifest("1.1.0", rings="canary:20 early:30 broad:50")
    joiner = Device("new-0001", "early", firmware("1.0.0"))
    fleet.devices[joiner.name] = joiner
    fleet.run(5)
    assert joiner.runs == firmware("1.1.0")


def test_a_device_that_joins_during_a_release_ends_on_what_its_ring_runs() -> None:
    fleet = world()
    fleet.manifest = manifest("1.2.0", gate=replace(GATE, soak_minutes=30))
    fleet.run(5)
    for n in range(20):
        fleet.devices[f"new-{n}"] = Device(
            f"new-{n}", ("canary", "broad")[n % 2], firmware("1.0.0")
        )
    fleet.run(5)
    assert fleet.versions("canary") == {"1.2.0"}
    assert fleet.versions("broad") == {"1.1.0"}


# Random histories

Step = Callable[[World], None]
VERSIONS = ["1.2.0", "1.3.0", "1.4.0", "1.0.5", "1.1.0"]
RINGS = ["canary", "early", "broad"]


def step(name: str, value: Any) -> Step:
    """One thing that may happen to a fleet."""

    def happen(fleet: World) -> None:
        live = sorted(n for n, job in fleet.jobs.items() if job.status == "IN_PROGRESS")
        control = fleet.orders
        match name:
            case "time":
                fleet.tick(60.0 * value)
            case "run":
                fleet.control_run()
            case "killed":
                fleet.control_run(acts=value)
            case "release":
                fleet.manifest = manifest(value)
            case "refuse":
                fleet.manifest = None
            case "bad":
                fleet.bad ^= {value}
            case "brick":
                fleet.bricks ^= {value}
            case "cancel" if live:
                fleet.cancel(live[value % len(live)], "BY_HAND")
            case "delete" if known := [name for name in live if is_known(fleet, name)]:
                fleet.cancel(known[value % len(known)], None)
                fleet.deleted.add(known[value % len(known)])
            case "pause":
                fleet.orders = replace(control, paused=ORDER if value else None)
            case "halt":
                fleet.orders = replace(control, halted=ORDER if value else None)
            case "resume" if fleet.state.halt:
                fleet.orders = replace(
                    control, resume=ResumeOrder(halt=fleet.state.halt.id, order=ORDER)
                )
            case "rollback":
                fleet.orders = replace(
                    control, rollback=RollbackOrder(sha256=firmware(value).sha256, order=ORDER)
                )
            case "retry" if offer := fleet.state.proof(value) or fleet.state.kept(value):
                again = RetryOrder(ring=value, sequence=offer.sequence, order=ORDER)
                fleet.orders = replace(control, retry=again)
            case "offline":
                for n, device in enumerate(fleet.devices.values()):
                    device.online = bool(n % value)
            case "join":
                name_ = f"new-{len(fleet.devices)}"
                fleet.devices[name_] = Device(name_, value, firmware("1.0.0"))

    return happen


def is_known(fleet: World, name: str) -> bool:
    """Whether a job is one that no run asks for again: for STALE seconds a run does that where the
    one before was killed, and nobody finds a job and deletes it as fast."""
    offer = fleet.jobs[name].offer
    seen = {o.sequence for o in fleet.state.offers if o.seen}
    return offer.sequence in seen or fleet.now - offer.made_at >= STALE


steps = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.integers(0, 20)),
        st.tuples(st.sampled_from(["run", "resume", "refuse"]), st.none()),
        st.tuples(st.just("run"), st.none()),
        st.tuples(st.just("killed"), st.integers(0, 3)),
        st.tuples(
            st.sampled_from(["release", "bad", "brick", "rollback"]), st.sampled_from(VERSIONS)
        ),
        st.tuples(st.sampled_from(["cancel", "delete"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["pause", "halt"]), st.booleans()),
        st.tuples(st.sampled_from(["retry", "join"]), st.sampled_from(RINGS)),
        st.tuples(st.just("offline"), st.sampled_from([1, 2, 3, 1000])),
    ),
    max_size=60,
)


def lived(history: list[tuple[str, Any]]) -> World:
    """The fleet after a history, with the invariants checked after every step of it."""
    fleet = World(manifest("1.1.0"), 30)
    fleet.run(20)
    for name, value in history:
        before = fleet.state
        step(name, value)(fleet)
        check(before, fleet, complete=name == "run")
    return fleet


def check(before: State, fleet: World, *, complete: bool) -> None:
    state = fleet.state
    assert state.sequence >= before.sequence, "a sequence number never falls"
    assert refused(before) <= fleet.refused(), "a refused digest stays refused"
    versions = known_versions(before.releases)
    assert versions.items() <= known_versions(state.releases).items(), "a version keeps its digest"
    assert state.candidate is None or state.candidate.firmware.sha256 not in fleet.refused()
    phases = {o.sequence: o.phase for o in before.offers}
    for offer in state.offers:
        came_from = phases.get(offer.sequence, Phase.MAKING)
        assert offer.phase in reachable(came_from), f"{came_from} does not become {offer.phase}"
    live = {
        name: job
        for name, job in fleet.jobs.items()
        if job.status == "IN_PROGRESS" and name not in fleet.deleted
    }
    assert all((NAMES.job_sequence(name) or 0) <= state.sequence for name in live), (
        "a sequence is stored before its job is made"
    )
    assert len({o.sequence for o in state.offers}) == len(state.offers), "each has its own sequence"
    unproved = [o for o in state.wanted("prove") if o.phase is not Phase.PASSED]
    assert len(unproved) <= 1, "one unproved ring"
    if not complete:
        return
    for ring in RINGS:
        mine = [job for job in live.values() if job.offer.ring == ring]
        assert len(mine) <= 2, f"at most one candidate and one last good job for {ring}"
    for job in live.values():
        assert job.offer.sha256 not in fleet.refused(), "what is refused is offered to nobody"
        acceptable = {f.sha256 for f in (state.last_good, candidate_of(state)) if f}
        assert job.offer.sha256 in acceptable, "nor is what was superseded or reverted"
    again = act.list_actions(state, fleet.observe(), NAMES)
    assert all(isinstance(action, act.Enroll) for action in again), (
        f"done twice is done once, but again: {again}"
    )


def candidate_of(state: State) -> Firmware | None:
    return state.candidate.firmware if state.candidate else None


def refused(state: State) -> set[str]:
    return {sha256 for sha256, r in state.releases.items() if r.standing == "refused"}


def reachable(phase: Phase) -> set[Phase]:
    """What an offer in this phase can be in after a run."""
    found = {phase}
    while more := {after for one in found for after in MOVES[one]} - found:
        found |= more
    return found


@settings(max_examples=150)
@given(steps)
def test_whatever_happens_the_rules_hold(history: list[tuple[str, Any]]) -> None:
    lived(history)


@settings(max_examples=100)
@given(steps)
def test_deciding_twice_is_deciding_once(history: list[tuple[str, Any]]) -> None:
    fleet = lived(history)
    observed = fleet.observe()
    once = decide(fleet.manifest, fleet.state, observed, fleet.now, NAMES)
    twice = decide(fleet.manifest, once, observed, fleet.now, NAMES)
    assert twice.sequence == once.sequence
    assert (twice.wanted(), twice.releases, twice.last_good) == (
        once.wanted(),
        once.releases,
        once.last_good,
    )
    assert (twice.candidate is None) == (once.candidate is None)


def let(fleet: World, new: Manifest) -> None:
    """Everything comes back to life, everybody says yes, and the stack file names `new`."""
    fleet.bad, fleet.bricks = set(), set()
    for device in fleet.devices.values():
        device.online = True
    fleet.manifest = new
    for _ in range(20):
        halt, offer = fleet.state.halt, fleet.state.returning()
        resume = ResumeOrder(halt=halt.id, order=ORDER) if halt else None
        sequence = offer.sequence if offer else 0
        again = RetryOrder(ring="rollback", sequence=sequence, order=ORDER)
        retry = again if fleet.state.waiting.kind == "rollback-failed" else None
        approvals = tuple(
            ApprovalOrder(ring=ring, sha256=new.firmware.sha256, order=ORDER) for ring in RINGS
        )
        fleet.orders = Orders(resume=resume, retry=retry, approvals=approvals)
        fleet.run(10)


@settings(max_examples=100)
@given(steps)
def test_every_history_ends_well_once_people_let_it(history: list[tuple[str, Any]]) -> None:
    fleet = lived(history)
    let(fleet, manifest("9.0.0"))
    assert fleet.versions() == {"9.0.0"}
    assert fleet.state.last_good == firmware("9.0.0")
    assert fleet.state.waiting.kind == "nothing"


@settings(max_examples=100)
@given(steps)
def test_after_every_history_the_last_good_release_brings_everybody_back(
    history: list[tuple[str, Any]],
) -> None:
    fleet = lived(history)
    good = fleet.state.last_good
    assert good is not None
    let(fleet, manifest(str(good.version)))
    assert fleet.state.last_good is not None
    assert fleet.versions() == {str(fleet.state.last_good.version)}
    assert fleet.state.waiting.kind in ("nothing", "refused")


@settings(max_examples=100)
@given(steps)
def test_a_release_that_stands_still_names_what_it_waits_for(
    history: list[tuple[str, Any]],
) -> None:
    fleet = lived(history)
    fleet.run(60)
    before = fleet.state
    fleet.run(30)
    state = fleet.state
    if state.candidate and before.candidate and state.offers == before.offers:
        assert state.waiting.kind != "nothing"
        assert state.waiting.text
        assert state.waiting.kind in WAITS
