"""The ring of a device is for ever, and follows the percentages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.rings import Share, ring_of

serials = st.text(min_size=1, max_size=40)


@st.composite
def shares(draw: st.DrawFn) -> list[Share]:
    cuts = sorted(draw(st.lists(st.integers(1, 9_999), max_size=9, unique=True)))
    edges = [0, *cuts, 10_000]
    return [
        Share(name=f"r{n}", percent=(b - a) / 100)
        for n, (a, b) in enumerate(itertools.pairwise(edges))
    ]


@given(serials, shares())
def test_every_device_is_in_exactly_one_ring_and_stays_there(
    serial: str, rings: list[Share]
) -> None:
    assert ring_of(serial, rings) == ring_of(serial, list(rings)) in {ring.name for ring in rings}


@given(serials, st.integers(1, 9_998))
def test_growing_the_first_ring_only_moves_devices_into_it(serial: str, cut: int) -> None:
    small = [
        Share(name="canary", percent=cut / 100),
        Share(name="broad", percent=(10_000 - cut) / 100),
    ]
    large = [
        Share(name="canary", percent=(cut + 1) / 100),
        Share(name="broad", percent=(9_999 - cut) / 100),
    ]
    if ring_of(serial, small) == "canary":
        assert ring_of(serial, large) == "canary"


@pytest.mark.parametrize("percents", [(1, 10, 89), (10, 90)])
@pytest.mark.parametrize("lot", ["{:04}", "SN2026-{:08}", "{:012X}", "gw_{:05}-eu"])
def test_10_000_serials_are_within_a_percentage_point_of_each_share(
    lot: str, percents: Sequence[float]
) -> None:
    """The shares of the stack files. A half may stray further: by chance, in one lot of 20."""
    rings = [Share(name=f"r{n}", percent=percent) for n, percent in enumerate(percents)]
    found = Counter(ring_of(lot.format(n), rings) for n in range(1, 10_001))
    for ring in rings:
        assert abs(found[ring.name] / 100 - ring.percent) < 1


@given(st.text(max_size=12), shares(), st.integers(0, 10**12))
@settings(max_examples=25)
def test_any_lot_of_10_000_strays_no_further_than_chance_does(
    lot: str, rings: list[Share], first: int
) -> None:
    """Within five standard deviations of a draw by lot: 2.5 percentage points for a half, half a
    point for a hundredth."""
    found = Counter(ring_of(f"{lot}{first + n}", rings) for n in range(10_000))
    for ring in rings:
        share = ring.percent / 100
        # five devices more: draws of a small share are not spread evenly around it
        assert abs(found[ring.name] - 10_000 * share) <= 5 * sqrt(10_000 * share * (1 - share)) + 5


def test_a_large_fleet_follows_the_percentages() -> None:
    rings = [
        Share(name="canary", percent=1.0),
        Share(name="early", percent=10.0),
        Share(name="broad", percent=89.0),
    ]
    found = [ring_of(f"serial-{n}", rings) for n in range(20_000)]
    assert 150 <= found.count("canary") <= 250
    assert 1_800 <= found.count("early") <= 2_200


def test_the_rule_never_changes() -> None:
    """Devices in the field were placed by these very answers: a change of the rule would move them
    to other rings."""
    rings = [Share(name="canary", percent=10.0), Share(name="broad", percent=90.0)]
    canaries = [f"{n:04}" for n in range(1, 101) if ring_of(f"{n:04}", rings) == "canary"]
    assert canaries == CANARIES_OF_100


CANARIES_OF_100 = ["0038", "0039", "0062"]
