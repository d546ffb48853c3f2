"""The ring of a device is for ever, and follows the percentages."""

from __future__ import annotations

import itertools

from hypothesis import given
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
