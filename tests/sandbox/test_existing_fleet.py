"""An account full of things that nobody made for this stack: taken over, released to, rolled
back."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud.shadows import Reported, reported
from device.agent import Device, DeviceConfig
from ops.local_aws import ACCOUNT
from rollout.rings import RING_ATTRIBUTE, ring_of
from sandbox import session
from tests.sandbox.conftest import free_instance
from tests.sandbox.fleet import EVERYBODY, Fleet, wait_for

PUMPS = [f"Pump:{number:03}_A" for number in range(300)]
VALVES = [f"valve-{number:03}" for number in range(194)]
REAL = [f"Real:{number}" for number in range(6)]
"""Things with a device: three for canary, three for broad."""
CROWDED = [*PUMPS[:5], *VALVES[:5]]
"""In ten groups."""
GATES = {
    "canary": {"coveragePercent": 5, "minimumSucceeded": 2},
    "broad": {"coveragePercent": 1, "minimumSucceeded": 3},
}
"""Most of the things have no device behind them: their jobs stay queued."""
FAST = ("--times", "100")
"""The local AWS has no quotas."""


def in_parallel(do: Callable[[str], object], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(do, names))


class Account:
    """What was there before the stack."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.iot = fleet, fleet.client("iot")
        key = ec.generate_private_key(ec.SECP256R1())
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "legacy")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        self.csr = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        self.certificates: dict[str, tuple[str, str]] = {}
        """By thing, or gateway: ARN and PEM of its certificate."""
        self.locks: dict[str, Lock] = defaultdict(Lock)

    def fill(self) -> None:
        for kind in ("legacy-pump", "legacy-valve"):
            self.iot.create_thing_type(thingTypeName=kind)
        client = f"arn:aws:iot:{self.fleet.region}:{ACCOUNT}:client/legacy"
        connect = {"Effect": "Allow", "Action": "iot:Connect", "Resource": client}
        document = json.dumps({"Version": "2012-10-17", "Statement": [connect]})
        self.iot.create_policy(policyName="legacy", policyDocument=document)
        for number in range(10):
            self.iot.create_thing_group(thingGroupName=f"legacy-{number}")
        in_parallel(self._make, [*PUMPS, *VALVES, *REAL])

    def _make(self, name: str) -> None:
        number = int("".join(filter(str.isdigit, name)))
        kind = {"P": "legacy-pump", "v": "legacy-valve"}.get(name[0])
        serial = {"serial": f"V{number}"} if kind == "legacy-valve" else {}
        self.iot.create_thing(
            thingName=name,
            **({"thingTypeName": kind} if kind else {}),
            attributePayload={"attributes": {"site": "north", **serial}},
        )
        # five valves are behind one gateway, whose certificate is theirs
        gateway = number // 5
        owner, odd = (f"gateway-{gateway}", gateway % 2) if serial else (name, number % 2)
        with self.locks[owner]:
            arn, _ = self.certificates.get(owner) or self._certify(owner, has_policy=bool(odd))
        self.certificates[name] = self.certificates[owner]
        self.iot.attach_thing_principal(thingName=name, principal=arn)
        for group in range(10 if name in CROWDED else number % 4 == 0):
            self.iot.add_thing_to_thing_group(thingGroupName=f"legacy-{group}", thingName=name)

    def _certify(self, owner: str, *, has_policy: bool) -> tuple[str, str]:
        made = self.iot.create_certificate_from_csr(
            certificateSigningRequest=self.csr, setAsActive=True
        )
        found = self.certificates[owner] = made["certificateArn"], made["certificatePem"]
        if has_policy:
            self.iot.attach_policy(policyName="legacy", target=found[0])
        return found

    def members(self, ring: str) -> set[str]:
        pages = self.iot.get_paginator("list_things_in_thing_group").paginate(
            thingGroupName=self.fleet.sandbox.names.ring_group(ring)
        )
        return {thing for page in pages for thing in page["things"]}

    def device(self, name: str) -> DeviceConfig:
        """A device that ran before the stack was there."""
        return replace(
            self.fleet.configs[EVERYBODY[0]],
            thing=name,
            serial=name.replace(":", "-"),
            certificate_pem=self.certificates[name][1],
            private_key_pem=self.key,
            folder=self.fleet.instance.folder / "legacy" / name.replace(":", "-"),
        )

    def reported(self, name: str) -> Reported | None:
        return reported(self.fleet.sandbox.clients, name)

    def run(self, version: str) -> bool:
        """Whether all real devices run this version."""
        found = map(self.reported, REAL)
        return all(one is not None and one.version == version for one in found)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The stack with its pilot's devices on 2.1.0, in an account with 500 other things."""
    instance = free_instance(tmp_path_factory.mktemp("existing") / "sandbox")
    try:
        fleet = Fleet(instance)
        account = Account(fleet)
        account.fill()
        fleet.connect()
        fleet.proved("2.1.0")
        yield account
        fleet.disconnect()
    finally:
        session.down(instance)


def test_an_account_full_of_things_is_taken_over_released_to_and_rolled_back(
    account: Account, tmp_path: Path
) -> None:
    fleet, report = account.fleet, tmp_path / "report.csv"
    shares = fleet.sandbox.manifest().rings

    # first, what would become of them
    some = ("--query", "thingName:valve-01*")
    said = fleet.ops("rings", "place", *some, "--dry-run", *FAST, "--report", str(report))
    with report.open() as stream:
        lacks = Counter(row["lacks"].split()[0] for row in csv.DictReader(stream))
    assert lacks == {"no-policy": 5, "not-our-policy": 5}
    assert "LEFT OUT, 5: valve-010, valve-011" in said
    assert account.members("canary") | account.members("broad") == {
        fleet.thing(serial) for serial in EVERYBODY
    }, "a dry run changes nothing"

    # by type and by query; then those with devices, three of them into canary by name
    said = fleet.ops("rings", "place", "--thing-type", "legacy-pump", "--mend", *FAST)
    assert "LEFT OUT, 5: Pump:000_A, Pump:001_A" in said
    fleet.ops("rings", "place", "--query", "thingName:valve-*", "--mend", *FAST)
    rows = [f"{name},{'canary' if n < 3 else ''}" for n, name in enumerate(REAL)]
    (tmp_path / "real.csv").write_text("\n".join(["thing,ring", *rows]))
    fleet.ops("rings", "place", "--file", str(tmp_path / "real.csv"), "--mend", *FAST)

    canary, broad = account.members("canary"), account.members("broad")
    serials = {name: name for name in (*PUMPS, *REAL[3:])}
    serials |= {name: f"V{int(name[-3:])}" for name in VALVES}
    for name, serial in serials.items():
        ring = {name in canary: "canary", name in broad: "broad"}.get(True)
        assert ring == (None if name in CROWDED else ring_of(serial, shares)), name
    assert set(REAL[:3]) <= canary
    about = account.iot.describe_thing(thingName=REAL[0])["attributes"]
    assert about == {"site": "north", RING_ATTRIBUTE: "canary"}
    assert len(canary | broad) == 500 + len(EVERYBODY) - len(CROWDED)
    again = fleet.ops("rings", "place", *some, "--mend", *FAST)
    assert "There is nothing to do." in again

    devices = [Device(account.device(name)) for name in REAL]
    try:
        for device in devices:
            device.start()
        wait_for("joiners to be given what is good", lambda: account.run("2.1.0"))

        fleet.release("2.2.0", gates=GATES)
        wait_for("the broad ring's devices", lambda: account.run("2.2.0"))

        fleet.ship("2.3.0", bad=True, gates=GATES)
        state = fleet.went_back("2.3.0")
        assert state.way_back is not None
        wait_for("everybody to be back", lambda: account.run("2.2.0"))
        back = {
            name
            for name in REAL
            if (one := account.reported(name)) and one.sequence > state.way_back.group
        }
        assert back == set(REAL[:3]), "who was exposed, and nobody else"
    finally:
        with ThreadPoolExecutor(len(devices)) as pool:
            list(pool.map(Device.stop, devices))

    # a thing leaves the ring that it was named into when its name is taken back
    account.iot.update_thing(
        thingName=REAL[0],
        attributePayload={"attributes": {RING_ATTRIBUTE: ""}, "merge": True},
    )
    said = fleet.ops("rings", "spread", *FAST)
    assert f"MOVE from canary to {ring_of(REAL[0], shares)}, 1: {REAL[0]}" in said
    assert REAL[0] in account.members(ring_of(REAL[0], shares))
