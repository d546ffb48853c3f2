"""How a device comes in by claim: from a certificate that many share to one of its own.

The factory writes into a device its serial and a claim certificate with its key, the same for many
devices. On its first start the device makes a key of its own, which never leaves it, has AWS IoT
issue a certificate for it, and registers under its serial (fleet provisioning: CreateCertificate-
FromCsr, RegisterThing). Once its own certificate has connected, the claim is thrown away.

What came of each step is on flash before the next begins, so a power cut anywhere costs a request
at most: the next start goes on from there, with the same key. On a real board the key is made in
its secure element, and `Keyring` is a page of flash.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from device.agent import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, PowerCut
from device.download import draw_wait
from device.flash import write_atomically
from device.mqtt import Endpoint, MqttSession, Stopped, Unreachable, Unreadable
from rollout.codec import canonical_json, decode_text
from rollout.names import CLAIM_CLIENT

FIRST_REFUSED_SECONDS, MAX_REFUSED_SECONDS = 60.0, 3600.0
"""Bounds of the wait before a refused registration is tried again: the first, doubling to the
longest; each wait is drawn from 0 to its bound. A device that may not come in asks for ever, for
its serial may be added yet, and its requests must not drown the others'."""
GIVEN_THING = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
"""CreateThing's thingName."""
MAX_TOKEN = 8192
"""Characters of a certificateOwnershipToken that a device keeps; AWS names no limit."""
STALE_CODE = "InvalidCertificateOwnershipToken"
"""The errorCode of a token that RegisterThing does not take any more."""

CLAIM_FILES = ("claim.crt", "claim.key")
"""In the device's folder, from the factory: the claim certificate and its key, PEM."""

ClaimStep = Literal[
    "key made", "certificate issued", "certificate kept", "registered", "thing kept", "connected"
]
"""Where the power may be cut in a test: between what happens and what follows from it."""


class ClaimError(Exception):
    """The device can never come in as it is: the factory's part is missing."""


class ClaimRefused(Exception):
    """AWS IoT, or the function that it asks, says no."""


class StaleToken(Unreachable):
    """The token's hour is over, and AWS has deleted the certificate: a new one is to be asked
    for."""


@dataclass(frozen=True, kw_only=True)
class ClaimConfig(Endpoint):
    """What the factory gives every device, beside the claim certificate in its folder."""

    serial: str
    template: str
    """The stack's output provisioningTemplateName."""
    folder: Path
    """The device's flash, with CLAIM_FILES."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """As whom the device connects from now on; PEM texts."""

    thing: str
    certificate_pem: str
    private_key_pem: str


@dataclass(frozen=True, kw_only=True)
class IssuedCertificate:
    """AWS IoT's answer to CreateCertificateFromCsr."""

    certificate_pem: str
    token: str
    """Proves for an hour that the certificate is this device's."""


@dataclass(frozen=True, kw_only=True)
class ClaimMemory:
    """How far a device has come in."""

    certificate_pem: str | None = None
    token: str | None = None
    """Of the certificate, until it is registered."""
    thing: str | None = None


class ClaimClient(Protocol):
    """What a device asks of AWS IoT while it comes in; `ClaimConnection` says what each method
    does."""

    def start(self) -> None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...
    def request_certificate(self, csr_pem: str) -> IssuedCertificate: ...
    def register(self, token: str) -> str: ...
    def wait_for_connection(self) -> None: ...


OpenClaim = Callable[[ClaimConfig, str, str, str, Callable[[str], None]], ClaimClient]


class ClaimConnection(MqttSession):
    """A connection by the claim's certificate, or the first one by the device's own."""

    def __init__(
        self,
        config: ClaimConfig,
        client_id: str,
        certificate_pem: str,
        private_key_pem: str,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._config = config
        self._events: queue.SimpleQueue[bool] = queue.SimpleQueue()
        super().__init__(
            config,
            client_id,
            certificate_pem,
            private_key_pem,
            on_trouble=on_trouble,
            on_connected=lambda: self._events.put(True),
        )

    def interrupt(self) -> None:
        super().interrupt()
        self._events.put(False)

    def wait_for_connection(self) -> None:
        """Returns when a connection stands; the SDK tries until one does. Raises Stopped."""
        if not self._events.get():
            raise Stopped

    def request_certificate(self, csr_pem: str) -> IssuedCertificate:
        """A certificate for the key that signed the request (CreateCertificateFromCsr)."""
        answer = self._ask(
            "$aws/certificates/create-from-csr/json", {"certificateSigningRequest": csr_pem}
        )
        certificate, token = answer.get("certificatePem"), answer.get("certificateOwnershipToken")
        if not isinstance(certificate, str) or not isinstance(token, str):
            raise Unreadable("no certificate in the answer")
        if not 0 < len(token) <= MAX_TOKEN:
            raise Unreadable(f"a token of {len(token)} characters")
        return IssuedCertificate(certificate_pem=certificate, token=token)

    def register(self, token: str) -> str:
        """The name of the thing that the device is from now on (RegisterThing)."""
        topic = f"$aws/provisioning-templates/{self._config.template}/provision/json"
        parameters = {"SerialNumber": self._config.serial}
        answer = self._ask(topic, {"certificateOwnershipToken": token, "parameters": parameters})
        thing = answer.get("thingName")
        if not isinstance(thing, str) or not GIVEN_THING.fullmatch(thing):
            raise Unreadable("no thing in the answer")
        return thing

    def _ask(self, topic: str, request: dict[str, Any]) -> dict[str, Any]:
        answer = self.ask(topic, request)
        if answer.is_accepted:
            return answer.body
        code, message = answer.body.get("errorCode"), answer.body.get("errorMessage")
        status = answer.body.get("statusCode")
        status = status if isinstance(status, int) else 0
        if status == 429 or status >= 500:
            raise Unreachable(f"{code}: {message}")
        kind = StaleToken if code == STALE_CODE else ClaimRefused
        raise kind(f"{code}: {message}")


class Keyring:
    """What a device keeps of who it is, in its folder: `device.key`, `identity.json`, and until it
    is no longer needed the claim."""

    def __init__(self, folder: Path) -> None:
        self._key, self._file = folder / "device.key", folder / "identity.json"
        self._claim = [folder / name for name in CLAIM_FILES]
        self.memory = ClaimMemory()
        if self._file.exists():
            self.memory = decode_text(ClaimMemory, self._file.read_bytes())

    def remember(self, **changes: Any) -> None:
        self.memory = replace(self.memory, **changes)
        write_atomically(self._file, canonical_json(self.memory))

    def read_or_make_key(self) -> str:
        """The device's key (P-256, PKCS#8), made when there is none: one key for as long as the
        device lives."""
        if not self._key.exists():
            write_atomically(self._key, make_key())
        return self._key.read_text()

    @property
    def has_claim(self) -> bool:
        return any(file.exists() for file in self._claim)

    def read_claim(self) -> tuple[str, str]:
        """Certificate and key of the claim. Raises ClaimError where one of them is missing."""
        try:
            certificate, key = (file.read_text() for file in self._claim)
        except FileNotFoundError as error:
            raise ClaimError(f"the device has no claim certificate: {error.filename}") from None
        return certificate, key

    def throw_claim_away(self) -> None:
        """Its key first."""
        for file in reversed(self._claim):
            file.unlink(missing_ok=True)


class Claiming:
    """One device that comes in.

        config = ClaimConfig(
            serial="0001",
            template="gateways-1a2b3c4d-claim",
            ca_pem=Path("AmazonRootCA1.pem").read_text(),
            host="example-ats.iot.us-east-1.amazonaws.com",  # stack output iotEndpoint
            port=8883,
            folder=Path("/var/lib/ota"),
        )
        identity = Claiming(config, print, print).run()  # of a device that is in: at once

    `on_progress(text)` is told each step, `on_trouble(text)` why it takes longer. `die_at` is for
    tests: the power is cut there, and a new Claiming with the same folder is the next start.
    """

    def __init__(
        self,
        config: ClaimConfig,
        on_progress: Callable[[str], None] = lambda _: None,
        on_trouble: Callable[[str], None] = lambda _: None,
        *,
        die_at: ClaimStep | None = None,
        connect: OpenClaim = ClaimConnection,
    ) -> None:
        self._config, self._connect = config, connect
        self._notify, self._on_trouble = on_progress, on_trouble
        self._die_at = die_at
        self._keyring = Keyring(config.folder)
        self._iot: ClaimClient | None = None
        self._stop = threading.Event()
        self._last_trouble: str | None = None

    def stop(self) -> None:
        """Makes `run` raise Stopped; from any thread."""
        self._stop.set()
        if iot := self._iot:
            iot.interrupt()

    def run(self) -> Identity:
        """Returns when the device's own certificate has connected; tries for ever, and says why it
        has to. Raises ClaimError, Stopped, and PowerCut."""
        key_pem = self._keyring.read_or_make_key()
        self._pass("key made")
        retry = refused = 0.0
        while (thing := self._keyring.memory.thing) is None:
            try:
                self._register(key_pem)
            except Unreachable as error:
                self._complain(f"no answer: {error}")
                retry = min(2 * retry or FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
                self._wait(retry)
            except ClaimRefused as error:
                self._complain(f"refused: {error}")
                refused = min(2 * refused or FIRST_REFUSED_SECONDS, MAX_REFUSED_SECONDS)
                self._wait(refused)
        certificate = self._keyring.memory.certificate_pem
        if certificate is None:
            raise ClaimError("the device's memory has a thing without a certificate")
        identity = Identity(thing=thing, certificate_pem=certificate, private_key_pem=key_pem)
        if self._keyring.has_claim:
            self._connect_once(identity)
            self._keyring.throw_claim_away()
        return identity

    def _register(self, key_pem: str) -> None:
        """The steps that are still to do, by one connection with the claim's certificate."""
        keyring, client_id = self._keyring, f"{CLAIM_CLIENT}{self._config.serial}"
        iot = self._open(client_id, *keyring.read_claim())
        try:
            token = keyring.memory.token
            if token is None:
                issued = iot.request_certificate(make_csr(key_pem, self._config.serial))
                check_certificate(issued.certificate_pem, key_pem)
                self._pass("certificate issued")
                token = issued.token
                keyring.remember(certificate_pem=issued.certificate_pem, token=token)
                self._notify("has a certificate for its own key")
                self._pass("certificate kept")
            try:
                thing = iot.register(token)
            except StaleToken:
                keyring.remember(certificate_pem=None, token=None)
                raise
            self._pass("registered")
            keyring.remember(thing=thing, token=None)
            self._notify(f"is registered as {thing}")
            self._pass("thing kept")
        finally:
            self._close()

    def _connect_once(self, identity: Identity) -> None:
        """Shows that the device's own certificate works."""
        iot = self._open(identity.thing, identity.certificate_pem, identity.private_key_pem)
        try:
            iot.wait_for_connection()
            self._pass("connected")
        finally:
            self._close()

    def _open(self, client_id: str, certificate_pem: str, private_key_pem: str) -> ClaimClient:
        iot = self._connect(
            self._config, client_id, certificate_pem, private_key_pem, self._complain
        )
        self._iot = iot
        if self._stop.is_set():
            iot.interrupt()
        iot.start()
        return iot

    def _close(self) -> None:
        if iot := self._iot:
            self._iot = None
            iot.close()

    def _wait(self, bound: float) -> None:
        if self._stop.wait(draw_wait(bound)):
            raise Stopped

    def _complain(self, trouble: str) -> None:
        """The same trouble is told once."""
        if trouble != self._last_trouble:
            self._on_trouble(trouble)
        self._last_trouble = trouble

    def _pass(self, step: ClaimStep) -> None:
        if self._die_at == step:
            raise PowerCut(step)


def make_key() -> str:
    """A private key on P-256, PKCS#8 in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def make_csr(key_pem: str, name: str) -> str:
    """A certificate signing request (PEM) for the key, whose subject has the name."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(_load_key(key_pem), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def check_certificate(certificate_pem: str, key_pem: str) -> None:
    """Raises Unreadable unless the certificate is for the device's key."""
    try:
        public = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    except ValueError as error:
        raise Unreadable("a certificate that is none") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != _load_key(key_pem).public_key().public_bytes(*form):
        raise Unreadable("a certificate for another key")


def _load_key(key_pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(key_pem.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ClaimError("the device's key is not on P-256")
    return key
