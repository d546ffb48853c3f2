"""Luck: the exact chances against figures worked out elsewhere, against devices drawn one by one,
and against the simulated course; what prod's gates are worth."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from functools import cache
from math import comb, inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast import luck
from forecast.assumptions import Assumptions
from forecast.cli import read_settings
from forecast.forecast import forecast_release
from forecast.luck import (
    FAILING_SHARES,
    NONE_YET,
    Look,
    Luck,
    draw_failures,
    find_quantile,
    follow_ring,
    list_looks,
    list_luck,
    look_again,
)
from forecast.simulated_job import devices_per_minute
from forecast.tables import luck_cells
from rollout.evidence import is_failing
from rollout.release import FailureLimit, Gate, Manifest, Pace, RingPlan
from tests.simulation.world import firmware

ROOT = Path(__file__).parents[2]
DEVICES = 10_000


@cache
def prod() -> Manifest:
    return read_settings(ROOT / "Pulumi.prod.yaml").manifest


@cache
def prod_luck() -> dict[tuple[str | None, float], Luck]:
    found = list_luck(prod(), Assumptions(devices=DEVICES))
    return {(one.ring, one.failing): one for one in found}


def one_ring(gate: Gate, **changes: object) -> Manifest:
    ring = RingPlan(name="all", percent=100.0, gate=gate)
    made = Manifest(schema=1, channel="stable", firmware=firmware("2.0.0"), rings=(ring,))
    return replace(made, **changes)  # type: ignore[arg-type]


def follow(
    gate: Gate, size: int, failing: float, assumed: Assumptions, **changes: object
) -> tuple[dict[int, float], float]:
    manifest = one_ring(gate, **changes)
    return follow_ring(manifest, manifest.rings[0], size, failing, assumed)


# The figures of the evidence, with a look after every device


def stop_after_each_device(percent: float, share: float) -> dict[float, float]:
    """The chances of a stop at each of the first 3,000 devices, and at none (`inf`)."""
    limit, failures = FailureLimit(percent=percent), NONE_YET
    stops: dict[float, float] = defaultdict(float)
    for began in range(1, 3001):
        look = Look(began, began, began, began)
        failures, stops[began] = look_again(failures, look, began - 1, share, limit)
        if not failures.chances:
            break
    stops[inf] = max(0.0, 1 - sum(stops.values()))
    return stops


@pytest.mark.parametrize(
    ("percent", "chances"),
    [
        (2, {0.25: 0.01, 0.5: 0.04, 0.9: 0.27, 1: 0.50}),
        (5, {0.25: 0.02, 0.5: 0.08, 0.9: 0.38, 1: 0.63}),
        (10, {0.25: 0.00, 0.5: 0.02, 0.9: 0.27, 1: 0.54}),
    ],
)
def test_a_release_within_the_limit_is_hardly_ever_stopped(
    percent: float, chances: dict[float, float]
) -> None:
    found = {
        part: round(100 * (1 - stop_after_each_device(percent, part * percent / 100)[inf]), 2)
        for part in chances
    }
    assert found == chances


@pytest.mark.parametrize(
    ("percent", "stopped", "devices"),
    [
        (2, 45, {0.04: (692, 1818), 0.08: (102, 276), 0.5: (3, 12), 0.95: (2, 3), 1: (2, 2)}),
        (5, 72, {0.1: (267, 694), 0.2: (38, 104), 0.5: (5, 17), 0.95: (2, 4), 1: (2, 2)}),
        (10, 86, {0.2: (121, 315), 0.4: (16, 45), 0.5: (9, 25), 0.95: (3, 5), 1: (3, 3)}),
    ],
)
def test_a_release_above_the_limit_is_stopped_within_so_many_devices(
    percent: float, stopped: int, devices: dict[float, tuple[int, int]]
) -> None:
    half_above = stop_after_each_device(percent, 1.5 * percent / 100)
    assert round(100 * (1 - half_above[inf])) == stopped
    for share, expected in devices.items():
        stops = stop_after_each_device(percent, share)
        found = tuple(find_quantile(stops, part) for part in (0.5, 0.95))  # type: ignore[arg-type]
        assert found == expected, share


def test_a_hundred_devices_let_one_in_ten_pass_as_rarely_as_the_success_rule_alone() -> None:
    """5.8 %: at most 5 of 100 failing."""
    gate = Gate(failure_limit=FailureLimit(percent=5), success_percent=95, soak_minutes=60)
    stops, passed = follow(gate, 100, 0.1, Assumptions(), pace=Pace(maximum_per_minute=10))
    alone = sum(comb(100, k) * 0.1**k * 0.9 ** (100 - k) for k in range(6))
    assert passed == pytest.approx(alone, abs=1e-6)
    assert f"{100 * passed:.1f}" == "5.8"
    assert sum(stops.values()) + passed < 1, "in between it waits for a person"


# Chances


@given(st.integers(0, 3000), st.sampled_from([0.0, 0.001, 0.02, 0.5, 0.97, 1.0]))
def test_the_failures_of_some_devices_are_binomial(devices: int, share: float) -> None:
    found = draw_failures(devices, share)
    assert found.chance == pytest.approx(1, abs=1e-8)
    mean = sum((found.low + index) * chance for index, chance in enumerate(found.chances))
    assert mean == pytest.approx(devices * share, abs=1e-4)
    for index, chance in list(enumerate(found.chances))[:3] if devices < 200 else ():
        number = found.low + index
        exact = comb(devices, number) * share**number * (1 - share) ** (devices - number)
        assert chance == pytest.approx(exact, rel=1e-9)


@given(
    st.integers(0, 300),
    st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    st.builds(
        Gate,
        coverage_percent=st.sampled_from([0.0, 90.0, 100.0]),
        success_percent=st.sampled_from([0.0, 80.0, 95.0, 100.0]),
        minimum_succeeded=st.sampled_from([1, 20]),
        failure_limit=st.builds(
            FailureLimit,
            percent=st.sampled_from([1.0, 10.0, 50.0]),
            devices=st.sampled_from([None, 1, 3]),
        ),
        soak_minutes=st.sampled_from([0.0, 2.0, 60.0]),
    ),
    st.sampled_from([(1, 1), (4, 6), (2, 25)]),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_the_ends_are_all_there_are(
    size: int, failing: float, gate: Gate, update: tuple[int, int], rejecting: float
) -> None:
    assumed = Assumptions(update_minutes=update, rejecting=rejecting)
    stops, passed = follow(gate, size, failing, assumed, pace=Pace(maximum_per_minute=20))
    assert all(0 <= chance <= 1 for chance in (*stops.values(), passed))
    assert sum(stops.values()) + passed <= 1 + 1e-9
    assert all(exposed <= size for exposed, chance in stops.items() if chance)
    if not failing:
        assert passed == 1, "a release that never fails passes"
    if failing == 1 and size * (1 - rejecting) >= 20:
        assert passed == 0 or gate.success_percent == 0 or gate.coverage_percent == 0


def test_a_longer_soak_sees_what_a_short_one_lets_pass() -> None:
    """Updates take up to 30 minutes, and half of the devices are enough."""
    passed = {}
    for soak in (0.0, 10.0, 60.0):
        gate = Gate(
            coverage_percent=0,
            success_percent=50,
            soak_minutes=soak,
            failure_limit=FailureLimit(percent=10),
        )
        assumed = Assumptions(update_minutes=(1, 30))
        passed[soak] = follow(gate, 60, 0.25, assumed)[1]
    assert passed[0.0] > passed[10.0] > passed[60.0]


def test_an_update_longer_than_the_time_out_fails() -> None:
    gate, slow = Gate(), Assumptions(update_minutes=(40, 50))
    stops, passed = follow(gate, 50, 0.0, slow, in_progress_timeout_minutes=30)
    assert passed == 0
    assert sum(stops.values()) == pytest.approx(1)


def test_no_pace_makes_more_than_some_thousand_looks() -> None:
    for pace in (Pace(maximum_per_minute=1), Pace(maximum_per_minute=1000)):
        looks = list_looks(pace, 100_000, 0.01, Assumptions())
        assert len(looks) < 1000
        assert (looks[-1].began, looks[-1].reported) == (100_000, 100_000)
        assert looks == sorted(looks)


@pytest.mark.parametrize("failing", [0.01, 0.02, 0.05])
def test_looks_at_which_nothing_can_be_stopped_change_nothing(
    failing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = prod().ring("early")
    assert ring is not None
    fast = follow_ring(prod(), ring, 5000, failing, Assumptions())
    monkeypatch.setattr(luck, "is_past_stops", lambda *_: False)
    slow = follow_ring(prod(), ring, 5000, failing, Assumptions())
    assert fast[1] == pytest.approx(slow[1], abs=1e-7)
    assert sum(fast[0].values()) == pytest.approx(sum(slow[0].values()), abs=1e-7)


# Against devices drawn one by one


def draw(ring: RingPlan, pace: Pace, size: int, failing: float, chance: random.Random) -> int | str:
    """One course of a ring: the devices exposed at the stop, `passed` or `held`. The pace follows
    what happens, and the controller looks every minute."""
    ends: dict[int, list[bool]] = defaultdict(list)
    began = failed = succeeded = minute = 0
    history, stopped_at = [], None
    while True:
        for is_failure in ends.pop(minute, []):
            failed, succeeded = failed + is_failure, succeeded + (not is_failure)
        history.append(began)
        if stopped_at is None and is_failing(ring.gate.failure_limit, began, failed):
            stopped_at = minute
        if stopped_at is not None and minute >= stopped_at + Assumptions().cancel_takes(queued=0):
            return began
        if began == size and not ends and stopped_at is None:
            needed = ring.gate.success_percent * size
            return "passed" if succeeded * 100 >= needed else "held"
        rate = min(devices_per_minute(pace, succeeded), size - began)
        for _ in range(rate):
            ends[minute + chance.randint(4, 6)].append(chance.random() < failing)
        began, minute = began + rate, minute + 1


@pytest.mark.parametrize(
    ("ring", "size", "failing"),
    [("canary", 100, 0.05), ("canary", 100, 0.1), ("early", 1000, 0.05), ("early", 1000, 0.1)],
)
def test_devices_drawn_one_by_one_fare_as_told(ring: str, size: int, failing: float) -> None:
    """300 runs, seeded: within four standard deviations, and the exposed within a minute's rate."""
    plan, chance = prod().ring(ring), random.Random(f"{ring} {failing}")
    assert plan is not None
    ends = [draw(plan, prod().pace, size, failing, chance) for _ in range(300)]
    stops, passed = follow_ring(prod(), plan, size, failing, Assumptions())
    for found, told in (
        (ends.count("passed"), passed),
        (sum(isinstance(end, int) for end in ends), sum(stops.values())),
    ):
        allowed = 4 * (300 * told * (1 - told)) ** 0.5 + 1
        assert abs(found - 300 * told) <= allowed
    exposed = sorted(end for end in ends if isinstance(end, int))
    median = find_quantile(stops, 0.5)
    assert median is not None
    assert not exposed or abs(exposed[len(exposed) // 2] - median) <= 0.1 * median + 40


# What prod's gates are worth


def test_where_all_fail_luck_is_the_simulated_course() -> None:
    made, _, _ = forecast_release(prod(), Assumptions(devices=DEVICES))
    assert made.luck == tuple(prod_luck().values())
    for bad in made.bad:
        if bad.how == "fails":
            whole = prod_luck()[bad.ring, 1.0]
            assert whole.exposed == whole.exposed_most == bad.course.exposed, bad.ring


def test_prod_lets_a_release_pass_that_fails_on_two_percent_and_stops_what_is_worse() -> None:
    found = prod_luck()
    for failing in (0.001, 0.005, 0.01, 0.02):
        assert found[None, failing].stopped < 1e-4
    assert found[None, 0.01].held < 0.001
    assert 0.01 < found[None, 0.02].held < 0.02, "what the success rule alone implies"
    assert found["canary", 0.1].passed < 0.06
    assert found[None, 0.1].passed < 1e-6
    assert (found[None, 0.2].exposed, found[None, 0.2].exposed_most) == (100, 100)
    assert found[None, 0.2].stopped > 0.99
    assert found[None, 1.0].exposed_most == 60
    assert found[None, 0.05].passed < 1e-6, "no release that fails on 5 % becomes the last good one"


def test_the_whole_release_is_its_rings_in_turn() -> None:
    found = prod_luck()
    names = [ring.name for ring in prod().rings]
    for failing in FAILING_SHARES:
        reaches, stopped = 1.0, 0.0
        for name in names:
            stopped += reaches * found[name, failing].stopped
            reaches *= found[name, failing].passed
        whole = found[None, failing]
        assert whole.passed == pytest.approx(reaches)
        assert whole.stopped == pytest.approx(stopped)
        assert whole.stopped + whole.held + whole.passed == pytest.approx(1)


@pytest.mark.parametrize("name", ["canary", "staged", "blue-green"])
def test_an_example_lets_one_percent_pass_and_not_a_tenth(name: str) -> None:
    release = read_settings(ROOT / f"docs/examples/{name}.yaml").manifest
    found = list_luck(release, Assumptions(devices=20_000))
    whole = {one.failing: one for one in found if one.ring is None}
    assert whole[0.01].passed > 0.999
    assert whole[0.1].passed < 1e-6


def test_the_readme_tells_what_prod_makes_of_a_bad_release() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    for failing in FAILING_SHARES:
        row = f"| {' | '.join(luck_cells(prod_luck()[None, failing]))} |"
        assert row in lines, "copy `all, in turn` from: make plan STACK=prod ARGS=--markdown"
