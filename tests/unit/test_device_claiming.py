"""A device comes in by claim: whatever is lost on the way, and wherever the power is cut, it ends
with one key, one thing, and no claim."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import stat
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
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
from hypothesis import given
from hypothesis import strategies as st

from device import claiming
from device.agent import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, PowerCut
from device.claiming import (
    FIRST_REFUSED_SECONDS,
    MAX_REFUSED_SECONDS,
    ClaimConfig,
    ClaimConnection,
    ClaimError,
    Claiming,
    ClaimRefused,
    ClaimStep,
    Identity,
    IssuedCertificate,
    StaleToken,
    make_csr,
)
from device.flash import write_atomically
from device.mqtt import Answer, NoAnswer, Stopped, Unreachable, Unreadable

STEPS: tuple[ClaimStep, ...] = get_args(ClaimStep)
SERIAL, THING = "0001", "gateways-1a2b3c4d-0001"
AUTHORITY = ec.generate_private_key(ec.SECP256R1())
TROUBLES = ("fine", "lost before", "lost after", "hook fails late", "an hour passes")
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def issue(public_key: Any) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "AWS IoT Certificate")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public_key)
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(NOON).not_valid_after(NOON + datetime.timedelta(days=9999))
    return made.sign(AUTHORITY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def public_key(certificate_pem: str) -> bytes:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Cloud:
    """AWS IoT's fleet provisioning for one serial, as its pages say: certificates that are not
    registered within their token's hour are deleted, and the hook lets the key come again that
    claimed the serial. `troubles` happen to the next requests, one each."""

    troubles: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    claimed_by: bytes | None = None
    active: set[str] = field(default_factory=set)
    keys_seen: set[bytes] = field(default_factory=set)
    opened: list[tuple[str, str]] = field(default_factory=list)
    """Client ids and certificates of connections."""
    registered: int = 0
    is_open: bool = True
    """False: the serial is not in the registry."""

    def connect(
        self,
        config: ClaimConfig,
        client_id: str,
        certificate_pem: str,
        private_key_pem: str,
        on_trouble: Callable[[str], None],
    ) -> CloudClient:
        load_pem_private_key(private_key_pem.encode(), None)  # a connection needs a key
        self.opened.append((client_id, certificate_pem))
        return CloudClient(self, client_id, certificate_pem)

    def next_trouble(self) -> str:
        return self.troubles.pop(0) if self.troubles else "fine"


class CloudClient:
    def __init__(self, cloud: Cloud, client_id: str, certificate_pem: str) -> None:
        self.cloud, self.client_id, self.certificate_pem = cloud, client_id, certificate_pem
        self.interrupted = threading.Event()

    def start(self) -> None: ...

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None: ...

    def _begin(self) -> str:
        if self.interrupted.is_set():
            raise Stopped
        trouble = self.cloud.next_trouble()
        if trouble == "lost before":
            raise NoAnswer("no answer")
        if trouble == "an hour passes":
            self.cloud.tokens.clear()
        return trouble

    def request_certificate(self, csr_pem: str) -> IssuedCertificate:
        trouble = self._begin()
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        assert csr.is_signature_valid
        pem, token = issue(csr.public_key()), f"token-{len(self.cloud.opened)}"
        self.cloud.tokens[token] = pem
        self.cloud.keys_seen.add(public_key(pem))
        if trouble == "lost after":
            raise NoAnswer("no answer")
        return IssuedCertificate(certificate_pem=pem, token=token)

    def register(self, token: str) -> str:
        cloud, trouble = self.cloud, self._begin()
        pem = cloud.tokens.get(token)
        if pem is None:
            raise StaleToken("Certificate ownership token is invalid.")
        if not cloud.is_open or cloud.claimed_by not in (None, public_key(pem)):
            raise ClaimRefused("AccessDenied: Access Denied")
        cloud.claimed_by = public_key(pem)
        if trouble == "hook fails late":
            raise ClaimRefused("AccessDenied: Access Denied")
        cloud.active.add(pem)
        cloud.registered += 1
        if trouble == "lost after":
            raise NoAnswer("no answer")
        return THING

    def wait_for_connection(self) -> None:
        assert self.client_id == THING
        assert self.certificate_pem in self.cloud.active, "AWS would refuse the connection"


def factory(folder: Path) -> ClaimConfig:
    """A device as it leaves the factory."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "claim.key").write_text(pem_of(key))
    (folder / "claim.crt").write_text(issue(key.public_key()))
    return config(folder)


def config(folder: Path) -> ClaimConfig:
    return ClaimConfig(
        ca_pem="", host="iot.example", port=8883, serial=SERIAL, template="t", folder=folder
    )


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds of all waits, which take no time."""
    bounds: list[float] = []

    def draw(bound: float) -> float:
        bounds.append(bound)
        return 0.0

    monkeypatch.setattr(claiming, "draw_wait", draw)
    return bounds


def start(
    cloud: Cloud,
    config: ClaimConfig,
    die_at: ClaimStep | None = None,
    told: list[str] | None = None,
) -> Identity | None:
    """One start of the device; None where its power was cut."""
    tell = (told if told is not None else []).append
    try:
        return Claiming(config, tell, tell, die_at=die_at, connect=cloud.connect).run()
    except PowerCut:
        return None


def came_in_well(cloud: Cloud, folder: Path, identity: Identity) -> None:
    key = load_pem_private_key(identity.private_key_pem.encode(), None)
    own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert identity.thing == THING
    assert identity.certificate_pem in cloud.active
    assert public_key(identity.certificate_pem) == own == cloud.claimed_by
    assert cloud.keys_seen == {own}, "one key, however often it asked"
    assert sorted(path.name for path in folder.iterdir()) == ["device.key", "identity.json"]
    assert '"token"' not in (folder / "identity.json").read_text()
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_device_comes_in_and_never_asks_again(tmp_path: Path, waits: list[float]) -> None:
    cloud, told = Cloud(), list[str]()
    config = factory(tmp_path)
    claim = (tmp_path / "claim.crt").read_text()
    identity = start(cloud, config, told=told)
    assert identity is not None
    came_in_well(cloud, tmp_path, identity)
    assert cloud.opened == [(f"claim.{SERIAL}", claim), (THING, identity.certificate_pem)]
    assert told == ["has a certificate for its own key", f"is registered as {THING}"]
    assert start(cloud, config) == identity
    assert (len(cloud.opened), cloud.registered, waits) == (2, 1, [])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("waits")
def test_a_power_cut_at_each_step_is_survived(tmp_path: Path, step: ClaimStep) -> None:
    cloud, config = Cloud(), factory(tmp_path)
    assert start(cloud, config, die_at=step) is None
    assert (tmp_path / "claim.key").exists(), "the claim stays until the device is in"
    identity = start(cloud, config)
    assert identity is not None
    came_in_well(cloud, tmp_path, identity)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("cut", range(5))
def test_a_power_cut_within_a_change_of_the_flash_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Of the files that it writes, and of those it throws away."""
    cloud, config, changes = Cloud(), factory(tmp_path), iter(range(99))
    write, unlink = write_atomically, Path.unlink

    def count_down() -> None:
        if next(changes) == cut:
            raise PowerCut

    def cut_write(file: Path, text: str) -> None:
        half = file.with_name(f"{file.name}.new")
        half.touch(0o600)
        half.write_text(text[: len(text) // 2])
        count_down()
        write(file, text)

    def cut_unlink(file: Path, missing_ok: bool = False) -> None:
        count_down()
        unlink(file, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(claiming, "write_atomically", cut_write)
        patched.setattr(Path, "unlink", cut_unlink)
        assert start(cloud, config) is None
    identity = start(cloud, config)
    assert identity is not None
    for left in tmp_path.glob("*.new"):  # on a real board: a page that the next write takes
        left.unlink()
    came_in_well(cloud, tmp_path, identity)


@given(
    troubles=st.lists(st.sampled_from(TROUBLES), max_size=12),
    cuts=st.lists(st.sampled_from((None, *STEPS)), max_size=8),
)
def test_whatever_is_lost_on_the_way_it_ends_with_one_key_and_one_thing(
    troubles: list[str], cuts: list[ClaimStep | None]
) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(claiming, "draw_wait", lambda _: 0.0)
        folder, cloud = Path(name), Cloud(troubles=list(troubles))
        config, identity = factory(folder), None
        for cut in (*cuts, None):
            identity = start(cloud, config, die_at=cut) or identity
        assert identity is not None
        came_in_well(cloud, folder, identity)


def test_a_refused_device_asks_for_ever_ever_more_rarely_and_says_why_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, told, bounds = Cloud(is_open=False), list[str](), list[float]()

    def draw(bound: float) -> float:
        bounds.append(bound)
        cloud.is_open = len(bounds) == 12  # the serial is added to the registry
        return 0.0

    monkeypatch.setattr(claiming, "draw_wait", draw)
    identity = start(cloud, factory(tmp_path), told=told)
    assert identity is not None
    came_in_well(cloud, tmp_path, identity)
    doubling = [min(FIRST_REFUSED_SECONDS * 2**n, MAX_REFUSED_SECONDS) for n in range(12)]
    assert bounds == doubling
    assert told.count("refused: AccessDenied: Access Denied") == 1
    assert len(cloud.tokens) == 1, "a refusal is no reason for another certificate"


def test_a_device_without_an_answer_asks_again_soon(tmp_path: Path, waits: list[float]) -> None:
    cloud, told = Cloud(troubles=["lost before"] * 9), list[str]()
    assert start(cloud, factory(tmp_path), told=told)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, *3 * [MAX_RETRY_SECONDS]]
    assert told[0] == "no answer: no answer"


def test_a_token_whose_hour_is_over_costs_a_new_certificate_for_the_same_key(
    tmp_path: Path, waits: list[float]
) -> None:
    cloud, config = Cloud(), factory(tmp_path)
    assert start(cloud, config, die_at="certificate kept") is None
    cloud.tokens.clear()
    identity = start(cloud, config)
    assert identity is not None
    came_in_well(cloud, tmp_path, identity)
    assert waits == [FIRST_RETRY_SECONDS]


@pytest.mark.usefixtures("waits")
def test_a_certificate_for_another_key_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an answer to somebody else's request would hold one."""
    cloud, told, other = Cloud(), list[str](), ec.generate_private_key(ec.SECP256R1())
    honest, answers = CloudClient.request_certificate, iter([issue(other.public_key()), "none"])

    def forged(client: CloudClient, csr_pem: str) -> IssuedCertificate:
        issued, pem = honest(client, csr_pem), next(answers, "")
        return dataclasses.replace(issued, certificate_pem=pem) if pem else issued

    monkeypatch.setattr(CloudClient, "request_certificate", forged)
    identity = start(cloud, factory(tmp_path), told=told)
    assert identity is not None
    came_in_well(cloud, tmp_path, identity)
    assert told[:2] == [
        "no answer: a certificate for another key",
        "no answer: a certificate that is none",
    ]


def test_a_device_that_is_stopped_ends_in_the_middle_of_a_wait(tmp_path: Path) -> None:
    cloud, ended = Cloud(is_open=False), threading.Event()
    device = Claiming(factory(tmp_path), on_trouble=lambda _: device.stop(), connect=cloud.connect)

    def run() -> None:
        with pytest.raises(Stopped):
            device.run()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(10)


@pytest.mark.parametrize("missing", ["claim.crt", "claim.key"])
def test_a_device_without_its_claim_says_what_is_missing(tmp_path: Path, missing: str) -> None:
    config = factory(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ClaimError, match=missing):
        start(Cloud(), config)


def test_the_request_names_the_serial_and_holds_no_key() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = make_csr(pem_of(key), SERIAL)
    assert x509.load_pem_x509_csr(csr.encode()).subject.rfc4514_string() == f"CN={SERIAL}"
    assert "PRIVATE" not in csr


# What comes over MQTT


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A connection whose answers the test writes, and what it asked."""
    asked: list[tuple[str, dict[str, Any]]] = []
    answers: list[Answer] = []

    def ask(_: object, topic: str, request: dict[str, Any], token: object = None) -> Answer:
        asked.append((topic, request))
        return answers.pop(0)

    monkeypatch.setattr(ClaimConnection, "ask", ask)
    connection = ClaimConnection.__new__(ClaimConnection)
    connection._config = config(tmp_path)
    return connection, asked, answers


def test_the_requests_are_those_of_the_fleet_provisioning_api(wire: Any) -> None:
    connection, asked, answers = wire
    answers += [
        Answer(
            is_accepted=True,
            body={
                "certificateId": "a" * 64,
                "certificatePem": "pem",
                "certificateOwnershipToken": "token",
            },
        ),
        Answer(is_accepted=True, body={"thingName": THING, "deviceConfiguration": {}}),
    ]
    issued = connection.request_certificate("csr")
    assert issued == IssuedCertificate(certificate_pem="pem", token="token")
    assert connection.register("token") == THING
    assert asked == [
        ("$aws/certificates/create-from-csr/json", {"certificateSigningRequest": "csr"}),
        (
            "$aws/provisioning-templates/t/provision/json",
            {"certificateOwnershipToken": "token", "parameters": {"SerialNumber": SERIAL}},
        ),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"certificatePem": "pem"},
        {"certificatePem": "pem", "certificateOwnershipToken": ""},
        {"certificatePem": "pem", "certificateOwnershipToken": "x" * 8193},
        {"certificatePem": 1, "certificateOwnershipToken": "token"},
        {"thingName": "two words"},
        {"thingName": "x" * 129},
        {"thingName": None},
    ],
)
def test_an_answer_that_cannot_be_right_counts_as_none(wire: Any, body: dict[str, Any]) -> None:
    connection, _, answers = wire
    answers.append(Answer(is_accepted=True, body=body))
    with pytest.raises(Unreadable):
        connection.register("token") if "thingName" in body else connection.request_certificate("")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "Some", ClaimRefused),
        (403, "AccessDenied", ClaimRefused),
        ("x", "Some", ClaimRefused),
        (429, "Some", Unreachable),
        (500, "Some", Unreachable),
        (400, "InvalidCertificateOwnershipToken", StaleToken),
    ],
)
def test_what_a_rejection_means(
    wire: Any, status: object, code: str, error: type[Exception]
) -> None:
    connection, _, answers = wire
    body = {"statusCode": status, "errorCode": code, "errorMessage": "words"}
    answers.append(Answer(is_accepted=False, body=body))
    with pytest.raises(error, match=f"^{code}: words$"):
        connection.register("token")


def test_the_usage_example_names_every_field_of_the_config() -> None:
    example = textwrap.dedent(inspect.cleandoc(Claiming.__doc__ or "").split("\n\n")[1])
    call = next(node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call))
    fields = {field.name for field in dataclasses.fields(ClaimConfig)}
    assert {keyword.arg for keyword in call.keywords} == fields
