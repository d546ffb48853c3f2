"""What people ordered in control.json: each order is carried out, or refused with a reason, once
and at once."""

from __future__ import annotations

from dataclasses import replace

from rollout.go_back import fail_candidate, is_overtaken, retry_way_back, take_back_good
from rollout.ledger import Run, change_offer, end_offer, halt_reason, pardon_digest, refuse_digest
from rollout.names import ROLLBACK
from rollout.orders import Order, PardonOrder, RetryOrder, RollbackOrder
from rollout.state import Phase


def obey(run: Run) -> None:
    orders, standing = run.observed.orders, run.state.halt
    if standing and orders.resume and orders.resume.halt == standing.id:
        run.update(halt=None)
        run.tell("resumed", _because(orders.resume.order))
    if orders.pardon and _is_new(run, "pardon", orders.pardon.sha256, orders.pardon.order):
        _pardon(run, orders.pardon)
    if orders.rollback and _is_new(run, "rollback", orders.rollback.sha256, orders.rollback.order):
        _roll_back(run, orders.rollback)
    if orders.retry:
        _retry(run, orders.retry)


def _because(order: Order) -> str:
    return f"{order.by}: {order.why}"


def _is_new(run: Run, kind: str, sha256: str, order: Order) -> bool:
    """Whether the order was not yet carried out or refused; from now on it was."""
    key = f"{sha256[:64]} {order.at!r} {order.by[:100]}"
    if run.state.obeyed.get(kind) == key:
        return False
    run.update(obeyed={**run.state.obeyed, kind: key})
    return True


def _pardon(run: Run, order: PardonOrder) -> None:
    release = run.state.releases.get(order.sha256)
    if release is None or release.standing != "refused":
        why = f"pardon of {order.sha256[:12]}...: it is not refused"
        run.tell("order-refused", why)
        return
    for offer in run.state.offers:
        if offer.sha256 == order.sha256:  # what failed then does not refuse it again
            change_offer(run, offer, is_excused=True)
    pardon_digest(run, order.sha256, _because(order.order))
    run.tell("pardoned", _because(order.order), version=release.version)


def _roll_back(run: Run, order: RollbackOrder) -> None:
    state, why = run.state, f"{order.order.by} ordered it: {order.order.why}"
    candidate, good, previous = state.candidate, state.last_good, state.previous_good
    if state.standing(order.sha256) == "refused":
        return  # its devices are on their way back already
    if candidate and candidate.firmware.sha256 == order.sha256:
        fail_candidate(run, candidate, why, refuse=True)
    elif not _is_known(run, order.sha256):
        text = f"rollback of {order.sha256[:12]}...: no release has this digest"
        run.tell("order-refused", text)
    elif good is None or good.sha256 != order.sha256:
        # taken back before, or not yet here: it must not start to be stopped
        refuse_digest(run, order.sha256, why)
        run.tell("rollback", why)
    elif candidate:
        version = candidate.firmware.version
        text = f"rollback of the last good {good.version}: {version} is being proved; roll that"
        run.tell("order-refused", f"{text} back first, or let it pass")
    elif previous and not replace(state, last_good=previous).can_return(good):
        text = f"rollback of the last good {good.version}: its rollback is forbidden"
        run.tell("order-refused", f"{text}; release a newer version")
    elif previous is None:
        text = f"rollback of the last good {good.version}: no release was good before it"
        run.tell("order-refused", text)
    elif state.standing(previous.sha256) == "refused":
        text = f"rollback of the last good {good.version}: {previous.version}, which was good"
        run.tell("order-refused", f"{text} before it, is refused; release a newer version")
    else:
        take_back_good(run, good, previous, why)


def _is_known(run: Run, sha256: str) -> bool:
    """Whether the digest is one that was offered, or that the stack file names: others would fill
    the memory."""
    named = run.manifest is not None and run.manifest.firmware.sha256 == sha256
    return named or sha256 in run.state.releases


def _retry(run: Run, order: RetryOrder) -> None:
    """Ends the offer that the order names; what follows it goes through the door like any start. An
    order for an earlier offer is spent."""
    named = [o for o in run.state.wanted() if o.sequence == order.sequence and o.ring == order.ring]
    for offer in named:
        if order.ring == ROLLBACK:
            if is_overtaken(run.state, offer):
                key = f"retry {offer.sequence}"
                if run.state.obeyed.get("retry") != key:
                    run.update(obeyed={**run.state.obeyed, "retry": key})
                    why = "retry of the rollback: a newer release is offered to its devices"
                    run.tell("order-refused", why)
            else:
                retry_way_back(run, offer)
        elif halt_reason(run) is None and offer.phase in (Phase.PROVING, Phase.KEEPING):
            end_offer(run, offer, _because(order.order))
            run.tell("retried", "the ring is offered the release again", offer.ring)
