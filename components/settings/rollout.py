"""How a release is rolled out: pace, IoT's own abort, the gates, approvals, the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import exp, log
from typing import Any

from components import limits
from components.checks import Section, suggest
from components.settings.agents import read_document_extra
from components.settings.fleet import check_ring
from rollout.codec import encode, show_value
from rollout.evidence import smallest_failing
from rollout.names import GATE_ALARMS
from rollout.release import (
    Abort,
    AlarmGate,
    Approval,
    FailureLimit,
    Firmware,
    Gate,
    Manifest,
    Pace,
    RingPlan,
    Window,
)
from rollout.rings import Share


def read_manifest(
    rollout: Section,
    firmware: Firmware,
    rings: Sequence[Share],
    ring_sizes: Mapping[str, int] | None,
    adopted: Firmware | None = None,
) -> Manifest:
    """`ring_sizes` are the declared devices by ring; None where the fleet itself has mistakes, and
    then no ring is called unknown. `adopted` is what devices ran before the first release."""
    names = None if ring_sizes is None else [ring.name for ring in rings]
    gates = _read_gates(rollout, names, ring_sizes or {})
    channel = rollout.read("channel", limits.CHANNEL, "stable")
    return rollout.read_record(
        Manifest,
        limits.MANIFEST,
        schema=1,
        channel=channel,
        firmware=firmware,
        adopted=adopted,
        rings=tuple(
            RingPlan(name=ring.name, percent=ring.percent, gate=gates.get(ring.name, Gate()))
            for ring in rings
        ),
        pace=_read_pace(rollout),
        abort=_read_abort(rollout),
        approvals=_read_approvals(rollout, names),
        window=_read_window(rollout),
        document_extra=read_document_extra(rollout, channel, firmware),
    )


def pace_value(pace: Pace) -> dict[str, Any]:
    """A pace with the keys that `devicesPerMinute` takes."""
    values = encode(pace)
    base, maximum = values.pop("basePerMinute", None), values.pop("maximumPerMinute")
    return {"base": base, "maximum": maximum, **values}


def _read_pace(rollout: Section) -> Pace:
    default = Pace.maximum_per_minute
    if not isinstance(rollout.get("devicesPerMinute"), dict):
        return Pace(maximum_per_minute=rollout.read("devicesPerMinute", limits.RATE, default))
    pace = rollout.subsection("devicesPerMinute")
    base = pace.require("base", limits.RATE)
    maximum = pace.read("maximum", limits.RATE, default)
    if pace.has_no_mistakes_at("base", "maximum") and base > maximum:
        allowed = f"must not be above the maximum, {maximum}: the rate only grows"
        pace.add_mistake("base", allowed, f"write base: {maximum} or less")
    made = pace.read_record(Pace, limits.PACE, maximum_per_minute=maximum, base_per_minute=base)
    pace.refuse_unknown_keys()
    return made


def _read_abort(rollout: Section) -> tuple[Abort, ...]:
    if rollout.get("abort") is None:
        return Manifest.abort
    kind = "a list of at least one object of on, percent and minimum"
    allowed = f"must be {kind}: without one IoT itself never stops a job"
    example = '[{"on": FAILED, percent: 50, minimum: 20}]'
    criteria = tuple(rollout.read_rows("abort", Abort, limits.ABORT, allowed, example).values())
    if not criteria and rollout.has_no_mistakes_at("abort"):
        rollout.add_mistake("abort", allowed, rollout.format_fix("abort", example))
    return criteria


def _read_approvals(rollout: Section, names: Sequence[str] | None) -> tuple[Approval, ...]:
    """An approval of another digest than this release's may stand: it has no effect."""
    allowed = "must be a list of objects of ring and sha256"
    example = f'[{{ring: canary, sha256: "{"0" * 64}"}}]'
    approvals = rollout.read_rows("approvals", Approval, limits.APPROVAL, allowed, example)
    for key, approval in approvals.items():
        if rollout.has_no_mistakes_at(f"{key}.ring"):
            check_ring(rollout, f"{key}.ring", approval.ring, names)
    return tuple(approvals.values())


def _read_window(rollout: Section) -> Window | None:
    if rollout.get("window") is None:
        return None
    example = '{cron: "0 2 * * *", minutes: 240}'
    return rollout.read_object("window", Window, limits.WINDOW, example)


# Gates


def _read_gates(
    rollout: Section, names: Sequence[str] | None, ring_sizes: Mapping[str, int]
) -> dict[str, Gate]:
    """Gates by ring, also the default ones, held against the ring's size where it is known."""
    gates = rollout.subsection("gates")
    for name in gates.data:
        check_ring(gates, name, name, names)
    rings = dict.fromkeys([*gates.data, *(names or ())])
    return {name: _read_gate(gates.subsection(name), ring_sizes.get(name)) for name in rings}


def _read_gate(gate: Section, ring_size: int | None) -> Gate:
    limit = _read_failure_limit(gate.subsection("failureLimit"))
    made = gate.read_record(Gate, limits.GATE, failure_limit=limit, alarms=_read_alarms(gate))
    gate.refuse_unknown_keys()
    has_none = made.deadline_minutes is None and gate.has_no_mistakes_at("deadlineMinutes")
    if made.on_deadline == "advance" and has_none:
        allowed = "does nothing without deadlineMinutes"
        gate.add_mistake("onDeadline", allowed, "write deadlineMinutes: 1440")
    if ring_size is not None:
        _check_ring_size(gate, made, ring_size)
    return made


def _read_failure_limit(section: Section) -> FailureLimit:
    made = section.read_record(FailureLimit, limits.FAILURE_LIMIT)
    if "minimum" in section.data:
        allowed = "is no key any more: how many devices must fail follows from the evidence"
        fix = "remove it, or write devices: 2 to stop at so many, whatever the evidence"
        section.add_mistake("minimum", allowed, fix, show_value(section.get("minimum")))
    section.refuse_unknown_keys()
    return made


def _check_ring_size(gate: Section, made: Gate, size: int) -> None:
    """In a ring that is too small for its gate nothing could pass, or nothing fail."""
    ring = f"the ring has {size} declared device{'s' * (size > 1)}"
    minimum, limit = made.minimum_succeeded, made.failure_limit
    if minimum > size and gate.has_no_mistakes_at("minimumSucceeded"):
        fix = f"write minimumSucceeded: {size} or less"
        gate.add_mistake("minimumSucceeded", f"{ring}: it could never pass", fix, str(minimum))
    is_brake = smallest_failing(limit, size) is not None
    if size and not is_brake and gate.has_no_mistakes_at("failureLimit"):
        allowed = f"{ring}: all of them failing would be no evidence, so this is no brake"
        fix = f"write failureLimit: {{percent: {limit.percent:g}, devices: {size}}}"
        gate.add_mistake("failureLimit", allowed, fix, show_value(encode(limit)))


def _read_alarms(gate: Section) -> tuple[AlarmGate, ...]:
    kind = f"a list of at most {limits.MAX_ALARMS} objects of name and action"
    allowed = f"must be {kind} (ten rings' fit DescribeAlarms: 100 names)"
    example = f'{{name: "{limits.ALARM["name"].example}", action: hold}}'
    alarms = gate.read_rows("alarms", AlarmGate, limits.ALARM, allowed, f"[{example}]")
    for key, alarm in alarms.items():
        own = alarm.name.removeprefix("stack:")
        if own != alarm.name and own not in GATE_ALARMS:
            why = f"is no alarm of this stack that a gate can watch: {suggest(own, GATE_ALARMS)}"
            gate.add_mistake(f"{key}.name", why, f"write {example}", show_value(alarm.name))
    if len(alarms) > limits.MAX_ALARMS:
        gate.add_mistake("alarms", allowed, "remove some", f"{len(alarms)} alarms")
    return tuple(alarms.values())


# IoT's own brake


def list_abort_risks(manifest: Manifest) -> list[str]:
    """What to warn of: abort criteria by which IoT may stop a release that keeps a ring's limit.

    IoT looks at failed ÷ executed, whenever it likes, from `minimum` executed on. The chance that
    the ratio ever reaches c while each device fails with the limit's chance p < c is at most
    `exp(-minimum * KL(c, p))`: Ville's inequality for the likelihood ratio of c against p.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_AbortCriteria.html
    """
    risks = []
    for ring, criterion in product(manifest.rings, manifest.abort):
        limit = ring.gate.failure_limit
        chance = 100 * _bound_abort_chance(criterion, limit.percent / 100)
        if chance > limit.false_stop_percent:
            brake = f"{criterion.percent:g} % {criterion.on} of at least {criterion.minimum}"
            risks.append(
                f"rollout.abort, {brake}: IoT may stop a release that"
                f" keeps to the limit of ring {ring.name}, {limit.percent:g} %, with a chance of up"
                f" to {chance:.2g} % (its falseStopPercent is {limit.false_stop_percent:g}); write"
                " a higher percent or minimum"
            )
    return risks


def _bound_abort_chance(criterion: Abort, share: float) -> float:
    aborts_at = criterion.percent / 100
    if aborts_at <= share:
        return 1.0
    divergence = aborts_at * log(aborts_at / share)
    if aborts_at < 1:
        divergence += (1 - aborts_at) * log((1 - aborts_at) / (1 - share))
    return exp(-criterion.minimum * divergence)
