"""Devices that were cut off: an object per thing in the channel's bucket, which says what the
device had. As long as it lies there the device is cut off, and no way back waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from cloud.bucket import Bucket
from rollout.codec import Bounds, canonical_json, decode_text
from rollout.names import Names
from rollout.orders import Order
from rollout.serial import SerialStatus

CUT_OFF_BYTES = 262_144
"""The most that is read of a record: a thing's groups are ten, its certificates a few."""
FOLLOWED = 5_000
"""Devices in quarantine that a way back knows of; beyond, it waits for them like for any other.
Their names stand in its roster, of which it reads a megabyte: 128 letters each at most."""


@dataclass(frozen=True, kw_only=True)
class HeldPrincipal:
    """A certificate, or another principal, as it was."""

    arn: str
    status: str | None = None
    """Of a certificate (CertificateStatus)."""
    policies: tuple[str, ...] = ()

    @property
    def certificate(self) -> str | None:
        """Its id; None for another principal."""
        return certificate_id(self.arn) or None


def certificate_id(arn: str) -> str:
    """In the ARN of a certificate; nothing for another principal."""
    head, _, name = arn.rpartition("/")
    return name if head.endswith(":cert") else ""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a device has of the stack."""

    serial: str | None = None
    serial_status: SerialStatus | None = None
    """What the registry says of its serial; None where that does not know it."""
    groups: tuple[str, ...] = ()
    """The stack's thing groups that it is in: its ring's, and those of ways back."""
    principals: tuple[HeldPrincipal, ...] = ()
    began: tuple[str, ...] = ()
    """The channel's jobs that it has begun."""

    def add(self, now: Holding) -> Holding:
        """With what it has got since: what was known stays as it was."""
        known = {one.arn: one for one in self.principals}
        for one in now.principals:
            held = known.setdefault(one.arn, one)
            policies = tuple(dict.fromkeys((*held.policies, *one.policies)))
            known[one.arn] = replace(held, policies=policies)
        return Holding(
            serial=self.serial or now.serial,
            serial_status=self.serial_status or now.serial_status,
            # AWS would not have it in two rings
            groups=self.groups or now.groups,
            principals=tuple(known.values()),
            began=tuple(dict.fromkeys((*self.began, *now.began))),
        )


@dataclass(frozen=True, kw_only=True)
class CutOff:
    """A device that was cut off."""

    thing: str
    order: Order
    """Who did it, when and why."""
    held: Holding
    """What it had."""
    done_at: float | None = None
    """When all of it was done (seconds since 1970); None while something is left to do."""
    restoring: Order | None = None
    """Who gives it back what it had, where that has begun."""


@dataclass(frozen=True, kw_only=True)
class StoredCutOff:
    """A record, and its object's ETag."""

    record: CutOff
    etag: str


class Quarantine:
    """The records of a channel."""

    def __init__(self, bucket: Bucket, names: Names) -> None:
        self._bucket, self._keys = bucket, names.keys

    def things(self) -> Iterator[str]:
        """Everybody who is cut off, by name. A call for each thousand."""
        start, end = len(self._keys.quarantine), len(".json")
        return (key[start:-end] for key in self._bucket.keys(self._keys.quarantine))

    def followed(self) -> tuple[str, ...]:
        """Those of them whom no way back waits for."""
        return tuple(islice(self.things(), FOLLOWED))

    def key(self, thing: str) -> str:
        """Where the record of a thing lies in the bucket."""
        return self._keys.quarantined(thing)

    def get(self, thing: str) -> StoredCutOff | None:
        """None for a device that is not cut off. Raises DecodeError where the object is no
        record."""
        found = self._bucket.get(self.key(thing), CUT_OFF_BYTES)
        if found is None:
            return None
        record = decode_text(CutOff, found.body, Bounds(size=CUT_OFF_BYTES))
        return StoredCutOff(record=record, etag=found.place.etag or "")

    def put(self, record: CutOff, etag: str | None) -> StoredCutOff:
        """Writes a record over the one with this ETag, None where there was none. Raises
        Overtaken where somebody else wrote it meanwhile."""
        place = self._bucket.replace(self.key(record.thing), canonical_json(record), etag)
        return StoredCutOff(record=record, etag=place.etag or "")

    def close(self, stored: StoredCutOff, by: Order) -> None:
        """The device has back what it had: the record is kept as evidence, under another key.
        Raises Overtaken where somebody else wrote it meanwhile."""
        record = stored.record
        evidence = self._keys.restored(record.thing, by.at)
        there = self._bucket.get(evidence, 0)
        place = there.place.etag if there else None
        self._bucket.replace(evidence, canonical_json(record), place)
        self._bucket.remove(self.key(record.thing), stored.etag)
