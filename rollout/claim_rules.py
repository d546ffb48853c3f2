"""Who may claim a serial number: the rules of the pre-provisioning hook. Pure.

A claim binds a serial to a public key. Whoever holds a claim certificate may try any serial; the
first key that claims one has it, until a person releases it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rollout.der import DerError, public_key_digest
from rollout.names import CLAIM_CLIENT, SERIAL_NAME, FleetNames, TemplateParameter
from rollout.orders import Order
from rollout.rings import Share, ring_of
from rollout.serial import CLAIM_SECONDS, Claim, Serial, SerialStatus

CERTIFICATE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
"""CertificateId of AWS IoT."""
ASKED = {TemplateParameter.SERIAL, TemplateParameter.CERTIFICATE}
"""Parameters that a request may have: the serial, and what AWS IoT may add itself. Whatever else a
device says could stand for something that only the hook may say."""


class ClaimRefusal(StrEnum):
    """Why a claim is refused, as the hook logs it."""

    MALFORMED = "malformed"
    """It is no request as the device contract has it."""
    CLAIM_CERTIFICATE = "claim-certificate"
    """It comes by a certificate that is none of the stack's active claim certificates."""
    CLIENT_ID = "client-id"
    """The client id is not `claim.` and the serial."""
    UNKNOWN = "unknown"
    """The registry has no such serial."""
    BLOCKED = "blocked"
    """A person blocked the serial."""
    QUARANTINED = "quarantined"
    """The serial's thing was cut off."""
    CLAIMED = "claimed"
    """Another key, or the same by another claim certificate, has the serial."""
    TOO_LATE = "too-late"
    """The key that has the serial asks again after CLAIM_SECONDS."""


class ClaimRefusedError(Exception):
    """A claim that is not allowed."""

    def __init__(self, reason: ClaimRefusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class ClaimRequest:
    """What a device asks for, as far as it matters."""

    serial: str
    certificate: str
    """Id of the certificate that the device wants to use from then on."""
    key: str
    """SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal."""
    by: str
    """Id of the claim certificate."""


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """What the fleet gives a device that comes in."""

    names: FleetNames
    rings: tuple[Share, ...]
    """In the order in which a release reaches them."""
    thing_type: str
    """Its full name."""
    hardware: str
    initial_version: str
    attributes: Mapping[str, str]
    """Beside the fleet's own three; a serial's record may have other values for these keys."""
    claim_certificates: frozenset[str]
    """Ids of those in use."""


def read_claim(event: Any, claim_certificates: Collection[str]) -> ClaimRequest:
    """The request in what AWS IoT hands to the hook. Raises ClaimRefusedError.

    See https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
    """
    event = event if isinstance(event, dict) else {}
    by, parameters = event.get("claimCertificateId"), event.get("parameters")
    if not isinstance(by, str) or by not in claim_certificates:
        raise ClaimRefusedError(ClaimRefusal.CLAIM_CERTIFICATE)
    certificate, pem = event.get("certificateId"), event.get("certificatePem")
    if (
        not isinstance(parameters, dict)
        or not parameters.keys() <= ASKED
        or parameters.get(TemplateParameter.CERTIFICATE, certificate) != certificate
        or not isinstance(certificate, str)
        or not CERTIFICATE_ID.fullmatch(certificate)
        or not isinstance(pem, str)
    ):
        raise ClaimRefusedError(ClaimRefusal.MALFORMED)
    serial = parameters.get(TemplateParameter.SERIAL)
    if not isinstance(serial, str) or not re.fullmatch(SERIAL_NAME, serial):
        raise ClaimRefusedError(ClaimRefusal.MALFORMED)
    if event.get("clientId") != CLAIM_CLIENT + serial:
        raise ClaimRefusedError(ClaimRefusal.CLIENT_ID)
    try:
        key = public_key_digest(pem)
    except DerError as error:
        raise ClaimRefusedError(ClaimRefusal.MALFORMED) from error
    return ClaimRequest(serial=serial, certificate=certificate, key=key, by=by)


def judge_claim(record: Serial | None, request: ClaimRequest, thing: str, now: float) -> Serial:
    """The record with the claim; the same one where it has it already. Raises ClaimRefusedError."""
    if record is None:
        raise ClaimRefusedError(ClaimRefusal.UNKNOWN)
    claim = Claim(
        thing=thing, certificate=request.certificate, key=request.key, by=request.by, at=now
    )
    what = "claimed"
    if record.status is SerialStatus.BLOCKED:
        raise ClaimRefusedError(ClaimRefusal.BLOCKED)
    if record.status is SerialStatus.CLAIMED:
        held = record.claim
        if held is None or (held.key, held.by) != (request.key, request.by):
            raise ClaimRefusedError(ClaimRefusal.CLAIMED)
        if now - held.at > CLAIM_SECONDS:
            raise ClaimRefusedError(ClaimRefusal.TOO_LATE)
        # the answer was lost: the time stays, so that asking again ends at some time
        claim, what = replace(held, certificate=request.certificate), "claimed again"
        if claim == held:
            return record
    order = Order(by=f"claim certificate {request.by}", at=now, why=request.certificate)
    return replace(record, status=SerialStatus.CLAIMED, claim=claim).note(what, order)


def choose_ring(record: Serial, rules: ClaimRules, groups: Collection[str]) -> str:
    """The name of the thing group of the device's ring: the ring that its thing is in, for a person
    may have moved it, else the one that its record names, else the one that the serial's hash says.

    `groups` are the names of those that its thing is in. Raises ClaimRefusedError where it was cut
    off.
    """
    if rules.names.quarantine_group in groups:
        raise ClaimRefusedError(ClaimRefusal.QUARANTINED)
    by_ring = {ring.name: rules.names.ring_group(ring.name) for ring in rules.rings}
    for group in by_ring.values():
        if group in groups:
            return group
    return by_ring.get(record.ring or "") or by_ring[ring_of(record.serial, rules.rings)]


def fill_template(record: Serial, rules: ClaimRules, group: str) -> dict[str, str]:
    """The template's parameters, all but the certificate's id, which AWS IoT knows."""
    own = {key: record.attributes.get(key, value) for key, value in rules.attributes.items()}
    return {
        TemplateParameter.SERIAL: record.serial,
        TemplateParameter.HARDWARE: rules.hardware,
        TemplateParameter.INITIAL_VERSION: rules.initial_version,
        TemplateParameter.RING_GROUP: group,
        TemplateParameter.THING: rules.names.thing(record.serial),
        TemplateParameter.THING_TYPE: rules.thing_type,
        **{TemplateParameter.attribute(key): value for key, value in own.items()},
    }
