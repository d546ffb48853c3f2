"""What can be believed of what lies in AWS: what a key of the channel signed, in the place that it
was signed for.

`state.json` is believed if its signature is right, if it is this channel's, if it lies on top of
the very version that it replaced, and if no job of the channel is newer. A job is the channel's
only if its document is signed for the job's own id. The controller asks before it acts,
`python -m ops` before it shows, and both name a halt by the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollout.codec import Bounds, decode, read_json, sha256_hex
from rollout.jws import (
    RELEASE_TYPE,
    STATE_TYPE,
    SignedType,
    b64url_decode,
    der_signature,
    signing_input,
)
from rollout.names import ROLLBACK, STATE_BYTES, Names
from rollout.observed import SignedOffer
from rollout.release import Firmware
from rollout.state import KEPT_DECISIONS, KEPT_TEXT, Event, Offer, Phase, Release, State

Verify = Callable[[str, str, bytes], bool]
"""Whether a key (ARN) made this DER signature over this signing input (KMS Verify)."""


UNVERSIONED = "null"
"""S3's version id of an object that was written without versioning."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An object in S3: its ETag, None where there is none, and its version."""

    etag: str | None
    version: str | None


NOWHERE = Place(etag=None, version=None)
"""There is no object, and never was one."""


class UntrustedState(Exception):
    """The state cannot be believed: missing although it was there or jobs exist, not signed by the
    controller's key for this channel, put back from earlier, or older than its jobs.

    `halt` is the id that a `resume` must name to start from what can be proved. `place` is that of
    the very object that is distrusted.
    """

    def __init__(self, halt: str, why: str) -> None:
        self.halt, self.why, self.place = halt, why, NOWHERE
        super().__init__(why)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What signed documents prove where the state cannot be believed."""

    state: State | None
    """The newest that verifies, of the versions that the bucket keeps."""
    offers: Mapping[str, SignedOffer]
    """By job id: what jobs of the channel carry whose documents verify."""
    live: frozenset[str]
    """The jobs that are not over. One that the state wants and that is over ended after it was
    written: by whom, nobody can tell."""

    @property
    def sequence(self) -> int:
        """The highest that is proved to be given."""
        numbers = [offer.sequence for offer in self.offers.values()]
        return max([self.state.sequence if self.state else 0, *numbers])

    @property
    def refused(self) -> frozenset[str]:
        """Digests that signed documents refuse."""
        return frozenset(digest for offer in self.offers.values() for digest in offer.refuses)


# The state


def verify_state(body: bytes, names: Names, keys: Sequence[str], verify: Verify) -> State:
    """The state in the bytes of `state.json`. Raises UntrustedState unless one of the channel's
    keys signed it, for this channel."""
    halt = f"invalid-{sha256_hex(body)[:12]}"
    try:
        envelope = read_json(body, Bounds(size=STATE_BYTES))
        header, payload, signature = envelope["jws"].split(".")
        if payload or not _is_signed(
            STATE_TYPE, header, envelope["state"], signature, keys, verify
        ):
            raise UntrustedState(halt, "state.json was not written by the controller")
        state = decode(State, envelope["state"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedState(halt, f"state.json is unreadable: {error}") from error
    if (state.suffix, state.channel) != (names.suffix, names.channel):
        raise UntrustedState(halt, "state.json is another channel's")
    return state


def check_place(state: State, listed: Sequence[str]) -> None:
    """Raises UntrustedState unless the state lies where the controller wrote it: `listed` are the
    version of the object that it was read from, and the one right below that.

    So an older state that is put back is found out though its signature is right. Without
    versions in the bucket (`null`) nothing can be told.
    """
    here, *below = listed
    if here != UNVERSIONED and below != ([state.after] if state.after else []):
        raise UntrustedState(
            f"replayed-{here[:16]}", "state.json is an older one that somebody put back"
        )


def check_age(state: State | None, sequences: Iterable[int]) -> None:
    """Raises UntrustedState when jobs know more than the state.

    `sequences` are those of the channel's jobs whose documents verify: of the live ones, or where
    there is no state, of all that IoT still knows.
    """
    newest = max(sequences, default=None)
    if newest is None:
        return
    if state is None:
        raise UntrustedState(
            f"lost-{newest}", "state.json is missing although jobs of the channel exist"
        )
    if newest > state.sequence:
        raise UntrustedState(f"older-{newest}", "state.json is older than the jobs it made")


def recover_state(proof: Proof, names: Names, why: str, now: float) -> State:
    """A state to start from where none can be believed: what is proved, and no candidate. Whom that
    exposed, and whom jobs did that the state knows nothing of, is not forgotten."""
    state = proof.state or State()
    lost = "the state was lost"
    offers = [
        o if names.job(o.ring, o.sequence) in proof.live and o.aim == "keep" else _end_lost(o, lost)
        for o in state.offers
    ]
    known = {o.sequence for o in state.offers}
    releases = dict(state.releases)
    if state.candidate:
        firmware = state.candidate.firmware
        releases[firmware.sha256] = _withdrawn(firmware, lost, now)
    for job in proof.offers.values():
        if job.sequence not in known:
            offers.append(adopt_offer(job, lost, now))
            releases.setdefault(job.firmware.sha256, _withdrawn(job.firmware, lost, now))
    for digest in sorted(proof.refused):
        there = releases.get(digest)
        if there is None or there.standing != "refused":
            version = there.version if there else None
            refused = "a signed way back refuses it"
            releases[digest] = Release(version=version, standing="refused", why=refused, at=now)
    goods = [
        firmware
        for firmware in (state.last_good, state.previous_good)
        if firmware and not _is_refused(releases, firmware)
    ]
    recovered = Event(at=now, what="recovered", why=why[:KEPT_TEXT])
    return replace(
        state,
        sequence=proof.sequence,
        candidate=None,
        last_good=goods[0] if goods else None,
        previous_good=goods[1] if len(goods) > 1 else None,
        releases=releases,
        offers=tuple(sorted(offers, key=lambda o: o.sequence)),
        halt=None,
        decisions=(*state.decisions[-KEPT_DECISIONS + 1 :], recovered),
    )


def _is_refused(releases: Mapping[str, Release], firmware: Firmware) -> bool:
    release = releases.get(firmware.sha256)
    return release is not None and release.standing == "refused"


def _withdrawn(firmware: Firmware, why: str, now: float) -> Release:
    return Release(version=firmware.version, standing="withdrawn", why=why, at=now)


def _end_lost(offer: Offer, why: str) -> Offer:
    return replace(offer, phase=Phase.ENDING, why=why) if offer.is_wanted else offer


def adopt_offer(job: SignedOffer, why: str, now: float) -> Offer:
    """An offer that only its job remembers: it ends, and whom it exposed counts."""
    return Offer(
        ring=job.ring,
        sequence=job.sequence,
        firmware=job.firmware,
        aim="return" if job.ring == ROLLBACK else "prove",
        phase=Phase.ENDING,
        made_at=now,
        seen=True,
        why=why,
    )


# Jobs


def read_offer(
    job: str, document: str, names: Names, keys: Sequence[str], verify: Verify
) -> SignedOffer | None:
    """What a job's document offers; None unless one of the channel's keys signed it for ring and
    sequence of this very id."""
    parts = names.split_job(job)
    try:
        header, payload, signature = read_json(document)["release"].split(".")
        said = read_json(b64url_decode(payload))
        if parts is None or not isinstance(said, dict):
            return None
        meant = (names.channel, parts[1], job)
        if (said["channel"], said["sequence"], said["job"]) != meant:
            return None
        if not _is_signed(RELEASE_TYPE, header, said, signature, keys, verify):
            return None
        firmware = {key: said[key] for key in ("version", "sha256", "size", "hardware")}
        return SignedOffer(
            job=job,
            ring=parts[0],
            sequence=parts[1],
            firmware=decode(Firmware, firmware),
            refuses=tuple(str(digest) for digest in said.get("refuses", [])),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_signed(
    kind: SignedType,
    header: str,
    payload: Any,
    signature: str,
    keys: Sequence[str],
    verify: Verify,
) -> bool:
    """Whether the key that the header names is the channel's, and signed this payload. Raises
    ValueError where the signature is none."""
    for key in keys:
        signed = signing_input(kind, key, payload)
        if signed.split(".")[0] == header:
            return verify(key, signed, der_signature(b64url_decode(signature)))
    return False
