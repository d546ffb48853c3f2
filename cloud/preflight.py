"""Finds, before it is needed, devices that a way back could not bring back.

A way back puts things into a thing group, and gives that group a job. A thing that is in as many
groups as AWS allows cannot join, and a device whose thing has no certificate, or whose certificates
have no policy, never hears of the job. A fleet may have a million devices: a run looks at a few of
one ring, and the next run goes on from there. The rings take turns, each as a whole, in the
release's order, as its first ring is exposed first; one that was gone through is left alone for a
day. `preflight.json` holds how far that has come, and what was found.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Literal

from botocore.exceptions import ClientError

from cloud.bucket import Bucket, Overtaken
from cloud.clients import AWS_ERRORS, PAGE, Clients, error_code
from cloud.groups import groups_of_thing, member_page
from cloud.roster import LASTING
from cloud.way_back import Clock
from rollout.codec import DecodeError, canonical_json, decode_text
from rollout.names import Names

LOOKED_A_RUN = 10
"""Things of a ring that a run looks at: ListThingPrincipals takes 10 a second of the whole account
(Service Quotas), and each thing costs three calls."""
RECHECKED_A_RUN = 2
"""Things found earlier that a run looks at besides."""
RECHECK_SECONDS = 3600.0
"""How long after it was looked at a thing that was found is looked at again: it may be mended."""
FRESH_SECONDS = 86_400.0
"""How long a ring that was gone through is left alone."""
WORKING_SECONDS = 20.0
"""After so long a run begins with no other thing."""
GROUPS_A_THING = 10
"""Most groups that a thing can be in, dynamic ones too (IoT developer guide, static thing groups).
AddThingToThingGroup answers one more with InvalidRequestException."""
MAX_CERTIFICATES = 5
"""Certificates of a thing whose policies are looked at: a device has one, or two while they are
exchanged. Of a thing that has more, it is not told that none has a policy."""
MAX_UNRETURNABLE = 20
"""Devices of a pass that are named."""
PREFLIGHT_BYTES = 262_144
"""The most that is read of a `preflight.json`. Ten rings with all they can name take half of it."""


class Obstacle(StrEnum):
    """Why a device could not go back."""

    GROUPS = "ten-groups"
    """It is in as many thing groups as AWS allows."""
    CERTIFICATE = "no-certificate"
    """Its thing has no principal."""
    POLICY = "no-policy"
    """Neither its certificates nor its groups have a policy."""


@dataclass(frozen=True, kw_only=True)
class Unreturnable:
    """A device that could not go back, when it was looked at (seconds since 1970)."""

    thing: str
    why: Obstacle
    at: float


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One pass over the things of a ring. Times are seconds since 1970."""

    began_at: float
    ended_at: float | None = None
    looked: int = 0
    """Things that it has come to."""
    skipped: int = 0
    """Of these, those that AWS would not tell about."""
    found: int = 0
    """Of these, those that could not go back."""
    named: tuple[Unreturnable, ...] = ()
    """A few of those found."""
    problem: str | None = None
    """What AWS refused, the last time."""

    def add(self, thing: str, why: Obstacle | None, now: float) -> Inspection:
        """After a thing that could go back, or could not, and why."""
        after = replace(self, looked=self.looked + 1)
        if why is None:
            return after
        named = (*self.named, Unreturnable(thing=thing, why=why, at=now))
        return replace(after, found=self.found + 1, named=named[:MAX_UNRETURNABLE])

    def skip(self, problem: str) -> Inspection:
        """After a thing that AWS would not tell about."""
        return replace(self, looked=self.looked + 1, skipped=self.skipped + 1, problem=problem)

    def renew(self, thing: str, why: Obstacle | None, now: float) -> Inspection:
        """After a thing that was looked at again; one that is mended is found no more."""
        again = (Unreturnable(thing=thing, why=why, at=now),) if why else ()
        named = tuple(
            new for one in self.named for new in (again if one.thing == thing else (one,))
        )
        mended = len(self.named) - len(named)
        return replace(self, named=named, found=self.found - mended)


@dataclass(frozen=True, kw_only=True)
class RingCheck:
    """How far the look at one ring has come."""

    finished: Inspection | None = None
    """The last pass that ended."""
    current: Inspection | None = None
    """The one under way."""
    pending: tuple[str, ...] = ()
    """Things of its present page that it has yet to come to."""
    token: str | None = None
    """Of its next page; None on the last one."""

    @property
    def found(self) -> int:
        """Devices known that could not go back, at least so many."""
        passes = (self.finished, self.current)
        return max(len(self.named), *(one.found for one in passes if one), 0)

    @property
    def named(self) -> tuple[Unreturnable, ...]:
        """A few of them, by name."""
        passes = (self.finished, self.current)
        return tuple({it.thing: it for one in passes if one for it in one.named}.values())

    @property
    def ended_at(self) -> float:
        """When the ring was last gone through; 0 where it never was."""
        return (self.finished and self.finished.ended_at) or 0.0

    def is_due(self, now: float) -> bool:
        """Whether a pass is to begin: the last one is old, or all that it could name are mended
        and there were more."""
        if now - self.ended_at >= FRESH_SECONDS:
            return True
        return self.finished is not None and self.finished.found > 0 and not self.finished.named

    def end(self, now: float) -> RingCheck:
        """After the last thing of the pass under way."""
        return RingCheck(finished=self.current and replace(self.current, ended_at=now))

    def renew(self, thing: str, why: Obstacle | None, now: float) -> RingCheck:
        """After one of those named was looked at again."""
        return replace(
            self,
            finished=self.finished and self.finished.renew(thing, why, now),
            current=self.current and self.current.renew(thing, why, now),
        )


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """`preflight.json`: what is known of each ring."""

    format: Literal[1] = 1
    rings: dict[str, RingCheck] = field(default_factory=dict)

    def follow(self, rings: Iterable[str]) -> Preflight:
        """For the rings that there are now, in their order; what is known of others is dropped."""
        return replace(self, rings={ring: self.rings.get(ring, RingCheck()) for ring in rings})

    def put(self, ring: str, check: RingCheck) -> Preflight:
        return replace(self, rings={**self.rings, ring: check})

    def choose_ring(self, now: float) -> str | None:
        """Whose turn it is: the ring that a pass has begun with; else, of those due, the one that
        nobody has gone through for longest."""
        under_way = [ring for ring, check in self.rings.items() if check.current]
        if under_way:
            return under_way[0]
        due = (ring for ring, check in self.rings.items() if check.is_due(now))
        return min(due, key=lambda ring: self.rings[ring].ended_at, default=None)

    def choose_again(self, now: float) -> list[tuple[str, str]]:
        """Ring and thing of those found that are looked at again now."""
        due = (
            (ring, one.thing)
            for ring, check in self.rings.items()
            for one in check.named
            if now - one.at >= RECHECK_SECONDS
        )
        return list(islice(due, RECHECKED_A_RUN))

    def describe(self) -> dict[str, Any]:
        """For the controller's log: how many were found, a few of them, and what AWS refused;
        nothing where there is nothing to say."""
        checks = self.rings.values()
        named = {one.thing: one.why.value for check in checks for one in check.named}
        passes = [(check.current or check.finished) for check in checks]
        said = {
            "found": sum(check.found for check in checks),
            "named": dict(islice(named.items(), MAX_UNRETURNABLE)),
            "problems": [one.problem for one in passes if one and one.problem],
        }
        return {key: value for key, value in said.items() if value}


def read_preflight(bucket: Bucket, names: Names) -> tuple[Preflight, str | None]:
    """What is known, and its object's ETag; nothing where it cannot be read. One call."""
    found = bucket.get(names.keys.preflight, PREFLIGHT_BYTES)
    if found is None:
        return Preflight(), None
    known = Preflight()
    with suppress(DecodeError):  # it is found out anew
        known = decode_text(Preflight, found.body)
    return known, found.place.etag


class Inspector:
    """Looks at a few devices of one channel a run.

    Inspector(clients, names, bucket, ring_groups={"canary": "arn:..."}).work(["canary"])
    """

    def __init__(
        self,
        clients: Clients,
        names: Names,
        bucket: Bucket,
        *,
        ring_groups: Mapping[str, str],
        clock: Clock = time,
    ) -> None:
        """`ring_groups` are the ARNs of the rings' thing groups."""
        self._clients, self._names, self._bucket = clients, names, bucket
        self._ring_groups, self._clock = ring_groups, clock

    def work(self, order: Iterable[str]) -> Preflight:
        """Looks at what is due, and stores that; of two runs at once, one counts. `order` names
        rings in the release's order. What AWS refuses of a ring or a device is told in the result;
        raises AWS_ERRORS where the bucket cannot be used."""
        before, etag = read_preflight(self._bucket, self._names)
        rings = [ring for ring in (*order, *sorted(self._ring_groups)) if ring in self._ring_groups]
        after = self._look(before.follow(dict.fromkeys(rings)), self._clock.time())
        if after != before:
            with suppress(Overtaken):
                self._bucket.replace(self._names.keys.preflight, canonical_json(after), etag)
        return after

    def _look(self, preflight: Preflight, now: float) -> Preflight:
        for ring, thing in preflight.choose_again(now):
            check = preflight.rings[ring]
            try:
                why = self._find_obstacle(thing)
            except AWS_ERRORS:  # nothing new is known of it
                why = next(one.why for one in check.named if one.thing == thing)
            preflight = preflight.put(ring, check.renew(thing, why, now))
        turn = preflight.choose_ring(now)
        if turn is None:
            return preflight
        return preflight.put(turn, self._go_on(turn, preflight.rings[turn], now))

    def _go_on(self, ring: str, check: RingCheck, now: float) -> RingCheck:
        """One run's part of a pass over a ring."""
        current = check.current or Inspection(began_at=now)
        pending, token = check.pending, check.token
        if not pending:
            group = self._ring_groups[ring].rpartition("/")[2]
            try:
                things, token = member_page(self._clients, group, token)
            except AWS_ERRORS as error:
                code = _code(error)
                current = replace(current, problem=f"{group} cannot be listed ({code})")
                check = replace(check, current=current)
                # a token that AWS does not take any more is one of these: the rest waits a day
                return check.end(now) if code in LASTING else check
            pending = tuple(things)
        for thing in pending[:LOOKED_A_RUN]:
            if self._clock.time() - now > WORKING_SECONDS:
                break
            pending = pending[1:]
            try:
                current = current.add(thing, self._find_obstacle(thing), now)
            except AWS_ERRORS as error:
                code = _code(error)
                current = current.skip(f"{thing} cannot be looked at ({code})")
                if code not in LASTING:  # AWS has enough to do, or cannot be reached
                    break
        check = replace(check, current=current, pending=pending, token=token)
        return check if pending or token else check.end(now)

    def _find_obstacle(self, thing: str) -> Obstacle | None:
        """Why a device could not go back; None where it could, and where it is gone, or in no ring
        any more: it was cut off."""
        groups = groups_of_thing(self._clients, thing)
        rings = {arn.rpartition("/")[2] for arn in self._ring_groups.values()}
        if groups is None or not groups & rings:
            return None
        if len(groups) >= GROUPS_A_THING:
            return Obstacle.GROUPS
        answer = self._clients.iot.list_thing_principals(thingName=thing, maxResults=PAGE)
        principals = answer.get("principals", ())
        if not principals:
            return Obstacle.CERTIFICATE
        looked_at = principals[:MAX_CERTIFICATES]
        if len(looked_at) < len(principals) or any(map(self._has_policy, looked_at)):
            return None
        # a group's policies hold for the devices in it, and so do those of the groups above
        path = next(iter(self._ring_groups.values())).rpartition("/")[0]
        arns = (f"{path}/{group}" for group in sorted(groups))
        return None if any(map(self._has_policy, arns)) else Obstacle.POLICY

    def _has_policy(self, target: str) -> bool:
        """Of a certificate, or of a thing group and those above it, by ARN."""
        answer = self._clients.iot.list_attached_policies(
            target=target, recursive=True, pageSize=PAGE
        )
        return bool(answer.get("policies"))


def _code(error: Exception) -> str:
    return error_code(error) if isinstance(error, ClientError) else type(error).__name__
