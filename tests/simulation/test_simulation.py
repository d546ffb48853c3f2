"""The simulated AWS IoT Jobs: what IoT documents, what must hold for every release, and the same
course as device by device."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.comparison.compare import run_unattended, stop_minute
from forecast.assumptions import Assumptions
from forecast.bounds import bound_exposure
from forecast.course import summarize
from forecast.population import apportion, apportion_next, ring_sizes, take_next
from forecast.simulated_fleet import SimulatedFleet
from forecast.simulated_job import SimulatedJob, devices_per_minute
from forecast.simulation import Simulation
from rollout.names import PLACED_A_MINUTE, ROLLBACK
from rollout.release import (
    Abort,
    AlarmGate,
    FailureLimit,
    Firmware,
    Gate,
    Manifest,
    Pace,
    RingPlan,
    Window,
)
from tests.simulation.world import World, firmware

ROOT = Path(__file__).parents[2]
LONG = 2_500
"""Minutes that random releases are followed."""
OPEN = Gate(coverage_percent=100.0, failure_limit=FailureLimit(percent=10.0))


def manifest(*rings: tuple[str, float, Gate], **changes: Any) -> Manifest:
    plans = tuple(
        RingPlan(name=name, percent=percent, gate=gate)
        for name, percent, gate in rings or (("all", 100.0, OPEN),)
    )
    return Manifest(schema=1, channel="stable", firmware=firmware("2.0.0"), rings=plans, **changes)


def two_rings(**changes: Any) -> Manifest:
    return manifest(("canary", 10.0, OPEN), ("broad", 90.0, OPEN), **changes)


def job_of(fleet: SimulatedFleet, ring: str) -> SimulatedJob:
    """The ring's job with the new firmware."""
    return next(job for job in fleet.jobs.values() if job.carries_release and job.ring == ring)


def way_back(fleet: SimulatedFleet) -> SimulatedJob:
    (job,) = (job for job in fleet.jobs.values() if job.ring == ROLLBACK)
    return job


# Shares


@given(st.integers(0, 10_000), st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_shares_add_up_and_are_off_by_less_than_one(total: int, weights: list[float]) -> None:
    found = apportion(total, weights)
    assert sum(found) == (total if any(weights) else 0)
    for number, weight in zip(found, weights, strict=True):
        assert abs(number - total * weight / (sum(weights) or 1)) < 1 or not any(weights)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 500), min_size=1),
    st.lists(st.integers(1, 60), max_size=30),
)
def test_taking_takes_everyone_once_and_keeps_to_proportions(
    counts: dict[str, int], numbers: list[int]
) -> None:
    left, remainders, taken = dict(counts), dict[str, float](), dict.fromkeys(counts, 0)
    whole = sum(counts.values())
    for number in numbers:
        before = sum(left.values())
        for key, count in take_next(number, left, remainders).items():
            assert count > 0
            taken[key] += count
        assert before - sum(left.values()) == min(number, before)
    assert all(taken[key] + left.get(key, 0) == counts[key] for key in counts)
    share = sum(taken.values()) / whole
    assert all(abs(taken[key] - counts[key] * share) <= len(counts) + 1 for key in counts)


def test_every_twentieth_device_fails_at_five_percent() -> None:
    remainders: dict[str, float] = {}
    shares = [apportion_next(1, {"fine": 95.0, "fails": 5.0}, remainders) for _ in range(100)]
    places = [place for place, one in enumerate(shares) if "fails" in one]
    assert len(places) == 5
    assert {later - earlier for earlier, later in pairwise(places)} == {20}


# IoT Jobs as documented


def test_a_ramp_is_the_one_of_the_documentation() -> None:
    pace = Pace(
        maximum_per_minute=400,
        base_per_minute=50,
        factor=2.0,
        increase_after=1000,
        increase_on="notified",
    )
    rates = [devices_per_minute(pace, notified) for notified in (0, 999, 1000, 2000, 3000, 4000)]
    assert rates == [50, 50, 100, 200, 400, 400]


def test_a_ramp_on_successes_does_not_grow_while_all_fail() -> None:
    ramp = Pace(
        maximum_per_minute=500,
        base_per_minute=5,
        factor=2.0,
        increase_after=10,
        increase_on="succeeded",
    )
    assumed = Assumptions(devices=5000, failing=1.0, update_minutes=(4, 4))
    bad = Simulation(manifest(pace=ramp, abort=()), assumed).run()
    notified = Simulation(
        manifest(pace=replace(ramp, increase_on="notified"), abort=()), assumed
    ).run()
    # until ten of 25 have failed (five of 20 are no evidence yet), and the cancel is through
    assert bad.fleet.exposed == 5 * (5 + 1)
    assert notified.fleet.exposed > 2 * bad.fleet.exposed


def test_the_rate_holds_and_a_joiner_is_outside_it() -> None:
    pace = Pace(maximum_per_minute=7)
    sim = Simulation(manifest(pace=pace), Assumptions(devices=700, joins_per_day=1440)).run(50)
    job = job_of(sim.fleet, "all")
    assert (job.notified, job.joined) == (7 * 50, 50)
    assert sim.fleet.exposed == job.notified + job.joined


def test_a_cancel_takes_time_and_the_job_goes_on_until_it_is_through() -> None:
    reached = [
        Simulation(
            manifest(pace=Pace(maximum_per_minute=10)),
            Assumptions(devices=1000, failing=1.0, cancel_minutes=minutes),
        )
        .run()
        .fleet.exposed
        for minutes in (0, 1, 5)
    ]
    assert [later - reached[0] for later in reached] == [0, 10, 50]


def test_a_cancel_takes_a_minute_for_every_thousand_queued_and_these_may_begin_meanwhile() -> None:
    evening = Assumptions(devices=4500, offline=1.0, reconnect_from=5, reconnect_until=14)
    fleet = SimulatedFleet(manifest(abort=()), evening)
    fleet.create_candidate("job", "all")
    job = fleet.jobs["job"]
    for minute in range(1, 6):
        fleet.roll_out()
        fleet.advance(minute, has_joiners=False)
    assert (job.queued, job.exposed) == (4500, 0)
    fleet.cancel(job)
    for minute in range(6, 10):
        fleet.advance(minute, has_joiners=False)
        assert (job.describe().status, job.describe().settled) == ("CANCELED", False)
        assert job.exposed == 500 * (minute - 5), "500 a minute come back"
    fleet.advance(10, has_joiners=False)
    assert (job.exposed, job.queued, job.counts().canceled) == (2500, 0, 2000)
    assert job.describe().settled
    fleet.advance(30, has_joiners=False)
    assert job.exposed == 2500
    assert job.describe().is_over


def test_a_cancel_ends_what_is_queued_and_not_what_has_begun() -> None:
    assumed = Assumptions(
        devices=1000, failing=1.0, offline=0.5, reconnect_from=10_000, reconnect_until=10_001
    )
    sim = Simulation(manifest(pace=Pace(maximum_per_minute=10)), assumed).run(3000)
    job = job_of(sim.fleet, "all")
    counts = job.counts()
    assert counts.canceled > 0
    assert (counts.queued, counts.in_progress, counts.failed) == (0, 0, job.exposed)
    assert not job.unreached


@pytest.mark.parametrize(("executed", "aborted"), [("finished", True), ("ended", False)])
def test_iot_aborts_by_either_reading_of_executed(executed: Any, aborted: bool) -> None:
    """10 % of those that finish fail; with as many rejected counted in, it is 5.3 %."""
    assumed = Assumptions(devices=900, failing=0.05, rejecting=0.5, executed=executed)
    alone = manifest(abort=(Abort(on="FAILED", percent=9.0, minimum=300),))
    assert (stop_minute(run_unattended(alone, assumed)) is not None) == aborted


def test_a_silent_device_times_out_and_an_update_longer_than_the_time_out_does_too() -> None:
    slow = Assumptions(devices=10, update_minutes=(9, 9))
    release = manifest(in_progress_timeout_minutes=5, abort=())
    late = run_unattended(release, slow)
    assert job_of(late, "all").counts().timed_out == 10
    assert late.updated == 10  # they did install it
    silent = run_unattended(release, Assumptions(devices=10, silent=1.0))
    assert job_of(silent, "all").counts().timed_out == 10
    assert (silent.updated, silent.minute) == (0, 5)


def test_devices_that_come_back_begin_at_once_whatever_the_rate() -> None:
    """The rate limits who is told; what is queued for devices that were offline begins when they
    return."""
    weekend = Assumptions(devices=1000, offline=1.0, reconnect_from=1500, reconnect_until=1500)
    sim = Simulation(manifest(pace=Pace(maximum_per_minute=1)), weekend).run(1600)
    assert sim.fleet.most_begun > 900


# The controller on it


def test_a_good_release_passes_ring_by_ring() -> None:
    sim = Simulation(two_rings(), Assumptions(devices=1000)).run()
    assert [(event.what, event.ring) for event in sim.events] == [
        ("started", "canary"),
        ("passed", "canary"),
        ("started", "broad"),
        ("passed", "broad"),
        ("last-good", None),
    ]
    assert sim.fleet.updated == sim.fleet.exposed == 1000
    assert sim.state.waiting.kind == "nothing"


def test_exposed_devices_and_no_others_go_back() -> None:
    sim = Simulation(two_rings(), Assumptions(devices=1000, failing=1.0)).run()
    back = way_back(sim.fleet)
    assert back.executions == sim.fleet.exposed <= 100
    assert back.counts().succeeded == sim.fleet.exposed
    assert sim.fleet.updated == 0
    assert [event.what for event in sim.events][-1] == "rolled-back"


def test_a_ring_that_had_passed_goes_back_whole() -> None:
    sim = Simulation(
        two_rings(), Assumptions(devices=1000, failing=1.0, healthy_rings=("canary",))
    ).run()
    before, after = (
        job for job in sim.fleet.jobs.values() if job.ring == "canary" and not job.carries_release
    )
    assert (before.is_live, before.executions) == (False, 0)
    assert (after.is_live, after.executions) == (True, 100), "it is for whoever joins, too"
    assert sim.fleet.updated == 0
    assert way_back(sim.fleet).counts().succeeded == sim.fleet.exposed > 100
    assert summarize(sim).rollback_executions == sim.fleet.exposed + 100


def test_whoever_begins_while_the_cancel_goes_on_is_brought_back_too() -> None:
    """An alarm goes off on a Friday night; 16,000 devices come back while IoT is cancelling what is
    queued for them."""
    gate = replace(OPEN, alarms=(AlarmGate(name="health", action="rollback"),))
    friday = Assumptions(
        devices=20_000,
        offline=0.8,
        reconnect_from=26,
        reconnect_until=46,
        alarm="health",
        alarm_after=20,
    )
    sim = Simulation(manifest(("all", 100.0, gate), abort=()), friday).run()
    job, events = job_of(sim.fleet, "all"), [event.what for event in sim.events]
    assert job.canceled_at is not None
    exposed_at = {point.minute: point.exposed for point in sim.fleet.points}
    assert job.cancel_ends - job.canceled_at > 10
    assert sim.fleet.exposed > exposed_at[job.canceled_at] + 8000
    assert events == ["started", "failed", "rollback", "rolled-back"]
    assert (way_back(sim.fleet).counts().succeeded, sim.fleet.updated) == (sim.fleet.exposed, 0)
    assert sim.state.way_back is not None
    assert sim.state.way_back.done_at is not None
    assert sim.state.way_back.done_at >= sim.start + 60 * job.cancel_ends


def test_a_way_back_is_not_done_before_its_sources_are_over() -> None:
    """Everybody is back at once, and the cancel takes 50 minutes: until then others may begin."""
    gate = replace(OPEN, alarms=(AlarmGate(name="health", action="rollback"),))
    assumed = Assumptions(devices=100, alarm="health", alarm_after=0, cancel_minutes=50)
    sim = Simulation(manifest(("all", 100.0, gate), abort=()), assumed).run()
    failed, back = (
        next(event.at for event in sim.events if event.what == what)
        for what in ("failed", "rolled-back")
    )
    assert back - failed >= 50 * 60


def test_a_rollback_enrolls_no_faster_than_the_controller() -> None:
    slow = Assumptions(devices=20_000, failing=1.0, update_minutes=(12, 12))
    sim = Simulation(manifest(abort=()), slow).run()
    failed = next(event.at for event in sim.events if event.what == "failed")
    back = next(event.at for event in sim.events if event.what == "rolled-back")
    assert sim.fleet.exposed > 2 * PLACED_A_MINUTE
    assert sim.fleet.enrolled == sim.fleet.exposed
    assert back - failed >= 60 * (sim.fleet.exposed // PLACED_A_MINUTE)


def test_a_first_release_that_fails_halts() -> None:
    sim = Simulation(two_rings(), Assumptions(devices=1000, failing=1.0), has_last_good=False).run()
    assert sim.state.waiting.kind == "halted"
    assert "no last good release" in sim.state.waiting.text


def test_bricks_are_named_as_lost_in_a_rollback_that_does_not_end() -> None:
    sim = Simulation(two_rings(), Assumptions(devices=1000, silent=1.0)).run()
    assert sim.state.waiting.kind == "rollback-failed"
    assert f"{sim.fleet.exposed} devices" in sim.state.waiting.text
    assert not [event for event in sim.events if event.what == "rolled-back"]
    assert sim.fleet.minute < 200, "nothing more can happen, and the simulation says so"


def test_a_late_alarm_is_seen_only_by_a_gate_that_watches_it() -> None:
    slow = Assumptions(devices=1000, alarm="health", alarm_after=20)
    quick = replace(OPEN, soak_minutes=30.0)
    blind = Simulation(manifest(("canary", 10.0, quick), ("broad", 90.0, quick)), slow).run()
    assert blind.released is not None
    seeing = replace(quick, alarms=(AlarmGate(name="health", action="rollback"),))
    watched = Simulation(manifest(("canary", 10.0, seeing), ("broad", 90.0, seeing)), slow).run()
    assert (watched.fleet.exposed, watched.fleet.updated, watched.released) == (100, 0, None)
    holding = replace(quick, alarms=(AlarmGate(name="health", action="hold"),))
    held = Simulation(manifest(("canary", 10.0, holding), ("broad", 90.0, holding)), slow).run()
    assert (held.fleet.exposed, held.state.waiting.kind) == (100, "alarms")


def test_a_person_who_takes_a_release_back_brings_the_whole_fleet_back() -> None:
    sim = Simulation(two_rings(), Assumptions(devices=1000, rollback_ordered_after=30)).run()
    assert sim.released is not None
    assert sim.fleet.updated == 0
    release = sim.state.releases[firmware("2.0.0").sha256]
    assert (release.standing, release.why) == ("refused", "forecast ordered it: assumed")


def test_an_approval_takes_the_time_of_a_person() -> None:
    gated = manifest(("canary", 10.0, replace(OPEN, approval=True)), ("broad", 90.0, OPEN))
    at_once, later = (
        Simulation(gated, Assumptions(devices=1000, approval_minutes=minutes)).run()
        for minutes in (0, 90)
    )
    nobody = Simulation(gated, Assumptions(devices=1000, approval_minutes=None)).run()
    assert at_once.released is not None
    assert later.released is not None
    assert later.released - at_once.released == 90
    assert (nobody.released, nobody.state.waiting.kind) == (None, "approval")


def test_a_ring_without_devices_passes_on_a_persons_word_only() -> None:
    empty = {"canary": 0, "broad": 50}
    approved, nobody = (
        Simulation(two_rings(), Assumptions(ring_sizes=empty, approval_minutes=minutes)).run()
        for minutes in (5, None)
    )
    assert approved.released is not None
    assert [(order.ring, order.size) for order in approved.orders.approvals] == [("canary", 0)]
    assert (nobody.fleet.exposed, nobody.state.waiting.kind) == (0, "approval")


def test_what_iots_brake_stops_below_the_evidence_waits_for_a_person() -> None:
    """One of twenty fails: no evidence against a limit of one in ten, and enough for the brake."""
    quick = manifest(
        pace=Pace(maximum_per_minute=10), abort=(Abort(on="FAILED", percent=4.0, minimum=20),)
    )
    sim = Simulation(quick, Assumptions(devices=1000, failing=0.05)).run()
    assert sim.state.waiting.kind == "halted"
    assert "IoT's brake" in sim.state.waiting.text
    assert (summarize(sim).end, sim.state.way_back) == ("waiting", None)


def test_a_window_and_a_start_time_are_kept() -> None:
    nightly = two_rings(
        start_at="2026-01-06T00:00:00Z", window=Window(cron="0 2 * * *", minutes=60)
    )
    sim = Simulation(nightly, Assumptions(devices=1000)).run()
    started = [ring.started for ring in sim.fleet.rings.values()]
    assert started == [
        18 * 60,
        18 * 60 + 6,
    ]  # 02:00 on Tuesday, and when canary's updates were done


# Device by device


@pytest.mark.parametrize("bad", ["", "fails", "silent"])
@pytest.mark.parametrize("devices", [40, 160])
def test_the_course_is_that_of_single_devices(bad: str, devices: int) -> None:
    """The same release on `World`, which keeps every device by itself and has neither rate nor
    lag."""
    release = two_rings(in_progress_timeout_minutes=30, abort=())
    world = World(release, devices)
    world.manifest = replace(release, firmware=firmware("1.0.0"))
    world.run(20)
    assert world.state.last_good is not None
    world.manifest = release
    world.bad = {"2.0.0"} if bad == "fails" else set()
    world.bricks = {"2.0.0"} if bad == "silent" else set()
    world.run(60)
    rings = {ring.name: len(world.in_ring(ring.name)) for ring in release.rings}
    assumed = Assumptions(
        ring_sizes=rings,
        failing=float(bad == "fails"),
        silent=float(bad == "silent"),
        update_minutes=(1, 1),
        cancel_minutes=0,
    )
    sim = Simulation(release, assumed).run()
    back = world.state.way_back
    exposed = len(world.exposed(back.sources)) if back else devices
    assert sim.fleet.exposed == exposed
    new = release.firmware.version
    assert sim.fleet.updated == sum(d.runs.version == new for d in world.devices.values())
    failure = {"failed", "rollback", "rolled-back"}
    if bad == "silent":
        # on World, a silent device comes to itself after its time-out; here, none ever does
        failure -= {"rolled-back"}
    theirs = [
        event
        for event in world.state.decisions
        if event.what in failure
        or (event.version == new and event.what in ("started", "passed", "last-good"))
    ]
    assert [(event.what, event.ring) for event in sim.events] == [
        (event.what, event.ring) for event in theirs
    ]
    if bad != "silent":
        assert sim.state.waiting.kind == world.state.waiting.kind


# Every release


def gates() -> st.SearchStrategy[Gate]:
    return st.builds(
        Gate,
        coverage_percent=st.sampled_from([0.0, 50.0, 90.0, 100.0]),
        success_percent=st.sampled_from([0.0, 80.0, 95.0, 100.0]),
        minimum_succeeded=st.sampled_from([1, 5, 50]),
        failure_limit=st.builds(
            FailureLimit,
            percent=st.sampled_from([1.0, 10.0, 50.0]),
            devices=st.sampled_from([None, 1, 3, 20]),
        ),
        soak_minutes=st.sampled_from([0.0, 0.05, 7.0, 61.5]),
        alarms=st.sampled_from(
            [(), (AlarmGate(name="health"),), (AlarmGate(name="health", action="rollback"),)]
        ),
        approval=st.sampled_from([False, False, True]),
        deadline_minutes=st.sampled_from([None, 30.0, 500.5]),
        on_deadline=st.sampled_from(["hold", "advance"]),
    )


@st.composite
def manifests(draw_from: st.DrawFn) -> Manifest:
    cuts = sorted(draw_from(st.sets(st.integers(1, 99), max_size=3)))
    shares = [float(end - start) for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]
    constant = st.builds(Pace, maximum_per_minute=st.sampled_from([3, 20, 1000]))
    ramp = st.builds(
        Pace,
        maximum_per_minute=st.just(300),
        base_per_minute=st.sampled_from([2, 10]),
        factor=st.sampled_from([1.1, 3.0]),
        increase_after=st.sampled_from([5, 50]),
        increase_on=st.sampled_from(["notified", "succeeded"]),
    )
    return manifest(
        *((f"r{index}", share, draw_from(gates())) for index, share in enumerate(shares)),
        pace=draw_from(constant | ramp),
        abort=draw_from(
            st.sampled_from([Manifest.abort, (Abort(on="FAILED", percent=25.0, minimum=3),)])
        ),
        in_progress_timeout_minutes=draw_from(st.sampled_from([5, 30])),
        rollback=draw_from(st.sampled_from(["automatic", "forbidden"])),
        start_at=draw_from(st.sampled_from([None, "2026-01-05T10:30:30Z"])),
        window=draw_from(st.sampled_from([None, Window(cron="0 9-23/3 * * *", minutes=60)])),
    )


@st.composite
def assumptions(draw_from: st.DrawFn) -> Assumptions:
    pick = draw_from(
        st.sampled_from(
            [
                (0, 0, 0),
                (0, 0, 0),
                (1, 0, 0),
                (0, 1, 0),
                (0.5, 0.5, 0),
                (0.6, 0, 0.4),
                (0.05, 0, 0),
                (0.2, 0.1, 0.1),
            ]
        )
    )
    return Assumptions(
        devices=draw_from(st.sampled_from([0, 1, 7, 60, 400])),
        failing=pick[0],
        silent=pick[1],
        rejecting=pick[2],
        healthy_rings=draw_from(st.sampled_from([(), (), ("r0",)])),
        offline=draw_from(st.sampled_from([0.0, 0.0, 0.3, 1.0])),
        reconnect_from=draw_from(st.sampled_from([0, 100])),
        reconnect_until=draw_from(st.sampled_from([100, 700])),
        joins_per_day=draw_from(st.sampled_from([0, 0, 300])),
        update_minutes=draw_from(st.sampled_from([(1, 1), (4, 6), (3, 20)])),
        cancel_minutes=draw_from(st.sampled_from([None, 0, 5])),
        executed=draw_from(st.sampled_from(["finished", "ended"])),
        approval_minutes=draw_from(st.sampled_from([None, 0, 45])),
        alarm="health",
        alarm_after=draw_from(st.sampled_from([None, None, 0, 45])),
        rollback_ordered_after=draw_from(st.sampled_from([None, None, 10])),
    )


@given(manifests(), assumptions(), st.booleans())
@settings(max_examples=30)
def test_skipping_minutes_changes_nothing(
    release: Manifest, assumed: Assumptions, has_last_good: bool
) -> None:
    fast, slow = (
        Simulation(release, assumed, has_last_good=has_last_good, skip=skip).run(LONG)
        for skip in (True, False)
    )
    assert fast.state == slow.state
    assert (fast.events, fast.writes, fast.fleet.points) == (
        slow.events,
        slow.writes,
        slow.fleet.points,
    )
    assert summarize(fast) == summarize(slow)
    assert {name: (job.describe(), job.executions) for name, job in fast.fleet.jobs.items()} == {
        name: (job.describe(), job.executions) for name, job in slow.fleet.jobs.items()
    }


@given(manifests(), assumptions())
@settings(max_examples=150)
def test_no_more_devices_are_exposed_than_the_bound(
    release: Manifest, assumed: Assumptions
) -> None:
    sim = Simulation(release, assumed).run(LONG)
    begun = [ring for ring in sim.fleet.rings.values() if ring.started is not None]
    if not begun:
        assert sim.fleet.exposed == 0
        return
    assert sim.fleet.exposed <= bound_exposure(sim, begun[-1].name)


@given(manifests(), assumptions(), st.booleans())
@settings(max_examples=150)
def test_every_release_ends_good_refused_or_waiting_for_something_it_names(
    release: Manifest, assumed: Assumptions, has_last_good: bool
) -> None:
    sim = Simulation(release, assumed, has_last_good=has_last_good).run(3 * LONG)
    waiting = sim.state.waiting
    good = sim.state.last_good == release.firmware
    refused = sim.state.standing(release.firmware.sha256) == "refused"
    assert good or refused or (waiting.kind not in ("nothing", "settling") and waiting.text)
    is_told = waiting.kind in ("rollback-failed", "no-way-back")
    if refused and not (sim.state.halt or assumed.silent or is_told):
        assert sim.fleet.updated == 0 or sim.fleet.minute == 3 * LONG, "whoever answers is back"


@given(manifests(), assumptions(), st.integers(1, LONG))
@settings(max_examples=150)
def test_counts_always_add_up_to_the_fleet(
    release: Manifest, assumed: Assumptions, minutes: int
) -> None:
    sim = Simulation(release, assumed).run(minutes)
    joined = sum(ring.size for ring in sim.fleet.rings.values()) - assumed.devices
    assert 0 <= joined <= assumed.joins_per_day * sim.fleet.minute / 1440
    for job in sim.fleet.jobs.values():
        counts = job.counts()
        counted = counts.size + counts.rejected + counts.canceled
        assert (
            min(
                job.queued,
                job.in_progress,
                *job.unreached.values(),
                *job.queued_offline.values(),
                *job.ended.values(),
                0,
            )
            == 0
        )
        if job.carries_release:
            assert counted == job.executions
            assert job.exposed == sum(cohort.devices for cohort in job.cohorts) <= job.executions
            if job.is_live:
                assert counted + sum(job.unreached.values()) == sim.fleet.rings[job.ring].size
    assert 0 <= sim.fleet.updated <= sim.fleet.exposed
    for group in sim.fleet.groups.values():
        assert group.members <= sim.fleet.exposed


@given(manifests(), assumptions())
def test_ring_sizes_add_up(release: Manifest, assumed: Assumptions) -> None:
    found = ring_sizes(release, assumed)
    assert list(found) == [ring.name for ring in release.rings]
    assert sum(found.values()) == assumed.devices


# Size


MEASURED = """
import re, sys, time
from pathlib import Path
from ops.__main__ import main
code = main(sys.argv[1:])
# the peak of this process alone: getrusage begins with the parent's
status = Path("/proc/self/status")
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()).group(1)) if status.exists() else 0
print(code, time.process_time(), peak / 1024, file=sys.stderr)
"""


def test_a_million_devices_take_ten_seconds_and_500_megabytes_at_most() -> None:
    """The whole command, in a process of its own: the prod stack, its good course and its bad
    ones."""
    command = ["plan", "--stack", "prod", "--devices", "1000000", "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    code, seconds, megabytes = map(float, ran.stderr.split())
    course = json.loads(ran.stdout)["forecast"]["good"]
    assert (code, course["end"], course["devices"], course["exposed"]) == (
        0,
        "good",
        1_000_000,
        1_000_000,
    )
    assert seconds < 10
    assert megabytes < 500


def test_the_simulation_of_a_million_takes_seconds() -> None:
    release = two_rings(pace=Pace(maximum_per_minute=100))
    began = time.process_time()
    sim = Simulation(release, Assumptions(devices=1_000_000, offline=0.3, failing=0.01)).run()
    assert sim.released is not None
    assert time.process_time() - began < 10


def test_firmware_before_is_below_any_other() -> None:
    sim = Simulation(manifest(), Assumptions(devices=1))
    assert isinstance(sim.state.last_good, Firmware)
    assert (
        Simulation(replace(manifest(), firmware=firmware("0.0.0")), Assumptions(devices=10))
        .run()
        .released
        is not None
    )
