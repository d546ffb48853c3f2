"""What becomes of each thing that somebody wants in a ring, or whose ring may be another now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloud.iot_calls import IotCalls
from cloud.readiness import SHUT_OUT, Gap, Readiness, ReadinessCheck
from cloud.ring_groups import RingGroups, RingMove, Standing
from cloud.serial_table import SerialTable, StoredSerial
from ops.things_file import NamedThing
from rollout.rings import (
    SERIAL_ATTRIBUTE,
    RingChoice,
    RingReason,
    RingShare,
    Thing,
    choose_ring,
)

FIXES = {
    Gap.ROOM: "in ten thing groups, as many as AWS allows: take it out of two, a rollback needs"
    " one as well",
    Gap.CERTIFICATE: "it has no certificate: attach its device's (AttachThingPrincipal)",
    Gap.INACTIVE: "no certificate of it is active: activate the one that its device uses",
    Gap.POLICY: "no policy on its certificates or groups: --mend attaches the device policy",
    Gap.HARDWARE: "its device reports other hardware: it belongs into another fleet",
    Gap.WAY_BACK: "in nine other thing groups: a rollback could not bring it back, take it out of"
    " one",
    Gap.OUR_POLICY: "its own policies must allow what docs/device-contract.md asks; --mend attaches"
    " the device policy beside them",
    Gap.REPORT: "its device has not reported what it runs: its agent must speak the contract"
    " (docs/device-contract.md)",
    Gap.CONTRACT: "its device does not say that it speaks this version of the contract",
}
"""What a person does about each gap."""
NO_THING = "there is no such thing"
DECLARED = "the stack declares it: its ring is in fleet.devices of the stack file"
QUARANTINED = "it is cut off (quarantine)"
OTHER_FLEET = "it is in a ring of another fleet: name its ring in a file to take it from there"


@dataclass(frozen=True, kw_only=True)
class ThingPlan:
    """What becomes of a thing."""

    thing: str
    ring: str | None = None
    """Where it is, or will be."""
    came_from: str | None = None
    """The ring, or group, that it leaves."""
    reason: RingReason | None = None
    """Why this ring."""
    move: RingMove | None = None
    is_named: bool = False
    """Whether the file names its ring, which is to be remembered."""
    serial: str | None = None
    """Of its record in the registry."""
    left_out: str | None = None
    """Why nothing is done."""
    gaps: tuple[Gap, ...] = ()
    readiness: Readiness | None = None
    """What is to be mended."""

    @property
    def is_done(self) -> bool:
        """Whether it is where it belongs."""
        return self.move is None and self.left_out is None and not self.is_named


class RingPlanner:
    """Looks at things, and plans."""

    def __init__(
        self,
        calls: IotCalls,
        groups: RingGroups,
        check: ReadinessCheck,
        *,
        rings: Sequence[RingShare],
        declared: Mapping[str, str],
        table: SerialTable | None,
        mend: bool,
    ) -> None:
        self._calls, self._groups, self._check = calls, groups, check
        self._rings, self._declared, self._table, self._mend = rings, declared, table, mend

    def place(self, wanted: NamedThing) -> ThingPlan:
        """What becomes of a thing that somebody wants in a ring. Raises AWS_ERRORS."""
        if wanted.name in self._declared:
            ring = self._declared[wanted.name]
            return ThingPlan(thing=wanted.name, ring=ring, left_out=DECLARED)
        standing = self._groups.find(wanted.name)
        if standing is None:
            return ThingPlan(thing=wanted.name, left_out=NO_THING)
        if standing.is_quarantined:
            return ThingPlan(thing=wanted.name, left_out=QUARANTINED)
        if wanted.ring is None and standing.ring:
            return ThingPlan(thing=wanted.name, ring=standing.ring)
        if wanted.ring is None and standing.is_foreign:
            return ThingPlan(thing=wanted.name, left_out=OTHER_FLEET)
        thing = wanted.known or self._calls.describe(wanted.name)
        if thing is None:
            return ThingPlan(thing=wanted.name, left_out=NO_THING)
        record = find_record(self._table, thing)
        choice = self._choose(thing, record)
        if wanted.ring:
            return self._name(wanted.ring, choice, standing, thing, record)
        return self._join(choice.ring, choice.reason, standing, thing)

    def _choose(self, thing: Thing, record: StoredSerial | None) -> RingChoice:
        ring = record.record.ring if record else None
        registered = {thing.name: ring} if ring else {}
        return choose_ring(thing, self._rings, declared=self._declared, registered=registered)

    def _name(
        self,
        ring: str,
        choice: RingChoice,
        standing: Standing,
        thing: Thing,
        record: StoredSerial | None,
    ) -> ThingPlan:
        """Of a thing whose ring the file names."""
        is_known = choice.ring == ring and choice.reason in (RingReason.REGISTRY, RingReason.NAME)
        reason = RingReason.REGISTRY if record else RingReason.NAME
        serial = record.record.serial if record else None
        if standing.ring == ring:
            plan = ThingPlan(thing=thing.name, ring=ring, reason=reason)
        else:
            plan = self._join(ring, reason, standing, thing)
        return plan if plan.left_out else replace(plan, is_named=not is_known, serial=serial)

    def _join(self, ring: str, reason: RingReason, standing: Standing, thing: Thing) -> ThingPlan:
        """Of a thing that is not in this ring."""
        move = RingMove(thing=thing.name, source=standing.group, target=self._groups.groups[ring])
        plan = ThingPlan(thing=thing.name, ring=ring, reason=reason, move=move)
        if standing.group:
            return replace(plan, came_from=standing.ring or standing.group)
        found = self._check.look(thing.name, standing.group_arns)
        mended = {Gap.POLICY, Gap.OUR_POLICY} & set(found.gaps) if self._mend else set()
        gaps = tuple(gap for gap in found.gaps if gap not in mended)
        shut_out = [FIXES[gap] for gap in gaps if gap in SHUT_OUT]
        if shut_out:
            return ThingPlan(thing=thing.name, reason=reason, left_out=shut_out[0], gaps=gaps)
        return replace(plan, gaps=gaps, readiness=found if mended else None)

    def spread(self, thing: Thing, group: str, registered: Mapping[str, str]) -> ThingPlan:
        """What becomes of a thing that is in this group of the fleet."""
        current = next((r for r, name in self._groups.groups.items() if name == group), None)
        choice = choose_ring(thing, self._rings, declared=self._declared, registered=registered)
        plan = ThingPlan(thing=thing.name, ring=current, reason=choice.reason)
        if thing.name in self._declared:
            return replace(plan, reason=RingReason.STACK, left_out=DECLARED)
        if choice.ring == current:
            return plan
        target = self._groups.groups[choice.ring]
        move = RingMove(thing=thing.name, source=group, target=target)
        return replace(plan, ring=choice.ring, came_from=current or group, move=move)


def find_record(table: SerialTable | None, thing: Thing) -> StoredSerial | None:
    """The record of the serial that this thing came in by."""
    serial = thing.attributes.get(SERIAL_ATTRIBUTE)
    stored = table.get(serial) if table and serial else None
    claim = stored.record.claim if stored else None
    return stored if claim and claim.thing == thing.name else None


def list_registered(table: SerialTable | None) -> dict[str, str]:
    """By thing: the ring that its serial's record names."""
    records = (stored.record for stored in table.list()) if table else ()
    return {record.claim.thing: record.ring for record in records if record.claim and record.ring}
