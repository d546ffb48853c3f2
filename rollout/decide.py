"""The decision: what each ring should run, and why.

`decide` is pure and level-triggered: it takes the manifest, what the controller remembers, what it
saw in AWS and the time, and returns what to remember next. `rollout.actions` says which calls
follow from that.
"""

from __future__ import annotations

from rollout.go_back import follow_way_back, provide_rings
from rollout.ledger import Run, follow_jobs, halt_reason, trim
from rollout.names import Names
from rollout.obey import obey
from rollout.observed import Observed
from rollout.prove import (
    adopt_release,
    halt_for_ended,
    is_awaited,
    judge_offers,
    learn_documents,
    move_on,
    stand_still,
    tell_late_failures,
)
from rollout.release import Manifest
from rollout.state import State


def decide(
    manifest: Manifest | None, state: State, observed: Observed, now: float, names: Names
) -> State:
    """The state after this run. The manifest is None when it was refused: then nothing starts or
    passes.

    The time is in seconds since 1970.
    """
    run = Run(manifest=manifest, state=state, observed=observed, now=now, names=names)
    follow_jobs(run)
    learn_documents(run)
    adopt_release(run)
    obey(run)
    judge_offers(run)
    tell_late_failures(run)
    halt_for_ended(run)
    halted = halt_reason(run)
    if halted:
        stand_still(run, halted)
    else:
        move_on(run)
    run.is_awaited = is_awaited(run)
    follow_way_back(run)
    provide_rings(run)
    trim(run)
    return run.final_state()
