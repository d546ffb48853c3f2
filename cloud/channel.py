"""A channel as it is in AWS: its manifest, its orders, its state, its jobs, groups and metrics."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from cloud.bucket import Bucket, Overtaken, StoredObject
from cloud.clients import AWS_ERRORS, Clients
from cloud.cloudwatch import CloudWatch
from cloud.groups import RollbackGroups
from cloud.jobs import Jobs
from cloud.signer import Signer
from rollout.codec import Bounds, DecodeError, decode_text, encode, sha256_hex
from rollout.jws import STATE_TYPE
from rollout.names import (
    FOREIGN_A_RUN,
    LAST_SECOND,
    MANIFEST_BYTES,
    ORDER_CHARACTERS,
    ORDER_ITEMS,
    ORDERS_BYTES,
    PROOFS,
    ROLLBACK,
    STATE_BYTES,
    STATE_VERSIONS,
    Names,
)
from rollout.observed import LIVE, SignedOffer
from rollout.orders import Orders
from rollout.release import Manifest
from rollout.state import FORMAT, State
from rollout.trust import (
    UNVERSIONED,
    Place,
    Proof,
    UntrustedState,
    check_age,
    check_place,
    read_offer,
    verify_state,
)

ORDERS = Bounds(
    size=ORDERS_BYTES,
    items=ORDER_ITEMS,
    characters=ORDER_CHARACTERS,
    lowest=0,
    highest=LAST_SECOND,
)
"""What control.json may hold: an order is remembered, shown and compared with times."""

MAX_READS = 3
"""How often the state is read again because somebody wrote it between two calls."""


@dataclass(frozen=True, kw_only=True)
class OrdersFile:
    """control.json and its ETag. With a `problem` it is unreadable, and its orders are none."""

    orders: Orders
    etag: str | None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """state.json, believed: what the controller wrote, where it lies, and when it was written
    (seconds since 1970)."""

    state: State
    place: Place
    changed_at: float


@dataclass(frozen=True, kw_only=True)
class UnknownJobs:
    """Live jobs that the state does not name."""

    strays: tuple[SignedOffer, ...]
    """The channel's key signed them."""
    foreign: frozenset[str]
    """Ids of those that others made."""


class Channel:
    """One channel, for whoever may reach it."""

    def __init__(
        self,
        clients: Clients,
        names: Names,
        *,
        bucket: str,
        signing_keys: Sequence[str],
        image_key: str | None = None,
    ) -> None:
        """`signing_keys` are ARNs: the first signs, a state signed by any of them is believed.
        `image_key` signs images, for agents that ask for that."""
        self.clients, self.names = clients, names
        self.bucket = Bucket(clients, bucket)
        self.signer = Signer(clients, signing_keys, image_key)
        self.jobs = Jobs(clients, names)
        self.rollback_groups = RollbackGroups(clients, names)
        self.cloudwatch = CloudWatch(clients, names)
        self._looked_at: dict[str, SignedOffer | None] = {}

    # The manifest

    def manifest(self, announced_sha256: str | None = None) -> tuple[Manifest | None, str | None]:
        """The manifest; else None and why.

        With `announced_sha256` (hexadecimal), only if it is byte for byte the one that this
        deployment announced.
        """
        found = self.bucket.get(self.names.keys.manifest, MANIFEST_BYTES)
        if found is None:
            return None, "there is no manifest yet"
        if announced_sha256 is not None and sha256_hex(found.body) != announced_sha256:
            return None, "its SHA-256 is not the one that this deployment announced"
        try:
            return Manifest.parse(found.body), None
        except DecodeError as error:
            return None, str(error)

    # Orders

    def orders(self) -> OrdersFile:
        found = self.bucket.get(self.names.keys.orders, ORDERS_BYTES)
        if found is None:
            return OrdersFile(orders=Orders(), etag=None)
        try:
            return OrdersFile(orders=decode_text(Orders, found.body, ORDERS), etag=found.place.etag)
        except DecodeError as error:
            return OrdersFile(orders=Orders(), etag=found.place.etag, problem=str(error))

    def write_orders(self, orders: Orders, etag: str | None) -> None:
        """Raises Overtaken where somebody else wrote control.json since it was read, DecodeError
        where the controller could not read it, which would be a halt."""
        text = json.dumps(encode(orders), indent=1)
        decode_text(Orders, text, ORDERS)
        self.bucket.replace(self.names.keys.orders, text, etag)

    # The state

    def state(self) -> StoredState | None:
        """None where there is none. Raises UntrustedState unless one of the channel's keys signed
        it for this channel."""
        found = self._state_object()
        return self._believe(found) if found else None

    def current_state(self, live_jobs: Iterable[str]) -> StoredState | None:
        """As `state`, and in its place: raises UntrustedState also where the object does not lie on
        the version that it replaced, where jobs of the channel are newer, and where there is none
        although there was one or jobs exist. Raises Overtaken while others write.

        `live_jobs`, the oldest first, must have been listed before. Only those that are newer than
        the state are looked at, FOREIGN_A_RUN at most.
        """
        found, listed = self._state_and_versions()
        if found is None:
            if listed:
                untrusted = UntrustedState(
                    f"lost-{listed[0][:16]}", "state.json is missing although it was there"
                )
                untrusted.place = Place(etag=None, version=listed[0])
                raise untrusted
            check_age(None, self._proved_sequences(self.jobs.statuses()))
            return None
        stored = self._believe(found)
        try:
            check_place(stored.state, listed)
            newer = (j for j in live_jobs if self._is_newer(j, stored.state))
            check_age(stored.state, self._proved_sequences(newer))
        except UntrustedState as untrusted:
            untrusted.place = found.place
            raise
        return stored

    def write_state(self, state: State, place: Place) -> tuple[State, Place]:
        """Signs the state and writes it in place of the object that lies there: what was written,
        and where. Raises Overtaken where another run wrote first: the caller must stop."""
        names, writes = self.names, state.writes + 1
        numbered = replace(
            state,
            format=FORMAT,
            suffix=names.suffix,
            channel=names.channel,
            writes=writes,
            after=place.version,
        )
        body = encode(numbered)
        header, _, signature = self.signer.sign(STATE_TYPE, body).split(".")
        # the payload is detached: RFC 7515, appendix F
        text = json.dumps({"state": body, "jws": f"{header}..{signature}"}, indent=1)
        if len(text) > STATE_BYTES:
            raise ValueError(f"state.json would have {len(text)} bytes, of {STATE_BYTES} at most")
        return numbered, self.bucket.replace(names.keys.state, text, place.etag)

    def state_changed_at(self) -> float | None:
        """When state.json was written last, believed or not (seconds since 1970); None where there
        is none."""
        found = self._state_object()
        return found.modified_at if found else None

    def prove(self) -> Proof:
        """What signed documents prove where the state cannot be believed: the newest version of
        state.json that verifies, of STATE_VERSIONS, and PROOFS jobs of the channel, the ways back
        first. Only then are ended jobs and old versions read."""
        states = []
        for version in self.bucket.versions(self.names.keys.state, STATE_VERSIONS):
            with suppress(UntrustedState):
                found = self._state_object(version)
                states += [self._believe(found).state] if found else []
        statuses = self.jobs.statuses()
        parts = {job: self.names.split_job(job) for job in reversed(statuses)}
        rings = {job: part[0] for job, part in parts.items() if part}
        jobs = sorted(rings, key=lambda job: rings[job] != ROLLBACK)
        offers = self._offers(jobs[:PROOFS])
        newest = max(states, key=lambda state: state.writes, default=None)
        return Proof(
            state=newest,
            offers={offer.job: offer for offer in offers},
            live=frozenset(job for job, status in statuses.items() if status in LIVE),
        )

    def _state_object(self, version: str | None = None) -> StoredObject | None:
        return self.bucket.get(self.names.keys.state, STATE_BYTES, version)

    def _state_and_versions(self) -> tuple[StoredObject | None, list[str]]:
        """state.json, and its version and the one below; read anew while others write."""
        for _ in range(MAX_READS):
            found = self._state_object()
            listed = self.bucket.versions(self.names.keys.state, 2)
            if found is None and not listed:
                return None, []
            if found and found.place.version in (UNVERSIONED, *listed[:1]):
                return found, [found.place.version, *listed[1:]]
        if found is None:
            return None, listed
        raise Overtaken(self.names.keys.state)

    def _believe(self, found: StoredObject) -> StoredState:
        try:
            state = verify_state(
                found.body, self.names, self.signer.key_arns, self.signer.is_signed
            )
        except UntrustedState as untrusted:
            untrusted.place = found.place
            raise
        return StoredState(state=state, place=found.place, changed_at=found.modified_at)

    def _is_newer(self, job: str, state: State) -> bool:
        sequence = self.names.job_sequence(job)
        return sequence is not None and sequence > state.sequence

    # Whose job it is

    def is_ours(self, job: str) -> bool:
        """Whether one of the channel's keys signed the job's document for this very id."""
        return self._look_at(job) is not None

    def unknown_jobs(self, live_jobs: Iterable[str], known_jobs: Collection[str]) -> UnknownJobs:
        """Of the live jobs under the channel's prefix, the oldest first, what those are that the
        state does not know.

        FOREIGN_A_RUN are looked at, at most: what is found is cancelled, so that the next run looks
        at others. One that cannot be looked at is left out.
        """

        def look(job: str) -> SignedOffer | str | None:
            try:
                return self._look_at(job) or job
            except AWS_ERRORS:
                return None

        unknown = [job for job in live_jobs if job not in known_jobs][:FOREIGN_A_RUN]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(look, unknown))
        return UnknownJobs(
            strays=tuple(one for one in found if isinstance(one, SignedOffer)),
            foreign=frozenset(one for one in found if isinstance(one, str)),
        )

    def _proved_sequences(self, jobs: Iterable[str]) -> list[int]:
        numbered = (job for job in jobs if self.names.split_job(job))
        return [offer.sequence for offer in self._offers(islice(numbered, FOREIGN_A_RUN))]

    def _offers(self, jobs: Iterable[str]) -> list[SignedOffer]:
        """What those of the jobs offer that are ours."""
        with ThreadPoolExecutor(8) as pool:
            return [offer for offer in pool.map(self._look_at, jobs) if offer]

    def _look_at(self, job: str) -> SignedOffer | None:
        """What the job offers, if it is ours. Its document is read once."""
        if job not in self._looked_at:
            document, signer = self.jobs.document(job), self.signer
            self._looked_at[job] = (
                None
                if document is None
                else read_offer(job, document, self.names, signer.key_arns, signer.is_signed)
            )
        return self._looked_at[job]
