"""Whatever happens, offers and rings move only as rollout.state, and docs/architecture.md, say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.names import ROLLBACK
from rollout.orders import Order, ResumeOrder, RetryOrder, RollbackOrder
from rollout.release import Gate, Manifest, RingPlan
from rollout.state import MOVES, RING_MOVES, Phase
from tests.simulation.world import World, firmware

RINGS = (
    RingPlan(name="canary", percent=10, gate=Gate(soak_minutes=2)),
    RingPlan(name="early", percent=30, gate=Gate(soak_minutes=2)),
    RingPlan(name="broad", percent=60),
)
STEPS = 120
Step = Callable[[World], None]


def manifest(version: str) -> Manifest:
    return Manifest(schema=1, channel="stable", firmware=firmware(version), rings=RINGS)


def order(world: World) -> Order:
    return Order(by="olga", at=world.now, why="a test")


def release(world: World) -> None:
    version = f"2.{int(world.now) % 1_000_000}.0"
    world.manifest = manifest(version)
    if world.random.random() < 0.4:
        world.bad.add(version)


def revert(world: World) -> None:
    if world.state.last_good:
        world.manifest = manifest(str(world.state.last_good.version))


def halt(world: World) -> None:
    world.orders = replace(world.orders, halted=order(world))


def resume(world: World) -> None:
    own = world.state.halt.id if world.state.halt else None
    ended = ResumeOrder(order=order(world), halt=own)
    world.orders = replace(world.orders, halted=None, resume=ended)


def roll_back(world: World) -> None:
    candidate = world.state.candidate
    out = candidate.firmware if candidate else world.state.last_good
    if out:
        given = RollbackOrder(sha256=out.sha256, order=order(world))
        world.orders = replace(world.orders, rollback=given)


def retry(world: World) -> None:
    wanted = world.state.wanted()
    if wanted:
        one = world.random.choice(wanted)
        given = RetryOrder(ring=one.ring, sequence=one.sequence, order=order(world))
        world.orders = replace(world.orders, retry=given)


def end_by_hand(world: World) -> None:
    live = [name for name, job in world.jobs.items() if job.status == "IN_PROGRESS"]
    if live:
        world.cancel(world.random.choice(live), "any word")


def switch_devices(world: World) -> None:
    for device in world.devices.values():
        if world.random.random() < 0.3:
            device.online = not device.online


def nothing(_world: World) -> None:
    pass


HAPPENINGS: dict[Step, int] = {
    nothing: 10,
    release: 2,
    resume: 1,
    revert: 1,
    halt: 1,
    roll_back: 1,
    retry: 1,
    end_by_hand: 1,
    switch_devices: 1,
}
"""With how often each happens beside the others."""


def reachable(start: Phase) -> set[Phase]:
    """An offer may make several moves in one run."""
    found, todo = set[Phase](), [start]
    while todo:
        new = MOVES[todo.pop()] - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("seed", range(12))
def test_offers_and_rings_move_as_it_is_drawn(seed: int) -> None:
    world = World(manifest("1.0.0"), 40, seed=seed)
    world.run(20)
    for _ in range(STEPS):
        world.random.choices([*HAPPENINGS], [*HAPPENINGS.values()])[0](world)
        offers = {offer.sequence: offer.phase for offer in world.state.offers}
        rings = {ring.name: world.state.ring_phase(ring.name) for ring in RINGS}
        world.control_run()
        for offer in world.state.offers:
            was = offers.get(offer.sequence, offer.phase)
            assert offer.phase in {was, *reachable(was)}, (offer.ring, was, offer.phase)
        for name, before in rings.items():
            after = world.state.ring_phase(name)
            assert after in {before, *RING_MOVES[before]}, (name, before, after)
        assert sum(offer.ring == ROLLBACK for offer in world.state.wanted()) <= 1
        world.tick()
