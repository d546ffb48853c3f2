"""A ring fails on evidence: the figures of the test, and what holds for every number of devices."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollout.evidence import is_failing, smallest_failing
from rollout.release import FailureLimit

BEGAN = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 3000)
LIMITS = st.builds(
    FailureLimit,
    percent=st.sampled_from([0.1, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 33.0, 50.0]),
    false_stop_percent=st.sampled_from([0.01, 1.0, 5.0, 50.0]),
)


def compute(limit: FailureLimit, began: int, failing: int) -> float:
    """The evidence as it is defined, in plain arithmetic: for few devices."""
    p = limit.percent / 100
    alternatives = {0.5, 0.95, *(min(times * p, 0.95) for times in (2, 4, 8, 16))}
    ratios = [
        (q / p) ** failing * ((1 - q) / (1 - p)) ** (began - failing) for q in alternatives if q > p
    ]
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize(
    ("percent", "needed"),
    [
        (2, (2, 2, 3, 3, 4, 7, 9, 13, 24, 38, 96)),
        (5, (2, 3, 3, 5, 6, 10, 15, 24, 45, 81, 226)),
        (10, (None, 3, 4, 6, 8, 15, 23, 37, 81, 153, 444)),
    ],
)
def test_how_many_devices_must_fail(percent: float, needed: tuple[int | None, ...]) -> None:
    limit = FailureLimit(percent=percent)
    assert tuple(smallest_failing(limit, began) for began in BEGAN) == needed


@given(LIMITS, st.integers(0, 60), st.integers(0, 60))
def test_it_is_the_mean_of_likelihood_ratios(limit: FailureLimit, began: int, failing: int) -> None:
    assume(failing <= began)
    evidence, needed = compute(limit, began, failing), 100 / limit.false_stop_percent
    assume(abs(evidence - needed) > 1e-9 * needed)
    assert is_failing(limit, began, failing) == (failing >= 2 and evidence >= needed)


@given(LIMITS, st.integers(0, 1_000_000))
def test_another_device_needs_at_most_one_failure_more_and_never_fewer(
    limit: FailureLimit, began: int
) -> None:
    fewer, more = (smallest_failing(limit, began + further) for further in (0, 1))
    if fewer is None:
        return
    assert more is not None
    assert 2 <= fewer <= more <= fewer + 1


@given(LIMITS, st.integers(1, 5000), st.data())
def test_a_device_under_way_is_never_held_against_the_release(
    limit: FailureLimit, began: int, data: st.DataObject
) -> None:
    """What has failed by now, of all that began, fails no ring that the final results would not."""
    failing = data.draw(st.integers(0, began))
    failing_later = data.draw(st.integers(failing, began))
    assert is_failing(limit, began, failing_later) or not is_failing(limit, began, failing)


def test_one_device_is_no_evidence_and_any_share_within_the_limit_is_none() -> None:
    for percent in (0.1, 2, 10, 50):
        limit = FailureLimit(percent=percent)
        for began in (1, 2, 100, 1_000_000):
            assert not is_failing(limit, began, 1)
            assert not is_failing(limit, began, int(began * percent / 100))


def test_a_number_of_devices_stops_by_itself_whatever_the_evidence() -> None:
    limit = FailureLimit(percent=10, devices=1)
    assert smallest_failing(limit, 1) == 1
    assert is_failing(limit, 500, 1)
    assert not is_failing(limit, 500, 0)
    assert smallest_failing(FailureLimit(percent=10, devices=4), 3) == 3, "evidence comes first"
    assert smallest_failing(FailureLimit(percent=10, devices=3), 2) is None


@pytest.mark.parametrize("number", [-1e300, -1.0, 0.0, 5e-324, 99.9, 100.0, 1e300])
def test_no_limit_that_can_be_written_stops_the_judge(number: float) -> None:
    for limit in (FailureLimit(percent=number), FailureLimit(false_stop_percent=number)):
        for began in (0, 1, 2, 1000):
            assert not is_failing(limit, began, 0)
        assert is_failing(limit, 1000, 1000)
    assert not is_failing(FailureLimit(devices=-5), 10, 0)
    assert not is_failing(FailureLimit(devices=-5), 0, 0)
    assert is_failing(FailureLimit(devices=0), 10, 1)


def test_a_higher_chance_of_a_false_stop_needs_fewer_devices() -> None:
    needed = [
        smallest_failing(FailureLimit(percent=5, false_stop_percent=chance), 200)
        for chance in (0.01, 1, 10)
    ]
    assert needed == sorted(needed, key=lambda number: -(number or 0))
    assert len(set(needed)) == 3


def test_a_release_within_its_limit_is_stopped_as_rarely_as_promised() -> None:
    """2,000 devices, each fails with the limit's own chance, a look after every one; 600 runs, of
    which 1 % may be stopped. The seed is fixed."""
    chance = random.Random(8)
    limit = FailureLimit(percent=5.0)
    needed = [smallest_failing(limit, began) or began + 1 for began in range(2001)]
    stopped = 0
    for _ in range(600):
        failing = 0
        for began in range(1, 2001):
            failing += chance.random() < 0.05
            if failing >= needed[began]:
                stopped += 1
                break
    assert stopped <= 12, "twice the promise, so that luck does not decide"


def test_a_million_devices_are_judged_as_a_hundred_are() -> None:
    limit = FailureLimit(percent=2.0)
    assert smallest_failing(limit, 1_000_000) == 28_897
    assert is_failing(limit, 1_000_000, 28_897)
    assert not is_failing(limit, 1_000_000, 28_896)


def test_the_page_on_releasing_shows_these_numbers() -> None:
    page = (Path(__file__).parents[2] / "docs/releasing.md").read_text()
    for percent in (2, 5, 10):
        limit = FailureLimit(percent=percent)
        needed = [smallest_failing(limit, began) or "none" for began in BEGAN]
        assert f"| {percent} | {' | '.join(map(str, needed))} |" in page
