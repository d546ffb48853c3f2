"""A channel as it is in AWS: its manifest, its orders, its state, its jobs, groups and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud.bucket import Bucket, StoredObject
from cloud.clients import Clients
from cloud.cloudwatch import CloudWatch
from cloud.groups import RollbackGroups
from cloud.jobs import Jobs
from cloud.signer import Signer
from rollout.codec import DecodeError, decode_text, encode, sha256_hex
from rollout.jws import STATE_TYPE
from rollout.names import Names
from rollout.orders import Orders
from rollout.release import Manifest
from rollout.state import State
from rollout.trust import check_age, verify_state


@dataclass(frozen=True, kw_only=True)
class OrdersFile:
    """control.json and its ETag. With a `problem` it is unreadable, and its orders are none."""

    orders: Orders
    etag: str | None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """state.json, believed: what the controller wrote, its ETag, and when it was written (seconds
    since 1970)."""

    state: State
    etag: str
    changed_at: float


class Channel:
    """One channel, for whoever may reach it."""

    def __init__(
        self, clients: Clients, names: Names, *, bucket: str, signing_keys: Sequence[str]
    ) -> None:
        """`signing_keys` are ARNs: the first signs, a state signed by any of them is believed."""
        self.clients, self.names = clients, names
        self.bucket = Bucket(clients, bucket)
        self.signer = Signer(clients, signing_keys)
        self.jobs = Jobs(clients, names)
        self.rollback_groups = RollbackGroups(clients, names)
        self.cloudwatch = CloudWatch(clients, names)

    # The manifest

    def manifest(self, announced_sha256: str | None = None) -> tuple[Manifest | None, str | None]:
        """The manifest; else None and why.

        With `announced_sha256` (hexadecimal), only if it is byte for byte the one that this
        deployment announced.
        """
        found = self.bucket.get(self.names.keys.manifest)
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
        found = self.bucket.get(self.names.keys.orders)
        if found is None:
            return OrdersFile(orders=Orders(), etag=None)
        try:
            return OrdersFile(orders=decode_text(Orders, found.body), etag=found.etag)
        except DecodeError as error:
            return OrdersFile(orders=Orders(), etag=found.etag, problem=str(error))

    def write_orders(self, orders: Orders, etag: str | None) -> None:
        """Raises Overtaken where somebody else wrote control.json since it was read."""
        text = json.dumps(encode(orders), indent=1)
        decode_text(Orders, text)  # what the controller could not read would be a halt
        self.bucket.replace(self.names.keys.orders, text, etag)

    # The state

    def state(self) -> StoredState | None:
        """None where there is none. Raises UntrustedState unless one of the channel's keys signed
        it."""
        found = self.state_object()
        if found is None:
            return None
        state = verify_state(found.body, self.signer.key_arns, self.signer.is_signed)
        return StoredState(state=state, etag=found.etag, changed_at=found.modified_at)

    def current_state(self, live_jobs: Iterable[str]) -> StoredState | None:
        """As `state`, measured against the channel's live jobs, which must have been listed before:
        raises UntrustedState also where jobs know more than the state, or exist without one."""
        stored = self.state()
        jobs = live_jobs if stored else self.jobs.statuses()
        sequences = [self.names.job_sequence(job) or 0 for job in jobs]
        check_age(stored.state if stored else None, sequences)
        return stored

    def state_object(self) -> StoredObject | None:
        """state.json as it lies there, believed or not."""
        return self.bucket.get(self.names.keys.state)

    def write_state(self, state: State, etag: str | None) -> None:
        """Signs the state and writes it in place of the one with this ETag. Raises Overtaken where
        another run wrote first: the caller must stop."""
        body = encode(state)
        header, _, signature = self.signer.sign(STATE_TYPE, body).split(".")
        # the payload is detached: RFC 7515, appendix F
        text = json.dumps({"state": body, "jws": f"{header}..{signature}"}, indent=1)
        self.bucket.replace(self.names.keys.state, text, etag)
