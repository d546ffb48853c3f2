"""A fleet that already runs something: its adopted firmware is the way back of the first release,
and nobody is offered it before that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.names import ROLLBACK
from rollout.orders import Order, Orders, RollbackOrder
from rollout.prove import find_adopted
from rollout.release import Firmware, Manifest
from rollout.state import Release, RingPhase, Standing, State
from tests.simulation.test_decide import GATE, brought_back, manifest, rolled_back
from tests.simulation.world import NAMES, Device, World, firmware
from tests.simulation.world_aws import WorldAws

ADOPTED = firmware("1.0.0")
"""What every device of a `World` begins with."""
ORDER = Order(by="alice", at=0.0, why="a test")


def first(version: str = "1.1.0", adopted: Firmware | None = ADOPTED, **changes: Any) -> Manifest:
    return manifest(version, adopted=adopted, **changes)


def offered(fleet: World, ring: str | None = None) -> set[str]:
    """The versions that jobs ever offered, to one ring or to any."""
    return {
        str(job.offer.firmware.version)
        for job in fleet.jobs.values()
        if ring in (None, job.offer.ring)
    }


def test_a_bad_first_release_goes_back_to_what_devices_ran() -> None:
    fleet = World(first(), 60)
    fleet.bad_on = {"1.1.0": {d.name for d in fleet.in_ring("canary")[::2]}}
    fleet.run(20)
    assert fleet.state.halt is None
    assert fleet.versions() == {"1.0.0"}
    assert firmware("1.1.0").sha256 in fleet.refused()
    assert rolled_back(fleet)
    assert brought_back(fleet) <= {d.name for d in fleet.in_ring("canary")}
    assert offered(fleet, ROLLBACK) == {"1.0.0"}


def test_adopting_makes_no_job_before_between_and_after() -> None:
    held = first(paused=True)
    fleet = World(held, 60)
    fleet.run(5)
    assert (fleet.state.last_good, fleet.jobs) == (ADOPTED, {})
    assert [event.what for event in fleet.state.decisions] == ["adopted"]
    fleet.bad = {"1.1.0"}
    fleet.manifest = replace(held, paused=False)
    fleet.run(20)
    for ring in held.rings:
        assert "1.0.0" not in offered(fleet, ring.name), "a ring gets it by a way back alone"
        assert fleet.state.ring_phase(ring.name) is RingPhase.NO_JOB
    assert fleet.state.last_good == ADOPTED


def test_who_joins_later_gets_the_first_release_that_passed() -> None:
    fleet = World(first(), 30)
    fleet.run(30)
    assert fleet.state.last_good == firmware("1.1.0")
    assert fleet.state.previous_good == ADOPTED
    fleet.devices["late"] = Device("late", "broad", ADOPTED)
    fleet.run(5)
    assert fleet.versions() == {"1.1.0"}


def test_a_release_of_the_adopted_firmware_has_nothing_to_install() -> None:
    fleet = World(first("1.0.0"), 30)
    fleet.run(5)
    assert fleet.jobs == {}
    assert fleet.state.waiting.kind == "nothing"
    assert "was adopted" in fleet.state.waiting.text


def test_git_takes_the_first_release_back_while_it_is_proved() -> None:
    fleet = World(first(), 60)
    fleet.run(5)
    assert "1.1.0" in fleet.versions()
    fleet.manifest = first("1.0.0")
    fleet.run(20)
    assert fleet.versions() == {"1.0.0"}
    assert fleet.refused() == set()
    assert rolled_back(fleet)


def test_git_takes_the_first_release_back_after_it_was_good_ring_by_ring() -> None:
    fleet = World(first(), 60)
    fleet.run(30)
    fleet.manifest = first("1.0.0")
    fleet.run(2)
    assert offered(fleet, "canary") == {"1.0.0", "1.1.0"}
    fleet.run(30)
    assert fleet.versions() == {"1.0.0"}
    assert (fleet.state.last_good, fleet.state.is_adopted) == (ADOPTED, False)
    fleet.devices["late"] = Device("late", "broad", firmware("0.9.0"))
    fleet.run(5)
    assert fleet.versions() == {"1.0.0"}, "now it is a release like any other"


def test_an_order_takes_the_good_first_release_back_from_whoever_began_it() -> None:
    fleet = World(first(), 60)
    fleet.run(30)
    bad = firmware("1.1.0").sha256
    fleet.orders = Orders(rollback=RollbackOrder(sha256=bad, order=ORDER))
    fleet.run(30)
    assert fleet.versions() == {"1.0.0"}
    assert fleet.refused() == {bad}
    assert all("1.0.0" not in offered(fleet, ring.name) for ring in first().rings)


def test_the_adopted_firmware_itself_cannot_be_rolled_back() -> None:
    fleet = World(first("1.0.0"), 30)
    fleet.run(1)
    fleet.orders = Orders(rollback=RollbackOrder(sha256=ADOPTED.sha256, order=ORDER))
    fleet.run(1)
    assert fleet.state.decisions[-1].what == "order-refused"
    assert "no release was good before it" in fleet.state.decisions[-1].why
    assert fleet.state.last_good == ADOPTED


def test_an_older_first_release_needs_allow_downgrade_and_then_says_so_to_devices() -> None:
    fleet = World(first("0.9.0"), 30)
    fleet.run(5)
    assert fleet.jobs == {}
    assert "is not above the last good 1.0.0" in fleet.state.waiting.text
    older = firmware("0.9.0", allow_downgrade=True)
    fleet.manifest = replace(first("0.9.0"), firmware=older)
    fleet.run(30)
    assert fleet.versions() == {"0.9.0"}


def test_a_one_way_first_release_halts_though_there_is_something_to_go_back_to() -> None:
    fleet = World(first(rollback="forbidden"), 60)
    fleet.bad = {"1.1.0"}
    fleet.run(10)
    assert fleet.state.halt is not None
    assert "its rollback is forbidden" in fleet.state.halt.why


def test_a_later_release_overtakes_the_way_back_to_the_adopted_one() -> None:
    fleet = World(first(), 60)
    fleet.bad = {"1.1.0"}
    fleet.run(8)
    fleet.manifest = first("1.2.0")
    fleet.run(60)
    assert fleet.versions() == {"1.2.0"}
    fleet.run(10)
    assert fleet.state.open_way_back is None, "who came back to the adopted one is not lost"
    assert fleet.state.waiting.kind == "nothing"


@pytest.mark.parametrize("other", [None, firmware("0.8.0")], ids=["removed", "changed"])
def test_what_is_adopted_later_has_no_effect(other: Firmware | None) -> None:
    fleet = World(first(), 60)
    fleet.run(2)
    fleet.manifest = first(adopted=other)
    fleet.bad = {"1.1.0"}
    fleet.run(20)
    assert fleet.state.last_good == ADOPTED
    assert fleet.versions() == {"1.0.0"}
    late = World(manifest("1.1.0"), 60)
    late.run(2)
    late.manifest = first()
    late.run(2)
    assert late.state.last_good is None, "devices may run anything by now"


@given(
    sequence=st.integers(0, 3),
    has_good=st.booleans(),
    standing=st.sampled_from([None, "good", "refused"]),
    has_manifest=st.booleans(),
)
@settings(max_examples=50)
def test_only_a_channel_that_never_offered_anything_adopts(
    sequence: int, has_good: bool, standing: Standing | None, has_manifest: bool
) -> None:
    releases = {ADOPTED.sha256: Release(standing=standing, at=0.0)} if standing else {}
    state = State(
        sequence=sequence,
        last_good=firmware("2.0.0") if has_good else None,
        releases=releases,
    )
    found = find_adopted(first() if has_manifest else None, state)
    is_fresh = sequence == 0 and not has_good and standing is None and has_manifest
    assert found == (ADOPTED if is_fresh else None)


# The controller


def test_the_controller_brings_a_bad_first_release_back_to_the_adopted_image() -> None:
    world = World(first(gate=replace(GATE, soak_minutes=600)), 30)
    world.bad = {"1.1.0"}
    aws = WorldAws(world)
    aws.put_image(ADOPTED)
    for _ in range(25):
        assert aws.controller().run(world.now)["outcome"] == "done"
        world.tick()
    assert world.versions() == {"1.0.0"}
    (back,) = [job for name, job in world.jobs.items() if f"-{ROLLBACK}-" in name]
    assert (back.offer.firmware, back.offer.downgrade) == (ADOPTED, True)
    document = aws.documents[NAMES.job(ROLLBACK, back.offer.sequence)]
    assert f"{ADOPTED.key}%3FversionId%3D" in document["url"]
    assert aws.state["wayBack"]["doneAt"] > 0


def test_the_first_release_does_not_start_before_the_adopted_image_is_there() -> None:
    world = World(first(), 30)
    aws = WorldAws(world)
    aws.objects.pop(ADOPTED.key, None)
    answer = aws.controller().run(world.now)
    assert (answer["kind"], world.jobs) == ("image", {})
    assert "there is no way back" in answer["waiting"]
    assert aws.state["lastGood"]["sha256"] == ADOPTED.sha256
    aws.put_image(ADOPTED)
    aws.controller().run(world.now + 60)
    assert offered(world, "canary") == {"1.1.0"}


def test_rings_without_devices_wait_for_the_first_one_and_alarm_nobody() -> None:
    world = World(first(), 0)
    aws = WorldAws(world)
    aws.put_image(ADOPTED)
    for _ in range(3):
        answer = aws.controller().run(world.now)
        world.tick()
    assert answer["kind"] == "no-devices"
