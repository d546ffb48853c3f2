"""What the controller would make of an order, told before it is given: its own rules, run on what
there is, without a write."""

from __future__ import annotations

import time

from ops.snapshot import Snapshot
from rollout.ledger import Run
from rollout.names import Names
from rollout.obey import obey
from rollout.observed import Observed
from rollout.orders import Orders
from rollout.prove import is_awaited
from rollout.release import Manifest
from rollout.state import State


def begin_run(seen: Snapshot, state: State, manifest: Manifest | None, names: Names) -> Run:
    """A run of the controller that has yet to obey anybody."""
    run = Run(
        manifest=manifest,
        state=state,
        observed=Observed(orders=seen.orders),
        now=time.time(),
        names=names,
    )
    run.is_awaited = is_awaited(run)
    return run


def rehearse(
    state: State, orders: Orders, manifest: Manifest | None, names: Names
) -> tuple[State, str | None]:
    """The state after these orders alone, and why the controller would refuse one of them."""
    observed = Observed(orders=orders)
    run = Run(manifest=manifest, state=state, observed=observed, now=time.time(), names=names)
    obey(run)
    refused = (event.why for event in run.events if event.what == "order-refused")
    return run.state, next(refused, None)


def is_spent(state: State, orders: Orders, manifest: Manifest | None, names: Names) -> bool:
    """Whether the controller has carried these orders out, or refused them, already."""
    return rehearse(state, orders, manifest, names)[0] == state
